"""ABC notation, read as people write it: split into tunes, count bars with exact fractions, give a verdict.

Follows the ABC standard 2.1 (https://abcnotation.com/wiki/abc:standard:v2.1). Pure standard library.
The verdict flags; it never changes or drops anything.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from itertools import pairwise

FIELD = re.compile(r"([A-Za-z]):[ \t]*(.*)")
TUNE_START = re.compile(r"^X:", re.MULTILINE)
COMMENT = re.compile(r"(?<!\\)%.*")
LENGTH = r"(?:\d+(?:/\d+)?/*|/+\d*)?"

TOKEN = re.compile(
    rf"""
      (?P<space>[ \t`]+)
    | (?P<note>(?P<accidental>\^\^|\^|__|_|=)?(?P<letter>[A-Ga-g])(?P<octave>[',]*)(?P<note_length>{LENGTH}))
    | (?P<bar>:*\|[\]|:]*(?:\[?\d[\d,.-]*)? | ::+ | \[\|[\]:]* | :?\|?\[(?=\d)\d[\d,.-]*)
    | (?P<inline>\[[A-Za-z]:[^\]\n]*\])
    | (?P<chord_open>\[) | (?P<chord_close>\](?P<chord_length>{LENGTH}))
    | (?P<rest>[zx](?P<rest_length>{LENGTH})) | (?P<bar_rest>[ZX](?P<bar_rest_count>\d{{0,3}}))
    | (?P<grace>\{{[^}}\n]*\}})
    | (?P<text>"[^"\n]*")
    | (?P<decoration>![^!\n|]{{1,30}}!|\+[^+\n|]{{1,30}}\+|[.~H-Wh-w])
    | (?P<tuplet>\(\d(?::\d*){{0,2}})
    | (?P<broken>[<>]+)
    | (?P<tie>-) | (?P<slur>[()]) | (?P<overlay>&)
    | (?P<ignored>y\d*|[\\$*;?@#!])
    | (?P<line>\n)
    """,
    re.VERBOSE,
)

MODE_SHIFT = {  # sharps relative to the major key on the same tonic
    "": 0, "maj": 0, "ion": 0, "m": -3, "min": -3, "aeo": -3,
    "mix": -1, "dor": -2, "phr": -4, "lyd": 1, "loc": -5,
}  # fmt: skip
CANONICAL_MODE = {"maj": "", "ion": "", "min": "m", "aeo": "m"}
KEY = re.compile(r"([A-G])([#b]?)\s*([A-Za-z]*)")
SHARP_ORDER = "FCGDAEB"
PITCH_CLASS = {"C": 0, "D": 2, "E": 4, "F": 5, "G": 7, "A": 9, "B": 11}
ALTERATION = {"^^": 2, "^": 1, "=": 0, "_": -1, "__": -2}
TUPLET_TIME = {2: 3, 3: 2, 4: 3, 6: 2, 8: 3}  # the others depend on the metre (ABC 2.1, section 4.13)


@dataclass(frozen=True)
class BadBar:
    """A bar whose length is not its metre's; lengths are in whole notes."""

    number: int
    wanted: Fraction
    found: Fraction


@dataclass
class Verdict:
    """What one tune holds and what is wrong with it. `pitches` are MIDI numbers in the order of sounding."""

    key: str | None = None
    metre: str | None = None
    errors: list[str] = field(default_factory=list)
    bad_bars: list[BadBar] = field(default_factory=list)
    bars: int = 0
    rests: int = 0
    pitches: list[int] = field(default_factory=list)

    @property
    def parses(self) -> bool:
        """True if there is a key, at least one note, and nothing that is not ABC."""
        return not self.errors and bool(self.pitches)

    @property
    def bars_add_up(self) -> bool:
        """True if the tune parses and no bar is too long, or too short away from a section's edge."""
        return self.parses and not self.bad_bars


def split_tunes(text: str) -> Iterator[str]:
    """Yield the tunes of a file: from each `X:` line to the first blank line after a body, or the next `X:`.

    Fields before the first `X:` and text between tunes belong to no tune and are left out.
    """
    starts = [match.start() for match in TUNE_START.finditer(text)]
    for start, end in pairwise([*starts, len(text)]):
        lines: list[str] = []
        in_body = has_music = False
        for line in text[start:end].split("\n"):
            if not line.strip():
                if has_music:
                    break
                continue
            has_music = has_music or (in_body and not FIELD.match(line) and not line.startswith("%"))
            in_body = in_body or line.startswith("K:")
            lines.append(line.rstrip())
        yield "\n".join(lines)


def canonical_key(value: str) -> str | None:
    """Return `value` of a K: field as tonic and mode (`Am`, `Dmix`, `F#`), `none`, `HP`, or None if it is no key."""
    value = value.strip()
    if value.lower() in ("none", "hp"):
        return "none" if value.lower() == "none" else "HP"
    match = KEY.match(value)
    if match is None:
        return None
    letter, accidental, word = match.groups()
    mode = word.lower()[:3]
    if mode not in MODE_SHIFT:
        mode = ""  # clefs and other words may follow the tonic
    return letter + accidental + CANONICAL_MODE.get(mode, mode)


def key_signature(key: str | None) -> dict[str, int]:
    """Return the alteration of each letter (in semitones) under a canonical key."""
    match = KEY.match(key or "")
    if match is None:
        return {"F": 1, "C": 1} if key == "HP" else {}
    letter, accidental, mode = match.groups()
    sharps = "FCGDAEB".index(letter) - 1 + {"#": 7, "b": -7, "": 0}[accidental] + MODE_SHIFT[mode]
    if sharps >= 0:
        return {SHARP_ORDER[i % 7]: 1 + i // 7 for i in range(min(sharps, 7))}
    return {SHARP_ORDER[-1 - i]: -1 for i in range(min(-sharps, 7))}


def bar_length(metre: str | None) -> Fraction | None:
    """Return the length of a bar in whole notes, or None where the metre is free or cannot be read."""
    if metre in ("C", "C|"):
        return Fraction(1)
    match = re.fullmatch(r"\(?((?:\d{1,4}\s*\+\s*)*\d{1,4})\)?\s*/\s*(\d{1,4})", metre or "")
    if match is None or int(match[2]) == 0:
        return None
    return Fraction(sum(int(n) for n in match[1].split("+")), int(match[2])) or None


def default_unit_length(metre: str | None) -> Fraction:
    """Return the unit note length that holds when L: is absent (ABC 2.1, section 3.1.7)."""
    length = bar_length(metre)
    return Fraction(1, 16) if length is not None and length < Fraction(3, 4) else Fraction(1, 8)


def parse_length(text: str) -> Fraction:
    """Return a note's length factor: '' 1, '2' 2, '/' 1/2, '//' 1/4, '3/2' 3/2. Raises ValueError on '/0'."""
    digits, slash, below = text.partition("/")
    numerator = int(digits) if digits else 1
    if not slash:
        return Fraction(numerator)
    below = slash + below
    after = below.lstrip("/")
    denominator = int(after) if after else 2 ** len(below)
    if denominator == 0:
        raise ValueError("a note length is divided by zero")
    return Fraction(numerator, denominator)


def read_unit_length(value: str) -> Fraction | None:
    """Return the value of an L: field in whole notes, or None if it is not a fraction."""
    match = re.fullmatch(r"\s*(\d{1,4})(?:\s*/\s*(\d{1,4}))?\s*", value)
    if match is None or int(match[1]) == 0 or int(match[2] or 1) == 0:
        return None
    return Fraction(int(match[1]), int(match[2] or 1))


@dataclass
class _Voice:
    """One voice's place in its bar."""

    total: Fraction = Fraction(0)
    parts: list[Fraction] = field(default_factory=list)  # bar parts finished by an overlay sign
    altered: dict[str, int] = field(default_factory=dict)  # accidentals that hold until the bar's end
    at_edge: bool = True  # the bar began at the tune's start, a repeat or a double bar
    bar: int = 1
    last: Fraction = Fraction(0)  # the last note's length, for broken rhythm
    next_factor: Fraction = Fraction(1)
    tuplet_factor: Fraction = Fraction(1)
    tuplet_left: int = 0
    sounding: dict[str, int] = field(default_factory=dict)  # the pitch of each place in the last note or chord
    tied: dict[str, int] = field(default_factory=dict)  # what a tie carries into the next note or chord
    carried: dict[str, int] = field(default_factory=dict)  # what was carried into this one: it does not sound again
    held: Fraction | None = None  # lengths inside a chord: only the first counts


class _Reader:
    """Walks over one tune and fills its verdict."""

    def __init__(self) -> None:
        self.verdict = Verdict()
        self.unit: Fraction | None = None
        self.metre: str | None = None
        self.signature: dict[str, int] = {}
        self.voices = {"": _Voice()}
        self.voice = self.voices[""]
        self.in_body = False

    def read(self, text: str) -> Verdict:
        joined = ""  # music of lines that a backslash joins to the next
        for raw in text.split("\n"):
            line = COMMENT.sub("", raw).rstrip()
            match = FIELD.match(line)
            if match:
                self.music(joined)
                joined = ""
                self.field(match[1], match[2].strip())
            elif self.in_body and line.endswith("\\"):
                joined += line[:-1]
            elif self.in_body:
                self.music(joined + line + "\n")
                joined = ""
            elif line.strip() and not raw.startswith("%"):
                self.error("text before the key")
        self.music(joined)
        for voice in self.voices.values():
            self.voice = voice
            self.end_bar(edge=True)
        if not self.in_body:
            self.error("no K: field")
        elif not self.verdict.pitches:
            self.error("no notes")
        return self.verdict

    def error(self, message: str) -> None:
        self.verdict.errors.append(f"bar {self.voice.bar}: {message}" if self.in_body else message)

    def field(self, letter: str, value: str) -> None:
        if letter == "K":
            key = canonical_key(value)
            if key is None:
                if value and not re.match(r"clef|bass|treble|alto|tenor|exp|perc|middle|transpose|[_=^]", value):
                    self.error(f"K:{value} is no key")
            else:
                self.signature = key_signature(key)
            if not self.in_body:
                self.verdict.key, self.in_body = key or "none", True
                self.unit = self.unit or default_unit_length(self.metre)  # a later M: does not change it
        elif letter == "M":
            self.metre = value
            if not self.in_body:
                self.verdict.metre = value
            if value not in ("none", "") and bar_length(value) is None:
                self.error(f"M:{value} is no metre")
        elif letter == "L":
            self.unit = read_unit_length(value)
            if self.unit is None:
                self.error(f"L:{value} is no length")
        elif letter == "V" and self.in_body:
            name = value.split()[0] if value.split() else ""
            if len(self.voices) == 1 and self.voice.total == 0 and not self.verdict.pitches:
                self.voices = {name: self.voice}  # nothing sounded before the first named voice
            self.voice = self.voices.setdefault(name, _Voice())

    def music(self, line: str) -> None:
        position = 0
        while position < len(line):
            match = TOKEN.match(line, position)
            if match is None:
                self.error(f"{line[position]!r} is not ABC")
                position += 1
                continue
            position = match.end()
            try:
                self.token(match.lastgroup or "", match)
            except ValueError as error:
                self.error(str(error))

    def token(self, kind: str, match: re.Match[str]) -> None:
        voice = self.voice
        if kind == "note":
            if voice.held is None:
                self.begin_sound()
            self.sound(match["accidental"], match["letter"], match["octave"])
            self.add(parse_length(match["note_length"]), rest=False)
        elif kind == "bar":
            edge = match[0] != "|"
            self.end_bar(edge)
        elif kind == "rest":
            self.verdict.rests += 1
            self.begin_sound()
            self.add(parse_length(match["rest_length"]), rest=True)
        elif kind == "broken":
            factor = Fraction(1, 2 ** len(match[0]))
            first, second = (2 - factor, factor) if match[0][0] == ">" else (factor, 2 - factor)
            voice.total += voice.last * (first - 1)
            voice.next_factor = second
        elif kind == "tie":
            voice.tied = dict(voice.sounding)
        elif kind == "tuplet":
            self.tuplet(match[0])
        elif kind == "chord_open":
            if voice.held is not None:
                self.error("a chord inside a chord")
            voice.held = Fraction(0)
            self.begin_sound()
        elif kind == "chord_close":
            if voice.held is None:
                self.error("']' closes no chord")
            else:
                held, voice.held = voice.held, None
                self.add_length(held * parse_length(match["chord_length"]))
        elif kind == "inline":
            letter, value = match[0][1], match[0][3:-1].strip()
            self.field(letter, value)
        elif kind == "overlay":
            voice.parts.append(voice.total)
            voice.total = Fraction(0)
        elif kind == "bar_rest":
            self.verdict.rests += 1
            more = max(1, int(match["bar_rest_count"] or 1)) - 1
            self.verdict.bars += more
            voice.bar += more
            voice.total = bar_length(self.metre) or Fraction(1)
        elif kind == "line":
            if voice.held is not None:
                self.error("a chord is not closed")
                voice.held = None
            if voice.total == bar_length(self.metre):
                self.end_bar(edge=False)  # the Essen songs close a full bar by the line's end alone

    def begin_sound(self) -> None:
        voice = self.voice
        voice.sounding, voice.carried, voice.tied = {}, voice.tied, {}

    def sound(self, accidental: str | None, letter: str, octave: str) -> None:
        voice, name = self.voice, letter.upper()
        height = octave.count("'") - octave.count(",") + letter.islower()
        place = f"{name}{height}"
        if accidental is not None:
            voice.altered[place] = ALTERATION[accidental]
        pitch = 60 + 12 * height + PITCH_CLASS[name] + voice.altered.get(place, self.signature.get(name, 0))
        if place in voice.carried and accidental is None:
            pitch = voice.carried[place]  # a tie carries its accidental over the bar line
        if voice.carried.get(place) != pitch:
            self.verdict.pitches.append(pitch)
        voice.sounding[place] = pitch

    def add(self, factor: Fraction, rest: bool) -> None:
        voice = self.voice
        if voice.held is not None:
            voice.held = voice.held or factor
            if rest:
                self.error("a rest inside a chord")
        else:
            self.add_length(factor)

    def add_length(self, factor: Fraction) -> None:
        voice = self.voice
        length = (self.unit or default_unit_length(self.metre)) * factor * voice.next_factor
        voice.next_factor = Fraction(1)
        if voice.tuplet_left:
            length *= voice.tuplet_factor
            voice.tuplet_left -= 1
        voice.last = length
        voice.total += length

    def tuplet(self, text: str) -> None:
        numbers = [int(part) if part else 0 for part in text[1:].split(":")] + [0, 0]
        notes, time, count = numbers[:3]
        if notes == 0:
            raise ValueError("a tuplet of no notes")
        compound = re.match(r"(?:6|9|12)\s*/", self.metre or "") is not None
        time = time or TUPLET_TIME.get(notes, 3 if compound else 2)
        self.voice.tuplet_factor = Fraction(time, notes)
        self.voice.tuplet_left = count or notes

    def end_bar(self, edge: bool) -> None:
        voice = self.voice
        wanted = bar_length(self.metre)
        parts = [*voice.parts, voice.total]
        if any(parts):
            self.verdict.bars += 1
            for found in parts:
                if wanted is not None and (found > wanted or (found < wanted and not (edge or voice.at_edge))):
                    self.verdict.bad_bars.append(BadBar(voice.bar, wanted, found))
            voice.bar += 1
            voice.at_edge = False
        voice.at_edge = voice.at_edge or edge
        voice.total, voice.parts, voice.altered = Fraction(0), [], {}


def judge(text: str) -> Verdict:
    """Read one tune (header and body) and return its verdict. Never raises on text, however broken."""
    return _Reader().read(text)
