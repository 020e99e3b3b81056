"""Fit scaling laws in log space with a Huber loss, many weighted copies of one problem at a time.

L(N) = E + a·N^-alpha, in nats per character; E is fixed at 0 for the plain power law. The objective is the weighted
sum of Huber(log L_fitted - log L_measured). Starts come from variable projection (for a fixed alpha the law is linear
in E and a); damped Newton steps with the exact Hessian and the bound E >= 0 lead from there to convergence.
"""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import f as f_distribution
from scipy.stats import t as t_distribution

Array = NDArray[np.float64]
Interval = tuple[float | None, float | None]  # None: open on that side

DELTA = 0.01  # a run more than 1 % off the law counts as an outlier
RESAMPLES = 1000
LEVEL = 0.95
EDGES = ((1 - LEVEL) / 2, (1 + LEVEL) / 2)
MAX_EXPONENT = 3.0  # steeper is no scaling law but a step; a fit that comes here is at its bound
SMALLEST_FLOOR = 1e-3  # nats per character; a floor whose interval reaches below it is not told from none
START_EXPONENTS = np.geomspace(0.005, MAX_EXPONENT, 80)
PROFILE_POINTS = 200
MAX_STEPS = 500
TOLERANCE = 1e-12
PARAMETERS = ("E", "log_a", "alpha")
LAWS = {"power": (False, True, True), "power_floor": (True, True, True)}  # which parameters are free


@dataclass
class Estimate:
    """One parameter with its 95 % intervals, and whether the data identify it.

    The bootstrap resamples runs and so measures the noise of seeds; the jackknife leaves out one size at a time and so
    measures, too, how far the law is from the truth; in the profile the other parameters follow. An interval is open
    where the profile stays flat, or where too many of the fits it is made from did not converge.
    """

    value: float
    bootstrap: Interval
    jackknife: Interval
    profile: Interval
    identified: bool


@dataclass
class Fit:
    """A law fitted to points.

    `resampled` [resamples, 3] and `without_one` [sizes, 3] hold E, log a and alpha of the fits to resampled runs and to
    all sizes but one, for what is derived from them.
    """

    law: str
    points: int
    objective: float
    converged: bool
    at_bound: list[str]
    parameters: dict[str, Estimate]
    resampled: Array = field(repr=False)
    without_one: Array = field(repr=False)

    @property
    def theta(self) -> Array:
        """E, log a, alpha: [3]."""
        return np.array([self.parameters[name].value if name in self.parameters else 0.0 for name in PARAMETERS])

    def predict(self, n: Array) -> Array:
        """Return the fitted loss at sizes `n`: [points], nats per character."""
        return predict(self.theta[None], np.log(n))[0]

    def band(self, n: Array) -> tuple[Array, Array]:
        """Return the lower and upper edge of the pointwise 95 % bootstrap band at sizes `n`."""
        curves = predict(self.resampled[np.isfinite(self.resampled).all(axis=1)], np.log(n))
        low, high = np.quantile(curves, EDGES, axis=0) if len(curves) else np.full((2, len(n)), np.nan)
        return low, high

    def as_dict(self) -> dict[str, Any]:
        """Return everything but the resamples, in full precision."""
        rows = {name: vars(estimate) for name, estimate in self.parameters.items()}
        return {
            "law": self.law,
            "form": "L = E + a·N^-alpha" if self.law == "power_floor" else "L = a·N^-alpha",
            "points": self.points,
            "loss": f"sum of Huber(log residual), delta = {DELTA}",
            "start": f"the best of {len(START_EXPONENTS)} exponents, or the law without a floor if that is better",
            "resamples": len(self.resampled),
            "resamples_converged": int(np.isfinite(self.resampled[:, 0]).sum()),
            "objective": self.objective,
            "converged": self.converged,
            "at_bound": self.at_bound,
            "parameters": rows,
        }


def predict(theta: Array, log_n: Array) -> Array:
    """Return the loss of laws `theta` [laws, 3] at sizes `log_n` [points]: [laws, points]."""
    return theta[:, :1] + np.exp(theta[:, 1:2] - theta[:, 2:] * log_n)


def interval(samples: Array) -> Interval:
    """Return the two-sided percentile interval of [resamples], open if more than 2 % of them are not finite."""
    found = samples[np.isfinite(samples)]
    if len(found) < 0.98 * len(samples):
        return None, None
    low, high = np.quantile(found, EDGES)
    return float(low), float(high)


def jackknife(value: float, without_one: Array) -> Interval:
    """Return the delete-one jackknife interval of a value from those with one size left out: [sizes].

    Source: Efron & Tibshirani 1993, chapter 11, with Student's t of sizes - 1 degrees of freedom.
    """
    count = len(without_one)
    if not np.isfinite(without_one).all():
        return None, None
    error = np.sqrt((count - 1) / count * np.sum((without_one - without_one.mean()) ** 2))
    reach = float(t_distribution.ppf((1 + LEVEL) / 2, count - 1) * error)
    return value - reach, value + reach


def resample(count: int, clusters: int, seed: int = 0) -> Array:
    """Return bootstrap weights [count, clusters]: how often each cluster was drawn, at least 3 different ones."""
    draw = np.random.default_rng(seed)
    weights = draw.multinomial(clusters, np.full(clusters, 1 / clusters), size=count).astype(float)
    few = (weights > 0).sum(axis=1) < min(3, clusters)
    return weights[~few]


def fit(law: str, n: Array, loss: Array, weights: Array | None = None) -> Fit:
    """Fit a law to measured losses [points] of models of `n` [points] parameters.

    `weights` [resamples, points] are the bootstrap's; without them runs are resampled. Raises ValueError if there are
    fewer than four points or three sizes, or a size or a loss that is not positive and finite.
    """
    n, loss = np.asarray(n, float), np.asarray(loss, float)
    if len(n) < 4 or len(np.unique(n)) < 3:
        raise ValueError(f"{len(n)} points of {len(np.unique(n))} sizes are too few for a law: 4 of 3 are needed")
    if not (np.isfinite(n).all() and np.isfinite(loss).all() and (n > 0).all() and (loss > 0).all()):
        raise ValueError("sizes and losses must be positive and finite")
    log_n, log_loss = np.log(n), np.log(loss)
    free = np.array(LAWS[law])
    theta, objective, converged = minimise(log_n, log_loss, np.ones((1, len(n))), free)
    weights = resample(RESAMPLES, len(n)) if weights is None else weights
    resampled, _, resampled_converged = minimise(log_n, log_loss, weights, free)
    resampled[~resampled_converged] = np.nan  # kept in place, so that two fits of the same resamples stay paired
    sizes = np.unique(n)
    without_one, _, without_one_converged = minimise(log_n, log_loss, (n != sizes[:, None]).astype(float), free)
    without_one[~without_one_converged] = np.nan
    at_bound = ["E"] * bool(free[0] and theta[0, 0] <= 0) + ["alpha"] * bool(theta[0, 2] >= MAX_EXPONENT)
    estimates = {}
    for i, name in enumerate(PARAMETERS):
        if not free[i]:
            continue
        value = float(theta[0, i])
        found = resampled[np.isfinite(resampled[:, i]), i]
        spread = float(found.std()) if len(found) else abs(value)
        profile = _profile(log_n, log_loss, theta[0], float(objective[0]), i, free, spread)
        intervals = interval(resampled[:, i]), jackknife(value, without_one[:, i]), profile
        identified = bool(converged[0]) and name not in at_bound and _is_pinned(name, intervals)
        estimates[name] = Estimate(value, *intervals, identified)
    if not all(estimates[name].identified for name in ("E", "alpha") if name in estimates):
        for name in estimates:  # floor and exponent trade off: while one is unknown, so is the other
            estimates[name].identified = False
    return Fit(law, len(n), float(objective[0]), bool(converged[0]), at_bound, estimates, resampled, without_one)


def _is_pinned(name: str, intervals: tuple[Interval, ...]) -> bool:
    """Return whether all intervals are closed and, for an exponent or a floor, clear of zero and of the bound."""
    lowest = {"E": SMALLEST_FLOOR, "alpha": 0.0, "log_a": -np.inf}[name]
    highest = MAX_EXPONENT if name == "alpha" else np.inf
    return all(low is not None and high is not None and lowest < low and high < highest for low, high in intervals)


@np.errstate(over="ignore", invalid="ignore", divide="ignore")  # a step too far has no finite objective: it is refused
def minimise(
    log_n: Array, log_loss: Array, weights: Array, free: NDArray[np.bool_], start: Array | None = None
) -> tuple[Array, Array, NDArray[np.bool_]]:
    """Minimise the objective for each row of `weights` [problems, points].

    Parameters that are not `free` [3] keep their start (0 without one). Returns theta [problems, 3], the objective
    [problems] and whether each problem converged [problems].
    """
    theta = _start(log_n, log_loss, weights, free) if start is None else start.copy()
    damping = np.full(len(theta), 1e-3)
    objective = _objective(theta, log_n, log_loss, weights)
    converged = np.zeros(len(theta), dtype=bool)
    for _ in range(MAX_STEPS):
        on = np.flatnonzero(~converged)
        if not len(on):
            break
        now = theta[on]
        gradient, hessian, scale = _derivatives(now, log_n, log_loss, weights[on])
        at_floor = (now[:, 0] <= 0) & (gradient[:, 0] > 0)
        at_top = (now[:, 2] >= MAX_EXPONENT) & (gradient[:, 2] < 0)
        held = ~free | np.stack([at_floor, np.zeros_like(at_floor), at_top], axis=1)
        gradient = np.where(held, 0.0, gradient)
        # What a step could still gain, to second order, against what there is; the second term is for a perfect fit.
        gain = np.where(held, 0.0, gradient**2 / scale).sum(axis=1)
        converged[on] = gain <= TOLERANCE * objective[on] + 1e-26
        hessian = np.where(held[:, :, None] | held[:, None, :], 0.0, hessian)
        diagonal = np.where(held, 1.0, scale * damping[on, None] + 1e-300)  # never singular; such a step is refused
        step = np.linalg.solve(hessian + np.einsum("bk,kj->bkj", diagonal, np.eye(3)), -gradient[..., None])[..., 0]
        proposal = now + step
        proposal[:, 0] = np.maximum(proposal[:, 0], 0.0)
        proposal[:, 2] = np.minimum(proposal[:, 2], MAX_EXPONENT)
        proposed = _objective(proposal, log_n, log_loss, weights[on])
        better = proposed < objective[on]
        theta[on[better]] = proposal[better]
        objective[on[better]] = proposed[better]
        damping[on] = np.clip(np.where(better, damping[on] / 5, damping[on] * 5), 1e-12, 1e12)
    return theta, objective, converged


def _derivatives(theta: Array, log_n: Array, log_loss: Array, weights: Array) -> tuple[Array, Array, Array]:
    """Return the objective's gradient [problems, 3], exact Hessian [problems, 3, 3] and Gauss-Newton diagonal."""
    power = np.exp(theta[:, 1:2] - theta[:, 2:] * log_n)
    fitted = theta[:, :1] + power
    residual = np.log(fitted) - log_loss
    jacobian = np.stack([1 / fitted, power / fitted, -log_n * power / fitted], axis=-1)
    slope = weights * np.clip(residual, -DELTA, DELTA)
    gradient = np.einsum("bp,bpk->bk", slope, jacobian)
    scale = np.einsum("bp,bpk->bk", weights, jacobian**2)
    # The second derivative of log(E + p) is that of p over E + p, less the square of the first.
    quadratic = weights * (np.abs(residual) <= DELTA) - slope
    hessian = np.einsum("bp,bpj,bpk->bjk", quadratic, jacobian, jacobian)
    direction = np.stack([np.zeros_like(log_n), np.ones_like(log_n), -log_n], axis=-1)
    hessian += np.einsum("bp,pj,pk->bjk", slope * power / fitted, direction, direction)
    return gradient, hessian, scale


def _start(log_n: Array, log_loss: Array, weights: Array, free: NDArray[np.bool_]) -> Array:
    """Return the better of the grid's best and, for a law with a floor, the fitted law without one: [problems, 3]."""
    theta = _project(log_n, np.exp(log_loss), weights, free)
    if free[0]:
        plain, objective, _ = minimise(log_n, log_loss, weights, free & (np.arange(3) > 0))
        better = objective < _objective(theta, log_n, log_loss, weights)
        theta[better] = plain[better]
    return theta


def _project(log_n: Array, loss: Array, weights: Array, free: NDArray[np.bool_]) -> Array:
    """Return the best start [problems, 3] over a grid of exponents: for each, E and a by weighted least squares."""
    best = np.full(len(weights), np.inf)
    theta = np.zeros((len(weights), 3))
    w = weights / loss**2
    for alpha in START_EXPONENTS:
        x = np.exp(-alpha * (log_n - log_n.mean()))
        sw, sx, sy = w.sum(1), w @ x, w @ loss
        sxx, sxy = w @ (x * x), w @ (x * loss)
        determinant = sw * sxx - sx**2
        floor = np.where(free[0] & (determinant > 0), (sxx * sy - sx * sxy) / determinant, 0.0)
        floor = np.clip(np.nan_to_num(floor), 0.0, None)
        factor = np.maximum((sxy - floor * sx) / sxx, 1e-12)
        trial = np.stack([floor, np.log(factor) + alpha * log_n.mean(), np.full(len(w), alpha)], axis=1)
        objective = _objective(trial, log_n, np.log(loss), weights)
        better = objective < best
        best, theta[better] = np.where(better, objective, best), trial[better]
    return theta


def _objective(theta: Array, log_n: Array, log_loss: Array, weights: Array) -> Array:
    size = np.abs(np.log(predict(theta, log_n)) - log_loss)
    huber = np.where(size <= DELTA, 0.5 * size**2, DELTA * (size - 0.5 * DELTA))
    return np.nan_to_num((weights * huber).sum(axis=1), nan=np.inf)


def _profile(
    log_n: Array, log_loss: Array, theta: Array, objective: float, i: int, free: NDArray[np.bool_], spread: float
) -> tuple[float | None, float | None]:
    """Return where the objective, minimised over the others with parameter i held, has risen by an F test's worth."""
    others = free.copy()
    others[i] = False
    freedom = len(log_n) - int(free.sum())
    limit = objective * (1 + f_distribution.ppf(LEVEL, 1, freedom) / freedom)
    reach = max(10 * spread, 0.5 * abs(theta[i]), 1e-3)
    edges: list[float | None] = []
    for sign in (-1, 1):
        values = theta[i] + sign * np.linspace(0, reach, PROFILE_POINTS)
        if i == 0:
            values = np.clip(values, 0.0, np.exp(log_loss.max()))
        start = np.repeat(theta[None], PROFILE_POINTS, axis=0)
        start[:, i] = values
        held, risen, _ = minimise(log_n, log_loss, np.ones((PROFILE_POINTS, len(log_n))), others, start)
        outside = np.flatnonzero(risen > limit)
        edges.append(float(held[outside[0], i]) if len(outside) else None)
    return edges[0], edges[1]
