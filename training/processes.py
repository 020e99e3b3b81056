"""Processes that were launched together, and folders that only one study may use."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import torch
from accelerate import PartialState
from accelerate.utils import broadcast_object_list
from filelock import FileLock, Timeout

from cli import UserError
from files import make_folder

T = TypeVar("T")


def decide_together(decide: Callable[[], T]) -> T:
    """Return on every rank what `decide` returns on rank 0; a UserError raised there is raised on every rank.

    Whatever depends on a clock, on the machine or on the state of a file system is decided this way.
    """
    state = PartialState()
    if state.num_processes == 1:
        return decide()
    answer: list[Any] = [None]
    if state.is_main_process:
        try:
            answer = [decide()]
        except UserError as error:
            answer = [error]
    broadcast_object_list(answer)
    if isinstance(answer[0], UserError):
        raise answer[0]
    decided: T = answer[0]
    return decided


@contextmanager
def launched() -> Iterator[None]:
    """Connect the processes that accelerate launched, and end them together.

    A process that leaves early takes down what another is still in; a UserError is raised on all of them.
    """
    # Without cpu=True and a GPU, processes that were launched together would each train alone.
    state = PartialState(cpu=not torch.accelerator.is_available())
    failure = None
    try:
        yield
    except UserError as error:
        failure = error
    state.wait_for_everyone()
    state.destroy_process_group()
    if failure is not None:
        raise failure


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Make a folder and keep other studies out of it. Raises UserError if one is training there."""
    lock = FileLock(folder / ".training.lock", timeout=0)

    def enter() -> None:
        make_folder(folder)
        try:
            lock.acquire()
        except Timeout:
            raise UserError(
                f"{folder}: another study is training there: wait for it, or give another --output_dir"
            ) from None

    decide_together(enter)
    try:
        yield
    finally:
        lock.release()


def say(line: str) -> None:
    """Print a line once, however many processes were launched."""
    if PartialState().is_main_process:
        print(line, flush=True)
