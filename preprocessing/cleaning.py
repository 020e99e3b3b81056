"""The cleaning policy: which fields a model sees, in which order and spelling, and what is not a tune.

Every character is accounted for: a tune's ledger says what was dropped from it and what was added, by reason.
"""

import html
import re
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

from preprocessing.abc_fields import canonical_key, default_unit_length, describes_staff, octave_shift
from preprocessing.abc_lexer import (
    COMMENT,
    CONTINUES,
    FIELD,
    FIELD_ORDER,
    LENGTH,
    NOT_NOTES,
    PLUS_CHORD,
    TEXT_ENDING,
    words_in,
)
from preprocessing.abc_reader import judge
from preprocessing.abc_voice import NO_KEY, WORDS_IN_MUSIC, Verdict
from preprocessing.chord_symbols import spell_chord_symbol
from preprocessing.text_fields import decode_text, spell_rhythm
from preprocessing.voices import CLEF, leave_out_percussion

VOICES = "V"  # those that sound higher or lower than written are always kept, one line each
HEADER_ORDER = FIELD_ORDER.replace("K", VOICES + "K")
BODY_FIELDS = "KLMV"  # what changes the sound; lyrics, remarks and part names are left out
MIN_NOTES = 8  # shorter ones are exercises and fragments
MAX_ERRORS_PER_NOTE = 0.05
STRANGE = "characters outside ABC"
PERCUSSION = "voices of percussion"

QUOTED = re.compile(r'"[^"\n|]*"')  # with a bar line in it, a quote was left open: that is music
INLINE = re.compile(r"\[([A-Za-z]):([^\[\]\n]*)\]")
INLINE_VOICE = re.compile(r'\[(V):([^"\]\n]*(?:"[^"\n]*"[^"\]\n]*)*)\]')  # a name in quotes may hold a bracket
NO_MUSIC = rf"^(?![A-Ga-gxz]:[|:])[A-Za-z]:.*$|{NOT_NOTES}"
SPACER = re.compile(rf"({NO_MUSIC})|y\d*", re.MULTILINE)
IDLE = re.compile(rf"({NO_MUSIC})|[!$*;?@#]", re.MULTILINE)  # line breaks, and what the standard reserves (section 8.1)
PLUS = re.compile(rf"({PLUS_CHORD}{LENGTH})|{NO_MUSIC}", re.MULTILINE)
SYMBOL = re.compile(r'^U:[ \t]*([~H-Wh-w])[ \t]*=[ \t]*([!+"].*?[!+"])[ \t]*(?:%.*)?$', re.MULTILINE)
NO_SYMBOL = ("!nil!", "!none!")
USUAL_SYMBOLS = {
    "~": "roll", "H": "fermata", "L": "accent", "M": "lowermordent", "O": "coda", "P": "uppermordent", "S": "segno",
    "T": "trill", "u": "upbow", "v": "downbow",
}  # fmt: skip
LINE = re.compile(r"^(?![A-Za-z]:)[^|\n]+$\n?", re.MULTILINE)  # of music without a bar line
# What mail made of signs and of long lines: `=20` for a blank, `=` before a break. Other codes may be notes gone wrong.
QUOTED_PRINTABLE = re.compile(
    rf"({NO_MUSIC})|=(?:(20|09|3D|0D|0A|7C|5B|5D|22|2E|2C|27)|[ \t]*\n(?!\Z|[A-Za-z]:)|[ \t]*$)", re.MULTILINE
)
MAIL = re.compile(r"=(?:20|3D|[ \t]*$)", re.MULTILINE)
EMPTY_BAR = re.compile(
    r"(?<![:|\[])\|(?:[ \t]|y\d*)+(?=:*\||\[\||::)|(?<=\|\|)\|+|(?:(?<=[|:])|(?<=[|:]\]))\n\|(?=\n|$)"
)
# Between two bar lines, nothing but what cleaning takes out: a blank is left of it, as bar lines side by side are one.
HOLLOW = re.compile(
    r'(?:(?<=\|)|(?<=[|:]:)|(?<=[^\[]\|\]))(?:[ \t`!$*;?@#\\]|y\d*|"[^"\n|]*"|\[(?![KLMV]:)[A-Za-z]:[^\[\]\n]*\])+'
    r"(?=:*\||\[\||::)"
)
WRAPPED = re.compile(
    rf"({NO_MUSIC})\n|(?<=[A-Ga-gzx,')\]])\n(?=[/\d,'])"
    r"|(?<=[A-Ga-gzx\d/,')\]])\n(?=[<>])|(?<=[|:])\n(?=:(?![|:]))",
    re.MULTILINE,
)
BLANKS = re.compile(r"[ \t]+")
EDGE_BLANKS = re.compile(r"^[ \t\n]+|[ \t]+$", re.MULTILINE)
OUTSIDE_ABC = re.compile(r"[^\x20-\x7e\n]|\\")  # a backslash that joins no lines means nothing
BACK_QUOTES = re.compile("`+")
ENTITY = re.compile(r"&(?:nbsp|lt|gt|amp|quot|#\d{1,5});", re.IGNORECASE)
TAG_NAMES = (
    "html|head|body|title|meta|link|script|style|pre|code|div|span|table|tbody|thead|tr|th|td|font|center|hr|br|img|"
    "h[1-6]|ul|ol|li|dl|dt|form|input|blockquote|address|strong|strike|em|small|big|sup|sub|tt|nobr"
)
ATTRIBUTE = r"[ \t]+(?:href|name|id|class|target|title|style|align|lang|dir)[ \t]*=[^<>\n]*"
TAG = re.compile(
    rf"<!--.*?(?:-->|$)|<!doctype\b[^<>]*>|<\?[a-z][^<>]*>|</[a-z][a-z0-9:]*[ \t]*>|<(?:{TAG_NAMES})\b[^<>]*>"
    rf"|<[iupsq](?:{ATTRIBUTE})?[ \t]*/?>|<(?:a|b|dd){ATTRIBUTE}>",
    re.IGNORECASE,
)
NOTE_TAG = re.compile(r"<(/?)(a|b|dd)[ \t]*>", re.IGNORECASE)  # between notes broken rhythm as well: A<b>c
TITLES = re.compile(r"<(?:a[ \t]|h[1-6]|title)", re.IGNORECASE)  # what stands in them is words
HTML_AMONG_NOTES = "HTML among the notes"
BAR_LINE_AT_END = re.compile(r"(?<![:|\[])\|\Z")
AFTER_NOTE = re.compile(r"[A-Ga-gxz\d/,')\]-][ \t]*\n?$")
MIN_PIECE = 4  # notes side by side that no words are
SIGNS = {"♯": "^", "♭": "_", "♮": "=", "𝄪": "^^", "𝄫": "__", "𝄲": "^/", "𝄳": "_/"}
SIGN = re.compile(f"[{''.join(SIGNS)}]")
MAY_BE_WRAPPED, MAY_BE_IDLE = (
    re.compile(r"=[ \t]*(?:[\d\n]|$)|\n[/\d,'<>:]"),
    re.compile(r"[!$*;?@#]"),
)  # much faster to look for
VOICE_WORD = re.compile(r'[^\s="]+\s*=\s*(?:"[^"]*"?|\S*)|\S+')
SOUNDING = re.compile(
    r"(?:clef|octave|transpose|t|middle|m|score|sound|shift)=\S+"
    r"|(?:treble|bass|alto|tenor|soprano|mezzosoprano|baritone|perc|none)[1-5]?(?:[+-](?:8|15))?"
)
FREE_METRE = re.compile(r"(?:frei|free)\b.*|frei\d.*", re.IGNORECASE)  # FREI6/8 of the Essen songs has no bars of 6/8


@dataclass
class Ledger:
    """Characters dropped from a text and added to it, by reason."""

    dropped: Counter[str] = field(default_factory=Counter)
    added: Counter[str] = field(default_factory=Counter)

    def drop(self, reason: str, count: int) -> None:
        """Note `count` characters as dropped."""
        if count:
            self.dropped[reason] += count

    def change(self, reason: str, before: str, after: str) -> str:
        """Note that `before` was replaced by `after`, if it was, and return `after`."""
        if before != after:
            self.drop(reason, len(before))
            self.added.update({reason: len(after)} if after else {})
        return after

    def balanced(self, before: int, after: int) -> bool:
        """Return whether `before` characters, less the dropped, with the added, are `after` characters."""
        return before - self.dropped.total() + self.added.total() == after

    def add(self, other: "Ledger") -> None:
        """Add what another has noted."""
        self.dropped.update(other.dropped)
        self.added.update(other.added)


@dataclass(frozen=True)
class CleanTune:
    """A tune as the policy leaves it.

    `header` has every field of FIELD_ORDER that the tune has; `text` only those that a model sees. `ledger` accounts
    for the way from the raw tune to `text`.
    """

    header: dict[str, str]
    body: str
    text: str
    title: str
    ledger: Ledger

    @property
    def whole(self) -> str:
        """The tune with its whole header: what a reader of notation needs, whatever a model sees."""
        return _join(self.header, self.body)


def _join(header: dict[str, str], body: str) -> str:
    return "\n".join([*(f"{letter}:{value}" for letter, value in header.items()), *([body] if body else [])])


def clean_tune(raw: str, keep_fields: str, defaults: dict[str, str] | None = None) -> CleanTune:
    """Return a tune cleaned, with the header fields of `keep_fields` alone in its text.

    `defaults` are the fields of its file's header: they hold where it has none of its own (ABC 2.1, section 2.2.2).

    The header is in the standard's order, the key in canonical spelling, M: and L: always written out, X: always 1; R:
    is there only if it names a rhythm (a word or two; some collections write whole sentences). In the body, comments,
    lyrics, remarks, fingerings, spacers and blanks that say nothing are dropped; lines joined by a backslash are one.
    """
    ledger = Ledger()
    sounding = leave_out_percussion(raw)
    ledger.drop(PERCUSSION, len(raw) - len(sounding))
    found, body = _read_lines(sounding, ledger)
    title = decode_text(found.get("T", ""))
    given = {**(defaults or {}), **{letter: value for letter, value in found.items() if value}}
    metre = FREE_METRE.sub("none", given.get("M", "").strip("][ ")) or "none"
    unit = given.get("L") or str(default_unit_length(metre))
    written = {"X": "1", "T": title, "M": metre, "L": unit}
    if "K" in found:  # a clef alone names no key
        written["K"] = _spell("K", f"none {found['K']}" if CLEF.match(found["K"]) else found["K"])
    written |= {"R": spell_rhythm(given.get("R", ""))}
    written |= {letter: found[letter] for letter in ("Q", VOICES) if letter in found}
    header = {letter: written[letter] for letter in HEADER_ORDER if written.get(letter)}
    kept = {letter: value for letter, value in header.items() if letter in keep_fields + VOICES}
    for letter in FIELD_ORDER:
        before = f"{letter}:{found[letter]}\n" if letter in found else ""
        after = f"{letter}:{kept[letter]}\n" if letter in kept else ""
        if after:
            ledger.change(f"{letter}: respelled" if before else f"{letter}: written out", before, after)
        else:
            ledger.drop(f"field {letter}:", len(before))
    symbols = dict(SYMBOL.findall(f"U:{(defaults or {}).get('U', '')}\n{raw}"))
    clean = _clean_body("".join(body), symbols, ledger)
    return CleanTune(header, clean, _join(kept, clean), title, ledger)


def _read_lines(raw: str, ledger: Ledger) -> tuple[dict[str, str], list[str]]:
    """Return the first of each header field of the policy, and the lines of the body, each with its line end."""
    found: dict[str, str] = {}
    body: list[str] = []
    in_text_block = False
    closed = {name.lower() for slash, name in NOTE_TAG.findall(raw) if slash}
    continued = ""  # the letter of a field of text that goes on in this line
    for whole_line in raw.split("\n"):
        if whole_line.startswith(("%%begintext", "%%beginps", "%%beginsvg")):
            in_text_block = True
        if in_text_block:
            ledger.drop("comments and directives", len(whole_line) + 1)
            in_text_block = not whole_line.startswith("%%end")
            continue
        if "<" in whole_line and not whole_line.startswith("%"):
            rest, reason = _without_tags(whole_line, closed, body)
            if "K" in found and not continued and rest != whole_line:
                rest, reason = _music_of(rest, reason, TITLES.search(whole_line) is not None)
            whole_line = ledger.change(reason, whole_line, rest)
        line = COMMENT.sub("", whole_line)
        ledger.drop("comments and directives", len(whole_line) - len(line))
        ledger.drop("blanks", len(line) - len(line := line.strip()))
        match = FIELD.match(line)
        goes_on, continued = continued, match[1] if match and CONTINUES.match(line) else ""
        if not line:
            ledger.drop("blanks", 1)
            continued = goes_on if "%" in whole_line else ""  # a comment may stand between the lines of a field
        elif goes_on and not match:
            ledger.drop(_field(goes_on), len(line) + 1)
            continued = goes_on if line.endswith("\\") else ""
        elif match and "K" not in found:
            letter = match[1]
            value = BLANKS.sub(" ", match[2]).strip()
            if letter in FIELD_ORDER and letter not in found:
                ledger.drop("blanks", len(line) - len(value) - 2)
                found[letter] = value if letter in "TRK" else OUTSIDE_ABC.sub("", value)
                ledger.drop(STRANGE, len(value) - len(found[letter]))
            elif letter == VOICES and octave_shift(value, 0):
                spelled = f"{OUTSIDE_ABC.sub('', value.split()[0])} transpose={octave_shift(value, 0)}"
                ledger.change("V: respelled", line, f"V:{spelled}")
                found[VOICES] = f"{found[VOICES]}\nV:{spelled}" if VOICES in found else spelled
            else:
                ledger.drop(f"field {letter}:", len(line) + 1)
        elif match:
            letter = match[1]
            if letter in BODY_FIELDS:
                if body and not body[-1].endswith("\n"):
                    body.append("\n")
                    ledger.added["line ends"] += 1
                spelled = f"{letter}:{_spell(letter, match[2])}"
                body.append(ledger.change("fields in the body respelled", line, spelled) + "\n")
            else:
                ledger.drop(_field(letter), len(line) + 1)
        elif "K" not in found:
            ledger.drop("no ABC, before the key", len(line) + 1)
        else:
            if body and BAR_LINE_AT_END.search(body[-1]) and line.startswith(("|", ":", "[|")):  # no sign of both
                body.append(" ")
                ledger.added["blanks"] += 1
            goes_over = line.endswith("\\")
            body.append(line[:-1] if goes_over else line + "\n")
            ledger.drop("line continuation", 2 * goes_over)
    if body and not body[-1].endswith("\n"):
        body.append("\n")
        ledger.added["line ends"] += 1
    return found, body


def _field(letter: str) -> str:
    """Return the reason under which a field's lines are dropped."""
    return "lyrics" if letter in "wWs" else f"field {letter}:"


def _spell(letter: str, value: str) -> str:
    value = BLANKS.sub(" ", value).strip()
    if letter == "V":
        name, *words = VOICE_WORD.findall(value) or [""]
        words = [re.sub(r'\s*=\s*|"', lambda match: match[0].strip('" '), word) for word in words]
        return " ".join([name.replace('"', ""), *filter(SOUNDING.fullmatch, words)])
    if letter != "K":
        return value
    plain = OUTSIDE_ABC.sub("", value)
    kept = plain if plain == value or describes_staff(value) else "?"
    return canonical_key(value) or kept or "none"  # `A мінор` without its foreign letters would name another


def _clean_body(body: str, symbols: dict[str, str], ledger: Ledger) -> str:
    """Return the body cleaned and without its last line end, which the ledger has as dropped if nothing is left.

    `symbols` are the letters that U: fields define, and their meaning, which is written instead.
    """

    def without(pattern: re.Pattern[str], by: str | Callable[[re.Match[str]], str], reason: str) -> None:
        nonlocal body
        before = len(body)
        body = pattern.sub(by, body)
        ledger.drop(reason, before - len(body))

    def respell(pattern: re.Pattern[str], by: Callable[[re.Match[str]], str], reason: str) -> None:
        nonlocal body
        body = pattern.sub(lambda match: ledger.change(reason, match[0], by(match)), body)

    def quoted(match: re.Match[str]) -> str:
        chord = spell_chord_symbol(match[0])
        if chord is None:
            ledger.drop("annotations", len(match[0]))
        return "" if chord is None else ledger.change("chord symbols respelled", match[0], chord)

    def hollow(match: re.Match[str]) -> str:
        return match[0] if any(map(spell_chord_symbol, QUOTED.findall(match[0]))) else " "

    def field_inline(match: re.Match[str]) -> str:
        letter = match[1]
        if letter not in BODY_FIELDS:
            ledger.drop(f"field {letter}:", len(match[0]))
            return ""
        spelled = f"[{letter}:{_spell(letter, match[2])}]"
        return ledger.change("fields in the body respelled", match[0], spelled)

    if MAY_BE_WRAPPED.search(body):
        if MAIL.search(body):
            without(QUOTED_PRINTABLE, _printed, "quoted-printable")
        without(WRAPPED, lambda match: match[0] if match[1] else "", "lines broken inside a word")
    symbols = {letter: meant for letter, meant in symbols.items() if meant[1:-1] != USUAL_SYMBOLS.get(letter)}
    if symbols:
        letters = re.compile(rf"({NO_MUSIC})|[{''.join(symbols)}]", re.MULTILINE)
        meant = {letter: "" if symbol in NO_SYMBOL else symbol for letter, symbol in symbols.items()}
        respell(letters, lambda match: match[1] or meant[match[0]], "letters of U: written out")
    body = INLINE_VOICE.sub(field_inline, body)
    without(HOLLOW, hollow, "empty bars")
    without(TEXT_ENDING, "", "annotations")
    body = QUOTED.sub(quoted, body)
    if "&" in body:
        respell(ENTITY, lambda match: _unescaped(match[0]), "HTML")
        body = QUOTED.sub(quoted, body)  # of what was `&quot;`
    body = INLINE.sub(field_inline, body)
    respell(SIGN, lambda match: SIGNS[match[0]], "accidentals respelled")
    if "+" in body:
        respell(PLUS, _without_plus, "+chords+ and +decorations+ respelled")
    without(LINE, lambda match: "" if words_in(match[0].rstrip("\n")) else match[0], WORDS_IN_MUSIC)
    without(EMPTY_BAR, "", "empty bars")
    if "y" in body:
        without(SPACER, lambda match: match[1] or "", "spacers")
        without(EMPTY_BAR, "", "empty bars")
    if MAY_BE_IDLE.search(body):
        without(IDLE, lambda match: match[1] or "", "signs that say nothing")
    body = body.replace("\t", " ")
    without(BACK_QUOTES, "", "spacers")
    without(OUTSIDE_ABC, "", STRANGE)
    without(BLANKS, " ", "blanks")
    without(EDGE_BLANKS, "", "blanks")
    return body.removesuffix("\n")


def _without_plus(match: re.Match[str]) -> str:
    """Return a chord or decoration between plus signs, of ABC before 1.6 and of ABC 2.0, as ABC 2.1 writes it."""
    if match[1]:
        notes, _, length = match[1][1:].rpartition("+")
        return f"[{notes}]{length}"
    return f"!{match[0][1:-1]}!" if match[0][0] == "+" else match[0]


def _printed(match: re.Match[str]) -> str:
    """Return what a code of quoted-printable stands for: a character, or nothing for a line that continues."""
    character = chr(int(match[2], 16)) if match[2] else ""
    return match[1] or (character if character.isprintable() else " ")


def _unescaped(text: str) -> str:
    return html.unescape(text).replace("\xa0", " ")


def _without_tags(line: str, closed: set[str], body: list[str]) -> tuple[str, str]:
    """Return a line of a tune without its tags, and why. `closed` are names of notes that the tune has a `</b>` of.

    `<b>` is a tag if it is closed on its line, or if it begins a line and no note comes before it or another line
    closes it; otherwise it is broken rhythm, and nobody can tell where `</b>` is left over.
    """
    names = Counter((slash, name.lower()) for slash, name in NOTE_TAG.findall(line))
    after_note = body and AFTER_NOTE.search(body[-1])

    def without(match: re.Match[str]) -> str:
        before, after = line[: match.start()], line[match.end() : match.end() + 1]
        return " " if before.endswith("|") and after in ("|", ":") else ""

    def tag(match: re.Match[str]) -> str:
        name, starts = match[2].lower(), not line[: match.start()].strip()
        is_tag = names["/", name] or (starts and (name in closed or not after_note))
        return without(match) if is_tag else match[0]

    line = NOTE_TAG.sub(tag, line)
    left = {name.lower() for slash, name in NOTE_TAG.findall(line)}
    unclear = any(name in left or 0 < names["/", name] < names["", name] for name in closed)
    return TAG.sub(without, line), HTML_AMONG_NOTES if unclear else "HTML"


def _music_of(rest: str, reason: str, is_title: bool) -> tuple[str, str]:
    """Return what is left of a line of the body without its tags, nothing if it is words, and why the tags went."""
    plain = OUTSIDE_ABC.sub("", SIGN.sub(lambda match: SIGNS[match[0]], COMMENT.sub("", _unescaped(rest)))).strip()
    if not plain or FIELD.match(plain):
        return rest, reason
    is_title &= "|" not in plain
    if not (is_title or words_in(plain) or judge(f"K:C\nC\n{plain}").errors):
        return rest, reason
    pieces = [judge(f"K:C\n{piece}") for piece in plain.split("|") if not words_in(piece)]
    if is_title or all(len(piece.pitches) < MIN_PIECE for piece in pieces):
        return "", reason
    return rest, HTML_AMONG_NOTES


def reason_to_drop(verdict: Verdict, ledger: Ledger) -> str | None:
    """Return why a tune is not music a model should learn, or None if it is.

    What cleaning took out because it is no ABC counts as an error like what is left.
    """
    if ledger.dropped[HTML_AMONG_NOTES]:
        return HTML_AMONG_NOTES
    if verdict.unreadable is not None:
        return verdict.unreadable
    if verdict.key is None:
        return NO_KEY
    if not verdict.pitches:
        return "percussion alone" if ledger.dropped[PERCUSSION] else "no notes"
    if len(verdict.pitches) < MIN_NOTES:
        return f"fewer than {MIN_NOTES} notes"
    if len(verdict.errors) + ledger.dropped[STRANGE] > MAX_ERRORS_PER_NOTE * len(verdict.pitches):
        return "not readable as ABC"
    return None
