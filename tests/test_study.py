import json
import os
import re
import signal
import sqlite3
import sys
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import GPT2LMHeadModel

import training.loop
import training.probe
import training.run
from door import DoorError, open_door, write_json
from training.evaluation import held_out_losses, token_losses
from training.grid import Axes, plan_ladders
from training.loop import Conduct, Plan, Run, build_model, train
from training.probe import CHOICE, choose_precision, expected_seconds
from training.recipe import Recipe
from training.record import read_record
from training.runs_table import read_runs_table
from training.study import Outcome, make_job, planned_record, report_failures, run_jobs
from training.sweep import SHARED, plan_sweep
from training.tracking import Tracking

ROOT = Path(__file__).parent.parent
RECIPE = Recipe(
    "gpt", "15k", seed=0, tokens=12_000, batch_size=4, context=64, learning_rate=5e-3, weight_decay=0.1, warmup=1
)
SHORT = replace(RECIPE, tokens=3_000)
GRID = ["--gpt_sizes", "15k", "--lstm_sizes", "15k", "--tokens", "8000", "--context", "64", "--precision", "fp32"]


def quiet(tokens, loss):
    pass


def open_training(monkeypatch, capsys, corpus, root, *arguments, at_once=1):
    """Run the door in this process; return its output and its error output."""
    flags = ["--corpus", corpus.folder, "--output_root", root, "--at_once", at_once, "--log_with", "none", *arguments]
    monkeypatch.setattr(sys, "argv", ["run.py", *map(str, flags)])
    open_door(training.run.main)
    return capsys.readouterr()


# --- axes ------------------------------------------------------------------------------------------------------------


def planned(corpus, root=Path("data"), **axes):
    standard = {"sizes": {"gpt": ["15k", "30k"], "lstm": ["15k"]}, "seeds": [0], "tokens": [50_000], "flops": []}
    shared = replace(RECIPE, learning_rate=0.0, schedule=axes.pop("schedule", "cosine"))
    return [job.plan for job in plan_ladders(Axes(**{**standard, "one_in": [1], **axes}), shared, corpus, root)]


def test_every_size_is_planned_with_every_budget_part_of_the_data_and_seed(small_corpus):
    plans = planned(small_corpus, seeds=[0, 1], tokens=[50_000, 100_000], one_in=[1, 2, 4])
    assert len(plans) == 3 * 2 * 2 * 3
    assert len({plan.folder for plan in plans}) == len(plans)
    assert len({(p.recipe.architecture, p.recipe.size, p.recipe.learning_rate) for p in plans}) == 3


def test_a_budget_of_flops_gives_each_size_the_tokens_that_it_buys(small_corpus):
    axes = Axes({"gpt": ["15k", "30k"], "lstm": ["15k"]}, [0], [], [1e10, 2e10], [1])
    jobs = plan_ladders(axes, RECIPE, small_corpus, Path("data"))
    for job in jobs:
        spent = job.plan.recipe.tokens * job.flops_per_token
        assert min(abs(spent / budget - 1) for budget in axes.flops) < 1e-3
    assert len({job.plan.recipe.tokens for job in jobs}) == 6


def test_a_budget_that_buys_a_size_hardly_a_step_is_refused(small_corpus):
    with pytest.raises(DoorError, match=r"--flops 1e\+07: that buys gpt 15k \d+ tokens only"):
        planned(small_corpus, flops=[1e7])


def test_budgets_with_wsd_share_a_trunk_that_costs_less_than_the_runs_alone(small_corpus):
    budgets = [50_000, 100_000, 200_000, 400_000]
    axes = Axes({"gpt": ["15k"]}, [0], budgets, [], [1])
    jobs = plan_ladders(axes, replace(RECIPE, schedule="wsd"), small_corpus, Path("data"))
    [trunk] = [job for job in jobs if job.plan.keep_at]
    branches = [job for job in jobs if job is not trunk]
    assert {job.plan.trunk for job in branches} == {trunk.plan.folder}
    assert trunk.plan.keep_at == tuple(job.plan.recipe.cooldown_start for job in branches)
    assert trunk.plan.recipe.steps == max(trunk.plan.keep_at)
    own = sum(job.plan.recipe.tokens - job.start for job in jobs)
    assert own == pytest.approx(0.8 * 400_000 + 0.2 * sum(budgets), rel=0.01)


def test_a_run_on_a_part_of_the_data_records_what_it_saw(small_corpus, tmp_path):
    record = train(Plan(replace(SHORT, one_in=4), tmp_path), small_corpus, quiet, Conduct())
    stream, unique = small_corpus.part(0.25)
    assert record["unique_tokens"] == unique < 0.4 * small_corpus.part()[1]
    assert record["epochs"] == pytest.approx(record["tokens"] / (len(stream) - 1))


# --- what a run records ----------------------------------------------------------------------------------------------


def test_losses_of_headers_bodies_and_positions_add_up_to_the_whole(small_corpus):
    model = build_model(RECIPE, small_corpus)
    found = held_out_losses(model, small_corpus, "validation", 64)
    inside = small_corpus.in_header("validation")
    share = inside[1:].mean()
    assert share * found.headers + (1 - share) * found.bodies == pytest.approx(found.whole.loss)
    assert len(found.by_position) == 63
    whole_windows = token_losses(model, np.asarray(small_corpus.tokens("validation")), 64)
    whole_windows = whole_windows[: len(whole_windows) // 63 * 63]
    assert np.mean(found.by_position) == pytest.approx(whole_windows.mean(), abs=1e-5)


def test_a_header_ends_with_its_key(small_corpus):
    stream, inside = np.asarray(small_corpus.tokens("test")), small_corpus.in_header("test")
    decode = {value: key for key, value in small_corpus.vocabulary.items()}
    text = "".join(decode[int(token)] for token, head in zip(stream, inside, strict=True) if head)
    headers = [tune[: tune.index("\n", tune.index("\nK:") + 1) + 1] for tune in small_corpus.tunes("test")["text"]]
    assert text == "".join(headers)


def test_bf16_trains_to_nearly_the_loss_of_fp32_and_is_recorded(small_corpus, tmp_path):
    for architecture in ("gpt", "lstm"):
        losses = {}
        for precision in ("fp32", "bf16"):
            recipe = replace(RECIPE, architecture=architecture, precision=precision, tokens=6_000)
            record = train(Plan(recipe, tmp_path / architecture / precision), small_corpus, quiet, Conduct())
            losses[precision] = record["validation_loss"]
            assert record["recipe"]["precision"] == precision
        assert losses["bf16"] != losses["fp32"]
        assert losses["bf16"] == pytest.approx(losses["fp32"], abs=0.05)


def test_accumulated_pieces_of_a_batch_give_the_loss_curve_of_the_whole_batch(small_corpus, tmp_path):
    for architecture in ("gpt", "lstm"):
        recipe = replace(SHORT, architecture=architecture)
        curves = [
            train(
                Plan(recipe, tmp_path / f"{architecture}{at_once}"),
                small_corpus,
                quiet,
                Conduct(windows_at_once=at_once),
            )
            for at_once in (0, 1, 3)
        ]
        for other in curves[1:]:
            np.testing.assert_allclose(other["train_curve"]["loss"], curves[0]["train_curve"]["loss"], atol=1e-5)
        assert [record["windows_at_once"] for record in curves] == [4, 1, 3]


class Readings(TorchDispatchMode):
    """Counts how often a value is read from the device."""

    count = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.count += function is torch.ops.aten._local_scalar_dense.default
        return function(*args, **(kwargs or {}))


@pytest.mark.parametrize("architecture", ["gpt", "lstm"])
def test_a_step_reads_nothing_from_the_device_so_that_a_gpu_never_waits(small_corpus, architecture):
    recipe = replace(RECIPE, architecture=architecture)
    stream = np.asarray(small_corpus.tokens("train"))
    run = Run(recipe, stream, build_model(recipe, small_corpus), Tracking().accelerator(Path()), 2)
    with Readings() as readings:
        run.advance()
        assert readings.count == 0
        run.means()
        assert readings.count == 2


# --- failures --------------------------------------------------------------------------------------------------------


def run_all(plans, corpus, conduct=None):
    return run_jobs([make_job(plan, corpus) for plan in plans], corpus, 1, 1, conduct or Conduct(), "test")


def exhausted_above(windows):
    """A forward pass that has memory for so many windows."""
    forward = GPT2LMHeadModel.forward

    def limited(self, input_ids, **options):
        if len(input_ids) > windows and self.training:
            raise RuntimeError(
                "[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"
            )
        return forward(self, input_ids=input_ids, **options)

    return limited


def test_where_memory_is_short_the_batch_is_accumulated_from_fewer_windows(small_corpus, tmp_path, monkeypatch, capsys):
    expected = train(Plan(SHORT, tmp_path / "a"), small_corpus, quiet, Conduct())
    monkeypatch.setattr(GPT2LMHeadModel, "forward", exhausted_above(1))
    found = train(Plan(SHORT, tmp_path / "b"), small_corpus, quiet, Conduct())
    assert (found["windows_at_once"], found["tokens"]) == (1, expected["tokens"])
    np.testing.assert_allclose(found["train_curve"]["loss"], expected["train_curve"]["loss"], atol=1e-5)
    assert "out of memory, now 1 windows at once" in capsys.readouterr().err


def test_failures_are_marked_with_their_reason_and_the_study_goes_on(small_corpus, tmp_path, monkeypatch):
    plans = [
        Plan(SHORT, tmp_path / "no memory"),
        Plan(replace(SHORT, architecture="lstm"), tmp_path / "sound"),
        Plan(replace(SHORT, architecture="lstm", learning_rate=1e12), tmp_path / "diverges"),
    ]
    with monkeypatch.context() as patch:
        patch.setattr(GPT2LMHeadModel, "forward", exhausted_above(0))
        outcomes = run_all(plans, small_corpus)
    assert [read_record(plan.folder)["status"] for plan in plans] == ["failed", "finished", "diverged"]
    assert "out of memory" in read_record(plans[0].folder)["reason"]
    with pytest.raises(DoorError, match=r"2 of 3 runs did not finish:\n") as table:
        report_failures(outcomes)
    rows = str(table.value).splitlines()[1:]
    assert re.search(r"gpt 15k tokens_3000 seed 0 .* failed .*out of memory", rows[0])
    assert re.search(r"lstm 15k tokens_3000 seed 0 .* diverged .* at step \d+", rows[1])
    # With more memory the failed one is trained; what diverged would diverge again, and what is finished stays.
    again = run_all(plans, small_corpus)
    assert [outcome.record["status"] for outcome in again] == ["finished", "finished", "diverged"]


def test_an_exploding_loss_ends_the_run_long_before_its_last_step(small_corpus, tmp_path):
    record = train(Plan(replace(RECIPE, tokens=200_000, learning_rate=30.0), tmp_path), small_corpus, quiet, Conduct())
    assert record["status"] == "diverged"
    assert "times that of guessing evenly" in record["reason"]
    assert record["tokens"] < 100_000


class Deadly(Tracking):
    """Kills each process that starts a run of the GPT."""

    def start(self, accelerator, folder, recipe, step):
        if recipe.architecture == "gpt":
            os.kill(os.getpid(), signal.SIGKILL)
        super().start(accelerator, folder, recipe, step)


def test_a_killed_worker_is_marked_and_the_others_finish(small_corpus, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(training.run, "Tracking", Deadly)
    with pytest.raises(SystemExit) as ending:
        open_training(monkeypatch, capsys, small_corpus, tmp_path, *GRID, at_once=2)
    assert ending.value.code == 1
    errors = capsys.readouterr().err
    assert "1 of 2 runs did not finish" in errors
    assert "killed from outside" in errors
    records = {p.parts[-5]: json.loads(p.read_text()) for p in tmp_path.rglob("seed_0/record.json")}
    assert records["GPT_initial_training"]["status"] == "failed"
    assert records["LSTM_training"]["status"] == "finished"


def test_a_branch_whose_trunk_diverged_says_so(small_corpus, tmp_path):
    recipe = replace(RECIPE, learning_rate=1e12, schedule="wsd")
    axes = Axes({"gpt": ["15k"]}, [0], [12_000], [], [1])
    outcomes = run_jobs(plan_ladders(axes, recipe, small_corpus, tmp_path), small_corpus, 1, 1, Conduct(), "test")
    trunk, branch = (outcome.failure for outcome in outcomes)
    assert trunk[0] == "diverged"
    assert branch[0] == "failed"
    assert trunk[1] in branch[1]


# --- what it will cost -----------------------------------------------------------------------------------------------


def test_a_dry_run_prints_every_run_and_trains_none(small_corpus, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(training.probe, "PROBE_SECONDS", 0.05)
    out = open_training(monkeypatch, capsys, small_corpus, tmp_path, *GRID, "--dry_run", "--schedule", "wsd").out
    lines = out.splitlines()
    assert lines[0].split() == ["run", "N", "D", "FLOPs", "time", "disk,", "MB"]
    assert [line.split()[2] for line in lines[1:5]] == ["trunk", "tokens_8000-wsd", "trunk", "tokens_8000-wsd"]
    assert lines[-1].startswith("4 runs, 1 at once: about 0:00:")
    assert not list(tmp_path.rglob("record.json"))


def test_the_expected_time_is_that_of_the_steps_and_of_the_evaluation(small_corpus):
    job = make_job(Plan(RECIPE, Path("x")), small_corpus)
    steps = RECIPE.steps
    per_token = 0.01 / RECIPE.tokens_per_step
    without = expected_seconds(job, 0.01, 0)
    assert without > 0.01 * steps
    # A forward pass costs a third of a training step.
    assert expected_seconds(job, 0.01, 9_000) - without == pytest.approx(9_000 * per_token / 3)


@pytest.mark.parametrize(("bf16", "chosen"), [(0.5, "bf16"), (0.95, "fp32"), (2.0, "fp32")])
def test_bf16_is_chosen_where_it_is_clearly_faster_and_the_choice_is_kept(
    small_corpus, tmp_path, monkeypatch, bf16, chosen
):
    jobs = [make_job(Plan(RECIPE, tmp_path), small_corpus)]
    speed = {"fp32": 1.0, "bf16": bf16}
    monkeypatch.setattr(training.probe, "seconds_per_step", lambda recipe, *_: speed[recipe.precision])
    assert choose_precision(jobs, small_corpus, tmp_path, 1) == chosen
    speed["bf16"] = 1 / bf16
    assert choose_precision(jobs, small_corpus, tmp_path, 1) == chosen
    assert json.loads((tmp_path / CHOICE).read_text())["seconds_per_step"] == {"fp32": 1.0, "bf16": bf16}


# --- trackers --------------------------------------------------------------------------------------------------------


def test_curves_go_to_trackio_and_tensorboard_beside_the_runs(small_corpus, tmp_path, monkeypatch, capsys):
    flags = [*GRID, "--log_with", "trackio", "tensorboard"]
    open_training(monkeypatch, capsys, small_corpus, tmp_path, *flags, at_once=2)
    assert list((tmp_path / "tensorboard").rglob("events.out.tfevents.*"))
    [database] = (tmp_path / "trackio").glob("*.db")
    with sqlite3.connect(database) as connection:
        names = {row[0] for row in connection.execute("select distinct run_name from metrics")}
        metrics = [json.loads(row[0]) for row in connection.execute("select metrics from metrics")]
    arm = "15k/tokens_8000/seed_0"
    assert names == {f"GPT_initial_training/{arm}", f"LSTM_training/{arm}"}
    assert {"train/loss", "train/learning_rate", "train/gradient_norm", "validation/loss"} <= {
        k for m in metrics for k in m
    }
    record = read_record(tmp_path / "GPT_initial_training" / arm)
    logged = [m["train/loss"] for m in metrics if "train/loss" in m]
    assert set(record["train_curve"]["loss"]) <= set(logged)


def test_a_tracker_that_is_not_installed_is_named(monkeypatch):
    monkeypatch.setattr(training.run, "find_spec", lambda _: None)
    with pytest.raises(DoorError, match="--log_with trackio: not installed, pip install trackio"):
        training.run.StudyArguments()


# --- bad arguments ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("flag", "value"),
    [
        ("weight_decay", float("nan")),
        ("flops", [float("inf")]),
        ("gpt_rates", [-1.0, 0.01]),
        ("search_rates", [0.0]),
        ("fine_tuning_epochs", float("nan")),
        ("fine_tuning_dropout", 1.5),
        ("seeds", [-1]),
        ("windows_at_once", -3),
        ("checkpoint_seconds", float("nan")),
    ],
)
def test_a_value_out_of_range_is_refused_by_its_flag(flag, value):
    with pytest.raises(DoorError, match=f"--{flag} .*: must be from"):
        training.run.StudyArguments(**{flag: value})


def test_a_part_of_the_data_too_small_for_a_window_is_refused(small_corpus):
    with pytest.raises(DoorError, match="--one_in 100000: too small a part"):
        planned(small_corpus, one_in=[100_000])


def test_a_sweep_over_several_budgets_is_refused(small_corpus, tmp_path):
    axes = Axes({"gpt": ["15k"]}, [0], [12_000, 24_000], [], [1])
    jobs = plan_ladders(axes, RECIPE, small_corpus, tmp_path)
    with pytest.raises(DoorError, match="--part sweep: one budget"):
        plan_sweep(jobs, {"gpt": [0.01, 0.02, 0.03]}, tmp_path)


def test_a_sweep_with_wsd_has_whole_runs_and_no_trunk(small_corpus, tmp_path):
    axes = Axes({"gpt": ["15k"]}, [0], [12_000], [], [1])
    jobs = plan_ladders(axes, replace(RECIPE, schedule="wsd"), small_corpus, tmp_path)
    plans = [job.plan for job in plan_sweep(jobs, {"gpt": [0.01, 0.02, 0.03]}, tmp_path)]
    assert [(plan.recipe.schedule, plan.recipe.learning_rate, plan.trunk) for plan in plans] == [
        ("wsd", 0.01, None), ("wsd", 0.02, None), ("wsd", 0.03, None),
    ]  # fmt: skip


def sweep_row(architecture, size, n, rate, best, diverged=False):
    loss = None if diverged else 1 + float(np.log(rate / best) ** 2)
    row = {"architecture": architecture, "size": size, "seed": 0, "n_params": n, "n_params_non_embedding": n}
    return row | {"learning_rate": rate, "status": "diverged" if diverged else "finished", "loss": loss}


def test_a_sweep_adds_its_sizes_to_those_of_its_file(small_corpus, tmp_path, monkeypatch, capsys):
    """Two sizes stand there; the third joins them, with a run that diverges, and the rule goes through all three."""
    path, rates = tmp_path / "sweep.json", (0.0005, 0.001, 0.002)
    earlier = [sweep_row("gpt", "a", 10**5, rate, 0.001) for rate in rates]
    earlier += [sweep_row("gpt", "b", 10**6, rate, 0.001) for rate in rates]
    recipe = {key: asdict(RECIPE)[key] for key in SHARED} | {"tokens": 8000}
    write_json(path, {"corpus": small_corpus.digest(), "recipe": recipe, "versions": {}, "rules": {}, "runs": earlier})

    def trained(jobs):
        best = {0.005: 1.1, 0.01: 1.0, 0.02: 1.1}
        for job in jobs:
            loss = best.get(job.plan.recipe.learning_rate)
            status = {"status": "diverged", "reason": "nan"} if loss is None else {"status": "finished"}
            record = planned_record(job, small_corpus) | status | {"versions": {}}
            yield Outcome(job, record | ({} if loss is None else {"validation_loss": loss}), None)

    monkeypatch.setattr(training.run.Study, "run", lambda _, jobs: list(trained(jobs)))
    flags = ["--part", "sweep", "--gpt_sizes", "15k", "--context", "64", "--tokens", "8000", "--precision", "fp32"]
    flags += ["--sweep_file", path, "--gpt_rates", "0.005", "0.01", "0.02", "1"]
    open_training(monkeypatch, capsys, small_corpus, tmp_path, *map(str, flags))
    written = json.loads(path.read_text())
    assert written["runs"][4:] == earlier
    assert [row["status"] for row in written["runs"][:4]] == ["finished"] * 3 + ["diverged"]
    assert [row["rate"] for row in written["rules"]["gpt"]["optima"]] == pytest.approx([0.01, 0.001, 0.001])
    with pytest.raises(SystemExit):
        open_training(monkeypatch, capsys, small_corpus, tmp_path, *map(str, flags), "--weight_decay", "0.5")
    assert f"{path} holds another sweep (weight_decay 0.1, not 0.5)" in capsys.readouterr().err
    assert json.loads(path.read_text()) == written


def test_a_study_may_have_rates_of_its_own(small_corpus, monkeypatch, capsys, tmp_path):
    flags = ["--gpt_sizes", "15k", "30k", "--lstm_sizes", "15k", "30k", "--context", "64"]
    rules = ["--gpt_rate_rule", "0.005", "--lstm_rate_rule", "2", "0.5"]
    open_training(monkeypatch, capsys, small_corpus, tmp_path, *flags, *rules, "--runs_file", tmp_path / "runs.parquet")
    rates = [
        (row["n_params_non_embedding"], row["recipe"]["learning_rate"])
        for row in read_runs_table(tmp_path / "runs.parquet")
    ]
    assert [rate for _, rate in rates[:2]] == [0.005, 0.005]
    assert [rate for _, rate in rates[2:]] == pytest.approx([2 * n**-0.5 for n, _ in rates[2:]], rel=5e-3)
    with pytest.raises(DoorError, match=r"--lstm_rate_rule \[1.0, 2.0, 3.0\]: one rate for all sizes, or"):
        training.run.StudyArguments(lstm_rate_rule=[1.0, 2.0, 3.0])


# --- going on where runs have ended elsewhere -----------------------------------------------------------------------


def test_runs_that_a_table_says_have_ended_are_not_trained_again(small_corpus, tmp_path, monkeypatch, capsys):
    flags = [*GRID, "--schedule", "wsd"]
    table = str(tmp_path / "runs.parquet")
    there, here = tmp_path / "there", tmp_path / "here"
    open_training(monkeypatch, capsys, small_corpus, there, *flags)
    open_training(monkeypatch, capsys, small_corpus, there, *flags, "--runs_file", table)
    out = open_training(monkeypatch, capsys, small_corpus, here, *flags, "--records_from", table).out
    assert "2 runs have ended elsewhere" in out
    arm = Path("15k/tokens_8000-wsd/seed_0")
    for name in ("GPT_initial_training", "LSTM_training"):
        assert read_record(here / name / arm) == read_record(there / name / arm)
        assert [path.name for path in (here / name / "15k").iterdir()] == [arm.parent.name]  # no trunk
    assert not list(here.rglob("*.safetensors"))
    open_training(monkeypatch, capsys, small_corpus, here, *flags, "--runs_file", table.replace("runs", "again"))
    assert Path(table).read_bytes() == Path(table.replace("runs", "again")).read_bytes()


def test_a_run_of_another_rate_is_not_taken_from_a_table(small_corpus, tmp_path, monkeypatch, capsys):
    table = str(tmp_path / "runs.parquet")
    open_training(monkeypatch, capsys, small_corpus, tmp_path / "there", *GRID)
    open_training(monkeypatch, capsys, small_corpus, tmp_path / "there", *GRID, "--runs_file", table)
    more = ["--gpt_rate_rule", "0.001", "--records_from", table]
    out = open_training(monkeypatch, capsys, small_corpus, tmp_path / "here", *GRID, *more).out
    assert "1 runs have ended elsewhere" in out
    [weights] = (tmp_path / "here").rglob("model.safetensors")
    assert "GPT_initial_training" in weights.parts
    assert read_record(weights.parent)["recipe"]["learning_rate"] == 0.001


def test_a_run_that_diverges_before_its_first_point_is_marked_diverged(small_corpus, tmp_path):
    record = train(Plan(replace(RECIPE, weight_decay=1e30), tmp_path), small_corpus, quiet, Conduct())
    assert record["status"] == "diverged"
