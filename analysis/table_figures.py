"""The figures of a law fitted to a table, drawn from its fits.json."""

from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.colors import LogNorm
from matplotlib.ticker import PercentFormatter

from analysis.drawing import COLOURS, GREY, escape_formula, figure

SYMBOLS = {"n": "N", "d": "D", "c": "C", "u": "U", "keys": "keys"}
POINTS: dict[str, Any] = {"color": COLOURS["gpt"], "ms": 3, "mfc": "none"}


def label_of(data: dict[str, Any], variable: str) -> str:
    """Return an axis label: the variable's symbol and the name of its column."""
    return f"{SYMBOLS[variable]} ({escape_formula(data['columns'][variable])})"


def draw_law(path: Path, data: dict[str, Any]) -> None:
    """Loss against the law's variable with its line and band; of several variables, against the fitted loss too."""
    points, line, variables = data["points"], data["line"], data["fit"]["variables"]
    loss, name = np.array(points["loss"]), escape_formula(data["columns"]["loss"])
    with figure(path, columns=1 if line else 2) as panels:
        axes = panels[0]
        axes.set(xscale="log", yscale="log", xlabel=label_of(data, variables[0]), ylabel=name)
        if line:
            axes.plot(points[variables[0]], loss, "o", **POINTS)
            axes.plot(line["at"], line["loss"], color=COLOURS["gpt"], lw=1.3)
            low, high = (np.array(line[edge], dtype=float) for edge in ("low", "high"))
            axes.fill_between(line["at"], low, high, color=COLOURS["gpt"], alpha=0.18, lw=0)
            axes.set_title("band: 95 % bootstrap interval", fontsize=9)
            return
        dots = axes.scatter(points[variables[0]], loss, c=points[variables[1]], norm=LogNorm(), cmap="viridis", s=10)
        axes.figure.colorbar(dots, ax=axes, label=label_of(data, variables[1]))
        panels[1].plot(points["fitted"], loss, "o", **POINTS)
        panels[1].plot([loss.min(), loss.max()], [loss.min(), loss.max()], color=GREY, lw=0.8, ls="--")
        panels[1].set(xscale="log", yscale="log", xlabel="fitted loss", ylabel="measured loss")


def draw_residuals(path: Path, data: dict[str, Any]) -> None:
    """Relative error of the fitted loss against each variable of the law."""
    variables, off = data["fit"]["variables"], np.expm1(data["fit"]["residuals"])
    with figure(path, columns=len(variables), width=4.2) as panels:
        for axes, variable in zip(panels, variables, strict=True):
            axes.plot(data["points"][variable], off, "o", **POINTS)
            axes.axhline(0, color=GREY, lw=0.8)
            axes.set(xscale="log", xlabel=label_of(data, variable))
            axes.yaxis.set_major_formatter(PercentFormatter(1))
        panels[0].set_ylabel("measured / fitted loss − 1")
