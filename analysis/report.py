"""The report and the README's findings: templates filled from fits.json, and the rows of their tables."""

import re
from collections import defaultdict
from math import inf, sqrt
from pathlib import Path
from typing import Any

import numpy as np

from analysis import fits_json
from analysis.figures import FIGURES
from analysis.fits_json import AXES, LAWS, METHODS, PARAMETERS, Data, epochs_before, rising
from analysis.published import compare_with_published, verdict_counts
from files import render

REPORT = Path(__file__).with_name("report.md.j2")
FINDINGS = Path(__file__).with_name("findings.md.j2")
SWEPT_WITHIN = 1.1  # times the largest size that was swept: beyond it the learning-rate rule is extrapolated
DECADE = 10.0  # times the largest fitted size
SHARES = ("valid", "bars_add_up", "no_errors", "copied")
DISTANCE = "distance_"


def report(data: Data, drawn: set[str], conclusions: str | None) -> str:
    """Return the report of a study as Markdown.

    Args:
        data: what fits.json holds.
        drawn: the names of the figures beside the report.
        conclusions: what a person concluded from these numbers, as Markdown; None leaves the section out.
    """
    figures = [figure for figure in FIGURES if figure.name in drawn]
    text = render(REPORT, conclusions=conclusions, figures=figures, **values_of(data))
    return re.sub(r"\n{3,}", "\n\n", text)


def conclusions_of(template: Path, data: Data) -> str:
    """Fill the conclusions that a person wrote with the numbers of fits.json."""
    return render(template, **values_of(data))


def findings(fits: Data, quality: Data) -> str:
    """Return the three findings and the result table of the README, from fits.json and quality.json."""
    return render(FINDINGS, **values_of(fits | {"quality": quality_table(quality)}))


def values_of(data: Data) -> dict[str, Any]:
    """Return what the templates use: `data`, the labels and lookups of `analysis.fits_json`, and the tables."""
    published = compare_with_published(data)
    return {
        "data": data,
        "labels": fits_json,
        "names": list(data["fits"]),
        "largest": data["sizes"][-1],
        "laws": law_rows(data),
        "ratios": ratio_rows(data),
        "ablations": ablation_rows(data),
        "extrapolation": extrapolation_rows(data),
        "repetition": repetition_rows(data),
        "learning_rates": learning_rate_rows(data),
        "published": published_groups(published),
        "counts": {name: verdict_counts(published, name) for name in data["fits"]},
        "not_identified": not_identified_rows(data),
    }


# Rows of tables


def law_rows(data: Data) -> list[Data]:
    """Return a row a fit in all parameters, D or C: its law, parameters and root mean square error (relative)."""
    return [
        {
            "architecture": name,
            "axis": fit["axis"],
            "law": fit["law"],
            "parameters": fit["parameters"],
            "rms": sqrt(float(np.mean(np.square(fit["residuals"])))),
        }
        for name, fits in data["fits"].items()
        for fit in fits
        if fit["axis"] != "n_params_non_embedding"
    ]


def ratio_rows(data: Data) -> list[Data]:
    """Return the ratio of each resource at the middle of the shared losses, that of tokens for the largest size."""
    ratios = data["comparison"]["ratios"] if data["comparison"] else []
    largest = ratios[-1]["size"] if ratios else None  # the rows of tokens are last, by size
    groups = defaultdict(list)
    for row in ratios:
        if row["size"] in (None, largest):
            groups[row["resource"]].append(row)
    return [sorted(group, key=lambda row: row["loss"])[len(group) // 2] for group in groups.values()]


def ablation_rows(data: Data) -> list[Data]:
    """Return the ablations at the main budget, and wherever more epochs on the same tunes raise the loss.

    A row is one ablation with its `changes` at each size and number of epochs.
    """
    groups: dict[tuple[Any, ...], list[Data]] = defaultdict(list)
    for name, rows in data["ablations"].items():
        for row in rows:
            if (row["budget"] == data["main_budget"] and row["against"] != "longer") or row in rising(data, name):
                key = name, row["against"], row["data_fraction"], row["keys"]
                groups[key].append(row | {"epochs_before": epochs_before(row)})
    return [{"architecture": name, **rows[0], "changes": rows} for (name, *_), rows in groups.items()]


def extrapolation_rows(data: Data) -> list[Data]:
    """Return the laws of each architecture by their error at the main budget on larger sizes, best first.

    `farthest` is the test of a decade or more in size from the most fitted sizes, or else the farthest there is.
    """
    rows = []
    for name in data["fits"]:
        tests = [row for row in data["extrapolation"] if row["architecture"] == name and row["main"]]
        ranking = []
        for law in dict.fromkeys(row["law"] for row in tests):
            of_law = [row for row in tests if row["law"] == law]
            far = [row for row in of_law if row["times"] >= DECADE]
            farthest = max(of_law, key=lambda row: row["times"])
            if far:
                farthest = max(far, key=lambda row: (row["fitted_sizes"], -row["times"]))
            error = sqrt(sum(row["error"] ** 2 for row in of_law) / len(of_law))
            ranking.append({"law": law, "tests": len(of_law), "error": error, "farthest": farthest})
        rows += [{"architecture": name, **row} for row in sorted(ranking, key=lambda row: row["error"])]
    return rows


def repetition_rows(data: Data) -> list[Data]:
    """Return what repeated epochs and transposed copies are worth, up to where a measured loss rises."""
    rows = []
    for name, found in data["repetition"].items():
        limit = min(map(epochs_before, rising(data, name)), default=inf)
        for unit in ("epochs", "keys"):
            worth = (found or {}).get(unit)
            if worth and worth["identified"]:
                shown = [row for row in worth["rows"] if unit == "keys" or row["epochs"] <= limit]
                rows.append({"architecture": name, "unit": unit, "worths": shown})
    return rows


def learning_rate_rows(data: Data) -> list[Data]:
    """Return the learning-rate rule of each architecture, its largest cost, and the sizes beyond the sweep."""
    rows = []
    rules = data["learning_rate"]["rules"] if data["learning_rate"] else {}
    for name, rule in rules.items():
        used = data["learning_rate"]["used"].get(name, [])
        limit = SWEPT_WITHIN * max(optimum["n"] for optimum in rule["optima"])
        swept = [row for row in used if row["rise"] is not None]
        beyond = [row["size"] for row in used if row["n"] > limit]
        worst = max(swept, key=lambda row: row["rise"], default=None)
        rows.append({"architecture": name, **rule, "swept": len(swept), "worst": worst, "beyond": beyond})
    return rows


def published_groups(rows: list[Data]) -> list[Data]:
    """Return a row for each of this study's numbers with all published ones that it is compared with."""
    groups: dict[tuple[Any, ...], list[Data]] = defaultdict(list)
    for row in rows:
        groups[row["what"], *row["ours_at"], *row["architectures"]].append(row)
    return [
        {
            "what": numbers[0]["what"],
            "numbers": numbers,
            "ours": numbers[0]["ours"],
            "differences": list(dict.fromkeys(text for row in numbers for text in row["differences"])),
        }
        for numbers in groups.values()
    ]


def not_identified_rows(data: Data) -> list[Data]:
    """Return everything that is not identified: architecture, variable, law or method, parameters, and reasons."""
    rows = []
    for name, fits in data["fits"].items():
        axes: dict[tuple[str, str], list[str]] = defaultdict(list)  # of the fits of one law that say the same
        for fit in fits:
            reasons = defaultdict(list)
            for parameter, estimate in fit["parameters"].items():
                if not estimate["identified"]:
                    reasons[estimate["reason"]].append(PARAMETERS.get(parameter, parameter))
            if reasons:
                text = "; ".join(f"{', '.join(parameters)}: {reason}" for reason, parameters in reasons.items())
                axes[LAWS[fit["law"]], text].append(AXES[fit["axis"]])
        rows += [
            {"architecture": name, "axis": " and ".join(found), "what": law, "reasons": text}
            for (law, text), found in axes.items()
        ]
        for method, result in data["compute_optimal"][name]["ways"].items():
            if result["reason"] is not None:
                what = f"compute-optimal, {METHODS[method]}"
                rows.append({"architecture": name, "axis": "C", "what": what, "reasons": f"a, b: {result['reason']}"})
    return rows


# Quality of generated tunes


def quality_table(quality: Data) -> Data:
    """Return the shares of tunes by size at the temperature chosen for each, and those of human test tunes.

    The temperature is the one whose tunes are nearest to the validation split: each distance over its baseline, mean
    over distances and seeds. `sizes` holds a row a size; shares are pooled over seeds.
    """
    cells = [cell for cell in quality["cells"] if not cell["best"] and cell["bars"] == quality["analysis"]["bars"]]
    sizes: dict[str, Data] = {}
    for architecture, size in dict.fromkeys((cell["architecture"], cell["size"]) for cell in cells):
        group = [cell for cell in cells if (cell["architecture"], cell["size"]) == (architecture, size)]
        chosen = _chosen_temperature(group, quality["floors"])
        sizes.setdefault(size, {"size": size})[architecture] = _pooled(
            [cell for cell in group if cell["temperature"] == chosen]
        )
    human = {name: row["share"] for name, row in quality["human"]["test"]["shares"].items() if name in SHARES}
    return {"sizes": list(sizes.values()), "human": human}


def _chosen_temperature(cells: list[Data], baselines: Data) -> float:
    """Return the temperature with the smallest distances; only one with the most seeds and all distances can win."""
    scores = defaultdict(list)
    for cell in cells:
        names = [name for name in cell["numbers"] if name.startswith(DISTANCE) and (baselines.get(name) or {})["value"]]
        values = [cell["numbers"][name]["value"] for name in names]
        whole = bool(values) and None not in values
        ratios = (
            [value / baselines[name]["value"] for name, value in zip(names, values, strict=True)] if whole else [inf]
        )
        scores[cell["temperature"]].append(float(np.mean(ratios)))
    seeds = max(map(len, scores.values()))
    return min(
        (temperature for temperature, of_seeds in scores.items() if len(of_seeds) == seeds),
        key=lambda temperature: (float(np.mean(scores[temperature])), abs(temperature - 1)),
    )


def _pooled(cells: list[Data]) -> Data:
    pooled = {"n_params": cells[0]["n_params"], "temperature": cells[0]["temperature"]}
    pooled["tunes"] = sum(cell["samples"] for cell in cells)
    for name in SHARES:
        counts = [cell["shares"][name] for cell in cells if name in cell["shares"]]
        total = sum(row["total"] for row in counts)
        pooled[name] = sum(row["count"] for row in counts) / total if total else None
    return pooled
