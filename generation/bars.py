"""Bar-aware decoding: a model writes only tunes whose bars add up, under header fields that may be given.

`Automaton` reads ABC character by character as `preprocessing.notation.judge` does and says which characters may
follow, so that the tune can still be finished with `bars_add_up`. States recur, so each is worked out once.

It reads any ABC, but writes less than judge accepts. Left out are rests of whole bars (Z, X), overlays (&), spacers
(y), voices, inline fields, comments, joined lines, +decorations+, +chords+, decorations with blanks, letters that stand
for no decoration, quoted text that is no chord symbol, grace groups of more than 8 notes or with signs among them,
chords of more than 6 notes, lengths, tuplets and bar lines that are not in the lists below, keys with accidentals of
their own (`D =c`), a tuplet or broken rhythm cut by a bar line or a line's end, blanks that say nothing; and of what
judge lets pass: empty bars, slurs in slurs in slurs, heaps of decorations. In the body K: may begin any line, M: and L:
one between bars. Of two halves of a bar the first is the tune's pickup, or ends at an edge and is completed by the bar
after it, unless the tune ends there; a last bar is full or such a half.
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
    ENDING,
    FIELD,
    LENGTH,
    TOKEN,
    TUPLET_TIME,
    UNDEFINED,
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
MAX_CHORD = 6  # notes
MAX_WAITING, MAX_LINES, MAX_SLURS = 3, 2, 2  # more, of what stands before a sound, hardly a tune has; see Place
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
LAST_BAR_LINE = re.compile(r".*\nK:.*(?:\|[]|:]*(?:\[?[1-9])?|::+|\[[1-9])(?=[^]|:[1-9])", re.DOTALL)
COMPOUND = re.compile(r"(?:6|9|12)\s*/")

# Characters that do the same are one: `c` any note, `z` any rest, `T` any decoration, `A` what a quote may hold.
SAME = {**dict.fromkeys("ABCDEFGabdefg", "c"), "x": "z", **dict.fromkeys(".~HIJNOPQRSUVWhijklmnopqrstuvw", "T")}
ALIKE = {**dict.fromkeys("^_=", "c"), **dict.fromkeys("KLM", "T")}  # may stand in the same places
BEGINNING = re.compile(  # of a word
    rf"""
      (?:\^\^?|__?|=)?(?:[A-Ga-g][',]{{0,8}}{LENGTH})? | [zx]{LENGTH} | [ZX][0-9]{{0,3}} | \]{LENGTH}
    | (?::+ | :{{0,8}}\[?\|[\]|:]{{0,8}})(?:\[|\[?{ENDING})? | :+\] | :?\[(?:{ENDING})?
    | \[[A-Za-z]:[^\[\]\n]*\]? | \{{[^{{}}\n]*\}}? | "[^"\n]*"? | ![^!\s|]{{0,30}}!?
    | \((?:[1-9][0-9]?(?::[0-9]{{0,2}}){{0,2}})? | >{{1,3}} | <{{1,3}} | [ \t`]+ | .
    """,
    re.VERBOSE,
)
SOUND = re.compile(r"(?:\^\^?|__?|=)?(?:(?:c(?:'{0,2}|,{0,2})|[z\]])([0-9/]*))?")
GRACE_NOTE = r"c(?:'{0,2}|,{0,2})[0-9]?/{0,2}"
WRITTEN = {  # what is written of these words, by their first character and their last
    '""': re.compile(r'"A{0,8}|"A{1,8}"'),
    "!!": re.compile(r"!A{0,12}|!A{1,12}!"),
    "{}": re.compile(rf"\{{/?(?:(?:{GRACE_NOTE}){{0,7}}(?:\^\^?|__?|=)?|(?:{GRACE_NOTE}){{1,8}}\}}?)"),
}
INLINE = re.compile(r"\[[A-Za-z]:[^]]*")  # a field that is not closed yet
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
    chord_notes: int = 0
    waiting: int = 0  # decorations, grace notes, slurs and the like since the last sound; or a tie
    lines: int = 0  # bar lines since the last sound
    slurs: int = 0  # that are open
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
        for character in self.characters - {*UNDEFINED} | self.characters & {"K"}:  # a line may begin with K:
            self.groups[SAME.get(character, character)].add(character)
        self.words: dict[str, list[str]] = defaultdict(list)  # what a beginning may become, but for sounds
        self.written = {ends[0]: pattern for ends, pattern in WRITTEN.items() if self.writable([ends])}
        chord = ["["] if self.writable(["[]"]) else []
        for word in ["T", *chord, *self.writable([" ", "-", "(", ")", *BARS, *TUPLETS, *BROKEN])]:
            what = EDGE if word in BARS and word != "|" else word  # all edges are one
            for end in range(1, len(word) + 1):
                if what not in self.words[word[:end]]:
                    self.words[word[:end]].append(what)
        self.openings = {*self.words, *self.written, *"cz^_=]\n"}
        self.fitting = lru_cache(maxsize=2**14)(self.find_fitting)
        self.moves = lru_cache(maxsize=2**12)(self.find_moves)

    def writable(self, words: Iterable[str]) -> list[str]:
        return [word for word in words if self.characters.issuperset(word)]

    def advance(self, state: State, character: str) -> State:
        """Return the state after one more character, be it allowed or not."""
        if isinstance(state, Header):
            return self.in_header(state, character)
        return self.in_body(*state, character)

    def allowed(self, state: State) -> set[str]:
        """Return the characters that may follow, `END` if the tune may end. There is always one."""
        if isinstance(state, Header):
            return self.allowed_in_header(state) or {*self.characters & {"\n"}} or {END}
        return self.allowed_in_body(*state)

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
        after = sounded(place, length, place.has_note)
        left = room(place) + place.total - after.total
        if self.lost(place):
            return left >= 0
        return fillable(left, self.spelled(place)[0], after.tuplet, after.tuplet_left, None)

    # The body

    def in_body(self, place: Place, word: str, character: str) -> Body:
        if character == "\n":
            return Body(self.line_ended(place, word))
        if word[:1] == "%" or is_field(word):  # they take the whole line
            return Body(place, word + character)
        if character == ":" and place.chord == 0 and len(word) == 1 and word.isalpha():
            return Body(place._replace(chord=None), f"[{word}:")
        ended, word = split(word, character, place.after == "\n")
        return Body(self.commit_all(place, ended)[0], word)

    def line_ended(self, place: Place, word: str) -> Place:
        if is_field(word):
            return with_field(place, word[0], word[2:])
        place, _ = self.commit_all(place, () if word[:1] == "%" else whole_words(word))
        if place.total == place.wanted:
            place = close_bar(place, edge=False)
        return place._replace(after="\n", last=0)

    def allowed_in_body(self, place: Place, word: str) -> set[str]:
        newline = self.characters & {"\n"}
        if word[:1] == "%" or is_field(word) or INLINE.fullmatch(word):
            field, end = word.removeprefix("["), self.characters & {"]"} if word[0] == "[" else newline
            more = {one for one in self.characters if field + one in self.line_beginnings}
            return more | end if field in self.lines else more or {*end} or {END}
        allowed: set[str] = set()
        at_least: set[str] = set()  # where the beginning is wrong already
        places: dict[tuple[str, ...], tuple[Place, bool]] = {(): (place, True)}
        for ended, rest, same in self.moves(word, place.after == "\n"):
            if ended not in places:
                places[ended] = self.commit_all(place, ended)
            after, good = places[ended]
            if self.hopeful(after, rest):
                (allowed if good else at_least).update(same)
        whole, good = self.commit_all(place, whole_words(word))
        if whole.after in "c|" and all_closed(whole):
            (allowed if good else at_least).update(newline)
            if good and may_be_last(whole):
                allowed.add(END)
        return allowed or at_least or {END}

    def find_moves(self, word: str, begins_line: bool) -> list[tuple[tuple[str, ...], str, set[str]]]:
        """Return the words ended, the word continued or begun, and the characters that do so, if any line has it."""
        moves: dict[tuple[tuple[str, ...], str], set[str]] = defaultdict(set)
        groups: Iterable[tuple[str, Iterable[str]]] = self.groups.items()
        for one, same in zip(self.characters, self.characters, strict=True) if word[:1] in QUOTED else groups:
            ended, rest = split(word, one, begins_line)
            if one == "K" and (word or not begins_line) and word[:1] not in QUOTED:
                continue
            if one != "\n" and (ALIKE.get(rest[0], rest[0]) in self.openings or is_field(rest)):
                moves[ended, ALIKE.get(rest, rest)].update(same)
        return [(ended, rest, same) for (ended, rest), same in moves.items()]

    def hopeful(self, place: Place, word: str) -> bool:
        """Return whether the word that is being written can become one that may stand there."""
        if is_field(word):
            return word in self.line_beginnings and (word[0] == "K" or not (place.total or place.owed))
        if word[0] in self.written:
            fits = is_open(place) if word[0] == '"' else place.chord is None
            return fits and place.waiting < MAX_WAITING and self.written[word[0]].fullmatch(word) is not None
        if word[0] in "^_=cz]":
            return self.may_sound(place, word, whole=False)
        if word[-1] == "[" and len(word) > 1:
            after, good = self.commit_all(place, (word[:-1],))
            if good and self.hopeful(after, "["):
                return True
        return any(self.may_stand(place, whole) for whole in self.words.get(word, []))

    # Words of music

    def may_sound(self, place: Place, word: str, whole: bool) -> bool:
        """Return whether a sound, or one that begins like this, may come next."""
        mark, text = sound_of(word)
        if text is None or (mark == "z" and place.chord is not None) or (mark == "]" and not place.chord):
            return False
        if mark == "c" and place.chord:
            return place.chord_notes < MAX_CHORD and text in self.spelled(place)[1]
        if mark == "]" and self.lost(place):
            return text in self.spelled(place)[1]
        timing = place.wanted, place.owed, place.total, place.unit, place.tuplet, place.tuplet_left, place.broken
        return text in self.fitting(*timing, place.chord)[0 if whole else 1]

    def find_fitting(self, *timing: Any) -> tuple[set[str], set[str]]:
        """Return the lengths that a sound may have, be it a note, a chord's first or its end, and their beginnings."""
        wanted, owed, total, unit, tuplet, left, broken, chord = timing
        place = Place(wanted, False, unit, total, owed=owed, tuplet=tuplet, tuplet_left=left, broken=broken)
        if chord != 0 and not is_open(place):
            return set(), set()
        factors = self.factors if chord == 0 else [(1, 1)]
        lengths = {text: _times(chord or unit, *_factor(text)) for text in self.spelled(place)[1][""]}
        fitting = {
            text
            for text, length in lengths.items()
            if any(self.fits(place, _times(length, *factor)) for factor in factors)
        }
        return fitting, {text[:end] for text in fitting for end in range(len(text) + 1)}

    def may_stand(self, place: Place, word: str) -> bool:
        """Return whether a whole word may come next."""
        kind = _kind(word)
        if kind in ("note", "rest", "chord_close"):
            return self.may_sound(place, word, whole=True)
        if kind == "bar":
            fits = place.lines < MAX_LINES  # a line may begin with one more; empty bars have many
            return (fits and all_closed(place) and adds_up(place, edge=word != "|")) or self.lost(place)
        if kind == "space":
            return place.chord is None and place.after not in " \n"
        if kind == "tie":
            return place.has_note and place.after == "c" and not place.waiting
        if word == ")":
            return place.has_note and place.slurs > 0
        if kind in ("decoration", "grace"):
            return place.chord is None and place.waiting < MAX_WAITING
        if kind == "broken":
            return (
                place.last > 0
                and place.chord is None
                and not place.broken
                and not self.lost(apply_broken_rhythm(place, word))
            )
        if kind == "tuplet":
            return is_open(place) and all_closed(place) and not self.lost(begin_tuplet(place, word))
        if word == "(" and place.slurs == MAX_SLURS:
            return False
        return kind in ("text", "slur", "chord_open") and is_open(place) and place.waiting < MAX_WAITING

    def commit(self, place: Place, word: str) -> Place:
        """Return the place after a whole word."""
        kind = _kind(word)
        if kind in ("note", "rest"):
            length, has_note = _times(place.unit, *_factor(word)), place.has_note or kind == "note"
            if place.chord is None:
                return sounded(place, length, has_note)
            return place._replace(chord=place.chord or length, chord_notes=place.chord_notes + 1, has_note=has_note)
        if kind == "chord_close":
            length = _times(place.chord or 0, *_factor(word))
            return sounded(place._replace(chord=None, chord_notes=0), length, place.has_note)
        if kind == "bar":
            after = close_bar(place, edge=word != "|")
            return after._replace(chord=None, after="|", last=0, waiting=0, lines=place.lines + 1)
        if kind == "broken":
            return apply_broken_rhythm(place, word)
        if kind == "tuplet":
            return begin_tuplet(place, word)
        if kind == "space":
            return place._replace(after=" ", last=0)
        if kind == "tie":
            return place._replace(after="c", waiting=1)
        if word == ")":
            return place._replace(after="c", slurs=max(0, place.slurs - 1))
        if kind == "inline":
            return with_field(place, word[1], word[3:-1])
        slurs = min(place.slurs + (word == "("), MAX_SLURS)
        chord = 0 if kind == "chord_open" else place.chord
        return place._replace(after="T", last=0, chord=chord, waiting=place.waiting + 1, slurs=slurs)

    def commit_all(self, place: Place, words: Iterable[str]) -> tuple[Place, bool]:
        """Return the place after some words, and whether they may stand there."""
        good = True
        for word in words:
            good = good and self.may_stand(place, word)
            place = self.commit(place, word)
        return place, good


def all_closed(place: Place) -> bool:
    """Return whether no chord, tuplet or broken rhythm waits for its end."""
    return place.chord is None and not place.tuplet_left and not place.broken


def may_be_last(place: Place) -> bool:
    """Return whether the tune may end with this bar: full, or short by what the first or the bar before it had."""
    if not place.has_note:
        return False
    if place.wanted is None or place.total in (0, place.wanted):
        return True
    if place.owed:
        return place.total == place.owed
    return not place.first and place.wanted - place.total in place.heads


@lru_cache(maxsize=4096)
def split(word: str, character: str, begins_line: bool) -> tuple[tuple[str, ...], str]:
    """Return the words that a character ends and the word that it begins or continues."""
    if begins_line and character == ":" and len(word) == 1 and word.isalpha() and word not in "cz":
        return (), word + ":"
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
    if INLINE.fullmatch(word):
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


def sounded(place: Place, length: Length, has_note: bool) -> Place:
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
        has_note=has_note,
        waiting=0,
        lines=0,
        after="c",
    )


def apply_broken_rhythm(place: Place, word: str) -> Place:
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


def adds_up(place: Place, edge: bool) -> bool:
    """Return whether the bar may end: it is empty or full, or short at an edge and completed, or to be by the next.

    judge's check_halves pairs the halves over the whole tune. Here the second of two is never the one that waits: a
    model that begins a bar like a pickup cannot be held to end another like that.
    """
    if not place.total or place.wanted is None or place.total == place.wanted:
        return True
    return 0 < place.total < place.wanted and place.owed in (0, place.total) and (edge or completed(place, edge))


def completed(place: Place, edge: bool) -> bool:
    """Return whether a short bar is the first, or another than it has its other half."""
    lacks = (place.wanted or 0) - place.total
    return (place.at_edge and (place.first or lacks in place.tails)) or (edge and lacks in place.heads)


def close_bar(place: Place, edge: bool) -> Place:
    """Return the place after a bar."""
    if not place.total:
        return place._replace(at_edge=place.at_edge or edge)
    heads, tails = place.heads, place.tails
    owed: Length = 0
    if place.wanted is not None and place.total < place.wanted:
        if place.at_edge and (not edge or place.first or place.owed):  # not all: states recur more often
            heads |= {place.total}
        if edge:
            tails |= {place.total}
            owed = 0 if place.owed or completed(place, edge) else place.wanted - place.total
    return place._replace(total=0, at_edge=edge, first=False, heads=heads, tails=tails, owed=owed)


def whole_bars(text: str) -> str:
    """Return a tune that was not written to its end up to its last bar line, of those that something follows."""
    match = LAST_BAR_LINE.match(text)
    return match[0] if match else text


class _State:
    """A state of a reader, with what follows it as far as it has come up."""

    __slots__ = ("after", "forbidden", "state")

    def __init__(self, state: Hashable) -> None:
        self.state = state
        self.after: dict[int, _State] = {}
        self.forbidden = b""  # a byte for each token


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
        rows = bytearray().join(self.forbidden(row, scores.shape[1]) for row in self.rows)
        forbidden = torch.frombuffer(rows, dtype=torch.bool).view(scores.shape).to(scores.device)
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

    def forbidden(self, state: _State, width: int) -> bytes:
        if len(state.forbidden) != width:
            allowed = self.allowed(state.state)
            row = bytearray([allowed is not None]) * width
            for character in allowed or ():
                row[self.ids[character]] = False
            state.forbidden = bytes(row)
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
                raise ValueError(f"the model does not know the character {min(unknown)!r} of {line[:-1]}")

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
