"""The best model: the ladders' best run trained further, after a small search over rate, dropout and weight decay."""

from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

from door import DoorError
from preprocessing.corpus import Corpus
from training.recipe import Recipe
from training.record import BEST, read_ladders, run_folder
from training.study import Job, make_job, report_failures, run_jobs

NEW_ORDER = 1000  # added to the seed, so that the data come in an order that the run has not seen


def best_run(root: Path) -> Recipe:
    """Return the recipe of the finished ladder run with the lowest validation loss."""
    runs = [run for ladder in read_ladders(root).values() for run in ladder.finished]
    if not runs:
        raise DoorError(f"{root}: no ladder run finished, so there is no best one")
    return Recipe(**min(runs, key=lambda run: run["validation_loss"])["recipe"])


def plan_search(
    root: Path, corpus: Corpus, tokens: int, rates: list[float], dropouts: list[float], decays: list[float]
) -> list[Job]:
    """Return the short runs that continue the best ladder run with every combination of the three."""
    start = best_run(root)
    folder = run_folder(root, start.architecture, start.size, start.seed)
    jobs = []
    for i, (factor, dropout, decay) in enumerate(product(rates, dropouts, decays)):
        recipe = replace(
            start,
            seed=start.seed + NEW_ORDER,
            tokens=tokens,
            learning_rate=float(f"{factor * start.learning_rate:.3g}"),
            dropout=dropout,
            weight_decay=decay,
            init_from=str(folder),
        )
        jobs.append(make_job(recipe, corpus, root / BEST / "search" / f"{i:02d}"))
    return jobs


def train_best(
    search: list[Job], root: Path, corpus: Corpus, tokens: int, at_once: int, threads: int, checkpoint_seconds: float
) -> dict[str, Any]:
    """Run the search, then the long run with its best setting, and return that run's record.

    The test split is scored once, at the end of the long run. Raises DoorError if a run does not finish.
    """
    found = run_jobs(search, corpus, at_once, threads, checkpoint_seconds, "best model, search")
    report_failures(found)
    chosen = min(found, key=lambda outcome: (outcome.record or {})["validation_loss"]).job.recipe
    job = make_job(replace(chosen, tokens=tokens), corpus, root / BEST, score_test=True)
    [outcome] = run_jobs([job], corpus, 1, at_once * threads, checkpoint_seconds, "best model, long run")
    report_failures([outcome])
    return outcome.record or {}
