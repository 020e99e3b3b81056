"""Transposition of cleaned tunes, spelled as a player reads them: notes, keys, chord symbols and their basses.

A shift is an interval on the line of fifths (see abc_fields), so the signature, the accidentals that hold in a bar and
a note's letter all move alike: each note is rewritten by itself, and one without an accidental stays without.
"""

import re
from dataclasses import replace
from functools import cache

from preprocessing.abc_fields import ACCIDENTAL, ALTERATION, MODE_SHIFT, NAME_ALTERATION, fifth_of, spell
from preprocessing.abc_lexer import DECORATION, INLINE_FIELD
from preprocessing.abc_voice import Verdict

SHIFTS = (-5, -4, -3, -2, -1, 1, 2, 3, 4, 5, 6)  # semitones: every other key, by the smaller move
KEY_LINE = re.compile(r"^K:(.*)", re.MULTILINE)
MOVABLE = re.compile(
    rf"""(^(?![A-Ga-gxz]:[|:])[A-Za-z+]:.* | {INLINE_FIELD} | "[^"\n]*" | {DECORATION}
    | (?:[_^=][_^=/\d]*)?[A-Ga-g][',]*)""",
    re.VERBOSE | re.MULTILINE,
)
NOTE = re.compile(r"([_^=/\d]*)([A-Ga-g])([',]*)")
KEY = re.compile(r"([A-G])([#b]?)([a-z]*)((?: .*)?)")
KEY_ACCIDENTAL = re.compile(r"(?<![A-Za-z])([_^=]+)([a-g])")  # not the value of `middle=d`
KEY_MICROTONE = re.compile(r"(?<![A-Za-z])[_^=]+[0-9/]")
CLEF = re.compile(r"clef|treble|alto|tenor|bass|perc|middle|octave|t=|transpose|staff|style|stem")
CHORD_SYMBOL = re.compile(r'"([A-G])([#b]?)([^"/]*)(?:/([A-Ga-g])([#b]?))?"')
NAME_SIGN = {alteration: sign for sign, alteration in NAME_ALTERATION.items()}


class TranspositionError(Exception):
    """A tune that cannot be written at another pitch. The text is the reason, alike for all tunes that share it."""


class Transposable:
    """A cleaned tune, split once and written at any number of pitches."""

    def __init__(self, text: str) -> None:
        """Split a tune. Raises TranspositionError if its K: field names no tonic."""
        match = KEY_LINE.search(text)
        if match is None:
            raise TranspositionError("no K: field")
        self.sharps = _sharps(match[1].strip())
        self.header = text[: match.start()]
        self.pieces = MOVABLE.split(text[match.start() :])  # every second one may move

    def transposed(self, semitones: int) -> str:
        """Return the tune moved, in the key with the fewest sharps or flats: six sharps rather than six flats.

        Where that needs an accidental or a key that does not exist, its enharmonic twin of up to seven is tried.
        Raises TranspositionError where neither can be written.
        """
        sharps = _fewest_sharps(self.sharps, semitones)
        try:
            return self._moved(sharps, semitones)
        except TranspositionError:
            twin = sharps - 12 if sharps > 0 else sharps + 12
            if abs(twin) > 7:
                raise
            return self._moved(twin, semitones)

    def _moved(self, sharps: int, semitones: int) -> str:
        pieces = self.pieces.copy()
        pieces[1::2] = map(_interval(sharps - self.sharps, semitones).__getitem__, pieces[1::2])
        return self.header + "".join(pieces)


def shifts(key: str, count: int) -> list[int]:
    """Return `count` of SHIFTS for a tune in a canonical key: the new keys with the fewest sharps or flats first.

    Ties go to the smaller move, then to the move upwards. Raises TranspositionError if the key names no tonic.
    """
    sharps = _sharps(key)
    return sorted(SHIFTS, key=lambda shift: (abs(_fewest_sharps(sharps, shift)), abs(shift), -shift))[:count]


def is_transposed(before: Verdict, after: Verdict, semitones: int) -> bool:
    """True if the two verdicts differ in the key, and in every pitch by semitones, and in nothing else."""
    return after == replace(before, key=after.key, pitches=[pitch + semitones for pitch in before.pitches])


class _Interval(dict[str, str]):
    """What becomes of a piece of a tune under one interval; each piece is computed once."""

    def __init__(self, fifths: int, semitones: int) -> None:
        super().__init__()
        self.fifths, self.semitones = fifths, semitones

    def __missing__(self, piece: str) -> str:
        if piece.startswith("K:"):
            moved = "K:" + self.key(piece[2:].strip())
        elif piece.startswith("[K:"):
            moved = f"[K:{self.key(piece[3:-1].strip())}]"
        elif piece.startswith('"'):
            moved = self.chord_symbol(piece)
        elif note := NOTE.fullmatch(piece):
            moved = self.note(*note.groups())
        else:
            moved = piece  # a decoration, or a field without pitch
        self[piece] = moved
        return moved

    def pitch(self, accidental: str, letter: str) -> tuple[str, int]:
        """Return letter and alteration of a note moved."""
        if accidental and accidental not in ALTERATION:
            raise TranspositionError("an accidental that cannot be read")
        name, alteration = spell(fifth_of(letter.upper(), ALTERATION.get(accidental, 0)) + self.fifths)
        if accidental and alteration not in ACCIDENTAL:
            raise TranspositionError("a triple sharp or flat")
        return name, alteration

    def note(self, accidental: str, letter: str, octave: str) -> str:
        name, alteration = self.pitch(accidental, letter)
        above_c = 7 * fifth_of(letter.upper(), 0) % 12 + ALTERATION.get(accidental, 0) + self.semitones
        octaves = (above_c - alteration) // 12
        height = letter.islower() + octave.count("'") - octave.count(",") + octaves
        marks = "'" * (height - 1) if height > 0 else "," * -height
        return (ACCIDENTAL[alteration] if accidental else "") + (name.lower() if height > 0 else name) + marks

    def key(self, value: str) -> str:
        if CLEF.match(value):
            return value
        if abs(_sharps(value) + self.fifths) > 7:
            raise TranspositionError("a key of more than seven sharps or flats")
        letter, sign, mode, words = _key_parts(value)
        return self.name(letter, sign) + mode + KEY_ACCIDENTAL.sub(self.key_accidental, words)

    def key_accidental(self, match: re.Match[str]) -> str:
        name, alteration = self.pitch(*match.groups())
        return ACCIDENTAL[alteration] + name.lower()

    def chord_symbol(self, piece: str) -> str:
        match = CHORD_SYMBOL.fullmatch(piece)
        if match is None:
            raise TranspositionError("a chord symbol that cannot be read")
        letter, sign, quality, bass, bass_sign = match.groups()
        return f'"{self.name(letter, sign)}{quality}{f"/{self.name(bass, bass_sign)}" if bass else ""}"'

    def name(self, letter: str, sign: str) -> str:
        """Return the name of a tonic, root or bass: respelled where it would need a double sharp or flat."""
        name, alteration = spell(fifth_of(letter.upper(), NAME_ALTERATION[sign]) + self.fifths)
        if abs(alteration) > 1:
            name, alteration = spell(fifth_of(name, alteration) - (12 if alteration > 0 else -12))
        return (name if letter.isupper() else name.lower()) + NAME_SIGN[alteration]


_interval = cache(_Interval)


def _key_parts(value: str) -> tuple[str, str, str, str]:
    """Return letter, sign, mode and further words of a canonical key."""
    match = KEY.fullmatch(value)
    if match is None or match[3] not in MODE_SHIFT or "exp" in match[4].split():
        raise TranspositionError("no tonic to move (K:none, HP, exp or no key)")
    if KEY_MICROTONE.search(match[4]):
        raise TranspositionError("an accidental that cannot be read")
    return match[1], match[2], match[3], match[4]


def _sharps(key: str) -> int:
    """Return the sharps of a canonical key; flats are negative."""
    letter, sign, mode, _ = _key_parts(key)
    return fifth_of(letter, NAME_ALTERATION[sign]) + MODE_SHIFT[mode]


def _fewest_sharps(sharps: int, semitones: int) -> int:
    """Return the sharps of the key that lies semitones higher, from five flats to six sharps."""
    return (sharps + 7 * semitones + 5) % 12 - 5
