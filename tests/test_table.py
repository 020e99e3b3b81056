"""Tables as trackers, spreadsheets and people write them are read right, or refused by the place and the fix."""

import decimal
import json

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import parquet

from analysis.table import read_table
from cli import UserError

N, D, LOSS = [1.2e6, 7e7, 4.1e8, 1.4e9, 2.5e9], [2e7, 3e8, 2e9, 3e10, 1.5e9], [3.51, 3.2, 2.875, 2.25, 2.5]
PLAIN = {"loss": "loss", "n": "params", "d": "tokens"}
HEADER = "params,tokens,loss"


def text(path, *lines, end="\r\n", encoding="utf-8"):
    path.write_bytes(end.join([*lines, ""]).encode(encoding))
    return path


def made(path, header, row, **how):
    return text(path, header, *map(row, N, D, LOSS), **how)


def check(table, n=N, d=D, loss=LOSS, rtol=1e-12):
    for variable, values in (("n", n), ("d", d), ("loss", loss)):
        np.testing.assert_allclose(table.columns[variable], values, rtol=rtol)


def refusal(path, columns=PLAIN, where=()):
    """Return the one line with which a table is refused."""
    with pytest.raises(UserError) as caught:
        read_table(path, columns, where)
    [line] = str(caught.value).splitlines()
    return line


# Text


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("separator", [",", ";", "\t", "|"])
def test_a_csv_is_read_with_any_encoding_line_end_and_separator(tmp_path, encoding, end, separator):
    row = lambda n, d, x: separator.join([f'"two {separator} words"', f" {n} ", str(d), str(x)])  # noqa: E731
    header = separator.join(["note", "params ", "tokens", "loss"])
    check(read_table(made(tmp_path / "runs.CSV", header, row, end=end, encoding=encoding), PLAIN))


def test_a_spreadsheet_with_decimal_commas_is_read(tmp_path):
    lines = [f"{n:.0f};{d:.0f};{str(x).replace('.', ',')};;" for n, d, x in zip(N, D, LOSS, strict=True)]
    table = read_table(text(tmp_path / "runs.csv", "sep=;", "params;tokens;loss;;", *lines, ";;;;"), PLAIN)
    check(table)
    assert table.notes
    assert table.summary() == {"read": 5, "used": 5, "left_out": {}, "notes": table.notes}


def grouped(value, sign):
    return f"{value:,.0f}".replace(",", sign)


@pytest.mark.parametrize("sign", [",", " ", "\u00a0", "\u202f", "'", "’", "_", "."])
def test_thousands_may_be_separated(tmp_path, sign):
    def row(n, d, x):
        loss = str(x).replace(".", ",") if sign == "." else x
        return f'"{grouped(n, sign)}","{grouped(d, sign)}","{loss}"'

    check(read_table(made(tmp_path / "runs.csv", HEADER, row), PLAIN))


def test_sizes_may_have_suffixes(tmp_path):
    lines = ["1.2M,20M,3.51", "70m,0.3B,3.2", "410 M,2B,2.875", "1.4B,30 billion,2.25", "2.5G,0.0015T,2.5"]
    check(read_table(text(tmp_path / "runs.csv", HEADER, *lines), PLAIN))


@pytest.mark.parametrize(
    ("head", "scale"),
    [
        ("params (M)", 1e6),
        ("params [millions]", 1e6),
        ("N (in B)", 1e9),
        ("size (1e6)", 1e6),
        ("size (×10^6)", 1e6),
        ("params (M params)", 1e6),
        ("params (final)", 1),
        ("params (M", 1),
    ],
)
def test_units_in_a_columns_name_count(tmp_path, head, scale):
    path = made(tmp_path / "runs.csv", f"{head},tokens,loss", lambda n, d, x: f"{n / scale!r},{d},{x}")
    table = read_table(path, {**PLAIN, "n": head})
    check(table)
    assert bool(table.notes) == (scale != 1)


def test_flops_have_units_and_a_unit_counts_once(tmp_path):
    row = lambda n, d, x: f"{6 * n * d / 1e15},{x},{n / 1e6}M"  # noqa: E731
    path = made(tmp_path / "runs.csv", "C (PFLOPs),loss,N (M)", row)
    found = read_table(path, {"loss": "loss", "c": "C (PFLOPs)"}).columns["c"]
    np.testing.assert_allclose(found, 6 * np.array(N) * np.array(D))
    assert "unit once" in refusal(path, {"loss": "loss", "n": "N (M)", "c": "C (PFLOPs)"})


def test_names_may_differ_in_case_where_that_is_unambiguous(tmp_path):
    path = made(tmp_path / "runs.csv", "params ,tokens\t, Val/Loss ", lambda n, d, x: f" {n} , {d}\t,{x}  ")
    check(read_table(path, {**PLAIN, "loss": "val/loss"}))
    path = made(tmp_path / "runs.csv", "params,tokens,Loss,LOSS", lambda n, d, x: f"{n},{d},{x},9")
    check(read_table(path, {**PLAIN, "loss": "Loss"}))
    assert "no column 'loss'" in refusal(path)


@pytest.mark.parametrize(
    ("cells", "row", "words"),
    [
        (["1,200", "2,400", "3,600", "4,800"], 1, "'1,200' has a comma"),
        (["1,25", "2.25", "3", "4"], 2, "'2.25' has a comma or a point"),
        (["2.25", "1,25", "3", "4"], 2, "'1,25' has a comma"),
        (["2.25", "12,34,567", "3", "4"], 2, "'12,34,567' has a comma"),
        (["1.5", "1.4M", "1.3", "1.2"], 2, "'1.4M' is not a number"),
        (["1.5", "=A1+1", "1.3", "1.2"], 2, "'=A1+1' is not a number"),
        (["1.5", "diverged", "1.3", "1.2"], 2, "--where 'loss>0'"),
        (["1.5", "inf", "1.3", "1.2"], 2, "--where 'loss<inf'"),
        (["1.5", "85 %", "1.3", "1.2"], 2, "'85 %' is not a number"),
        (["1.5", "1e300", "1.3", "1.2"], 2, "is not between"),
        (["1.5", "1e999", "1.3", "1.2"], 2, "not a finite number above 0"),
        (["1.5", "nan", "1.3", "1.2"], 2, "not a finite number above 0"),
        (["1.5", "1.4", "0", "1.2"], 3, "not a finite number above 0"),
        (["1.5", "1.4", "-3", "1.2"], 3, "not a finite number above 0"),
        (["1.5", "1.4", "", "1.2"], 3, "the cell is empty"),
    ],
)
def test_a_cell_that_is_not_one_positive_number_is_named(tmp_path, cells, row, words):
    lines = [f'"a\nnote";{i}e6;{i}e7;{cell}' for i, cell in enumerate(cells, 1)]
    line = refusal(text(tmp_path / "runs.csv", "note;params;tokens;loss", "", *lines))
    assert line.startswith(f"{tmp_path / 'runs.csv'}, row {row}, column 'loss': ")
    assert words in line


ROWS = [f"{i}e6,{i}e7,{i}" for i in range(1, 5)]


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        ([], "is empty"),
        (["", " "], "is empty"),
        ([HEADER], "has 0 rows"),
        ([HEADER, *ROWS[:3]], "has 3 rows"),
        ([HEADER, *ROWS, "1,2"], "row 5: 2 fields, but the header has 3"),
        ([HEADER, *ROWS, "1,200,3,4"], "row 5: 4 fields, but the header has 3"),
        ([HEADER, *ROWS, '1,2,"3'], "close the quotes"),
        ([f"{HEADER},loss", *(f"{row},1" for row in ROWS)], "2 columns are named 'loss'"),
        ([HEADER, *(f"1e6,{i},{i}" for i in range(1, 5))], "column 'params': all 4 rows are alike"),
        ([HEADER, *(f"{i},2e7,{i}" for i in range(1, 5))], "column 'tokens': all 4 rows are alike"),
        (["params,tokens,loss,lossy", *(f"{row},1" for row in ROWS)], None),
        ([f"{HEADER},,", *(f"{row},," for row in ROWS)], None),
    ],
)
def test_a_csv_without_enough_whole_rows_is_refused(tmp_path, lines, words):
    path = text(tmp_path / "runs.csv", *lines)
    if words is None:
        assert read_table(path, PLAIN).rows == 4
    else:
        assert words in refusal(path)


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".jsonl", ".json", ".txt"])
def test_bytes_that_are_not_text_are_refused(tmp_path, suffix):
    path = tmp_path / f"runs{suffix}"
    path.write_bytes(b"\x80\x81PK\x03\x04\xff" * 50)
    assert "not text" in refusal(path)
    path.write_bytes(HEADER.encode("utf-16-le"))
    assert "not text" in refusal(path)


def test_files_that_are_not_tables_are_refused(tmp_path):
    assert "is missing" in refusal(tmp_path / "runs.csv")
    (tmp_path / "folder.csv").mkdir()
    assert "not a file" in refusal(tmp_path / "folder.csv")
    assert "ends in .csv, .tsv" in refusal(text(tmp_path / "runs.xlsx", "PK"))
    assert "not a readable parquet file" in refusal(text(tmp_path / "runs.parquet", "PAR1"))


@pytest.mark.parametrize(
    ("columns", "words"),
    [
        ({"n": "params"}, "with --loss"),
        ({"loss": "loss"}, "--n, of tokens with --d or of FLOPs with --c"),
        ({"loss": "loss", "n": "params", "d": "params"}, "--n and --d both name the column 'params'"),
        ({**PLAIN, "n": "Param"}, "no column 'Param' (did you mean 'params'?): it has params, tokens, loss"),
        ({**PLAIN, "d": "tokns"}, "(did you mean 'tokens'?)"),
        ({**PLAIN, "d": "xyz"}, "no column 'xyz': it has"),
        ({**PLAIN, "d": "6NC"}, "--d 6NC computes D = C/(6N): name --c, too"),
        ({"loss": "loss", "n": "6DC", "c": "flops", "d": "6NC"}, "name --d, too"),
    ],
)
def test_names_that_cannot_be_meant_are_refused(tmp_path, columns, words):
    assert words in refusal(text(tmp_path / "runs.csv", HEADER, *ROWS), columns)


def test_the_third_of_n_d_and_c_can_be_computed(tmp_path):
    path = made(tmp_path / "runs.csv", "params,tokens,flops,loss", lambda n, d, x: f"{n},{d},{6 * n * d},{x}")
    for variable, formula in (("d", "6NC"), ("n", "6DC"), ("c", "6ND")):
        table = read_table(path, {**PLAIN, "c": "flops", variable: formula})
        np.testing.assert_allclose(table.columns["c"], 6 * np.array(N) * np.array(D), rtol=1e-12)
        check(table)
    path = text(tmp_path / "runs.csv", f"{HEADER},flops", *(f"{i},{9 - i},{i},1e18" for i in range(1, 5)))
    assert read_table(path, {**PLAIN, "c": "flops"}).columns["c"].tolist() == [1e18] * 4
    assert "column 'flops': all 4 rows" in refusal(path, {"loss": "loss", "c": "flops"})


def test_clusters_are_numbered_in_order_of_appearance(tmp_path):
    path = text(tmp_path / "runs.csv", f"{HEADER},seed", *map("{},{}".format, ROWS, "abca"))
    table = read_table(path, {**PLAIN, "cluster": "seed"})
    assert table.clusters.tolist() == [0, 1, 2, 0]
    assert read_table(path, PLAIN).clusters is None
    path = text(tmp_path / "runs.csv", f"{HEADER},seed", *(f"{row}," for row in ROWS))
    assert "row 1, column 'seed'" in refusal(path, {**PLAIN, "cluster": "seed"})
    path = text(tmp_path / "runs.csv", f"{HEADER},seed", *(f"{row},a" for row in ROWS))
    assert "column 'seed': all 4 rows" in refusal(path, {**PLAIN, "cluster": "seed"})


# Records


@pytest.mark.parametrize("suffix", [".json", ".jsonl", ".parquet"])
def test_names_reach_into_records_of_any_format(tmp_path, suffix):
    records = [
        {"config": {"size": {"params": n}}, "eval": {"steps": [{"tokens": 1.0}, {"tokens": d}]}, "losses": [9.0, x]}
        for n, d, x in zip(N, D, LOSS, strict=True)
    ]
    path = tmp_path / f"runs{suffix}"
    if suffix == ".parquet":
        parquet.write_table(pa.Table.from_pylist(records), path)
    else:
        path.write_text(json.dumps(records, indent=1) if suffix == ".json" else "\n".join(map(json.dumps, records)))
    check(read_table(path, {"loss": "losses[-1]", "n": "config.Size.params", "d": "eval.steps[1].tokens"}))
    columns = {"loss": "losses[]", "n": "config.size.params", "d": "eval.steps[].tokens"}
    table = read_table(path, columns)
    check(table, np.repeat(N, 2), np.ravel([[1, d] for d in D]), np.ravel([[9, x] for x in LOSS]))
    assert "is a list: name its elements, losses[]" in refusal(path, {**columns, "loss": "losses", "d": "losses[0]"})
    assert "losses[]" in refusal(path, {**columns, "loss": "nothing"})


@pytest.mark.parametrize(
    ("value", "names"),
    [
        (dict(zip(PLAIN.values(), (LOSS, N, D), strict=True)), ["loss[]", "params[]", "tokens[]"]),
        ({k: dict(enumerate(v)) for k, v in (("x", LOSS), ("n", N), ("d", D))}, ["x[]", "n[]", "d[]"]),
        ({"data": list(zip(N, D, LOSS, strict=True))}, ["data[][-1]", "data[][0]", "data[][1]"]),
    ],
    ids=["lists", "objects", "split"],
)
def test_a_table_of_columns_is_read(tmp_path, value, names):
    path = tmp_path / "runs.json"
    path.write_text(json.dumps(value))
    check(read_table(path, dict(zip(PLAIN, names, strict=True))))


@pytest.mark.parametrize(
    ("record", "words"),
    [
        ('{"n": 1e6, "d": [1, 2], "x": [1]}', "record 6: the lists that are named with [] have 1 and 2 elements"),
        ('{"n": 1e6, "d": [], "x": []}', "record 6: the lists that are named with [] have 0"),
        ('{"n": 1e6, "d": 3, "x": [1]}', "record 6: a field that is named with [] is not a list"),
        ('{"n": 1e6, "d": [1, null], "x": [1, 2]}', "row 12, column 'd[]': the cell is empty"),
        ('{"n": 1e6}', "row 11, column 'x[]': the cell is empty"),
        ('{"n": {"m": 1}, "d": [1], "x": [1]}', "column 'n': it holds the fields m"),
        ('{"n": "1e6", "d": [true], "x": [1]}', "row 11, column 'd[]': True is not a number"),
        ('{"n": 1e6, "d": [1], "x": [NaN]}', "row 11, column 'x[]': nan is not a finite"),
        (f'{{"n": 1e6, "d": [1], "x": [1{"0" * 5000}]}}', "row 11, column 'x[]': inf is not a finite"),
        ("[1, 2]", "record 6: not an object"),
        ('{"n": 1e6', "line 6: "),
    ],
    ids=lambda value: value[:40],
)
def test_a_record_unlike_the_others_is_refused_by_its_place(tmp_path, record, words):
    records = [{"n": n, "d": [d, 2 * d], "x": [x, x]} for n, d, x in zip(N, D, LOSS, strict=True)]
    path = text(tmp_path / "runs.jsonl", *map(json.dumps, records), record)
    assert words in refusal(path, {"loss": "x[]", "n": "n", "d": "d[]"})


def test_parquet_of_any_types_is_read(tmp_path):
    values = {
        "params": pa.array([str(int(n)) for n in N]).dictionary_encode(),
        "tokens": pa.array([decimal.Decimal(int(d)) for d in D], pa.decimal128(20, 2)),
        "eval.loss": pa.array([[9.0, x] for x in LOSS], pa.list_(pa.float64())),
        "more": pa.array(
            [{"state": "finished", "metrics": [("loss", x)]} for x in LOSS],
            pa.struct([("state", pa.string()), ("metrics", pa.map_(pa.string(), pa.float64()))]),
        ),
        "half": pa.array(LOSS, pa.float32()),
        "hole": pa.array([1.0, None, 2.0, 3.0, 4.0]),
    }
    path = tmp_path / "runs.parquet"
    parquet.write_table(pa.table(values), path)
    check(read_table(path, {**PLAIN, "loss": "eval.loss[1]"}, ["more.state=finished"]))
    check(read_table(path, {**PLAIN, "loss": "more.metrics.loss"}))
    check(read_table(path, {**PLAIN, "loss": "half"}), rtol=1e-6)
    assert "row 2, column 'hole': the cell is empty" in refusal(path, {**PLAIN, "loss": "hole"})
    assert "name its elements, eval.loss[]" in refusal(path, {**PLAIN, "loss": "eval.loss"})
    assert "no column 'nothing': it has params, tokens" in refusal(path, {**PLAIN, "loss": "nothing"})
    assert "more.state" in refusal(path, {**PLAIN, "loss": "more.nothing"})


@pytest.mark.parametrize("depth", [900, 50_000])
@pytest.mark.parametrize("shape", ['{"a":', "["])
def test_deeply_nested_json_is_refused_in_one_line(tmp_path, depth, shape):
    deep = shape * depth + "1" + ("}" if "{" in shape else "]") * depth
    path = text(tmp_path / "runs.jsonl", json.dumps({"params": 1, "tokens": 1, "loss": 1}), f'{{"loss": {deep}}}')
    assert len(refusal(path)) < 1000
    (tmp_path / "runs.json").write_text(deep)
    assert len(refusal(tmp_path / "runs.json")) < 1000


# Exports of trackers


def test_an_mlflow_csv_is_read(tmp_path):
    head = "Start Time,Run ID,Status,params.n,params.tokens,metrics.eval_loss"
    row = lambda n, d, x: f"2026-01-0{N.index(n) + 1} 10:00:00,{'ab' * 16},FINISHED,{n:.0f},{d},{x}"  # noqa: E731
    columns = {"loss": "metrics.eval_loss", "n": "params.n", "d": "params.tokens"}
    path = made(tmp_path / "runs.csv", head, row)
    path.write_text(path.read_text() + "2026-01-09 10:00:00,cd,FAILED,1,,\n")
    table = read_table(path, columns, ["Status=FINISHED"])
    check(table)
    assert table.left_out == {"Status=FINISHED": 1}
    assert read_table(path, columns, ["start time<2026-01-06"]).rows == 5
    assert "row 6" in refusal(path, columns)


def test_mlflows_json_of_keys_and_values_is_read(tmp_path):
    runs = [
        {
            "info": {"status": "FINISHED"},
            "data": {
                "metrics": [{"key": "lr", "value": 1}, {"key": "loss", "value": x}],
                "params": [{"key": "n", "value": str(n)}, {"key": "d", "value": str(d)}],
            },
        }
        for n, d, x in zip(N, D, LOSS, strict=True)
    ]
    path = tmp_path / "runs.json"
    path.write_text(json.dumps({"runs": runs, "next": None}))
    columns = {
        "loss": "runs[].data.metrics[key=loss].value",
        "n": "runs[].data.params[key=n].value",
        "d": "runs[].data.params[key=d].value",
    }
    check(read_table(path, columns, ["runs[].info.status=FINISHED"]))
    runs[2]["data"]["metrics"].append({"key": "loss", "value": 9})
    path.write_text(json.dumps({"runs": runs}))
    assert "2 elements have key=loss" in refusal(path, columns)


def test_the_log_of_a_trainer_is_read_where_it_was_evaluated(tmp_path):
    log = []
    for i, (d, x) in enumerate(zip(D, LOSS, strict=True)):
        log += [{"step": i, "tokens": d, "loss": x + 0.1}, {"step": i, "tokens": d, "eval_loss": x}]
    path = tmp_path / "trainer_state.json"
    path.write_text(json.dumps({"best_metric": None, "log_history": log}, indent=2))
    columns = {"loss": "log_history[].eval_loss", "d": "log_history[].tokens"}
    table = read_table(path, columns, ["log_history[].eval_loss!="])
    assert table.columns["loss"].tolist() == LOSS
    assert table.columns["d"].tolist() == D
    assert table.left_out == {"log_history[].eval_loss!=": 5}
    assert "row 1, column 'log_history[].eval_loss': the cell is empty" in refusal(path, columns)


# Conditions


@pytest.fixture
def runs(tmp_path):
    states = ["finished", "finished", "crashed", "finished", "finished", "running", "finished", "failed"]
    losses = ["3.5", "3.25", "NaN", "3.0", "2.75", "", "2.5", "inf"]
    lines = [f"{i}e6,{i}B,{x},{s},{i % 2 == 0}" for i, (x, s) in enumerate(zip(losses, states, strict=True), 1)]
    return text(tmp_path / "runs.csv", "params,tokens,loss,State,even", *lines)


@pytest.mark.parametrize(
    ("where", "used", "left_out"),
    [
        (["State=finished"], [1, 2, 4, 5, 7], [3]),
        (["state==finished"], [1, 2, 4, 5, 7], [3]),
        (['State = "finished"'], [1, 2, 4, 5, 7], [3]),
        (["State!=crashed", "loss!=", "loss<inf"], [1, 2, 4, 5, 7], [1, 1, 1]),
        (["loss>0", "params<=5e6", "tokens>=1B", "loss<inf"], [1, 2, 4, 5], [2, 2, 0, 0]),
        (["loss<3.6", "params>1M"], [2, 4, 5, 7], [3, 1]),
        (["loss!=nan", "loss<inf"], [1, 2, 4, 5, 7], [2, 1]),
    ],
    ids=str,
)
def test_rows_that_do_not_meet_the_conditions_are_left_out_and_counted(runs, where, used, left_out):
    table = read_table(runs, PLAIN, where)
    assert table.columns["n"].tolist() == [i * 1e6 for i in used]
    assert list(table.left_out.values()) == left_out
    assert table.summary()["read"] == 8


@pytest.mark.parametrize(
    ("where", "words"),
    [
        ("status=finished", "no column 'status' (did you mean 'State'?): it has params, tokens, loss, State"),
        ("State=Finished", "no row meets --where 'State=Finished': the column holds 'finished' (5)"),
        ("State<finished", "'finished' is not a number"),
        ("State~finished", "write COLUMN=VALUE"),
        ("=finished", "write COLUMN=VALUE"),
        ("", "write COLUMN=VALUE"),
        ("loss<nan", "'nan' is not a number"),
        ("loss>=3", "has 3 rows"),
    ],
)
def test_a_condition_that_cannot_be_meant_is_refused(runs, where, words):
    assert words in refusal(runs, where=[where, *(["loss<inf"] if where == "loss>=3" else [])])


def test_conditions_apply_to_booleans_and_empty_fields_of_json(tmp_path):
    records = [
        {"params": n, "tokens": d, "loss": x, "ok": i != 1, "tag": None if i == 2 else "a=b"}
        for i, (n, d, x) in enumerate(zip([*N, 5e5], [*D, 5e8], [*LOSS, 3], strict=True))
    ]
    path = text(tmp_path / "runs.jsonl", *map(json.dumps, records))
    assert read_table(path, PLAIN, ["ok=true"]).rows == 5
    assert read_table(path, PLAIN, ["tag=a=b", "ok!=False"]).rows == 4
    assert read_table(path, PLAIN, ["tag!="]).left_out == {"tag!=": 1}
