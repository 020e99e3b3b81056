"""The cleaning policy: which fields a model sees, in which order and spelling, and what is not a tune.

Every character is accounted for: a tune's ledger says what was dropped from it and what was added, by reason.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass

from preprocessing import markup
from preprocessing.abc_fields import UNICODE_ACCIDENTAL, octave_shift
from preprocessing.abc_lexer import (
    COMMENT,
    CONTINUES,
    FIELD,
    LENGTH,
    NO_MUSIC,
    OUTSIDE_ABC,
    PLUS_CHORD,
    TEXT_ENDING,
    chord_of_plus_signs,
    words_in,
)
from preprocessing.abc_voice import NO_KEY, WORDS_IN_MUSIC, Verdict
from preprocessing.chord_symbols import spell_chord_symbol
from preprocessing.header_fields import HEADER_FIELDS, spell_key
from preprocessing.ledger import Ledger
from preprocessing.markup import HTML_AMONG_NOTES
from preprocessing.percussion import leave_out_percussion

VOICES = "V"  # those that sound higher or lower than written are always kept, one line each
BODY_FIELDS = "KLMV"  # what changes the sound; lyrics, remarks and part names are left out
MIN_NOTES = 8  # shorter ones are exercises and fragments
MAX_ERRORS_PER_NOTE = 0.05
STRANGE = "characters outside ABC"
PERCUSSION = "voices of percussion"
DIRECTIVES = "comments and directives"
RESPELLED_IN_BODY = "fields in the body respelled"

QUOTED = re.compile(r'"[^"\n|]*"')  # with a bar line in it, a quote was left open: that is music
# `[K:D]`
INLINE = re.compile(r"\[([A-Za-z]):([^\[\]\n]*)\]")
INLINE_VOICE = re.compile(r'\[(V):([^"\]\n]*(?:"[^"\n]*"[^"\]\n]*)*)\]')  # a name in quotes may hold a bracket
SPACER = re.compile(rf"({NO_MUSIC})|y\d*", re.MULTILINE)  # `y`, `y10`
IDLE = re.compile(rf"({NO_MUSIC})|[!$*;?@#]", re.MULTILINE)  # line breaks, and what the standard reserves (section 8.1)
# `+CE+2`; `+trill+`, which NO_MUSIC matches
PLUS = re.compile(rf"({PLUS_CHORD}{LENGTH})|{NO_MUSIC}", re.MULTILINE)
# `U: T = !trill!`
SYMBOL = re.compile(r'^U:[ \t]*([~H-Wh-w])[ \t]*=[ \t]*([!+"].*?[!+"])[ \t]*(?:%.*)?$', re.MULTILINE)
NO_SYMBOL = ("!nil!", "!none!")
USUAL_SYMBOLS = {
    "~": "roll", "H": "fermata", "L": "accent", "M": "lowermordent", "O": "coda", "P": "uppermordent", "S": "segno",
    "T": "trill", "u": "upbow", "v": "downbow",
}  # fmt: skip
LINE = re.compile(r"^(?![A-Za-z]:)[^|\n]+$\n?", re.MULTILINE)  # of music without a bar line
EMPTY_BAR = re.compile(  # the first of `| |`, the third of `|||`, one alone on a line behind another
    r"(?<![:|\[])\|(?:[ \t]|y\d*)+(?=:*\||\[\||::)|(?<=\|\|)\|+|(?:(?<=[|:])|(?<=[|:]\]))\n\|(?=\n|$)"
)
# Between two bar lines, nothing but what cleaning takes out: a blank is left of it, as bar lines side by side are one.
HOLLOW = re.compile(
    r'(?:(?<=\|)|(?<=[|:]:)|(?<=[^\[]\|\]))(?:[ \t`!$*;?@#\\]|y\d*|"[^"\n|]*"|\[(?![KLMV]:)[A-Za-z]:[^\[\]\n]*\])+'
    r"(?=:*\||\[\||::)"
)
BLANKS = re.compile(r"[ \t]+")
EDGE_BLANKS = re.compile(r"^[ \t\n]+|[ \t]+$", re.MULTILINE)
BACK_QUOTES = re.compile("`+")
BAR_LINE_AT_END = re.compile(r"(?<![:|\[])\|\Z")  # `CDEF|`, not `CDEF||`
SIGN = re.compile(f"[{''.join(UNICODE_ACCIDENTAL)}]")  # ♯
MAY_BE_WRAPPED = re.compile(r"=[ \t]*(?:[\d\n]|$)|\n[/\d,'<>:]")  # much faster to look for than WRAPPED
MAY_BE_IDLE = re.compile(r"[!$*;?@#]")
# `name="Violin I"`, `clef=bass`, `treble`
VOICE_WORD = re.compile(r'[^\s="]+\s*=\s*(?:"[^"]*"?|\S*)|\S+')
SOUNDING = re.compile(  # `clef=bass`, `transpose=-2`, `treble-8`
    r"(?:clef|octave|transpose|t|middle|m|score|sound|shift)=\S+"
    r"|(?:treble|bass|alto|tenor|soprano|mezzosoprano|baritone|perc|none)[1-5]?(?:[+-](?:8|15))?"
)


@dataclass(frozen=True)
class CleanTune:
    """A tune as the policy leaves it.

    `header` has every field of HEADER_FIELDS that the tune has; `text` only those that a model sees. `ledger` accounts
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

    `defaults` are the fields of its file's header: they hold where it has none (ABC 2.1, section 2.2.2).

    The header is in the standard's order, the key in canonical spelling, M: and L: always written out, X: always 1; R:
    is there only if it names a rhythm (a word or two; some collections write whole sentences). In the body, comments,
    lyrics, remarks, fingerings, spacers and needless blanks are dropped; lines joined by a backslash are one.
    """
    ledger = Ledger()
    defaults = defaults or {}
    sounding = leave_out_percussion(raw)
    ledger.drop(PERCUSSION, len(raw) - len(sounding))
    found, lines = _LineSorter(ledger).sort(sounding)
    header = _spell_header(found, defaults)
    kept = {letter: value for letter, value in header.items() if letter in keep_fields + VOICES}
    for letter in HEADER_FIELDS:
        before = f"{letter}:{found[letter]}\n" if letter in found else ""
        after = f"{letter}:{kept[letter]}\n" if letter in kept else ""
        if after:
            ledger.change(f"{letter}: respelled" if before else f"{letter}: written out", before, after)
        else:
            ledger.drop(f"field {letter}:", len(before))
    symbols = dict(SYMBOL.findall(f"U:{defaults.get('U', '')}\n{raw}"))
    body = _BodyCleaner("".join(lines), ledger).clean(symbols)
    return CleanTune(header, body, _join(kept, body), header.get("T", ""), ledger)


def _spell_header(found: dict[str, str], defaults: dict[str, str]) -> dict[str, str]:
    """Return the fields of the header in the standard's order and the policy's spelling."""
    given = found | {letter: value for letter, value in defaults.items() if not found.get(letter)}
    header = {letter: field.spell(given) for letter, field in HEADER_FIELDS.items()}
    header |= {VOICES: found.get(VOICES, ""), "K": header.pop("K")}
    return {letter: value for letter, value in header.items() if value}


def _spell(letter: str, value: str) -> str:
    value = BLANKS.sub(" ", value).strip()
    if letter == "V":
        name, *words = VOICE_WORD.findall(value) or [""]
        words = [re.sub(r'\s*=\s*|"', lambda match: match[0].strip('" '), word) for word in words]
        return " ".join([name.replace('"', ""), *filter(SOUNDING.fullmatch, words)])
    return spell_key(value) if letter == "K" else value


def _field(letter: str) -> str:
    """Return the reason under which a field's lines are dropped."""
    return "lyrics" if letter in "wWs" else f"field {letter}:"


class _LineSorter:
    """Sorts the lines of a raw tune: the first of each header field of the policy, and the body, each with its end."""

    def __init__(self, ledger: Ledger) -> None:
        self.ledger = ledger
        self.found: dict[str, str] = {}
        self.body: list[str] = []

    def sort(self, raw: str) -> tuple[dict[str, str], list[str]]:
        ledger = self.ledger
        closed = markup.closed_note_tags(raw)
        in_text_block = False
        continued = ""  # the letter of a text field that continues in this line
        for whole_line in raw.split("\n"):
            if whole_line.startswith(("%%begintext", "%%beginps", "%%beginsvg")):
                in_text_block = True
            if in_text_block:
                ledger.drop(DIRECTIVES, len(whole_line) + 1)
                in_text_block = not whole_line.startswith("%%end")
                continue
            if "<" in whole_line and not whole_line.startswith("%"):
                rest, reason = markup.without_tags(whole_line, closed, self.body, "K" in self.found and not continued)
                whole_line = ledger.change(reason, whole_line, rest)
            line = COMMENT.sub("", whole_line)
            ledger.drop(DIRECTIVES, len(whole_line) - len(line))
            ledger.drop("blanks", len(line) - len(line := line.strip()))
            match = FIELD.match(line)
            continues, continued = continued, match[1] if match and CONTINUES.match(line) else ""
            if not line:
                ledger.drop("blanks", 1)
                continued = continues if "%" in whole_line else ""  # a field may continue behind a comment
            elif continues and not match:
                ledger.drop(_field(continues), len(line) + 1)
                continued = continues if line.endswith("\\") else ""
            elif match:
                (self.body_field if "K" in self.found else self.header_field)(line, match[1], match[2])
            elif "K" not in self.found:
                ledger.drop("no ABC, before the key", len(line) + 1)
            else:
                self.music(line)
        self.end_line()
        return self.found, self.body

    def end_line(self) -> None:
        """End a line of music that a backslash joins to the next, where no music follows."""
        if self.body and not self.body[-1].endswith("\n"):
            self.body.append("\n")
            self.ledger.added["line ends"] += 1

    def header_field(self, line: str, letter: str, value: str) -> None:
        value = BLANKS.sub(" ", value).strip()
        if letter in HEADER_FIELDS and letter not in self.found:
            self.ledger.drop("blanks", len(line) - len(value) - 2)
            self.found[letter] = value if HEADER_FIELDS[letter].any_alphabet else OUTSIDE_ABC.sub("", value)
            self.ledger.drop(STRANGE, len(value) - len(self.found[letter]))
        elif letter == VOICES and octave_shift(value, 0):
            spelled = f"{OUTSIDE_ABC.sub('', value.split()[0])} transpose={octave_shift(value, 0)}"
            self.ledger.change("V: respelled", line, f"V:{spelled}")
            self.found[VOICES] = f"{self.found[VOICES]}\nV:{spelled}" if VOICES in self.found else spelled
        else:
            self.ledger.drop(f"field {letter}:", len(line) + 1)

    def body_field(self, line: str, letter: str, value: str) -> None:
        if letter in BODY_FIELDS:
            self.end_line()
            spelled = f"{letter}:{_spell(letter, value)}"
            self.body.append(self.ledger.change(RESPELLED_IN_BODY, line, spelled) + "\n")
        else:
            self.ledger.drop(_field(letter), len(line) + 1)

    def music(self, line: str) -> None:
        if self.body and BAR_LINE_AT_END.search(self.body[-1]) and line.startswith(("|", ":", "[|")):
            self.body.append(" ")  # the two bar lines of joined lines are no single sign
            self.ledger.added["blanks"] += 1
        joins = line.endswith("\\")
        self.body.append(line[:-1] if joins else line + "\n")
        self.ledger.drop("line continuation", 2 * joins)


class _BodyCleaner:
    """Cleans the body of a tune by one pattern after the other."""

    def __init__(self, body: str, ledger: Ledger) -> None:
        self.body = body
        self.ledger = ledger

    def clean(self, symbols: dict[str, str]) -> str:
        """Return the body cleaned, without its last line end, which the ledger has as dropped if nothing is left.

        `symbols` are the letters that U: fields define, and their meaning, which is written instead.
        """
        if MAY_BE_WRAPPED.search(self.body):
            if markup.MAIL.search(self.body):
                self.remove(markup.QUOTED_PRINTABLE, "quoted-printable", markup.decode_quoted_printable)
            self.remove(markup.WRAPPED, "lines broken inside a word", lambda match: match[0] if match[1] else "")
        self.write_out(symbols)
        self.body = INLINE_VOICE.sub(self.inline_field, self.body)
        self.remove(HOLLOW, "empty bars", _hollow)
        self.remove(TEXT_ENDING, "annotations")
        self.body = QUOTED.sub(self.quoted, self.body)
        if "&" in self.body:
            self.respell(markup.ENTITY, markup.HTML, lambda match: markup.unescape(match[0]))
            self.body = QUOTED.sub(self.quoted, self.body)  # of what was `&quot;`
        self.body = INLINE.sub(self.inline_field, self.body)
        self.respell(SIGN, "accidentals respelled", lambda match: UNICODE_ACCIDENTAL[match[0]])
        if "+" in self.body:
            self.respell(PLUS, "+chords+ and +decorations+ respelled", _without_plus)
        self.remove(LINE, WORDS_IN_MUSIC, lambda match: "" if words_in(match[0].rstrip("\n")) else match[0])
        self.remove(EMPTY_BAR, "empty bars")
        if "y" in self.body:
            self.remove(SPACER, "spacers", _keep_group)
            self.remove(EMPTY_BAR, "empty bars")
        if MAY_BE_IDLE.search(self.body):
            self.remove(IDLE, "signs that say nothing", _keep_group)
        self.body = self.body.replace("\t", " ")
        self.remove(BACK_QUOTES, "spacers")
        self.remove(OUTSIDE_ABC, STRANGE)
        self.remove(BLANKS, "blanks", " ")
        self.remove(EDGE_BLANKS, "blanks")
        return self.body.removesuffix("\n")

    def remove(
        self, pattern: re.Pattern[str], reason: str, replacement: str | Callable[[re.Match[str]], str] = ""
    ) -> None:
        before = len(self.body)
        self.body = pattern.sub(replacement, self.body)
        self.ledger.drop(reason, before - len(self.body))

    def respell(self, pattern: re.Pattern[str], reason: str, spell: Callable[[re.Match[str]], str]) -> None:
        self.body = pattern.sub(lambda match: self.ledger.change(reason, match[0], spell(match)), self.body)

    def write_out(self, symbols: dict[str, str]) -> None:
        meanings = {
            letter: "" if symbol in NO_SYMBOL else symbol
            for letter, symbol in symbols.items()
            if symbol[1:-1] != USUAL_SYMBOLS.get(letter)
        }
        if meanings:
            letters = re.compile(rf"({NO_MUSIC})|[{''.join(meanings)}]", re.MULTILINE)
            self.respell(letters, "letters of U: written out", lambda match: match[1] or meanings[match[0]])

    def quoted(self, match: re.Match[str]) -> str:
        chord = spell_chord_symbol(match[0])
        if chord is None:
            self.ledger.drop("annotations", len(match[0]))
            return ""
        return self.ledger.change("chord symbols respelled", match[0], chord)

    def inline_field(self, match: re.Match[str]) -> str:
        letter = match[1]
        if letter not in BODY_FIELDS:
            self.ledger.drop(f"field {letter}:", len(match[0]))
            return ""
        return self.ledger.change(RESPELLED_IN_BODY, match[0], f"[{letter}:{_spell(letter, match[2])}]")


def _keep_group(match: re.Match[str]) -> str:
    return match[1] or ""


def _hollow(match: re.Match[str]) -> str:
    return match[0] if any(map(spell_chord_symbol, QUOTED.findall(match[0]))) else " "


def _without_plus(match: re.Match[str]) -> str:
    """Return a chord or decoration between plus signs, of ABC before 1.6 and of ABC 2.0, as ABC 2.1 writes it."""
    if match[1]:
        return chord_of_plus_signs(match[1])
    return f"!{match[0][1:-1]}!" if match[0][0] == "+" else match[0]


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
