"""The cleaning policy: which fields a model sees, in which order and spelling, and what is not a tune.

Every character is accounted for: a tune's ledger says what was dropped from it and what was added, by reason.
"""

import html
import re
import unicodedata
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

from preprocessing.notation import (
    COMMENT,
    FIELD,
    FIELD_ORDER,
    Verdict,
    canonical_key,
    default_unit_length,
    octave_shift,
)

VOICES = "V"  # those that sound higher or lower than written are always kept, one line each
HEADER_ORDER = FIELD_ORDER.replace("K", VOICES + "K")
BODY_FIELDS = "KLMV"  # what changes the sound; lyrics, remarks and part names are left out
MIN_NOTES = 8  # shorter ones are exercises and fragments
MAX_ERRORS_PER_NOTE = 0.05
STRANGE = "characters outside ABC"

QUALITY = r"(?:maj|min|dim|aug|sus|add|m|M|[+\-°#b()]|\d)*"
CHORD_SYMBOL = re.compile(rf'"[A-G][#b]?{QUALITY}(?:/[A-Ga-g][#b+]?)?"')
QUOTED = re.compile(r'"[^"\n|]*"')  # with a bar line in it, a quote was left open: that is music
INLINE = re.compile(r"\[([A-Za-z]):([^\]\n]*)\]")
DECORATION = r"![^!\s|]{1,30}!"
SPACER = re.compile(rf'(^[A-Za-z]:.*$|"[^"\n]*"|{DECORATION}|\[[A-Za-z]:[^\]\n]*\])|y\d*', re.MULTILINE)
LINE_BREAK = re.compile(rf'(^[A-Za-z]:.*$|"[^"\n]*"|{DECORATION})|!', re.MULTILINE)
BLANKS = re.compile(r"[ \t]+")
EDGE_BLANKS = re.compile(r"^[ \t\n]+|[ \t]+$", re.MULTILINE)
OUTSIDE_ABC = re.compile(r"[^\x20-\x7e\n]|\\")  # a backslash that joins no lines means nothing
BACK_QUOTES = re.compile("`+")
MARKUP = re.compile(r"</?(?:br|p)\s*/?>|&(?:nbsp|lt|gt|amp|quot|#\d{1,5});", re.IGNORECASE)
SIGNS = {"♯": "^", "♭": "_", "♮": "="}
SIGN = re.compile("[♯♭♮]")
RHYTHM = re.compile(r"[a-z]+(?:[ -][a-z]+)?")

ESCAPED = re.compile(r"\\(?:u([0-9A-Fa-f]{4})|([`'^\"~=cvuHr/-])([A-Za-z])|(AE|ae|OE|oe|AA|aa|ss|DH|dh|TH|th))")
COMBINING = {  # the accent of each mnemonic, as Unicode's combining character
    "`": "\u0300", "'": "\u0301", "^": "\u0302", "~": "\u0303", "u": "\u0306",
    '"': "\u0308", "r": "\u030a", "H": "\u030b", "v": "\u030c", "c": "\u0327",
}  # fmt: skip
STROKES = {"/O": "Ø", "/o": "ø", "/D": "Đ", "/d": "đ", "/L": "Ł", "/l": "ł"}
LIGATURES = {
    "AE": "Æ", "ae": "æ", "OE": "Œ", "oe": "œ", "AA": "Å", "aa": "å", "ss": "ß",
    "DH": "Ð", "dh": "ð", "TH": "Þ", "th": "þ",
}  # fmt: skip


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
            self.added[reason] += len(after)
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
    found, body = _read_lines(raw, ledger)
    title = decode_text(found.get("T", ""))
    given = {**(defaults or {}), **{letter: value for letter, value in found.items() if value}}
    metre = given.get("M", "none")
    unit = given.get("L") or str(default_unit_length(metre))
    rhythm = given.get("R", "").strip("][ ").lower()
    written = {"X": "1", "T": title, "M": metre, "L": unit}
    written |= {"K": _spell("K", found["K"])} if "K" in found else {}
    written |= {"R": rhythm} if RHYTHM.fullmatch(rhythm) else {}
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
    clean = _clean_body("".join(body), ledger)
    return CleanTune(header, clean, _join(kept, clean), title, ledger)


def _read_lines(raw: str, ledger: Ledger) -> tuple[dict[str, str], list[str]]:
    """Return the first of each header field of the policy, and the lines of the body, each with its line end."""
    found: dict[str, str] = {}
    body: list[str] = []
    in_text_block = False
    for whole_line in raw.split("\n"):
        if whole_line.startswith(("%%begintext", "%%beginps", "%%beginsvg")):
            in_text_block = True
        if in_text_block:
            ledger.drop("comments and directives", len(whole_line) + 1)
            in_text_block = not whole_line.startswith("%%end")
            continue
        line = COMMENT.sub("", whole_line)
        ledger.drop("comments and directives", len(whole_line) - len(line))
        ledger.drop("blanks", len(line) - len(line := line.strip()))
        match = FIELD.match(line)
        if not line:
            ledger.drop("blanks", 1)
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
                ledger.drop("lyrics" if letter in "wWs" else f"field {letter}:", len(line) + 1)
        elif "K" not in found:
            ledger.drop("no ABC, before the key", len(line) + 1)
        elif line.endswith("\\"):
            body.append(line[:-1])
            ledger.drop("line continuation", 2)
        else:
            body.append(line + "\n")
    if body and not body[-1].endswith("\n"):
        body.append("\n")
        ledger.added["line ends"] += 1
    return found, body


def _spell(letter: str, value: str) -> str:
    value = BLANKS.sub(" ", value).strip()
    return (canonical_key(value) or OUTSIDE_ABC.sub("", value) or "none") if letter == "K" else value


def _clean_body(body: str, ledger: Ledger) -> str:
    """Return the body cleaned and without its last line end, which the ledger has as dropped if nothing is left."""

    def without(pattern: re.Pattern[str], by: str | Callable[[re.Match[str]], str], reason: str) -> None:
        nonlocal body
        before = len(body)
        body = pattern.sub(by, body)
        ledger.drop(reason, before - len(body))

    def field_inline(match: re.Match[str]) -> str:
        letter = match[1]
        if letter not in BODY_FIELDS:
            ledger.drop(f"field {letter}:", len(match[0]))
            return ""
        spelled = f"[{letter}:{_spell(letter, match[2])}]"
        return ledger.change("fields in the body respelled", match[0], spelled)

    body = MARKUP.sub(lambda match: ledger.change("HTML", match[0], _without_markup(match[0])), body)
    body = SIGN.sub(lambda match: ledger.change("accidentals respelled", match[0], SIGNS[match[0]]), body)
    without(QUOTED, lambda match: match[0] if CHORD_SYMBOL.fullmatch(match[0]) else "", "annotations")
    body = INLINE.sub(field_inline, body)
    without(SPACER, lambda match: match[1] or "", "spacers")
    without(LINE_BREAK, lambda match: match[1] or "", "line breaks written as !")
    body = body.replace("\t", " ")
    without(BACK_QUOTES, "", "spacers")
    without(OUTSIDE_ABC, "", STRANGE)
    without(BLANKS, " ", "blanks")
    without(EDGE_BLANKS, "", "blanks")
    return body.removesuffix("\n")


def _without_markup(markup: str) -> str:
    return "" if markup[0] == "<" else html.unescape(markup).replace("\xa0", " ")


def decode_text(text: str) -> str:
    r"""Return a text field as Unicode: HTML entities, `\u00e9` and the standard's mnemonics (ABC 2.1, section 8.2)."""

    def character(match: re.Match[str]) -> str:
        code, accent, letter, ligature = match.groups()
        if code:
            return "" if 0xD800 <= int(code, 16) < 0xE000 else chr(int(code, 16))  # half a surrogate pair is none
        if ligature:
            return LIGATURES[ligature]
        if accent in COMBINING:
            return unicodedata.normalize("NFC", letter + COMBINING[accent])
        return STROKES.get(accent + letter, letter)

    plain = ESCAPED.sub(character, html.unescape(text))
    return "".join(c if c.isprintable() else " " for c in plain).strip()


def reason_to_drop(verdict: Verdict, ledger: Ledger) -> str | None:
    """Return why a tune is not music a model should learn, or None if it is.

    What cleaning took out because it is no ABC counts as an error like what is left.
    """
    if verdict.key is None:
        return "no K: field that names a key"
    if not verdict.pitches:
        return "no notes"
    if len(verdict.pitches) < MIN_NOTES:
        return f"fewer than {MIN_NOTES} notes"
    if len(verdict.errors) + ledger.dropped[STRANGE] > MAX_ERRORS_PER_NOTE * len(verdict.pitches):
        return "not readable as ABC"
    return None
