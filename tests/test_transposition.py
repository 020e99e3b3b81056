"""Transposition: what is written sounds exactly that much higher, in a key that a player reads, and comes back."""

import random
import re
import shutil
import subprocess
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
from abc2midi_rewriting import Event, events
from made_abc import transpose, tune

from preprocessing.abc_fields import key_signature
from preprocessing.notation import judge
from preprocessing.transposition import (
    SHIFTS,
    Transposable,
    TranspositionError,
    is_transposed,
    shifts,
)

MUST_HAVE_ABC2MIDI = pytest.mark.skipif(
    shutil.which("abc2midi") is None, reason="abc2midi is not installed (apt install abcmidi)"
)
# abc2midi reads on past the end of a line that ends in a decoration without a note, into whatever memory holds
READ_PAST_ITS_LINE = re.compile(r"[.~]$", re.MULTILINE)


def moved(body: str, semitones: int, key: str = "C") -> tuple[str, str]:
    """Return the new key and the new body."""
    text = transpose(tune(body, key), semitones)
    return tuple(text.partition("K:")[2].split("\n", 1))


@pytest.fixture(scope="module")
def real_tunes(bundled_corpus) -> list[str]:
    """Every fourth tune of the bundled corpus."""
    return [text for split in ("train", "validation", "test") for text in bundled_corpus.tunes(split)["text"]][::4]


@pytest.fixture(scope="module")
def movable_tunes(real_tunes) -> list[str]:
    def movable(text: str) -> bool:
        try:
            lexed = Transposable(text)
            return bool([lexed.transposed(semitones) for semitones in SHIFTS])
        except TranspositionError:
            return False

    return [text for text in real_tunes if movable(text)]


# What is written


WRITTEN = [  # key, body, semitones, new key, new body
    ("C", "C,DEFGABcd'", 2, "D", "D,EFGABcde'"),
    ("C", "C,DEFGABcd'", -1, "B", "B,,CDEFGABc'"),
    ("C", "BcB,C", 1, "Db", "cdCD"),
    # an accidental moves by the interval, and a note without one stays without
    ("G", "^F F =F _B B", 2, "A", "^G G =G =c c"),
    ("D", "F =f ^c _e", 1, "Eb", "G _g =d _f"),
    ("C", "^^F __B", -1, "B", "^^E _A"),
    # lengths, rests, bars and decorations stay; grace notes and every note of a chord move
    ("G", "|:!fermata!G3/2z/ .A+coda+B x4|1 Z2 (3GAB ~c>d:|2 [G,Bd]2-|]", 2, "A",
     "|:!fermata!A3/2z/ .B+coda+c x4|1 Z2 (3ABc ~d>e:|2 [A,ce]2-|]"),
    ("C", "{/ga}b [CE^G]2", 2, "D", "{/ab}c' [DF^A]2"),
    ("C", "+TG,B,++uGB+ +G2BdgbdgbG2+", 2, "D", "+TA,C++uAc+ +A2ceac'eac'A2+"),
    ("C", "+G,B,+2+c^f'+ +f+D+ff+", 2, "D", "+A,C+2+d^g'+ +f+E+ff+"),
    ("C", "c4|\nA:|\nd::\ne4|", 2, "D", "d4|\nB:|\ne::\nf4|"),  # no fields
    # chord symbols move with their basses, and are respelled where they would need a double sharp
    ("C", '"Am7/G"A "F#dim"F "Bb/d"B "C7#5"c', 2, "D", '"Bm7/A"B "G#dim"G "C/e"c "D7#5"d'),
    ("C", '"Am7/G"A "E7b9"E', 1, "Db", '"Bbm7/Ab"B "F7b9"F'),
    ("E", '"G#"c', 2, "F#", '"A#"d'),
    ("C", '"D#m"c', 6, "F#", '"Am"f'),
    ("C", '"Gb"c', 1, "Db", '"G"d'),
    # keys inside the tune move by the same interval, clefs and other fields stay
    ("C", "c4[K:Em]e4|\nK:Bb\nB4|\n[K:Ddor]d4|", 2, "D", "d4[K:F#m]f4|\nK:C\nc4|\n[K:Edor]e4|"),
    ("C", "c4|\nK:clef=bass\n[K:bass]c4|", 2, "D", "d4|\nK:clef=bass\n[K:bass]d4|"),
    ("C", "V:1 name=A\nc[V:2]d[M:3/4][L:1/4]e\nM:4/4\nf", 2, "D", "V:1 name=A\nd[V:2]e[M:3/4][L:1/4]f\nM:4/4\ng"),
    ("D =c", "c", 2, "E =d", "d"),
    ("D =c transpose=-12", "c", 1, "Eb _d transpose=-12", "d"),
    ("C clef=bass middle=d", "c", 2, "D clef=bass middle=d", "d"),
    ("C ^f _b", "c", 2, "D ^g =c", "d"),
    # the enharmonic twin of a key that would need a triple accidental: not F#, not Db
    ("C", "^^B", 6, "Gb", "^^f"),
    ("C", "__F", 1, "C#", "_F"),
]  # fmt: skip
INSTRUCTIONS = ("!D.C. al fine!", "!da capo!", "!To Coda!", "!D. C.!", "+D.S. al coda+", "+accent+")
WRITTEN += [("C", f"C4{instruction}D4|", 2, "D", f"D4{instruction}E4|") for instruction in INSTRUCTIONS]


@pytest.mark.parametrize(("key", "body", "semitones", "new_key", "new_body"), WRITTEN)
def test_notes_keys_and_chord_symbols_move_by_one_interval(key, body, semitones, new_key, new_body):
    assert moved(body, semitones, key) == (new_key, new_body)


def test_the_header_but_its_key_is_left_alone():
    header = "X:1\nT:Abbey Gardens\nR:reel\nQ:1/4=120\n"
    assert transpose(f"{header}K:C\nc", 2) == f"{header}K:D\nd"


# Which keys


@pytest.mark.parametrize(
    "key", ["C", "G", "F#", "Gb", "Cb", "Am", "D#m", "Ebm", "Emix", "Bdor", "F#phr", "Flyd", "Bloc"]
)
def test_the_new_key_has_at_most_six_sharps_or_flats_and_six_are_sharps(key):
    seen = set()
    for semitones in SHIFTS:
        alterations = key_signature(moved("c", semitones, key)[0]).values()
        assert -5 <= sum(alterations) <= 6
        seen.add(sum(alterations))
    assert len(seen) == len(SHIFTS)


def test_few_shifts_are_those_to_the_keys_with_the_fewest_sharps_or_flats():
    assert shifts("G", 1) == [5]  # C
    assert [moved("c", shift, "G")[0] for shift in shifts("G", 5)] == ["C", "F", "Bb", "D", "A"]
    assert [moved("c", shift, "Em")[0] for shift in shifts("Em", 5)] == ["Am", "Dm", "Gm", "Bm", "F#m"]
    assert [moved("c", shift, "F")[0] for shift in shifts("F", 4)] == ["C", "G", "D", "Bb"]
    assert shifts("C", 2) == [5, -5]
    assert sorted(shifts("Dmix", 11)) == sorted(SHIFTS)
    assert {shift % 12 for shift in SHIFTS} == set(range(1, 12))


# What cannot be written


@pytest.mark.parametrize("key", ["none", "HP", "Hp", "D exp _b", "Cexp", "H", "", "clef=bass"])
def test_a_tune_without_a_tonic_is_not_transposed(key):
    with pytest.raises(TranspositionError, match="no tonic"):
        transpose(tune("c", key), 2)
    with pytest.raises(TranspositionError, match="no tonic"):
        shifts(key, 3)
    with pytest.raises(TranspositionError, match="no K: field"):
        transpose("X:1\nCDEF", 2)


@pytest.mark.parametrize(
    ("body", "semitones", "reason"),
    [
        ("c [K:none] c", 2, "no tonic"),
        ("^^^c", 2, "an accidental that cannot be read"),
        ("^3^F", 2, "an accidental that cannot be read"),
        ("^/c", 2, "an accidental that cannot be read"),
        ("c{_/e}c", 2, "an accidental that cannot be read"),
        ("c[K:C _/e]c", 2, "an accidental that cannot be read"),
        ("c\nK:D _2B ^3f\nc", 2, "an accidental that cannot be read"),
        ('"D/f+"A', 2, "a chord symbol"),
        ('"slowly"A', 2, "a chord symbol"),
        ("__F ^^B", 4, "a triple"),
        ("c[K:C#]c", 2, "more than seven"),
    ],
)
def test_what_cannot_be_written_is_said_and_not_guessed(body, semitones, reason):
    with pytest.raises(TranspositionError, match=reason):
        transpose(tune(body), semitones)


# Against our own reader


def test_our_reader_finds_every_pitch_shifted_and_nothing_else_changed(movable_tunes):
    assert len(movable_tunes) > 3_000
    for i, text in enumerate(random.Random(0).sample(movable_tunes, 1000)):
        semitones = SHIFTS[i % len(SHIFTS)]
        assert is_transposed(judge(text), judge(transpose(text, semitones)), semitones), text


@pytest.mark.parametrize(
    "change",
    [{"pitches": [62, 65]}, {"bars": 2}, {"rests": 1}, {"errors": ["bar 1: '?' is not ABC"]}, {"metre": "3/4"}],
)
def test_a_verdict_that_differs_in_more_than_the_pitch_is_not_that_of_a_transposition(change):
    before, after = judge(tune("CE")), judge(tune("DF", "D"))
    assert is_transposed(before, after, 2)
    assert not is_transposed(before, after, 1)
    assert not is_transposed(before, replace(after, **change), 2)


def test_a_real_tune_moved_and_moved_back_is_the_same_text(movable_tunes):
    """It holds where the tune's key is the one this module would choose and its octave marks are canonical (c, not C').

    Chord symbols that were respelled do not come back either; the real tunes have none of the three.
    """
    for i, text in enumerate(movable_tunes):
        semitones = SHIFTS[i % len(SHIFTS)]
        assert transpose(transpose(text, semitones), -semitones) == text
    assert transpose(transpose(tune("G", "Gb"), 2), -2) == tune("F", "F#")


# Against abc2midi


def played(texts: list[str], folder: Path, chords: bool = False) -> list[list[Event]]:
    """Return what abc2midi plays for each tune, nothing for those that it did not play."""
    folder.mkdir()
    directive = "" if chords else "%%MIDI gchordoff\n"
    tunes = [f"X:{n}\n{directive}{text.removeprefix('X:1').strip()}\n" for n, text in enumerate(texts, 1)]
    (folder / "t.abc").write_text("\n".join(tunes))
    command = ["abc2midi", "t.abc", "-quiet", "-silent"]
    finished = subprocess.run(command, cwd=folder, capture_output=True, check=False).returncode == 0
    files = [folder / f"t{n}.mid" for n in range(1, len(texts) + 1)]
    written = sum(file.exists() for file in files) - (not finished)  # it may have died while it wrote the last
    result = [events(file.read_bytes()) if n < written else [] for n, file in enumerate(files)]
    shutil.rmtree(folder)
    return result


def shifted(played_events: list[Event], semitones: int) -> list[Event]:
    return [(*event[:3], event[3] + semitones, event[4]) if len(event) == 5 else event for event in played_events]


def plays_shifted(before: list[Event], after: list[Event], semitones: int) -> bool:
    return bool(before) and shifted(before, semitones) == after


@MUST_HAVE_ABC2MIDI
def test_what_abc2midi_plays_is_shifted_and_nothing_else_changes(movable_tunes, tmp_path):
    """Note count, onsets, lengths, velocities and channels of 1,100 tunes, each of the 11 shifts 100 times.

    Where a tune differs it is played alone: abc2midi carries unfinished tuplets into the next tune, or dies.
    """
    good = [text for text in movable_tunes if not READ_PAST_ITS_LINE.search(text)]
    sample = random.Random(0).sample(good, 1100)
    folder = tmp_path / "midi"
    different = []
    for start in range(0, len(sample), 100):
        texts = sample[start : start + 100]
        by = [SHIFTS[(start + i) % len(SHIFTS)] for i in range(len(texts))]
        moved_texts = [transpose(text, semitones) for text, semitones in zip(texts, by, strict=True)]
        for row in zip(texts, moved_texts, by, played(texts, folder), played(moved_texts, folder), strict=True):
            text, moved_text, semitones, before, after = row
            if not plays_shifted(before, after, semitones):
                alone = played([text], folder)[0], played([moved_text], folder)[0]
                different += [] if plays_shifted(*alone, semitones) else [(semitones, text)]
    assert different == []


@MUST_HAVE_ABC2MIDI
def test_the_chords_that_abc2midi_plays_are_shifted_too(movable_tunes, tmp_path):
    """Modulo an octave: abc2midi folds the accompaniment into one. A bass Cb is left out: it plays it as C#."""
    roots = ["C", "C#", "Db", "D", "Eb", "E", "F", "F#", "G", "Ab", "A", "Bb", "B"]
    qualities = ["", "m", "7", "m7", "maj7", "dim", "aug", "sus4", "6", "/E", "/g", "/F"]
    bars = ["|".join(f'"{root}{quality}"c4 d4' for root in roots) for quality in qualities]
    made = [tune("|\n".join(bars) + "|]", key) for key in ("C", "G", "Cm", "Amix")]
    real = [text for text in movable_tunes if '"' in text and not READ_PAST_ITS_LINE.search(text)]
    assert len(real) >= 1

    def heard(notes: list[Event], semitones: int) -> Counter:
        """Melody pitches and accompaniment pitch classes, by onset and length."""
        return Counter(
            (*event[:3], (event[3] + semitones) % 12 if event[2] & 15 else event[3] + semitones, event[4])
            for event in notes
            if len(event) == 5
        )

    before = [played([text], tmp_path / "midi", chords=True)[0] for text in made + real]
    for semitones in SHIFTS:
        for text, notes in zip(made + real, before, strict=True):
            after = transpose(text, semitones)
            if "/Cb" not in after and "/cb" not in after:
                assert heard(notes, semitones) == heard(played([after], tmp_path / "midi", chords=True)[0], 0), after
