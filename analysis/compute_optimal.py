"""How a budget of FLOPs is best split between parameters and tokens: three ways, and where they disagree.

Every point is the end of a finished run, never a point within one. The final losses of a size and seed over its budgets
are a curve L(C), interpolated within its range; where runs share a budget of FLOPs the curve passes through them.

- envelope: at each C the lowest size and its neighbours; the vertex of the parabola through the three is N_opt
  (Hoffmann et al. 2022, approach 1, without the staircase of discrete sizes).
- isoflop: at each C a cubic in log N through all sizes, a parabola through fewer than five; its minimum is N_opt
  (approach 2). The valley is not symmetric: a parabola alone is biased where the sizes lie unevenly about the optimum.
- parametric: the fitted Chinchilla law minimised at each C, with the counted FLOPs of a token (approach 3).

An optimum at the smallest or the largest size that has runs at that C is censored, and not used. N_opt = k·C^a and
D_opt = k'·C^b follow by least squares in logs. N are all parameters, D tokens, C FLOPs, losses nats per token.

The bootstrap draws seeds within each size; the parametric way takes the resamples of its fit. What seeds share, such as
a rate that suits one size less, it cannot see: the jackknife over sizes can. Two ways differ if both say so.
"""

from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.interpolate import PchipInterpolator
from scipy.optimize import nnls

from analysis.fitting import DELTA, RESAMPLES, Fit
from analysis.intervals import Interval, jackknife, percentiles
from analysis.laws import Array
from analysis.runs import Runs, by_size, clusters, column

ROUNDING = 0.015  # of log C: budgets that differ by less differ by the rounding to whole steps
LEVELS = 12  # budgets at which valleys are drawn where runs share none
ENVELOPE_POINTS = 96
FEWEST = 3  # minima, or sizes that the envelope passes through: fewer do not tell an exponent
SIZES_OF_A_CUBIC = 5
HUBER_STEPS = 30
DRAWN_POINTS = 41  # of a valley, for its figure
FARTHER = 10.0  # beyond the largest budget
LEAST, MOST = 0.0, 60.0  # log N within which a law's optimum is looked for, by halves
HALVINGS = 60


@dataclass
class Quantity:
    """A value with its 95 % intervals, over seeds (bootstrap) and over sizes (jackknife); None: open on that side."""

    value: float
    bootstrap: Interval
    jackknife: Interval

    def apart(self, other: "Quantity") -> bool:
        """Return whether neither the bootstrap nor the jackknife intervals overlap. An open one overlaps with any."""

        def disjoint(mine: Interval, theirs: Interval) -> bool:
            (low, high), (other_low, other_high) = mine, theirs
            return (high is not None and other_low is not None and high < other_low) or (
                low is not None and other_high is not None and other_high < low
            )

        return disjoint(self.bootstrap, other.bootstrap) and disjoint(self.jackknife, other.jackknife)


@dataclass
class Optimum:
    """The best split of `flops`; `extrapolated` beyond the budgets that the way has used.

    `loss` is None where the way says nothing of it: beyond the runs only a law does. `local_exponents` are
    d log N_opt / d log C and d log D_opt / d log C there, of the parametric way.
    """

    flops: float
    extrapolated: bool
    n_params: Quantity
    tokens: Quantity
    tokens_per_parameter: Quantity
    loss: Quantity | None
    local_exponents: tuple[Quantity, Quantity] | None = None


@dataclass
class Minimum:
    """The lowest loss at a budget and the N where it lies, None with a `reason` where it is not used.

    For figures: the sizes with runs there with their mean losses and, of the isoflop way, the valley through them.
    """

    flops: float
    n_params: float | None
    loss: float | None
    reason: str | None
    sizes: list[float]
    losses: list[float]
    valley_n_params: list[float] = field(default_factory=list)
    valley_losses: list[float] = field(default_factory=list)


@dataclass
class Way:
    """The exponents a of N_opt and b of D_opt by one way, None with a `reason` where they are not identified.

    `plain` is a as the textbook has it: by parabolas alone, by beta / (alpha + beta). `used` are the least and the
    most FLOPs of the minima, of all runs for the parametric way.
    """

    reason: str | None
    a: Quantity | None = None
    b: Quantity | None = None
    plain: Quantity | None = None
    used: tuple[float, float] | None = None
    minima: list[Minimum] = field(default_factory=list)
    optima: list[Optimum] = field(default_factory=list)


@dataclass
class Comparison:
    """Two ways on one quantity: a, b, or n_params at `flops`, the largest budget that all identified ways have used."""

    quantity: str
    flops: float | None
    ways: tuple[str, str]
    differ: bool


@dataclass
class Cost:
    """FLOPs of a token as a function of N, linear·N + root·N^½, and by how much a record differs at most (relative).

    Matrix products grow with N; attention at one context grows with the width, about as N^½.
    """

    linear: float
    root: float
    error: float

    def of(self, log_n: Array) -> tuple[Array, Array, Array]:
        """Return log FLOPs per token and its first two derivatives by log N."""
        root = self.root * np.exp(-log_n / 2)
        share = root / (self.linear + root)
        return log_n + np.log(self.linear + root), 1 - share / 2, share * (1 - share) / 4


@dataclass
class Allocation:
    """The three ways by name, and what each pair of identified ones says. `exact`: the runs share budgets of FLOPs."""

    exact: bool
    cost: Cost
    ways: dict[str, Way]
    comparisons: list[Comparison]

    def as_dict(self) -> dict[str, Any]:
        """Return everything in plain types."""
        return asdict(self)


def allocate(runs: Runs, fitted: Fit | None, draws: Array | None = None) -> Allocation:
    """Return the compute-optimal split of FLOPs by three ways.

    Args:
        runs: finished runs of one architecture on one part of the data, of several budgets a size.
        fitted: Chinchilla's law of n_params and tokens; None if the runs are too few for it.
        draws: how often each cluster is drawn [resamples, clusters], clusters in the order of their sorted labels.
            Default: `within_sizes`.
    """
    curves = Curves.of(runs, draws, DELTA if fitted is None else fitted.delta)
    cost = cost_of(runs)
    shared = curves.shared()
    levels = shared if len(shared) else curves.covered(LEVELS)
    approaches = {
        "envelope": by_envelope(curves, cost),
        "isoflop": by_isoflop(curves, cost, levels),
        "parametric": by_law(fitted, cost, curves.studied),
    }
    known = {name: approach for name, approach in approaches.items() if approach.way.reason is None}
    inside = levels
    for approach in known.values():
        assert approach.way.used is not None
        low, high = np.log(approach.way.used)
        inside = inside[(inside > low - ROUNDING) & (inside < high + ROUNDING)]
    chosen = np.unique(inside[[0, len(inside) // 2, -1]]) if len(inside) else inside
    for approach in known.values():
        approach.way.optima = _optima(approach, cost, np.append(chosen, curves.studied[1] + np.log(FARTHER)))
    ways = {name: approach.way for name, approach in approaches.items()}
    return Allocation(bool(len(shared)), cost, ways, _compare({name: ways[name] for name in known}, len(chosen) - 1))


@dataclass
class Tally:
    """What the rows of an estimate are: the runs as they are, each of `sizes` left out, resamples."""

    sizes: int
    freedom: float

    def quantity(self, rows: Array) -> Quantity:
        """Return a value with its intervals: [rows]."""
        value, without_one, resampled = float(rows[0]), rows[1 : 1 + self.sizes], rows[1 + self.sizes :]
        return Quantity(value, percentiles(resampled, self.freedom), jackknife(value, without_one))

    def positive(self, log_rows: Array) -> Quantity:
        """Return the exponential of a quantity: [rows]."""
        log = self.quantity(log_rows)
        return Quantity(float(np.exp(log.value)), _exp(log.bootstrap), _exp(log.jackknife))


@dataclass
class Approach:
    """A way, and what it makes of budgets: log C [points] → log N_opt and log loss [rows, points].

    `exponent` is d log N_opt / d log C at log N_opt [rows, points], where a way has one of each budget.
    """

    way: Way
    tally: Tally
    split: Callable[[Array], tuple[Array, Array]]
    exponent: Callable[[Array], Array] | None = None


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
    def of(cls, runs: Runs, draws: Array | None, delta: float) -> "Curves":
        """Take runs apart; `draws` as `allocate` takes them."""
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
        draws = within_sizes(of_size) if draws is None else draws
        without_one = (of_size != np.arange(len(sizes))[:, None]) * 1.0
        return cls(log_n, of_size, points, np.concatenate([np.ones((1, len(size))), without_one, draws]), delta)

    @property
    def studied(self) -> tuple[float, float]:
        """The least and the largest log C of a run."""
        every = np.concatenate([log_c for log_c, _ in self.points])
        return float(every.min()), float(every.max())

    @property
    def tally(self) -> Tally:
        """What the rows are."""
        return Tally(len(self.log_n), max(1, len(self.points) - len(self.log_n)))

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
        """Return `count` values of log C from the first to the last at which FEWEST sizes have runs, or none."""
        grid = np.linspace(*self.studied, 8 * ENVELOPE_POINTS)
        there = np.isfinite(self.losses(grid))
        sizes = sum(there[self.size == size].any(axis=0).astype(int) for size in range(len(self.log_n)))
        inside = grid[sizes >= FEWEST]
        return np.linspace(inside[0], inside[-1], count) if len(inside) else inside

    def shared(self) -> Array:
        """Return the log C of the budgets of FLOPs that runs of FEWEST sizes share, none if most runs share none."""
        log_c = np.concatenate([log_c for log_c, _ in self.points])
        size = np.repeat(self.size, [len(log_c) for log_c, _ in self.points])
        order = np.argsort(log_c)
        groups = np.split(order, np.flatnonzero(np.diff(log_c[order]) > ROUNDING) + 1)
        groups = [g for g in groups if np.ptp(log_c[g]) <= ROUNDING and len(np.unique(size[g])) >= FEWEST]
        most = sum(map(len, groups)) > len(log_c) / 2
        return np.array([log_c[group].mean() for group in groups if most])


def within_sizes(size: NDArray[np.int_], count: int = RESAMPLES, seed: int = 0) -> Array:
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


def cost_of(runs: Runs) -> Cost:
    """Return the cost of a token as a function of N, by least squares of relative errors."""
    n, flops = column(runs, "n_params"), column(runs, "flops_per_token")
    terms = np.stack([n, np.sqrt(n)], axis=1) / flops[:, None]
    scale = terms.max(axis=0)
    found, _ = nnls(terms / scale, np.ones(len(n)))
    linear, root = found / scale
    return Cost(float(linear), float(root), float(np.abs(terms @ (linear, root) - 1).max()))


def by_envelope(curves: Curves, cost: Cost) -> Approach:
    """Return approach 1: where the lowest of the curves lies."""
    approach = _by_minima(
        curves, cost, curves.covered(ENVELOPE_POINTS), lambda at: vertices(curves.log_n, curves.means(at)[0])
    )
    minima = approach.way.minima
    lowest = {m.sizes[int(np.argmin(m.losses))] for m in minima if m.reason is None}
    if approach.way.reason is None and len(lowest) < FEWEST:
        reason = f"of the sizes between the ends the envelope passes {len(lowest)}: {FEWEST} are needed"
        approach.way = Way(reason, minima=minima)
    return approach


def by_isoflop(curves: Curves, cost: Cost, at: Array) -> Approach:
    """Return approach 2: the minimum of the valley at each of the budgets `at`, log C."""
    approach = _by_minima(curves, cost, at, lambda some: valleys(curves, some).minima())
    way = approach.way
    valley = valleys(curves, at)
    for place, minimum in enumerate(way.minima):
        if len(minimum.sizes) >= FEWEST:
            minimum.valley_n_params, minimum.valley_losses = (np.exp(axis).tolist() for axis in valley.drawn(place))
    if way.reason is None:
        used = at[[minimum.reason is None for minimum in way.minima]]
        exponent = curves.tally.quantity(line(used, valleys(curves, used, cubic=False).minima()[0])[1])
        way.plain = exponent if np.isfinite(exponent.value) else None  # parabolas may find no minimum
    return approach


def _by_minima(curves: Curves, cost: Cost, at: Array, find: Callable[[Array], tuple[Array, Array]]) -> Approach:
    """Return a way that finds log N and log loss [rows, points] of the minimum at each of the budgets `at`, log C."""
    tally = curves.tally
    mean, weight = curves.means(at)
    log_n, log_loss = find(at)
    minima = []
    for place, log_c in enumerate(at):
        there = weight[0, place] > 0
        reason = _censored(mean[0, place, there], log_n[:, place], tally)
        minima.append(
            Minimum(
                float(np.exp(log_c)),
                None if reason else float(np.exp(log_n[0, place])),
                None if reason else float(np.exp(log_loss[0, place])),
                reason,
                np.exp(curves.log_n[there]).tolist(),
                np.exp(mean[0, place, there]).tolist(),
            )
        )
    used = np.array([minimum.reason is None for minimum in minima], dtype=bool)
    way = _way(at[used], log_n[:, used], cost, tally)
    if len(curves.points) == len(curves.log_n):
        way = Way("every size has one seed: nothing tells the noise")
    way.minima = minima
    intercept, slope = (part[:, None] for part in line(at[used], log_n[:, used]))
    return Approach(way, tally, lambda some: (intercept + slope * some, find(some)[1]))


def _censored(losses: Array, log_n: Array, tally: Tally) -> str | None:
    """Return why a minimum [rows] is not used, from the mean losses of the sizes that are there, or None if it is."""
    if len(losses) < FEWEST:
        return f"{len(losses)} sizes have runs there: {FEWEST} are needed"
    if np.isfinite(log_n[0]):
        return "it lies within the sizes in too few resamples" if None in tally.quantity(log_n).bootstrap else None
    lowest = int(losses.argmin())
    if lowest in (0, len(losses) - 1):
        return f"the {'largest' if lowest else 'smallest'} size is the best there"
    return "there is no minimum within the sizes"


def _way(at: Array, log_n: Array, cost: Cost, tally: Tally) -> Way:
    """Return the exponents from log N_opt [rows, points] at log C `at`."""
    if len(at) < FEWEST:
        return Way(f"budgets with a minimum within the sizes: {len(at)}, {FEWEST} are needed")
    a = tally.quantity(line(at, log_n)[1])
    b = tally.quantity(line(at, at - cost.of(log_n)[0])[1])
    for name, exponent in (("a", a), ("b", b)):
        low, high = exponent.bootstrap
        if low is None or high is None or not np.isfinite(exponent.value):
            return Way(f"the interval of {name} is open: too many resamples have no optimum")
        if low <= 0:
            return Way(f"the interval of {name} reaches zero")
    return Way(None, a, b, used=(float(np.exp(at[0])), float(np.exp(at[-1]))))


def by_law(fitted: Fit | None, cost: Cost, studied: tuple[float, float]) -> Approach:
    """Return approach 3: Chinchilla's law minimised over N, over the budgets `studied`, log C."""
    if fitted is None:
        return Approach(Way("the runs are too few for Chinchilla's law"), Tally(0, 1), lambda at: (at, at))
    tally = Tally(len(fitted.without_one), fitted.degrees_of_freedom)
    theta = np.concatenate([fitted.theta[None], fitted.without_one, fitted.resampled])
    theta = np.where((theta[:, [2, 4]] > 0).all(axis=1, keepdims=True), theta, np.nan)  # else nothing is optimal
    e, a, alpha, b, beta = theta.T[:, :, None]

    def split(at: Array) -> tuple[Array, Array]:
        low, high = np.full((2, len(theta), len(at)), [[[LEAST]], [[MOST]]])
        for _ in range(HALVINGS):
            middle = (low + high) / 2
            log_flops, slope, _ = cost.of(middle)
            # Log of what more parameters cost in tokens over what they gain, which grows with N.
            too_many = np.log(beta * slope / alpha) + b - a + alpha * middle - beta * (at - log_flops) > 0
            low, high = np.where(too_many, low, middle), np.where(too_many, middle, high)
        log_n = np.where((low > LEAST) & (high < MOST), low, np.nan)
        log_d = at - cost.of(log_n)[0]
        return log_n, np.log(e + np.exp(a - alpha * log_n) + np.exp(b - beta * log_d))

    at = np.linspace(*studied, LEVELS)
    way = _way(at, split(at)[0], cost, tally)
    bounds = [name for name in fitted.at_bound if name != "E"]  # a floor moves no optimum
    if not fitted.converged:
        way = Way("the fit of Chinchilla's law did not converge")
    elif any(not fitted.parameters[name].identified for name in ("alpha", "beta")):
        way = Way("the exponents of Chinchilla's law are not identified")
    elif bounds:
        way = Way(f"the fit of Chinchilla's law lies at the bound of {', '.join(bounds)}")
    if way.reason is None:
        way.plain = tally.quantity((beta / (alpha + beta))[:, 0])

    def exponent(log_n: Array) -> Array:
        _, slope, bend = cost.of(log_n)
        return beta / (alpha + beta * slope + bend / slope)

    return Approach(way, tally, split, exponent)


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


def valleys(curves: Curves, at: Array, cubic: bool = True) -> Valleys:
    """Fit the log losses of all runs at log C `at` as a cubic in log N, as a parabola where sizes are too few for one.

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
    hold[sizes < FEWEST] = np.eye(4)  # no curve goes through two points only

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
    found[sizes < FEWEST] = np.nan
    there = np.where(of_sizes > 0, curves.log_n, np.nan)
    return Valleys(centre, scale, found, (np.fmin.reduce(there, axis=-1), np.fmax.reduce(there, axis=-1)))


def line(at: Array, rows: Array) -> tuple[Array, Array]:
    """Return intercept and slope of each row's least squares line over the points that are finite, two at least."""
    there = np.isfinite(rows) & (np.isfinite(rows).sum(axis=1, keepdims=True) > 1)
    count = np.where(there.any(axis=1), there.sum(axis=1), np.nan)
    x, y = np.where(there, at, 0.0), np.where(there, rows, 0.0)
    mean_x, mean_y = x.sum(axis=1) / count, y.sum(axis=1) / count
    away = np.where(there, x - mean_x[:, None], 0.0)
    spread = (away**2).sum(axis=1)
    slope = np.divide((away * y).sum(axis=1), spread, out=np.full(len(rows), np.nan), where=spread > 0)
    return mean_y - slope * mean_x, slope


def _optima(approach: Approach, cost: Cost, at: Array) -> list[Optimum]:
    way, tally = approach.way, approach.tally
    assert way.used is not None
    log_n, log_loss = approach.split(at)
    log_flops, slope, _ = cost.of(log_n)
    log_d = at - log_flops
    local = approach.exponent(log_n) if approach.exponent else None
    return [
        Optimum(
            float(np.exp(log_c)),
            not np.log(way.used[0]) - ROUNDING <= log_c <= np.log(way.used[1]) + ROUNDING,
            tally.positive(log_n[:, i]),
            tally.positive(log_d[:, i]),
            tally.positive(log_d[:, i] - log_n[:, i]),
            tally.positive(log_loss[:, i]) if np.isfinite(log_loss[0, i]) else None,
            None if local is None else (tally.quantity(local[:, i]), tally.quantity(1 - slope[:, i] * local[:, i])),
        )
        for i, log_c in enumerate(at)
    ]


def _compare(ways: dict[str, Way], common: int) -> list[Comparison]:
    """Compare every pair of identified ways, on N_opt at the optimum of place `common` if there is one."""
    found = []
    for (first, one), (second, other) in combinations(ways.items(), 2):
        for name in ("a", "b"):
            found.append(Comparison(name, None, (first, second), getattr(one, name).apart(getattr(other, name))))
        if common >= 0:
            mine, theirs = one.optima[common], other.optima[common]
            found.append(Comparison("n_params", mine.flops, (first, second), mine.n_params.apart(theirs.n_params)))
    return found


def _exp(edges: Interval) -> Interval:
    low, high = (None if edge is None else float(np.exp(edge)) for edge in edges)
    return low, high
