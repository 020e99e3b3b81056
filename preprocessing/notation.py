"""Reading ABC notation as it is found: split a file into tunes, judge a tune, transcribe it. Pure standard library.

This is what other packages import. The words are in abc_lexer, the fields in abc_fields, voices and verdict in
abc_voice, the reader in abc_reader, the music in abc_transcript.
"""

from preprocessing.abc_fields import (
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
from preprocessing.abc_lexer import (
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
from preprocessing.abc_reader import judge
from preprocessing.abc_transcript import Bar, Part, transcribe
from preprocessing.abc_voice import Verdict
from preprocessing.header_fields import FIELD_ORDER

__all__ = [
    "COMMENT", "CONTINUES", "ENDING", "FIELD", "FIELD_ORDER", "KEY", "LENGTH", "MODE_SHIFT", "TOKEN", "TUPLET_TIME",
    "UNDEFINED", "WHOLE", "WORDS", "Bar", "Length", "Part", "Verdict", "bar_length", "canonical_key",
    "default_unit_length", "judge", "parse_length", "read_unit_length", "sounding_tonic", "split_tunes", "transcribe",
]  # fmt: skip
