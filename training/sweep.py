"""Sweeps of the learning rate: every size with several peaks, the best of each size, the rule LR(N) through them."""

from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np

from cli import UserError
from files import read_json, write_json
from training.config import TRUNK, RunConfig
from training.loop import Plan
from training.study import Job, RunResult, report_failures

SWEEP = "rate_sweep"
RUN = ("architecture", "size", "seed", "learning_rate")  # what runs of one sweep differ in
OF_SIZE = ("n_layer", "width", "n_head", "embedding_size", "init_std")  # and what follows from the size
SHARED = tuple(f.name for f in fields(RunConfig) if f.name not in RUN + OF_SIZE)  # what they have in common


def plan_sweep(jobs: list[Job], rates: dict[str, list[float]], root: Path) -> list[Job]:
    """Return each job (architecture, size and seed) with each rate of its architecture; a WSD run has no trunk here.

    Raises UserError unless all jobs share one budget and fraction of the
    data and every architecture has three rates.
    """
    jobs = [job for job in jobs if job.plan.config.schedule != TRUNK]
    for architecture in {job.plan.config.architecture: None for job in jobs}:
        if len(set(rates[architecture])) < 3:
            raise UserError(f"--{architecture}_rates {rates[architecture]}: an optimum needs at least three")
    variants = dict.fromkeys(job.plan.folder.parent.name for job in jobs)
    if len(variants) > 1:
        raise UserError(f"--part sweep: one budget and fraction of the data, not {', '.join(sorted(variants))}")
    plans = []
    for job in jobs:
        config = job.plan.config
        base = root / SWEEP / job.plan.folder.parent.name / config.architecture / config.size
        for rate in rates[config.architecture]:
            folder = base / f"rate_{rate}" / f"seed_{config.seed}"
            plans.append(replace(job, plan=Plan(replace(config, learning_rate=rate), folder)))
    return plans


def best_rate(rates: np.ndarray, losses: np.ndarray) -> tuple[float, float] | None:
    """Return the rate of lowest loss by a parabola in log rate through the lowest run and its neighbours, and its bend.

    The loss is that of the best rate plus bend · log(rate / best)². None if the lowest run is at an edge of the grid or
    beside a run that diverged, whose loss is infinite.
    """
    order = np.argsort(rates)
    x, y = np.log(rates[order]), losses[order]
    lowest = int(np.argmin(y))
    if lowest in (0, len(x) - 1) or not np.isfinite(y[lowest - 1 : lowest + 2]).all():
        return None
    bend, slope, _ = np.polyfit(x[lowest - 1 : lowest + 2], y[lowest - 1 : lowest + 2], 2)
    return float(np.exp(-slope / (2 * bend))), float(bend)


def fit_rule(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Return `rate = coefficient · N^-exponent` through the best rates of the sizes, and what it was fitted to.

    A run without a loss has diverged. Raises UserError if there are fewer than two sizes, or if a size's best rate is
    on the grid's edge: a rule through an edge would follow the grid, not the models.
    """
    optima, edges = [], []
    for size in dict.fromkeys(row["size"] for row in rows):
        mine = [row for row in rows if row["size"] == size]
        rates = np.unique([row["learning_rate"] for row in mine])
        pairs = [(run["learning_rate"], np.inf if run["loss"] is None else run["loss"]) for run in mine]
        losses = np.array([np.mean([loss for at, loss in pairs if at == rate]) for rate in rates])
        best = best_rate(rates, losses)
        if best is None:
            edges.append(f"{size} at {rates[np.argmin(losses)]:g}")
        else:
            optimum, bend = best
            optima.append({"size": size, "n": mine[0]["n_params_non_embedding"], "rate": optimum, "bend": bend})
    architecture = rows[0]["architecture"]
    if edges:
        raise UserError(
            f"--{architecture}_rates: the best rate is on the grid's edge, or beside one that diverged "
            f"({', '.join(edges)}): widen them, or give more between"
        )
    if len(optima) < 2:
        raise UserError(f"--{architecture}_sizes: a rule needs at least two sizes")
    slope, intercept = np.polyfit(np.log([o["n"] for o in optima]), np.log([o["rate"] for o in optima]), 1)
    return {"coefficient": float(np.exp(intercept)), "exponent": float(-slope), "optima": optima}


def earlier_runs(path: Path, jobs: list[Job]) -> list[dict[str, Any]]:
    """Return the runs that a sweep's file holds already, beside which those of the jobs will stand; [] without a file.

    Raises UserError if they differ in anything but architecture, size, seed and learning rate.
    """
    if not path.is_file():
        return []
    before, wanted = read_json(path, "config", "runs"), shared_fields(jobs[0].plan.config)
    found = before["config"]
    different = [
        f"{name} {found.get(name)!r}, not {value!r}" for name, value in wanted.items() if found.get(name) != value
    ]
    if different:
        raise UserError(f"{path} holds another sweep ({'; '.join(different)}): give another --sweep_file")
    n_params = {(job.plan.config.architecture, job.plan.config.size): job.n_params for job in jobs}
    for row in before["runs"]:
        wanted_n = n_params.get((row["architecture"], row["size"]), row["n_params"])
        if row["n_params"] != wanted_n:
            raise UserError(
                f"{path}: {row['size']} has {row['n_params']} parameters, not {wanted_n}: give another --sweep_file"
            )
    return list(before["runs"])


def shared_fields(config: RunConfig) -> dict[str, Any]:
    """Return the fields of a configuration that all runs of one sweep share."""
    return {name: getattr(config, name) for name in SHARED}


def write_sweep(results: list[RunResult], path: Path, earlier: list[dict[str, Any]]) -> dict[str, Any]:
    """Write all runs of a sweep, `earlier` ones too, and the rule of each architecture; return what was written.

    A run that diverged has no loss. Raises UserError if a run failed, or if a rule cannot be fitted.
    """
    report_failures([result for result in results if result.record is None])
    records = [result.record for result in results if result.record is not None]
    rows = [
        {
            "architecture": record.config.architecture,
            "size": record.config.size,
            "seed": record.config.seed,
            "n_params": record.n_params,
            "n_params_non_embedding": record.n_params_non_embedding,
            "learning_rate": record.config.learning_rate,
            "status": record.status,
            "loss": record.validation_loss,
        }
        for record in records
    ]
    ours = {_run(row) for row in rows}
    rows += [row for row in earlier if _run(row) not in ours]
    rows.sort(key=lambda row: (row["architecture"], row["n_params"], row["seed"], row["learning_rate"]))
    rules = {
        architecture: fit_rule([row for row in rows if row["architecture"] == architecture])
        for architecture in dict.fromkeys(row["architecture"] for row in rows)
    }
    shared = shared_fields(records[0].config)
    result = {"config": shared, "versions": records[0].versions, "rules": rules, "runs": rows}
    write_json(path, result)
    return result


def _run(row: dict[str, Any]) -> tuple[Any, ...]:
    return tuple(row[name] for name in RUN)
