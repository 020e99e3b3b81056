"""Trains many runs side by side, each in its own process."""

import multiprocessing
import os
import signal
import sys
import threading
import traceback
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any, cast

import psutil
import torch
from accelerate import PartialState
from tqdm import tqdm

from cli import UserError, describe_os_error
from preprocessing.corpus import Corpus, warn_of_unknown
from training.arguments import ExecutionArguments
from training.execution import ExecutionConfig
from training.loop import Progress
from training.planning import PlannedRun
from training.processes import decide_together, locked, say
from training.record import FAILED, FINISHED, RunRecord, read_record, write_record
from training.single_run import OutOfMemoryError, finished_record, train

OVERHEAD_FLOPS = 225_000  # a token's cost on a CPU beside its arithmetic, for the time left in the progress bar


@dataclass(frozen=True)
class RunResult:
    """The result of a run: its record, or the error message of a run that has none."""

    run: PlannedRun
    record: RunRecord | None
    error: str | None = None

    @property
    def failure(self) -> tuple[str, str] | None:
        """(status, reason) of a run that did not finish, None for one that did."""
        if self.record is None:
            return FAILED, str(self.error)
        return None if self.record.status == FINISHED else (self.record.status, str(self.record.reason))


def share_machine(num_parallel_runs: int) -> tuple[int, int]:
    """Return how many runs are trained side by side (0: the default), and the threads of each.

    The default is a run for each core on a CPU, one run on a GPU. Processes that accelerate launched share each run.
    """
    state = PartialState()
    if state.num_processes > 1 or (state.device.type != "cpu" and num_parallel_runs < 2):
        return 1, torch.get_num_threads()
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else psutil.cpu_count() or 1
    num_parallel = num_parallel_runs or cores
    return num_parallel, max(1, cores // num_parallel)


@contextmanager
def training_in(
    root: Path, corpus: Corpus, execution: ExecutionArguments
) -> Iterator[Callable[[Sequence[PlannedRun], str, int], list[RunResult]]]:
    """Keep other studies out of the folder `root`, and yield what trains runs there: `train_all` with its settings.

    It takes the runs, a title, and how many runs are trained side by side. Prints a warning if the vocabulary lacks
    characters.
    """
    with locked(root):
        decide_together(lambda: warn_of_unknown(corpus.stats))
        config = execution.config(root)
        yield lambda runs, title, num_parallel_runs: train_all(runs, corpus, config, num_parallel_runs, title)


def train_all(
    runs: Sequence[PlannedRun], corpus: Corpus, execution: ExecutionConfig, num_parallel_runs: int, title: str
) -> list[RunResult]:
    """Train all runs and return a result for each.

    Finished runs are skipped, and so is a trunk that no run to do branches off, which has no result. A run that fails
    does not stop the others, except those that branch off it; its reason is recorded, and it is tried again the next
    time. Raises UserError if two runs have the same folder.
    """
    for folder in (folder for folder, count in Counter(run.folder for run in runs).items() if count > 1):
        raise UserError(f"{folder}: two different runs would be written there")
    records = decide_together(lambda: [finished_record(run) for run in runs])
    results = {run.folder: RunResult(run, record) for run, record in zip(runs, records, strict=True) if record}
    branched_off = {run.trunk for run in runs if run.folder not in results}
    runs = [run for run in runs if run.folder in results or not run.keep_at or run.folder in branched_off]
    todo = sorted((run for run in runs if run.folder not in results), key=_cost, reverse=True)  # long runs first
    if results:
        say(f"{title}: {len(results)} of {len(runs)} runs have ended already")
    if todo:
        with _Bar(todo, title) as bar:
            if PartialState().num_processes > 1:
                ended = _train_together(todo, corpus, execution, bar)
            else:
                ended = _train_in_processes(todo, corpus, execution, num_parallel_runs, bar)
            for result in ended:
                results[result.run.folder] = result
                bar.end(result.run)
                if result.error is not None and PartialState().is_main_process:
                    _record_failure(result, corpus)
    return [results[run.folder] for run in runs]


def _cost(run: PlannedRun) -> int:
    """Return the FLOPs of the run itself, overhead included."""
    return (run.config.tokens - run.start) * (run.flops_per_token + OVERHEAD_FLOPS)


def _record_failure(result: RunResult, corpus: Corpus) -> None:
    """Write the reason of a failure into the run's folder, unless that holds another record."""
    folder = result.run.folder
    with suppress(OSError, UserError):  # a full disk may be the reason
        before = read_record(folder)
        if before is None or before.status == FAILED:
            write_record(folder, result.run.record(corpus, FAILED, result.error))


def _train_together(
    todo: Sequence[PlannedRun], corpus: Corpus, execution: ExecutionConfig, bar: "_Bar"
) -> Iterator[RunResult]:
    """Train the runs one after another, each by all processes that accelerate launched."""
    for run in sorted(todo, key=lambda run: run.trunk is not None):
        try:
            yield RunResult(run, train(run, corpus, partial(bar.update, run), execution))
        except (UserError, OutOfMemoryError) as error:  # raised on every rank; other errors may be of one rank alone
            yield RunResult(run, None, str(error))


def _train_in_processes(
    todo: Sequence[PlannedRun], corpus: Corpus, execution: ExecutionConfig, num_parallel_runs: int, bar: "_Bar"
) -> Iterator[RunResult]:
    """Train each run in its own process, so that a fault, also of a GPU's context, ends that run alone."""
    num_parallel, threads = share_machine(num_parallel_runs)
    if "forkserver" in multiprocessing.get_all_start_methods():
        context: Any = multiprocessing.get_context("forkserver")  # forks from a server that has imported the libraries
        context.set_forkserver_preload(["training.workers"])
    else:
        context = multiprocessing.get_context("spawn")
    waiting = list(todo)
    running: dict[Any, tuple[PlannedRun, Any]] = {}
    try:
        while waiting or running:
            for run in _ready(waiting, [run for run, _ in running.values()])[: num_parallel - len(running)]:
                waiting.remove(run)
                ours, theirs = context.Pipe(duplex=False)
                process = context.Process(target=_work, args=(run, corpus, threads, execution, theirs), daemon=True)
                process.start()
                theirs.close()
                running[ours] = (run, process)
            for pipe in cast(list[Any], wait(list(running))):
                run, process = running[pipe]
                try:
                    message = pipe.recv()
                except EOFError:
                    process.join()
                    message = RunResult(run, None, describe_exit(process.exitcode))
                if isinstance(message, RunResult):
                    del running[pipe]
                    process.join()
                    yield message
                else:
                    bar.update(run, *message)
    finally:
        for _, process in running.values():
            process.terminate()


def _ready(waiting: Sequence[PlannedRun], running: Sequence[PlannedRun]) -> list[PlannedRun]:
    """Return the runs whose trunk is neither waiting nor running."""
    trunks = {run.folder for run in [*waiting, *running] if run.keep_at}
    return [run for run in waiting if run.trunk not in trunks]


def describe_exit(exit_code: int | None) -> str:
    """Return why a worker that sent no result has ended."""
    if exit_code == -signal.SIGKILL:
        return "the worker was killed from outside, as a system does that runs out of memory"
    return f"the worker exited with code {exit_code} and no message"


def _work(run: PlannedRun, corpus: Corpus, threads: int, execution: ExecutionConfig, pipe: Any) -> None:
    """Train one run in this process; send its progress and its result through the pipe."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    torch.set_num_threads(threads)
    with suppress(BrokenPipeError):
        pipe.send(_attempt(run, corpus, execution, lambda *news: pipe.send(news)))


def _attempt(run: PlannedRun, corpus: Corpus, execution: ExecutionConfig, progress: Progress) -> RunResult:
    try:
        return RunResult(run, train(run, corpus, progress, execution))
    except (UserError, OutOfMemoryError) as error:
        return RunResult(run, None, str(error))
    except OSError as error:
        return RunResult(run, None, describe_os_error(error))
    except KeyboardInterrupt:
        raise SystemExit(130) from None
    except Exception as error:
        traceback.print_exc(file=sys.stderr)  # a fault of this code or of the device
        return RunResult(run, None, f"{type(error).__name__}: {error}")


def _end_with_parent() -> None:
    """End this process when the study's process ends, so that the folder is free for the same command again."""
    study = multiprocessing.parent_process()
    assert study is not None
    study.join()
    os._exit(1)


class _Bar:
    """One progress bar for all runs; it moves by expected cost, so that its time left is right for mixed sizes."""

    def __init__(self, runs: Sequence[PlannedRun], title: str) -> None:
        self.bar = tqdm(
            total=sum(map(_cost, runs)),
            desc=title,
            mininterval=0.2 if sys.stderr.isatty() else 15,  # fewer lines in a log file
            bar_format="{desc}: {percentage:3.0f}%|{bar}| {elapsed} passed, {remaining} left{postfix}",
            disable=int(os.environ.get("RANK", "0")) > 0,
        )
        self.spent = {run.folder: 0 for run in runs}
        self.ended = 0

    def __enter__(self) -> "_Bar":
        return self

    def __exit__(self, *_: object) -> None:
        self.bar.close()

    def update(self, run: PlannedRun, tokens: int, loss: float | None) -> None:
        if loss is not None:
            text = f"{self.ended}/{len(self.spent)} runs done; {run.name}: loss {loss:.3f}"
            self.bar.set_postfix_str(text, refresh=False)
        done = (tokens - run.start) / (run.config.tokens - run.start)
        spent = max(self.spent[run.folder], round(_cost(run) * min(1, done)))
        self.bar.update(spent - self.spent[run.folder])
        self.spent[run.folder] = spent

    def end(self, run: PlannedRun) -> None:
        self.ended += 1
        self.bar.set_postfix_str(f"{self.ended}/{len(self.spent)} runs done", refresh=False)
        self.update(run, run.config.tokens, None)


def report_failures(results: Sequence[RunResult]) -> None:
    """Print a table of the runs that have no finished record, if any, and raise UserError."""
    failed = [(result.run, *result.failure) for result in results if result.failure is not None]
    if failed:
        width = max(len(run.name) for run, _, _ in failed)
        if PartialState().is_main_process:
            for run, status, reason in failed:
                print(f"  {run.name:{width}}  {status:8}  {reason}  ({run.folder})", file=sys.stderr)
        raise UserError(f"{len(failed)} of {len(results)} runs did not finish")
