"""The words of ABC 2.1 (https://abcnotation.com/wiki/abc:standard:v2.1): what each is, and where tunes end."""

import re
from collections.abc import Iterator
from functools import lru_cache
from itertools import pairwise
from typing import Any

from .abc_fields import ALTERATION, LETTERS, PITCH_CLASS, length_ratio

FIELD = re.compile(r"(?![A-Ga-gxz]:[|:])([A-Za-z+]):[ \t]*(.*)")  # `d:|` is music
TUNE_START = re.compile(r"^X:", re.MULTILINE)
HEADER_END = re.compile(r"^K:.*$(?:\n(?:[A-Za-z+]:.*|%.*|[ \t]*)$)*+", re.MULTILINE)  # all above the first music
BLANK_LINE = re.compile(r"\n[ \t]*$", re.MULTILINE)
COMMENT = re.compile(r"(?<!\\)%.*")
OUTSIDE_ABC = re.compile(r"[^\x20-\x7e\n]|\\")  # a backslash that joins no lines means nothing
CONTINUES = re.compile(r"[ABCDFGHNORSTWZrsw+]:.*\\$")  # a text field that continues in the next line (ABC 2.0)
# `2`, `3/2`, `/`, `//`, `/4`, or nothing
LENGTH = r"(?:[0-9]{1,3}(?:/[0-9]{1,3}|/{0,8})|/{1,8}[0-9]{0,3})?"  # bounded against hostile text
ENDING = "[1-9][0-9,.-]{0,16}"  # `1`, `1,3`, `1-3`

# `+trill+` was a decoration of ABC 2.0, one of these; else `+GB+` was a chord before ABC 1.6.
PLUS_NAMES = (
    r"trill[()]?|(?:lower|upper)?mordent|pralltriller|roll|(?:inverted)?(?:turnx?|fermata)|arpeggio|accent|emphasis"
    r"|tenuto|[0-5]|plus|snap|slide|wedge|upbow|downbow|open|thumb|breath|p{1,4}|f{1,4}|m[pf]|sfz|[<>][()]?"
    r"|(?:crescendo|diminuendo)[()]|segno|[Cc]oda|[Ff]ine|FINE|D\.[CS]\.?(?:al(?:coda|fine))?|dacoda|dacapo"
    r"|(?:short|medium|long)phrase"
)
PLUS_CHORD = (  # `+CEG+`, `+^c'2e2+`
    rf"\+(?!(?:{PLUS_NAMES})\+)"
    rf"(?:[.~(HLMOPSTuv]{{0,4}}(?:\^\^?|__?|=)?[A-Ga-gxz][',]{{0,8}}{LENGTH}[-)]{{0,2}}){{1,16}}\+"
)
UNDEFINED = "IJKNQRUVWhijklmnopqrstw"  # decoration letters to which the standard gives no meaning (section 4.16)
WORD = (  # that no music has: `fine`, `rit.`, `al`, `D. C`
    rf"[{UNDEFINED}][a-z]{{0,8}}[{UNDEFINED}]|[A-Za-z]{{2}}\.(?=[ !+])"
    r"|\b(?i:al|dal|to|and|end|coda|D\.[ ]?[CS])\b"
)
WITH_BLANKS = rf"(?=[^!+|\n]{{0,40}}?(?:{WORD}))[^!+|\n]{{1,40}}"
# A decoration; with blanks in it one that no music could be: `!D.C. al fine!`, `!da capo!`.
DECORATION = rf"(?:!(?:[^!\s|]{{1,30}}|{WITH_BLANKS})!|\+(?:{PLUS_NAMES}|(?=[^+\n]{{0,40}}[ ]){WITH_BLANKS})\+)"
# `[K:D]`
INLINE_FIELD = r"\[[A-Za-z]:[^\[\]\n]*\]"
# Letters that are no notes: `"Am"`, `[M:3/4]`, `!trill!`
NOT_NOTES = rf'"[^"\n]*"|{INLINE_FIELD}|{DECORATION}'
# The same, and whole lines of fields: `w:la la`
NO_MUSIC = rf"^(?![A-Ga-gxz]:[|:])[A-Za-z]:.*$|{NOT_NOTES}"

TOKEN = re.compile(
    rf"""
      (?P<space>[ \t`]+)
    | (?P<note>(?P<accidental>\^\^?|__?|=)?(?P<letter>[A-Ga-g])(?P<octave>[',]{{0,8}})(?P<note_length>{LENGTH}))
    | (?P<bar>(?::{{0,8}}\[?\|[\]|:]{{0,8}} | ::+)(?:\[?{ENDING})? | :{{1,8}}\] | :?\[{ENDING})  # |  :|2  |[1  ::  [2
    | (?P<inline>{INLINE_FIELD})  # [M:3/4]
    | (?P<chord_open>\[) | (?P<chord_close>\](?P<chord_length>{LENGTH}))
    | (?P<rest>[zx](?P<rest_length>{LENGTH})) | (?P<bar_rest>[ZX](?P<bar_rest_count>[0-9]{{0,3}}))  # z2  x  Z4
    | (?P<grace>\{{[^{{}}\n]*\}})  # {{ga}}
    | (?P<text>"[^"\n]*")  # "Am"  "^slow"
    | (?P<tuplet>\((?:[1-9][0-9]?(?=:)|[2-9])(?::[0-9]{{0,2}}){{0,2}})  # (3  (5:4:6
    | (?P<broken>>{{1,3}}|<{{1,3}})  # >  <<
    | (?P<tie>-) | (?P<slur>[()])
    | (?P<plus_chord>{PLUS_CHORD}{LENGTH}) | (?P<decoration>[.~H-Wh-w]|{DECORATION})  # +CE+2
    | (?P<plus_signs>\+(?:"[^"\n]*"|[^"+|\n]){{1,80}}\+)  # +slowly now+
    | (?P<overlay>&{{1,2}})  # &
    | (?P<ignored>y[0-9]{{0,4}}|[\\$*;?@#!])  # y2  *
    | (?P<microtone>[\^_=][\^_=0-9/]{{1,8}}[A-Ga-g][',]{{0,8}}(?P<microtone_length>{LENGTH}))  # ^/c2  _3/2B
    | (?P<line>\n)
    """,
    re.VERBOSE,
)
IGNORED = ("space", "grace", "text", "decoration", "slur", "ignored")

# The same lexer without names and with a last resort: every character of a line belongs to a word.
WORDS = re.compile(re.sub(r"\?P<\w+>", "?:", TOKEN.pattern) + r"| [0-9]+ | .", re.VERBOSE).findall

# `["last"` begins an ending, in abcm2ps: no bracket closes it before the bar line. `["Am"CE` is a chord.
TEXT_ENDING = re.compile(
    r'\["(?![A-G][#b]?(?:m|maj|min|dim|aug|sus)?[0-9/A-G#b]{0,9}")[^"\n]{0,80}"'
    r'(?=(?:\[[^\[\]\n]{0,80}\]|"[^"\n]{0,80}"|[^\[\]"\n|]){0,200}\|)'
)
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

# `^/c`, `_3/2B`, `=^c`
UNREADABLE_ACCIDENTAL = re.compile(r"(?<![\^_=])(?!\^\^?[A-Ga-g]|__?[A-Ga-g]|=[A-Ga-g])[\^_=][\^_=0-9/]*[A-Ga-g]")


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
    """Return the letters of a line of music that are words of a language: one or more for most words.

    A word of note letters alone (`a bag`) is read as notes.
    """
    return PROSE.findall(WITHOUT_NOTES.sub(" ", line)) if MAY_BE_PROSE(line) else []


def chord_of_plus_signs(word: str) -> str:
    """Return `+CE+2` as `[CE]2`."""
    notes, _, length = word[1:].rpartition("+")
    return f"[{notes}]{length}"


@lru_cache(maxsize=4096)
def parse_word(word: str) -> tuple[str, Any]:
    """Return the kind of a word (a group of TOKEN) and the argument of the method of `Voice` or `Reader` of that name.

    The cache parses each spelling once.
    """
    match = TOKEN.match(word)
    if match is None:
        return "unknown", word
    kind = match.lastgroup or ""
    if kind == "note":
        octave = match["octave"].count("'") - match["octave"].count(",") + match["letter"].islower()
        step = LETTERS.index(match["letter"].upper())
        natural = 60 + 12 * octave + PITCH_CLASS[step]
        return kind, (step, natural, ALTERATION.get(match["accidental"]), length_ratio(match["note_length"]))
    if kind == "grace" and UNREADABLE_ACCIDENTAL.search(word):
        return "microtone", None
    if kind == "plus_chord":
        return kind, chord_of_plus_signs(word)
    if kind in ("rest", "chord_close", "microtone"):
        return kind, length_ratio(match[f"{kind.removesuffix('_close')}_length"])
    if kind == "bar_rest":
        return kind, max(int(match["bar_rest_count"] or 1), 1)
    if kind == "tuplet":
        return kind, [int(part or 0) for part in word[1:].split(":")]
    return ("ignored" if kind in IGNORED else kind), word
