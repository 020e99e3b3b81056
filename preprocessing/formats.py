"""The formats of files, in one table: a new one is a reader and a row here."""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import IO

from preprocessing.conversion import ToAbc
from preprocessing.midi import midi_to_abc
from preprocessing.musicxml import kern_to_abc, musicxml_to_abc
from preprocessing.tables import Row, csv_rows, json_line_rows, json_rows, parquet_rows


@dataclass(frozen=True)
class Format:
    """How a file is read: a table by `rows`, a score by `to_abc`, a text and an archive by neither.

    Scores are counted by `kind`.
    """

    kind: str
    rows: Callable[[IO[bytes]], Iterator[Row | str]] | None = None
    to_abc: ToAbc | None = None


TEXT, ARCHIVE = Format("text"), Format("archive")
MUSICXML = Format("musicxml", to_abc=musicxml_to_abc)
MIDI = Format("midi", to_abc=midi_to_abc)

FORMATS = {
    ".abc": TEXT,
    ".txt": TEXT,
    ".zip": ARCHIVE,
    ".tar": ARCHIVE,
    ".tar.gz": ARCHIVE,
    ".tgz": ARCHIVE,
    ".parquet": Format("table", parquet_rows),
    ".json": Format("table", json_rows),
    ".jsonl": Format("table", json_line_rows),
    ".csv": Format("table", csv_rows),
    ".json.gz": Format("table", json_rows),
    ".jsonl.gz": Format("table", json_line_rows),
    ".csv.gz": Format("table", csv_rows),
    ".mid": MIDI,
    ".midi": MIDI,
    ".musicxml": MUSICXML,
    ".xml": MUSICXML,
    ".mxl": MUSICXML,
    ".krn": Format("kern", to_abc=kern_to_abc),
}


def suffix_of(name: str) -> str:
    """Return the ending that decides a file's format (`.tar.gz` rather than `.gz`), or "" if it is unknown."""
    suffixes = [suffix.lower() for suffix in PurePosixPath(name).suffixes]
    return next((ending for ending in ("".join(suffixes[-2:]), "".join(suffixes[-1:])) if ending in FORMATS), "")


def unknown_kind(name: str) -> str:
    """Return the reason under which a file of an unknown format is counted; only a plausible ending is named."""
    ending = re.search(r"\.[a-z0-9]{1,8}$", name.lower())
    return f"not a known kind ({ending[0] if ending else 'no ending'})"
