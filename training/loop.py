"""The loop over a run's steps: loss curves, validation and checkpoints on the way."""

import time
from collections.abc import Callable
from functools import partial
from math import isfinite, log
from typing import Any

import numpy as np

from preprocessing.corpus import Corpus
from training.config import RunConfig
from training.evaluation import token_losses
from training.execution import ExecutionConfig
from training.planning import PlannedRun
from training.processes import decide_together
from training.saving import Checkpoints, branch_point, write_state
from training.trainer import Trainer

CURVE_POINTS = 50  # of the training loss; each is the mean over the steps since the last
VALIDATION_POINTS = 8
CURVE_SEQUENCES = 32  # of the validation split, in the validation curve; the final loss uses the whole split
EXPLODED = 2  # times the loss of a uniform guess
Progress = Callable[[int, float | None], None]  # called with the tokens done and the training loss

TRAIN_CURVE = ("step", "tokens", "seconds", "loss", "learning_rate", "gradient_norm")
VALIDATION_CURVE = TRAIN_CURVE[:4]


class History:
    """The curves of a run, and the seconds it has spent on training, evaluation and saving; a checkpoint holds it."""

    def __init__(self, saved: dict[str, Any] | None) -> None:
        saved = saved or {}
        self.train: dict[str, list[Any]] = saved.get("train", {name: [] for name in TRAIN_CURVE})
        self.validation: dict[str, list[Any]] = saved.get("validation", {name: [] for name in VALIDATION_CURVE})
        self.seconds: dict[str, float] = saved.get("seconds", {"training": 0.0, "evaluation": 0.0, "saving": 0.0})
        self.branched_at: int = saved.get("branched_at", 0)
        self._since = time.perf_counter()

    def lap(self, activity: str) -> float:
        """Count the time since the last lap as an activity; return its seconds so far."""
        now = time.perf_counter()
        self.seconds[activity] += now - self._since
        self._since = now
        return self.seconds[activity]

    def to_dict(self) -> dict[str, Any]:
        """Return what a checkpoint holds."""
        return {name: value for name, value in vars(self).items() if name != "_since"}


def curve_tokens(corpus: Corpus, config: RunConfig) -> np.ndarray:
    """Return the part of the validation split that the validation curve is measured on: [tokens]."""
    return np.asarray(corpus.tokens("validation"))[: CURVE_SEQUENCES * (config.context - 1) + 1]


def missing_states(run: PlannedRun) -> list[int]:
    """Return the steps whose state a trunk still has to keep."""
    return [step for step in run.keep_at if not branch_point(run.folder, step).is_file()]


def train_to_end(
    trainer: Trainer,
    run: PlannedRun,
    validation_part: np.ndarray,
    history: History,
    checkpoints: Checkpoints,
    execution: ExecutionConfig,
    progress: Progress,
) -> str | None:
    """Train to the last step, with curves and checkpoints; return the reason if the run diverges before.

    `validation_part` [tokens] is what the validation curve is measured on. The points are added to `history`, states
    are saved in `checkpoints` and, of a trunk, as branch points. `progress` is called at each point of the training
    curve.
    """
    config, accelerator = run.config, trainer.accelerator
    train_every = max(1, config.steps // CURVE_POINTS)
    validate_every = max(1, config.steps // VALIDATION_POINTS)
    last_saved = time.perf_counter()
    end = max(missing_states(run), default=config.steps)  # a trunk ends with the last state it still has to keep
    while trainer.step < end:
        learning_rate = trainer.advance()
        at_point = trainer.step % train_every == 0 or trainer.step == end
        if at_point:
            reason = _add_training_point(trainer, history, learning_rate)
            if reason:
                return reason
            progress(history.train["tokens"][-1], history.train["loss"][-1])
        if trainer.step % validate_every == 0:
            reason = _add_validation_point(trainer, history, validation_part)
            if reason:
                return reason
        kept = trainer.step in run.keep_at
        overdue = time.perf_counter() - last_saved > execution.checkpoint_seconds
        due = at_point and trainer.step < end and decide_together(partial(bool, overdue))
        if kept or due:
            history.lap("training")
            state = (trainer.step, history.to_dict(), trainer.gather())
            if kept and accelerator.is_main_process:
                write_state(branch_point(run.folder, trainer.step), config.trunk().config_hash, *state)
            if due and accelerator.is_main_process:
                checkpoints.save(*state)
            last_saved = time.perf_counter()
            history.lap("saving")
    history.lap("training")
    return None


def _add_training_point(trainer: Trainer, history: History, learning_rate: float) -> str | None:
    """Add a point to the training curve; return the reason if the run has diverged."""
    step, curve = trainer.step, history.train
    loss, norm = trainer.means()
    seconds = history.lap("training")
    if not isfinite(loss + norm):
        return f"the training loss is {loss} and the gradient's norm {norm} at step {step}"
    if loss > EXPLODED * log(trainer.model_config.vocab_size) and curve["step"]:  # at the first point it may be sound
        return f"the training loss is {loss:.3g} at step {step}, {EXPLODED} times that of a uniform guess"
    point = {"loss": loss, "learning_rate": learning_rate, "gradient_norm": norm}
    _append(curve, step=step, tokens=step * trainer.config.tokens_per_step, seconds=seconds, **point)
    trainer.accelerator.log({f"train/{name}": value for name, value in point.items()}, step=step)
    return None


def _add_validation_point(trainer: Trainer, history: History, part: np.ndarray) -> str | None:
    """Add a point to the validation curve; return the reason if the run has diverged."""
    step, config = trainer.step, trainer.config
    seconds = history.lap("training")
    with trainer.autocast():
        loss = float(token_losses(trainer.bare, part, config.context, config.stateful).mean())
    if not isfinite(loss):
        return f"the validation loss is {loss} at step {step}"
    _append(history.validation, step=step, tokens=step * config.tokens_per_step, seconds=seconds, loss=loss)
    trainer.accelerator.log({"validation/loss": loss}, step=step)
    history.lap("evaluation")
    return None


def _append(curve: dict[str, list[Any]], **values: float) -> None:
    for name, value in values.items():
        curve[name].append(value)
