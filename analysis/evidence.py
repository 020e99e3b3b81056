"""What a study is analysed from: records in training folders or in a table of runs, and what stands beside them."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from analysis.report import percent, short
from analysis.runs import Runs, row_of
from cli import UserError
from files import read_json
from training.record import (
    BASELINE,
    FINISHED,
    FOLDERS,
    NOT_RUN,
    RECORD,
    Ladder,
    RunRecord,
    baseline_file,
    ladders_of,
    read_ladders,
    read_runs,
)
from training.runs_table import read_runs_table

SWEEPS = "learning_rate_sweep_*.json"
QUALITY = "quality.json"  # written by generation, which this room does not import


@dataclass(frozen=True)
class Evidence:
    """The runs of a study and what is held against them.

    `main` holds the finished runs of the main budget by architecture, `runs` all finished ones on the tunes in their
    own keys; `others` those of the same tunes in more keys; `left_out` says what is not fitted, and why. `sweeps` are
    the sweeps of learning rates. `quality` has what is said of the tunes that the models write, if they were measured.
    """

    where: Path
    main: dict[str, Runs]
    runs: dict[str, Runs]
    others: Runs
    left_out: list[str]
    baseline: dict[str, Any]
    sweeps: list[dict[str, Any]]
    quality: dict[str, Any] | None = None


def of_folders(root: Path, also: Sequence[Path], sweeps: Path) -> Evidence:
    """Return the evidence of the training folders below `root`, and of further ones: the same tunes in more keys.

    Raises UserError if a folder holds no run, or if a file is missing or damaged.
    """
    ladders = read_ladders(root)
    left_out = [_why(run) for ladder in ladders.values() for run in ladder.unfinished]
    folders = [path for folder in FOLDERS.values() for path in sorted((root / folder).rglob("seed_*"))]
    left_out += [f"{path}: no record, the run has not ended" for path in folders if not (path / RECORD).is_file()]
    others: list[RunRecord] = []
    for folder in also:
        if not folder.is_dir():
            raise UserError(f"--also {folder} is no folder: name one that holds the training folders of a study")
        found = [run for name in FOLDERS for run in read_runs(folder, name)]
        if not found:
            raise UserError(f"--also {folder}: it holds no run")
        others += [run for run in found if run.status == FINISHED]
        left_out += [_why(run) for run in found if run.status != FINISHED]
        _check_held_out(f"--also {folder}", ladders, others)
    return _evidence(root, ladders, others, left_out, read_json(baseline_file(root)), _read_sweeps(sweeps), None)


def of_table(path: Path, study: str) -> Evidence:
    """Return the evidence of one study in a table of runs; baseline and sweeps stand beside the table.

    The ladders are those of the corpus in the fewest keys. Raises UserError if the study has no finished run there, or
    if a file is missing or damaged.
    """
    rows = read_runs_table(path)
    mine = [row.record for row in rows if row.study == study and row.record.config.init_from is None]
    finished = [run for run in mine if run.status == FINISHED]
    if not finished:
        studies = ", ".join(dict.fromkeys(row.study for row in rows))
        raise UserError(f"--study {study}: no finished run of it in {path}, which has {studies}")
    times = Counter(run.config_hash for run in finished)
    for run in finished:
        if times[run.config_hash] > 1:
            raise UserError(f"{path}: {_name(run)}, stands there twice: intervals are of runs that stand there once")
    corpus = min(finished, key=lambda run: run.config.n_keys).config.corpus
    ladders = ladders_of([run for run in mine if run.config.corpus == corpus and run.status != NOT_RUN])
    others = [run for run in finished if run.config.corpus != corpus]
    _check_held_out(str(path), ladders, others)
    left_out = [_why(run) for run in mine if run.status not in (FINISHED, NOT_RUN)]
    planned = Counter((row.study, row.arm) for row in rows)
    missing = Counter((row.study, row.arm) for row in rows if row.record.status == NOT_RUN)
    left_out += [
        f"study {name}, {arm}: {n} of {planned[name, arm]} runs planned are not run"
        for (name, arm), n in missing.items()
    ]
    if not (path.parent / BASELINE).is_file():
        raise UserError(f"{path.parent / BASELINE} is missing: training/run.py writes it")
    quality = read_json(path.parent / QUALITY) if (path.parent / QUALITY).is_file() else None
    said = quality and {name: quality[name] for name in ("findings", "headlines")}
    baseline = read_json(path.parent / BASELINE)
    return _evidence(path, ladders, others, left_out, baseline, _read_sweeps(path.parent), said)


def _evidence(
    where: Path,
    ladders: dict[str, Ladder],
    others: Sequence[RunRecord],
    left_out: list[str],
    baseline: dict[str, Any],
    sweeps: list[dict[str, Any]],
    quality: dict[str, Any] | None,
) -> Evidence:
    main = {name: [row_of(run) for run in ladder.finished] for name, ladder in ladders.items() if ladder.finished}
    runs = {name: main.get(name, []) + [row_of(run) for run in ladder.others] for name, ladder in ladders.items()}
    return Evidence(where, main, runs, [row_of(run) for run in others], left_out, baseline, sweeps, quality)


def _read_sweeps(folder: Path) -> list[dict[str, Any]]:
    return [read_json(path) for path in sorted(folder.glob(SWEEPS))]


def _check_held_out(where: str, ladders: dict[str, Ladder], others: Sequence[RunRecord]) -> None:
    """Raise UserError if runs are not measured on the same held-out tunes."""
    sizes = {run.validation_tokens for ladder in ladders.values() for run in ladder.finished}
    for run in others:
        if {run.validation_tokens} != sizes:
            raise UserError(
                f"{where}: its runs are measured on {run.validation_tokens:,} validation tokens, the others on "
                f"{', '.join(f'{size:,}' for size in sorted(filter(None, sizes)))}: "
                "only runs on the same held-out tunes compare"
            )


def _name(run: RunRecord) -> str:
    config = run.config
    name = f"{config.architecture} {config.size} seed {config.seed}, {short(config.tokens)} tokens"
    part = f" on {percent(config.data_fraction)} of the tunes" if config.data_fraction < 1 else ""
    return f"{name}{part}{', stateful' if config.stateful else ''}"


def _why(run: RunRecord) -> str:
    return f"{_name(run)}: {run.reason}"
