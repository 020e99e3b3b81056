"""GPT against LSTM: the same laws on the same resamples of paired runs, and only what their intervals allow to say."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.optimize import brentq

from analysis.fitting import LAWS, PARAMETERS, RESAMPLES, Array, Fit, Interval, fit, interval, jackknife, resample

AXES = {"n_params": "all parameters", "n_params_non_embedding": "parameters without tables"}
Runs = list[dict[str, Any]]


@dataclass
class Difference:
    """GPT minus LSTM of one parameter, with the intervals of analysis.fitting.Estimate."""

    value: float
    bootstrap: Interval
    jackknife: Interval

    @property
    def sign(self) -> int:
        """1 or -1 if both intervals lie on that side of zero, 0 while one of them holds it or is open."""
        edges = [*self.bootstrap, *self.jackknife]
        above, below = (all(edge is not None and sign * edge > 0 for edge in edges) for sign in (1, -1))
        return int(above) - int(below)


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
    keys = [{_key(run) for run in runs} for runs in ladders.values()]
    places = {key: i for i, key in enumerate(_key(run) for run in ladders["gpt"])}
    shared = set.intersection(*keys)
    return {
        architecture: sorted((run for run in runs if _key(run) in shared), key=lambda run: places[_key(run)])
        for architecture, runs in ladders.items()
    }


def _key(run: dict[str, Any]) -> tuple[str, int]:
    return run["recipe"]["size"], run["recipe"]["seed"]


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
    resampled, without_one = gpt.resampled - lstm.resampled, gpt.without_one - lstm.without_one
    return Difference(value, interval(resampled[:, i]), jackknife(value, without_one[:, i]))


def _contrast(axis: str, law: str, fits: dict[str, Fit]) -> Comparison:
    gpt, lstm = fits["gpt"], fits["lstm"]
    crossings = np.array([_crossing(a, b) for a, b in zip(gpt.resampled, lstm.resampled, strict=True)])
    share = float(np.isfinite(crossings).mean())
    edges = interval(np.exp(crossings))  # open where too few resamples cross
    crossing = _crossing(gpt.theta, lstm.theta)
    return Comparison(
        axis=axis,
        law=law,
        fits=fits,
        alpha=_difference(gpt, lstm, "alpha"),
        floor=_difference(gpt, lstm, "E") if law == "power_floor" else None,
        crossover=float(np.exp(crossing)) if np.isfinite(crossing) else None,
        crossover_interval=None if edges[0] is None or edges[1] is None else (edges[0], edges[1]),
        crossover_share=share,
    )


def _crossing(gpt: Array, lstm: Array) -> float:
    """Return log N above which the GPT's law lies below the LSTM's, or NaN if it does not come to that below 10^15."""

    def lead(log_n: Any) -> Any:
        return lstm[0] + np.exp(lstm[1] - lstm[2] * log_n) - gpt[0] - np.exp(gpt[1] - gpt[2] * log_n)

    if not np.isfinite([gpt, lstm]).all():
        return float("nan")
    grid = np.linspace(0, np.log(1e15), 500)
    ahead = lead(grid) > 0
    turns = np.flatnonzero(ahead[1:] & ~ahead[:-1])
    if not len(turns) or not ahead[-1]:
        return float("nan")
    return float(brentq(lead, grid[turns[-1]], grid[turns[-1] + 1], xtol=1e-12))


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
