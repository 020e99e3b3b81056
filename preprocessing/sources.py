"""Where raw ABC comes from: the tunes that the music21 package carries, or a file or folder of one's own."""

import hashlib
import importlib.util
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from door import DoorError

BUNDLED = "bundled"
SUFFIXES = (".abc", ".txt")


@dataclass(frozen=True)
class SourceFile:
    """One file of raw text. `collection` is the folder it stands in; `name` is its path below the source."""

    collection: str
    name: str
    content: bytes

    @property
    def sha256(self) -> str:
        """Hash of the bytes as they were found."""
        return hashlib.sha256(self.content).hexdigest()

    def text(self) -> str:
        """Decode as UTF-8, else as cp1252. Raises ValueError if the bytes are not text."""
        if b"\0" in self.content:
            raise ValueError("binary file")
        try:
            text = self.content.decode("utf-8-sig")
        except UnicodeDecodeError:
            text = self.content.decode("cp1252", errors="replace")
        return text.replace("\r\n", "\n").replace("\r", "\n")


def bundled_folder() -> Path:
    """Return the folder of music21's corpus, found without importing music21 (its import takes seconds)."""
    package = importlib.util.find_spec("music21")
    if package is None or not package.submodule_search_locations:
        raise DoorError("the package music21 is not installed: pip install music21, or name a --source of your own")
    return Path(package.submodule_search_locations[0]) / "corpus"


def read_source(source: str) -> Iterator[SourceFile]:
    """Yield the files of `bundled`, of a folder (searched whole) or of one file, in the order of their names.

    Raises DoorError if the path does not exist or holds no .abc or .txt file.
    """
    root = bundled_folder() if source == BUNDLED else Path(source)
    suffixes = (".abc",) if source == BUNDLED else SUFFIXES
    if root.is_file():
        files = [root]
        root = root.parent
    elif root.is_dir():
        files = sorted(path for path in root.rglob("*") if path.suffix.lower() in suffixes and path.is_file())
    else:
        raise DoorError(f"--source {source}: no such file or folder")
    if not files:
        raise DoorError(f"--source {source}: no {' or '.join(suffixes)} file in it")
    for file in files:
        name = file.relative_to(root).as_posix()
        collection = name.split("/")[0] if "/" in name else root.resolve().name
        yield SourceFile(collection, name, file.read_bytes())
