"""What a corpus looks like: lengths, keys, metres, sources, drops and token frequencies."""

from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

COLOURS = {"train": "#0072B2", "validation": "#E69F00", "test": "#D55E00"}  # Okabe and Ito's palette
BAR_COLOUR = "#0072B2"
MOST = 24  # bars a figure, the rest is summed
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
METADATA = {"Software": None}  # the same numbers give the same bytes


def draw_figures(stats: dict[str, Any], lengths: dict[str, list[int]], folder: Path) -> None:
    """Write the figures of a corpus as PNG; `lengths` are characters a tune, as each split is trained on."""
    with mpl.rc_context(STYLE):
        _draw_lengths(lengths, folder / "lengths.png")
        _bars(stats["keys"], "key", "tunes", folder / "keys.png")
        _bars(stats["metres"], "metre", "tunes", folder / "metres.png")
        _bars(stats["sources"], "source", "tunes", folder / "sources.png")
        dropped = stats["characters_accounted"]["dropped"]
        _bars(dropped, "reason", "characters dropped", folder / "drops.png", stats["drops"])
        names = {_name(character): count for character, count in stats["character_counts"].items()}
        _draw_frequencies(names, folder / "token_frequencies.png")


def _save(figure: Figure, path: Path) -> None:
    figure.savefig(path, format="png", metadata=METADATA)


def _name(character: str) -> str:
    return {" ": "blank", "\n": "line end"}.get(character, _printed(character))


def _printed(label: str) -> str:
    """Return a label of 34 letters at most, all of which the font has."""
    plain = "".join(c if c.isprintable() and ord(c) < 0x250 else "?" for c in label)
    return plain if len(plain) <= 34 else f"{plain[:33]}…"


def _draw_lengths(lengths: dict[str, list[int]], path: Path) -> None:
    figure = Figure(figsize=(5.6, 3.4), layout="constrained")
    axes: Axes = figure.add_subplot()
    everything = np.concatenate([np.asarray(of) for of in lengths.values()])
    edges = np.unique(np.geomspace(everything.min(), everything.max() + 1, 50).astype(int))
    for split, of in lengths.items():
        label = f"{split}: {len(of):,} tunes, median {np.median(of):,.0f}"
        axes.hist(of, bins=edges.tolist(), histtype="step", linewidth=1.5, color=COLOURS[split], label=label)
    axes.set(xscale="log", yscale="log", xlabel="characters a tune", ylabel="tunes")
    axes.xaxis.set_major_formatter("{x:,.0f}")
    axes.yaxis.set_major_formatter("{x:,.0f}")
    axes.set_ylim(top=12 * axes.get_ylim()[1])  # room for the legend
    axes.legend()
    _save(figure, path)


def _bars(counts: dict[str, int], what: str, unit: str, path: Path, beside: dict[str, int] | None = None) -> None:
    """Draw horizontal bars, the most first; `beside` adds a second panel, of whole tunes."""
    panels = [(counts, unit), *([(beside, "tunes dropped")] if beside else [])]
    height = 0.8 + 0.19 * max(min(len(of), MOST + 1) for of, _ in panels)
    figure = Figure(figsize=(5.6 * len(panels), max(2.0, height)), layout="constrained")
    for place, (of, axis_label) in enumerate(panels):
        axes: Axes = figure.add_subplot(1, len(panels), place + 1)
        shown = dict(list(of.items())[:MOST])
        if len(of) > MOST:
            shown[f"{len(of) - MOST} others"] = sum(of.values()) - sum(shown.values())
        labels = [_printed(label) for label in shown]
        bars = axes.barh(range(len(shown)), list(shown.values()), color=BAR_COLOUR)
        axes.bar_label(bars, labels=[f" {count:,}" for count in shown.values()], fontsize=7)
        axes.set_yticks(range(len(shown)), labels)
        axes.set(xlabel=axis_label, ylabel=what if place == 0 else "", ylim=(len(shown) - 0.4, -0.6))
        axes.margins(x=0.15)
        axes.grid(axis="y", visible=False)
        axes.xaxis.set_major_formatter("{x:,.0f}")
        axes.locator_params(axis="x", nbins=5)
    _save(figure, path)


def _draw_frequencies(counts: dict[str, int], path: Path) -> None:
    figure = Figure(figsize=(11, 3.2), layout="constrained")
    axes: Axes = figure.add_subplot()
    axes.bar(range(len(counts)), list(counts.values()), color=BAR_COLOUR)
    axes.set_xticks(range(len(counts)), list(counts), fontsize=7)
    for label in axes.get_xticklabels():
        label.set_rotation(90 if len(label.get_text()) > 1 else 0)
    axes.set(yscale="log", xlabel="token (character)", ylabel="count", xlim=(-0.8, len(counts) - 0.2))
    axes.yaxis.set_major_formatter("{x:,.0f}")
    axes.grid(axis="x", visible=False)
    _save(figure, path)
