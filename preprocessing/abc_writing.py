"""What every converter to ABC shares: names of keys, lengths, and which accidentals have to be written (ABC 2.1)."""

from fractions import Fraction

from preprocessing.abc_fields import ACCIDENTAL, MODE_SHIFT, spell
from preprocessing.abc_fields import signature_of as key_signature

__all__ = [
    "MODES", "Accidentals", "ConversionError", "bar_lines", "chord_text", "key_name", "key_signature", "length_text",
    "spell",
]  # fmt: skip

BARS_PER_LINE = 4
MODES = {  # ABC's word for a mode
    "major": "", "ionian": "", "lydian": "lyd", "mixolydian": "mix", "dorian": "dor", "minor": "m", "aeolian": "m",
    "phrygian": "phr", "locrian": "loc",
}  # fmt: skip


class ConversionError(Exception):
    """A score that gives no tune; the text is the reason to count it under."""


def key_name(fifths: int, mode: str) -> str:
    """Return the K: of a signature of −7 to 7 sharps in one of MODES."""
    letter, alteration = spell(fifths - MODE_SHIFT[MODES[mode]])
    return letter + ("#" if alteration > 0 else "b") * abs(alteration) + MODES[mode]


def length_text(eighths: Fraction) -> str:
    """Return a length as it is written behind a note when L: is 1/8."""
    if eighths == 1:
        return ""
    return str(eighths) if eighths.numerator > 1 or eighths.denominator == 1 else f"/{eighths.denominator}"


def chord_text(notes: list[str], length: str) -> str:
    """Return notes (each with `-` behind it if tied) that begin together as one note or chord."""
    if len(notes) > 1:
        return f"[{''.join(notes)}]{length}"
    return notes[0].removesuffix("-") + length + "-" * notes[0].endswith("-")


def bar_lines(bars: list[str]) -> list[str]:
    """Return bars, each with its bar line, as lines of music; the last bar ends the tune."""
    closed = [*bars[:-1], bars[-1] if bars[-1].endswith(":|") else bars[-1].rstrip("|") + "|]"]
    return [
        "".join(closed[first : first + BARS_PER_LINE]).replace(":||:", "::").replace("||:", "|:")
        for first in range(0, len(closed), BARS_PER_LINE)
    ]


class Accidentals:
    """Writes pitches, each with its accidental wherever a reader might take it for another.

    Programs differ in whether an accidental holds in the other octaves of its bar, so both readings are kept.
    """

    def __init__(self) -> None:
        self.signature: dict[str, int] = {}
        self.by_letter: dict[str, int] = {}
        self.by_place: dict[str, int] = {}

    def start_bar(self) -> None:
        self.by_letter, self.by_place = {}, {}

    def start_overlay(self) -> None:
        self.by_place = {}

    def pitch(self, letter: str, alteration: int, octave: int) -> str:
        """Return a pitch as ABC; octave 4 begins at middle C. Raises ConversionError for more than two sharps."""
        if alteration not in ACCIDENTAL:
            raise ConversionError("accidentals that ABC cannot write")
        place = f"{letter}{octave}"
        default = self.signature.get(letter, 0)
        written = letter + "," * (4 - octave) if octave < 5 else letter.lower() + "'" * (octave - 5)
        if self.by_place.get(place, default) == alteration == self.by_letter.get(letter, default):
            return written
        self.by_place[place] = self.by_letter[letter] = alteration
        return ACCIDENTAL[alteration] + written
