"""Figures of a corpus: lengths, keys, metres, sources, drops and token frequencies."""

from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

COLOURS = {"train": "#0072B2", "validation": "#E69F00", "test": "#D55E00"}  # Okabe and Ito's palette
MAX_BARS = 24  # the rest is summed
STYLE: dict[Any, Any] = {
    "figure.dpi": 150,
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.alpha": 0.25,
    "legend.frameon": False,
    "text.parse_math": False,  # a dollar sign is a character of the corpus
}


def draw_figures(stats: dict[str, Any], lengths: dict[str, list[int]], folder: Path) -> None:
    """Write the figures of a corpus as PNG; `lengths` are characters per tune of each split, all keys included."""
    dropped = {"characters dropped": stats["characters_accounted"]["dropped"], "tunes dropped": stats["drops"]}
    with mpl.rc_context(STYLE):
        figures = {
            "lengths": _lengths(lengths),
            "keys": _bars("key", {"tunes": stats["keys"]}),
            "metres": _bars("metre", {"tunes": stats["metres"]}),
            "sources": _bars("source", {"tunes": stats["sources"]}),
            "drops": _bars("reason", {label: counts for label, counts in dropped.items() if counts}),
            "token_frequencies": _frequencies(stats["character_counts"]),
        }
        for name, figure in figures.items():
            # Without the version of matplotlib, the same numbers give the same bytes.
            figure.savefig(folder / f"{name}.png", metadata={"Software": None})


def _lengths(lengths: dict[str, list[int]]) -> Figure:
    figure = Figure(figsize=(5.6, 3.4), layout="constrained")
    axes: Axes = figure.add_subplot()
    every = np.concatenate([np.asarray(of) for of in lengths.values()])
    edges = np.unique(np.geomspace(every.min(), every.max() + 1, 50).astype(int))
    for split, of in lengths.items():
        label = f"{split}: {len(of):,} tunes, median {np.median(of):,.0f}"
        axes.hist(of, bins=edges.tolist(), histtype="step", linewidth=1.5, color=COLOURS[split], label=label)
    axes.set(xscale="log", yscale="log", xlabel="characters per tune", ylabel="tunes")
    axes.xaxis.set_major_formatter("{x:,.0f}")
    axes.yaxis.set_major_formatter("{x:,.0f}")
    axes.set_ylim(top=12 * axes.get_ylim()[1])  # space for the legend
    axes.legend()
    return figure


def _bars(label: str, panels: dict[str, dict[str, int]]) -> Figure:
    """Draw horizontal bars, the largest first, one panel for each set of counts."""
    height = 0.8 + 0.19 * max((min(len(counts), MAX_BARS + 1) for counts in panels.values()), default=0)
    figure = Figure(figsize=(5.6 * max(1, len(panels)), max(2.0, height)), layout="constrained")
    for column, (unit, counts) in enumerate(panels.items(), 1):
        axes: Axes = figure.add_subplot(1, len(panels), column)
        shown = dict(list(counts.items())[:MAX_BARS])
        if len(counts) > MAX_BARS:
            shown[f"{len(counts) - MAX_BARS} others"] = sum(counts.values()) - sum(shown.values())
        bars = axes.barh(range(len(shown)), list(shown.values()), color=COLOURS["train"])
        axes.bar_label(bars, labels=[f" {count:,}" for count in shown.values()], fontsize=7)
        axes.set_yticks(range(len(shown)), [_printable(name) for name in shown])
        axes.set(xlabel=unit, ylabel=label if column == 1 else "", ylim=(len(shown) - 0.4, -0.6))
        axes.margins(x=0.15)
        axes.grid(axis="y", visible=False)
        axes.xaxis.set_major_formatter("{x:,.0f}")
        axes.locator_params(axis="x", nbins=5)
    return figure


def _frequencies(counts: dict[str, int]) -> Figure:
    figure = Figure(figsize=(11, 3.2), layout="constrained")
    axes: Axes = figure.add_subplot()
    axes.bar(range(len(counts)), list(counts.values()), color=COLOURS["train"])
    names = {" ": "blank", "\n": "line end"}
    axes.set_xticks(range(len(counts)), [names.get(token, _printable(token)) for token in counts], fontsize=7)
    for label in axes.get_xticklabels():
        label.set_rotation(90 if len(label.get_text()) > 1 else 0)
    axes.set(yscale="log", xlabel="token (character)", ylabel="count", xlim=(-0.8, len(counts) - 0.2))
    axes.yaxis.set_major_formatter("{x:,.0f}")
    axes.grid(axis="x", visible=False)
    return figure


def _printable(label: str) -> str:
    """Return a label of at most 34 letters, all of which the font has."""
    plain = "".join(c if c.isprintable() and ord(c) < 0x250 else "?" for c in label)
    return plain if len(plain) <= 34 else f"{plain[:33]}…"
