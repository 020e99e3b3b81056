"""One run from its start, or its last checkpoint, to its record."""

import sys
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from math import isfinite
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import DistributedType, gather_object
from accelerate.utils.memory import clear_device_cache, should_reduce_batch_size

from cli import UserError
from preprocessing.corpus import Corpus
from training.config import RunConfig
from training.execution import ExecutionConfig
from training.loop import History, Progress, curve_tokens, missing_states, train_to_end
from training.measurements import PeakMemory, held_out_fields, run_fields
from training.models import build_model, build_optimizer, make_trainable
from training.planning import PlannedRun
from training.processes import decide_together
from training.record import DIVERGED, FAILED, FINISHED, RunRecord, read_record, write_record
from training.saving import LATEST, PREVIOUS, Checkpoints, DamagedError, branch_point, read_state, save_model, whole
from training.trainer import Trainer, rows_per_process


class OutOfMemoryError(Exception):
    """Not even one sequence at a time fits in memory."""


def own_record(run: PlannedRun) -> RunRecord | None:
    """Return the record in a run's folder, None if there is none. Raises UserError if it is another run's."""
    record = read_record(run.folder)
    if record is not None and record.config_hash != run.config.config_hash:
        different = "; ".join(run.config.differences(record.config))
        raise UserError(
            f"{run.folder} holds another run ({different}): delete {run.folder} or choose another --output_dir"
        )
    return record


def finished_record(run: PlannedRun) -> RunRecord | None:
    """Return the record of a run that is finished or has diverged, None if it is still to do or has failed.

    A trunk is finished when it has all the states it should keep. Raises UserError if the folder holds another run.
    """
    record = own_record(run)
    if record is None or record.status == FAILED:
        return None
    missing = missing_states(run)
    if any(record.status == FINISHED or step < record.steps for step in missing):  # one that diverged can keep these
        return None
    for name in (LATEST, PREVIOUS):  # left if the process was killed just after it wrote the record
        (run.folder / name).unlink(missing_ok=True)
    return record


def train(run: PlannedRun, corpus: Corpus, progress: Progress, execution: ExecutionConfig) -> RunRecord:
    """Train one run to its end and return its record; resume from its checkpoint if there is one.

    If memory is short, fewer sequences go through the model at a time and gradients are accumulated. A branch whose
    trunk diverged before it begins has diverged too. Raises UserError if the folder holds another run,
    OutOfMemoryError if not even one sequence fits in memory.
    """
    config, folder = run.config, run.folder
    accelerator = execution.tracking.accelerator(folder)
    finished = decide_together(lambda: finished_record(run))
    if finished is not None:
        return finished
    if config.corpus != corpus.digest():
        raise UserError(f"{folder} is planned on another corpus than {corpus.folder}")
    trunk = None if run.trunk is None else decide_together(partial(read_record, run.trunk))
    if run.trunk and trunk and trunk.status == DIVERGED and trunk.steps < config.cooldown_start:
        reason, branch = f"its trunk diverged: {trunk.reason}", {"run": _trunk_name(run.trunk), "step": trunk.steps}
        record = replace(trunk, config=config, config_hash=config.config_hash, reason=reason, trunk=branch)
        if accelerator.is_main_process:
            write_record(folder, record)
        return record
    with PeakMemory(accelerator.device) as memory:
        return _train(run, corpus, progress, execution, accelerator, memory)


def _trunk_name(trunk: Path) -> str:
    return "/".join(trunk.parts[-2:])


def _train(
    run: PlannedRun,
    corpus: Corpus,
    progress: Progress,
    execution: ExecutionConfig,
    accelerator: Accelerator,
    memory: PeakMemory,
) -> RunRecord:
    config, folder = run.config, run.folder
    started = datetime.now(UTC).isoformat(timespec="seconds")
    micro_batch_size = _fitting_micro_batch_size(config, corpus, accelerator, execution.micro_batch_size)
    stream, unique_tokens = corpus.part(config.data_fraction)
    compiled = execution.compiles(config, accelerator.device)
    trainer = Trainer(config, stream, build_model(config, corpus), accelerator, micro_batch_size, compiled)
    checkpoints = Checkpoints(folder, config.config_hash)
    saved = _resume(trainer, run, checkpoints)
    validation_part = curve_tokens(corpus, config)
    execution.tracking.start(accelerator, folder, config, trainer.step)
    history = History(saved)
    reason = train_to_end(trainer, run, validation_part, history, checkpoints, execution, progress)
    losses: dict[str, Any] = {}
    if reason is None:
        for split in ("validation", "test") if run.score_test else ("validation",):
            with trainer.autocast():  # another precision moves these losses in the fifth digit, see docs/log.md
                losses |= held_out_fields(split, trainer.bare, corpus, config)
        history.lap("evaluation")
        if not isfinite(losses["validation_loss"]):
            reason, losses = f"the validation loss is {losses['validation_loss']} at step {trainer.step}", {}
    record = replace(
        run.record(corpus, FINISHED if reason is None else DIVERGED, reason),
        n_params_by_group=run.parameters,
        flops_per_token_by_module=run.flops_by_module,
        **run_fields(trainer, history.seconds, run.flops_per_token, run.n_params),
        unique_tokens=unique_tokens,
        trunk=None if run.trunk is None else {"run": _trunk_name(run.trunk), "step": history.branched_at},
        **memory.peaks(),
        started=started,
        train_curve=history.train,
        validation_curve={**history.validation, "characters": len(validation_part) - 1},
        compiled=compiled,
        **losses,
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


def _resume(trainer: Trainer, run: PlannedRun, checkpoints: Checkpoints) -> dict[str, Any] | None:
    """Load the run's last checkpoint, or its trunk's state, and return the saved history, None at the start.

    Prints a warning for each damaged checkpoint.
    """
    state, damaged = checkpoints.last()
    next_kept = min(missing_states(run), default=run.config.steps + 1)
    if state is not None and run.keep_at and state[0] >= next_kept:
        state = None  # a trunk's checkpoint on its way to other budgets
    if state is None and (run.trunk is not None or run.keep_at):
        if run.trunk is not None:
            folder, step = run.trunk, run.config.cooldown_start
        else:
            folder, step = run.folder, max((step for step in run.keep_at if step < next_kept), default=0)
        point = branch_point(folder, step)
        try:
            state = read_state(point, run.config.trunk().config_hash) if step else None
        except DamagedError as error:
            record = read_record(folder)
            reason = error if record is None or record.reason is None else record.reason
            raise UserError(f"{point} is missing or damaged ({reason}): delete {folder} to train it again") from None
        if state is not None and run.trunk is not None:
            state[1]["branched_at"] = step
    if state is not None:
        trainer.resume(state[0], state[2])
    if len(set(gather_object([trainer.step]))) > 1:
        raise UserError(f"{run.folder}: the processes see different checkpoints: give an --output_dir that all share")
    for message in damaged if trainer.accelerator.is_main_process else []:
        print(f"{message}: resuming from step {trainer.step}", file=sys.stderr)
    return None if state is None else state[1]


def _fitting_micro_batch_size(config: RunConfig, corpus: Corpus, accelerator: Accelerator, limit: int) -> int:
    """Return the sequences of a process in one forward pass: all, or at most `limit`, halved until memory is enough.

    Each process tries a step of a separate model, before any of them waits for another. If weights are sharded, the
    whole model may be too large for one process: nothing is tried. Raises OutOfMemoryError if none fits.
    """
    rows = rows_per_process(config, accelerator)
    given = size = min(rows, limit or rows)
    if accelerator.distributed_type == DistributedType.FSDP:
        return given
    while size and not _has_memory_for(config, corpus, accelerator.device, size):
        size //= 2
    size = min(gather_object([size]))
    if size < given and accelerator.is_main_process:
        print(f"out of memory with {given} sequences in a forward pass, {size} fit", file=sys.stderr)
    if size == 0:
        raise OutOfMemoryError("out of memory, even with one sequence at a time")
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
