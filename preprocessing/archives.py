"""Archives (.zip, .tar, .tar.gz) read member by member: nothing is unpacked to disk, and nothing unpacks too much."""

import gzip
import shutil
import stat
import tarfile
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TypeVar

from preprocessing.blocks import DAMAGE, Reading
from preprocessing.formats import ARCHIVE, FORMATS, suffix_of, unknown_kind

Item = TypeVar("Item")
ReadMember = Callable[[str, IO[bytes]], Iterator[Item]]

BOMB_RATIO, BOMB_SIZE = 100, 50 << 20  # what unpacks to more than both is not read


def read_archive(path: Path, name: str, reading: Reading, read_member: ReadMember[Item]) -> Iterator[Item]:
    """Yield what `read_member(name, stream)` yields for each member; what cannot be read is counted in `reading`.

    Members of a .zip are read in the order of their names, those of a .tar in the order of the archive.
    """
    read = _read_zip if suffix_of(name) == ".zip" else _read_tar
    try:
        yield from read(path, name, reading, read_member)
    except DAMAGE:
        reading.drop("damaged archive", name)


def _read_zip(path: Path, name: str, reading: Reading, read_member: ReadMember[Item]) -> Iterator[Item]:
    with zipfile.ZipFile(path) as archive:
        for info in sorted(archive.infolist(), key=lambda info: info.filename):
            member = f"{name}/{info.filename}"
            if info.filename.endswith("/"):
                continue
            reason = _reason_to_skip(member)
            if reason is None and info.file_size > max(BOMB_SIZE, BOMB_RATIO * info.compress_size):
                reason = "unpacks too much"
            elif reason is None and info.flag_bits & 1:
                reason = "encrypted member"
            elif reason is None and stat.S_IFMT(info.external_attr >> 16) not in (0, stat.S_IFREG):
                reason = "link or device"
            if reason is not None:
                reading.drop(reason, member)
                continue
            try:
                with archive.open(info) as stream:
                    yield from read_member(member, stream)
            except DAMAGE:
                reading.drop("damaged member", member)


def _read_tar(path: Path, name: str, reading: Reading, read_member: ReadMember[Item]) -> Iterator[Item]:
    limit = max(BOMB_SIZE, BOMB_RATIO * path.stat().st_size)
    opened = path.open("rb") if suffix_of(name) == ".tar" else gzip.GzipFile(path)
    with opened as stream, tarfile.open(fileobj=stream, mode="r|", errors="replace") as archive:
        for info in archive:
            archive.members.clear()  # type: ignore[attr-defined]  # a million headers fill the memory
            member = f"{name}/{info.name}"
            if info.offset_data + info.size > limit:
                reading.drop("unpacks too much", member)
                return  # the next header follows what would have to be unpacked
            if info.isdir():
                continue
            reason = _reason_to_skip(member) if info.isfile() else "link or device"
            if reason is not None:
                reading.drop(reason, member)
                continue
            content = archive.extractfile(info)
            assert content is not None  # it is a regular file
            with content, _seekable(content) if suffix_of(member) == ".parquet" else content as file:
                yield from read_member(member, file)


def _reason_to_skip(name: str) -> str | None:
    suffix = suffix_of(name)
    if FORMATS.get(suffix) == ARCHIVE:
        return "archive inside an archive"
    return None if suffix else unknown_kind(name)


@contextmanager
def _seekable(stream: IO[bytes]) -> Iterator[IO[bytes]]:
    """Give a copy of a stream that can be read from its end, as parquet is."""
    with tempfile.TemporaryFile() as copy:
        shutil.copyfileobj(stream, copy)
        yield copy
