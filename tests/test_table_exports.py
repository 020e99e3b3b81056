"""Tables as trackers, spreadsheets and people write them: read right, or refused in one line that says what to do."""

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


def text(path, *lines, encoding="utf-8"):
    path.write_bytes("\r\n".join([*lines, ""]).encode(encoding))
    return path


def made(path, header, row, **how):
    return text(path, header, *map(row, N, D, LOSS), **how)


def check(table, n=N, d=D, loss=LOSS, rtol=1e-12):
    for variable, values in (("n", n), ("d", d), ("loss", loss)):
        np.testing.assert_allclose(table.columns[variable], values, rtol=rtol)


def refusal(path, columns=PLAIN, where=()):
    with pytest.raises(UserError) as caught:
        read_table(path, columns, where)
    [line] = str(caught.value).splitlines()
    return line


# Text: marks, signs and units


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-8"])
@pytest.mark.parametrize("first", ["", "sep=;"])
def test_a_spreadsheet_with_decimal_commas_is_read(tmp_path, encoding, first):
    lines = [f"{n:.0f};{d:.0f};{str(x).replace('.', ',')};;" for n, d, x in zip(N, D, LOSS, strict=True)]
    header = "params;tokens;loss;;"
    path = text(tmp_path / "runs.csv", *([first] if first else []), header, *lines, ";;;;", encoding=encoding)
    table = read_table(path, PLAIN)
    check(table)
    assert table.notes
    assert table.read == 5


def grouped(value, sign):
    return f"{value:,.0f}".replace(",", sign)


@pytest.mark.parametrize("sign", [",", " ", "\u00a0", "\u202f", "'", "’", "_"])
def test_thousands_may_stand_apart(tmp_path, sign):
    row = lambda n, d, x: f'"{grouped(n, sign)}","{grouped(d, sign)}",{x}'  # noqa: E731
    check(read_table(made(tmp_path / "runs.csv", "params,tokens,loss", row), PLAIN))


def test_points_are_for_thousands_where_commas_are_for_decimals(tmp_path):
    row = lambda n, d, x: f"{grouped(n, '.')};{grouped(d, '.')};{str(x).replace('.', ',')}"  # noqa: E731
    path = made(tmp_path / "runs.csv", "params;tokens;loss", row)
    path.write_text(path.read_text() + "500.000;1.000.000;3,125\n")
    check(read_table(path, PLAIN), [*N, 5e5], [*D, 1e6], [*LOSS, 3.125])


@pytest.mark.parametrize(
    ("cells", "words"),
    [
        (["1,200", "2,400", "3,600", "4,800"], "line 2 (row 1), column 'loss': '1,200' has a comma"),
        (["1,25", "2.25", "3", "4"], "line 3 (row 2), column 'loss': '2.25' has a decimal point"),
        (["2.25", "1,25", "3", "4"], "line 3 (row 2), column 'loss': '1,25' has a comma"),
        (["2.25", "12,34,567", "3", "4"], "'12,34,567' has a comma"),
        (["1.5", "1.4M", "1.3", "1.2"], "'1.4M' is not a number"),
        (["1.5", "1.4e", "1.3", "1.2"], "'1.4e' is not a number"),
        (["1.5", "=A1+1", "1.3", "1.2"], "'=A1+1' is not a number"),
        (["1.5", "#DIV/0!", "1.3", "1.2"], "'#DIV/0!' is not a number"),
        (["1.5", "diverged", "1.3", "1.2"], "leave such runs out with --where 'loss>0'"),
        (["1.5", "inf", "1.3", "1.2"], "leave such runs out with --where 'loss<inf'"),
        (["1.5", "85 %", "1.3", "1.2"], "'85 %' is a share in percent"),
        (["1.5", "1e300", "1.3", "1.2"], "no number that a run can have"),
    ],
)
def test_what_can_be_read_in_two_ways_or_none_is_refused(tmp_path, cells, words):
    lines = [f"{i}e6;{i}e7;{cell}" for i, cell in enumerate(cells, 1)]
    line = refusal(text(tmp_path / "runs.csv", "params;tokens;loss", *lines))
    assert line.startswith(str(tmp_path / "runs.csv"))
    assert ", column 'loss': " in line
    assert words in line


def test_sizes_may_have_suffixes(tmp_path):
    lines = ["1.2M,20M,3.51", "70m,0.3B,3.2", "410 M,2B,2.875", "1.4B,30 billion,2.25", "2.5G,0.0015T,2.5"]
    check(read_table(text(tmp_path / "runs.csv", "params,tokens,loss", *lines), PLAIN))


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


def test_flops_have_units_of_their_own_and_a_unit_is_written_once(tmp_path):
    row = lambda n, d, x: f"{6 * n * d / 1e15},{x},{n / 1e6}M"  # noqa: E731
    path = made(tmp_path / "runs.csv", "C (PFLOPs),loss,N (M)", row)
    np.testing.assert_allclose(
        read_table(path, {"loss": "loss", "c": "C (PFLOPs)"}).columns["c"], 6 * np.array(N) * np.array(D)
    )
    assert "write its unit once" in refusal(path, {"loss": "loss", "n": "N (M)", "c": "C (PFLOPs)"})


@pytest.mark.parametrize("name", ["Val/Loss", "val/loss", " val/loss  "])
def test_names_differ_from_the_flag_in_case_and_spaces_at_the_most(tmp_path, name):
    path = made(tmp_path / "runs.csv", f"params ,tokens\t, {name}", lambda n, d, x: f" {n} , {d}\t,{x}  ")
    check(read_table(path, {**PLAIN, "loss": "val/loss"}))


def test_names_that_differ_in_case_alone_are_not_guessed(tmp_path):
    path = made(tmp_path / "runs.csv", "params,tokens,Loss,LOSS", lambda n, d, x: f"{n},{d},{x},9")
    check(read_table(path, {**PLAIN, "loss": "Loss"}))
    assert "no column 'loss'" in refusal(path)


def test_a_separator_is_not_sought_within_quotes(tmp_path):
    path = made(tmp_path / "runs.csv", '"loss, final, of all";params;tokens', lambda n, d, x: f"{x};{n};{d}")
    check(read_table(path, {**PLAIN, "loss": "loss, final, of all"}))


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".jsonl", ".json", ".txt"])
def test_bytes_that_are_no_text_are_refused(tmp_path, suffix):
    path = tmp_path / f"runs{suffix}"
    path.write_bytes(b"\x80\x81PK\x03\x04\xff" * 50)
    assert "not text" in refusal(path)


# Trackers' exports


def test_tensorboard_scalars_are_a_table_of_one_variable(tmp_path):
    path = made(tmp_path / "scalars.csv", "Wall time,Step,Value", lambda n, d, x: f"{1690000000 + n},{d:.0f},{x}")
    table = read_table(path, {"loss": "Value", "d": "Step"})
    assert table.columns["d"].tolist() == D


def test_an_mlflow_csv_is_read(tmp_path):
    head = "Start Time,Run ID,Status,params.n,params.tokens,metrics.eval_loss"
    row = lambda n, d, x: f"2026-01-0{N.index(n) + 1} 10:00:00,{'ab' * 16},FINISHED,{n:.0f},{d},{x}"  # noqa: E731
    columns = {"loss": "metrics.eval_loss", "n": "params.n", "d": "params.tokens"}
    path = made(tmp_path / "runs.csv", head, row)
    path.write_text(path.read_text() + "2026-01-09 10:00:00,cd,FAILED,1,,\n")
    table = read_table(path, columns, ["Status=FINISHED"])
    check(table)
    assert (table.read, table.rows, table.left_out) == (6, 5, {"Status=FINISHED": 1})
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
    log = [entry for i, (d, x) in enumerate(zip(D, LOSS, strict=True)) for entry in (
        {"epoch": i, "loss": x + 0.1, "num_input_tokens_seen": d, "step": i},
        {"epoch": i, "eval_loss": x, "num_input_tokens_seen": d, "step": i},
    )]  # fmt: skip
    path = tmp_path / "trainer_state.json"
    path.write_text(json.dumps({"best_metric": None, "global_step": 5, "log_history": log}, indent=2))
    columns = {"loss": "log_history[].eval_loss", "d": "log_history[].num_input_tokens_seen"}
    table = read_table(path, columns, ["log_history[].eval_loss!="])
    assert table.columns["loss"].tolist() == LOSS
    assert table.columns["d"].tolist() == D
    assert table.left_out == {"log_history[].eval_loss!=": 5}
    assert "row 1, column 'log_history[].eval_loss': the cell is empty" in refusal(path, columns)


@pytest.mark.parametrize("suffix", [".json", ".jsonl"])
def test_lists_give_a_row_an_element(tmp_path, suffix):
    runs = [
        {"n": n, "eval": {"losses": [x, x - 0.1], "steps": [{"tokens": d}, {"tokens": 2 * d}]}, "losses": [9, x]}
        for n, d, x in zip(N, D, LOSS, strict=True)
    ]
    path = tmp_path / f"runs{suffix}"
    path.write_text("\n".join(map(json.dumps, runs)) if suffix == ".jsonl" else json.dumps(runs, indent=1))
    table = read_table(path, {"loss": "eval.losses[]", "n": "n", "d": "eval.steps[].tokens"})
    check(
        table,
        np.repeat(N, 2),
        np.ravel([[d, 2 * d] for d in D]),
        np.ravel([[x, x - 0.1] for x in LOSS]),
    )
    check(read_table(path, {"loss": "losses[-1]", "n": "n", "d": "eval.steps[0].tokens"}))
    assert "name its elements, losses[]" in refusal(path, {"loss": "losses", "n": "n"})
    assert "it has n, eval.losses[], eval.steps[].tokens, losses[]" in refusal(path, {"loss": "nothing", "n": "n"})


def test_a_table_of_columns_is_an_object_of_lists(tmp_path):
    path = tmp_path / "runs.json"
    path.write_text(json.dumps({"params": N, "tokens": D, "loss": LOSS}))
    check(read_table(path, {variable: f"{column}[]" for variable, column in PLAIN.items()}))
    frame = {"params": dict(enumerate(N)), "tokens": dict(enumerate(D)), "loss": dict(enumerate(LOSS))}
    path.write_text(json.dumps(frame))
    check(read_table(path, {variable: f"{column}[]" for variable, column in PLAIN.items()}))
    path.write_text(json.dumps({"columns": ["n", "d", "x"], "data": list(zip(N, D, LOSS, strict=True))}))
    check(read_table(path, {"n": "data[][0]", "d": "data[][1]", "loss": "data[][-1]"}))


@pytest.mark.parametrize(
    ("record", "words"),
    [
        ({"n": 1e6, "d": [1, 2], "x": [1]}, "line 6: the lists that are named with [] have 2 and 1 elements"),
        ({"n": 1e6, "d": [], "x": []}, "line 6: the list that is named with [] is empty"),
        ({"n": 1e6, "d": 3, "x": [1]}, "line 6: what is named with [] is no list there"),
        ({"n": 1e6, "d": [1, None], "x": [1, 2]}, "line 6 (row 12), column 'd[]': the cell is empty"),
        ({"n": 1e6}, "line 6 (row 11), column 'x[]': the cell is empty"),
        ({"n": {"m": 1}, "d": [1], "x": [1]}, "column 'n': it holds the fields m"),
        ({"n": "1e6", "d": [True], "x": [1]}, "line 6 (row 11), column 'd[]': True is not a number"),
    ],
    ids=str,
)
def test_a_list_that_is_not_like_the_others_is_refused_by_its_line(tmp_path, record, words):
    records = [{"n": n, "d": [d, 2 * d], "x": [x, x]} for n, d, x in zip(N, D, LOSS, strict=True)]
    path = text(tmp_path / "runs.jsonl", *map(json.dumps, [*records, record]))
    assert words in refusal(path, {"loss": "x[]", "n": "n", "d": "d[]"})


def test_parquet_of_any_types_is_read(tmp_path):
    table = pa.table(
        {
            "params": pa.array([str(int(n)) for n in N]).dictionary_encode(),
            "tokens": pa.array([decimal.Decimal(int(d)) for d in D], pa.decimal128(20, 2)),
            "eval.loss": pa.array([[9.0, x] for x in LOSS], pa.list_(pa.float64())),
            "more": [{"state": "finished", "metrics": [("loss", x)]} for x in LOSS],
            "half": pa.array(LOSS, pa.float32()),
        },
        schema=pa.schema(
            [
                ("params", pa.dictionary(pa.int32(), pa.string())),
                ("tokens", pa.decimal128(20, 2)),
                ("eval.loss", pa.list_(pa.float64())),
                ("more", pa.struct([("state", pa.string()), ("metrics", pa.map_(pa.string(), pa.float64()))])),
                ("half", pa.float32()),
            ]
        ),
    )
    path = tmp_path / "runs.parquet"
    parquet.write_table(table, path)
    check(read_table(path, {**PLAIN, "loss": "eval.loss[1]"}, ["more.state=finished"]))
    check(read_table(path, {**PLAIN, "loss": "more.metrics.loss"}))
    check(read_table(path, {**PLAIN, "loss": "half"}), rtol=1e-6)
    assert "name its elements, eval.loss[]" in refusal(path, {**PLAIN, "loss": "eval.loss"})
    assert "no column 'nothing' for --loss: it has params, tokens" in refusal(path, {**PLAIN, "loss": "nothing"})
    assert "more.state" in refusal(path, {**PLAIN, "loss": "more.nothing"})


@pytest.mark.parametrize("depth", [900, 50_000])
@pytest.mark.parametrize("shape", ['{"a":', "["])
def test_json_that_is_nested_deep_is_refused_in_one_line(tmp_path, depth, shape):
    deep = shape * depth + "1" + ("}" if "{" in shape else "]") * depth
    line = refusal(
        text(tmp_path / "runs.jsonl", json.dumps({"params": 1, "tokens": 1, "loss": 1}), f'{{"loss": {deep}}}')
    )
    assert len(line) < 1000
    (tmp_path / "runs.json").write_text(deep)
    assert len(refusal(tmp_path / "runs.json")) < 1000


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
        (["loss<inf"], [1, 2, 4, 5, 7], [3]),
        (["loss>0", "params<=5e6", "tokens>=1B", "loss<inf"], [1, 2, 4, 5], [2, 2, 0, 0]),
        (["loss<3.3", "params!=7000000"], [2, 4, 5], None),
        (["loss<3.6", "params>1M"], [2, 4, 5, 7], [3, 1]),
        (["tokens<8B", "state!=crashed", "loss!="], [1, 2, 4, 5, 7], [1, 1, 1]),
        (["loss!=nan", "loss<inf"], [1, 2, 4, 5, 7], [2, 1]),
    ],
    ids=str,
)
def test_rows_that_do_not_meet_the_conditions_are_left_out_and_counted(runs, where, used, left_out):
    if left_out is None:
        assert "has 3 rows" in refusal(runs, where=where)
        return
    table = read_table(runs, PLAIN, where)
    assert table.columns["n"].tolist() == [i * 1e6 for i in used]
    assert list(table.left_out.values()) == left_out
    assert table.read == 8
    assert table.rows + sum(left_out) == table.read


@pytest.mark.parametrize(
    ("where", "words"),
    [
        (
            "status=finished",
            "no column 'status' for --where (did you mean 'State'?): it has params, tokens, loss, State",
        ),
        ("State=Finished", "no row is left by --where 'State=Finished': the column holds 'finished' (5)"),
        ("State<finished", "'finished' is not a number"),
        ("State~finished", "write COLUMN=VALUE"),
        ("=finished", "write COLUMN=VALUE"),
        ("", "write COLUMN=VALUE"),
        ("loss<nan", "'nan' is not a number"),
    ],
)
def test_a_condition_that_cannot_be_meant_is_refused(runs, where, words):
    assert words in refusal(runs, where=[where])


def test_conditions_are_on_truths_and_empty_fields_of_json(tmp_path):
    records = [
        {"params": n, "tokens": d, "loss": x, "ok": i != 1, "tag": None if i == 2 else "a=b"}
        for i, (n, d, x) in enumerate(zip([*N, 5e5], [*D, 5e8], [*LOSS, 3], strict=True))
    ]
    path = text(tmp_path / "runs.jsonl", *map(json.dumps, records))
    assert read_table(path, PLAIN, ["ok=true"]).rows == 5
    assert read_table(path, PLAIN, ["tag=a=b", "ok!=False"]).rows == 4
    assert read_table(path, PLAIN, ["tag!="]).left_out == {"tag!=": 1}


# C = 6·N·D


def test_the_third_of_n_d_and_c_follows_where_that_is_asked_for(tmp_path):
    path = made(tmp_path / "runs.csv", "params,tokens,flops,loss", lambda n, d, x: f"{n},{d},{6 * n * d},{x}")
    for variable, formula in (("d", "6NC"), ("n", "6DC"), ("c", "6ND")):
        columns = {**PLAIN, "c": "flops", variable: formula}
        table = read_table(path, columns)
        np.testing.assert_allclose(table.columns["c"], 6 * np.array(N) * np.array(D), rtol=1e-12)
        check(table)
    with pytest.raises(UserError, match=r"needs --d \(tokens\), which is missing: .*--d 6NC"):
        read_table(path, {"loss": "loss", "n": "params", "c": "flops"}).need("chinchilla", ["n", "d"])
    assert "--d 6NC computes D = C/(6N): name --c, too" in refusal(path, {**PLAIN, "d": "6NC"})
    assert "name --d, too" in refusal(path, {"loss": "loss", "n": "6DC", "c": "flops", "d": "6NC"})
