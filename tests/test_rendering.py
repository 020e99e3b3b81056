"""Rendering: sound and score are those of the tune, and a hostile tune reaches no file."""

import io
import os
import re
import shutil
import signal
import tempfile
import time
import wave
from contextlib import suppress
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st

from generation import rendering
from generation.rendering import (
    MAX_CHARACTERS,
    PROGRAM,
    SAMPLE_RATE,
    RenderingError,
    describe_exit,
    missing_programs,
    read_notes,
    render,
    run_confined,
    sanitize,
    to_midi,
    to_svg,
    to_wav,
)
from preprocessing.notation import judge

MISSING = missing_programs()
needs = {kind: pytest.mark.skipif(kind in MISSING, reason=MISSING.get(kind, "")) for kind in ("svg", "wav")}

TUNE = "X:7\nT:Scale\nM:4/4\nL:1/4\nQ:1/4=60\nK:G\nGABc|[GBd]2 z2|(3efg a2-a|\n"
DIRECTIVES = [
    "%%abc-include {file}",
    "  %%abc-include {file}",
    "%%EPS {file}",
    "%%postscript (x) run",
    "%%begintext\n%%abc-include {file}\n%%endtext",
    "%%MIDI program 40",
    "I:abc-include {file}",
    "I: MIDI=program 40",
    "[I:abc-include {file}]",
    "[[I:abc-include x]I:abc-include {file}]",
    "F:{file}",
    "F::{file}",
    "m: x = {file}",
    "U: Z = !trill!",
    "c d % {file}\\\r%%abc-include {file}",
]


@pytest.mark.parametrize("directive", DIRECTIVES)
def test_no_program_sees_a_directive(directive):
    fields, body = TUNE.split("K:G\n")
    for text in (
        f"{directive.format(file='/secret')}\n{TUNE}",
        f"{fields}{directive.format(file='/secret')}\nK:G\n{body}",
        f"{TUNE}{directive.format(file='/secret')}\n",
    ):
        seen = sanitize(text)
        assert "%" not in seen
        assert not re.search(r"^\s*[IFUm]:|\[[IFUm]:|^%", seen, re.MULTILINE), seen
        assert "GABc|" in seen


@given(st.text(st.sampled_from("[]IFKVXm:%\\\n\r\0 |Ga\u2028é\ud800")))
def test_sanitizing_twice_changes_nothing_more(text):
    seen = sanitize(text)
    assert sanitize(seen) == seen
    assert seen.startswith("X:1\n")
    assert not re.search(r"^\s*[IFXm]:|\[[IFXm]:|%|\0", seen.removeprefix("X:1"), re.MULTILINE)
    seen.encode()


def test_the_music_of_a_tune_is_kept():
    tune = (
        "X:1\nT:A\nR:jig\nM:6/8\nL:1/8\nK:D\nV:1 clef=treble\n|:d:|\n"
        'd:|f>g "Am"[M:4/4]{c}d!trill!e [V:1] A,2 (3abc \\\nd|\nw:la la\n'
    )
    before, after = judge(tune), judge(sanitize(tune))
    assert (after.key, after.metre, after.pitches) == (before.key, before.metre, before.pitches)
    assert "w:la la" in sanitize(tune)
    continued = tune + "w:la\\\n  a bad cab\\\nbed\nc8|\n"
    assert judge(sanitize(continued)).pitches == [*before.pitches, 73]


def test_a_tune_that_is_too_long_is_refused():
    with pytest.raises(RenderingError, match=r"^the tune has 20,001 characters: "):
        sanitize("C" * (MAX_CHARACTERS + 1))


# Confinement


def test_a_program_sees_only_its_folder_and_none_of_our_environment(monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "secret")
    script = "print(os.getcwd(), sorted(os.listdir()), dict(os.environ)); open('b', 'w').write('x')"
    code, printed, output = run_confined(script, [], {"a": b"1"}, "b")
    assert (code, output) == (0, b"x")
    assert "['a', 'printed']" in printed
    assert "secret" not in printed
    assert not Path(printed.split()[0]).exists()


@pytest.mark.parametrize(
    ("script", "how"),
    [
        ("os.kill(os.getpid(), signal.SIGSEGV)", "crashes (SIGSEGV)"),
        ("open('big', 'wb').write(bytes(2**26 + 1))", "writes more than 64 MiB"),
        ("sys.exit(3)", "fails (exit code 3)"),
    ],
)
def test_how_a_program_failed_is_described(script, how):
    assert describe_exit(run_confined(script, [], {}, "")[0]) == how


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="only Linux limits the address space")
def test_a_program_gets_no_more_memory_than_is_allowed():
    code, printed, _ = run_confined("bytes(2**31)", [], {}, "")
    assert code == 1
    assert "MemoryError" in printed


def test_a_system_without_limits_gives_a_warning(monkeypatch):
    monkeypatch.setattr(rendering, "resource", None)
    with pytest.warns(UserWarning, match="limit"):
        code, _, made = run_confined("open('b', 'wb').write(bytes(8))", [], {}, "b")
    assert (code, made) == (0, bytes(8))


def test_a_program_that_hangs_is_killed_with_what_it_started(monkeypatch):
    monkeypatch.setattr(rendering, "SECONDS", 0.5)
    script = "import subprocess; print(subprocess.Popen(['sleep', '60']).pid, flush=True); signal.pause()"
    code, printed, _ = run_confined(script, [], {}, "")
    assert code == -signal.SIGKILL
    assert "takes longer" in describe_exit(code)
    with suppress(psutil.NoSuchProcess):
        started = psutil.Process(int(printed))
        for _ in range(100):
            if started.status() == psutil.STATUS_ZOMBIE:
                return
            time.sleep(0.05)
        pytest.fail(f"still {started.status()}")


# MIDI


def midi(*tracks, division=480):
    header = b"MThd" + (6).to_bytes(4) + (1).to_bytes(2) + len(tracks).to_bytes(2) + division.to_bytes(2)
    return header + b"".join(b"MTrk" + len(track).to_bytes(4) + track for track in tracks)


def test_notes_follow_tempo_changes_and_drums_are_left_out():
    tempos = b"\x00\xff\x51\x03\x0f\x42\x40" + b"\x83\x60\xff\x51\x03\x07\xa1\x20" + b"\x00\xff\x2f\x00"
    track = (
        b"\x00\x90\x3c\x40"  # C begins
        b"\x87\x40\x3c\x00"  # and ends after 960 ticks, half of them at 1 s a quarter: running status, velocity 0
        b"\x00\xc0\x05\x00\x99\x23\x40"  # a program, a drum
        b"\x00\x90\x40\x40\x83\x60\x80\x40\x40\x00\xff\x2f\x00"
    )
    assert read_notes(midi(tempos, track)) == [pytest.approx((0, 1.5, 60)), pytest.approx((1.5, 0.5, 64))]


@pytest.mark.parametrize("data", [b"", b"RIFF", midi(b"\x00\x90\x3c")])
def test_a_damaged_midi_file_is_refused(data):
    with pytest.raises(RenderingError):
        read_notes(data)


def test_the_notes_of_a_tune_sound_at_their_times():
    notes = read_notes(to_midi(TUNE))
    assert [pitch for *_, pitch in notes] == [67, 69, 71, 72, 67, 71, 74, 76, 78, 79, 81]
    starts = [0, 1, 2, 3, 4, 4, 4, 8, 8 + 2 / 3, 8 + 4 / 3, 10]  # abc2midi spreads a chord a little
    assert [start for start, *_ in notes] == pytest.approx(starts, abs=0.05)
    assert notes[-1][1] == pytest.approx(3, abs=0.05)  # tied


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        ("R:slip jig\nM:9/8", 2 * 60 / 112),  # six eighths are two beats of three
        ("R:Reel\nM:C|", 6 / 8 * 60 / 50),  # of 50 bars a minute
        ("M:2/2", 1.5 * 60 / 110),
        ("M:none", 3 * 60 / 110),
    ],
)
def test_a_tune_without_a_tempo_gets_that_of_its_dance_or_metre(header, seconds):
    start, length, _ = read_notes(to_midi(f"X:1\n{header}\nL:1/8\nK:C\nCDEFGA\n"))[-1]
    assert start + length == pytest.approx(seconds, rel=0.02)


@pytest.mark.parametrize("text", ["", "X:1\nK:C\n", "X:1\nM:4/4\nCDEF|\n", "not ABC at all"])
def test_a_tune_without_notes_has_no_midi(text):
    with pytest.raises(RenderingError, match=r"^abc2midi "):
        to_midi(text)


def test_a_tune_cannot_include_a_file():
    command = [rendering.abc2midi(), "tune.abc", "-o", "tune.mid"]
    with tempfile.NamedTemporaryFile("w", suffix=".abc") as other:  # abc2midi cuts longer paths than these
        other.write("X:9\nT:LEAKED\nM:4/4\nL:1/4\nK:C\nCDEF|\n")
        other.flush()
        text = f"%%abc-include {other.name}\n{TUNE}"
        assert b"LEAKED" in run_confined(PROGRAM, command, {"tune.abc": text.encode()}, "tune.mid")[2]
        assert b"LEAKED" not in to_midi(text)


def test_midi_needs_no_system_program(monkeypatch):
    notes = np.array(read_notes(to_midi(TUNE)))
    monkeypatch.setattr(shutil, "which", lambda _: None)
    assert "symusic" in rendering.abc2midi()
    np.testing.assert_allclose(read_notes(to_midi(TUNE)), notes, atol=0.05)


@needs["svg"]
def test_a_score_has_all_notes_and_loads_and_runs_nothing():
    score = to_svg(TUNE.rstrip("|\n") + "|g4\nw: <script>alert(1)</script> & </svg>\n")
    assert score.startswith('<svg style="background:white" ')
    root = ElementTree.fromstring(score)
    assert [element.get("class") for element in root.iter()].count("note") == 13  # also in the last bar
    assert root.get("viewBox")
    assert not [element for element in root.iter() if element.tag.endswith(("script", "image", "foreignObject"))]
    links = [value for element in root.iter() for name, value in element.items() if name.endswith("href")]
    assert links
    assert all(link.startswith("#") for link in links)


@needs["svg"]
def test_a_long_tune_stays_on_one_page_and_one_without_notes_has_no_score():
    root = ElementTree.fromstring(to_svg("X:1\nM:4/4\nL:1/8\nK:C\n" + "CDEF GABc|\n" * 80))
    assert [element.get("class") for element in root.iter()].count("note") == 640
    with pytest.raises(RenderingError, match=r"^verovio "):
        to_svg("X:1\nK:C\n")


@needs["wav"]
def test_the_sound_is_as_long_as_the_tune():
    played = to_midi(TUNE)
    with wave.open(io.BytesIO(to_wav(played))) as sound:
        assert (sound.getnchannels(), sound.getsampwidth(), sound.getframerate()) == (1, 2, SAMPLE_RATE)
        samples = np.frombuffer(sound.readframes(sound.getnframes()), dtype="<i2")
    start, length, _ = read_notes(played)[-1]
    assert start + length < len(samples) / SAMPLE_RATE < start + length + 6
    assert 1000 < np.abs(samples.astype(int)).max() < 32767
    with pytest.raises(RenderingError):
        to_wav(midi(b"\x00\xff\x2f\x00"))


def test_missing_programs_are_named_with_their_installation_and_the_rest_is_rendered(monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda _: None)
    monkeypatch.setattr(rendering.importlib.util, "find_spec", lambda _: None)
    missing = missing_programs()
    assert list(missing) == ["svg", "wav"]
    assert all(re.fullmatch(r"no .* is missing \((pip|apt) install .*\)", line) for line in missing.values())
    files, errors = render(TUNE)
    assert (list(files), errors) == (["mid"], [])


@pytest.mark.skipif(bool(MISSING), reason="; ".join(MISSING.values()))
def test_a_tune_is_rendered_in_every_format_or_the_errors_are_returned():
    files, errors = render(TUNE)
    assert (list(files), errors) == (["mid", "svg", "wav"], [])
    files, errors = render("X:1\nK:C\n")
    assert files == {}
    assert [error.split()[0] for error in errors] == ["abc2midi", "verovio"]


BROKEN = [
    "[[[[" * 1000,
    "C1000000 Z100000 c/9999999",
    "(9:9:9" * 200,
    "\nV:".join(f"{i}\nCDEF|" for i in range(300)),
    "{" * 500 + "}" * 500,
    "CDEF|&&&&" * 50,
    "\nP:((((A9)9)9)9)9\nCDEF|",
    "[M:1/0][L:1/0]C|" * 20,
    "[1[2[3:|||:::|" * 50,
]


@pytest.mark.parametrize("body", BROKEN, ids=range(len(BROKEN)))
def test_broken_music_gives_a_file_or_a_one_line_error(body):
    files, errors = render(f"X:1\nM:4/4\nL:1/8\nK:C\n{body}\n", ["mid", "svg"])
    assert len(files) + len(errors) == 2 - len(MISSING.keys() & {"svg"})
    assert not any("\n" in error for error in errors)
