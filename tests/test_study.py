import json
import os
import re
import signal
import sqlite3
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import training.grid
from small_runs import RECIPE, build_model, made_config, make_job, train, with_corpus
from torch.utils._python_dispatch import TorchDispatchMode
from training.grid import Axes, plan_ladders
from training.probe import expected_seconds
from training.study import RunResult, planned_record, report_failures, run_jobs
from training.tracking import Tracking
from transformers import GPT2LMHeadModel

import training.loop
import training.run
from cli import UserError
from files import write_json
from training.evaluation import held_out_losses, token_losses
from training.loop import ExecutionConfig, Plan
from training.record import read_record
from training.runs_table import read_runs_table
from training.sweep import plan_sweep, shared_fields
from training.trainer import Trainer

ROOT = Path(__file__).parent.parent
CONFIG = made_config()
SHORT = replace(CONFIG, tokens=3_000)
GRID = ["--gpt_sizes", "15k", "--lstm_sizes", "15k", "--tokens", "8000", "--context", "64", "--warmup_tokens", "252"]


def quiet(tokens, loss):
    pass


def open_training(monkeypatch, capsys, corpus, root, *arguments, num_parallel=1):
    """Run the door in this process; return its output and its error output."""
    flags = ["--corpus", corpus.folder, "--output_root", root, "--num_parallel_runs", num_parallel]
    flags += ["--log_with", "none", *arguments]
    monkeypatch.setattr(sys, "argv", ["run.py", *map(str, flags)])
    training.run.main()
    return capsys.readouterr()


# --- axes ------------------------------------------------------------------------------------------------------------


def planned(corpus, root=Path("data"), recipe=RECIPE, **axes):
    standard = {"sizes": {"gpt": ["15k", "30k"], "lstm": ["15k"]}, "seeds": [0], "tokens": [50_000], "flops": []}
    return plan_ladders(Axes(**{**standard, "data_fractions": [1.0], **axes}), recipe, corpus, root)


def test_every_size_is_planned_with_every_budget_fraction_of_the_data_and_seed(small_corpus):
    jobs = planned(small_corpus, seeds=[0, 1], tokens=[50_000, 100_000], data_fractions=[1, 0.5, 0.25])
    assert len(jobs) == 3 * 2 * 2 * 3
    assert len({job.plan.folder for job in jobs}) == len({job.plan.config.config_hash for job in jobs}) == len(jobs)
    configs = [job.plan.config for job in jobs]
    assert len({(config.architecture, config.size, config.learning_rate) for config in configs}) == 3


def test_what_is_given_twice_is_planned_once(small_corpus):
    sizes = {"gpt": ["15k"] * 3000, "lstm": []}
    jobs = planned(small_corpus, sizes=sizes, seeds=[0, 0], tokens=[50_000] * 2, data_fractions=[1, 1.0])
    assert len(jobs) == 1


def test_a_budget_of_flops_gives_each_size_the_tokens_that_it_buys(small_corpus):
    budgets = [1e10, 2e10]
    jobs = planned(small_corpus, tokens=[], flops=budgets)
    for job in jobs:
        spent = job.plan.config.tokens * job.flops_per_token
        assert min(abs(spent / budget - 1) for budget in budgets) < 1e-3
    assert len({job.plan.config.tokens for job in jobs}) == 6


def test_a_budget_that_buys_a_size_hardly_a_step_is_refused(small_corpus):
    with pytest.raises(UserError, match=r"--flops 1e\+07: that buys gpt 15k \d+ tokens only"):
        planned(small_corpus, flops=[1e7])


def test_budgets_with_wsd_share_a_trunk_that_costs_less_than_the_runs_alone(small_corpus):
    budgets = [50_000, 100_000, 200_000, 400_000]
    jobs = planned(small_corpus, recipe=replace(RECIPE, schedule="wsd"), sizes={"gpt": ["15k"]}, tokens=budgets)
    [trunk] = [job for job in jobs if job.plan.keep_at]
    branches = [job for job in jobs if job is not trunk]
    assert {job.plan.trunk for job in branches} == {trunk.plan.folder}
    assert trunk.plan.keep_at == tuple(job.plan.config.cooldown_start for job in branches)
    assert trunk.plan.config.steps == max(trunk.plan.keep_at)
    own = sum(job.plan.config.tokens - job.start for job in jobs)
    assert own == pytest.approx(0.8 * 400_000 + 0.2 * sum(budgets), rel=0.01)


def test_a_run_on_a_fraction_of_the_data_records_what_it_saw(small_corpus, tmp_path):
    record = train(Plan(replace(SHORT, data_fraction=0.25), tmp_path), small_corpus, quiet, ExecutionConfig())
    stream, unique = small_corpus.part(0.25)
    assert record.unique_tokens == unique < 0.4 * small_corpus.part()[1]
    assert record.epochs == pytest.approx(record.tokens / (len(stream) - 1))
    assert record.split_hashes == small_corpus.split_hashes


# --- what a run records ----------------------------------------------------------------------------------------------


def test_losses_of_headers_bodies_and_positions_add_up_to_the_whole(small_corpus):
    model = build_model(CONFIG, small_corpus)
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
            config = replace(CONFIG, architecture=architecture, precision=precision, tokens=6_000)
            record = train(Plan(config, tmp_path / architecture / precision), small_corpus, quiet, ExecutionConfig())
            losses[precision] = record.validation_loss
            assert record.config.precision == precision
        assert losses["bf16"] != losses["fp32"]
        assert losses["bf16"] == pytest.approx(losses["fp32"], abs=0.05)


def test_accumulated_pieces_of_a_batch_give_the_loss_curve_of_the_whole_batch(small_corpus, tmp_path):
    for architecture in ("gpt", "lstm"):
        config = replace(SHORT, architecture=architecture)
        curves = [
            train(
                Plan(config, tmp_path / f"{architecture}{at_once}"),
                small_corpus,
                quiet,
                ExecutionConfig(micro_batch_size=at_once),
            )
            for at_once in (0, 1, 3)
        ]
        for other in curves[1:]:
            np.testing.assert_allclose(other.train_curve["loss"], curves[0].train_curve["loss"], atol=1e-5)
        assert [record.micro_batch_size for record in curves] == [4, 1, 3]


class Readings(TorchDispatchMode):
    """Counts how often a value is read from the device."""

    count = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.count += function is torch.ops.aten._local_scalar_dense.default
        return function(*args, **(kwargs or {}))


@pytest.mark.parametrize("architecture", ["gpt", "lstm"])
def test_a_step_reads_nothing_from_the_device_so_that_a_gpu_never_waits(small_corpus, architecture):
    config = replace(CONFIG, architecture=architecture)
    stream = np.asarray(small_corpus.tokens("train"))
    run = Trainer(config, stream, build_model(config, small_corpus), Tracking().accelerator(Path()), 2)
    with Readings() as readings:
        run.advance()
        assert readings.count == 0
        run.means()
        assert readings.count == 2


# --- failures --------------------------------------------------------------------------------------------------------


def run_all(plans, corpus, execution=None):
    return run_jobs([make_job(plan, corpus) for plan in plans], corpus, 1, 1, execution or ExecutionConfig(), "test")


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
    expected = train(Plan(SHORT, tmp_path / "a"), small_corpus, quiet, ExecutionConfig())
    monkeypatch.setattr(GPT2LMHeadModel, "forward", exhausted_above(1))
    found = train(Plan(SHORT, tmp_path / "b"), small_corpus, quiet, ExecutionConfig())
    assert (found.micro_batch_size, found.tokens) == (1, expected.tokens)
    np.testing.assert_allclose(found.train_curve["loss"], expected.train_curve["loss"], atol=1e-5)
    assert "out of memory" in capsys.readouterr().err


class Exhausted(Tracking):
    """Has no memory for a single window of a GPT."""

    def accelerator(self, folder):
        GPT2LMHeadModel.forward = exhausted_above(0)  # in the worker alone
        return super().accelerator(folder)


def test_failures_are_marked_with_their_reason_and_the_study_continues(small_corpus, tmp_path, capsys):
    plans = [
        Plan(SHORT, tmp_path / "no memory"),
        Plan(replace(SHORT, architecture="lstm"), tmp_path / "sound"),
        Plan(replace(SHORT, architecture="lstm", learning_rate=1e12), tmp_path / "diverges"),
    ]
    results = run_all(plans, small_corpus, ExecutionConfig(tracking=Exhausted()))
    assert [read_record(plan.folder).status for plan in plans] == ["failed", "finished", "diverged"]
    assert "out of memory" in read_record(plans[0].folder).reason
    with pytest.raises(UserError, match="2 of 3 runs did not finish"):
        report_failures(results)
    rows = [row for row in capsys.readouterr().err.splitlines() if row.startswith("  ")]
    assert re.search(r"gpt 15k tokens_3000 seed 0 .* failed .*out of memory", rows[0])
    assert re.search(r"lstm 15k tokens_3000 seed 0 .* diverged .* at step \d+", rows[1])
    # With more memory the failed one is trained; what diverged would diverge again, and what is finished stays.
    again = run_all(plans, small_corpus)
    assert [result.record.status for result in again] == ["finished", "finished", "diverged"]


def test_an_exploding_loss_ends_the_run_long_before_its_last_step(small_corpus, tmp_path):
    plan = Plan(replace(CONFIG, tokens=200_000, learning_rate=30.0), tmp_path)
    record = train(plan, small_corpus, quiet, ExecutionConfig())
    assert record.status == "diverged"
    assert "training loss is" in record.reason
    assert record.tokens < 100_000


POISONED_STEP = 1210  # the validation loss is next computed at step 1250, the training loss at 1400


class Poisoned(Tracking):
    """Makes the weights NaN after a step that lies between two points of the training curve."""

    def accelerator(self, folder):
        advance = Trainer.advance

        def poisoned(trainer):
            rate = advance(trainer)
            if trainer.step == POISONED_STEP:
                next(trainer.bare.parameters()).data.fill_(float("nan"))
            return rate

        Trainer.advance = poisoned  # in the worker alone
        return super().accelerator(folder)


def test_a_nan_between_two_points_of_the_curve_is_a_diverged_run_that_is_not_tried_again(small_corpus, tmp_path):
    config = replace(CONFIG, context=16, batch_size=1, tokens=10_000 * 15)
    plan = Plan(config, tmp_path)
    [result] = run_all([plan], small_corpus, ExecutionConfig(tracking=Poisoned()))
    record = read_record(tmp_path)
    assert (record.status, record.steps) == ("diverged", 1250)
    assert "validation loss is nan at step 1250" in record.reason
    assert result.failure == ("diverged", record.reason)
    before = (tmp_path / "record.json").stat().st_mtime_ns
    run_all([plan], small_corpus)
    assert (tmp_path / "record.json").stat().st_mtime_ns == before


class Faulty(Tracking):
    """Fails as a device or our own code does, for the GPT of one size each."""

    def start(self, accelerator, folder, config, step):
        if config.size == "15k":
            raise RuntimeError("CUDA error: device-side assert triggered")
        if config.size == "30k":
            raise ValueError("a fault of ours")
        super().start(accelerator, folder, config, step)


def test_one_at_a_time_a_run_that_fails_costs_itself_alone(small_corpus, tmp_path, monkeypatch, capfd):
    """As on one GPU: no two runs side by side, and all threads for each."""
    monkeypatch.setattr(training.run, "Tracking", Faulty)
    monkeypatch.setattr(training.run, "share_machine", lambda _: (1, torch.get_num_threads()))
    sizes = ["--gpt_sizes", "15k", "30k", "60k", "--tokens", "3000", "--context", "64", "--warmup_tokens", "252"]
    with pytest.raises(SystemExit) as ending:
        open_training(monkeypatch, capfd, small_corpus, tmp_path, *sizes)
    assert ending.value.code == 1
    errors = capfd.readouterr().err
    assert "2 of 3 runs did not finish" in errors
    assert "RuntimeError: CUDA error: device-side assert triggered" in errors
    assert "ValueError: a fault of ours" in errors
    status = {path.parts[-4]: json.loads(path.read_text())["status"] for path in tmp_path.rglob("record.json")}
    assert status == {"15k": "failed", "30k": "failed", "60k": "finished"}


class Deadly(Tracking):
    """Kills each process that starts a run of the GPT."""

    def start(self, accelerator, folder, config, step):
        if config.architecture == "gpt":
            os.kill(os.getpid(), signal.SIGKILL)
        super().start(accelerator, folder, config, step)


def test_a_killed_worker_is_marked_and_the_others_finish(small_corpus, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(training.run, "Tracking", Deadly)
    with pytest.raises(SystemExit) as ending:
        open_training(monkeypatch, capsys, small_corpus, tmp_path, *GRID, num_parallel=2)
    assert ending.value.code == 1
    errors = capsys.readouterr().err
    assert "1 of 2 runs did not finish" in errors
    assert "killed from outside" in errors
    records = {p.parts[-5]: json.loads(p.read_text()) for p in tmp_path.rglob("seed_0/record.json")}
    assert records["GPT_initial_training"]["status"] == "failed"
    assert records["LSTM_training"]["status"] == "finished"


def test_a_branch_whose_trunk_diverged_says_so(small_corpus, tmp_path):
    axes = {"sizes": {"gpt": ["15k"]}, "tokens": [12_000], "lr_rules": {"gpt": (1e12, 0.0)}}
    jobs = planned(small_corpus, tmp_path, replace(RECIPE, schedule="wsd"), **axes)
    results = run_jobs(jobs, small_corpus, 1, 1, ExecutionConfig(), "test")
    trunk, branch = (result.failure for result in results)
    assert trunk[0] == "diverged"
    assert branch[0] == "diverged"
    assert trunk[1] in branch[1]
    assert results[1].record.trunk["run"] == "trunk/seed_0"
    assert [job.plan.folder for job in jobs if read_record(job.plan.folder).status != "diverged"] == []


def test_two_runs_never_share_a_folder(small_corpus, tmp_path):
    fractions = [0.33333331, 0.33333334]
    jobs = planned(small_corpus, tmp_path, sizes={"gpt": ["15k"]}, data_fractions=fractions)
    assert len({job.plan.folder for job in jobs}) == 2
    one, other = jobs
    other = replace(other, plan=replace(other.plan, folder=one.plan.folder))
    with pytest.raises(UserError, match="two different runs"):
        run_jobs([one, other], small_corpus, 1, 1, ExecutionConfig(), "test")


@pytest.mark.parametrize("fraction", [1.0, 1e-3])
def test_a_wsd_run_without_a_trunk_or_a_cooldown_is_refused(small_corpus, fraction):
    recipe = replace(RECIPE, schedule="wsd", cooldown_fraction=fraction)
    with pytest.raises(UserError, match="--cooldown_fraction"):
        planned(small_corpus, recipe=recipe, tokens=[25_200])


def test_a_table_of_runs_never_holds_another_configurations_record(small_corpus, tmp_path, monkeypatch, capsys):
    open_training(monkeypatch, capsys, small_corpus, tmp_path, *GRID)
    more = ["--weight_decay", "0.5", "--runs_file", str(tmp_path / "runs.parquet")]
    with pytest.raises(SystemExit):
        open_training(monkeypatch, capsys, small_corpus, tmp_path, *GRID, *more)
    assert "holds another run (weight_decay 0.1, not 0.5)" in capsys.readouterr().err


def test_arms_of_one_name_are_refused_where_they_would_replace_each_others_rows(
    small_corpus, tmp_path, monkeypatch, capsys
):
    study = tmp_path / "study.yaml"
    study.write_text("gpt_sizes: [15k]\ncontext: 64\narms: [{seeds: [0]}, {seeds: [1]}]\n")
    command = ["run.py", study, "--corpus", small_corpus.folder, "--runs_file", tmp_path / "runs.parquet"]
    monkeypatch.setattr(sys, "argv", [str(part) for part in command])
    with pytest.raises(SystemExit):
        training.run.main()
    assert "two arms" in capsys.readouterr().err


def test_the_memory_of_a_run_is_its_own_also_after_a_larger_one_in_the_same_process(small_corpus, tmp_path):
    large = train(Plan(replace(SHORT, size="tiny"), tmp_path / "large"), small_corpus, quiet, ExecutionConfig())
    small = train(Plan(replace(SHORT, tokens=6_000), tmp_path / "small"), small_corpus, quiet, ExecutionConfig())
    assert large.peak_memory_bytes > 16 * large.n_params  # weights, gradients and two moments
    assert small.peak_memory_bytes < large.peak_memory_bytes / 3


# --- what it will cost -----------------------------------------------------------------------------------------------


def test_a_dry_run_prints_every_run_and_trains_none(small_corpus, tmp_path, monkeypatch, capsys):
    out = open_training(monkeypatch, capsys, small_corpus, tmp_path, *GRID, "--dry_run", "--schedule", "wsd").out
    lines = out.splitlines()
    assert lines[1].split() == ["run", "N", "D", "FLOPs", "time", "disk,", "MB"]
    assert [line.split()[2] for line in lines[2:6]] == ["trunk", "tokens_8000-wsd", "trunk", "tokens_8000-wsd"]
    assert lines[-1].startswith("runs: 4, 1 at once; about 0:0")
    assert not list(tmp_path.rglob("record.json"))


def test_the_expected_time_is_that_of_the_steps_and_of_the_evaluation(small_corpus):
    job = make_job(Plan(CONFIG, Path("x")), small_corpus)
    steps = CONFIG.steps
    per_token = 0.01 / CONFIG.tokens_per_step
    without = expected_seconds(job, 0.01, 0)
    assert without > 0.01 * steps
    # A forward pass costs a third of a training step.
    assert expected_seconds(job, 0.01, 9_000) - without == pytest.approx(9_000 * per_token / 3)


# --- precision -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("size", "has_bf16", "chosen"), [("tiny", True, "bf16"), ("tiny", False, "fp32"), ("500k", True, "fp32")]
)
def test_an_automatic_precision_follows_from_the_width_and_the_hardware(
    small_corpus, monkeypatch, size, has_bf16, chosen
):
    monkeypatch.setattr(training.grid, "has_bf16", lambda: has_bf16)
    recipe = replace(RECIPE, precision="auto")
    jobs = planned(small_corpus, recipe=recipe, sizes={"gpt": [size], "lstm": [size]})
    assert {job.plan.config.precision for job in jobs} == {chosen}
    assert {job.plan.config.precision for job in planned(small_corpus, sizes={"gpt": [size]})} == {"fp32"}


def test_an_automatic_precision_that_differs_between_the_sizes_of_a_law_is_refused(small_corpus, monkeypatch):
    monkeypatch.setattr(training.grid, "has_bf16", lambda: True)
    with pytest.raises(UserError, match=r"--precision auto is fp32 for 15k, bf16 for tiny"):
        planned(small_corpus, recipe=replace(RECIPE, precision="auto"), sizes={"gpt": ["15k", "tiny"]})


# --- trackers --------------------------------------------------------------------------------------------------------


def test_curves_go_to_trackio_and_tensorboard_beside_the_runs(small_corpus, tmp_path, monkeypatch, capsys):
    flags = [*GRID, "--log_with", "trackio", "tensorboard"]
    open_training(monkeypatch, capsys, small_corpus, tmp_path, *flags, num_parallel=2)
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
    assert set(record.train_curve["loss"]) <= set(logged)


def test_a_tracker_that_is_not_installed_is_named(monkeypatch):
    monkeypatch.setattr(training.run, "find_spec", lambda _: None)
    with pytest.raises(UserError, match="--log_with trackio: not installed, pip install trackio"):
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
        ("micro_batch_size", -3),
        ("tokens", [10**30]),
        ("batch_size", 10**21),
        ("context", 1),
        ("data_fraction", [0.0]),
        ("data_fraction", [1.5]),
        ("checkpoint_seconds", float("nan")),
    ],
)
def test_a_value_out_of_range_is_refused_by_its_flag(flag, value):
    with pytest.raises(UserError, match=f"--{flag} .*: must be from"):
        training.run.StudyArguments(**{flag: value})


def test_budgets_in_tokens_and_in_flops_at_once_are_refused():
    with pytest.raises(UserError, match="--tokens, --flops"):
        training.run.StudyArguments(tokens=[1_000_000], flops=[1e12])


def test_a_part_of_the_data_too_small_for_a_window_is_refused(small_corpus):
    with pytest.raises(UserError, match="--data_fraction 1e-05: too little"):
        planned(small_corpus, data_fractions=[1e-5])


def test_a_sweep_over_several_budgets_is_refused(small_corpus, tmp_path):
    jobs = planned(small_corpus, tmp_path, sizes={"gpt": ["15k"]}, tokens=[12_000, 24_000])
    with pytest.raises(UserError, match="--part sweep: one budget"):
        plan_sweep(jobs, {"gpt": [0.01, 0.02, 0.03]}, tmp_path)


def test_a_sweep_with_wsd_has_whole_runs_and_no_trunk(small_corpus, tmp_path):
    recipe = replace(RECIPE, schedule="wsd")
    jobs = planned(small_corpus, tmp_path, recipe, sizes={"gpt": ["15k"]}, tokens=[12_000])
    plans = [job.plan for job in plan_sweep(jobs, {"gpt": [0.01, 0.02, 0.03]}, tmp_path)]
    assert [(plan.config.schedule, plan.config.learning_rate, plan.trunk) for plan in plans] == [
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
    shared = shared_fields(with_corpus(replace(CONFIG, tokens=8_000), small_corpus))
    write_json(path, {"config": shared, "versions": {}, "rules": {}, "runs": earlier})

    def trained(jobs):
        best = {0.005: 1.1, 0.01: 1.0, 0.02: 1.1}
        for job in jobs:
            loss = best.get(job.plan.config.learning_rate)
            status = {"status": "diverged", "reason": "nan"} if loss is None else {"status": "finished"}
            yield RunResult(job, replace(planned_record(job, small_corpus), validation_loss=loss, **status), None)

    monkeypatch.setattr(training.run.Study, "run", lambda _, jobs: list(trained(jobs)))
    flags = ["--part", "sweep", "--gpt_sizes", "15k", "--context", "64", "--tokens", "8000", "--warmup_tokens", "252"]
    flags += ["--sweep_file", path, "--gpt_rates", "0.005", "0.01", "0.02", "1"]
    open_training(monkeypatch, capsys, small_corpus, tmp_path, *map(str, flags))
    written = json.loads(path.read_text())
    assert written["runs"][4:] == earlier
    assert [row["status"] for row in written["runs"][:4]] == ["finished"] * 3 + ["diverged"]
    assert [row["rate"] for row in written["rules"]["gpt"]["optima"]] == pytest.approx([0.01, 0.001, 0.001])
    for flag, value, field in (
        ("--weight_decay", "0.5", "weight_decay 0.1, not 0.5"),
        ("--data_fraction", "0.5", "data_fraction 1.0, not 0.5"),
        ("--precision", "bf16", "precision 'fp32', not 'bf16'"),
    ):
        with pytest.raises(SystemExit):
            open_training(monkeypatch, capsys, small_corpus, tmp_path, *map(str, flags), flag, value)
        assert f"{path} holds another sweep ({field})" in capsys.readouterr().err
    assert json.loads(path.read_text()) == written


def test_a_study_may_have_rates_of_its_own(small_corpus, monkeypatch, capsys, tmp_path):
    flags = ["--gpt_sizes", "15k", "30k", "--lstm_sizes", "15k", "30k", "--context", "64"]
    rules = ["--gpt_rate_rule", "0.005", "--lstm_rate_rule", "2", "0.5"]
    open_training(monkeypatch, capsys, small_corpus, tmp_path, *flags, *rules, "--runs_file", tmp_path / "runs.parquet")
    rates = [
        (row.record.n_params_non_embedding, row.record.config.learning_rate)
        for row in read_runs_table(tmp_path / "runs.parquet")
    ]
    assert [rate for _, rate in rates[:2]] == [0.005, 0.005]
    assert [rate for _, rate in rates[2:]] == pytest.approx([2 * n**-0.5 for n, _ in rates[2:]], rel=5e-3)
    with pytest.raises(UserError, match=r"--lstm_rate_rule \[1.0, 2.0, 3.0\]: one rate for all sizes, or"):
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
    assert read_record(weights.parent).config.learning_rate == 0.001


def test_a_run_that_diverges_before_its_first_point_is_marked_diverged(small_corpus, tmp_path):
    record = train(Plan(replace(CONFIG, weight_decay=1e30), tmp_path), small_corpus, quiet, ExecutionConfig())
    assert record.status == "diverged"
