"""Minimise the objective of a fit for many weighted copies of one problem at a time.

The objective is the sum of weight · Huber(log L_fitted - log L_measured). Starting values come from variable projection
over a grid of exponents (Golub & Pereyra 1973): with the others held, a law is linear in its coefficients. From there
damped Newton steps with the exact Hessian lead to the minimum within bounds. Bootstrap resamples, fits without a size
and profile likelihoods are rows of weights or of held parameters, and are solved as one batch.
"""

from dataclasses import dataclass
from itertools import product

import numpy as np
from numpy.typing import NDArray

from analysis.laws import Array, Columns, Law

MAX_STEPS, LONG_STEPS = 150, 1500  # the second where the objective falls along a long, nearly flat valley
TOLERANCE = 1e-12  # of the objective: what a further step could gain
ROUNDING = 1e-26  # of the sum of weights: the objective of a perfect fit
MAX_DAMPING = 1e12
BEST_STARTS = 24  # of the grid, by their objective before any step
CHECKED = 100  # resamples that are also fitted from the starts, to find other minima
SMALLEST_SHARE = 1e-6  # of the loss; a term below it everywhere has vanished
CACHE = 2**16  # numbers in one array of a batch, so that it stays in a core's cache


@dataclass
class Solution:
    """Minima of several problems: theta [problems, parameters], objective and convergence [problems]."""

    theta: Array
    objective: Array
    converged: NDArray[np.bool_]

    def better_of(self, other: "Solution") -> "Solution":
        """Return the lower of two minima of each problem; of equals one that converged."""
        ours, theirs = (each.objective * np.where(each.converged, 1 - 1e-9, 1.0) for each in (self, other))
        mine = ours <= theirs
        return Solution(
            np.where(mine[:, None], self.theta, other.theta),
            np.where(mine, self.objective, other.objective),
            np.where(mine, self.converged, other.converged),
        )


@dataclass
class Problem:
    """A law, the points that it is fitted to, and the delta of the Huber loss: what weighted problems share."""

    law: Law
    x: Columns
    log_loss: Array
    delta: float

    @property
    def bounds(self) -> tuple[Array, Array]:
        """The lower and upper bounds of theta: [parameters] each."""
        parameters = self.law.parameters
        return np.array([p.lower for p in parameters]), np.array([p.upper for p in parameters])

    # Starting values

    def grid(self) -> list[tuple[float, ...]]:
        """Return the starting values of the parameters that the loss is not linear in."""
        return list(product(*(p.starts for p in self.law.parameters if not p.linear)))

    def project(self, weights: Array, held: Array) -> tuple[Array, Array]:
        """Return theta with the coefficients >= 0 of least relative squared error at `held` values of the others.

        weights [problems, points], held [parameters that the loss is not linear in]. Returns theta [problems,
        parameters] and the squared error [problems].
        """
        parameters, linear = self.law.parameters, self.law.linear
        theta = np.zeros((len(weights), len(parameters)))
        theta[:, [i for i, parameter in enumerate(parameters) if not parameter.linear]] = held
        terms = self.law.basis(theta[0], self.x) / np.exp(self.log_loss)
        scale = terms.max(axis=1, keepdims=True)
        terms = terms / scale
        count = len(terms)
        matrices = (weights @ (terms[:, None] * terms).reshape(count * count, -1).T).reshape(-1, count, count)
        found, explained = _nonnegative(matrices, weights @ terms.T)
        for i, values, largest in zip(linear, (found / scale[:, 0]).T, scale[:, 0], strict=True):
            logarithm = np.log(np.maximum(values, SMALLEST_SHARE / largest))
            theta[:, i] = values if parameters[i].scale == "as is" else logarithm
        return theta, weights.sum(axis=1) - explained

    def best_starts(self, weights: Array) -> Array:
        """Return the BEST_STARTS best points of the grid for one problem [points], best first: [starts, held]."""
        grid = np.array(self.grid())
        return grid[np.argsort([self.project(weights[None], held)[1][0] for held in grid])[:BEST_STARTS]]

    def choose_starts(self, weights: Array, starts: Array) -> Array:
        """Return theta at the best of the starts for each row of `weights` [problems, points]."""
        best = np.full(len(weights), np.inf)
        theta = np.empty((len(weights), len(self.law.parameters)))
        for held in starts:
            trial, error = self.project(weights, held)
            better = error < best
            best[better], theta[better] = error[better], trial[better]
        return theta

    # Newton's method

    def evaluate(self, theta: Array, weights: Array) -> list[Array]:
        """Return objective [problems], gradient, exact Hessian and that of reweighted least squares of each problem.

        `theta` is [problems, parameters], `weights` [problems, points], a Hessian [problems, parameters, parameters].
        """
        step = max(1, CACHE // len(self.log_loss))
        batches = [slice(begin, begin + step) for begin in range(0, max(1, len(theta)), step)]
        found = [self._evaluate(theta[batch], weights[batch]) for batch in batches]
        return [np.concatenate(parts) for parts in zip(*found, strict=True)]

    def _evaluate(self, theta: Array, weights: Array) -> tuple[Array, Array, Array, Array]:
        loss, first, second = self.law.derivatives(theta, self.x)
        value = np.broadcast_to(loss, weights.shape)
        residual = np.log(value) - self.log_loss
        slope = np.clip(residual, -self.delta, self.delta)
        objective = (weights * slope * (residual - slope / 2)).sum(axis=1)
        pull = weights * slope
        relative = np.stack([derivative / value for derivative in first], axis=1)
        gradient = (relative @ pull[:, :, None])[:, :, 0]
        quadratic = weights * (slope == residual)
        hessian = (relative * (quadratic - pull)[:, None]) @ relative.transpose(0, 2, 1)
        pull_of_loss = pull / value
        for (i, j), curvature in second.items():
            total = (pull_of_loss * curvature).sum(axis=1)
            hessian[:, i, j] += total
            if i != j:
                hessian[:, j, i] += total
        reweighted = weights * np.divide(slope, residual, out=np.ones(weights.shape), where=slope != residual)
        return objective, gradient, hessian, (relative * reweighted[:, None]) @ relative.transpose(0, 2, 1)

    @np.errstate(all="ignore")  # a step too far has no finite objective and is refused
    def solve(
        self, weights: Array, theta: Array, held: NDArray[np.bool_] | None = None, steps: int = MAX_STEPS
    ) -> Solution:
        """Minimise from `theta` [problems, parameters] for each row of `weights`; `held` ones keep their value."""
        theta = np.clip(theta, *self.bounds)
        held = np.zeros(theta.shape, dtype=bool) if held is None else held
        damping, converged = np.ones(len(theta)), np.zeros(len(theta), dtype=bool)
        state = self.evaluate(theta, weights)
        state[0] = np.where(np.isfinite(state[0]), state[0], np.inf)
        least = ROUNDING * weights.sum(axis=1)
        active = np.flatnonzero(np.isfinite(state[0]))
        for _ in range(steps):
            if not len(active):
                break
            objective, *derivatives = (part[active] for part in state)
            proposal, step, slope, gain = _step(theta[active], derivatives, damping[active], held[active], self.bounds)
            proposed = self.evaluate(proposal, weights[active])
            downhill = (step * slope).sum(axis=1) < 0
            better = downhill & (proposed[0] < objective)
            near = downhill & (gain >= 0) & (gain <= TOLERANCE * objective + least[active])
            # At the minimum only rounding is left of the gradient, and no step may lead downhill.
            # `slope` is in units of curvature, so half its square is what a step could gain.
            flat = (slope**2).sum(axis=1) <= 1e-22 * objective + 1e-4 * least[active]
            still = downhill & (np.abs(step).max(axis=1) < 1e-13)
            moved = active[better]
            theta[moved] = proposal[better]
            for known, new in zip(state, proposed, strict=True):
                known[moved] = new[better]
            # With little damping `gain` is that of a whole Newton step, not of one cut short.
            done = flat | still | (near & (damping[active] <= 1e-2))
            converged[active[done]] = True
            # As Levenberg and Marquardt: less damping after progress, more after a step that gained nothing.
            factor = np.where(better | near, 1 / 8, np.where(downhill, 4.0, 10.0))
            damping[active] = np.clip(damping[active] * factor, 1 / MAX_DAMPING, MAX_DAMPING)
            active = active[~done & (damping[active] < MAX_DAMPING)]
        return Solution(theta, state[0], converged)

    # Fits

    def lowest(self, weights: Array, starts: Array) -> Solution:
        """Return the lowest minimum of one problem, weights [points], found from all starts."""
        theta = np.concatenate([self.project(weights[None], held)[0] for held in starts])
        found = self.solve(np.repeat(weights[None], len(starts), axis=0), theta)
        i = [np.argmin(found.objective * np.where(found.converged, 1 - 1e-9, 1.0))]  # of equals one that converged
        return self.finish(weights[None], Solution(found.theta[i], found.objective[i], found.converged[i]))

    def finish(self, weights: Array, found: Solution) -> Solution:
        """Return minima after more steps of those that have not converged."""
        late = ~found.converged
        more = self.solve(weights[late], found.theta[late], steps=LONG_STEPS)
        found.theta[late], found.objective[late], found.converged[late] = more.theta, more.objective, more.converged
        return found

    def refit(self, weights: Array, near: Solution, starts: Array) -> Solution:
        """Fit the same points with other weights [problems, points] from a known minimum.

        The first CHECKED are also fitted from the best of the starts; all are if one of these ends lower, or if a fit
        from the known minimum does not converge.
        """
        known = self.solve(weights, np.repeat(near.theta, len(weights), axis=0))
        own = self.solve(weights[:CHECKED], self.choose_starts(weights[:CHECKED], starts))
        if len(weights) <= CHECKED:
            return self.finish(weights, known.better_of(own))
        if (own.objective < known.objective[:CHECKED] * (1 - 1e-9)).any() or not known.converged.all():
            known = known.better_of(self.solve(weights, self.choose_starts(weights, starts)))
        return self.finish(weights, known)


def _step(
    theta: Array, derivatives: list[Array], damping: Array, held: NDArray[np.bool_], bounds: tuple[Array, Array]
) -> tuple[Array, Array, Array, Array]:
    """Return the proposed theta, the step and the gradient in units of each parameter's curvature, and the gain."""
    lower, upper = bounds
    gradient, hessian, reweighted = derivatives
    identity = np.eye(theta.shape[1])
    stays = held | ((theta <= lower) & (gradient > 0)) | ((theta >= upper) & (gradient < 0))
    scale = np.sqrt(np.einsum("bii->bi", reweighted))
    scale = np.where(stays | (scale == 0), 1.0, scale)
    slope = np.where(stays, 0.0, gradient) / scale
    units = scale[:, :, None] * scale[:, None, :]
    newton = _without(stays, hessian / units, 0.0)
    metric = _without(stays, reweighted / units, 1.0) + 1e-9 * identity
    # A little damped step is Newton's, a half damped one that of reweighted least squares, a much damped one is short.
    much = damping[:, None, None]
    matrix = (newton + much * (1 + much / 100) * metric) / (1 + much)
    matrix = matrix + np.where(stays[:, :, None], identity, 0.0)
    step = solve_systems(matrix, -slope)
    # A parameter that would cross its bound stops there, and the others take the best step that is left.
    moved = theta + step / scale
    crosses = (moved < lower) | (moved > upper)
    if (rows := np.flatnonzero(crosses.any(axis=1))).size:
        out = crosses[rows]
        to_bound = np.where(out, (np.clip(moved, lower, upper) - theta)[rows] * scale[rows], 0.0)
        right = np.where(out, to_bound, -slope[rows] - np.einsum("bij,bj->bi", matrix[rows], to_bound))
        step[rows] = solve_systems(_without(out, matrix[rows], 1.0), right)
    gain = -(step * slope).sum(axis=1) - np.einsum("bi,bij,bj->b", step, newton, step) / 2
    return np.clip(theta + step / scale, lower, upper), step, slope, gain


def _without(out: NDArray[np.bool_], matrices: Array, diagonal: float) -> Array:
    """Return matrices [problems, n, n] with the rows and columns of `out` cleared but for the diagonal."""
    cleared = np.where(out[:, :, None] | out[:, None, :], 0.0, matrices)
    return cleared + diagonal * np.where(out[:, :, None], np.eye(out.shape[1]), 0.0)


def solve_systems(matrices: Array, right: Array) -> Array:
    """Solve small linear systems [problems, n, n]; a singular one gives zeros, a step that is refused."""
    found = np.zeros_like(right)
    try:
        found[:] = np.linalg.solve(matrices, right[..., None])[..., 0]
    except np.linalg.LinAlgError:
        regular = np.abs(np.linalg.det(matrices)) > 0
        found[regular] = np.linalg.solve(matrices[regular], right[regular][..., None])[..., 0]
    return found


def _nonnegative(matrices: Array, right: Array) -> tuple[Array, Array]:
    """Return coefficients >= 0 of least squares from normal equations [problems, k, k], and what they explain.

    k is at most 4: where the plain solution has a negative coefficient, every smaller set of coefficients is tried.
    """
    count = right.shape[1]
    matrices = matrices + 1e-13 * np.eye(count) * np.einsum("bii->b", matrices)[:, None, None]
    found = solve_systems(matrices, right)
    gain = (found * right).sum(axis=1)
    negative = np.flatnonzero((found < 0).any(axis=1))
    gain[negative], found[negative] = -np.inf, 0.0
    for subset in range(1, 2**count - 1) if len(negative) else ():
        chosen = np.array([i for i in range(count) if subset >> i & 1])
        trial = solve_systems(matrices[np.ix_(negative, chosen, chosen)], right[np.ix_(negative, chosen)])
        explained = (trial * right[np.ix_(negative, chosen)]).sum(axis=1)
        better = (trial >= 0).all(axis=1) & (explained > gain[negative])
        gain[negative[better]] = explained[better]
        found[negative[better]] = 0.0
        found[np.ix_(negative[better], chosen)] = trial[better]
    return found, gain
