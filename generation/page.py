"""Tunes as files, and an offline web page of them: score, player, notation and verdict of each."""

import hashlib
import json
from base64 import b64encode
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup
from tqdm import tqdm

from files import write_text
from generation.rendering import read_notes, render

FOLDER = Path(__file__).parent
FILE_NAMES = {"abc": "ABC", "mid": "MIDI", "svg": "score (SVG)", "wav": "sound (WAV)"}
Note = tuple[float, float, int]


@dataclass(frozen=True)
class Tune:
    """A tune of the page; `stem` names those of its files that exist in the page's folder (001.abc, 001.svg, …).

    `notes` ([start in s, length in s, MIDI pitch]) are played where there is no .wav.
    """

    stem: str
    name: str
    abc: str
    verdict: str
    valid: bool
    facts: dict[str, str]
    notes: Sequence[Note] | None = None


def write_tunes(
    folder: Path,
    tunes: Sequence[dict[str, Any]],
    kinds: Sequence[str],
    comments: Callable[[dict[str, Any]], Mapping[str, str]],
    stems: str = "{:03d}",
) -> list[Sequence[Note] | None]:
    """Write each tune as ABC after its comments, and rendered; return the notes of those that have a MIDI file.

    Adds `file`, `formats` (of those rendered) and `failures` (messages) to each tune, before its comments are made.
    """
    notes: list[Sequence[Note] | None] = []
    with ThreadPoolExecutor(2) as pool:
        rendered = pool.map(lambda tune: render(tune["abc"], kinds), tunes)
        pairs = tqdm(zip(tunes, rendered, strict=True), desc="rendering", total=len(tunes))
        for number, (tune, (files, failures)) in enumerate(pairs, start=1):
            stem = stems.format(number)
            tune |= {"file": f"{stem}.abc", "formats": sorted(files), "failures": failures}
            header = "".join(f"% {name}: {' '.join(value.split())}\n" for name, value in comments(tune).items())
            write_text(folder / tune["file"], header + tune["abc"])
            for kind, content in files.items():
                (folder / f"{stem}.{kind}").write_bytes(content)
            notes.append(read_notes(files["mid"]) if "mid" in files else None)
    return notes


def write_page(folder: Path, tunes: Sequence[Tune], settings: dict[str, str], title: str = "Generated tunes") -> None:
    """Write index.html into the folder that holds the tunes' files. All text is escaped."""
    environment = Environment(
        loader=FileSystemLoader(FOLDER), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    environment.filters |= {"csp_hash": _csp_hash, "notes_json": _notes_json}
    page = environment.get_template("page.html.j2").render(
        title=title,
        tunes=tunes,
        settings=settings,
        style=Markup((FOLDER / "page.css").read_text(encoding="utf-8")),
        script=Markup((FOLDER / "page.js").read_text(encoding="utf-8")),
        names=FILE_NAMES,
        files_of={
            tune.stem: [suffix for suffix in FILE_NAMES if (folder / f"{tune.stem}.{suffix}").is_file()]
            for tune in tunes
        },
    )
    write_text(folder / "index.html", page)


def _notes_json(notes: Sequence[Note]) -> str:
    return json.dumps([[round(start, 3), round(length, 3), pitch] for start, length, pitch in notes])


def _csp_hash(text: str) -> str:
    """Return the source expression of an inline style or script (Content Security Policy Level 3, section 2.3.1)."""
    return f"sha256-{b64encode(hashlib.sha256(text.encode()).digest()).decode()}"
