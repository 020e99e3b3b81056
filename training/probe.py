"""What a run will cost on this machine, found by doing a few of its steps; and whether bf16 is worth it here."""

import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from statistics import median

import numpy as np
import torch
from accelerate import PartialState

from door import read_json, write_json
from modeling.ladder import new_model
from preprocessing.corpus import Corpus
from training.loop import CURVE_WINDOWS, VALIDATION_POINTS, Run, build_config, hardware
from training.recipe import Recipe
from training.study import Job
from training.tracking import Tracking

CHOICE = "precision.json"
PROBE_SECONDS = 2.0
WORTH = 1.15  # how much faster bf16 has to be; below, the fp32 that everybody can compare with


def seconds_per_step(recipe: Recipe, corpus: Corpus, threads: int, seconds: float) -> float:
    """Return the median time of a training step of an untrained model of the recipe, measured for `seconds`."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    stream = np.asarray(corpus.tokens("train"))
    run = Run(
        recipe, stream, new_model(build_config(recipe, corpus)), Tracking().accelerator(Path()), recipe.batch_size
    )
    times: list[float] = []
    run.advance()  # the first step allocates
    run.means()
    while len(times) < 3 or sum(times) < seconds:
        start = time.perf_counter()
        run.advance()
        run.means()  # waits for the device
        times.append(time.perf_counter() - start)
    torch.set_num_threads(before)
    return median(times)


def expected_seconds(job: Job, step_seconds: float, validation_tokens: int) -> float:
    """Return the expected time of a run: its steps, and its evaluation as forward passes, a third of a step's FLOPs."""
    recipe = job.plan.recipe
    steps = recipe.steps - job.start // recipe.tokens_per_step
    evaluated = validation_tokens + VALIDATION_POINTS * CURVE_WINDOWS * recipe.context
    return step_seconds * (steps + evaluated / recipe.tokens_per_step / 3)


def choose_precision(jobs: Sequence[Job], corpus: Corpus, root: Path, threads: int, keep: bool = True) -> str:
    """Return the precision that trains the study's costliest model of each architecture fastest on this machine.

    If `keep`, the choice is kept in `root`, so that a study that goes on later goes on in the same one.
    """
    if (root / CHOICE).is_file():
        return str(read_json(root / CHOICE)["precision"])
    times = {"fp32": 0.0, "bf16": 0.0}
    for architecture in {job.plan.recipe.architecture for job in jobs}:
        mine = [job for job in jobs if job.plan.recipe.architecture == architecture]
        costliest = max(mine, key=lambda job: job.flops_per_token).plan.recipe
        for precision in times:
            times[precision] += seconds_per_step(replace(costliest, precision=precision), corpus, threads, 0.5)
    precision = "bf16" if times["fp32"] > WORTH * times["bf16"] else "fp32"
    if keep:
        device = PartialState().device
        write_json(root / CHOICE, {"precision": precision, "seconds_per_step": times, "hardware": hardware(device)})
    return precision


def print_costs(jobs: Sequence[Job], corpus: Corpus, at_once: int, threads: int) -> None:
    """Print a table of the runs: N, D, FLOPs, expected time on this machine, disk; and the whole study's."""
    validation_tokens = len(corpus.tokens("validation"))
    rows, seconds, disk = [], [], 0
    steps: dict[tuple[str, str], float] = {}
    for job in jobs:
        recipe = job.plan.recipe
        model = (recipe.architecture, recipe.size)
        if model not in steps:
            steps[model] = seconds_per_step(recipe, corpus, threads, PROBE_SECONDS)
        seconds.append(expected_seconds(job, steps[model], validation_tokens))
        weights = 4 * job.n_params
        bytes_kept = weights * (1 + 3 * len(job.plan.keep_at))  # a state is weights and two moments
        disk += bytes_kept
        flops = job.flops_per_token * (recipe.tokens - job.start)
        rows.append(
            f"{job.name:44} {job.n_params:>12,} {recipe.tokens:>13,} {flops:>9.2e} {_clock(seconds[-1]):>9} "
            f"{bytes_kept / 1e6:>9.1f}"
        )
    print(f"{'run':44} {'N':>12} {'D':>13} {'FLOPs':>9} {'time':>9} {'disk, MB':>9}")
    print("\n".join(rows))
    largest = 4 * max(job.n_params for job in jobs)
    whole = max(max(seconds), sum(seconds) / at_once)
    print(
        f"{len(jobs)} runs, {at_once} at once: about {_clock(whole)} on {hardware(PartialState().device)}; "
        f"{disk / 1e6:,.0f} MB of disk, and up to {6 * largest * at_once / 1e6:,.0f} MB of checkpoints while they run"
    )


def _clock(seconds: float) -> str:
    minutes, second = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02}:{second:02}"
