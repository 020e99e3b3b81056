"""The expected cost of runs on this machine, from a few of their steps; for information only."""

import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median

import torch
from accelerate import PartialState

from preprocessing.corpus import Corpus
from training.config import RunConfig
from training.execution import Tracking
from training.loop import CURVE_SEQUENCES, VALIDATION_POINTS
from training.measurements import hardware
from training.models import build_model
from training.planning import PlannedRun
from training.processes import say
from training.single_run import finished_record
from training.trainer import Trainer, rows_per_process
from training.workers import share_machine

STEPS = 6  # fixed: processes that each decided by their clock would do different numbers, and wait for each other


def seconds_per_step(config: RunConfig, corpus: Corpus, threads: int) -> float:
    """Return the median time of a training step, over a few steps of an untrained model."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    stream, _ = corpus.part(config.data_fraction)
    accelerator = Tracking().accelerator(Path())
    trainer = Trainer(config, stream, build_model(config, corpus), accelerator, rows_per_process(config, accelerator))
    times: list[float] = []
    for _ in range(STEPS):
        start = time.perf_counter()
        trainer.advance()
        trainer.means()  # waits for the device
        times.append(time.perf_counter() - start)
    torch.set_num_threads(before)
    return median(times[1:])  # the first one allocates


def expected_seconds(run: PlannedRun, step_seconds: float, validation_tokens: int) -> float:
    """Return the expected time of a run: its steps, and its evaluation at a third of a step's FLOPs per token."""
    config = run.config
    steps = config.steps - run.start // config.tokens_per_step
    evaluated = validation_tokens + VALIDATION_POINTS * CURVE_SEQUENCES * config.context
    return step_seconds * (steps + evaluated / config.tokens_per_step / 3)


def print_costs(runs: Sequence[PlannedRun], corpus: Corpus, num_parallel_runs: int, title: str) -> None:
    """Print N, D, FLOPs, expected time and disk space of the runs to do, and of all of them."""
    todo = [run for run in runs if finished_record(run) is None]
    say(f"{title}: {len(runs) - len(todo)} of {len(runs)} runs have ended already")
    if not todo:
        return
    num_parallel, threads = share_machine(num_parallel_runs)
    validation_tokens = len(corpus.tokens("validation"))
    rows, seconds, disk = [], [], 0
    steps: dict[tuple[str, str], float] = {}
    for run in todo:
        config = run.config
        model = (config.architecture, config.size)
        if model not in steps:
            steps[model] = seconds_per_step(config, corpus, threads)
        seconds.append(expected_seconds(run, steps[model], validation_tokens))
        bytes_kept = 4 * run.n_params * (1 + 3 * len(run.keep_at))  # a state is weights and two moments
        disk += bytes_kept
        flops = run.flops_per_token * (config.tokens - run.start)
        rows.append(
            f"{run.name:44} {run.n_params:>12,} {config.tokens:>13,} {flops:>9.2e} {_clock(seconds[-1]):>9} "
            f"{bytes_kept / 1e6:>9.1f}"
        )
    say(f"{'run':44} {'N':>12} {'D':>13} {'FLOPs':>9} {'time':>9} {'disk, MB':>9}")
    say("\n".join(rows))
    largest = 4 * max(run.n_params for run in todo)
    total = max(max(seconds), sum(seconds) / num_parallel)
    say(
        f"runs: {len(todo)}, {num_parallel} side by side; about {_clock(total)} on {hardware(PartialState().device)}; "
        f"{disk / 1e6:,.0f} MB of disk, up to {6 * largest * num_parallel / 1e6:,.0f} MB of checkpoints while they run"
    )


def _clock(seconds: float) -> str:
    minutes, second = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02}:{second:02}"
