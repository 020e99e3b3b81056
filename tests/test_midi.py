"""MIDI becomes ABC: the pitches, lengths, bars, keys and metres of the file, or the reason why it is refused."""

import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from made_scores import chunk, events, meta, midi, midi_key, midi_metre, quantity, sounds

from preprocessing.abc_writing import ConversionError
from preprocessing.midi import midi_to_abc
from preprocessing.notation import judge

SCALE = [62, 64, 66, 67, 69, 71, 73, 74]
SCALE_ABC = "D2 E2 F2 G2|A2 B2 c2 d2|]\n"
A_MINOR = [69, 71, 72, 74, 76, 74, 72, 71, 69, 68, 69, 71, 72, 71, 69, 69]
C, D = (0, midi_key(0)), (0, midi_key(2))


def convert(data: bytes) -> str:
    return midi_to_abc(data, "t")[0]


def body(data: bytes) -> str:
    return convert(data).partition("\nK:")[2].partition("\n")[2]


def line(*more: tuple[int, bytes], pitches: list[int] = SCALE, length: int = 480) -> bytes:
    return midi(events(*more, *sounds(pitches, length)))


def in_turn(pitches: list[int], lengths: list[int]) -> list[tuple[int, bytes]]:
    """Notes of different lengths, one after the other."""
    notes, start = [], 0
    for pitch, length in zip(pitches, lengths, strict=False):
        notes += sounds([pitch], length, start)
        start += length
    return notes


# Keys, metres and bars


@pytest.mark.parametrize(
    ("signature", "key"),
    [
        (midi_key(1, 1), "Em"), (midi_key(-3, 1), "Cm"), (midi_key(7, 1), "A#m"), (midi_key(-7, 1), "Abm"),
        (midi_key(1), "G"), (midi_key(-7), "Cb"), (midi_key(7), "C#"), (midi_key(0, 1), "Am"),
    ],
)  # fmt: skip
def test_key_follows_from_signature_and_mode(signature, key):
    abc = convert(line((0, signature)))
    assert f"\nK:{key}\n" in abc
    assert judge(abc).pitches == SCALE


@pytest.mark.parametrize(
    "signature",
    [midi_key(8), midi_key(-8), midi_key(127), midi_key(-128, 1), midi_key(2, 2), meta(0x59, b"\x02"), meta(0x59, b"")],
)
def test_invalid_key_signature_is_ignored(signature):
    abc = convert(line((0, signature)))
    assert "\nK:D\n" in abc
    assert judge(abc).pitches == SCALE
    assert "\nK:A\n" in convert(line((0, midi_key(3)), (0, signature)))  # a valid one stays


@pytest.mark.parametrize(
    ("pitches", "key"),
    [(A_MINOR, "Am"), ([60, 64, 67, 65, 62, 71, 69, 60], "C"), ([70, 72, 74, 75, 77, 79, 81, 82], "Bb")],
)
def test_key_without_a_signature_needs_the_fewest_accidentals(pitches, key):
    assert f"\nK:{key}\n" in convert(line(pitches=pitches))


@pytest.mark.parametrize(
    ("beats", "power", "metre", "music"),
    [
        (6, 3, "6/8", "DEF GAB|cd|]\n"), (7, 3, "7/8", "D E F G A B c|d|]\n"), (2, 1, "2/2", "DE FG AB cd|]\n"),
        (3, 3, "3/8", "DEF|GAB|cd|]\n"), (5, 2, "5/4", "DE FG AB cd|]\n"), (0, 2, "4/4", "DE FG AB cd|]\n"),
        (4, 9, "4/4", "DE FG AB cd|]\n"),
    ],
)  # fmt: skip
def test_bars_and_beats_follow_the_metre(beats, power, metre, music):
    data = line((0, midi_metre(beats, power)), length=240)
    assert f"\nM:{metre}\n" in convert(data)
    assert body(data) == music
    assert judge(convert(data)).bars_add_up


# Music

BOTH = events(C, *sounds([60, 62, 64, 65]), *sounds([48, 50, 52, 53], channel=3))
CHANGES = [(0, midi_metre(4, 2)), (1920, midi_metre(3, 2)), (1920, midi_key(2)), C]
HELD = [(0, b"\x90\x30\x50"), (1920, b"\x80\x30\x00"), *sounds([60, 62, 64, 65])]
TWICE = [(0, b"\x90\x3c\x50"), (480, b"\x90\x3c\x50"), (600, b"\x80\x3c\x00"), (960, b"\x80\x3c\x00")]
OTHER = [
    (0, b"\xc0\x05"), (0, b"\xb0\x07\x64"), (0, b"\xe0\x00\x40"), (0, b"\xf0\x03\x7e\x7f\xf7"), (0, b"\xd0\x11"),
    (480, meta(5, b"C2 D2|E2 la")), (0, meta(3, b"Name")), (960, meta(0x7F, b"\x00\x01")), (0, b"\xa0\x3c\x01"),
]  # fmt: skip
RUNNING = b"\x00\xff\x59\x02\x02\x00\x00\x90" + b"".join(
    bytes([pitch, 80]) + quantity(480) + bytes([pitch, 0]) + b"\x00" for pitch in SCALE
)
MUSIC = {
    "accidentals of G minor": (
        line((0, midi_key(-2, 1)), pitches=[67, 69, 70, 72, 74, 75, 78, 79]),
        "G2 A2 B2 c2|d2 e2 ^f2 g2|]\n",
    ),
    "accidentals of C major": (line(C, pitches=[60, 61, 63, 66, 68, 70, 60, 60]), "C2 ^C2 _E2 ^F2|^G2 _B2 C2 C2|]\n"),
    "changes of key and metre in every voice": (
        midi(events(*CHANGES), events(*sounds([60, 62, 64, 65, 66, 67, 69])), events(*sounds([48] * 7))),
        "V:1\nC2 D2 E2 F2|[M:3/4][K:D]F2 G2 A2|]\nV:2\n[M:4/4][K:C]C,2 C,2 C,2 C,2|[M:3/4][K:D]=C,2 C,2 C,2|]\n",
    ),
    "pickup by a shorter first metre": (
        line((0, midi_metre(1, 2)), (480, midi_metre(4, 2)), D, pitches=[62, *SCALE]),
        "D2|D2 E2 F2 G2|A2 B2 c2 d2|]\n",
    ),
    "pickup that gives the fewest ties": (
        midi(events((0, midi_metre(3, 2)), C, *in_turn([62, *[67, 69] * 4], [240, *[960, 480] * 4]))),
        "D|G4 A2|G4 A2|G4 A2|\nG4 A2|]\n",
    ),
    "silence before the first note": (midi(events(D, *sounds(SCALE, start=8 * 1920))), SCALE_ABC),
    "channels in one track": (midi(BOTH, kind=0), "V:1\nC2 D2 E2 F2|]\nV:2\nC,2 D,2 E,2 F,2|]\n"),
    "voice that ends early": (
        midi(events(C, *sounds([60] * 8)), events(*sounds([48] * 4))),
        "V:1\nC2 C2 C2 C2|C2 C2 C2 C2|]\nV:2\nC,2 C,2 C,2 C,2|z8|]\n",
    ),
    "overlap": (midi(events(C, *HELD)), "[C,-C]2 [C,-D]2 [C,-E]2 [C,F]2|]\n"),
    "note over a bar line": (
        midi(events(C, *in_turn([60, 64, 67, 72, 71], [960, 1920, 960, 1920, 1920]))),
        "C4 E4-|E4 G4|c8|B8|]\n",
    ),
    "note struck again": (midi(events(C, *TWICE, *sounds([62, 64], start=960))), "C2 C2 D2 E2|]\n"),
    "unison": (midi(events(C, *sounds([60, 62, 64, 65]), *sounds([60, 62, 64, 65]))), "C2 D2 E2 F2|]\n"),
    "running status": (midi(chunk(RUNNING + b"\xff\x2f\x00"), kind=0), SCALE_ABC),
    "other chunks and events": (
        midi(b"XFIH\x00\x00\x00\x02ab", events(D, *OTHER, *sounds(SCALE)), count=1),
        SCALE_ABC,
    ),
    "RIFF": (b"RIFF\x00\x00\x00\x00RMIDdata\x00\x00\x00\x00" + line(D), SCALE_ABC),
    "bytes after the file": (line(D) + b"\x00" * 30, SCALE_ABC),
    "no end of track": (midi(events(D, *sounds(SCALE), end=False)), SCALE_ABC),
    "several songs": (
        midi(events(D, *sounds(SCALE)), events(D, *sounds(SCALE)), kind=2),
        f"{SCALE_ABC}\nX:2\nT:t\nM:4/4\nL:1/8\nK:D\n{SCALE_ABC}",
    ),
}


@pytest.mark.parametrize(("data", "music"), MUSIC.values(), ids=MUSIC.keys())
def test_music_is_written(data, music):
    assert body(data) == music


@pytest.mark.parametrize(
    ("lengths", "music"),
    [
        ([960, 320, 160, 480], "D4 (3:2:2E2F G2|]\n"),
        ([960, 320, 320, 320], "D4 (3E2F2G2|]\n"),
        ([1440, 96, 96, 96, 96, 96], "D6 (5:4:5E/2F/2G/2A/2B/2|]\n"),
        ([1440, 60, 60, 120, 240], "D6 E/4F/4G/2A|]\n"),
        ([960, 720, 240], "D4 E3F|]\n"),
    ],
)
def test_tuplets_and_short_notes_are_exact(lengths, music):
    assert body(midi(events(D, *in_turn(SCALE, lengths)))) == music


def test_uneven_playing_is_written_evenly():
    draw = np.random.default_rng(1)
    notes, start = [], 0
    for index, length in enumerate([480, 240, 240, 160, 160, 160, 480] * 4):
        notes += sounds([SCALE[index % 8]], int(length * 0.9) - 20, start + int(draw.integers(0, 20)))
        start += length
    data = midi(events(D, *notes))
    assert body(data).split("|")[0] == "D2 EF (3GAB c2"
    assert judge(convert(data)).bars_add_up


def test_drums_are_left_out_and_counted():
    drums = sounds([36] * 8, channel=9)
    abc, percussion = midi_to_abc(midi(events(*sounds(SCALE)), events(*drums)), "t")
    assert (judge(abc).pitches, percussion, "V:" in abc) == (SCALE, 1, False)
    without_ends = events(*[event for event in drums if event[1][0] == 0x99])
    assert midi_to_abc(midi(events(*sounds(SCALE)), without_ends), "t")[0] == abc
    with pytest.raises(ConversionError, match="no notes"):
        convert(midi(events(*drums)))


@pytest.mark.skipif(not shutil.which("abc2midi"), reason="abcmidi is not installed")
def test_tune_played_by_abc2midi_comes_back(tmp_path: Path):
    tune = "X:1\nM:6/8\nL:1/8\nK:Ador\nE|ABA Bcd|e2A ABG|(3EFG A2 B3/2A/2G|ABA Bcd|e2A ABG|(3EFG A2 G3|A3 A2|]\n"
    (tmp_path / "a.abc").write_text(tune)
    subprocess.run(["abc2midi", "a.abc", "-o", "a.mid"], cwd=tmp_path, check=True, stdout=subprocess.DEVNULL)
    back = judge(convert((tmp_path / "a.mid").read_bytes()))
    assert back.pitches == judge(tune).pitches
    assert (back.key, back.metre, back.bars, back.bars_add_up) == ("G", "6/8", 8, True)


# SMPTE time


@pytest.mark.parametrize(
    ("frames", "ticks", "quarter"),
    [(24, 80, 960), (25, 40, 500), (30, 80, 1200), (29, 100, 1499)],  # 29: 29.97 frames per second
)
def test_smpte_time_is_read(frames, ticks, quarter):
    assert body(midi(events(D, *sounds(SCALE, quarter)), division=bytes([256 - frames, ticks]))) == SCALE_ABC


def test_smpte_time_follows_changes_of_tempo():
    slow, fast = meta(0x51, (1_000_000).to_bytes(3)), meta(0x51, (500_000).to_bytes(3))
    notes = sounds([62, 64, 66, 67], 1000) + sounds([69, 71, 73, 74], 500, 4000)
    assert body(midi(events(D, (0, slow), (4000, fast), *notes), division=bytes([256 - 25, 40]))) == SCALE_ABC


# Refusals

REFUSED = [
    (b"", "not readable"),
    (b"not MIDI", "not readable"),
    (line()[:13], "not readable"),
    (midi(kind=3), "not readable"),
    (line()[:60], "cut short"),
    (line()[:-1], "cut short"),
    (midi(events(*sounds(SCALE)), count=2), "fewer tracks than the header says"),
    (midi(chunk(b"\x00\x90\x3c\x50\x10\x3c")), "a track that ends within an event"),
    (midi(chunk(b"\x00\x3c\x50")), "an event of no known kind"),
    (midi(chunk(b"\x00\xf4\x3c\x50")), "an event of no known kind"),
    (midi(chunk(b"\x00\x90\x3c\x90\x10\x80\x3c\x00")), "an event of no known kind"),
    (midi(chunk(b"\xff\xff\xff\xff\x00\x90\x3c\x50")), "an event of no known kind"),
    (midi(chunk(b"\x00\xff\x01\x20abc")), "a track that ends within an event"),
    (midi(events(*sounds(SCALE), (9000, b"\x90\x3c\x50"))), "a note without an end"),
    (midi(events(*sounds(SCALE), (0, b"\x90\x30\x50"))), "a note without an end"),
    (midi(events()), "no notes"),
    (midi(), "no notes"),
    (line()[:14] + events(*sounds([60, 62], 2**27)), "longer than 5,000 bars"),
    (midi(events(*sounds([60, 62] * 25_001))), "more than 50,000 notes"),
    *((midi(events(*sounds(SCALE)), division=bytes(pair)), "SMPTE time") for pair in ((230, 40), (231, 0), (128, 0))),
]


@pytest.mark.parametrize(("data", "reason"), REFUSED)
def test_invalid_file_is_refused_with_a_reason(data, reason):
    with pytest.raises(ConversionError, match=reason):
        convert(data)


def test_damaged_files_are_refused_or_give_abc():
    draw = np.random.default_rng(0)
    whole = midi(events((0, midi_key(1, 1)), (0, midi_metre(6, 3)), *sounds(A_MINOR, 240)))
    for _ in range(500):
        data = np.frombuffer(whole, np.uint8).copy()
        data[draw.integers(len(data), size=3)] = draw.integers(256, size=3)
        try:
            abc = convert(data.tobytes())
        except ConversionError:
            continue
        assert not judge(abc).errors
