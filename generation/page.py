"""Tunes as one page for people: score, player, notation and verdict of each, from the files beside it, offline."""

import hashlib
import json
from base64 import b64encode
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

from files import write_text

ASSETS = Path(__file__).parent
LINKS = {"abc": "ABC", "mid": "MIDI", "svg": "score (SVG)", "wav": "sound (WAV)"}

# What a tune says can load or run nothing: only the page's own style and script, known by their hashes, are in force.
PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src 'self' file:; media-src 'self' file:; \
style-src '{style_hash}'; script-src '{script_hash}'; base-uri 'none'; form-action 'none'">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>{style}</style>
</head>
<body>
<header>
<h1>{title}</h1>
<p>{count}</p>
{settings}</header>
<nav aria-label="Tunes"><ol>
{index}</ol></nav>
<main>
{tunes}</main>
<script>{script}</script>
</body>
</html>
"""

TUNE = """<article id="{stem}" aria-labelledby="{stem}-name">
<h2 id="{stem}-name"><a href="#{stem}">{name}</a></h2>
<p class="{mark}">{verdict}</p>
{score}{player}{facts}<details{open}><summary>ABC notation</summary>
<button type="button" class="copy" hidden>Copy</button>
<pre tabindex="0">{abc}</pre></details>
<p class="files">{links}</p>
</article>
"""

SCORE = """<div class="score" role="region" aria-label="Score of {name}" tabindex="0">\
<img src="{stem}.svg" alt="Score of {name}" loading="lazy"></div>
"""
SOUND = """<audio controls preload="none" src="{stem}.wav" aria-label="Sound of {name}"></audio>
"""
PLAYER = """<div class="player" role="group" aria-label="Sound of {name}" data-notes="{notes}" hidden>\
<button type="button">Play</button>\
<input type="range" min="0" step="0.1" value="0" aria-label="Place in the tune, in seconds">\
<output aria-live="off">0:00</output></div>
"""


@dataclass(frozen=True)
class Tune:
    """A tune of the page; `stem` names its files in the page's folder (001.abc, 001.svg, …), those that there are.

    `notes` ([start in s, length in s, MIDI pitch]) are played where there is no .wav.
    """

    stem: str
    name: str
    abc: str
    verdict: str  # in words
    valid: bool
    facts: dict[str, str]
    notes: Sequence[tuple[float, float, int]] | None = None


def write_page(folder: Path, tunes: Sequence[Tune], settings: dict[str, str], title: str = "Generated tunes") -> None:
    """Write index.html into the folder that holds the tunes' files. All text is shown as it is."""
    style, script = ((ASSETS / name).read_text(encoding="utf-8") for name in ("page.css", "page.js"))
    index = "".join(
        f'<li><a class="{_mark(tune)}" href="#{escape(tune.stem)}" title="{escape(tune.name)}: {escape(tune.verdict)}">'
        f"{escape(tune.stem)}</a></li>\n"
        for tune in tunes
    )
    page = PAGE.format(
        title=escape(title),
        style=style,
        script=script,
        style_hash=_hash(style),
        script_hash=_hash(script),
        count=f"{len(tunes)} tunes, {sum(tune.valid for tune in tunes)} of them valid",
        settings=_facts(settings),
        index=index,
        tunes="".join(_article(folder, tune) for tune in tunes),
    )
    write_text(folder / "index.html", page)


def _article(folder: Path, tune: Tune) -> str:
    stem, name = escape(tune.stem), escape(tune.name)
    there = [suffix for suffix in LINKS if (folder / f"{tune.stem}.{suffix}").is_file()]
    player = ""
    if "wav" in there:
        player = SOUND.format(stem=stem, name=name)
    elif tune.notes:
        notes = json.dumps([[round(start, 3), round(length, 3), pitch] for start, length, pitch in tune.notes])
        player = PLAYER.format(notes=notes, name=name)
    return TUNE.format(
        stem=stem,
        name=name,
        mark=_mark(tune),
        verdict=escape(tune.verdict),
        score=SCORE.format(stem=stem, name=name) if "svg" in there else "",
        player=player,
        facts=_facts(tune.facts),
        open="" if "svg" in there else " open",
        abc=escape(tune.abc.strip("\n")),
        links=" · ".join(f'<a href="{stem}.{suffix}">{LINKS[suffix]}</a>' for suffix in there),
    )


def _facts(facts: dict[str, str]) -> str:
    if not facts:
        return ""
    pairs = "".join(f"<div><dt>{escape(key)}</dt><dd>{escape(value)}</dd></div>\n" for key, value in facts.items())
    return f"<dl>\n{pairs}</dl>\n"


def _mark(tune: Tune) -> str:
    return "valid" if tune.valid else "faulty"


def _hash(text: str) -> str:
    """Return the source expression of an inline style or script (Content Security Policy Level 3, section 2.3.1)."""
    return f"sha256-{b64encode(hashlib.sha256(text.encode()).digest()).decode()}"
