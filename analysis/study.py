"""All runs of a study → everything that fits.json holds; figures and text are made from that alone."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from analysis.ablations import loss_differences
from analysis.comparison import compare
from analysis.compute_optimal import compute_optimal
from analysis.fitting import Fit, fit, line_of
from analysis.intervals import percentiles
from analysis.laws import OF_N_AND_D, OF_ONE, OF_REPETITION, OF_TRANSPOSITION, Array, Law
from analysis.runs import (
    MIN_SIZES,
    STUDY_DELTA,
    Run,
    Runs,
    Study,
    budgets_of,
    by_size,
    clusters,
    column,
    fit_runs,
    paired,
    setting_of,
    whole_corpus,
)
from cli import UserError

AXES = ("n_params", "n_params_non_embedding")
MIN_BUDGETS = 3
REPEATED = 1.05  # epochs; fewer are no repetition
EPOCHS = (1, 2, 4, 8, 16, 32, 64)
RESAMPLES_OF_EXTRAPOLATION = 200
COLUMNS = (
    *("n_params", "n_params_non_embedding", "tokens", "unique_tokens", "epochs", "flops", "seconds"),
    *("tokens_per_second", "peak_memory_bytes", "validation_loss"),
    *("size", "seed", "data_fraction", "n_keys", "schedule", "budget"),
)


@dataclass
class Fitted:
    """A fit, the runs it was made from, and the column that its variable is."""

    axis: str
    runs: Runs
    fit: Fit

    def as_dict(self) -> dict[str, Any]:
        """Return the fit with what figures draw of it."""
        return {
            "axis": self.axis,
            **self.fit.as_dict(),
            "n_params": [run["n_params"] for run in self.runs],
            "line": line_of(self.fit),
            "sheet": _lines_by_budget(self.fit, self.runs),
        }


def analyse(study: Study) -> dict[str, Any]:
    """Return all numbers of a study. Raises UserError if there are too few runs."""
    try:
        return _analyse(study)
    except ValueError as error:
        raise UserError(f"{study.where}: no law can be fitted to its runs: {error}") from None


def _analyse(study: Study) -> dict[str, Any]:
    everyone = [run for members in study.main.values() for run in members]
    swept = [sweep for sweep in study.sweeps if sweep["config"]["schedule"] == study.schedule]
    fits = {name: _fits(study.main[name], study.runs[name]) for name in study.main}
    pairs = paired(study.runs) if len(study.runs) > 1 else {}
    compared = all(len(by_size(runs)) >= MIN_SIZES for runs in pairs.values()) if pairs else False
    return {
        "kind": "study",
        "corpus": everyone[0]["corpus"],
        "main_budget": everyone[0]["budget"],
        "tokens": everyone[0]["tokens"],
        "epochs": everyone[0]["epochs"],
        "budgets": budgets_of([run for members in study.runs.values() for run in members]),
        "seeds": sorted({run["seed"] for run in everyone}),
        "runs": {name: len(members) for name, members in study.runs.items()},
        "runs_of_main_budget": {name: len(members) for name, members in study.main.items()},
        "validation_tokens": everyone[0]["validation_tokens"],
        "validation_standard_error": float(np.mean([run["validation_loss_standard_error"] for run in everyone])),
        "baseline": study.baseline,
        "sizes": describe_sizes(study.main),
        "points": {
            name: {column: [run[column] for run in members] for column in COLUMNS}
            for name, members in study.runs.items()
        },
        "curves": {name: _curves(members) for name, members in study.main.items()},
        "fits": {name: [fitted.as_dict() for fitted in found] for name, found in fits.items()},
        "comparison": compare(pairs) if compared else None,
        "compute_optimal": {
            name: compute_optimal(whole_corpus(study.runs[name]), _of(found, "chinchilla"))
            for name, found in fits.items()
        },
        "extrapolation": [row for name in study.main for row in extrapolate(name, study.main[name], study.runs[name])],
        "repetition": {name: _repetition(found, study.runs[name]) for name, found in fits.items()},
        "ablations": {name: loss_differences(members) for name, members in study.every.items()},
        "learning_rate": {**swept[0], "used": learning_rates_used(swept[0], study.main)} if swept else None,
        "left_out": study.left_out,
        "planned": {name: {"runs": study.planned[name], "not_run": count} for name, count in study.not_run.items()},
    }


# Laws


def _fits(main: Runs, runs: Runs) -> list[Fitted]:
    """Return every law that the runs of one architecture are sufficient for."""
    found = [Fitted(axis, main, fit_runs(law.name, main, axis)) for axis in AXES for law in OF_ONE]
    whole = whole_corpus(runs)
    if len(budgets_of(whole)) >= MIN_BUDGETS:
        found += [Fitted(axis, whole, fit_runs(law.name, whole, axis)) for axis in AXES for law in OF_N_AND_D]
        longest = max(by_size(whole).values(), key=lambda members: (len(budgets_of(members)), members[0]["n_params"]))
        if len(budgets_of(longest)) > MIN_BUDGETS:
            found += [Fitted("tokens", longest, _fit_along(law, longest, "tokens")) for law in OF_ONE]
        best = frontier(whole)
        if len(best) > MIN_BUDGETS + 1:
            found += [Fitted("flops", best, _fit_along(law, best, "flops")) for law in OF_ONE]
    own_keys = [run for run in runs if run["n_keys"] == 1]
    repeated = any(run["epochs"] > REPEATED for run in own_keys) and len({run["unique_tokens"] for run in own_keys}) > 1
    transposed = len({run["n_keys"] for run in runs}) > 1
    for laws, members in (OF_REPETITION if repeated else [], own_keys), (OF_TRANSPOSITION if transposed else [], runs):
        settings = len({setting_of(run) for run in members})
        found += [
            Fitted("n_params", members, fit_runs(law.name, members)) for law in laws if settings > len(law.parameters)
        ]
    return found


def _fit_along(law: Law, runs: Runs, axis: str) -> Fit:
    """Fit a law of D ("tokens") or C ("flops"), unweighted; with too few clusters the runs are resampled."""
    labels = clusters(runs)
    return fit(
        law,
        column(runs, "validation_loss"),
        d=column(runs, axis) if axis == "tokens" else None,
        c=column(runs, axis) if axis == "flops" else None,
        clusters=labels if len(set(labels)) > MIN_BUDGETS else None,
        delta=STUDY_DELTA,
    )


def frontier(runs: Runs) -> Runs:
    """Return the runs that none with as little compute beats, on the means over seeds; one a setting."""
    settings: dict[tuple[Any, ...], Runs] = {}
    for run in runs:
        settings.setdefault(setting_of(run), []).append(run)
    means = [
        {**members[0], **{name: float(column(members, name).mean()) for name in ("validation_loss", "flops")}}
        for members in settings.values()
    ]
    best: Runs = []
    for run in sorted(means, key=lambda run: (run["flops"], run["validation_loss"])):
        if not best or run["validation_loss"] < best[-1]["validation_loss"]:
            best.append(run)
    return best


def _of(found: list[Fitted], law: str) -> Fit | None:
    """Return the fit of a law in N of all parameters, or None if there is none."""
    return next((entry.fit for entry in found if entry.fit.law.name == law and entry.axis == "n_params"), None)


def _lines_by_budget(fitted: Fit, runs: Runs) -> list[dict[str, Any]] | None:
    """Return Chinchilla's law at each budget that the runs have, over their sizes."""
    if fitted.law.needs != ("n", "d"):
        return None
    low, high = fitted.domain["n"]
    at = np.geomspace(low / 1.3, high * 1.3, 40)
    lines = []
    for budget in budgets_of(runs):
        tokens = np.mean([run["tokens"] for run in runs if run["budget"] == budget])
        loss = fitted.predict(n=at, d=np.full(len(at), tokens))
        lines.append({"budget": budget, "n_params": at.tolist(), "loss": loss.tolist()})
    return lines


# Tables


def describe_sizes(ladders: dict[str, Runs]) -> list[dict[str, Any]]:
    """Return one row a size with the means over seeds of every architecture that has it, at the main budget."""
    groups = {name: by_size(runs) for name, runs in ladders.items()}
    rows = []
    for size in dict.fromkeys(size for group in groups.values() for size in group):
        entries = {name: _describe(group[size]) for name, group in groups.items() if size in group}
        rows.append((min(entry["n_params"] for entry in entries.values()), {"size": size, **entries}))
    return [row for _, row in sorted(rows, key=lambda row: row[0])]


def _describe(runs: Runs) -> dict[str, Any]:
    losses = column(runs, "validation_loss")
    return {
        "n_params": runs[0]["n_params"],
        "n_params_non_embedding": runs[0]["n_params_non_embedding"],
        "seeds": len(runs),
        "loss": float(losses.mean()),
        "seed_deviation": float(losses.std(ddof=1)) if len(losses) > 1 else None,
        "bits_per_character": float(losses.mean() / np.log(2)),
        "seconds": float(column(runs, "seconds").mean()),
        "peak_memory_bytes": float(column(runs, "peak_memory_bytes").mean()),
    }


def learning_rates_used(sweep: dict[str, Any], main: dict[str, Runs]) -> dict[str, list[dict[str, Any]]]:
    """Return the peak learning rate of each size beside the best one of the sweep, and how much it raises the loss.

    `rise` is in nats per character at the sweep's budget, by the parabola that gave the best learning rate; None, as
    `best`, for a size that was not swept.
    """
    used = {}
    for architecture, runs in main.items():
        optima = {row["size"]: row for row in sweep["rules"].get(architecture, {"optima": []})["optima"]}
        used[architecture] = [_rate_used(members[0], optima.get(size)) for size, members in by_size(runs).items()]
    return used


def _rate_used(run: Run, optimum: dict[str, Any] | None) -> dict[str, Any]:
    rate = run["learning_rate"]
    row = {"size": run["size"], "n": run["n_params_non_embedding"], "rate": rate, "best": None, "rise": None}
    if optimum is not None:
        row |= {"best": optimum["rate"], "rise": float(optimum["bend"] * np.log(rate / optimum["rate"]) ** 2)}
    return row


def _curves(runs: Runs) -> list[dict[str, Any]]:
    return [
        {
            "size": run["size"],
            "seed": run["seed"],
            "n_params": run["n_params"],
            "train": {name: run["train_curve"][name] for name in ("tokens", "loss")},
            "validation": {name: run["validation_curve"][name] for name in ("tokens", "seconds", "loss", "characters")},
        }
        for run in runs
    ]


# Extrapolation and repetition


def extrapolate(architecture: str, main: Runs, runs: Runs) -> list[dict[str, Any]]:
    """Fit each law without the largest sizes and predict their losses: one row a law, cut, size and budget left out.

    Laws of N alone predict the main budget only. `error` is relative, of the mean over seeds; `times` how much larger
    the size is than the largest that was fitted; `inside` whether the mean is inside the law's 95 % band.
    """
    rows = []
    whole = whole_corpus(runs)
    of_both = OF_N_AND_D if len(budgets_of(whole)) >= MIN_BUDGETS else []
    for law, members in [*((law, main) for law in OF_ONE), *((law, whole) for law in of_both)]:
        sizes = list(by_size(members).values())
        for kept in range(MIN_SIZES, len(sizes)):
            small = [run for group in sizes[:kept] for run in group]
            try:
                fitted = fit_runs(law.name, small, resamples=RESAMPLES_OF_EXTRAPOLATION)
            except ValueError:  # too few points are left for this law
                continue
            for group in sizes[kept:]:
                for budget in budgets_of(group):
                    row = {"architecture": architecture, "law": law.name, "fitted_sizes": kept}
                    row |= {"largest_fitted": small[-1]["n_params"], "main": budget == main[0]["budget"]}
                    rows.append(row | _predict(fitted, [run for run in group if run["budget"] == budget], row))
    return rows


def _predict(fitted: Fit, runs: Runs, row: dict[str, Any]) -> dict[str, Any]:
    """Return measured and predicted loss of the runs of one size and budget."""
    n, d = column(runs, "n_params"), column(runs, "tokens")
    x = {"n": n, "d": d} if "d" in fitted.law.needs else {"n": n}
    measured = float(np.exp(np.log(column(runs, "validation_loss")).mean()))
    predicted = float(np.exp(np.log(fitted.predict(**x)).mean()))
    low, high = (float(edge.mean()) for edge in fitted.band(**x))
    return {
        "size": runs[0]["size"],
        "n_params": runs[0]["n_params"],
        "budget": runs[0]["budget"],
        "times": runs[0]["n_params"] / row["largest_fitted"],
        "loss": measured,
        "predicted": predicted,
        "error": predicted / measured - 1,
        "inside": low <= measured <= high,
    }


def _repetition(fits: list[Fitted], runs: Runs) -> dict[str, Any] | None:
    """Return what repeated epochs and transposed copies are worth under the laws that say so, or None without one."""
    repeated, transposed = _of(fits, "data_constrained"), _of(fits, "transposition")
    if repeated is None and transposed is None:
        return None
    found: dict[str, Any] = {"epochs": None, "keys": None}
    if repeated is not None:

        def worth(log_star: Array, epochs: int) -> Array:
            return 1 + np.exp(log_star) * -np.expm1(-(epochs - 1) / np.exp(log_star))

        rows = [{"epochs": n, **_derived(repeated, "R_D*", partial(worth, epochs=n))} for n in EPOCHS]
        found["epochs"] = _verdict_of(repeated, "R_D*") | {"rows": rows}
    if transposed is not None:

        def multiplier(w: Array, keys: int) -> Array:
            return 1 + w * (keys - 1)

        used = sorted({run["n_keys"] for run in runs} - {1})
        rows = [{"keys": k, **_derived(transposed, "w", partial(multiplier, keys=k))} for k in used]
        found["keys"] = _verdict_of(transposed, "w") | {"rows": rows}
    return found


def _verdict_of(fitted: Fit, name: str) -> dict[str, Any]:
    return {"identified": fitted.parameters[name].identified, "reason": fitted.parameters[name].reason}


def _derived(fitted: Fit, name: str, function: Callable[[Array], Array]) -> dict[str, Any]:
    """Return a monotone function of one parameter, with its bootstrap interval."""
    index = fitted.law.names.index(name)
    low, high = percentiles(function(fitted.resampled[:, index]), fitted.degrees_of_freedom)
    return {"value": float(function(fitted.theta[index : index + 1])[0]), "bootstrap": [low, high]}
