"""The figures, drawn from what fits.json holds: seeds as points, laws as lines with bands, floors where identified."""

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import cycle
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis, XAxis
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, Locator, LogLocator, MaxNLocator, NullLocator, PercentFormatter

from analysis.report import (
    LAW_WORDS,
    NAMES,
    PARAMETERS,
    UNITS,
    VARIABLES,
    WAYS,
    Data,
    chosen_fit,
    epochs_before,
    find_fit,
    rising,
    short,
)
from files import atomic_write

# Okabe and Ito's palette: told apart by colour-blind readers too.
COLOURS = {"gpt": "#0072B2", "lstm": "#D55E00"}
MARKERS = {"gpt": "o", "lstm": "s"}
LAW_COLOURS = {"power": "#999999", "power_irreducible": "#009E73", "chinchilla": "#CC79A7"}
GREY = "#666666"
DASHES = ("-", "--", ":", "-.")
MOST_LABELS = 6  # on a logarithmic axis
ROUND = [1, 2, 2.5, 5, 10]  # steps of even series
LOSS = "validation loss (nats per character)"
STYLE: dict[Any, Any] = {
    "figure.dpi": 150,
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.alpha": 0.25,
    "legend.edgecolor": "none",  # a white ground keeps lines behind the legend out of its text
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
    """Put one legend for all panels below them, where it covers nothing."""
    entries = {
        label: handle for axes in panels for handle, label in zip(*axes.get_legend_handles_labels(), strict=True)
    }
    canvas = panels[0].figure
    canvas.legend([*entries.values()], [*entries], loc="outside lower center", ncols=columns, fontsize=8)


def label_log_axis(axis: Axis) -> None:
    """Label a logarithmic axis at the densest of several series of places that its length has room for."""
    low, high = axis.get_view_interval()
    flat = isinstance(axis, XAxis)
    box, em = axis.axes.bbox, STYLE["font.size"] / 72 * axis.axes.figure.dpi
    decade = (box.width if flat else box.height) / np.log10(high / low)  # in pixels, as em

    def fits(locator: Locator) -> bool:
        places = np.array([place for place in locator.tick_values(low, high) if low <= place <= high])
        room = 0.5 + 0.65 * max((len(tick(place)) for place in places), default=0) if flat else 1.5
        return 3 <= len(places) <= MOST_LABELS and np.diff(np.log10(places)).min() * decade > room * em

    even = [MaxNLocator(count, steps=ROUND) for count in (6, 4)] if high < 12 * low else []
    decades = LogLocator(numticks=MOST_LABELS - 1)
    series = [LogLocator(subs=(1, 2, 5)), *even, LogLocator(subs=(1, 3)), decades]
    axis.set_major_locator(next(filter(fits, series), decades))
    axis.set_major_formatter(FuncFormatter(tick))
    axis.set_minor_locator(NullLocator())


def tick(value: float, _: Any = None) -> str:
    """Return the label of a place on an axis: counts in short, losses with all their digits."""
    return short(value) if value >= UNITS[-1][1] else f"{value:.5g}"


def escape_formula(text: str) -> str:
    """Return text as matplotlib shows it and not as a formula between dollar signs."""
    return text.replace("$", r"\$")


def main_points(data: Data, architecture: str) -> dict[str, np.ndarray]:
    """Return the columns of the runs at the main budget: name → [runs]."""
    table = data["points"][architecture]
    sizes = {row["size"] for row in data["sizes"] if architecture in row}
    chosen = [
        i
        for i, (budget, fraction, keys, size) in enumerate(
            zip(table["budget"], table["data_fraction"], table["n_keys"], table["size"], strict=True)
        )
        if budget == data["main_budget"] and fraction == keys == 1 and size in sizes
    ]
    return {name: np.array(values)[chosen] for name, values in table.items()}


def means(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the distinct x and the mean y at each."""
    places, index = np.unique(x, return_inverse=True)
    return places, np.bincount(index, y) / np.bincount(index)


def draw_law(axes: Axes, fitted: Data, architecture: str) -> None:
    """Draw a fitted law of one variable with its 95 % band; its floor only where that is identified."""
    line, colour, name = fitted["line"], COLOURS[architecture], NAMES[architecture]
    alpha, floor = fitted["parameters"]["alpha"], fitted["parameters"].get("E")
    label = f"{name}: α not identified"
    if alpha["identified"]:
        form = f"${'E + ' if floor else ''}A{VARIABLES[fitted['variables'][0]]}^{{-α}}$"
        label = "{}: {}, α = {:.3f} [{:.3f}, {:.3f}]".format(name, form, alpha["value"], *alpha["bootstrap"])
    axes.plot(line["at"], line["loss"], color=colour, lw=1.3, label=label)
    low, high = (np.array(line[edge], dtype=float) for edge in ("low", "high"))
    axes.fill_between(line["at"], low, high, color=colour, alpha=0.18, lw=0)
    if floor is not None and floor["identified"]:
        axes.axhline(floor["value"], color=colour, lw=0.8, ls=":", label=f"{name}: floor {floor['value']:.3f}")


def draw_baseline(axes: Axes, baseline: Data) -> None:
    """Draw the n-gram baseline as a line."""
    axes.axhline(baseline["validation_loss"], color=GREY, lw=1, ls="--", label=f"{baseline['order']}-gram baseline")


def draw_points(axes: Axes, x: np.ndarray, y: np.ndarray, architecture: str, **style: Any) -> None:
    """Draw runs as open points."""
    axes.plot(x, y, MARKERS[architecture], **{"color": COLOURS[architecture], "ms": 4, "mfc": "none", **style})


def scaling_law(path: Path, data: Data, architectures: list[str]) -> None:
    """Loss against parameters at the main budget with the fitted laws, one or several architectures."""
    with figure(path, height=4.4) as [axes]:
        axes.set(xscale="log", yscale="log", xlabel="parameters N", ylabel=LOSS)
        for architecture in architectures:
            points = main_points(data, architecture)
            draw_points(axes, points["n_params"], points["validation_loss"], architecture)
            draw_law(axes, chosen_fit(data, architecture), architecture)
        draw_baseline(axes, data["baseline"])
        axes.set_title("points are runs; bands are 95 % bootstrap intervals", fontsize=9)
        legend_below([axes], 2)


def training_curves(path: Path, data: Data, architectures: list[str]) -> None:
    """Training and validation loss against tokens, a row an architecture, one colour a size, one line a seed."""
    with figure(path, columns=2, rows=len(architectures)) as panels:
        for row, architecture in enumerate(architectures):
            left, right = panels[2 * row : 2 * row + 2]
            curves = data["curves"][architecture]
            sizes = list(dict.fromkeys(curve["size"] for curve in curves))
            colours = dict(zip(sizes, mpl.colormaps["viridis"](np.linspace(0, 0.9, len(sizes))), strict=True))
            labelled = set()
            for curve in curves:
                size = curve["size"]
                label = None if size in labelled else f"{size} ({short(curve['n_params'])})"
                labelled.add(size)
                for axes, name in ((left, "train"), (right, "validation")):
                    axes.plot(curve[name]["tokens"], curve[name]["loss"], color=colours[size], lw=1, label=label)
            characters = short(curves[0]["validation"]["characters"])
            left.set(ylabel="training loss (nats per character)", title=f"{NAMES[architecture]}, training")
            right.set(ylabel=LOSS, title=f"validation, its first {characters} characters")
            for axes in (left, right):
                axes.set(xscale="log", yscale="log", xlabel="tokens seen")
            left.legend(fontsize=7)


QUANTITIES = {
    "seconds": "training time (s)",
    "peak_memory_bytes": "memory added by the run (bytes)",
    "flops": "training compute (FLOPs)",
    "tokens_per_second": "speed (tokens per second)",
}


def resources(path: Path, data: Data, names: list[str], architectures: list[str], per_parameter: bool = False) -> None:
    """Cost against parameters: one panel a quantity; per parameter if asked."""
    with figure(path, columns=len(names), width=4.2) as panels:
        for axes, name in zip(panels, names, strict=True):
            for architecture in architectures:
                points = main_points(data, architecture)
                n, value = points["n_params"], points[name]
                value = value / n if per_parameter else value
                draw_points(axes, n, value, architecture)
                axes.plot(*means(n, value), color=COLOURS[architecture], lw=1, label=NAMES[architecture])
            label = QUANTITIES[name]
            axes.set(
                xscale="log",
                yscale="log",
                xlabel="parameters N",
                ylabel=f"{label[:-1]} per parameter)" if per_parameter else label,
            )
        panels[0].legend(fontsize=8)


def loss_bars(path: Path, data: Data, architectures: list[str]) -> None:
    """Loss by size as bars, seeds as points on them; the axis starts where the differences can be seen and says so."""
    sizes = [row["size"] for row in data["sizes"] if any(name in row for name in architectures)]
    baseline = data["baseline"]
    every = [baseline["validation_loss"]]
    width = 0.8 / len(architectures)
    with figure(path) as [axes]:
        for i, architecture in enumerate(architectures):
            points = main_points(data, architecture)
            every += points["validation_loss"].tolist()
            place = (
                np.array([sizes.index(size) for size in points["size"]]) + (i - (len(architectures) - 1) / 2) * width
            )
            axes.bar(
                *means(place, points["validation_loss"]),
                width * 0.92,
                color=COLOURS[architecture],
                alpha=0.55,
                label=NAMES[architecture],
            )
            axes.plot(place, points["validation_loss"], "k.", ms=3)
        draw_baseline(axes, baseline)
        axes.set_xticks(range(len(sizes)), sizes)
        limits = (0.9 * min(every), 1.04 * max(every))
        axes.set(ylim=limits, xlabel="size", ylabel=f"{LOSS}\n(axis does not start at 0)")
        axes.grid(axis="x", visible=False)
        axes.legend(fontsize=8)


def sample_efficiency(path: Path, data: Data) -> None:
    """Validation loss while training, against tokens and against time; thicker lines are larger models."""
    with figure(path, columns=2) as panels:
        for axes, name, label in zip(panels, ("tokens", "seconds"), ("tokens seen", "training time (s)"), strict=True):
            for architecture, curves in data["curves"].items():
                firsts = {curve["size"]: curve for curve in reversed(curves)}
                sizes = list(dict.fromkeys(curve["size"] for curve in curves))
                for i, size in enumerate(sizes):
                    curve = firsts[size]["validation"]
                    shade = 0.35 + 0.65 * i / max(1, len(sizes) - 1)
                    axes.plot(
                        curve[name],
                        curve["loss"],
                        color=COLOURS[architecture],
                        alpha=shade,
                        lw=0.6 + 1.4 * shade,
                        label=f"{NAMES[architecture]} {size}" if i in (0, len(sizes) - 1) else None,
                    )
            axes.set(xscale="log", yscale="log", xlabel=label, ylabel=LOSS)
        panels[0].legend(fontsize=7)
        panels[0].figure.suptitle(
            "the first seed of each size; losses while the learning rate still falls, not of finished runs", fontsize=9
        )


def residuals(path: Path, data: Data) -> None:
    """Measured over fitted loss of every law of N and D, run by run."""
    laws = [
        law
        for law in ("power", "power_irreducible", "chinchilla")
        if any(find_fit(data, name, law) for name in data["fits"])
    ]
    with figure(path, columns=len(laws), width=4.2) as panels:
        for axes, law in zip(panels, laws, strict=True):
            for architecture in data["fits"]:
                fitted = find_fit(data, architecture, law)
                if fitted is not None:
                    draw_points(
                        axes, fitted["n_params"], np.expm1(fitted["residuals"]), architecture, label=NAMES[architecture]
                    )
            axes.axhline(0, color=GREY, lw=0.8)
            axes.set(xscale="log", xlabel="parameters N", title=LAW_WORDS[law])
            axes.yaxis.set_major_formatter(PercentFormatter(1))
        panels[0].set_ylabel("measured over fitted loss, less 1")
        panels[0].legend(fontsize=8)


def profile_likelihoods(path: Path, fits: dict[str, Data]) -> None:
    """The rise of the objective with each parameter held, over its 95 % limit: a row a fit, by its label."""
    columns = max(len(fitted["profiles"]) for fitted in fits.values())
    with figure(path, columns=columns, width=2.6, rows=len(fits), height=2.3) as panels:
        for row, (label, fitted) in enumerate(fits.items()):
            mine = panels[row * columns : (row + 1) * columns]
            for axes, (name, profile) in zip(mine, fitted["profiles"].items(), strict=False):
                draw_profile(axes, profile, fitted["parameters"][name])
                axes.set_xlabel(PARAMETERS.get(name, name))
            mine[0].set_ylabel(f"{label}\nrise over the 95 % limit", fontsize=8)
            for axes in mine[len(fitted["profiles"]) :]:
                axes.set_visible(False)
        panels[0].figure.suptitle(
            "black: best value, solid if identified, dashed if not\ndotted: ends of the 95 % interval", fontsize=9
        )


def drawable(value: Any) -> Any:
    """Return whether an axis can show a value or values: factors of laws that fit nothing have 300 digits."""
    size = np.abs(value)
    return np.isfinite(size) & (size < 1e100) & ((size > 1e-100) | (size == 0))


def draw_profile(axes: Axes, profile: Data, estimate: Data) -> None:
    """Draw the profile of one parameter as far as it was found and can be drawn, its interval and its best value."""
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


def extrapolation(path: Path, data: Data) -> None:
    """How far each law misses sizes larger than any it was fitted to."""
    names = list(data["fits"])
    with figure(path, columns=len(names), width=4.6) as panels:
        for axes, architecture in zip(panels, names, strict=True):
            for law, colour in LAW_COLOURS.items():
                rows = [r for r in data["extrapolation"] if r["architecture"] == architecture and r["law"] == law]
                if rows:
                    x, y = ([row[key] for row in rows] for key in ("times", "error"))
                    axes.plot(x, y, MARKERS[architecture], color=colour, ms=5, mfc="none", label=LAW_WORDS[law])
            axes.axhspan(-0.01, 0.01, color=GREY, alpha=0.12, lw=0)
            axes.axhline(0, color=GREY, lw=0.8)
            axes.set(xscale="log", xlabel="size foretold over largest size fitted", title=NAMES[architecture])
            axes.yaxis.set_major_formatter(PercentFormatter(1))
        panels[0].set_ylabel("foretold over measured loss, less 1\n(shaded: within 1 %)")
        legend_below(panels, 3)


def budgets(path: Path, data: Data) -> None:
    """Loss against parameters, one colour a budget of tokens, with Chinchilla's law where it is fitted."""
    names = [name for name in data["fits"] if find_fit(data, name, "chinchilla")]
    with figure(path, columns=len(names), width=4.6) as panels:
        for axes, architecture in zip(panels, names, strict=True):
            fitted, table = find_fit(data, architecture, "chinchilla"), data["points"][architecture]
            assert fitted is not None
            sheet = fitted["sheet"]
            colours = mpl.colormaps["viridis"](np.linspace(0, 0.9, len(sheet)))
            for curve, colour in zip(sheet, colours, strict=True):
                places = zip(table["budget"], table["data_fraction"], table["n_keys"], strict=True)
                whole = (curve["budget"], 1, 1)  # the tunes that the law is fitted to: all of them, in their own keys
                mine = [i for i, place in enumerate(places) if place == whole]
                x, y = (np.array(table[name])[mine] for name in ("n_params", "validation_loss"))
                draw_points(axes, x, y, architecture, color=colour)
                axes.plot(
                    curve["n_params"], curve["loss"], color=colour, lw=1.2, label=f"{short(curve['budget'])} tokens"
                )
            floor = fitted["parameters"]["E"]
            if floor["identified"]:
                axes.axhline(floor["value"], color=GREY, lw=0.8, ls=":", label=f"E = {floor['value']:.3f}")
            known = all(row["identified"] for row in fitted["parameters"].values())
            title = f"{NAMES[architecture]}{'' if known else '; the law is NOT identified'}"
            axes.set(xscale="log", yscale="log", xlabel="parameters N", ylabel=LOSS, title=title)
            axes.legend(fontsize=7)


def isoflop(path: Path, data: Data) -> None:
    """Loss against parameters at equal FLOPs with the valleys through them; where each way sees the best N."""
    names = [name for name, found in data["allocation"].items() if found["ways"]["isoflop"]["minima"]]
    with figure(path, columns=2, rows=len(names), width=4.9) as panels:
        for row, architecture in enumerate(names):
            left, right = panels[2 * row : 2 * row + 2]
            ways = data["allocation"][architecture]["ways"]
            draw_valleys(left, ways["isoflop"]["minima"], architecture)
            what = "means of seeds, interpolated between budgets; stars: minima that count"
            left.set_title(f"{NAMES[architecture]}\n{what}", fontsize=9)
            for (way, found), colour in zip(ways.items(), LAW_COLOURS.values(), strict=True):
                draw_optima(right, found, WAYS[way], colour)
            right.set(
                xscale="log", yscale="log", xlabel="training compute C (FLOPs)", ylabel="best number of parameters N"
            )
            words = "dots: minima that count; bands: 95 % bootstrap intervals"
            right.set_title(f"{NAMES[architecture]}, dashed: extrapolated\n{words}", fontsize=9)
            right.legend(fontsize=7)


def draw_valleys(axes: Axes, minima: list[Data], architecture: str) -> None:
    """Draw loss against parameters, a valley and a colour a budget of FLOPs, with the minimum where it counts."""
    flops = [minimum["flops"] for minimum in minima]
    shades = ScalarMappable(LogNorm(min(flops), max(flops)), "viridis")
    for minimum in minima:
        colour = shades.to_rgba(minimum["flops"])
        draw_points(axes, minimum["sizes"], minimum["losses"], architecture, color=colour)
        axes.plot(minimum["valley_n_params"], minimum["valley_losses"], color=colour, lw=1.1)
        if minimum["n_params"] is not None:
            axes.plot(minimum["n_params"], minimum["loss"], "*", color=colour, ms=9)
    axes.set(xscale="log", yscale="log", xlabel="parameters N", ylabel=LOSS)
    axes.figure.colorbar(shades, ax=axes, label="training compute C (FLOPs)")


def draw_optima(axes: Axes, found: Data, name: str, colour: str) -> None:
    """Draw the minima of one way to the best N and, where it is identified, its optima with their band."""
    used = [minimum for minimum in found["minima"] if minimum["n_params"] is not None]
    if used:
        x, y = ([minimum[key] for minimum in used] for key in ("flops", "n_params"))
        axes.plot(x, y, ".", color=colour, ms=5, label=f"{name}: minima")
    if found["reason"] is not None:
        return
    flops = [best["flops"] for best in found["optima"]]
    n = [best["n_params"]["value"] for best in found["optima"]]
    low, high = np.array([best["n_params"]["bootstrap"] for best in found["optima"]], dtype=float).T
    inside = sum(not best["extrapolated"] for best in found["optima"])  # the budgets rise
    axes.fill_between(flops, low, high, color=colour, alpha=0.18, lw=0)
    axes.plot(flops[:inside], n[:inside], color=colour, lw=1.3, label=f"{name}: a = {found['a']['value']:.2f}")
    axes.plot(flops[max(0, inside - 1) :], n[max(0, inside - 1) :], color=colour, lw=1.3, ls="--")


def learning_rate(path: Path, data: Data) -> None:
    """The best peak rate of each size that was swept, the rule through them, and the rates of the runs."""
    with figure(path) as [axes]:
        for architecture, rule in data["learning_rate"]["rules"].items():
            n = np.array([row["n"] for row in rule["optima"]])
            line = np.geomspace(n.min() / 1.5, n.max() * 1.5, 50)
            best = np.array([row["rate"] for row in rule["optima"]])
            draw_points(axes, n, best, architecture, label=f"{NAMES[architecture]}, best rate of a size swept")
            label = f"{NAMES[architecture]}, rule: {rule['coefficient']:.3g} · $N^{{-{rule['exponent']:.3f}}}$"
            colour = COLOURS[architecture]
            axes.plot(line, rule["coefficient"] * line ** -rule["exponent"], color=colour, lw=1.2, label=label)
        for architecture, used in data["learning_rate"]["used"].items():
            rates = np.array([(row["n"], row["rate"]) for row in used])
            label = f"{NAMES[architecture]}, rates of the runs"
            axes.plot(*rates.T, "x", color=COLOURS[architecture], ms=7, mew=1.2, label=label)
        axes.set(xscale="log", yscale="log", xlabel="parameters N without tables", ylabel="peak learning rate")
        axes.legend(fontsize=8)


def loss_by_position(path: Path, data: Data) -> None:
    """Loss by how many characters a prediction could see, and GPT minus LSTM of it."""
    found = data["comparison"]["positions"]
    middle = np.array([np.sqrt(first * last) for first, last in found["bins"]])
    with figure(path, columns=2) as (left, right):
        for axes, names in ((left, ("gpt", "lstm")), (right, ("difference",))):
            for name in names:
                curve = found[name]
                edges = np.array(curve["intervals"], dtype=float)
                colour = COLOURS.get(name, GREY)
                axes.fill_between(middle, edges[:, 0], edges[:, 1], color=colour, alpha=0.18, lw=0)
                axes.plot(
                    middle,
                    curve["loss"],
                    f"{MARKERS.get(name, 'd')}-",
                    color=colour,
                    ms=4,
                    lw=1.2,
                    label=NAMES.get(name),
                )
            axes.set(xscale="log", xlabel="characters that a prediction could see")
        left.set(ylabel=LOSS, title=f"size {found['size']}, {found['seeds']} seeds; bands are 95 % intervals")
        left.legend(fontsize=8)
        right.axhline(0, color=GREY, lw=0.8)
        right.set(ylabel="GPT − LSTM (nats per character)", title="same characters, same seeds")


def repetition(path: Path, data: Data) -> None:
    """Loss against epochs, a line for each size and budget; where it is identified, what repeated data are worth."""
    fitted = {
        name: {unit: worth for unit, worth in found.items() if worth is not None and worth["identified"]}
        for name, found in data["repetition"].items()
        if found is not None
    }
    columns = 2 if any(fitted.values()) else 1
    with figure(path, columns=columns, rows=len(fitted), width=4.6) as panels:
        for row, (architecture, worths) in enumerate(fitted.items()):
            axes = panels[columns * row]
            draw_repeats(axes, {name: np.array(values) for name, values in data["points"][architecture].items()})
            verdict = "" if worths else ": what repetition is worth is not identified"
            axes.set_title(f"{NAMES[architecture]}{verdict}", fontsize=9)
            if worths:
                draw_worths(panels[columns * row + 1], worths, rising(data, architecture))
            elif columns == 2:
                panels[columns * row + 1].set_visible(False)
        legend_below(panels[::columns], 4)


def draw_worths(axes: Axes, worths: dict[str, Data], rises: list[Data]) -> None:
    """Draw what repeated epochs, or keys of every tune, are worth with their bands, and where a measured loss rises."""
    colours = {"epochs": LAW_COLOURS["power_irreducible"], "keys": LAW_COLOURS["chinchilla"]}
    for unit, worth in worths.items():
        x = [entry[unit] for entry in worth["rows"]]
        low, high = np.array([entry["bootstrap"] for entry in worth["rows"]], dtype=float).T
        axes.fill_between(x, low, high, alpha=0.18, lw=0, color=colours[unit])
        axes.plot(
            x, [entry["value"] for entry in worth["rows"]], "o-", ms=3, color=colours[unit], label=f"{unit}, fitted"
        )
    longest = max(worth["rows"][-1][unit] for unit, worth in worths.items())
    axes.plot([1, longest], [1, longest], color=GREY, lw=0.8, ls="--", label="as good as fresh data")
    if rises and "epochs" in worths:
        first = min(map(epochs_before, rises))
        axes.axvline(first, color=GREY, lw=1, ls=":", label="beyond, a measured loss rises")
    unit = " or ".join(f"{unit} of every tune" if unit == "keys" else unit for unit in worths)
    axes.set(xscale="log", yscale="log", xlabel=unit, ylabel="worth (times the data)")
    axes.set_title("bands are 95 % bootstrap intervals", fontsize=9)
    axes.legend(fontsize=8, loc="lower right")


def draw_repeats(axes: Axes, table: dict[str, np.ndarray]) -> None:
    """Draw loss against epochs, a line a size and budget: the same tokens, from ever fewer tunes."""
    own_keys = table["n_keys"] == 1
    budgets, sizes = np.unique(table["budget"]), list(dict.fromkeys(table["size"]))
    lines = {
        (budget, size): own_keys & (table["budget"] == budget) & (table["size"] == size)
        for size in sizes
        for budget in budgets
    }
    repeated = {place: mine for place, mine in lines.items() if len(np.unique(table["data_fraction"][mine])) > 1}
    colours = dict(zip(budgets, mpl.colormaps["viridis"](np.linspace(0, 0.9, len(budgets))), strict=True))
    dashes = dict(zip(dict.fromkeys(size for _, size in repeated), cycle(DASHES), strict=False))
    for (budget, size), mine in repeated.items():
        at, loss = means(table["epochs"][mine], table["validation_loss"][mine])
        label = f"{size}, {short(budget)} tokens"
        axes.plot(at, loss, "o", ls=dashes[size], ms=3, lw=1, color=colours[budget], label=label)
    axes.set(xscale="log", yscale="log", xlabel="epochs, the tokens seen being equal", ylabel=LOSS)


def profiled(data: Data) -> dict[str, Data]:
    """Return the fits whose profiles are drawn, by label: the chosen law of N, and Chinchilla's where there is one."""
    found = {}
    for name in data["fits"]:
        for fitted in (
            chosen_fit(data, name),
            find_fit(data, name, "chinchilla"),
            find_fit(data, name, "data_constrained"),
        ):
            if fitted is not None:
                found[f"{NAMES[name]}, {fitted['law']}"] = fitted
    return found
