"""Nothing a user types makes the reader of ABC raise, or slow."""

import random
import re
import time
from collections import Counter

import pytest
from made_abc import tune

from preprocessing.abc_lexer import WORDS
from preprocessing.notation import judge, split_tunes, transcribe

RICH = """X:7
T:All at once
M:6/8
L:1/8
K:D dorian clef=treble
V:1
|:(3ABc d>e f2|{g}[^CE_G]3-[CEG]3|[1 "Am"A,6:|[2 !trill!z3 Z|]
[M:3/4][L:1/16](5:4:5abcde f//g/2=a'3/2&B,,4 y\\
c2 % remark
w:la la -- la
V:2
[K:none]x6|X2|+fermata+~c.d`uvT|]
"""
SYMBOLS = "ABCGabcg0123456789/:|[](){}<>^_=,'-&zxZX!+\"~.%\\\n \tXTMLKVwIPQ$*;?@#§é\x00\x1b\u0665\u2028🎵"


def mutated(text: str, draw: random.Random) -> str:
    characters = list(text)
    for _ in range(draw.randrange(1, 25)):
        place = draw.randrange(len(characters))
        change = draw.choice(("insert", "delete", "replace", "move"))
        if change in ("delete", "move"):
            piece = characters[place : place + draw.randrange(1, 9)]
            del characters[place : place + len(piece)]
            if change == "move":
                target = draw.randrange(len(characters) + 1)
                characters[target:target] = piece
        else:
            characters[place : place + (change == "replace")] = draw.choice(SYMBOLS)
    return "".join(characters)


@pytest.mark.parametrize("seed", range(3))
def test_garbage_gets_a_verdict_a_transcript_and_raises_nothing(seed):
    draw = random.Random(seed)
    for _ in range(60):
        noise = "".join(draw.choice(SYMBOLS) for _ in range(draw.randrange(200)))
        for text in (noise, tune(noise), mutated(RICH, draw)):
            transcript, verdict = transcribe(text), judge(text)
            assert transcript.verdict == verdict
            sounds = [sound for part in transcript.parts for bar in part.bars for sound in bar.sounds]
            struck = [note.pitch for sound in sounds for note in sound.struck]
            assert not Counter(struck) - Counter(verdict.pitches)
            assert verdict.unreadable or len(struck) == len(verdict.pitches)
            for line in text.split("\n"):
                assert "".join(WORDS(line)) == line


def test_garbage_is_split_at_its_numbers_into_slices_of_it():
    draw = random.Random(0)
    for _ in range(100):
        pieces = (mutated(RICH, draw) + draw.choice(("", "\n", "\n \nwords\n")) for _ in range(draw.randrange(4)))
        text, end = "".join(pieces), 0
        tunes = list(split_tunes(text))
        assert len(tunes) == len(re.findall("^X:", text, re.MULTILINE))
        for piece in tunes:
            end = text.index(piece, end) + len(piece)


NINES = "9" * 5000  # more digits than Python turns into a number
HOSTILE = {
    "nothing": "",
    "a key alone": "K:",
    "a long note": tune(f"C{NINES}|"),
    "a short note": tune(f"C/{NINES}|"),
    "many slashes": tune(f"C{'/' * 5000}|"),
    "much broken rhythm": tune(f"C{'>' * 5000}D|"),
    "a long rest of bars": tune(f"Z{NINES}|"),
    "an inline unit": tune(f"[L:1/{NINES}]C8|"),
    "an inline metre": tune(f"[M:{NINES}/4]C8|C8|"),
    "a unit": tune("C8|", unit=f"1/{NINES}"),
    "a metre": tune("C8|", metre=f"{NINES}/4"),
    "a metre of many parts": tune("C8|", metre="+".join("1" * 5000) + "/8"),
    "digits of another script": tune("C٣|[M:٣/٤]C6|"),
    "open brackets": tune("[" * 5000),
    "a voice without a name": tune("V:\n[V:]C8|"),
    "overlays": tune("&" * 5000),
    "many voices": tune("".join(f"[V:{i}]C" for i in range(500))),
}


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE.keys())
def test_hostile_text_gets_a_verdict_and_its_transcript_the_same(text):
    assert transcribe(text).verdict == judge(text)


SIZE = 100_000  # characters


def seconds_per_megabyte(text: str) -> float:
    """Return the time of judging and splitting on one core."""
    start = time.process_time()
    judge(text)
    list(split_tunes(text))
    return (time.process_time() - start) / len(text) * 1e6


LONG = (
    "[", "(", '"', '"a', "{", "{a", "9", "/", "&", "|", ":", ":|", "K:", "[K:", "[K:C]", "C", "C-", "[C-", "'", "^",
    "C>", "z999/997", "(3", "Z999", "!a", "+a", "\\", "A:|", "C3||", "\n", "\n\n", "X:1\n", "%%begin\n", "K:C\n",
    "[M:1+",
)  # fmt: skip


@pytest.mark.parametrize("piece", LONG)
def test_much_of_anything_is_judged_and_split_in_less_than_three_seconds_a_megabyte(piece):
    text = tune(piece * (SIZE // len(piece)))
    assert any(seconds_per_megabyte(text) < 3 for _ in range(3))


def test_lengths_without_a_common_measure_are_added_fast():
    body = "".join(f"(9:98:2C{i % 998 + 1}/{i * 7 % 999 + 1}>" for i in range(SIZE // 16))
    assert any(seconds_per_megabyte(tune(body)) < 3 for _ in range(3))
