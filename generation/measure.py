"""Measure the quality of a study's tunes: python generation/measure.py --output_dir data --num_samples 50

Every finished run at the main token budget, and the best model, writes tunes at each temperature. On these tunes the
script measures validity tier by tier, structure, distances to human tunes and copies from the training set. It writes
<output_dir>/generation_analysis/: quality.json (all numbers), quality.md (the report), quality_vs_size.json (trends,
GPT against LSTM), figures, cells/ (all tunes) and tunes/ (a selection to read and hear). Tunes that are written already
are kept. With nothing left to measure, or without the models, the report and figures are rendered from quality.json.
"""

from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import torch
from transformers.utils import logging as transformers_logging

import cli
from cli import UserError
from files import read_json, write_json, write_text
from generation.abc_pipeline import FREE, STRICT, check_setting
from generation.figures import draw_figures
from generation.identity import identity_of, is_current, package_files
from generation.quality_vs_size import RESAMPLES, analyse
from generation.report import HEADLINES, findings, report
from generation.selection import largest_cells, write_selection
from generation.study import (
    ANALYSIS,
    CELLS,
    QUALITY,
    QUALITY_FOLDER,
    REPORT,
    Cell,
    Reference,
    Tunes,
    check_corpus,
    measure_cells,
    plan_cells,
    reuse_cells,
    sample_cells,
)
from preprocessing.corpus import Corpus
from training.record import FOLDERS

transformers_logging.disable_progress_bar()

TUNES = "tunes"  # the folder of the selected tunes
MEASURED = ("cells", "human", "floors", "frechet_music_distance", "analysis")  # of quality.json, for the report
MAX_COUNT = 100_000


@dataclass
class MeasureArguments:
    """What is measured, and how."""

    output_dir: str = field(default="data", metadata={"help": "folder of a study, with its training folders"})
    corpus: str = field(default="data/processed_music_data", metadata={"help": "corpus that the runs were trained on"})
    num_samples: int = field(default=50, metadata={"help": "tunes of each run at each temperature"})
    temperatures: list[float] = field(
        default_factory=lambda: [0.8, 0.9, 1.0], metadata={"help": "sampling temperatures"}
    )
    bars: str = field(
        default=FREE, metadata={"help": "strict: a bar ends only when it is full", "choices": [FREE, STRICT]}
    )
    seed: int = field(default=0, metadata={"help": "of sampling and bootstrap"})
    resamples: int = field(default=RESAMPLES, metadata={"help": "resamples of the bootstrap"})
    reuse_quality: str | None = field(
        default=None, metadata={"help": "an earlier quality.json, for runs whose weights are missing"}
    )

    def __post_init__(self) -> None:
        for name in ("num_samples", "resamples"):
            if not 1 <= getattr(self, name) <= MAX_COUNT:
                raise UserError(f"--{name} {getattr(self, name)}: must be from 1 to {MAX_COUNT:,}")
        if not self.temperatures or len(set(self.temperatures)) < len(self.temperatures):
            raise UserError("--temperatures: give at least one, and none twice")
        try:
            check_setting("seed", self.seed)
            for temperature in self.temperatures:
                check_setting("temperature", temperature)
        except ValueError as error:
            raise UserError(f"--{error}".replace("--temperature ", "--temperatures ")) from None


def measure(
    arguments: MeasureArguments,
    cells: list[Cell],
    tunes: dict[str, Tunes],
    corpus: Corpus,
    read: Callable[[], Reference],
) -> dict[str, Any]:
    """Return the contents of quality.json, from the file if it is of the same tunes and code."""
    path = Path(arguments.output_dir) / QUALITY_FOLDER / QUALITY
    earlier = None if arguments.reuse_quality is None else Path(arguments.reuse_quality)
    reused = reuse_cells([cell for cell in cells if cell.name not in tunes], earlier, arguments.num_samples)
    settings = {"resamples": arguments.resamples, "seed": arguments.seed, "bars": arguments.bars}
    inputs = (tunes, [asdict(cell) for cell in cells], reused, corpus.digest(), settings)
    identity = identity_of(inputs, code=[path for path in package_files() if path.suffix == ".py"])
    if is_current(path, identity):
        print(f"{path.parent}: nothing left to measure; report and figures are rendered again from {QUALITY}")
        return dict(read_json(path))
    found = measure_cells(cells, tunes, reused, read(), arguments.num_samples, arguments.seed)
    return {"identity": identity, **found, "analysis": settings}


def write_report(quality: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Write report, figures, quality_vs_size.json and quality.json, and return the analysis."""
    analysis = analyse(quality, **quality["analysis"])
    quality = quality | {"findings": findings(analysis), "headlines": findings(analysis, HEADLINES)}
    draw_figures(analysis, folder)
    write_text(folder / REPORT, report(quality, analysis))
    write_json(folder / ANALYSIS, analysis)
    write_json(folder / QUALITY, quality)
    print(*quality["findings"], *quality["judges"]["missing"], sep="\n")
    print(f"{folder}: {REPORT}, {QUALITY}, {ANALYSIS} and figures")
    return analysis


def run(arguments: MeasureArguments) -> None:
    """Sample, measure and report; without the models, report again."""
    torch.set_num_threads(1)  # a step is too small to share between threads
    root = Path(arguments.output_dir)
    folder = root / QUALITY_FOLDER
    measured = (folder / QUALITY).is_file()
    trained = any((root / name).is_dir() for name in FOLDERS.values())
    cells = plan_cells(root, arguments.temperatures, arguments.bars) if trained or not measured else []
    here = [cell for cell in cells if cell.weights.is_file()]
    if measured and not here and arguments.reuse_quality is None:
        print(f"{root} has no models: report and figures are rendered again from {QUALITY}")
        write_report(read_json(folder / QUALITY, *MEASURED), folder)
        return
    corpus = Corpus.open(arguments.corpus)
    check_corpus(cells, corpus)
    read_reference = cache(lambda: Reference(corpus))  # takes a minute
    tunes = sample_cells(here, folder / CELLS, arguments.num_samples, arguments.seed)
    analysis = write_report(measure(arguments, cells, tunes, corpus, read_reference), folder)
    largest = largest_cells(cells, analysis["temperatures"])
    earlier = Path(arguments.reuse_quality).parent if arguments.reuse_quality else folder
    for message in write_selection(largest, tunes, read_reference, folder / TUNES, earlier / TUNES):
        print(message)


def main() -> None:
    """Run the script."""
    cli.main(run, MeasureArguments, about=__doc__)


if __name__ == "__main__":
    main()
