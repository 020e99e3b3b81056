"""All runs as one table: what is written is what is read, planned runs stand in it, and a study is analysed from it."""

import re
from dataclasses import replace

import pyarrow.parquet as pq
import pytest
from made_results import PUBLISHED
from made_runs import made_ladders, made_run, record_of, write_study

from analysis.evidence import of_folders, of_table
from analysis.study import Study, analyse
from cli import UserError
from files import write_json
from training.record import BASELINE, DIVERGED, FINISHED, NOT_RUN
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


@pytest.fixture
def written(tmp_path):
    """One study in folders and, with runs that were not run, in a table."""
    ladders = made_ladders(seeds=(0,))
    write_study(tmp_path / "data", ladders)
    evidence = of_folders(tmp_path / "data", [], tmp_path)
    planned = record_of(made_run("gpt", "9m", 0, 9e6, 1.0, status=NOT_RUN, validation_loss=None))
    rows = [Row("cpu", "ladders", record_of(run)) for runs in ladders.values() for run in runs]
    other = Row("gpu", "ladders", planned)
    write_runs(tmp_path / "runs.parquet", [*rows, Row("cpu", "ladders", planned), other, other])
    write_json(tmp_path / BASELINE, evidence.baseline)
    return evidence, tmp_path / "runs.parquet"


def test_a_table_gives_the_same_analysis_as_the_folders(written):
    evidence, path = written
    found = of_table(path, "cpu")
    assert len(found.left_out) == 2
    assert found.left_out[0].startswith("study cpu, ladders: 1 of 17 runs")
    assert found.left_out[1].startswith("study gpu, ladders: 2 of 2 runs")
    assert {name: len(runs) for name, runs in Study(found).runs.items()} == {"gpt": 8, "lstm": 8}
    assert analyse(found) | {"left_out": []} == analyse(evidence) | {"left_out": []}


def test_a_diverged_run_in_a_table_is_reported_and_not_fitted(written):
    _, path = written
    rows = read_runs_table(path)
    reason = "the training loss is nan at step 17"
    diverged = replace(rows[3].record, status=DIVERGED, reason=reason, validation_loss=None)
    write_runs(path, [*rows[:3], replace(rows[3], record=diverged), *rows[4:]])
    found = of_table(path, "cpu")
    assert len(found.main["gpt"]) == 7
    assert found.left_out[0].endswith(reason)


def test_a_study_that_is_not_in_the_table_is_one_line(written):
    with pytest.raises(UserError, match=r"--study gpu: no finished run of it in .*runs\.parquet, which has cpu, gpu"):
        of_table(written[1], "gpu")


def test_a_table_with_a_run_twice_or_without_a_column_is_one_line(written):
    _, path = written
    rows = read_runs_table(path)
    write_runs(path, [*rows, rows[0]])
    with pytest.raises(UserError, match=r"runs\.parquet: gpt .*, stands there twice"):
        of_table(path, "cpu")
    pq.write_table(pq.read_table(path).drop_columns(["config.seed"]), path)
    with pytest.raises(UserError, match=r"runs\.parquet, row 0: .*no seed"):
        of_table(path, "cpu")
    write_runs(path, rows)
    (path.parent / BASELINE).unlink()
    with pytest.raises(UserError, match=r"ngram_baseline\.json is missing: a study's training leaves it in GPT_"):
        of_table(path, "cpu")


def test_the_data_dictionary_names_every_column_of_the_committed_table():
    text = (PUBLISHED / "README.md").read_text(encoding="utf-8")
    named = set(re.findall(r"`([\w.*]+)`", text))
    for column in pq.read_schema(PUBLISHED / "runs.parquet").names:
        outer, _, inner = column.partition(".")
        named_so = column in named or (f"{outer}.*" in named and (inner in named or outer == "versions"))
        assert named_so or column.startswith("test_"), column
