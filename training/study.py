"""Many runs: planned from a study's axes, trained side by side, each in a process of its own."""

import multiprocessing
import os
import signal
import sys
import threading
import traceback
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from functools import partial
from multiprocessing.connection import wait
from typing import Any, cast

import torch
from accelerate import PartialState
from tqdm import tqdm
from transformers import AutoModelForCausalLM

from door import DoorError, describe_os_error
from modeling.counting import count_flops, count_parameters
from preprocessing.corpus import Corpus
from training.loop import Conduct, Plan, Progress, build_config, finished_record, train
from training.recipe import RateRule, Recipe, learning_rate
from training.record import FAILED, FINISHED, NOT_RUN, arm_of, read_record, write_record

OVERHEAD_FLOPS = 225_000  # what a token costs a CPU beside its arithmetic; it only shapes the bar's time left


@dataclass(frozen=True)
class Job:
    """A run to do, and its model's size and cost: parameters, and training FLOPs per token."""

    plan: Plan
    n_params: int
    n_params_non_embedding: int
    flops_per_token: int

    @property
    def name(self) -> str:
        recipe = self.plan.recipe
        arm = arm_of(recipe.tokens, recipe.schedule, recipe.one_in, recipe.carry_state)
        return f"{recipe.architecture} {recipe.size} {arm} seed {recipe.seed}"

    @property
    def start(self) -> int:
        """The tokens that another run, the trunk, has paid for."""
        recipe = self.plan.recipe
        return 0 if self.plan.trunk is None else recipe.cooldown_start * recipe.tokens_per_step

    @property
    def cost(self) -> int:
        """FLOPs of the run itself, overhead included."""
        return (self.plan.recipe.tokens - self.start) * (self.flops_per_token + OVERHEAD_FLOPS)


@dataclass(frozen=True)
class Outcome:
    """What became of a job: its record, or the line that says why there is none."""

    job: Job
    record: dict[str, Any] | None
    error: str | None

    @property
    def failure(self) -> tuple[str, str] | None:
        """(status, reason) of a run that did not finish, None for one that did."""
        if self.record is None:
            return FAILED, str(self.error)
        return None if self.record["status"] == FINISHED else (self.record["status"], self.record["reason"])


def measure(recipe: Recipe, corpus: Corpus) -> tuple[int, int, int]:
    """Return parameters, those without tables, and FLOPs per token of a recipe's model, without allocating it.

    Raises DoorError if the size cannot be built with the recipe's context.
    """
    try:
        config = build_config(recipe, corpus)
        with torch.device("meta"):
            model = AutoModelForCausalLM.from_config(config)
        flops = sum(count_flops(model, recipe.context).values())
    except ValueError as error:
        raise DoorError(f"{recipe.architecture} {recipe.size} with --context {recipe.context}: {error}") from None
    groups = count_parameters(model)
    return groups["total"], groups["total"] - groups["tables"], flops


def make_job(plan: Plan, corpus: Corpus, rule: RateRule | None = None) -> Job:
    """Complete a plan: a rate of 0 stands for that of `rule`, or of the schedule's own."""
    total, without_tables, flops = measure(plan.recipe, corpus)
    if plan.recipe.learning_rate == 0:
        rate = learning_rate(plan.recipe.architecture, without_tables, plan.recipe.schedule, rule)
        plan = replace(plan, recipe=replace(plan.recipe, learning_rate=rate))
    return Job(plan, total, without_tables, flops)


def run_jobs(
    jobs: Sequence[Job], corpus: Corpus, at_once: int, threads: int, conduct: Conduct, title: str
) -> list[Outcome]:
    """Train all jobs, `at_once` processes of `threads` threads each, and return an outcome for each.

    Finished ones are skipped (and counted in what is printed), and so is a trunk that no job to do branches off, which
    has no outcome. One that fails costs nothing but itself and what branches off it; it is marked in its folder with
    its reason, and tried again the next time.
    """
    jobs = list(dict.fromkeys(jobs))  # a size named twice is one run
    digest = corpus.digest()
    done: dict[Job, Outcome] = {}
    for job in jobs:
        record = finished_record(job.plan, digest)
        if record is not None:
            done[job] = Outcome(job, record, None)
    branched_off = {job.plan.trunk for job in jobs if job not in done}
    jobs = [job for job in jobs if job in done or not job.plan.keep_at or job.plan.folder in branched_off]
    todo = sorted((job for job in jobs if job not in done), key=lambda job: -job.cost)  # the long ones first: no tail
    if done:
        print(f"{title}: {len(done)} of {len(jobs)} runs are finished already", flush=True)
    if todo:
        with _Bar(todo, title) as bar:
            for outcome in _run(todo, corpus, at_once, threads, conduct, bar):
                done[outcome.job] = outcome
                bar.end(outcome.job)
                if outcome.error is not None:
                    _mark(outcome, corpus)
    return [done[job] for job in jobs]


def _run(
    todo: Sequence[Job], corpus: Corpus, at_once: int, threads: int, conduct: Conduct, bar: "_Bar"
) -> Iterator[Outcome]:
    if at_once > 1 or threads != torch.get_num_threads():
        yield from _run_in_processes(todo, corpus, at_once, threads, conduct, bar)
    else:
        for job in sorted(todo, key=lambda job: job.plan.trunk is not None):
            yield attempt(job, corpus, conduct, partial(bar.update, job))


def planned_record(job: Job, corpus: Corpus) -> dict[str, Any]:
    """Return what is known of a run before it is trained, as a record that says that it is not."""
    recipe = job.plan.recipe
    tokens = recipe.steps * recipe.tokens_per_step
    return {
        "status": NOT_RUN,
        "reason": None,
        "recipe": asdict(recipe),
        "corpus": corpus.digest(),
        "n_params": job.n_params,
        "n_params_non_embedding": job.n_params_non_embedding,
        "tokens": tokens,
        "flops_per_token": job.flops_per_token,
        "flops": job.flops_per_token * tokens,
    }


def _mark(outcome: Outcome, corpus: Corpus) -> None:
    """Leave the reason of a failure in the run's folder, unless another run's record stands there."""
    folder = outcome.job.plan.folder
    with suppress(OSError, DoorError):  # a full disk has no room for the reason either
        if (read_record(folder) or {"status": FAILED})["status"] == FAILED:
            planned = planned_record(outcome.job, corpus)
            write_record(folder, {**planned, "status": FAILED, "reason": outcome.error})


class _Bar:
    """One bar for all jobs: it moves by expected cost, so that its time left holds for mixed sizes."""

    def __init__(self, jobs: Sequence[Job], title: str) -> None:
        self.bar = tqdm(
            total=sum(job.cost for job in jobs),
            desc=title,
            mininterval=0.2 if sys.stderr.isatty() else 15,  # a log file wants lines, not frames
            bar_format="{desc}: {percentage:3.0f}%|{bar}| {elapsed} passed, {remaining} left{postfix}",
            disable=int(os.environ.get("RANK", "0")) > 0,
        )
        self.costs = dict.fromkeys(jobs, 0)  # spent so far
        self.ended = 0

    def __enter__(self) -> "_Bar":
        return self

    def __exit__(self, *_: object) -> None:
        self.bar.close()

    def update(self, job: Job, tokens: int, loss: float | None) -> None:
        if loss is not None:
            text = f"{self.ended}/{len(self.costs)} runs done; {job.name}: loss {loss:.3f}"
            self.bar.set_postfix_str(text, refresh=False)
        part = (tokens - job.start) / (job.plan.recipe.tokens - job.start)
        spent = max(self.costs[job], round(job.cost * min(1, part)))
        self.bar.update(spent - self.costs[job])
        self.costs[job] = spent

    def end(self, job: Job) -> None:
        self.ended += 1
        self.bar.set_postfix_str(f"{self.ended}/{len(self.costs)} runs done", refresh=False)
        self.update(job, job.plan.recipe.tokens, None)


def attempt(job: Job, corpus: Corpus, conduct: Conduct, tell: Progress) -> Outcome:
    """Train one job in this process; what a user can mend becomes the outcome's line."""
    try:
        return Outcome(job, train(job.plan, corpus, tell, conduct), None)
    except DoorError as error:
        return Outcome(job, None, str(error))
    except OSError as error:
        if PartialState().num_processes > 1:  # the others would wait for this one
            raise
        return Outcome(job, None, describe_os_error(error))
    except (RuntimeError, MemoryError) as error:
        if isinstance(error, RuntimeError) and "No executable batch size" not in str(error):  # Accelerate's word for it
            raise
        return Outcome(job, None, "out of memory, even with one window at a time")


def _run_in_processes(
    todo: Sequence[Job], corpus: Corpus, at_once: int, threads: int, conduct: Conduct, bar: _Bar
) -> Iterator[Outcome]:
    # A server that has imported the libraries forks each run: fresh memory for an honest peak, no import to wait for.
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["training.study"])
    waiting = list(todo)
    running: dict[Any, tuple[Job, Any]] = {}
    try:
        while waiting or running:
            for job in _ready(waiting, [job for job, _ in running.values()])[: at_once - len(running)]:
                waiting.remove(job)
                ours, theirs = context.Pipe(duplex=False)
                process = context.Process(target=_work, args=(job, corpus, threads, conduct, theirs), daemon=True)
                process.start()
                theirs.close()
                running[ours] = (job, process)
            for pipe in cast(list[Any], wait(list(running))):
                job, process = running[pipe]
                try:
                    message = pipe.recv()
                except EOFError:
                    process.join()
                    message = Outcome(job, None, _epitaph(process.exitcode))
                if isinstance(message, Outcome):
                    del running[pipe]
                    process.join()
                    yield Outcome(job, message.record, message.error)
                else:
                    bar.update(job, *message)
    finally:
        for _, process in running.values():
            process.terminate()


def _ready(waiting: Sequence[Job], running: Sequence[Job]) -> list[Job]:
    """Return the jobs whose trunk is neither waiting nor running."""
    growing = {job.plan.folder for job in [*waiting, *running] if job.plan.keep_at}
    return [job for job in waiting if job.plan.trunk not in growing]


def _epitaph(exit_code: int | None) -> str:
    if exit_code == -signal.SIGKILL:
        return "its process was killed from outside, which is what a system does that runs out of memory"
    return f"its process ended without a word (exit code {exit_code})"


def _work(job: Job, corpus: Corpus, threads: int, conduct: Conduct, pipe: Any) -> None:
    """Train one job in this process; tell progress, and at the end the outcome, through the pipe."""
    threading.Thread(target=_end_with_study, daemon=True).start()
    torch.set_num_threads(threads)
    try:
        outcome = attempt(job, corpus, conduct, lambda *news: pipe.send(news))
    except KeyboardInterrupt:
        raise SystemExit(130) from None
    except Exception as error:
        traceback.print_exc(file=sys.stderr)  # a fault of ours: the line below does not say enough
        outcome = Outcome(job, None, f"{type(error).__name__}: {error}")
    with suppress(BrokenPipeError):
        pipe.send(outcome)


def _end_with_study() -> None:
    """End this process as soon as the study's is gone: given again, its command must not find the folder in use."""
    study = multiprocessing.parent_process()
    assert study is not None
    study.join()
    os._exit(1)


def report_failures(outcomes: Sequence[Outcome]) -> None:
    """Raise DoorError with a table of all runs that have no finished record; do nothing if there is none."""
    failed = [(outcome.job, *outcome.failure) for outcome in outcomes if outcome.failure is not None]
    if failed:
        width = max(len(job.name) for job, _, _ in failed)
        rows = [f"  {job.name:{width}}  {status:8}  {reason}  ({job.plan.folder})" for job, status, reason in failed]
        raise DoorError(f"{len(failed)} of {len(outcomes)} runs did not finish:\n" + "\n".join(rows))
