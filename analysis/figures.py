"""The figures: seeds as points, laws as lines with their band; the floor is drawn only where it is identified."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator

from analysis.comparison import Runs, column
from analysis.fitting import Fit
from door import whole_file

# Okabe and Ito's palette: told apart by colour-blind readers too.
COLOURS = {"gpt": "#0072B2", "lstm": "#D55E00"}
NAMES = {"gpt": "GPT", "lstm": "LSTM"}
MARKERS = {"gpt": "o", "lstm": "s"}
GREY = "#666666"
LOSS = "validation loss (nats per character)"
STYLE: dict[Any, Any] = {
    "figure.dpi": 150,
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.alpha": 0.25,
    "legend.edgecolor": "none",  # a white ground keeps lines behind the legend out of its text
    "savefig.bbox": "tight",
}
METADATA = {"Software": None}  # the same numbers give the same bytes


@contextmanager
def figure(path: Path, columns: int = 1, width: float = 5.2) -> Iterator[list[Axes]]:
    """Give the axes of a new figure; it is written to `path` at the end."""
    with mpl.rc_context(STYLE):
        canvas = Figure(figsize=(width * columns, 3.7), layout="constrained")
        panels = [canvas.add_subplot(1, columns, i + 1) for i in range(columns)]
        yield panels
        for panel in panels:
            for axis, scale in ((panel.xaxis, panel.get_xscale()), (panel.yaxis, panel.get_yscale())):
                if scale == "log":
                    label_log_axis(axis)
        with whole_file(path) as temporary:
            canvas.savefig(temporary, format="png", metadata=METADATA)


def short(number: float, _: Any = None) -> str:
    """Return a count as 15K, 1.2M, 3G."""
    for unit, size in (("P", 1e15), ("T", 1e12), ("G", 1e9), ("M", 1e6), ("K", 1e3)):
        if number >= size:
            return f"{number / size:.3g}{unit}"
    return f"{number:.3g}"


def label_log_axis(axis: Axis) -> None:
    """Label a logarithmic axis in short numbers, at several places even if it spans less than a decade."""
    low, high = axis.get_view_interval()
    wide = high > 12 * low
    axis.set_major_locator(LogLocator(subs=(1, 2, 5)) if wide else MaxNLocator(6, steps=[1, 2, 2.5, 5, 10]))
    axis.set_major_formatter(FuncFormatter(short))
    axis.set_minor_locator(NullLocator())


def by_size(runs: Runs) -> dict[str, Runs]:
    """Group runs by size, in the order of the sizes."""
    groups: dict[str, Runs] = {}
    for run in sorted(runs, key=lambda run: run["n_params"]):
        groups.setdefault(run["recipe"]["size"], []).append(run)
    return groups


def mean(runs: Runs, name: str) -> float:
    """Return the mean of one number over the seeds of a size."""
    return float(column(runs, name).mean())


def draw_law(axes: Axes, runs: Runs, fitted: Fit, architecture: str, axis: str = "n_params") -> None:
    """Draw runs as points and the fitted law with its 95 % band."""
    n = column(runs, axis)
    line = np.geomspace(n.min() / 1.3, n.max() * 1.3, 200)
    low, high = fitted.band(line)
    colour, name = COLOURS[architecture], NAMES[architecture]
    alpha = fitted.parameters["alpha"]
    label = f"{name}: α not identified"
    if alpha.identified:
        form = "$E + aN^{-α}$" if fitted.law == "power_floor" else "$aN^{-α}$"
        label = "{}: {}, α = {:.3f} [{:.3f}, {:.3f}]".format(name, form, alpha.value, *alpha.bootstrap)
    axes.plot(n, column(runs, "validation_loss"), MARKERS[architecture], color=colour, ms=4, mfc="none")
    axes.plot(line, fitted.predict(line), color=colour, lw=1.3, label=label)
    axes.fill_between(line, low, high, color=colour, alpha=0.18, lw=0)
    floor = fitted.parameters.get("E")
    if floor is not None and floor.identified:
        axes.axhline(floor.value, color=colour, lw=0.8, ls=":", label=f"{name}: floor {floor.value:.3f}")


def draw_baseline(axes: Axes, baseline: dict[str, Any]) -> None:
    """Draw the n-gram baseline as a line."""
    axes.axhline(baseline["validation_loss"], color=GREY, lw=1, ls="--", label=f"{baseline['order']}-gram baseline")


def scaling_law(path: Path, ladders: dict[str, Runs], fits: dict[str, Fit], baseline: dict[str, Any]) -> None:
    """Loss against parameters with the fitted laws, one or several architectures."""
    with figure(path) as [axes]:
        axes.set(xscale="log", yscale="log", xlabel="parameters N", ylabel=LOSS)
        for architecture, fitted in fits.items():
            draw_law(axes, ladders[architecture], fitted, architecture)
        draw_baseline(axes, baseline)
        axes.set_title("points are runs; bands are 95 % bootstrap intervals over runs", fontsize=9)
        axes.legend(fontsize=8)


def training_curves(path: Path, runs: Runs) -> None:
    """Training and validation loss against tokens, one colour a size, one line a seed."""
    groups = by_size(runs)
    colours = mpl.colormaps["viridis"](np.linspace(0, 0.9, len(groups)))
    with figure(path, columns=2) as (left, right):
        for (size, members), colour in zip(groups.items(), colours, strict=True):
            for i, run in enumerate(members):
                label = f"{size} ({short(run['n_params'])})" if i == 0 else None
                for axes, name in ((left, "train_curve"), (right, "validation_curve")):
                    axes.plot(run[name]["tokens"], run[name]["loss"], color=colour, lw=1, label=label)
        left.set(ylabel="training loss (nats per character)", title="training")
        right.set(
            ylabel=LOSS, title=f"validation, its first {short(runs[0]['validation_curve']['characters'])} characters"
        )
        for axes in (left, right):
            axes.set(xscale="log", yscale="log", xlabel="tokens seen")
        left.legend(fontsize=7)


QUANTITIES = {
    "seconds": "training time (s)",
    "memory_added_bytes": "memory added by the run (bytes)",
    "flops": "training compute (FLOPs)",
    "tokens_per_second": "speed (tokens per second)",
}


def resources(path: Path, ladders: dict[str, Runs], names: list[str], per_parameter: bool = False) -> None:
    """Cost against parameters: one panel a quantity; per parameter if asked."""
    with figure(path, columns=len(names), width=4.2) as panels:
        for axes, name in zip(panels, names, strict=True):
            for architecture, runs in ladders.items():
                n, value = column(runs, "n_params"), column(runs, name)
                value = value / n if per_parameter else value
                axes.plot(n, value, MARKERS[architecture], color=COLOURS[architecture], ms=4, mfc="none")
                groups = by_size(runs)
                centre = [mean(g, name) / (mean(g, "n_params") if per_parameter else 1) for g in groups.values()]
                sizes = [mean(g, "n_params") for g in groups.values()]
                axes.plot(sizes, centre, color=COLOURS[architecture], lw=1, label=NAMES[architecture])
            label = QUANTITIES[name]
            axes.set(
                xscale="log",
                yscale="log",
                xlabel="parameters N",
                ylabel=f"{label} per parameter" if per_parameter else label,
            )
        panels[0].legend(fontsize=8)


def loss_bars(path: Path, ladders: dict[str, Runs], baseline: dict[str, Any]) -> None:
    """Loss by size as bars, seeds as points on them; the axis starts where the differences can be seen and says so."""
    groups = {architecture: by_size(runs) for architecture, runs in ladders.items()}
    sizes = list(dict.fromkeys(size for group in groups.values() for size in group))
    losses = np.concatenate([column(runs, "validation_loss") for runs in ladders.values()])
    lowest = 0.9 * min(losses.min(), baseline["validation_loss"])
    width = 0.8 / len(groups)
    with figure(path) as [axes]:
        for i, (architecture, group) in enumerate(groups.items()):
            place = {size: sizes.index(size) + (i - (len(groups) - 1) / 2) * width for size in group}
            heights = [mean(members, "validation_loss") for members in group.values()]
            axes.bar(
                list(place.values()),
                heights,
                width * 0.92,
                color=COLOURS[architecture],
                alpha=0.55,
                label=NAMES[architecture],
            )
            for size, members in group.items():
                axes.plot([place[size]] * len(members), column(members, "validation_loss"), "k.", ms=3)
        draw_baseline(axes, baseline)
        axes.set_xticks(range(len(sizes)), sizes)
        top = max(losses.max(), baseline["validation_loss"])
        axes.set(ylim=(lowest, 1.04 * top), xlabel="size", ylabel=f"{LOSS}\n(axis does not start at 0)")
        axes.grid(axis="x", visible=False)
        axes.legend(fontsize=8)


def sample_efficiency(path: Path, ladders: dict[str, Runs]) -> None:
    """Validation loss while training, against tokens and against time; thicker lines are larger models."""
    with figure(path, columns=2) as panels:
        for axes, name, label in zip(panels, ("tokens", "seconds"), ("tokens seen", "training time (s)"), strict=True):
            for architecture, runs in ladders.items():
                groups = by_size(runs)
                for i, (size, members) in enumerate(groups.items()):
                    curve = members[0]["validation_curve"]
                    shade = 0.35 + 0.65 * i / max(1, len(groups) - 1)
                    label_of = f"{NAMES[architecture]} {size}" if i in (0, len(groups) - 1) else None
                    axes.plot(
                        curve[name],
                        curve["loss"],
                        color=COLOURS[architecture],
                        alpha=shade,
                        lw=0.6 + 1.4 * shade,
                        label=label_of,
                    )
            axes.set(xscale="log", yscale="log", xlabel=label, ylabel=LOSS)
        panels[0].legend(fontsize=7)
