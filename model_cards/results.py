"""What the other rooms recorded of a study, and the sentences that cards and screen share."""

from dataclasses import dataclass
from math import exp, log
from pathlib import Path
from typing import Any

from cli import UserError
from files import read_json
from generation.study import QUALITY, QUALITY_FOLDER
from training.record import BEST, SEARCH, RunRecord, read_record

CORPUS, STATS = "processed_music_data", "stats.json"
CORPUS_FIELDS = ("tunes", "characters", "reading", "sources")
TUNES_SHOWN = 3


@dataclass(frozen=True)
class Results:
    """The records of a study; `samples` are the best model's tunes, `corpus` the statistics of the data."""

    root: Path
    corpus: dict[str, Any]
    best: RunRecord
    search: list[RunRecord]
    analysis: dict[str, Any]
    quality: dict[str, Any]
    samples: dict[str, Any]

    @classmethod
    def open(cls, root: Path) -> "Results":
        """Read all records below `root`. Raises UserError naming the first that is missing or damaged."""
        best = read_record(root / BEST)
        if best is None:
            raise UserError(f"{root / BEST} holds no trained model: run accelerate launch training/run.py --part best")
        analysis = read_json(root / "comparison_analysis" / "fits.json", "fits")
        search = [read_record(folder) for folder in sorted((root / BEST / SEARCH).glob("*"))]
        return cls(
            root,
            read_json(root / CORPUS / STATS, *CORPUS_FIELDS),
            best,
            [record for record in search if record is not None],
            analysis,
            read_json(root / QUALITY_FOLDER / QUALITY, "cells", "best", "human", "headlines"),
            read_json(root / BEST / "samples" / "samples.json", "samples"),
        )

    def cells(self, record: RunRecord) -> list[dict[str, Any]]:
        """Return what was measured on the tunes of a record's model, by temperature."""
        config = record.config
        key = (config.architecture, config.size, config.seed)
        cells = self.quality["best"] if config.init_from else self.quality["cells"]
        return [cell for cell in cells if (cell["architecture"], cell["size"], cell["seed"]) == key]


def percent(share: dict[str, Any]) -> str:
    """Return a share with its Wilson interval."""
    low, high = share["interval"]
    return f"{100 * share['share']:.0f} % [{100 * low:.0f}, {100 * high:.0f}] of {share['total']}"


def share_lines(results: Results, record: RunRecord, tier: str, word: str) -> list[str]:
    """Return a line for each temperature of a model with the share of a tier, and one for tunes that people wrote."""
    lines = [
        f"temperature {cell['temperature']:.2g}: {word} {percent(cell['shares'][tier])}"
        for cell in results.cells(record)
    ]
    people = results.quality["human"]["test"]["shares"][tier]
    return [*lines, f"human tunes of the test split, same test: {word} {percent(people)}"]


def model_lines(record: RunRecord) -> list[str]:
    """Return what a model is and how well it predicts."""
    config = record.config
    origin = f"trained on from {_run(config.init_from)}" if config.init_from else "trained"
    more = " more" if config.init_from else ""
    loss = f"validation: {record.validation_bits_per_character:.4f}"
    if record.test_loss is not None:
        error = (record.test_loss_standard_error or 0.0) / log(2)
        loss = (
            f"test: {record.test_bits_per_character:.4f} bits per character (± {error:.4f} s.e. over tunes), "
            f"perplexity {exp(record.test_loss):.3f}; {loss}"
        )
    return [
        f"{config.architecture.upper()} {config.size}, {record.n_params:,} parameters "
        f"({record.n_params_non_embedding:,} without tables), {origin} "
        f"for {record.tokens:,}{more} tokens (rate {config.learning_rate:.3g}, dropout {config.dropout}, "
        f"weight decay {config.weight_decay})",
        loss,
    ]


def _run(folder: str) -> str:
    """Return a ladder's run in words: its size, its arm and its seed are the last parts of its folder."""
    *_, size, arm, seed = ("", "", *Path(folder).parts)
    return f"the run {size}/{arm}/{seed}" if arm else folder


def shown_tunes(tunes: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the tunes that are shown: of each temperature the first that is valid, or else the first.

    One that is copied from the training tunes, or that nobody compared with them, is never shown.
    """
    chosen: dict[float, dict[str, Any]] = {}
    own = [tune for tune in tunes if tune["copied"] is False]
    for tune in sorted(own, key=lambda tune: not tune["verdict"]["valid"]):
        chosen.setdefault(tune["settings"]["temperature"], tune)
    return sorted(chosen.values(), key=lambda tune: float(tune["settings"]["temperature"]))[:TUNES_SHOWN]
