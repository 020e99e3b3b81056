"""Scores made of parts: MusicXML measure by measure, MIDI event by event."""


def note(step: str, octave: int, duration: int, extra: str = "", alter: float = 0) -> str:
    """A note of so many divisions (six a quarter)."""
    altered = f"<alter>{alter}</alter>" if alter else ""
    pitch = f"<pitch><step>{step}</step>{altered}<octave>{octave}</octave></pitch>"
    return f"<note>{pitch}<duration>{duration}</duration>{extra}</note>"


def rest(duration: int) -> str:
    return f"<note><rest/><duration>{duration}</duration></note>"


def back(duration: int) -> str:
    return f"<backup><duration>{duration}</duration></backup>"


def key(fifths: int, mode: str = "") -> str:
    return f"<key><fifths>{fifths}</fifths>{f'<mode>{mode}</mode>' if mode else ''}</key>"


def metre(*pairs: tuple[object, object]) -> str:
    return "<time>" + "".join(f"<beats>{a}</beats><beat-type>{b}</beat-type>" for a, b in pairs) + "</time>"


def measure(number: int, content: str, fields: str = "", more: str = "") -> str:
    attributes = f"<attributes><divisions>6</divisions>{fields}</attributes>" if fields else ""
    return f'<measure number="{number}"{more}>{attributes}{content}</measure>'


def barline(style: str = "", location: str = "right", inside: str = "") -> str:
    shown = f"<bar-style>{style}</bar-style>" if style else ""
    return f'<barline location="{location}">{shown}{inside}</barline>'


def musicxml(*parts: str) -> bytes:
    names = "".join(f'<score-part id="P{i}"><part-name/></score-part>' for i in range(len(parts)))
    bodies = "".join(f'<part id="P{i}">{part}</part>' for i, part in enumerate(parts))
    title = "<work><work-title>A  Title</work-title></work>"
    return f'<score-partwise version="4.0">{title}<part-list>{names}</part-list>{bodies}</score-partwise>'.encode()


def quantity(value: int) -> bytes:
    parts = [value & 0x7F]
    while value := value >> 7:
        parts.append(value & 0x7F | 0x80)
    return bytes(reversed(parts))


def events(*found: tuple[int, bytes], end: bool = True) -> bytes:
    """A track of events at their times (ticks from the start)."""
    track, now = b"", 0
    for time, event in sorted(found, key=lambda pair: pair[0]):
        track += quantity(time - now) + event
        now = time
    return chunk(track + (b"\x00\xff\x2f\x00" if end else b""))


def chunk(track: bytes) -> bytes:
    return b"MTrk" + len(track).to_bytes(4) + track


def sounds(pitches: list[int], length: int = 480, start: int = 0, channel: int = 0) -> list[tuple[int, bytes]]:
    """Notes of one length, one after the other, each on and off."""
    found = []
    for place, pitch in enumerate(pitches):
        found.append((start + (place + 1) * length, bytes([0x80 | channel, pitch, 0])))
        found.append((start + place * length, bytes([0x90 | channel, pitch, 80])))
    return found


def meta(kind: int, content: bytes) -> bytes:
    return bytes([0xFF, kind]) + quantity(len(content)) + content


def midi_key(sharps: int, minor: int = 0) -> bytes:
    return meta(0x59, bytes([sharps & 0xFF, minor]))


def midi_metre(beats: int, power: int) -> bytes:
    """A metre of so many beats, each a note of 1/2**power."""
    return meta(0x58, bytes([beats, power, 24, 8]))


def midi(*tracks: bytes, division: bytes = b"\x01\xe0", kind: int = 1, count: int | None = None) -> bytes:
    """A MIDI file; 480 ticks a quarter."""
    number = len(tracks) if count is None else count
    return b"MThd" + (6).to_bytes(4) + kind.to_bytes(2) + number.to_bytes(2) + division + b"".join(tracks)
