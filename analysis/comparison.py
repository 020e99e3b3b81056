"""GPT against LSTM: the same laws on the same resamples of paired runs, and only what their intervals allow to say."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from analysis.fitting import LAWS, RESAMPLES, Array, Fit, fit, interval, resample

AXES = {"n_params": "all parameters", "n_params_non_embedding": "parameters without tables"}
Runs = list[dict[str, Any]]


@dataclass
class Comparison:
    """Both architectures under one law on one axis. `delta_alpha` is alpha of the GPT minus alpha of the LSTM."""

    axis: str
    law: str
    fits: dict[str, Fit]
    delta_alpha: float
    delta_alpha_interval: tuple[float, float]
    crossover: float | None
    crossover_interval: tuple[float, float] | None
    crossover_share: float

    @property
    def identified(self) -> bool:
        """True if every parameter of both fits is identified."""
        return all(estimate.identified for fitted in self.fits.values() for estimate in fitted.parameters.values())

    @property
    def steeper(self) -> str | None:
        """The architecture whose exponent is larger beyond doubt, or None while the interval holds zero."""
        low, high = self.delta_alpha_interval
        if not self.identified or low <= 0 <= high:
            return None
        return "gpt" if low > 0 else "lstm"

    def as_dict(self) -> dict[str, Any]:
        """Return everything that comparison_data.json holds of it."""
        return {
            "axis": self.axis,
            "law": self.law,
            "identified": self.identified,
            "delta_alpha": self.delta_alpha,
            "delta_alpha_interval": self.delta_alpha_interval,
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


def _contrast(axis: str, law: str, fits: dict[str, Fit]) -> Comparison:
    gpt, lstm = fits["gpt"], fits["lstm"]
    low, high = interval(gpt.resampled[:, 2] - lstm.resampled[:, 2])
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
        delta_alpha=float(gpt.theta[2] - lstm.theta[2]),
        delta_alpha_interval=(float(low), float(high)),
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
