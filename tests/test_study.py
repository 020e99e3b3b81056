"""A study: planning, precision, costs, failures of single runs, and trackers."""

import json
import os
import re
import signal
import sqlite3
from dataclasses import replace
from pathlib import Path

import pytest
from small_runs import made_config, made_study, planned
from test_single_run import exhausted_above
from transformers import GPT2LMHeadModel

import training.arguments
import training.planning
from cli import UserError, read_arguments
from training.arguments import ExecutionArguments, StudyArguments
from training.best import BestArguments
from training.costs import expected_seconds, print_costs
from training.execution import ExecutionConfig, Tracking
from training.finetune import FineTuningArguments
from training.planning import plan_study
from training.record import read_record
from training.sweep import SweepArguments, plan_sweep
from training.trainer import Trainer
from training.workers import report_failures, train_all

CONFIG = made_config()
SHORT = replace(CONFIG, tokens=3_000)


# --- planning --------------------------------------------------------------------------------------------------------


def test_every_size_is_planned_with_every_budget_fraction_of_the_data_and_seed(small_corpus):
    axes = {"seeds": [0, 1], "tokens": [50_000, 100_000], "data_fraction": [1, 0.5, 0.25]}
    runs = plan_study(made_study(**axes), small_corpus)
    assert (
        len(runs) == len({run.folder for run in runs}) == len({run.config.config_hash for run in runs}) == 3 * 2 * 2 * 3
    )
    assert len({(run.config.architecture, run.config.size, run.config.learning_rate) for run in runs}) == 3
    doubled = made_study(gpt_sizes=["15k"] * 3000, lstm_sizes=[], seeds=[0, 0], data_fraction=[1, 1.0])
    assert len(plan_study(doubled, small_corpus)) == 1


def test_a_budget_of_flops_gives_each_size_the_tokens_that_it_buys(small_corpus):
    budgets = [1e10, 2e10]
    runs = plan_study(made_study(flops=budgets), small_corpus)
    for run in runs:
        spent = run.config.tokens * run.flops_per_token
        assert min(abs(spent / budget - 1) for budget in budgets) < 1e-3
    assert len({run.config.tokens for run in runs}) == 6
    with pytest.raises(UserError, match=r"--flops 1e\+07: buys gpt 15k only \d+ tokens"):
        plan_study(made_study(flops=[1e7]), small_corpus)


def test_budgets_with_wsd_share_a_trunk_that_costs_less_than_the_runs_alone(small_corpus):
    budgets = [50_000, 100_000, 200_000, 400_000]
    study = made_study(schedule="wsd", gpt_sizes=["15k"], lstm_sizes=[], tokens=budgets)
    trunk, *branches = plan_study(study, small_corpus)
    assert {run.trunk for run in branches} == {trunk.folder}
    assert trunk.keep_at == tuple(run.config.cooldown_start for run in branches)
    assert trunk.config.steps == max(trunk.keep_at)
    trained = sum(run.config.tokens - run.start for run in [trunk, *branches])
    assert trained == pytest.approx(0.8 * 400_000 + 0.2 * sum(budgets), rel=0.01)


def test_a_learning_rate_rule_replaces_the_schedules(small_corpus):
    runs = plan_study(made_study(gpt_lr_rule=[0.005], lstm_lr_rule=[2, 0.5], lstm_sizes=["15k", "30k"]), small_corpus)
    assert [run.config.learning_rate for run in runs[:2]] == [0.005, 0.005]
    for run in runs[2:]:
        assert run.config.learning_rate == pytest.approx(2 * run.n_params_non_embedding**-0.5, rel=5e-3)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"gpt_sizes": [], "lstm_sizes": []}, "--gpt_sizes"),
        ({"data_fraction": [1e-5]}, "--data_fraction 1e-05"),
        ({"context": 100_000}, "--context 100000"),
        ({"schedule": "wsd", "cooldown_fraction": 1.0}, "--cooldown_fraction"),
        ({"schedule": "wsd", "cooldown_fraction": 1e-3, "tokens": [25_200]}, "--cooldown_fraction"),
        ({"sequences": "streams"}, r"--sequences streams: a GPT \(15k\)"),
    ],
)
def test_a_study_that_cannot_be_planned_is_refused_by_its_flag(small_corpus, changes, message):
    with pytest.raises(UserError, match=message):
        plan_study(made_study(**changes), small_corpus)


@pytest.mark.parametrize(
    ("kind", "flag", "value"),
    [
        (StudyArguments, "weight_decay", "nan"),
        (StudyArguments, "flops", "inf"),
        (StudyArguments, "seeds", -1),
        (StudyArguments, "tokens", 10**30),
        (StudyArguments, "tokens", 0),
        (StudyArguments, "batch_size", 10**21),
        (StudyArguments, "context", 1),
        (StudyArguments, "data_fraction", 0.0),
        (StudyArguments, "data_fraction", 1.5),
        (StudyArguments, "gpt_sizes", "gigantic"),
        (SweepArguments, "gpt_learning_rates", -1.0),
        (BestArguments, "learning_rate_factors", 0.0),
        (FineTuningArguments, "epochs", "nan"),
        (FineTuningArguments, "epochs", 0.0),
        (FineTuningArguments, "learning_rate_factor", 0.0),
        (FineTuningArguments, "dropout", 1.5),
        (ExecutionArguments, "micro_batch_size", -3),
        (ExecutionArguments, "checkpoint_seconds", "nan"),
    ],
)
def test_a_value_out_of_range_is_refused_by_its_flag(capsys, kind, flag, value):
    with pytest.raises(SystemExit):
        read_arguments(kind, argv=[f"--{flag}", str(value)])
    assert f"--{flag}" in capsys.readouterr().err


def test_an_axis_without_values_and_a_rule_of_three_are_refused():
    for changes in ({"data_fraction": []}, {"lstm_lr_rule": [1.0, 2.0, 3.0]}):
        with pytest.raises(UserError, match=f"--{next(iter(changes))}"):
            StudyArguments(**changes)


def test_budgets_in_tokens_and_in_flops_together_are_refused():
    with pytest.raises(UserError, match="--tokens, --flops"):
        StudyArguments(tokens=[1_000_000], flops=[1e12])


def test_a_sweep_has_every_learning_rate_of_every_size_and_no_trunk(small_corpus):
    sizes = {"gpt_sizes": ["15k", "30k"], "gpt_learning_rates": [0.01, 0.02, 0.03]}
    runs = plan_sweep(
        SweepArguments(schedule="wsd", context=64, tokens=50_000, precision="fp32", **sizes), small_corpus
    )
    assert [(run.config.size, run.config.learning_rate, run.trunk) for run in runs] == [
        (size, rate, None) for size in ("15k", "30k") for rate in (0.01, 0.02, 0.03)
    ]
    with pytest.raises(UserError, match=r"--gpt_learning_rates .* at least three"):
        SweepArguments(gpt_sizes=["15k"], gpt_learning_rates=[0.01, 0.02])


@pytest.mark.parametrize(
    ("size", "has_bf16", "chosen"), [("tiny", True, "bf16"), ("tiny", False, "fp32"), ("500k", True, "fp32")]
)
def test_an_automatic_precision_follows_from_the_width_and_the_hardware(
    small_corpus, monkeypatch, size, has_bf16, chosen
):
    monkeypatch.setattr(training.planning, "has_bf16", lambda: has_bf16)
    runs = plan_study(made_study(precision="auto", gpt_sizes=[size], lstm_sizes=[size]), small_corpus)
    assert {run.config.precision for run in runs} == {chosen}


def test_an_automatic_precision_that_differs_between_the_sizes_of_a_law_is_refused(small_corpus, monkeypatch):
    monkeypatch.setattr(training.planning, "has_bf16", lambda: True)
    with pytest.raises(UserError, match=r"--precision auto is fp32 for 15k, bf16 for tiny"):
        plan_study(made_study(precision="auto", gpt_sizes=["15k", "tiny"], lstm_sizes=[]), small_corpus)


# --- costs -----------------------------------------------------------------------------------------------------------


def test_the_expected_time_is_that_of_the_steps_and_of_the_evaluation(small_corpus):
    run = planned(CONFIG, Path("x"), small_corpus)
    without = expected_seconds(run, 0.01, 0)
    assert without > 0.01 * CONFIG.steps
    evaluation = expected_seconds(run, 0.01, 9_000) - without
    assert evaluation == pytest.approx(9_000 * 0.01 / CONFIG.tokens_per_step / 3)  # a third of a step's FLOPs


def test_costs_are_printed_for_every_run_and_none_is_trained(small_corpus, tmp_path, capsys):
    study = made_study(tmp_path, schedule="wsd", gpt_sizes=["15k"])
    print_costs(plan_study(study, small_corpus), small_corpus, 2, "test")
    lines = capsys.readouterr().out.splitlines()
    assert lines[1].split() == ["run", "N", "D", "FLOPs", "time", "disk,", "MB"]
    assert [line.split()[2] for line in lines[2:6]] == ["trunk", "tokens_50000-wsd", "trunk", "tokens_50000-wsd"]
    assert lines[-1].startswith("runs: 4, 2 side by side; about 0:")
    assert not list(tmp_path.rglob("*"))


# --- failures --------------------------------------------------------------------------------------------------------


def train_runs(runs, corpus, tracking=None, num_parallel_runs=2):
    execution = ExecutionConfig(tracking=tracking or Tracking())
    return train_all(runs, corpus, execution, num_parallel_runs, "test")


class OutOfMemory(Tracking):
    """Has no memory for a single sequence of a GPT."""

    def accelerator(self, folder):
        GPT2LMHeadModel.forward = exhausted_above(0)  # in the worker alone
        return super().accelerator(folder)


def test_failures_are_recorded_with_their_reason_and_the_study_continues(small_corpus, tmp_path, capsys):
    configs = {
        "no memory": SHORT,
        "sound": replace(SHORT, architecture="lstm"),
        "diverges": replace(SHORT, architecture="lstm", learning_rate=1e12),
    }
    runs = [planned(config, tmp_path / name, small_corpus) for name, config in configs.items()]
    results = train_runs(runs, small_corpus, OutOfMemory())
    assert [read_record(run.folder).status for run in runs] == ["failed", "finished", "diverged"]
    assert "out of memory" in read_record(runs[0].folder).reason
    with pytest.raises(UserError, match="2 of 3 runs did not finish"):
        report_failures(results)
    rows = [row for row in capsys.readouterr().err.splitlines() if row.startswith("  ")]
    assert re.search(r"gpt 15k tokens_3000 seed 0 .* failed .*out of memory", rows[0])
    assert re.search(r"lstm 15k tokens_3000 seed 0 .* diverged .* at step \d+", rows[1])
    # With more memory the failed run is trained; the diverged one would diverge again.
    assert [result.record.status for result in train_runs(runs, small_corpus)] == ["finished", "finished", "diverged"]


NAN_STEP = 1210  # the validation loss is next computed at step 1250, the training loss at 1400


class NanWeights(Tracking):
    """Makes the weights NaN after a step between two points of the training curve."""

    def accelerator(self, folder):
        advance = Trainer.advance

        def poisoned(trainer):
            learning_rate = advance(trainer)
            if trainer.step == NAN_STEP:
                next(trainer.bare.parameters()).data.fill_(float("nan"))
            return learning_rate

        Trainer.advance = poisoned  # in the worker alone
        return super().accelerator(folder)


def test_a_nan_between_two_points_of_the_curve_is_a_diverged_run_that_is_not_tried_again(small_corpus, tmp_path):
    config = replace(CONFIG, context=16, batch_size=1, tokens=10_000 * 15)
    run = planned(config, tmp_path, small_corpus)
    [result] = train_runs([run], small_corpus, NanWeights())
    record = read_record(tmp_path)
    assert (record.status, record.steps) == ("diverged", 1250)
    assert result.failure == ("diverged", record.reason)
    before = (tmp_path / "record.json").stat().st_mtime_ns
    train_runs([run], small_corpus)
    assert (tmp_path / "record.json").stat().st_mtime_ns == before


class Faulty(Tracking):
    """Fails as a device, as this code or as the system can, for one size each."""

    def start(self, accelerator, folder, config, step):
        if config.size == "15k":
            raise RuntimeError("CUDA error: device-side assert triggered")
        if config.size == "30k":
            raise ValueError("a fault in the code")
        if config.size == "120k":
            os.kill(os.getpid(), signal.SIGKILL)
        super().start(accelerator, folder, config, step)


def test_a_run_that_fails_or_is_killed_ends_alone(small_corpus, tmp_path):
    sizes = ["15k", "30k", "60k", "120k"]
    study = made_study(tmp_path, gpt_sizes=sizes, lstm_sizes=[], tokens=[3_000])
    results = train_runs(plan_study(study, small_corpus), small_corpus, Faulty())
    failures = {result.run.config.size: result.failure for result in results}
    assert failures == {
        "15k": ("failed", "RuntimeError: CUDA error: device-side assert triggered"),
        "30k": ("failed", "ValueError: a fault in the code"),
        "60k": None,
        "120k": ("failed", "the worker was killed from outside, as a system does that runs out of memory"),
    }
    assert [read_record(result.run.folder).status for result in results] == ["failed", "failed", "finished", "failed"]


def test_a_branch_whose_trunk_diverged_has_diverged_for_that_reason(small_corpus, tmp_path):
    study = made_study(tmp_path, schedule="wsd", gpt_sizes=["15k"], lstm_sizes=[], tokens=[12_000], gpt_lr_rule=[1e5])
    runs = [replace(run, config=replace(run.config, learning_rate=1e12)) for run in plan_study(study, small_corpus)]
    trunk, branch = train_runs(runs, small_corpus)
    assert trunk.failure[0] == branch.failure[0] == "diverged"
    assert trunk.failure[1] in branch.failure[1]
    assert branch.record.trunk["run"] == "trunk/seed_0"


def test_two_runs_never_share_a_folder(small_corpus, tmp_path):
    study = made_study(tmp_path, gpt_sizes=["15k"], lstm_sizes=[], data_fraction=[0.33333331, 0.33333334])
    one, other = plan_study(study, small_corpus)
    assert one.folder != other.folder
    with pytest.raises(UserError, match="two different runs"):
        train_runs([one, replace(other, folder=one.folder)], small_corpus)


# --- trackers --------------------------------------------------------------------------------------------------------


def test_curves_go_to_trackio_and_tensorboard_beside_the_runs(small_corpus, tmp_path):
    runs = plan_study(made_study(tmp_path, gpt_sizes=["15k"], tokens=[8_000]), small_corpus)
    train_runs(runs, small_corpus, Tracking(("trackio", "tensorboard"), tmp_path), 2)
    assert list((tmp_path / "tensorboard").rglob("events.out.tfevents.*"))
    [database] = (tmp_path / "trackio").glob("*.db")
    with sqlite3.connect(database) as connection:
        names = {row[0] for row in connection.execute("select distinct run_name from metrics")}
        metrics = [json.loads(row[0]) for row in connection.execute("select metrics from metrics")]
    assert names == {str(run.folder.relative_to(tmp_path)) for run in runs}
    logged = {name for metric in metrics for name in metric}
    assert {"train/loss", "train/learning_rate", "train/gradient_norm", "validation/loss"} <= logged
    losses = {metric["train/loss"] for metric in metrics if "train/loss" in metric}
    assert set(read_record(runs[0].folder).train_curve["loss"]) <= losses


def test_a_tracker_that_is_not_installed_is_named(monkeypatch):
    monkeypatch.setattr(training.arguments, "find_spec", lambda _: None)
    with pytest.raises(UserError, match="--log_with trackio: not installed, pip install trackio"):
        ExecutionArguments()
