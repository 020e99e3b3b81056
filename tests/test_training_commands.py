"""The commands of training: study, best model, sweep and table of runs."""

import json
import os
import re
import resource
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import psutil
import pytest
from filelock import FileLock
from forks import has_ended
from small_runs import made_config, with_corpus
from test_single_run import assert_same_run

import training.best
import training.export
import training.run
import training.sweep
import training.workers
from cli import UserError, read_arguments
from files import write_json
from training.arguments import StudyArguments, StudyExecutionArguments
from training.best import BestArguments
from training.record import BASELINE, read_ladders, read_record, run_folder
from training.runs_table import read_runs_table
from training.saving import LATEST
from training.sweep import SweepArguments, shared_fields
from training.workers import RunResult

ROOT = Path(__file__).parent.parent
GRID = {
    "gpt_sizes": ["15k", "30k"],
    "lstm_sizes": ["15k"],
    "tokens": 15_000,
    "context": 64,
    "warmup_tokens": 252,
    "precision": "fp32",
    "checkpoint_seconds": 0,
    "log_with": "none",
}


def flags(**fields):
    """Arguments of a command, those of GRID with changes; None leaves a field out."""
    given = [(f"--{name}", value) for name, value in (GRID | fields).items() if value is not None]
    return [str(each) for name, value in given for each in (name, *(value if isinstance(value, list) else [value]))]


def command(module, *arguments):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["command", *map(str, arguments)])
        patch.setattr(training.workers, "share_machine", lambda _: (2, 1))
        module.main()


def refusal(capsys, module, *arguments):
    """Return the error message that a command ends with."""
    with pytest.raises(SystemExit) as ending:
        command(module, *arguments)
    assert ending.value.code != 0
    return capsys.readouterr().err.splitlines()[-1].removeprefix("error: ")


@pytest.fixture(scope="module")
def whole(small_corpus, tmp_path_factory):
    """A small study trained without interruption."""
    root = tmp_path_factory.mktemp("whole")
    command(training.run, *flags(corpus=small_corpus.folder, output_dir=root))
    return root


def test_a_study_leaves_a_table_of_its_runs_and_the_ngram_baseline(whole, small_corpus):
    rows = read_runs_table(whole / "runs.parquet")
    assert [(row.study, row.arm) for row in rows] == [("study", "ladders")] * 3
    assert all(row.record == read_record(run_folder(whole, row.record.config)) for row in rows)
    baseline = json.loads((whole / BASELINE).read_text())
    assert baseline["corpus"] == small_corpus.digest()
    assert baseline["validation_loss"] == baseline["orders"][2]["validation_loss"]


@pytest.mark.long
def test_workers_end_with_the_study_that_was_killed_and_the_same_study_ends_as_if_it_had_not_been(
    small_corpus, whole, tmp_path, capsys
):
    """Half of its runs would take minutes to their first point."""
    shared = {"corpus": small_corpus.folder, "output_dir": tmp_path}
    many = max(4, os.cpu_count() or 1)  # so that each has one thread
    long = flags(gpt_sizes="15k", tokens=[15_000, 900_000_000], num_parallel_runs=many, **shared)
    arguments = [sys.executable, ROOT / "training" / "run.py", *long]
    study = psutil.Popen([str(part) for part in arguments], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    family = []
    try:
        deadline = time.monotonic() + 120
        while not list(tmp_path.rglob(LATEST)):
            assert time.monotonic() < deadline
            assert study.poll() is None
            time.sleep(0.01)
        family = study.children(recursive=True)
        study.kill()
        study.wait()
        assert len(family) >= 5  # the server that forks and its four runs
        deadline = time.monotonic() + 5
        while not all(map(has_ended, family)):
            assert time.monotonic() < deadline
            time.sleep(0.01)
    finally:
        for process in [study, *family]:
            if process.is_running():
                process.kill()
    assert not list(tmp_path.rglob("tokens_900000000/*/record.json"))
    command(training.run, *flags(**shared))
    for path in whole.rglob("seed_0/record.json"):
        assert_same_run(tmp_path / path.parent.relative_to(whole), path.parent)
    capsys.readouterr()
    command(training.run, *flags(**shared))
    assert "3 of 3 runs have ended already" in capsys.readouterr().out


def test_the_best_run_is_trained_further_as_the_search_finds_best(small_corpus, whole):
    search = {"search_tokens": 3_000, "learning_rate_factors": [0.5, 1], "dropouts": 0.1, "weight_decays": 0.1}
    given = dict.fromkeys(("gpt_sizes", "lstm_sizes", "context", "warmup_tokens", "precision")) | {"tokens": 6_000}
    command(training.best, *flags(corpus=small_corpus.folder, output_dir=whole, **search, **given))
    record = read_record(whole / "best_model")
    searched = [read_record(path.parent) for path in whole.glob("best_model/search/*/record.json")]
    assert len(searched) == 2
    chosen = min(searched, key=lambda found: found.validation_loss).config
    assert record.config == replace(chosen, tokens=6000, warmup_tokens=120)
    assert record.test_tokens > 0
    runs = [run for architecture in ("gpt", "lstm") for run in read_ladders(whole)[architecture].finished]
    lowest = min(runs, key=lambda run: run.validation_loss).config
    assert (record.config.architecture, record.config.size) == (lowest.architecture, lowest.size)


@pytest.mark.parametrize(
    ("module", "arguments", "names"),
    [
        (training.run, ["--gpt_sizes", "gigantic"], "gigantic"),
        (training.run, ["--corpus", "nowhere", "--gpt_sizes", "15k"], "nowhere"),
        (training.run, ["missing.yaml"], "missing.yaml"),
        (training.best, ["--output_dir", "empty"], "no finished run"),
    ],
)
def test_bad_arguments_end_with_an_error_that_names_them(
    small_corpus, tmp_path, monkeypatch, capsys, module, arguments, names
):
    monkeypatch.chdir(tmp_path)
    corpus = [] if "--corpus" in arguments else ["--corpus", small_corpus.folder]
    assert names in refusal(capsys, module, *arguments, *corpus)


def test_a_second_study_in_one_folder_stops(small_corpus, tmp_path, capsys):
    with FileLock(tmp_path / ".training.lock"):
        given = flags(corpus=small_corpus.folder, output_dir=tmp_path)
        assert "another study is training there" in refusal(capsys, training.run, *given)


def small_files_only():
    """No file of this process or its children can grow beyond 20 kB, as if the disk were full."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))


@pytest.mark.long
def test_a_full_disk_costs_the_run_and_nothing_that_was_finished(small_corpus, whole):
    kept = run_folder(whole, made_config(tokens=15_000)) / "model.safetensors"
    before = kept.read_bytes()
    given = flags(corpus=small_corpus.folder, output_dir=whole, seeds=1)
    arguments = [sys.executable, str(ROOT / "training" / "run.py"), *given]
    ended = subprocess.run(arguments, preexec_fn=small_files_only, capture_output=True, text=True, check=False)
    assert ended.returncode == 1
    assert re.search(r"safetensors: File too large.*; free some space", ended.stderr)
    assert "Traceback" not in ended.stderr
    assert kept.read_bytes() == before
    failed = [read_record(path.parent) for path in whole.rglob("seed_1/record.json")]
    assert len(failed) == 3
    assert all(record.status == "failed" and "free some space" in record.reason for record in failed)
    command(training.run, *given)
    assert all(read_record(path.parent).status == "finished" for path in whole.rglob("seed_1/record.json"))


# --- study files -----------------------------------------------------------------------------------------------------


KINDS = {"best": (BestArguments,), "sweep": (SweepArguments,)}


@pytest.mark.parametrize("study", sorted((ROOT / "studies").glob("*.yaml")), ids=lambda path: path.stem)
def test_a_committed_study_can_be_read_as_a_whole_and_by_arm(study):
    kinds = KINDS.get(study.stem.split("_")[-1], (StudyArguments, StudyExecutionArguments))
    arms = read_arguments(*kinds, argv=[str(study)])
    for arm, *_ in arms if len(arms) > 1 else []:
        [(again, *_)] = read_arguments(*kinds, argv=[str(study), "--arm", arm.arm])
        assert again == arm
    assert all(kinds[0] == BestArguments or arm.lstm_sizes for (arm, *_) in arms)


@pytest.fixture
def two_arms(small_corpus, tmp_path):
    """A study file of two arms with different output folders."""
    file = tmp_path / "study.yaml"
    file.write_text(
        f"corpus: {small_corpus.folder}\nstudy: mine\ngpt_sizes: [15k]\ntokens: 8000\ncontext: 64\n"
        "warmup_tokens: 252\nprecision: fp32\nlog_with: none\n"
        f"arms:\n  - arm: one\n    output_dir: {tmp_path}/one\n"
        f"  - arm: two\n    output_dir: {tmp_path}/two\n    data_fraction: 0.5\n"
    )
    return file


def test_all_arms_are_in_the_table_of_the_first_one(two_arms, tmp_path):
    command(training.export, two_arms)
    table = tmp_path / "one" / "runs.parquet"
    assert [row.record.status for row in read_runs_table(table)] == ["not run", "not run"]
    command(training.run, two_arms, "--arm", "two")
    command(training.run, two_arms)
    rows = read_runs_table(table)
    assert [(row.study, row.arm, row.record.status) for row in rows] == [
        ("mine", "one", "finished"),
        ("mine", "two", "finished"),
    ]
    command(training.export, two_arms, "--runs", tmp_path / "exported.parquet")
    assert (tmp_path / "exported.parquet").read_bytes() == table.read_bytes()
    assert (tmp_path / BASELINE).read_bytes() == (tmp_path / "one" / BASELINE).read_bytes()


def test_arms_of_one_name_are_refused(two_arms, capsys):
    two_arms.write_text(two_arms.read_text().replace("arm: two", "arm: one"))
    assert "two arms" in refusal(capsys, training.run, two_arms)


def test_runs_of_the_same_folder_stay_in_the_table_and_another_configurations_are_refused(
    small_corpus, tmp_path, capsys
):
    shared = {"corpus": small_corpus.folder, "output_dir": tmp_path, "lstm_sizes": None, "tokens": 3_000}
    for size in ("15k", "30k"):
        command(training.run, *flags(gpt_sizes=size, **shared))
    rows = read_runs_table(tmp_path / "runs.parquet")
    assert sorted(row.record.config.size for row in rows) == ["15k", "30k"]
    line = refusal(capsys, training.run, *flags(gpt_sizes="15k", weight_decay=0.5, **shared))
    assert "holds another run (weight_decay 0.1, not 0.5)" in line
    assert read_runs_table(tmp_path / "runs.parquet") == rows


def test_runs_that_a_table_says_have_finished_are_not_trained_again(small_corpus, tmp_path, capsys):
    shared = {"corpus": small_corpus.folder, "gpt_sizes": "15k", "tokens": 8_000, "schedule": "wsd"}
    there, here = tmp_path / "there", tmp_path / "here"
    command(training.run, *flags(output_dir=there, **shared))
    table = there / "runs.parquet"
    command(training.run, *flags(output_dir=here, reuse_runs=table, **shared))
    assert "2 runs have ended elsewhere" in capsys.readouterr().out
    for row in read_runs_table(table):
        folder = run_folder(here, row.record.config)
        assert read_record(folder) == row.record
        assert [path.name for path in folder.parent.parent.iterdir()] == [folder.parent.name]  # no trunk
    assert not list(here.rglob("*.safetensors"))
    assert table.read_bytes() == (here / "runs.parquet").read_bytes()
    other = {"gpt_lr_rule": 0.001, "reuse_runs": table, "output_dir": tmp_path / "other"}
    command(training.run, *flags(**shared, **other))
    assert "1 runs have ended elsewhere" in capsys.readouterr().out
    weights = list((tmp_path / "other").rglob("model.safetensors"))
    assert {read_record(path.parent).config.learning_rate for path in weights} == {0.001}  # trunk and branch


# --- sweeps ----------------------------------------------------------------------------------------------------------


def test_a_sweep_adds_its_sizes_to_those_of_its_file(small_corpus, tmp_path, monkeypatch, capsys):
    """The file has two sizes; the third is added, with a run that diverges, and the rule goes through all three."""
    path = tmp_path / "sweep.json"
    earlier = [
        {
            "architecture": "gpt",
            "size": size,
            "seed": 0,
            "n_params": n,
            "n_params_non_embedding": n,
            "learning_rate": rate,
        }
        | {"status": "finished", "loss": 1 + float(np.log(rate / 0.001) ** 2)}
        for size, n in (("a", 10**5), ("b", 10**6))
        for rate in (0.0005, 0.001, 0.002)
    ]
    shared = shared_fields(with_corpus(made_config(tokens=8_000), small_corpus))
    write_json(path, {"config": shared, "versions": {}, "rules": {}, "runs": earlier})

    def trained(runs, *_):
        losses = {0.005: 1.1, 0.01: 1.0, 0.02: 1.1}
        for run in runs:
            loss = losses.get(run.config.learning_rate)
            record = run.record(small_corpus, "diverged" if loss is None else "finished")
            yield RunResult(run, replace(record, validation_loss=loss))

    monkeypatch.setattr(training.workers, "train_all", lambda *given: list(trained(*given)))
    given = {"corpus": small_corpus.folder, "output_dir": tmp_path, "sweep_file": path, "tokens": 8_000}
    given |= {"gpt_sizes": "15k", "lstm_sizes": None, "gpt_learning_rates": [0.005, 0.01, 0.02, 1]}
    command(training.sweep, *flags(**given))
    written = json.loads(path.read_text())
    assert written["runs"][4:] == earlier
    assert [row["status"] for row in written["runs"][:4]] == ["finished"] * 3 + ["diverged"]
    assert [row["rate"] for row in written["rules"]["gpt"]["optima"]] == pytest.approx([0.01, 0.001, 0.001])
    for changes, field in (
        ({"weight_decay": 0.5}, "weight_decay 0.1, not 0.5"),
        ({"data_fraction": 0.5}, "data_fraction 1.0, not 0.5"),
        ({"precision": "bf16"}, "precision 'fp32', not 'bf16'"),
    ):
        assert f"another sweep ({field})" in refusal(capsys, training.sweep, *flags(**given | changes))
    assert json.loads(path.read_text()) == written
    with pytest.raises(UserError, match="at least three"):
        SweepArguments(lstm_sizes=["15k"])
