"""Runs as the fits need them: columns of numbers, clusters, pairs."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np

from analysis.fitting import seed_weights
from analysis.laws import Array
from training.record import RunRecord

DEGREES_FOR_WEIGHTS = 12  # seeds beyond the first of their setting; fewer cannot tell a slope of the variance

Run = dict[str, Any]
Runs = list[Run]


def column(runs: Runs, name: str) -> Array:
    """Return one number of each run: [runs]."""
    return np.array([run[name] for run in runs], dtype=float)


def row_of(record: RunRecord) -> Run:
    """Return a run's record as one flat row: its fields and those of its configuration, whose tokens are the budget."""
    config = record.config.to_dict()
    budget = config.pop("tokens")
    return {**vars(record), **config, "budget": budget, "stateful": record.config.stateful}


def cluster_of(run: Run) -> tuple[str, int, float, int]:
    """Return what a run shares its noise with: its size, seed, part of the data and keys, whatever the budget.

    Branches of one trunk are one cluster; budgets of one seed share their initial weights and the order of their data.
    """
    return run["size"], run["seed"], run["data_fraction"], run["n_keys"]


def clusters(runs: Runs) -> list[str]:
    """Return the cluster of each run as a label: [runs]."""
    return [" ".join(map(str, cluster_of(run))) for run in runs]


def setting_of(run: Run) -> tuple[Any, ...]:
    """Return what the seeds of one setting share."""
    return run["size"], run["budget"], run["data_fraction"], run["n_keys"]


def whole_corpus(runs: Runs) -> Runs:
    """Return the runs on all of the training tunes, in their own keys."""
    return [run for run in runs if run["data_fraction"] == run["n_keys"] == 1]


def by_size(runs: Runs) -> dict[str, Runs]:
    """Group runs by size, in the order of the sizes."""
    groups: dict[str, Runs] = {}
    for run in sorted(runs, key=lambda run: run["n_params"]):
        groups.setdefault(run["size"], []).append(run)
    return groups


def paired(ladders: dict[str, Runs]) -> dict[str, Runs]:
    """Return the runs that have a partner of the same setting and seed in every architecture, in the same order."""

    def key(run: Run) -> tuple[Any, ...]:
        return (*setting_of(run), run["seed"], run["schedule"])

    shared = set.intersection(*({key(run) for run in runs} for runs in ladders.values()))
    first: Sequence[Run] = next(iter(ladders.values()))
    places = {key(run): i for i, run in enumerate(first)}
    return {
        architecture: sorted((run for run in runs if key(run) in shared), key=lambda run: places[key(run)])
        for architecture, runs in ladders.items()
    }


def weights_of(runs: Runs) -> Array | None:
    """Return weights from the spread of seeds, or None if there are too few seeds to tell it."""
    settings = [" ".join(map(str, setting_of(run))) for run in runs]
    if sum(count - 1 for count in Counter(settings).values()) < DEGREES_FOR_WEIGHTS:
        return None
    return seed_weights(np.log(column(runs, "validation_loss")), settings, np.log(column(runs, "n_params")))
