"""Percussion left out of raw tunes: its letters are instruments and no pitches."""

import re

from preprocessing.abc_fields import CLEF
from preprocessing.abc_lexer import FIELD

IN_QUOTES = r'"(?:\\.|[^"\\])*"?'
NAMES = re.compile(rf"\b(clef\s*=\s*)\"?|[\w.-]+\s*=\s*(?:{IN_QUOTES}|\S*)|{IN_QUOTES}", re.IGNORECASE)  # no clefs
CHANNEL = re.compile(r"\[?(?:%%|I:)[ \t]*MIDI[ \t=]+channel[ \t=]+(\d+)", re.IGNORECASE)
CHANGES_VOICE = re.compile(r'(\[[VKI]:(?>"[^"\n]*"|[^\]\n])*\])')  # a name in quotes may hold a bracket


def leave_out_percussion(raw: str) -> str:
    """Return a raw tune without the music of percussion, whose letters are instruments and no pitches.

    Percussion is the music under `clef=perc` (of V: or K:) or on channel 10 of `%%MIDI channel`, until the same voice
    has another. A clef in the header's K: holds for the voices without one.
    """
    small = raw.lower()
    if "perc" not in small and "channel" not in small:  # nearly every tune
        return raw
    staves = _Staves()
    kept = []
    for line in raw.split("\n"):
        field = FIELD.match(line)
        if field or CHANNEL.match(line):
            staves.read(field[1] if field else "%", field[2] if field else line)
            if line.startswith("%") or not staves.percussion or (field and field[1] == "K" and staves.header_key):
                kept.append(line)
        elif not staves.in_body:
            kept.append(line)
        else:
            music = []
            for word in CHANGES_VOICE.split(line):
                if CHANGES_VOICE.fullmatch(word):
                    staves.read(word[1], word[3:-1])
                music += [] if staves.percussion else [word]
            if music or not line:
                kept.append("".join(music))
    return "\n".join(kept)


class _Staves:
    """Which voice is being read, and which voices are percussion."""

    def __init__(self) -> None:
        self.voice = ""
        self.clefs: dict[str, bool] = {}
        self.channels: dict[str, bool] = {}
        self.default = self.in_body = self.header_key = False

    def read(self, letter: str, value: str) -> None:
        """Take in a field or, under the letter `%` or I, a directive."""
        self.header_key = letter == "K" and not self.in_body
        if letter == "V":
            self.voice, value = [*value.split(maxsplit=1), "", ""][:2]
        plain = NAMES.sub(lambda match: " clef=" if match[1] else " ", value)
        channel = CHANNEL.search(f"I:{value.removeprefix('%%')}")
        clef = CLEF.search(plain, max(0, plain.rfind(" clef=")))
        if letter in "%I" and channel:
            self.channels[self.voice] = int(channel[1]) == 10
        elif letter in "KV" and clef:
            percussion = clef[1].lower().startswith("perc")
            if self.header_key:
                self.default = percussion
            else:
                self.clefs[self.voice] = percussion
        self.in_body |= letter == "K"

    @property
    def percussion(self) -> bool:
        return self.clefs.get(self.voice, self.default) or self.channels.get(self.voice, False)
