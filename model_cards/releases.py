"""Which trained models are shared, and under which names on the Hub.

A repository holds one architecture, as its models share code, tokenizer and card. A size is a branch
(`from_pretrained(repository, revision="120k")`): whoever loads one downloads that alone, and each branch loads like
a repository of its own. `main` holds the best model, which is what somebody without a revision wants.
"""

from dataclasses import dataclass
from pathlib import Path

from training.record import BEST, RunRecord, read_ladders, read_record, run_folder

MAIN = "main"
DATASET, DEMO = "abc-tunes", "abc-scaling-demo"  # the latter is a Space, as is every metric
METRICS = ("abc_validity", "tune_statistics", "originality")


@dataclass(frozen=True)
class Release:
    """A model that is shared: its folder here, its record, and its revision on the Hub, a size or `main`."""

    architecture: str
    revision: str
    folder: Path
    record: RunRecord


def model_repository(namespace: str, architecture: str) -> str:
    """Return the id of an architecture's repository."""
    return f"{namespace}/abc-{architecture}"


def releases(root: Path) -> list[Release]:
    """Return the models of a study that are shared: of each architecture every size, smallest first, then its best.

    Of several seeds the first is taken, not the luckiest: its losses are not chosen by themselves. The best is the
    study's best model for its architecture, and for the other one its size of the lowest validation loss.
    """
    found: list[Release] = []
    best = read_record(root / BEST)
    for architecture, ladder in read_ladders(root).items():
        if not ladder.finished:
            continue
        of_size: dict[str, Release] = {}
        for record in ladder.finished:  # by size, then by seed
            size, folder = record.config.size, run_folder(root, record.config)
            of_size.setdefault(size, Release(architecture, size, folder, record))
        found += of_size.values()
        if best is not None and best.config.architecture == architecture:
            found.append(Release(architecture, MAIN, root / BEST, best))
        else:
            lowest = min(of_size.values(), key=lambda release: release.record.measured_loss)
            found.append(Release(architecture, MAIN, lowest.folder, lowest.record))
    return found
