"""Bar-aware decoding: a model writes only tunes whose bars add up, under header fields that may be given.

`Automaton` reads ABC character by character as `preprocessing.notation.judge` does and says which characters may
follow, so that the tune can still be finished with `bars_add_up`. States recur, so each is worked out once.

It reads any ABC, but writes less than judge accepts. Left out are rests of whole bars (Z, X), overlays (&), spacers
(y), voices, inline fields, comments, joined lines, +decorations+, quoted text that is no chord symbol, grace groups of
more than 8 notes, lengths, tuplets and bar lines that are not in the lists below, keys with accidentals of their own
(`D =c`), a tuplet or broken rhythm cut by a bar line or a line's end, blanks that say nothing.
"""

import re
from collections import defaultdict
from collections.abc import Hashable, Iterable, Iterator, Mapping
from fractions import Fraction
from functools import lru_cache
from math import gcd
from typing import Any, NamedTuple

import torch
from transformers import LogitsProcessor, PreTrainedTokenizerBase

from preprocessing.notation import (
    COMMENT,
    FIELD,
    LENGTH,
    TOKEN,
    TUPLET_TIME,
    WHOLE,
    WORDS,
    Length,
    bar_length,
    default_unit_length,
    parse_length,
    read_unit_length,
)

FIELD_ORDER = "XTRMLQK"  # of the corpus
REQUIRED = "XMLK"  # a header is complete with these
END = ""  # among the allowed characters: the tune may end
MAX_STATES = 2**15  # remembered at once

LENGTHS = [
    "", "2", "3", "4", "5", "6", "7", "8", "9", "10", "12", "14", "15", "16", "18", "20", "24", "32",
    "/", "/2", "//", "/4", "3/", "3/2", "3/4", "3//", "5/2", "7/2",
]  # fmt: skip
BARS = [
    "|", "||", "|]", "|:", ":|", ":|:", "::", "[|", "[|]", "[|]:", ":||", ":||:", ":|]", "||:", "|:|", "::|", "||]",
    "|||", "|1", "|2", "|3", "|4", "|[1", "|[2", "|[3", "[1", "[2", "[3", "[4",
    ":|1", ":|2", ":|3", ":|4", ":|[1", ":|[2", ":|[3", "||1", ":||2",
]  # fmt: skip
EDGE = "||"  # any of them but the first
TUPLETS = [*(f"({notes}" for notes in range(2, 10)), "(3:2"]
BROKEN = ["<", "<<", ">", ">>"]
METRES = [f"{n}/{d}" for d, most in ((1, 4), (2, 6), (4, 12), (8, 15), (16, 15)) for n in range(1, most + 1)]
MODES = ("", "m", "mix", "dor", "phr", "lyd", "loc")
KEYS = [tonic + sign + mode for tonic in "ABCDEFG" for sign in ("", "#", "b") for mode in MODES]
VALUES = {
    "X": ["1"],
    "M": ["C", "C|", "none", *METRES],
    "L": ["1/1", "1/2", "1/4", "1/8", "1/16", "1/32"],
    "K": ["none", "HP", "Hp", *KEYS],
}
FREE = {  # values that do not bear on the bars: no blank at either end, no two together
    "T": re.compile(r"(?=.{1,60}$)[^\s%]+(?: [^\s%]+)*"),
    "R": re.compile(r"(?=.{1,30}$)[a-z]+(?:[ -][a-z]+)?"),
    "Q": re.compile(r"(?=.{1,30}$)[^\s%]+(?: [^\s%]+)*"),
}
LAST_BAR_LINE = re.compile(r".*(?:\|[]|:]*(?:\[?[1-9])?|::+|\[[1-9])(?=[^]|:[1-9])", re.DOTALL)
COMPOUND = re.compile(r"(?:6|9|12)\s*/")

# Characters that do the same are one: `c` any note, `z` any rest, `T` any decoration, `A` what a quote may hold.
SAME = {**dict.fromkeys("ABCDEFGabdefg", "c"), "x": "z", **dict.fromkeys(".~HIJNOPQRSUVWhijklmnopqrstuvw", "T")}
BEGINNING = re.compile(  # of a word
    rf"""
      (?:\^\^?|__?|=)?(?:[A-Ga-g][',]{{0,8}}{LENGTH})? | [zx]{LENGTH} | [ZX][0-9]{{0,3}} | \]{LENGTH}
    | :+ | :{{0,8}}\|[\]|:]{{0,8}}(?:\[|\[?[1-9][0-9,.-]{{0,16}})? | \[\|[\]:]{{0,8}} | :?\[(?:[1-9][0-9,.-]{{0,16}})?
    | \[[A-Za-z]:[^\[\]\n]*\]? | \{{[^{{}}\n]*\}}? | "[^"\n]*"? | ![^!\s|]{{0,30}}!?
    | \((?:[1-9](?::[0-9]{{0,2}}){{0,2}})? | >{{1,3}} | <{{1,3}} | [ \t`]+ | .
    """,
    re.VERBOSE,
)
SOUND = re.compile(r"(?:\^\^?|__?|=)?(?:(?:c(?:'{0,2}|,{0,2})|[z\]])([0-9/]*))?")
GRACE_NOTE = r"c(?:'{0,2}|,{0,2})[0-9]?/{0,2}"
WRITTEN = {  # what is written of these words, by their first character and their last
    '""': re.compile(r'"A{0,8}|"A{1,8}"'),
    "!!": re.compile(r"!A{0,12}|!A{1,12}!"),
    "{}": re.compile(rf"\{{(?:(?:{GRACE_NOTE}){{0,7}}(?:\^\^?|__?|=)?|(?:{GRACE_NOTE}){{1,8}}\}}?)"),
}
SIGNED = re.compile(r"[\^_=]+c$")  # no matter by which accidental
CHORD_ROOT = re.compile(r"[A-G]")
QUOTED = {'"': re.compile(r"[A-Za-z0-9#+/]"), "!": re.compile(r"[A-Za-z0-9.]")}


class Header(NamedTuple):
    """Where a tune stands in its header: the fields written, what they say of bars, and the line being written."""

    written: str = ""
    metre: str | None = None
    unit: Fraction | None = None
    line: str = ""


class Place(NamedTuple):
    """Where a tune stands in its body. Lengths are in ticks, as in preprocessing/notation.py."""

    wanted: Length | None  # the length of a bar
    compound: bool
    unit: Length
    total: Length = 0
    at_edge: bool = True
    first: bool = True  # no bar is finished yet
    heads: frozenset[Length] = frozenset()  # lengths of short bars after an edge
    tails: frozenset[Length] = frozenset()  # and before one
    owed: Length = 0  # of this bar, if it has to complete the short bar before it
    has_note: bool = False
    tuplet: tuple[int, int] = (1, 1)
    tuplet_left: int = 0
    broken: tuple[int, int] | None = None  # what broken rhythm makes of the next note
    last: Length = 0  # of the note that broken rhythm may follow
    chord: Length | None = None  # the length of an open chord's first note, 0 before it
    after: str = "\n"  # the last word: line end, blank, bar line, sound `c`, or what waits for a sound, `T`


class Body(NamedTuple):
    """Where a tune stands in its body, and the word that is being written."""

    place: Place
    word: str = ""


State = Header | Body
Spellings = tuple[tuple[Length, ...], Mapping[str, list[str]]]


def _times(length: Length, numerator: int, denominator: int) -> Length:
    scaled = length * numerator
    if isinstance(scaled, int) and scaled % denominator == 0:
        return scaled // denominator
    return Fraction(scaled, denominator)


def _ticks(length: Fraction) -> Length:
    return _times(WHOLE, length.numerator, length.denominator)


def _common(a: Length, b: Length) -> Fraction:
    """Return the greatest length that divides both."""
    return Fraction(gcd(a.numerator * b.denominator, b.numerator * a.denominator), a.denominator * b.denominator)


@lru_cache(maxsize=2**16)
def fillable(
    room: Length, lengths: tuple[Length, ...], tuplet: tuple[int, int], left: int, broken: tuple[int, int] | None
) -> bool:
    """Return whether notes of these lengths can fill `room` ticks exactly, the open tuplet and broken rhythm first.

    The first of the lengths divides a whole bar, so notes of that length fill what is a multiple of it.
    """
    if room < 0 or not (left or broken):
        return room >= 0 and room % lengths[0] == 0
    for length in lengths:
        scaled = _times(length, *tuplet) if left else length
        rest = room - (_times(scaled, *broken) if broken else scaled)
        if fillable(rest, lengths, tuplet, max(left - 1, 0), None):
            return True
    return False


@lru_cache(maxsize=4096)
def _kind(word: str) -> str | None:
    match = TOKEN.match(word)
    return match.lastgroup if match else None


@lru_cache(maxsize=4096)
def _factor(word: str) -> tuple[int, int]:
    """Return the length factor of a note, a rest or a chord's end; 0 if it is divided by zero."""
    try:
        return parse_length(word.lstrip("^_=,'ABCDEFGabcdefgzx]")).as_integer_ratio()
    except ValueError:
        return 0, 1


class Automaton:
    """What may follow the beginning of a tune, written with the characters of a vocabulary alone.

    `fields` are those that a header may have. A beginning that is wrong already is read on as well as it can be.
    """

    start = Header()

    def __init__(self, characters: Iterable[str], fields: str = FIELD_ORDER) -> None:
        self.characters = frozenset(characters)
        self.fields = [letter for letter in FIELD_ORDER if letter in fields and letter in self.characters]
        self.values = {letter: self.writable(values) for letter, values in VALUES.items()}
        self.lines = {f"{letter}:{value}" for letter in "MLK" for value in self.values[letter]}
        self.line_beginnings = {line[:end] for line in self.lines for end in range(2, len(line) + 1)}
        self.lengths = self.writable(LENGTHS)
        self.factors = [_factor(text) for text in self.lengths]
        self.spellings: dict[tuple[Length | None, Length], Spellings] = {}
        self.groups: dict[str, set[str]] = defaultdict(set)
        for character in self.characters:
            self.groups[SAME.get(character, character)].add(character)
        self.words: dict[str, list[str]] = defaultdict(list)  # what a beginning may become, but for sounds
        self.written = {ends[0]: pattern for ends, pattern in WRITTEN.items() if self.writable([ends])}
        marks = [*(mark for mark in "TKLM" if mark in self.groups), *("[" for _ in self.writable(["[]"]))]
        for word in [*marks, *self.writable([" ", "-", "(", ")", *BARS, *TUPLETS, *BROKEN])]:
            what = EDGE if word in BARS and word != "|" else word  # all edges are one
            for end in range(1, len(word) + 1):
                if what not in self.words[word[:end]]:
                    self.words[word[:end]].append(what)
        self.openings = {*self.words, *self.written, *"cz^_=]\n"}
        self.fitting = lru_cache(maxsize=2**14)(self.beginnings_that_fit)
        self.committed = lru_cache(maxsize=4096)(self.commit_all)  # most characters end the same word

    def writable(self, words: Iterable[str]) -> list[str]:
        return [word for word in words if self.characters.issuperset(word)]

    def advance(self, state: State, character: str) -> State:
        """Return the state after one more character, be it allowed or not."""
        if isinstance(state, Header):
            return self.in_header(state, character)
        place, word, _ = self.in_body(state.place, state.word, character)
        return Body(place, word)

    def allowed(self, state: State) -> set[str]:
        """Return the characters that may follow, `END` if the tune may end. There is always one."""
        if isinstance(state, Header):
            return self.allowed_in_header(state) or {*self.characters & {"\n"}} or {END}
        groups: Iterable[tuple[str, Iterable[str]]] = self.groups.items()
        if is_field(state.word) or state.word[:1] in QUOTED:
            groups = zip(self.characters, self.characters, strict=True)
        allowed: set[str] = set()
        at_least: set[str] = set()  # where the words before are wrong already
        for one, same in groups:
            if state.word or one in self.openings:
                place, word, good = self.in_body(state.place, state.word, one)
                if self.hopeful(place, word):
                    at_least.update(same)
                    if good:
                        allowed.update(same)
        if self.may_end(state):
            allowed.add(END)
        return allowed or at_least or {END}

    # The header

    def allowed_in_header(self, header: Header) -> set[str]:
        letter, value = header.line[:1], header.line[2:]
        if not letter:
            return set(self.next_fields(header.written))
        if len(header.line) == 1:
            return {*self.characters & {":"}}
        if letter not in FREE:
            values = self.values.get(letter, [])
            return {one[len(value) :][:1] or "\n" for one in values if one.startswith(value)} & self.characters
        whole = FREE[letter].fullmatch
        more = {one for one in self.characters - {"\n"} if whole(value + one) or whole(value + one + "a")}
        return more | (self.characters & {"\n"}) if whole(value) else more

    def next_fields(self, written: str) -> Iterator[str]:
        last = max(map(FIELD_ORDER.find, written), default=-1)
        for letter in self.fields:
            if FIELD_ORDER.index(letter) > last:
                yield letter
                if letter in REQUIRED:
                    return

    def in_header(self, header: Header, character: str) -> State:
        if character != "\n":
            free = header.line[:1] in FREE and header.line[1:2] == ":" and character not in " -"
            return header._replace(line=header.line + ("a" if free else character))  # what it says does not matter
        match = FIELD.match(COMMENT.sub("", header.line))
        if match is None:
            return header._replace(line="")
        letter, value = match[1], match[2].strip()
        header = header._replace(written=header.written + letter, line="")
        if letter == "M":
            return header._replace(metre=value)
        if letter == "L":
            return header._replace(unit=read_unit_length(value))
        if letter == "K":
            unit = header.unit or default_unit_length(header.metre)
            return Body(with_metre(Place(None, False, _ticks(unit)), header.metre or "none"))
        return header

    # How long the notes are

    def spelled(self, place: Place) -> Spellings:
        """Return the lengths of notes, the shortest first, and what each beginning of a spelling may become.

        If the bar is no multiple of the shortest, there is one more, which divides both.
        """
        key = place.wanted, place.unit
        if key not in self.spellings:
            texts = self.lengths
            shortest = min(_times(place.unit, *factor) for factor in self.factors)
            if place.wanted is not None and place.wanted % shortest:
                finer = f"/{place.unit / _common(shortest, place.wanted)}"
                texts = [*texts, *(text for text in self.writable([finer]) if len(text) <= 4)]
            lengths = sorted(_times(place.unit, *_factor(text)) for text in texts)
            beginnings = defaultdict(list)
            for text in texts:
                for end in range(len(text) + 1):
                    beginnings[text[:end]].append(text)
            self.spellings[key] = tuple(lengths), dict(beginnings)
        return self.spellings[key]

    def lost(self, place: Place) -> bool:
        """Return whether the bar cannot be filled any more, as in a beginning that is wrong."""
        if place.wanted is None:
            return False
        return not fillable(room(place), self.spelled(place)[0], place.tuplet, place.tuplet_left, place.broken)

    def fits(self, place: Place, length: Length) -> bool:
        """Return whether a sound of this length may come next."""
        if place.wanted is None:
            return True
        after = sounded(place, length)
        left = room(place) + place.total - after.total
        if self.lost(place):
            return left >= 0
        return fillable(left, self.spelled(place)[0], after.tuplet, after.tuplet_left, None)

    # Words of music

    def in_body(self, place: Place, word: str, character: str) -> tuple[Place, str, bool]:
        """Return place and word after one more character, and whether the words that it ends may stand there."""
        if character == "\n":
            return self.end_line(place, word)
        if word[:1] == "%" or is_field(word):  # they take the whole line
            return place, word + character, True
        if character == ":" and len(word) == 1 and word.isalpha():
            if place.after == "\n" and word not in "cz":
                return place, word + ":", True
            if place.chord == 0:
                return place._replace(chord=None), f"[{word}:", True
        ended, word = split(word, character)
        if not ended:
            return place, word, True
        after, good = self.committed(place, ended)
        return after, word, good

    def hopeful(self, place: Place, word: str) -> bool:
        """Return whether the word that is being written can become one that may stand there."""
        if not word:
            return True
        if is_field(word):
            return word in self.line_beginnings and (word[0] == "K" or not (place.total or place.owed))
        if word[0] in self.written:
            fits = is_open(place) if word[0] == '"' else place.chord is None
            return fits and self.written[word[0]].fullmatch(word) is not None
        if word[0] in "^_=cz]":
            return self.may_sound(place, word)
        if word[-1] == "[" and len(word) > 1:
            after, good = self.commit(place, word[:-1])
            if good and self.hopeful(after, "["):
                return True
        return any(self.commit(place, whole)[1] for whole in self.words.get(word, []))

    def may_sound(self, place: Place, word: str) -> bool:
        mark, text = sound_of(word)
        if text is None or (mark == "z" and place.chord is not None) or (mark == "]" and not place.chord):
            return False
        if mark == "c" and place.chord:
            return text in self.spelled(place)[1]
        time = place.wanted, place.owed, place.total, place.unit
        return text in self.fitting(*time, place.tuplet, place.tuplet_left, place.broken, place.chord)

    def beginnings_that_fit(self, *timing: Any) -> frozenset[str]:
        """Return the beginnings of the lengths that a sound may have: the first of a chord, if that is open."""
        wanted, owed, total, unit, tuplet, left, broken, chord = timing
        place = Place(wanted, False, unit, total, owed=owed, tuplet=tuplet, tuplet_left=left, broken=broken)
        if chord != 0 and not is_open(place):
            return frozenset()
        factors = [(1, 1)] if chord != 0 else self.factors
        found: set[str] = set()
        for text in self.spelled(place)[1][""]:
            length = _times(chord or unit, *_factor(text))
            if any(self.fits(place, _times(length, *factor)) for factor in factors):
                found.update(text[:end] for end in range(len(text) + 1))
        return frozenset(found)

    def commit(self, place: Place, word: str) -> tuple[Place, bool]:
        """Return the place after a whole word, and whether it may stand there."""
        kind = _kind(word)
        if kind in ("note", "rest"):
            return self.sound(place, _times(place.unit, *_factor(word)), kind == "note")
        if kind == "chord_close":
            length = _times(place.chord or 0, *_factor(word))
            return sounded(place._replace(chord=None), length), length > 0 and self.fits(place, length)
        if kind == "bar":
            good = all_closed(place)
            after, adds_up = close_bar(place, edge=word != "|")
            return after._replace(chord=None, after="|", last=0), (good and adds_up) or self.lost(place)
        if kind == "broken":
            good = place.last > 0 and place.chord is None and not place.broken
            place = lean(place, word)
            return place, good and not self.lost(place)
        if kind == "tuplet":
            good = is_open(place) and all_closed(place)
            place = begin_tuplet(place, word)
            return place, good and not self.lost(place)
        if kind == "space":
            return place._replace(after=" ", last=0), place.after not in " \n" and place.chord is None
        if kind == "tie" or word == ")":
            return place._replace(after="c"), place.has_note
        if kind == "inline":
            return with_field(place, word[1], word[3:-1]), False
        if kind in ("decoration", "grace"):
            return place._replace(after="T", last=0), place.chord is None
        good = kind in ("text", "slur", "chord_open") and is_open(place)
        return place._replace(after="T", last=0, chord=0 if kind == "chord_open" else place.chord), good

    def sound(self, place: Place, length: Length, is_note: bool) -> tuple[Place, bool]:
        place = place._replace(has_note=place.has_note or is_note)
        if place.chord is None:
            return sounded(place, length), length > 0 and self.fits(place, length)
        good = place.chord > 0 or any(self.fits(place, _times(length, *factor)) for factor in self.factors)
        return place._replace(chord=place.chord or length), is_note and good

    def commit_all(self, place: Place, words: Iterable[str]) -> tuple[Place, bool]:
        good = True
        for word in words:
            place, fine = self.commit(place, word)
            good = good and fine
        return place, good

    def end_line(self, place: Place, word: str) -> tuple[Place, str, bool]:
        if is_field(word):
            return with_field(place, word[0], word[2:]), "", word in self.lines
        place, good = self.committed(place, () if word[:1] == "%" else whole_words(word))
        good = good and place.after in "c|" and all_closed(place)
        if place.total == place.wanted:
            place, _ = close_bar(place, edge=False)
        return place._replace(after="\n", last=0), "", good

    def may_end(self, body: Body) -> bool:
        place, good = self.committed(body.place, whole_words(body.word))
        if not (good and place.has_note and place.after in "c|" and all_closed(place)) or is_field(body.word):
            return False
        if place.wanted is None or place.total in (0, place.wanted):
            return True
        if place.owed:
            return place.total == place.owed
        return not place.first and place.wanted - place.total in place.heads


def all_closed(place: Place) -> bool:
    """Return whether no chord, tuplet or broken rhythm waits for its end."""
    return place.chord is None and not place.tuplet_left and not place.broken


@lru_cache(maxsize=4096)
def split(word: str, character: str) -> tuple[tuple[str, ...], str]:
    """Return the words that a character ends and the word that it begins or continues."""
    word += canonical(word, character)
    ended = []
    while not BEGINNING.fullmatch(word):
        ended.append(WORDS(word)[0])
        word = word[len(ended[-1]) :]
    return tuple(ended), SIGNED.sub("c", word)


@lru_cache(maxsize=4096)
def whole_words(text: str) -> tuple[str, ...]:
    """Return the words of a text as judge reads it."""
    return tuple(WORDS(text))


@lru_cache(maxsize=4096)
def sound_of(word: str) -> tuple[str, str | None]:
    """Return what sounds, `c`, `z` or the chord that `]` ends, and its length so far; None if it is not written so."""
    match = SOUND.fullmatch(word)
    return (word[0] if word[0] in "z]" else "c"), (match[1] or "") if match else None


def is_field(word: str) -> bool:
    """Return whether a line of the body is a field."""
    return word[1:2] == ":" and word[0].isalpha()


def canonical(word: str, character: str) -> str:
    """Return the character that stands for this one after the beginning of a word."""
    if word[2:3] == ":":  # of an inline field
        return character
    quote = word[:1]
    if quote not in QUOTED or (len(word) > 1 and word[-1] == quote):
        return SAME.get(character, character)
    letters = CHORD_ROOT if word == '"' else QUOTED[quote]
    return "A" if letters.fullmatch(character) else character


def with_metre(place: Place, value: str) -> Place:
    """Return the place after a M: field."""
    bar = bar_length(value)
    return place._replace(wanted=None if bar is None else _ticks(bar), compound=bool(COMPOUND.match(value)))


def with_field(place: Place, letter: str, value: str) -> Place:
    """Return the place after a field of the body."""
    if letter == "M":
        return with_metre(place, value.strip())
    unit = read_unit_length(value) if letter == "L" else None
    return place._replace(unit=_ticks(unit)) if unit else place


def room(place: Place) -> Length:
    """Return what is left of the bar, which has one."""
    return (place.owed or place.wanted or 0) - place.total


def is_open(place: Place) -> bool:
    """Return whether a sound may come in this bar, or what waits for one."""
    return place.chord is None and (place.wanted is None or room(place) > 0)


def sounded(place: Place, length: Length) -> Place:
    """Return the place after a note, a rest or a chord of this length, but for the tuplet and broken rhythm."""
    left = place.tuplet_left
    length = _times(length, *place.tuplet) if left else length
    total = place.total + (_times(length, *place.broken) if place.broken else length)
    return place._replace(
        total=total,
        owed=place.owed if total <= place.owed else 0,
        tuplet=place.tuplet if left > 1 else (1, 1),
        tuplet_left=max(left - 1, 0),
        broken=None,
        last=length,
        after="c",
    )


def lean(place: Place, word: str) -> Place:
    """Return the place after broken rhythm, as judge counts it."""
    half = 2 ** len(word)
    long, short = (2 * half - 1, half), (1, half)
    first, second = (long, short) if word[0] == ">" else (short, long)
    total = place.total + _times(place.last, first[0] - half, half)
    return place._replace(total=total, broken=second, last=0, after="T")


def begin_tuplet(place: Place, word: str) -> Place:
    """Return the place after the sign of a tuplet, as judge reads it."""
    notes, time, count = ([int(part or 0) for part in word[1:].split(":")] + [0, 0])[:3]
    time = time or TUPLET_TIME.get(notes, 3 if place.compound else 2)
    return place._replace(tuplet=(time, notes), tuplet_left=count or notes, last=0, after="T")


def close_bar(place: Place, edge: bool) -> tuple[Place, bool]:
    """Return the place after a bar, and whether the bar is full, or short and completed or to be completed next.

    judge's check_halves pairs the halves over the whole tune. Here only the second of two may be the one that lacks:
    a model that begins a bar like a pickup cannot be held to end another like that.
    """
    if not place.total:
        return place._replace(at_edge=place.at_edge or edge), True
    after = place._replace(total=0, at_edge=edge, first=False, owed=0)
    if place.wanted is None or place.total == place.wanted:
        return after, True
    lacks = place.wanted - place.total
    if lacks < 0 or not (place.at_edge or edge):
        return after, False
    heads, tails = place.heads, place.tails
    if place.at_edge and (not edge or place.first or place.owed):  # fewer than judge counts: states recur more often
        heads |= {place.total}
    if edge:
        tails |= {place.total}
    completed = (place.at_edge and (place.first or lacks in tails)) or (edge and lacks in heads)
    owed = lacks if edge and not completed and not place.owed else 0
    paid = place.owed in (0, place.total)
    return after._replace(heads=heads, tails=tails, owed=owed), paid and (completed or owed > 0)


def whole_bars(text: str) -> str:
    """Return a tune that was not written to its end up to its last bar line that is followed by something."""
    match = LAST_BAR_LINE.match(text)
    return match[0] if match else text


class _State:
    """A state of a reader, with what follows it as far as it has come up."""

    __slots__ = ("after", "forbidden", "state")

    def __init__(self, state: Hashable) -> None:
        self.state = state
        self.after: dict[int, _State] = {}
        self.forbidden: torch.Tensor | None = None  # [vocabulary]


class _Reading(LogitsProcessor):
    """Forbids what may not follow each row. Rows are boundary tokens and characters, padded on the left."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        special = set(tokenizer.all_special_tokens)
        self.ids = {token: i for token, i in tokenizer.get_vocab().items() if token not in special}
        self.characters = {i: token for token, i in self.ids.items()}
        self.boundaries = {tokenizer.bos_token_id, tokenizer.eos_token_id}
        self.padding = tokenizer.pad_token_id
        self.ids[END] = tokenizer.eos_token_id
        self.states: dict[Any, _State] = {}
        self.rows: list[_State] = []
        self.seen = torch.empty(0, 0, dtype=torch.long)

    start: Any

    def advance(self, state: Any, character: str) -> Any:
        raise NotImplementedError

    def allowed(self, state: Any) -> set[str] | None:
        """Return the characters that may follow, None for any."""
        raise NotImplementedError

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """Return scores [batch, vocabulary] with -inf for what may not follow input_ids [batch, time]."""
        if len(self.states) > MAX_STATES:
            self.states, self.rows = {}, []
        if self.rows and input_ids.shape[1] > 1 and torch.equal(input_ids[:, :-1], self.seen):
            self.rows = [self.next(row, i) for row, i in zip(self.rows, input_ids[:, -1].tolist(), strict=True)]
        else:
            self.rows = [self.read(row) for row in input_ids.tolist()]
        self.seen = input_ids.clone()
        forbidden = torch.stack([self.forbidden(row, scores) for row in self.rows])
        scores = scores.masked_fill(forbidden, -torch.inf)
        stuck = scores.amax(dim=1, keepdim=True) == -torch.inf  # another processor has forbidden the rest
        return scores.masked_fill(stuck & ~forbidden, 0.0)

    def read(self, row: list[int]) -> _State:
        state = self.of(self.start)
        for i in row:
            state = self.next(state, i)
        return state

    def of(self, state: Any) -> _State:
        if state not in self.states:
            self.states[state] = _State(state)
        return self.states[state]

    def next(self, state: _State, i: int) -> _State:
        if i not in state.after:
            if i in self.boundaries:
                state.after[i] = self.of(self.start)
            elif i == self.padding:
                state.after[i] = state
            else:
                state.after[i] = self.of(self.advance(state.state, self.characters.get(i, "\ufffd")))
        return state.after[i]

    def forbidden(self, state: _State, scores: torch.Tensor) -> torch.Tensor:
        if state.forbidden is None:
            allowed = self.allowed(state.state)
            state.forbidden = torch.full(scores.shape[1:], allowed is not None, device=scores.device)
            state.forbidden[[self.ids[character] for character in allowed or ()]] = False
        return state.forbidden


class StrictBars(_Reading):
    """Lets a model write only tunes whose bars add up. `fields` are those of the headers that it has learnt."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, fields: str = FIELD_ORDER) -> None:
        super().__init__(tokenizer)
        self.automaton = Automaton(self.characters.values(), fields)
        self.start = self.automaton.start

    def advance(self, state: State, character: str) -> State:
        return self.automaton.advance(state, character)

    def allowed(self, state: State) -> set[str]:
        return self.automaton.allowed(state)


class HeaderFields(_Reading):
    """Forces header fields to the values given, such as {"M": "6/8", "K": "Dmix"}; the model writes the others.

    A line begins with a field that is due: not before those written, not beyond the next one given. Used after
    StrictBars. Raises ValueError if a field or a value cannot be written.
    """

    def __init__(self, fields: Mapping[str, str], tokenizer: PreTrainedTokenizerBase) -> None:
        super().__init__(tokenizer)
        self.start = ("", "")  # the fields written, the line being written
        self.given = {letter: f"{letter}:{value}\n" for letter, value in fields.items()}
        for letter, line in self.given.items():
            if letter not in FIELD_ORDER or len(letter) != 1 or "\n" in line[:-1]:
                raise ValueError(f"{line[:-1]!r} is no header field: one line of {', '.join(FIELD_ORDER)}")
            if unknown := set(line) - set(self.ids):
                raise ValueError(f"{line[:-1]}: the model does not know the character {min(unknown)!r}")

    def advance(self, state: tuple[str, str] | None, character: str) -> tuple[str, str] | None:
        if state is None:  # the header is written
            return None
        written, line = state
        if character == "\n":
            return None if line[:1] == "K" else (written + line[:1], "")
        return written, line + character if not line or line[0] in self.given else line

    def allowed(self, state: tuple[str, str] | None) -> set[str] | None:
        if state is None:
            return None
        written, line = state
        if line:
            due = self.given.get(line[0], "")
            return {due[len(line)]} if due.startswith(line) else None
        last = max(map(FIELD_ORDER.find, written), default=-1)
        letters = FIELD_ORDER[last + 1 :] if written else "X"
        upto = min((letters.find(letter) for letter in self.given if letter in letters), default=len(letters))
        return set(letters[: upto + 1]) & set(self.ids) or None
