"""The figures of a study, drawn from what fits.json holds."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import cycle
from math import inf
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LogNorm
from matplotlib.ticker import PercentFormatter

from analysis.drawing import (
    COLOURS,
    GREY,
    LOSS,
    MARKERS,
    METHOD_COLOURS,
    WORTH_COLOURS,
    draw_band,
    draw_law,
    draw_points,
    figure,
    legend_below,
    means,
    profile_likelihoods,
    shades,
)
from analysis.fits_json import METHODS, NAMES, Data, chosen_fit, epochs_before, find_fit, rising
from analysis.laws import OF_N_AND_D, OF_ONE, STUDIED
from analysis.published import compare_with_published
from files import format_count

QUANTITIES = {
    "seconds": "training time (s)",
    "peak_memory_bytes": "memory added by the run (bytes)",
    "flops": "training compute (FLOPs)",
    "tokens_per_second": "speed (tokens per second)",
}
COSTS = ("seconds", "peak_memory_bytes")
DASHES = ("-", "--", ":", "-.")
WITHIN = 0.01  # relative error that the figure of extrapolation shades
EXPONENTS = (0.01, 3.0)  # limits of the figure of published numbers; an open interval is drawn to its edge


# Loss and costs against size


def main_points(data: Data, architecture: str) -> dict[str, np.ndarray]:
    """Return the columns of the runs at the main budget: name → [runs]."""
    table = {name: np.array(values) for name, values in data["points"][architecture].items()}
    chosen = (table["budget"] == data["main_budget"]) & (table["data_fraction"] == 1) & (table["n_keys"] == 1)
    return {name: values[chosen] for name, values in table.items()}


def draw_baseline(axes: Axes, baseline: Data) -> None:
    """Draw the n-gram baseline as a line."""
    axes.axhline(baseline["validation_loss"], color=GREY, lw=1, ls="--", label=f"{baseline['order']}-gram baseline")


def scaling_law(path: Path, data: Data, architectures: Sequence[str] = ()) -> None:
    """Loss against parameters at the main budget with the fitted laws, one or several architectures."""
    with figure(path, height=4.4) as [axes]:
        axes.set(xscale="log", yscale="log", xlabel="parameters N", ylabel=LOSS)
        for architecture in architectures or data["fits"]:
            points = main_points(data, architecture)
            draw_points(axes, points["n_params"], points["validation_loss"], architecture)
            draw_law(axes, chosen_fit(data, architecture), architecture)
        draw_baseline(axes, data["baseline"])
        axes.set_title("points are runs; bands are 95 % bootstrap intervals", fontsize=9)
        legend_below([axes], 2)


def training_curves(path: Path, data: Data, architectures: Sequence[str] = ()) -> None:
    """Training and validation loss against tokens, a row an architecture, one colour a size, one line a seed."""
    architectures = architectures or list(data["fits"])
    with figure(path, columns=2, rows=len(architectures)) as panels:
        for row, architecture in enumerate(architectures):
            left, right = panels[2 * row : 2 * row + 2]
            curves = data["curves"][architecture]
            sizes = list(dict.fromkeys(curve["size"] for curve in curves))
            colours = dict(zip(sizes, shades(len(sizes)), strict=True))
            labels = {curve["size"]: f"{curve['size']} ({format_count(curve['n_params'])})" for curve in curves}
            for curve in curves:
                style = {"color": colours[curve["size"]], "lw": 1, "label": labels.pop(curve["size"], None)}
                for axes, name in ((left, "train"), (right, "validation")):
                    axes.plot(curve[name]["tokens"], curve[name]["loss"], **style)
            characters = format_count(curves[0]["validation"]["characters"])
            left.set(ylabel="training loss (nats per character)", title=f"{NAMES[architecture]}, training")
            right.set(ylabel=LOSS, title=f"validation, its first {characters} characters")
            for axes in (left, right):
                axes.set(xscale="log", yscale="log", xlabel="tokens seen")
            left.legend(fontsize=7)


def resources(
    path: Path, data: Data, columns: Sequence[str], architectures: Sequence[str] = (), per_parameter: bool = False
) -> None:
    """Cost against parameters: one panel a quantity; per parameter if asked."""
    with figure(path, columns=len(columns), width=4.2) as panels:
        for axes, name in zip(panels, columns, strict=True):
            for architecture in architectures or data["fits"]:
                points = main_points(data, architecture)
                n, value = points["n_params"], points[name]
                value = value / n if per_parameter else value
                draw_points(axes, n, value, architecture)
                axes.plot(*means(n, value), color=COLOURS[architecture], lw=1, label=NAMES[architecture])
            label = QUANTITIES[name].replace(")", " per parameter)") if per_parameter else QUANTITIES[name]
            axes.set(xscale="log", yscale="log", xlabel="parameters N", ylabel=label)
        panels[0].legend(fontsize=8)


def loss_bars(path: Path, data: Data, architectures: Sequence[str] = ()) -> None:
    """Loss by size as bars, seeds as points on them; the axis does not start at 0, and says so."""
    architectures = architectures or list(data["fits"])
    sizes = [row["size"] for row in data["sizes"] if any(name in row for name in architectures)]
    every = [data["baseline"]["validation_loss"]]
    width = 0.8 / len(architectures)
    with figure(path) as [axes]:
        for i, architecture in enumerate(architectures):
            points = main_points(data, architecture)
            loss, name = points["validation_loss"], NAMES[architecture]
            every += loss.tolist()
            shift = (i - (len(architectures) - 1) / 2) * width
            place = np.array([sizes.index(size) for size in points["size"]]) + shift
            axes.bar(*means(place, loss), width * 0.92, color=COLOURS[architecture], alpha=0.55, label=name)
            axes.plot(place, loss, "k.", ms=3)
        draw_baseline(axes, data["baseline"])
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
                first_seeds = {curve["size"]: curve["validation"] for curve in reversed(curves)}
                sizes = list(dict.fromkeys(curve["size"] for curve in curves))
                for i, size in enumerate(sizes):
                    weight = 0.35 + 0.65 * i / max(1, len(sizes) - 1)
                    text = f"{NAMES[architecture]} {size}" if i in (0, len(sizes) - 1) else None
                    x, y, colour = first_seeds[size][name], first_seeds[size]["loss"], COLOURS[architecture]
                    axes.plot(x, y, color=colour, alpha=weight, lw=0.6 + 1.4 * weight, label=text)
            axes.set(xscale="log", yscale="log", xlabel=label, ylabel=LOSS)
        panels[0].legend(fontsize=7)
        panels[0].figure.suptitle(
            "the first seed of each size; losses while the learning rate still falls, not of finished runs", fontsize=9
        )


def learning_rate(path: Path, data: Data) -> None:
    """The best peak learning rate of each size that was swept, the rule through them, and those of the runs."""
    with figure(path) as [axes]:
        for architecture, rule in data["learning_rate"]["rules"].items():
            n, best = np.array([(row["n"], row["rate"]) for row in rule["optima"]]).T
            line = np.geomspace(n.min() / 1.5, n.max() * 1.5, 50)
            draw_points(axes, n, best, architecture, label=f"{NAMES[architecture]}, best of a size swept")
            label = f"{NAMES[architecture]}, rule: {rule['coefficient']:.3g} · $N^{{-{rule['exponent']:.3f}}}$"
            colour = COLOURS[architecture]
            axes.plot(line, rule["coefficient"] * line ** -rule["exponent"], color=colour, lw=1.2, label=label)
        for architecture, used in data["learning_rate"]["used"].items():
            rates = np.array([(row["n"], row["rate"]) for row in used])
            label = f"{NAMES[architecture]}, used by the runs"
            axes.plot(*rates.T, "x", color=COLOURS[architecture], ms=7, mew=1.2, label=label)
        axes.set(xscale="log", yscale="log", xlabel="non-embedding parameters N", ylabel="peak learning rate")
        axes.legend(fontsize=8)


# Laws


def profiled(data: Data) -> dict[str, Data]:
    """Return the fits whose profiles are drawn, by label: the law of N, Chinchilla's and the data-constrained one."""
    found = {}
    for name in data["fits"]:
        others = (find_fit(data, name, law) for law in ("chinchilla", "data_constrained"))
        for fitted in (chosen_fit(data, name), *others):
            if fitted is not None:
                found[f"{NAMES[name]}, {fitted['law']}"] = fitted
    return found


def residuals(path: Path, data: Data) -> None:
    """Measured over fitted loss of every law of N and D, run by run."""
    laws = [law for law in OF_ONE + OF_N_AND_D if any(find_fit(data, name, law.name) for name in data["fits"])]
    with figure(path, columns=len(laws), width=4.2) as panels:
        for axes, law in zip(panels, laws, strict=True):
            for name in data["fits"]:
                fitted = find_fit(data, name, law.name)
                if fitted is not None:
                    draw_points(axes, fitted["n_params"], np.expm1(fitted["residuals"]), name, label=NAMES[name])
            axes.axhline(0, color=GREY, lw=0.8)
            axes.set(xscale="log", xlabel="parameters N", title=law.label)
            axes.yaxis.set_major_formatter(PercentFormatter(1))
        panels[0].set_ylabel("measured over fitted loss, less 1")
        panels[0].legend(fontsize=8)


def extrapolation(path: Path, data: Data) -> None:
    """The error of each law on sizes larger than any it was fitted to."""
    names = list(data["fits"])
    with figure(path, columns=len(names), width=4.6) as panels:
        for axes, architecture in zip(panels, names, strict=True):
            for law in OF_ONE + OF_N_AND_D:
                rows = [r for r in data["extrapolation"] if r["architecture"] == architecture and r["law"] == law.name]
                if rows:
                    x, y = ([row[key] for row in rows] for key in ("times", "error"))
                    draw_points(axes, x, y, architecture, color=law.colour, ms=5, label=law.label)
            axes.axhspan(-WITHIN, WITHIN, color=GREY, alpha=0.12, lw=0)
            axes.axhline(0, color=GREY, lw=0.8)
            axes.set(xscale="log", xlabel="predicted size over largest fitted size", title=NAMES[architecture])
            axes.yaxis.set_major_formatter(PercentFormatter(1))
        panels[0].set_ylabel("predicted over measured loss, less 1\n(shaded: within 1 %)")
        legend_below(panels, 3)


def budgets(path: Path, data: Data) -> None:
    """Loss against parameters, one colour a budget of tokens, with Chinchilla's law where it is fitted."""
    fits = {name: fitted for name in data["fits"] if (fitted := find_fit(data, name, "chinchilla"))}
    with figure(path, columns=len(fits), width=4.6) as panels:
        for axes, (architecture, fitted) in zip(panels, fits.items(), strict=True):
            table = {name: np.array(values) for name, values in data["points"][architecture].items()}
            whole = (table["data_fraction"] == 1) & (table["n_keys"] == 1)
            for curve, colour in zip(fitted["sheet"], shades(len(fitted["sheet"])), strict=True):
                chosen = whole & (table["budget"] == curve["budget"])
                x, y = table["n_params"][chosen], table["validation_loss"][chosen]
                draw_points(axes, x, y, architecture, color=colour)
                label = f"{format_count(curve['budget'])} tokens"
                axes.plot(curve["n_params"], curve["loss"], color=colour, lw=1.2, label=label)
            irreducible = fitted["parameters"]["E"]
            if irreducible["identified"]:
                label = f"E = {irreducible['value']:.3f}"
                axes.axhline(irreducible["value"], color=GREY, lw=0.8, ls=":", label=label)
            title = f"{NAMES[architecture]}{'' if fitted['identified'] else '; the law is not identified'}"
            axes.set(xscale="log", yscale="log", xlabel="parameters N", ylabel=LOSS, title=title)
            axes.legend(fontsize=7)


def isoflop(path: Path, data: Data) -> None:
    """Loss against parameters at equal FLOPs with the valleys through them, and the best N by each method."""
    names = [name for name, found in data["compute_optimal"].items() if found["ways"]["isoflop"]["minima"]]
    with figure(path, columns=2, rows=len(names), width=4.9) as panels:
        for row, architecture in enumerate(names):
            left, right = panels[2 * row : 2 * row + 2]
            results = data["compute_optimal"][architecture]["ways"]
            draw_valleys(left, results["isoflop"]["minima"], architecture)
            what = "means of seeds, interpolated between budgets; stars: minima that are used"
            left.set_title(f"{NAMES[architecture]}\n{what}", fontsize=9)
            for method, found in results.items():
                draw_optima(right, found, METHODS[method], METHOD_COLOURS[method])
            labels = {"xlabel": "training compute C (FLOPs)", "ylabel": "best number of parameters N"}
            right.set(xscale="log", yscale="log", **labels)
            what = "dots: minima that are used; bands: 95 % bootstrap intervals"
            right.set_title(f"{NAMES[architecture]}, dashed: extrapolated\n{what}", fontsize=9)
            right.legend(fontsize=7)


def draw_valleys(axes: Axes, minima: list[Data], architecture: str) -> None:
    """Draw loss against parameters, a valley and a colour a budget of FLOPs, with the minimum if it is used."""
    flops = [minimum["flops"] for minimum in minima]
    colours = ScalarMappable(LogNorm(min(flops), max(flops)), "viridis")
    for minimum in minima:
        colour = colours.to_rgba(minimum["flops"])
        draw_points(axes, minimum["sizes"], minimum["losses"], architecture, color=colour)
        axes.plot(minimum["valley_n_params"], minimum["valley_losses"], color=colour, lw=1.1)
        if minimum["n_params"] is not None:
            axes.plot(minimum["n_params"], minimum["loss"], "*", color=colour, ms=9)
    axes.set(xscale="log", yscale="log", xlabel="parameters N", ylabel=LOSS)
    axes.figure.colorbar(colours, ax=axes, label="training compute C (FLOPs)")


def draw_optima(axes: Axes, found: Data, name: str, colour: str) -> None:
    """Draw the minima of one method and, if it is identified, its optima with their band."""
    used = [minimum for minimum in found["minima"] if minimum["n_params"] is not None]
    if used:
        x, y = ([minimum[key] for minimum in used] for key in ("flops", "n_params"))
        axes.plot(x, y, ".", color=colour, ms=5, label=f"{name}: minima")
    if found["reason"] is not None:
        return
    flops = [best["flops"] for best in found["optima"]]
    n = [best["n_params"]["value"] for best in found["optima"]]
    inside = sum(not best["extrapolated"] for best in found["optima"])  # the budgets rise
    draw_band(axes, flops, [best["n_params"]["bootstrap"] for best in found["optima"]], colour)
    axes.plot(flops[:inside], n[:inside], color=colour, lw=1.3, label=f"{name}: a = {found['a']['value']:.2f}")
    axes.plot(flops[max(0, inside - 1) :], n[max(0, inside - 1) :], color=colour, lw=1.3, ls="--")


def published(path: Path, data: Data) -> None:
    """The exponents of N, published and of this study, a colour a law; lines are intervals where there are any."""
    rows = [row for row in compare_with_published(data) if row["ours_at"][0] == "law" and row["ours_at"][3] == "alpha"]
    rows = sorted((row for row in rows if row["ours_at"][2].startswith("n_params")), key=lambda row: row["value"])
    laws = [law for law in STUDIED if any(row["ours_at"][1] == law.name for row in rows)]
    drawn = []  # label, value, interval, colour, marker
    for law in laws:
        of_law = [row for row in rows if row["ours_at"][1] == law.name]
        for row in of_law:
            label = row["source"]["name"] + (", LSTM" if row["architectures"] == ["lstm"] else "")
            drawn.append((label, row["value"], row["interval"] or (row["value"], row["value"]), law.colour, "d"))
        here = {(row["ours_at"][2], name): ours for row in of_law for name, ours in row["ours"].items()}
        for (axis, name), ours in sorted(here.items()):
            if ours["reason"] is None:
                label = f"here, {NAMES[name]}{'' if axis == 'n_params' else ', non-embedding'}"
                drawn.append((label, ours["value"], ours["interval"], COLOURS[name], MARKERS[name]))
    with figure(path, width=6.4, height=0.8 + 0.17 * len(drawn)) as [axes]:
        for place, (_, value, (low, high), colour, marker) in enumerate(drawn):
            ends = np.clip((-inf if low is None else low, inf if high is None else high), *EXPONENTS)
            axes.plot(ends, (place, place), color=colour, lw=1.3)
            axes.plot(value, place, marker, color=colour, ms=4)
        for law in laws:
            axes.plot([], [], "d", color=law.colour, ms=4, label=law.label)
        axes.set(xscale="log", xlabel="exponent α of N", ylim=(len(drawn) - 0.5, -0.5))
        axes.set_yticks(range(len(drawn)), [label for label, *_ in drawn], fontsize=7)
        axes.legend(fontsize=7)


# Positions and repetition


def loss_by_position(path: Path, data: Data) -> None:
    """Loss by how many characters a prediction can see, and GPT minus LSTM of it."""
    found = data["comparison"]["positions"]
    middle = np.array([np.sqrt(first * last) for first, last in found["bins"]])
    with figure(path, columns=2) as (left, right):
        for axes, names in ((left, ("gpt", "lstm")), (right, ("difference",))):
            for name in names:
                colour, style = COLOURS.get(name, GREY), f"{MARKERS.get(name, 'd')}-"
                draw_band(axes, middle, found[name]["intervals"], colour)
                axes.plot(middle, found[name]["loss"], style, color=colour, ms=4, lw=1.2, label=NAMES.get(name))
            axes.set(xscale="log", xlabel="characters that a prediction can see")
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
            verdict = "" if worths else ": the worth of repetition is not identified"
            axes.set_title(f"{NAMES[architecture]}{verdict}", fontsize=9)
            if worths:
                draw_worths(panels[columns * row + 1], worths, rising(data, architecture))
            elif columns == 2:
                panels[columns * row + 1].set_visible(False)
        legend_below(panels[::columns], 4)


def draw_worths(axes: Axes, worths: dict[str, Data], rises: list[Data]) -> None:
    """Draw what repeated epochs, or keys of every tune, are worth, and from where on a measured loss rises."""
    for unit, worth in worths.items():
        x, y = ([entry[name] for entry in worth["rows"]] for name in (unit, "value"))
        draw_band(axes, x, [entry["bootstrap"] for entry in worth["rows"]], WORTH_COLOURS[unit])
        axes.plot(x, y, "o-", ms=3, color=WORTH_COLOURS[unit], label=f"{unit}, fitted")
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
    budgets, sizes = np.unique(table["budget"]), list(dict.fromkeys(table["size"]))
    own_keys = table["n_keys"] == 1
    lines = {
        (budget, size): own_keys & (table["budget"] == budget) & (table["size"] == size)
        for size in sizes
        for budget in budgets
    }
    repeated = {place: mine for place, mine in lines.items() if len(np.unique(table["data_fraction"][mine])) > 1}
    colours = dict(zip(budgets, shades(len(budgets)), strict=True))
    dashes = dict(zip(dict.fromkeys(size for _, size in repeated), cycle(DASHES), strict=False))
    for (budget, size), mine in repeated.items():
        at, loss = means(table["epochs"][mine], table["validation_loss"][mine])
        label = f"{size}, {format_count(budget)} tokens"
        axes.plot(at, loss, "o", ls=dashes[size], ms=3, lw=1, color=colours[budget], label=label)
    axes.set(xscale="log", yscale="log", xlabel="epochs at equal tokens", ylabel=LOSS)


# All figures


@dataclass(frozen=True)
class StudyFigure:
    """A figure of the report: its name, its caption, the function that draws it, and whether the study has the runs.

    `draw` is None for a figure that generation draws.
    """

    name: str
    caption: str
    draw: Callable[..., None] | None
    condition: Callable[[Data], bool] = lambda _: True


MUSIC_FIGURE = "../generation_analysis/quality_over_size"
FIGURES = (  # in the report's order
    StudyFigure(
        "combined_scaling_laws", "Loss against parameters; points are runs, bands 95 % intervals.", scaling_law
    ),
    StudyFigure(
        "budgets",
        "Loss against parameters at every budget of tokens; lines are Chinchilla's law.",
        budgets,
        lambda data: any(find_fit(data, name, "chinchilla") for name in data["fits"]),
    ),
    StudyFigure("residuals", "Measured over fitted loss, run by run.", residuals),
    StudyFigure(
        "profile_likelihoods",
        "Profile likelihoods: increase of the objective when one parameter is held fixed; 1 is the 95 % limit.",
        lambda path, data: profile_likelihoods(path, profiled(data)),
    ),
    StudyFigure(
        "extrapolation",
        "Error of the laws on sizes larger than any that they were fitted to.",
        extrapolation,
        lambda data: bool(data["extrapolation"]),
    ),
    StudyFigure(
        "loss_by_position",
        "Loss by the number of characters that a prediction can see.",
        loss_by_position,
        lambda data: (data["comparison"] or {}).get("positions") is not None,
    ),
    StudyFigure(
        "isoflop",
        "Loss against parameters at equal training compute; minima are marked.",
        isoflop,
        lambda data: any(found["ways"]["isoflop"]["minima"] for found in data["compute_optimal"].values()),
    ),
    StudyFigure(
        "repetition",
        "Loss against epochs at equal tokens, and what repeated data are worth.",
        repetition,
        lambda data: any(data["repetition"].values()),
    ),
    StudyFigure(
        MUSIC_FIGURE, "Quality of the generated tunes against parameters; quality.md has every metric.", draw=None
    ),
    StudyFigure(
        "learning_rate",
        "Best peak learning rate of each size swept, the rule, and the learning rates of the runs.",
        learning_rate,
        lambda data: data["learning_rate"] is not None,
    ),
    StudyFigure("published", "Exponents of N, published and here.", published),
    StudyFigure("training_curves", "Training and validation loss while training, one line a seed.", training_curves),
    StudyFigure(
        "sample_efficiency", "Validation loss while training, against tokens and against time.", sample_efficiency
    ),
    StudyFigure("loss_comparison_bars", "Validation loss by size; points are seeds.", loss_bars),
    StudyFigure(
        "absolute_resources",
        "Time, memory, compute and speed against parameters.",
        partial(resources, columns=tuple(QUANTITIES)),
    ),
    StudyFigure(
        "computational_efficiency",
        "Time and memory per parameter.",
        partial(resources, columns=COSTS, per_parameter=True),
    ),
)
OF_GPT: dict[str, Callable[..., None]] = {
    "scaling_law": scaling_law,
    "training_curves": training_curves,
    "training_metrics": partial(resources, columns=COSTS),
    "loss_comparison": loss_bars,
}


def study_figures(data: Data, gpt: Path, both: Path) -> dict[Path, Callable[[Path], None]]:
    """Return how to draw every figure that the study has the runs for, by its path without a suffix."""
    of_gpt = OF_GPT if "gpt" in data["fits"] else {}
    return {
        **{gpt / name: partial(draw, data=data, architectures=["gpt"]) for name, draw in of_gpt.items()},
        **{both / each.name: partial(each.draw, data=data) for each in FIGURES if each.draw and each.condition(data)},
    }
