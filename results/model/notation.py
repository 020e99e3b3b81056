"""ABC notation, read as people write it: split into tunes, count bars exactly, give a verdict.

Follows the ABC standard 2.1 (https://abcnotation.com/wiki/abc:standard:v2.1). Pure standard library.
The verdict flags; it never changes or drops anything.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from functools import lru_cache
from itertools import pairwise
from typing import Any, NamedTuple

FIELD_ORDER = "XTRMLQK"  # X first and K last are the standard's rule (ABC 2.1, section 2.2.1)
FIELD = re.compile(r"(?![A-Ga-gxz]:[|:])([A-Za-z+]):[ \t]*(.*)")  # `d:|` is music
TUNE_START = re.compile(r"^X:", re.MULTILINE)
HEADER_END = re.compile(r"^K:.*$(?:\n(?:[A-Za-z+]:.*|%.*|[ \t]*)$)*+", re.MULTILINE)  # all above the first music
BLANK_LINE = re.compile(r"\n[ \t]*$", re.MULTILINE)
COMMENT = re.compile(r"(?<!\\)%.*")
CONTINUES = re.compile(r"[ABCDFGHNORSTWZrsw+]:.*\\$")  # a field of text, goes on in the next line (ABC 2.0)
FRACTION = re.compile(r"\(?((?:[0-9]{1,3}\s*\+\s*){0,16}[0-9]{1,3})\)?\s*/\s*([0-9]{1,3})")  # `(2+2+3)/8` is one
METRE = re.compile(rf"C\|?(?![0-9])|{FRACTION.pattern}(?:\s*\+\s*{FRACTION.pattern}){{0,8}}")  # `2/4+3/8`
METRES = re.compile(rf"(?:{METRE.pattern})(?:[\s|,;]*[\s|,;(](?:{METRE.pattern})\)?){{0,8}}")
UNIT = re.compile(r"\s*([0-9]{1,3})(?:\s*/\s*([0-9]{1,3}))?\s*")
LENGTH = r"(?:[0-9]{1,3}(?:/[0-9]{1,3}|/{0,8})|/{1,8}[0-9]{0,3})?"  # bounded, as nobody writes longer ones
ENDING = "[1-9][0-9,.-]{0,16}"

# `+trill+` was a decoration of ABC 2.0, one of these; else `+GB+` was a chord before ABC 1.6.
PLUS_NAMES = (
    r"trill[()]?|(?:lower|upper)?mordent|pralltriller|roll|(?:inverted)?(?:turnx?|fermata)|arpeggio|accent|emphasis"
    r"|tenuto|[0-5]|plus|snap|slide|wedge|upbow|downbow|open|thumb|breath|p{1,4}|f{1,4}|m[pf]|sfz|[<>][()]?"
    r"|(?:crescendo|diminuendo)[()]|segno|[Cc]oda|[Ff]ine|FINE|D\.[CS]\.?(?:al(?:coda|fine))?|dacoda|dacapo"
    r"|(?:short|medium|long)phrase"
)
PLUS_CHORD = (
    rf"\+(?!(?:{PLUS_NAMES})\+)"
    rf"(?:[.~(HLMOPSTuv]{{0,4}}(?:\^\^?|__?|=)?[A-Ga-gxz][',]{{0,8}}{LENGTH}[-)]{{0,2}}){{1,16}}\+"
)
UNDEFINED = "IJKNQRUVWhijklmnopqrstw"  # letters for decorations without a meaning of their own (ABC 2.1, section 4.16)
WORD = (  # that no music has
    rf"[{UNDEFINED}][a-z]{{0,8}}[{UNDEFINED}]|[A-Za-z]{{2}}\.(?=[ !+])"
    r"|\b(?i:al|dal|to|and|end|coda|D\.[ ]?[CS])\b"
)
WITH_BLANKS = rf"(?=[^!+|\n]{{0,40}}?(?:{WORD}))[^!+|\n]{{1,40}}"
# A decoration; with blanks in it one that no music could be: `!D.C. al fine!`, `!da capo!`.
DECORATION = rf"(?:!(?:[^!\s|]{{1,30}}|{WITH_BLANKS})!|\+(?:{PLUS_NAMES}|(?=[^+\n]{{0,40}}[ ]){WITH_BLANKS})\+)"
NOT_NOTES = rf'"[^"\n]*"|\[[A-Za-z]:[^\[\]\n]*\]|{DECORATION}'

TOKEN = re.compile(
    rf"""
      (?P<space>[ \t`]+)
    | (?P<note>(?P<accidental>\^\^?|__?|=)?(?P<letter>[A-Ga-g])(?P<octave>[',]{{0,8}})(?P<note_length>{LENGTH}))
    | (?P<bar>(?::{{0,8}}\[?\|[\]|:]{{0,8}} | ::+)(?:\[?{ENDING})? | :{{1,8}}\] | :?\[{ENDING})
    | (?P<inline>\[[A-Za-z]:[^\[\]\n]*\])
    | (?P<chord_open>\[) | (?P<chord_close>\](?P<chord_length>{LENGTH}))
    | (?P<rest>[zx](?P<rest_length>{LENGTH})) | (?P<bar_rest>[ZX](?P<bar_rest_count>[0-9]{{0,3}}))
    | (?P<grace>\{{[^{{}}\n]*\}})
    | (?P<text>"[^"\n]*")
    | (?P<tuplet>\((?:[1-9][0-9]?(?=:)|[2-9])(?::[0-9]{{0,2}}){{0,2}})
    | (?P<broken>>{{1,3}}|<{{1,3}})
    | (?P<tie>-) | (?P<slur>[()])
    | (?P<plus_chord>{PLUS_CHORD}{LENGTH}) | (?P<decoration>[.~H-Wh-w]|{DECORATION})
    | (?P<plus_signs>\+(?:"[^"\n]*"|[^"+|\n]){{1,80}}\+)
    | (?P<overlay>&{{1,2}})
    | (?P<ignored>y[0-9]{{0,4}}|[\\$*;?@#!])
    | (?P<microtone>[\^_=][\^_=0-9/]{{1,8}}[A-Ga-g][',]{{0,8}}(?P<microtone_length>{LENGTH}))
    | (?P<line>\n)
    """,
    re.VERBOSE,
)

# `["last"` begins an ending, in abcm2ps: no bracket closes it before the bar line. `["Am"CE` is a chord.
TEXT_ENDING = re.compile(
    r'\["(?![A-G][#b]?(?:m|maj|min|dim|aug|sus)?[0-9/A-G#b]{0,9}")[^"\n]{0,80}"'
    r'(?=(?:\[[^\[\]\n]{0,80}\]|"[^"\n]{0,80}"|[^\[\]"\n|]){0,200}\|)'
)

# The same lexer without names and with a last resort: every character of a line belongs to a word.
WORDS = re.compile(re.sub(r"\?P<\w+>", "?:", TOKEN.pattern) + r"| [0-9]+ | .", re.VERBOSE).findall

# Words of a language: undefined letters side by side, before nothing, or three in what would be notes.
PROSE = re.compile(
    rf"[H-Wh-w]{{0,30}}?[{UNDEFINED}][H-Wh-w]{{0,30}}?[{UNDEFINED}][H-Wh-w]{{0,30}}"
    rf"|[H-Wh-w]{{0,30}}?[{UNDEFINED}](?=[ \t]*(?:\.?[ \t]*$|[,;?'])|[ \t]+[{UNDEFINED}])"
    rf"|[h-tw](?=(?:[A-Za-z]{{0,30}}?[h-tw]){{2}})|(?<![A-Za-z])(?i:and|coda|end)(?![A-Za-z])"
    # `D.C.`, its last dot before no note; `D.C` by itself at the end
    r"|(?<![^\s|:\](])[Dd]\.[ ]?[CcSs]\.(?=[ \t]|[|:\])]|$)|(?<![^\s|:\]])D\.[CS](?=[ \t]*(?:\|[]|]|:?\|?[ \t]*$))"
)
MAY_BE_PROSE = re.compile(rf"[{UNDEFINED}]|[Dd]\.").search
WITHOUT_NOTES = re.compile(NOT_NOTES)

UNREADABLE_ACCIDENTAL = re.compile(r"(?<![\^_=])(?!\^\^?[A-Ga-g]|__?[A-Ga-g]|=[A-Ga-g])[\^_=][\^_=0-9/]*[A-Ga-g]")

IGNORED = ("space", "grace", "text", "decoration", "slur", "ignored")

KEY = re.compile(
    r"(?P<tonic>HP|Hp|(?i:none)|[A-G][#b]?)?[ \t]*"
    r"(?P<mode>(?i:maj|ion|min|aeo|mix|dor|phr|lyd|loc|exp)[A-Za-z]*(?:[ \t]+mode\b)?"
    r"|(?:(?<!\s)[Mm]|[Mm](?!=))(?![A-Za-z]))?(?P<more>.*)"  # `C m=d` names a middle line
)
SPELLED_OUT = re.compile(  # `F♯m`, `B ♭ minor`; in `D ♯f` the sign is the other note's
    r"^([A-G])(?:[ -]?(sharp|flat|natural)(?![a-z])|-?([♯♭♮])| ([♯♭♮])(?![A-G](?![a-z])))", re.IGNORECASE
)
NATURAL_MINOR = re.compile(r"\bnatural\s+(?=min)", re.IGNORECASE)
SIGNS = {"sharp": "#", "♯": "#", "flat": "b", "♭": "b", "natural": "", "♮": ""}
EXPLICIT = re.compile(r"(\^\^?|__?|=)([A-Ga-g])")
STAFF = re.compile(  # what a K: field may say of the staff: `clef=bass`, `middle=d`, `treble-8`, `8va`
    r"(?<!\S)(?:[A-Za-z][\w.:-]*=(?:\"[^\"]*\"|[^\s\"]*)"
    r"|(?i:(?:treble|alto|tenor|baritone|bass|(?:mezzo)?soprano|perc|none|auto)[1-5]?(?:[+^_-]?(?:8|15)(?:v[ab]|m[ab])?)?)"
    r"|[+-]?(?:8|15)(?:v[ab]|m[ab])?)(?!\S)"
)
OCTAVE = re.compile(r"\boctave=([+-]?[0-9])\b")
OCTAVE_CLEF = re.compile(r"(?:treble|alto|tenor|bass)[1-5]?([+-])(8|15)\b")
TRANSPOSE = re.compile(r"\bt(?:ranspose)?=([+-]?[0-9]{1,3})\b")

MODE_SHIFT = {  # sharps relative to the major key on the same tonic
    "": 0, "maj": 0, "ion": 0, "m": -3, "min": -3, "aeo": -3,
    "mix": -1, "dor": -2, "phr": -4, "lyd": 1, "loc": -5,
}  # fmt: skip
CANONICAL_MODE = {"maj": "", "ion": "", "min": "m", "aeo": "m", "exp": " exp"}
SIGN_OF_ACCIDENTAL = str.maketrans({"♯": "^", "♭": "_", "♮": "=", "𝄪": "^^", "𝄫": "__", "𝄲": "^/", "𝄳": "_/"})
SHARP_ORDER = "FCGDAEB"
STEPS = "CDEFGAB"
PITCH_CLASS = (0, 2, 4, 5, 7, 9, 11)  # of STEPS
ALTERATION = {"^^": 2, "^": 1, "=": 0, "_": -1, "__": -2}
TUPLET_TIME = {2: 3, 3: 2, 4: 3, 6: 2, 8: 3}  # the others depend on the metre (ABC 2.1, section 4.13)

Length = int | Fraction  # in ticks: a Fraction only where a division leaves a remainder; both add exactly
WHOLE = 2**9 * 3**2 * 5 * 7  # ticks of a whole note

# Why a tune must not be taken for the music that is left when these are skipped.
NO_KEY = "no K: field that names a key"
MICROTONE = "microtones or other accidentals that cannot be read"
WORDS_IN_MUSIC = "words among the notes"
PLUS_SIGNS = "plus signs around no chord and no decoration"
OPEN_CHORD = "a chord that is not closed"
LONG_OVERLAY = "a second voice over several bars (&&)"


@dataclass(frozen=True, slots=True)
class BadBar:
    """A bar whose length is not its metre's; lengths are in whole notes."""

    number: int
    wanted: Fraction
    found: Fraction


@dataclass
class Verdict:
    """What one tune holds and what is wrong with it. `pitches` are MIDI numbers in the order of sounding.

    `naturals` are the pitches that all notes as written, tied ones too, would have without any accidental or key.
    `unreadable` is the first reason why the notes are not the tune's: of an error beyond which nothing is certain.
    """

    key: str | None = None
    metre: str | None = None
    errors: list[str] = field(default_factory=list)
    unreadable: str | None = None
    bad_bars: list[BadBar] = field(default_factory=list)
    bars: int = 0
    rests: int = 0
    pitches: list[int] = field(default_factory=list)
    naturals: list[int] = field(default_factory=list, compare=False)  # they say how it is written, not what it is

    @property
    def staff(self) -> list[int]:
        """Where the notes stand on the staff, in the order of writing: C is 0, B 6, c 7."""
        return [7 * (pitch // 12 - 5) + PITCH_CLASS.index(pitch % 12) for pitch in self.naturals]

    @property
    def lowest(self) -> int | None:
        return min(self.pitches, default=None)

    @property
    def highest(self) -> int | None:
        return max(self.pitches, default=None)

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


def split_tunes(text: str) -> Iterator[str]:
    """Yield the tunes of a file, each an exact slice of it: from an `X:` line to a blank line below music, or the next.

    The newline of its last line belongs to a tune, the blank line does not. Fields before the first `X:` and text
    between tunes belong to no tune and are left out.
    """
    starts = [match.start() for match in TUNE_START.finditer(text)]
    for start, end in pairwise([*starts, len(text)]):
        header = HEADER_END.search(text, start, end)
        blank = BLANK_LINE.search(text, header.end(), end) if header else None
        yield text[start : blank.start() + 1 if blank else end]


def words_in(line: str) -> list[str]:
    """Return what of a line of music are letters of words, as no music has them: one or more for most words.

    A word of the letters of notes alone (`a bag`) cannot be told from them.
    """
    return PROSE.findall(WITHOUT_NOTES.sub(" ", line)) if MAY_BE_PROSE(line) else []


@lru_cache(maxsize=1024)
def canonical_key(value: str) -> str | None:
    """Return what a K: field sounds like, in one spelling, or None if it names no key.

    Tonic and mode (`Am`, `Dmix`, `F#`), `none`, `HP` or `Hp`; the accidentals that differ from that signature
    (`D =c`; `D exp _b` where they alone count); and `transpose=` in semitones, which takes in `octave=` and, as in
    abc2midi, clefs like `treble-8` and `bass+15`. Other clefs do not sound and are left out. A field with any other
    word (`D Hijaz`, `E harmonic minor`) or with microtones names no key.
    """
    value = NATURAL_MINOR.sub("", " ".join(value.split()))
    value = SPELLED_OUT.sub(lambda match: match[1].upper() + SIGNS[match[match.lastindex or 0].lower()], value)
    tonic, mode, accidentals, rest = _read_key(value.translate(SIGN_OF_ACCIDENTAL))
    explicit = {step.upper(): sign for sign, step in accidentals}
    if (tonic is None and not explicit) or re.search(r"[\w^=/#]", rest):
        return None
    key = "none" if tonic is None or tonic.lower() == "none" else tonic + CANONICAL_MODE.get(mode, mode)
    usual = key_signature(key)
    words = [explicit[step] + step.lower() for step in SHARP_ORDER if step in explicit]
    words = [word for word in words if ALTERATION[word[:-1]] != usual.get(word[-1].upper(), 0)]
    shift = octave_shift(value, 0)
    return " ".join([key, *words, f"transpose={shift}"] if shift else [key, *words])


@lru_cache(maxsize=1024)
def _read_key(value: str) -> tuple[str | None, str, tuple[tuple[str, str], ...], str]:
    """Return tonic, mode (its first letters), accidentals of a K: field, and what is left, which says nothing of it."""
    tonic, mode, more = KEY.match(value).groups()  # type: ignore[union-attr]  # it matches anything
    more = STAFF.sub(" ", more)
    return tonic, (mode or "").lower()[:3], tuple(EXPLICIT.findall(more)), EXPLICIT.sub(" ", more)


def describes_staff(value: str) -> bool:
    """Return whether a K: field is empty or speaks of nothing but the staff, its clef or transposition."""
    return not STAFF.sub("", value).strip()


def octave_shift(value: str, before: int) -> int:
    """Return the semitones by which a K: or V: field moves what is written, or `before` if it says nothing of it."""
    octave, clef, transpose = OCTAVE.search(value), OCTAVE_CLEF.search(value), TRANSPOSE.search(value)
    if not (octave or clef or transpose):
        return before
    octaves = int(octave[1]) if octave else int(clef[1] + {"8": "1", "15": "2"}[clef[2]]) if clef else 0
    return 12 * octaves + (int(transpose[1]) if transpose else 0)


def key_signature(key: str | None) -> dict[str, int]:
    """Return the alteration of each letter (in semitones) under a key; letters without one are left out."""
    tonic, mode, accidentals, _ = _read_key(key or "")
    signature: dict[str, int] = {}
    if tonic in ("HP", "Hp"):
        signature = {"F": 1, "C": 1}
    elif tonic and tonic.lower() != "none" and mode != "exp":
        sharps = SHARP_ORDER.index(tonic[0]) - 1 + {"#": 7, "b": -7, "": 0}[tonic[1:]] + MODE_SHIFT[mode]
        signature = {SHARP_ORDER[i % 7]: 1 + i // 7 for i in range(sharps)}
        signature |= {SHARP_ORDER[-1 - i % 7]: -1 - i // 7 for i in range(-sharps)}
    signature |= {step.upper(): ALTERATION[sign] for sign, step in accidentals}
    return {step: alteration for step, alteration in signature.items() if alteration}


@lru_cache(maxsize=1024)
def sounding_tonic(key: str | None) -> int | None:
    """Return the pitch class on which a canonical key stands, as it sounds, or None if it names none (`none`, HP)."""
    tonic = KEY.match(key or "")["tonic"]  # type: ignore[index]  # it matches anything
    if tonic is None or tonic[0] not in STEPS:
        return None
    return (PITCH_CLASS[STEPS.index(tonic[0])] + {"#": 1, "b": -1, "": 0}[tonic[1:]] + octave_shift(key or "", 0)) % 12


def bar_length(metre: str | None) -> Fraction | None:
    """Return the length of a bar in whole notes, or None where the metre is free or cannot be read.

    Of several metres, `3/4 (4/4)`, it is that of the first.
    """
    return next(iter(bar_lengths(metre)), None)


@lru_cache(maxsize=1024)
def bar_lengths(metre: str | None) -> tuple[Fraction, ...]:
    """Return each length, in whole notes, that a bar may have: `3/4 (4/4)`, `4/4|3/4`, `6/8 9/8 12/8`.

    None where the metre is free, or where one of them cannot be read. `2/4+3/8` is one of 7/8.
    """
    lengths: list[Fraction] = []
    for match in METRE.finditer(metre or "") if METRES.fullmatch(metre or "") else ():
        parts = FRACTION.findall(match[0]) or [("1", "1")]  # C, C|
        if any(int(below) == 0 for _, below in parts):
            return ()
        fractions = (Fraction(sum(map(int, above.split("+"))), int(below)) for above, below in parts)
        lengths.append(sum(fractions, Fraction(0)))
    return tuple(lengths) if all(lengths) else ()


def default_unit_length(metre: str | None) -> Fraction:
    """Return the unit note length that holds when L: is absent (ABC 2.1, section 3.1.7)."""
    length = bar_length(metre)
    return Fraction(1, 16) if length is not None and length < Fraction(3, 4) else Fraction(1, 8)


def parse_length(text: str) -> Fraction:
    """Return a note's length factor: '' 1, '2' 2, '/' 1/2, '//' 1/4, '3/2' 3/2. Raises ValueError on '/0'."""
    numerator, denominator = _ratio(text)
    if denominator == 0:
        raise ValueError("a note length is divided by zero")
    return Fraction(numerator, denominator)


def _ratio(text: str) -> tuple[int, int]:
    """Return a length factor as numerator and denominator, not reduced."""
    digits, slash, below = text.partition("/")
    after = below.lstrip("/")
    return int(digits or 1), int(after) if after else 2 ** len(slash + below)


def read_unit_length(value: str) -> Fraction | None:
    """Return the value of an L: field in whole notes, or None if it is not a fraction."""
    match = UNIT.fullmatch(value)
    if match is None or int(match[1]) == 0 or int(match[2] or 1) == 0:
        return None
    return Fraction(int(match[1]), int(match[2] or 1))


def _ticks(length: Fraction) -> Length:
    """Return whole notes in ticks."""
    return _scaled(WHOLE, length.numerator, length.denominator)


@lru_cache(maxsize=1024)
def _whole_notes(ticks: Length) -> Fraction:
    """Return ticks in whole notes."""
    return Fraction(ticks, WHOLE)


def _scaled(length: Length, numerator: int, denominator: int) -> Length:
    """Return length * numerator / denominator, exactly."""
    scaled = length * numerator
    if isinstance(scaled, int) and scaled % denominator == 0:
        return scaled // denominator
    return Fraction(scaled, denominator)


@lru_cache(maxsize=4096)
def _meaning(word: str) -> tuple[str, Any]:
    """Return the kind of a word and what it says. A word of music is parsed once, however often it is written."""
    match = TOKEN.match(word)
    if match is None:
        return "unknown", word
    kind = match.lastgroup or ""
    if kind == "note":
        height = match["octave"].count("'") - match["octave"].count(",") + match["letter"].islower()
        step = STEPS.index(match["letter"].upper())
        alteration = ALTERATION.get(match["accidental"])
        return kind, (step, 60 + 12 * height + PITCH_CLASS[step], alteration, *_ratio(match["note_length"]))
    if kind == "grace" and UNREADABLE_ACCIDENTAL.search(word):
        return "microtone", None
    if kind == "plus_chord":
        notes, _, length = word[1:].rpartition("+")
        return kind, f"[{notes}]{length}"
    if kind in ("rest", "chord_close", "microtone"):
        return kind, _ratio(match[f"{kind.removesuffix('_close')}_length"])
    if kind == "bar_rest":
        return kind, int(match["bar_rest_count"] or 1)
    if kind == "tuplet":
        return kind, [int(part or 0) for part in word[1:].split(":")]
    return ("ignored" if kind in IGNORED else kind), word


class _Bar(NamedTuple):
    """A bar of another length than wanted, in ticks. Its head or tail stands at a repeat, a double bar or an ending."""

    number: int
    wanted: Length
    found: Length
    head: bool
    tail: bool


@dataclass(slots=True)
class _Voice:
    """One voice's place in its bar. A note's place on the staff is named by its pitch without accidentals."""

    metre: str | None = None
    wanted: Length | None = None  # the length of a bar
    also: tuple[Length, ...] = ()  # the others that it may have
    unit: Length = WHOLE // 8
    signature: list[int] = field(default_factory=lambda: [0] * 7)  # the alteration of each step
    altered: list[int] = field(default_factory=lambda: [0] * 7)  # the same with the accidentals of this bar
    shift: int = 0  # semitones, from octave= and transpose=
    bar: int = 1
    total: Length = 0
    parts: list[Length] = field(default_factory=list)  # bar parts finished by an overlay sign
    at_edge: bool = True  # the bar began at the tune's start, a repeat, a double bar or an ending
    halves: list[_Bar] = field(default_factory=list)  # short bars at an edge: two of them may add up
    last: Length = 0  # the last note's length but for broken rhythm, of which `a<b>c` has two
    broken: tuple[int, int] | None = None  # what broken rhythm makes of the next note
    tuplet: tuple[int, int] = (1, 1)
    tuplet_left: int = 0
    place: int = 0  # of the last note
    sounding: dict[int, int] = field(default_factory=dict)  # the pitch of each place in the last note or chord
    tied: dict[int, int] = field(default_factory=dict)  # what a tie carries into the next note or chord
    carried: dict[int, int] = field(default_factory=dict)  # what was carried into this one: it does not sound again
    in_chord: bool = False
    held: tuple[int, int] | None = None  # lengths inside a chord: only the first counts


class _Reader:
    """Walks over one tune and fills its verdict. Each kind of word that counts has a method of its name."""

    new_voice: type[_Voice] = _Voice

    def __init__(self) -> None:
        self.verdict = Verdict()
        self.voice = self.new_voice()
        self.voices = {"": self.voice}
        self.shifts: dict[str, int] = {}  # of the voices that the header describes
        self.unit_given = self.in_body = False
        self.defined: set[str] = set()  # letters that U: gives a meaning

    def read(self, text: str) -> Verdict:
        joined = block_end = ""  # music of lines that a backslash joins to the next; the end of a block of text
        in_text = False  # a field of text goes on in this line
        for line in text.split("\n"):
            if block_end:
                block_end = "" if line.startswith(block_end) else block_end
                continue
            if line.startswith("%%begin"):
                block_end = "%%end" + line[7:].partition(" ")[0]
                continue
            if "%" in line:
                line = COMMENT.sub("", line)
                if not line.strip():
                    continue  # it may stand between the lines of one that goes on
            match = FIELD.match(line) if line[1:2] == ":" else None
            if match:
                self.music(joined)
                joined = ""
                self.field(match[1], match[2].strip())
                in_text = "\\" in line and CONTINUES.match(line.rstrip()) is not None
            elif in_text:
                in_text = line.rstrip().endswith("\\")
            elif not self.in_body:
                if line.strip():
                    self.error("text before the key")
            elif line.rstrip().endswith("\\"):
                joined += line.rstrip()[:-1]
            else:
                self.music(joined + line)
                self.end_line()
                joined = ""
        self.music(joined)
        for voice in self.voices.values():
            self.voice = voice
            self.end_chord()
            self.end_bar(edge=True)
            self.check_halves()
        self.verdict.bad_bars.sort(key=lambda bad: bad.number)
        if not self.in_body:
            self.error("no K: field")
        elif not self.verdict.pitches:
            self.error("no notes")
        return self.verdict

    def error(self, message: str) -> None:
        self.verdict.errors.append(f"bar {self.voice.bar}: {message}" if self.in_body else message)

    def refuse(self, reason: str, message: str) -> None:
        """Note an error beyond which the notes are not the tune's."""
        self.verdict.unreadable = self.verdict.unreadable or reason
        self.error(message)

    # Fields

    def field(self, letter: str, value: str) -> None:
        if letter == "K":
            self.key(value)
        elif letter == "M":
            self.metre(value)
        elif letter == "L":
            length = read_unit_length(value)
            if length is None:
                self.error(f"L:{value} is no length")
            else:
                self.voice.unit, self.unit_given = _ticks(length), True
        elif letter == "V":
            self.change_voice(value)
        elif letter == "U":
            self.defined.add(value[:1])

    def inline(self, word: str) -> None:
        self.field(word[1], word[3:-1].strip())

    def key(self, value: str) -> None:
        voice, key = self.voice, canonical_key(value)
        if key is not None:
            signature = key_signature(key)
            voice.signature = [signature.get(step, 0) for step in STEPS]
            voice.altered = voice.signature[:]
        elif not describes_staff(value):
            self.refuse(MICROTONE if re.search(r"[\^_][0-9/]", value) else NO_KEY, f"K:{value} is no key")
        voice.shift = octave_shift(value, voice.shift)
        if not self.in_body:
            self.verdict.key = key or ("none" if describes_staff(value) else None)
            self.in_body = True
            if not self.unit_given:  # a later M: does not change it
                voice.unit = _ticks(default_unit_length(voice.metre))

    def metre(self, value: str) -> None:
        lengths = [_ticks(length) for length in bar_lengths(value)]
        self.voice.metre, self.voice.wanted, self.voice.also = value, next(iter(lengths), None), tuple(lengths[1:])
        if not self.in_body:
            self.verdict.metre = value
        if value not in ("none", "") and not lengths:
            self.error(f"M:{value} is no metre")

    def change_voice(self, value: str) -> None:
        name, first = (value.split(maxsplit=1) or [""])[0], self.voices[""]
        self.shifts[name] = octave_shift(value, self.shifts.get(name, first.shift))
        if self.in_body:
            if name not in self.voices:
                settings = first.metre, first.wanted, first.also, first.unit, first.signature, first.signature[:]
                self.voices[name] = self.new_voice(*settings, shift=self.shifts[name])
            self.voice = self.voices[name]

    # Words of music

    def music(self, line: str) -> None:
        for letters in words_in(line):
            if not self.defined.issuperset(letters):
                self.refuse(WORDS_IN_MUSIC, f"{letters!r} is no music")
        note = self.note
        line = TEXT_ENDING.sub("[1 ", line) if '["' in line else line
        for word in WORDS(line):
            kind, value = _meaning(word)
            if kind == "note":
                note(*value)
            elif kind != "ignored":
                getattr(self, kind)(value)

    def note(self, step: int, place: int, alteration: int | None, above: int, below: int) -> None:
        voice, verdict = self.voice, self.verdict
        if not voice.in_chord:
            self.begin_sound()
        if alteration is not None:
            voice.altered[step] = alteration  # in every octave (ABC 2.1, section 11.3)
        pitch = place + voice.altered[step] + voice.shift
        if voice.carried and place in voice.carried:
            if alteration is None:
                pitch = voice.carried[place]  # a tie carries its accidental over the bar line
            if voice.carried[place] != pitch:
                verdict.pitches.append(pitch)
        else:
            verdict.pitches.append(pitch)
        verdict.naturals.append(place)
        voice.place = place
        voice.sounding[place] = pitch
        if voice.in_chord:
            voice.held = voice.held or (above, below)
        else:
            self.add(above, below)

    def microtone(self, ratio: tuple[int, int] | None) -> None:
        self.refuse(MICROTONE, "an accidental that cannot be read")
        if ratio and self.voice.in_chord:
            self.voice.held = self.voice.held or ratio
        elif ratio:  # its time counts, its pitch is not known
            self.begin_sound()
            self.add(*ratio)

    def plus_chord(self, chord: str) -> None:
        self.music(chord)

    def plus_signs(self, word: str) -> None:
        reason = MICROTONE if UNREADABLE_ACCIDENTAL.search(word) else PLUS_SIGNS
        self.refuse(reason, f"{word!r} is no chord and no decoration")

    def rest(self, ratio: tuple[int, int]) -> None:
        self.verdict.rests += 1
        if self.voice.in_chord:
            self.error("a rest inside a chord")
        else:
            self.begin_sound()
            self.add(*ratio)

    def bar_rest(self, count: int) -> None:
        voice, more = self.voice, max(count, 1) - 1
        self.verdict.rests += 1
        self.verdict.bars += more
        voice.bar += more
        self.begin_sound()
        voice.total += voice.wanted or WHOLE

    def chord_open(self, _: str) -> None:
        if self.voice.in_chord:
            self.refuse(OPEN_CHORD, "a chord inside a chord")
        self.begin_sound()
        self.voice.in_chord, self.voice.held = True, None

    def chord_close(self, ratio: tuple[int, int]) -> None:
        voice = self.voice
        if not voice.in_chord:
            self.error("']' closes no chord")
            return
        voice.in_chord = False
        above, below = voice.held or (0, 1)
        self.add(above * ratio[0], below * ratio[1])

    def begin_sound(self) -> None:
        voice = self.voice
        voice.sounding = {}
        if voice.tied or voice.carried:
            voice.carried, voice.tied = voice.tied, {}

    def add(self, above: int, below: int) -> None:
        voice = self.voice
        if below == 0:
            self.error("a note length is divided by zero")
            return
        length = voice.unit * above if below == 1 else _scaled(voice.unit, above, below)
        if voice.tuplet_left:
            length = _scaled(length, *voice.tuplet)
            voice.tuplet_left -= 1
        voice.last = length
        if voice.broken:
            length = _scaled(length, *voice.broken)
            voice.broken = None
        voice.total += length

    def tie(self, _: str) -> None:
        voice = self.voice
        if not voice.in_chord:
            voice.tied = voice.sounding
        elif voice.sounding:
            voice.tied[voice.place] = voice.sounding[voice.place]

    def broken(self, word: str) -> None:
        voice, half = self.voice, 2 ** len(word)
        if voice.in_chord or voice.broken:
            self.error(f"{word!r} stands between no two notes")
        long, short = (2 * half - 1, half), (1, half)
        first, voice.broken = (long, short) if word[0] == ">" else (short, long)
        voice.total += _scaled(voice.last, first[0] - half, half)

    def tuplet(self, numbers: list[int]) -> None:
        notes, time, count = (*numbers, 0, 0)[:3]
        compound = re.match(r"(?:6|9|12)\s*/", self.voice.metre or "") is not None
        self.voice.tuplet = time or TUPLET_TIME.get(notes, 3 if compound else 2), notes
        self.voice.tuplet_left = count or notes

    def overlay(self, sign: str) -> None:
        voice = self.voice
        if sign == "&&":
            self.refuse(LONG_OVERLAY, "an overlay of several bars")
        voice.altered = voice.signature[:]  # it is another voice, for the rest of the bar
        if voice.total:
            voice.parts.append(voice.total)
            voice.total = 0

    def unknown(self, word: str) -> None:
        self.error(f"{word!r} is not ABC")

    # Bars

    def bar(self, word: str) -> None:
        self.end_chord()
        self.end_bar(edge=word != "|")

    def end_line(self) -> None:
        if self.voice.total and self.voice.total in (self.voice.wanted, *self.voice.also):
            self.end_bar(edge=False)  # the Essen songs close a full bar by the line's end alone

    def end_chord(self) -> None:
        if self.voice.in_chord:
            self.refuse(OPEN_CHORD, "a chord is not closed")
            self.voice.in_chord = False

    def end_bar(self, edge: bool) -> None:
        voice = self.voice
        if voice.total or voice.parts:
            self.verdict.bars += 1
            if voice.wanted is not None and (voice.total != voice.wanted or voice.parts):
                for found in (*voice.parts, voice.total):
                    if found not in voice.also:
                        self.check_bar(_Bar(voice.bar, voice.wanted, found, voice.at_edge, edge))
            voice.bar += 1
            voice.at_edge = edge
            voice.altered = voice.signature[:]
            voice.total, voice.parts = 0, []
        elif edge:
            voice.at_edge = True

    def check_bar(self, bar: _Bar) -> None:
        if bar.found < max(bar.wanted, *self.voice.also, 0) and (bar.head or bar.tail):
            self.voice.halves.append(bar)
        elif bar.found != bar.wanted:
            self.flag(bar)

    def check_halves(self) -> None:
        """Flag each short bar at an edge that no other completes, but for a tune's first and last."""
        halves = self.voice.halves
        heads = {bar.found for bar in halves if bar.head}
        tails = {bar.found for bar in halves if bar.tail}
        for bar in halves:
            lacks = {full - bar.found for full in (bar.wanted, *self.voice.also)}
            first, last = bar.head and bar.number == 1, bar.tail and bar.number == self.voice.bar - 1
            if not (first or last or (bar.head and lacks & tails) or (bar.tail and lacks & heads)):
                self.flag(bar)

    def flag(self, bar: _Bar) -> None:
        self.verdict.bad_bars.append(BadBar(bar.number, _whole_notes(bar.wanted), _whole_notes(bar.found)))


def judge(text: str) -> Verdict:
    """Read one tune (header and body) and return its verdict. Never raises on text, however broken."""
    return _Reader().read(text)


# What the tune is made of, for those who measure it


@dataclass(slots=True, eq=False)
class Sound:
    """A note, a chord or a rest as written: a tied note is several. `struck` are the notes that begin with it."""

    ticks: Length = 0
    pitches: list[int] = field(default_factory=list)
    struck: list["Note"] = field(default_factory=list)

    @property
    def duration(self) -> Fraction:
        """The duration in whole notes."""
        return _whole_notes(self.ticks)


@dataclass(slots=True, eq=False)
class Note:
    """A note as it sounds, through all the sounds that ties join. `pitch` is a MIDI number."""

    pitch: int
    sounds: list[Sound]

    @property
    def duration(self) -> Fraction:
        """The duration in whole notes."""
        return _whole_notes(sum(sound.ticks for sound in self.sounds))


@dataclass(slots=True, eq=False)
class Bar:
    """A bar of one voice, the key at its end, and the bar lines between it and the next bar, none at a line's end.

    `length` is its part of a whole bar: 1 if it is full, None where the metre is free.
    """

    sounds: list[Sound]
    key: str | None
    length: Fraction | None
    lines: list[str] = field(default_factory=list)

    @property
    def content(self) -> tuple[tuple[tuple[int, ...], Length], ...]:
        """Pitches and lengths: two bars are alike if these are equal."""
        return tuple((tuple(sound.pitches), sound.ticks) for sound in self.sounds)


@dataclass(slots=True)
class Part(_Voice):
    """A voice with its music; `opening` are the bar lines before its first bar."""

    opening: list[str] = field(default_factory=list)
    bars: list[Bar] = field(default_factory=list)
    key: str | None = None
    sound: Sound = field(default_factory=Sound)  # the last one
    sounds: list[Sound] = field(default_factory=list)  # of the bar that has not ended
    notes: dict[int, Note] = field(default_factory=dict)  # the last one of each place


@dataclass
class Transcript:
    """A tune's verdict and music: its parts are the voices that have bars, in order of their first naming."""

    verdict: Verdict
    parts: list[Part]


class _Transcriber(_Reader):
    """A reader that keeps what it reads."""

    new_voice = Part
    voice: Part
    voices: dict[str, Part]  # type: ignore[assignment]  # new_voice makes them

    def key(self, value: str) -> None:
        super().key(value)
        self.voice.key = canonical_key(value) or self.voice.key

    def begin_sound(self) -> None:
        super().begin_sound()
        self.voice.sound = Sound()
        self.voice.sounds.append(self.voice.sound)

    def note(self, step: int, place: int, alteration: int | None, above: int, below: int) -> None:
        known = len(self.verdict.pitches)
        super().note(step, place, alteration, above, below)
        voice = self.voice
        pitch = voice.sounding[place]
        if len(self.verdict.pitches) > known:
            voice.notes[place] = Note(pitch, [voice.sound])
            voice.sound.struck.append(voice.notes[place])
        else:
            voice.notes[place].sounds.append(voice.sound)
        voice.sound.pitches.append(pitch)

    def bar_rest(self, count: int) -> None:
        super().bar_rest(count)
        self.voice.sound.ticks = (self.voice.wanted or WHOLE) * max(count, 1)

    def add(self, above: int, below: int) -> None:
        before = self.voice.total
        super().add(above, below)
        self.voice.sound.ticks = self.voice.total - before

    def broken(self, word: str) -> None:
        before = self.voice.total
        super().broken(word)
        self.voice.sound.ticks += self.voice.total - before

    def bar(self, word: str) -> None:
        super().bar(word)
        bars = self.voice.bars
        (bars[-1].lines if bars else self.voice.opening).append(word)

    def end_bar(self, edge: bool) -> None:
        voice = self.voice
        number, wanted = voice.bar, voice.total if voice.total in voice.also else voice.wanted
        super().end_bar(edge)
        if voice.bar > number:
            length = None if wanted is None else Fraction(sum(sound.ticks for sound in voice.sounds), wanted)
            voice.bars.append(Bar(voice.sounds, voice.key or self.verdict.key, length))
            voice.sounds = []


def transcribe(text: str) -> Transcript:
    """Read one tune and return its verdict, as `judge` does, and its music. Never raises on text, however broken."""
    reader = _Transcriber()
    verdict = reader.read(text)
    return Transcript(verdict, [part for part in reader.voices.values() if part.bars])
