"""Transposition of cleaned tunes, spelled as a player reads them: notes, keys, chord symbols and their basses.

A shift is an interval on the line of fifths (… F C G D …), so the signature, the accidentals that hold in a bar and a
note's letter all move alike: each note is rewritten by itself, and one without an accidental stays without.
"""

import re
from dataclasses import replace
from functools import cache

from preprocessing.abc_fields import ALTERATION, MODE_SHIFT
from preprocessing.abc_fields import FIFTHS as SHARP_ORDER
from preprocessing.abc_lexer import DECORATION
from preprocessing.abc_voice import Verdict

SHIFTS = (-5, -4, -3, -2, -1, 1, 2, 3, 4, 5, 6)  # semitones: every other key, by the smaller move
KEY_LINE = re.compile(r"^K:(.*)", re.MULTILINE)
MOVABLE = re.compile(
    rf"""(^(?![A-Ga-gxz]:[|:])[A-Za-z+]:.* | \[[A-Za-z]:[^\[\]\n]*\] | "[^"\n]*" | {DECORATION}
    | (?:[_^=][_^=/\d]*)?[A-Ga-g][',]*)""",
    re.VERBOSE | re.MULTILINE,
)
NOTE = re.compile(r"([_^=/\d]*)([A-Ga-g])([',]*)")
KEY = re.compile(r"([A-G])([#b]?)([a-z]*)((?: .*)?)")
KEY_ACCIDENTAL = re.compile(r"(?<![A-Za-z])([_^=]+)([a-g])")  # not the value of `middle=d`
KEY_MICROTONE = re.compile(r"(?<![A-Za-z])[_^=]+[0-9/]")
CLEF = re.compile(r"clef|treble|alto|tenor|bass|perc|middle|octave|t=|transpose|staff|style|stem")
CHORD_SYMBOL = re.compile(r'"([A-G])([#b]?)([^"/]*)(?:/([A-Ga-g])([#b]?))?"')

ACCIDENTAL = {alteration: sign for sign, alteration in ALTERATION.items()}
NAME_ALTERATION = {"": 0, "#": 1, "b": -1}
NAME_ACCIDENTAL = {alteration: sign for sign, alteration in NAME_ALTERATION.items()}


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


def transpose(text: str, semitones: int) -> str:
    """Return a cleaned tune moved by semitones. Raises TranspositionError where it cannot be written."""
    return Transposable(text).transposed(semitones)


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
    """What becomes of a piece of a tune under one interval. Pieces are worked out once."""

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
            moved = piece  # a decoration, or a field that says nothing of pitch
        self[piece] = moved
        return moved

    def note(self, accidental: str, letter: str, octave: str) -> str:
        alteration = self.alteration(accidental)
        name, new_alteration = _name(_fifths(letter.upper(), alteration) + self.fifths)
        above_c = 7 * _fifths(letter.upper(), 0) % 12 + alteration + self.semitones  # a fifth is seven semitones
        octaves = (above_c - new_alteration) // 12
        height = letter.islower() + octave.count("'") - octave.count(",") + octaves
        marks = "'" * (height - 1) if height > 0 else "," * -height
        sign = self.sign(new_alteration) if accidental else ""
        return sign + (name.lower() if height > 0 else name) + marks

    def key(self, value: str) -> str:
        if CLEF.match(value):
            return value
        if abs(_sharps(value) + self.fifths) > 7:
            raise TranspositionError("a key of more than seven sharps or flats")
        letter, accidental, mode, words = _key_parts(value)
        tonic = self.name(letter, accidental)
        return tonic + mode + KEY_ACCIDENTAL.sub(lambda match: self.key_accidental(*match.groups()), words)

    def key_accidental(self, accidental: str, letter: str) -> str:
        name, alteration = _name(_fifths(letter.upper(), self.alteration(accidental)) + self.fifths)
        return self.sign(alteration) + name.lower()

    def chord_symbol(self, piece: str) -> str:
        match = CHORD_SYMBOL.fullmatch(piece)
        if match is None:
            raise TranspositionError("a chord symbol that cannot be read")
        letter, accidental, quality, bass, bass_accidental = match.groups()
        moved = self.name(letter, accidental) + quality
        if bass:
            moved += "/" + self.name(bass, bass_accidental)
        return f'"{moved}"'

    def name(self, letter: str, accidental: str) -> str:
        """Return the name of a tonic, root or bass: respelled where it would need a double sharp or flat."""
        name, alteration = _name(_fifths(letter.upper(), NAME_ALTERATION[accidental]) + self.fifths)
        if abs(alteration) > 1:
            name, alteration = _name(_fifths(name, alteration) - (12 if alteration > 0 else -12))
        return (name if letter.isupper() else name.lower()) + NAME_ACCIDENTAL[alteration]

    @staticmethod
    def alteration(accidental: str) -> int:
        if accidental and accidental not in ALTERATION:
            raise TranspositionError("an accidental that cannot be read")
        return ALTERATION.get(accidental, 0)

    @staticmethod
    def sign(alteration: int) -> str:
        if alteration not in ACCIDENTAL:
            raise TranspositionError("a triple sharp or flat")
        return ACCIDENTAL[alteration]


_interval = cache(_Interval)


def _fifths(name: str, alteration: int) -> int:
    """Return the place of a note name on the line of fifths, C being 0."""
    return SHARP_ORDER.index(name) - 1 + 7 * alteration


def _name(fifths: int) -> tuple[str, int]:
    """Return the letter and the alteration at a place on the line of fifths."""
    alteration, letter = divmod(fifths + 1, 7)
    return SHARP_ORDER[letter], alteration


def _key_parts(value: str) -> tuple[str, str, str, str]:
    """Return letter, accidental, mode and further words of a canonical key."""
    match = KEY.fullmatch(value)
    if match is None or match[3] not in MODE_SHIFT or "exp" in match[4].split():
        raise TranspositionError("no tonic to move (K:none, HP, exp or no key)")
    if KEY_MICROTONE.search(match[4]):
        raise TranspositionError("an accidental that cannot be read")
    return match[1], match[2], match[3], match[4]


def _sharps(key: str) -> int:
    """Return the sharps of a canonical key; flats are negative."""
    letter, accidental, mode, _ = _key_parts(key)
    return _fifths(letter, NAME_ALTERATION[accidental]) + MODE_SHIFT[mode]


def _fewest_sharps(sharps: int, semitones: int) -> int:
    """Return the sharps of the key that lies semitones higher, from five flats to six sharps."""
    return (sharps + 7 * semitones + 5) % 12 - 5
