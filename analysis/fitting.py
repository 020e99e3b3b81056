"""Fit scaling laws in log space, many weighted copies of one problem at a time.

The objective is the sum of weight · Huber(log L_fitted - log L_measured). Starts come from variable projection over a
grid of exponents (for fixed exponents a law is linear in its coefficients, which are kept >= 0); damped Newton steps
with the exact Hessian within bounds lead from there to convergence. Bootstrap resamples, fits with a size left out and
profile likelihoods are further rows of weights or of held parameters, and are solved together.

Equal points are one point of that many copies. Where more than LARGE different ones are left, all of them decide the
best fit and its cluster-robust covariance, from which resamples are drawn; only what depends on how far the law is from
a parabola (profiles, fits without a size) is taken from LARGE points drawn evenly over the variables.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import minimize
from scipy.stats import f as f_distribution
from scipy.stats import norm
from scipy.stats import t as t_distribution
from tqdm import tqdm

from analysis.laws import LAWS, Array, Columns, Jet, Law, Parameter

Interval = tuple[float | None, float | None]  # None: open on that side
Mask = NDArray[np.bool_]

DELTA = 1e-3  # the field's: Hoffmann et al. 2022
RESAMPLES = 1000
LEVEL = 0.95
EDGES = ((1 - LEVEL) / 2, (1 + LEVEL) / 2)
SMALLEST_FLOOR = 1e-3  # of the least loss; a floor whose interval reaches below it is not told from none
SPARE_CLUSTERS = 4  # more than parameters; with fewer no interval is to be trusted
SMALLEST_SHARE = 1e-6  # of the loss; a term that is nowhere larger has vanished
MAX_STEPS = 150
TOLERANCE = 1e-12  # what a step could still gain, of the objective
FIRST_DAMPING = 1.0
CHECKED = 100  # resamples that are fitted from starts of their own, too
LARGE = 2000  # points; with more, resamples are not refitted
LARGE_STEPS, PART_STEPS = 20, 30  # of all points and of some: both begin near the minimum
MAX_SIZES = 256  # that the jackknife leaves out one by one; of more, neighbours go together
CACHE = 2**16  # numbers in one array of a chunk of problems: it stays in a core's cache
BEST_STARTS = 24  # of all starts, those that are best for the whole table before any step
PROFILE_POINTS = 24  # each side
REACH = 4.0  # a profile is drawn this many standard errors far, then farther until it has risen
FARTHEST = 5  # times four
MAX_RESTARTS, LARGE_RESTARTS = 4, 2
MAX_REDRAWS = 100
# Floor and exponent trade off: while one is unknown, so is the other.
TRADES_OFF = (
    ("alpha", {"A", "E"}),
    ("beta", {"B", "d", "E"}),
    ("k", {"B", "d"}),
    ("E", {"A", "alpha", "B", "beta", "d"}),
)


@dataclass
class Estimate:
    """One parameter with its standard error and 95 % intervals, and whether the data identify it.

    `bootstrap` resamples clusters and so measures their noise; `jackknife` leaves out one size at a time and so
    measures, too, how far the law is from the truth; in `profile` the other parameters follow. An interval is open
    where the profile stays flat, or where too many of the fits it is made from did not converge. `reason` says why a
    parameter is not identified.
    """

    value: float
    standard_error: float | None
    bootstrap: Interval
    jackknife: Interval
    profile: Interval
    identified: bool
    reason: str | None


@dataclass
class Profile:
    """One parameter held at values `at` [points], as it is fitted, and how far the objective rose, the others refitted.

    `limit` is the rise at the edges of the 95 % interval.
    """

    at: Array
    rise: Array
    limit: float
    interval: Interval

    def moved(self, by: float) -> "Profile":
        """Return the same profile with its best value moved."""
        low, high = (None if edge is None else edge + float(by) for edge in self.interval)
        return Profile(self.at + by, self.rise, self.limit, (low, high))


@dataclass
class Fit:
    """A law fitted to points. `domain` holds the range of each variable, `freedom` clusters less parameters.

    `distinct` counts the different points, `refitted` those that profiles and fits without a size are made from: fewer
    in a large table, whose resamples are draws from the normal distribution of the cluster-robust covariance.

    `theta` [parameters], `resampled` [resamples, parameters] and `without_one` [sizes, parameters] are as they are
    fitted (coefficients as logarithms); rows of fits that did not converge are NaN. `residuals` [points] are log
    measured less log fitted loss.
    """

    law: Law
    variables: dict[str, str]
    domain: dict[str, tuple[float, float]]
    points: int
    distinct: int
    refitted: int
    clusters: int
    freedom: int
    delta: float
    starts: int
    objective: float
    converged: bool
    at_bound: list[str]
    parameters: dict[str, Estimate]
    correlations: Array
    residuals: Array
    theta: Array
    resampled: Array = field(repr=False)
    without_one: Array = field(repr=False)
    profiles: dict[str, "Profile"] = field(repr=False)

    @property
    def identified(self) -> bool:
        """True if every parameter is identified."""
        return all(estimate.identified for estimate in self.parameters.values())

    def columns(self, **given: ArrayLike) -> Columns:
        """Return variables by the names that the law uses."""
        return columns_of(self.law, given)[0]

    def predict(self, **given: ArrayLike) -> Array:
        """Return the fitted loss at given variables, for example n=… and d=…: [points]."""
        return self.law.predict(self.theta[None], self.columns(**given))[0]

    def band(self, **given: ArrayLike) -> tuple[Array, Array]:
        """Return the lower and upper edge of the pointwise 95 % bootstrap band."""
        x = self.columns(**given)
        whole = self.resampled[np.isfinite(self.resampled).all(axis=1)]
        if not len(whole):
            nothing = np.full(len(next(iter(x.values()))), np.nan)
            return nothing, nothing
        low, high = np.quantile(self.law.predict(whole, x), EDGES, axis=0)
        return low, high

    def as_dict(self) -> dict[str, Any]:
        """Return everything but the resamples, in full precision."""
        return {
            "law": self.law.name,
            "form": self.law.form,
            "source": self.law.source,
            "variables": list(self.variables.values()),
            "domain": self.domain,
            "points": self.points,
            "distinct": self.distinct,
            "refitted": self.refitted,
            "clusters": self.clusters,
            "freedom": self.freedom,
            "loss": "squares" if np.isinf(self.delta) else "huber",
            "delta": None if np.isinf(self.delta) else self.delta,
            "starts": self.starts,
            "resamples": len(self.resampled),
            "resamples_converged": int(np.isfinite(self.resampled).all(axis=1).sum()),
            "objective": self.objective,
            "converged": self.converged,
            "at_bound": self.at_bound,
            "identified": self.identified,
            "parameters": {name: vars(estimate) for name, estimate in self.parameters.items()},
            "theta": dict(zip(self.law.names, self.theta.tolist(), strict=True)),
            "correlations": {
                name: dict(zip(self.law.names, row, strict=True))
                for name, row in zip(self.law.names, self.correlations.tolist(), strict=True)
            },
            "residuals": self.residuals.tolist(),
            "profiles": {
                parameter.name: {
                    "at": parameter.shown(profile.at[np.isfinite(profile.rise)]).tolist(),
                    "rise": profile.rise[np.isfinite(profile.rise)].tolist(),
                    "limit": profile.limit,
                }
                for parameter, profile in zip(self.law.parameters, self.profiles.values(), strict=True)
            },
        }


def columns_of(law: Law, given: Mapping[str, ArrayLike | None]) -> tuple[dict[str, Array], dict[str, str]]:
    """Return the variables a law needs as arrays, and which is which.

    Raises ValueError if one is missing or not positive and finite.
    """
    named = {name: np.atleast_1d(np.asarray(values, float)) for name, values in given.items() if values is not None}
    if law.needs == ("x",):
        if len(named) != 1 or not {"n", "d", "c", "x"} & named.keys():
            raise ValueError(f"the {law.name} law takes one variable of n, d and c, not {sorted(named) or 'none'}")
        [(name, values)] = named.items()
        named, variables = {"x": values}, {"x": name}
    else:
        missing = [name for name in law.needs if name not in named]
        if missing:
            raise ValueError(f"the {law.name} law needs {', '.join(law.needs)}: {', '.join(missing)} is missing")
        variables = {name: name for name in law.needs}
    for name, values in named.items():
        if not (np.isfinite(values).all() and (values > 0).all()):
            raise ValueError(f"{variables.get(name, name)} must be positive and finite")
    return {name: named[name] for name in law.needs}, variables


def resample(
    clusters: int, count: int = RESAMPLES, seed: int = 0, distinct: int = 3, copies: ArrayLike | None = None
) -> Array:
    """Return how often each cluster is drawn in each resample [count, clusters], `distinct` different ones at least.

    `copies` [clusters] says how many equal ones each stands for; default: one.
    """
    generator = np.random.default_rng(seed)
    many = np.ones(clusters, dtype=int) if copies is None else np.asarray(copies)
    total, share = int(many.sum()), many / many.sum()
    draws = generator.multinomial(total, share, size=count).astype(float)
    # A seed may be unlucky once; where copies of one point are nearly all there is, it is the data that are.
    for _ in range(MAX_REDRAWS):
        few = np.flatnonzero((draws > 0).sum(axis=1) < min(distinct, clusters))
        if not len(few):
            break
        draws[few] = generator.multinomial(total, share, size=len(few))
    return draws


def merge_equal(*columns: ArrayLike) -> tuple[NDArray[np.int_], NDArray[np.int_], NDArray[np.int_]]:
    """Return the places of the rows that differ, which of these each row equals [rows], and how many equal each.

    Rows are equal if they are in each of the columns. Those that differ stay in their order.
    """
    table = [np.asarray(column) for column in columns]
    order = np.lexsort(table)
    new = np.ones(len(order), dtype=bool)
    new[1:] = np.any([column[order][1:] != column[order][:-1] for column in table], axis=0)
    group = np.empty(len(order), dtype=int)
    group[order] = np.cumsum(new) - 1
    first = order[new]  # the first of each group in its order, as lexsort is stable
    rank = np.argsort(np.argsort(first))
    return np.sort(first), rank[group], np.bincount(rank[group])


def seed_weights(log_loss: Array, groups: ArrayLike, at: Array) -> Array:
    """Return weights [points], 1 on average, inverse to the variance of the seeds.

    `groups` says which points are seeds of one setting. The few seeds of one setting cannot tell its variance, so
    log variance is a line in `at` [points] (log N, say), fitted to all settings of at least two seeds by the likelihood
    of their chi-squared variances.
    """
    groups, log_loss = np.asarray(groups), np.asarray(log_loss, float)
    rows = []
    for group in np.unique(groups):
        members = groups == group
        count = int(members.sum())
        if count > 1:
            rows.append((float(at[members].mean()), float(log_loss[members].var(ddof=1)), count - 1))
    if not rows or max(variance for _, variance, _ in rows) == 0:
        return np.ones(len(log_loss))
    place, variance, freedom = (np.array(column) for column in zip(*rows, strict=True))
    smallest = 1e-3 * variance.max()  # seeds that happen to agree do not prove that there is no noise
    variance = np.maximum(variance, smallest) / variance.max()
    centre = np.average(place, weights=freedom)

    def deviance(line: Array) -> float:
        log_variance = line[0] + line[1] * (place - centre)
        return float(freedom @ (log_variance + variance * np.exp(-log_variance)))

    slope = float(minimize(deviance, np.zeros(2)).x[1]) if np.ptp(place) > 0 else 0.0
    weights = np.exp(-slope * (at - centre))
    return weights / weights.mean()


@np.errstate(all="ignore")  # a step too far has no finite objective: it is refused; a huge factor is an open interval
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
        law: a name of analysis.laws.LAWS or a law of one's own.
        loss: final losses of runs, positive.
        n, d, c, u, keys: parameters, tokens seen, FLOPs, unique untransposed tokens and keys used of each run; the law
            says which it needs. A law of one variable takes the one that is given.
        weights: of each point in the objective, for example `seed_weights`.
        clusters: what the bootstrap draws: points of one label (a trunk, a seed) are drawn together. Default: points.
        sizes: what the jackknife leaves out, a label a point. Default: the distinct values of the law's first variable.
        delta: of the Huber loss, on log loss; infinity gives least squares.
        draws: how often each cluster is drawn [resamples, clusters], so that two fits can share them; clusters in the
            order of their sorted labels. Default: `resample`.
        resamples, seed: of the bootstrap; RESAMPLES without a number.
        progress: whether a bar shows the stages of a fit that takes more than a second.

    Returns:
        The fit: parameters with intervals and verdicts, `predict`, `band`. Its `theta` and `resampled` hold the
        logarithms of factors.

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
    if any(values.ndim > 1 for values in (loss, *x.values())):
        raise ValueError("losses and variables must be one-dimensional: one number a run")
    count, free = len(loss), len(law.parameters)
    if any(len(values) != count for values in x.values()):
        raise ValueError(
            f"there are {count} losses, but {', '.join(f'{len(x[k])} of {v}' for k, v in variables.items())}"
        )
    if not (np.isfinite(loss).all() and (loss > 0).all()):
        raise ValueError("losses must be positive and finite")
    for name in ("x", "n", "d"):
        if name in x and len(np.unique(x[name])) < 3:
            raise ValueError(
                f"{len(np.unique(x[name]))} different values of {variables[name]} are too few for a law: 3 are needed"
            )
    if count <= free:
        raise ValueError(
            f"{count} points are too few for the {free} parameters of the {law.name} law: {free + 1} are needed"
        )
    base = np.ones(count) if weights is None else np.asarray(weights, float)
    if base.shape != (count,) or not (np.isfinite(base) & (base >= 0)).all() or (base > 0).sum() <= free:
        raise ValueError(
            f"weights must be finite, not negative, one for each of {count} losses, more than {free} not zero"
        )
    for name, labels in (("clusters", clusters), ("sizes", sizes)):
        if labels is not None and np.shape(labels) != (count,):
            raise ValueError(f"there are {count} losses, but {np.size(labels)} {name}")
    if not delta > 0:
        raise ValueError(f"delta must be positive, not {delta}")
    cluster = np.arange(count) if clusters is None else np.unique(np.asarray(clusters), return_inverse=True)[1]
    size = np.unique(x[law.needs[0]] if sizes is None else np.asarray(sizes), return_inverse=True)[1]
    if (last := int(size.max())) >= MAX_SIZES:
        size = size * MAX_SIZES // (last + 1)
    clusters_drawn = int(cluster.max()) + 1
    if draws is not None and np.shape(draws)[1:] != (clusters_drawn,):
        raise ValueError(f"draws must have a column for each of {clusters_drawn} clusters")
    resamples = RESAMPLES if resamples is None else resamples
    bar = tqdm(total=5, desc="fitting: equal rows", delay=1, disable=not progress)
    first, point = np.arange(count), np.arange(count)
    copies, log_loss, freedom = np.ones(clusters_drawn, dtype=int), np.log(loss), max(1, clusters_drawn - free)
    if draws is None:
        alike = [] if clusters is None else [cluster]
        first, point, copies = merge_equal(log_loss, *x.values(), base, size, *alike)
        x = {name: values[first] for name, values in x.items()}
        log_loss, base, size, cluster = log_loss[first], base[first], size[first], cluster[first]
        if clusters is None:  # each copy is a cluster
            cluster = np.arange(len(first))
        else:
            base, copies = base * copies, np.ones(clusters_drawn, dtype=int)
    whole = Problem(law, x, log_loss, delta)
    times = copies[cluster] if clusters is None else np.ones(len(first))
    problem, total, rows = whole, base * times, np.arange(len(first))
    large = len(first) > LARGE and draws is None
    if large:
        rows, total = whole.thinned(total, LARGE)
        problem = whole.part(rows)
    bar.update()
    bar.set_description("fitting: starts")
    grid = problem.best_starts(total)
    if large:  # as wide as its residuals the loss is smooth, and a few points have a minimum like that of all
        start = problem.starts(total[None], grid)[0]
        problem = whole.part(rows, problem.width(start))
    best = near = problem.lowest(total, grid)
    for _ in range(LARGE_RESTARTS if large else MAX_RESTARTS):
        if large:
            best = whole.solve((base * times)[None], near.theta, steps=LARGE_STEPS)
        bar.update(bar.n < 2)
        bar.set_description("fitting: profiles")
        covariance, inverse = whole.covariance(best.theta[0], base, cluster, copies)
        if large:
            _, inverse = problem.covariance(near.theta[0], total, np.arange(len(rows)), np.ones(len(rows)))
        profiles, lower = problem.profiles(near, total, covariance, inverse, freedom)
        if lower is None:
            break
        best = near = problem.solve(total[None], lower[None])  # a profile has come upon a deeper valley
    bar.update()
    bar.set_description("fitting: resamples")
    leave_out = size[rows] != np.arange(size.max() + 1)[:, None]
    if large:
        moved = best.theta - near.theta
        profiles = {name: profile.moved(by) for (name, profile), by in zip(profiles.items(), moved[0], strict=True)}
        resampled = whole.drawn(best.theta[0], covariance, resamples, seed)
        bar.update()
        bar.set_description("fitting: without each size")
        without_one = problem.refit(leave_out * total, near, grid)
        # What the step of all points does not see, the others do: how far the law is from its tangent.
        steps = whole.moves(best.theta[0], base * times, size, np.ones(len(leave_out)))[0]
        steps -= problem.moves(near.theta[0], total, size[rows], np.ones(len(leave_out)))[0]
        without_one.theta += moved + np.nan_to_num(steps)
    else:
        if draws is None:
            draws = resample(len(copies), resamples, seed, copies=copies)
        resampled = problem.refit(draws[:, cluster] * base, best, grid)
        bar.update()
        bar.set_description("fitting: without each size")
        without_one = problem.refit(leave_out * total, best, grid)
    bar.update()
    bar.close()
    for solution in (resampled, without_one):
        solution.theta[~solution.converged] = np.nan  # kept in place, so that two fits of the same draws stay paired
    shown = np.stack([law.parameters[i].shown(resampled.theta[:, i]) for i in range(free)], axis=1)
    finite = np.isfinite(resampled.theta).all(axis=1)
    estimates = {}
    at_bound = whole.bounds_hit(best.theta[0])
    shares = whole.shares(best.theta[0])
    spare = clusters_drawn - free
    for i, parameter in enumerate(law.parameters):
        value = float(best.theta[0, i])
        intervals = (
            percentiles(resampled.theta[:, i], freedom),
            jackknife(value, without_one.theta[:, i]),
            profiles[parameter.name].interval,
        )
        lowest = parameter.lower
        if parameter.name == "E":
            lowest = SMALLEST_FLOOR * float(loss.min())
        elif parameter.name in law.exponents:
            lowest = 0.0
        elif parameter.linear:  # a factor below this leaves nothing of its term
            lowest = value + float(np.log(SMALLEST_SHARE / shares[i]))
        at = parameter.name in at_bound
        reason = _doubt(parameter, lowest, bool(best.converged[0]), spare, at, *intervals)
        bootstrap, left_out, profile = (_shown(parameter, interval) for interval in intervals)
        spread = _finite(shown[finite, i].std(ddof=1)) if finite.sum() > 1 else None
        estimates[parameter.name] = Estimate(
            float(parameter.shown(value)),
            spread,
            bootstrap,
            left_out,
            profile,
            reason is None,
            reason,
        )
    _spread_doubt(estimates)
    return Fit(
        law=law,
        variables=variables,
        domain={variables[name]: (float(values.min()), float(values.max())) for name, values in x.items()},
        points=count,
        distinct=len(first),
        refitted=len(rows),
        clusters=clusters_drawn,
        freedom=freedom,
        delta=delta,
        starts=len(whole.grid()),
        objective=float(best.objective[0]),
        converged=bool(best.converged[0]),
        at_bound=at_bound,
        parameters=estimates,
        correlations=_correlations(resampled.theta[finite]),
        residuals=(log_loss - np.log(law.predict(best.theta, x)[0]))[point],
        theta=best.theta[0],
        resampled=resampled.theta,
        without_one=without_one.theta,
        profiles=profiles,
    )


def _shown(parameter: Parameter, edges: Interval) -> Interval:
    """Return an interval of what is fitted as one of what reports show; a side beyond all numbers is open."""
    low, high = (None if edge is None else _finite(parameter.shown(edge)) for edge in edges)
    return (high, low) if parameter.scale == "decay" else (low, high)


def _finite(value: Any) -> float | None:
    return float(value) if np.isfinite(value) else None


def _correlations(resampled: Array) -> Array:
    """Return the correlations of the fitted parameters over resamples; of one that does not vary they are 0."""
    if len(resampled) < 2:
        return np.eye(resampled.shape[1])
    spread = resampled.std(axis=0)
    standard = (resampled - resampled.mean(axis=0)) / np.where(spread > 0, spread, 1.0)
    return standard.T @ standard / len(resampled)


def _doubt(
    parameter: Parameter, lowest: float, converged: bool, spare: int, at_bound: bool, *intervals: Interval
) -> str | None:
    """Return why a parameter is not identified, or None if it is; `lowest` is what its intervals have to stay above."""
    bootstrap, left_out, profile = intervals
    if not converged:
        return "the fit did not converge"
    if spare < SPARE_CLUSTERS:
        return f"{SPARE_CLUSTERS} clusters more than parameters are needed, there are {spare}"
    if at_bound:
        return "the best fit lies at its bound"
    if None in profile:
        below = (profile[0] is None) != (parameter.scale == "decay")
        return f"its profile is flat {'below' if below else 'above'}"
    if None in bootstrap:
        return "too many resamples did not converge"
    if None in left_out:
        return "a fit without one of the sizes did not converge"
    for name, (low, high) in zip(("bootstrap", "jackknife", "profile"), intervals, strict=True):
        if low is not None and low <= lowest:
            end = "its bound" if lowest == parameter.lower else "zero or below"
            return f"its {name} interval reaches {end}"
        if high is not None and high >= parameter.upper:
            return f"its {name} interval reaches its bound"
    return None


def _spread_doubt(estimates: dict[str, Estimate]) -> None:
    """Mark what trades off with a parameter that is not identified: exponent and factor, both with the floor."""
    for first, others in TRADES_OFF:
        if first in estimates and not estimates[first].identified:
            for name in others & estimates.keys():
                if estimates[name].identified:
                    estimates[name].identified = False
                    estimates[name].reason = f"it trades off with {first}, which is not identified"


@dataclass
class Solution:
    """Minima of several problems: theta [problems, parameters], objective and convergence [problems]."""

    theta: Array
    objective: Array
    converged: Mask

    def better_of(self, other: "Solution") -> "Solution":
        """Return, problem by problem, the lower of two minima."""
        mine = self.objective <= other.objective
        return Solution(
            np.where(mine[:, None], self.theta, other.theta),
            np.where(mine, self.objective, other.objective),
            np.where(mine, self.converged, other.converged),
        )


@dataclass
class Problem:
    """A law, the points that it is fitted to, and the loss: what many weighted problems share."""

    law: Law
    x: Columns
    log_loss: Array
    delta: float
    steps: int = MAX_STEPS

    # Parts of a large table

    def part(self, rows: NDArray[np.int_] | slice, delta: float | None = None) -> "Problem":
        """Return the same law fitted to some of the points; with another delta it stands for all."""
        columns = {name: values[rows] for name, values in self.x.items()}
        part = Problem(self.law, columns, self.log_loss[rows], self.delta, self.steps)
        return part if delta is None else replace(part, delta=delta, steps=PART_STEPS)

    def thinned(self, weights: Array, limit: int) -> tuple[NDArray[np.int_], Array]:
        """Return the places and weights of about `limit` points that stand for all.

        Each variable is cut into bins of equally many of its values; every combination of bins that has points is drawn
        from alike, and what is drawn gets the weight of all that is there: a few runs at a rare size are not lost.
        """
        bins = max(2, round(limit ** (0.5 / len(self.x))))
        stratum = np.zeros(len(weights), dtype=int)
        for values in self.x.values():
            rank = np.unique(values, return_inverse=True)[1]
            stratum = stratum * bins + rank * bins // (rank.max() + 1)
        stratum = np.unique(stratum, return_inverse=True)[1]
        strata = int(stratum.max()) + 1
        order = np.random.default_rng(0).permutation(len(weights))
        order = order[np.argsort(stratum[order], kind="stable")]
        begins = np.searchsorted(stratum[order], np.arange(strata))
        rank = np.arange(len(order)) - begins[stratum[order]]
        rows = np.sort(order[rank < max(1, limit // strata)])
        there = np.bincount(stratum, weights)
        taken = np.bincount(stratum[rows], weights[rows], strata)
        return rows, weights[rows] * np.divide(there, taken, out=np.zeros(strata), where=taken > 0)[stratum[rows]]

    def drawn(self, theta: Array, covariance: Array, count: int, seed: int) -> "Solution":
        """Return draws [count, parameters] from the normal distribution around theta, kept within bounds."""
        lower, upper = (np.array([getattr(p, side) for p in self.law.parameters]) for side in ("lower", "upper"))
        scale = np.sqrt(np.diag(covariance))
        scale = np.where(np.isfinite(scale) & (scale > 0), scale, 1.0)
        values, vectors = np.linalg.eigh(np.nan_to_num(covariance / scale / scale[:, None]))
        spread = np.random.default_rng(seed).standard_normal((count, len(theta)))
        moves = (spread * np.sqrt(np.maximum(values, 0))) @ vectors.T * scale
        ok = np.full(count, bool(np.isfinite(covariance).all()))
        return Solution(np.clip(theta + moves, lower, upper), np.zeros(count), ok)

    # Starts

    def grid(self) -> Array:
        """Return starting values of the parameters that the loss is not linear in: [starts, those parameters]."""
        return np.array(list(product(*(p.starts for p in self.law.parameters if not p.linear))))

    def _project(self, weights: Array, start: Array) -> tuple[Array, Array]:
        """Return theta [problems, parameters] and the relative squared error of the best coefficients for one start."""
        parameters = self.law.parameters
        linear = [i for i, parameter in enumerate(parameters) if parameter.linear]
        others = [i for i, parameter in enumerate(parameters) if not parameter.linear]
        held = np.zeros(len(parameters))
        held[others] = start
        terms = np.stack(self.law.basis(held, self.x)) / np.exp(self.log_loss)
        scale = terms.max(axis=1, keepdims=True)
        terms = terms / scale
        count = len(terms)
        matrix = (weights @ (terms[:, None] * terms).reshape(count * count, -1).T).reshape(-1, count, count)
        found, gain = _nonnegative(matrix, weights @ terms.T)
        theta = np.tile(held, (len(weights), 1))
        shown = found / scale[:, 0]
        for place, i in enumerate(linear):
            value = shown[:, place]
            # A term that is better left out starts at a millionth of the loss.
            tiny = SMALLEST_SHARE / scale[place, 0]
            theta[:, i] = value if parameters[i].scale == "as is" else np.log(np.maximum(value, tiny))
        return theta, weights.sum(axis=1) - gain

    def best_starts(self, weights: Array) -> Array:
        """Return the best BEST_STARTS starts of the grid for one problem, best first: [starts, those parameters]."""
        grid = self.grid()
        return grid[np.argsort([self._project(weights[None], start)[1][0] for start in grid])[:BEST_STARTS]]

    def starts(self, weights: Array, grid: Array) -> Array:
        """Return the best start of a grid for each row of `weights` [problems, points]: [problems, parameters]."""
        best = np.full(len(weights), np.inf)
        theta = np.empty((len(weights), len(self.law.parameters)))
        for start in grid:
            trial, error = self._project(weights, start)
            better = error < best
            best[better], theta[better] = error[better], trial[better]
        return theta

    # Newton

    def _jets(self, theta: Array) -> list[Jet]:
        return [Jet(theta[:, i : i + 1], {i: 1.0}, {}) for i in range(theta.shape[1])]

    def evaluate(self, theta: Array, weights: Array) -> tuple[Array, Array, Array, Array]:
        """Return objective, gradient, exact Hessian and its positive part (iteratively reweighted) of each problem."""
        count = theta.shape[1]
        objective = np.zeros(len(theta))
        gradient = np.zeros((len(theta), count))
        hessian, positive = np.zeros((2, len(theta), count, count))
        blocks = [self.part(block) for block in self.blocks()] if len(self.log_loss) > CACHE else [self]
        step = max(1, CACHE // len(self.log_loss))
        for begin in range(0, len(theta), step):
            part, first = slice(begin, begin + step), 0
            for block in blocks:
                last = first + len(block.log_loss)
                found = block._evaluate(theta[part], weights[part, first:last])
                for sums, those in zip((objective, gradient, hessian, positive), found, strict=True):
                    sums[part] += those
                first = last
        return objective, gradient, hessian, positive

    def blocks(self) -> list[slice]:
        """Return the points in runs that stay in a core's cache."""
        return [slice(begin, begin + CACHE // 4) for begin in range(0, len(self.log_loss), CACHE // 4)]

    def _evaluate(self, theta: Array, w: Array) -> tuple[Array, Array, Array, Array]:
        count = theta.shape[1]
        loss = self.law.formula(self._jets(theta), self.x)
        shape = w.shape
        value = np.broadcast_to(loss.value, shape)
        residual = np.log(value) - self.log_loss
        slope = np.clip(residual, -self.delta, self.delta)
        objective = (w * slope * (residual - slope / 2)).sum(axis=1)
        inside = w * (slope == residual)
        slope_w = w * slope
        pull = slope_w / value
        relative = np.zeros((len(theta), count, shape[1]))
        for i, derivative in loss.first.items():
            relative[:, i] = derivative / value
        gradient = (relative @ slope_w[:, :, None])[:, :, 0]
        hessian = (relative * (inside - slope_w)[:, None]) @ relative.transpose(0, 2, 1)
        for (i, j), bend in loss.second.items():
            total = (pull * bend).sum(axis=1) if np.ndim(bend) == 2 else pull @ np.broadcast_to(bend, shape[1:])
            hessian[:, i, j] += total
            if i != j:
                hessian[:, j, i] += total
        pulled = w * np.divide(slope, residual, out=np.ones(shape), where=slope != residual)
        positive = (relative * pulled[:, None]) @ relative.transpose(0, 2, 1)
        return objective, gradient, hessian, positive

    @np.errstate(all="ignore")
    def solve(self, weights: Array, theta: Array, held: Mask | None = None, steps: int | None = None) -> Solution:
        """Minimise from `theta` [problems, parameters] for each row of `weights`; what is `held` keeps its value."""
        lower = np.array([parameter.lower for parameter in self.law.parameters])
        upper = np.array([parameter.upper for parameter in self.law.parameters])
        theta = np.clip(theta, lower, upper)
        fixed = np.zeros(theta.shape, dtype=bool) if held is None else held
        damping = np.full(len(theta), FIRST_DAMPING)
        converged = np.zeros(len(theta), dtype=bool)
        state = list(self.evaluate(theta, weights))
        state[0] = np.where(np.isfinite(state[0]), state[0], np.inf)
        least = 1e-26 * weights.sum(axis=1)  # a perfect fit ends at rounding
        on = np.flatnonzero(np.isfinite(state[0]))
        for _ in range(self.steps if steps is None else steps):
            if not len(on):
                break
            now = theta[on]
            objective, gradient, hessian, positive = (part[on] for part in state)
            stays = fixed[on] | ((now <= lower) & (gradient > 0)) | ((now >= upper) & (gradient < 0))
            gradient = np.where(stays, 0.0, gradient)
            blocked = stays[:, :, None] | stays[:, None, :]
            scale = np.sqrt(np.einsum("bii->bi", positive))
            scale = np.where(stays | (scale == 0), 1.0, scale)
            both = scale[:, :, None] * scale[:, None, :]
            newton = np.where(blocked, 0.0, hessian / both)
            metric = np.where(blocked, 0.0, positive / both) + 1e-9 * np.eye(theta.shape[1])
            metric = metric + np.einsum("bi,ij->bij", stays * 1.0, np.eye(theta.shape[1]))
            # Little damped, a step is Newton's; half-way, one of reweighted least squares; much damped, a short one.
            much = damping[on, None, None]
            left = (newton + much * (1 + much / 100) * metric) / (1 + much)
            left = left + np.einsum("bi,ij->bij", stays * 1.0, np.eye(theta.shape[1]))
            right = -gradient / scale
            step = _solve(left, right)
            # What would cross its bound goes there, and the others take the step that is best then.
            wanted = now + step / scale
            crosses = (wanted < lower) | (wanted > upper)
            if (rows := np.flatnonzero(crosses.any(axis=1))).size:
                out = crosses[rows]
                to_bound = np.where(out, (np.clip(wanted, lower, upper) - now)[rows] * scale[rows], 0.0)
                rest = np.where(out, to_bound, right[rows] - np.einsum("bij,bj->bi", left[rows], to_bound))
                apart = np.where(out[:, :, None] | out[:, None, :], 0.0, left[rows])
                step[rows] = _solve(apart + np.einsum("bi,ij->bij", out * 1.0, np.eye(theta.shape[1])), rest)
            gain = -(step * -right).sum(axis=1) - np.einsum("bi,bij,bj->b", step, newton, step) / 2
            downhill = (step * right).sum(axis=1) > 0
            proposal = np.clip(now + step / scale, lower, upper)
            proposed = self.evaluate(proposal, weights[on])
            better = downhill & (proposed[0] < objective)
            near = downhill & (gain >= 0) & (gain <= TOLERANCE * objective + least[on])
            small = near & (damping[on] <= 1e-2)
            # At the bottom rounding alone is left of the gradient, and no step need lead downhill.
            flat = (right**2).sum(axis=1) <= 1e-22 * objective + 1e-4 * least[on]
            still = flat | (downhill & (np.abs(step).max(axis=1) < 1e-13))
            moved = on[better]
            theta[moved] = proposal[better]
            for whole, part in zip(state, proposed, strict=True):
                whole[moved] = part[better]
            damping[on] = np.clip(
                damping[on] * np.where(better | near, 1 / 8, np.where(downhill, 4.0, 10.0)), 1e-12, 1e12
            )
            converged[on[small | still]] = True
            on = on[~(small | still) & (damping[on] < 1e12)]
        return Solution(theta, state[0], converged)

    def lowest(self, weights: Array, grid: Array) -> Solution:
        """Return the lowest minimum found from all starts of a grid, for one problem: some lead to a worse one."""
        starts = np.concatenate([self._project(weights[None], start)[0] for start in grid])
        found = self.solve(np.repeat(weights[None], len(grid), axis=0), starts)
        i = [np.argmin(found.objective * np.where(found.converged, 1 - 1e-9, 1.0))]  # of equals one that converged
        lowest = Solution(found.theta[i], found.objective[i], found.converged[i])
        # With delta far below the residuals a valley is long and its floor nearly flat.
        return lowest if lowest.converged[0] else self.solve(weights[None], lowest.theta, steps=20 * MAX_STEPS)

    def refit(self, weights: Array, near: Solution, grid: Array) -> Solution:
        """Fit the same points with other weights [problems, points] from a known minimum.

        The first CHECKED are fitted from starts of their own, too; if one of these finds a lower minimum, all are.
        """
        known = self.solve(weights, np.repeat(near.theta, len(weights), axis=0))
        some = weights[:CHECKED]
        own = self.solve(some, self.starts(some, grid))
        if len(some) == len(weights):
            return known.better_of(own)
        if (own.objective >= known.objective[:CHECKED] * (1 - 1e-9)).all() and known.converged.all():
            return known
        return known.better_of(self.solve(weights, self.starts(weights, grid)))

    # Intervals

    @np.errstate(all="ignore")
    def width(self, theta: Array) -> float:
        """Return delta, or the residuals' own width where that is larger: of many, as narrow as still holds enough."""
        size = np.abs(np.log(self.law.predict(theta[None], self.x)[0]) - self.log_loss)
        count = len(size)
        own = 1.4826 * np.median(size) if count <= LARGE else np.quantile(size, count ** (-1 / 3))
        return max(self.delta, float(own))

    @np.errstate(all="ignore")
    def moves(
        self, theta: Array, weights: Array, cluster: NDArray[np.int_], copies: NDArray[Any]
    ) -> tuple[Array, Array]:
        """Return the Newton step that leaves each cluster out [clusters, parameters], and the inverse Hessian.

        `copies` [clusters] says how many equal clusters each is; one of them is left out. Where most residuals are on
        the linear branch of the Huber loss, the Hessian is that of the loss smoothed to the residuals' own width
        (Powell 1991): the points within delta alone would be too few to tell it.
        """
        width, count, free = self.width(theta), len(copies), len(theta)
        blocks = [self._tangent(block, theta, weights, width) for block in self.blocks()]
        relative, pull, inside = (np.concatenate(parts) for parts in zip(*blocks, strict=True))
        scale = np.sqrt(np.maximum((inside * copies[cluster]) @ relative**2, 1e-300))
        relative = relative / scale
        pulls = pull[:, None] * relative
        if not (np.isfinite(pulls).all() and np.isfinite(inside).all()):
            return np.full((count, free), np.nan), np.full((free, free), np.nan)
        if count == len(pulls) > LARGE:  # a cluster is a point: its Hessian has rank one (Sherman & Morrison 1950)
            hessian = (relative * (inside * copies[cluster])[:, None]).T @ relative
            inverse = np.linalg.pinv(hessian, rcond=1e-12)
            toward = relative @ inverse
            left = 1 - inside * (toward * relative).sum(axis=1)
            moves = np.zeros((count, free))
            moves[cluster] = toward * (pull / np.maximum(left, 1e-12))[:, None]
            return moves / scale, inverse / scale / scale[:, None]
        scores, own = np.zeros((count, free)), np.zeros((count, free, free))
        np.add.at(scores, cluster, pulls)
        for block in self.blocks():
            bends = inside[block, None, None] * relative[block, :, None] * relative[block, None, :]
            np.add.at(own, cluster[block], bends)
        hessian = (copies[:, None, None] * own).sum(axis=0)
        rest = hessian - own
        inverse = np.linalg.pinv(hessian, rcond=1e-12)
        if count > LARGE:
            moves = _solve(rest, scores)
        else:
            moves = (np.linalg.pinv(rest, rcond=1e-12) @ scores[:, :, None])[:, :, 0]
        return moves / scale, inverse / scale / scale[:, None]

    def _tangent(self, block: slice, theta: Array, weights: Array, width: float) -> tuple[Array, Array, Array]:
        """Return the slopes of log loss [points, parameters], what pulls at each point, and its smoothed curvature."""
        part, w = self.part(block), weights[block]
        loss = self.law.formula(self._jets(theta[None]), part.x)
        value = np.broadcast_to(loss.value, (1, len(w)))[0]
        slopes = [np.broadcast_to(loss.first.get(i, 0.0) / value, (1, len(w)))[0] for i in range(len(theta))]
        residual = np.log(value) - part.log_loss
        inside = w * (np.abs(residual) <= width) * (1.0 if np.isinf(width) else self.delta / width)
        return np.stack(slopes, axis=1), w * np.clip(residual, -self.delta, self.delta), inside

    def covariance(self, theta: Array, weights: Array, cluster: NDArray[np.int_], copies: NDArray[Any]) -> Array:
        """Return the cluster-robust covariance of theta and the inverse Hessian: [2, parameters, parameters].

        The sandwich of Liang & Zeger 1986 in its form CR3: the sum over clusters of the squared Newton step that leaves
        the cluster out (MacKinnon, Nielsen & Webb 2023).
        """
        moves, inverse = self.moves(theta, weights, cluster, copies)
        count = copies.sum()
        return np.stack([(count - 1) / count * (moves * copies[:, None]).T @ moves, inverse])

    def profiles(
        self, best: Solution, weights: Array, covariance: Array, inverse: Array, freedom: int
    ) -> tuple[dict[str, Profile], Array | None]:
        """Return the profile of each parameter, and a theta that is better than the best one if any was found.

        The limit is that of an F test, scaled by how much larger the cluster-robust variance of the parameter is than
        the one that independent points would have (Chandler & Bate 2007).
        """
        theta = best.theta[0]
        ratio = np.diag(covariance) / np.diag(inverse)
        limits = np.maximum(np.nan_to_num(ratio * f_distribution.ppf(LEVEL, 1, freedom) / 2), 1e-20)
        errors = np.sqrt(2 * limits * np.diag(inverse)) / 2  # half of where a parabola would reach the limit
        errors = np.where(np.isfinite(errors) & (errors > 0), errors, 1e-6 * np.maximum(1.0, np.abs(theta)))
        sides = [
            _Side(i, sign * errors[i], limits[i], theta, inverse[i] / inverse[i, i])
            for i in range(len(theta))
            for sign in (-1, 1)
        ]
        lowest, lower = best.objective[0] * (1 - 1e-9), None
        for _ in range(FARTHEST):
            going = [side for side in sides if not side.done]
            if not going:
                break
            # All parameters and both sides are one batch of problems, each with another parameter held.
            starts = np.concatenate([side.next_starts(self.law.parameters[side.i]) for side in going])
            held = np.repeat([np.arange(len(theta)) == side.i for side in going], PROFILE_POINTS, axis=0)
            found = self.solve(np.broadcast_to(weights, (len(starts), len(weights))), starts, held)
            if (found.objective < lowest).any():
                lower = found.theta[np.argmin(found.objective)]
                lowest = found.objective.min()
            rises = (found.objective - best.objective[0]).reshape(len(going), -1)
            for side, thetas, rise in zip(going, found.theta.reshape(*rises.shape, -1), rises, strict=True):
                side.add(thetas, rise, self.law.parameters[side.i])
        # Where there are several valleys, a point's neighbours know of a lower one.
        for shift in (1, -1, 1):
            starts = np.concatenate([side.starts_of_neighbours(shift) for side in sides])
            held = np.concatenate([np.tile(np.arange(len(theta)) == side.i, (len(side.at), 1)) for side in sides])
            found = self.solve(np.broadcast_to(weights, (len(starts), len(weights))), starts, held)
            ends = np.cumsum([len(side.at) for side in sides])[:-1]
            rises = np.split(found.objective - best.objective[0], ends)
            for side, thetas, rise in zip(sides, np.split(found.theta, ends), rises, strict=True):
                side.take_lower(thetas, rise)
        profiles = {
            parameter.name: _join(sides[2 * i], sides[2 * i + 1], theta[i], limits[i])
            for i, parameter in enumerate(self.law.parameters)
        }
        return profiles, lower

    @np.errstate(all="ignore")
    def shares(self, theta: Array) -> Array:
        """Return the largest share of the loss, over points, that moves with each parameter: [parameters].

        For a factor, fitted as its logarithm, that is the share of its term.
        """
        loss = self.law.formula(self._jets(theta[None]), self.x)
        return np.array([np.max(np.abs(loss.first[i] / loss.value)) for i in range(len(theta))])

    def bounds_hit(self, theta: Array) -> list[str]:
        """Return the parameters that lie at a bound, and the factors of terms that have vanished."""
        return [
            parameter.name
            for value, share, parameter in zip(theta, self.shares(theta), self.law.parameters, strict=True)
            if (parameter.linear and parameter.scale == "log" and not share >= SMALLEST_SHARE)
            or value <= parameter.lower
            or value >= parameter.upper
        ]


class _Side:
    """One side of a profile: parameter i is held ever farther, from start to start, until the objective has risen."""

    def __init__(self, i: int, error: float, limit: float, theta: Array, direction: Array) -> None:
        self.i, self.limit, self.origin = i, limit, theta[i]
        self.reach = REACH * error
        self.direction = np.nan_to_num(direction)
        self.theta, self.rise = theta[None], np.zeros(1)
        self.done = False

    @property
    def at(self) -> Array:
        """Where the parameter is held: [points], the best fit first."""
        return self.theta[:, self.i]

    def next_starts(self, parameter: Parameter) -> Array:
        """Return where to hold the parameter next, the others moved along: [points, parameters]."""
        at = np.linspace(self.at[-1], self.origin + self.reach, PROFILE_POINTS + 1)[1:]
        at = np.clip(at, parameter.lower, parameter.upper)
        starts: Array = self.theta[-1] + (at - self.at[-1])[:, None] * self.direction
        starts[:, self.i] = at
        return starts

    def starts_of_neighbours(self, shift: int) -> Array:
        """Return each point with the others as they are at its neighbour, farther out or in: [points, parameters]."""
        places = np.clip(np.arange(len(self.theta)) + shift, 0, len(self.theta) - 1)
        starts = self.theta[places]
        starts[:, self.i] = self.at
        return starts

    def take_lower(self, theta: Array, rise: Array) -> None:
        """Replace points by lower minima at the same place; the best fit stays."""
        lower = rise < self.rise
        lower[0] = False
        self.theta[lower], self.rise[lower] = theta[lower], np.maximum(rise[lower], 0.0)

    def add(self, theta: Array, rise: Array, parameter: Parameter) -> None:
        """Take in the minima found there."""
        self.theta = np.concatenate([self.theta, theta])
        self.rise = np.concatenate([self.rise, np.maximum(rise, 0.0)])
        self.done = bool((self.rise > self.limit).any()) or self.at[-1] in (parameter.lower, parameter.upper)
        self.direction = np.zeros_like(self.direction)
        self.reach *= 4

    @property
    def edge(self) -> float | None:
        """Where the rise reaches the limit for the last time: its root is nearly straight in the parameter."""
        inside = int(np.flatnonzero(self.rise <= self.limit)[-1])
        if inside == len(self.rise) - 1:
            return None
        between = slice(inside, inside + 2)
        return float(np.interp(np.sqrt(self.limit), np.sqrt(self.rise[between]), self.at[between]))


def _join(low: _Side, high: _Side, best: float, limit: float) -> Profile:
    at = np.concatenate([low.at[:0:-1], [best], high.at[1:]])
    rise = np.concatenate([low.rise[:0:-1], [0.0], high.rise[1:]])
    return Profile(at, rise, float(limit), (low.edge, high.edge))


def _solve(matrix: Array, right: Array) -> Array:
    """Solve many small systems [problems, n, n]; a singular one gives zeros, a step that is refused."""
    found = np.zeros_like(right)
    try:
        found[:] = np.linalg.solve(matrix, right[..., None])[..., 0]
    except np.linalg.LinAlgError:
        whole = np.abs(np.linalg.det(matrix)) > 0
        found[whole] = np.linalg.solve(matrix[whole], right[whole][..., None])[..., 0]
    return found


def _nonnegative(matrix: Array, right: Array) -> tuple[Array, Array]:
    """Return the coefficients >= 0 of least squares from normal equations [problems, k, k], and what they explain."""
    count = right.shape[1]
    ridge = 1e-13 * np.eye(count) * np.einsum("bii->b", matrix)[:, None, None]
    found = _solve(matrix + ridge, right)
    gain = (found * right).sum(axis=1)
    bad = np.flatnonzero((found < 0).any(axis=1))
    gain[bad], found[bad] = -np.inf, 0.0
    for some in range(1, 2**count - 1) if len(bad) else ():
        chosen = np.array([i for i in range(count) if some >> i & 1])
        trial = _solve((matrix + ridge)[np.ix_(bad, chosen, chosen)], right[np.ix_(bad, chosen)])
        explained = (trial * right[np.ix_(bad, chosen)]).sum(axis=1)
        better = (trial >= 0).all(axis=1) & (explained > gain[bad])
        gain[bad[better]] = explained[better]
        found[bad[better]] = 0.0
        found[np.ix_(bad[better], chosen)] = trial[better]
    return found, gain


def percentiles(samples: Array, freedom: float = np.inf) -> Interval:
    """Return the two-sided percentile interval of [resamples], open if more than 2 % of them are not finite.

    With few clusters plain percentiles are too narrow. They are read farther out: where Student's t of `freedom`
    degrees lies on the normal distribution (after Hesterberg 2015). benchmarks/coverage.py measures the coverage.
    """
    found = samples[np.isfinite(samples)]
    if not len(found) or len(found) < 0.98 * len(samples):
        return None, None
    share = norm.cdf(t_distribution.ppf(EDGES[0], freedom))
    low, high = np.quantile(found, (share, 1 - share))
    return float(low), float(high)


def jackknife(value: float, without_one: Array) -> Interval:
    """Return the delete-one jackknife interval of a value from those with one size left out: [sizes].

    Source: Efron & Tibshirani 1993, chapter 11, with Student's t of sizes - 1 degrees of freedom.
    """
    count = len(without_one)
    if not np.isfinite(without_one).all():
        return None, None
    error = np.sqrt((count - 1) / count * np.sum((without_one - without_one.mean()) ** 2))
    reach = float(t_distribution.ppf(EDGES[1], count - 1) * error)
    return value - reach, value + reach
