"""Text files whose tunes have no X:, and what lies outside any tune."""

import json

import pytest
from made_sources import read

from preprocessing.notation import judge
from preprocessing.tunes import Policy, read_blocks

MUSIC = "GABc dedB|cBAG FADF|GABc dedc|dBAF G4|]"
UNNUMBERED = {
    "fields and music": (f"M:4/4\nK:G\n{MUSIC}\n\nM:4/4\nL:1/8\nK:D\n{MUSIC}\n", 2),
    "CRLF line ends": (f"T:星星\nK:G\n{MUSIC}\n\n\n\nT:Two\nK:C\n{MUSIC}".replace("\n", "\r\n"), 2),
    "remarks above the header": (f"%Baroque\n%%score 1\nM:4/4\nK:G\n{MUSIC}\n", 1),
    "prose between tunes": (f"My tunes.\n\nK:G\n{MUSIC}\n\nThe next one is: good.\nReally.\n\nK:A\n{MUSIC}", 2),
    "a blank line below the header": (f"T:One\nK:G\n\n{MUSIC}\n\nT:Two\nK:A\n\n{MUSIC}\n", 2),
    "keys that change": (f"K:G\n{MUSIC}\nK:D\n{MUSIC}\n\nK:A\n{MUSIC}", 2),
    "a key alone before a header": (f"K:G\n\nT:Two\nK:A\n{MUSIC}", 1),
    "numbered tunes too": (f"X:1\nK:G\n{MUSIC}\n\nL:1/8\nK:D\n{MUSIC}\n\nX:3\nK:A\n{MUSIC}\n\nT:4\nK:E\n{MUSIC}", 4),
    "a part after a blank line": (f"X:1\nL:1/16\nK:G\n{MUSIC}\n\nK:D\n{MUSIC}\n", 1),
    "a file header": (f"M:4/4\nL:1/8\n\nX:1\nK:G\n{MUSIC}\n", 1),
}


def read_tunes(folder, content):
    (folder / "a.txt").write_bytes(content.encode())
    return read_blocks(read(folder)[0], Policy("XTRMLK"))


@pytest.mark.parametrize(("text", "count"), UNNUMBERED.values(), ids=UNNUMBERED.keys())
def test_tunes_without_a_number_are_read_and_every_character_is_accounted_for(tmp_path, text, count):
    candidates, tally = read_tunes(tmp_path, text)
    tunes = [candidate.tune.text for candidate in candidates]
    assert (len(tunes), tally.drops) == (count, {})
    assert all(tune.startswith("X:1\n") and len(judge(tune).pitches) >= 29 for tune in tunes)
    for candidate in candidates:
        tally.keep(candidate)
    assert tally.ledger.balanced(tally.characters, sum(map(len, tunes)))


def test_long_text_without_numbers_is_cut_at_blank_lines(tmp_path):
    tunes = [f"M:4/4\nL:1/8\nK:G\n{MUSIC[:-2]}{'G4 B4|' * (i % 900)}|]\n" for i in range(900)]
    (tmp_path / "long.txt").write_text("\n".join(tunes))
    assert (tmp_path / "long.txt").stat().st_size > 2 << 20
    blocks, reading = read(tmp_path / "long.txt")
    assert len(blocks) > 1
    assert sum(block.content.count(b"K:G") for block in blocks) == 900
    assert all(block.content.startswith(b"M:4/4") for block in blocks)
    assert reading.skipped_bytes == {}


@pytest.mark.parametrize(
    ("text", "line"),
    [
        (f"X:1\nK:G\n{MUSIC}\n\nK:D\n{MUSIC}\n", 5),
        (f"X:1\nK:G\n{MUSIC}\n\nT:Two\n{MUSIC}\n\nSome words.\n", 5),
        (f"T:One\nK:G\n{MUSIC}\n\nMore of it:\n\n{MUSIC}\n", 7),
        (f"{MUSIC}\n", 1),
    ],
)
def test_music_outside_any_tune_is_counted_and_named(tmp_path, text, line):
    _, tally = read_tunes(tmp_path, text)
    assert tally.texts == {"music outside any tune": 1}
    assert tally.dropped == {"music outside any tune": [{"file": "a.txt", "tune": f"line {line}"}]}


def test_fields_and_music_without_a_key_are_a_dropped_tune(tmp_path):
    candidates, tally = read_tunes(tmp_path, f"T:One\nM:4/4\n{MUSIC}\n\nT:Two\nM:4/4\nK:G\n{MUSIC}\n")
    assert len(candidates) == 1
    assert tally.dropped == {"no K: field that names a key": [{"file": "a.txt", "tune": "One, line 1"}]}


def test_dropped_tunes_without_number_and_title_are_named_by_line_or_row(tmp_path):
    (tmp_path / "t.jsonl").write_text(2 * (json.dumps({"abc": "K:G\nz8|"}) + "\n"))
    _, tally = read_tunes(tmp_path, 2 * "M:4/4\nK:G\nz8|\n\n" + "X:1\nK:G\nz8|\n")
    named = [(one["file"], one["tune"]) for one in tally.dropped["no notes"]]
    of_text = [("a.txt", "line 1"), ("a.txt", "line 5"), ("a.txt", "X:1, line 9")]
    assert named == [*of_text, ("t.jsonl, row 0", "X:1"), ("t.jsonl, row 1", "X:1")]
