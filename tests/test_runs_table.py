"""All runs as one table: what is written is what is read, planned runs are in it, and damage is named."""

import json
import re

import pyarrow.parquet as pq
import pytest
from made_results import PUBLISHED
from made_runs import made_run, record_of

from cli import UserError
from training.record import FINISHED, NOT_RUN, read_record, write_record
from training.runs_table import Row, read_runs_table, replace_arm, write_runs


def made_record(*arguments, **changes):
    return record_of(made_run("gpt", "15k", *arguments) | changes)


def test_a_record_comes_back_as_it_was_and_what_it_lacks_is_none(tmp_path):
    plain = made_record(0, 15_000, 1.25, model_config={"n_layer": 2, "names": ["a"]})
    branch = made_record(1, 15_000, 1.5, trunk={"run": "trunk/seed_0", "step": 784})
    rows = [Row("cpu", "ladders", plain), Row("cpu", "ladders", branch)]
    write_runs(tmp_path / "runs.parquet", rows)
    assert read_runs_table(tmp_path / "runs.parquet") == rows
    assert plain.trunk is None


def test_a_field_that_was_added_later_leaves_older_rows_readable_with_the_same_hash(tmp_path):
    record = made_record(0, 15_000, 1.25)
    write_runs(tmp_path / "runs.parquet", [Row("cpu", "ladders", record)])
    table = pq.read_table(tmp_path / "runs.parquet")
    pq.write_table(table.drop_columns(["compiled"]), tmp_path / "older.parquet")
    assert read_runs_table(tmp_path / "older.parquet")[0].record == record


def test_an_arm_s_rows_are_replaced_and_the_others_kept(tmp_path):
    path = tmp_path / "runs.parquet"
    replace_arm(path, [row("a", 1.0, 0), row("a", 2.0, 1), row("b", 3.0, 0)])
    replace_arm(path, [row("a", 4.0, 0)])
    assert [(row.arm, row.record.validation_loss) for row in read_runs_table(path)] == [("b", 3.0), ("a", 4.0)]


def row(arm, loss, seed):
    return Row("cpu", arm, made_record(seed, 15_000, loss or 1.0, status=FINISHED if loss else NOT_RUN))


def test_a_run_that_ended_elsewhere_is_not_lost_where_it_is_only_planned(tmp_path):
    path = tmp_path / "runs.parquet"
    replace_arm(path, [row("a", 1.0, 0), row("a", None, 1)])
    replace_arm(path, [row("a", None, 0), row("a", 2.0, 1), row("a", None, 2)])
    found = [(row.record.config.seed, row.record.status, row.record.validation_loss) for row in read_runs_table(path)]
    assert found == [(0, FINISHED, 1.0), (1, FINISHED, 2.0), (2, NOT_RUN, 1.0)]


def test_a_file_that_is_no_table_is_named(tmp_path):
    (tmp_path / "runs.parquet").write_text("loss\n1\n")
    with pytest.raises(UserError, match=r"runs\.parquet is no table of runs"):
        read_runs_table(tmp_path / "runs.parquet")
    with pytest.raises(UserError, match=r"none\.parquet is missing"):
        read_runs_table(tmp_path / "none.parquet")


DAMAGES = {
    "cut off": lambda record: json.dumps(record)[:200],
    "empty": lambda _: "",
    "a list": lambda record: json.dumps([record]),
    "no config": lambda record: json.dumps({**record, "config": None}),
    "an empty config": lambda record: json.dumps({**record, "config": {}}),
    "another hash": lambda record: json.dumps({**record, "config_hash": "0123456789abcdef"}),
    "no loss": lambda record: json.dumps({**record, "validation_loss": None}),
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_a_damaged_record_is_refused_by_name(tmp_path, damage):
    write_record(tmp_path, made_record(0, 15_000, 1.25))
    path = tmp_path / "record.json"
    path.write_text(damage(json.loads(path.read_text())))
    with pytest.raises(UserError, match=re.escape(str(path))):
        read_record(tmp_path)


def test_a_row_that_is_not_a_record_is_named(tmp_path):
    write_runs(tmp_path / "runs.parquet", [row("a", 1.0, 0)])
    pq.write_table(pq.read_table(tmp_path / "runs.parquet").drop_columns(["config.seed"]), tmp_path / "runs.parquet")
    with pytest.raises(UserError, match=r"runs\.parquet, row 0: .*no seed"):
        read_runs_table(tmp_path / "runs.parquet")


def test_the_data_dictionary_names_every_column_of_the_committed_table():
    text = (PUBLISHED / "README.md").read_text(encoding="utf-8")
    named = set(re.findall(r"`([\w.*]+)`", text))
    for column in pq.read_schema(PUBLISHED / "runs.parquet").names:
        outer, _, inner = column.partition(".")
        named_so = column in named or (f"{outer}.*" in named and (inner in named or outer == "versions"))
        assert named_so or column.startswith("test_"), column
