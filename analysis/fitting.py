"""Fit a scaling law to any runs: parameters with 95 % intervals, and whether the data identify them.

Equal points are one point of that many copies. With more than LARGE different points, resamples are drawn from the
cluster-robust covariance and fits without a size are one Newton step; profiles are those of the fitted law in at most
LARGE cells of the variables.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import minimize
from tqdm import tqdm

from analysis.covariance import LARGE, leave_out_steps, robust_covariance, slopes_of
from analysis.fit_result import Fit as Fit  # the three are part of this interface
from analysis.fit_result import columns_of as columns_of
from analysis.fit_result import line_of as line_of
from analysis.identification import estimate_parameters
from analysis.laws import LAWS, Array, Columns, Law
from analysis.optimiser import Problem, Solution
from analysis.profiles import Profile, profile_likelihoods

DELTA = 1e-3  # Hoffmann et al. 2022
RESAMPLES = 1000
MAX_SIZES = 256  # that the jackknife leaves out one by one; of more, neighbours go together
MAX_RESTARTS = 4  # from better minima that profiles find
MIN_DRAWN, MAX_REDRAWS = 3, 100  # clusters of a resample, and attempts to draw as many


def resample(clusters: int, count: int = RESAMPLES, seed: int = 0, copies: ArrayLike | None = None) -> Array:
    """Return how often each cluster is drawn in each resample [count, clusters], at least MIN_DRAWN different ones.

    `copies` [clusters] counts the equal clusters that each stands for. Default: one.
    """
    generator = np.random.default_rng(seed)
    many = np.ones(clusters, dtype=int) if copies is None else np.asarray(copies)
    total, share = int(many.sum()), many / many.sum()
    draws = generator.multinomial(total, share, size=count).astype(float)
    for _ in range(MAX_REDRAWS):  # where copies of one point are nearly all there is, no draw may have enough
        few = np.flatnonzero((draws > 0).sum(axis=1) < min(MIN_DRAWN, clusters))
        if not len(few):
            break
        draws[few] = generator.multinomial(total, share, size=len(few))
    return draws


def seed_weights(log_loss: Array, groups: ArrayLike, at: Array) -> Array:
    """Return weights [points], 1 on average, inverse to the variance of the seeds.

    `groups` labels the seeds of one setting. A setting has too few seeds for a variance, so log variance is linear in
    `at` [points] (log N, for example), fitted to all settings by the likelihood of their chi-squared variances.
    """
    groups, log_loss = np.asarray(groups), np.asarray(log_loss, float)
    settings = [groups == group for group in np.unique(groups) if (groups == group).sum() > 1]
    variance = np.array([log_loss[members].var(ddof=1) for members in settings])
    if not len(settings) or variance.max() == 0:
        return np.ones(len(log_loss))
    variance = np.maximum(variance / variance.max(), 1e-3)  # seeds that agree do not prove that there is no noise
    degrees = np.array([members.sum() - 1 for members in settings])
    log_size = np.array([at[members].mean() for members in settings])
    centre = np.average(log_size, weights=degrees)

    def deviance(line: Array) -> float:
        log_variance = line[0] + line[1] * (log_size - centre)
        return float(degrees @ (log_variance + variance * np.exp(-log_variance)))

    slope = float(minimize(deviance, np.zeros(2)).x[1]) if np.ptp(log_size) > 0 else 0.0
    weights = np.exp(-slope * (at - centre))
    return weights / weights.mean()


@dataclass
class _Data:
    """The points of a fit, equal ones merged: `weights`, `sizes` and `cluster` are [distinct points].

    `point` [points] is the place of each given point among them, `copies` [clusters] counts equal clusters.
    """

    problem: Problem
    weights: Array
    cluster: NDArray[np.int_]
    copies: NDArray[np.int_]
    size: NDArray[np.int_]
    point: NDArray[np.int_]

    @property
    def total(self) -> Array:
        """The weight of each distinct point with all of its copies."""
        return self.weights * self.copies[self.cluster]


@np.errstate(all="ignore")  # a coefficient beyond all numbers is an open interval
def fit(
    law: str | Law,
    loss: ArrayLike,
    *,
    n: ArrayLike | None = None,
    d: ArrayLike | None = None,
    c: ArrayLike | None = None,
    u: ArrayLike | None = None,
    keys: ArrayLike | None = None,
    weights: ArrayLike | None = None,
    clusters: ArrayLike | None = None,
    sizes: ArrayLike | None = None,
    delta: float = DELTA,
    draws: Array | None = None,
    resamples: int | None = None,
    seed: int = 0,
    progress: bool = False,
) -> Fit:
    """Fit a scaling law to measured losses [points], nats per token.

    Args:
        law: a name of analysis.laws.LAWS, or a Law.
        loss: final losses of runs, positive.
        n, d, c, u, keys: parameters, tokens seen, FLOPs, unique untransposed tokens and keys used of each run; the law
            says which it needs. A law of one variable takes the one that is given.
        weights: of each point in the objective, for example `seed_weights`.
        clusters: what the bootstrap draws: points of one label (a trunk, a seed) are drawn together. Default: points.
        sizes: what the jackknife leaves out, a label a point. Default: the distinct values of the law's first variable.
        delta: of the Huber loss on log loss; infinity gives least squares.
        draws: how often each cluster is drawn [resamples, clusters], so that two fits can share them; clusters in the
            order of their sorted labels. Default: `resample`.
        resamples, seed: of the bootstrap; default RESAMPLES.
        progress: show a progress bar for a fit of more than a second.

    Raises:
        ValueError: if a variable is missing, not positive and finite or of another length, or there are too few points.
    """
    if isinstance(law, str):
        if law not in LAWS:
            raise ValueError(f"{law!r} is none of the laws {', '.join(LAWS)}")
        law = LAWS[law]
    given = {"n": n, "d": d, "c": c, "u": u, "keys": keys}
    x, variables = columns_of(law, given if law.needs == ("x",) else {name: given[name] for name in law.needs})
    loss = np.atleast_1d(np.asarray(loss, float))
    _check(law, x, variables, loss, weights, {"clusters": clusters, "sizes": sizes}, delta)
    data = _merge(Problem(law, x, np.log(loss), delta), weights, clusters, sizes, merge=draws is None)
    count = int(data.copies.sum())
    if draws is not None and np.shape(draws)[1:] != (count,):
        raise ValueError(f"draws must have a column for each of {count} clusters")
    degrees = max(1, count - len(law.parameters))
    with tqdm(total=3, desc="fitting", delay=1, disable=not progress) as bar:
        found = _minimum(data, degrees, draws is None and len(data.weights) > LARGE)
        bar.update()
        resampled = _resampled(data, found, draws, RESAMPLES if resamples is None else resamples, seed)
        bar.update()
        without_one = _without_one(data, found)
        bar.update()
    theta = found.best.theta[0]
    residuals = data.problem.log_loss - np.log(law.predict(theta[None], data.problem.x)[0])
    fitted = Fit(
        law=law,
        variables=variables,
        domain={variables[name]: (float(values.min()), float(values.max())) for name, values in x.items()},
        points=len(loss),
        distinct=len(data.weights),
        refitted=found.refitted,
        clusters=count,
        degrees_of_freedom=degrees,
        delta=delta,
        starts=len(data.problem.grid()),
        objective=float(found.best.objective[0]),
        converged=bool(found.best.converged[0]),
        at_bound=[],
        residuals=residuals[data.point],
        theta=theta,
        resampled=resampled,
        without_one=without_one,
        profiles=dict(zip(law.names, found.profiles, strict=True)),
    )
    shares = np.abs(slopes_of(data.problem, theta)[1]).max(axis=1)
    estimate_parameters(fitted, shares, float(loss.min()))
    return fitted


def _check(
    law: Law,
    x: Columns,
    variables: dict[str, str],
    loss: Array,
    weights: ArrayLike | None,
    labels: dict[str, ArrayLike | None],
    delta: float,
) -> None:
    """Raise ValueError if the points cannot be fitted."""
    count, free = len(loss), len(law.parameters)
    if any(values.ndim > 1 for values in (loss, *x.values())):
        raise ValueError("losses and variables must be one-dimensional: one number a run")
    for name, values in {**{variables[v]: x[v] for v in x}, **labels}.items():
        if values is not None and np.shape(values) != (count,):
            raise ValueError(f"there are {count} losses, but {np.size(values)} of {name}")
    if not (np.isfinite(loss).all() and (loss > 0).all()):
        raise ValueError("losses must be positive and finite")
    for name in {"x", "n", "d"} & x.keys():
        if (different := len(np.unique(x[name]))) < 3:
            raise ValueError(f"{different} different values of {variables[name]} are too few for a law: 3 are needed")
    if count <= free:
        raise ValueError(f"{count} points are too few for {free} parameters: the {law.name} law needs {free + 1}")
    if weights is not None:
        base = np.asarray(weights, float)
        if base.shape != (count,) or not (np.isfinite(base) & (base >= 0)).all() or (base > 0).sum() <= free:
            raise ValueError(f"weights must be {count} finite numbers >= 0, more than {free} of them positive")
    if not delta > 0:
        raise ValueError(f"delta must be positive, not {delta}")


def _merge(
    problem: Problem, weights: ArrayLike | None, clusters: ArrayLike | None, sizes: ArrayLike | None, merge: bool
) -> _Data:
    """Return the points of a fit with clusters and sizes as numbers; equal points are merged, in order of appearance.

    Without clusters each copy of a point is a cluster.
    """
    law, x, log_loss = problem.law, problem.x, problem.log_loss
    count = len(log_loss)
    base = np.ones(count) if weights is None else np.asarray(weights, float)
    cluster = np.arange(count) if clusters is None else np.unique(np.asarray(clusters), return_inverse=True)[1]
    size = np.unique(x[law.needs[0]] if sizes is None else np.asarray(sizes), return_inverse=True)[1]
    if (last := int(size.max())) >= MAX_SIZES:
        size = size * MAX_SIZES // (last + 1)
    if not merge:
        return _Data(problem, base, cluster, np.ones(int(cluster.max()) + 1, dtype=int), size, np.arange(count))
    alike = [] if clusters is None else [cluster]
    table = np.stack([log_loss, *x.values(), base, size, *alike], axis=1)
    _, first, point, copies = np.unique(table, axis=0, return_index=True, return_inverse=True, return_counts=True)
    order = np.argsort(first)
    first, point, copies = first[order], np.argsort(order)[point], copies[order]
    problem = Problem(law, {name: values[first] for name, values in x.items()}, log_loss[first], problem.delta)
    base, cluster, size = base[first], cluster[first], size[first]
    if clusters is None:
        return _Data(problem, base, np.arange(len(first)), copies, size, point)
    return _Data(problem, base * copies, cluster, np.ones(int(cluster.max()) + 1, dtype=int), size, point)


@dataclass
class _Minimum:
    """The best fit, the starts that led there, its cluster-robust covariance, its profiles and their points.

    In a large table resamples and fits without a size follow from the covariance.
    """

    best: Solution
    starts: Array
    covariance: Array
    profiles: list[Profile]
    refitted: int
    large: bool


def _minimum(data: _Data, degrees_of_freedom: int, large: bool) -> _Minimum:
    """Find the minimum and its profiles, again from any better minimum that a profile finds."""
    problem, total = data.problem, data.total
    part, part_total = _cells(problem, total, LARGE) if large else (problem, total)
    starts = part.best_starts(part_total)
    best = part.lowest(part_total, starts)
    if large:
        best = problem.solve(total[None], best.theta)
    for _ in range(MAX_RESTARTS):
        theta = best.theta[0]
        covariance, inverse = robust_covariance(problem, theta, data.weights, data.cluster, data.copies)
        lowest = best
        if large:  # the fitted law itself in place of the losses: over many points the noise averages out
            part = Problem(part.law, part.x, np.log(part.law.predict(best.theta, part.x)[0]), np.inf)
            lowest = Solution(best.theta, np.zeros(1), best.converged)
            cells = np.arange(len(part_total))
            inverse = leave_out_steps(part, theta, part_total, cells, np.ones_like(cells))[1]
        profiles, better = profile_likelihoods(part, part_total, lowest, covariance, inverse, degrees_of_freedom)
        if better is None:
            break
        best = problem.solve(total[None], better[None])
    return _Minimum(best, starts, covariance, profiles, len(part_total), large)


def _cells(problem: Problem, weights: Array, limit: int) -> tuple[Problem, Array]:
    """Return at most about `limit` points that stand for all, and their weights.

    Each variable is cut into bins of equally many of its values; a point is the mean of a combination of bins.
    """
    bins = max(2, round(limit ** (1 / len(problem.x))))
    cell = np.zeros(len(weights), dtype=int)
    for values in problem.x.values():
        rank = np.unique(values, return_inverse=True)[1]
        cell = cell * bins + rank * bins // (rank.max() + 1)
    cell = np.unique(cell, return_inverse=True)[1]
    total: Array = np.bincount(cell, weights).astype(float)
    used = total > 0

    def mean(values: Array) -> Array:
        return (np.bincount(cell, weights * values)[used] / total[used]).astype(float)

    x = {name: np.exp(mean(np.log(values))) for name, values in problem.x.items()}
    return Problem(problem.law, x, mean(problem.log_loss), problem.delta), total[used]


def _resampled(data: _Data, found: _Minimum, draws: Array | None, resamples: int, seed: int) -> Array:
    """Return theta of bootstrap resamples: [resamples, parameters], NaN where a fit did not converge."""
    problem, theta = data.problem, found.best.theta[0]
    if found.large:
        scale = np.sqrt(np.diag(found.covariance))
        scale = np.where(scale > 0, scale, 1.0)
        if not np.isfinite(found.covariance).all():
            return np.full((resamples, len(theta)), np.nan)
        unit = found.covariance / scale / scale[:, None]
        generator = np.random.default_rng(seed)
        moves = generator.multivariate_normal(np.zeros(len(theta)), unit, resamples, "ignore", method="eigh")
        return np.clip(theta + moves * scale, *problem.bounds)
    if draws is None:
        draws = resample(len(data.copies), resamples, seed, copies=data.copies)
    solution = problem.refit(draws[:, data.cluster] * data.weights, found.best, found.starts)
    return np.where(solution.converged[:, None], solution.theta, np.nan)


def _without_one(data: _Data, found: _Minimum) -> Array:
    """Return theta of fits without one of the sizes: [sizes, parameters], NaN where a fit did not converge."""
    number = int(data.size.max()) + 1
    if found.large:
        steps, _ = leave_out_steps(data.problem, found.best.theta[0], data.total, data.size, np.ones(number, dtype=int))
        return found.best.theta + steps
    kept = data.size != np.arange(number)[:, None]
    solution = data.problem.refit(kept * data.total, found.best, found.starts)
    return np.where(solution.converged[:, None], solution.theta, np.nan)
