"""What processes that were launched together must not decide each for itself."""

from collections.abc import Callable
from typing import Any, TypeVar

from accelerate import PartialState
from accelerate.utils import broadcast_object_list

from cli import UserError

T = TypeVar("T")


def decide_together(decide: Callable[[], T]) -> T:
    """Return what `decide` returns on rank 0, on every rank; a UserError that it raises there is raised on every rank.

    Whatever depends on a clock, on the machine or on what a file system shows at that moment is decided this way.
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
