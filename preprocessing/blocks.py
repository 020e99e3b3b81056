"""Blocks of raw ABC, and the record of what was read and what was left out."""

import hashlib
import lzma
import tarfile
import zipfile
import zlib
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

MAX_NAMED = 1000  # files and tunes named for each reason to drop them; all are counted

DAMAGE = (  # what the reading of a damaged file or archive raises
    zipfile.BadZipFile, tarfile.TarError, lzma.LZMAError, zlib.error,
    EOFError, NotImplementedError, OSError, UnicodeError,
)  # fmt: skip


@dataclass(frozen=True)
class Block:
    """Whole tunes of raw ABC: about 1 MB of a text file, one row of a table, or one converted score.

    `source` is the collection, `file` the path below the source (inside an archive `tunes.zip/folder/a.abc`).
    `content` is undecoded (bytes) if it comes from a text file, `charset` the encoding that the file declares,
    `defaults` the fields of its file header by letter, `line` the number of the block's first line in the file.
    `group` is a name shared by tunes that the source lists as settings of one tune.
    """

    source: str
    file: str
    content: bytes | str
    charset: str | None = None
    group: str | None = None
    defaults: dict[str, str] = field(default_factory=dict)
    line: int = 1


class DroppedNames(dict[str, list[dict[str, str]]]):
    """What was left out, by reason: the `file` (or member, or row) and the `tune` in it, "" if it is the whole file.

    At most MAX_NAMED are named for each reason.
    """

    def add(self, reason: str, file: str, tune: str = "") -> None:
        """Add one entry; a whole file is not repeated."""
        known, name = self.setdefault(reason, []), {"file": file, "tune": tune}
        if len(known) < MAX_NAMED and (tune or known[-1:] != [name]):
            known.append(name)

    def include(self, other: "DroppedNames") -> None:
        """Add the entries of another record."""
        for reason, names in other.items():
            known = self.setdefault(reason, [])
            known += names[: MAX_NAMED - len(known)]


@dataclass
class Reading:
    """What was read and what was left out; filled while a source is read.

    `files` counts files, members of archives and splits of data sets, `bytes` their unpacked content. `drops` counts
    files, members and rows by reason, `dropped` names them. `skipped_bytes` counts bytes of text files by reason.
    `converted` holds, for each kind of score, the numbers `tried`, `converted` and of failures by reason; `licences`
    the licence of each source, if known.
    """

    files: int = 0
    bytes: int = 0
    drops: Counter[str] = field(default_factory=Counter)
    dropped: DroppedNames = field(default_factory=DroppedNames)
    skipped_bytes: Counter[str] = field(default_factory=Counter)
    converted: dict[str, Counter[str]] = field(default_factory=dict)
    licences: dict[str, str] = field(default_factory=dict)

    def drop(self, reason: str, file: str) -> None:
        """Count and name a file, member or row that is left out."""
        self.drops[reason] += 1
        self.dropped.add(reason, file)

    def skip(self, reason: str, file: str, size: int) -> None:
        """Count bytes of a text file that are left out, and name the file."""
        if size:
            self.skipped_bytes[reason] += size
            self.dropped.add(reason, file)


def file_sha256(path: Path) -> str:
    """Return the SHA-256 of a file, read in chunks."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
