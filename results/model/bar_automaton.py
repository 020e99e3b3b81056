"""An automaton that reads ABC character by character and says which characters may follow, so that all bars add up.

Whatever it allows can be continued to a tune that `preprocessing.notation.judge` finds no fault with. It reads any ABC,
but writes less than judge accepts: no rests of whole bars (Z, X), overlays (&), spacers (y), voices, comments, joined
lines, inline fields, +decorations+, +chords+, decorations with blanks, letters of undefined decorations, quoted text
that is no chord symbol, nor any word longer or rarer than those listed below. In the body K: may begin any line, M: and
L: one between two bars. A tuplet or broken rhythm ends before its bar and its line.
"""

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from fractions import Fraction
from functools import lru_cache
from math import gcd
from typing import Any, NamedTuple

from .bar_state import MAX_SLURS, BarState, body_start, can_fill, kind_of, length_factor
from .abc_fields import scaled
from .notation import (
    COMMENT,
    ENDING,
    FIELD,
    FIELD_ORDER,
    LENGTH,
    UNDEFINED,
    WORDS,
    Length,
    read_unit_length,
)

REQUIRED_FIELDS = "XMLK"
END = ""  # among the allowed characters: the tune may end
MAX_CHORD_NOTES = 6
MAX_MARKS, MAX_BAR_LINES = 3, 2  # hardly a tune has more before a sound; see BarState

LENGTHS = [
    "", "2", "3", "4", "5", "6", "7", "8", "9", "10", "12", "14", "15", "16", "18", "20", "24", "32",
    "/", "/2", "//", "/4", "3/", "3/2", "3/4", "3//", "5/2", "7/2",
]  # fmt: skip
BARS = [
    "|", "||", "|]", "|:", ":|", ":|:", "::", "[|", "[|]", "[|]:", ":||", ":||:", ":|]", "||:", "|:|", "::|", "||]",
    "|||", "|1", "|2", "|3", "|4", "|[1", "|[2", "|[3", "[1", "[2", "[3", "[4",
    ":|1", ":|2", ":|3", ":|4", ":|[1", ":|[2", ":|[3", "||1", ":||2",
]  # fmt: skip
EDGE = "||"  # represents all bar lines but the plain one
TUPLETS = [*(f"({notes}" for notes in range(2, 10)), "(3:2"]
BROKEN = ["<", "<<", ">", ">>"]
METRES = [f"{n}/{d}" for d, most in ((1, 4), (2, 6), (4, 12), (8, 15), (16, 15)) for n in range(1, most + 1)]
MODES = ("", "m", "mix", "dor", "phr", "lyd", "loc")
FIELD_VALUES = {
    "X": ["1"],
    "M": ["C", "C|", "none", *METRES],
    "L": ["1/1", "1/2", "1/4", "1/8", "1/16", "1/32"],
    "K": [
        "none",
        "HP",
        "Hp",
        *(tonic + sign + mode for tonic in "ABCDEFG" for sign in ("", "#", "b") for mode in MODES),
    ],
}
TEXT_VALUES = {  # of fields that do not change the bars: no blank at either end, no two together
    "T": re.compile(r"(?=.{1,60}$)[^\s%]+(?: [^\s%]+)*"),
    "R": re.compile(r"(?=.{1,30}$)[a-z]+(?:[ -][a-z]+)?"),
    "Q": re.compile(r"(?=.{1,30}$)[^\s%]+(?: [^\s%]+)*"),
}

# Characters that do the same are read as one: `c` any note, `z` any rest, `T` any decoration, `A` any in quotes.
CANONICAL = {**dict.fromkeys("ABCDEFGabdefg", "c"), "x": "z", **dict.fromkeys(".~HIJNOPQRSUVWhijklmnopqrstuvw", "T")}
FIRST_LIKE = {**dict.fromkeys("^_=", "c"), **dict.fromkeys("KLM", "T")}  # begin a word where these may begin one
WORD_BEGINNING = re.compile(
    rf"""
      (?:\^\^?|__?|=)?(?:[A-Ga-g][',]{{0,8}}{LENGTH})? | [zx]{LENGTH} | [ZX][0-9]{{0,3}} | \]{LENGTH}
    | (?::+ | :{{0,8}}\[?\|[\]|:]{{0,8}})(?:\[|\[?{ENDING})? | :+\] | :?\[(?:{ENDING})?
    | \[[A-Za-z]:[^\[\]\n]*\]? | \{{[^{{}}\n]*\}}? | "[^"\n]*"? | ![^!\s|]{{0,30}}!?
    | \((?:[1-9][0-9]?(?::[0-9]{{0,2}}){{0,2}})? | >{{1,3}} | <{{1,3}} | [ \t`]+ | .
    """,
    re.VERBOSE,
)
SOUND_BEGINNING = re.compile(r"(?:\^\^?|__?|=)?(?:(?:c(?:'{0,2}|,{0,2})|[z\]])([0-9/]*))?")
GRACE_NOTE = r"c(?:'{0,2}|,{0,2})[0-9]?/{0,2}"
ENCLOSED = {  # beginnings of the words that two characters enclose
    '""': re.compile(r'"A{0,8}|"A{1,8}"'),
    "!!": re.compile(r"!A{0,12}|!A{1,12}!"),
    "{}": re.compile(rf"\{{/?(?:(?:{GRACE_NOTE}){{0,7}}(?:\^\^?|__?|=)?|(?:{GRACE_NOTE}){{1,8}}\}}?)"),
}
OPEN_INLINE_FIELD = re.compile(r"\[[A-Za-z]:[^]]*")
ACCIDENTALS = re.compile(r"[\^_=]+c$")
CHORD_ROOT = re.compile(r"[A-G]")
QUOTED = {'"': re.compile(r"[A-Za-z0-9#+/]"), "!": re.compile(r"[A-Za-z0-9.]")}


class HeaderState(NamedTuple):
    """The state within a header: the letters of the fields written, what they say of bars, and the current line."""

    fields: str = ""
    metre: str | None = None
    unit: Fraction | None = None
    line: str = ""


class BodyState(NamedTuple):
    """The state within a body: that after the last whole word, and the beginning of the next word."""

    bar: BarState
    word: str = ""


State = HeaderState | BodyState
Spellings = tuple[tuple[Length, ...], Mapping[str, list[str]]]


class Automaton:
    """Says what may follow the beginning of a tune that is written with the characters of a vocabulary.

    `fields` are the letters of the header fields that may be written. A beginning that is wrong already is read as
    well as possible, and continued.
    """

    start = HeaderState()

    def __init__(self, characters: Iterable[str], fields: str = FIELD_ORDER) -> None:
        self.characters = frozenset(characters)
        self.newline = self.characters & {"\n"}
        self.fields = [letter for letter in FIELD_ORDER if letter in fields and letter in self.characters]
        self.values = {letter: self._writable(values) for letter, values in FIELD_VALUES.items()}
        self.field_lines = {f"{letter}:{value}" for letter in "MLK" for value in self.values[letter]}
        self.field_beginnings = {line[:end] for line in self.field_lines for end in range(2, len(line) + 1)}
        self.lengths = self._writable(LENGTHS)
        self.factors = [length_factor(text) for text in self.lengths]
        self.enclosed = {ends[0]: pattern for ends, pattern in ENCLOSED.items() if self._writable([ends])}
        chord = ["["] if self._writable(["[]"]) else []
        self.words: dict[str, set[str]] = defaultdict(set)  # by beginning; without sounds and enclosed words
        for word in ["T", *chord, *self._writable([" ", "-", "(", ")", *BARS, *TUPLETS, *BROKEN])]:
            for end in range(1, len(word) + 1):
                self.words[word[:end]].add(EDGE if word in BARS and word != "|" else word)
        self.first_characters = {*self.words, *self.enclosed, *"^_=cz]"}
        self._spellings = lru_cache(maxsize=2**10)(self._find_spellings)
        self._sound_lengths = lru_cache(maxsize=2**14)(self._find_sound_lengths)
        self._moves = lru_cache(maxsize=2**12)(self._find_moves)

    def _writable(self, words: Iterable[str]) -> list[str]:
        return [word for word in words if self.characters.issuperset(word)]

    def advance(self, state: State, character: str) -> State:
        """Return the state after one more character, be it allowed or not."""
        if isinstance(state, HeaderState):
            return _advance_header(state, character)
        return self._advance_body(*state, character)

    def allowed(self, state: State) -> set[str]:
        """Return the characters that may follow, `END` if the tune may end. There is always one."""
        if isinstance(state, HeaderState):
            return self._allowed_in_header(state) or {*self.newline} or {END}
        return self._allowed_in_body(*state)

    def _allowed_in_header(self, header: HeaderState) -> set[str]:
        letter, value = header.line[:1], header.line[2:]
        if not letter:
            return set(self._next_fields(header.fields))
        if len(header.line) == 1:
            return {*self.characters & {":"}}
        if letter not in TEXT_VALUES:
            values = self.values.get(letter, [])
            return {each[len(value) :][:1] or "\n" for each in values if each.startswith(value)} & self.characters
        whole = TEXT_VALUES[letter].fullmatch
        following = {each for each in self.characters - {"\n"} if whole(value + each) or whole(value + each + "a")}
        return following | self.newline if whole(value) else following

    def _next_fields(self, written: str) -> Iterator[str]:
        last = max(map(FIELD_ORDER.find, written), default=-1)
        for letter in self.fields:
            if FIELD_ORDER.index(letter) > last:
                yield letter
                if letter in REQUIRED_FIELDS:
                    return

    def _advance_body(self, bar: BarState, word: str, character: str) -> BodyState:
        if character == "\n":
            return BodyState(self._end_line(bar, word))
        if word[:1] == "%" or _is_field(word):  # to the end of the line
            return BodyState(bar, word + character)
        if character == ":" and bar.chord == 0 and len(word) == 1 and word.isalpha():
            return BodyState(bar._replace(chord=None), f"[{word}:")
        ended, word = _split(word, character, bar.previous == "\n")
        return BodyState(self._after_words(bar, ended)[0], word)

    def _end_line(self, bar: BarState, word: str) -> BarState:
        if _is_field(word):
            return bar.after_field(word[0], word[2:])
        bar, _ = self._after_words(bar, () if word[:1] == "%" else _split_whole(word))
        if bar.filled == bar.full:
            bar = bar.after_bar(edge=False)
        return bar._replace(previous="\n", last_length=0)

    def _after_words(self, bar: BarState, words: Iterable[str]) -> tuple[BarState, bool]:
        """Return the state after some words, and whether all of them are allowed."""
        good = True
        for word in words:
            good = good and self._is_allowed(bar, word)
            bar = bar.after_word(word)
        return bar, good

    def _allowed_in_body(self, bar: BarState, word: str) -> set[str]:
        if word[:1] == "%" or _is_field(word) or OPEN_INLINE_FIELD.fullmatch(word):
            field, end = word.removeprefix("["), self.characters & {"]"} if word[0] == "[" else self.newline
            following = {each for each in self.characters if field + each in self.field_beginnings}
            return following | end if field in self.field_lines else following or {*end} or {END}
        allowed: set[str] = set()
        fallback: set[str] = set()  # where the beginning is wrong already
        after: dict[tuple[str, ...], tuple[BarState, bool]] = {(): (bar, True)}
        for ended, beginning, characters in self._moves(word, bar.previous == "\n"):
            if ended not in after:
                after[ended] = self._after_words(bar, ended)
            next_bar, good = after[ended]
            if self._may_begin(next_bar, beginning):
                (allowed if good else fallback).update(characters)
        whole, good = self._after_words(bar, _split_whole(word))
        if whole.previous in "c|" and whole.is_closed:
            (allowed if good else fallback).update(self.newline)
            if good and whole.may_be_last:
                allowed.add(END)
        return allowed or fallback or {END}

    def _find_moves(self, word: str, begins_line: bool) -> list[tuple[tuple[str, ...], str, set[str]]]:
        """Return the words that a character ends, the word that it continues or begins, and all such characters."""
        alike: dict[str, set[str]] = defaultdict(set)
        moves: dict[tuple[tuple[str, ...], str], set[str]] = defaultdict(set)
        candidates = self.characters - {"\n"}
        if word[:1] not in QUOTED:
            candidates -= {*UNDEFINED} - ({"K"} if begins_line and not word else set())  # K: may begin a line
        for character in candidates:
            alike[_canonical(word, character)].add(character)
        for character, characters in alike.items():
            ended, beginning = _split(word, character, begins_line)
            if FIRST_LIKE.get(beginning[:1], beginning[:1]) in self.first_characters:
                moves[ended, FIRST_LIKE.get(beginning, beginning)] |= characters
        return [(ended, beginning, characters) for (ended, beginning), characters in moves.items()]

    def _may_begin(self, bar: BarState, beginning: str) -> bool:
        """Return whether the beginning of a word can become a word that is allowed."""
        first = beginning[0]
        if first in "^_=cz]":
            return self._may_sound(bar, beginning, whole=False)
        if _is_field(beginning):
            return beginning in self.field_beginnings and (first == "K" or not (bar.filled or bar.required))
        if first in self.enclosed:
            fits = bar.accepts_sound if first == '"' else bar.chord is None
            return fits and bar.marks < MAX_MARKS and self.enclosed[first].fullmatch(beginning) is not None
        if beginning[-1] == "[" and len(beginning) > 1:
            after, good = self._after_words(bar, (beginning[:-1],))
            if good and self._may_begin(after, "["):
                return True
        return any(self._is_allowed(bar, word) for word in self.words.get(beginning, ()))

    def _is_allowed(self, bar: BarState, word: str) -> bool:
        """Return whether a whole word may come next."""
        kind = kind_of(word)
        if kind in ("note", "rest", "chord_close"):
            return self._may_sound(bar, word, whole=True)
        if kind == "bar":
            ends = bar.bar_lines < MAX_BAR_LINES and bar.is_closed and bar.may_end(edge=word != "|")
            return ends or self._is_overfull(bar)
        if kind == "space":
            return bar.chord is None and bar.previous not in " \n"
        if kind == "tie":
            return bar.has_note and bar.previous == "c" and not bar.marks
        if word == ")":
            return bar.has_note and bar.slurs > 0
        if kind in ("decoration", "grace"):
            return bar.chord is None and bar.marks < MAX_MARKS
        if kind == "broken":
            between_notes = bar.last_length > 0 and bar.chord is None and not bar.broken
            return between_notes and not self._is_overfull(bar.after_broken_rhythm(word))
        if kind == "tuplet":
            return bar.accepts_sound and bar.is_closed and not self._is_overfull(bar.after_tuplet(word))
        if word == "(" and bar.slurs == MAX_SLURS:
            return False
        return kind in ("text", "slur", "chord_open") and bar.accepts_sound and bar.marks < MAX_MARKS

    def _is_overfull(self, bar: BarState) -> bool:
        """Return whether the bar cannot be filled exactly any more."""
        if bar.full is None:
            return False
        lengths, _ = self._spellings(bar.full, bar.unit)
        return not can_fill(bar.remaining, lengths, bar.tuplet, bar.tuplet_left, bar.broken)

    def _may_sound(self, bar: BarState, word: str, whole: bool) -> bool:
        """Return whether a note, a rest or a chord's end (or, if not `whole`, one that begins like this) may come."""
        mark, length = _read_sound(word)
        if length is None or (mark == "z" and bar.chord is not None) or (mark == "]" and not bar.chord):
            return False
        if mark == "c" and bar.chord:
            return bar.chord_notes < MAX_CHORD_NOTES and length in self._spellings(bar.full, bar.unit)[1]
        if mark == "]" and self._is_overfull(bar):
            return length in self._spellings(bar.full, bar.unit)[1]
        timing = bar.full, bar.unit, bar.filled, bar.required, bar.tuplet, bar.tuplet_left, bar.broken, bar.chord
        lengths, beginnings = self._sound_lengths(*timing)
        return length in (lengths if whole else beginnings)

    def _find_sound_lengths(self, *timing: Any) -> tuple[set[str], set[str]]:
        """Return the spelled lengths that the next sound (in a chord, the chord) may have, and their beginnings."""
        full, unit, filled, required, tuplet, tuplet_left, broken, chord = timing
        bar = BarState(
            full, False, unit, filled, required=required, tuplet=tuplet, tuplet_left=tuplet_left, broken=broken
        )
        if chord != 0 and not bar.accepts_sound:
            return set(), set()
        chord_factors = self.factors if chord == 0 else [(1, 1)]
        fitting = set()
        for text in self._spellings(bar.full, bar.unit)[1][""]:
            length = scaled(chord or bar.unit, *length_factor(text))
            if any(self._fits(bar, scaled(length, *factor)) for factor in chord_factors):
                fitting.add(text)
        return fitting, {text[:end] for text in fitting for end in range(len(text) + 1)}

    def _fits(self, bar: BarState, length: Length) -> bool:
        """Return whether the bar can still be filled exactly after a sound of this length."""
        if bar.full is None:
            return True
        after = bar.after_sound(length, bar.has_note)
        remaining = bar.remaining + bar.filled - after.filled
        if self._is_overfull(bar):
            return remaining >= 0
        lengths, _ = self._spellings(bar.full, bar.unit)
        return can_fill(remaining, lengths, after.tuplet, after.tuplet_left, None)

    def _find_spellings(self, full: Length | None, unit: Length) -> Spellings:
        """Return the lengths of notes, the shortest first, and the spelled lengths by each of their beginnings.

        If a full bar is no multiple of the shortest, there is one more length, which divides both.
        """
        texts = self.lengths
        shortest = min(scaled(unit, *length_factor(text)) for text in texts)
        if full is not None and full % shortest:
            finer = f"/{unit / _common_divisor(shortest, full)}"
            texts = [*texts, *(text for text in self._writable([finer]) if len(text) <= 4)]
        beginnings = defaultdict(list)
        for text in texts:
            for end in range(len(text) + 1):
                beginnings[text[:end]].append(text)
        return tuple(sorted(scaled(unit, *length_factor(text)) for text in texts)), dict(beginnings)


def _advance_header(header: HeaderState, character: str) -> State:
    if character != "\n":
        is_text = header.line[:1] in TEXT_VALUES and header.line[1:2] == ":" and character not in " -"
        return header._replace(line=header.line + ("a" if is_text else character))  # so that states recur
    match = FIELD.match(COMMENT.sub("", header.line))
    if match is None:
        return header._replace(line="")
    letter, value = match[1], match[2].strip()
    if letter == "K":
        return BodyState(body_start(header.metre, header.unit))
    return HeaderState(
        header.fields + letter,
        value if letter == "M" else header.metre,
        read_unit_length(value) if letter == "L" else header.unit,
    )


def _common_divisor(a: Length, b: Length) -> Fraction:
    """Return the greatest length that divides both."""
    return Fraction(gcd(a.numerator * b.denominator, b.numerator * a.denominator), a.denominator * b.denominator)


def _is_field(word: str) -> bool:
    """Return whether a line of the body is a field."""
    return word[1:2] == ":" and word[0].isalpha()


@lru_cache(maxsize=4096)
def _split(word: str, character: str, begins_line: bool) -> tuple[tuple[str, ...], str]:
    """Return the words that a character ends and the word that it begins or continues, in canonical characters."""
    if begins_line and character == ":" and len(word) == 1 and word.isalpha() and word not in "cz":
        return (), word + ":"
    word += character if OPEN_INLINE_FIELD.fullmatch(word) else _canonical(word, character)
    ended = []
    while not WORD_BEGINNING.fullmatch(word):
        ended.append(WORDS(word)[0])
        word = word[len(ended[-1]) :]
    return tuple(ended), ACCIDENTALS.sub("c", word)


def _canonical(word: str, character: str) -> str:
    """Return the character that stands for this one after the beginning of a word."""
    quote = word[:1]
    if quote not in QUOTED or (len(word) > 1 and word[-1] == quote):
        return CANONICAL.get(character, character)
    letters = CHORD_ROOT if word == '"' else QUOTED[quote]
    return "A" if letters.fullmatch(character) else character


@lru_cache(maxsize=4096)
def _split_whole(text: str) -> tuple[str, ...]:
    """Return the words of a text as judge reads it."""
    return tuple(WORDS(text))


@lru_cache(maxsize=4096)
def _read_sound(word: str) -> tuple[str, str | None]:
    """Return what sounds (`c`, `z`, or `]` for a chord) and its length so far; None if it is spelled in another way."""
    match = SOUND_BEGINNING.fullmatch(word)
    return (word[0] if word[0] in "z]" else "c"), (match[1] or "") if match else None
