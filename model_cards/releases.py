"""Which trained models are shared, and under which names on the Hub.

A repository holds one architecture, whose models share code, tokenizer and card. A size is a branch
(`from_pretrained(repository, revision="120k")`): a user downloads that size alone, and it loads like a repository.
`main` holds the best model, the default of a user who names no revision.
"""

import shutil
from dataclasses import dataclass
from pathlib import Path

from generation.packing import add_pipeline
from modeling.loading import WEIGHTS
from training.record import BEST, RunRecord, read_ladders, read_record, run_folder

ROOT = Path(__file__).parent.parent
MAIN = "main"
DATASET = "abc-tunes"
CONFIGURATION_FILES = ("config.json", "generation_config.json")
TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json")
MODEL_FILES = (WEIGHTS, *CONFIGURATION_FILES, *TOKENIZER_FILES)
LSTM_FILES = ("configuration_abc_lstm.py", "modeling_abc_lstm.py")


@dataclass(frozen=True)
class Release:
    """A shared model: its folder here, its record, and its revision on the Hub, a size or `main`."""

    architecture: str
    revision: str
    folder: Path
    record: RunRecord


def model_repository(namespace: str, architecture: str) -> str:
    """Return the id of an architecture's repository."""
    return f"{namespace}/abc-{architecture}"


def releases(root: Path) -> list[Release]:
    """Return the shared models of a study: of each architecture all sizes, smallest first, then its best model.

    A size is shared by its first seed, not its best one, whose loss would be biased. The best model is the study's for
    its architecture; for the other architecture it is the size with the lowest validation loss.
    """
    found: list[Release] = []
    best = read_record(root / BEST)
    for architecture, ladder in read_ladders(root).items():
        if not ladder.finished:
            continue
        sizes: dict[str, Release] = {}
        for record in ladder.finished:  # by size, then by seed
            size = record.config.size
            sizes.setdefault(size, Release(architecture, size, run_folder(root, record.config), record))
        found += sizes.values()
        if best is not None and best.config.architecture == architecture:
            found.append(Release(architecture, MAIN, root / BEST, best))
        else:
            lowest = min(sizes.values(), key=lambda release: release.record.measured_loss)
            found.append(Release(architecture, MAIN, lowest.folder, lowest.record))
    return found


def add_code(folder: Path, architecture: str) -> None:
    """Copy to a model's folder the code that it needs where this project is not installed."""
    for name in LSTM_FILES if architecture == "lstm" else ():
        shutil.copyfile(ROOT / "modeling" / name, folder / name)
    add_pipeline(folder)
