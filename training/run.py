"""Corpus → trained models: accelerate launch training/run.py [studies/quick.yaml] [--part best]

Without an argument it trains the ladders of studies/quick.yaml. With flags it trains what they name, for example
--gpt_sizes 15k 30k 60k --lstm_sizes 15k 30k 60k (a law needs three sizes of both architectures). `--part best` then
trains the best run further. `--part sweep` trains every size with several rates and fits the rate rule LR(N). What is
finished is skipped, what was interrupted goes on from its checkpoint.
"""

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import torch
from accelerate import PartialState
from filelock import FileLock, Timeout

from door import DoorError, open_door, read_arguments, read_json, write_json
from modeling.ladder import LADDER
from preprocessing.corpus import SPLITS, Corpus, warn_of_unknown
from training.best import plan_search, train_best
from training.evaluation import summarise
from training.ngram import ngram_losses
from training.recipe import Recipe
from training.record import BEST, baseline_file, run_folder
from training.study import make_job, report_failures, run_jobs
from training.sweep import plan_sweep, write_sweep

QUICK = Path(__file__).parent.parent / "studies" / "quick.yaml"
ORDERS = range(1, 8)
BASELINE_ORDER = 3


@dataclass
class StudyArguments:
    """The axes of a study: every size with every seed, all with the same tokens."""

    part: str = field(default="ladders", metadata={"help": "what to train", "choices": ["ladders", "best", "sweep"]})
    corpus: str = field(default="data/processed_music_data", metadata={"help": "the corpus folder"})
    output_root: str = field(default="data", metadata={"help": "the folder that the training folders stand in"})
    gpt_sizes: list[str] = field(default_factory=list, metadata={"help": f"of {list(LADDER)}"})
    lstm_sizes: list[str] = field(default_factory=list, metadata={"help": "names of the GPT sizes they match"})
    seeds: list[int] = field(default_factory=lambda: [0], metadata={"help": "one run a size and seed"})
    tokens: int = field(default=2_000_000, metadata={"help": "training tokens of every run (a token is a character)"})
    batch_size: int = field(default=4, metadata={"help": "windows a step"})
    context: int = field(default=256, metadata={"help": "characters a window"})
    weight_decay: float = field(default=0.1, metadata={"help": "decoupled, on matrices only"})
    gpt_rates: list[float] = field(default_factory=list, metadata={"help": "sweep: peak rates tried at every GPT size"})
    lstm_rates: list[float] = field(default_factory=list, metadata={"help": "sweep: the same for the LSTM"})
    sweep_file: str = field(default="results/rate_sweep.json", metadata={"help": "sweep: where its table goes"})
    search_tokens: int = field(default=300_000, metadata={"help": "best model: tokens of each run of the search"})
    search_rates: list[float] = field(
        default_factory=lambda: [0.03, 0.1, 0.3], metadata={"help": "best model: rates tried, times the best run's"}
    )
    search_dropouts: list[float] = field(
        default_factory=lambda: [0.0, 0.1], metadata={"help": "best model: dropouts tried"}
    )
    search_weight_decays: list[float] = field(
        default_factory=lambda: [0.01, 0.1], metadata={"help": "best model: decays tried"}
    )
    best_tokens: int = field(default=4_000_000, metadata={"help": "best model: tokens of the long run"})
    at_once: int = field(default=0, metadata={"help": "runs side by side; 0: one a core on CPU, else one"})
    checkpoint_seconds: float = field(default=20.0, metadata={"help": "how often a run is saved"})

    def __post_init__(self) -> None:
        for name in ("gpt_sizes", "lstm_sizes"):
            for size in getattr(self, name):
                if size not in LADDER:
                    raise DoorError(f"--{name} {size}: no such size, the ladder has {', '.join(LADDER)}")
        for name in ("tokens", "batch_size", "search_tokens", "best_tokens"):
            if getattr(self, name) < 1:
                raise DoorError(f"--{name} {getattr(self, name)}: must be at least 1")
        if self.context < 2:
            raise DoorError(f"--context {self.context}: must be at least 2")


def write_baseline(corpus: Corpus, root: Path) -> None:
    """Score the n-gram baselines on the validation split, once."""
    path = baseline_file(root)
    if path.is_file() and read_json(path).get("corpus") == corpus.digest():
        return
    train, held_out = np.asarray(corpus.tokens("train")), np.asarray(corpus.tokens("validation"))
    rows: list[dict[str, Any]] = []
    for order in ORDERS:
        losses = ngram_losses(train, held_out, len(corpus.vocabulary), order)
        result = summarise(losses, held_out, corpus.boundary)
        bits = result.loss / float(np.log(2))
        rows.append({"order": order, "validation_loss": result.loss, "bits_per_character": bits})
    chosen = next(row for row in rows if row["order"] == BASELINE_ORDER)
    write_json(path, {"corpus": corpus.digest(), "smoothing": "Witten-Bell", **chosen, "orders": rows})


def plan_recipes(arguments: StudyArguments) -> list[Recipe]:
    """Return a recipe for every architecture, size and seed; the rate is still open (0)."""
    if not arguments.gpt_sizes and not arguments.lstm_sizes:
        raise DoorError("no sizes: give --gpt_sizes or --lstm_sizes, or a study file such as studies/quick.yaml")
    return [
        Recipe(
            architecture=architecture,
            size=size,
            seed=seed,
            tokens=arguments.tokens,
            batch_size=arguments.batch_size,
            context=arguments.context,
            learning_rate=0.0,
            weight_decay=arguments.weight_decay,
        )
        for architecture, sizes in (("gpt", arguments.gpt_sizes), ("lstm", arguments.lstm_sizes))
        for size in sizes
        for seed in arguments.seeds
    ]


def share_machine(wanted: int) -> tuple[int, int]:
    """Return how many runs go side by side and with how many threads each.

    On a CPU each run has one core. A GPU, or several processes that accelerate
    launched, train one run at a time.
    """
    if PartialState().num_processes > 1 or PartialState().device.type != "cpu":
        return 1, torch.get_num_threads()
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else psutil.cpu_count() or 1
    at_once = wanted or cores
    return at_once, max(1, cores // at_once)


def train_ladders(arguments: StudyArguments, corpus: Corpus, root: Path) -> None:
    jobs = [make_job(r, corpus, run_folder(root, r.architecture, r.size, r.seed)) for r in plan_recipes(arguments)]
    write_baseline(corpus, root)
    report_failures(run_jobs(jobs, corpus, *share_machine(arguments.at_once), arguments.checkpoint_seconds, "ladders"))
    print(f"{root}: all {len(jobs)} runs are finished")


def train_sweep(arguments: StudyArguments, corpus: Corpus, root: Path) -> None:
    jobs = plan_sweep(plan_recipes(arguments), {"gpt": arguments.gpt_rates, "lstm": arguments.lstm_rates}, corpus, root)
    outcomes = run_jobs(jobs, corpus, *share_machine(arguments.at_once), arguments.checkpoint_seconds, "sweep")
    for architecture, rule in write_sweep(outcomes, Path(arguments.sweep_file))["rules"].items():
        law = f"rate = {rule['coefficient']:.4g} · N^-{rule['exponent']:.4g}"
        print(f"{architecture}: {law}, best rate on an edge: {rule['on_edge']}")
    print(f"the sweep's table: {arguments.sweep_file}")


def train_on(arguments: StudyArguments, corpus: Corpus, root: Path) -> None:
    search = plan_search(
        root,
        corpus,
        arguments.search_tokens,
        arguments.search_rates,
        arguments.search_dropouts,
        arguments.search_weight_decays,
    )
    machine = share_machine(arguments.at_once)
    record = train_best(search, root, corpus, arguments.best_tokens, *machine, arguments.checkpoint_seconds)
    print(f"{root / BEST}: test loss {record['test_loss']:.4f} nats per character")


PARTS = {"ladders": train_ladders, "best": train_on, "sweep": train_sweep}


def main() -> None:
    arguments = read_arguments(StudyArguments, __doc__ or "", default_file=str(QUICK))
    corpus, root = Corpus.open(arguments.corpus), Path(arguments.output_root)
    shortest = min(len(corpus.tokens(split)) for split in SPLITS)
    if arguments.context > shortest // 2:
        raise DoorError(
            f"--context {arguments.context}: too long for a corpus whose shortest split has {shortest} tokens"
        )
    root.mkdir(parents=True, exist_ok=True)
    if not PartialState().is_main_process:
        PARTS[arguments.part](arguments, corpus, root)
        return
    try:
        with FileLock(root / ".training.lock", timeout=0):
            warn_of_unknown(corpus.stats)
            PARTS[arguments.part](arguments, corpus, root)
    except Timeout:
        raise DoorError(
            f"{root}: another study is training there: wait for it, or give another --output_root"
        ) from None


if __name__ == "__main__":
    open_door(main)
