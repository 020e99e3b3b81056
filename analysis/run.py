"""Run records → laws, figures and a report: python analysis/run.py"""

import hashlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from analysis import figures
from analysis.comparison import AXES, Comparison, Runs, column, compare, held_out_error, paired
from analysis.fitting import LAWS
from analysis.report import chosen_law, law_lines, write_report
from door import DoorError, open_door, read_arguments, read_json, write_json, write_text
from training.record import FOLDERS, RECORD, baseline_file, read_ladders

GPT_FOLDER, COMPARISON_FOLDER = "GPT_analysis", "comparison_analysis"
DATA = "comparison_data.json"
MIN_SIZES = 3


@dataclass
class AnalysisArguments:
    """Where the records are and where the results go."""

    output_root: str = field(default="data", metadata={"help": "the folder that holds the training folders"})


def identity_of(root: Path) -> str:
    """Return the hash of all that decides the analysis: the records, the baseline and this room's code."""
    files = [
        path for folder in FOLDERS.values() for path in (root / folder).rglob("*.json") if path.name != "config.json"
    ]
    content = hashlib.sha256()
    for path in [*sorted(files), *sorted(Path(__file__).parent.glob("*.py"))]:
        content.update(path.read_bytes())
    return content.hexdigest()


def gather(root: Path) -> tuple[dict[str, Runs], list[str]]:
    """Return the finished runs of both ladders and a line for each run that did not finish."""
    ladders = read_ladders(root)
    missing = [str(root / folder) for architecture, folder in FOLDERS.items() if architecture not in ladders]
    if missing:
        raise DoorError(f"{missing[0]} holds no finished run: train the ladder with accelerate launch training/run.py")
    unfinished = [
        f"{run['recipe']['architecture']} {run['recipe']['size']} seed {run['recipe']['seed']}: {run['reason']}"
        for ladder in ladders.values()
        for run in ladder.unfinished
    ]
    for architecture, ladder in ladders.items():
        if ladder.others:
            print(f"left out of the fits: {ladder.others} {architecture} runs of other budgets or parts of the data")
    folders = [path for folder in FOLDERS.values() for path in sorted((root / folder).rglob("seed_*"))]
    unfinished += [
        f"{folder}: no record, the run has not ended" for folder in folders if not (folder / RECORD).is_file()
    ]
    for line in unfinished:
        print(f"left out of the fits: {line}")
    runs = {architecture: ladder.finished for architecture, ladder in ladders.items()}
    for run in (run for members in runs.values() for run in members):
        # The libraries take hundreds of megabytes that have nothing to do with the model.
        run["memory_added_bytes"] = run["peak_memory_bytes"] - run["memory_before_bytes"]
    shared = {run["recipe"]["size"] for run in paired(runs)["gpt"]}
    if len(shared) < MIN_SIZES:
        raise DoorError(
            f"{root}: {len(shared)} sizes are finished in both ladders, a law needs {MIN_SIZES}: train more"
        )
    return runs, unfinished


def describe_sizes(ladders: dict[str, Runs]) -> list[dict[str, Any]]:
    """Return one row a size with the means over seeds of both architectures."""
    groups = {architecture: figures.by_size(runs) for architecture, runs in ladders.items()}
    rows = []
    for size in groups["gpt"]:
        row: dict[str, Any] = {"size": size, "seeds": len(groups["gpt"][size])}
        for architecture, group in groups.items():
            losses = column(group[size], "validation_loss")
            row[architecture] = {
                "n_params": group[size][0]["n_params"],
                "n_params_non_embedding": group[size][0]["n_params_non_embedding"],
                "loss": float(losses.mean()),
                "seed_deviation": float(losses.std(ddof=1)) if len(losses) > 1 else None,
                "bits_per_character": float(losses.mean() / np.log(2)),
                "seconds": figures.mean(group[size], "seconds"),
                "memory_added_bytes": figures.mean(group[size], "memory_added_bytes"),
            }
        rows.append(row)
    return rows


def analyse(root: Path) -> tuple[dict[str, Any], list[Comparison], dict[str, Runs]]:
    """Return what comparison_data.json holds, the comparisons with their fits, and the runs."""
    runs, unfinished = gather(root)
    ladders = paired(runs)
    try:
        comparisons = compare(ladders)
    except ValueError as error:
        raise DoorError(f"{root}: no law can be fitted to its runs: {error}") from None
    everyone = [run for members in ladders.values() for run in members]
    largest = max(run["n_params"] for run in everyone)
    sizes = describe_sizes(ladders)
    held_out = [
        {"architecture": a, "law": law, "size": sizes[-1]["size"], "error": held_out_error(law, members, "n_params")}
        for a, members in ladders.items()
        for law in LAWS
    ]
    data = {
        "tokens": everyone[0]["tokens"],
        "epochs": everyone[0]["epochs"],
        "seeds": sorted({run["recipe"]["seed"] for run in everyone}),
        "runs": {architecture: len(members) for architecture, members in ladders.items()},
        "axes": AXES,
        "validation_tokens": everyone[0]["validation_tokens"],
        "validation_standard_error": float(np.mean([run["validation_loss_standard_error"] for run in everyone])),
        "baseline": read_json(baseline_file(root)),
        "sizes": sizes,
        "comparisons": [{**c.as_dict(), "largest_n": largest} for c in comparisons],
        "held_out": held_out,
        "unfinished": unfinished,
    }
    return data, comparisons, ladders


def main() -> None:
    root = Path(read_arguments(AnalysisArguments, __doc__ or "").output_root)
    both = root / COMPARISON_FOLDER
    identity = identity_of(root)
    if (both / DATA).is_file() and read_json(both / DATA).get("identity") == identity:
        print(f"{both}: finished already, nothing to do")
        return
    data, comparisons, ladders = analyse(root)
    fits = {c.law: c.fits for c in comparisons if c.axis == "n_params"}
    chosen = {architecture: fits[chosen_law(data, architecture)][architecture] for architecture in ladders}
    gpt_only = {"gpt": ladders["gpt"]}
    gpt = root / GPT_FOLDER
    both_names = ["seconds", "memory_added_bytes"]
    baseline = data["baseline"]
    drawings = [
        lambda: figures.scaling_law(gpt / "scaling_law.png", gpt_only, {"gpt": chosen["gpt"]}, baseline),
        lambda: figures.training_curves(gpt / "training_curves.png", ladders["gpt"]),
        lambda: figures.resources(gpt / "training_metrics.png", gpt_only, both_names),
        lambda: figures.loss_bars(gpt / "loss_comparison.png", gpt_only, baseline),
        lambda: figures.scaling_law(both / "combined_scaling_laws.png", ladders, chosen, baseline),
        lambda: figures.resources(both / "computational_efficiency.png", ladders, both_names, per_parameter=True),
        lambda: figures.resources(
            both / "absolute_resources.png", ladders, [*both_names, "flops", "tokens_per_second"]
        ),
        lambda: figures.sample_efficiency(both / "sample_efficiency.png", ladders),
        lambda: figures.loss_bars(both / "loss_comparison_bars.png", ladders, baseline),
    ]
    for draw in tqdm(drawings, desc="figures"):
        draw()
    gpt_fits = {axis: {c.law: c.fits["gpt"].as_dict() for c in comparisons if c.axis == axis} for axis in AXES}
    write_json(gpt / "scaling_law_fit.json", gpt_fits)
    write_text(both / "report.md", write_report(data))
    write_json(both / DATA, {"identity": identity, **data})  # last: it says that the others are there
    print("\n".join(law_lines(data)))
    print(f"figures and fits: {gpt}, {both}; the report: {both / 'report.md'}")


if __name__ == "__main__":
    open_door(main)
