"""GPT against LSTM: the same laws on the same resamples of paired runs, and only what their intervals allow to say."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from analysis.fitting import LAWS, PARAMETERS, RESAMPLES, Array, Fit, fit, interval, jackknife, resample

AXES = {"n_params": "all parameters", "n_params_non_embedding": "parameters without tables"}
Runs = list[dict[str, Any]]


@dataclass
class Difference:
    """GPT minus LSTM of one parameter, with the intervals of analysis.fitting.Estimate."""

    value: float
    bootstrap: tuple[float, float]
    jackknife: tuple[float, float]

    @property
    def sign(self) -> int:
        """1 or -1 if both intervals lie on that side of zero, 0 while one of them holds it."""
        lows, highs = zip(self.bootstrap, self.jackknife, strict=True)
        return int(min(lows) > 0) - int(max(highs) < 0)


@dataclass
class Comparison:
    """Both architectures under one law on one axis. `floor` is None under a law without one."""

    axis: str
    law: str
    fits: dict[str, Fit]
    alpha: Difference
    floor: Difference | None
    crossover: float | None
    crossover_interval: tuple[float, float] | None
    crossover_share: float

    @property
    def identified(self) -> bool:
        """True if every parameter of both fits is identified."""
        return all(estimate.identified for fitted in self.fits.values() for estimate in fitted.parameters.values())

    @property
    def steeper(self) -> str | None:
        """The architecture whose exponent is larger beyond doubt, or None while an interval holds zero."""
        return {0: None, 1: "gpt", -1: "lstm"}[self.alpha.sign] if self.identified else None

    def as_dict(self) -> dict[str, Any]:
        """Return everything that comparison_data.json holds of it."""
        return {
            "axis": self.axis,
            "law": self.law,
            "identified": self.identified,
            "delta_alpha": vars(self.alpha),
            "delta_floor": None if self.floor is None else vars(self.floor),
            "steeper": self.steeper,
            "crossover": self.crossover,
            "crossover_interval": self.crossover_interval,
            "crossover_share_of_resamples": self.crossover_share,
            "fits": {architecture: fitted.as_dict() for architecture, fitted in self.fits.items()},
        }


def paired(ladders: dict[str, Runs]) -> dict[str, Runs]:
    """Return the runs that have a partner of the same size and seed in every architecture, in the same order."""
    keys = [{(run["recipe"]["size"], run["recipe"]["seed"]) for run in runs} for runs in ladders.values()]
    shared = set.intersection(*keys)
    return {
        architecture: [run for run in runs if (run["recipe"]["size"], run["recipe"]["seed"]) in shared]
        for architecture, runs in ladders.items()
    }


def compare(ladders: dict[str, Runs]) -> list[Comparison]:
    """Compare paired ladders under every law and on every axis. The clusters of the bootstrap are the pairs."""
    ladders = paired(ladders)
    weights = resample(RESAMPLES, len(ladders["gpt"]))
    results = []
    for axis in AXES:
        for law in LAWS:
            fits = {
                architecture: fit(law, column(runs, axis), column(runs, "validation_loss"), weights)
                for architecture, runs in ladders.items()
            }
            results.append(_contrast(axis, law, fits))
    return results


def column(runs: Runs, name: str) -> Array:
    """Return one number of each run: [runs]."""
    return np.array([run[name] for run in runs], dtype=float)


def _difference(gpt: Fit, lstm: Fit, parameter: str) -> Difference:
    i = PARAMETERS.index(parameter)
    value = float(gpt.theta[i] - lstm.theta[i])
    low, high = interval(gpt.resampled[:, i] - lstm.resampled[:, i])
    return Difference(
        value, (float(low), float(high)), jackknife(value, gpt.without_one[:, i] - lstm.without_one[:, i])
    )


def _contrast(axis: str, law: str, fits: dict[str, Fit]) -> Comparison:
    gpt, lstm = fits["gpt"], fits["lstm"]
    crossings = np.array([_crossing(a, b) for a, b in zip(gpt.resampled, lstm.resampled, strict=True)])
    share = float(np.isfinite(crossings).mean())
    bounds = None
    if share >= 0.975:  # with fewer crossings an end of the interval is open
        edges = interval(crossings)
        bounds = (float(np.exp(edges[0])), float(np.exp(edges[1])))
    crossing = _crossing(gpt.theta, lstm.theta)
    return Comparison(
        axis=axis,
        law=law,
        fits=fits,
        alpha=_difference(gpt, lstm, "alpha"),
        floor=_difference(gpt, lstm, "E") if law == "power_floor" else None,
        crossover=float(np.exp(crossing)) if np.isfinite(crossing) else None,
        crossover_interval=bounds,
        crossover_share=share,
    )


def _crossing(gpt: Array, lstm: Array) -> float:
    """Return log N above which the GPT's law lies below the LSTM's, or NaN if it does not come to that below 10^15."""
    log_n = np.linspace(0, np.log(1e15), 2000)
    ahead = gpt[0] + np.exp(gpt[1] - gpt[2] * log_n) < lstm[0] + np.exp(lstm[1] - lstm[2] * log_n)
    turns = np.flatnonzero(ahead[1:] & ~ahead[:-1])
    return float(log_n[turns[-1] + 1]) if len(turns) and ahead[-1] else float("nan")


def held_out_error(law: str, runs: Runs, axis: str) -> float | None:
    """Return the relative error of the loss of the largest size when the law is fitted to the others, or None."""
    sizes = column(runs, axis)
    small = [run for run, size in zip(runs, sizes, strict=True) if size < sizes.max()]
    large = [run for run, size in zip(runs, sizes, strict=True) if size == sizes.max()]
    try:
        fitted = fit(law, column(small, axis), column(small, "validation_loss"))
    except ValueError:
        return None
    found = column(large, "validation_loss").mean()
    return float(fitted.predict(sizes.max()[None])[0] / found - 1)
