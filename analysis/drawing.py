"""What all figures share: style, files, axes with short labels, and the marks of runs, laws and profiles."""

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis, XAxis
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, Locator, LogLocator, MaxNLocator, NullLocator

from analysis.fits_json import NAMES, PARAMETERS, VARIABLES, Data
from files import atomic_write, format_count

# Okabe and Ito's palette, which colour-blind readers can distinguish.
COLOURS = {"gpt": "#0072B2", "lstm": "#D55E00"}
MARKERS = {"gpt": "o", "lstm": "s"}
METHOD_COLOURS = {"envelope": "#999999", "isoflop": "#009E73", "parametric": "#CC79A7"}
WORTH_COLOURS = {"epochs": "#009E73", "keys": "#CC79A7"}
GREY = "#666666"
LOSS = "validation loss (nats per character)"
MAX_LABELS = 6  # on a logarithmic axis
ROUND = [1, 2, 2.5, 5, 10]  # steps of even series
STYLE: dict[Any, Any] = {
    "figure.dpi": 150,
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.alpha": 0.25,
    "legend.edgecolor": "none",
    "svg.hashsalt": "music-scaling-laws",  # the same numbers give the same bytes
}
METADATA: dict[str, dict[str, None]] = {"png": {"Software": None}, "svg": {"Date": None, "Creator": None}}


@contextmanager
def figure(
    path: Path, columns: int = 1, width: float = 5.2, rows: int = 1, height: float = 3.7
) -> Iterator[list[Axes]]:
    """Give the axes of a new figure, row by row; at the end it is written to `path`.png and `path`.svg."""
    with mpl.rc_context(STYLE):
        canvas = Figure(figsize=(width * columns, height * rows), layout="constrained")
        panels = [canvas.add_subplot(rows, columns, i + 1) for i in range(rows * columns)]
        yield panels
        for panel in canvas.axes:  # the panels and their colour bars
            for axis in (panel.xaxis, panel.yaxis):
                if axis.get_scale() == "log":
                    label_log_axis(axis)
        with warnings.catch_warnings():
            # A table's column may be named in any script; boxes in one label are no reason to end the analysis.
            warnings.filterwarnings("ignore", "Glyph .* missing from font", UserWarning)
            for kind, metadata in METADATA.items():
                with atomic_write(path.with_name(f"{path.name}.{kind}")) as temporary:
                    canvas.savefig(temporary, format=kind, metadata=metadata)


def legend_below(panels: Sequence[Axes], columns: int) -> None:
    """Put one legend for all panels below them."""
    entries = {
        label: handle for axes in panels for handle, label in zip(*axes.get_legend_handles_labels(), strict=True)
    }
    canvas = panels[0].figure
    canvas.legend([*entries.values()], [*entries], loc="outside lower center", ncols=columns, fontsize=8)


def label_log_axis(axis: Axis) -> None:
    """Label a logarithmic axis with the densest of several series of ticks whose labels do not overlap."""
    low, high = axis.get_view_interval()
    flat = isinstance(axis, XAxis)
    box, em = axis.axes.bbox, STYLE["font.size"] / 72 * axis.axes.figure.dpi
    decade = (box.width if flat else box.height) / np.log10(high / low)  # in pixels, as em

    def fits(locator: Locator) -> bool:
        places = np.array([place for place in locator.tick_values(low, high) if low <= place <= high])
        space = 0.5 + 0.65 * max((len(tick(place)) for place in places), default=0) if flat else 1.5
        return 3 <= len(places) <= MAX_LABELS and np.diff(np.log10(places)).min() * decade > space * em

    even = [MaxNLocator(count, steps=ROUND) for count in (6, 4)] if high < 12 * low else []
    decades = LogLocator(numticks=MAX_LABELS - 1)
    series = [LogLocator(subs=(1, 2, 5)), *even, LogLocator(subs=(1, 3)), decades]
    axis.set_major_locator(next(filter(fits, series), decades))
    axis.set_major_formatter(FuncFormatter(tick))
    axis.set_minor_locator(NullLocator())


def tick(value: float, _: Any = None) -> str:
    """Return the label of a tick: counts in short, losses with all their digits."""
    return format_count(value) if value >= 1000 else f"{value:.5g}"


def escape_formula(text: str) -> str:
    """Return text as matplotlib shows it and not as a formula between dollar signs."""
    return text.replace("$", r"\$")


def shades(count: int) -> np.ndarray:
    """Return colours from dark to light for an ordered series: [count, 4]."""
    colours: np.ndarray = mpl.colormaps["viridis"](np.linspace(0, 0.9, count))
    return colours


def means(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the distinct x and the mean y at each."""
    places, index = np.unique(x, return_inverse=True)
    return places, np.bincount(index, y) / np.bincount(index)


def draw_points(axes: Axes, x: Any, y: Any, architecture: str, **style: Any) -> None:
    """Draw runs as open points."""
    axes.plot(x, y, MARKERS[architecture], **{"color": COLOURS[architecture], "ms": 4, "mfc": "none", **style})


def draw_band(axes: Axes, x: Any, edges: Any, colour: str) -> None:
    """Shade 95 % intervals [points, 2]; None leaves a gap."""
    low, high = np.array(edges, dtype=float).T
    axes.fill_between(x, low, high, color=colour, alpha=0.18, lw=0)


def draw_law(axes: Axes, fitted: Data, architecture: str) -> None:
    """Draw a fitted law of one variable with its 95 % band, and its irreducible loss E if that is identified."""
    line, colour, name = fitted["line"], COLOURS[architecture], NAMES[architecture]
    alpha, irreducible = fitted["parameters"]["alpha"], fitted["parameters"].get("E")
    label = f"{name}: α not identified"
    if alpha["identified"]:
        form = f"${'E + ' if irreducible else ''}A{VARIABLES[fitted['variables'][0]]}^{{-α}}$"
        label = "{}: {}, α = {:.3f} [{:.3f}, {:.3f}]".format(name, form, alpha["value"], *alpha["bootstrap"])
    axes.plot(line["at"], line["loss"], color=colour, lw=1.3, label=label)
    draw_band(axes, line["at"], list(zip(line["low"], line["high"], strict=True)), colour)
    if irreducible is not None and irreducible["identified"]:
        axes.axhline(
            irreducible["value"], color=colour, lw=0.8, ls=":", label=f"{name}: E = {irreducible['value']:.3f}"
        )


def profile_likelihoods(path: Path, fits: dict[str, Data]) -> None:
    """The rise of the objective with each parameter held, over its 95 % limit: a row a fit, by its label."""
    columns = max(len(fitted["profiles"]) for fitted in fits.values())
    with figure(path, columns=columns, width=2.6, rows=len(fits), height=2.3) as panels:
        for row, (label, fitted) in enumerate(fits.items()):
            panels_of_fit = panels[row * columns : (row + 1) * columns]
            for axes, (name, profile) in zip(panels_of_fit, fitted["profiles"].items(), strict=False):
                draw_profile(axes, profile, fitted["parameters"][name])
                axes.set_xlabel(PARAMETERS.get(name, name))
            panels_of_fit[0].set_ylabel(f"{label}\nrise over the 95 % limit", fontsize=8)
            for axes in panels_of_fit[len(fitted["profiles"]) :]:
                axes.set_visible(False)
        panels[0].figure.suptitle(
            "black: best value, solid if identified, dashed if not\ndotted: ends of the 95 % interval", fontsize=9
        )


def draw_profile(axes: Axes, profile: Data, estimate: Data) -> None:
    """Draw the profile of one parameter, its interval and its best value."""
    at, rise = (np.array(profile[key], dtype=float) for key in ("at", "rise"))
    rise /= profile["limit"]
    shown = drawable(at) & (rise < 4)
    at, rise = at[shown], rise[shown]
    axes.plot(at, rise, color=GREY, lw=1.2)
    axes.axhline(1, color=GREY, lw=0.7, ls="--")
    for edge in estimate["profile"]:
        if edge is not None and drawable(edge):
            axes.axvline(edge, color=GREY, lw=0.7, ls=":")
    if drawable(estimate["value"]):
        axes.axvline(estimate["value"], color="black", lw=1, ls="-" if estimate["identified"] else "--")
    axes.set_ylim(0, 4)
    axes.xaxis.set_major_locator(MaxNLocator(4, steps=ROUND))
    if len(at) and at[0] > 0 and at[-1] > 10 * at[0]:
        axes.set_xscale("log")


def drawable(value: Any) -> Any:
    """Return whether an axis can show a value or values: factors of laws that fit nothing have 300 digits."""
    size = np.abs(value)
    return np.isfinite(size) & (size < 1e100) & ((size > 1e-100) | (size == 0))
