"""The reader of a tune: joins its lines, takes in its fields, and hands each word of music to its voice."""

import re

from preprocessing.abc_fields import (
    canonical_key,
    default_unit_length,
    describes_staff,
    in_ticks,
    octave_shift,
    read_unit_length,
)
from preprocessing.abc_lexer import COMMENT, CONTINUES, FIELD, TEXT_ENDING, WORDS, parse_word, words_in
from preprocessing.abc_voice import MICROTONE, NO_KEY, WORDS_IN_MUSIC, Verdict, Voice


class Reader:
    """Reads one tune and fills its verdict. `new_voice` makes the voices: what they keep is theirs."""

    def __init__(self, new_voice: type[Voice] = Voice) -> None:
        self.verdict = Verdict()
        self.new_voice = new_voice
        self.voice = new_voice(self.verdict)
        self.voices = {"": self.voice}
        self.shifts: dict[str, int] = {}  # of the voices that the header describes
        self.unit_given = self.in_body = False
        self.defined: set[str] = set()  # letters that U: gives a meaning

    def read(self, text: str) -> Verdict:
        """Read a tune line by line and return the verdict."""
        joined = ""  # music of lines that a backslash joins to the next
        block_end = ""  # the line that ends a block of text
        in_text = False  # a text field continues in this line
        for line in text.split("\n"):
            if block_end:
                block_end = "" if line.startswith(block_end) else block_end
                continue
            if line.startswith("%%begin"):
                block_end = "%%end" + line[7:].partition(" ")[0]
                continue
            if "%" in line:
                line = COMMENT.sub("", line)
                if not line.strip():
                    continue  # a text field may continue behind it
            match = FIELD.match(line) if line[1:2] == ":" else None
            if match:
                self.music(joined)
                joined = ""
                self.field(match[1], match[2].strip())
                in_text = "\\" in line and CONTINUES.match(line.rstrip()) is not None
            elif in_text:
                in_text = line.rstrip().endswith("\\")
            elif not self.in_body:
                if line.strip():
                    self.error("text before the key")
            elif line.rstrip().endswith("\\"):
                joined += line.rstrip()[:-1]
            else:
                self.music(joined + line)
                self.voice.end_line()
                joined = ""
        self.music(joined)
        return self.finish()

    def finish(self) -> Verdict:
        """End all voices and return the verdict."""
        for voice in self.voices.values():
            voice.end_tune()
        self.verdict.bad_bars.sort(key=lambda bad: bad.number)
        if not self.in_body:
            self.error("no K: field")
        elif not self.verdict.pitches:
            self.error("no notes")
        return self.verdict

    def error(self, message: str, unreadable: str | None = None) -> None:
        """Note an error, in the voice's bar once the music has begun."""
        (self.voice.error if self.in_body else self.verdict.add_error)(message, unreadable)

    def field(self, letter: str, value: str) -> None:
        """Take in a field of the header, of a line in the body or of brackets; those that do not sound are skipped."""
        if letter == "K":
            self.key(value)
        elif letter == "M":
            if not self.voice.set_metre(value):
                self.error(f"M:{value} is no metre")
            if not self.in_body:
                self.verdict.metre = value
        elif letter == "L":
            length = read_unit_length(value)
            if length is None:
                self.error(f"L:{value} is no length")
            else:
                self.voice.unit, self.unit_given = in_ticks(length), True
        elif letter == "V":
            self.change_voice(value)
        elif letter == "U":
            self.defined.add(value[:1])

    def key(self, value: str) -> None:
        """Take in a K: field; the first one ends the header."""
        key = canonical_key(value)
        if key is not None:
            self.voice.set_key(key)
        elif not describes_staff(value):
            self.error(f"K:{value} is no key", MICROTONE if re.search(r"[\^_][0-9/]", value) else NO_KEY)
        self.voice.shift = octave_shift(value, self.voice.shift)
        if not self.in_body:
            self.verdict.key = key or ("none" if describes_staff(value) else None)
            self.in_body = True
            if not self.unit_given:  # a later M: does not change it
                self.voice.unit = in_ticks(default_unit_length(self.voice.metre))

    def change_voice(self, value: str) -> None:
        """Take in a V: field; in the body, the voice of that name continues, or begins with the header's settings."""
        name, first = (value.split(maxsplit=1) or [""])[0], self.voices[""]
        self.shifts[name] = octave_shift(value, self.shifts.get(name, first.shift))
        if self.in_body:
            if name not in self.voices:
                settings = first.metre, first.expected, first.also, first.unit, first.signature
                self.voices[name] = self.new_voice(self.verdict, *settings, self.shifts[name], first.signature[:])
            self.voice = self.voices[name]

    def music(self, line: str) -> None:
        """Read a line of music: each word goes to the method of the voice that has its kind as a name."""
        for letters in words_in(line):
            if not self.defined.issuperset(letters):
                self.error(f"{letters!r} is no music", WORDS_IN_MUSIC)
        line = TEXT_ENDING.sub("[1 ", line) if '["' in line else line
        for word in WORDS(line):
            kind, value = parse_word(word)
            if kind == "note":
                self.voice.note(*value)
            elif kind == "inline":
                self.field(word[1], word[3:-1].strip())
            elif kind == "plus_chord":
                self.music(value)
            elif kind != "ignored":
                getattr(self.voice, kind)(value)


def judge(text: str) -> Verdict:
    """Read one tune (header and body) and return its verdict. Never raises on text, however broken."""
    return Reader().read(text)
