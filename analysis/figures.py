"""The figures, drawn from what fits.json holds: seeds as points, laws as lines with bands, floors where identified."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator, PercentFormatter

from analysis.report import LAW_WORDS, NAMES, PARAMETERS, VARIABLES, WAYS, Data, chosen_fit, find_fit, short
from door import whole_file

# Okabe and Ito's palette: told apart by colour-blind readers too.
COLOURS = {"gpt": "#0072B2", "lstm": "#D55E00"}
MARKERS = {"gpt": "o", "lstm": "s"}
LAW_COLOURS = {"power": "#999999", "power_floor": "#009E73", "chinchilla": "#CC79A7"}
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
        for panel in panels:
            for axis, scale in ((panel.xaxis, panel.get_xscale()), (panel.yaxis, panel.get_yscale())):
                if scale == "log":
                    label_log_axis(axis)
        for kind, metadata in METADATA.items():
            with whole_file(path.with_name(f"{path.name}.{kind}")) as temporary:
                canvas.savefig(temporary, format=kind, metadata=metadata)


def label_log_axis(axis: Axis) -> None:
    """Label a logarithmic axis in short numbers, at several places even if it spans less than a decade."""
    low, high = axis.get_view_interval()
    wide = high > 12 * low
    steps = (1, 2, 5) if high < 1e4 * low else (1,)
    axis.set_major_locator(LogLocator(subs=steps) if wide else MaxNLocator(6, steps=[1, 2, 2.5, 5, 10]))
    axis.set_major_formatter(FuncFormatter(short))
    axis.set_minor_locator(NullLocator())


def main_points(data: Data, architecture: str) -> dict[str, np.ndarray]:
    """Return the columns of the runs at the main budget: name → [runs]."""
    table = data["points"][architecture]
    sizes = {row["size"] for row in data["sizes"] if architecture in row}
    chosen = [
        i
        for i, (budget, part, keys, size) in enumerate(
            zip(table["budget"], table["one_in"], table["keys"], table["size"], strict=True)
        )
        if budget == data["main_budget"] and part in (None, 1) and round(keys) == 1 and size in sizes
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
        form = (
            f"$E + A{VARIABLES[fitted['variables'][0]]}^{{-α}}$"
            if floor
            else f"$A{VARIABLES[fitted['variables'][0]]}^{{-α}}$"
        )
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
    with figure(path) as [axes]:
        axes.set(xscale="log", yscale="log", xlabel="parameters N", ylabel=LOSS)
        for architecture in architectures:
            points = main_points(data, architecture)
            draw_points(axes, points["n_params"], points["validation_loss"], architecture)
            draw_law(axes, chosen_fit(data, architecture), architecture)
        draw_baseline(axes, data["baseline"])
        axes.set_title("points are runs; bands are 95 % bootstrap intervals", fontsize=9)
        axes.legend(fontsize=8)


def training_curves(path: Path, data: Data, architecture: str) -> None:
    """Training and validation loss against tokens, one colour a size, one line a seed."""
    curves = data["curves"][architecture]
    sizes = list(dict.fromkeys(curve["size"] for curve in curves))
    colours = dict(zip(sizes, mpl.colormaps["viridis"](np.linspace(0, 0.9, len(sizes))), strict=True))
    labelled = set()
    with figure(path, columns=2) as (left, right):
        for curve in curves:
            size = curve["size"]
            label = None if size in labelled else f"{size} ({short(curve['n_params'])})"
            labelled.add(size)
            for axes, name in ((left, "train"), (right, "validation")):
                axes.plot(curve[name]["tokens"], curve[name]["loss"], color=colours[size], lw=1, label=label)
        characters = short(curves[0]["validation"]["characters"])
        left.set(ylabel="training loss (nats per character)", title="training")
        right.set(ylabel=LOSS, title=f"validation, its first {characters} characters")
        for axes in (left, right):
            axes.set(xscale="log", yscale="log", xlabel="tokens seen")
        left.legend(fontsize=7)


QUANTITIES = {
    "seconds": "training time (s)",
    "memory_added_bytes": "memory added by the run (bytes)",
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
                ylabel=f"{label} per parameter" if per_parameter else label,
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


def residuals(path: Path, data: Data) -> None:
    """Measured over fitted loss of every law of N and D, run by run."""
    laws = [
        law for law in ("power", "power_floor", "chinchilla") if any(find_fit(data, name, law) for name in data["fits"])
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
            axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=1))
        panels[0].set_ylabel("measured over fitted loss, less 1")
        panels[0].legend(fontsize=8)


def profile_likelihoods(path: Path, fits: dict[str, Data]) -> None:
    """The rise of the objective with each parameter held, over its 95 % limit: a row a fit, by its label."""
    columns = max(len(fitted["profiles"]) for fitted in fits.values())
    with figure(path, columns=columns, width=2.6, rows=len(fits), height=2.3) as panels:
        for row, (label, fitted) in enumerate(fits.items()):
            mine = panels[row * columns : (row + 1) * columns]
            for axes, (name, profile) in zip(mine, fitted["profiles"].items(), strict=False):
                estimate = fitted["parameters"][name]
                rise = np.array(profile["rise"]) / profile["limit"]
                shown = rise < 4
                axes.plot(np.array(profile["at"])[shown], rise[shown], color=GREY, lw=1.2)
                axes.axhline(1, color=GREY, lw=0.7, ls="--")
                for edge in estimate["profile"]:
                    if edge is not None:
                        axes.axvline(edge, color=GREY, lw=0.7, ls=":")
                axes.axvline(
                    estimate["value"], color=COLOURS["gpt"] if estimate["identified"] else COLOURS["lstm"], lw=1
                )
                verdict = "" if estimate["identified"] else "\n(not identified)"
                axes.set(xlabel=f"{PARAMETERS.get(name, name)}{verdict}", ylim=(0, 4))
                if profile["at"][0] > 0 and profile["at"][-1] > 30 * profile["at"][0]:
                    axes.set_xscale("log")
            mine[0].set_ylabel(f"{label}\nrise over the 95 % limit", fontsize=8)
            for axes in mine[len(fitted["profiles"]) :]:
                axes.set_visible(False)


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
            axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=1))
            axes.legend(fontsize=8)
        panels[0].set_ylabel("foretold over measured loss, less 1\n(shaded: within 1 %)")


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
                mine = [
                    i for i, t in enumerate(table["budget"]) if t == curve["budget"] and table["one_in"][i] in (None, 1)
                ]
                x, y = (np.array(table[name])[mine] for name in ("n_params", "validation_loss"))
                draw_points(axes, x, y, architecture, color=colour)
                axes.plot(
                    curve["n_params"], curve["loss"], color=colour, lw=1.2, label=f"{short(curve['budget'])} tokens"
                )
            floor = fitted["parameters"]["E"]
            if floor["identified"]:
                axes.axhline(floor["value"], color=GREY, lw=0.8, ls=":", label=f"E = {floor['value']:.3f}")
            axes.set(xscale="log", yscale="log", xlabel="parameters N", ylabel=LOSS, title=NAMES[architecture])
            axes.legend(fontsize=7)


def isoflop(path: Path, data: Data) -> None:
    """Loss against parameters at equal FLOPs with the valleys through them; where each way sees the best N."""
    names = [name for name, found in data["allocation"].items() if found["ways"]["isoflop"]["minima"]]
    with figure(path, columns=2, rows=len(names), width=4.6) as panels:
        for row, architecture in enumerate(names):
            left, right = panels[2 * row : 2 * row + 2]
            ways = data["allocation"][architecture]["ways"]
            minima = ways["isoflop"]["minima"]
            colours = mpl.colormaps["viridis"](np.linspace(0, 0.9, len(minima)))
            for minimum, colour in zip(minima, colours, strict=True):
                draw_points(left, minimum["sizes"], minimum["losses"], architecture, color=colour)
                label = f"{short(minimum['flops'])} FLOPs"
                left.plot(minimum["valley_n_params"], minimum["valley_losses"], color=colour, lw=1.1, label=label)
                if minimum["n_params"] is not None:
                    left.plot(minimum["n_params"], minimum["loss"], "*", color=colour, ms=9)
            left.set(xscale="log", yscale="log", xlabel="parameters N", ylabel=LOSS, title=NAMES[architecture])
            left.legend(fontsize=6, ncols=2)
            for (way, found), colour in zip(ways.items(), LAW_COLOURS.values(), strict=True):
                used = [minimum for minimum in found["minima"] if minimum["n_params"] is not None]
                right.plot([m["flops"] for m in used], [m["n_params"] for m in used], ".", color=colour, ms=4)
                if found["reason"] is None:
                    best = [b for b in found["optima"] if b["n_params"]["value"] is not None]
                    label = f"{WAYS[way]}: a = {found['a']['value']:.2f}"
                    right.plot(
                        [b["flops"] for b in best],
                        [b["n_params"]["value"] for b in best],
                        color=colour,
                        lw=1.3,
                        label=label,
                    )
            right.set(
                xscale="log", yscale="log", xlabel="training compute C (FLOPs)", ylabel="best number of parameters"
            )
            right.set_title("stars and dots: minima that count", fontsize=9)
            right.legend(fontsize=7)


def learning_rate(path: Path, data: Data) -> None:
    """The best peak rate of each size that was swept, and the rule through them."""
    with figure(path) as [axes]:
        for architecture, rule in data["learning_rate"]["rules"].items():
            n = np.array([row["n"] for row in rule["optima"]])
            line = np.geomspace(n.min() / 1.5, n.max() * 1.5, 50)
            draw_points(axes, n, np.array([row["rate"] for row in rule["optima"]]), architecture)
            label = f"{NAMES[architecture]}: {rule['coefficient']:.3g} · $N^{{-{rule['exponent']:.3f}}}$"
            axes.plot(
                line, rule["coefficient"] * line ** -rule["exponent"], color=COLOURS[architecture], lw=1.2, label=label
            )
        axes.set(xscale="log", yscale="log", xlabel="parameters N without tables", ylabel="best peak learning rate")
        axes.yaxis.set_major_formatter(FuncFormatter(lambda rate, _: f"{rate:.2g}"))
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
    """Loss against epochs, a line for each part of the data and size; with transposed copies, against the keys used."""
    names = [name for name, found in data["repetition"].items() if found is not None]
    with figure(path, columns=2, rows=len(names), width=4.6) as panels:
        for row, architecture in enumerate(names):
            table = {name: np.array(values) for name, values in data["points"][architecture].items()}
            epochs, keys = panels[2 * row : 2 * row + 2]
            found = data["repetition"][architecture]
            draw_repeats(epochs, table)
            epochs.set(xscale="log", yscale="log", xlabel="epochs, the tokens seen being equal", ylabel=LOSS)
            epochs.set_title(NAMES[architecture])
            longest = 1.0
            for unit, colour in (("epochs", LAW_COLOURS["power_floor"]), ("keys", LAW_COLOURS["chinchilla"])):
                if found[unit] is None or not found[unit]["identified"]:
                    continue
                rows = found[unit]["rows"]
                x = [entry[unit] for entry in rows]
                low, high = np.array([entry["bootstrap"] for entry in rows], dtype=float).T
                keys.fill_between(x, low, high, alpha=0.18, lw=0, color=colour)
                keys.plot(x, [entry["value"] for entry in rows], "o-", ms=3, color=colour, label=f"{unit}, fitted")
                longest = max(longest, x[-1])
            if longest > 1:
                keys.plot([1, longest], [1, longest], color=GREY, lw=0.8, ls="--", label="as good as fresh data")
                keys.set(xscale="log", yscale="log", xlabel="epochs, or keys of every tune", ylabel="worth, × the data")
                keys.legend(fontsize=8)
            else:
                keys.set_axis_off()
                keys.text(0.5, 0.5, "what repetition is worth\nis not identified", ha="center", color=GREY)


def draw_repeats(axes: Axes, table: dict[str, np.ndarray]) -> None:
    """Draw loss against epochs, a line a size and budget, a colour a budget: the same tokens, from ever fewer tunes."""
    own_keys = np.round(table["keys"]) == 1
    budgets = [
        b for b in np.unique(table["budget"]) if len(np.unique(table["one_in"][own_keys & (table["budget"] == b)])) > 1
    ]
    colours = mpl.colormaps["viridis"](np.linspace(0, 0.9, len(budgets)))
    for budget, colour in zip(budgets, colours, strict=True):
        label: str | None = f"{short(budget)} tokens"
        for size in dict.fromkeys(table["size"]):
            mine = own_keys & (table["budget"] == budget) & (table["size"] == size)
            if len(np.unique(table["one_in"][mine])) > 1:
                at, loss = means(table["epochs"][mine], table["validation_loss"][mine])
                axes.plot(at, loss, "o-", ms=3, lw=0.8, color=colour, label=label)
                label = None
    if budgets:
        axes.legend(fontsize=7)


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


def table_law(path: Path, data: Data) -> None:
    """Loss against the law's variable with its line and band; of several variables, against the fitted loss too."""
    fitted, points = data["fit"], data["points"]
    loss, first = np.array(points["loss"]), fitted["variables"][0]
    blue = COLOURS["gpt"]
    with figure(path, columns=1 if data["line"] else 2) as panels:
        axes = panels[0]
        axes.set(xscale="log", yscale="log", xlabel=f"{VARIABLES[first]} ({data['columns'][first]})", ylabel="loss")
        if data["line"]:
            axes.plot(points[first], loss, "o", color=blue, ms=3, mfc="none")
            axes.plot(data["line"]["at"], data["line"]["loss"], color=blue, lw=1.3)
            low, high = (np.array(data["line"][edge], dtype=float) for edge in ("low", "high"))
            axes.fill_between(data["line"]["at"], low, high, color=blue, alpha=0.18, lw=0)
            axes.set_title("band: 95 % bootstrap interval", fontsize=9)
            return
        second = fitted["variables"][1]
        dots = axes.scatter(points[first], loss, c=points[second], norm=LogNorm(), cmap="viridis", s=10)
        name = f"{VARIABLES[second]} ({data['columns'][second]})"
        axes.figure.colorbar(dots, ax=axes, label=name, format=FuncFormatter(short))
        panels[1].plot(points["fitted"], loss, "o", color=blue, ms=3, mfc="none")
        ends = [float(loss.min()), float(loss.max())]
        panels[1].plot(ends, ends, color=GREY, lw=0.8, ls="--")
        panels[1].set(xscale="log", yscale="log", xlabel="fitted loss", ylabel="measured loss")


def table_residuals(path: Path, data: Data) -> None:
    """Measured over fitted loss against each variable of the law."""
    variables = data["fit"]["variables"]
    off = np.expm1(data["fit"]["residuals"])
    with figure(path, columns=len(variables), width=4.2) as panels:
        for axes, variable in zip(panels, variables, strict=True):
            axes.plot(data["points"][variable], off, "o", color=COLOURS["gpt"], ms=3, mfc="none")
            axes.axhline(0, color=GREY, lw=0.8)
            axes.set(xscale="log", xlabel=f"{VARIABLES[variable]} ({data['columns'][variable]})")
            axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=1))
        panels[0].set_ylabel("measured over fitted loss, less 1")
