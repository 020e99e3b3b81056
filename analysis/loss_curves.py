"""Final losses of each size against compute, and the minima between sizes.

In arrays named rows the first row is the runs as they are, then each size left out, then the resamples.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.interpolate import PchipInterpolator

from analysis.fitting import RESAMPLES
from analysis.intervals import Interval, jackknife, percentiles
from analysis.laws import Array
from analysis.runs import Runs, by_size, clusters, column

ROUNDING = 0.015  # of log C: budgets that differ by less differ by the rounding to whole steps
ENVELOPE_POINTS = 96
MIN_POINTS = 3  # minima, or sizes that the envelope passes through, for an exponent
SIZES_OF_A_CUBIC = 5
HUBER_STEPS = 30
DRAWN_POINTS = 41  # of a valley, for its figure

Row = dict[str, Any]


@dataclass
class Rows:
    """How to read the rows of an estimate: the number of `sizes` left out, and the degrees of freedom."""

    sizes: int
    degrees: float

    def quantity(self, rows: Array) -> Row:
        """Return a value with its intervals over seeds (bootstrap) and over sizes (jackknife): [rows]."""
        value, without_one, resampled = float(rows[0]), rows[1 : 1 + self.sizes], rows[1 + self.sizes :]
        intervals = {"bootstrap": percentiles(resampled, self.degrees), "jackknife": jackknife(value, without_one)}
        return {"value": value, **intervals}

    def positive(self, log_rows: Array) -> Row:
        """Return the exponential of a quantity: [rows]."""
        log = self.quantity(log_rows)
        intervals = {kind: _exp(log[kind]) for kind in ("bootstrap", "jackknife")}
        return {"value": float(np.exp(log["value"])), **intervals}


def _exp(edges: Interval) -> Interval:
    low, high = (None if edge is None else float(np.exp(edge)) for edge in edges)
    return low, high


@dataclass
class Curves:
    """The final losses of each cluster over its budgets, and how often each row of an estimate takes each cluster.

    `log_n` [sizes]; `size` [clusters] and `points`, log C and log loss of each cluster; `weights` [rows, clusters].
    """

    log_n: Array
    size: NDArray[np.int_]
    points: list[tuple[Array, Array]]
    weights: Array
    delta: float

    @classmethod
    def of(cls, runs: Runs, delta: float) -> "Curves":
        """Group runs into curves; `delta` is that of the Huber loss on log loss."""
        sizes = by_size(runs)
        labels = np.array(clusters(runs))
        points, size = [], []
        for label in np.unique(labels):
            members = [run for run, its in zip(runs, labels, strict=True) if its == label]
            log_c, place = np.unique(np.log(column(members, "flops")), return_inverse=True)
            log_loss = np.bincount(place, np.log(column(members, "validation_loss"))) / np.bincount(place)
            points.append((log_c, log_loss))
            size.append(list(sizes).index(members[0]["size"]))
        log_n = np.log([members[0]["n_params"] for members in sizes.values()])
        of_size = np.array(size)
        draws = draw_within_sizes(of_size)
        without_one = (of_size != np.arange(len(sizes))[:, None]) * 1.0
        return cls(log_n, of_size, points, np.concatenate([np.ones((1, len(size))), without_one, draws]), delta)

    @property
    def studied(self) -> tuple[float, float]:
        """The least and the largest log C of a run."""
        every = np.concatenate([log_c for log_c, _ in self.points])
        return float(every.min()), float(every.max())

    @property
    def rows(self) -> Rows:
        """How to read the rows of an estimate from these curves."""
        return Rows(len(self.log_n), max(1, len(self.points) - len(self.log_n)))

    def losses(self, at: Array) -> Array:
        """Return the log loss of each cluster at log C `at`, NaN beyond its budgets: [clusters, points]."""
        found = np.full((len(self.points), len(at)), np.nan)
        for row, (log_c, log_loss) in zip(found, self.points, strict=True):
            inside = (at >= log_c[0] - ROUNDING) & (at <= log_c[-1] + ROUNDING)
            row[inside] = PchipInterpolator(log_c, log_loss)(at[inside]) if len(log_c) > 1 else log_loss[0]
        return found

    def means(self, at: Array) -> tuple[Array, Array]:
        """Return the mean log loss of each size and its weight, NaN and 0 where it has none: [rows, points, sizes]."""
        losses = self.losses(at)
        there = np.isfinite(losses)
        mean, weight = np.empty((2, len(self.weights), len(at), len(self.log_n)))
        for size in range(len(self.log_n)):
            mine = self.size == size
            weight[:, :, size] = self.weights[:, mine] @ there[mine]
            mean[:, :, size] = self.weights[:, mine] @ np.where(there[mine], losses[mine], 0.0)
        return np.divide(mean, weight, out=np.full(mean.shape, np.nan), where=weight > 0), weight

    def covered(self, count: int) -> Array:
        """Return `count` values of log C from the first to the last at which MIN_POINTS sizes have runs, or none."""
        grid = np.linspace(*self.studied, 8 * ENVELOPE_POINTS)
        there = np.isfinite(self.losses(grid))
        sizes = sum(there[self.size == size].any(axis=0).astype(int) for size in range(len(self.log_n)))
        inside = grid[sizes >= MIN_POINTS]
        return np.linspace(inside[0], inside[-1], count) if len(inside) else inside

    def shared(self) -> Array:
        """Return the log C of the budgets that MIN_POINTS sizes share: [budgets]; none if most runs share none."""
        log_c = np.concatenate([log_c for log_c, _ in self.points])
        size = np.repeat(self.size, [len(log_c) for log_c, _ in self.points])
        order = np.argsort(log_c)
        groups = np.split(order, np.flatnonzero(np.diff(log_c[order]) > ROUNDING) + 1)
        groups = [g for g in groups if np.ptp(log_c[g]) <= ROUNDING and len(np.unique(size[g])) >= MIN_POINTS]
        most = sum(map(len, groups)) > len(log_c) / 2
        return np.array([log_c[group].mean() for group in groups if most])


def draw_within_sizes(size: NDArray[np.int_], count: int = RESAMPLES, seed: int = 0) -> Array:
    """Return how often each seed is drawn in each bootstrap resample, within its size `size` [clusters].

    Every resample holds every size. One seed fewer than there are is drawn and weighted up, without which the
    variance of a mean of three would be a third too small (Rao & Wu 1988). A single seed is always there:
    its noise is in the jackknife alone.
    """
    generator = np.random.default_rng(seed)
    draws = np.ones((count, len(size)))
    for one in np.unique(size):
        mine = np.flatnonzero(size == one)
        if len(mine) > 1:
            drawn = generator.multinomial(len(mine) - 1, np.full(len(mine), 1 / len(mine)), size=count)
            draws[:, mine] = drawn * len(mine) / (len(mine) - 1)
    return draws


def vertices(log_n: Array, mean: Array) -> tuple[Array, Array]:
    """Return log N and log loss of the vertex through the lowest size and its neighbours: [rows, points].

    NaN where the lowest of `mean` [rows, points, sizes] is the first or the last that is there.
    """
    there = np.isfinite(mean)
    order = np.argsort(~there, axis=-1, kind="stable")  # those that are there first, by size
    y = np.take_along_axis(np.where(there, mean, np.inf), order, axis=-1)
    lowest = y.argmin(axis=-1)
    inside = (lowest > 0) & (lowest < there.sum(axis=-1) - 1)
    three = np.where(inside, lowest, 1)[..., None] + [-1, 0, 1]
    x = log_n[np.take_along_axis(order, three, axis=-1)]
    y = np.where(inside[..., None], np.take_along_axis(y, three, axis=-1), np.nan)
    steps, slopes = np.diff(x), np.diff(y) / np.diff(x)
    bend = (slopes[..., 1] - slopes[..., 0]) / steps.sum(axis=-1)
    slope = (slopes * steps[..., ::-1]).sum(axis=-1) / steps.sum(axis=-1)
    away = np.divide(-slope, 2 * bend, out=np.full(bend.shape, np.nan), where=bend > 0)
    return x[..., 1] + away, y[..., 1] + away * slope / 2


@dataclass
class Valleys:
    """Cubics in log N, z = (log N - centre) / scale, with coefficients of 1, z, z², z³: [rows, points, 4]."""

    centre: float
    scale: float
    coefficients: Array
    edges: tuple[Array, Array]  # log N of the smallest and the largest size there: [rows, points]

    def minima(self) -> tuple[Array, Array]:
        """Return log N and log loss of the minima, NaN where there is none within the sizes: [rows, points]."""
        c = np.moveaxis(self.coefficients, -1, 0)
        with np.errstate(all="ignore"):
            z = -c[1] / (c[2] + np.sqrt(c[2] ** 2 - 3 * c[3] * c[1]))
            log_n = self.centre + self.scale * z
            log_n = np.where((log_n > self.edges[0]) & (log_n < self.edges[1]), log_n, np.nan)
        return log_n, c[0] + z * (c[1] + z * (c[2] + z * c[3])) + 0 * log_n

    def drawn(self, place: int) -> tuple[Array, Array]:
        """Return log N and log loss along the valley through the runs as they are, at one of the points."""
        log_n = np.linspace(self.edges[0][0, place], self.edges[1][0, place], DRAWN_POINTS)
        return log_n, np.polynomial.Polynomial(self.coefficients[0, place])((log_n - self.centre) / self.scale)


def fit_valleys(curves: Curves, at: Array, cubic: bool = True) -> Valleys:
    """Fit the log losses of all runs at log C `at` as a cubic in log N, as a parabola if there are too few sizes.

    Huber loss by iterated reweighting, so that one run that went wrong does not move the valley.
    """
    losses, (_, of_sizes) = curves.losses(at), curves.means(at)
    sizes = (of_sizes > 0).sum(axis=-1)
    weight = curves.weights[:, None] * np.isfinite(losses).T  # [rows, points, clusters]
    y = np.nan_to_num(losses.T)
    centre, scale = float(curves.log_n.mean()), float(np.ptp(curves.log_n)) / 2 or 1.0
    terms = ((curves.log_n[curves.size] - centre) / scale)[:, None] ** np.arange(4)
    squares = (terms[:, :, None] * terms[:, None]).reshape(-1, 16)
    hold = np.zeros((*sizes.shape, 4, 4))
    hold[..., 3, 3] = (sizes < (SIZES_OF_A_CUBIC if cubic else np.inf)) * 1e12
    hold[sizes < MIN_POINTS] = np.eye(4)  # no curve goes through two points only

    def solve(weight: Array, y: Array, hold: Array) -> Any:
        matrix = (weight @ squares).reshape(hold.shape) + hold
        return np.linalg.solve(matrix, ((weight * y) @ terms)[..., None])[..., 0]

    found = solve(weight, y, hold)
    every = np.broadcast_to(y, weight.shape)
    for _ in range(HUBER_STEPS):
        residual = np.abs(every - found @ terms.T)
        outside = ((residual > curves.delta) & (weight > 0)).any(axis=-1)
        pull = np.minimum(1, curves.delta / np.maximum(residual[outside], curves.delta))
        found[outside] = solve(weight[outside] * pull, every[outside], hold[outside])
    found[sizes < MIN_POINTS] = np.nan
    there = np.where(of_sizes > 0, curves.log_n, np.nan)
    return Valleys(centre, scale, found, (np.fmin.reduce(there, axis=-1), np.fmax.reduce(there, axis=-1)))


def fit_lines(at: Array, rows: Array) -> tuple[Array, Array]:
    """Return intercept and slope [rows] of each row's least squares line in `at` [points].

    Only the finite ones of `rows` [rows, points] count; with fewer than two both are NaN.
    """
    there = np.isfinite(rows) & (np.isfinite(rows).sum(axis=1, keepdims=True) > 1)
    count = np.where(there.any(axis=1), there.sum(axis=1), np.nan)
    x, y = np.where(there, at, 0.0), np.where(there, rows, 0.0)
    mean_x, mean_y = x.sum(axis=1) / count, y.sum(axis=1) / count
    away = np.where(there, x - mean_x[:, None], 0.0)
    spread = (away**2).sum(axis=1)
    slope = np.divide((away * y).sum(axis=1), spread, out=np.full(len(rows), np.nan), where=spread > 0)
    return mean_y - slope * mean_x, slope
