"""Quality against size: every metric of the tunes by size, its trends, and GPT against LSTM, from quality.json."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from analysis.intervals import Array, Z, wilson
from cli import UserError
from generation.curves import Curve, Run, band, bootstrap_weights, fit_number, fit_share, interval
from generation.quality import TIERS

Data = dict[str, Any]

ARCHITECTURES = ("gpt", "lstm")
AXES = ("n_params", "n_params_non_embedding")
LOSS = "validation_loss"
RESAMPLES = 2000
MIN_SIZES, MIN_RUNS = 3, 6  # for a curve, or an interval over runs: below, bootstraps are far too narrow
LINE_POINTS, LOSS_POINTS = 25, 9
SHARES = {
    **{name: tier.label for name, tier in TIERS.items()},
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
    "repeated_bars": "repeated bars",
    "ngram_overlap": "n-grams found in training",
}
KINDS = (("share", SHARES), ("distance", DISTANCES), ("number", NUMBERS))
ABILITIES = ("bars_add_up", "repeats_close", "tonic_ending", "key_kept")
COPIED = "copied"  # better when lower, and human tunes are no ceiling of it
CHANCE = {"tonic_ending": 1 / 7}  # without the ability: the last note drawn evenly from the scale
RISES, FALLS, NO_TREND = "rises", "falls", "no significant trend"


@dataclass(frozen=True)
class Metric:
    """One metric. `better` is 1 if more is better, -1 if less is, 0 if neither; `human` is by split, or None."""

    name: str
    label: str
    kind: str  # share, distance or number
    better: int
    chance: float
    human: dict[str, Data | None]
    baseline: Data | None  # the distance of as many training tunes

    @property
    def goal(self) -> float | None:
        """The share of human validation tunes, if it is above chance."""
        human = self.human["validation"]
        value = None if human is None or self.kind != "share" or self.name == COPIED else human["share"]
        return value if value is not None and value > self.chance else None

    @property
    def level(self) -> float | None:
        """The share at which the ability appears: halfway from chance to the goal."""
        return None if self.goal is None else (self.chance + self.goal) / 2


@dataclass(frozen=True)
class Measured:
    """One metric of one architecture's runs, [runs] each: shares of `total` tunes, or numbers with standard `error`.

    `total` is 1 for a number and `error` 0 for a share.
    """

    cells: list[Data]
    value: Array
    total: Array
    error: Array

    @property
    def runs(self) -> list[Run]:
        return [(cell["size"], cell["seed"]) for cell in self.cells]

    @property
    def sizes(self) -> dict[str, list[int]]:
        """The indices of the runs of each size, smallest size first."""
        found: dict[str, list[int]] = {}
        for i, cell in enumerate(self.cells):
            found.setdefault(cell["size"], []).append(i)
        return found

    @property
    def no_curve(self) -> str | None:
        """Why no curve can be fitted to these runs."""
        if len(self.sizes) < MIN_SIZES:
            return f"fewer than {MIN_SIZES} sizes"
        return f"fewer than {MIN_RUNS} runs" if len(self.cells) < MIN_RUNS else None


def list_metrics(quality: Data, cells: Sequence[Data]) -> list[Metric]:
    """Return the metrics that any cell has."""
    found = []
    for kind, labels in KINDS:
        part = "shares" if kind == "share" else "numbers"
        for name, label in labels.items():
            if any(name in cell[part] for cell in cells):
                better = -1 if kind == "distance" or name == COPIED else int(kind == "share")
                chance = (CHANCE | quality.get("chance", {})).get(name, 0.0)
                human = {split: quality["human"][split][part].get(name) for split in ("validation", "test")}
                found.append(Metric(name, label, kind, better, chance, human, quality["floors"].get(name)))
    return found


def measure(cells: Sequence[Data], metric: Metric) -> Measured:
    """Return a metric of the runs that have it. Distances are those to the test split."""
    kept, rows = [], []
    for cell in cells:
        part = {"share": "shares", "distance": "test_numbers", "number": "numbers"}[metric.kind]
        row = cell[part].get(metric.name)
        if metric.kind == "share" and row is not None and row["total"]:
            rows.append((row["count"] / row["total"], row["total"], 0.0))
        elif metric.kind != "share" and row is not None and row["value"] is not None:
            rows.append((row["value"], 1.0, (row["interval"][1] - row["interval"][0]) / (2 * Z)))
        else:
            continue
        kept.append(cell)
    value, total, error = np.array(rows, dtype=float).reshape(-1, 3).T
    return Measured(kept, value, total, error)


# Each size


def sign(edges: Sequence[float]) -> int:
    """Return 1 or -1 if an interval is on that side of zero, 0 if it includes zero."""
    return int(edges[0] > 0) - int(edges[1] < 0)


def estimate(samples: Array, degrees: int) -> Data:
    """Return the first sample, the 95 % interval of the others, and the interval's sign."""
    edges = interval(samples[1:], degrees).tolist()
    return {"value": float(samples[0]), "interval": edges, "sign": sign(edges)}


def overdispersion(measured: Measured) -> float:
    """Return how many times more shares vary over seeds than binomially, at least 1: Pearson's χ² / degrees."""
    squares = degrees = 0.0
    for group in measured.sizes.values():
        value, total = measured.value[group], measured.total[group]
        share = np.average(value, weights=total)
        if 0 < share < 1:
            squares += np.sum(total * (value - share) ** 2) / (share * (1 - share))
            degrees += len(group) - 1
    return max(1.0, squares / degrees) if degrees else 1.0


def seed_variance(measured: Measured) -> float:
    """Return the variance of a number over seeds beyond that over tunes, at least 0."""
    excess = [
        measured.value[group].var(ddof=1) - np.mean(measured.error[group] ** 2)
        for group in measured.sizes.values()
        if len(group) > 1
    ]
    return max(0.0, float(np.mean(excess))) if excess else 0.0


def size_points(metric: Metric, measured: Measured) -> list[Data]:
    """Return each size's value over its seeds, with an interval that includes their spread.

    Shares: Wilson's with the tunes divided by the overdispersion (Rao & Scott 1992). Numbers: normal, with the variance
    over tunes (of the interval that came with them) and over seeds.
    """
    rows = []
    spread = overdispersion(measured) if metric.kind == "share" else seed_variance(measured)
    for size, group in measured.sizes.items():
        first, total = measured.cells[group[0]], measured.total[group]
        value = float(np.average(measured.value[group], weights=total))
        row = {"size": size, **{axis: first[axis] for axis in AXES}, "temperature": first["temperature"]}
        row |= {LOSS: float(np.mean([measured.cells[i][LOSS] for i in group])), "runs": len(group), "value": value}
        if metric.kind == "share":
            row |= {"interval": list(wilson(value, total.sum() / spread))}
            row |= {"tunes": int(total.sum()), "overdispersion": spread}
        else:
            reach = Z * float(np.sqrt((np.mean(measured.error[group] ** 2) + spread) / len(group)))
            row |= {"interval": [value - reach, value + reach]}
        rows.append(row)
    return rows


def choose_temperatures(cells: Sequence[Data], baselines: Data) -> list[Data]:
    """Return for each architecture and size the temperature whose tunes are nearest to the VALIDATION split.

    The smallest mean over distances and seeds of each distance divided by that of as many training tunes wins, of equal
    ones the temperature nearest to 1. Only a temperature with the most seeds, and all distances in each, can win.
    """
    rows = []
    for architecture, size in dict.fromkeys((cell["architecture"], cell["size"]) for cell in cells):
        mine = [cell for cell in cells if (cell["architecture"], cell["size"]) == (architecture, size)]
        names = [
            name
            for name in DISTANCES
            if (baselines.get(name) or {}).get("value") and any(_distance(cell, name) is not None for cell in mine)
        ]
        scores = []
        for temperature in sorted({cell["temperature"] for cell in mine}):
            at = [[_distance(cell, name) for name in names] for cell in mine if cell["temperature"] == temperature]
            complete = bool(names) and all(value is not None for row in at for value in row)
            score = float(np.mean(np.array(at) / [baselines[name]["value"] for name in names])) if complete else None
            scores.append({"temperature": temperature, "seeds": len(at), "score": score})
        most = max(row["seeds"] for row in scores)
        able = [row for row in scores if row["score"] is not None and row["seeds"] == most]
        best = min(able or scores, key=lambda row: (row["score"] or 0, abs(row["temperature"] - 1)))
        reason = None if able else "no temperature has all distances: the one nearest to 1"
        chosen = {"architecture": architecture, "size": size, "chosen": best["temperature"]}
        rows.append({**chosen, "reason": reason, "scores": scores})
    return rows


def _distance(cell: Data, name: str) -> float | None:
    return (cell["numbers"].get(name) or {}).get("value")


# Trends


def ceiling_of(metric: Metric, points: dict[str, list[Data]]) -> float:
    """Return the ceiling of a share's curves: the human validation share, or 1 if models are clearly above it.

    Clearly: a size is above it by more than twice the reach of its interval; by once, one of many sizes is by chance.
    """
    every = [row for rows in points.values() for row in rows]
    if metric.goal is None or any(2 * row["interval"][0] - row["value"] > metric.goal for row in every):
        return 1.0
    return metric.goal


def fit_curve(metric: Metric, measured: Measured, axis: str, weights: dict[Run, Array], ceiling: float) -> Curve:
    """Fit a metric against log10 of a parameter count, or against the loss."""
    x = np.array([cell[axis] for cell in measured.cells], dtype=float)
    x = x if axis == LOSS else np.log10(x)
    drawn = np.stack([weights[run] for run in measured.runs], axis=1)
    if metric.kind == "share":
        return fit_share(x, measured.value, measured.total, drawn, metric.chance, ceiling)
    return fit_number(x, measured.value, drawn, log=metric.kind == "distance" and measured.value.min() > 0)


def describe_curve(curve: Curve, axis: str) -> Data:
    """Return a curve as JSON: its slope (per decade of N, or per nat) with a verdict, and its line with a band."""
    slope = estimate(curve.slope(), curve.degrees)
    if curve.flat:
        slope = {"value": 0.0, "interval": [None, None], "sign": 0}
    return {
        "form": curve.form,
        "ceiling": curve.ceiling if curve.form == "logistic" else None,
        "slope": slope,
        "verdict": {1: RISES, -1: FALLS, 0: NO_TREND}[slope["sign"]],
        "reason": curve.flat,
        "line": line_of(np.linspace(*curve.ends, LINE_POINTS), curve.predict, curve.degrees, log=axis != LOSS),
    }


def line_of(x: Array, predict: Any, degrees: int, log: bool = False) -> Data:
    """Return a line with its band at the points x, which may be logarithms, as JSON."""
    y = predict(x)
    low, high = band(y[1:], degrees)
    at = 10**x if log else x
    return {"at": at.tolist(), "value": y[0].tolist(), "low": low.tolist(), "high": high.tolist()}


def appearance(level: float, curve: Curve, rises: bool) -> tuple[Data, Array | None]:
    """Return the N at which a curve passes a level, as JSON, and its logarithms [1 + resamples] if there is one.

    `status`: `measured`; `below` the smallest size; `beyond` the largest; `no trend` if it does not rise significantly.
    An edge of the interval is None if it is outside of the measured sizes: nothing is extrapolated.
    """
    first, last = curve.ends
    ends = curve.predict(np.array(curve.ends))
    if interval(ends[1:, 0], curve.degrees)[0] > level:
        row = {"status": "below", "value": None, "interval": [None, round(10**first)], "reason": None}
        return row, np.full(len(ends), first)
    if not rises:
        reason = f"{ends[0, 1]:.3f} at the largest size, level {level:.3f}"
        return {"status": "no trend", "value": None, "interval": [None, None], "reason": reason}, None
    x = curve.crossing(level)
    low, high = interval(x[1:], curve.degrees).tolist()
    status = "below" if x[0] < first else "beyond" if x[0] > last else "measured"
    low_edge, high_edge = (round(10 ** min(max(edge, first), last)) for edge in (low, high))
    edges = [low_edge if low >= first else None, high_edge if high <= last else None]
    value = float(10 ** x[0]) if status == "measured" else None
    return {"status": status, "value": value, "interval": edges, "reason": None}, np.clip(x, first, last)


def ratio_of(rows: dict[str, Data], logs: dict[str, Array | None], degrees: int) -> Data:
    """Return N of the LSTM over N of the GPT at which an ability appears.

    A side is None if an N may be outside of the measured sizes in that direction.
    """
    gpt, lstm = logs["gpt"], logs["lstm"]
    if gpt is None or lstm is None:
        lacking = " and ".join(name for name in ARCHITECTURES if logs[name] is None)
        return {"value": None, "interval": [None, None], "sign": 0, "reason": f"no N for {lacking}"}
    low, high = interval((lstm - gpt)[1:], degrees).tolist()
    low_open = rows["lstm"]["interval"][0] is None or rows["gpt"]["interval"][1] is None
    high_open = rows["lstm"]["interval"][1] is None or rows["gpt"]["interval"][0] is None
    both = all(row["status"] == "measured" for row in rows.values())
    return {
        "value": float(10 ** (lstm[0] - gpt[0])) if both else None,
        "interval": [None if low_open else 10**low, None if high_open else 10**high],
        "sign": int(not low_open and low > 0) - int(not high_open and high < 0),
        "reason": None if both else "an N is outside of the measured sizes",
    }


# LSTM against GPT


def newcombe(one: Data, other: Data) -> list[float]:
    """Return the 95 % interval of the difference one − other from their own intervals (Newcombe 1998, method 10)."""
    value = one["value"] - other["value"]
    (low, high), (other_low, other_high) = one["interval"], other["interval"]
    down = np.hypot(one["value"] - low, other_high - other["value"])
    up = np.hypot(high - one["value"], other["value"] - other_low)
    return [float(value - down), float(value + up)]


def equal_size(measured: dict[str, Measured], points: dict[str, list[Data]], weights: dict[Run, Array]) -> Data:
    """Return LSTM − GPT of a metric at each matched size, and its mean over the pairs of runs of one size and seed."""
    sizes = []
    gpt_rows = {row["size"]: row for row in points["gpt"]}
    for row in points["lstm"]:
        other = gpt_rows.get(row["size"])
        if other is not None:
            edges = newcombe(row, other)
            value = row["value"] - other["value"]
            sizes.append({"size": row["size"], "value": value, "interval": edges, "sign": sign(edges)})
    gpt, lstm = (dict(zip(measured[name].runs, measured[name].value, strict=True)) for name in ARCHITECTURES)
    pairs = sorted(gpt.keys() & lstm.keys())
    mean: Data = {"value": None, "interval": [None, None], "sign": 0, "pairs": len(pairs)}
    if pairs:
        difference = np.array([lstm[pair] - gpt[pair] for pair in pairs])
        mean["value"] = float(difference.mean())
        if len(pairs) >= MIN_RUNS and np.ptp(difference) > 0:
            drawn = np.stack([weights[pair] for pair in pairs], axis=1)
            means = drawn @ difference / drawn.sum(axis=1)
            mean |= estimate(np.append(mean["value"], means), len(pairs) - 1)
    return {"sizes": sizes, "mean": mean}


def equal_loss(gpt: Curve, lstm: Curve) -> Data:
    """Return LSTM − GPT of a metric at equal validation loss: its mean over the common losses, and along them."""
    low, high = max(gpt.ends[0], lstm.ends[0]), min(gpt.ends[1], lstm.ends[1])
    if low >= high:
        ranges = ", ".join(f"{c.ends[0]:.3f}–{c.ends[1]:.3f}" for c in (gpt, lstm))
        return _not_identified(f"no common range of losses (GPT, LSTM: {ranges})")
    if gpt.flat and gpt.flat == lstm.flat:
        return _not_identified(f"both: {gpt.flat}") | {"range": [low, high]}

    def difference(x: Array) -> Array:
        return lstm.predict(x) - gpt.predict(x)

    x, degrees = np.linspace(low, high, LOSS_POINTS), min(gpt.degrees, lstm.degrees)
    mean = estimate(difference(x).mean(axis=1), degrees)
    return {**mean, "range": [low, high], "line": line_of(x, difference, degrees), "reason": None}


def _not_identified(reason: str) -> Data:
    return {"value": None, "interval": [None, None], "sign": 0, "range": None, "line": None, "reason": reason}


# The analysis


def compare(metric: Metric, cells: dict[str, list[Data]], weights: dict[Run, Array]) -> Data:
    """Return all results of one metric: sizes, curves, where it appears, and LSTM against GPT, as JSON."""
    measured = {name: measure(mine, metric) for name, mine in cells.items()}
    points = {name: size_points(metric, found) for name, found in measured.items()}
    ceiling = ceiling_of(metric, points) if metric.kind == "share" else 1.0
    curves = {
        name: {axis: fit_curve(metric, found, axis, weights, ceiling) for axis in (*AXES, LOSS)}
        for name, found in measured.items()
        if found.no_curve is None
    }
    rows = {name: {axis: describe_curve(curve, axis) for axis, curve in mine.items()} for name, mine in curves.items()}
    no_curve = {name: found.no_curve for name, found in measured.items() if found.no_curve}
    result: Data = {"points": points, "curves": rows, "no_curve": no_curve}
    if metric.name in ABILITIES and metric.level is not None:
        result["appears"] = {axis: appears(metric.level, curves, rows, axis) for axis in AXES}
    if cells.keys() >= set(ARCHITECTURES):
        result["equal_size"] = equal_size(measured, points, weights)
        lacking = "; ".join(f"{name}: {why}" for name, why in no_curve.items())
        result["equal_loss"] = (
            _not_identified(lacking) if lacking else equal_loss(curves["gpt"][LOSS], curves["lstm"][LOSS])
        )
    return result


def appears(level: float, curves: dict[str, dict[str, Curve]], rows: dict[str, Data], axis: str) -> Data:
    """Return the N at which an ability appears in each architecture, and their ratio if there are both."""
    found = {
        name: appearance(level, mine[axis], rises=rows[name][axis]["slope"]["sign"] > 0)
        for name, mine in curves.items()
    }
    at = {name: row for name, (row, _) in found.items()}
    degrees = min((mine[axis].degrees for mine in curves.values()), default=0)
    ratio = ratio_of(at, {name: logs for name, (_, logs) in found.items()}, degrees) if len(at) == 2 else None
    return {"at": at, "ratio": ratio}


def cells_of(quality: Data, bars: str) -> list[Data]:
    """Return the cells of one way of sampling bars, `free` or `strict`, smallest models first."""
    return sorted(
        (cell for cell in quality["cells"] if cell["bars"] == bars), key=lambda cell: (cell["n_params"], cell["seed"])
    )


def analyse(quality: Data, resamples: int = RESAMPLES, seed: int = 0, bars: str = "free") -> Data:
    """Return quality against size from the contents of quality.json, as JSON.

    `chosen` has every metric at the temperature chosen on validation, `at_1` at temperature 1 (None without such
    cells). `quality["chance"]`, if it is there, has measured chance levels by metric. Raises UserError if there is no
    cell of this way of sampling bars.
    """
    cells = cells_of(quality, bars)
    if not cells:
        raise UserError(f"quality.json: no cell has bars {bars!r}: measure such tunes first (--bars {bars})")
    temperatures = choose_temperatures(cells, quality["floors"])
    metrics = list_metrics(quality, cells)
    weights = bootstrap_weights(sorted({(cell["size"], cell["seed"]) for cell in cells}), resamples, seed)
    chosen = {(row["architecture"], row["size"]): row["chosen"] for row in temperatures}

    def view(picked: list[Data]) -> Data | None:
        by_name = {name: [cell for cell in picked if cell["architecture"] == name] for name in ARCHITECTURES}
        mine = {name: own for name, own in by_name.items() if own}
        return {metric.name: compare(metric, mine, weights) for metric in metrics} if mine else None

    return {
        "resamples": resamples,
        "seed": seed,
        "bars": bars,
        "temperatures": temperatures,
        "metrics": [{**asdict(metric), "level": metric.level} for metric in metrics],
        "chosen": view([c for c in cells if c["temperature"] == chosen[c["architecture"], c["size"]]]),
        "at_1": view([c for c in cells if c["temperature"] == 1]),
    }
