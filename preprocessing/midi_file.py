"""MIDI files are read: notes, keys, metres and tempos of each track, in ticks.

Follows the Standard MIDI File specification 1.0; a file that violates it where notes could be lost is refused.
"""

from collections import defaultdict
from dataclasses import dataclass, field

from preprocessing.abc_writing import ConversionError

DRUMS = 9  # the channel that General MIDI counts as the 10th

Note = tuple[int, int, int]  # start, end, pitch


@dataclass
class Track:
    """A track: notes (start, end, pitch) by channel; keys (sharps, minor), metres and tempos by time, in ticks."""

    notes: dict[int, list[Note]] = field(default_factory=lambda: defaultdict(list))
    keys: dict[int, tuple[int, bool]] = field(default_factory=dict)
    metres: dict[int, tuple[int, int]] = field(default_factory=dict)
    tempos: dict[int, int] = field(default_factory=dict)  # microseconds per quarter


def read_midi(data: bytes) -> tuple[int, bytes, list[Track]]:
    """Return format, division and tracks of a file. Raises ConversionError."""
    if data[:4] == b"RIFF" and data[8:16] == b"RMIDdata":
        data = data[20:]
    if data[:4] != b"MThd" or len(data) < 14 or int.from_bytes(data[4:8]) < 6:
        raise ConversionError("not readable")
    kind, count = int.from_bytes(data[8:10]), int.from_bytes(data[10:12])
    if kind > 2 or not any(data[12:14]):
        raise ConversionError("not readable")
    tracks = []
    position = 8 + int.from_bytes(data[4:8])
    while position + 8 <= len(data):
        name, end = data[position : position + 4], position + 8 + int.from_bytes(data[position + 4 : position + 8])
        if name == b"MTrk":
            if end > len(data):
                raise ConversionError("cut short")
            try:
                tracks.append(_read_track(data[position + 8 : end]))
            except IndexError:
                raise ConversionError("a track that ends within an event") from None
        position = end
    if len(tracks) < count:
        raise ConversionError("fewer tracks than the header says")
    return kind, data[12:14], tracks


def _read_track(data: bytes) -> Track:
    """Read the events of a track. Raises ConversionError, and IndexError if it ends within an event."""
    track = Track()
    sounding: dict[tuple[int, int], list[int]] = defaultdict(list)
    position = now = status = 0
    while position < len(data):
        delta, position = _quantity(data, position)
        now += delta
        if data[position] & 0x80:
            status = data[position]
            position += 1
        if status in (0xF0, 0xF7, 0xFF):
            meta = data[position] if status == 0xFF else None
            length, position = _quantity(data, position + (status == 0xFF))
            content = data[position : position + length]
            position += length
            if position > len(data):
                raise IndexError
            if meta == 0x2F:
                break
            _read_meta(track, now, meta, content)
            status = 0
            continue
        if not 0x80 <= status < 0xF0:
            raise ConversionError("an event of no known kind")
        first = data[position]
        second = data[position + 1] if status >> 4 not in (0xC, 0xD) else 0
        if (first | second) & 0x80:
            raise ConversionError("an event of no known kind")
        position += 1 if status >> 4 in (0xC, 0xD) else 2
        if status >> 4 in (8, 9):
            starts = sounding[status & 15, first]
            if status >> 4 == 9 and second:
                starts.append(now)
            elif starts:
                track.notes[status & 15].append((starts.pop(0), now, first))
    if any(starts for (channel, _), starts in sounding.items() if channel != DRUMS):
        raise ConversionError("a note without an end")
    return track


def _quantity(data: bytes, position: int) -> tuple[int, int]:
    """Return a variable-length quantity (at most four bytes) and the position after it.

    Raises IndexError at the end of the data, ConversionError for a longer quantity.
    """
    value = 0
    for end in range(position, position + 4):
        value = value << 7 | data[end] & 0x7F
        if not data[end] & 0x80:
            return value, end + 1
    raise ConversionError("an event of no known kind")


def _read_meta(track: Track, now: int, kind: int | None, content: bytes) -> None:
    """Record a key, metre or tempo; invalid ones (8 sharps, 0 beats) are ignored."""
    if kind == 0x59 and len(content) == 2:
        sharps, minor = int.from_bytes(content[:1], signed=True), content[1]
        if abs(sharps) <= 7 and minor <= 1:
            track.keys[now] = (sharps, minor == 1)
    elif kind == 0x58 and len(content) >= 2 and content[0] and content[1] <= 6:
        track.metres[now] = (content[0], 2 ** content[1])
    elif kind == 0x51 and len(content) == 3 and any(content):
        track.tempos[now] = int.from_bytes(content)
