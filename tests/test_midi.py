"""MIDI becomes ABC: the pitches, lengths, bars, keys and metres of the file, or a reason why not."""

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
A_MINOR = [69, 71, 72, 74, 76, 74, 72, 71, 69, 68, 69, 71, 72, 71, 69, 69]


def convert(data: bytes) -> str:
    return midi_to_abc(data, "t")[0]


def body(data: bytes) -> str:
    return convert(data).partition("\nK:")[2].partition("\n")[2]


def line(*more: tuple[int, bytes], pitches: list[int] = SCALE, length: int = 480) -> bytes:
    return midi(events(*more, *sounds(pitches, length)))


# Keys


@pytest.mark.parametrize(
    ("signature", "key"),
    [
        (midi_key(1, 1), "Em"), (midi_key(-3, 1), "Cm"), (midi_key(7, 1), "A#m"), (midi_key(-7, 1), "Abm"),
        (midi_key(1), "G"), (midi_key(-7), "Cb"), (midi_key(7), "C#"), (midi_key(0, 1), "Am"),
    ],
)  # fmt: skip
def test_the_mode_of_a_key_signature_counts(signature, key):
    abc = convert(line((0, signature)))
    assert f"\nK:{key}\n" in abc
    assert judge(abc).pitches == SCALE


@pytest.mark.parametrize(
    "signature",
    [midi_key(8), midi_key(-8), midi_key(127), midi_key(-128, 1), midi_key(2, 2), meta(0x59, b"\x02"), meta(0x59, b"")],
)
def test_a_key_signature_without_meaning_is_ignored_and_the_key_follows_from_the_notes(signature):
    abc = convert(line((0, signature)))
    assert "\nK:D\n" in abc
    assert judge(abc).pitches == SCALE
    assert "\nK:D\n" in convert(line((0, midi_key(2)), (0, signature)))  # one that has a meaning stays


def test_without_a_key_signature_the_key_needs_the_fewest_accidentals():
    assert "\nK:Am\n" in convert(line(pitches=A_MINOR))
    assert "\nK:C\n" in convert(line(pitches=[60, 64, 67, 65, 62, 71, 69, 60]))
    assert "\nK:Bb\n" in convert(line(pitches=[70, 72, 74, 75, 77, 79, 81, 82]))


def test_accidentals_are_spelled_by_the_key():
    raised = [67, 69, 70, 72, 74, 75, 78, 79]  # the leading note of G minor is no G flat
    assert body(line((0, midi_key(-2, 1)), pitches=raised)) == "G2 A2 B2 c2|d2 e2 ^f2 g2|]\n"
    assert body(line((0, midi_key(0)), pitches=[60, 61, 63, 66, 68, 70, 60, 60])) == "C2 ^C2 _E2 ^F2|^G2 _B2 C2 C2|]\n"


def test_a_key_and_a_metre_that_change_are_written_where_they_change_in_every_voice():
    changes = [(0, midi_metre(4, 2)), (1920, midi_metre(3, 2)), (1920, midi_key(2)), (0, midi_key(0))]
    abc = convert(midi(events(*changes), events(*sounds([60, 62, 64, 65, 66, 67, 69])), events(*sounds([48] * 7))))
    voices = abc.partition("K:C\n")[2]
    assert voices == (
        "V:1\nC2 D2 E2 F2|[M:3/4][K:D]F2 G2 A2|]\nV:2\n[M:4/4][K:C]C,2 C,2 C,2 C,2|[M:3/4][K:D]=C,2 C,2 C,2|]\n"
    )
    assert judge(abc).bars_add_up


# Metres and bars


@pytest.mark.parametrize(
    ("beats", "power", "metre", "music"),
    [
        (6, 3, "6/8", "DEF GAB|cd|]\n"),
        (7, 3, "7/8", "D E F G A B c|d|]\n"),
        (2, 1, "2/2", "DE FG AB cd|]\n"),
        (3, 3, "3/8", "DEF|GAB|cd|]\n"),
        (5, 2, "5/4", "DE FG AB cd|]\n"),
    ],
)
def test_bars_and_beats_follow_the_metre(beats, power, metre, music):
    abc = convert(line((0, midi_metre(beats, power)), length=240))
    assert f"\nM:{metre}\n" in abc
    assert body(line((0, midi_metre(beats, power)), length=240)).replace("||", "|") == music
    assert judge(abc).bars_add_up


def test_a_metre_without_meaning_is_ignored():
    for broken in (midi_metre(0, 2), midi_metre(4, 9), meta(0x58, b"\x03")):
        assert "\nM:4/4\n" in convert(line((0, broken)))


def test_a_first_bar_that_is_shorter_by_its_metre_is_a_pickup():
    abc = convert(line((0, midi_metre(1, 2)), (480, midi_metre(4, 2)), pitches=[62, *SCALE]))
    assert "\nM:4/4\n" in abc
    assert body(line((0, midi_metre(1, 2)), (480, midi_metre(4, 2)), pitches=[62, *SCALE])).startswith(
        "D2|D2 E2 F2 G2|"
    )


def test_a_pickup_is_what_leaves_the_fewest_ties():
    notes, start = [], 0
    for pitch, length in [(62, 240), *[(67, 960), (69, 480)] * 4]:
        notes += sounds([pitch], length, start)
        start += length
    abc = convert(midi(events((0, midi_metre(3, 2)), *notes)))
    assert abc.endswith("D|G4 A2|G4 A2|G4 A2|\nG4 A2|]\n")


def test_silence_before_the_first_bar_with_a_note_is_left_out():
    assert body(midi(events((0, midi_key(2)), *sounds(SCALE, start=8 * 1920)))) == "D2 E2 F2 G2|A2 B2 c2 d2|]\n"


# Time


@pytest.mark.parametrize(
    ("frames", "ticks", "quarter"),
    [(24, 80, 960), (25, 40, 500), (30, 80, 1200), (29, 100, 1499)],  # 29: 29.97 frames a second
)
def test_smpte_time_is_read(frames, ticks, quarter):
    division = bytes([256 - frames, ticks])
    data = midi(events((0, midi_key(2)), *sounds(SCALE, quarter)), division=division)
    assert body(data) == "D2 E2 F2 G2|A2 B2 c2 d2|]\n"


def test_smpte_time_follows_the_tempo_wherever_it_changes():
    slow, fast = meta(0x51, (1_000_000).to_bytes(3)), meta(0x51, (500_000).to_bytes(3))
    notes = sounds([62, 64, 66, 67], 1000) + sounds([69, 71, 73, 74], 500, 4000)
    data = midi(events((0, midi_key(2)), (0, slow), (4000, fast), *notes), division=bytes([256 - 25, 40]))
    assert body(data) == "D2 E2 F2 G2|A2 B2 c2 d2|]\n"


@pytest.mark.parametrize("division", [bytes([256 - 26, 40]), bytes([256 - 25, 0]), b"\x80\x00"])
def test_smpte_time_of_no_known_kind_is_refused(division):
    with pytest.raises(ConversionError, match="SMPTE"):
        convert(midi(events(*sounds(SCALE)), division=division))


def test_what_was_played_unevenly_is_written_evenly():
    draw = np.random.default_rng(1)
    notes = []
    lengths = [480, 240, 240, 160, 160, 160, 480] * 4
    start = 0
    for index, length in enumerate(lengths):
        begin, end = start + int(draw.integers(0, 20)), start + int(length * 0.9)
        notes += [(begin, bytes([0x90, SCALE[index % 8], 80])), (end, bytes([0x80, SCALE[index % 8], 0]))]
        start += length
    music = body(midi(events((0, midi_key(2)), *notes)))
    assert music.split("|")[0] == "D2 EF (3GAB c2"
    assert judge(convert(midi(events((0, midi_key(2)), *notes)))).bars_add_up


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
    notes, start = [], 0
    for pitch, length in zip(SCALE, lengths, strict=False):
        notes += sounds([pitch], length, start)
        start += length
    assert body(midi(events((0, midi_key(2)), *notes))) == music


# Voices


def test_drums_are_left_out_and_counted():
    drums = events(*sounds([36] * 8, channel=9))
    abc, percussion = midi_to_abc(midi(events(*sounds(SCALE)), drums), "t")
    assert (judge(abc).pitches, percussion) == (SCALE, 1)
    held = events(*[event for event in sounds([36] * 8, channel=9) if event[1][0] == 0x99])  # nobody lets go of a drum
    assert midi_to_abc(midi(events(*sounds(SCALE)), held), "t")[0] == abc
    assert "V:" not in abc
    with pytest.raises(ConversionError, match="no notes"):
        convert(midi(drums))


def test_channels_are_voices_in_a_file_of_one_track_too():
    both = events((0, midi_key(0)), *sounds([60, 62, 64, 65]), *sounds([48, 50, 52, 53], channel=3))
    assert body(midi(both, kind=0)) == "V:1\nC2 D2 E2 F2|]\nV:2\nC,2 D,2 E,2 F,2|]\n"


def test_a_voice_that_ends_early_rests_to_the_end():
    data = midi(events((0, midi_key(0)), *sounds([60] * 8)), events(*sounds([48] * 4)))
    assert body(data).endswith("V:2\nC,2 C,2 C,2 C,2|z8|]\n")


def test_notes_that_overlap_are_tied_and_keep_their_lengths():
    held = [(0, b"\x90\x30\x50"), (1920, b"\x80\x30\x00"), *sounds([60, 62, 64, 65])]
    assert body(midi(events((0, midi_key(0)), *held))) == "[C,-C]2 [C,-D]2 [C,-E]2 [C,F]2|]\n"


def test_the_same_note_struck_again_while_it_sounds_begins_anew():
    twice = [(0, b"\x90\x3c\x50"), (480, b"\x90\x3c\x50"), (600, b"\x80\x3c\x00"), (960, b"\x80\x3c\x00")]
    assert body(midi(events((0, midi_key(0)), *twice, *sounds([62, 64], start=960)))) == "C2 C2 D2 E2|]\n"
    unison = [*sounds([60, 62, 64, 65]), *sounds([60, 62, 64, 65])]
    assert body(midi(events((0, midi_key(0)), *unison))) == "C2 D2 E2 F2|]\n"


def test_a_note_over_a_bar_line_is_tied():
    data = midi(
        events(
            (0, midi_key(2)),
            (0, midi_metre(4, 2)),
            *sounds([62], 960),
            *sounds([66], 1920, 960),
            *sounds([69], 960, 2880),
        )
    )
    assert "F" in body(data)
    assert judge(convert(data)).pitches == [62, 66, 69]
    assert judge(convert(data)).bars_add_up


# The file


def test_running_status_and_zero_velocity_are_understood():
    track = b"\x00\xff\x59\x02\x02\x00\x00\x90"
    for pitch in SCALE:
        track += bytes([pitch, 80]) + quantity(480) + bytes([pitch, 0]) + b"\x00"
    assert body(midi(chunk(track + b"\xff\x2f\x00"), kind=0)) == "D2 E2 F2 G2|A2 B2 c2 d2|]\n"


def test_other_events_and_chunks_say_nothing():
    other = [
        (0, b"\xc0\x05"), (0, b"\xb0\x07\x64"), (0, b"\xe0\x00\x40"), (0, b"\xf0\x03\x7e\x7f\xf7"), (0, b"\xd0\x11"),
        (480, meta(5, b"C2 D2|E2 la")), (0, meta(3, b"Name")), (960, meta(0x7F, b"\x00\x01")), (0, b"\xa0\x3c\x01"),
    ]  # fmt: skip
    plain = line((0, midi_key(2)))
    assert body(midi(b"XFIH\x00\x00\x00\x02ab", events((0, midi_key(2)), *other, *sounds(SCALE)), count=1)) == body(
        plain
    )
    assert body(b"RIFF\x00\x00\x00\x00RMIDdata\x00\x00\x00\x00" + plain) == body(plain)
    assert body(plain + b"\x00" * 30) == body(plain)


def test_a_track_without_its_end_is_read_where_it_ends_with_an_event():
    data = midi(events((0, midi_key(2)), *sounds(SCALE), end=False))
    assert body(data) == "D2 E2 F2 G2|A2 B2 c2 d2|]\n"


def test_a_file_of_several_songs_is_several_tunes():
    abc = convert(midi(events(*sounds(SCALE)), events(*sounds([60] * 8)), kind=2))
    first, second = abc.split("\nX:2\n")
    assert (judge(first).pitches, judge("X:2\n" + second).pitches) == (SCALE, [60] * 8)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
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
        (line(length=480)[:14] + events(*sounds([60, 62], 2**27)), "longer than 5,000 bars"),
        (midi(events(*sounds([60, 62] * 25_001))), "more than 50,000 notes"),
    ],
)  # fmt: skip
def test_what_cannot_be_read_whole_is_refused_with_a_reason(data, reason):
    with pytest.raises(ConversionError) as error:
        convert(data)
    assert str(error.value) == reason


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


@pytest.mark.skipif(not shutil.which("abc2midi"), reason="abcmidi is not installed")
def test_a_tune_played_by_abc2midi_comes_back(tmp_path: Path):
    tune = "X:1\nM:6/8\nL:1/8\nK:Ador\nE|ABA Bcd|e2A ABG|(3EFG A2 B3/2A/2G|ABA Bcd|e2A ABG|(3EFG A2 G3|A3 A2|]\n"
    (tmp_path / "a.abc").write_text(tune)
    subprocess.run(["abc2midi", "a.abc", "-o", "a.mid"], cwd=tmp_path, check=True, stdout=subprocess.DEVNULL)
    back = judge(convert((tmp_path / "a.mid").read_bytes()))
    assert back.pitches == judge(tune).pitches
    assert (back.key, back.metre, back.bars, back.bars_add_up) == ("G", "6/8", 8, True)
