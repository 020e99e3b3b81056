"""What the fields K:, M: and L: of ABC mean: keys and their signatures, bar lengths, note lengths.

Pitch classes are positions on the line of fifths (… F C G D …), C at 0: a sharp is seven fifths up.
"""

import re
from fractions import Fraction
from functools import lru_cache

LETTERS = "CDEFGAB"
PITCH_CLASS = (0, 2, 4, 5, 7, 9, 11)  # of LETTERS
FIFTHS = "FCGDAEB"
ALTERATION = {"^^": 2, "^": 1, "=": 0, "_": -1, "__": -2}
ACCIDENTAL = {alteration: sign for sign, alteration in ALTERATION.items()}
NAME_ALTERATION = {"": 0, "#": 1, "b": -1}  # in the names of keys and chords
MODE_SHIFT = {  # sharps relative to the major key on the same tonic
    "": 0, "maj": 0, "ion": 0, "m": -3, "min": -3, "aeo": -3,
    "mix": -1, "dor": -2, "phr": -4, "lyd": 1, "loc": -5,
}  # fmt: skip
CANONICAL_MODE = {"maj": "", "ion": "", "min": "m", "aeo": "m", "exp": " exp"}

KEY = re.compile(
    r"(?P<tonic>HP|Hp|(?i:none)|[A-G][#b]?)?[ \t]*"
    r"(?P<mode>(?i:maj|ion|min|aeo|mix|dor|phr|lyd|loc|exp)[A-Za-z]*(?:[ \t]+mode\b)?"
    r"|(?:(?<!\s)[Mm]|[Mm](?!=))(?![A-Za-z]))?(?P<more>.*)"  # `C m=d` names a middle line
)
SPELLED_OUT = re.compile(  # `F♯m`, `B ♭ minor`; in `D ♯f` the sign is the other note's
    r"^([A-G])(?:[ -]?(sharp|flat|natural)(?![a-z])|-?([♯♭♮])| ([♯♭♮])(?![A-G](?![a-z])))", re.IGNORECASE
)
NATURAL_MINOR = re.compile(r"\bnatural\s+(?=min)", re.IGNORECASE)
NAME_SIGN = {"sharp": "#", "♯": "#", "flat": "b", "♭": "b", "natural": "", "♮": ""}
UNICODE_ACCIDENTAL = {"♯": "^", "♭": "_", "♮": "=", "𝄪": "^^", "𝄫": "__", "𝄲": "^/", "𝄳": "_/"}
TO_ABC_ACCIDENTAL = str.maketrans(UNICODE_ACCIDENTAL)
EXPLICIT = re.compile(r"(\^\^?|__?|=)([A-Ga-g])")
STAFF = re.compile(  # what a K: field may say of the staff: `clef=bass`, `middle=d`, `treble-8`, `8va`
    r"(?<!\S)(?:[A-Za-z][\w.:-]*=(?:\"[^\"]*\"|[^\s\"]*)"
    r"|(?i:(?:treble|alto|tenor|baritone|bass|(?:mezzo)?soprano|perc|none|auto)[1-5]?(?:[+^_-]?(?:8|15)(?:v[ab]|m[ab])?)?)"
    r"|[+-]?(?:8|15)(?:v[ab]|m[ab])?)(?!\S)"
)
CLEF = re.compile(
    r"(?:^|\s)(?:clef=\"?)?(perc(?:ussion)?|treble|bass|alto|tenor|soprano|mezzosoprano|baritone)(?![a-z])",
    re.IGNORECASE,
)
OCTAVE = re.compile(r"\boctave=([+-]?[0-9])\b")
OCTAVE_CLEF = re.compile(r"(?:treble|alto|tenor|bass)[1-5]?([+-])(8|15)\b")
TRANSPOSE = re.compile(r"\bt(?:ranspose)?=([+-]?[0-9]{1,3})\b")

FRACTION = re.compile(r"\(?((?:[0-9]{1,3}\s*\+\s*){0,16}[0-9]{1,3})\)?\s*/\s*([0-9]{1,3})")  # `(2+2+3)/8` is one
METRE = re.compile(rf"C\|?(?![0-9])|{FRACTION.pattern}(?:\s*\+\s*{FRACTION.pattern}){{0,8}}")  # `2/4+3/8`
METRES = re.compile(rf"(?:{METRE.pattern})(?:[\s|,;]*[\s|,;(](?:{METRE.pattern})\)?){{0,8}}")
UNIT = re.compile(r"\s*([0-9]{1,3})(?:\s*/\s*([0-9]{1,3}))?\s*")
TUPLET_TIME = {2: 3, 3: 2, 4: 3, 6: 2, 8: 3}  # the others depend on the metre (ABC 2.1, section 4.13)

Length = int | Fraction  # in ticks: a Fraction only where a division leaves a remainder; both add exactly
WHOLE = 2**9 * 3**2 * 5 * 7  # ticks of a whole note


def fifth_of(letter: str, alteration: int) -> int:
    """Return the position on the line of fifths of a letter with an alteration in semitones."""
    return FIFTHS.index(letter) - 1 + 7 * alteration


def spell(fifth: int) -> tuple[str, int]:
    """Return letter and alteration (in semitones) at a position on the line of fifths."""
    return FIFTHS[(fifth + 1) % 7], (fifth + 1) // 7


def signature_of(sharps: int) -> dict[str, int]:
    """Return the alteration of each letter (in semitones) in a signature of so many sharps, or flats below 0."""
    return dict(map(spell, range(sharps - 1, sharps + 6)))


@lru_cache(maxsize=1024)
def canonical_key(value: str) -> str | None:
    """Return the one spelling of what a K: field sounds like, or None if it names no key.

    Tonic and mode (`Am`, `Dmix`, `F#`), `none`, `HP` or `Hp`; the accidentals that differ from that signature
    (`D =c`; `D exp _b` where they alone count); and `transpose=` in semitones, which takes in `octave=` and, as in
    abc2midi, clefs like `treble-8` and `bass+15`. Other clefs do not sound and are left out. A field with any other
    word (`D Hijaz`, `E harmonic minor`) or with microtones names no key.
    """
    value = NATURAL_MINOR.sub("", " ".join(value.split()))
    value = SPELLED_OUT.sub(lambda match: match[1].upper() + NAME_SIGN[match[match.lastindex or 0].lower()], value)
    tonic, mode, accidentals, rest = _read_key(value.translate(TO_ABC_ACCIDENTAL))
    explicit = {letter.upper(): sign for sign, letter in accidentals}
    if (tonic is None and not explicit) or re.search(r"[\w^=/#]", rest):
        return None
    key = "none" if tonic is None or tonic.lower() == "none" else tonic + CANONICAL_MODE.get(mode, mode)
    usual = key_signature(key)
    words = [
        explicit[letter] + letter.lower()
        for letter in FIFTHS
        if letter in explicit and ALTERATION[explicit[letter]] != usual.get(letter, 0)
    ]
    shift = octave_shift(value, 0)
    return " ".join([key, *words, f"transpose={shift}"] if shift else [key, *words])


@lru_cache(maxsize=1024)
def _read_key(value: str) -> tuple[str | None, str, tuple[tuple[str, str], ...], str]:
    """Return tonic, mode (its first letters), accidentals, and the words of a K: field that name none of these."""
    tonic, mode, more = KEY.match(value).groups()  # type: ignore[union-attr]  # it matches anything
    more = STAFF.sub(" ", more)
    return tonic, (mode or "").lower()[:3], tuple(EXPLICIT.findall(more)), EXPLICIT.sub(" ", more)


def describes_staff(value: str) -> bool:
    """Return whether a K: field is empty or describes only the staff, its clef or transposition."""
    return not STAFF.sub("", value).strip()


def octave_shift(value: str, before: int) -> int:
    """Return the semitones by which a K: or V: field shifts the notes, or `before` if it does not say."""
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
        signature = signature_of(fifth_of(tonic[0], NAME_ALTERATION[tonic[1:]]) + MODE_SHIFT[mode])
    signature |= {letter.upper(): ALTERATION[sign] for sign, letter in accidentals}
    return {letter: alteration for letter, alteration in signature.items() if alteration}


@lru_cache(maxsize=1024)
def sounding_tonic(key: str | None) -> int | None:
    """Return the pitch class of the tonic of a canonical key, as it sounds, or None if it has none (`none`, HP)."""
    tonic = KEY.match(key or "")["tonic"]  # type: ignore[index]  # it matches anything
    if tonic is None or tonic[0] not in LETTERS:
        return None
    return (7 * fifth_of(tonic[0], NAME_ALTERATION[tonic[1:]]) + octave_shift(key or "", 0)) % 12


@lru_cache(maxsize=1024)
def bar_lengths(metre: str | None) -> tuple[Fraction, ...]:
    """Return each length, in whole notes, that a bar may have: `3/4 (4/4)`, `4/4|3/4`, `6/8 9/8 12/8`.

    Empty where the metre is free, or where one of them cannot be read. `2/4+3/8` is one metre of 7/8.
    """
    lengths: list[Fraction] = []
    for match in METRE.finditer(metre or "") if METRES.fullmatch(metre or "") else ():
        parts = FRACTION.findall(match[0]) or [("1", "1")]  # C, C|
        if any(int(denominator) == 0 for _, denominator in parts):
            return ()
        fractions = (Fraction(sum(map(int, beats.split("+"))), int(denominator)) for beats, denominator in parts)
        lengths.append(sum(fractions, Fraction(0)))
    return tuple(lengths) if all(lengths) else ()


def bar_length(metre: str | None) -> Fraction | None:
    """Return the first of `bar_lengths`, in whole notes, or None where the metre is free or cannot be read."""
    return next(iter(bar_lengths(metre)), None)


def default_unit_length(metre: str | None) -> Fraction:
    """Return the unit note length that holds when L: is absent (ABC 2.1, section 3.1.7)."""
    length = bar_length(metre)
    return Fraction(1, 16) if length is not None and length < Fraction(3, 4) else Fraction(1, 8)


def read_unit_length(value: str) -> Fraction | None:
    """Return the value of an L: field in whole notes, or None if it is not a fraction."""
    match = UNIT.fullmatch(value)
    if match is None or int(match[1]) == 0 or int(match[2] or 1) == 0:
        return None
    return Fraction(int(match[1]), int(match[2] or 1))


def length_ratio(text: str) -> tuple[int, int]:
    """Return a note's length factor as numerator and denominator, not reduced: '' 1/1, '/' 1/2, '//' 1/4, '3/2'."""
    digits, slash, below = text.partition("/")
    denominator = below.lstrip("/")
    return int(digits or 1), int(denominator) if denominator else 2 ** len(slash + below)


def parse_length(text: str) -> Fraction:
    """Return a note's length factor. Raises ValueError on '/0'."""
    numerator, denominator = length_ratio(text)
    if denominator == 0:
        raise ValueError("a note length is divided by zero")
    return Fraction(numerator, denominator)


def in_ticks(length: Fraction) -> Length:
    """Return whole notes in ticks."""
    return scaled(WHOLE, length.numerator, length.denominator)


@lru_cache(maxsize=1024)
def in_whole_notes(ticks: Length) -> Fraction:
    """Return ticks in whole notes."""
    return Fraction(ticks, WHOLE)


def scaled(length: Length, numerator: int, denominator: int) -> Length:
    """Return length * numerator / denominator, exactly."""
    product = length * numerator
    if isinstance(product, int) and product % denominator == 0:
        return product // denominator
    return Fraction(product, denominator)
