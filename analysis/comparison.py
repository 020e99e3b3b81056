"""GPT against LSTM on paired runs: only what the intervals and tests allow to say."""

from collections import Counter, defaultdict
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import numpy as np
from scipy.interpolate import PchipInterpolator
from scipy.stats import f as f_distribution
from scipy.stats import t as t_distribution

from analysis.fitting import DELTA, Fit, fit
from analysis.intervals import EDGES, Interval, jackknife, mean_intervals, percentiles
from analysis.laws import Array
from analysis.optimiser import Problem, Solution
from analysis.runs import Runs, by_size, clusters, column, paired, weights_of, whole_corpus

AXES = ("n_params", "n_params_non_embedding", "flops")
AT_ONE_BUDGET = ("power", "power_irreducible")
MIN_BUDGETS = 3
MIN_POSITIONS = 16
RESOURCES = ("n_params", "n_params_non_embedding", "flops", "seconds", "peak_memory_bytes")
RESAMPLES_OF_RATIOS = 400
SHARES_OF_OVERLAP = (0.25, 0.5, 0.75)  # of the losses that both reach, where the resources are compared
BEYOND = 1e6  # a crossover is looked for this many times outside of what was measured


@dataclass
class Test:
    """Test of one value of a parameter for both: without a difference `statistic` follows Fisher's F of `freedom`."""

    statistic: float | None
    freedom: tuple[int, int]
    p: float | None
    reason: str | None


@dataclass
class Difference:
    """GPT minus LSTM of one parameter: the intervals of analysis.fitting.Estimate, and the test of no difference."""

    value: float
    bootstrap: Interval
    jackknife: Interval
    test: Test

    @property
    def sign(self) -> int:
        """1 or -1 if both intervals lie on that side of zero, 0 while one of them holds it or is open."""
        edges = [*self.bootstrap, *self.jackknife]
        above, below = (all(edge is not None and sign * edge > 0 for edge in edges) for sign in (1, -1))
        return int(above) - int(below)


@dataclass
class Crossover:
    """Where on an axis the GPT's law comes to lie below the LSTM's, for good.

    `tokens`: the budget that it holds at, None along the best use of each budget of FLOPs. `share`: of the resamples
    that cross. `measured`: it lies within what both ladders measured. `reason`: why value or interval is missing.
    """

    axis: str
    tokens: float | None
    value: float | None
    interval: Interval
    share: float | None
    measured: bool | None
    reason: str | None


@dataclass
class LawComparison:
    """Both architectures under one law on one axis; fits and resamples are of paired runs.

    `equal_weights` has the difference of alpha and the first crossover (None if there is none) where all runs weigh
    alike: where a law does not describe the runs, it follows those that weigh most.
    """

    axis: str
    law: str
    fits: dict[str, Fit]
    differences: dict[str, Difference]
    crossovers: list[Crossover]
    equal_weights: dict[str, float | None]

    @property
    def doubt(self) -> str | None:
        """Why a parameter of a fit is not identified, or None if all are."""
        return _doubt(self.fits)

    @property
    def steeper(self) -> str | None:
        """The architecture whose alpha is larger beyond doubt, or None while an interval holds zero."""
        return None if self.doubt else {0: None, 1: "gpt", -1: "lstm"}[self.differences["alpha"].sign]

    def as_dict(self) -> dict[str, Any]:
        """Return it as plain JSON types."""
        return {
            "axis": self.axis,
            "law": self.law,
            "identified": self.doubt is None,
            "reason": self.doubt,
            "steeper": self.steeper,
            "differences": {name: {**asdict(d), "sign": d.sign} for name, d in self.differences.items()},
            "crossovers": [asdict(crossover) for crossover in self.crossovers],
            "equal_weights": self.equal_weights,
            "fits": {architecture: fitted.as_dict() for architecture, fitted in self.fits.items()},
        }


@dataclass
class Match:
    """GPT − LSTM at one size: the mean over seeds of the difference between runs of the same seed, in nats.

    `interval` is Student's, 95 %, with one variance for all sizes; its edges are None where no size has two seeds.
    """

    size: str
    seeds: int
    difference: float
    interval: Interval


@dataclass
class Ratio:
    """How many times more of a resource the GPT needs than the LSTM for the same loss, inside what both measured.

    `size` is the one that tokens are compared at, `tokens` the budget that all else is compared at.
    """

    resource: str
    size: str | None
    tokens: int | None
    loss: float
    gpt: float
    lstm: float
    ratio: float
    interval: Interval
    reason: str | None


@dataclass
class Curve:
    """Loss by bin of visible characters: `loss` and `intervals` [bins], and how it falls.

    `slope` is the change per doubling over the last two bins. What follows `falls_until` characters is shown to lie
    below the bin that ends there, and so for every bin before it; None if that holds for no bin. Intervals are of the
    noise of the seeds and of the text.
    """

    loss: list[float]
    intervals: list[Interval]
    slope: float
    slope_interval: Interval
    falls_until: int | None


@dataclass
class Positions:
    """Loss by place in the context at the largest size that both have; `bins` are first and last visible character."""

    size: str
    tokens: int
    seeds: int
    bins: list[tuple[int, int]]
    gpt: Curve
    lstm: Curve
    difference: Curve
    reason: str | None


@dataclass
class Comparison:
    """All of the comparison. `left_out` says why a law, the ratios or the positions are missing."""

    pairs: int
    budget: int
    budgets: list[int]
    matches: list[Match]
    laws: list[LawComparison]
    ratios: list[Ratio]
    positions: Positions | None
    left_out: dict[str, str]

    def as_dict(self) -> dict[str, Any]:
        """Return it as plain JSON types."""
        return {
            "pairs": self.pairs,
            "budget": self.budget,
            "budgets": self.budgets,
            "matches": [asdict(match) for match in self.matches],
            "laws": [law.as_dict() for law in self.laws],
            "ratios": [asdict(ratio) for ratio in self.ratios],
            "positions": self.positions and asdict(self.positions),
            "left_out": self.left_out,
        }


def compare(ladders: dict[str, Runs], delta: float = DELTA) -> Comparison:
    """Compare the paired runs of "gpt" and "lstm" on all of the training tunes, in their own keys.

    Laws of one variable, resources and positions are compared at the most frequent budget of tokens (of equally
    frequent ones the largest), Chinchilla's law over all budgets if there are three. `delta` is that of the fits.

    Raises ValueError if no run has a partner.
    """
    pairs = paired({architecture: whole_corpus(runs) for architecture, runs in ladders.items()})
    counts = Counter(run["budget"] for run in pairs["gpt"])
    if not counts:
        raise ValueError("no run has a partner of its size, budget and seed in the other ladder")
    budget = max(counts, key=lambda tokens: (counts[tokens], tokens))
    at_budget = {a: [run for run in runs if run["budget"] == budget] for a, runs in pairs.items()}
    left_out: dict[str, str] = {}
    laws = []
    wanted = [(law, axis, at_budget) for axis in AXES for law in AT_ONE_BUDGET]
    if len(counts) >= MIN_BUDGETS:
        wanted += [("chinchilla", axis, pairs) for axis in AXES if axis != "flops"]
    else:
        left_out["chinchilla"] = f"it needs {MIN_BUDGETS} budgets of tokens, and pairs have {len(counts)}"
    for law, axis, runs in wanted:
        try:
            sides = {architecture: _side(law, axis, members, delta) for architecture, members in runs.items()}
        except ValueError as error:
            left_out[f"{law} {axis}"] = str(error)
        else:
            laws.append(_contrast(law, axis, runs, sides, budget))
    everyone = [run for runs in at_budget.values() for run in runs]
    resources = [name for name in RESOURCES if all(run[name] and run[name] > 0 for run in everyone)]
    left_out |= {f"ratios of {name}": "a run has none of it" for name in RESOURCES if name not in resources}
    ratios = _ratios(pairs, budget, sorted(counts), resources)
    if not ratios:
        left_out["ratios"] = "no loss is reached by both architectures inside what they measured"
    positions = None
    if any(len(run["validation_loss_by_position"] or ()) < MIN_POSITIONS for run in everyone):
        left_out["positions"] = f"a run has no validation_loss_by_position of {MIN_POSITIONS} places"
    else:
        positions = by_position(at_budget, budget)
    return Comparison(len(pairs["gpt"]), budget, sorted(counts), _matches(at_budget), laws, ratios, positions, left_out)


def _matches(pairs: dict[str, Runs]) -> list[Match]:
    gaps = {
        size: column(members, "validation_loss") - column(by_size(pairs["lstm"])[size], "validation_loss")
        for size, members in by_size(pairs["gpt"]).items()
    }
    means = mean_intervals(list(gaps.values()))
    return [Match(size, len(gap), *found) for (size, gap), found in zip(gaps.items(), means, strict=True)]


# Laws


@dataclass
class _Side:
    """One architecture's fit, and theta of other fits, a row each: without one of the pairs, and with equal weights."""

    fitted: Fit
    without_pair: Array
    equal_weights: Array


def _side(law: str, axis: str, runs: Runs, delta: float) -> _Side:
    x = {"c" if axis == "flops" else "n": column(runs, axis)}
    if law == "chinchilla":
        x["d"] = column(runs, "tokens")
    loss, labels = column(runs, "validation_loss"), clusters(runs)
    sizes = [run["size"] for run in runs]
    weights = weights_of(runs)
    fitted = fit(
        law,
        loss,
        n=x.get("n"),
        c=x.get("c"),
        d=x.get("d"),
        weights=weights,
        clusters=labels,
        sizes=sizes,
        delta=delta,
    )
    problem = Problem(fitted.law, fitted.columns(**x), np.log(loss), delta)
    best = Solution(fitted.theta[None], np.array([fitted.objective]), np.array([fitted.converged]))
    _, cluster = np.unique(labels, return_inverse=True)
    base = np.ones(len(loss)) if weights is None else weights
    without = problem.refit((cluster != np.arange(fitted.clusters)[:, None]) * base, best, problem.best_starts(base))
    without.theta[~without.converged] = np.nan
    equal = np.ones((1, len(loss)))
    alike = problem.refit(equal, best, problem.best_starts(equal[0]))
    alike.theta[~alike.converged] = np.nan
    return _Side(fitted, without.theta, alike.theta)


def _contrast(law: str, axis: str, runs: dict[str, Runs], sides: dict[str, _Side], budget: int) -> LawComparison:
    fits = {architecture: side.fitted for architecture, side in sides.items()}
    names: list[str] = [name for name in ("alpha", "beta", "E") if name in fits["gpt"].law.names]
    differences = {name: _difference(sides["gpt"], sides["lstm"], name) for name in names}
    triples = {a: partial(_in_size, law, float(budget)) for a in fits}
    measured = {a: column(members, axis) for a, members in runs.items()}
    crossovers = [_crossover(axis, budget, fits, triples, measured)]
    gpt, lstm = (sides[a].equal_weights for a in ("gpt", "lstm"))
    alpha = float((gpt - lstm)[0, fits["gpt"].law.names.index("alpha")])
    [crossing] = np.exp(_crossings(triples["gpt"](gpt), triples["lstm"](lstm), *_within(measured)))
    alike = {"alpha": alpha, "crossover": float(crossing)}
    equal_weights = {name: value if np.isfinite(value) else None for name, value in alike.items()}
    if law == "chinchilla":
        triples = {a: partial(_in_flops, *_cost(members, axis)) for a, members in runs.items()}
        measured = {a: column(members, "flops") for a, members in runs.items()}
        crossovers.append(_crossover("flops", None, fits, triples, measured))
    return LawComparison(axis, law, fits, differences, crossovers, equal_weights)


def _difference(gpt: _Side, lstm: _Side, name: str) -> Difference:
    i = gpt.fitted.law.names.index(name)
    value = float(gpt.fitted.theta[i] - lstm.fitted.theta[i])
    resampled, without_one = (getattr(gpt.fitted, n) - getattr(lstm.fitted, n) for n in ("resampled", "without_one"))
    return Difference(
        value,
        percentiles(resampled[:, i], gpt.fitted.degrees_of_freedom),
        jackknife(value, without_one[:, i]),
        _test(gpt, lstm, name),
    )


def _test(gpt: _Side, lstm: _Side, name: str) -> Test:
    """Test by Wald's statistic; the variance of the difference is that of the jackknife over pairs.

    This variance keeps the test's size with few clusters (CV3 of MacKinnon, Nielsen & Webb 2023). A likelihood ratio
    scaled by it does so too where a law fits, but says nothing where most runs lie off the law by more than delta:
    there the objective is piecewise linear and flat between its kinks.
    """
    i, freedom = gpt.fitted.law.names.index(name), (1, gpt.fitted.degrees_of_freedom)
    doubt = _doubt({"gpt": gpt.fitted, "lstm": lstm.fitted}, name)
    left_out = (gpt.without_pair - lstm.without_pair)[:, i]
    if doubt is None and not np.isfinite(left_out).all():
        doubt = "a fit without one pair did not converge"
    if doubt:
        return Test(None, freedom, None, doubt)
    variance = (len(left_out) - 1) / len(left_out) * np.sum((left_out - left_out.mean()) ** 2)
    if variance == 0:
        return Test(None, freedom, None, "the runs have no noise")
    statistic = float((gpt.fitted.theta[i] - lstm.fitted.theta[i]) ** 2 / variance)
    return Test(statistic, freedom, float(f_distribution.sf(statistic, *freedom)), None)


def _doubt(fits: dict[str, Fit], name: str | None = None) -> str | None:
    """Return why a parameter of the fits, or the named one, is not identified, or None."""
    for architecture, fitted in fits.items():
        for parameter, estimate in fitted.parameters.items():
            if not estimate.identified and name in (None, parameter):
                return f"{parameter} of the {architecture.upper()} is not identified: {estimate.reason}"
    return None


# Crossovers: along each axis every law is E + e^a·x^-alpha, given as rows of (E, a, alpha)


def _in_size(law: str, tokens: float, theta: Array) -> Array:
    """Return a law's rows in its own axis; Chinchilla's at a budget of tokens."""
    if law == "power":
        return np.column_stack([np.zeros(len(theta)), theta])
    if law == "power_irreducible":
        return theta
    return np.column_stack([theta[:, 0] + np.exp(theta[:, 3] - theta[:, 4] * np.log(tokens)), theta[:, 1:3]])


def _cost(runs: Runs, axis: str) -> Array:
    """Return (g, log k) of FLOPs per token = k·N^g."""
    return np.polyfit(np.log(column(runs, axis)), np.log(column(runs, "flops") / column(runs, "tokens")), 1)


def _in_flops(g: float, log_k: float, theta: Array) -> Array:
    """Return Chinchilla's rows in C at the best size for each C, with D = C / (k·N^g): Hoffmann et al. 2022, eq. 4.

    There alpha·A·N^-alpha = g·beta·B·D^-beta, so the reducible loss is a power of C.
    """
    e, a, alpha, b, beta = theta.T
    with np.errstate(invalid="ignore", divide="ignore"):  # an exponent <= 0 has no best size
        lever = (np.log(alpha / (g * beta)) + a - b - beta * log_k) / (alpha + g * beta)
        return np.column_stack([e, np.log1p(alpha / (g * beta)) + a - alpha * lever, alpha * beta / (alpha + g * beta)])


def _crossover(
    axis: str,
    tokens: int | None,
    fits: dict[str, Fit],
    triples: Mapping[str, Callable[[Array], Array]],
    measured: dict[str, Array],
) -> Crossover:
    doubt = _doubt(fits)
    if doubt:
        return Crossover(axis, tokens, None, (None, None), None, None, doubt)
    rows = [triples[a](np.vstack([fits[a].theta, fits[a].resampled])) for a in ("gpt", "lstm")]
    found = np.exp(_crossings(rows[0], rows[1], *_within(measured)))
    share = float(np.isfinite(found[1:]).mean())
    if not np.isfinite(found[0]):
        never = "the law of the GPT does not come to lie below that of the LSTM"
        return Crossover(axis, tokens, None, (None, None), share, None, never)
    interval = percentiles(found[1:], fits["gpt"].degrees_of_freedom)
    inside = max(m.min() for m in measured.values()) <= found[0] <= min(m.max() for m in measured.values())
    reason = "too many resamples do not cross" if None in interval else None
    return Crossover(axis, tokens, float(found[0]), interval, share, bool(inside), reason)


def _within(measured: dict[str, Array]) -> tuple[float, float]:
    """Return the log x between which a crossover is looked for."""
    everything = np.concatenate(list(measured.values()))
    return float(np.log(everything.min() / BEYOND)), float(np.log(everything.max() * BEYOND))


def _crossings(gpt: Array, lstm: Array, low: float, high: float) -> Array:
    """Return log x above which the GPT's law lies below the LSTM's, or NaN if it does not up to `high`: [rows]."""

    def lead(log_x: Array) -> Array:
        mine, other = (t[:, :1] + np.exp(t[:, 1:2] - t[:, 2:] * log_x) for t in (gpt, lstm))
        difference: Array = other - mine
        return difference

    grid = np.linspace(low, high, 400)
    ahead = lead(grid[None]) > 0
    turns = ahead[:, 1:] & ~ahead[:, :-1]
    last = turns.shape[1] - 1 - np.argmax(turns[:, ::-1], axis=1)
    left, right = grid[last], grid[last + 1]
    for _ in range(50):
        middle = (left + right) / 2
        beyond = lead(middle[:, None])[:, 0] > 0
        left, right = np.where(beyond, left, middle), np.where(beyond, middle, right)
    return np.where(turns.any(axis=1) & ahead[:, -1], right, np.nan)


# Resources at equal loss


def _ratios(pairs: dict[str, Runs], budget: int, budgets: list[int], resources: list[str]) -> list[Ratio]:
    _, samples, freedom = _resampled_means(pairs, [budget], resources)
    ratios = [
        Ratio(name, None, budget, *entry)
        for row in _at_equal_loss(samples[:, :, 0], freedom)
        for name, entry in zip(resources, row, strict=True)
    ]
    if len(budgets) > 1:
        sizes, samples, freedom = _resampled_means(pairs, budgets, ["tokens"])
        for k, size in enumerate(sizes):
            ratios += [Ratio("tokens", size, None, *entry) for [entry] in _at_equal_loss(samples[:, k], freedom)]
    return ratios


def _resampled_means(pairs: dict[str, Runs], budgets: list[int], names: list[str]) -> tuple[list[str], Array, int]:
    """Return sizes, log means over seeds with their resamples, and the degrees of freedom of the noise.

    Means of log loss and the named resources are [1 + resamples, sizes, budgets, architectures, 1 + names], the first
    as measured. Only seeds with all of the budgets count. A resample adds to each mean that of as many residuals as it
    has seeds, drawn from all sizes, those of a pair and its budgets together; without a second seed it is NaN.
    """
    found: dict[tuple[str, int], dict[int, Array]] = defaultdict(dict)
    for pair in zip(pairs["gpt"], pairs["lstm"], strict=True):
        amounts = [[run[name] for name in ("validation_loss", *names)] for run in pair]
        found[pair[0]["size"], pair[0]["seed"]][pair[0]["budget"]] = np.log(amounts)
    seeds: dict[str, list[Array]] = {size: [] for size in by_size(pairs["gpt"])}
    for (size, _), cells in found.items():
        if cells.keys() >= set(budgets):
            seeds[size].append(np.stack([cells[tokens] for tokens in budgets]))
    groups = {size: np.stack(members) for size, members in seeds.items() if members}
    shape = (0, len(budgets), 2, 1 + len(names))
    means = np.stack([group.mean(axis=0) for group in groups.values()]) if groups else np.empty(shape)
    residuals = np.concatenate(
        [np.empty(shape)]
        + [(g - g.mean(axis=0)) * np.sqrt(len(g) / (len(g) - 1)) for g in groups.values() if len(g) > 1]
    )
    noise = np.full((RESAMPLES_OF_RATIOS, *means.shape), np.nan)
    generator = np.random.default_rng(0)
    for k, group in enumerate(groups.values() if len(residuals) else ()):
        drawn = generator.integers(len(residuals), size=(RESAMPLES_OF_RATIOS, len(group)))
        noise[:, k] = residuals[drawn].mean(axis=1)
    freedom = max(1, sum(len(group) - 1 for group in groups.values()))
    return list(groups), np.concatenate([means[None], means + noise]), freedom


def _at_equal_loss(samples: Array, freedom: int) -> list[list[tuple[Any, ...]]]:
    """Compare what both architectures need at losses that both reach, from [samples, points, architectures, amounts].

    Amounts are log loss, then log resources. Returns one row a loss with the last fields of a Ratio for each resource.
    """
    losses = samples[0, :, :, 0]
    if not len(losses):
        return []
    low, high = losses.min(axis=0).max(), losses[0].min()
    if low >= high:
        return []
    targets = low + np.array(SHARES_OF_OVERLAP) * (high - low)
    costs = np.stack([[_cost_of(sample[:, a], targets) for a in range(2)] for sample in samples])
    known: str | None = None if np.isfinite(samples).all() else "one seed of each size does not tell the noise"
    rows = []
    for k, target in enumerate(targets):
        row = []
        for j in range(costs.shape[3]):
            gpt, lstm = np.exp(costs[0, :, k, j])
            interval = percentiles(np.exp(costs[1:, 0, k, j] - costs[1:, 1, k, j]), freedom)
            why = known or ("too many resamples do not reach this loss" if None in interval else None)
            row.append((float(np.exp(target)), float(gpt), float(lstm), float(gpt / lstm), interval, why))
        rows.append(row)
    return rows


def _cost_of(points: Array, targets: Array) -> Array:
    """Return the log resources at log losses from points [points, 1 + resources] in order of their size or budget.

    Monotone interpolation (PCHIP) over the points that are better than all before them; NaN outside of them.
    """
    loss = points[:, 0]
    keep = np.append(True, loss[1:] < np.minimum.accumulate(loss)[:-1])
    if keep.sum() < 2 or not np.isfinite(points).all():
        return np.full((len(targets), points.shape[1] - 1), np.nan)
    found: Array = PchipInterpolator(-loss[keep], points[keep, 1:], extrapolate=False)(-targets)
    return found


# Positions


def by_position(runs: dict[str, Runs], budget: int) -> Positions:
    """Return the curves of the largest size from paired runs of one budget that carry validation_loss_by_position."""
    size = list(by_size(runs["gpt"]))[-1]
    gpt, lstm = (
        np.array([run["validation_loss_by_position"] for run in runs[a] if run["size"] == size])
        for a in ("gpt", "lstm")
    )
    visible = np.arange(1, gpt.shape[1] + 1)
    of_bin = np.maximum(1, np.ceil(np.log2(visible))).astype(int)
    bins = [(int(visible[of_bin == k][0]), int(visible[of_bin == k][-1])) for k in np.unique(of_bin)]
    of_gpt, of_lstm, difference = (_curve(losses, bins) for losses in (gpt, lstm, gpt - lstm))
    reason = "one seed does not tell the noise" if len(gpt) < 2 else None
    return Positions(size, budget, len(gpt), bins, of_gpt, of_lstm, difference, reason)


def _curve(losses: Array, bins: list[tuple[int, int]]) -> Curve:
    """Return the curve of losses [seeds, positions].

    All seeds are read on the same text, so its noise does not average out: it is taken from the scatter of neighbouring
    positions about a straight line over the last two bins, with their correlation (Newey & West 1987).
    """
    visible = np.arange(1, losses.shape[1] + 1)
    first = bins[-2][0] - 1
    doublings = np.log2(visible[first:])
    doublings = doublings - doublings.mean()
    tail = losses.mean(axis=0)[first:]
    fall = np.zeros(len(visible))
    fall[first:] = doublings / np.sum(doublings**2)
    residual = tail - tail.mean() - (fall[first:] @ tail) * doublings
    freedom = len(tail) - 2
    lags = int(4 * (len(tail) / 100) ** (2 / 9))
    covariance = [
        residual[lag:] @ residual[: len(tail) - lag] / freedom * (1 - lag / (lags + 1)) for lag in range(lags + 1)
    ]

    def estimate(contrast: Array) -> tuple[float, Interval]:
        """Return a sum over positions with its interval, degrees of freedom after Welch and Satterthwaite."""
        each = losses @ contrast
        if len(each) < 2:
            return float(each[0]), (None, None)
        of_seeds = each.var(ddof=1) / len(each)
        of_text = sum(
            (1 if lag == 0 else 2) * entry * (contrast[lag:] @ contrast[: len(contrast) - lag])
            for lag, entry in enumerate(covariance)
        )
        both = max(of_seeds + of_text, 1e-30)
        share = of_seeds / both
        degrees = 1 / (share**2 / (len(each) - 1) + (1 - share) ** 2 / freedom)
        reach = float(t_distribution.ppf(EDGES[1], degrees) * np.sqrt(both))
        return float(each.mean()), (float(each.mean()) - reach, float(each.mean()) + reach)

    means = [((visible >= low) & (visible <= high)) / (high - low + 1) for low, high in bins]
    binned = [estimate(mean) for mean in means]
    slope, slope_interval = estimate(fall)
    falls_until = 0
    for (_, last), mean in zip(bins[:-1], means[:-1], strict=True):
        _, (_, above) = estimate((visible > last) / np.sum(visible > last) - mean)
        if above is None or above >= 0:
            break
        falls_until = last
    return Curve(
        [loss for loss, _ in binned], [edges for _, edges in binned], slope, slope_interval, falls_until or None
    )
