"""Chord symbols above the music: as jazz, Unicode and music21 write them → as ABC does (ABC 2.1, section 4.18)."""

import re
from functools import lru_cache

from preprocessing.text_fields import decode_text

QUALITY = (
    r"(?:[Mm]aj?|[Mm]in?|MAJ?|dim|aug|sus|add|alt|omit|no|dom|pedal|tristan|N6|(?:It|Fr|Gr)\+6|m|M|[+\-#b(,)]|\d)*"
)
CHORD_SYMBOL = re.compile(rf"[A-G][#b]?{QUALITY}(?:/[A-Ga-g][#b+]?)?")
SIGNS = str.maketrans("♯♭−–△∆ºØ", "#b--ΔΔ°ø", "♮")
SPELLINGS = [
    (re.compile(written), by)
    for written, by in (
        (r"\((.*)\)", r"\1"),  # an optional chord
        (r"(.+)\([A-G][^()]*\)", r"\1"),  # an alternative, which is not played
        (r"(.+) add ?(.+)", r"\1add\2"),
        (r"(.+) subtract ?(.+)", r"\1omit\2"),
        (r"(.+) alter ?(.+)", r"\1\2"),
        (r"([A-G][#b]?)(?:°|o(?=b?\d))(.*)", r"\1dim\2"),
        (r"([A-G][#b]?)m?ø7?(/.*)?", r"\1m7b5\2"),
        (r"([A-G][#b]?)m?ø(.*)", r"\1m\2b5"),
        (r"([A-G][#b]?m?)Δ7?(/.*)?", r"\1maj7\2"),
        (r"([A-G][#b]?m?)Δ(.*)", r"\1maj\2"),
        (r"(.+)6/9(.*)", r"\g<1>69\2"),
        (r"([A-G][#b]?)power", r"\g<1>5"),
    )
]


@lru_cache(maxsize=1024)
def spell_chord_symbol(quoted: str) -> str | None:
    """Return a chord symbol with its quotes as ABC writes it, None if it is an annotation."""
    chord = decode_text(quoted[1:-1]).translate(SIGNS)
    for written, by in SPELLINGS:
        if match := written.fullmatch(chord):
            chord = match.expand(by)
    return f'"{chord}"' if CHORD_SYMBOL.fullmatch(chord) else None
