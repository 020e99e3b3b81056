"""Compute-optimal split of FLOPs between parameters and tokens by three methods, and where they disagree.

Every point is the end of a finished run. The final losses of a size and seed over its budgets are a curve L(C),
interpolated within its range; where runs share a budget of FLOPs the curve passes through them.

- envelope: at each C the vertex of the parabola through the lowest size and its neighbours (Hoffmann et al. 2022,
  approach 1, without the steps of discrete sizes).
- isoflop: at each C the minimum of a cubic in log N through all sizes, of a parabola through fewer than five
  (approach 2). The valley is asymmetric: a parabola is biased where the sizes are uneven about the optimum.
- parametric: the fitted Chinchilla law minimised at each C, with the counted FLOPs of a token (approach 3).

An optimum at the smallest or largest size with runs at that C is censored and not used. N_opt = k·C^a and
D_opt = k'·C^b follow by least squares in logs. N counts all parameters; losses are nats per token.

The bootstrap draws seeds within each size; the parametric method takes the resamples of its fit. What the seeds of a
size share, such as a poor learning rate, only the jackknife over sizes can see. Two methods differ if both kinds of
interval are disjoint. Results are the plain rows of fits.json.
"""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from itertools import combinations
from typing import Any

import numpy as np
from scipy.optimize import nnls

from analysis.fitting import DELTA, Fit
from analysis.intervals import Interval
from analysis.laws import Array
from analysis.loss_curves import (
    ENVELOPE_POINTS,
    MIN_POINTS,
    ROUNDING,
    Curves,
    Rows,
    fit_lines,
    fit_valleys,
    vertices,
)
from analysis.runs import Runs, column

LEVELS = 12  # budgets at which valleys are drawn if runs share none
EXTRAPOLATION = 10.0  # times the largest budget
LEAST, MOST = 0.0, 60.0  # log N between which a law's optimum is bisected
HALVINGS = 60

Row = dict[str, Any]


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
class Method:
    """One method: its `result` for fits.json, and its split of any budget.

    `split` takes log C [points] to log N_opt and log loss [rows, points]; `exponent` takes log N_opt [rows, points] to
    d log N_opt / d log C there, of the parametric method.

    The result has the exponents a of N_opt and b of D_opt, None with a `reason` if they are not identified; `plain`, a
    by the textbook (parabolas alone, beta / (alpha + beta)); the least and the most FLOPs `used`; minima; optima.
    """

    result: Row
    rows: Rows
    split: Callable[[Array], tuple[Array, Array]]
    exponent: Callable[[Array], Array] | None = None

    @property
    def identified(self) -> bool:
        """Whether there is no reason against it."""
        return self.result["reason"] is None


def _result(reason: str | None = None, **known: Any) -> Row:
    empty: Row = {"a": None, "b": None, "plain": None, "used": None, "minima": [], "optima": []}
    return {"reason": reason, **empty, **known}


def compute_optimal(runs: Runs, fitted: Fit | None) -> Row:
    """Return the compute-optimal split of FLOPs by three methods, and what each pair of identified ones says.

    `runs` are finished runs of one architecture on one part of the data, of several budgets a size; `fitted` is
    Chinchilla's law of n_params and tokens, None if the runs are too few for it.
    """
    curves = Curves.of(runs, DELTA if fitted is None else fitted.delta)
    cost = cost_of(runs)
    shared = curves.shared()
    levels = shared if len(shared) else curves.covered(LEVELS)
    methods = {
        "envelope": by_envelope(curves, cost),
        "isoflop": by_isoflop(curves, cost, levels),
        "parametric": by_law(fitted, cost, curves.studied),
    }
    known = {name: method for name, method in methods.items() if method.identified}
    inside = levels
    for method in known.values():
        low, high = np.log(method.result["used"])
        inside = inside[(inside > low - ROUNDING) & (inside < high + ROUNDING)]
    chosen = np.unique(inside[[0, len(inside) // 2, -1]]) if len(inside) else inside
    for method in known.values():
        budgets = np.append(chosen, curves.studied[1] + np.log(EXTRAPOLATION))
        method.result["optima"] = optima_of(method, cost, budgets)
    return {
        "exact": bool(len(shared)),
        "cost": asdict(cost),
        "ways": {name: method.result for name, method in methods.items()},
        "comparisons": compare_methods({name: method.result for name, method in known.items()}, len(chosen) - 1),
    }


def cost_of(runs: Runs) -> Cost:
    """Return the cost of a token as a function of N, by least squares of relative errors."""
    n, flops = column(runs, "n_params"), column(runs, "flops_per_token")
    terms = np.stack([n, np.sqrt(n)], axis=1) / flops[:, None]
    scale = terms.max(axis=0)
    found, _ = nnls(terms / scale, np.ones(len(n)))
    linear, root = found / scale
    return Cost(float(linear), float(root), float(np.abs(terms @ (linear, root) - 1).max()))


# The three methods


def by_envelope(curves: Curves, cost: Cost) -> Method:
    """Return approach 1: the vertices of the lowest sizes."""
    at = curves.covered(ENVELOPE_POINTS)
    method = by_minima(curves, cost, at, lambda some: vertices(curves.log_n, curves.means(some)[0]))
    minima = method.result["minima"]
    lowest = {m["sizes"][int(np.argmin(m["losses"]))] for m in minima if m["reason"] is None}
    if method.identified and len(lowest) < MIN_POINTS:
        reason = f"the envelope passes {len(lowest)} sizes between its ends, {MIN_POINTS} are needed"
        method.result = _result(reason, minima=minima)
    return method


def by_isoflop(curves: Curves, cost: Cost, at: Array) -> Method:
    """Return approach 2: the minimum of the valley at each of the budgets `at`, log C."""
    method = by_minima(curves, cost, at, lambda some: fit_valleys(curves, some).minima())
    minima = method.result["minima"]
    valleys = fit_valleys(curves, at)
    for place, minimum in enumerate(minima):
        if len(minimum["sizes"]) >= MIN_POINTS:
            log_n, log_loss = valleys.drawn(place)
            minimum |= {"valley_n_params": np.exp(log_n).tolist(), "valley_losses": np.exp(log_loss).tolist()}
    if method.identified:
        used = at[[minimum["reason"] is None for minimum in minima]]
        parabolas = fit_valleys(curves, used, cubic=False).minima()[0]
        exponent = curves.rows.quantity(fit_lines(used, parabolas)[1])
        method.result["plain"] = exponent if np.isfinite(exponent["value"]) else None
    return method


def by_minima(curves: Curves, cost: Cost, at: Array, find: Callable[[Array], tuple[Array, Array]]) -> Method:
    """Return a method that finds log N and log loss [rows, points] of the minimum at each of the budgets, log C."""
    rows = curves.rows
    mean, weight = curves.means(at)
    log_n, log_loss = find(at)
    minima = []
    for place, log_c in enumerate(at):
        there = weight[0, place] > 0
        reason = _censored(mean[0, place, there], log_n[:, place], rows)
        minima.append(
            {
                "flops": float(np.exp(log_c)),
                "n_params": None if reason else float(np.exp(log_n[0, place])),
                "loss": None if reason else float(np.exp(log_loss[0, place])),
                "reason": reason,
                "sizes": np.exp(curves.log_n[there]).tolist(),
                "losses": np.exp(mean[0, place, there]).tolist(),
                "valley_n_params": [],
                "valley_losses": [],
            }
        )
    used = np.array([minimum["reason"] is None for minimum in minima], dtype=bool)
    result = fit_exponents(at[used], log_n[:, used], cost, rows)
    if len(curves.points) == len(curves.log_n):
        result = _result("every size has one seed: the noise is unknown")
    result["minima"] = minima
    intercept, slope = (part[:, None] for part in fit_lines(at[used], log_n[:, used]))
    return Method(result, rows, lambda some: (intercept + slope * some, find(some)[1]))


def _censored(losses: Array, log_n: Array, rows: Rows) -> str | None:
    """Return why a minimum [rows] is not used, from the mean losses of the sizes that are there, or None if it is."""
    if len(losses) < MIN_POINTS:
        return f"{len(losses)} sizes have runs there: {MIN_POINTS} are needed"
    if np.isfinite(log_n[0]):
        open_interval = None in rows.quantity(log_n)["bootstrap"]
        return "it is within the sizes in too few resamples" if open_interval else None
    lowest = int(losses.argmin())
    if lowest in (0, len(losses) - 1):
        return f"the {'largest' if lowest else 'smallest'} size is the best there"
    return "there is no minimum within the sizes"


def fit_exponents(at: Array, log_n: Array, cost: Cost, rows: Rows) -> Row:
    """Return a result with the exponents from log N_opt [rows, points] at log C `at`, or why there are none."""
    if len(at) < MIN_POINTS:
        return _result(f"budgets with a minimum within the sizes: {len(at)}, {MIN_POINTS} are needed")
    a = rows.quantity(fit_lines(at, log_n)[1])
    b = rows.quantity(fit_lines(at, at - cost.of(log_n)[0])[1])
    for name, exponent in (("a", a), ("b", b)):
        low, high = exponent["bootstrap"]
        if low is None or high is None or not np.isfinite(exponent["value"]):
            return _result(f"the interval of {name} is open: too many resamples have no optimum")
        if low <= 0:
            return _result(f"the interval of {name} reaches zero")
    return _result(a=a, b=b, used=(float(np.exp(at[0])), float(np.exp(at[-1]))))


def by_law(fitted: Fit | None, cost: Cost, studied: tuple[float, float]) -> Method:
    """Return approach 3: Chinchilla's law minimised over N, over the budgets `studied`, log C."""
    if fitted is None:
        return Method(_result("the runs are too few for Chinchilla's law"), Rows(0, 1), lambda at: (at, at))
    rows = Rows(len(fitted.without_one), fitted.degrees_of_freedom)
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

    def exponent(log_n: Array) -> Array:
        _, slope, bend = cost.of(log_n)
        return beta / (alpha + beta * slope + bend / slope)

    at = np.linspace(*studied, LEVELS)
    result = fit_exponents(at, split(at)[0], cost, rows)
    bounds = [name for name in fitted.at_bound if name != "E"]  # E moves no optimum
    if not fitted.converged:
        result = _result("the fit of Chinchilla's law did not converge")
    elif any(not fitted.parameters[name].identified for name in ("alpha", "beta")):
        result = _result("the exponents of Chinchilla's law are not identified")
    elif bounds:
        result = _result(f"the fit of Chinchilla's law is at the bound of {', '.join(bounds)}")
    if result["reason"] is None:
        result["plain"] = rows.quantity((beta / (alpha + beta))[:, 0])
    return Method(result, rows, split, exponent)


# Optima and comparisons


def optima_of(method: Method, cost: Cost, at: Array) -> list[Row]:
    """Return the best split at each log C; `extrapolated` is one beyond the budgets that the method has used.

    `loss` is None where the method has none: beyond the runs only a law does. `local_exponents` are
    d log N_opt / d log C and d log D_opt / d log C, of the parametric method.
    """
    rows, (least, most) = method.rows, np.log(method.result["used"])
    log_n, log_loss = method.split(at)
    log_flops, slope, _ = cost.of(log_n)
    log_d = at - log_flops
    local = method.exponent(log_n) if method.exponent else None
    found = []
    for i, log_c in enumerate(at):
        exponents = None
        if local is not None:
            exponents = (rows.quantity(local[:, i]), rows.quantity(1 - slope[:, i] * local[:, i]))
        found.append(
            {
                "flops": float(np.exp(log_c)),
                "extrapolated": bool(not least - ROUNDING <= log_c <= most + ROUNDING),
                "n_params": rows.positive(log_n[:, i]),
                "tokens": rows.positive(log_d[:, i]),
                "tokens_per_parameter": rows.positive(log_d[:, i] - log_n[:, i]),
                "loss": rows.positive(log_loss[:, i]) if np.isfinite(log_loss[0, i]) else None,
                "local_exponents": exponents,
            }
        )
    return found


def compare_methods(results: dict[str, Row], common: int) -> list[Row]:
    """Compare every pair of identified methods on a, b, and N_opt at the optimum of place `common` if there is one."""
    found = []
    for (first, one), (second, other) in combinations(results.items(), 2):
        pairs = [("a", None, one["a"], other["a"]), ("b", None, one["b"], other["b"])]
        if common >= 0:
            ours, theirs = one["optima"][common], other["optima"][common]
            pairs.append(("n_params", ours["flops"], ours["n_params"], theirs["n_params"]))
        for name, flops, mine, its in pairs:
            differ = all(_disjoint(mine[kind], its[kind]) for kind in ("bootstrap", "jackknife"))
            found.append({"quantity": name, "flops": flops, "ways": (first, second), "differ": differ})
    return found


def _disjoint(one: Interval, other: Interval) -> bool:
    """Return whether two intervals do not overlap; an open side overlaps with anything."""
    (low, high), (other_low, other_high) = one, other
    below = high is not None and other_low is not None and high < other_low
    return below or (low is not None and other_high is not None and other_high < low)
