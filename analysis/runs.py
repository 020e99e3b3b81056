"""The runs of a study: read from a table of runs, as columns, groups and pairs, and fitted by a law."""

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from analysis.fitting import Fit, fit, seed_weights
from analysis.laws import LAWS, Array
from cli import UserError
from files import format_count, format_percent, read_json
from training.record import BASELINE, FINISHED, NOT_RUN, RunRecord, ladders_of
from training.runs_table import Row, read_runs_table

SWEEPS = "learning_rate_sweep_*.json"
STUDY_DELTA = 0.01  # of the Huber loss on log loss: a run more than 1 % off a law counts as an outlier
MIN_SIZES = 3
MIN_SPARE_SEEDS = 12  # seeds beyond the first of their setting; with fewer the slope of their variance is too uncertain

Run = dict[str, Any]
Runs = list[Run]


@dataclass
class Study:
    """The finished runs of one study and what they are compared with.

    `main` holds the runs of the main budget by architecture, on all of the data; `runs` all that are not stateful;
    `every` the stateful ones too. `left_out` names the runs that are not fitted, with the reason; `planned` counts the
    runs of each study of the table, `not_run` those of them that are only planned.
    """

    where: Path
    schedule: str
    main: dict[str, Runs]
    runs: dict[str, Runs]
    every: dict[str, Runs]
    left_out: list[str]
    planned: dict[str, int]
    not_run: dict[str, int]
    baseline: dict[str, Any]
    sweeps: list[dict[str, Any]]


def read_study(path: Path, name: str | None = None) -> Study:
    """Read one study from a table of runs; the n-gram baseline and the learning-rate sweeps are beside the table.

    Without a name it is the study with the most finished runs. The ladders are those of the corpus in the fewest keys,
    trained with the schedule that most runs have. Raises UserError if the study has too few finished runs, or if a file
    is missing or damaged.
    """
    rows = read_runs_table(path)
    if name is None:
        counts = Counter(row.study for row in rows if row.record.status == FINISHED)
        name = max(counts, key=lambda study: counts[study], default="")
    mine = [row.record for row in rows if row.study == name and row.record.config.init_from is None]
    finished = _finished(path, name, rows, mine)
    corpus = min(finished, key=lambda run: run.config.n_keys).config.corpus
    ladders = ladders_of([run for run in mine if run.config.corpus == corpus and run.status != NOT_RUN])
    others = [run for run in finished if run.config.corpus != corpus]
    _check_held_out(path, [run for ladder in ladders.values() for run in ladder.finished], others)
    schedules = Counter(run.config.schedule for run in finished)
    schedule = schedules.most_common(1)[0][0]

    def kept(records: list[RunRecord]) -> Runs:
        return [row_of(run) for run in records if run.config.schedule == schedule]

    main = {architecture: kept(ladder.finished) for architecture, ladder in ladders.items() if ladder.finished}
    every = {architecture: main.get(architecture, []) + kept(ladder.others) for architecture, ladder in ladders.items()}
    for run in kept(others):
        every.setdefault(run["architecture"], []).append(run)
    if not main:
        raise UserError(f"{path}: study {name} has no finished run on all of its tunes: train its ladders")
    for architecture, members in main.items():
        if (sizes := len(by_size(members))) < MIN_SIZES:
            raise UserError(
                f"{path}: study {name} has {sizes} finished sizes of the {architecture} at its most frequent budget: "
                f"train more sizes, a law needs {MIN_SIZES}"
            )
    left_out = [f"{_describe(run)}: {run.reason}" for run in mine if run.status not in (FINISHED, NOT_RUN)]
    left_out += [
        f"{count} runs with the schedule {other}: most have {schedule}"
        for other, count in schedules.items()
        if other != schedule
    ]
    return Study(
        where=path,
        schedule=schedule,
        main=main,
        runs={architecture: [run for run in runs if not run["stateful"]] for architecture, runs in every.items()},
        every=every,
        left_out=left_out,
        planned=dict(Counter(row.study for row in rows)),
        not_run=dict(Counter(row.study for row in rows if row.record.status == NOT_RUN)),
        baseline=read_json(path.parent / BASELINE, "order", "validation_loss", "orders"),
        sweeps=[read_json(file) for file in sorted(path.parent.glob(SWEEPS))],
    )


def _finished(path: Path, study: str, rows: list[Row], mine: list[RunRecord]) -> list[RunRecord]:
    """Return the finished records of a study. Raises UserError if there is none, or if one is in the table twice."""
    finished = [run for run in mine if run.status == FINISHED]
    if not finished:
        studies = ", ".join(dict.fromkeys(row.study for row in rows))
        raise UserError(f"--study {study}: no finished run of it in {path}, which has {studies or 'no study'}")
    times = Counter(run.config_hash for run in finished)
    for run in finished:
        if times[run.config_hash] > 1:
            raise UserError(f"{path}: {_describe(run)}, is in the table twice: intervals need each run once")
    return finished


def _check_held_out(path: Path, ladders: list[RunRecord], others: list[RunRecord]) -> None:
    """Raise UserError if runs on other corpora were not evaluated on the same held-out tunes."""
    sizes = {run.validation_tokens for run in ladders}
    for run in others:
        if {run.validation_tokens} != sizes:
            known = ", ".join(f"{size:,}" for size in sorted(filter(None, sizes)))
            raise UserError(
                f"{path}: {_describe(run)}, has {run.validation_tokens:,} validation tokens and the others {known}: "
                "only runs on the same held-out tunes can be compared"
            )


def _describe(run: RunRecord) -> str:
    config = run.config
    part = f" on {format_percent(config.data_fraction)} of the tunes" if config.data_fraction < 1 else ""
    state = ", stateful" if config.stateful else ""
    return f"{config.architecture} {config.size} seed {config.seed}, {format_count(config.tokens)} tokens{part}{state}"


def row_of(record: RunRecord) -> Run:
    """Return a record as one flat row: its fields and those of its configuration, whose tokens are the budget."""
    config = record.config.to_dict()
    budget = config.pop("tokens")
    return {**vars(record), **config, "budget": budget, "stateful": record.config.stateful}


# Columns and groups


def column(runs: Runs, name: str) -> Array:
    """Return one number of each run: [runs]."""
    return np.array([run[name] for run in runs], dtype=float)


def clusters(runs: Runs) -> list[str]:
    """Return what each run shares its noise with, as a label: [runs].

    Runs of one size, seed, data fraction and number of keys are one cluster at all budgets: branches of one trunk, or
    runs with the same initial weights and data order.
    """
    return [f"{run['size']} {run['seed']} {run['data_fraction']} {run['n_keys']}" for run in runs]


def setting_of(run: Run) -> tuple[Any, ...]:
    """Return what the seeds of one setting share."""
    return run["size"], run["budget"], run["data_fraction"], run["n_keys"]


def whole_corpus(runs: Runs) -> Runs:
    """Return the runs on all of the training tunes, in their own keys."""
    return [run for run in runs if run["data_fraction"] == run["n_keys"] == 1]


def budgets_of(runs: Runs) -> list[int]:
    """Return the token budgets of runs, in ascending order."""
    return sorted({run["budget"] for run in runs})


def by_size(runs: Runs) -> dict[str, Runs]:
    """Group runs by size, smallest size first."""
    groups: dict[str, Runs] = {}
    for run in sorted(runs, key=lambda run: run["n_params"]):
        groups.setdefault(run["size"], []).append(run)
    return groups


def paired(ladders: dict[str, Runs]) -> dict[str, Runs]:
    """Return the runs that have a partner of the same setting and seed in every architecture, in the same order."""

    def key(run: Run) -> tuple[Any, ...]:
        return (*setting_of(run), run["seed"], run["schedule"])

    shared = set.intersection(*({key(run) for run in runs} for runs in ladders.values()))
    places = {key(run): i for i, run in enumerate(next(iter(ladders.values())))}
    return {
        architecture: sorted((run for run in runs if key(run) in shared), key=lambda run: places[key(run)])
        for architecture, runs in ladders.items()
    }


# Fits


def weights_of(runs: Runs) -> Array | None:
    """Return weights from the spread of seeds, or None if there are too few seeds to estimate it."""
    settings = [" ".join(map(str, setting_of(run))) for run in runs]
    if sum(count - 1 for count in Counter(settings).values()) < MIN_SPARE_SEEDS:
        return None
    return seed_weights(np.log(column(runs, "validation_loss")), settings, np.log(column(runs, "n_params")))


def fit_runs(law: str, runs: Runs, axis: str = "n_params", weighted: bool = True, **options: Any) -> Fit:
    """Fit a law to runs, with their clusters, sizes and weights.

    `axis` names the column of N, or of C if it is "flops"; `options` are those of `analysis.fitting.fit`.
    """
    needs = LAWS[law].needs
    return fit(
        law,
        column(runs, "validation_loss"),
        n=None if axis == "flops" else column(runs, axis),
        c=column(runs, axis) if axis == "flops" else None,
        d=column(runs, "tokens") if "d" in needs else None,
        u=column(runs, "unique_tokens") if "u" in needs else None,
        keys=column(runs, "n_keys") if "keys" in needs else None,
        weights=weights_of(runs) if weighted else None,
        clusters=clusters(runs),
        sizes=[run["size"] for run in runs],
        delta=STUDY_DELTA,
        **options,
    )
