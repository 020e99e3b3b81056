"""The run record: one self-describing JSON a run. This module is its only reader, and imports no torch."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from door import DoorError, read_json, write_json

RECORD = "record.json"
FINISHED, DIVERGED = "finished", "diverged"
FOLDERS = {"gpt": "GPT_initial_training", "lstm": "LSTM_training"}
BEST = "best_model"
BASELINE = "ngram_baseline.json"
NEEDED = {"status", "recipe", "corpus", "n_params", "n_params_non_embedding"}
NEEDED_OF_RECIPE = {"architecture", "size", "seed", "tokens"}


def run_folder(root: Path, architecture: str, size: str, seed: int) -> Path:
    """Return where a ladder's run stands."""
    return root / FOLDERS[architecture] / size / f"seed_{seed}"


def baseline_file(root: Path) -> Path:
    """Return where the n-gram baseline stands."""
    return root / FOLDERS["gpt"] / BASELINE


def write_record(folder: Path, record: dict[str, Any]) -> None:
    """Write a run's record whole or not at all; it is written last, so a folder with one is complete."""
    write_json(folder / RECORD, record)


def read_record(folder: Path) -> dict[str, Any] | None:
    """Return a run's record, or None if the run has not ended. Raises DoorError if the file is damaged."""
    path = folder / RECORD
    if not path.is_file():
        return None
    record = read_json(path)
    found: dict[str, Any] = record if isinstance(record, dict) else {}
    recipe = found.get("recipe")
    recipe = recipe if isinstance(recipe, dict) else {}
    missing = sorted(NEEDED - found.keys()) + sorted(NEEDED_OF_RECIPE - recipe.keys())
    if found.get("status") == FINISHED and "validation_loss" not in found:
        missing.append("validation_loss")
    if missing:
        raise DoorError(f"{path} is not a run's record (no {', '.join(missing)}): delete {folder} and train it again")
    return found


@dataclass(frozen=True)
class Ladder:
    """The runs of one architecture."""

    architecture: str
    finished: list[dict[str, Any]]
    unfinished: list[dict[str, Any]]  # diverged: reported, never fitted


def read_ladder(root: Path, architecture: str) -> Ladder:
    """Return all runs of an architecture's ladder below `root`, smallest first.

    Raises DoorError if there is none, or if they were trained on different corpora or numbers of tokens.
    """
    folder = root / FOLDERS[architecture]
    records = [read_record(path.parent) for path in sorted(folder.glob(f"*/*/{RECORD}"))]
    runs = sorted((r for r in records if r is not None), key=lambda r: (r["n_params"], r["recipe"]["seed"]))
    if not runs:
        raise DoorError(f"{folder} holds no finished run: train the ladder with accelerate launch training/run.py")
    _check_alike(runs, folder)
    finished = [r for r in runs if r["status"] == FINISHED]
    return Ladder(architecture, finished, [r for r in runs if r["status"] != FINISHED])


def read_ladders(root: Path) -> dict[str, Ladder]:
    """Return the ladder of each architecture that has runs below `root`.

    Raises DoorError if there is none, or if their runs are of different corpora or numbers of tokens.
    """
    there = [name for name, folder in FOLDERS.items() if any((root / folder).glob(f"*/*/{RECORD}"))]
    if not there:
        raise DoorError(f"{root} holds no finished run: train the ladders with accelerate launch training/run.py")
    ladders = {architecture: read_ladder(root, architecture) for architecture in there}
    _check_alike([run for ladder in ladders.values() for run in ladder.finished + ladder.unfinished], root)
    return ladders


def _check_alike(runs: list[dict[str, Any]], folder: Path) -> None:
    for name, values in {
        "corpora": {run["corpus"] for run in runs},
        "numbers of tokens": {run["recipe"]["tokens"] for run in runs},
    }.items():
        if len(values) > 1:
            raise DoorError(f"{folder} mixes runs of different {name} ({sorted(values)}): keep one kind there")
