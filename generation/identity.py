"""Whether a result on disk is of the same inputs and code: its JSON file holds their hash as `identity`."""

import hashlib
from collections.abc import Iterable
from pathlib import Path

from files import read_json


def identity_of(*inputs: object, code: Iterable[Path] = ()) -> str:
    """Return the hash of inputs, bytes as they are and others as text, and of files of code."""
    content = hashlib.sha256()
    for each in inputs:
        content.update(each if isinstance(each, bytes) else repr(each).encode())
    for path in code:
        content.update(path.read_bytes())
    return content.hexdigest()


def package_files() -> list[Path]:
    """Return all files of this package: code, templates and pages."""
    return sorted(Path(__file__).parent.glob("*.*"))


def is_current(path: Path, identity: str) -> bool:
    """Return whether a JSON file exists and has this identity; raises UserError if it is damaged."""
    return path.is_file() and bool(read_json(path, "identity")["identity"] == identity)
