"""GPT against LSTM on paired runs: differences of parameters, crossovers, resources at equal loss, loss by position.

Each function returns plain rows, which are those of fits.json. An interval is (low, high); None is an open side.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from scipy.interpolate import PchipInterpolator
from scipy.stats import f as f_distribution
from scipy.stats import t as student

from analysis.fitting import Fit
from analysis.identification import GREEK
from analysis.intervals import EDGES, Interval, jackknife, mean_intervals, percentiles
from analysis.laws import Array
from analysis.runs import Runs, by_size, clusters, column, fit_runs, paired, whole_corpus

PAIR = ("gpt", "lstm")
AXES = ("n_params", "n_params_non_embedding", "flops")
AT_ONE_BUDGET = ("power", "power_irreducible")
MIN_BUDGETS = 3
MIN_POSITIONS = 16
RESOURCES = ("n_params", "n_params_non_embedding", "flops", "seconds", "peak_memory_bytes")
RESAMPLES_OF_RATIOS = 400
SHARES_OF_OVERLAP = (0.25, 0.5, 0.75)  # of the losses that both reach, where the resources are compared
SEARCH_FACTOR = 1e6  # a crossover is searched up to this factor outside of the measured range

Row = dict[str, Any]
Curves = Callable[[Array], Array]  # theta [rows, parameters] → (E, a, alpha) [rows, 3] of E + e^a·x^-alpha


def compare(ladders: dict[str, Runs]) -> Row:
    """Compare the paired runs of "gpt" and "lstm" on all of the training tunes, in their own keys.

    Laws of one variable, resources and positions are compared at the most frequent budget of tokens (of equally
    frequent ones the largest), Chinchilla's law over all budgets if there are three. `left_out` says why a law, the
    ratios or the positions are missing. Raises ValueError if no run has a partner.
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
            laws.append(compare_law(law, axis, runs, budget))
        except ValueError as error:
            left_out[f"{law} {axis}"] = str(error)
    everyone = [run for runs in at_budget.values() for run in runs]
    resources = [name for name in RESOURCES if all(run[name] and run[name] > 0 for run in everyone)]
    left_out |= {f"ratios of {name}": "a run has none of it" for name in RESOURCES if name not in resources}
    ratios = compare_resources(pairs, budget, sorted(counts), resources)
    if not ratios:
        left_out["ratios"] = "no loss is reached by both architectures inside what they measured"
    positions = None
    if any(len(run["validation_loss_by_position"] or ()) < MIN_POSITIONS for run in everyone):
        left_out["positions"] = f"a run has no validation_loss_by_position of {MIN_POSITIONS} places"
    else:
        positions = compare_positions(at_budget, budget)
    return {
        "pairs": len(pairs["gpt"]),
        "budget": budget,
        "budgets": sorted(counts),
        "matches": compare_sizes(at_budget),
        "laws": laws,
        "ratios": ratios,
        "positions": positions,
        "left_out": left_out,
    }


def compare_sizes(pairs: dict[str, Runs]) -> list[Row]:
    """Return GPT − LSTM at each size: the mean over seeds of the difference between runs of the same seed, in nats.

    The interval is Student's, with one variance for all sizes.
    """
    lstm = by_size(pairs["lstm"])
    gaps = {
        size: column(members, "validation_loss") - column(lstm[size], "validation_loss")
        for size, members in by_size(pairs["gpt"]).items()
    }
    means = mean_intervals(list(gaps.values()))
    return [
        {"size": size, "seeds": len(gap), "difference": difference, "interval": interval}
        for (size, gap), (difference, interval) in zip(gaps.items(), means, strict=True)
    ]


# Laws


@dataclass
class Side:
    """The fit of one architecture, with theta [pairs, parameters] without each pair, and theta with equal weights."""

    fitted: Fit
    without_pair: Array
    equal_weights: Array


def fit_side(law: str, axis: str, runs: Runs) -> Side:
    """Fit a law to one architecture of the pairs."""
    leave_out = 1 - np.eye(len(set(clusters(runs))))
    without_pair = fit_runs(law, runs, axis, draws=leave_out).resampled
    equal = fit_runs(law, runs, axis, weighted=False, resamples=1)
    return Side(
        fit_runs(law, runs, axis), without_pair, equal.theta if equal.converged else np.full_like(equal.theta, np.nan)
    )


def compare_law(law: str, axis: str, runs: dict[str, Runs], budget: int) -> Row:
    """Compare both architectures under one law on one axis; fits and resamples are of paired runs.

    `steeper` is the architecture with the larger alpha if both intervals exclude zero, else None. `equal_weights` has
    the difference of alpha and the first crossover where all runs have the same weight. Raises ValueError if the runs
    are too few.
    """
    sides = {architecture: fit_side(law, axis, members) for architecture, members in runs.items()}
    fits = {architecture: side.fitted for architecture, side in sides.items()}
    names = fits["gpt"].law.names
    differences = {
        name: compare_parameter(sides["gpt"], sides["lstm"], name) for name in ("alpha", "beta", "E") if name in names
    }
    of_axis = {architecture: partial(in_size, law, float(budget)) for architecture in fits}
    measured = {architecture: column(members, axis) for architecture, members in runs.items()}
    crossovers = [find_crossover(axis, budget, fits, of_axis, measured)]
    thetas = {a: sides[a].equal_weights[None] for a in PAIR}
    alpha = float((thetas["gpt"] - thetas["lstm"])[0, names.index("alpha")])
    [log_crossing] = crossings(of_axis["gpt"](thetas["gpt"]), of_axis["lstm"](thetas["lstm"]), measured)
    equal_weights = {"alpha": alpha, "crossover": float(np.exp(log_crossing))}
    if law == "chinchilla":
        of_flops = {architecture: partial(in_flops, *cost_of(members, axis)) for architecture, members in runs.items()}
        measured = {architecture: column(members, "flops") for architecture, members in runs.items()}
        crossovers.append(find_crossover("flops", None, fits, of_flops, measured))
    reason = why_not_identified(fits)
    return {
        "axis": axis,
        "law": law,
        "identified": reason is None,
        "reason": reason,
        "steeper": None if reason else {0: None, 1: "gpt", -1: "lstm"}[differences["alpha"]["sign"]],
        "differences": differences,
        "crossovers": crossovers,
        "equal_weights": {name: value if np.isfinite(value) else None for name, value in equal_weights.items()},
        "fits": {architecture: fitted.as_dict() for architecture, fitted in fits.items()},
    }


def compare_parameter(gpt: Side, lstm: Side, name: str) -> Row:
    """Return GPT − LSTM of one parameter with its intervals over runs and over sizes, sign, and Wald's test."""
    i = gpt.fitted.law.names.index(name)
    value = float(gpt.fitted.theta[i] - lstm.fitted.theta[i])
    bootstrap = percentiles((gpt.fitted.resampled - lstm.fitted.resampled)[:, i], gpt.fitted.degrees_of_freedom)
    over_sizes = jackknife(value, (gpt.fitted.without_one - lstm.fitted.without_one)[:, i])
    return {
        "value": value,
        "bootstrap": bootstrap,
        "jackknife": over_sizes,
        "test": wald_test(gpt, lstm, name),
        "sign": sign_of(bootstrap, over_sizes),
    }


def sign_of(*intervals: Interval) -> int:
    """Return 1 or -1 if all intervals are on that side of zero, 0 if one holds zero or is open."""
    edges = [edge for interval in intervals for edge in interval]
    above, below = (all(edge is not None and sign * edge > 0 for edge in edges) for sign in (1, -1))
    return int(above) - int(below)


def wald_test(gpt: Side, lstm: Side, name: str) -> Row:
    """Test whether both architectures could share one value of a parameter: Wald's F, its degrees of freedom and p.

    The variance of the difference is that of the jackknife over pairs, which keeps the test's size with few clusters
    (CV3 of MacKinnon, Nielsen & Webb 2023). A likelihood ratio would be uninformative where most runs are farther than
    delta from the law: there the objective is piecewise linear.
    """
    i, degrees = gpt.fitted.law.names.index(name), (1, gpt.fitted.degrees_of_freedom)
    reason = why_not_identified({"gpt": gpt.fitted, "lstm": lstm.fitted}, name)
    left_out = (gpt.without_pair - lstm.without_pair)[:, i]
    if reason is None and not np.isfinite(left_out).all():
        reason = "a fit without one pair did not converge"
    variance = (len(left_out) - 1) / len(left_out) * np.sum((left_out - left_out.mean()) ** 2)
    if reason is None and variance == 0:
        reason = "the runs have no noise"
    statistic = p = None
    if reason is None:
        statistic = float((gpt.fitted.theta[i] - lstm.fitted.theta[i]) ** 2 / variance)
        p = float(f_distribution.sf(statistic, *degrees))
    return {"statistic": statistic, "degrees_of_freedom": degrees, "p": p, "reason": reason}


def why_not_identified(fits: dict[str, Fit], name: str | None = None) -> str | None:
    """Return why a parameter of the fits, or the one that is named, is not identified; None if all are."""
    for architecture, fitted in fits.items():
        for parameter, estimate in fitted.parameters.items():
            if not estimate.identified and name in (None, parameter):
                return f"{GREEK.get(parameter, parameter)} of the {architecture.upper()}: {estimate.reason}"
    return None


# Crossovers


def in_size(law: str, tokens: float, theta: Array) -> Array:
    """Return (E, a, alpha) [rows, 3] of a law in N or C, of Chinchilla's at a budget of tokens.

    `theta` is [rows, parameters]; a is the logarithm of the coefficient.
    """
    if law == "power":
        return np.column_stack([np.zeros(len(theta)), theta])
    if law == "power_irreducible":
        return theta
    return np.column_stack([theta[:, 0] + np.exp(theta[:, 3] - theta[:, 4] * np.log(tokens)), theta[:, 1:3]])


def cost_of(runs: Runs, axis: str) -> Array:
    """Return (g, log k) of FLOPs per token = k·N^g."""
    return np.polyfit(np.log(column(runs, axis)), np.log(column(runs, "flops") / column(runs, "tokens")), 1)


def in_flops(g: float, log_k: float, theta: Array) -> Array:
    """Return (E, a, alpha) [rows, 3] of Chinchilla's law, `theta` [rows, 5], in C at the best size, D = C / (k·N^g).

    At the best size alpha·A·N^-alpha = g·beta·B·D^-beta, so the reducible loss is a power of C: Hoffmann et al. 2022,
    eq. 4.
    """
    e, a, alpha, b, beta = theta.T
    with np.errstate(invalid="ignore", divide="ignore"):  # an exponent <= 0 has no best size
        shift = (np.log(alpha / (g * beta)) + a - b - beta * log_k) / (alpha + g * beta)
        return np.column_stack([e, np.log1p(alpha / (g * beta)) + a - alpha * shift, alpha * beta / (alpha + g * beta)])


def find_crossover(
    axis: str, tokens: int | None, fits: dict[str, Fit], curves: Mapping[str, Curves], measured: dict[str, Array]
) -> Row:
    """Return the value on an axis from which on the GPT's law is below the LSTM's.

    `tokens` is the budget that it is for, None along the best use of FLOPs; `share` that of the resamples that cross;
    `measured` whether it is inside what both ladders measured; `reason` why the value or the interval is missing.
    """
    row: Row = {"axis": axis, "tokens": tokens, "value": None, "interval": (None, None), "share": None}
    row |= {"measured": None, "reason": why_not_identified(fits)}
    if row["reason"]:
        return row
    gpt, lstm = (curves[a](np.vstack([fits[a].theta, fits[a].resampled])) for a in PAIR)
    found = np.exp(crossings(gpt, lstm, measured))
    row["share"] = float(np.isfinite(found[1:]).mean())
    if not np.isfinite(found[0]):
        return row | {"reason": "the law of the GPT does not fall below that of the LSTM"}
    interval = percentiles(found[1:], fits["gpt"].degrees_of_freedom)
    inside = max(m.min() for m in measured.values()) <= found[0] <= min(m.max() for m in measured.values())
    reason = "too many resamples do not cross" if None in interval else None
    return row | {"value": float(found[0]), "interval": interval, "measured": bool(inside), "reason": reason}


def crossings(gpt: Array, lstm: Array, measured: dict[str, Array]) -> Array:
    """Return the log x above which the GPT's law is below the LSTM's, or NaN if there is none: [rows].

    The laws are rows of (E, a, alpha). The search covers the measured x and SEARCH_FACTOR beyond on both sides.
    """
    everything = np.concatenate(list(measured.values()))
    grid = np.linspace(np.log(everything.min() / SEARCH_FACTOR), np.log(everything.max() * SEARCH_FACTOR), 400)

    def lead(log_x: Array) -> Array:
        ours, theirs = (t[:, :1] + np.exp(t[:, 1:2] - t[:, 2:] * log_x) for t in (gpt, lstm))
        difference: Array = theirs - ours
        return difference

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


def compare_resources(pairs: dict[str, Runs], budget: int, budgets: list[int], resources: list[str]) -> list[Row]:
    """Return how many times more of a resource the GPT needs than the LSTM for the same loss, inside what both reach.

    `size` is the one that tokens are compared at, `tokens` the budget that all other resources are compared at.
    """
    _, samples, degrees = resampled_means(pairs, [budget], resources)
    rows = at_equal_loss(
        samples[:, :, 0], degrees, [{"resource": r, "size": None, "tokens": budget} for r in resources]
    )
    if len(budgets) > 1:
        sizes, samples, degrees = resampled_means(pairs, budgets, ["tokens"])
        for k, size in enumerate(sizes):
            rows += at_equal_loss(samples[:, k], degrees, [{"resource": "tokens", "size": size, "tokens": None}])
    return rows


def resampled_means(pairs: dict[str, Runs], budgets: list[int], names: list[str]) -> tuple[list[str], Array, int]:
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
    nothing = np.empty((0, len(budgets), len(PAIR), 1 + len(names)))
    means = np.stack([group.mean(axis=0) for group in groups.values()]) if groups else nothing
    residuals = np.concatenate(
        [nothing] + [(g - g.mean(axis=0)) * np.sqrt(len(g) / (len(g) - 1)) for g in groups.values() if len(g) > 1]
    )
    noise = np.full((RESAMPLES_OF_RATIOS, *means.shape), np.nan)
    generator = np.random.default_rng(0)
    for k, group in enumerate(groups.values() if len(residuals) else ()):
        drawn = generator.integers(len(residuals), size=(RESAMPLES_OF_RATIOS, len(group)))
        noise[:, k] = residuals[drawn].mean(axis=1)
    degrees = max(1, sum(len(group) - 1 for group in groups.values()))
    return list(groups), np.concatenate([means[None], means + noise]), degrees


def at_equal_loss(samples: Array, degrees: int, labels: list[Row]) -> list[Row]:
    """Compare what both need at losses that both reach, from [1 + resamples, points, architectures, 1 + resources].

    Amounts are log loss, then log resources; `labels` has the first fields of the rows of each resource.
    """
    losses = samples[0, :, :, 0]
    if not len(losses):
        return []
    low, high = losses.min(axis=0).max(), losses[0].min()
    if low >= high:
        return []
    targets = low + np.array(SHARES_OF_OVERLAP) * (high - low)
    costs = np.stack([[cost_at(sample[:, a], targets) for a in range(len(PAIR))] for sample in samples])
    one_seed = None if np.isfinite(samples).all() else "one seed of each size does not measure the noise"
    rows = []
    for k, target in enumerate(targets):
        for j, label in enumerate(labels):
            gpt, lstm = (float(cost) for cost in np.exp(costs[0, :, k, j]))
            interval = percentiles(np.exp(costs[1:, 0, k, j] - costs[1:, 1, k, j]), degrees)
            reason = one_seed or ("too many resamples do not reach this loss" if None in interval else None)
            row = {"loss": float(np.exp(target)), "gpt": gpt, "lstm": lstm, "ratio": gpt / lstm}
            rows.append({**label, **row, "interval": interval, "reason": reason})
    return rows


def cost_at(points: Array, targets: Array) -> Array:
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


def compare_positions(runs: dict[str, Runs], budget: int) -> Row:
    """Return the loss by visible characters at the largest size, from paired runs of one budget.

    `bins` are the first and last visible character of each bin, which doubles in width; see `position_curve`.
    """
    size = list(by_size(runs["gpt"]))[-1]
    gpt, lstm = (np.array([run["validation_loss_by_position"] for run in runs[a] if run["size"] == size]) for a in PAIR)
    visible = np.arange(1, gpt.shape[1] + 1)
    of_bin = np.maximum(1, np.ceil(np.log2(visible))).astype(int)
    bins = [(int(visible[of_bin == k][0]), int(visible[of_bin == k][-1])) for k in np.unique(of_bin)]
    curves = {"gpt": gpt, "lstm": lstm, "difference": gpt - lstm}
    return {
        "size": size,
        "tokens": budget,
        "seeds": len(gpt),
        "bins": bins,
        **{name: position_curve(losses, bins) for name, losses in curves.items()},
        "reason": "one seed does not measure the noise" if len(gpt) < 2 else None,
    }


def scatter_of(tail: Array, x: Array) -> tuple[list[float], int]:
    """Return the autocovariances of the scatter of `tail` about a line in centred x, and its degrees of freedom.

    They are weighted as in the estimate of Newey & West 1987.
    """
    residual = tail - tail.mean() - (x @ tail) / np.sum(x**2) * x
    spare = len(tail) - 2
    lags = int(4 * (len(tail) / 100) ** (2 / 9))
    covariance = [
        float(residual[lag:] @ residual[: len(tail) - lag]) / spare * (1 - lag / (lags + 1)) for lag in range(lags + 1)
    ]
    return covariance, spare


def position_curve(losses: Array, bins: list[tuple[int, int]]) -> Row:
    """Return the curve of losses [seeds, positions]: `loss` and `intervals` by bin, and how it falls.

    `slope` is the change per doubling over the last two bins. `falls_until`: what follows so many characters is
    significantly below the bin that ends there, and so for every bin before it; None if that holds for no bin. All
    seeds are read on the same text, so its noise does not average out: it is taken from the scatter of neighbouring
    positions about a straight line over the last two bins, with their correlation.
    """
    visible = np.arange(1, losses.shape[1] + 1)
    first = bins[-2][0] - 1
    doublings = np.log2(visible[first:])
    doublings = doublings - doublings.mean()
    fall = np.zeros(len(visible))
    fall[first:] = doublings / np.sum(doublings**2)
    covariance, spare = scatter_of(losses.mean(axis=0)[first:], doublings)

    def estimate(contrast: Array) -> tuple[float, Interval]:
        """Return a sum over positions with its interval, degrees of freedom after Welch and Satterthwaite."""
        values = losses @ contrast
        if len(values) < 2:
            return float(values[0]), (None, None)
        of_seeds = values.var(ddof=1) / len(values)
        of_text = sum(
            (1 if lag == 0 else 2) * entry * (contrast[lag:] @ contrast[: len(contrast) - lag])
            for lag, entry in enumerate(covariance)
        )
        variance = max(of_seeds + of_text, 1e-30)
        share = of_seeds / variance
        degrees = 1 / (share**2 / (len(values) - 1) + (1 - share) ** 2 / spare)
        mean, reach = float(values.mean()), float(student.ppf(EDGES[1], degrees) * np.sqrt(variance))
        return mean, (mean - reach, mean + reach)

    means = [((visible >= low) & (visible <= high)) / (high - low + 1) for low, high in bins]
    binned = [estimate(mean) for mean in means]
    slope, slope_interval = estimate(fall)
    falls_until = None
    for (_, last), mean in zip(bins[:-1], means[:-1], strict=True):
        _, (_, above) = estimate((visible > last) / np.sum(visible > last) - mean)
        if above is None or above >= 0:
            break
        falls_until = last
    return {
        "loss": [loss for loss, _ in binned],
        "intervals": [interval for _, interval in binned],
        "slope": slope,
        "slope_interval": slope_interval,
        "falls_until": falls_until,
    }
