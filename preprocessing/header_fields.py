"""The header fields of the corpus, in one table: a new one is a row here (and `--keep_fields` takes its letter)."""

import re
from collections.abc import Callable
from dataclasses import dataclass

from preprocessing.abc_fields import CLEF, canonical_key, default_unit_length, describes_staff
from preprocessing.abc_lexer import OUTSIDE_ABC
from preprocessing.text_fields import decode_text, spell_rhythm

FREE_METRE = re.compile(r"(?:frei|free)\b.*|frei\d.*", re.IGNORECASE)  # FREI6/8 of the Essen songs has no bars of 6/8
Fields = dict[str, str]


@dataclass(frozen=True)
class HeaderField:
    """How a field is written, given all fields of a tune's header by letter; "" leaves it out.

    `any_alphabet`: its letters may be any, others than ASCII are left out before it is spelled.
    """

    spell: Callable[[Fields], str]
    any_alphabet: bool = False


def spell_key(value: str) -> str:
    """Return the value of a K: field in canonical spelling, as it is if it names no key, "?" if that is not ASCII."""
    plain = OUTSIDE_ABC.sub("", value)
    kept = plain if plain == value or describes_staff(value) else "?"
    return canonical_key(value) or kept or "none"  # `A мінор` without its foreign letters would name another


def _key(fields: Fields) -> str:
    if "K" not in fields:
        return ""
    value = fields["K"]
    return spell_key(f"none {value}" if CLEF.match(value) else value)  # a clef alone names no key


def _metre(fields: Fields) -> str:
    return FREE_METRE.sub("none", fields.get("M", "").strip("][ ")) or "none"


# In the order in which they are written: X first and K last are the standard's rule (ABC 2.1, section 2.2.1).
HEADER_FIELDS = {
    "X": HeaderField(lambda _: "1"),
    "T": HeaderField(lambda fields: decode_text(fields.get("T", "")), any_alphabet=True),
    "R": HeaderField(lambda fields: spell_rhythm(fields.get("R", "")), any_alphabet=True),
    "M": HeaderField(_metre),
    "L": HeaderField(lambda fields: fields.get("L") or str(default_unit_length(_metre(fields)))),
    "Q": HeaderField(lambda fields: fields.get("Q", "")),
    "K": HeaderField(_key, any_alphabet=True),
}
FIELD_ORDER = "".join(HEADER_FIELDS)
