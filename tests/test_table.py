"""Anyone's table: what is read is what stands there, and what cannot be read is named to the cell."""

import json
import subprocess
import sys

import numpy as np
import pyarrow as pa
import pytest
from made_results import committed_records
from pyarrow import parquet

from analysis.table import read_table
from cli import UserError
from training.runs_table import Row, write_runs

COLUMNS = {"loss": "loss", "n": "params", "d": "tokens"}
HEADER = "params,tokens,loss,seed"
LINES = ["1e6,2e7,3.5,a", "1.2e6,2e7,3.25,a", "3000000,4e7,3.0,b", "5e6, 8e7 ,2.75,b"]
PARAMS, TOKENS, LOSS = [1e6, 1.2e6, 3e6, 5e6], [2e7, 2e7, 4e7, 8e7], [3.5, 3.25, 3.0, 2.75]


def write(path, *lines, end="\n", encoding="utf-8"):
    path.write_bytes(end.join([*lines, ""]).encode(encoding))
    return path


def refusal(path, columns=COLUMNS):
    """The one line with which a table is refused."""
    with pytest.raises(UserError) as caught:
        read_table(path, columns)
    [line] = str(caught.value).splitlines()
    return line


def check(table):
    assert table.rows == 4
    for variable, values in (("n", PARAMS), ("d", TOKENS), ("loss", LOSS)):
        np.testing.assert_array_equal(table.columns[variable], values)
        assert table.columns[variable].dtype == np.float64


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_a_csv_is_read_whatever_its_line_ends_and_its_mark(tmp_path, encoding, end):
    check(read_table(write(tmp_path / "runs.csv", HEADER, *LINES, end=end, encoding=encoding), COLUMNS))


@pytest.mark.parametrize(("suffix", "separator"), [(".csv", ";"), (".csv", "\t"), (".tsv", "\t"), (".CSV", ",")])
def test_other_separators_are_found(tmp_path, suffix, separator):
    lines = [line.replace(",", separator) for line in (HEADER, *LINES)]
    check(read_table(write(tmp_path / f"runs{suffix}", *lines), COLUMNS))


def test_quoted_fields_may_hold_separators_quotes_and_line_ends(tmp_path):
    lines = [f'"a, ""note""\nof two lines",{line}' for line in LINES]
    check(read_table(write(tmp_path / "runs.csv", f'"what, and why",{HEADER}', *lines), COLUMNS))


def test_json_lines_and_parquet_reach_nested_fields(tmp_path):
    rows = [
        {"recipe": {"size": {"params": n}, "tokens": d}, "loss": loss, "seed": 0, "curve": [1, 2]}
        for n, d, loss in zip(PARAMS, TOKENS, LOSS, strict=True)
    ]
    columns = {"loss": "loss", "n": "recipe.size.params", "d": "recipe.tokens"}
    check(read_table(write(tmp_path / "runs.jsonl", *map(json.dumps, rows)), columns))
    parquet.write_table(pa.Table.from_pylist(rows), tmp_path / "runs.parquet")
    check(read_table(tmp_path / "runs.parquet", columns))


def test_the_studys_own_records_are_a_table(tmp_path):
    records, path = committed_records(), tmp_path / "runs.parquet"
    write_runs(path, [Row("cpu", "ladders", record) for record in records])
    columns = {"loss": "validation_loss", "n": "n_params", "d": "config.tokens", "cluster": "config.seed"}
    table = read_table(path, columns)
    assert table.columns["d"].tolist() == [record.config.tokens for record in records]
    assert table.columns["loss"].tolist() == [record.validation_loss for record in records]


def test_clusters_are_numbered_as_they_appear(tmp_path):
    path = write(tmp_path / "runs.csv", HEADER, *LINES, "6e6,8e7,2.5,a")
    table = read_table(path, {**COLUMNS, "cluster": "seed"})
    assert table.clusters.tolist() == [0, 0, 1, 1, 0]
    assert "cluster" not in table.columns
    assert read_table(path, COLUMNS).clusters is None


def test_only_what_was_named_is_there_and_a_law_says_what_it_lacks(tmp_path):
    table = read_table(write(tmp_path / "runs.csv", HEADER, *LINES), COLUMNS)
    assert set(table.columns) == {"loss", "n", "d"}
    assert list(table.need("chinchilla", ["n", "d", "loss"])) == ["n", "d", "loss"]
    with pytest.raises(UserError, match=r"the law power needs --c \(FLOPs\) and --u .*--c 6ND"):
        table.need("power", ["c", "n", "u"])


@pytest.mark.parametrize(
    ("cell", "words"),
    [
        ("1.2X", "'1.2X' is not a number: write it as 1200000 or 1.2e6"),
        ('"12,00,000"', "'12,00,000' has a comma, for thousands or for decimals: write 1200 or 1.2"),
        ("3.5%", "'3.5%' is a share in percent"),
        ("1e41", "'1e41' is no number that a run can have"),
        ("", "the cell is empty: fill it in"),
        (" ", "the cell is empty"),
        ("NA", "'NA' is not a number"),
        ("nan", "'nan' is not a finite number above 0"),
        ("inf", "'inf' is not a finite"),
        ("1e999", "'1e999' is not a finite"),
        ("0", "'0' is not a finite number above 0"),
        ("-3", "'-3' is not a finite number above 0"),
    ],
)
@pytest.mark.parametrize("column", ["params", "tokens", "loss"])
def test_a_bad_cell_is_named_by_line_row_and_column(tmp_path, cell, words, column):
    fields = dict(zip(HEADER.split(","), ["7e6", "9e7", "2.5", "a"], strict=True))
    bad = ",".join({**fields, column: cell}.values())
    path = write(tmp_path / "runs.csv", HEADER, *LINES[:2], "", bad, *LINES[2:])
    assert f"{path}, line 5 (row 3), column '{column}': {words}" in refusal(path)


def test_lines_are_counted_past_a_field_of_two_lines(tmp_path):
    path = write(tmp_path / "runs.csv", f"note,{HEADER}", f'"a\nb",{LINES[0]}', "c,1e6,2e7,x,a", *("d,1,1,1,a",) * 2)
    assert "line 4 (row 2), column 'loss': 'x' is not a number" in refusal(path)


@pytest.mark.parametrize("cell", ["null", "true", "NaN", "Infinity", "[1]", '"x"', "1e999", "1" + "0" * 5000])
def test_a_bad_value_of_json_is_refused(tmp_path, cell):
    lines = [f'{{"params": {i}, "tokens": {i}, "loss": {cell if i == 3 else 2}}}' for i in range(1, 6)]
    assert "line 3 (row 3), column 'loss': " in refusal(write(tmp_path / "runs.jsonl", *lines))


def test_a_field_that_one_object_lacks_is_an_empty_cell(tmp_path):
    lines = [json.dumps({"params": i, "tokens": i} | ({"loss": 2} if i != 4 else {})) for i in range(1, 6)]
    assert "line 4 (row 4), column 'loss': the cell is empty" in refusal(write(tmp_path / "runs.jsonl", *lines))


def test_a_null_in_parquet_is_an_empty_cell(tmp_path):
    table = pa.table({"params": PARAMS, "tokens": TOKENS, "loss": [1.0, None, 2.0, 3.0]})
    parquet.write_table(table, tmp_path / "runs.parquet")
    assert "row 2, column 'loss': the cell is empty" in refusal(tmp_path / "runs.parquet")


def test_a_missing_column_is_told_with_those_there_are_and_the_closest(tmp_path):
    path = write(tmp_path / "runs.csv", HEADER, *LINES)
    line = refusal(path, {**COLUMNS, "n": "Param"})
    assert "no column 'Param' for --n (did you mean 'params'?): it has params, tokens, loss, seed" in line
    assert "(did you mean 'tokens'?)" in refusal(path, {**COLUMNS, "d": "tokns"})
    assert "did you mean" not in refusal(path, {**COLUMNS, "d": "xyz"})


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        ([], "is empty"),
        (["", " "], "is empty"),
        ([HEADER], "has 0 rows: a law needs 4"),
        ([HEADER, *LINES[:3]], "has 3 rows: a law needs 4"),
        ([HEADER, *LINES, "1,2,3"], "line 6 (row 5): 3 fields, but the header has 4: quote what holds a ','"),
        ([HEADER, *LINES, "1,200,3,4,a"], "line 6 (row 5): 5 fields, but the header has 4"),
        ([HEADER, *LINES, '1,2,3,"a', "1,2,3,b"], "line 6: unexpected end of data: close the quotes"),
        ([f"{HEADER},loss", *(f"{line},1" for line in LINES)], "2 columns are named 'loss': rename all but one"),
        ([HEADER, *(f"1e6,{i},{i},a" for i in range(1, 5))], "column 'params': all 4 rows hold 1000000.0"),
        ([HEADER, *(f"{i},2e7,{i},a" for i in range(1, 5))], "column 'tokens': all 4 rows hold 20000000.0"),
        ([HEADER, *(f"{i},{i},{i},a" for i in range(1, 5))], "column 'seed': all 4 rows hold 'a'"),
        ([HEADER, *LINES[:3], "5e6,8e7,2.75,"], "line 5 (row 4), column 'seed': the cell is empty"),
    ],
)
def test_a_table_that_bears_no_law_is_refused(tmp_path, lines, words):
    path = write(tmp_path / "runs.csv", *lines)
    line = refusal(path, {**COLUMNS, "cluster": "seed"})
    assert line.startswith(str(path))
    assert words in line


def test_a_column_twice_does_no_harm_where_it_is_not_read(tmp_path):
    check(read_table(write(tmp_path / "runs.csv", f"{HEADER},,", *(f"{line},," for line in LINES)), COLUMNS))


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ('{"params": 1', "line 2: "),
        ("[1, 2]", "line 2: not an object"),
        ('{"loss": 1, "loss": 2}', "line 2: the field 'loss' stands there twice"),
        ('{"a.b": 1, "a": {"b": 2}}', "line 2: the field 'a.b' stands there twice"),
    ],
)
def test_lines_that_are_no_objects_are_refused(tmp_path, line, words):
    path = write(tmp_path / "runs.jsonl", '{"params": 1}', line)
    assert words in refusal(path, {"loss": "a.b", "n": "params"})


def test_files_that_are_no_tables_are_refused(tmp_path):
    assert "is not there" in refusal(tmp_path / "runs.csv")
    (tmp_path / "folder.csv").mkdir()
    assert "not a file" in refusal(tmp_path / "folder.csv")
    assert "ends in .csv, .tsv" in refusal(write(tmp_path / "runs.xlsx", "PK"))
    assert "not a readable parquet file" in refusal(write(tmp_path / "runs.parquet", "PAR1"))
    assert "save it in UTF-8" in refusal(write(tmp_path / "runs.csv", HEADER, encoding="utf-16-le"))


@pytest.mark.parametrize(
    ("columns", "words"),
    [
        ({"n": "params"}, "with --loss"),
        ({"loss": "loss"}, "--n, of tokens with --d or of FLOPs with --c"),
        ({"loss": "loss", "n": "params", "d": "params"}, "--n and --d both name the column 'params'"),
    ],
)
def test_flags_that_cannot_be_meant_are_refused(tmp_path, columns, words):
    assert words in refusal(write(tmp_path / "runs.csv", HEADER, *LINES), columns)


def test_one_budget_of_compute_tells_of_sizes_but_not_of_itself(tmp_path):
    path = write(tmp_path / "runs.csv", "params,tokens,loss,flops", *(f"{i},{9 - i},{i},1e18" for i in range(1, 5)))
    assert read_table(path, {**COLUMNS, "c": "flops"}).columns["c"].tolist() == [1e18] * 4
    assert "column 'flops': all 4 rows" in refusal(path, {"loss": "loss", "c": "flops"})


def test_reading_text_loads_neither_pyarrow_nor_torch(tmp_path):
    path = write(tmp_path / "runs.csv", HEADER, *LINES)
    code = (
        "import sys; from pathlib import Path; from analysis.table import read_table; "
        f"read_table(Path({str(path)!r}), {COLUMNS}); "
        "print({'torch', 'pyarrow', 'pandas'} & set(sys.modules))"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert found.strip() == "set()"
