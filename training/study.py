"""Many runs: planned from a study's axes, trained side by side, each in a process of its own."""

import multiprocessing
import os
import sys
import traceback
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any, cast

import torch
from tqdm import tqdm
from transformers import AutoModelForCausalLM

from door import DoorError, describe_os_error
from modeling.counting import count_parameters, flops_per_token
from preprocessing.corpus import Corpus
from training.loop import build_config, finished_record, train
from training.recipe import Recipe, learning_rate

OVERHEAD_FLOPS = 225_000  # what a token costs a CPU beside its arithmetic; it only shapes the bar's time left


@dataclass(frozen=True)
class Job:
    """A run to do: its recipe, its folder, and what it is expected to cost (in FLOPs, overhead included)."""

    recipe: Recipe
    folder: Path
    cost: int
    score_test: bool = False

    @property
    def name(self) -> str:
        return f"{self.recipe.architecture} {self.recipe.size} seed {self.recipe.seed}"


@dataclass(frozen=True)
class Outcome:
    """What became of a job: its record, or the line that says why there is none."""

    job: Job
    record: dict[str, Any] | None
    error: str | None


def measure(recipe: Recipe, corpus: Corpus) -> tuple[int, int]:
    """Return parameters without tables and FLOPs per token of a recipe's model, without allocating it."""
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(build_config(recipe, corpus))
    groups = count_parameters(model)
    return groups["total"] - groups["tables"], flops_per_token(model, recipe.context)


def make_job(recipe: Recipe, corpus: Corpus, folder: Path, score_test: bool = False) -> Job:
    """Complete a recipe (a rate of 0 stands for the rule's) and estimate its cost."""
    try:
        n, flops = measure(recipe, corpus)
    except ValueError as error:
        raise DoorError(f"{recipe.architecture} {recipe.size} with --context {recipe.context}: {error}") from None
    if recipe.learning_rate == 0:
        recipe = replace(recipe, learning_rate=learning_rate(recipe.architecture, n))
    return Job(recipe, folder, recipe.tokens * (flops + OVERHEAD_FLOPS), score_test)


def run_jobs(
    jobs: Sequence[Job], corpus: Corpus, at_once: int, threads: int, checkpoint_seconds: float, title: str
) -> list[Outcome]:
    """Train all jobs, `at_once` processes of `threads` threads each, and return an outcome for each.

    Finished ones are skipped (and counted in what is printed). One that fails costs nothing but itself.
    """
    jobs = list(dict.fromkeys(jobs))  # a size named twice is one run
    digest = corpus.digest()
    done: dict[Job, Outcome] = {}
    for job in jobs:
        record = finished_record(job.recipe, digest, job.folder)
        if record is not None:
            done[job] = Outcome(job, record, None)
    todo = sorted((job for job in jobs if job not in done), key=lambda job: -job.cost)  # the long ones first: no tail
    if done:
        print(f"{title}: {len(done)} of {len(jobs)} runs are finished already", flush=True)
    if todo:
        with _Bar(todo, title) as bar:
            if at_once > 1 or threads != torch.get_num_threads():
                done |= _run_in_processes(todo, corpus, at_once, threads, checkpoint_seconds, bar)
            else:
                done |= {job: _run_here(job, corpus, checkpoint_seconds, bar) for job in todo}
    return [done[job] for job in jobs]


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
        spent = max(self.costs[job], min(job.cost, job.cost * tokens // job.recipe.tokens))
        self.bar.update(spent - self.costs[job])
        self.costs[job] = spent

    def end(self, job: Job) -> None:
        self.ended += 1
        self.bar.set_postfix_str(f"{self.ended}/{len(self.costs)} runs done", refresh=False)
        self.update(job, job.recipe.tokens, None)


def _run_here(job: Job, corpus: Corpus, checkpoint_seconds: float, bar: _Bar) -> Outcome:
    try:
        record = train(job.recipe, corpus, job.folder, partial(bar.update, job), checkpoint_seconds, job.score_test)
        return Outcome(job, record, None)
    except DoorError as error:
        return Outcome(job, None, str(error))
    except OSError as error:
        return Outcome(job, None, describe_os_error(error))
    finally:
        bar.end(job)


def _run_in_processes(
    todo: Sequence[Job], corpus: Corpus, at_once: int, threads: int, checkpoint_seconds: float, bar: _Bar
) -> dict[Job, Outcome]:
    # A server that has imported the libraries forks each run: fresh memory for an honest peak, no import to wait for.
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["training.study"])
    waiting = list(todo)
    running: dict[Any, tuple[Job, Any]] = {}
    outcomes: dict[Job, Outcome] = {}
    try:
        while waiting or running:
            while waiting and len(running) < at_once:
                job = waiting.pop(0)
                ours, theirs = context.Pipe(duplex=False)
                process = context.Process(
                    target=_work, args=(job, corpus, threads, checkpoint_seconds, theirs), daemon=True
                )
                process.start()
                theirs.close()
                running[ours] = (job, process)
            for pipe in cast(list[Any], wait(list(running))):
                job, process = running[pipe]
                try:
                    message = pipe.recv()
                except EOFError:
                    message = Outcome(job, None, f"the process ended without a word (exit code {process.exitcode})")
                if isinstance(message, Outcome):
                    outcomes[job] = Outcome(job, message.record, message.error)
                    bar.end(job)
                    del running[pipe]
                    process.join()
                else:
                    bar.update(job, *message)
    finally:
        for _, process in running.values():
            process.terminate()
    return outcomes


def _work(job: Job, corpus: Corpus, threads: int, checkpoint_seconds: float, pipe: Any) -> None:
    """Train one job in this process; tell progress, and at the end the outcome, through the pipe."""
    parent = os.getppid()
    torch.set_num_threads(threads)

    def tell(tokens: int, loss: float | None) -> None:
        if os.getppid() != parent:  # whoever started the study is gone: nobody would read the result
            raise SystemExit(1)
        pipe.send((tokens, loss))

    try:
        record = train(job.recipe, corpus, job.folder, tell, checkpoint_seconds, job.score_test)
        outcome = Outcome(job, record, None)
    except DoorError as error:
        outcome = Outcome(job, None, str(error))
    except OSError as error:
        outcome = Outcome(job, None, describe_os_error(error))
    except KeyboardInterrupt:
        raise SystemExit(130) from None
    except Exception as error:
        traceback.print_exc(file=sys.stderr)  # a fault of ours: the line below does not say enough
        outcome = Outcome(job, None, f"{type(error).__name__}: {error}")
    with suppress(BrokenPipeError):
        pipe.send(outcome)


def report_failures(outcomes: Sequence[Outcome]) -> None:
    """Raise DoorError with a line for every run that has no finished record; do nothing if there is none."""
    failed = [
        f"{outcome.job.name} ({outcome.job.folder}): {outcome.error or (outcome.record or {}).get('reason')}"
        for outcome in outcomes
        if outcome.error is not None or (outcome.record or {}).get("status") != "finished"
    ]
    if failed:
        raise DoorError(f"{len(failed)} of {len(outcomes)} runs did not finish:\n  " + "\n  ".join(failed))
