"""Leftovers of web pages and of mail in ABC: HTML tags, entities, quoted-printable codes and broken lines."""

import html
import re
from collections import Counter

from preprocessing.abc_fields import TO_ABC_ACCIDENTAL
from preprocessing.abc_lexer import COMMENT, FIELD, NO_MUSIC, OUTSIDE_ABC, words_in
from preprocessing.abc_reader import judge

HTML, HTML_AMONG_NOTES = "HTML", "HTML among the notes"
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
TITLES = re.compile(r"<(?:a[ \t]|h[1-6]|title)", re.IGNORECASE)  # these tags hold words
AFTER_NOTE = re.compile(r"[A-Ga-gxz\d/,')\]-][ \t]*\n?$")
MIN_PIECE = 4  # so many notes in a row are no words
# What mail made of signs and of long lines: `=20` for a blank, `=` before a break. Other codes may be notes gone wrong.
QUOTED_PRINTABLE = re.compile(
    rf"({NO_MUSIC})|=(?:(20|09|3D|0D|0A|7C|5B|5D|22|2E|2C|27)|[ \t]*\n(?!\Z|[A-Za-z]:)|[ \t]*$)", re.MULTILINE
)
MAIL = re.compile(r"=(?:20|3D|[ \t]*$)", re.MULTILINE)
WRAPPED = re.compile(
    rf"({NO_MUSIC})\n|(?<=[A-Ga-gzx,')\]])\n(?=[/\d,'])"
    r"|(?<=[A-Ga-gzx\d/,')\]])\n(?=[<>])|(?<=[|:])\n(?=:(?![|:]))",
    re.MULTILINE,
)


def unescape(text: str) -> str:
    """Return a text without HTML entities."""
    return html.unescape(text).replace("\xa0", " ")


def decode_quoted_printable(match: re.Match[str]) -> str:
    """Return what a match of QUOTED_PRINTABLE stands for: a character, or nothing for a line that continues."""
    character = chr(int(match[2], 16)) if match[2] else ""
    return match[1] or (character if character.isprintable() else " ")


def closed_note_tags(raw: str) -> set[str]:
    """Return the names of tags like notes of which a tune has the end: `b` of `</b>`."""
    return {name.lower() for slash, name in NOTE_TAG.findall(raw) if slash}


def without_tags(line: str, closed: set[str], body: list[str], in_body: bool) -> tuple[str, str]:
    """Return a line without its tags, nothing if only words are left of it, and the reason to count them under.

    `closed` are the `closed_note_tags` of its tune, `body` the lines of music above it.
    """
    rest, reason = _without_tags(line, closed, body)
    return _without_words(rest, reason, TITLES.search(line) is not None) if in_body and rest != line else (rest, reason)


def _without_tags(line: str, closed: set[str], body: list[str]) -> tuple[str, str]:
    """Return a line without its tags, and the reason.

    `<b>` is a tag if it is closed on its line, or if it begins a line and no note comes before it or another line
    closes it; otherwise it is broken rhythm, and `</b>` alone makes the line unclear.
    """
    names = Counter((slash, name.lower()) for slash, name in NOTE_TAG.findall(line))
    after_note = body and AFTER_NOTE.search(body[-1])

    def without(match: re.Match[str]) -> str:
        before, after = line[: match.start()], line[match.end() : match.end() + 1]
        return " " if before.endswith("|") and after in ("|", ":") else ""

    def without_note_tag(match: re.Match[str]) -> str:
        name, starts = match[2].lower(), not line[: match.start()].strip()
        is_tag = names["/", name] or (starts and (name in closed or not after_note))
        return without(match) if is_tag else match[0]

    line = NOTE_TAG.sub(without_note_tag, line)
    left = {name.lower() for slash, name in NOTE_TAG.findall(line)}
    unclear = any(name in left or 0 < names["/", name] < names["", name] for name in closed)
    return TAG.sub(without, line), HTML_AMONG_NOTES if unclear else HTML


def _without_words(rest: str, reason: str, is_title: bool) -> tuple[str, str]:
    """Return the rest of a line of the body without its tags, nothing if it is words, and the reason."""
    plain = OUTSIDE_ABC.sub("", COMMENT.sub("", unescape(rest)).translate(TO_ABC_ACCIDENTAL)).strip()
    if not plain or FIELD.match(plain):
        return rest, reason
    is_title &= "|" not in plain
    if not (is_title or words_in(plain) or judge(f"K:C\nC\n{plain}").errors):
        return rest, reason
    pieces = [judge(f"K:C\n{piece}") for piece in plain.split("|") if not words_in(piece)]
    if is_title or all(len(piece.pitches) < MIN_PIECE for piece in pieces):
        return "", reason
    return rest, HTML_AMONG_NOTES
