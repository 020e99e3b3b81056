"""quality.md and the headlines of quality.json, rendered from the analysis of quality against size."""

from collections.abc import Iterator
from math import exp
from pathlib import Path
from typing import Any

from files import format_count, render
from generation.quality_vs_size import ARCHITECTURES, CHANCE, MIN_RUNS, MIN_SIZES, Data, cells_of

REPORT, FINDING = (Path(__file__).parent / name for name in ("quality.md.j2", "finding.md.j2"))
NAMES = {"gpt": "GPT", "lstm": "LSTM"}
AXIS_NAMES = {"n_params": "parameters", "n_params_non_embedding": "non-embedding parameters"}
FINDINGS = ("valid", "no_errors", "bars_add_up", "repeated_bars", "copied")
HEADLINES = ("valid", "repeated_bars")
MEAN_SHARES = ("repeated_bars", "ngram_overlap")  # numbers that are shares of a tune
LISTED = 5  # disagreements with each validator; quality.json has more
NOT_IDENTIFIED, NO_DIFFERENCE = "not identified", "no significant difference"


def format_value(metric: Data, value: float, sign: str = "", unit: bool = True) -> str:
    """Return a value of a metric: shares in percent, their differences in points, others with three digits."""
    if metric["kind"] != "share" and metric["name"] not in MEAN_SHARES:
        return f"{value:{sign}.3g}"
    value = value if sign else max(value, 0.0)  # the interval of a mean share near 0 reaches below
    return f"{100 * value:{sign}.1f}{('' if sign else ' %') if unit else ''}"


def format_row(metric: Data, row: Data | None, sign: str = "", interval: bool = True) -> str:
    """Return a row's value or share with its interval; a dash if there is none."""
    value = None if row is None else row.get("value", row.get("share"))
    if row is None or value is None:
        return "–"
    shown = format_value(metric, value, sign)
    if not interval:
        return shown
    if None in row["interval"]:
        return f"{shown} [no interval]"
    return f"{shown} [{', '.join(format_value(metric, edge, sign, unit=False) for edge in row['interval'])}]"


def format_slope(found: Data, architecture: str, axis: str) -> str:
    """Return a slope with its interval and verdict, or why there is none."""
    if architecture not in found["curves"]:
        return f"{NOT_IDENTIFIED}: {found['no_curve'][architecture]}"
    curve = found["curves"][architecture][axis]
    if curve["reason"]:
        return f"{curve['verdict']}: {curve['reason']}"
    slopes = curve["slope"]["value"], *curve["slope"]["interval"]
    value, low, high = (f"{exp(b):.3g}" if curve["form"] == "log line" else f"{b:+.3g}" for b in slopes)
    return f"{'× ' if curve['form'] == 'log line' else ''}{value} [{low}, {high}], {curve['verdict']}"


def format_appearance(row: Data | None, points: list[Data], axis: str) -> str:
    """Return the N at which an ability appears; edges outside of the measured sizes as < and >."""
    if row is None or not points:
        return "–"
    first, last = (format_count(pick(point[axis] for point in points)) for pick in (min, max))
    if row["status"] == "no trend":
        return f"{NOT_IDENTIFIED}: no significant rise ({row['reason']})"
    low, high = (edge and format_count(edge) for edge in row["interval"])
    value = {"below": f"< {first}", "beyond": f"> {last}"}.get(row["status"]) or format_count(row["value"])
    outside = (row["status"], low, high) in (("below", None, first), ("beyond", last, None))
    return value if outside else f"{value} [{low or f'< {first}'}, {high or f'> {last}'}]"


def format_ratio(row: Data | None) -> str:
    """Return N of the LSTM over N of the GPT with its interval."""
    if row is None or row["interval"] == [None, None]:
        return NOT_IDENTIFIED
    edges = ", ".join("open" if edge is None else f"{edge:.2g}" for edge in row["interval"])
    return f"{'outside of the sizes' if row['value'] is None else format(row['value'], '.2g')} [{edges}]"


def verdict(metric: Data, row: Data) -> str:
    """Return which architecture the interval of LSTM − GPT favours."""
    if row["value"] is None:
        return f"{NOT_IDENTIFIED}: {row['reason']}" if row.get("reason") else NOT_IDENTIFIED
    if row["sign"] == 0:
        return NO_DIFFERENCE
    if metric["better"] == 0:
        return "LSTM higher" if row["sign"] > 0 else "GPT higher"
    return "LSTM better" if row["sign"] == metric["better"] else "GPT better"


def findings(analysis: Data, names: tuple[str, ...] = FINDINGS) -> list[str]:
    """Return a line for each of these metrics: smallest and largest size, trend, human tunes, LSTM against GPT."""
    metrics = {metric["name"]: metric for metric in analysis["metrics"]}
    shown = [name for name in names if name in analysis["chosen"]]
    return [render(FINDING, metric=metrics[name], found=analysis["chosen"][name], **FORMATS).strip() for name in shown]


def report(quality: Data, analysis: Data) -> str:
    """Return the report as Markdown; the figures are beside it."""
    cells = cells_of(quality, analysis["bars"])
    decided = list(decisions([analysis["chosen"], analysis["at_1"]]))
    spreads = [
        row["overdispersion"]
        for view in (analysis["chosen"], analysis["at_1"] or {})
        for found in view.values()
        for rows in found["points"].values()
        for row in rows[:1]
        if "overdispersion" in row
    ]
    return render(
        REPORT,
        quality=quality,
        analysis=analysis,
        metrics={metric["name"]: metric for metric in analysis["metrics"]},
        architectures=[name for name in ARCHITECTURES if any(cell["architecture"] == name for cell in cells)],
        cells=cells,
        runs={name: len({(c["size"], c["seed"]) for c in cells if c["architecture"] == name}) for name in NAMES},
        fewest=min((row["total"], name) for cell in cells for name, row in cell["shares"].items()),
        spread=max(spreads, default=1.0),
        tests=len(decided),
        significant=sum(row["sign"] != 0 for row in decided),
        chance=CHANCE,
        min_sizes=MIN_SIZES,
        min_runs=MIN_RUNS,
        listed=LISTED,
        axes=AXIS_NAMES,
        **FORMATS,
    )


def sizes(found: Data) -> list[str]:
    """Return the sizes that any architecture has, smallest first."""
    n = {row["size"]: row["n_params"] for rows in found["points"].values() for row in rows}
    return sorted(n, key=lambda size: n[size])


def of_size(rows: list[Data], size: str) -> Data | None:
    """Return the row of a size, if there is one."""
    return next((row for row in rows if row["size"] == size), None)


def decisions(part: Any) -> Iterator[Data]:
    """Yield every interval that is compared with zero."""
    if isinstance(part, dict):
        if "sign" in part and None not in part["interval"]:
            yield part
        part = list(part.values())
    if isinstance(part, list):
        for value in part:
            yield from decisions(value)


FORMATS: dict[str, Any] = {
    "names": NAMES,
    "row": format_row,
    "value": format_value,
    "slope": format_slope,
    "appearance": format_appearance,
    "ratio": format_ratio,
    "verdict": verdict,
    "sizes": sizes,
    "of_size": of_size,
}
