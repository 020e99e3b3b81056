"""Scores become ABC in parallel; one that hangs or crashes its process costs only itself."""

import os
import signal
import time
from collections import Counter
from functools import partial

import pytest
from made_scores import events, key, measure, metre, midi, midi_key, musicxml, note, sounds
from made_sources import read

from cli import UserError
from preprocessing import conversion
from preprocessing.abc_writing import ConversionError
from preprocessing.conversion import Conversion, Score, convert_scores
from preprocessing.formats import FORMATS, suffix_of
from preprocessing.midi import midi_to_abc
from preprocessing.musicxml import musicxml_to_abc
from preprocessing.notation import judge

SCALE = [62, 64, 66, 67, 69, 71, 73, 74]
MIDI = midi(events((0, midi_key(2)), *sounds(SCALE)))
G_2_4 = key(1) + metre((2, 4))
MUSICXML = musicxml(measure(1, note("G", 4, 6) + note("F", 5, 6), G_2_4))
DRUMS = measure(1, "<note><unpitched/><duration>12</duration></note>", G_2_4)
SLOW = musicxml(measure(1, note("C", 5, 6) * 20_000, G_2_4))  # seconds of work


def score(name: str, data: bytes) -> Score:
    known = FORMATS[suffix_of(name)]
    return Score(name, known.kind, known.to_abc, data)


def convert(*scores: Score, workers: int = 1) -> list[Conversion]:
    return [item for item in convert_scores(scores, workers) if isinstance(item, Conversion)]


def test_title_is_the_scores_or_the_files_name():
    named, titled = convert(score("a/My_Tune_100%.mid", MIDI), score("x.xml", MUSICXML))
    assert named.abc == "X:1\nT:My Tune 100%\nM:4/4\nL:1/8\nK:D\nD2 E2 F2 G2|A2 B2 c2 d2|]\n"
    assert titled.abc == "X:1\nT:A Title\nM:2/4\nL:1/8\nK:G\nG2 =f2|]\n"


def test_unreadable_scores_are_failures_with_a_reason_and_order_is_kept():
    scores = [
        (".mxl", b"x" * (conversion.MAX_SCORE + 1), "larger than 10 MB"),
        (".xml", MUSICXML, None),
        (".xml", b"<html>no score</html>", "XML that is no score"),
        (".xml", b"<score-partwise>", "not readable"),
        (".mid", MIDI[:-1], "cut short"),
        (".krn", b"**kern\n*k[f#]\n=1\n4g\n4a\n==\n*-\n", None),
        (".xml", musicxml(measure(1, note("G", 4, 12), G_2_4), DRUMS), None),
        (".midi", MIDI, None),
    ]
    given = [score(f"{number}{suffix}", data) for number, (suffix, data, _) in enumerate(scores)]
    first, *results, last = convert_scores(["before", *given, "after"], workers=2)
    assert (first, last) == ("before", "after")
    assert [result.name for result in results] == [item.name for item in given]
    assert [result.failure for result in results] == [reason for _, _, reason in scores]
    assert [result.percussion for result in results] == [0, 0, 0, 0, 0, 0, 1, 0]
    assert judge(results[5].abc).pitches == [67, 69]


def test_small_file_that_becomes_an_endless_tune_is_refused():
    drones = [
        event for pitch in range(128) for event in ((0, bytes([0x90, pitch, 80])), (10**6, bytes([0x80, pitch, 0])))
    ]
    (result,) = convert(score("a.mid", midi(events(*drones, *sounds([60, 62] * 2_000, 240, channel=0)))))
    assert (result.abc, result.failure) == ("", "longer than 1 MB as ABC")


def test_process_that_hangs_or_crashes_is_started_again(monkeypatch):
    reader = conversion.ScoreReader()
    try:
        assert "K:D" in reader.read(midi_to_abc, MIDI, "x")[0]
        for noticed in (0.0, 0.5):  # before the score is sent, or only then
            os.kill(reader.pid, signal.SIGKILL)
            time.sleep(noticed)
            with pytest.raises(ConversionError, match="crashed"):
                reader.read(midi_to_abc, MIDI, "x")
            assert "K:D" in reader.read(midi_to_abc, MIDI, "x")[0]
        monkeypatch.setattr(conversion, "TIME_LIMIT", 0.5)
        with pytest.raises(ConversionError, match="took too long"):
            reader.read(musicxml_to_abc, SLOW, "x")
        assert reader.pool is None
    finally:
        reader.stop()


def test_abandoned_reading_ends_its_conversions():
    items = convert_scores(["before", *(score(f"{i}.xml", SLOW) for i in range(100))], workers=1)
    assert next(items) == "before"
    started = time.monotonic()
    items.close()
    assert time.monotonic() - started < 10


def test_without_music21_an_error_names_it():
    with pytest.raises(UserError, match="music21"):
        convert(Score("a.xml", "musicxml", partial(__import__, "no_such_library"), MUSICXML))


def test_scores_of_a_folder_are_read_in_its_order_and_counted_by_kind(tmp_path):
    folder = tmp_path / "mixed"
    (folder / "sub").mkdir(parents=True)
    (folder / "a.abc").write_text("X:1\nK:D\nd2 f2 a2|\n")
    (folder / "b.mid").write_bytes(midi(events((0, midi_key(2)), *sounds(SCALE)), events(*sounds([36], channel=9))))
    (folder / "c.mid").write_bytes(b"no MIDI")
    (folder / "sub" / "d.abc").write_text("X:1\nK:D\nd2 f2 a2|\n")
    blocks, reading = read(folder, workers=2)
    assert [block.file for block in blocks] == ["a.abc", "b.mid", "sub/d.abc"]
    assert judge(blocks[1].content).pitches == SCALE
    counts = {"tried": 2, "converted": 1, "not readable": 1, "percussion parts left out": 1}
    assert reading.converted == {"midi": Counter(counts)}
