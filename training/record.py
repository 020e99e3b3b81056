"""The run record: one self-describing JSON file a run, written and read by this module alone. Imports no torch."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, dataclass, fields
from pathlib import Path
from typing import Any, get_args, get_origin

from cli import UserError
from files import read_json, write_json
from training.config import COSINE, TRUNK, RunConfig

RECORD = "record.json"
FINISHED, DIVERGED, FAILED, NOT_RUN = "finished", "diverged", "failed", "not run"
STATUSES = (FINISHED, DIVERGED, FAILED, NOT_RUN)
FOLDERS = {"gpt": "GPT_initial_training", "lstm": "LSTM_training"}
BEST, FINE_TUNED, SEARCH = "best_model", "fine_tuned_model", "search"
BASELINE = "ngram_baseline.json"
VERSION = 1


@dataclass(frozen=True, kw_only=True)
class RunRecord:
    """A run and its results. Losses are in nats per character, times in seconds, memory in bytes.

    A planned run has only what is known before training; a run that failed or diverged has a `reason` and no losses.
    A new field needs a default, so that older records stay readable.
    """

    version: int = VERSION
    status: str
    reason: str | None = None
    config: RunConfig
    config_hash: str
    split_hashes: dict[str, str] | None = None  # of every split of the corpus; None in the oldest
    # counts
    n_params: int
    n_params_non_embedding: int
    n_params_by_group: dict[str, int] | None = None
    flops_per_token: float  # training, forward and backward
    flops_per_token_by_module: dict[str, int] | None = None
    steps: int  # done; of a planned or failed run: to do
    tokens: int
    unique_tokens: int | None = None
    epochs: float | None = None
    flops: float
    flops_6nd: float | None = None
    trunk: dict[str, Any] | None = None  # the run that a WSD run branched off, and the step
    # costs
    seconds: float | None = None  # of training
    seconds_evaluation: float | None = None
    seconds_saving: float | None = None
    tokens_per_second: float | None = None
    flops_per_second: float | None = None
    peak_memory_bytes: int | None = None  # above the memory of its process before the run
    peak_device_memory_bytes: int | None = None
    # circumstances
    threads: int | None = None
    processes: int | None = None
    micro_batch_size: int | None = None  # sequences in one forward pass
    compiled: bool | None = None
    started: str | None = None
    hardware: str | None = None
    versions: dict[str, str] | None = None
    git_commit: str | None = None
    model_config: dict[str, Any] | None = None
    # losses
    train_curve: dict[str, Any] | None = None
    validation_curve: dict[str, Any] | None = None
    validation_loss: float | None = None
    validation_loss_reset: float | None = None  # of a stateful run: every sequence starts without state
    validation_loss_standard_error: float | None = None
    validation_bits_per_character: float | None = None
    validation_tokens: int | None = None
    validation_loss_of_headers: float | None = None
    validation_loss_of_bodies: float | None = None
    validation_loss_by_position: list[float] | None = None
    test_loss: float | None = None
    test_loss_reset: float | None = None
    test_loss_standard_error: float | None = None
    test_bits_per_character: float | None = None
    test_tokens: int | None = None
    test_loss_of_headers: float | None = None
    test_loss_of_bodies: float | None = None
    test_loss_by_position: list[float] | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return the record as JSON holds it."""
        return vars(self) | {"config": self.config.to_dict()}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "RunRecord":
        """Return the record that JSON holds. Raises UserError saying what is missing, unknown or contradictory."""
        known = {f.name: f for f in fields(cls)}
        needed = [name for name, f in known.items() if f.default is MISSING]
        if missing := [name for name in needed if values.get(name) is None]:
            raise UserError(f"no {', '.join(missing)}")
        if unknown := sorted(values.keys() - known.keys()):
            raise UserError(f"unknown fields {', '.join(unknown)}: written by a newer version")
        if values.get("version", VERSION) > VERSION:
            raise UserError(f"version {values['version']}: written by a newer version")
        for name, value in values.items():
            if name != "config" and not isinstance(value, _kinds(known[name].type)):
                raise UserError(f"{name} is a {type(value).__name__}")
        if not isinstance(values["config"], Mapping):
            raise UserError("config is not a mapping")
        if values["status"] not in STATUSES:
            raise UserError(f"status {values['status']!r} is not one of {', '.join(STATUSES)}")
        record = cls(**dict(values) | {"config": RunConfig.from_dict(values["config"])})
        if record.config_hash != record.config.config_hash:
            raise UserError("config_hash is not that of its config")
        if record.status == FINISHED and not isinstance(record.validation_loss, float):
            raise UserError("no validation_loss")
        return record

    @property
    def measured_loss(self) -> float:
        """The validation loss, in nats per character. Raises ValueError if the run did not finish."""
        if self.validation_loss is None:
            raise ValueError(f"a run that is {self.status} has no loss")
        return self.validation_loss


def _kinds(declared: Any) -> tuple[type, ...]:
    """Return the classes that a field of a declared type may hold; a float may be a whole number."""
    kinds = tuple(get_origin(kind) or kind for kind in get_args(declared) or (declared,))
    return (*kinds, int) if float in kinds else kinds


def run_folder(root: Path, config: RunConfig) -> Path:
    """Return the folder of a study's run below `root`."""
    return root / FOLDERS[config.architecture] / config.size / variant_of(config) / f"seed_{config.seed}"


def variant_of(config: RunConfig) -> str:
    """Return the part of a run's name beside size and seed: tokens_2000000-wsd-fraction_0.25, or trunk."""
    name = TRUNK if config.schedule == TRUNK else f"tokens_{config.tokens}"
    name += "" if config.schedule in (COSINE, TRUNK) else f"-{config.schedule}"
    name += f"-fraction_{config.data_fraction}" if config.data_fraction < 1 else ""
    return name + (f"-{config.sequences}" if config.stateful else "")


def write_record(folder: Path, record: RunRecord) -> None:
    """Write a run's record atomically. It is written last: a folder that has one is complete."""
    write_json(folder / RECORD, record.to_dict())


def read_record(folder: Path) -> RunRecord | None:
    """Return a run's record, or None if the run has not ended. Raises UserError if the file is damaged."""
    path = folder / RECORD
    if not path.is_file():
        return None
    values = read_json(path)
    try:
        return RunRecord.from_dict(values if isinstance(values, dict) else {})
    except UserError as error:
        raise UserError(f"{path} is not a run's record ({error}): delete {folder} and train it again") from None


@dataclass(frozen=True)
class Ladder:
    """The runs of one architecture; `finished` are those of the main budget, on all training data and not stateful."""

    architecture: str
    finished: list[RunRecord]
    unfinished: list[RunRecord]  # diverged or failed: reported, never fitted
    others: list[RunRecord]  # finished runs of other budgets, on a fraction of the training data, or stateful


def read_runs(root: Path, architecture: str) -> list[RunRecord]:
    """Return the records of an architecture's runs below `root`, smallest first, without the trunks."""
    records = [read_record(path.parent) for path in sorted((root / FOLDERS[architecture]).rglob(RECORD))]
    runs = [record for record in records if record is not None and record.config.schedule != TRUNK]
    return sorted(runs, key=lambda run: (run.n_params, run.config.tokens, run.config.seed))


def read_ladders(root: Path) -> dict[str, Ladder]:
    """Return the ladder of each architecture that has runs below `root`.

    Raises UserError if there is no run, or if runs are of different corpora.
    """
    runs = [run for architecture in FOLDERS for run in read_runs(root, architecture)]
    if not runs:
        raise UserError(f"{root} holds no finished run: train a study with accelerate launch training/run.py")
    corpora = sorted({run.config.corpus for run in runs})
    if len(corpora) > 1:
        raise UserError(f"{root} mixes runs of different corpora ({', '.join(corpora)}): keep one corpus in a folder")
    return ladders_of(runs)


def ladders_of(runs: Sequence[RunRecord]) -> dict[str, Ladder]:
    """Sort the runs of one corpus by architecture; the main budget is the most frequent one, of several the largest."""

    def is_main(run: RunRecord) -> bool:
        return run.config.data_fraction == 1 and not run.config.stateful

    budgets = Counter(run.config.tokens for run in runs if is_main(run))
    budget = max(budgets, key=lambda tokens: (budgets[tokens], tokens), default=0)
    ladders = {}
    for architecture in FOLDERS:
        mine = [run for run in runs if run.config.architecture == architecture]
        finished = [run for run in mine if run.status == FINISHED]
        main = [run for run in finished if run.config.tokens == budget and is_main(run)]
        unfinished = [run for run in mine if run.status != FINISHED]
        if mine:
            ladders[architecture] = Ladder(architecture, main, unfinished, [run for run in finished if run not in main])
    return ladders
