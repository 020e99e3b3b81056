"""External validators: their results, disagreements with our verdict, and missing programs."""

import importlib.util
import shutil
import sys

import pytest

from generation import external_validators
from generation.external_validators import agreement, frechet_music_distance, missing, validate, validate_all

needs_abcm2ps = pytest.mark.skipif(bool(missing()), reason="abcm2ps is not installed")

HEADER = "X:1\nM:4/4\nL:1/4\nK:C\n"
GOOD = HEADER + "CDEF|GABc|c4|]\n"
SHORT = HEADER + "CDEF|GAB|c4|]\n"
GARBAGE = HEADER + "CDEF|(3GA [Bc|c4/&)|]\n"


def test_abc2midi_counts_errors_and_bars_apart():
    assert validate(GOOD)["abc2midi"] == {"errors": 0, "bar_warnings": 0, "first": ""}
    short = validate(SHORT)["abc2midi"]
    assert (short["errors"], short["bar_warnings"]) == (0, 1)
    assert "3 time units" in short["first"]
    garbage = validate(GARBAGE)["abc2midi"]
    assert garbage["errors"] > 0
    assert "Error" in garbage["first"]


def test_a_hornpipe_in_cut_time_is_no_error():
    assert validate(GOOD.replace("M:4/4", "R:hornpipe\nM:C|"))["abc2midi"]["errors"] == 0


@needs_abcm2ps
def test_abcm2ps_draws_or_names_its_first_error():
    assert validate(GOOD)["abcm2ps"] == {"ok": True, "first": ""}
    garbage = validate(GARBAGE)["abcm2ps"]
    assert not garbage["ok"]
    assert "rror" in garbage["first"]


def test_a_missing_validator_has_no_result_and_is_named(monkeypatch):
    monkeypatch.setattr(external_validators, "run_confined", lambda *_: (0, "", b""))
    monkeypatch.setattr(shutil, "which", lambda _: None)
    assert validate(GOOD)["abcm2ps"] is None
    assert {row["judge"] for row in agreement([GOOD], validate_all([GOOD]))} == {"abc2midi"}
    assert "abcm2ps" in missing()[0]


def test_a_validator_that_crashes_counts_as_an_error(monkeypatch):
    monkeypatch.setattr(external_validators, "run_confined", lambda *_: (-11, "", b""))
    monkeypatch.setattr(shutil, "which", lambda name: name)
    assert validate(GOOD) == {
        "abc2midi": {"errors": 1, "bar_warnings": 0, "first": "abc2midi crashes (SIGSEGV)"},
        "abcm2ps": {"ok": False, "first": "abcm2ps crashes (SIGSEGV)"},
    }


def test_disagreements_are_counted_and_listed_with_both_reasons(monkeypatch):
    monkeypatch.setattr(external_validators, "LISTED", 1)

    def say(errors, bars, ok):
        return {
            "abc2midi": {"errors": errors, "bar_warnings": bars, "first": "theirs" if errors or bars else ""},
            "abcm2ps": {"ok": ok, "first": "" if ok else "bad"},
        }

    tunes = [GOOD, SHORT, GOOD, HEADER + "C?$|D\x01|", HEADER]
    results = [say(0, 0, True), say(0, 0, True), say(0, 1, False), say(0, 0, False), say(1, 0, True)]
    rows = agreement(tunes, results)
    assert [(row["tier"], row["judge"]) for row in rows] == [
        ("parses", "abc2midi"),
        ("parses", "abcm2ps"),
        ("bars_add_up", "abc2midi"),
    ]
    counts = [tuple(row[key] for key in ("both", "ours", "theirs", "neither")) for row in rows]
    assert counts == [(3, 0, 1, 1), (2, 1, 1, 1), (1, 1, 2, 1)]
    assert rows[1]["disagreements"] == [{"index": 2, "we": "", "judge": "bad"}]
    assert rows[2]["disagreements"] == [{"index": 1, "we": "bar 2 is 3/4 of a whole note, not 1", "judge": ""}]


@pytest.fixture
def frechet_package(tmp_path, monkeypatch):
    """A stand-in of frechet-music-distance 1.0.0, whose distance is the difference in numbers of tunes.

    Returns the path of its encoder, which is missing.
    """
    package, weights = tmp_path / "frechet_music_distance", tmp_path / "weights.pth"
    (package / "models" / "clamp2").mkdir(parents=True)
    for folder in (package / "models", package / "models" / "clamp2"):
        (folder / "__init__.py").touch()
    config = f"import pathlib\nCLAMP2_WEIGHTS_PATH = pathlib.Path({str(weights)!r})\n"
    (package / "models" / "clamp2" / "config.py").write_text(config)
    (package / "__init__.py").write_text(
        "class FrechetMusicDistance:\n"
        "    def __init__(self, verbose): pass\n"
        "    def score(self, reference, test):\n"
        "        return len(list(reference.glob('*.abc'))) - len(list(test.glob('*.abc')))\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    yield weights
    for name in [name for name in sys.modules if name.startswith("frechet_music_distance")]:
        del sys.modules[name]


def test_a_frechet_distance_without_its_package_or_encoder_is_a_reason(request, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(importlib.util, "find_spec", lambda _: None)
        assert "package is missing" in frechet_music_distance([GOOD], [GOOD])
    request.getfixturevalue("frechet_package")
    assert "encoder is missing" in frechet_music_distance([GOOD], [GOOD])


def test_a_frechet_distance_is_of_all_tunes(frechet_package):
    frechet_package.touch()
    assert frechet_music_distance([GOOD] * 5, [SHORT] * 2) == 3.0
