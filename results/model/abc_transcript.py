"""What a tune is made of, for code that measures it: parts, bars, sounds and notes."""

from dataclasses import dataclass, field
from fractions import Fraction

from .abc_fields import WHOLE, Length, in_whole_notes
from .abc_reader import Reader
from .abc_voice import Verdict, Voice


@dataclass(slots=True, eq=False)
class Sound:
    """A note, a chord or a rest as written: a tied note is several. `struck` are the notes that begin with it."""

    ticks: Length = 0
    pitches: list[int] = field(default_factory=list)
    struck: list["Note"] = field(default_factory=list)

    @property
    def duration(self) -> Fraction:
        """The duration in whole notes."""
        return in_whole_notes(self.ticks)


@dataclass(slots=True, eq=False)
class Note:
    """A note as it sounds, through all the sounds that ties join. `pitch` is a MIDI number."""

    pitch: int
    sounds: list[Sound]

    @property
    def duration(self) -> Fraction:
        """The duration in whole notes."""
        return in_whole_notes(sum(sound.ticks for sound in self.sounds))


@dataclass(slots=True, eq=False)
class Bar:
    """A bar of one voice, the key at its end, and the bar lines between it and the next bar, none at a line's end.

    `length` is its share of a whole bar: 1 if it is full, None where the metre is free.
    """

    sounds: list[Sound]
    key: str | None
    length: Fraction | None
    lines: list[str] = field(default_factory=list)

    @property
    def content(self) -> tuple[tuple[tuple[int, ...], Length], ...]:
        """Pitches and lengths: two bars are alike if these are equal."""
        return tuple((tuple(sound.pitches), sound.ticks) for sound in self.sounds)


@dataclass
class Part(Voice):
    """A voice that keeps its music; `opening` are the bar lines before its first bar."""

    opening: list[str] = field(default_factory=list)
    bars: list[Bar] = field(default_factory=list)
    key: str | None = None
    sound: Sound = field(default_factory=Sound)  # the last one
    sounds: list[Sound] = field(default_factory=list)  # of the bar that has not ended
    notes: dict[int, Note] = field(default_factory=dict)  # the last one of each natural

    def set_key(self, key: str) -> None:
        super().set_key(key)
        self.key = key

    def begin_sound(self) -> None:
        super().begin_sound()
        self.sound = Sound()
        self.sounds.append(self.sound)

    def note(self, step: int, natural: int, alteration: int | None, ratio: tuple[int, int]) -> None:
        known = len(self.verdict.pitches)
        super().note(step, natural, alteration, ratio)
        pitch = self.sounding[natural]
        if len(self.verdict.pitches) > known:
            self.notes[natural] = Note(pitch, [self.sound])
            self.sound.struck.append(self.notes[natural])
        else:
            self.notes[natural].sounds.append(self.sound)
        self.sound.pitches.append(pitch)

    def bar_rest(self, count: int) -> None:
        super().bar_rest(count)
        self.sound.ticks = (self.expected or WHOLE) * count

    def add(self, ratio: tuple[int, int]) -> None:
        before = self.total
        super().add(ratio)
        self.sound.ticks = self.total - before

    def broken(self, word: str) -> None:
        before = self.total
        super().broken(word)
        self.sound.ticks += self.total - before

    def bar(self, word: str) -> None:
        super().bar(word)
        (self.bars[-1].lines if self.bars else self.opening).append(word)

    def end_bar(self, edge: bool) -> None:
        number, expected = self.bar_number, self.total if self.total in self.also else self.expected
        super().end_bar(edge)
        if self.bar_number > number:
            length = None if expected is None else Fraction(sum(sound.ticks for sound in self.sounds), expected)
            self.bars.append(Bar(self.sounds, self.key or self.verdict.key, length))
            self.sounds = []


@dataclass
class Transcript:
    """A tune's verdict and music: its parts are the voices that have bars, in order of their first naming."""

    verdict: Verdict
    parts: list[Part]


def transcribe(text: str) -> Transcript:
    """Read one tune and return its verdict, as `judge` does, and its music. Never raises on text, however broken."""
    reader = Reader(Part)
    verdict = reader.read(text)
    return Transcript(verdict, [part for part in reader.voices.values() if isinstance(part, Part) and part.bars])
