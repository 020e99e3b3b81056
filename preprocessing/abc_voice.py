"""One voice of a tune while it is read: its pitches, its lengths, and whether each of its bars is full."""

import re
from dataclasses import dataclass, field
from fractions import Fraction

from preprocessing.abc_fields import (
    LETTERS,
    PITCH_CLASS,
    TUPLET_TIME,
    WHOLE,
    Length,
    bar_lengths,
    in_ticks,
    in_whole_notes,
    key_signature,
    scaled,
)
from preprocessing.abc_lexer import UNREADABLE_ACCIDENTAL

# Why the notes that can be read are not the whole tune.
NO_KEY = "no K: field that names a key"
MICROTONE = "microtones or other accidentals that cannot be read"
WORDS_IN_MUSIC = "words among the notes"
PLUS_SIGNS = "plus signs around no chord and no decoration"
OPEN_CHORD = "a chord that is not closed"
LONG_OVERLAY = "a second voice over several bars (&&)"

COMPOUND = re.compile(r"(?:6|9|12)\s*/")


@dataclass(frozen=True, slots=True)
class BadBar:
    """A bar whose length is not its metre's; lengths are in whole notes. At an edge: see `Verdict.bars_add_up`."""

    number: int
    expected: Fraction
    found: Fraction
    begins_at_edge: bool
    ends_at_edge: bool


@dataclass
class Verdict:
    """What one tune holds and what is wrong with it. `pitches` are MIDI numbers in the order of sounding.

    `naturals` are the pitches that all notes as written, tied ones too, would have without any accidental or key.
    `unreadable` is the first reason why the notes are not the whole tune.
    """

    key: str | None = None
    metre: str | None = None
    errors: list[str] = field(default_factory=list)
    unreadable: str | None = None
    bad_bars: list[BadBar] = field(default_factory=list)
    bars: int = 0
    rests: int = 0
    pitches: list[int] = field(default_factory=list)
    naturals: list[int] = field(default_factory=list, compare=False)  # how the tune is written, not what it is

    @property
    def staff(self) -> list[int]:
        """The places of the notes on the staff, in the order of writing: C is 0, B 6, c 7."""
        return [7 * (natural // 12 - 5) + PITCH_CLASS.index(natural % 12) for natural in self.naturals]

    @property
    def parses(self) -> bool:
        """True if there is a key, at least one note, and nothing that is not ABC."""
        return not self.errors and bool(self.pitches)

    @property
    def bars_add_up(self) -> bool:
        """True if the tune parses and each bar is full, or one of two halves at an edge that add up to a full one.

        An edge is a repeat, a double bar or an ending. The first bar and the last may be short.
        """
        return self.parses and not self.bad_bars

    def add_error(self, message: str, unreadable: str | None = None) -> None:
        """Note an error, and the reason why the tune is unreadable if it is one."""
        self.errors.append(message)
        self.unreadable = self.unreadable or unreadable


@dataclass(slots=True)
class Voice:
    """The state of a voice. Each kind of word (see `parse_word`) that counts has a method with its name.

    Pitches are MIDI numbers, lengths are in ticks. `natural` is the pitch of a note without accidentals: it names its
    place on the staff.
    """

    verdict: Verdict = field(default_factory=Verdict)
    metre: str | None = None
    expected: Length | None = None  # the length of a bar; None in free metre
    also: tuple[Length, ...] = ()  # the other lengths that a bar may have
    unit: Length = WHOLE // 8
    signature: list[int] = field(default_factory=lambda: [0] * 7)  # the alteration of each of LETTERS
    shift: int = 0  # semitones, from octave= and transpose=
    altered: list[int] = field(default_factory=lambda: [0] * 7)  # the signature with the accidentals of this bar
    bar_number: int = 1
    total: Length = 0  # of the bar so far
    parts: list[Length] = field(default_factory=list)  # bar parts finished by an overlay sign
    at_edge: bool = True  # the bar began at the tune's start, a repeat, a double bar or an ending
    halves: list[BadBar] = field(default_factory=list)  # short bars at an edge: two of them may add up
    last: Length = 0  # the last note's length before broken rhythm: `a<b>c` applies it to b twice
    next_ratio: tuple[int, int] | None = None  # what broken rhythm makes of the next note
    tuplet_ratio: tuple[int, int] = (1, 1)
    tuplet_left: int = 0  # notes
    natural: int = 0  # of the last note
    sounding: dict[int, int] = field(default_factory=dict)  # natural to pitch, in the last note or chord
    tied: dict[int, int] = field(default_factory=dict)  # the same of the notes tied to the next note or chord
    tied_before: dict[int, int] = field(default_factory=dict)  # those tied to this one: they do not sound again
    in_chord: bool = False
    chord_ratio: tuple[int, int] | None = None  # the length of a chord's first note

    def error(self, message: str, unreadable: str | None = None) -> None:
        """Note an error in this bar; see `Verdict.add_error`."""
        self.verdict.add_error(f"bar {self.bar_number}: {message}", unreadable)

    def set_metre(self, value: str) -> bool:
        """Take in an M: field. Return whether it can be read."""
        lengths = [in_ticks(length) for length in bar_lengths(value)]
        self.metre, self.expected, self.also = value, lengths[0] if lengths else None, tuple(lengths[1:])
        return bool(lengths) or value in ("none", "")

    def set_key(self, key: str) -> None:
        """Take in a canonical key."""
        signature = key_signature(key)
        self.signature = [signature.get(letter, 0) for letter in LETTERS]
        self.altered = self.signature[:]

    # Notes, chords and rests

    def note(self, step: int, natural: int, alteration: int | None, ratio: tuple[int, int]) -> None:
        """Add a note. `step` is its index in LETTERS, `ratio` its length in units."""
        if not self.in_chord:
            self.begin_sound()
        if alteration is not None:
            self.altered[step] = alteration  # in every octave (ABC 2.1, section 11.3)
        pitch = natural + self.altered[step] + self.shift
        if self.tied_before and natural in self.tied_before:
            if alteration is None:
                pitch = self.tied_before[natural]  # a tie carries its accidental over the bar line
            if self.tied_before[natural] != pitch:
                self.verdict.pitches.append(pitch)
        else:
            self.verdict.pitches.append(pitch)
        self.verdict.naturals.append(natural)
        self.natural = natural
        self.sounding[natural] = pitch
        if self.in_chord:
            self.chord_ratio = self.chord_ratio or ratio
        else:
            self.add(ratio)

    def microtone(self, ratio: tuple[int, int] | None) -> None:
        """Count the time of a note whose pitch is unknown; a grace note has no `ratio`."""
        self.error("an accidental that cannot be read", MICROTONE)
        if ratio and self.in_chord:
            self.chord_ratio = self.chord_ratio or ratio
        elif ratio:
            self.begin_sound()
            self.add(ratio)

    def rest(self, ratio: tuple[int, int]) -> None:
        """Add a rest `z` or `x`."""
        self.verdict.rests += 1
        if self.in_chord:
            self.error("a rest inside a chord")
        else:
            self.begin_sound()
            self.add(ratio)

    def bar_rest(self, count: int) -> None:
        """Add a rest of whole bars, `Z` or `X`."""
        self.verdict.rests += 1
        self.verdict.bars += count - 1
        self.bar_number += count - 1
        self.begin_sound()
        self.total += self.expected or WHOLE

    def chord_open(self, _: str) -> None:
        """Begin a chord: its notes have their own lengths, of which the first counts."""
        if self.in_chord:
            self.error("a chord inside a chord", OPEN_CHORD)
        self.begin_sound()
        self.in_chord, self.chord_ratio = True, None

    def chord_close(self, ratio: tuple[int, int]) -> None:
        """End a chord; `ratio` is the length written behind it."""
        if not self.in_chord:
            self.error("']' closes no chord")
            return
        self.in_chord = False
        numerator, denominator = self.chord_ratio or (0, 1)
        self.add((numerator * ratio[0], denominator * ratio[1]))

    def begin_sound(self) -> None:
        """Begin a note, a chord or a rest."""
        self.sounding = {}
        if self.tied or self.tied_before:
            self.tied_before, self.tied = self.tied, {}

    def add(self, ratio: tuple[int, int]) -> None:
        """Add the length of a note, a chord or a rest, given in units, to the bar."""
        numerator, denominator = ratio
        if denominator == 0:
            self.error("a note length is divided by zero")
            return
        length = self.unit * numerator if denominator == 1 else scaled(self.unit, numerator, denominator)
        if self.tuplet_left:
            length = scaled(length, *self.tuplet_ratio)
            self.tuplet_left -= 1
        self.last = length
        if self.next_ratio:
            length = scaled(length, *self.next_ratio)
            self.next_ratio = None
        self.total += length

    def tie(self, _: str) -> None:
        """Tie the last note or chord to the next; inside a chord, its last note."""
        if not self.in_chord:
            self.tied = self.sounding
        elif self.sounding:
            self.tied[self.natural] = self.sounding[self.natural]

    def broken(self, word: str) -> None:
        """Apply broken rhythm: `>` lengthens the note before and shortens the next, `<` the reverse."""
        half = 2 ** len(word)
        if self.in_chord or self.next_ratio:
            self.error(f"{word!r} joins no two notes")
        long, short = (2 * half - 1, half), (1, half)
        first, self.next_ratio = (long, short) if word[0] == ">" else (short, long)
        self.total += scaled(self.last, first[0] - half, half)

    def tuplet(self, numbers: list[int]) -> None:
        """Begin a tuplet `(p:q:r`: the next r notes are played p in the time of q."""
        notes, time, count = (*numbers, 0, 0)[:3]
        self.tuplet_ratio = time or TUPLET_TIME.get(notes, 3 if COMPOUND.match(self.metre or "") else 2), notes
        self.tuplet_left = count or notes

    def overlay(self, sign: str) -> None:
        """Begin another voice in the same bar (`&`)."""
        if sign == "&&":
            self.error("an overlay of several bars", LONG_OVERLAY)
        self.altered = self.signature[:]  # it is another voice, for the rest of the bar
        if self.total:
            self.parts.append(self.total)
            self.total = 0

    def plus_signs(self, word: str) -> None:
        """Note an error for a word between plus signs."""
        reason = MICROTONE if UNREADABLE_ACCIDENTAL.search(word) else PLUS_SIGNS
        self.error(f"{word!r} is no chord and no decoration", reason)

    def unknown(self, word: str) -> None:
        """Note an error for what is no word of ABC."""
        self.error(f"{word!r} is not ABC")

    # Bars

    def bar(self, word: str) -> None:
        """End the bar at a bar line; any but a plain `|` is an edge."""
        self.end_chord()
        self.end_bar(edge=word != "|")

    def end_line(self) -> None:
        """End the bar if it is full: the Essen songs close a full bar by the line's end alone."""
        if self.total and self.total in (self.expected, *self.also):
            self.end_bar(edge=False)

    def end_tune(self) -> None:
        """End the last bar and judge the short bars at edges."""
        self.end_chord()
        self.end_bar(edge=True)
        self.check_halves()

    def end_chord(self) -> None:
        """Note an error if a chord is open where the bar ends."""
        if self.in_chord:
            self.error("a chord is not closed", OPEN_CHORD)
            self.in_chord = False

    def end_bar(self, edge: bool) -> None:
        """Count and check the bar if it holds anything; accidentals end with it."""
        if self.total or self.parts:
            self.verdict.bars += 1
            if self.expected is not None and (self.total != self.expected or self.parts):
                for found in (*self.parts, self.total):
                    self.check_bar(found, edge)
            self.bar_number += 1
            self.at_edge = edge
            self.altered = self.signature[:]
            self.total, self.parts = 0, []
        elif edge:
            self.at_edge = True

    def check_bar(self, found: Length, edge: bool) -> None:
        """Flag a bar of unexpected length, unless it is short and at an edge: then `check_halves` decides."""
        expected = self.expected or 0
        if found in (expected, *self.also):
            return
        bar = BadBar(self.bar_number, in_whole_notes(expected), in_whole_notes(found), self.at_edge, edge)
        is_half = found < max(expected, *self.also, 0) and (self.at_edge or edge)
        (self.halves if is_half else self.verdict.bad_bars).append(bar)

    def check_halves(self) -> None:
        """Flag each short bar at an edge that no other completes, except a tune's first and last."""
        beginnings = {bar.found for bar in self.halves if bar.begins_at_edge}
        ends = {bar.found for bar in self.halves if bar.ends_at_edge}
        for bar in self.halves:
            missing = {full - bar.found for full in (bar.expected, *map(in_whole_notes, self.also))}
            first = bar.begins_at_edge and bar.number == 1
            last = bar.ends_at_edge and bar.number == self.bar_number - 1
            completed = (bar.begins_at_edge and missing & ends) or (bar.ends_at_edge and missing & beginnings)
            if not (first or last or completed):
                self.verdict.bad_bars.append(bar)
