"""Quality against size: what the scores of a study's tunes say of GPT and LSTM, with intervals and verdicts.

The unit of chance is a run, one (size, seed): tunes of one run are more alike than tunes of two. Curves are fitted to
the runs and their intervals are bootstraps over them: a run's count holds its own binomial noise, which is therefore
not drawn a second time. Runs of one size and seed get the same weights in both architectures.
"""

from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit, logit
from scipy.stats import norm
from scipy.stats import t as t_distribution

from cli import UserError
from generation.quality import Z95

Data = dict[str, Any]
Array = NDArray[np.float64]

ARCHITECTURES = ("gpt", "lstm")
AXES = ("n_params", "n_params_non_embedding")
LOSS = "validation_loss"
RESAMPLES = 2000
MIN_SIZES, MIN_RUNS = 3, 6  # for a curve, or an interval over runs: below, bootstraps are far too narrow
PRIOR = 10.0  # standard deviation of logits in the middle and of their change to an end: finite at 0 % and 100 %
TRACE = 1e-3
LINE_POINTS, LOSS_POINTS = 25, 9
SHARES = {
    "parses": "parses",
    "no_errors": "no errors",
    "bars_add_up": "bars add up",
    "enough_notes": "enough notes",
    "ended": "ended by itself",
    "valid": "valid (all tiers)",
    "repeats_close": "repeats close",
    "tonic_ending": "ends on the tonic",
    "key_kept": "keeps its key",
    "copied": "copied from training",
}
DISTANCES = {
    "distance_pitch_class": "distance: pitch classes",
    "distance_interval": "distance: intervals",
    "distance_duration": "distance: durations",
    "distance_notes_per_bar": "distance: notes per bar",
    "distance_length": "distance: length",
    "distance_key": "distance: key",
    "distance_metre": "distance: metre",
}
NUMBERS = {
    "longest_copied_run": "longest copied run (notes)",
    "repeated_bars": "bars that repeat an earlier",
    "ngram_overlap": "n-grams found in training",
}
ABILITIES = ("bars_add_up", "repeats_close", "tonic_ending", "key_kept")
NO_ABILITY = "copied"  # a share that people's tunes are no ceiling of, and better when lower
# What a model without the ability reaches: its last note drawn evenly from the seven notes of the scale.
CHANCE = {"tonic_ending": 1 / 7}


@dataclass(frozen=True)
class Metric:
    """One metric: `better` is 1 if more is better, -1 if less is, 0 if neither; `human` is by split, or None."""

    name: str
    label: str
    kind: str  # share, distance or number
    better: int
    chance: float
    human: dict[str, Data | None]
    floor: Data | None

    @property
    def goal(self) -> float | None:
        """The human validation share, if there is one above chance."""
        human = self.human["validation"]
        value = None if human is None or self.kind != "share" or self.name == NO_ABILITY else human["share"]
        return value if value is not None and value > self.chance else None

    @property
    def level(self) -> float | None:
        """The share from which the ability counts as there: halfway from chance to the goal."""
        return None if self.goal is None else (self.chance + self.goal) / 2


@dataclass(frozen=True)
class Measured:
    """One metric of one architecture's runs, [runs] each: shares with their tunes, numbers with their standard error.

    `total` is 1 for a number and `error` 0 for a share.
    """

    cells: list[Data]
    value: Array
    total: Array
    error: Array

    def groups(self) -> dict[str, list[int]]:
        """Return the places of the runs of each size, smallest size first."""
        found: dict[str, list[int]] = {}
        for i, cell in enumerate(self.cells):
            found.setdefault(cell["size"], []).append(i)
        return found


@dataclass(frozen=True)
class Curve:
    """A metric as a curve in x: share = chance + (ceiling − chance)·σ(a + b·t), or a line a + b·t of it or its log.

    t is x from -1 to 1 over what was measured. The first of `parameters` [1 + resamples, 2] is the best.
    """

    form: str  # logistic, line or log line
    ends: tuple[float, float]
    chance: float
    ceiling: float
    parameters: Array
    freedom: int
    flat: str | None  # why the curve is flat without a doubt to be measured

    def predict(self, x: Array) -> Array:
        """Return the metric at x: [1 + resamples, places]."""
        middle, half = _span(self.ends)
        line = self.parameters[:, :1] + self.parameters[:, 1:] * (x - middle) / half
        if self.form == "logistic":
            return self.chance + (self.ceiling - self.chance) * expit(line)
        return np.exp(line) if self.form == "log line" else line

    def crossing(self, level: float) -> Array:
        """Return the x at which rising logistic curves reach a share, infinite if they do nowhere: [1 + resamples]."""
        middle, half = _span(self.ends)
        a, b = self.parameters.T
        rest = float(logit((level - self.chance) / (self.ceiling - self.chance))) - a
        never = np.where(rest > 0, np.inf, -np.inf)
        return np.where(b > 0, middle + half * rest / np.where(b > 0, b, 1), never)

    def slope(self) -> Array:
        """Return b per unit of x: [1 + resamples]."""
        return self.parameters[:, 1] / _span(self.ends)[1]


def _span(ends: tuple[float, float]) -> tuple[float, float]:
    return (ends[0] + ends[1]) / 2, (ends[1] - ends[0]) / 2


class Draw:
    """How often each run, one (size, seed), is drawn in each resample; of all a trace stays: any can be fitted."""

    def __init__(self, clusters: list[tuple[str, int]], resamples: int, seed: int) -> None:
        self.column = {cluster: i for i, cluster in enumerate(clusters)}
        even = np.full(len(clusters), 1 / len(clusters))
        self.weights = np.maximum(np.random.default_rng(seed).multinomial(len(clusters), even, resamples), TRACE)

    def of(self, clusters: list[tuple[str, int]]) -> Array:
        """Return the weights of these runs: [resamples, clusters]."""
        return self.weights[:, [self.column[cluster] for cluster in clusters]]


# Intervals


def percentiles(samples: Array, freedom: int) -> tuple[Array, Array]:
    """Return the 95 % interval over the first axis, read where Student's t of `freedom` lies on the normal.

    Plain percentiles are too narrow with few runs (Hesterberg 2015).
    """
    share = norm.cdf(t_distribution.ppf(0.025, freedom))
    low, high = np.quantile(np.clip(samples, -1e9, 1e9), (share, 1 - share), axis=0)
    return low, high


def estimate(samples: Array, freedom: int) -> Data:
    """Return the first sample with the interval of the others as JSON, and on which side of zero the interval lies."""
    low, high = (float(edge) for edge in percentiles(samples[1:], freedom))
    return {"value": float(samples[0]), "interval": [low, high], "sign": sign([low, high])}


def sign(interval: list[float]) -> int:
    """Return 1 or -1 if the interval lies on that side of zero, 0 while it holds it."""
    return int(interval[0] > 0) - int(interval[1] < 0)


def wilson(share: float, total: float) -> list[float]:
    """Return the 95 % interval of a share (Wilson 1927); `total` need not be whole."""
    centre = (share + Z95**2 / (2 * total)) / (1 + Z95**2 / total)
    half = Z95 / (1 + Z95**2 / total) * np.sqrt(share * (1 - share) / total + Z95**2 / (4 * total**2))
    return [max(0.0, float(centre - half)), min(1.0, float(centre + half))]


def newcombe(one: Data, other: Data) -> list[float]:
    """Return the 95 % interval of the difference one − other from their own intervals (Newcombe 1998, method 10)."""
    value = one["value"] - other["value"]
    (low, high), (other_low, other_high) = one["interval"], other["interval"]
    down = np.hypot(one["value"] - low, other_high - other["value"])
    up = np.hypot(high - one["value"], other["value"] - other_low)
    return [float(value - down), float(value + up)]


# What was measured


def list_metrics(quality: Data, cells: list[Data]) -> list[Metric]:
    """Return the metrics that any cell has, in their order."""
    found = []
    for kind, labels, where in (
        ("share", SHARES, "shares"),
        ("distance", DISTANCES, "numbers"),
        ("number", NUMBERS, "numbers"),
    ):
        for name, label in labels.items():
            if any(name in cell[where] for cell in cells):
                better = -1 if kind == "distance" or name == NO_ABILITY else int(kind == "share")
                chance = (CHANCE | quality.get("chance", {})).get(name, 0.0)
                human = {split: quality["human"][split][where].get(name) for split in ("validation", "test")}
                found.append(Metric(name, label, kind, better, chance, human, quality["floors"].get(name)))
    return found


def measure(cells: list[Data], metric: Metric) -> Measured:
    """Return a metric of the runs that have it: distances are those to the test split."""
    kept, rows = [], []
    for cell in cells:
        if metric.kind == "share":
            row = cell["shares"].get(metric.name)
            values = (row["count"] / row["total"], row["total"], 0.0) if row and row["total"] else None
        else:
            row = cell["test_numbers" if metric.kind == "distance" else "numbers"].get(metric.name)
            known = row is not None and row["value"] is not None
            values = (row["value"], 1.0, (row["interval"][1] - row["interval"][0]) / (2 * Z95)) if known else None
        if values is not None:
            kept.append(cell)
            rows.append(values)
    value, total, error = np.array(rows, dtype=float).reshape(-1, 3).T
    return Measured(kept, value, total, error)


def overdispersion(runs: Measured) -> float:
    """Return how many times more shares vary over seeds than tunes explain, at least 1: Pearson's χ²/freedom."""
    squares = freedom = 0.0
    for group in runs.groups().values():
        value, total = runs.value[group], runs.total[group]
        share = np.average(value, weights=total)
        if 0 < share < 1:
            squares += np.sum(total * (value - share) ** 2) / (share * (1 - share))
            freedom += len(group) - 1
    return max(1.0, squares / freedom) if freedom else 1.0


def seed_variance(runs: Measured) -> float:
    """Return the variance of a number over seeds beyond what its tunes explain, at least 0."""
    excess = [
        runs.value[group].var(ddof=1) - np.mean(runs.error[group] ** 2)
        for group in runs.groups().values()
        if len(group) > 1
    ]
    return max(0.0, float(np.mean(excess))) if excess else 0.0


def size_points(metric: Metric, runs: Measured) -> list[Data]:
    """Return each size's value over its seeds with an interval that holds their spread.

    Shares: Wilson's with the tunes divided by the overdispersion (Rao & Scott 1992). Numbers: normal, with the variance
    over tunes (of the bootstrap that came with them) and over seeds.
    """
    rows = []
    spread = overdispersion(runs) if metric.kind == "share" else seed_variance(runs)
    for size, group in runs.groups().items():
        first, total = runs.cells[group[0]], runs.total[group]
        value = float(np.average(runs.value[group], weights=total))
        if metric.kind == "share":
            interval = wilson(value, total.sum() / spread)
        else:
            reach = Z95 * np.sqrt((np.mean(runs.error[group] ** 2) + spread) / len(group))
            interval = [float(value - reach), float(value + reach)]
        row = {"size": size, **{axis: first[axis] for axis in AXES}, "temperature": first["temperature"]}
        row |= {LOSS: float(np.mean([runs.cells[i][LOSS] for i in group])), "runs": len(group)}
        row |= {"value": value, "interval": interval}
        if metric.kind == "share":
            row |= {"tunes": int(total.sum()), "overdispersion": spread}
        rows.append(row)
    return rows


# Temperatures


def choose_temperatures(cells: list[Data], floors: Data) -> list[Data]:
    """Return for each architecture and size the temperature whose tunes are nearest to the VALIDATION split.

    The rule: each distance over its floor, mean over the distances and then over the seeds; the smallest wins, of
    equals the one nearest to 1. Only a temperature with the most seeds, and all distances in each, can win.
    """
    rows = []
    for architecture, size in dict.fromkeys((cell["architecture"], cell["size"]) for cell in cells):
        mine = [cell for cell in cells if (cell["architecture"], cell["size"]) == (architecture, size)]
        names = [
            name
            for name in DISTANCES
            if (floors.get(name) or {}).get("value") and any(_distance(cell, name) is not None for cell in mine)
        ]
        scores = []
        for temperature in sorted({cell["temperature"] for cell in mine}):
            at = [[_distance(cell, name) for name in names] for cell in mine if cell["temperature"] == temperature]
            whole = bool(names) and all(value is not None for row in at for value in row)
            score = float(np.mean(np.array(at) / [floors[name]["value"] for name in names])) if whole else None
            scores.append({"temperature": temperature, "seeds": len(at), "score": score})
        most = max(row["seeds"] for row in scores)
        able = [row for row in scores if row["score"] is not None and row["seeds"] == most]
        best = min(able or scores, key=lambda row: (row["score"] or 0, abs(row["temperature"] - 1)))
        rows.append(
            {
                "architecture": architecture,
                "size": size,
                "chosen": best["temperature"],
                "reason": None if able else "no temperature has all distances: the one nearest to 1 is taken",
                "scores": scores,
            }
        )
    return rows


def _distance(cell: Data, name: str) -> float | None:
    """Return a distance to the validation split, None if it was not measured."""
    return (cell["numbers"].get(name) or {}).get("value")


# Curves


def fit_logistic(t: Array, count: Array, total: Array, chance: float, ceiling: float) -> Array:
    """Return a, b of share = chance + (ceiling − chance)·σ(a + b·t) by maximum likelihood: [fits, 2].

    t [places], count and total [fits, places]. Fisher scoring, damped where a step would lower the likelihood. A weak
    normal prior (PRIOR) keeps shares of 0 % and 100 % finite.
    """
    design = np.stack([np.ones_like(t), t])  # [2, places]
    span = ceiling - chance
    mean = np.clip((count.sum(axis=1) / total.sum(axis=1) - chance) / span, 0.01, 0.99)
    theta = np.stack([logit(mean), np.zeros(len(count))], axis=1)

    def likelihood(theta: Array, count: Array, total: Array) -> tuple[Array, Array, Array]:
        sigma = expit(theta @ design)
        share = np.clip(chance + span * sigma, 1e-12, 1 - 1e-12)
        value = np.sum(count * np.log(share) + (total - count) * np.log1p(-share), axis=1)
        return value - np.sum(theta**2, axis=1) / (2 * PRIOR**2), share, span * sigma * (1 - sigma)

    left, damping = np.arange(len(count)), np.full(len(count), 1e-3)
    best, share, rate = likelihood(theta, count, total)
    for _ in range(100):
        k, n, now = count[left], total[left], theta[left]
        weight = rate / (share * (1 - share))
        gradient = ((k - n * share) * weight) @ design.T - now / PRIOR**2
        information = n * rate * weight
        damp = 1 + damping[left]
        one, both, two = (information @ (design[i] * design[j]) for i, j in ((0, 0), (0, 1), (1, 1)))
        one, two = (one + PRIOR**-2) * damp, (two + PRIOR**-2) * damp
        step = np.stack([two * gradient[:, 0] - both * gradient[:, 1], one * gradient[:, 1] - both * gradient[:, 0]])
        step = (step / (one * two - both**2)).T
        value, new_share, new_rate = likelihood(now + step, k, n)
        better = value >= best
        theta[left] = np.where(better[:, None], now + step, now)
        damping[left] *= np.where(better, 0.1, 10)
        best, share, rate = (
            np.where(better, value, best),
            np.where(better[:, None], new_share, share),
            np.where(better[:, None], new_rate, rate),
        )
        open_ = (np.abs(step) > 1e-5).any(axis=1)
        left, best, share, rate = left[open_], best[open_], share[open_], rate[open_]
        if not len(left):
            break
    return theta


def fit_line(t: Array, value: Array, weights: Array) -> Array:
    """Return a, b of value = a + b·t by weighted least squares: [fits, 2] for weights [fits, runs]."""
    whole = weights.sum(axis=1)
    t_mean, mean = weights @ t / whole, weights @ value / whole
    off = t - t_mean[:, None]
    b = np.sum(weights * off * value, axis=1) / np.sum(weights * off**2, axis=1)
    return np.stack([mean - b * t_mean, b], axis=1)


def why_no_curve(runs: Measured) -> str | None:
    """Return why a curve through these runs would say nothing, or None."""
    if len(runs.groups()) < MIN_SIZES:
        return f"fewer than {MIN_SIZES} sizes"
    return f"fewer than {MIN_RUNS} runs" if len(runs.cells) < MIN_RUNS else None


def places(runs: Measured, axis: str) -> Array:
    """Return where the runs lie on an axis, [runs]: the logarithm to base 10 of a count of parameters, or the loss."""
    x = np.array([cell[axis] for cell in runs.cells], dtype=float)
    return x if axis == LOSS else np.log10(x)


def spread_out(value: Array, fitted: Array, t: Array, information: Array) -> Array:
    """Return the values with their residuals over √(1 − leverage), as runs pull a curve towards themselves.

    Without it a bootstrap over few runs is too narrow (HC2: MacKinnon & White 1985).
    """
    design = np.stack([np.ones_like(t), t], axis=1)
    inverse = np.linalg.inv(design.T @ (information[:, None] * design))
    leverage = information * np.sum(design @ inverse * design, axis=1)
    return fitted + (value - fitted) / np.sqrt(1 - np.minimum(leverage, 0.9))


def fit_curve(metric: Metric, runs: Measured, axis: str, weights: Array, ceiling: float) -> Curve:
    """Fit a metric against an axis: to the runs as they are, and for every row of weights [resamples, runs]."""
    x = places(runs, axis)
    ends = (float(x.min()), float(x.max()))
    middle, half = _span(ends)
    t, value = (x - middle) / half, runs.value
    if metric.kind == "share":
        form, flat = "logistic", {0.0: "no tune passes", 1.0: "every tune passes"}.get(value[0])
        at, index = np.unique(t, return_inverse=True)
        share_out = np.eye(len(at))[index]  # runs of one place count together

        def fit(value: Array, weights: Array) -> Array:
            count, total = ((weights * of) @ share_out for of in (value * runs.total, runs.total))
            return fit_logistic(at, count, total, metric.chance, ceiling)

        best = fit(value, np.ones((1, len(t))))
        sigma = expit(best[0, 0] + best[0, 1] * t)
        fitted = metric.chance + (ceiling - metric.chance) * sigma
        rate = (ceiling - metric.chance) * sigma * (1 - sigma)
        information = runs.total * rate**2 / np.maximum(fitted * (1 - fitted), 1e-12) + PRIOR**-2
        moved = np.clip(spread_out(value, fitted, t, information), 0, 1)
    else:
        form, flat = "line", "every run has the same value"
        if metric.kind == "distance" and value.min() > 0:
            form, value = "log line", np.log(value)
        fit = partial(fit_line, t)
        best = fit(value, np.ones((1, len(t))))
        moved = spread_out(value, best[0, 0] + best[0, 1] * t, t, np.ones_like(t))
    parameters = np.concatenate([best, fit(moved, weights)])
    flat = flat if np.ptp(value) == 0 else None
    return Curve(form, ends, metric.chance, ceiling, parameters, len(t) - 2, flat)


def ceiling_of(metric: Metric, points: dict[str, list[Data]]) -> float:
    """Return the ceiling of a share's curves: the human validation share, or 1 where models are above it.

    Above: a size lies over it by more than twice its interval's reach, as one of many sizes lies over it by once.
    """
    every = [row for rows in points.values() for row in rows]
    if metric.goal is None or any(2 * row["interval"][0] - row["value"] > metric.goal for row in every):
        return 1.0
    return metric.goal


def curve_row(curve: Curve, axis: str) -> Data:
    """Return a curve as JSON: its slope (per decade of N, or per nat) with a verdict, and its line with a band."""
    slope = estimate(curve.slope(), curve.freedom)
    if curve.flat:
        slope = {"value": 0.0, "interval": [None, None], "sign": 0}
    x = np.linspace(*curve.ends, LINE_POINTS)
    y = curve.predict(x)
    low, high = percentiles(y[1:], curve.freedom)
    at = x if axis == LOSS else 10**x
    line = {"at": at.tolist(), "value": y[0].tolist(), "low": low.tolist(), "high": high.tolist()}
    return {
        "form": curve.form,
        "ceiling": curve.ceiling if curve.form == "logistic" else None,
        "slope": slope,
        "verdict": {1: "rises", -1: "falls", 0: "not told from flat"}[slope["sign"]],
        "reason": curve.flat,
        "line": line,
    }


# Where an ability appears


def appearance(level: float, curve: Curve, rises: bool) -> tuple[Data, Array | None]:
    """Return the N at which a curve passes a level, as JSON, and its logarithms [1 + resamples] if there is one.

    `status`: `measured`; `below` the smallest size; `beyond` the largest; `no trend` if it is not shown to rise. An
    edge of the interval is None where it lies outside of the sizes measured: nothing is extrapolated.
    """
    first, last = curve.ends
    ends = curve.predict(np.array(curve.ends))
    if percentiles(ends[1:, 0], curve.freedom)[0] > level:
        row = {"status": "below", "value": None, "interval": [None, round(10**first)], "reason": None}
        return row, np.full(len(ends), first)
    if not rises:
        reason = f"not shown to rise: {ends[0, 1]:.3f} at the largest size, level {level:.3f}"
        return {"status": "no trend", "value": None, "interval": [None, None], "reason": reason}, None
    x = curve.crossing(level)
    low, high = percentiles(x[1:], curve.freedom)
    status = "below" if x[0] < first else "beyond" if x[0] > last else "measured"
    value = float(10 ** x[0]) if status == "measured" else None
    low_edge, high_edge = (round(10 ** min(max(float(edge), first), last)) for edge in (low, high))
    interval = [low_edge if low >= first else None, high_edge if high <= last else None]
    return {"status": status, "value": value, "interval": interval, "reason": None}, np.clip(x, first, last)


def ratio_of(rows: dict[str, Data], logs: dict[str, Array | None], freedom: int) -> Data:
    """Return N of the LSTM over N of the GPT at which an ability appears.

    A side is None where an N may lie outside of the sizes measured in that direction.
    """
    gpt, lstm = logs["gpt"], logs["lstm"]
    if gpt is None or lstm is None:
        lacking = " and ".join(name for name in ARCHITECTURES if logs[name] is None)
        return {"value": None, "interval": [None, None], "sign": 0, "reason": f"no N for {lacking}"}
    low, high = (float(edge) for edge in percentiles((lstm - gpt)[1:], freedom))
    low_open = rows["lstm"]["interval"][0] is None or rows["gpt"]["interval"][1] is None
    high_open = rows["lstm"]["interval"][1] is None or rows["gpt"]["interval"][0] is None
    both = all(row["status"] == "measured" for row in rows.values())
    return {
        "value": float(10 ** (lstm[0] - gpt[0])) if both else None,
        "interval": [None if low_open else 10**low, None if high_open else 10**high],
        "sign": int(not low_open and low > 0) - int(not high_open and high < 0),
        "reason": None if both else "an N lies outside of the sizes measured",
    }


# LSTM against GPT


def equal_size(runs: dict[str, Measured], points: dict[str, list[Data]], draw: Draw) -> Data:
    """Return LSTM − GPT of a metric at each matched size and over the pairs of runs of one size and seed."""
    sizes = []
    gpt_rows = {row["size"]: row for row in points["gpt"]}
    for row in points["lstm"]:
        other = gpt_rows.get(row["size"])
        if other is not None:
            interval = newcombe(row, other)
            value = row["value"] - other["value"]
            sizes.append({"size": row["size"], "value": value, "interval": interval, "sign": sign(interval)})
    values = {
        name: {(cell["size"], cell["seed"]): value for cell, value in zip(found.cells, found.value, strict=True)}
        for name, found in runs.items()
    }
    pairs = sorted(values["gpt"].keys() & values["lstm"].keys())
    mean: Data = {"value": None, "interval": [None, None], "sign": 0, "pairs": len(pairs)}
    if pairs:
        off = np.array([values["lstm"][pair] - values["gpt"][pair] for pair in pairs])
        mean["value"] = float(off.mean())
        if len(pairs) >= MIN_RUNS and np.ptp(off) > 0:
            weights = draw.of(pairs)
            means = weights @ off / weights.sum(axis=1)
            mean |= estimate(np.append(mean["value"], means), len(pairs) - 1)
    return {"sizes": sizes, "mean": mean}


def equal_loss(curves: dict[str, Curve]) -> Data:
    """Return LSTM − GPT of a metric at equal validation loss: mean over the losses that both reach, and along them."""
    gpt, lstm = curves["gpt"], curves["lstm"]
    low, high = max(gpt.ends[0], lstm.ends[0]), min(gpt.ends[1], lstm.ends[1])
    if low >= high:
        ranges = ", ".join(f"{name} {c.ends[0]:.3f}–{c.ends[1]:.3f}" for name, c in curves.items())
        return _no_difference(f"no common range of losses ({ranges})")
    if gpt.flat and gpt.flat == lstm.flat:
        return _no_difference(f"both: {gpt.flat}") | {"range": [low, high]}
    x = np.linspace(low, high, LOSS_POINTS)
    off = lstm.predict(x) - gpt.predict(x)
    freedom = min(gpt.freedom, lstm.freedom)
    bottom, top = percentiles(off[1:], freedom)
    line = {"at": x.tolist(), "value": off[0].tolist(), "low": bottom.tolist(), "high": top.tolist()}
    return {**estimate(off.mean(axis=1), freedom), "range": [low, high], "line": line, "reason": None}


def _no_difference(reason: str) -> Data:
    return {"value": None, "interval": [None, None], "sign": 0, "range": None, "line": None, "reason": reason}


# The whole


def compare(metric: Metric, cells: dict[str, list[Data]], draw: Draw) -> Data:
    """Return all that is found of one metric at one choice of temperatures."""
    runs = {name: measure(mine, metric) for name, mine in cells.items()}
    points = {name: size_points(metric, found) for name, found in runs.items()}
    ceiling = ceiling_of(metric, points) if metric.kind == "share" else 1.0
    reasons = {name: why_no_curve(found) for name, found in runs.items()}
    curves = {
        name: {
            axis: fit_curve(
                metric, found, axis, draw.of([(cell["size"], cell["seed"]) for cell in found.cells]), ceiling
            )
            for axis in (*AXES, LOSS)
        }
        for name, found in runs.items()
        if reasons[name] is None
    }
    rows = {name: {axis: curve_row(curve, axis) for axis, curve in mine.items()} for name, mine in curves.items()}
    result: Data = {"points": points, "curves": rows, "no_curve": {name: why for name, why in reasons.items() if why}}
    if metric.name in ABILITIES and metric.level is not None:
        result["appears"] = {}
        for axis in AXES:
            found = {
                name: appearance(metric.level, mine[axis], rows[name][axis]["slope"]["sign"] > 0)
                for name, mine in curves.items()
            }
            at = {name: row for name, (row, _) in found.items()}
            freedom = min((mine[axis].freedom for mine in curves.values()), default=0)
            ratio = ratio_of(at, {name: logs for name, (_, logs) in found.items()}, freedom) if len(at) == 2 else None
            result["appears"][axis] = {"at": at, "ratio": ratio}
    if cells.keys() >= set(ARCHITECTURES):
        result["equal_size"] = equal_size(runs, points, draw)
        lacking = "; ".join(f"{name}: {why}" for name, why in result["no_curve"].items())
        result["equal_loss"] = (
            _no_difference(lacking) if lacking else equal_loss({name: curves[name][LOSS] for name in ARCHITECTURES})
        )
    return result


def cells_of(quality: Data, bars: str) -> list[Data]:
    """Return the cells of one way of decoding (`free`, or `strict`: bars made to add up), smallest models first."""
    return sorted(
        (cell for cell in quality["cells"] if cell["bars"] == bars), key=lambda cell: (cell["n_params"], cell["seed"])
    )


def analyse(quality: Data, resamples: int = RESAMPLES, seed: int = 0, bars: str = "free") -> Data:
    """Return what the scores of a study's tunes (quality.json) say of quality against size, as JSON.

    `chosen` holds every metric at the temperature chosen on validation, `at_1` at temperature 1 (None without such
    cells). `quality["chance"]`, if it is there, gives chance levels that were measured, by metric. Raises UserError if
    there is no cell of this way of decoding.
    """
    cells = cells_of(quality, bars)
    if not cells:
        raise UserError(f"quality.json: no cell has bars {bars!r}: generate such tunes for the sizes of a study first")
    temperatures = choose_temperatures(cells, quality["floors"])
    metrics = list_metrics(quality, cells)
    draw = Draw(sorted({(cell["size"], cell["seed"]) for cell in cells}), resamples, seed)
    chosen = {(row["architecture"], row["size"]): row["chosen"] for row in temperatures}

    def view(picked: list[Data]) -> Data | None:
        by_name = {name: [cell for cell in picked if cell["architecture"] == name] for name in ARCHITECTURES}
        mine = {name: own for name, own in by_name.items() if own}
        return {metric.name: compare(metric, mine, draw) for metric in metrics} if mine else None

    return {
        "resamples": resamples,
        "seed": seed,
        "bars": bars,
        "temperatures": temperatures,
        "metrics": [{**asdict(metric), "level": metric.level} for metric in metrics],
        "chosen": view([c for c in cells if c["temperature"] == chosen[c["architecture"], c["size"]]]),
        "at_1": view([c for c in cells if c["temperature"] == 1]),
    }
