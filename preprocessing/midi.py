"""MIDI files become ABC: every event is read, times are put on a grid of note lengths, and bars are written.

Follows the Standard MIDI File specification 1.0; a file that breaks it where notes could be lost is refused. MIDI has
no bar lines, repeats or spelling: bars follow from metres, spelling from keys. Percussion (channel 10) is left out.
"""

from bisect import bisect_right
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from functools import cache, lru_cache
from itertools import accumulate, pairwise
from math import gcd
from operator import itemgetter
from typing import NamedTuple

from preprocessing.abc_writing import (
    Accidentals,
    ConversionError,
    bar_lines,
    chord_text,
    key_name,
    key_signature,
    length_text,
    spell,
)

QUARTER = 256 * 9 * 5 * 7  # units of time in a quarter note: every grid below, of any beat, is a whole number of them
EIGHTH = QUARTER // 2
SIXTEENTH = QUARTER // 4
PLAIN = 9 * 5 * 7  # what is no multiple of this needs a tuplet
# Into how many parts a beat may be divided, and the deviation (in beats) that a simpler division is worth.
SIMPLE = ((1, 0.0), (2, 0.01), (4, 0.02), (3, 0.03), (8, 0.05), (6, 0.05), (12, 0.07), (16, 0.08), (5, 0.08), (7, 0.1))
COMPOUND = ((1, 0.0), (3, 0.01), (6, 0.02), (2, 0.03), (4, 0.05), (12, 0.05), (8, 0.08), (9, 0.08), (24, 0.08))
DRUMS = 9  # the channel that General MIDI counts as the 10th
MAX_BARS, MAX_NOTES = 5_000, 50_000
FRAMES = {24: Fraction(24), 25: Fraction(25), 29: Fraction(30_000, 1001), 30: Fraction(30)}  # a second; 29: drop-frame

Note = tuple[int, int, int]  # start, end, pitch
Grids = tuple[tuple[int, float], ...]


class Metre(NamedTuple):
    """A metre from `start` on; lengths are in units. A pickup is what is left of a first bar that starts before 0.

    `beat` is a dotted quarter of 6/8, never more than a quarter of a simple metre.
    """

    start: int
    name: str
    bar: int
    beat: int
    grids: Grids


def _metre(start: int, beats: int, unit: int) -> Metre:
    compound = unit >= 8 and beats % 3 == 0
    beat = (3 if compound else 1) * 4 * QUARTER // max(unit, 4)
    return Metre(start, f"{beats}/{unit}", beats * 4 * QUARTER // unit, beat, COMPOUND if compound else SIMPLE)


@dataclass
class Track:
    """What a track says: notes (start, end, pitch) by channel, keys (sharps, minor), metres and tempos by time."""

    notes: dict[int, list[Note]] = field(default_factory=lambda: defaultdict(list))
    keys: dict[int, tuple[int, bool]] = field(default_factory=dict)
    metres: dict[int, tuple[int, int]] = field(default_factory=dict)
    tempos: dict[int, int] = field(default_factory=dict)  # microseconds of a quarter


def midi_to_abc(data: bytes, title: str) -> tuple[str, int]:
    """Return a MIDI file as ABC, one tune a song (a file of format 2 holds several), and how many parts are left out.

    Raises ConversionError.
    """
    kind, division, tracks = _read_file(data)
    percussion = sum(track.notes.pop(DRUMS, None) is not None for track in tracks)
    songs = [[track] for track in tracks] if kind == 2 else [tracks]
    songs = [song for song in songs if any(track.notes for track in song)]
    if not songs:
        raise ConversionError("no notes")
    if sum(len(notes) for track in tracks for notes in track.notes.values()) > MAX_NOTES:
        raise ConversionError(f"more than {MAX_NOTES:,} notes")
    return "\n".join(_Song(song, division).tune(number, title) for number, song in enumerate(songs, 1)), percussion


def _read_file(data: bytes) -> tuple[int, bytes, list[Track]]:
    """Return format, division and tracks of a file. Raises ConversionError."""
    if data[:4] == b"RIFF" and data[8:16] == b"RMIDdata":
        data = data[20:]
    if data[:4] != b"MThd" or len(data) < 14 or int.from_bytes(data[4:8]) < 6:
        raise ConversionError("not readable")
    kind, wanted = int.from_bytes(data[8:10]), int.from_bytes(data[10:12])
    if kind > 2 or not any(data[12:14]):
        raise ConversionError("not readable")
    tracks = []
    place = 8 + int.from_bytes(data[4:8])
    while place + 8 <= len(data):
        name, end = data[place : place + 4], place + 8 + int.from_bytes(data[place + 4 : place + 8])
        if name == b"MTrk":
            if end > len(data):
                raise ConversionError("cut short")
            tracks.append(_read_track(data[place + 8 : end]))
        place = end
    if len(tracks) < wanted:
        raise ConversionError("fewer tracks than the header says")
    return kind, data[12:14], tracks


def _read_track(data: bytes) -> Track:
    """Return what a track says. Raises ConversionError."""
    try:
        return _read_events(data)
    except IndexError:
        raise ConversionError("a track that ends within an event") from None


def _read_events(data: bytes) -> Track:
    track = Track()
    sounding: dict[tuple[int, int], list[int]] = defaultdict(list)
    place = now = status = 0
    while place < len(data):
        delta, place = _quantity(data, place)
        now += delta
        if data[place] & 0x80:
            status = data[place]
            place += 1
        if status in (0xF0, 0xF7, 0xFF):
            meta = data[place] if status == 0xFF else None
            length, place = _quantity(data, place + (status == 0xFF))
            content = data[place : place + length]
            place += length
            if place > len(data):
                raise IndexError
            if meta == 0x2F:
                break
            _read_meta(track, now, meta, content)
            status = 0
            continue
        if not 0x80 <= status < 0xF0:
            raise ConversionError("an event of no known kind")
        first = data[place]
        second = data[place + 1] if status >> 4 not in (0xC, 0xD) else 0
        if (first | second) & 0x80:
            raise ConversionError("an event of no known kind")
        place += 1 if status >> 4 in (0xC, 0xD) else 2
        if status >> 4 in (8, 9):
            starts = sounding[status & 15, first]
            if status >> 4 == 9 and second:
                starts.append(now)
            elif starts:
                track.notes[status & 15].append((starts.pop(0), now, first))
    if any(starts for (channel, _), starts in sounding.items() if channel != DRUMS):
        raise ConversionError("a note without an end")
    return track


def _quantity(data: bytes, place: int) -> tuple[int, int]:
    """Return a number of seven bits a byte, four bytes at most, and the place behind it.

    Raises IndexError at the end of the data, ConversionError for a longer number.
    """
    value = 0
    for end in range(place, place + 4):
        value = value << 7 | data[end] & 0x7F
        if not data[end] & 0x80:
            return value, end + 1
    raise ConversionError("an event of no known kind")


def _read_meta(track: Track, now: int, kind: int | None, content: bytes) -> None:
    """Take over a key, metre or tempo; one that has no meaning (8 sharps, 0 beats) is left out."""
    if kind == 0x59 and len(content) == 2:
        sharps, minor = int.from_bytes(content[:1], signed=True), content[1]
        if abs(sharps) <= 7 and minor <= 1:
            track.keys[now] = (sharps, minor == 1)
    elif kind == 0x58 and len(content) >= 2 and content[0] and content[1] <= 6:
        track.metres[now] = (content[0], 2 ** content[1])
    elif kind == 0x51 and len(content) == 3 and any(content):
        track.tempos[now] = int.from_bytes(content)


class _Song:
    """The tracks of one song, with one time for all: units from the start."""

    def __init__(self, tracks: list[Track], division: bytes) -> None:
        metres: dict[int, tuple[int, int]] = {}
        keys: dict[int, tuple[int, bool]] = {}
        tempos: dict[int, int] = {}
        for track in tracks:  # where two tracks disagree, the first is right
            metres, keys, tempos = track.metres | metres, track.keys | keys, track.tempos | tempos
        clock = _clock(division, tempos)
        channels = [notes for track in tracks for _, notes in sorted(track.notes.items())]
        played = [[(clock(start), clock(end), pitch) for start, end, pitch in notes] for notes in channels]
        self.tempo = 60e6 / tempos[min(tempos)] if tempos else 0
        self.metres = _metres([(clock(time), *metre) for time, metre in sorted(metres.items())], played)
        self.voices = [_on_grid(notes, self.metres) for notes in played]
        self.first = min(notes[0][0] for notes in self.voices)
        self.end = max(end for notes in self.voices for _, end, _ in notes)
        self.keys = [(clock(time), *key) for time, key in sorted(keys.items())] or [(0, *_guess_key(self.voices))]

    def tune(self, number: int, title: str) -> str:
        """Return the song. Raises ConversionError."""
        bars = self.bars()
        tempo = [f"Q:1/4={self.tempo:.0f}"] if 1 <= self.tempo < 1000 else []
        lines = [f"X:{number}", f"T:{title}", f"M:{bars[0].metre.name}", "L:1/8", *tempo, f"K:{bars[0].key_name}"]
        for voice, notes in enumerate(self.voices, 1):
            lines += [f"V:{voice}"] if len(self.voices) > 1 else []
            lines += bar_lines([*_Voice(notes, bars, voice > 1).bars()])
        return "\n".join(lines) + "\n"

    def bars(self) -> list["_Bar"]:
        """Return the bars from the first with a note to the last. Raises ConversionError."""
        bars: list[_Bar] = []
        for metre, after in zip(self.metres, [*(metre.start for metre in self.metres[1:]), self.end], strict=True):
            first = metre.start + max(0, self.first - metre.start) // metre.bar * metre.bar
            if len(bars) + (min(after, self.end) - first) // metre.bar > MAX_BARS:
                raise ConversionError(f"longer than {MAX_BARS:,} bars")
            for start in range(first, min(after, self.end), metre.bar):
                key = self.keys[max(0, bisect_right(self.keys, start + metre.bar // 2, key=itemgetter(0)) - 1)]
                bars.append(_Bar(start, min(start + metre.bar, after), metre, *key[1:]))
        return bars


class _Bar(NamedTuple):
    start: int
    end: int
    metre: Metre
    sharps: int
    minor: bool

    @property
    def key_name(self) -> str:
        return key_name(self.sharps, "minor" if self.minor else "major")


def _clock(division: bytes, tempos: dict[int, int]) -> Callable[[int], int]:
    """Return what makes units of ticks; those of SMPTE time are parts of seconds, so that the tempo counts."""
    if not division[0] & 0x80:
        ticks = int.from_bytes(division)
        return lambda tick: (2 * tick * QUARTER + ticks) // (2 * ticks)
    frames = FRAMES.get(256 - division[0])
    if frames is None or not division[1]:
        raise ConversionError("SMPTE time of no known kind")
    changes = sorted({0: 500_000, **tempos}.items())  # 120 quarters a minute until a tempo says otherwise
    rates = [float(QUARTER * 1_000_000 / (frames * division[1] * tempo)) for _, tempo in changes]  # units a tick
    times = [time for time, _ in changes]
    passed = [(after - time) * rate for (time, after), rate in zip(pairwise(times), rates, strict=False)]
    reached = [*accumulate(passed, initial=0.0)]

    def clock(tick: int) -> int:
        piece = bisect_right(times, tick) - 1
        return round(reached[piece] + (tick - times[piece]) * rates[piece])

    return clock


def _metres(found: list[tuple[int, int, int]], voices: list[list[Note]]) -> list[Metre]:
    """Return the metres in order, those that change nothing left out; 4/4 until there is one."""
    metres = [_metre(0, 4, 4)]
    for time, beats, unit in found:
        metre = _metre(time, beats, unit)
        if time < QUARTER:
            metres = [metre._replace(start=0)]
        elif metre.name != metres[-1].name:
            metres.append(metre)
    first, second = metres[0], metres[1] if len(metres) > 1 else None
    if second is None:
        pickup = _guess_pickup(first.bar, min(first.beat, EIGHTH), voices)
        return [first._replace(start=pickup - first.bar)] if pickup else metres
    if second.start == first.bar < second.bar:  # how notation programs write a pickup
        metres[:2] = [second._replace(start=second.start - second.bar)]
    return metres


def _guess_pickup(bar: int, step: int, voices: list[list[Note]]) -> int:
    """Return the length of the first bar that leaves the fewest notes to be tied over bar lines; 0: a whole bar.

    Of several the one is taken after which the most music (in length) begins on a bar line; a whole bar counts half as
    much again: of 600 bundled tunes played by abc2midi that finds 393 (ties alone: 291).
    """
    jitter = SIXTEENTH // 2
    spans = Counter(
        ((start + jitter) % bar, max(0, end - start - 2 * jitter)) for notes in voices for start, end, _ in notes
    )

    def price(pickup: int) -> tuple[int, float]:
        ties, strong = 0, 0
        for (place, length), count in spans.items():
            after = (place - pickup) % bar
            ties += count * (after + length >= bar)
            strong += count * length * (after < 2 * jitter)
        return ties, -strong * (1 if pickup else 1.5)

    return min(range(0, min(bar, 64 * step), step), key=price)


def _on_grid(notes: list[Note], metres: list[Metre]) -> list[Note]:
    """Return the notes of one voice with times of written music, in order; the same pitch never twice at a time.

    Each beat is divided as simply as its onsets allow. A rest of a sixteenth or less, before the next note or the next
    beat, is how the player let go of a key.
    """
    starts = [metre.start for metre in metres]

    @cache
    def beat_of(time: int) -> tuple[int, Metre]:
        metre = metres[max(0, bisect_right(starts, time) - 1)]
        return time - (time - metre.start) % metre.beat, metre

    def snap(time: int, parts: int) -> int:
        start, metre = beat_of(time)
        return start + (2 * (time - start) * parts + metre.beat) // (2 * metre.beat) * metre.beat // parts

    @cache
    def end_of(time: int) -> tuple[int, int]:
        """Return where a note ends that is let go of at `time`, and where the beat does."""
        start, metre = beat_of(time)
        parts = divided.get(start, 1)
        coarse, fine = ((1, 3), 6) if metre.grids is COMPOUND else ((1, 2), 4)
        end = snap(time, fine if parts in coarse else parts)
        return end, start + metre.beat * (end > start)

    onsets: dict[int, list[int]] = defaultdict(list)
    for time in sorted({start for start, _, _ in notes}):
        onsets[beat_of(time)[0]].append(time)
    divided = {}  # into how many parts, by the start of the beat
    begins: dict[int, int] = {}
    for beat, times in onsets.items():
        metre = beat_of(times[0])[1]
        divided[beat] = parts = _parts(tuple(time - beat for time in times), metre.beat, metre.grids)
        begins |= {time: snap(time, parts) for time in times}
    order = sorted({*begins.values()})
    follows = dict(pairwise([*order, order[-1] + 4 * QUARTER]))
    written: dict[tuple[int, int], int] = {}
    for start, end, pitch in notes:
        begin = begins[start]
        until, beat_end = end_of(end)
        limit = min(beat_end, follows[begin])
        if until < limit <= until + SIXTEENTH:
            until = limit
        if until <= begin:
            until = min(follows[begin], begin + SIXTEENTH)
        written[begin, pitch] = max(until, written.get((begin, pitch), 0))
    result: list[Note] = []
    sounding: dict[int, int] = {}
    for (begin, pitch), until in sorted(written.items()):
        place = sounding.get(pitch)
        if place is not None and result[place][1] > begin:
            result[place] = (result[place][0], begin, pitch)  # struck again
        sounding[pitch] = len(result)
        result.append((begin, until, pitch))
    return result


@lru_cache(maxsize=4096)
def _parts(times: tuple[int, ...], beat: int, grids: Grids) -> int:
    """Return into how many parts a beat is divided whose onsets stand at these times after its start."""
    places = [time / beat for time in times]
    return min((cost + max(abs(x - round(x * parts) / parts) for x in places), parts) for parts, cost in grids)[1]


def _guess_key(voices: list[list[Note]]) -> tuple[int, bool]:
    """Return the key that needs the fewest accidentals: minor if the last of the lowest notes is its tonic."""
    counts = [0] * 12
    for notes in voices:
        for _, _, pitch in notes:
            counts[pitch * 7 % 12] += 1  # by fifths above C
    best = min(range(-5, 7), key=lambda sharps: (-sum(counts[(sharps + i) % 12] for i in range(-1, 6)), abs(sharps)))
    last = max((end, -pitch) for notes in voices for _, end, pitch in notes)
    return best, -last[1] * 7 % 12 == (best + 3) % 12


class _Voice:
    """Writes one voice, bar by bar. What sounds is cut wherever a note begins or ends; what goes on is tied.

    Programs differ in whether a change of key or metre in the voice before holds at the start of the next (`later`):
    where there was one, it is said again.
    """

    def __init__(self, notes: list[Note], bars: list[_Bar], later: bool) -> None:
        self.notes, self.spans = notes, bars
        self.cuts = sorted({time for start, end, _ in notes for time in (start, end)})
        self.accidentals = Accidentals()
        self.metre = "" if later and len({bar.metre.name for bar in bars}) > 1 else bars[0].metre.name
        self.key = "" if later and len({bar.key_name for bar in bars}) > 1 else bars[0].key_name
        self.sharps = bars[0].sharps
        self.read = 0
        self.active: list[Note] = []

    def bars(self) -> Iterator[str]:
        place = 0
        for bar in self.spans:
            changes = ""
            if bar.metre.name != self.metre:
                self.metre = bar.metre.name
                changes += f"[M:{self.metre}]"
            if bar.key_name != self.key:
                self.key = bar.key_name
                changes += f"[K:{self.key}]"
            inside = []
            while place < len(self.cuts) and self.cuts[place] < bar.end:
                inside.append(self.cuts[place])
                place += 1
            self.sharps, self.accidentals.signature = bar.sharps, key_signature(bar.sharps)
            self.accidentals.start_bar()
            yield f"{changes}{self.bar(bar, inside)}|"

    def bar(self, bar: _Bar, cuts: list[int]) -> str:
        places = {max(0, bar.start), bar.end, *cuts}
        beats: dict[int, tuple[int, int]] = {}  # by their start: the end, and p of the tuplet that it needs
        start = bar.start
        while start < bar.end:
            length = bar.metre.beat
            inside = [cut - start for cut in cuts if start < cut < start + 2 * length]
            if inside == [2 * length // 3, 4 * length // 3]:
                length *= 2  # three in the time of two beats
            odd = PLAIN // gcd(PLAIN, *(cut for cut in inside if cut < length))
            beats[start] = (start + length, odd)
            places |= {start, start + length} if odd > 1 else set()
            start += length
        text, odd, tuplet_end = "", 1, 0
        order = sorted(places)
        for here, after in pairwise(order):
            text += " " if text and here in beats else ""
            if here >= tuplet_end:
                tuplet_end, odd = beats.get(here, (0, 1))
                count = sum(here <= place < tuplet_end for place in order)
                text += "(3" if odd == count == 3 else f"({odd}:{_time_of(odd)}:{count}" if odd > 1 else ""
            text += self.sound(here, after, _length(after - here, odd))
        return text

    def sound(self, here: int, after: int, length: str) -> str:
        """Return what sounds from here until after."""
        if self.active:
            self.active = [note for note in self.active if note[1] > here]
        while self.read < len(self.notes) and self.notes[self.read][0] <= here:
            self.active.append(self.notes[self.read])
            self.read += 1
        if not self.active:
            return "z" + length
        texts = []
        for _, end, pitch in sorted(self.active, key=itemgetter(2)):
            texts.append(self.accidentals.pitch(*_spelled(pitch, self.sharps)) + "-" * (end > after))
        return chord_text(texts, length)


def _time_of(notes: int) -> int:
    """Return in the time of how many a tuplet of so many (an odd number) is played."""
    return 1 << notes.bit_length() - 1


@lru_cache(maxsize=1024)
def _length(units: int, odd: int) -> str:
    return length_text(Fraction(units * odd, EIGHTH * _time_of(odd)))


@lru_cache(maxsize=2048)
def _spelled(pitch: int, sharps: int) -> tuple[str, int, int]:
    """Return letter, alteration and octave: of the notes of the key, else of those that its neighbours have."""
    letter, alteration = spell((pitch * 7 - (sharps - 3)) % 12 + sharps - 3)
    return letter, alteration, (pitch - alteration) // 12 - 1
