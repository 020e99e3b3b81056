"""Fields of words (titles, rhythms) in one spelling, whatever alphabet and whatever ABC's codes for its letters."""

import html
import re
import unicodedata

RHYTHM_WORDS = 4  # "bourrée à 3 temps"; what has more, or commas, is a sentence
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


def spell_rhythm(value: str) -> str:
    """Return the rhythm that an R: field names as the corpus spells it, or "" if it is none.

    A rhythm is up to four words, in small letters of any alphabet, the later ones also numbers: `slip jig`.
    """
    rhythm = " ".join(unicodedata.normalize("NFC", decode_text(value).strip("][ ").lower()).split())
    first, *others = words = re.split(r"[ '’-]", rhythm)
    named = _is_word(first) and all(_is_word(word) or (word.isdecimal() and len(word) <= 2) for word in others)
    return rhythm if named and len(words) <= RHYTHM_WORDS else ""


def _is_word(word: str) -> bool:
    return word[:1].isalpha() and all(unicodedata.category(character)[0] in "LM" for character in word)
