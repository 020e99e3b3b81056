"""Corpus → trained models: accelerate launch training/run.py [studies/quick.yaml] [--part best]

Without an argument it trains the ladders of studies/quick.yaml. With flags it trains what they name, for example
--gpt_sizes 15k 30k 60k --lstm_sizes 15k 30k 60k (a law needs three sizes of both architectures). `--part best` then
trains the best run further. `--part sweep` trains every size with several rates and fits the rate rule LR(N).
`--init_from MODEL` trains any model further on another corpus. `--dry_run` says what all that would cost, `--runs_file`
writes it to a table with what came of it. What is finished is skipped, what was interrupted goes on from its
checkpoint. A file's `arms` are done one after the other.
"""

import os
from dataclasses import asdict, dataclass, field, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import torch
from accelerate import PartialState
from filelock import FileLock, Timeout

from door import DoorError, open_door, read_arms, read_json, write_json
from modeling.ladder import LADDER
from preprocessing.corpus import SPLITS, Corpus, warn_of_unknown
from training.best import loss_before, plan_fine_tuning, plan_long, plan_search, train_best
from training.evaluation import summarise
from training.grid import Axes, plan_ladders
from training.loop import COMPILE_CHOICES, Conduct
from training.ngram import ngram_losses
from training.probe import choose_precision, print_costs
from training.recipe import COSINE, WSD, RateRule, Recipe
from training.record import (
    BEST,
    FINE_TUNED,
    FOLDERS,
    NOT_RUN,
    TRUNK,
    baseline_file,
    read_record,
    read_runs,
    write_record,
)
from training.runs_table import finished_records, identity, replace_rows
from training.study import Job, Outcome, planned_record, report_failures, run_jobs
from training.sweep import earlier_runs, plan_sweep, write_sweep
from training.tracking import TENSORBOARD, TRACKIO, Tracking

QUICK = Path(__file__).parent.parent / "studies" / "quick.yaml"
ORDERS = range(1, 8)
BASELINE_ORDER = 3
AUTO = "auto"
LEAST = 1e-12
RULE = "one rate for all sizes, or coefficient and exponent of coefficient · N^-exponent, N without tables"
RANGES = {
    "seeds": (0, 2**31),
    "flops": (1, 1e30),
    "weight_decay": (0, 1e6),
    "gpt_rate_rule": (LEAST, 1e6),
    "lstm_rate_rule": (LEAST, 1e6),
    "gpt_rates": (LEAST, 1e6),
    "lstm_rates": (LEAST, 1e6),
    "search_rates": (LEAST, 1e6),
    "search_dropouts": (0, 0.99),
    "search_weight_decays": (0, 1e6),
    "fine_tuning_epochs": (0.01, 1e6),
    "fine_tuning_rate": (LEAST, 1e6),
    "fine_tuning_dropout": (0, 0.99),
    "at_once": (0, 1024),
    "windows_at_once": (0, 2**20),
    "checkpoint_seconds": (0, 1e6),
}


def option(default: Any, about: str, choices: list[str] | None = None) -> Any:
    """Return a field with its default, its help and what may be given."""
    metadata = {"help": about} | ({"choices": choices} if choices else {})
    if isinstance(default, list):
        return field(default_factory=lambda: list(default), metadata=metadata)
    return field(default=default, metadata=metadata)


@dataclass
class StudyArguments:
    """The axes of a study: every size with every budget, part of the data and seed."""

    part: str = option("ladders", "what to train", ["ladders", "best", "sweep"])
    runs_file: str | None = option(None, "write a row a run, ended or planned, to this table, and train nothing")
    records_from: str | None = option(
        None, "ladders: a table of runs; those that have ended there are not trained again, and get their record alone"
    )
    study: str = option("study", "the study's name in the table of runs")
    arm: str = option(
        "ladders", "the arm's name there, whose rows are replaced; of a file with several arms, the one to do"
    )
    corpus: str = option("data/processed_music_data", "the corpus folder")
    output_root: str = option("data", "the folder that the training folders stand in")
    gpt_sizes: list[str] = option([], f"of {list(LADDER)}")
    lstm_sizes: list[str] = option([], "names of the GPT sizes they match")
    seeds: list[int] = option([0], "one run a size, budget and seed")
    tokens: list[int] = option([2_000_000], "budgets: training tokens of a run (a token is a character)")
    flops: list[float] = option([], "budgets as training FLOPs (IsoFLOP): each size gets the tokens that they buy")
    one_in: list[int] = option([1], "parts of the data: 4 trains on one in 4 families of tunes, which are in one in 2")
    schedule: str = option(COSINE, "wsd: all budgets of a size branch off one trunk", [COSINE, WSD])
    carry_state: bool = option(False, "LSTM: each window starts from the state that the one before it ended in")
    batch_size: int = option(4, "windows a step")
    context: int = option(256, "characters a window")
    weight_decay: float = option(0.1, "decoupled, on matrices only")
    gpt_rate_rule: list[float] = option([], f"peak rates of the GPTs, instead of the schedule's own rule: {RULE}")
    lstm_rate_rule: list[float] = option([], "the same for the LSTMs")
    gpt_rates: list[float] = option([], "sweep: peak rates tried at every GPT size")
    lstm_rates: list[float] = option([], "sweep: the same for the LSTM")
    sweep_file: str = option("results/rate_sweep.json", "sweep: its table, to which runs of the same kind are added")
    search_tokens: int = option(300_000, "best model: tokens of each run of the search")
    search_rates: list[float] = option([0.03, 0.1, 0.3], "best model: rates tried, times the best run's")
    search_dropouts: list[float] = option([0.0, 0.1], "best model: dropouts tried")
    search_weight_decays: list[float] = option([0.01, 0.1], "best model: decays tried")
    best_tokens: int = option(4_000_000, "best model: tokens of the long run")
    init_from: str | None = option(None, "fine-tuning: the model to train further, a folder or a Hub id")
    fine_tuning_epochs: float = option(4.0, "fine-tuning: passes over the corpus; many tunes, or a GPT, gain by 8")
    fine_tuning_rate: float = option(0.5, "fine-tuning: peak rate, times the rule's; many tunes gain by 1")
    fine_tuning_dropout: float = option(0.0, "fine-tuning: dropout")
    dry_run: bool = option(False, "print what the runs will cost, and train nothing")
    at_once: int = option(0, "runs side by side; 0: one a core on CPU, else one")
    precision: str = option(AUTO, "auto: bf16 where it is measured faster", [AUTO, "fp32", "tf32", "bf16"])
    compile: str = option(AUTO, "torch.compile; auto: GPTs on a GPU, where a run is long", COMPILE_CHOICES)
    windows_at_once: int = option(0, "windows in a forward pass, the rest of a batch is accumulated; 0: what fits")
    checkpoint_seconds: float = option(20.0, "how often a run is saved")
    log_with: list[str] = option([TRACKIO], "trackers", [TRACKIO, TENSORBOARD, "none"])

    def __post_init__(self) -> None:
        for name in ("gpt_sizes", "lstm_sizes"):
            for size in getattr(self, name):
                if size not in LADDER:
                    raise DoorError(f"--{name} {size}: no such size, the ladder has {', '.join(LADDER)}")
        for name in ("tokens", "one_in", "batch_size", "search_tokens", "best_tokens"):
            value = getattr(self, name)
            if min(value if isinstance(value, list) else [value], default=0) < 1:
                raise DoorError(f"--{name} {value}: must be at least 1")
        for name, (least, most) in RANGES.items():
            value = getattr(self, name)
            for one in value if isinstance(value, list) else [value]:
                if not least <= one <= most:  # false for NaN
                    raise DoorError(f"--{name} {one}: must be from {least:g} to {most:g}")
        for name in ("gpt_rate_rule", "lstm_rate_rule"):
            if len(getattr(self, name)) > 2:
                raise DoorError(f"--{name} {getattr(self, name)}: {RULE}")
        if self.context < 2:
            raise DoorError(f"--context {self.context}: must be at least 2")
        self.log_with = [name for name in self.log_with if name != "none"]
        for name in self.log_with:
            if find_spec(name) is None:
                raise DoorError(f"--log_with {name}: not installed, pip install {name}")

    @property
    def rate_rules(self) -> dict[str, RateRule]:
        """The rate rules that were given, by architecture; one rate is a rule whose exponent is 0."""
        given = {"gpt": self.gpt_rate_rule, "lstm": self.lstm_rate_rule}
        return {architecture: (rule[0], rule[1] if rule[1:] else 0.0) for architecture, rule in given.items() if rule}

    @property
    def only_asks(self) -> bool:
        """Whether nothing is to be trained."""
        return self.dry_run or self.runs_file is not None


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


def share_machine(wanted: int) -> tuple[int, int]:
    """Return how many runs go side by side and with how many threads each.

    On a CPU each run has one core. A GPU trains one at a time unless told otherwise; several processes that
    accelerate launched share each run.
    """
    state = PartialState()
    if state.num_processes > 1 or (state.device.type != "cpu" and wanted < 2):
        return 1, torch.get_num_threads()
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else psutil.cpu_count() or 1
    at_once = wanted or cores
    return at_once, max(1, cores // at_once)


class Study:
    """What the parts of a study have in common."""

    def __init__(self, arguments: StudyArguments, corpus: Corpus, root: Path, title: str) -> None:
        self.arguments, self.corpus, self.root, self.title = arguments, corpus, root, title
        self.at_once, self.threads = share_machine(arguments.at_once)
        self.conduct = Conduct(
            arguments.checkpoint_seconds,
            arguments.windows_at_once,
            arguments.compile,
            Tracking(tuple(arguments.log_with), root),
        )

    def ladders(self) -> list[Job]:
        """Plan the ladders, in the precision that was asked for or that is fastest here."""
        arguments = self.arguments
        axes = Axes(
            {"gpt": arguments.gpt_sizes, "lstm": arguments.lstm_sizes},
            arguments.seeds,
            arguments.tokens,
            arguments.flops,
            arguments.one_in,
            arguments.rate_rules,
        )
        shared = self.recipe("fp32" if arguments.precision == AUTO else arguments.precision)
        jobs = plan_ladders(axes, shared, self.corpus, self.root)
        if arguments.precision == AUTO:
            precision = choose_precision(jobs, self.corpus, self.root, self.threads, not arguments.dry_run)
            jobs = plan_ladders(axes, self.recipe(precision), self.corpus, self.root)
        return jobs

    def restore(self, jobs: list[Job], table: Path) -> None:
        """Write the records of the jobs that have ended elsewhere, as a table of runs says, where none stands yet."""
        known, corpus, restored = finished_records(table), self.corpus.digest(), 0
        for job in jobs:
            record = known.get(identity({"recipe": asdict(job.plan.recipe), "corpus": corpus}))
            if record is not None and read_record(job.plan.folder) is None:
                write_record(job.plan.folder, record)
                restored += 1
        if restored:
            print(f"{self.title}: {restored} runs have ended elsewhere, their records are those of {table}")

    def recipe(self, precision: str) -> Recipe:
        """Return what all runs of the study have in common; what the axes say is still open."""
        arguments = self.arguments
        return Recipe(
            architecture="",
            size="",
            seed=arguments.seeds[0],
            tokens=0,
            batch_size=arguments.batch_size,
            context=arguments.context,
            learning_rate=0.0,
            weight_decay=arguments.weight_decay,
            warmup=0,
            schedule=arguments.schedule,
            carry_state=arguments.carry_state,
            precision=precision,
        )

    def run(self, jobs: list[Job]) -> list[Outcome]:
        """Train the jobs."""
        return run_jobs(jobs, self.corpus, self.at_once, self.threads, self.conduct, self.title)

    def asks_only(self, jobs: list[Job]) -> bool:
        """Say what the jobs will cost, or write them to the table of runs; return whether that is all that is asked."""
        arguments = self.arguments
        if arguments.dry_run:
            print_costs(jobs, self.corpus, self.at_once, self.threads)
        elif arguments.runs_file is not None:
            self.write_table(jobs, Path(arguments.runs_file))
        return arguments.only_asks

    def write_table(self, jobs: list[Job], path: Path) -> None:
        names = {"study": self.arguments.study, "arm": self.arguments.arm}
        jobs = [job for job in jobs if job.plan.recipe.schedule != TRUNK]  # its branches hold its part of their curves
        rows = [names | (read_record(job.plan.folder) or planned_record(job, self.corpus)) for job in jobs]
        replace_rows(path, rows, same=names)
        ended = sum(row["status"] != NOT_RUN for row in rows)
        print(f"{path}: study {names['study']}, {names['arm']}: {ended} of {len(rows)} runs have ended")


def train_ladders(study: Study) -> None:
    jobs = study.ladders()
    if study.asks_only(jobs):
        return
    if PartialState().is_main_process:
        write_baseline(study.corpus, study.root)
        if study.arguments.records_from is not None:
            study.restore(jobs, Path(study.arguments.records_from))
    PartialState().wait_for_everyone()
    outcomes = study.run(jobs)
    report_failures(outcomes)
    print(f"{study.root}: all {len(outcomes)} runs are finished")


def train_sweep(study: Study) -> None:
    arguments = study.arguments
    jobs = plan_sweep(study.ladders(), {"gpt": arguments.gpt_rates, "lstm": arguments.lstm_rates}, study.root)
    if study.asks_only(jobs):
        return
    path = Path(arguments.sweep_file)
    earlier = earlier_runs(path, jobs, study.corpus.digest())
    for architecture, rule in write_sweep(study.run(jobs), path, earlier)["rules"].items():
        print(f"{architecture}: rate = {rule['coefficient']:.4g} · N^-{rule['exponent']:.4g}")
    print(f"the sweep's table: {path}")


def train_on(study: Study) -> None:
    arguments, root, corpus = study.arguments, study.root, study.corpus
    if arguments.only_asks and not any(read_runs(root, name) for name in FOLDERS):
        print(f"{root}: no ladder run has ended, so the best one cannot be known yet")
        return
    search = plan_search(
        root,
        corpus,
        arguments.search_tokens,
        arguments.search_rates,
        arguments.search_dropouts,
        arguments.search_weight_decays,
    )
    if study.asks_only([*search, plan_long(search[0], root, corpus, arguments.best_tokens)]):
        return
    record = train_best(search, root, corpus, arguments.best_tokens, study.at_once, study.threads, study.conduct)
    print(f"{root / BEST}: test loss {record['test_loss']:.4f} nats per character")


def fine_tune(study: Study) -> None:
    arguments, corpus, threads = study.arguments, study.corpus, study.at_once * study.threads

    def plan(precision: str) -> Job:
        shared = replace(study.recipe(precision), dropout=arguments.fine_tuning_dropout, schedule=COSINE)
        epochs, rate_share = arguments.fine_tuning_epochs, arguments.fine_tuning_rate
        return plan_fine_tuning(shared, str(arguments.init_from), corpus, study.root, epochs, rate_share)

    precision = arguments.precision
    if precision == AUTO:
        precision = choose_precision([plan("fp32")], corpus, study.root, threads, not arguments.dry_run)
    job = plan(precision)
    if study.asks_only([job]):
        return
    outcomes = run_jobs([job], corpus, 1, threads, study.conduct, "fine-tuning")
    report_failures(outcomes)
    before, after = loss_before(job, corpus), (outcomes[0].record or {})["validation_loss"]
    folder = study.root / FINE_TUNED
    print(f"{folder}: validation loss {before:.4f} before, {after:.4f} after, in nats per character")
    print(f"tunes: python generation/run.py --model {folder} --corpus {arguments.corpus}")


PARTS = {"ladders": train_ladders, "best": train_on, "sweep": train_sweep}


def main() -> None:
    arms = read_arms(StudyArguments, __doc__ or "", default_file=str(QUICK))
    for arguments in arms:
        Corpus.open(arguments.corpus)  # one that is missing is found before hours of training
    failed = []
    for number, arguments in enumerate(arms, 1):
        try:
            run_arm(arguments, f"{arguments.arm} ({number} of {len(arms)})" if len(arms) > 1 else arguments.part)
        except DoorError as error:
            failed.append(str(error))
    if failed:
        raise DoorError("\n".join(dict.fromkeys(failed)))


def run_arm(arguments: StudyArguments, title: str) -> None:
    """Do what one arm of a study file, or the command line, asks for."""
    corpus, root = Corpus.open(arguments.corpus), Path(arguments.output_root)
    shortest = min(len(corpus.tokens(split)) for split in SPLITS)
    if arguments.context > shortest // 2:
        raise DoorError(
            f"--context {arguments.context}: too long for a corpus whose shortest split has {shortest} tokens: "
            f"give {shortest // 2} or less, or build it from more tunes"
        )
    root.mkdir(parents=True, exist_ok=True)
    # Accelerate has to be told that there is no GPU, or processes launched together would each train alone.
    state = PartialState(cpu=not torch.accelerator.is_available())
    train_part = fine_tune if arguments.init_from is not None else PARTS[arguments.part]
    if not state.is_main_process or arguments.only_asks:
        train_part(Study(arguments, corpus, root, title))
        return
    try:
        with FileLock(root / ".training.lock", timeout=0):
            warn_of_unknown(corpus.stats)
            train_part(Study(arguments, corpus, root, title))
    except Timeout:
        raise DoorError(
            f"{root}: another study is training there: wait for it, or give another --output_root"
        ) from None


if __name__ == "__main__":
    open_door(main)
