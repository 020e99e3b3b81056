"""Scores become ABC: the pitches, bars, key and metre of the score; a converter that fails costs its file alone."""

import os
import shutil
import signal
import stat
import subprocess
import time
import zipfile
from collections import Counter
from pathlib import Path

import pytest

from door import DoorError
from preprocessing import conversion
from preprocessing.conversion import Conversion, Score, convert_scores
from preprocessing.notation import judge
from preprocessing.sources import Reading, decode, fingerprint, read_source

needs_abcmidi = pytest.mark.skipif(
    not (shutil.which("midi2abc") and shutil.which("abc2midi")), reason="abcmidi is not installed"
)

TUNE = "X:1\nT:Tune\nM:3/4\nL:1/8\nK:D\nd2 f2 a2|gf e2 c2|d^d e2 =f2|d6|\n"


def midi(tmp_path: Path, abc: str = TUNE) -> bytes:
    (tmp_path / "a.abc").write_text(abc)
    command = ["abc2midi", "a.abc", "-o", "a.mid"]
    subprocess.run(command, cwd=tmp_path, check=True, stdout=subprocess.DEVNULL)
    return (tmp_path / "a.mid").read_bytes()


def convert(*scores: Score, workers: int = 1) -> list[Conversion]:
    return [item for item in convert_scores(scores, workers) if isinstance(item, Conversion)]


def note(step: str, octave: int, duration: int, extra: str = "", alter: int = 0) -> str:
    altered = f"<alter>{alter}</alter>" if alter else ""
    pitch = f"<pitch><step>{step}</step>{altered}<octave>{octave}</octave></pitch>"
    return f"<note>{pitch}<duration>{duration}</duration>{extra}</note>"


def musicxml(*parts: str) -> bytes:
    names = "".join(f'<score-part id="P{i}"><part-name/></score-part>' for i in range(len(parts)))
    bodies = "".join(f'<part id="P{i}">{part}</part>' for i, part in enumerate(parts))
    title = "<work><work-title>A  Title</work-title></work>"
    return f'<score-partwise version="4.0">{title}<part-list>{names}</part-list>{bodies}</score-partwise>'.encode()


def measure(number: int, content: str, fields: str = "") -> str:
    attributes = f"<attributes><divisions>6</divisions>{fields}</attributes>" if fields else ""
    return f'<measure number="{number}">{attributes}{content}</measure>'


G_2_4 = "<key><fifths>1</fifths></key><time><beats>2</beats><beat-type>4</beat-type></time>"
TRIPLET = (
    "<time-modification><actual-notes>3</actual-notes><normal-notes>2</normal-notes></time-modification>"
    "<type>eighth</type>"
)
MELODY = (
    measure(1, note("G", 4, 6) + note("F", 5, 3, alter=1) + note("F", 5, 3), G_2_4)
    + measure(2, note("G", 4, 2, TRIPLET) + note("A", 4, 2, TRIPLET) + note("B", 4, 2, TRIPLET) + note("C", 6, 6))
    + measure(3, "<harmony><root><root-step>D</root-step></root><kind>minor</kind></harmony>" + note("D", 3, 12))
    + measure(4, "<note><rest/><duration>6</duration></note>" + note("G", 4, 6))
)


@pytest.fixture
def fake_midi2abc(tmp_path, monkeypatch):
    def install(script: str) -> None:
        folder = tmp_path / "bin"
        folder.mkdir()
        program = folder / "midi2abc"
        program.write_text(f"#!/bin/sh\n{script}\n")
        program.chmod(program.stat().st_mode | stat.S_IXUSR)
        monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")

    return install


# MIDI


@needs_abcmidi
def test_a_midi_file_keeps_its_notes_key_and_metre_and_has_its_name_for_a_title(tmp_path):
    (result,) = convert(Score("folder/My_Tune_100%.mid", ".mid", midi(tmp_path)))
    assert (result.kind, result.failure) == ("midi", None)
    assert result.abc.startswith("X:1\nT:My Tune 100%\nM:3/4\nL:1/8\n")
    verdict, wanted = judge(result.abc), judge(TUNE)
    assert verdict.bars_add_up
    assert (verdict.pitches, verdict.key, verdict.bars) == (wanted.pitches, "D", 4)
    assert result.abc.endswith("|]\n")
    assert result.abc.count("%") == 1
    assert "\\" not in result.abc


@needs_abcmidi
def test_drums_are_left_out_of_a_midi_file(tmp_path):
    voices = "V:1\nCDEF GABc|c8|\nV:2\n%%MIDI channel 10\nDDDD DDDD|D8|\n"
    (result,) = convert(Score("a.mid", ".mid", midi(tmp_path, f"X:1\nM:4/4\nL:1/8\nK:C\n{voices}")))
    assert "V:" not in result.abc
    assert judge(result.abc).pitches == [60, 62, 64, 65, 67, 69, 71, 72, 72]
    drums = "X:1\nM:4/4\nL:1/8\nK:C\nV:1\n%%MIDI channel 10\nDDDD DDDD|\nV:2\n%%MIDI channel 10\nDDDD DDDD|\n"
    assert convert(Score("a.mid", ".mid", midi(tmp_path, drums)))[0].failure == "no notes"


@needs_abcmidi
def test_words_in_a_midi_file_take_no_notes_with_them(tmp_path):
    music = "X:1\nT:Song\nM:2/4\nL:1/8\nK:G\nG2 GA|B2 d2|c2 ec|B2 dB|\n{}A2 A2|A2 BA|G4|G4|]\n"
    plain, sung = (music.format(words) for words in ("", "w:la la lac ec B2 dB this is\n"))
    (result,) = convert(Score("a.mid", ".mid", midi(tmp_path, sung)))
    assert judge(result.abc).pitches == judge(plain).pitches
    assert judge(result.abc).bars == 8


@needs_abcmidi
def test_a_corrupt_midi_file_gives_no_tune(tmp_path):
    whole = midi(tmp_path)
    for data in (b"", b"not MIDI", whole[:30], whole[:14] + b"\xff" * 200, b"MThd" + bytes(range(200))):
        (result,) = convert(Score("a.mid", ".mid", data))
        assert result.abc == ""
        assert result.failure in ("no notes", "not readable", "the converter crashed")


@pytest.mark.parametrize(
    ("script", "failure"),
    [
        ("sleep 600", "took too long"),
        ("kill -SEGV $$", "the converter crashed"),
        ("exit 3", "not readable"),
        ("head -c 1000 /dev/urandom", "no notes"),
        ("echo X: 1; echo K:C; echo V:1; echo z4", "no notes"),
        ("exec >&-; sleep 600", "took too long"),
        ("yes", "the converter printed without end"),
    ],
)
def test_a_converter_that_fails_costs_its_file_alone(fake_midi2abc, monkeypatch, script, failure):
    monkeypatch.setattr(conversion, "TIME_LIMIT", 1.0)
    choice = f'case "$(cat $file)" in good) printf "X: 1\\nK:C\\nCDEF|" ;; *) {script} ;; esac'
    fake_midi2abc(f'for file in "$@"; do :; done; {choice}')  # the file is the last argument
    bad, good = convert(Score("a.mid", ".mid", b"bad"), Score("b.mid", ".mid", b"good"))
    assert bad == Conversion("a.mid", "midi", failure=failure)
    assert judge(good.abc).pitches == [60, 62, 64, 65]


def test_a_reading_that_is_given_up_ends_its_conversions(fake_midi2abc, monkeypatch):
    monkeypatch.setattr(conversion, "TIME_LIMIT", 0.5)
    fake_midi2abc("sleep 600")
    items = convert_scores(["before", *(Score(f"{i}.mid", ".mid", b"") for i in range(100))], workers=1)
    assert next(items) == "before"
    started = time.monotonic()
    items.close()
    assert time.monotonic() - started < 10


def test_without_midi2abc_one_line_names_the_package(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(DoorError, match="apt install abcmidi"):
        convert(Score("a.mid", ".mid", b"MThd"))


# MusicXML and kern


def test_a_score_keeps_its_bars_key_metre_tuplets_chord_symbols_and_title():
    (result,) = convert(Score("x.musicxml", ".musicxml", musicxml(MELODY)))
    assert result.failure is None
    assert result.abc == ('X:1\nT:A Title\nM:2/4\nL:1/8\nK:G\nG2 f=f|(3GAB c\'2|"Dm"D,4|z2 G2|]\n')


def test_repeats_endings_ties_chords_graces_overlays_and_a_bar_cut_in_two_are_written():
    tied = '<tie type="{0}"/><notations><tied type="{0}"/></notations>'
    start = '<barline location="left"><repeat direction="forward"/></barline>'
    back = '<barline location="right">{}<repeat direction="backward"/></barline>'
    ending = '<ending number="{}" type="{}"/>'
    chord = note("C", 4, 6) + note("E", 4, 6).replace("<note>", "<note><chord/>")
    grace = "<note><grace/><pitch><step>B</step><octave>4</octave></pitch></note>"
    overlay = "<backup><duration>12</duration></backup>" + note("C", 3, 12, "<voice>2</voice>")
    part = (
        measure(1, start + chord + note("A", 4, 6, tied.format("start")), G_2_4.replace("1</fifths>", "0</fifths>"))
        + measure(2, note("A", 4, 6, tied.format("stop")) + grace + note("C", 5, 6))
        + f'<measure number="3">{note("F", 4, 6, alter=1)}</measure>'
        + f'<measure number="X1" implicit="yes">{note("F", 4, 6)}</measure>'
        + measure(4, f'<barline location="left">{ending.format(1, "start")}</barline>' + note("D", 4, 12))[:-10]
        + back.format(ending.format(1, "stop"))
        + "</measure>"
        + measure(
            5, note("E", 4, 12, "<voice>1</voice>") + overlay, "<time><beats>2</beats><beat-type>4</beat-type></time>"
        )
    )
    (result,) = convert(Score("x.musicxml", ".musicxml", musicxml(part)))
    assert result.failure is None
    body = result.abc.split("K:C\n")[1]
    assert body == "|:[CE]2 A2-|A2 {B}c2|^F2 =F2|[1 D4:|\nE4&C,4|]\n"


def test_each_voice_states_its_metre_again_where_another_has_changed_it():
    change = "<time><beats>3</beats><beat-type>4</beat-type></time>"
    part = measure(1, note("G", 4, 12), G_2_4) + measure(2, note("A", 4, 18), change)
    (result,) = convert(Score("x.musicxml", ".musicxml", musicxml(part, part)))
    assert result.abc.split("K:G\n")[1] == "V:1\nG4|[M:3/4]A6|]\nV:2\n[M:2/4]G4|[M:3/4]A6|]\n"
    assert judge(result.abc).bars_add_up


def test_scores_that_cannot_be_read_cost_themselves_and_order_is_kept(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.mxl", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("score.xml", musicxml(MELODY))
    kern = b"**kern\n*M3/4\n*k[f#]\n=1\n4g\n4a\n4f#\n=2\n2.g\n==\n*-\n"
    drums = measure(1, "<note><unpitched/><duration>12</duration></note>", G_2_4)
    scores = [
        Score("1.mxl", ".mxl", (tmp_path / "a.mxl").read_bytes()),
        Score("2.xml", ".xml", b"<html>no score</html>"),
        Score("3.krn", ".krn", kern),
        Score("4.xml", ".xml", musicxml(MELODY, drums)),
        Score("5.xml", ".xml", musicxml(drums)),
        Score("6.mxl", ".mxl", b"x" * (conversion.MAX_SCORE + 1)),
    ]
    items = list(convert_scores(["before", *scores, "after"], workers=2))
    assert (items[0], items[-1]) == ("before", "after")
    results = [item for item in items if isinstance(item, Conversion)]
    assert [result.name for result in results] == [score.name for score in scores]
    assert [result.failure for result in results] == [None, "not readable", None, None, "no notes", "larger than 10 MB"]
    assert judge(results[2].abc).pitches == [67, 69, 66, 67]
    assert results[0].abc == results[3].abc


def test_a_score_reader_that_hangs_or_crashes_is_started_anew(tmp_path, monkeypatch):
    reader = conversion.ScoreReader()
    path = tmp_path / "a.xml"
    path.write_bytes(musicxml(MELODY))
    try:
        assert "K:G" in reader.read(path, "x")
        for noticed in (0.0, 0.5):  # before the score is sent, or only then
            os.kill(reader.pid, signal.SIGKILL)
            time.sleep(noticed)
            with pytest.raises(conversion.ConversionError, match="crashed"):
                reader.read(path, "x")
            assert "K:G" in reader.read(path, "x")
        monkeypatch.setattr(conversion, "TIME_LIMIT", 0.5)
        os.mkfifo(tmp_path / "pipe.xml")
        with pytest.raises(conversion.ConversionError, match="took too long"):
            reader.read(tmp_path / "pipe.xml", "x")
        assert reader.pool is None
    finally:
        reader.stop()


@needs_abcmidi
def test_scores_of_a_folder_stand_in_its_order_and_are_counted_by_kind(tmp_path):
    folder = tmp_path / "mixed"
    (folder / "sub").mkdir(parents=True)
    (folder / "a.abc").write_text(TUNE)
    (folder / "b.mid").write_bytes(midi(tmp_path))
    (folder / "c.mid").write_bytes(b"no MIDI")
    (folder / "sub" / "d.abc").write_text(TUNE)
    reading = Reading()
    blocks = list(read_source(str(folder), fingerprint(str(folder)), reading, None, workers=2))
    assert [block.file for block in blocks] == ["a.abc", "b.mid", "sub/d.abc"]
    assert judge(decode(blocks[1])).pitches == judge(TUNE).pitches
    assert reading.converted == {"midi": Counter({"tried": 2, "converted": 1, "not readable": 1})}
