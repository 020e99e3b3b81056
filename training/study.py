"""Many runs: planned from a study's axes, trained side by side, each in its own process."""

import multiprocessing
import os
import signal
import sys
import threading
import traceback
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from multiprocessing.connection import wait
from typing import Any, cast

import torch
from accelerate import PartialState
from tqdm import tqdm
from transformers import AutoModelForCausalLM

from cli import UserError, describe_os_error
from modeling.counting import count_flops, count_parameters
from preprocessing.corpus import Corpus
from training.config import RunConfig
from training.learning_rate import Rule, learning_rate
from training.loop import ExecutionConfig, OutOfMemoryError, Plan, Progress, finished_record, train
from training.models import build_config
from training.processes import decide_together
from training.record import FAILED, FINISHED, NOT_RUN, RunRecord, read_record, variant_of, write_record

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
        config = self.plan.config
        return f"{config.architecture} {config.size} {variant_of(config)} seed {config.seed}"

    @property
    def start(self) -> int:
        """The tokens that another run, the trunk, has paid for."""
        config = self.plan.config
        return 0 if self.plan.trunk is None else config.cooldown_start * config.tokens_per_step

    @property
    def cost(self) -> int:
        """FLOPs of the run itself, overhead included."""
        return (self.plan.config.tokens - self.start) * (self.flops_per_token + OVERHEAD_FLOPS)


@dataclass(frozen=True)
class RunResult:
    """The result of a job: its record, or the error message that says why there is none."""

    job: Job
    record: RunRecord | None
    error: str | None

    @property
    def failure(self) -> tuple[str, str] | None:
        """(status, reason) of a run that did not finish, None for one that did."""
        if self.record is None:
            return FAILED, str(self.error)
        return None if self.record.status == FINISHED else (self.record.status, str(self.record.reason))


def measure(config: RunConfig, corpus: Corpus) -> tuple[int, int, int]:
    """Return the parameters, the non-embedding ones, and the FLOPs per token of a run's model, without allocating it.

    Raises UserError if the size cannot be built with the run's context.
    """
    try:
        built = build_config(config, corpus)
        with torch.device("meta"):
            model = AutoModelForCausalLM.from_config(built)
        flops = sum(count_flops(model, config.context).values())
    except ValueError as error:
        raise UserError(f"{config.architecture} {config.size} with --context {config.context}: {error}") from None
    groups = count_parameters(model)
    return groups["total"], groups["total"] - groups["tables"], flops


def make_job(plan: Plan, corpus: Corpus, rule: Rule | None = None) -> Job:
    """Complete a plan: a learning rate of 0 stands for that of `rule`, or of the schedule's own."""
    total, non_embedding, flops = measure(plan.config, corpus)
    if plan.config.learning_rate == 0:
        rate = learning_rate(plan.config.architecture, non_embedding, plan.config.schedule, rule)
        plan = replace(plan, config=replace(plan.config, learning_rate=rate))
    return Job(plan, total, non_embedding, flops)


def run_jobs(
    jobs: Sequence[Job], corpus: Corpus, num_parallel: int, threads: int, execution: ExecutionConfig, title: str
) -> list[RunResult]:
    """Train all jobs, `num_parallel` processes of `threads` threads each, and return a result for each.

    Finished ones are skipped (and counted in what is printed), and so is a trunk that no job to do branches off, which
    has no result. One that fails costs nothing but itself and what branches off it; it is marked in its folder with its
    reason, and tried again the next time. Processes that accelerate launched share each run instead.
    """
    jobs = list(dict.fromkeys(jobs))  # a size named twice is one run
    places = Counter(job.plan.folder for job in jobs)
    for folder in (folder for folder, count in places.items() if count > 1):
        raise UserError(f"{folder}: two different runs would be written there")
    records = decide_together(lambda: [finished_record(job.plan) for job in jobs])
    done = {job: RunResult(job, record, None) for job, record in zip(jobs, records, strict=True) if record is not None}
    branched_off = {job.plan.trunk for job in jobs if job not in done}
    jobs = [job for job in jobs if job in done or not job.plan.keep_at or job.plan.folder in branched_off]
    todo = sorted((job for job in jobs if job not in done), key=lambda job: -job.cost)  # the long ones first: no tail
    state = PartialState()
    if done and state.is_main_process:
        print(f"{title}: {len(done)} of {len(jobs)} runs have ended already", flush=True)
    if todo:
        with _Bar(todo, title) as bar:
            if state.num_processes > 1:
                results = _run_together(todo, corpus, execution, bar)
            else:
                results = _run_in_processes(todo, corpus, num_parallel, threads, execution, bar)
            for result in results:
                done[result.job] = result
                bar.end(result.job)
                if result.error is not None and state.is_main_process:
                    _mark(result, corpus)
    return [done[job] for job in jobs]


def _run_together(todo: Sequence[Job], corpus: Corpus, execution: ExecutionConfig, bar: "_Bar") -> Iterator[RunResult]:
    for job in sorted(todo, key=lambda job: job.plan.trunk is not None):
        try:
            yield RunResult(job, train(job.plan, corpus, partial(bar.update, job), execution), None)
        except (UserError, OutOfMemoryError) as error:  # every rank raises these; any other may be of one rank alone
            yield RunResult(job, None, str(error))


def planned_record(job: Job, corpus: Corpus) -> RunRecord:
    """Return what is known of a run before it is trained, as a record that says that it is not."""
    config = job.plan.config
    tokens = config.steps * config.tokens_per_step
    return RunRecord(
        status=NOT_RUN,
        config=config,
        config_hash=config.config_hash,
        split_hashes=corpus.split_hashes,
        n_params=job.n_params,
        n_params_non_embedding=job.n_params_non_embedding,
        steps=config.steps,
        tokens=tokens,
        flops_per_token=job.flops_per_token,
        flops=job.flops_per_token * tokens,
    )


def _mark(result: RunResult, corpus: Corpus) -> None:
    """Leave the reason of a failure in the run's folder, unless another run's record stands there."""
    folder = result.job.plan.folder
    with suppress(OSError, UserError):  # a full disk has no room for the reason either
        before = read_record(folder)
        if before is None or before.status == FAILED:
            write_record(folder, replace(planned_record(result.job, corpus), status=FAILED, reason=result.error))


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
        part = (tokens - job.start) / (job.plan.config.tokens - job.start)
        spent = max(self.costs[job], round(job.cost * min(1, part)))
        self.bar.update(spent - self.costs[job])
        self.costs[job] = spent

    def end(self, job: Job) -> None:
        self.ended += 1
        self.bar.set_postfix_str(f"{self.ended}/{len(self.costs)} runs done", refresh=False)
        self.update(job, job.plan.config.tokens, None)


def _run_in_processes(
    todo: Sequence[Job], corpus: Corpus, num_parallel: int, threads: int, execution: ExecutionConfig, bar: _Bar
) -> Iterator[RunResult]:
    """Train each job in its own process: whatever breaks there, a GPU's context included, costs that run alone."""
    if "forkserver" in multiprocessing.get_all_start_methods():
        context: Any = multiprocessing.get_context("forkserver")  # forks from a server that has imported the libraries
        context.set_forkserver_preload(["training.study"])
    else:
        context = multiprocessing.get_context("spawn")
    waiting = list(todo)
    running: dict[Any, tuple[Job, Any]] = {}
    try:
        while waiting or running:
            for job in _ready(waiting, [job for job, _ in running.values()])[: num_parallel - len(running)]:
                waiting.remove(job)
                ours, theirs = context.Pipe(duplex=False)
                process = context.Process(target=_work, args=(job, corpus, threads, execution, theirs), daemon=True)
                process.start()
                theirs.close()
                running[ours] = (job, process)
            for pipe in cast(list[Any], wait(list(running))):
                job, process = running[pipe]
                try:
                    message = pipe.recv()
                except EOFError:
                    process.join()
                    message = RunResult(job, None, describe_exit(process.exitcode))
                if isinstance(message, RunResult):
                    del running[pipe]
                    process.join()
                    yield RunResult(job, message.record, message.error)
                else:
                    bar.update(job, *message)
    finally:
        for _, process in running.values():
            process.terminate()


def _ready(waiting: Sequence[Job], running: Sequence[Job]) -> list[Job]:
    """Return the jobs whose trunk is neither waiting nor running."""
    growing = {job.plan.folder for job in [*waiting, *running] if job.plan.keep_at}
    return [job for job in waiting if job.plan.trunk not in growing]


def describe_exit(exit_code: int | None) -> str:
    """Return why a worker that sent no result has ended."""
    if exit_code == -signal.SIGKILL:
        return "the worker was killed from outside, which is what a system does that runs out of memory"
    return f"the worker exited with code {exit_code} and no message"


def _work(job: Job, corpus: Corpus, threads: int, execution: ExecutionConfig, pipe: Any) -> None:
    """Train one job in this process; send progress, and at the end the result, through the pipe."""
    threading.Thread(target=_end_with_study, daemon=True).start()
    torch.set_num_threads(threads)
    with suppress(BrokenPipeError):
        pipe.send(attempt(job, corpus, execution, lambda *news: pipe.send(news)))


def attempt(job: Job, corpus: Corpus, execution: ExecutionConfig, progress: Progress) -> RunResult:
    """Train one job; whatever ends it early becomes the error message of its result."""
    try:
        return RunResult(job, train(job.plan, corpus, progress, execution), None)
    except (UserError, OutOfMemoryError) as error:
        return RunResult(job, None, str(error))
    except OSError as error:
        return RunResult(job, None, describe_os_error(error))
    except KeyboardInterrupt:
        raise SystemExit(130) from None
    except Exception as error:
        traceback.print_exc(file=sys.stderr)  # a fault of ours, or of the device: the message does not say enough
        return RunResult(job, None, f"{type(error).__name__}: {error}")


def _end_with_study() -> None:
    """End this process as soon as the study's is gone: given again, its command must not find the folder in use."""
    study = multiprocessing.parent_process()
    assert study is not None
    study.join()
    os._exit(1)


def report_failures(results: Sequence[RunResult]) -> None:
    """Print a table of all runs that have no finished record and raise UserError; do nothing if there is none."""
    failed = [(result.job, *result.failure) for result in results if result.failure is not None]
    if failed:
        width = max(len(job.name) for job, _, _ in failed)
        rows = [f"  {job.name:{width}}  {status:8}  {reason}  ({job.plan.folder})" for job, status, reason in failed]
        if PartialState().is_main_process:
            print("\n".join(rows), file=sys.stderr)
        raise UserError(f"{len(failed)} of {len(results)} runs did not finish")
