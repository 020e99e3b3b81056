"""Training curves for trackers, through Accelerate: trackio and tensorboard, both beside the runs, both offline."""

import os
from contextlib import redirect_stdout
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import ProjectConfiguration

from training.config import RunConfig

PROJECT = "music-scaling-laws"
TRACKIO, TENSORBOARD = "trackio", "tensorboard"


@dataclass(frozen=True)
class Tracking:
    """The trackers that the runs below `root` report to: none if `log_with` is empty."""

    log_with: tuple[str, ...] = ()
    root: Path = Path()

    def accelerator(self, folder: Path) -> Accelerator:
        """Return the Accelerator of the run in `folder`."""
        # Without a GPU it has to be told, or processes that were launched together would each train alone.
        place: dict[str, Any] = {"cpu": not torch.accelerator.is_available(), "mixed_precision": "no"}
        if not self.log_with:
            return Accelerator(**place)
        if TRACKIO in self.log_with:
            os.environ["TRACKIO_DIR"] = str(self.root.resolve() / TRACKIO)  # trackio reads it once, when imported
        project = ProjectConfiguration(logging_dir=str(self.root / TENSORBOARD / folder.relative_to(self.root)))
        return Accelerator(log_with=list(self.log_with), project_config=project, **place)

    def start(self, accelerator: Accelerator, folder: Path, config: RunConfig, step: int) -> None:
        """Begin the run's curves, or go on with them if it goes on from a step above 0."""
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
        """Write what is still to write; end_training would end the process group too, and more runs may follow."""
        with redirect_stdout(StringIO()):
            for tracker in accelerator.trackers:
                tracker.finish()
