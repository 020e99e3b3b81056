"""Scores (MIDI, MusicXML, kern) become ABC in parallel.

Each is read in a process with limited time and memory: a score that hangs or crashes it costs only itself.
"""

import multiprocessing
import os
import queue
import signal
import warnings
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import TypeVar

import psutil

from cli import UserError
from preprocessing.abc_writing import ConversionError

try:
    import resource
except ImportError:  # Windows
    resource = None  # type: ignore[assignment]

T = TypeVar("T")

ToAbc = Callable[[bytes, str], tuple[str, int]]  # file and title to ABC and the number of percussion parts

MAX_SCORE = 10 << 20  # bytes of a file
MAX_ABC = 1 << 20  # characters, as for a tune of a text file
MAX_MEMORY = 4 << 30  # bytes of a process: a small .mxl can unpack to anything
TIME_LIMIT = 60.0  # seconds for one score


@dataclass(frozen=True)
class Score:
    """A score file, and how it is converted; `data` longer than MAX_SCORE is not. Scores are counted by `kind`."""

    name: str
    kind: str
    to_abc: ToAbc
    data: bytes


@dataclass(frozen=True)
class Conversion:
    """A score as one ABC tune (or several, one for each movement or song), or the reason why it failed.

    `percussion` counts the parts without pitches, which are left out.
    """

    name: str
    kind: str
    abc: str = ""
    failure: str | None = None
    percussion: int = 0


def convert_scores(items: Iterable[T | Score], workers: int) -> Iterator[T | Conversion]:
    """Yield the items in order, each Score as its Conversion; `workers` run in parallel, at most twice as many wait.

    Raises UserError if music21 cannot be imported and a score needs it.
    """
    readers = [ScoreReader() for _ in range(workers)]
    free: queue.SimpleQueue[ScoreReader] = queue.SimpleQueue()
    for reader in readers:
        free.put(reader)
    window: deque[Future[T | Conversion]] = deque()
    with ThreadPoolExecutor(workers) as threads:
        try:
            for item in items:
                window.append(threads.submit(_convert, item, free))
                while window and (len(window) > 2 * workers or window[0].done()):
                    yield window.popleft().result()
            while window:
                yield window.popleft().result()
        finally:
            threads.shutdown(wait=False, cancel_futures=True)
            for reader in readers:
                reader.stop()


def _convert(item: T | Score, free: "queue.SimpleQueue[ScoreReader]") -> T | Conversion:
    if not isinstance(item, Score):
        return item
    title = " ".join(PurePosixPath(item.name).stem.replace("_", " ").split())
    reader = free.get()
    try:
        if len(item.data) > MAX_SCORE:
            raise ConversionError(f"larger than {MAX_SCORE >> 20} MB")
        abc, percussion = reader.read(item.to_abc, item.data, title)
        if len(abc) > MAX_ABC:
            raise ConversionError(f"longer than {MAX_ABC >> 20} MB as ABC")
        return Conversion(item.name, item.kind, abc, percussion=percussion)
    except ConversionError as error:
        return Conversion(item.name, item.kind, failure=str(error))
    finally:
        free.put(reader)


class ScoreReader:
    """A process that reads scores; started when first needed, and again after a hang or a crash."""

    def __init__(self) -> None:
        self.pool: ProcessPoolExecutor | None = None
        self.pid = 0

    def read(self, to_abc: ToAbc, data: bytes, title: str) -> tuple[str, int]:
        """Return a score as ABC, and the number of percussion parts that are left out.

        Raises ConversionError, and UserError if music21 cannot be imported.
        """
        pool = self.pool = self.pool or self.start()
        try:
            return pool.submit(to_abc, data, title).result(TIME_LIMIT)
        except ConversionError:
            raise
        except TimeoutError:
            self.stop()
            raise ConversionError("took too long") from None
        except BrokenProcessPool:
            self.stop()
            raise ConversionError("the converter crashed") from None
        except ImportError as error:
            raise UserError(f"scores cannot be read: does `import music21` work? ({error})") from None
        except Exception:  # music21 raises anything on a broken file
            raise ConversionError("not readable") from None

    def start(self) -> ProcessPoolExecutor:
        """Start the process and wait until it is ready. Raises UserError if it ends instead."""
        pool = ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn"))
        try:
            self.pid, limited = pool.submit(_prepare_process).result()
        except BrokenProcessPool:
            raise UserError("the process that reads scores does not start: run the command again") from None
        if not limited:
            warnings.warn("this system cannot limit the memory of a process: scores are read without", stacklevel=2)
        return pool

    def stop(self) -> None:
        """End the process, whatever it does."""
        if self.pool is not None:
            with suppress(psutil.NoSuchProcess):  # it may have crashed
                psutil.Process(self.pid).kill()
            self.pool.shutdown()
            self.pool = None


def _prepare_process() -> tuple[int, bool]:
    """Limit the memory of this process and silence it; Ctrl-C is left to its parent. Return its id, and if limited."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    limited = False
    if resource is not None:
        with suppress(ValueError):  # macOS has no limit of address space
            resource.setrlimit(resource.RLIMIT_AS, (MAX_MEMORY, MAX_MEMORY))
            limited = True
    devnull = os.open(os.devnull, os.O_WRONLY)
    os.dup2(devnull, 1)
    os.dup2(devnull, 2)
    return os.getpid(), limited
