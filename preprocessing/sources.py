"""Where raw music comes from: files, folders, archives, tables, scores and data sets on the Hub, read as a stream.

Memory is bounded whatever the input. What cannot be read is left out and counted; the rest is read.
"""

import gzip
import importlib.util
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, cast

from cli import UserError
from preprocessing.archives import read_archive
from preprocessing.blocks import Block, Reading, file_sha256
from preprocessing.conversion import MAX_SCORE, Conversion, Score, convert_scores
from preprocessing.formats import ARCHIVE, FORMATS, suffix_of, unknown_kind
from preprocessing.hub_datasets import HUB, hub_fingerprint, read_hub
from preprocessing.tables import DAMAGED_TABLE, SESSION, NoTextColumnError, Row, row_blocks
from preprocessing.text_files import text_blocks

BUNDLED = "bundled"
NON_COMMERCIAL = "non-commercial use"
OLD_PRINT = "old printed tunes, transcribed by volunteers"
LICENCES = {
    "essenFolksong": NON_COMMERCIAL,
    "josquin": "GNU General Public License",
    "oneills1850": OLD_PRINT,
    "ryansMammoth": OLD_PRINT,
    "airdsAirs": OLD_PRINT,
    SESSION: "Open Database License; training language models is forbidden since 2025-10-08: read its LICENSE.md",
}


def fingerprint(source: str) -> dict[str, str]:
    """Return name → SHA-256 of each input file of a source, or `hub:OWNER/NAME:CONFIG` → the commit's sha.

    Raises UserError for a path that is missing, empty or of an unknown kind, and for a data set that cannot be had.
    """
    if source.startswith(HUB):
        return hub_fingerprint(source)
    root, files = _input_files(source)
    hashes = {}
    for path in files:
        try:
            hashes[_relative_name(path, root)] = file_sha256(path)
        except PermissionError:
            if path == root:
                raise
            hashes[_relative_name(path, root)] = "no permission to read"
    return hashes


def name_sources(sources: Sequence[str]) -> list[str]:
    """Return a name for each source without its path: a path's last part, numbered if it is not the first of its name.

    With the fingerprints, these names decide what is read.
    """
    names: list[str] = []
    counts: Counter[str] = Counter()
    for source in sources:
        path = Path(source)
        local = source != BUNDLED and not source.startswith(HUB)
        name = (path.resolve() if path.is_dir() else path).name if local else source
        counts[name] += 1
        names.append(name if counts[name] == 1 else f"{name} ({counts[name]})")
    return names


def read_source(
    source: str, inputs: dict[str, str], reading: Reading, text_column: str | None, workers: int
) -> Iterator[Block]:
    """Yield the blocks of a source in the order of its files' names and fill `reading`.

    `inputs` is the source's fingerprint; a data set is read at that commit. `text_column` names the column of tables
    that holds the ABC, by default the first of TEXT_COLUMNS. `workers` scores are converted in parallel.

    Raises UserError as `fingerprint` does, for a table without such a column, and for scores if music21 is missing.
    """
    if source.startswith(HUB):
        blocks = read_hub(source, inputs, reading, text_column)
    else:
        root, files = _input_files(source)
        if root.is_dir() and source != BUNDLED:
            _count_other_files(root, set(files), reading)
        blocks = _SourceReader(root, reading, text_column).blocks(files, workers)
    for block in blocks:
        if block.source in LICENCES:
            reading.licences[block.source] = LICENCES[block.source]
        yield block


def _input_files(source: str) -> tuple[Path, list[Path]]:
    """Return the path of a source and the files to read, in the order of their names. Raises UserError."""
    root = _bundled_folder() if source == BUNDLED else Path(source)
    if root.is_file():
        if not suffix_of(root.name):
            raise UserError(f"--source {source}: not a known kind of file; known are {', '.join(FORMATS)}")
        return root, [root]
    if not root.is_dir():
        raise UserError(f"--source {source}: no such file or folder (bundled, a path, or {HUB}OWNER/NAME)")
    suffixes = {".abc"} if source == BUNDLED else set(FORMATS)
    files = sorted(
        path for path in _walk(root) if suffix_of(path.name) in suffixes and path.is_file() and not path.is_symlink()
    )
    if not files:
        raise UserError(f"--source {source}: no file of a known kind in it; known are {', '.join(sorted(suffixes))}")
    return root, files


def _bundled_folder() -> Path:
    """Return the folder of music21's corpus, found without importing music21 (its import takes seconds)."""
    package = importlib.util.find_spec("music21")
    if package is None or not package.submodule_search_locations:
        raise UserError("the package music21 is not installed: pip install music21, or name another --source")
    return Path(package.submodule_search_locations[0]) / "corpus"


def _walk(root: Path) -> Iterator[Path]:
    """Yield the files below a folder, then the folders that may not be read; links are not followed."""
    unreadable: list[OSError] = []
    for folder, names, files in os.walk(root, onerror=unreadable.append):
        names.sort()
        yield from (Path(folder) / name for name in sorted(files))
    yield from (Path(error.filename) for error in unreadable)


def _count_other_files(root: Path, known: set[Path], reading: Reading) -> None:
    for path in _walk(root):
        name = _relative_name(path, root)
        if path.is_dir() and not path.is_symlink():
            reading.drop("no permission to read", name)
        elif path.is_symlink() or not path.is_file():
            reading.drop("link or device", name)
        elif path not in known:
            reading.drop(unknown_kind(path.name), name)


def _relative_name(path: Path, root: Path) -> str:
    name = path.name if path == root else path.relative_to(root).as_posix()
    return os.fsencode(name).decode(errors="replace")  # a name that is not text could not be written


@dataclass
class _SourceReader:
    """Reads the files of one local source."""

    root: Path
    reading: Reading
    text_column: str | None

    def blocks(self, files: list[Path], workers: int) -> Iterator[Block]:
        items = (item for path in files for item in self.read_file(path))
        for item in convert_scores(items, workers):
            yield from self.count_conversion(item) if isinstance(item, Conversion) else [item]

    def read_file(self, path: Path) -> Iterator[Block | Score]:
        name = _relative_name(path, self.root)
        if FORMATS[suffix_of(name)] == ARCHIVE:
            yield from read_archive(path, name, self.reading, self.read_member)
            return
        try:
            stream = path.open("rb")
        except PermissionError:
            self.reading.drop("no permission to read", name)
            return
        with stream:
            yield from self.read_member(name, stream)

    def read_member(self, name: str, stream: IO[bytes]) -> Iterator[Block | Score]:
        """Yield what a file, or a member of an archive, holds."""
        suffix = suffix_of(name)
        known = FORMATS[suffix]
        self.reading.files += 1
        if known.rows:
            unpacked = cast(IO[bytes], gzip.GzipFile(fileobj=stream)) if suffix.endswith(".gz") else stream
            yield from self.read_table(name, known.rows(unpacked))
        elif known.to_abc:
            data = stream.read(MAX_SCORE + 1)
            self.reading.bytes += len(data)
            yield Score(name, known.kind, known.to_abc, data)
        else:
            yield from text_blocks(name, self.collection(name), stream, self.reading)

    def read_table(self, name: str, rows: Iterator[Row | str]) -> Iterator[Block]:
        try:
            yield from row_blocks(rows, name, self.collection(name), self.reading, self.text_column)
        except NoTextColumnError as error:
            if self.root.is_file() and self.root.name == name:
                raise UserError(f"--source {self.root}: {error}; name it with --text_column") from None
            self.reading.drop("table without a text column", name)
        except DAMAGED_TABLE:
            self.reading.drop("damaged table", name)

    def collection(self, name: str) -> str:
        """Return the collection that a file belongs to: its first folder or archive, else the source itself."""
        first = PurePosixPath(name).parts[0] if "/" in name or self.root.is_file() else self.root.resolve().name
        return first[: len(first) - len(suffix_of(first))]

    def count_conversion(self, result: Conversion) -> Iterator[Block]:
        counts = self.reading.converted.setdefault(result.kind, Counter())
        counts["tried"] += 1
        counts[result.failure or "converted"] += 1
        if result.percussion:
            counts["percussion parts left out"] += result.percussion
        if result.failure is not None:
            self.reading.dropped.add(f"{result.kind}: {result.failure}", result.name)
        else:
            yield Block(self.collection(result.name), result.name, result.abc)
