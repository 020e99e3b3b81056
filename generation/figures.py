"""The figures of quality against size: sizes as points, curves with bands, human tunes and training tunes as lines."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator, PercentFormatter

from files import atomic_write, format_count
from generation.quality_vs_size import LOSS, Data
from generation.report import NAMES

# Okabe and Ito's palette: distinct for colour-blind readers too. The figures of loss use the same colours.
COLOURS = {"gpt": "#0072B2", "lstm": "#D55E00"}
MARKERS = {"gpt": "o", "lstm": "s"}
HUMAN, TRAINING, GREY = "#009E73", "#CC79A7", "#666666"
COLUMNS = 4
STEPS = [1, 2, 2.5, 5, 10]  # of axis ticks
BESIDE = 1.3  # factor from the smallest and largest size to the arrows outside of them
STYLE: dict[Any, Any] = {
    "figure.dpi": 150,
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.alpha": 0.25,
    "legend.edgecolor": "none",
    "svg.hashsalt": "music-scaling-laws",  # the same numbers give the same bytes
}
METADATA: dict[str, dict[str, None]] = {"png": {"Software": None}, "svg": {"Date": None, "Creator": None}}


def draw_figures(analysis: Data, folder: Path) -> None:
    """Write quality_over_size, quality_over_loss and abilities as PNG and SVG, at the chosen temperatures."""
    metrics, view = {metric["name"]: metric for metric in analysis["metrics"]}, analysis["chosen"]
    draw_panels(folder / "quality_over_size", metrics, view, "n_params")
    draw_panels(folder / "quality_over_loss", metrics, view, LOSS)
    draw_abilities(folder / "abilities", metrics, view)


@contextmanager
def figure(path: Path, width: float, height: float) -> Iterator[Figure]:
    """Give a new figure, in inches; at the end it is written to `path`.png and `path`.svg."""
    with mpl.rc_context(STYLE):
        canvas = Figure(figsize=(width, height), layout="constrained")
        yield canvas
        for kind, metadata in METADATA.items():
            with atomic_write(path.with_name(f"{path.name}.{kind}")) as temporary:
                canvas.savefig(temporary, format=kind, metadata=metadata)


def legend(canvas: Figure, lines: list[Line2D], title: str) -> None:
    """Put the architectures and further lines above the figure."""
    handles = [Line2D([], [], color=COLOURS[a], marker=MARKERS[a], ms=4, mfc="none", label=NAMES[a]) for a in NAMES]
    handles += lines
    canvas.legend(handles=handles, loc="outside upper center", ncols=len(handles), title=title, title_fontsize=9)


def draw_panels(path: Path, metrics: dict[str, Data], view: Data, axis: str) -> None:
    """Draw every metric in its own panel, against parameters or validation loss."""
    rows = -(-len(view) // COLUMNS)
    with figure(path, 2.75 * COLUMNS, 2.05 * rows + 0.8) as canvas:
        for i, (name, found) in enumerate(view.items()):
            draw_panel(canvas.add_subplot(rows, COLUMNS, i + 1), metrics[name], found, axis)
        canvas.supxlabel("parameters N" if axis == "n_params" else "validation loss (nats per character)", fontsize=10)
        lines = [
            Line2D([], [], color=HUMAN, ls="--", label="human test tunes"),
            Line2D([], [], color=TRAINING, ls=":", label="training tunes (distances)"),
        ]
        legend(canvas, lines, "points: sizes, seeds pooled; bars and bands: 95 %; temperature chosen on validation")


def draw_panel(axes: Axes, metric: Data, found: Data, axis: str) -> None:
    """Draw one metric: sizes with intervals, curves with bands, human tunes and training tunes."""
    for row, colour, style in ((metric["human"]["test"], HUMAN, "--"), (metric["baseline"], TRAINING, ":")):
        value = None if row is None else row.get("value", row.get("share"))
        if row is not None and value is not None:
            axes.axhspan(*row["interval"], color=colour, alpha=0.15, lw=0)
            axes.axhline(value, color=colour, lw=1.2, ls=style)
    for architecture, rows in found["points"].items():
        colour = COLOURS[architecture]
        if architecture in found["curves"]:
            line = found["curves"][architecture][axis]["line"]
            axes.plot(line["at"], line["value"], color=colour, lw=1.2)
            axes.fill_between(line["at"], line["low"], line["high"], color=colour, alpha=0.15, lw=0)
        if rows:
            x, y = (np.array([row[key] for row in rows]) for key in (axis, "value"))
            low, high = np.array([row["interval"] for row in rows]).T
            errors = np.maximum([y - low, high - y], 0)
            axes.errorbar(x, y, errors, fmt=MARKERS[architecture], color=colour, ms=4, mfc="white", lw=0.9)
    if axis == "n_params":
        label_parameters(axes)
    else:
        axes.xaxis.set_major_locator(MaxNLocator(4, steps=STEPS))
    axes.yaxis.set_major_locator(MaxNLocator(5, steps=STEPS))
    if metric["kind"] == "share":
        axes.yaxis.set_major_formatter(PercentFormatter(1))
    axes.set_title(metric["label"], fontsize=9)


def label_parameters(axes: Axes) -> None:
    """Make the horizontal axis logarithmic, labelled 10K, 30K, 100K, or by decades if it is long."""
    axes.set_xscale("log")
    low, high = axes.get_xlim()
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 3) if high < 200 * low else (1,), numticks=12))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: format_count(value)))


def draw_abilities(path: Path, metrics: dict[str, Data], view: Data) -> None:
    """Draw the N at which each ability appears, with arrows outside of the measured sizes."""
    shown = {name: found["appears"]["n_params"]["at"] for name, found in view.items() if "appears" in found}
    sizes = [row["n_params"] for found in view.values() for rows in found["points"].values() for row in rows]
    first, last = min(sizes), max(sizes)
    with figure(path, 6.4, 1.3 + 0.55 * max(1, len(shown))) as canvas:
        axes = canvas.add_subplot()
        axes.set_xlim(first / BESIDE**2, last * BESIDE**2)
        for edge in (first, last):
            axes.axvline(edge, color=GREY, lw=0.8, ls="--")
        for i, at in enumerate(shown.values()):
            for architecture, row in at.items():
                draw_appearance(axes, row, i + (0.16 if architecture == "lstm" else -0.16), architecture, first, last)
        axes.set_yticks(range(len(shown)), [metrics[name]["label"] for name in shown])
        axes.set_ylim(max(1, len(shown)) - 0.5, -0.5)
        axes.grid(axis="y", visible=False)
        label_parameters(axes)
        axes.set_xlabel("parameters N at which the share passes halfway from chance to human tunes")
        legend(canvas, [], "bars: 95 % intervals; dashed: smallest and largest size; arrows: outside of them")


def draw_appearance(axes: Axes, row: Data, y: float, architecture: str, first: float, last: float) -> None:
    """Draw a point with its interval, or arrows or words in its place."""
    colour = COLOURS[architecture]
    if row["status"] == "no trend":
        words = f"{NAMES[architecture]}: not identified"
        axes.text(np.sqrt(first * last), y, words, color=colour, fontsize=8, ha="center", va="center")
        return
    low, high = row["interval"]
    axes.plot([low or first / BESIDE, high or last * BESIDE], [y, y], color=colour, lw=1.4)
    for edge, at, arrow in ((low, first / BESIDE, "<"), (high, last * BESIDE, ">")):
        if edge is None:
            axes.plot(at, y, arrow, color=colour, ms=6)
    if row["status"] == "measured":
        axes.plot(row["value"], y, MARKERS[architecture], color=colour, ms=6)
