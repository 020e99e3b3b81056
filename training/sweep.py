"""The rate rule LR(N): every size with several peak rates, the best of each size, and a line through them."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from door import DoorError, write_json
from training.loop import Plan
from training.record import TRUNK
from training.study import Job, Outcome, report_failures

SWEEP = "rate_sweep"
SHARED = ("tokens", "batch_size", "context", "schedule", "weight_decay", "dropout", "carry_state")


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


def best_rate(rates: np.ndarray, losses: np.ndarray) -> float | None:
    """Return the rate of lowest loss by a parabola in log rate through the lowest three, None if it is at an edge."""
    order = np.argsort(rates)
    x, y = np.log(rates[order]), losses[order]
    lowest = int(np.argmin(y))
    if lowest in (0, len(x) - 1):
        return None
    a, b, _ = np.polyfit(x[lowest - 1 : lowest + 2], y[lowest - 1 : lowest + 2], 2)
    return float(np.exp(-b / (2 * a)))


def fit_rule(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Return `rate = coefficient · N^-exponent` through the best rates of the sizes, and what it was fitted to.

    Raises DoorError if there are fewer than two sizes, or if a size's best rate is on the grid's edge: a rule through
    an edge would follow the grid, not the models.
    """
    optima, edges = [], []
    for size in dict.fromkeys(row["size"] for row in rows):
        mine = [row for row in rows if row["size"] == size]
        rates = np.unique([row["learning_rate"] for row in mine])
        losses = np.array([np.mean([r["loss"] for r in mine if r["learning_rate"] == rate]) for rate in rates])
        best = best_rate(rates, losses)
        if best is None:
            edges.append(f"{size} at {rates[np.argmin(losses)]:g}")
        else:
            optima.append({"size": size, "n": mine[0]["n_params_non_embedding"], "rate": best})
    architecture = rows[0]["architecture"]
    if edges:
        raise DoorError(f"--{architecture}_rates: the best rate is on the grid's edge ({', '.join(edges)}): widen them")
    if len(optima) < 2:
        raise DoorError(f"--{architecture}_sizes: a rule needs at least two sizes")
    slope, intercept = np.polyfit(np.log([o["n"] for o in optima]), np.log([o["rate"] for o in optima]), 1)
    return {"coefficient": float(np.exp(intercept)), "exponent": float(-slope), "optima": optima}


def write_sweep(outcomes: list[Outcome], path: Path) -> dict[str, Any]:
    """Write all runs of a sweep and the rule of each architecture; return what was written.

    A run that diverged counts as infinitely bad. Raises DoorError if a run failed, or if a rule cannot be fitted.
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
            "loss": record.get("validation_loss", float("inf")),
        }
        for record in records
    ]
    rules = {
        architecture: fit_rule([row for row in rows if row["architecture"] == architecture])
        for architecture in dict.fromkeys(row["architecture"] for row in rows)
    }
    first = records[0]
    shared = {key: first["recipe"][key] for key in SHARED}
    runs = [{**row, "loss": row["loss"] if np.isfinite(row["loss"]) else None} for row in rows]
    result = {"corpus": first["corpus"], "recipe": shared, "versions": first["versions"], "rules": rules, "runs": runs}
    write_json(path, result)
    return result
