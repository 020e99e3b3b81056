"""The rate rule LR(N): every size with several peak rates, the best of each size, and a line through them."""

from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np

from door import DoorError, read_json, write_json
from training.loop import Plan
from training.record import TRUNK
from training.study import Job, Outcome, report_failures

SWEEP = "rate_sweep"
SHARED = ("tokens", "batch_size", "context", "schedule", "weight_decay", "dropout", "carry_state")
RUN = ("architecture", "size", "seed", "learning_rate")  # what tells a run of a sweep from the others


def plan_sweep(jobs: list[Job], rates: dict[str, list[float]], root: Path) -> list[Job]:
    """Return each job (architecture, size and seed) with each rate of its architecture; a WSD run has no trunk here."""
    jobs = [job for job in jobs if job.plan.recipe.schedule != TRUNK]
    for architecture in {job.plan.recipe.architecture for job in jobs}:
        if len(set(rates[architecture])) < 3:
            raise DoorError(f"--{architecture}_rates {rates[architecture]}: an optimum needs at least three")
        arms = {job.plan.folder.parent.name for job in jobs}
        if len(arms) > 1:
            raise DoorError(f"--part sweep: one budget, on all of the data, not {', '.join(sorted(arms))}")
    plans = []
    for job in jobs:
        recipe = job.plan.recipe
        base = root / SWEEP / job.plan.folder.parent.name / recipe.architecture / recipe.size
        for rate in rates[recipe.architecture]:
            folder = base / f"rate_{rate:g}" / f"seed_{recipe.seed}"
            plans.append(replace(job, plan=Plan(replace(recipe, learning_rate=rate), folder)))
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

    A run without a loss has diverged. Raises DoorError if there are fewer than two sizes, or if a size's best rate is
    on the grid's edge: a rule through an edge would follow the grid, not the models.
    """
    optima, edges = [], []
    for size in dict.fromkeys(row["size"] for row in rows):
        mine = [row for row in rows if row["size"] == size]
        rates = np.unique([row["learning_rate"] for row in mine])
        told = [(run["learning_rate"], np.inf if run["loss"] is None else run["loss"]) for run in mine]
        losses = np.array([np.mean([loss for at, loss in told if at == rate]) for rate in rates])
        best = best_rate(rates, losses)
        if best is None:
            edges.append(f"{size} at {rates[np.argmin(losses)]:g}")
        else:
            optimum, bend = best
            optima.append({"size": size, "n": mine[0]["n_params_non_embedding"], "rate": optimum, "bend": bend})
    architecture = rows[0]["architecture"]
    if edges:
        raise DoorError(
            f"--{architecture}_rates: the best rate is on the grid's edge, or beside one that diverged "
            f"({', '.join(edges)}): widen them, or give more between"
        )
    if len(optima) < 2:
        raise DoorError(f"--{architecture}_sizes: a rule needs at least two sizes")
    slope, intercept = np.polyfit(np.log([o["n"] for o in optima]), np.log([o["rate"] for o in optima]), 1)
    return {"coefficient": float(np.exp(intercept)), "exponent": float(-slope), "optima": optima}


def earlier_runs(path: Path, jobs: list[Job], corpus: str) -> list[dict[str, Any]]:
    """Return the runs that a sweep's file holds already, beside which those of the jobs will stand; [] without a file.

    Raises DoorError if they are of another corpus or recipe.
    """
    if not path.is_file():
        return []
    before, recipe = read_json(path), asdict(jobs[0].plan.recipe)
    wanted = {"corpus": corpus} | {key: recipe[key] for key in SHARED}
    found = {"corpus": before["corpus"]} | before["recipe"]
    different = [f"{key} {found.get(key)!r}, not {value!r}" for key, value in wanted.items() if found.get(key) != value]
    if different:
        raise DoorError(f"{path} holds another sweep ({'; '.join(different)}): give another --sweep_file")
    return list(before["runs"])


def write_sweep(outcomes: list[Outcome], path: Path, earlier: list[dict[str, Any]]) -> dict[str, Any]:
    """Write all runs of a sweep, `earlier` ones too, and the rule of each architecture; return what was written.

    A run that diverged has no loss. Raises DoorError if a run failed, or if a rule cannot be fitted.
    """
    report_failures([outcome for outcome in outcomes if outcome.record is None])
    records = [outcome.record for outcome in outcomes if outcome.record is not None]
    rows = [
        {
            "architecture": record["recipe"]["architecture"],
            "size": record["recipe"]["size"],
            "seed": record["recipe"]["seed"],
            "n_params": record["n_params"],
            "n_params_non_embedding": record["n_params_non_embedding"],
            "learning_rate": record["recipe"]["learning_rate"],
            "status": record["status"],
            "loss": record.get("validation_loss"),
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
    first = records[0]
    shared = {key: first["recipe"][key] for key in SHARED}
    result = {"corpus": first["corpus"], "recipe": shared, "versions": first["versions"], "rules": rules, "runs": rows}
    write_json(path, result)
    return result


def _run(row: dict[str, Any]) -> tuple[Any, ...]:
    return tuple(row[key] for key in RUN)
