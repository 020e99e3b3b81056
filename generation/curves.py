"""Curves of a quality metric against parameters or loss, fitted to runs, with a bootstrap over runs.

The unit of the bootstrap is a run, one (size, seed): tunes of one run are more alike than tunes of two. A run's count
has its own binomial noise, which is not drawn a second time. Runs of one size and seed get the same weights in both
architectures.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from scipy.special import expit, logit

from analysis.intervals import Array, percentiles

Run = tuple[str, int]  # size and seed

PRIOR = 10.0  # standard deviation of a and b, in logits: keeps them finite at 0 % and 100 %
MIN_WEIGHT = 1e-3  # of a run in a resample: with 0 for most runs a curve could not be fitted
LARGE = 1e9  # in place of infinity, so that quantiles are defined
STEP, MAX_STEPS = 1e-5, 100


@dataclass(frozen=True)
class Curve:
    """A metric as a curve in x: share = chance + (ceiling − chance)·σ(a + b·t), or a line a + b·t of it or its log.

    t is x scaled to -1 to 1 over the measured range. The first row of `parameters` [1 + resamples, 2] is the best fit.
    """

    form: str  # logistic, line or log line
    ends: tuple[float, float]
    chance: float
    ceiling: float
    parameters: Array
    degrees: int  # of freedom
    flat: str | None  # why no slope can be estimated

    def predict(self, x: Array) -> Array:
        """Return the metric at x [points]: [1 + resamples, points]."""
        line = self.parameters[:, :1] + self.parameters[:, 1:] * _scaled(x, self.ends)
        if self.form == "logistic":
            return self.chance + (self.ceiling - self.chance) * expit(line)
        return np.exp(line) if self.form == "log line" else line

    def crossing(self, level: float) -> Array:
        """Return the x at which rising logistic curves reach a share, ±infinity if they never do: [1 + resamples]."""
        a, b = self.parameters.T
        rest = float(logit((level - self.chance) / (self.ceiling - self.chance))) - a
        first, last = self.ends
        x = (first + last) / 2 + (last - first) / 2 * rest / np.where(b > 0, b, 1)
        return np.where(b > 0, x, np.where(rest > 0, np.inf, -np.inf))

    def slope(self) -> Array:
        """Return b per unit of x: [1 + resamples]."""
        return self.parameters[:, 1] / ((self.ends[1] - self.ends[0]) / 2)


def _scaled(x: Array, ends: tuple[float, float]) -> Array:
    first, last = ends
    return (x - (first + last) / 2) / ((last - first) / 2)


def bootstrap_weights(runs: Sequence[Run], resamples: int, seed: int) -> dict[Run, Array]:
    """Return how often each run is drawn in each resample, at least MIN_WEIGHT: [resamples] for each run."""
    drawn = np.random.default_rng(seed).multinomial(len(runs), np.full(len(runs), 1 / len(runs)), resamples)
    return dict(zip(runs, np.maximum(drawn, MIN_WEIGHT).T, strict=True))


def interval(samples: Array, degrees: int) -> Array:
    """Return the 95 % percentile interval of bootstrap samples [resamples], which may be infinite: [2]."""
    return np.array(percentiles(np.clip(samples, -LARGE, LARGE), degrees), dtype=float)


def band(samples: Array, degrees: int) -> Array:
    """Return the edges of the 95 % intervals of columns [resamples, columns]: [2, columns]."""
    return np.stack([interval(column, degrees) for column in samples.T], axis=1)


def fit_logistic(t: Array, count: Array, total: Array, chance: float, ceiling: float) -> Array:
    """Return a, b of share = chance + (ceiling − chance)·σ(a + b·t) with the highest posterior: [fits, 2].

    t [points], count and total [fits, points]. Binomial likelihood, normal prior with standard deviation PRIOR; Fisher
    scoring with Levenberg and Marquardt's damping, all fits together.
    """
    design, span = np.stack([np.ones_like(t), t]), ceiling - chance  # [2, points]
    mean = np.clip((count.sum(axis=1) / total.sum(axis=1) - chance) / span, 0.01, 0.99)

    def shares(theta: Array) -> tuple[Array, Array]:
        sigma = expit(theta @ design)
        return np.clip(chance + span * sigma, 1e-12, 1 - 1e-12), span * sigma * (1 - sigma)

    def log_posterior(theta: Array, count: Array, total: Array) -> Array:
        share, _ = shares(theta)
        likelihood = np.sum(count * np.log(share) + (total - count) * np.log1p(-share), axis=1)
        return likelihood - np.sum(theta**2, axis=1) / (2 * PRIOR**2)

    theta = np.stack([logit(mean), np.zeros(len(count))], axis=1)
    best, damping = log_posterior(theta, count, total), np.full(len(count), 1e-3)
    left = np.arange(len(count))  # fits that have not converged
    for _ in range(MAX_STEPS):
        now, k, n = theta[left], count[left], total[left]
        share, rise = shares(now)
        weight = rise / (share * (1 - share))
        gradient = ((k - n * share) * weight) @ design.T - now / PRIOR**2
        information = np.einsum("fp,ip,jp->fij", n * rise * weight, design, design) + np.eye(2) / PRIOR**2
        damped = information * (1 + damping[left, None, None] * np.eye(2))
        step = np.linalg.solve(damped, gradient[..., None])[..., 0]
        moved = log_posterior(now + step, k, n)
        better = moved >= best[left]
        theta[left] = np.where(better[:, None], now + step, now)
        best[left] = np.where(better, moved, best[left])
        damping[left] *= np.where(better, 0.1, 10)
        left = left[(np.abs(step) > STEP).any(axis=1)]
        if not len(left):
            break
    return theta


def fit_line(t: Array, value: Array, weights: Array) -> Array:
    """Return a, b of value = a + b·t by weighted least squares: [fits, 2] for weights [fits, runs]."""
    total = weights.sum(axis=1)
    t_mean, mean = weights @ t / total, weights @ value / total
    centred = t - t_mean[:, None]
    b = np.sum(weights * centred * value, axis=1) / np.sum(weights * centred**2, axis=1)
    return np.stack([mean - b * t_mean, b], axis=1)


def _inflate(value: Array, fitted: Array, t: Array, information: Array) -> Array:
    """Return the values with their residuals divided by √(1 − leverage) (HC2: MacKinnon & White 1985): [runs].

    Each run pulls the curve towards itself; without this a bootstrap over few runs is too narrow.
    """
    design = np.stack([np.ones_like(t), t], axis=1)
    inverse = np.linalg.inv(design.T @ (information[:, None] * design))
    leverage = information * np.sum(design @ inverse * design, axis=1)
    return fitted + (value - fitted) / np.sqrt(1 - np.minimum(leverage, 0.9))


def fit_share(x: Array, value: Array, total: Array, weights: Array, chance: float, ceiling: float) -> Curve:
    """Fit a logistic curve to the shares of runs, of `total` tunes each, and to every resample.

    x, value, total [runs]; weights [resamples, runs].
    """
    ends = float(x.min()), float(x.max())
    t = _scaled(x, ends)
    points, index = np.unique(t, return_inverse=True)
    groups = np.eye(len(points))[index]  # runs of one x count together

    def fit(value: Array, weights: Array) -> Array:
        count, tunes = (weights * value * total) @ groups, (weights * total) @ groups
        return fit_logistic(points, count, tunes, chance, ceiling)

    best = fit(value, np.ones((1, len(t))))
    sigma = expit(best[0, 0] + best[0, 1] * t)
    fitted, rise = chance + (ceiling - chance) * sigma, (ceiling - chance) * sigma * (1 - sigma)
    information = total * rise**2 / np.maximum(fitted * (1 - fitted), 1e-12) + PRIOR**-2
    inflated = np.clip(_inflate(value, fitted, t, information), 0, 1)
    flat = {0.0: "no tune passes", 1.0: "every tune passes"}.get(value[0]) if np.ptp(value) == 0 else None
    parameters = np.concatenate([best, fit(inflated, weights)])
    return Curve("logistic", ends, chance, ceiling, parameters, len(t) - 2, flat)


def fit_number(x: Array, value: Array, weights: Array, log: bool) -> Curve:
    """Fit a line to numbers of runs, or to their logarithms, and to every resample: x, value [runs]."""
    ends = float(x.min()), float(x.max())
    t = _scaled(x, ends)
    value = np.log(value) if log else value
    fit = partial(fit_line, t)
    best = fit(value, np.ones((1, len(t))))
    inflated = _inflate(value, best[0, 0] + best[0, 1] * t, t, np.ones_like(t))
    flat = "every run has the same value" if np.ptp(value) == 0 else None
    parameters = np.concatenate([best, fit(inflated, weights)])
    return Curve("log line" if log else "line", ends, 0.0, 1.0, parameters, len(t) - 2, flat)
