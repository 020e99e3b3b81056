"""What runs will cost on this machine, found by doing a few of their steps. It informs, and decides nothing."""

import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median

import torch
from accelerate import PartialState

from preprocessing.corpus import Corpus
from training.config import RunConfig
from training.loop import CURVE_SEQUENCES, VALIDATION_POINTS
from training.measurements import hardware
from training.models import build_model
from training.study import Job
from training.tracking import Tracking
from training.trainer import Trainer, rows_per_process

STEPS = 6  # a fixed number: processes that each looked at a clock would do different ones, and wait for each other


def seconds_per_step(config: RunConfig, corpus: Corpus, threads: int) -> float:
    """Return the median time of a training step, over a few steps of an untrained model."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    stream, _ = corpus.part(config.data_fraction)
    accelerator = Tracking().accelerator(Path())
    share = rows_per_process(config, accelerator)
    trainer = Trainer(config, stream, build_model(config, corpus), accelerator, share)
    times: list[float] = []
    for _ in range(STEPS):
        start = time.perf_counter()
        trainer.advance()
        trainer.means()  # waits for the device
        times.append(time.perf_counter() - start)
    torch.set_num_threads(before)
    return median(times[1:])  # the first one allocates


def expected_seconds(job: Job, step_seconds: float, validation_tokens: int) -> float:
    """Return the expected time of a run: its steps, and its evaluation as forward passes, a third of a step's FLOPs."""
    config = job.plan.config
    steps = config.steps - job.start // config.tokens_per_step
    evaluated = validation_tokens + VALIDATION_POINTS * CURVE_SEQUENCES * config.context
    return step_seconds * (steps + evaluated / config.tokens_per_step / 3)


def print_costs(jobs: Sequence[Job], corpus: Corpus, num_parallel: int, threads: int) -> None:
    """Print a table of the runs: N, D, FLOPs, expected time on this machine, disk; and the whole study's."""
    validation_tokens = len(corpus.tokens("validation"))
    rows, seconds, disk = [], [], 0
    steps: dict[tuple[str, str], float] = {}
    for job in jobs:
        config = job.plan.config
        model = (config.architecture, config.size)
        if model not in steps:
            steps[model] = seconds_per_step(config, corpus, threads)
        seconds.append(expected_seconds(job, steps[model], validation_tokens))
        weights = 4 * job.n_params
        bytes_kept = weights * (1 + 3 * len(job.plan.keep_at))  # a state is weights and two moments
        disk += bytes_kept
        flops = job.flops_per_token * (config.tokens - job.start)
        rows.append(
            f"{job.name:44} {job.n_params:>12,} {config.tokens:>13,} {flops:>9.2e} {_clock(seconds[-1]):>9} "
            f"{bytes_kept / 1e6:>9.1f}"
        )
    state = PartialState()
    if not state.is_main_process:
        return
    print(f"{'run':44} {'N':>12} {'D':>13} {'FLOPs':>9} {'time':>9} {'disk, MB':>9}")
    print("\n".join(rows))
    largest = 4 * max(job.n_params for job in jobs)
    whole = max(max(seconds), sum(seconds) / num_parallel)
    print(
        f"runs: {len(jobs)}, {num_parallel} at once; about {_clock(whole)} on {hardware(state.device)}; "
        f"{disk / 1e6:,.0f} MB of disk, up to {6 * largest * num_parallel / 1e6:,.0f} MB of checkpoints while they run"
    )


def _clock(seconds: float) -> str:
    minutes, second = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02}:{second:02}"
