"""The run record: one self-describing JSON a run. This module is its only reader, and imports no torch."""

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from door import DoorError, read_json, write_json

RECORD = "record.json"
FINISHED, DIVERGED, FAILED, NOT_RUN = "finished", "diverged", "failed", "not run"
FOLDERS = {"gpt": "GPT_initial_training", "lstm": "LSTM_training"}
BEST, FINE_TUNED, SEARCH = "best_model", "fine_tuned_model", "search"
TRUNK = "trunk"
BASELINE = "ngram_baseline.json"
NEEDED = {"status", "recipe", "corpus", "n_params", "n_params_non_embedding"}
NEEDED_OF_RECIPE = {"architecture", "size", "seed", "tokens"}


def run_folder(root: Path, architecture: str, size: str, arm: str, seed: int) -> Path:
    """Return where a ladder's run stands. The arm names what sets it apart from others of its size and seed."""
    return root / FOLDERS[architecture] / size / arm / f"seed_{seed}"


def folder_of(root: Path, recipe: dict[str, Any]) -> Path:
    """Return where the ladder's run of a record's recipe stands."""
    arm = arm_of(recipe["tokens"], recipe["schedule"], recipe["one_in"], recipe.get("carry_state", False))
    return run_folder(root, recipe["architecture"], recipe["size"], arm, recipe["seed"])


def arm_of(tokens: int, schedule: str, one_in: int, carry_state: bool) -> str:
    """Return the name of an arm: tokens_2000000, tokens_2000000-wsd, tokens_2000000-one_in_4-carried, trunk."""
    name = TRUNK if schedule == TRUNK else f"tokens_{tokens}" + ("" if schedule == "cosine" else f"-{schedule}")
    return name + (f"-one_in_{one_in}" if one_in > 1 else "") + ("-carried" if carry_state else "")


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
    """The runs of one architecture: finished ones of the main budget, and the others.

    Those of the main budget are on all of the training data and carry no state.
    """

    architecture: str
    finished: list[dict[str, Any]]
    unfinished: list[dict[str, Any]]  # diverged or failed: reported, never fitted
    others: list[dict[str, Any]]  # finished, of other budgets, on a part of the training data or with carried state


def read_runs(root: Path, architecture: str) -> list[dict[str, Any]]:
    """Return the records of all runs of an architecture's ladder below `root`, smallest first, without the trunks."""
    records = [read_record(path.parent) for path in sorted((root / FOLDERS[architecture]).rglob(RECORD))]
    runs = [record for record in records if record is not None and record["recipe"].get("schedule") != TRUNK]
    return sorted(runs, key=lambda run: (run["n_params"], run["recipe"]["tokens"], run["recipe"]["seed"]))


def read_ladders(root: Path) -> dict[str, Ladder]:
    """Return the ladder of each architecture that has runs below `root`.

    Raises DoorError if there is no run, or if runs are of different corpora.
    """
    runs = [run for architecture in FOLDERS for run in read_runs(root, architecture)]
    if not runs:
        raise DoorError(f"{root} holds no finished run: train the ladders with accelerate launch training/run.py")
    corpora = sorted({run["corpus"] for run in runs})
    if len(corpora) > 1:
        raise DoorError(f"{root} mixes runs of different corpora ({corpora}): keep one kind there")
    return ladders_of(runs)


def ladders_of(runs: list[dict[str, Any]]) -> dict[str, Ladder]:
    """Sort the runs of one corpus into a ladder for each architecture; the main budget is the one most runs have.

    Of equally frequent budgets the largest counts, and only runs on all of the training data without carried state.
    """
    budgets = Counter(run["recipe"]["tokens"] for run in runs if _of_main_arm(run))
    budget = max(budgets, key=lambda tokens: (budgets[tokens], tokens), default=0)
    groups = {name: [run for run in runs if run["recipe"]["architecture"] == name] for name in FOLDERS}
    return {architecture: _ladder(architecture, members, budget) for architecture, members in groups.items() if members}


def _of_main_arm(run: dict[str, Any]) -> bool:
    return run["recipe"].get("one_in", 1) == 1 and not run["recipe"].get("carry_state")


def _ladder(architecture: str, runs: list[dict[str, Any]], budget: int) -> Ladder:
    finished = [run for run in runs if run["status"] == FINISHED]
    main = [run for run in finished if run["recipe"]["tokens"] == budget and _of_main_arm(run)]
    return Ladder(
        architecture,
        main,
        [run for run in runs if run["status"] != FINISHED],
        [run for run in finished if run not in main],
    )
