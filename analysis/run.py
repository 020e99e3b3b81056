"""Run records, or a table of runs → laws, figures and a report: python analysis/run.py"""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tqdm import tqdm

import cli
from analysis import figures
from analysis.answers import MUSIC_FIGURE, answer_section, arm_section
from analysis.evidence import QUALITY, SWEEPS, Evidence, of_folders, of_table
from analysis.page import write_page
from analysis.published import compare_with_published, published_figure, published_lines
from analysis.report import find_fit, image, law_lines, write_report
from analysis.study import analyse
from cli import UserError
from files import read_json, write_json, write_text
from training.record import BASELINE, FOLDERS

GPT_FOLDER, COMPARISON_FOLDER = "GPT_analysis", "comparison_analysis"
FITS = "fits.json"

MORE = {  # figures that no section of the report is about
    "training_curves": "Training and validation loss while training, one line a seed.",
    "sample_efficiency": "Validation loss while training, against tokens and against time.",
    "loss_comparison_bars": "Validation loss by size; points are seeds.",
    "absolute_resources": "Time, memory, compute and speed against parameters.",
    "computational_efficiency": "Time and memory per parameter.",
}


@dataclass
class AnalysisArguments:
    """A study's records; where the results go."""

    output_root: str = field(default="data", metadata={"help": "a study: the folder that holds the training folders"})
    also: list[str] = field(
        default_factory=list,
        metadata={"help": "a study: further such folders, of the same tunes in other numbers of keys"},
    )
    sweeps: str = field(
        default="results", metadata={"help": f"a study: the folder of the sweeps of learning rates, {SWEEPS}, if any"}
    )
    runs: str | None = field(
        default=None, metadata={"help": "a study in a table of runs, such as results/runs.parquet, instead of folders"}
    )
    study: str = field(default="cpu", metadata={"help": "which study of the table of runs"})
    out: str | None = field(
        default=None, metadata={"help": "a table of runs: the folder for fits.json, figures and report"}
    )


def identity_of(files: list[Path]) -> str:
    """Return the hash of what decides an analysis: its files and this room's code."""
    content = hashlib.sha256()
    for path in [*sorted(files), *sorted(Path(__file__).parent.glob("*.py"))]:
        content.update(path.read_bytes())
    return content.hexdigest()


def draw(drawings: dict[Path, Callable[[Path], None]]) -> None:
    """Draw figures, each at its path, with a progress bar."""
    for path, drawing in tqdm(drawings.items(), desc="figures"):
        drawing(path)


def study_figures(data: dict[str, Any], gpt: Path, both: Path) -> dict[Path, Callable[[Path], None]]:
    """Return how to draw every figure that the study has the runs for."""
    names, costs = list(data["fits"]), ["seconds", "peak_memory_bytes"]
    everything = [*costs, "flops", "tokens_per_second"]
    drawings: dict[Path, Callable[[Path], None]] = {}
    if "gpt" in names and gpt != both:
        drawings |= {
            gpt / "scaling_law": lambda path: figures.scaling_law(path, data, ["gpt"]),
            gpt / "training_curves": lambda path: figures.training_curves(path, data, ["gpt"]),
            gpt / "training_metrics": lambda path: figures.resources(path, data, costs, ["gpt"]),
            gpt / "loss_comparison": lambda path: figures.loss_bars(path, data, ["gpt"]),
        }
    drawings |= {
        both / "training_curves": lambda path: figures.training_curves(path, data, names),
        both / "combined_scaling_laws": lambda path: figures.scaling_law(path, data, names),
        both / "computational_efficiency": lambda path: figures.resources(path, data, costs, names, per_parameter=True),
        both / "absolute_resources": lambda path: figures.resources(path, data, everything, names),
        both / "sample_efficiency": lambda path: figures.sample_efficiency(path, data),
        both / "loss_comparison_bars": lambda path: figures.loss_bars(path, data, names),
        both / "residuals": lambda path: figures.residuals(path, data),
        both / "profile_likelihoods": lambda path: figures.profile_likelihoods(path, figures.profiled(data)),
        both / "published": lambda path: published_figure(path, compare_with_published(data)),
    }
    if data["extrapolation"]:
        drawings[both / "extrapolation"] = lambda path: figures.extrapolation(path, data)
    if data["comparison"] is not None and data["comparison"]["positions"] is not None:
        drawings[both / "loss_by_position"] = lambda path: figures.loss_by_position(path, data)
    if any(found["ways"]["isoflop"]["minima"] for found in data["allocation"].values()):
        drawings[both / "isoflop"] = lambda path: figures.isoflop(path, data)
    if any(data["repetition"].values()):
        drawings[both / "repetition"] = lambda path: figures.repetition(path, data)
    if any(find_fit(data, name, "chinchilla") for name in names):
        drawings[both / "budgets"] = lambda path: figures.budgets(path, data)
    if data["learning_rate"] is not None:
        drawings[both / "learning_rate"] = lambda path: figures.learning_rate(path, data)
    return drawings


def _is_whole(data: dict[str, Any], gpt: Path, both: Path) -> bool:
    """Return whether every file of an analysis is there still."""
    files = [
        path.with_name(f"{path.name}.{kind}") for path in study_figures(data, gpt, both) for kind in ("png", "svg")
    ]
    return all(path.is_file() for path in [*files, both / "report.md", both / "report.html"])


def report_of(data: dict[str, Any], drawn: set[str]) -> str:
    """Return the report of a study as Markdown: answers, evidence, and what others have published."""
    published = published_lines(compare_with_published(data))
    lines = ["", *arm_section(data), "## Beside published numbers", "", *published, ""]
    lines += image(drawn, "published", "Exponents of N, published and here.")
    report = write_report(data, drawn, answer_section(data, drawn)) + "\n".join(lines)
    more = [line for name, caption in MORE.items() for line in image(drawn, name, caption)]
    return "\n".join([report, "## Curves and costs", "", *more]) if more else report


def study(arguments: AnalysisArguments) -> None:
    """Analyse a study's records in its training folders."""
    root, also, sweeps = (
        Path(arguments.output_root),
        [Path(folder) for folder in arguments.also],
        Path(arguments.sweeps),
    )
    roots = [top / folder for top in (root, *also) for folder in FOLDERS.values()]
    files = [path for folder in roots for path in folder.rglob("*.json") if path.name != "config.json"]
    write_study(
        lambda: of_folders(root, also, sweeps),
        [*files, *sweeps.glob(SWEEPS)],
        root / GPT_FOLDER,
        root / COMPARISON_FOLDER,
    )


def study_in_table(arguments: AnalysisArguments) -> None:
    """Analyse a study in a table of runs; all files go to one folder."""
    path, out = Path(str(arguments.runs)), Path(str(arguments.out))
    out.mkdir(parents=True, exist_ok=True)  # fails before the minutes of fitting
    files = [
        file
        for file in [path, path.parent / BASELINE, path.parent / QUALITY, *path.parent.glob(SWEEPS)]
        if file.is_file()
    ]
    write_study(lambda: of_table(path, arguments.study), files, out, out)


def write_study(read: Callable[[], Evidence], files: list[Path], gpt: Path, both: Path) -> None:
    """Write fits, figures and report of a study, unless the same were written of the same files already."""
    identity = identity_of(files)
    if (both / FITS).is_file():
        before = read_json(both / FITS)
        if before.get("identity") == identity and _is_whole(before, gpt, both):
            print(f"{both}: finished already, nothing to do")
            return
    data = analyse(read())
    for line in data["left_out"]:
        print(f"left out of the fits: {line}")
    drawings = study_figures(data, gpt, both)
    draw(drawings)
    drawn = {path.name for path in drawings if path.parent == both}
    if data["quality"] is not None and (both / f"{MUSIC_FIGURE}.png").is_file():
        drawn.add(MUSIC_FIGURE)
    report = report_of(data, drawn)
    write_text(both / "report.md", report)
    write_text(both / "report.html", write_page(report, both))
    compared = data["comparison"]
    if gpt != both and "gpt" in data["fits"]:
        write_json(gpt / "scaling_law_fit.json", data["fits"]["gpt"])
    if gpt != both and compared is not None:
        write_json(both / "comparison_data.json", compared)
    if compared is not None:
        # The fits of the paired runs stand in comparison_data.json alone; fits.json has those of all runs.
        laws = [{name: entry for name, entry in law.items() if name != "fits"} for law in compared["laws"]]
        compared = {**compared, "laws": laws}
    write_json(both / FITS, {"identity": identity, **data, "comparison": compared})  # last: the others are there
    print("\n".join(law_lines(data)))
    print(f"figures and fits: {gpt}, {both}; the report: {both / 'report.html'} (or report.md)")


def run(arguments: AnalysisArguments) -> None:
    if arguments.runs is not None:
        if arguments.out is None:
            raise UserError("--runs: give --out, the folder for the results")
        study_in_table(arguments)
    else:
        study(arguments)


def main() -> None:
    cli.main(run, AnalysisArguments, about=__doc__)


if __name__ == "__main__":
    main()
