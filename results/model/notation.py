"""Reading ABC notation as it is found: split a file into tunes, judge a tune, transcribe it. Pure standard library.

This is what other packages import. The words are in abc_lexer, the fields in abc_fields, voices and verdict in
abc_voice, the reader in abc_reader, the music in abc_transcript.
"""

from .abc_fields import (
    KEY,
    MODE_SHIFT,
    TUPLET_TIME,
    WHOLE,
    Length,
    bar_length,
    canonical_key,
    default_unit_length,
    parse_length,
    read_unit_length,
    sounding_tonic,
)
from .abc_lexer import (
    COMMENT,
    CONTINUES,
    ENDING,
    FIELD,
    LENGTH,
    TOKEN,
    UNDEFINED,
    WORDS,
    split_tunes,
)
from .abc_reader import judge
from .abc_transcript import Bar, Part, transcribe
from .abc_voice import Verdict
from .header_fields import FIELD_ORDER

__all__ = [
    "COMMENT", "CONTINUES", "ENDING", "FIELD", "FIELD_ORDER", "KEY", "LENGTH", "MODE_SHIFT", "TOKEN", "TUPLET_TIME",
    "UNDEFINED", "WHOLE", "WORDS", "Bar", "Length", "Part", "Verdict", "bar_length", "canonical_key",
    "default_unit_length", "judge", "parse_length", "read_unit_length", "sounding_tonic", "split_tunes", "transcribe",
]  # fmt: skip
