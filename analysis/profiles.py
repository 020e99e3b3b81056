"""Profile likelihoods: one parameter is held at a row of values and the others are fitted again."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from scipy.stats import f as f_distribution

from analysis.intervals import LEVEL, Interval
from analysis.laws import Array, Parameter
from analysis.optimiser import Problem, Solution

POINTS = 24  # on each side
REACH = 4.0  # standard errors, then farther until the objective has risen
ROUNDS = 5  # each reaches four times as far
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


class _Side:
    """One side of a profile: parameter `i` is held ever farther from the best fit, which is the first point."""

    def __init__(self, i: int, parameter: Parameter, limit: float, reach: float, best: Array, direction: Array) -> None:
        self.i, self.parameter, self.limit, self.reach = i, parameter, limit, reach
        self.theta, self.rise = best[None], np.zeros(1)
        # How the other parameters move along while the profile is a parabola; one that is not determined stays.
        self.direction = np.where(np.abs(reach * direction) < MAX_MOVE, direction, 0.0)

    @property
    def at(self) -> Array:
        return self.theta[:, self.i]

    @property
    def done(self) -> bool:
        """True if the objective has risen beyond the limit, or the parameter has come to a bound."""
        if len(self.rise) == 1:
            return False
        return bool((self.rise > self.limit).any()) or self.at[-1] in (self.parameter.lower, self.parameter.upper)

    def next_starts(self) -> Array:
        """Return theta with the parameter held farther out, the others moved along: [points, parameters]."""
        at = np.linspace(self.at[-1], self.at[0] + self.reach, POINTS + 1)[1:]
        at = np.clip(at, self.parameter.lower, self.parameter.upper)
        starts: Array = self.theta[-1] + (at - self.at[-1])[:, None] * self.direction
        starts[:, self.i] = at
        self.direction = np.zeros_like(self.direction)
        self.reach *= 4
        return starts

    def neighbours(self, shift: int) -> Array:
        """Return each point with the other parameters of the next point out (1) or in (-1): [points, parameters]."""
        starts = self.theta[np.clip(np.arange(len(self.theta)) + shift, 0, len(self.theta) - 1)]
        starts[:, self.i] = self.at
        return starts

    def extend(self, theta: Array, rise: Array) -> None:
        """Add the minima found farther out."""
        self.theta, self.rise = np.concatenate([self.theta, theta]), np.concatenate([self.rise, rise])

    def lower_to(self, theta: Array, rise: Array) -> None:
        """Replace points by lower minima at the same value; the best fit stays."""
        lower = rise < self.rise
        lower[0] = False
        self.theta[lower], self.rise[lower] = theta[lower], rise[lower]

    @property
    def edge(self) -> float | None:
        """The value at which the rise passes the limit for the last time; its root is nearly straight."""
        inside = int(np.flatnonzero(self.rise <= self.limit)[-1])
        if inside == len(self.rise) - 1:
            return None
        between = slice(inside, inside + 2)
        root = np.sqrt(np.maximum(self.rise[between], 0.0))
        return float(np.interp(np.sqrt(self.limit), root, self.at[between]))


def profile_likelihoods(
    problem: Problem, weights: Array, best: Solution, covariance: Array, inverse: Array, degrees_of_freedom: int
) -> tuple[list[Profile], Array | None]:
    """Return the profile of each parameter, and a theta better than the best one if there is one.

    The limit is that of an F test, scaled by the ratio of the parameter's cluster-robust variance to the variance from
    the inverse Hessian (Chandler & Bate 2007).
    """
    theta, variance = best.theta[0], np.diag(inverse)
    ratio = np.diag(covariance) / variance
    limits = np.maximum(np.nan_to_num(ratio * f_distribution.ppf(LEVEL, 1, degrees_of_freedom) / 2), 1e-20)
    errors = np.sqrt(2 * limits * variance) / 2  # half of where a parabola would reach the limit
    errors = np.where(np.isfinite(errors) & (errors > 0), errors, 1e-6 * np.maximum(1.0, np.abs(theta)))
    sides = [
        _Side(i, parameter, float(limits[i]), sign * REACH * errors[i], theta, inverse[i] / variance[i])
        for i, parameter in enumerate(problem.law.parameters)
        for sign in (-1, 1)
    ]

    def minima(sides: list[_Side], starts: list[Array]) -> Iterator[tuple[_Side, Array, Array]]:
        """Give each side with the theta and the rise of its points, all solved as one batch."""
        held = [np.tile(np.arange(len(theta)) == side.i, (len(s), 1)) for side, s in zip(sides, starts, strict=True)]
        weights_of = np.broadcast_to(weights, (sum(map(len, starts)), len(weights)))
        found = problem.solve(weights_of, np.concatenate(starts), np.concatenate(held))
        ends = np.cumsum([len(s) for s in starts])[:-1]
        rises = np.split(found.objective - best.objective[0], ends)
        yield from zip(sides, np.split(found.theta, ends), rises, strict=True)

    for _ in range(ROUNDS):
        if going := [side for side in sides if not side.done]:
            for side, *found in minima(going, [side.next_starts() for side in going]):
                side.extend(*found)
    for shift in (1, -1, 1):  # where the objective has several valleys, a neighbour may lie in a lower one
        for side, *found in minima(sides, [side.neighbours(shift) for side in sides]):
            side.lower_to(*found)
    profiles = []
    for low, high in zip(sides[::2], sides[1::2], strict=True):
        at = np.concatenate([low.at[:0:-1], high.at])
        rise = np.maximum(np.concatenate([low.rise[:0:-1], high.rise]), 0.0)
        profiles.append(Profile(at, rise, low.limit, (low.edge, high.edge)))
    lowest = min(sides, key=lambda side: side.rise.min())
    better = lowest.theta[lowest.rise.argmin()] if lowest.rise.min() < -1e-9 * best.objective[0] else None
    return profiles, better
