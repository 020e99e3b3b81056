"""Tables of tunes: dumps of The Session of all years, quotes of both kinds, headers of their own; unnumbered tunes."""

import json
from pathlib import Path

import pytest
from conftest import made_tunes

from preprocessing.blocks import Reading
from preprocessing.corpus import Corpus
from preprocessing.notation import judge
from preprocessing.run import PreprocessingArguments, build
from preprocessing.sources import fingerprint, read_source
from preprocessing.tunes import Candidate, Policy, Tally, find_tunes, read_blocks

COLUMNS = "tune_id,setting_id,name,type,meter,mode,abc,date,username\n"
NOTES = "|:e2 ce Aece|d2 Bd Gdgd|e2 ce Acea|fdBd A4:|"


def read(path: Path) -> tuple[list[Candidate], Tally, Reading]:
    reading = Reading()
    blocks = list(read_source(str(path), fingerprint(str(path)), reading, None, 1))
    return *read_blocks(blocks, Policy("XTRMLK")), reading


def csv_of(path: Path, *abc: str, columns: str = COLUMNS) -> Path:
    rows = [f'{i},{i},Tune {i},reel,4/4,Amajor,"{text}",2020-01-01,me\n' for i, text in enumerate(abc, 1)]
    path.write_text(columns + "".join(rows))
    return path


def texts(candidates: list[Candidate]) -> list[str]:
    return [candidate.tune.text for candidate in candidates]


# A header in the column of the ABC

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
def test_a_header_in_the_column_of_the_abc_is_merged_with_the_other_columns(tmp_path, head, rhythm, metre, unit, key):
    candidates, tally, _ = read(csv_of(tmp_path / "tunes.csv", NOTES, f"{head}{NOTES}"))
    assert (tally.tunes, tally.drops) == (2, {})
    assert texts(candidates)[1] == f"X:1\nT:Tune 2\nR:{rhythm}\nM:{metre}\nL:{unit}\nK:{key}\n{NOTES}"


def test_a_second_key_is_music_and_no_header(tmp_path):
    music = f"{NOTES}\nK:D\nM:2/4\n{NOTES}"
    candidates, _, _ = read(csv_of(tmp_path / "tunes.csv", f"K:G\n{music}"))
    assert texts(candidates) == [f"X:1\nT:Tune 1\nR:reel\nM:4/4\nL:1/8\nK:G\n{music}"]


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
def test_a_quote_inside_a_value_is_doubled_or_has_a_backslash(tmp_path, written):
    path = csv_of(tmp_path / "tunes.csv", NOTES, written, NOTES.replace("e2", "a2"))
    candidates, tally, reading = read(path)
    assert (tally.drops, reading.drops) == ({}, {})
    assert len(candidates) == 3
    assert texts(candidates)[1].count('"A"') == 2 * written.count("A4|")


def test_the_first_row_may_be_the_one_that_shows_the_backslashes(tmp_path):
    path = tmp_path / "tunes.csv"
    path.write_text(
        "tune,setting,name,type,meter,mode,abc,date,username\n"
        f'1,1,"The \\"First\\"","reel","4/4","Amajor","{NOTES}","2015",""\n'
        f'2,2,"\\"Second\\", The","reel","4/4","Amajor","{CHORDS}","2015",""\n'.replace('"A"', '\\"A\\"')
        .replace('"D"', '\\"D\\"')
        .replace('"E7"', '\\"E7\\"')
        + f'3,3,"Caf\\\\\'e","reel","4/4","Amajor","{NOTES.replace("A", "G")}","2015",""\n'
    )
    candidates, tally, _ = read(path)
    assert tally.drops == {}
    assert [candidate.tune.title for candidate in candidates] == ['The "First"', '"Second", The', "Café"]
    assert texts(candidates)[1].endswith(CHORDS)


def test_a_value_that_ends_in_a_backslash_is_no_quote_where_quotes_are_doubled(tmp_path):
    path = csv_of(tmp_path / "tunes.csv", f"{NOTES}\\", CHORDS.replace('"', '""'))
    candidates, tally, _ = read(path)
    assert tally.drops == {}
    assert texts(candidates)[0].endswith(NOTES)
    assert texts(candidates)[1].endswith(CHORDS)


def test_a_quote_that_is_wrong_costs_no_other_row(tmp_path):
    path = csv_of(tmp_path / "tunes.csv", NOTES, '"A"e2 ce', NOTES.replace("e2", "a2"))
    candidates, _, _ = read(path)
    assert len(candidates) == 2


@pytest.mark.parametrize("place", [0, 1, 2])
@pytest.mark.parametrize("bad", ["7,7,Short", '7,7,T,reel,4/4,A,"GABc,2020,me', '7,"T,reel', "a,b,c,d,e,f,g,h,i,j"])
def test_a_row_that_cannot_be_read_costs_itself_and_is_named(tmp_path, place, bad):
    path = csv_of(tmp_path / "tunes.csv", NOTES, NOTES.replace("e2", "a2"))
    lines = path.read_text().splitlines()
    lines.insert(1 + place, bad)
    path.write_text("\n".join(lines))
    candidates, _, reading = read(path)
    assert len(candidates) == 2
    assert reading.drops.total() == 1
    assert list(reading.dropped.values()) == [[{"file": f"tunes.csv, row {place}", "tune": ""}]]


def test_a_second_tune_in_a_setting_has_the_settings_columns_too(tmp_path):
    other = NOTES.replace("e2", "a2")
    candidates, tally, _ = read(csv_of(tmp_path / "tunes.csv", f"X:1\n{NOTES}\nX:2\nT:Else\nK:D\n{other}\nX:3\n"))
    assert texts(candidates) == [
        f"X:1\nT:Tune 1\nR:reel\nM:4/4\nL:1/8\nK:{key}\n{notes}" for key, notes in (("A", NOTES), ("D", other))
    ]
    assert tally.drops == {"no notes": 1}


# Dumps of all years


@pytest.mark.parametrize("kind", ["csv", "json", "jsonl"])
@pytest.mark.parametrize(("tune", "setting"), [("tune_id", "setting_id"), ("tune", "setting"), ("id", "number")])
def test_the_columns_of_every_years_dump_make_the_header(tmp_path, kind, tune, setting):
    names = COLUMNS.replace("tune_id", tune).replace("setting_id", setting)
    path = csv_of(tmp_path / "tunes.csv", NOTES, NOTES.replace("e2", "a2"), columns=names)
    if kind != "csv":
        rows = [
            dict(zip(names.strip().split(","), line.split(","), strict=True))
            for line in path.read_text().split("\n")[1:3]
        ]
        rows = [{name: value.strip('"') for name, value in row.items()} for row in rows]
        path = tmp_path / f"tunes.{kind}"
        path.write_text(json.dumps(rows) if kind == "json" else "\n".join(map(json.dumps, rows)))
    candidates, tally, reading = read(path)
    assert (tally.drops, reading.drops) == ({}, {})
    assert texts(candidates)[0] == f"X:1\nT:Tune 1\nR:reel\nM:4/4\nL:1/8\nK:A\n{NOTES}"
    groups = [candidate.melody.group for candidate in candidates]
    assert groups == ([None, None] if tune == "id" else ["thesession:1", "thesession:2"])
    assert {candidate.tune.source for candidate in candidates} == {"thesession"}


@pytest.mark.parametrize("value", [None, 7, ["a"], {"a": []}, "[" * 50_000])
def test_a_row_with_columns_of_any_kind_costs_itself_at_most(tmp_path, value):
    row = {"tune": 1, "setting": 1, "name": "One", "type": "reel", "meter": "4/4", "mode": "Amajor", "abc": NOTES}
    rows = [row, *(row | {column: value} for column in row), row]
    (tmp_path / "tunes.json").write_text(json.dumps(rows))
    candidates, tally, reading = read(tmp_path / "tunes.json")
    assert len(candidates) + tally.drops.total() + reading.drops.total() == len(rows)
    assert len({text for text in texts(candidates) if text.endswith(f"K:A\n{NOTES}")}) >= 1


def test_deep_json_lines_cost_themselves_and_are_named(tmp_path):
    good = json.dumps({"abc": f"X:1\nT:One\nM:4/4\nL:1/8\nK:A\n{NOTES}"})
    (tmp_path / "a.jsonl").write_text("\n".join([good, "[" * 50_000, '{"abc":' * 50_000, good]))
    candidates, _, reading = read(tmp_path / "a.jsonl")
    assert len(candidates) == 2
    assert reading.drops == {"row that is no JSON": 2}


# Tunes without X:

MUSIC = "GABc dedB|cBAG FADF|GABc dedc|dBAF G4|]"
UNNUMBERED = {
    "fields and music": (f"M:4/4\nK:G\n{MUSIC}\n\nM:4/4\nL:1/8\nK:D\n{MUSIC}\n", 2),
    "a title, line ends of two characters": (
        f"T:星星\nK:G\n{MUSIC}\n\n\n\nT:Two\nK:C\n{MUSIC}".replace("\n", "\r\n"),
        2,
    ),
    "remarks above the header": (f"%Baroque\n%%score 1\nM:4/4\nK:G\n{MUSIC}\n", 1),
    "prose between tunes": (f"My tunes.\n\nK:G\n{MUSIC}\n\nThe next one is: good.\nReally.\n\nK:A\n{MUSIC}", 2),
    "a blank line below the header": (f"T:One\nK:G\n\n{MUSIC}\n\nT:Two\nK:A\n\n{MUSIC}\n", 2),
    "keys that change": (f"K:G\n{MUSIC}\nK:D\n{MUSIC}\n\nK:A\n{MUSIC}", 2),
    "a key alone before a header": (f"K:G\n\nT:Two\nK:A\n{MUSIC}", 1),
    "beside tunes with a number": (
        f"X:1\nK:G\n{MUSIC}\n\nL:1/8\nK:D\n{MUSIC}\n\nX:3\nK:A\n{MUSIC}\n\nT:4\nK:E\n{MUSIC}",
        4,
    ),
    "a part that goes on below a blank line": (f"X:1\nL:1/16\nK:G\n{MUSIC}\n\nK:D\n{MUSIC}\n", 1),
    "a header of the file": (f"M:4/4\nL:1/8\n\nX:1\nK:G\n{MUSIC}\n", 1),
}


@pytest.mark.parametrize(("text", "count"), UNNUMBERED.values(), ids=UNNUMBERED.keys())
def test_tunes_without_a_number_are_read(tmp_path, text, count):
    (tmp_path / "a.txt").write_bytes(text.encode())
    candidates, tally, _ = read(tmp_path / "a.txt")
    assert (len(candidates), tally.drops) == (count, {})
    assert all(candidate.tune.text.startswith("X:1\n") for candidate in candidates)
    assert {tuple(judge(text).pitches[:3]) for text in texts(candidates)} >= {(67, 69, 71)} or count == 1


def test_what_has_fields_and_music_but_no_key_is_counted(tmp_path):
    (tmp_path / "a.abc").write_text(f"T:One\nM:4/4\n{MUSIC}\n\nT:Two\nM:4/4\nK:G\n{MUSIC}\n")
    candidates, tally, _ = read(tmp_path / "a.abc")
    assert len(candidates) == 1
    assert tally.drops == {"no K: field that names a key": 1}
    assert tally.dropped == {"no K: field that names a key": [{"file": "a.abc", "tune": "One, line 1"}]}


def test_every_character_of_a_text_with_unnumbered_tunes_is_accounted_for(tmp_path):
    for text, _ in UNNUMBERED.values():
        plain = text.replace("\r\n", "\n")
        pieces = list(find_tunes(plain))
        place = 0
        for piece in pieces:
            place = plain.index(piece, place) + len(piece)
        (tmp_path / "a.abc").write_bytes(text.encode())
        candidates, tally, _ = read(tmp_path / "a.abc")
        written = sum(len(candidate.tune.text) for candidate in candidates)
        for candidate in candidates:
            tally.keep(candidate)
        assert tally.ledger.balanced(tally.characters, written)


def test_a_long_text_without_numbers_is_cut_at_blank_lines(tmp_path):
    tunes = [f"M:4/4\nL:1/8\nK:G\n{MUSIC[:-2]}{'G4 B4|' * (i % 900)}|]\n" for i in range(900)]
    (tmp_path / "long.txt").write_text("\n".join(tunes))
    assert (tmp_path / "long.txt").stat().st_size > 2 << 20
    candidates, tally, reading = read(tmp_path / "long.txt")
    assert (tally.tunes, len(candidates), reading.skipped_bytes) == (900, 900, {})


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
    (tmp_path / "a.abc").write_text(text)
    _, tally, _ = read(tmp_path / "a.abc")
    assert tally.texts == {"music outside any tune": 1}
    assert tally.dropped == {"music outside any tune": [{"file": "a.abc", "tune": f"line {line}"}]}


def test_tunes_without_number_and_title_are_named_by_their_line_and_rows_by_theirs(tmp_path):
    (tmp_path / "a.txt").write_text(2 * "M:4/4\nK:G\nz8|\n\n" + "X:1\nK:G\nz8|\n")
    (tmp_path / "t.jsonl").write_text(2 * (json.dumps({"abc": "K:G\nz8|"}) + "\n"))
    _, tally, _ = read(tmp_path)
    named = [(one["file"], one["tune"]) for one in tally.dropped["no notes"]]
    of_text = [("a.txt", "line 1"), ("a.txt", "line 5"), ("a.txt", "X:1, line 9")]
    assert named == [*of_text, ("t.jsonl, row 0", "X:1"), ("t.jsonl, row 1", "X:1")]


# What was dropped is named


@pytest.mark.usefixtures("no_figures")
def test_the_statistics_name_every_file_and_tune_that_was_dropped_with_the_reason(tmp_path):
    source = tmp_path / "tunes"
    source.mkdir()
    first = made_tunes(150)
    (source / "made.abc").write_text(first)
    (source / "bad.abc").write_text(
        f"X:3\nT:No key\n{MUSIC}\n\nX:4\nT:Caf\\'e\nK:G\nz8|\n\nX:5\nT:Twice\nM:4/4\nL:1/8\nK:G\n{MUSIC}\n\n"
        f"X:6\nT:Twice again\nM:4/4\nL:1/8\nK:G\n{MUSIC}\n"
    )
    (source / "about.txt").write_text("There are no tunes here.\n")
    (source / "photo.abc").write_bytes(b"\x89PNG\0\0")
    (source / "scan.pdf").write_bytes(b"%PDF")
    (source / "broken.musicxml").write_text("<score")
    (source / "t.jsonl").write_text('{"abc": ""}\n7\n')
    build(PreprocessingArguments([str(source)], str(tmp_path / "corpus"), num_proc=1))
    stats = Corpus.open(tmp_path / "corpus").stats
    named = {(one["file"], one["tune"], reason) for reason, names in stats["dropped"].items() for one in names}
    assert named == {
        ("bad.abc", "X:3 No key", "no K: field that names a key"),
        ("bad.abc", "X:4 Café", "no notes"),
        ("bad.abc", "X:6 Twice again", "exact duplicate"),
        ("about.txt", "", "text without a tune"),
        ("photo.abc", "", "not text"),
        ("scan.pdf", "", "not a known kind (.pdf)"),
        ("broken.musicxml", "", "musicxml: not readable"),
        ("t.jsonl, row 0", "", "row without text"),
        ("t.jsonl, row 1", "", "row that is no object"),
    } | {
        (one["file"], one["tune"], "similar to a held-out tune")
        for one in stats["dropped"].get("similar to a held-out tune", [])
    }
    assert stats["reading"]["drops"]["text without a tune"] == 1
    assert stats["drops"]["no notes"] == 1
