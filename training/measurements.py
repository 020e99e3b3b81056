"""The measured fields of a run's record: counts, costs, losses, memory, and the machine."""

import platform
import subprocess
import threading
from functools import cache
from importlib.metadata import version
from math import log
from pathlib import Path
from typing import Any

import psutil
import torch
from transformers import PreTrainedModel

from preprocessing.corpus import Corpus
from training.config import RunConfig
from training.evaluation import held_out_losses
from training.trainer import Trainer

LIBRARIES = ("torch", "transformers", "accelerate", "datasets", "numpy")
SAMPLING_SECONDS = 0.02


class PeakMemory:
    """The memory of one run: its largest resident set above that at its start, sampled; on a GPU the allocator's peak.

    The system reports the peak of the whole process, which may be of an earlier run.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._process = psutil.Process()
        self._start = self._peak = self._process.memory_info().rss
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._sample, daemon=True)

    def __enter__(self) -> "PeakMemory":
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.device)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopped.set()
        self._thread.join()

    def _sample(self) -> None:
        while not self._stopped.wait(SAMPLING_SECONDS):
            self._peak = max(self._peak, self._process.memory_info().rss)

    def peaks(self) -> dict[str, Any]:
        """Return the peaks so far as a record names them, in bytes; that of the device is None without a GPU."""
        on_gpu = self.device.type == "cuda"
        return {
            "peak_memory_bytes": self._peak - self._start,
            "peak_device_memory_bytes": torch.cuda.max_memory_allocated(self.device) if on_gpu else None,
        }


def run_fields(trainer: Trainer, seconds: dict[str, float], flops_per_token: int, n_params: int) -> dict[str, Any]:
    """Return the fields of a record that say what a run has done, in what time and on what machine."""
    tokens = trainer.step * trainer.config.tokens_per_step
    flops = flops_per_token * tokens
    return {
        "steps": trainer.step,
        "tokens": tokens,
        "epochs": tokens / (len(trainer.batches.stream) - 1),
        "flops": flops,
        "flops_6nd": 6 * n_params * tokens,
        "seconds": seconds["training"],
        "seconds_evaluation": seconds["evaluation"],
        "seconds_saving": seconds["saving"],
        "tokens_per_second": tokens / seconds["training"],
        "flops_per_second": flops / seconds["training"],
        "threads": torch.get_num_threads(),
        "processes": trainer.accelerator.num_processes,
        "micro_batch_size": trainer.micro_batch_size,
        "versions": library_versions(),
        "hardware": hardware(trainer.accelerator.device),
        "git_commit": git_commit(),
        "model_config": trainer.model_config.to_diff_dict(),
    }


def held_out_fields(split: str, model: PreTrainedModel, corpus: Corpus, config: RunConfig) -> dict[str, Any]:
    """Return the losses on a split, as a record names them."""
    found = held_out_losses(model, corpus, split, config.context, config.stateful)
    reset = {}
    if config.stateful:  # measured as in the other runs
        reset[f"{split}_loss_reset"] = held_out_losses(model, corpus, split, config.context).whole.loss
    return reset | {
        f"{split}_loss": found.whole.loss,
        f"{split}_loss_standard_error": found.whole.standard_error,
        f"{split}_bits_per_character": found.whole.loss / log(2),
        f"{split}_tokens": found.whole.tokens,
        f"{split}_loss_of_headers": found.headers,
        f"{split}_loss_of_bodies": found.bodies,
        f"{split}_loss_by_position": found.by_position,
    }


def library_versions() -> dict[str, str]:
    """Return the versions of Python and the libraries."""
    return {name: version(name) for name in LIBRARIES} | {"python": platform.python_version()}


@cache
def git_commit() -> str | None:
    """Return the commit of the running code, with `+` if files were changed since, or None outside a repository."""
    command = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--abbrev=40", "--dirty=+"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None


def hardware(device: torch.device) -> str:
    """Return the name of the device."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{cpu_name()}, {psutil.cpu_count(logical=False) or psutil.cpu_count()} cores"


@cache
def cpu_name() -> str:
    """Return the processor's name as the system gives it."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()
