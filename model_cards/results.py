"""What a study recorded, as the cards, the demo and the final summary read it."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from analysis.fits_json import Data, chosen_fit, find_comparison
from cli import UserError
from files import read_json
from training.record import BEST, FINISHED, SEARCH, RunRecord, read_record
from training.runs_table import read_runs_table

CORPUS = "processed_music_data"
CORPUS_FIELDS = ("tunes", "characters", "reading", "sources")
STATS, PUBLISHED_STATS = f"{CORPUS}/stats.json", "corpus.json"
FITS = "comparison_analysis/fits.json"
QUALITY, QUALITY_VS_SIZE = "generation_analysis/quality.json", "generation_analysis/quality_vs_size.json"
SAMPLES = f"{BEST}/samples"
SMALL_MODEL = "model"  # folder of the small model that is published
FORMULAS = {"power_irreducible": "L = E + A·N^-α", "power": "L = A·N^-α"}  # of N, at the study's main budget
MAX_SHOWN = 3


@dataclass(frozen=True)
class Results:
    """The records of a study: statistics of its corpus, its best model and that model's samples, fits and quality.

    `search` holds the short runs that chose the best model's learning rate, dropout and weight decay.
    """

    root: Path
    corpus: dict[str, Any]
    best: RunRecord
    search: list[RunRecord]
    fits: dict[str, Any]
    quality: dict[str, Any]
    samples: dict[str, Any]
    best_folder: str  # where the best model is, or was when its samples were written

    @classmethod
    def open(cls, root: Path) -> "Results":
        """Read the study in `root`. Raises UserError naming the first file that is missing or damaged."""
        best = read_record(root / BEST)
        if best is None:
            raise UserError(f"{root / BEST} holds no trained model: run accelerate launch training/best.py")
        search = [read_record(folder) for folder in sorted((root / BEST / SEARCH).glob("*"))]
        searched = [record for record in search if record is not None]
        return cls._read(root, root / STATS, best, searched, (root / BEST).as_posix())

    @classmethod
    def open_published(cls, folder: Path) -> "Results":
        """Read what `folder` keeps of a study, whose runs are rows of runs.parquet. Raises UserError as `open` does."""
        table = folder / "runs.parquet"
        rows = [row for row in read_runs_table(table) if row.arm == "best"]
        runs = [row.record for row in rows if row.record.status == FINISHED]
        if not runs:
            raise UserError(f"{table} has no finished run of a best model: run training/export.py again")
        return cls._read(folder, folder / PUBLISHED_STATS, runs[-1], runs[:-1])

    @classmethod
    def _read(
        cls, root: Path, stats: Path, best: RunRecord, search: list[RunRecord], best_folder: str | None = None
    ) -> "Results":
        fits = read_json(root / FITS, "fits", "comparison")
        quality = read_json(root / QUALITY, "cells", "best", "human")
        samples = read_json(root / SAMPLES / "samples.json", "samples", "settings")
        corpus = read_json(stats, *CORPUS_FIELDS)
        folder = best_folder or str(samples["settings"]["model"])
        return cls(root, corpus, best, search, fits, quality, samples, folder)

    def cells(self, record: RunRecord) -> list[dict[str, Any]]:
        """Return the measurements of the tunes of a record's model, one for each temperature."""
        config = record.config
        key = (config.architecture, config.size, config.seed)
        cells = self.quality["best"] if config.init_from else self.quality["cells"]
        return [cell for cell in cells if (cell["architecture"], cell["size"], cell["seed"]) == key]

    def shares(self, record: RunRecord, tier: str) -> list[dict[str, Any]]:
        """Return the share of a model's tunes that pass a tier, with its interval, for each temperature; human last."""
        rows = [
            {"of": f"at temperature {cell['temperature']:.2g}", **cell["shares"][tier]} for cell in self.cells(record)
        ]
        return [*rows, {"of": "of the human test split", **self.quality["human"]["test"]["shares"][tier]}]


def chosen_fits(fits: Data) -> dict[str, Data]:
    """Return for each architecture the law of N that describes it."""
    return {architecture: chosen_fit(fits, architecture) for architecture in fits["fits"]}


def compared_laws(fits: Data) -> list[Data]:
    """Return the comparisons of the exponents of N of both architectures, by law; none for a single architecture."""
    return [row for law in FORMULAS if (row := find_comparison(fits, law)) is not None]


def select_tunes(tunes: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return of each temperature the first valid tune, or else the first.

    A tune that is copied from training, or was not compared with it, is never shown.
    """
    chosen: dict[float, dict[str, Any]] = {}
    original = [tune for tune in tunes if tune["copied"] is False]
    for tune in sorted(original, key=lambda tune: not tune["verdict"]["valid"]):
        chosen.setdefault(tune["settings"]["temperature"], tune)
    return [chosen[temperature] for temperature in sorted(chosen)][:MAX_SHOWN]
