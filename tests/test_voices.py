"""Voices bar by bar: every line holds a bar of each voice, and each voice sounds as before."""

import random
import re
from pathlib import Path

import pytest
from made_abc import transpose, tune
from test_transposition import MUST_HAVE_ABC2MIDI, played

from preprocessing.notation import judge
from preprocessing.transposition import TranspositionError
from preprocessing.voices import VoicesError, interleave_voices

# abc2midi plays these by what stands next to them in the text: [|] and ||1 are no bar lines to it, a fermata on a bar
# line goes to whichever voice is next, and a trill that is tied over the bar line loses its tie
READ_BY_ITS_NEIGHBOURS = re.compile(r"\[\||\|\]?\|\d|T[^|\n]*-[ ]*\||H[ ]*[|:\[]")


def interleaved(body: str) -> list[str]:
    """The lines of the new body."""
    return interleave_voices(tune(body)).split("\n")[4:]


def rows(*bars: str) -> list[str]:
    """Lines of as many voices as a bar has parts, '/' between them."""
    return ["".join(f"[V:{n}]{part}" for n, part in enumerate(bar.split(" / "), 1)) for bar in bars]


@pytest.fixture(scope="module")
def real_tunes(bundled_corpus) -> list[str]:
    return [text for split in ("train", "validation", "test") for text in bundled_corpus.tunes(split)["text"]]


# The order


@pytest.mark.parametrize("body", ["CDEF|GABc|]", "V:1\nCDEF|\nGABc|]", "[V:1]CDEF|\nV:1 name=Air\nGABc|]"])
def test_a_tune_of_one_voice_is_returned_as_it_is(body):
    assert interleave_voices(tune(body)) == tune(body)


@pytest.mark.parametrize(
    "body",
    [
        "V:1\nc8|d8|\ne8|]\nV:2\nC8|D8|E8|]",
        "[V:1]c8|d8|\n[V:2]C8|D8|\n[V:1]e8|]\n[V:2]E8|]",
        "V:1\nc8|d8|\nV:2\nC8|\n[V:1]e8|][V:2]D8|E8|]",
    ],
)
def test_a_line_holds_the_same_bar_of_every_voice_however_they_were_written(body):
    assert interleaved(body) == ["[V:1]c8|[V:2]C8|", "[V:1]d8|[V:2]D8|", "[V:1]e8|][V:2]E8|]"]


ORDERED = {
    "a bar over a line's end": ("V:1\nc4\nd4|e8|]\nV:2\nC8|E8|]", rows("c4 d4| / C8|", "e8|] / E8|]")),
    "voices in the order of their first bar": ("V:low\nC8|]\nV:high\nc8|]", ["[V:low]C8|][V:high]c8|]"]),
    "properties first": (
        "V:1\nV:2 clef=bass name=B\nV:1\nc8|]\nV:2\nC8|]",
        ["V:1", "V:2 clef=bass name=B", "[V:1]c8|][V:2]C8|]"],
    ),
    "a voice that ends early": (
        "V:1\nc8|d8|e8|]\nV:2\nC8|",
        ["[V:1]c8|[V:2]C8|", "[V:1]d8|", "[V:1]e8|]"],
    ),
    "rests of many bars": ("V:1\nc8|d8|e8|]\nV:2\nZ2|E8|]", rows("c8| / Z|", "d8| / Z|", "e8|] / E8|]")),
    "a second bar line before a bar, a repeat sign behind it": (
        "V:1\nc8|\n|d8|:e8:||]\nV:2\nC8|D8|\n|:E8:|",
        rows("c8| | / C8|", "d8|: / D8|", "e8:||] / |:E8:|"),
    ),
    "overlays, chord symbols, decorations and grace notes": (
        'V:1\n"Am"c4!trill!c4&E8|{g}d8|]\nV:2\nC8|[DF]8|]',
        rows('"Am"c4!trill!c4&E8| / C8|', "{g}d8|] / [DF]8|]"),
    ),
    "fields of a voice": (
        "V:1\nc8|\nK:G\nM:3/4\nd6|]\nV:2\nC8|[K:G][M:3/4]D6|]",
        rows("c8| / C8|", "[K:G][M:3/4]d6|] / [K:G][M:3/4]D6|]"),
    ),
    "fields before the first voice": ("K:G\nV:1\nc8|]\nV:2\nC8|]", ["[K:G]", "[V:1]c8|][V:2]C8|]"]),
    "repeats and endings": (
        "V:1\n|:c8|d8|1 e8:|2 f8||\n|:g8:|]\nV:2\nC8|D8|[1E8:|\n[2F8||\n|:G8:|]",
        rows("|:c8| / C8|", "d8| / D8|", "[1 e8:| / [1E8:|", "[2 f8|| / [2F8||", "|:g8:|] / |:G8:|]"),
    ),
}


@pytest.mark.parametrize(("body", "expected"), ORDERED.values(), ids=ORDERED.keys())
def test_bars_are_ordered_with(body, expected):
    assert interleaved(body) == expected


def test_voices_that_the_header_defines_stay_there():
    text = "X:1\nV:1 clef=treble\nV:2 clef=bass\nL:1/8\nK:C\n[V:1]c8|]\n[V:2]C8|]"
    assert interleave_voices(text) == text.replace("\n[V:2]", "[V:2]")


def test_our_reader_finds_the_same_notes_and_bars_and_interleaving_twice_is_interleaving_once(real_tunes):
    several = 0
    for text in real_tunes:
        try:
            once = interleave_voices(text)
        except VoicesError:
            continue
        assert interleave_voices(once) == once
        if once != text:
            several += 1
            before, after = judge(text), judge(once)
            assert sorted(before.pitches) == sorted(after.pitches)
            assert (before.bars, before.rests, len(before.errors)) == (after.bars, after.rests, len(after.errors))
    assert several > 10


# What cannot be put bar by bar


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ("V:1\nc8:|d8|]\nV:2\nC8|D8|]", "disagree about repeats"),
        ("V:1\nc8|d8:|\nV:2\nC8|D8|]", "disagree about repeats"),
        ("V:1\nc8||:d8:|\nV:2\nC8|D8:|", "disagree about repeats"),
        ("V:1\nc8|1d8:|2e8|]\nV:2\nC8|D8:|E8|]", "disagree about repeats"),
        ("V:1\nc8|1d8:|2e8|]\nV:2\nC8|1D8:|3E8|]", "disagree about repeats"),
        ("c8|\nV:1\nd8|]\nV:2\nD8|]", "music before the first voice"),
        ("V:1\nc8|\nV:1 octave=-1\nd8|]\nV:2\nC8|D8|]", "changes its properties"),
        ("V:1\nc8 ^|]\nV:2\nC8|]", "not ABC"),
    ],
)
def test_voices_that_cannot_be_put_bar_by_bar_are_refused_with_the_reason(body, reason):
    with pytest.raises(VoicesError, match=reason):
        interleave_voices(tune(body))


# The sound


def sound(texts: list[str], folder: Path) -> list[list[tuple]]:
    """What abc2midi plays, without velocities: it accents an upbeat by the bar that another voice has reached."""
    return [[event[:4] for event in events] for events in played(texts, folder)]


FIXTURES = [
    "V:1\nc8|d8|1 e8:|2 f8|]\nV:2\nC8|D8|1 E8:|2 F8|]",
    "V:1\n|:^c4 c4|d4 c4:|\nV:2 clef=bass\n|:Z2:|",
    "V:1\nc4-c4-|c8|]\nV:2\n(3CDE F2 G>A B2|[K:G][L:1/4]F4|]\nV:3\nE4 E4&G,8|",
    "V:A name=x\nc8|\nM:3/4\nd6|]\nV:B\nC8|\nM:3/4\nD6|]",
]


@MUST_HAVE_ABC2MIDI
def test_each_voice_sounds_as_before(real_tunes, tmp_path):
    """The real tunes of several voices, and written ones."""
    texts = [*map(tune, FIXTURES), *(text for text in real_tunes if "V:" in text)]
    changed = [text for text in texts if interleave_voices(text) != text]
    assert len(changed) > 12
    for text in changed:
        assert sound([text], tmp_path / "midi") == sound([interleave_voices(text)], tmp_path / "midi") != [[]], text


@MUST_HAVE_ABC2MIDI
def test_real_tunes_doubled_a_fourth_below_sound_as_before(real_tunes, tmp_path):
    """500 of them, the second voice in its own key; the voices in turn by lines or as wholes."""

    def doubled(text: str, by_lines: bool) -> str:
        below = transpose(text, -5).partition("\nK:")[2].split("\n")
        head, _, rest = text.partition("\nK:")
        key, *lines = rest.split("\n")
        by_lines = by_lines and "\n-" not in text  # a tie at a line's start would lose its note to the other voice
        parts = zip(lines, below[1:], strict=True) if by_lines else [("\n".join(lines), "\n".join(below[1:]))]
        music = "\n".join(f"V:1\n{high}\nV:2\n{low}" for high, low in parts)
        return f"{head}\nK:{key}\nV:1 name=Air\nV:2\nK:{below[0]}\n{music}"

    before, after = [], []
    for i, text in enumerate(random.Random(0).sample(real_tunes, 600)):
        if READ_BY_ITS_NEIGHBOURS.search(text):
            continue
        try:
            before.append(doubled(text, by_lines=i % 2 == 0))
            after.append(interleave_voices(before[-1]))
        except TranspositionError:
            continue
        except VoicesError:
            before.pop()
    assert len(before) > 500
    different = []
    for start in range(0, len(before), 100):
        texts, new_texts = before[start : start + 100], after[start : start + 100]
        heard = zip(sound(texts, tmp_path / "midi"), sound(new_texts, tmp_path / "midi"), strict=True)
        for text, new_text, (old, new) in zip(texts, new_texts, heard, strict=True):
            if old != new or not old:  # abc2midi carries what is unfinished into the next tune: played alone
                alone = sound([text], tmp_path / "midi"), sound([new_text], tmp_path / "midi")
                different += [] if alone[0] == alone[1] != [[]] else [text]
    assert different == []
