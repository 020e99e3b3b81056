"""Profile likelihoods: one parameter is held at a row of values and the others are fitted again."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import f as f_distribution

from analysis.intervals import LEVEL, Interval
from analysis.laws import Array
from analysis.optimiser import Problem, Solution

POINTS = 24  # on each side within REACH
REACH, FARTHEST, FAR_POINTS = 4.0, 1024.0, 12  # standard errors; beyond REACH the points are on a logarithmic scale
MAX_MOVE = 100.0  # of another parameter, such as the logarithm of a coefficient


@dataclass
class Profile:
    """The rise of the objective with one parameter held at the values `at` [points], on the scale it is fitted on.

    `limit` is the rise at the edges of the 95 % interval, which is open where the rise stays below it.
    """

    at: Array
    rise: Array
    limit: float
    interval: Interval


def profile_likelihoods(
    problem: Problem, weights: Array, best: Solution, covariance: Array, inverse: Array, degrees_of_freedom: int
) -> tuple[list[Profile], Array | None]:
    """Return the profile of each parameter, and a theta [parameters] better than the best one if there is one.

    `weights` are [points], `covariance` (cluster-robust) and `inverse` (of the Hessian) [parameters, parameters].

    The limit is that of an F test, scaled by the ratio of the parameter's cluster-robust variance to the variance from
    the inverse Hessian (Chandler & Bate 2007).
    """
    theta, variance = best.theta[0], np.diag(inverse)
    ratio = np.diag(covariance) / variance
    limits = np.maximum(np.nan_to_num(ratio * f_distribution.ppf(LEVEL, 1, degrees_of_freedom) / 2), 1e-20)
    errors = np.sqrt(2 * limits * variance) / 2  # half of where a parabola would reach the limit
    errors = np.where(np.isfinite(errors) & (errors > 0), errors, 1e-6 * np.maximum(1.0, np.abs(theta)))
    # Each parameter has two sides, from the best fit outwards: all arrays begin with [sides, points].
    parameter, sign = np.repeat(np.arange(len(theta)), 2), np.tile([-1.0, 1.0], len(theta))
    error, limit = errors[parameter, None], limits[parameter, None]
    bounds = [bound[parameter, None] for bound in problem.bounds]

    def held_at(multiples: Array) -> Array:
        return np.clip(theta[parameter, None] + sign[:, None] * error * multiples, *bounds)

    # The other parameters start where a parabola has them; one that is not determined stays.
    at = held_at(np.linspace(0, REACH, POINTS + 1))
    slopes = inverse[parameter] / variance[parameter, None]
    slopes = np.where(np.abs(slopes * REACH * error) < MAX_MOVE, slopes, 0.0)
    starts = theta + (at - theta[parameter, None])[:, :, None] * slopes[:, None, :]
    thetas, rises = _minima(problem, weights, best, parameter, at, starts)
    lowest = np.unravel_index(np.argmin(rises), rises.shape)
    better = thetas[lowest] if rises[lowest] < -1e-9 * best.objective[0] else None
    rises[:, 0] = 0.0
    sides = [(each, np.maximum(rise, 0.0)) for each, rise in zip(at, rises, strict=True)]
    flat = np.flatnonzero((rises <= limit).all(axis=1))
    if len(flat):
        at = held_at(np.geomspace(REACH, FARTHEST, FAR_POINTS + 1)[1:])[flat]
        starts = np.repeat(thetas[flat, -1:], FAR_POINTS, axis=1)
        _, rises = _minima(problem, weights, best, parameter[flat], at, starts)
        for side, far, rise in zip(flat, at, rises, strict=True):
            sides[side] = np.concatenate([sides[side][0], far]), np.concatenate([sides[side][1], np.maximum(rise, 0.0)])
    profiles = []
    for low, high, rise in zip(sides[::2], sides[1::2], limits.tolist(), strict=True):
        joined = [np.concatenate([below[:0:-1], above]) for below, above in zip(low, high, strict=True)]
        profiles.append(Profile(joined[0], joined[1], rise, (_edge(*low, rise), _edge(*high, rise))))
    return profiles, better


def _minima(
    problem: Problem, weights: Array, best: Solution, parameter: NDArray[np.int_], at: Array, starts: Array
) -> tuple[Array, Array]:
    """Return theta [sides, points, parameters] and its rise with each side's parameter held at `at` [sides, points]."""
    sides, points, count = starts.shape
    thetas, rises = starts.copy(), np.full(at.shape, np.inf)
    held = np.broadcast_to((np.arange(count) == parameter[:, None])[:, None], starts.shape).reshape(-1, count)
    every = np.broadcast_to(weights, (at.size, len(weights)))
    for shift in (0, 1, -1, 1):  # then from the minima of outer and inner neighbours, which may be in a lower valley
        trial = thetas[:, np.clip(np.arange(points) + shift, 0, points - 1)]
        trial[np.arange(sides), :, parameter] = at
        found = problem.solve(every, trial.reshape(-1, count), held)
        rise = (found.objective - best.objective[0]).reshape(at.shape)
        lower = rise < rises
        thetas[lower], rises[lower] = found.theta.reshape(thetas.shape)[lower], rise[lower]
    return thetas, rises


def _edge(at: Array, rise: Array, limit: float) -> float | None:
    """Return the value at which the rise [points] passes the limit for the last time; its root is nearly straight."""
    inside = int(np.flatnonzero(rise <= limit)[-1])
    if inside == len(rise) - 1:
        return None
    between = slice(inside, inside + 2)
    return float(np.interp(np.sqrt(limit), np.sqrt(rise[between]), at[between]))
