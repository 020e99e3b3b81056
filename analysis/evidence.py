"""What a study is analysed from: records in training folders or in a table of runs, and what stands beside them."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from analysis.report import short
from analysis.runs import Run, Runs, keys_used
from door import DoorError, read_json
from training.record import (
    BASELINE,
    FINISHED,
    FOLDERS,
    NOT_RUN,
    RECORD,
    Ladder,
    baseline_file,
    ladders_of,
    read_ladders,
    read_runs,
)
from training.runs_table import identity, read_runs_table

SWEEPS = "rate_sweep_*.json"
NEEDED = (  # columns of a table of runs, a field's fields as one
    *("study", "arm", "status", "reason", "recipe", "corpus", "n_params", "n_params_non_embedding", "tokens", "epochs"),
    *("unique_tokens", "flops", "seconds", "validation_loss", "validation_loss_standard_error", "validation_tokens"),
    *("validation_curve", "train_curve", "tokens_per_second", "peak_memory_bytes", "memory_before_bytes"),
)
QUALITY = "quality.json"  # written by generation, which this room does not import


@dataclass(frozen=True)
class Evidence:
    """The runs of a study and what is held against them.

    `ladders` are of the tunes in their own keys; `others` the finished runs of the same tunes in more keys; `left_out`
    says what is not fitted, and why. `sweeps` are the sweeps of learning rates. `quality` has what is said of the tunes
    that the models write, if they were measured.
    """

    where: Path
    ladders: dict[str, Ladder]
    others: Runs
    left_out: list[str]
    baseline: dict[str, Any]
    sweeps: list[dict[str, Any]]
    quality: dict[str, Any] | None = None


def of_folders(root: Path, also: Sequence[Path], sweeps: Path) -> Evidence:
    """Return the evidence of the training folders below `root`, and of further ones: the same tunes in more keys.

    Raises DoorError if a folder holds no run, or if a file is missing or damaged.
    """
    ladders = read_ladders(root)
    left_out = [_why(run) for ladder in ladders.values() for run in ladder.unfinished]
    folders = [path for folder in FOLDERS.values() for path in sorted((root / folder).rglob("seed_*"))]
    left_out += [f"{path}: no record, the run has not ended" for path in folders if not (path / RECORD).is_file()]
    others: Runs = []
    for folder in also:
        if not folder.is_dir():
            raise DoorError(f"--also {folder} is no folder: name one that holds the training folders of a study")
        found = [run for name in FOLDERS for run in read_runs(folder, name)]
        if not found:
            raise DoorError(f"--also {folder}: it holds no run")
        others += [run for run in found if run["status"] == FINISHED]
        left_out += [_why(run) for run in found if run["status"] != FINISHED]
        _check_held_out(f"--also {folder}", ladders, others)
    return Evidence(root, ladders, others, left_out, read_json(baseline_file(root)), _read_sweeps(sweeps))


def of_table(path: Path, study: str) -> Evidence:
    """Return the evidence of one study in a table of runs; baseline and sweeps stand beside the table.

    The ladders are those of the corpus in the fewest keys. Raises DoorError if the study has no finished run there, or
    if a file is missing or damaged.
    """
    rows = read_runs_table(path)
    if absent := sorted(set(NEEDED) - set(rows[0] if rows else {})):
        raise DoorError(
            f"{path}: no {', '.join(absent)}: training/run.py STUDY.yaml --runs_file writes a table of runs"
        )
    mine = [row for row in rows if row["study"] == study and not row["recipe"]["init_from"]]
    finished = [row for row in mine if row["status"] == FINISHED]
    if not finished:
        studies = ", ".join(dict.fromkeys(row["study"] for row in rows))
        raise DoorError(f"--study {study}: no finished run of it in {path}, which has {studies}")
    times = Counter(map(identity, finished))
    for row in finished:
        if times[identity(row)] > 1:
            raise DoorError(f"{path}: {_name(row)}, stands there twice: intervals are of runs that stand there once")
    corpus = min(finished, key=keys_used)["corpus"]
    own = [row for row in mine if row["corpus"] == corpus and row["status"] != NOT_RUN]
    ladders = ladders_of(own)
    others = [row for row in finished if row["corpus"] != corpus]
    _check_held_out(str(path), ladders, others)
    left_out = [_why(row) for row in mine if row["status"] not in (FINISHED, NOT_RUN)]
    planned = Counter((row["study"], row["arm"]) for row in rows)
    missing = Counter((row["study"], row["arm"]) for row in rows if row["status"] == NOT_RUN)
    left_out += [
        f"study {name}, {arm}: {n} of {planned[name, arm]} runs planned are not run"
        for (name, arm), n in missing.items()
    ]
    if not (path.parent / BASELINE).is_file():
        raise DoorError(f"{path.parent / BASELINE} is missing: a study's training leaves it in {FOLDERS['gpt']}")
    quality = read_json(path.parent / QUALITY) if (path.parent / QUALITY).is_file() else None
    return Evidence(
        path,
        ladders,
        others,
        left_out,
        read_json(path.parent / BASELINE),
        _read_sweeps(path.parent),
        quality and {name: quality[name] for name in ("findings", "headlines")},
    )


def _read_sweeps(folder: Path) -> list[dict[str, Any]]:
    return [read_json(path) for path in sorted(folder.glob(SWEEPS))]


def _check_held_out(where: str, ladders: dict[str, Ladder], others: Runs) -> None:
    """Raise DoorError if runs are not measured on the same held-out tunes."""
    sizes = {run["validation_tokens"] for ladder in ladders.values() for run in ladder.finished}
    for run in others:
        if {run["validation_tokens"]} != sizes:
            raise DoorError(
                f"{where}: its runs are measured on {run['validation_tokens']:,} validation tokens, the others on "
                f"{', '.join(f'{size:,}' for size in sorted(sizes))}: only runs on the same held-out tunes compare"
            )


def _name(run: Run) -> str:
    recipe = run["recipe"]
    name = f"{recipe['architecture']} {recipe['size']} seed {recipe['seed']}, {short(recipe['tokens'])} tokens"
    part = f" on 1/{recipe['one_in']} of the tunes" if recipe.get("one_in", 1) > 1 else ""
    return f"{name}{part}{', carrying state' if recipe.get('carry_state') else ''}"


def _why(run: Run) -> str:
    return f"{_name(run)}: {run['reason']}"
