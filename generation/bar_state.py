"""How far a tune is in its current bar, counted as `preprocessing.notation.judge` counts, and whether the bar may end.

A bar may end if it is empty or full, or if it is one of two short bars at edges (repeats, double bars, endings) that
add up to a full one. Of two such bars the first is the tune's pickup, or it ends at an edge and the bar after it
completes it, unless the tune ends there. judge pairs short bars over the whole tune; here the second of a pair never
waits for the first, as a model that starts a bar like a pickup cannot be made to end another one to match.
"""

import re
from fractions import Fraction
from functools import lru_cache
from typing import NamedTuple

from preprocessing.abc_fields import in_ticks, scaled
from preprocessing.notation import (
    TOKEN,
    TUPLET_TIME,
    Length,
    bar_length,
    default_unit_length,
    parse_length,
    read_unit_length,
)

MAX_SLURS = 2  # open at a time; more are read, not written
COMPOUND = re.compile(r"(?:6|9|12)\s*/")

Ratio = tuple[int, int]


class BarState(NamedTuple):
    """The state of a tune's body between two words. Lengths are in ticks, as in preprocessing/notation.py."""

    full: Length | None  # the length of a full bar; None in a free metre
    compound: bool
    unit: Length
    filled: Length = 0
    starts_at_edge: bool = True
    is_first: bool = True
    short_heads: frozenset[Length] = frozenset()  # lengths of the short bars that started at an edge
    short_tails: frozenset[Length] = frozenset()  # and of those that ended at one
    required: Length = 0  # the length that completes the short bar before this one; 0 if that needs no completion
    has_note: bool = False
    tuplet: Ratio = (1, 1)
    tuplet_left: int = 0
    broken: Ratio | None = None  # the factor that broken rhythm gives the next note
    last_length: Length = 0  # of the note that broken rhythm may follow
    chord: Length | None = None  # the length of an open chord's first note, 0 before it
    chord_notes: int = 0
    marks: int = 0  # decorations, grace notes, slurs, … since the last sound; 1 after a sound: a tie
    bar_lines: int = 0  # since the last sound
    slurs: int = 0  # that are open
    previous: str = (
        "\n"  # the last word: "\n", " ", "|" a bar line, "c" a sound, "T" a word that needs a sound after it
    )

    @property
    def remaining(self) -> Length:
        """What is left of a bar that is not free."""
        return (self.required or self.full or 0) - self.filled

    @property
    def accepts_sound(self) -> bool:
        """Whether a sound, or a word that needs one after it, may come in this bar."""
        return self.chord is None and (self.full is None or self.remaining > 0)

    @property
    def is_closed(self) -> bool:
        """Whether no chord, tuplet or broken rhythm is open."""
        return self.chord is None and not self.tuplet_left and not self.broken

    @property
    def may_be_last(self) -> bool:
        """Whether the tune may end with this bar: a full one, or one that completes the first bar or the one before."""
        if not self.has_note:
            return False
        if self.full is None or self.filled in (0, self.full):
            return True
        if self.required:
            return self.filled == self.required
        return not self.is_first and self.full - self.filled in self.short_heads

    def may_end(self, edge: bool) -> bool:
        """Return whether the bar may end, `edge`: at a repeat, a double bar or an ending."""
        if not self.filled or self.full is None or self.filled == self.full:
            return True
        is_short = 0 < self.filled < self.full and self.required in (0, self.filled)
        return is_short and (edge or self._has_other_half(edge))

    def _has_other_half(self, edge: bool) -> bool:
        """Return whether a short bar needs no bar after it: it is the first, or an earlier one completes it."""
        missing = (self.full or 0) - self.filled
        return (self.starts_at_edge and (self.is_first or missing in self.short_tails)) or (
            edge and missing in self.short_heads
        )

    def after_bar(self, edge: bool) -> "BarState":
        """Return the state at the start of the next bar."""
        if not self.filled:
            return self._replace(starts_at_edge=self.starts_at_edge or edge)
        heads, tails = self.short_heads, self.short_tails
        required: Length = 0
        if self.full is not None and self.filled < self.full:
            # Not every short bar is kept, so that equal states recur more often.
            if self.starts_at_edge and (not edge or self.is_first or self.required):
                heads |= {self.filled}
            if edge:
                tails |= {self.filled}
                required = 0 if self.required or self._has_other_half(edge) else self.full - self.filled
        return self._replace(
            filled=0, starts_at_edge=edge, is_first=False, short_heads=heads, short_tails=tails, required=required
        )

    def after_sound(self, length: Length, has_note: bool) -> "BarState":
        """Return the state after a note, a rest or a chord of a length that tuplet and broken rhythm still change."""
        if self.tuplet_left:
            length = scaled(length, *self.tuplet)
        filled = self.filled + (scaled(length, *self.broken) if self.broken else length)
        return self._replace(
            filled=filled,
            required=self.required if filled <= self.required else 0,
            tuplet=self.tuplet if self.tuplet_left > 1 else (1, 1),
            tuplet_left=max(self.tuplet_left - 1, 0),
            broken=None,
            last_length=length,
            has_note=has_note,
            marks=0,
            bar_lines=0,
            previous="c",
        )

    def after_broken_rhythm(self, word: str) -> "BarState":
        """Return the state after `>`, `<` or several of them."""
        half = 2 ** len(word)
        long, short = (2 * half - 1, half), (1, half)
        first, second = (long, short) if word[0] == ">" else (short, long)
        filled = self.filled + scaled(self.last_length, first[0] - half, half)
        return self._replace(filled=filled, broken=second, last_length=0, previous="T")

    def after_tuplet(self, word: str) -> "BarState":
        """Return the state after `(3`, `(3:2` or `(3:2:4`."""
        notes, time, count = ([int(part or 0) for part in word[1:].split(":")] + [0, 0])[:3]
        time = time or TUPLET_TIME.get(notes, 3 if self.compound else 2)
        return self._replace(tuplet=(time, notes), tuplet_left=count or notes, last_length=0, previous="T")

    def after_field(self, letter: str, value: str) -> "BarState":
        """Return the state after a field of the header or the body."""
        if letter == "M":
            bar = bar_length(value.strip())
            compound = bool(COMPOUND.match(value.strip()))
            return self._replace(full=None if bar is None else in_ticks(bar), compound=compound)
        unit = read_unit_length(value) if letter == "L" else None
        return self._replace(unit=in_ticks(unit)) if unit else self

    def after_word(self, word: str) -> "BarState":
        """Return the state after a whole word of music, be it allowed or not."""
        kind = kind_of(word)
        if kind in ("note", "rest"):
            length, has_note = scaled(self.unit, *length_factor(word)), self.has_note or kind == "note"
            if self.chord is None:
                return self.after_sound(length, has_note)
            return self._replace(chord=self.chord or length, chord_notes=self.chord_notes + 1, has_note=has_note)
        if kind == "chord_close":
            length = scaled(self.chord or 0, *length_factor(word))
            return self._replace(chord=None, chord_notes=0).after_sound(length, self.has_note)
        if kind == "bar":
            after = self.after_bar(edge=word != "|")
            return after._replace(chord=None, previous="|", last_length=0, marks=0, bar_lines=self.bar_lines + 1)
        if kind == "broken":
            return self.after_broken_rhythm(word)
        if kind == "tuplet":
            return self.after_tuplet(word)
        if kind == "space":
            return self._replace(previous=" ", last_length=0)
        if kind == "tie":
            return self._replace(previous="c", marks=1)
        if word == ")":
            return self._replace(previous="c", slurs=max(0, self.slurs - 1))
        if kind == "inline":
            return self.after_field(word[1], word[3:-1])
        slurs = min(self.slurs + (word == "("), MAX_SLURS)
        chord = 0 if kind == "chord_open" else self.chord
        return self._replace(previous="T", last_length=0, chord=chord, marks=self.marks + 1, slurs=slurs)


def body_start(metre: str | None, unit: Fraction | None) -> BarState:
    """Return the state at the start of a body, after a header with this metre and unit length."""
    state = BarState(None, False, in_ticks(unit or default_unit_length(metre)))
    return state.after_field("M", metre or "none")


@lru_cache(maxsize=4096)
def kind_of(word: str) -> str | None:
    """Return the name of the token of ABC that a word is, None if it is none."""
    match = TOKEN.match(word)
    return match.lastgroup if match else None


@lru_cache(maxsize=4096)
def length_factor(word: str) -> Ratio:
    """Return the length factor of a note, a rest or a chord's end; 0 if it is divided by zero."""
    try:
        return parse_length(word.lstrip("^_=,'ABCDEFGabcdefgzx]")).as_integer_ratio()
    except ValueError:
        return 0, 1


@lru_cache(maxsize=2**16)
def can_fill(
    remaining: Length, lengths: tuple[Length, ...], tuplet: Ratio, tuplet_left: int, broken: Ratio | None
) -> bool:
    """Return whether notes of these lengths can fill what remains exactly, the open tuplet and broken rhythm first.

    The first of the lengths divides a full bar, so notes of that length fill any multiple of it.
    """
    if remaining < 0 or not (tuplet_left or broken):
        return remaining >= 0 and remaining % lengths[0] == 0
    for each in lengths:
        length = scaled(each, *tuplet) if tuplet_left else each
        rest = remaining - (scaled(length, *broken) if broken else length)
        if can_fill(rest, lengths, tuplet, max(tuplet_left - 1, 0), None):
            return True
    return False
