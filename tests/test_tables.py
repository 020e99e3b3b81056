"""Tables of tunes: every kind of table, dumps of The Session of all years, quotes of both kinds, damaged rows."""

import gzip
from pathlib import Path

import pytest
from made_sources import read, write_archive, write_table

from cli import UserError
from preprocessing.blocks import Reading
from preprocessing.text_files import BLOCK, decode
from preprocessing.tunes import Candidate, Policy, Tally, read_blocks

ROWS = [{"id": str(i), "abc": f"X:{i}\nK:C\nCD|\n"} for i in range(3)]
COLUMNS = "tune_id,setting_id,name,type,meter,mode,abc,date,username\n"
NOTES = "|:e2 ce Aece|d2 Bd Gdgd|e2 ce Acea|fdBd A4:|"
OTHER = NOTES.replace("e2", "a2")


def contents(path: Path, column: str | None = None) -> list[str]:
    return [decode(block) for block in read(path, column)[0]]


def read_tunes(path: Path) -> tuple[list[Candidate], Tally, Reading]:
    blocks, reading = read(path)
    return *read_blocks(blocks, Policy("XTRMLK")), reading


def csv_of(path: Path, *abc: str, columns: str = COLUMNS) -> Path:
    rows = [f'{i},{i},Tune {i},reel,4/4,Amajor,"{text}",2020-01-01,me\n' for i, text in enumerate(abc, 1)]
    path.write_text(columns + "".join(rows))
    return path


def texts(candidates: list[Candidate]) -> list[str]:
    return [candidate.tune.text for candidate in candidates]


# Any table


@pytest.mark.parametrize("kind", ["csv", "json", "jsonl", "parquet", "csv.gz", "json.gz", "jsonl.gz"])
def test_each_row_is_a_block(tmp_path, kind):
    path = write_table(tmp_path / f"table.{kind}", ROWS)
    blocks, reading = read(path)
    assert [block.content for block in blocks] == [row["abc"] for row in ROWS]
    assert {block.file for block in blocks} == {f"table.{kind}, row {i}" for i in range(3)}
    assert {block.source for block in blocks} == {"table"}
    assert not reading.drops
    for suffix in (".zip", ".tar"):
        inside = write_archive(tmp_path / f"a{suffix}", {path.name: path.read_bytes()})
        assert contents(inside) == [row["abc"] for row in ROWS]


def test_long_json_array_is_read_as_a_stream(tmp_path):
    rows = [{"abc": f"X:{i}\nK:C\n{'CDEF|' * (i % 300)}"} for i in range(3000)]
    assert contents(write_table(tmp_path / "a.json", rows)) == [row["abc"] for row in rows]


def test_text_column_is_found_or_named(tmp_path):
    path = write_table(tmp_path / "a.jsonl", [{"text": "X:1", "abc notation": "X:2", "melody": "X:3"}])
    assert (contents(path), contents(path, "melody")) == (["X:2"], ["X:3"])
    with pytest.raises(UserError, match="text, abc notation, melody"):
        read(path, "tune")


def test_table_without_text_column_is_counted_in_a_folder_and_an_error_alone(tmp_path):
    (tmp_path / "a.abc").write_text("X:1\n")
    path = write_table(tmp_path / "names.csv", [{"id": 1, "alias": "x"}])
    assert read(tmp_path)[1].drops == {"table without a text column": 1}
    with pytest.raises(UserError, match="id, alias; name it with --text_column"):
        read(path)


def test_row_without_x_is_one_tune_and_row_without_text_is_counted(tmp_path):
    rows = [{"abc": "K:C\nCD|\n\nEF|"}, {"abc": None}, {"abc": 7}, {"abc": " "}, {"abc": "C" * (BLOCK + 1)}]
    blocks, reading = read(write_table(tmp_path / "a.jsonl", rows))
    assert [block.content for block in blocks] == ["X:1\nK:C\nCD|\nEF|"]
    assert reading.drops == {"row without text": 3, "row longer than 1 MB": 1}


@pytest.mark.parametrize(
    ("name", "content", "kept", "drops"),
    [
        ("a.jsonl", b'{"abc": "X:1"}\n\n{"abc"\n{"abc": "X:2"}', 2, {"row that is no JSON": 1}),
        ("a.jsonl", b'7\n"abc"\n{"abc": "X:1"}', 1, {"row that is no object": 2}),
        ("a.jsonl", b"[" * 50_000 + b'\n{"abc": "X:1"}', 1, {"row that is no JSON": 1}),
        ("a.jsonl", b'{"abc": "X:1"}\n' + b"x" * (3 << 20) + b'\n{"abc": "X:2"}', 2, {"row longer than 1 MB": 1}),
        ("a.json", b'[{"abc": "X:1"}, {"abc": "X:', 1, {"damaged table": 1}),
        ("a.json", b"[" * 100_000, 0, {"damaged table": 1}),
        ("a.csv", b'abc\n"X:1"\n"X:2' + b"x" * (3 << 20), 1, {"row longer than 1 MB": 1}),
        ("a.parquet", b"PAR1 and no more", 0, {"damaged table": 1}),
        ("a.csv.gz", gzip.compress(b"abc\n" + b"X:1\n" * 9, mtime=0)[:-9], 0, {"damaged table": 1}),
    ],
)
def test_damaged_table_gives_what_it_still_holds(tmp_path, name, content, kept, drops):
    (tmp_path / name).write_bytes(content)
    blocks, reading = read(tmp_path / name)
    assert (len(blocks), reading.drops) == (kept, drops)


# Quotes

CHORDS = '"A"e2 ce "D"Aece|"E7"d2 Bd Gdgd|e2 ce Acea|fdBd "A"A4|'


@pytest.mark.parametrize(
    "written",
    [
        CHORDS.replace('"', '\\"'),
        CHORDS.replace('"', '""'),
        f"{CHORDS}\n{CHORDS}".replace('"', '\\"'),
        f"{CHORDS}\\\n{CHORDS}".replace('"', '""'),
    ],
    ids=["with a backslash", "doubled", "over two lines", "doubled, with a line continued"],
)
def test_quote_in_a_value_is_doubled_or_has_a_backslash(tmp_path, written):
    candidates, tally, reading = read_tunes(csv_of(tmp_path / "tunes.csv", NOTES, written, OTHER))
    assert (len(candidates), tally.drops, reading.drops) == (3, {}, {})
    assert texts(candidates)[1].count('"A"') == 2 * written.count("A4|")


def test_first_row_may_be_the_one_that_shows_the_backslashes(tmp_path):
    path = tmp_path / "tunes.csv"
    chords = CHORDS.replace('"', '\\"')
    path.write_text(
        "tune,setting,name,type,meter,mode,abc,date,username\n"
        f'1,1,"The \\"First\\"","reel","4/4","Amajor","{NOTES}","2015",""\n'
        f'2,2,"\\"Second\\", The","reel","4/4","Amajor","{chords}","2015",""\n'
        f'3,3,"Caf\\\\\'e","reel","4/4","Amajor","{OTHER}","2015",""\n'
    )
    candidates, tally, _ = read_tunes(path)
    assert tally.drops == {}
    assert [candidate.tune.title for candidate in candidates] == ['The "First"', '"Second", The', "Café"]
    assert texts(candidates)[1].endswith(CHORDS)


def test_backslash_at_the_end_of_a_value_is_no_quote_if_quotes_are_doubled(tmp_path):
    candidates, tally, _ = read_tunes(csv_of(tmp_path / "tunes.csv", f"{NOTES}\\", CHORDS.replace('"', '""')))
    assert tally.drops == {}
    assert [text.split("K:A\n")[1] for text in texts(candidates)] == [NOTES, CHORDS]


@pytest.mark.parametrize("place", [0, 1, 2])
@pytest.mark.parametrize("bad", ["7,7,Short", '7,7,T,reel,4/4,A,"GABc,2020,me', '7,"T,reel', "a,b,c,d,e,f,g,h,i,j"])
def test_unreadable_row_is_named_and_costs_no_other(tmp_path, place, bad):
    path = csv_of(tmp_path / "tunes.csv", NOTES, OTHER)
    lines = path.read_text().splitlines()
    lines.insert(1 + place, bad)
    path.write_text("\n".join(lines))
    candidates, _, reading = read_tunes(path)
    assert len(candidates) == 2
    assert list(reading.dropped.values()) == [[{"file": f"tunes.csv, row {place}", "tune": ""}]]


# The Session


@pytest.mark.parametrize("kind", ["csv", "json", "jsonl"])
@pytest.mark.parametrize(("tune", "setting"), [("tune_id", "setting_id"), ("tune", "setting"), ("id", "number")])
def test_columns_of_every_years_dump_make_the_header(tmp_path, kind, tune, setting):
    about = {"name": "Banshee, The", "type": "reel", "meter": "4/4", "mode": "Gdorian", "composer": "A. Body"}
    rows = [
        {tune: "53", setting: "9", **about, "abc": NOTES.replace("|d2", "|!\r\n\r\nd2"), "date": "2006"},
        {tune: "54", setting: "10", **about, "abc": OTHER, "date": "2007"},
    ]
    path = write_table(tmp_path / f"tunes.{kind}", rows)
    blocks, reading = read(path)
    number = "" if tune == "id" else "9"
    header = f"X:{number}\nT:Banshee, The\nC:A. Body\nR:reel\nM:4/4\nL:1/8\nK:Gdorian\n"
    assert blocks[0].content == header + NOTES.replace("|d2", "|!\nd2")
    groups = [block.group for block in blocks]
    assert groups == ([None, None] if tune == "id" else ["thesession:53", "thesession:54"])
    assert {block.source for block in blocks} == {"thesession"}
    assert "2025-10-08" in reading.licences["thesession"]


HEADS = {
    "all but the key": ("X: 1\r\nT: Else\r\nR: slip jig\r\nM: 9/8\r\nL: 1/8\r\n", "slip jig", "9/8", "1/8", "A"),
    "a whole header": ("X:7\nT:Else\nM:2/2\nL:1/4\nK:Edor\n", "reel", "2/2", "1/4", "Edor"),
    "a unit alone": ("L:1/16\n", "reel", "4/4", "1/16", "A"),
    "a remark, a composer and voices": ("% of mine\nC:Me\nV:1\nK: D\n", "reel", "4/4", "1/8", "D"),
    "a key without value": ("X:1\nK:\n", "reel", "4/4", "1/8", "A"),
    "blank lines and blanks": ("\n  X:3\n\n R:Polka\n\n\tK:G % so\n\n", "polka", "4/4", "1/8", "G"),
    "no header": ("", "reel", "4/4", "1/8", "A"),
}


@pytest.mark.parametrize(("head", "rhythm", "metre", "unit", "key"), HEADS.values(), ids=HEADS.keys())
def test_header_in_the_abc_column_is_merged_with_the_other_columns(tmp_path, head, rhythm, metre, unit, key):
    music = f"{NOTES}\nK:D\nM:2/4\n{NOTES}"  # a key below music is music
    candidates, tally, _ = read_tunes(csv_of(tmp_path / "tunes.csv", NOTES, f"{head}{music}"))
    assert (tally.tunes, tally.drops) == (2, {})
    assert texts(candidates)[1] == f"X:1\nT:Tune 2\nR:{rhythm}\nM:{metre}\nL:{unit}\nK:{key}\n{music}"


def test_second_tune_in_a_setting_has_the_settings_columns_too(tmp_path):
    path = csv_of(tmp_path / "tunes.csv", f"X:1\n{NOTES}\nX:2\nT:Else\nK:D\n{OTHER}\nX:3\n")
    candidates, tally, _ = read_tunes(path)
    header = "X:1\nT:Tune 1\nR:reel\nM:4/4\nL:1/8\nK:"
    assert texts(candidates) == [f"{header}A\n{NOTES}", f"{header}D\n{OTHER}"]
    assert tally.drops == {"no notes": 1}


@pytest.mark.parametrize("value", [None, 7, ["a"], {"a": []}, "[" * 50_000])
def test_row_with_columns_of_any_type_costs_itself_at_most(tmp_path, value):
    row = {"tune": 1, "setting": 1, "name": "One", "type": "reel", "meter": "4/4", "mode": "Amajor", "abc": NOTES}
    rows = [row, *(row | {column: value} for column in row), row]
    candidates, tally, reading = read_tunes(write_table(tmp_path / "tunes.json", rows))
    assert len(candidates) + tally.drops.total() + reading.drops.total() == len(rows)
    assert len({text for text in texts(candidates) if text.endswith(f"K:A\n{NOTES}")}) >= 1
