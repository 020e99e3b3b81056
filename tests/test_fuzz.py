"""Damaged files are dropped and counted by reason, and nothing that a user types makes the reader raise, or slow."""

import gzip
import io
import random
import re
import tarfile
import time
import zipfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from made_abc import tune

from preprocessing import abc_lexer
from preprocessing.blocks import Block, Reading
from preprocessing.notation import judge, split_tunes, transcribe
from preprocessing.run import PreprocessingArguments, build
from preprocessing.sources import BUNDLED, fingerprint, read_source
from preprocessing.text_files import decode
from preprocessing.tunes import Policy, read_blocks

FILES = 2_000
POLICY = Policy("XTRMLQK", interleave_voices=True)


def truncate(draw: np.random.Generator, content: bytes) -> bytes:
    return content[: draw.integers(len(content) + 1)]


def flip(draw: np.random.Generator, content: bytes) -> bytes:
    changed = np.frombuffer(content, np.uint8).copy()
    places = draw.integers(len(changed), size=max(1, len(changed) // 50))
    changed[places] = draw.integers(256, size=len(places))
    return changed.tobytes()


def shuffle_lines(draw: np.random.Generator, content: bytes) -> bytes:
    lines = content.split(b"\n")
    return b"\n".join(lines[i] for i in draw.permutation(len(lines)))


def insert(draw: np.random.Generator, content: bytes) -> bytes:
    """Insert something hostile."""
    repeated = [bytes([code]) for code in b'\0[({}"|!&<\\\r-'] + [b"(9:9:9", b"[K:"]
    once = (b"C" + b"9" * 400, b"C/" + b"0" * 40, b"\xff\xfe\xef\xbb\xbf", b"\nK:\nK:\nK:", b"\nM:0/0\n", b"\nL:1/0\n")
    more = (b"\nM:" + b"9" * 300 + b"/1\n", b"Z999999999", b"\nX:\nX:", b"\nV:" + b"a" * 999, b"%%begintext\n")
    strange = ("\u2028\u0085\x0b\x0c".encode(), "\uff21\uff23\u0663\u00b2\u00bd".encode())
    hostile = [*(piece * 300 for piece in repeated), *once, *more, *strange]
    place = draw.integers(len(content) + 1)
    return content[:place] + hostile[draw.integers(len(hostile))] + content[place:]


def repeat(draw: np.random.Generator, content: bytes) -> bytes:
    start, end = sorted(draw.integers(len(content) + 1, size=2))
    return content[:start] + content[start:end] * int(draw.integers(2, 30)) + content[end:]


def recode(draw: np.random.Generator, content: bytes) -> bytes:
    encoding = draw.choice(["utf-16", "utf-32", "cp1252", "utf-8-sig", "cp037", "shift_jis"])
    return content.decode("utf-8", "replace").encode(encoding, "replace")


MUTATIONS: list[Callable[[np.random.Generator, bytes], bytes]] = [truncate, flip, shuffle_lines, insert, repeat, recode]


@pytest.fixture(scope="module")
def real_tunes() -> list[bytes]:
    blocks = read_source(BUNDLED, fingerprint(BUNDLED), Reading(), None, 1)
    tunes = [raw.encode() for block in blocks for raw in split_tunes(decode(block).replace("\r", ""))]
    return tunes[::20]


def mutated(tunes: list[bytes], seed: int) -> bytes:
    draw = np.random.default_rng(seed)
    content = b"\n\n".join(tunes[i] for i in draw.integers(len(tunes), size=draw.integers(1, 4)))
    for _ in range(draw.integers(1, 4)):
        content = MUTATIONS[draw.integers(len(MUTATIONS))](draw, content) or b" "
    return content


@pytest.mark.long
def test_thousands_of_damaged_files_are_read_or_counted(real_tunes, tmp_path):
    folder = tmp_path / "damaged"
    for i in range(FILES):
        path = folder / f"{i % 40:02d}" / f"{i}.{'abc' if i % 3 else 'txt'}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(mutated(real_tunes, i))
    stats = build(PreprocessingArguments([str(folder)], str(tmp_path / "corpus"), transpose="1", num_proc=1))
    assert stats is not None
    assert stats["reading"]["files"] == FILES
    assert stats["reading"]["bytes"] == sum(path.stat().st_size for path in folder.rglob("*.*"))
    assert sum(stats["tunes"].values()) > FILES / 5
    assert {"fewer than 8 notes", "not readable as ABC", "no K: field that names a key", "no notes"} <= set(
        stats["drops"]
    )
    account = stats["characters_accounted"]
    assert account["read"] == account["kept"] + sum(account["dropped"].values())


def assert_all_counted(content: str | bytes) -> None:
    candidates, tally = read_blocks([Block("made", "a.abc", content)], POLICY)
    assert tally.tunes == len(candidates) + tally.drops.total()


@settings(max_examples=300)
@given(st.binary(max_size=400))
def test_any_bytes_are_read_or_counted(content):
    assert_all_counted(b"X:1\nK:C\n" + content)


WORDS = re.findall(
    r"\S+",
    "C c' ^^F, [CEG]2 (3 (5:4:6 {g} | |: :| |1 [2 :: !trill! z4 Z3 x > << - & / 3/2 y ( ) [ ] ! + % [K:G] [M:3/4]",
)
LINES = ["\n", "\nM:C|\n", "\nK:Dm\n", "\nV:1\n", "\nw:la\n", "\\\n"]


@settings(max_examples=300)
@given(st.lists(st.sampled_from(WORDS + LINES), max_size=120).map("".join))
def test_any_words_of_abc_are_read_or_counted(body):
    assert_all_counted(f"X:1\nM:4/4\nL:1/8\nK:C\n{body}")


def damage_archives(tunes: list[bytes], folder: Path) -> None:
    """Write archives, each undamaged once and damaged in many ways."""
    inner = io.BytesIO()
    with zipfile.ZipFile(inner, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("../../escape.abc", b"\n\n".join(tunes[:50]))
        archive.writestr("/absolute.abc", b"\n\n".join(tunes[50:100]))
    outer = io.BytesIO()
    with tarfile.open(fileobj=outer, mode="w:gz") as archive:
        info = tarfile.TarInfo("../tunes.abc")
        content = b"\n\n".join(tunes[100:150])
        info.size = len(content)
        archive.addfile(info, io.BytesIO(content))
    whole = {"a.zip": inner.getvalue(), "b.tar.gz": outer.getvalue(), "c.gz": gzip.compress(tunes[0])}
    folder.mkdir()
    draw = np.random.default_rng(0)
    for name, content in whole.items():
        (folder / name).write_bytes(content)
        for i in range(60):
            mutation = (truncate, flip, repeat)[i % 3]
            (folder / f"{i}{name}").write_bytes(mutation(draw, content) or b" ")


def test_damaged_archives_are_counted_and_nothing_is_written_outside(real_tunes, tmp_path):
    damage_archives(real_tunes, tmp_path / "archives")
    reading = Reading()
    source = str(tmp_path / "archives")
    blocks = list(read_source(source, fingerprint(source), reading, None, 1))
    candidates, _ = read_blocks(blocks, POLICY)
    assert len({candidate.tune.text for candidate in candidates}) >= 130
    assert reading.drops.total() > 0
    assert [path.name for path in tmp_path.iterdir()] == ["archives"]


# The reader of ABC

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


def garbled(text: str, draw: random.Random) -> str:
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
        for text in (noise, tune(noise), garbled(RICH, draw)):
            transcript, verdict = transcribe(text), judge(text)
            assert transcript.verdict == verdict
            sounds = [sound for part in transcript.parts for bar in part.bars for sound in bar.sounds]
            struck = [note.pitch for sound in sounds for note in sound.struck]
            assert not Counter(struck) - Counter(verdict.pitches)
            assert verdict.unreadable or len(struck) == len(verdict.pitches)
            for line in text.split("\n"):
                assert "".join(abc_lexer.WORDS(line)) == line


def test_garbage_is_split_at_its_numbers_into_slices_of_it():
    draw = random.Random(0)
    for _ in range(100):
        pieces = (garbled(RICH, draw) + draw.choice(("", "\n", "\n \nwords\n")) for _ in range(draw.randrange(4)))
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
