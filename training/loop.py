"""The training loop: one for every architecture, `model(input_ids, labels).loss` through Accelerate."""

import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import partial
from math import isfinite, log
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import DistributedType, gather_object
from accelerate.utils.memory import clear_device_cache, should_reduce_batch_size

from cli import UserError
from preprocessing.corpus import Corpus
from training.checkpoint import (
    BEFORE,
    LATEST,
    Checkpoints,
    DamagedError,
    branch_point,
    read_state,
    whole,
    write_state,
)
from training.config import RunConfig
from training.evaluation import token_losses
from training.measurements import PeakMemory, Stopwatch, costs, counts, git_commit, hardware, library_versions, losses
from training.models import build_model, build_optimizer, save_model
from training.processes import decide_together
from training.record import DIVERGED, FAILED, FINISHED, RunRecord, read_record, write_record
from training.tracking import Tracking
from training.trainer import Trainer, make_trainable, rows_per_process

CURVE_POINTS = 50  # of the training loss; each is the mean over the steps since the last
VALIDATION_POINTS = 8
CURVE_SEQUENCES = 32  # the validation curve uses these; the final loss uses the whole split
COMPILE_CHOICES = ["auto", "on", "off"]
COMPILE_STEPS = 5_000  # compiling takes about a minute
EXPLODED = 2  # times the loss of guessing evenly among all characters
Progress = Callable[[int, float | None], None]


class OutOfMemoryError(Exception):
    """Not even one sequence at a time fits in memory."""


@dataclass(frozen=True)
class ExecutionConfig:
    """How a run is executed; this changes the order of its sums, and with dropout which masks are drawn.

    `micro_batch_size` bounds the sequences in a forward pass (0: as many as fit in memory): the rest of a batch is
    accumulated. `compile` is on, off or auto: GPTs on a GPU, in runs of COMPILE_STEPS and more.
    """

    checkpoint_seconds: float = 30.0
    micro_batch_size: int = 0
    compile: str = "auto"
    tracking: Tracking = field(default_factory=Tracking)


@dataclass(frozen=True)
class Plan:
    """A run to do: its configuration, its folder, and its relation to other runs.

    `trunk` is the folder of the trunk that a WSD run branches off, `keep_at` the steps whose state a trunk keeps.
    """

    config: RunConfig
    folder: Path
    score_test: bool = False
    trunk: Path | None = None
    keep_at: tuple[int, ...] = ()


def train(plan: Plan, corpus: Corpus, progress: Progress, execution: ExecutionConfig) -> RunRecord:
    """Train one run to its end and return its record; resume from its checkpoint if there is one.

    Where memory is short, fewer sequences go through the model at once and their gradients are accumulated. `progress`
    is called with the tokens done so far and the latest training loss. Raises UserError if the folder holds a run of
    another configuration, OutOfMemoryError if not even one sequence fits in memory. A branch whose trunk diverged
    before it begins is recorded as diverged too.
    """
    config, folder = plan.config, plan.folder
    accelerator = execution.tracking.accelerator(folder)
    finished = decide_together(lambda: finished_record(plan))
    if finished is not None:
        return finished
    if config.corpus != corpus.digest():
        raise UserError(f"{folder} is planned on another corpus than {corpus.folder}")
    trunk = None if plan.trunk is None else decide_together(partial(read_record, plan.trunk))
    if plan.trunk and trunk and trunk.status == DIVERGED and trunk.steps < config.cooldown_start:
        reason = f"its trunk diverged: {trunk.reason}"
        branched = {"run": _name_of(plan.trunk), "step": trunk.steps}
        record = replace(trunk, config=config, config_hash=config.config_hash, reason=reason, trunk=branched)
        if accelerator.is_main_process:
            write_record(folder, record)
        return record
    with PeakMemory(accelerator.device) as memory:
        return _train(plan, corpus, progress, execution, accelerator, memory)


def _name_of(trunk: Path) -> str:
    return "/".join(trunk.parts[-2:])


def _train(
    plan: Plan,
    corpus: Corpus,
    progress: Progress,
    execution: ExecutionConfig,
    accelerator: Accelerator,
    memory: PeakMemory,
) -> RunRecord:
    config, folder = plan.config, plan.folder
    started = datetime.now(UTC).isoformat(timespec="seconds")
    share = rows_per_process(config, accelerator)
    micro_batch_size = min(share, execution.micro_batch_size or share)
    micro_batch_size = _micro_batch_size_that_fits(config, corpus, accelerator, micro_batch_size)
    if micro_batch_size == 0:
        raise OutOfMemoryError("out of memory, even with one sequence at a time")
    stream, unique_tokens = corpus.part(config.data_fraction)
    long_on_gpu = accelerator.device.type == "cuda" and config.architecture == "gpt" and config.steps >= COMPILE_STEPS
    compiled = execution.compile == "on" or (execution.compile == "auto" and long_on_gpu)
    trainer = Trainer(config, stream, build_model(config, corpus), accelerator, micro_batch_size, compiled)
    checkpoints = Checkpoints(folder, config.config_hash)
    curves = _resume(trainer, plan, checkpoints)
    curve_part = np.asarray(corpus.tokens("validation"))[: CURVE_SEQUENCES * (config.context - 1) + 1]
    execution.tracking.start(accelerator, folder, config, trainer.step)
    watch = Stopwatch(curves["seconds"])
    reason = _run_to_the_end(trainer, plan, curve_part, progress, execution, checkpoints, curves, watch)
    scores: dict[str, Any] = {}
    if reason is None:
        for split in ("validation", "test") if plan.score_test else ("validation",):
            with trainer.autocast():  # another precision moves these losses in the fifth digit, see docs/log.md
                scores |= losses(split, trainer.bare, corpus, config)
        watch.lap("evaluation")
        if not isfinite(scores["validation_loss"]):
            reason, scores = f"the validation loss is {scores['validation_loss']} at step {trainer.step}", {}
    counted = counts(trainer, unique_tokens)
    record = RunRecord(
        status=FINISHED if reason is None else DIVERGED,
        reason=reason,
        config=config,
        config_hash=config.config_hash,
        split_hashes=corpus.split_hashes,
        **counted,
        trunk=None if plan.trunk is None else {"run": _name_of(plan.trunk), "step": curves["branched_at"]},
        **costs(watch.seconds, counted["flops"], counted["tokens"]),
        **memory.peaks(),
        started=started,
        train_curve=curves["train"],
        validation_curve={**curves["validation"], "characters": len(curve_part) - 1},
        threads=torch.get_num_threads(),
        processes=accelerator.num_processes,
        micro_batch_size=micro_batch_size,
        compiled=compiled,
        versions=library_versions(),
        hardware=hardware(accelerator.device),
        git_commit=git_commit(),
        model_config=trainer.model_config.to_diff_dict(),
        **scores,
    )
    weights = {name: whole(parameter.detach()) for name, parameter in trainer.state.parameters.items()}
    if accelerator.is_main_process:
        if record.status == FINISHED:
            save_model(trainer.model_config, weights, corpus, folder)
        write_record(folder, record)
        checkpoints.delete()
    execution.tracking.finish(accelerator)
    accelerator.wait_for_everyone()
    return record


def _micro_batch_size_that_fits(config: RunConfig, corpus: Corpus, accelerator: Accelerator, wanted: int) -> int:
    """Return the largest of wanted, wanted/2, … sequences with which every process has memory for a step; 0 if none.

    Each process tries a step of a separate model, before any of them waits for another. (Where weights are sharded,
    the whole model may be too large for one process: what is wanted is then taken.)
    """
    if accelerator.distributed_type == DistributedType.FSDP:
        return wanted
    size = wanted
    while size and not _has_memory_for(config, corpus, accelerator.device, size):
        size //= 2
    size = min(gather_object([size]))
    if size < wanted and accelerator.is_main_process:
        print(f"out of memory with {wanted} sequences at once, {size} fit", file=sys.stderr)
    return size


def _has_memory_for(config: RunConfig, corpus: Corpus, device: torch.device, sequences: int) -> bool:
    try:
        model = build_model(config, corpus)
        model.to(device)  # type: ignore[arg-type]  # transformers' wrapper hides the signature
        make_trainable(model)
        tokens = torch.full((sequences, config.context), corpus.boundary, device=device)
        with torch.autocast(device.type, torch.bfloat16, config.precision == "bf16"):
            loss = model(input_ids=tokens, labels=tokens, use_cache=False).loss
        loss.backward()
        build_optimizer(model, config).step()
    except Exception as error:
        if not (should_reduce_batch_size(error) or isinstance(error, MemoryError)):
            raise
        fits = False
    else:
        fits = True
    loss, model = None, None  # type: ignore[assignment]  # freed before the run's own model is built
    clear_device_cache(garbage_collection=not fits)
    return fits


def _resume(trainer: Trainer, plan: Plan, checkpoints: Checkpoints) -> dict[str, Any]:
    """Load the run's last whole checkpoint, or its trunk's state, and return its curves; say what is damaged."""
    state, damaged = checkpoints.last()
    if state is not None and plan.keep_at and state[0] >= _next_kept(plan):
        state = None  # it was on its way to other budgets
    if state is None and (plan.trunk is not None or plan.keep_at):
        folder, step = (plan.trunk, plan.config.cooldown_start) if plan.trunk else (plan.folder, _longest_trunk(plan))
        point = branch_point(folder, step)
        try:
            state = read_state(point, plan.config.trunk().config_hash) if step else None
        except DamagedError as error:
            record = read_record(folder)
            reason = error if record is None or record.reason is None else record.reason
            raise UserError(f"{point} is missing or damaged ({reason}): delete {folder} to train it again") from None
        if state is not None and plan.trunk is not None:
            state[1]["branched_at"] = step
    if state is not None:
        trainer.resume(state[0], state[2])
    if len(set(gather_object([trainer.step]))) > 1:
        raise UserError(f"{plan.folder}: the processes see different checkpoints: give an --output_root that all share")
    for line in damaged if trainer.accelerator.is_main_process else []:
        print(f"{line}: resuming from step {trainer.step}", file=sys.stderr)
    return _empty_curves() if state is None else state[1]


def _longest_trunk(plan: Plan) -> int:
    """Return the last step that a trunk has kept before the first one that it still has to keep; 0 for none."""
    return max((step for step in plan.keep_at if step < _next_kept(plan)), default=0)


def _next_kept(plan: Plan) -> int:
    """Return the first step that a trunk still has to keep, or the one behind its last."""
    missing = (step for step in plan.keep_at if not branch_point(plan.folder, step).is_file())
    return min(missing, default=plan.config.steps + 1)


def _run_to_the_end(
    trainer: Trainer,
    plan: Plan,
    curve_part: np.ndarray,
    progress: Progress,
    execution: ExecutionConfig,
    checkpoints: Checkpoints,
    curves: dict[str, Any],
    watch: Stopwatch,
) -> str | None:
    """Advance until the last step, keeping curves and checkpoints; return the reason if the run has to stop before."""
    config, accelerator = plan.config, trainer.accelerator
    train_every = max(1, config.steps // CURVE_POINTS)
    validate_every = max(1, config.steps // VALIDATION_POINTS)
    exploded = EXPLODED * log(trainer.model_config.vocab_size)
    last_saved = time.perf_counter()
    missing = [step for step in plan.keep_at if not branch_point(plan.folder, step).is_file()]
    end = max(missing, default=config.steps)  # a trunk ends with the last state that it still has to keep
    while trainer.step < end:
        rate = trainer.advance()
        done = trainer.step * config.tokens_per_step
        at_point = trainer.step % train_every == 0 or trainer.step == end
        if at_point:
            loss, norm = trainer.means()
            seconds = watch.lap("training")
            if not isfinite(loss + norm):
                return f"the training loss is {loss} and the gradient's norm {norm} at step {trainer.step}"
            if loss > exploded and curves["train"]["step"]:  # the first steps of a sound run may lie there too
                return (
                    f"the training loss is {loss:.3g} at step {trainer.step}, {EXPLODED} times that of guessing evenly"
                )
            point = {"loss": loss, "learning_rate": rate, "gradient_norm": norm}
            _append(curves["train"], step=trainer.step, tokens=done, seconds=seconds, **point)
            accelerator.log({f"train/{name}": value for name, value in point.items()}, step=trainer.step)
            progress(done, loss)
        if trainer.step % validate_every == 0:
            seconds = watch.lap("training")
            with trainer.autocast():
                loss = float(token_losses(trainer.bare, curve_part, config.context, config.stateful).mean())
            if not isfinite(loss):
                return f"the validation loss is {loss} at step {trainer.step}"
            _append(curves["validation"], step=trainer.step, tokens=done, seconds=seconds, loss=loss)
            accelerator.log({"validation/loss": loss}, step=trainer.step)
            watch.lap("evaluation")
        kept = trainer.step in plan.keep_at
        due = False
        if at_point and trainer.step < end:
            overdue = time.perf_counter() - last_saved > execution.checkpoint_seconds
            due = decide_together(partial(bool, overdue))
        if kept or due:
            watch.lap("training")
            state = (trainer.step, {**curves, "seconds": watch.seconds}, trainer.gather())
            if kept and accelerator.is_main_process:
                write_state(branch_point(plan.folder, trainer.step), config.trunk().config_hash, *state)
            if due and accelerator.is_main_process:
                checkpoints.save(*state)
            last_saved = time.perf_counter()
            watch.lap("saving")
    watch.lap("training")
    return None


def own_record(plan: Plan) -> RunRecord | None:
    """Return the record in a run's folder, None if there is none. Raises UserError if it is another run's."""
    record = read_record(plan.folder)
    if record is not None and record.config_hash != plan.config.config_hash:
        different = "; ".join(plan.config.differences(record.config))
        raise UserError(
            f"{plan.folder} holds another run ({different}): delete {plan.folder} or choose another --output_root"
        )
    return record


def finished_record(plan: Plan) -> RunRecord | None:
    """Return the record of a run that is done, None if it is still to do (or failed for want of memory or space).

    A trunk is done when it holds all states that are asked of it. Raises UserError if the folder holds another run:
    nothing finished is ever overwritten.
    """
    record = own_record(plan)
    if record is None or record.status == FAILED:
        return None
    missing = [step for step in plan.keep_at if not branch_point(plan.folder, step).is_file()]
    if any(record.status == FINISHED or step < record.steps for step in missing):  # before a trunk diverged it may keep
        return None
    for name in (LATEST, BEFORE):  # there is one only if the process was killed right after its record
        (plan.folder / name).unlink(missing_ok=True)
    return record


def _append(curve: dict[str, list[Any]], **values: float) -> None:
    for name, value in values.items():
        curve[name].append(value)


def _empty_curves() -> dict[str, Any]:
    train = ("step", "tokens", "seconds", "loss", "learning_rate", "gradient_norm")
    return {
        "train": {name: [] for name in train},
        "validation": {name: [] for name in train[:4]},
        "seconds": {"training": 0.0, "evaluation": 0.0, "saving": 0.0},
        "branched_at": 0,
    }
