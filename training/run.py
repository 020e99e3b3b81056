"""Corpus → trained models: accelerate launch training/run.py [studies/quick.yaml] [--part best]

Without an argument it trains the ladders of studies/quick.yaml. With flags it trains what they name, for example
--gpt_sizes 15k 30k 60k --lstm_sizes 15k 30k 60k (a law needs three sizes of both architectures). `--part best` then
trains the best run further. `--part sweep` trains every size with several learning rates and fits the rule LR(N).
`--init_from MODEL` trains any model further on another corpus. `--dry_run` says what it would cost, `--runs_file`
writes it to a table with the results. What is finished is skipped, what was interrupted resumes from its checkpoint. A
file's `arms` are done one after the other.
"""

import os
from dataclasses import MISSING, dataclass, field, fields, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import torch
from accelerate import PartialState
from filelock import FileLock, Timeout

import cli
from cli import UserError
from files import make_folder, read_json, write_json
from modeling.ladder import LADDER
from preprocessing.corpus import SPLITS, Corpus, warn_of_unknown
from training.best import loss_before, plan_fine_tuning, plan_long, plan_search, train_best
from training.config import COSINE, STREAMS, TRUNK, WINDOWS, WSD
from training.evaluation import summarise
from training.grid import AUTO, MOST_TOKENS, Axes, Recipe, plan_ladders
from training.learning_rate import Rule
from training.loop import COMPILE_CHOICES, ExecutionConfig, finished_record, own_record
from training.ngram import ngram_losses
from training.probe import print_costs
from training.processes import decide_together
from training.record import (
    BEST,
    FINE_TUNED,
    FINISHED,
    FOLDERS,
    NOT_RUN,
    baseline_file,
    read_record,
    read_runs,
    write_record,
)
from training.runs_table import Row, read_runs_table, replace_arm
from training.study import Job, RunResult, planned_record, report_failures, run_jobs
from training.sweep import earlier_runs, plan_sweep, write_sweep
from training.tracking import TENSORBOARD, TRACKIO, Tracking

NOT_IN_FINE_TUNING = (
    *("part", "gpt_sizes", "lstm_sizes", "seeds", "tokens", "flops", "data_fraction", "schedule", "warmup_tokens"),
    *("cooldown_fraction", "sequences", "gpt_rate_rule", "lstm_rate_rule", "gpt_rates", "lstm_rates", "records_from"),
)
QUICK = Path(__file__).parent.parent / "studies" / "quick.yaml"
ORDERS = range(1, 8)
BASELINE_ORDER = 3
LEAST = 1e-12
RULE = "one rate for all sizes, or coefficient and exponent of coefficient · N^-exponent, N non-embedding"
RANGES = {
    "seeds": (0, 2**31),
    "tokens": (1, MOST_TOKENS),
    "flops": (1, 1e30),
    "data_fraction": (1e-9, 1),
    "batch_size": (1, 2**20),
    "context": (2, 2**20),
    "warmup_tokens": (0, MOST_TOKENS),
    "cooldown_fraction": (LEAST, 1),
    "weight_decay": (0, 1e6),
    "gpt_rate_rule": (LEAST, 1e6),
    "lstm_rate_rule": (LEAST, 1e6),
    "gpt_rates": (LEAST, 1e6),
    "lstm_rates": (LEAST, 1e6),
    "search_tokens": (1, MOST_TOKENS),
    "search_rates": (LEAST, 1e6),
    "search_dropouts": (0, 0.99),
    "search_weight_decays": (0, 1e6),
    "best_tokens": (1, MOST_TOKENS),
    "fine_tuning_epochs": (0.01, 1e6),
    "fine_tuning_rate": (LEAST, 1e6),
    "fine_tuning_dropout": (0, 0.99),
    "num_parallel_runs": (0, 1024),
    "micro_batch_size": (0, 2**20),
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
    """The axes of a study: every size with every budget, fraction of the data and seed."""

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
    tokens: list[int] = option(
        [], "budgets: training tokens of a run (a token is a character); 2000000 if none is given"
    )
    flops: list[float] = option([], "budgets as training FLOPs instead (IsoFLOP): each size gets the tokens they buy")
    data_fraction: list[float] = option([1.0], "fractions of the training tunes; 0.25 trains on tunes that are in 0.5")
    schedule: str = option(COSINE, "wsd: all budgets of a size branch off one trunk", [COSINE, WSD])
    warmup_tokens: int = option(20_000, "tokens of linear warm-up of the learning rate, whatever the budget")
    cooldown_fraction: float = option(0.2, "wsd: part of a run in which the learning rate falls")
    sequences: str = option(
        WINDOWS, "streams: LSTM, each starts from the state that the last one ended in", [WINDOWS, STREAMS]
    )
    batch_size: int = option(4, "sequences a step")
    context: int = option(256, "characters a sequence")
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
    num_parallel_runs: int = option(0, "runs side by side; 0: one a core on CPU, else one")
    precision: str = option(
        AUTO, "auto: bf16 where the processor has it and the model is at least 128 wide", [AUTO, "fp32", "tf32", "bf16"]
    )
    compile: str = option(AUTO, "torch.compile; auto: GPTs on a GPU, where a run is long", COMPILE_CHOICES)
    micro_batch_size: int = option(0, "sequences in a forward pass, the rest of a batch is accumulated; 0: what fits")
    checkpoint_seconds: float = option(20.0, "how often a run is saved")
    log_with: list[str] = option([TRACKIO], "trackers", [TRACKIO, TENSORBOARD, "none"])

    def __post_init__(self) -> None:
        for name in ("gpt_sizes", "lstm_sizes"):
            for size in getattr(self, name):
                if size not in LADDER:
                    raise UserError(f"--{name} {size}: no such size, the ladder has {', '.join(LADDER)}")
        for name, (least, most) in RANGES.items():
            value = getattr(self, name)
            for one in value if isinstance(value, list) else [value]:
                if not least <= one <= most:  # false for NaN
                    raise UserError(f"--{name} {one}: must be from {least:g} to {most:g}")
        if self.init_from is not None:
            for name in NOT_IN_FINE_TUNING:
                if getattr(self, name) != DEFAULTS[name]:
                    raise UserError(f"--{name}: has no effect beside --init_from: leave it out")
        if self.tokens and self.flops:
            raise UserError("--tokens, --flops: a budget is given as tokens or as FLOPs, not both: leave one out")
        self.tokens = self.tokens or ([] if self.flops else [2_000_000])
        for name in ("seeds", "data_fraction"):
            if not getattr(self, name):
                raise UserError(f"--{name}: give one or more")
        for name in ("gpt_rate_rule", "lstm_rate_rule"):
            if len(getattr(self, name)) > 2:
                raise UserError(f"--{name} {getattr(self, name)}: {RULE}")
        self.log_with = [name for name in self.log_with if name != "none"]
        for name in self.log_with:
            if find_spec(name) is None:
                raise UserError(f"--log_with {name}: not installed, pip install {name}")

    @property
    def lr_rules(self) -> dict[str, Rule]:
        """The learning-rate rules that were given, by architecture; one rate is a rule whose exponent is 0."""
        given = {"gpt": self.gpt_rate_rule, "lstm": self.lstm_rate_rule}
        return {architecture: (rule[0], rule[1] if rule[1:] else 0.0) for architecture, rule in given.items() if rule}

    @property
    def only_asks(self) -> bool:
        """Whether nothing is to be trained."""
        return self.dry_run or self.runs_file is not None


DEFAULTS = {
    one.name: one.default if one.default_factory is MISSING else one.default_factory() for one in fields(StudyArguments)
}


def write_baseline(corpus: Corpus, root: Path) -> None:
    """Score the n-gram baselines on the validation split, once."""
    path = baseline_file(root)
    if path.is_file() and read_json(path, "corpus")["corpus"] == corpus.digest():
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
    """Return how many runs are trained side by side and with how many threads each.

    On a CPU each run has one core. A GPU trains one at a time unless asked otherwise; several processes that accelerate
    launched share each run.
    """
    state = PartialState()
    if state.num_processes > 1 or (state.device.type != "cpu" and wanted < 2):
        return 1, torch.get_num_threads()
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else psutil.cpu_count() or 1
    num_parallel = wanted or cores
    return num_parallel, max(1, cores // num_parallel)


class Study:
    """What the parts of a study have in common."""

    def __init__(self, arguments: StudyArguments, corpus: Corpus, root: Path, title: str) -> None:
        self.arguments, self.corpus, self.root, self.title = arguments, corpus, root, title
        self.num_parallel, self.threads = share_machine(arguments.num_parallel_runs)
        self.execution = ExecutionConfig(
            arguments.checkpoint_seconds,
            arguments.micro_batch_size,
            arguments.compile,
            Tracking(tuple(arguments.log_with), root),
        )

    def ladders(self) -> list[Job]:
        """Plan the ladders."""
        arguments = self.arguments
        axes = Axes(
            {"gpt": arguments.gpt_sizes, "lstm": arguments.lstm_sizes},
            arguments.seeds,
            arguments.tokens,
            arguments.flops,
            arguments.data_fraction,
            arguments.lr_rules,
        )
        return plan_ladders(axes, self.recipe(), self.corpus, self.root)

    def restore(self, jobs: list[Job], table: Path) -> None:
        """Write the records of the jobs that have ended elsewhere, as a table of runs says, where none stands yet."""
        records = [row.record for row in read_runs_table(table)]
        known = {record.config_hash: record for record in records if record.status == FINISHED}
        restored = 0
        for job in jobs:
            record = known.get(job.plan.config.config_hash)
            if record is not None and read_record(job.plan.folder) is None:
                write_record(job.plan.folder, record)
                restored += 1
        if restored:
            print(f"{self.title}: {restored} runs have ended elsewhere, their records are those of {table}")

    def recipe(self) -> Recipe:
        """Return what all runs of the study have in common."""
        arguments = self.arguments
        return Recipe(
            batch_size=arguments.batch_size,
            context=arguments.context,
            sequences=arguments.sequences,
            schedule=arguments.schedule,
            warmup_tokens=arguments.warmup_tokens,
            cooldown_fraction=arguments.cooldown_fraction,
            weight_decay=arguments.weight_decay,
            precision=arguments.precision,
        )

    def run(self, jobs: list[Job]) -> list[RunResult]:
        """Train the jobs."""
        return run_jobs(jobs, self.corpus, self.num_parallel, self.threads, self.execution, self.title)

    def asks_only(self, jobs: list[Job]) -> bool:
        """Say what the jobs will cost, or write them to the table of runs; return whether that is all that is asked."""
        arguments = self.arguments
        if arguments.dry_run:
            todo = [job for job in jobs if finished_record(job.plan) is None]
            say(f"{self.title}: {len(jobs) - len(todo)} of {len(jobs)} runs have ended already")
            if todo:
                print_costs(todo, self.corpus, self.num_parallel, self.threads)
        elif arguments.runs_file is not None and PartialState().is_main_process:
            self.write_table(jobs, Path(arguments.runs_file))
        return arguments.only_asks

    def write_table(self, jobs: list[Job], path: Path) -> None:
        study, arm = self.arguments.study, self.arguments.arm
        jobs = [job for job in jobs if job.plan.config.schedule != TRUNK]  # its branches hold its part of their curves
        records = [own_record(job.plan) or planned_record(job, self.corpus) for job in jobs]
        replace_arm(path, [Row(study, arm, record) for record in records])
        ended = sum(record.status != NOT_RUN for record in records)
        print(f"{path}: study {study}, {arm}: {ended} of {len(records)} runs have ended")


def train_ladders(study: Study) -> None:
    jobs = study.ladders()
    if study.asks_only(jobs):
        return
    decide_together(lambda: write_baseline(study.corpus, study.root))
    if (table := study.arguments.records_from) is not None:
        decide_together(lambda: study.restore(jobs, Path(table)))
    results = study.run(jobs)
    report_failures(results)
    say(f"{study.root}: all {len(results)} runs are finished")


def train_sweep(study: Study) -> None:
    arguments = study.arguments
    jobs = plan_sweep(study.ladders(), {"gpt": arguments.gpt_rates, "lstm": arguments.lstm_rates}, study.root)
    if study.asks_only(jobs):
        return
    path = Path(arguments.sweep_file)
    earlier = earlier_runs(path, jobs)
    results = study.run(jobs)
    if not PartialState().is_main_process:
        return
    for architecture, rule in write_sweep(results, path, earlier)["rules"].items():
        print(f"{architecture}: learning rate = {rule['coefficient']:.4g} · N^-{rule['exponent']:.4g}")
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
    record = train_best(search, root, corpus, arguments.best_tokens, study.num_parallel, study.threads, study.execution)
    say(f"{root / BEST}: test loss {record.test_loss:.4f} nats per character")


def fine_tune(study: Study) -> None:
    arguments, corpus = study.arguments, study.corpus
    recipe = replace(study.recipe(), dropout=arguments.fine_tuning_dropout, schedule=COSINE)
    epochs, rate_share = arguments.fine_tuning_epochs, arguments.fine_tuning_rate
    job = plan_fine_tuning(recipe, str(arguments.init_from), corpus, study.root, epochs, rate_share)
    if study.asks_only([job]):
        return
    results = run_jobs([job], corpus, 1, study.num_parallel * study.threads, study.execution, "fine-tuning")
    report_failures(results)
    after = results[0].record
    assert after is not None
    folder, before = study.root / FINE_TUNED, loss_before(job, corpus)
    say(f"{folder}: validation loss {before:.4f} before, {after.validation_loss:.4f} after, in nats per character")
    say(f"tunes: python generation/run.py --model {folder} --corpus {arguments.corpus}")


def say(line: str) -> None:
    """Print a line once, however many processes were launched."""
    if PartialState().is_main_process:
        print(line)


PARTS = {"ladders": train_ladders, "best": train_on, "sweep": train_sweep}


def run(given: list[tuple[StudyArguments]]) -> None:
    arms = [arguments for (arguments,) in given]
    named = {(arguments.study, arguments.arm) for arguments in arms}
    if len(named) < len(arms) and any(arguments.runs_file for arguments in arms):
        raise UserError("--runs_file: two arms of the study have one name, and would replace each other's rows")
    for arguments in arms:
        Corpus.open(arguments.corpus)  # one that is missing is found before hours of training
    failed = []
    for number, arguments in enumerate(arms, 1):
        try:
            run_arm(arguments, f"{arguments.arm} ({number} of {len(arms)})" if len(arms) > 1 else arguments.part)
        except UserError as error:
            failed.append(str(error))
    state = PartialState()
    state.wait_for_everyone()  # a process that leaves early takes down what another is still in
    state.destroy_process_group()
    if failed:
        raise UserError("; ".join(dict.fromkeys(failed)))


def run_arm(arguments: StudyArguments, title: str) -> None:
    """Do what one arm of a study file, or the command line, asks for."""
    corpus, root = Corpus.open(arguments.corpus), Path(arguments.output_root)
    shortest = min(len(corpus.tokens(split)) for split in SPLITS)
    if arguments.context > shortest // 2:
        raise UserError(
            f"--context {arguments.context}: too long for a corpus whose shortest split has {shortest} tokens: "
            f"give {shortest // 2} or less, or build it from more tunes"
        )
    # Accelerate has to be told that there is no GPU, or processes launched together would each train alone.
    PartialState(cpu=not torch.accelerator.is_available())
    train_part = fine_tune if arguments.init_from is not None else PARTS[arguments.part]
    lock = FileLock(root / ".training.lock", timeout=0)

    def enter() -> None:
        make_folder(root)
        warn_of_unknown(corpus.stats)
        try:
            lock.acquire()
        except Timeout:
            raise UserError(
                f"{root}: another study is training there: wait for it, or give another --output_root"
            ) from None

    if not arguments.only_asks:
        decide_together(enter)
    try:
        train_part(Study(arguments, corpus, root, title))
    finally:
        lock.release()


def main() -> None:
    cli.main(run, StudyArguments, about=__doc__, default_file=str(QUICK), arms=True)


if __name__ == "__main__":
    main()
