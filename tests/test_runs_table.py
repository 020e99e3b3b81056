"""All runs as one table: what is written is what is read, planned runs stand in it, and a study is analysed from it."""

import re

import pyarrow.parquet as pq
import pytest
from made_results import PUBLISHED
from made_runs import made_ladders, made_run, write_study

from analysis.evidence import of_folders, of_table
from analysis.study import Study, analyse
from door import DoorError, write_json
from training.record import BASELINE, DIVERGED, FINISHED, NOT_RUN
from training.runs_table import read_runs_table, replace_rows, write_runs


def test_a_record_comes_back_as_it_was_and_what_it_lacks_is_none(tmp_path):
    record = made_run("gpt", "15k", 0, 15_000, 1.25) | {"trunk": None, "config": {"n_layer": 2, "names": ["a"]}}
    branch = made_run("lstm", "15k", 0, 15_000, 1.5) | {"trunk": {"run": "trunk/seed_0", "step": 784}, "more": 3}
    write_runs(tmp_path / "runs.parquet", [record, branch])
    first, second = read_runs_table(tmp_path / "runs.parquet")
    assert first == record | {"more": None}
    assert second == branch | {"config": None}


def test_an_arm_s_rows_are_replaced_and_the_others_kept(tmp_path):
    path = tmp_path / "runs.parquet"
    replace_rows(path, [row("a", 1.0, 0), row("a", 2.0, 1), row("b", 3.0, 0)], same=("study", "arm"))
    replace_rows(path, [row("a", 4.0, 0)], same=("study", "arm"))
    assert [(row["arm"], row["loss"]) for row in read_runs_table(path)] == [("b", 3.0), ("a", 4.0)]


def row(arm, loss, seed):
    ended = FINISHED if loss else NOT_RUN
    return {"study": "cpu", "arm": arm, "status": ended, "recipe": {"seed": seed}, "corpus": "0", "loss": loss}


def test_a_run_that_ended_elsewhere_is_not_lost_where_it_is_only_planned(tmp_path):
    path = tmp_path / "runs.parquet"
    replace_rows(path, [row("a", 1.0, 0), row("a", None, 1)], same=("study", "arm"))
    replace_rows(path, [row("a", None, 0), row("a", 2.0, 1), row("a", None, 2)], same=("study", "arm"))
    assert [(row["recipe"]["seed"], row["loss"]) for row in read_runs_table(path)] == [(0, 1.0), (1, 2.0), (2, None)]


def test_a_file_that_is_no_table_is_named(tmp_path):
    (tmp_path / "runs.parquet").write_text("loss\n1\n")
    with pytest.raises(DoorError, match=r"runs\.parquet is no table of runs"):
        read_runs_table(tmp_path / "runs.parquet")
    with pytest.raises(DoorError, match=r"none\.parquet is missing"):
        read_runs_table(tmp_path / "none.parquet")


@pytest.fixture
def written(tmp_path):
    """One study in folders and, with runs that were not run, in a table."""
    ladders = made_ladders(seeds=(0,))
    for run in (run for runs in ladders.values() for run in runs):
        run["recipe"]["init_from"] = None
    write_study(tmp_path / "data", ladders)
    evidence = of_folders(tmp_path / "data", [], tmp_path)
    planned = made_run("gpt", "9m", 0, 9e6, 1.0) | {"status": NOT_RUN, "validation_loss": None}
    planned["recipe"]["init_from"] = None
    names = {"study": "cpu", "arm": "ladders"}
    other = {**names, "study": "gpu", **planned}
    rows = [names | run for runs in ladders.values() for run in [*runs]]
    write_runs(tmp_path / "runs.parquet", [*rows, {**names, **planned}, other, other])
    write_json(tmp_path / BASELINE, evidence.baseline)
    return evidence, tmp_path / "runs.parquet"


def test_a_table_gives_the_same_analysis_as_the_folders(written):
    evidence, path = written
    told = of_table(path, "cpu")
    assert told.left_out == [
        "study cpu, ladders: 1 of 17 runs planned are not run",
        "study gpu, ladders: 2 of 2 runs planned are not run",
    ]
    assert {name: len(runs) for name, runs in Study(told).runs.items()} == {"gpt": 8, "lstm": 8}
    assert analyse(told) | {"left_out": []} == analyse(evidence) | {"left_out": []}


def test_a_diverged_run_in_a_table_is_told_and_not_fitted(written):
    _, path = written
    rows = read_runs_table(path)
    rows[3] |= {"status": DIVERGED, "reason": "the training loss is nan at step 17", "validation_loss": None}
    write_runs(path, rows)
    told = of_table(path, "cpu")
    assert len(told.ladders["gpt"].finished) == 7
    assert told.left_out[0].endswith("the training loss is nan at step 17")


def test_a_study_that_is_not_in_the_table_is_one_line(written):
    with pytest.raises(DoorError, match=r"--study gpu: no finished run of it in .*runs\.parquet, which has cpu, gpu"):
        of_table(written[1], "gpu")


def test_a_table_with_a_run_twice_or_without_a_column_is_one_line(written):
    _, path = written
    rows = read_runs_table(path)
    write_runs(path, [*rows, rows[0]])
    with pytest.raises(DoorError, match=r"runs\.parquet: gpt .*, stands there twice"):
        of_table(path, "cpu")
    write_runs(path, [{name: row[name] for name in row if name != "validation_loss"} for row in rows])
    with pytest.raises(DoorError, match=r"runs\.parquet: no validation_loss: training/run\.py"):
        of_table(path, "cpu")
    write_runs(path, rows)
    (path.parent / BASELINE).unlink()
    with pytest.raises(DoorError, match=r"ngram_baseline\.json is missing: a study's training leaves it in GPT_"):
        of_table(path, "cpu")


def test_the_data_dictionary_names_every_column_of_the_committed_table():
    text = (PUBLISHED / "README.md").read_text(encoding="utf-8")
    named = set(re.findall(r"`([\w.*]+)`", text))
    for column in pq.read_schema(PUBLISHED / "runs.parquet").names:
        outer, _, inner = column.partition(".")
        named_so = column in named or (f"{outer}.*" in named and (inner in named or outer == "versions"))
        assert named_so or column.startswith("test_"), column
