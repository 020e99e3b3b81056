"""How a run is executed: memory, compilation, checkpoints, and trackers (trackio, tensorboard; both offline)."""

import os
from contextlib import redirect_stdout
from dataclasses import dataclass, field
from io import StringIO
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import ProjectConfiguration

from training.config import RunConfig

PROJECT = "music-scaling-laws"
TRACKIO, TENSORBOARD = "trackio", "tensorboard"
AUTO, ON, OFF = "auto", "on", "off"
COMPILE_CHOICES = [AUTO, ON, OFF]
COMPILE_STEPS = 5_000  # compiling takes about a minute


@dataclass(frozen=True)
class Tracking:
    """The trackers that the runs below `root` report to: none if `log_with` is empty."""

    log_with: tuple[str, ...] = ()
    root: Path = Path()

    def accelerator(self, folder: Path) -> Accelerator:
        """Return the Accelerator of the run in `folder`."""
        # Without cpu=True and a GPU, processes that were launched together would each train alone.
        options: dict[str, Any] = {"cpu": not torch.accelerator.is_available(), "mixed_precision": "no"}
        if not self.log_with:
            return Accelerator(**options)
        if TRACKIO in self.log_with:
            os.environ["TRACKIO_DIR"] = str(self.root.resolve() / TRACKIO)  # trackio reads it once, when imported
        project = ProjectConfiguration(logging_dir=str(self.root / TENSORBOARD / folder.relative_to(self.root)))
        return Accelerator(log_with=list(self.log_with), project_config=project, **options)

    def start(self, accelerator: Accelerator, folder: Path, config: RunConfig, step: int) -> None:
        """Begin the run's curves, or continue them from a step above 0."""
        if not self.log_with:
            return
        trackio = {
            "name": str(folder.relative_to(self.root)),
            "group": config.architecture,
            "config": config.to_dict(),
            "resume": "allow" if step else "never",
            "auto_log_cpu": False,
            "auto_log_gpu": False,
        }
        with redirect_stdout(StringIO()):  # trackio greets every run
            accelerator.init_trackers(PROJECT, init_kwargs={TRACKIO: trackio, TENSORBOARD: {"purge_step": step + 1}})

    def finish(self, accelerator: Accelerator) -> None:
        """Write what is buffered; end_training would end the process group too, and more runs may follow."""
        with redirect_stdout(StringIO()):
            for tracker in accelerator.trackers:
                tracker.finish()


@dataclass(frozen=True)
class ExecutionConfig:
    """How a run is executed; this changes the order of its sums, and with dropout which masks are drawn.

    `micro_batch_size` bounds the sequences in a forward pass (0: as many as fit in memory): the rest of a batch is
    accumulated. `compile` is on, off or auto: GPTs on a GPU, in runs of COMPILE_STEPS and more.
    """

    checkpoint_seconds: float = 30.0
    micro_batch_size: int = 0
    compile: str = AUTO
    tracking: Tracking = field(default_factory=Tracking)

    def compiles(self, config: RunConfig, device: torch.device) -> bool:
        """Return whether the model of a run is compiled."""
        long_on_gpu = device.type == "cuda" and config.architecture == "gpt" and config.steps >= COMPILE_STEPS
        return self.compile == ON or (self.compile == AUTO and long_on_gpu)
