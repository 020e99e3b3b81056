"""All runs of a study → everything that fits.json holds: the figures and the report are drawn from that alone."""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from analysis.ablations import arm_differences
from analysis.comparison import compare
from analysis.compute_optimal import allocate
from analysis.evidence import Evidence
from analysis.fitting import Fit, fit, line_of
from analysis.intervals import percentiles
from analysis.laws import LAWS, Array
from analysis.runs import Run, Runs, by_size, clusters, column, paired, setting_of, weights_of, whole_corpus
from cli import UserError
from training.record import FOLDERS

DELTA = 0.01  # a run more than 1 % off the law counts as an outlier
AXES = ("n_params", "n_params_non_embedding")
OF_N = ("power", "power_irreducible")
MIN_SIZES = 3
MIN_BUDGETS = 3
REPEATED = 1.05  # epochs; fewer are no repetition
EPOCHS = (1, 2, 4, 8, 16, 32, 64)
COLUMNS = (
    "n_params",
    "n_params_non_embedding",
    "tokens",
    "unique_tokens",
    "epochs",
    "flops",
    "seconds",
    "tokens_per_second",
    "peak_memory_bytes",
    "validation_loss",
    *("size", "seed", "data_fraction", "n_keys", "schedule", "budget"),
)


@dataclass
class Fitted:
    """A fit, the runs it was made from and what they are counted by."""

    axis: str
    runs: Runs
    fit: Fit

    def as_dict(self) -> dict[str, Any]:
        """Return the fit with all that figures draw of it."""
        return {
            "axis": self.axis,
            **self.fit.as_dict(),
            "n_params": [run["n_params"] for run in self.runs],
            "line": line_of(self.fit),
            "sheet": _sheet(self.fit, self.runs),
        }


class Study:
    """The runs of one study: finished ones by architecture, all budgets and parts, and what is left out and why.

    `every` also has the runs that carry state from window to window, which no law is of.
    """

    def __init__(self, evidence: Evidence) -> None:
        self.main = dict(evidence.main)
        self.runs = {name: list(runs) for name, runs in evidence.runs.items()}
        self.left_out = list(evidence.left_out)
        for run in evidence.others:
            self.runs.setdefault(run["architecture"], []).append(run)
        self.schedule = self._keep_one_schedule()
        self.every = self.runs
        self.runs = {name: [run for run in runs if not run["stateful"]] for name, runs in self.every.items()}
        for name, members in self.main.items():
            if len(by_size(members)) < MIN_SIZES:
                raise UserError(
                    f"{evidence.where}: {len(by_size(members))} sizes of {FOLDERS[name]} are finished at the budget "
                    f"that most runs have, a law needs {MIN_SIZES}: train more sizes"
                )
        if not self.main:
            raise UserError(
                f"{evidence.where} holds no finished run: train the ladders with accelerate launch training/run.py"
            )

    def _keep_one_schedule(self) -> str:
        """Leave out the runs of another schedule than most have, which is returned: laws are of one."""
        counts = Counter(_schedule(run) for members in self.runs.values() for run in members)
        [(most, _)] = counts.most_common(1)
        for ladders in (self.main, self.runs):
            for name, members in list(ladders.items()):
                ladders[name] = [run for run in members if _schedule(run) == most]
        self.left_out += [
            f"{count} runs with the schedule {schedule}: most have {most}"
            for schedule, count in counts.items()
            if schedule != most
        ]
        return most


def _schedule(run: Run) -> str:
    return str(run["schedule"])


def analyse(evidence: Evidence) -> dict[str, Any]:
    """Return all that is found of a study, as plain numbers. Raises UserError if there are too few runs."""
    study = Study(evidence)
    try:
        return _analyse(evidence, study)
    except ValueError as error:
        raise UserError(f"{evidence.where}: no law can be fitted to its runs: {error}") from None


def _analyse(evidence: Evidence, study: Study) -> dict[str, Any]:
    everyone = [run for members in study.main.values() for run in members]
    swept = [sweep for sweep in evidence.sweeps if sweep["config"]["schedule"] == study.schedule]
    fits = {name: _fits(study.main[name], study.runs[name]) for name in study.main}
    both = paired(study.runs) if len(study.runs) > 1 else {}
    compared = compare(both, DELTA).as_dict() if both and _sizes(both) >= MIN_SIZES else None
    return {
        "kind": "study",
        "corpus": everyone[0]["corpus"],
        "main_budget": everyone[0]["budget"],
        "tokens": everyone[0]["tokens"],
        "epochs": everyone[0]["epochs"],
        "budgets": sorted({run["budget"] for members in study.runs.values() for run in members}),
        "seeds": sorted({run["seed"] for run in everyone}),
        "runs": {name: len(members) for name, members in study.runs.items()},
        "runs_of_main_budget": {name: len(members) for name, members in study.main.items()},
        "validation_tokens": everyone[0]["validation_tokens"],
        "validation_standard_error": float(np.mean([run["validation_loss_standard_error"] for run in everyone])),
        "baseline": evidence.baseline,
        "sizes": describe_sizes(study.main),
        "points": {name: _points(members) for name, members in study.runs.items()},
        "curves": {name: _curves(members) for name, members in study.main.items()},
        "fits": {name: [fitted.as_dict() for fitted in found] for name, found in fits.items()},
        "comparison": compared,
        "allocation": {
            name: allocate(whole_corpus(study.runs[name]), _of(found, "chinchilla")).as_dict()
            for name, found in fits.items()
        },
        "extrapolation": [row for name in study.main for row in extrapolate(name, study.main[name], study.runs[name])],
        "repetition": {name: _repetition(found, study.runs[name]) for name, found in fits.items()},
        "arms": {name: arm_differences(members) for name, members in study.every.items()},
        "quality": evidence.quality,
        "learning_rate": {**swept[0], "used": rates_used(swept[0], study.main)} if swept else None,
        "left_out": study.left_out,
    }


def _sizes(ladders: dict[str, Runs]) -> int:
    return len(by_size(next(iter(ladders.values()))))


def fit_runs(law: str, runs: Runs, axis: str = "n_params", resamples: int | None = None) -> Fit:
    """Fit a law to runs: their clusters, their weights, and as n what `axis` names; a law of one variable is of n."""
    needs = LAWS[law].needs
    return fit(
        law,
        column(runs, "validation_loss"),
        n=column(runs, axis),
        d=column(runs, "tokens") if "d" in needs else None,
        u=column(runs, "unique_tokens") if "u" in needs else None,
        keys=column(runs, "n_keys") if "keys" in needs else None,
        weights=weights_of(runs),
        clusters=clusters(runs),
        sizes=[run["size"] for run in runs],
        delta=DELTA,
        resamples=resamples,
    )


def _fits(main: Runs, runs: Runs) -> list[Fitted]:
    """Return every law that the runs of one architecture can tell."""
    found = [Fitted(axis, main, fit_runs(law, main, axis)) for axis in AXES for law in OF_N]
    whole = whole_corpus(runs)
    if len(_budgets(whole)) >= MIN_BUDGETS:
        found += [Fitted(axis, whole, fit_runs("chinchilla", whole, axis)) for axis in AXES]
        longest = max(by_size(whole).values(), key=lambda members: (len(_budgets(members)), members[0]["n_params"]))
        if len(_budgets(longest)) > MIN_BUDGETS:
            found += [Fitted("tokens", longest, _fit_one(law, longest, d="tokens")) for law in OF_N]
        best = frontier(whole)
        if len(best) > MIN_BUDGETS + 1:
            found += [Fitted("flops", best, _fit_one(law, best, c="flops")) for law in OF_N]
    own_keys = [run for run in runs if run["n_keys"] == 1]
    repeated = any(run["epochs"] > REPEATED for run in own_keys) and len({run["unique_tokens"] for run in own_keys}) > 1
    for law in ("data_constrained", "mupt", "sms"):
        if repeated and len({setting_of(run) for run in own_keys}) > len(LAWS[law].parameters):
            found.append(Fitted("n_params", own_keys, fit_runs(law, own_keys)))
    settings = {setting_of(run) for run in runs}
    if len({run["n_keys"] for run in runs}) > 1 and len(settings) > len(LAWS["transposition"].parameters):
        found.append(Fitted("n_params", runs, fit_runs("transposition", runs)))
    return found


def _budgets(runs: Runs) -> set[int]:
    return {run["budget"] for run in runs}


def _fit_one(law: str, runs: Runs, d: str | None = None, c: str | None = None) -> Fit:
    """Fit a law of D or C, each a field of the record; where runs have too few clusters, the runs are resampled."""
    labels = clusters(runs)
    return fit(
        law,
        column(runs, "validation_loss"),
        d=None if d is None else column(runs, d),
        c=None if c is None else column(runs, c),
        clusters=labels if len(set(labels)) > MIN_BUDGETS else None,
        delta=DELTA,
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


def _sheet(fitted: Fit, runs: Runs) -> list[dict[str, Any]] | None:
    """Return Chinchilla's law at each budget that the runs have, over their sizes."""
    if fitted.law.needs != ("n", "d"):
        return None
    low, high = fitted.domain["n"]
    at = np.geomspace(low / 1.3, high * 1.3, 40)
    sheet = []
    for budget in sorted(_budgets(runs)):
        tokens = np.mean([run["tokens"] for run in runs if run["budget"] == budget])
        loss = fitted.predict(n=at, d=np.full(len(at), tokens))
        sheet.append({"budget": budget, "n_params": at.tolist(), "loss": loss.tolist()})
    return sheet


def rates_used(sweep: dict[str, Any], main: dict[str, Runs]) -> dict[str, list[dict[str, Any]]]:
    """Return the peak rate of each size's runs beside the best one of the sweep, and by how much it raises the loss.

    `rise` is in nats per character at the sweep's budget, by the parabola that gave the best rate; None, as `best`, for
    a size that was not swept.
    """
    used = {}
    for architecture, runs in main.items():
        optima = {row["size"]: row for row in sweep["rules"].get(architecture, {"optima": []})["optima"]}
        used[architecture] = [
            {
                "size": size,
                "n": members[0]["n_params_non_embedding"],
                "rate": (rate := members[0]["learning_rate"]),
                "best": optima[size]["rate"] if size in optima else None,
                "rise": optima[size]["bend"] * np.log(rate / optima[size]["rate"]) ** 2 if size in optima else None,
            }
            for size, members in by_size(runs).items()
        ]
    return used


def _points(runs: Runs) -> dict[str, list[Any]]:
    return {name: [run[name] for run in runs] for name in COLUMNS}


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


def describe_sizes(ladders: dict[str, Runs]) -> list[dict[str, Any]]:
    """Return one row a size with the means over seeds of every architecture that has it, at the main budget."""
    groups = {name: by_size(runs) for name, runs in ladders.items()}
    rows = []
    for size in dict.fromkeys(size for group in groups.values() for size in group):
        row: dict[str, Any] = {"size": size}
        for name, group in groups.items():
            if size not in group:
                continue
            losses = column(group[size], "validation_loss")
            row[name] = {
                "n_params": group[size][0]["n_params"],
                "n_params_non_embedding": group[size][0]["n_params_non_embedding"],
                "seeds": len(group[size]),
                "loss": float(losses.mean()),
                "seed_deviation": float(losses.std(ddof=1)) if len(losses) > 1 else None,
                "bits_per_character": float(losses.mean() / np.log(2)),
                "seconds": float(column(group[size], "seconds").mean()),
                "peak_memory_bytes": float(column(group[size], "peak_memory_bytes").mean()),
            }
        rows.append(row)
    return sorted(rows, key=lambda row: min(entry["n_params"] for entry in row.values() if isinstance(entry, dict)))


def _by_budget(sizes: list[Runs]) -> list[tuple[int, Runs]]:
    return [(b, [run for run in size if run["budget"] == b]) for size in sizes for b in sorted(_budgets(size))]


def extrapolate(architecture: str, main: Runs, runs: Runs) -> list[dict[str, Any]]:
    """Fit each law without the largest sizes and foretell their losses: one row a law, cut, size and budget left out.

    Laws of N alone foretell the main budget only. `error` is relative, of the mean over seeds; `times` how much
    larger the size is than the largest that was fitted; `inside` whether the mean lies in the law's 95 % band there.
    """
    rows = []
    for law, members in (("power", main), ("power_irreducible", main), ("chinchilla", whole_corpus(runs))):
        sizes = list(by_size(members).values())
        if law == "chinchilla" and len(_budgets(members)) < MIN_BUDGETS:
            continue
        for kept in range(MIN_SIZES, len(sizes)):
            small = [run for group in sizes[:kept] for run in group]
            try:
                fitted = fit_runs(law, small, resamples=200)
            except ValueError:  # too few points are left for this law
                continue
            for budget, group in _by_budget(sizes[kept:]):
                n, d = column(group, "n_params"), column(group, "tokens")
                x = {"n": n, "d": d} if law == "chinchilla" else {"n": n}
                found = float(np.exp(np.log(column(group, "validation_loss")).mean()))
                foretold = float(np.exp(np.log(fitted.predict(**x)).mean()))
                low, high = (float(edge.mean()) for edge in fitted.band(**x))
                rows.append(
                    {
                        "architecture": architecture,
                        "law": law,
                        "fitted_sizes": kept,
                        "largest_fitted": small[-1]["n_params"],
                        "size": group[0]["size"],
                        "n_params": group[0]["n_params"],
                        "budget": budget,
                        "main": budget == main[0]["budget"],
                        "times": group[0]["n_params"] / small[-1]["n_params"],
                        "loss": found,
                        "foretold": foretold,
                        "error": foretold / found - 1,
                        "inside": low <= found <= high,
                    }
                )
    return rows


def _of(found: list[Fitted], law: str) -> Fit | None:
    """Return the fit of a law, on all parameters, or None if there is none."""
    return next((entry.fit for entry in found if entry.fit.law.name == law and entry.axis == "n_params"), None)


def _repetition(fits: list[Fitted], runs: Runs) -> dict[str, Any] | None:
    """Return what repeated epochs and transposed copies are worth under the laws that say so, or None without one."""
    repeated, transposed = _of(fits, "data_constrained"), _of(fits, "transposition")
    if repeated is None and transposed is None:
        return None
    found: dict[str, Any] = {"epochs": None, "keys": None}
    if repeated is not None:

        def worth(log_star: Array, epochs: int) -> Array:
            return 1 + np.exp(log_star) * -np.expm1(-(epochs - 1) / np.exp(log_star))

        star = repeated.parameters["R_D*"]
        rows = [{"epochs": n, **_derived(repeated, "R_D*", partial(worth, epochs=n))} for n in EPOCHS]
        found["epochs"] = {"identified": star.identified, "reason": star.reason, "rows": rows}
    if transposed is not None:

        def multiplier(w: Array, keys: int) -> Array:
            return 1 + w * (keys - 1)

        used = sorted({run["n_keys"] for run in runs} - {1})
        share = transposed.parameters["w"]
        rows = [{"keys": k, **_derived(transposed, "w", partial(multiplier, keys=k))} for k in used]
        found["keys"] = {"identified": share.identified, "reason": share.reason, "rows": rows}
    return found


def _derived(fitted: Fit, name: str, function: Callable[[Array], Array]) -> dict[str, Any]:
    """Return a monotone function of one parameter, with its bootstrap interval."""
    place = fitted.law.names.index(name)
    low, high = percentiles(function(fitted.resampled[:, place]), fitted.degrees_of_freedom)
    return {"value": float(function(fitted.theta[place : place + 1])[0]), "bootstrap": [low, high]}
