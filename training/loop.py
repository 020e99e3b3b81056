"""The training loop: one for every architecture, `model(input_ids, labels).loss` through Accelerate."""

import platform
import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from copy import deepcopy
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from functools import cache
from importlib.metadata import version
from math import isfinite, log
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import torch
from accelerate import Accelerator
from accelerate.utils import broadcast_object_list, find_executable_batch_size, set_seed
from safetensors import SafetensorError, safe_open
from torch import Tensor
from torch.distributed.tensor import DTensor
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedConfig, PreTrainedModel
from transformers.utils import logging as transformers_logging

from door import DoorError, whole_folder
from modeling.attention import UNPADDED_CAUSAL
from modeling.counting import count_flops, count_parameters
from modeling.ladder import gpt_config, lstm_config, new_model
from modeling.modeling_abc_lstm import AbcLstmCache
from preprocessing.corpus import Corpus
from training.batches import LaneBatches, WindowBatches
from training.checkpoint import (
    BEFORE,
    LATEST,
    Checkpoints,
    DamagedError,
    State,
    branch_point,
    identity,
    read_state,
    whole,
    write_state,
)
from training.evaluation import held_out_losses, token_losses
from training.recipe import CLIP_NORM, Recipe, build_optimizer, rate_at
from training.record import DIVERGED, FAILED, FINISHED, TRUNK, read_record, write_record
from training.tracking import Tracking

transformers_logging.disable_progress_bar()  # a study has one bar, its own

DROPOUTS = {"gpt2": ("resid_pdrop", "embd_pdrop"), "abc_lstm": ("dropout",)}
CURVE_POINTS = 50  # of the training loss; each is the mean over the steps since the last
VALIDATION_POINTS = 8
CURVE_WINDOWS = 32  # the validation curve uses these; the final loss uses the whole split
COMPILE_CHOICES = ["auto", "on", "off"]
COMPILE_STEPS = 5_000  # compiling takes about a minute
CARRIED = "carried"  # states in a checkpoint: [batch, groups of lanes, 2 (h and c), layers, hidden]
EXPLODED = 2  # times the loss of guessing evenly among all characters
Progress = Callable[[int, float | None], None]
LIBRARIES = ("torch", "transformers", "accelerate", "datasets", "numpy")


@dataclass(frozen=True)
class Conduct:
    """How a run is carried out; nothing here changes what is computed beyond the order of its sums.

    `windows_at_once` bounds a forward pass (0: as many as memory takes): the rest of a batch is accumulated. `compile`
    is on, off or auto: GPTs on a GPU, in runs of COMPILE_STEPS and more.
    """

    checkpoint_seconds: float = 30.0
    windows_at_once: int = 0
    compile: str = "auto"
    tracking: Tracking = field(default_factory=Tracking)


@dataclass(frozen=True)
class Plan:
    """A run to do: its recipe, its folder, and what stands between it and other runs.

    `trunk` is the folder of the trunk that a WSD run branches off, `keep_at` the steps whose state a trunk keeps.
    """

    recipe: Recipe
    folder: Path
    score_test: bool = False
    trunk: Path | None = None
    keep_at: tuple[int, ...] = ()


def build_config(recipe: Recipe, corpus: Corpus) -> PreTrainedConfig:
    """Return the model configuration of a recipe: of a rung of the ladder, or of the model that it starts from."""
    if recipe.init_from is not None:
        return _with_dropout(AutoConfig.from_pretrained(recipe.init_from), recipe.dropout)
    tokenizer = corpus.tokenizer()
    build = gpt_config if recipe.architecture == "gpt" else lstm_config
    return build(
        recipe.size, len(tokenizer), recipe.context, tokenizer.eos_token_id, tokenizer.pad_token_id, recipe.dropout
    )


def build_model(recipe: Recipe, corpus: Corpus) -> PreTrainedModel:
    """Return the model of a recipe, untrained or with the weights it starts from."""
    if recipe.init_from is not None:
        return load_model(recipe.init_from, recipe.dropout)
    set_seed(recipe.seed)
    return new_model(build_config(recipe, corpus))


def _with_dropout(config: PreTrainedConfig, dropout: float) -> PreTrainedConfig:
    for name in DROPOUTS.get(config.model_type, ()):
        setattr(config, name, dropout)
    return config


def load_model(source: str, dropout: float = 0.0) -> PreTrainedModel:
    """Load a trained model from a folder or the Hub, in fp32, with the dropout to train it with.

    Raises DoorError naming the file if a folder's weights are missing or only half written.
    """
    weights = Path(source) / "model.safetensors"
    if Path(source).is_dir():
        try:
            with safe_open(weights, framework="pt"):
                pass
        except (OSError, SafetensorError) as error:
            raise DoorError(f"{weights} is missing or damaged ({error}): delete {source} and train it again") from None
    config = _with_dropout(AutoConfig.from_pretrained(source), dropout)
    return AutoModelForCausalLM.from_pretrained(source, config=config, dtype=torch.float32)


def train(plan: Plan, corpus: Corpus, progress: Progress, conduct: Conduct) -> dict[str, Any]:
    """Train one run to its end and return its record; go on from its checkpoint if there is one.

    Where memory is short, fewer windows go through the model at once and their gradients are accumulated. `progress`
    is called with the tokens done so far and the latest training loss. Raises DoorError if the folder holds a run of
    another recipe or corpus, RuntimeError if not even one window fits in memory.
    """
    finished = finished_record(plan, corpus.digest())
    if finished is not None:
        return finished
    accelerator = conduct.tracking.accelerator(plan.folder)
    if plan.recipe.batch_size % accelerator.num_processes:
        raise DoorError(
            f"--batch_size {plan.recipe.batch_size}: not shared evenly by {accelerator.num_processes} processes"
        )
    share = plan.recipe.batch_size // accelerator.num_processes
    windows_at_once = min(share, conduct.windows_at_once or share)

    def halve() -> int:
        nonlocal windows_at_once
        accelerator.free_memory()  # it holds on to the model that did not fit
        windows_at_once //= 2
        if windows_at_once:
            print(f"{plan.folder}: out of memory, now {windows_at_once} windows at once", file=sys.stderr)
        return windows_at_once

    attempt = find_executable_batch_size(_train, windows_at_once, halve)
    record: dict[str, Any] = attempt(plan, corpus, progress, conduct, accelerator)
    return record


def _train(
    windows_at_once: int,
    plan: Plan,
    corpus: Corpus,
    progress: Progress,
    conduct: Conduct,
    accelerator: Accelerator,
) -> dict[str, Any]:
    recipe, folder, digest = plan.recipe, plan.folder, corpus.digest()
    before = {
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "memory_before_bytes": psutil.Process().memory_info().rss,
    }
    stream, unique_tokens = corpus.part(1 / recipe.one_in)
    long_on_gpu = accelerator.device.type == "cuda" and recipe.architecture == "gpt" and recipe.steps >= COMPILE_STEPS
    compiled = conduct.compile == "on" or (conduct.compile == "auto" and long_on_gpu)
    run = Run(recipe, stream, build_model(recipe, corpus), accelerator, windows_at_once, compiled)
    checkpoints = Checkpoints(folder, identity(recipe, digest))
    curves = _go_on(run, plan, checkpoints, digest)
    curve_part = np.asarray(corpus.tokens("validation"))[: CURVE_WINDOWS * (recipe.context - 1) + 1]
    conduct.tracking.start(accelerator, folder, recipe, run.step)
    watch = Stopwatch(curves["seconds"])
    reason = _run_to_the_end(run, plan, digest, curve_part, progress, conduct, checkpoints, curves, watch)
    scores: dict[str, Any] = {}
    if reason is None:
        for split in ("validation", "test") if plan.score_test else ("validation",):
            with run.autocast():  # another precision moves these losses in the fifth digit, see docs/LOG.md
                scores |= _scores(split, run.bare, corpus, recipe)
        watch.lap("evaluation")
        if not isfinite(scores["validation_loss"]):
            reason, scores = f"the validation loss is {scores['validation_loss']}", {}
    counts = _counts(run, unique_tokens)
    record = {
        "status": FINISHED if reason is None else DIVERGED,
        "reason": reason,
        "recipe": asdict(recipe),
        "corpus": digest,
        **counts,
        "trunk": None
        if plan.trunk is None
        else {"run": "/".join(plan.trunk.parts[-2:]), "step": curves["branched_at"]},
        **_costs(run.accelerator.device, watch.seconds, counts["flops"], counts["tokens"]),
        **before,
        "train_curve": curves["train"],
        "validation_curve": {**curves["validation"], "characters": len(curve_part) - 1},
        "processes": accelerator.num_processes,
        "windows_at_once": windows_at_once,
        "compiled": compiled,
        "versions": {name: version(name) for name in LIBRARIES} | {"python": platform.python_version()},
        "hardware": hardware(accelerator.device),
        "git_commit": git_commit(),
        "config": run.config.to_diff_dict(),
        **scores,
    }
    weights = {name: whole(parameter.detach()) for name, parameter in run.state.parameters.items()}
    if accelerator.is_main_process:
        if reason is None:
            save_model(run.config, weights, corpus, folder)
        write_record(folder, record)
        checkpoints.delete()
    conduct.tracking.finish(accelerator)
    accelerator.wait_for_everyone()
    return record


def _go_on(run: "Run", plan: Plan, checkpoints: Checkpoints, digest: str) -> dict[str, Any]:
    """Load the run's last whole checkpoint, or its trunk's state, and return its curves; say what is damaged."""
    state, damaged = checkpoints.last()
    if state is not None and plan.keep_at and state[0] >= _next_kept(plan):
        state = None  # it was on its way to other budgets
    if state is None and (plan.trunk is not None or plan.keep_at):
        folder, step = (plan.trunk, plan.recipe.cooldown_start) if plan.trunk else (plan.folder, _longest_trunk(plan))
        point = branch_point(folder, step)
        try:
            state = read_state(point, identity(plan.recipe.trunk(), digest)) if step else None
        except DamagedError as error:
            reason = (read_record(folder) or {}).get("reason") or error
            raise DoorError(f"{point} is missing or damaged ({reason}): delete {folder} to train it again") from None
        if state is not None and plan.trunk is not None:
            state[1]["branched_at"] = step
    if state is not None:
        run.go_on_from(state[0], state[2])
    for line in damaged if run.accelerator.is_main_process else []:
        print(f"{line}: going on from step {run.step}", file=sys.stderr)
    return _empty_curves() if state is None else state[1]


def _longest_trunk(plan: Plan) -> int:
    """Return the last step that a trunk has kept before the first one that it still has to keep; 0 for none."""
    return max((step for step in plan.keep_at if step < _next_kept(plan)), default=0)


def _next_kept(plan: Plan) -> int:
    """Return the first step that a trunk still has to keep, or the one behind its last."""
    missing = (step for step in plan.keep_at if not branch_point(plan.folder, step).is_file())
    return min(missing, default=plan.recipe.steps + 1)


def _run_to_the_end(
    run: "Run",
    plan: Plan,
    digest: str,
    curve_part: np.ndarray,
    progress: Progress,
    conduct: Conduct,
    checkpoints: Checkpoints,
    curves: dict[str, Any],
    watch: "Stopwatch",
) -> str | None:
    """Advance until the last step, keeping curves and checkpoints; return the reason if the run has to stop before."""
    recipe, accelerator = plan.recipe, run.accelerator
    train_every = max(1, recipe.steps // CURVE_POINTS)
    validate_every = max(1, recipe.steps // VALIDATION_POINTS)
    exploded = EXPLODED * log(run.config.vocab_size)
    last_saved = time.perf_counter()
    while run.step < recipe.steps:
        rate = run.advance()
        done = run.step * recipe.tokens_per_step
        at_point = run.step % train_every == 0 or run.step == recipe.steps
        if at_point:
            loss, norm = run.means()
            seconds = watch.lap("training")
            if not isfinite(loss + norm):
                return f"the training loss is {loss} and the gradient's norm {norm} at step {run.step}"
            if loss > exploded and curves["train"]["step"]:  # the first steps of a sound run may lie there too
                return f"the training loss is {loss:.3g} at step {run.step}, {EXPLODED} times that of guessing evenly"
            point = {"loss": loss, "learning_rate": rate, "gradient_norm": norm}
            _append(curves["train"], step=run.step, tokens=done, seconds=seconds, **point)
            accelerator.log({f"train/{name}": value for name, value in point.items()}, step=run.step)
            progress(done, loss)
        if run.step % validate_every == 0:
            seconds = watch.lap("training")
            with run.autocast():
                loss = float(token_losses(run.bare, curve_part, recipe.context, recipe.carry_state).mean())
            _append(curves["validation"], step=run.step, tokens=done, seconds=seconds, loss=loss)
            accelerator.log({"validation/loss": loss}, step=run.step)
            watch.lap("evaluation")
        kept = run.step in plan.keep_at
        due = False
        if at_point and run.step < recipe.steps:  # one clock for all processes
            [due] = broadcast_object_list([time.perf_counter() - last_saved > conduct.checkpoint_seconds])
        if kept or due:
            watch.lap("training")
            state = (run.step, {**curves, "seconds": watch.seconds}, run.gather())
            if kept and accelerator.is_main_process:
                write_state(branch_point(plan.folder, run.step), identity(recipe.trunk(), digest), *state)
            if due and accelerator.is_main_process:
                checkpoints.save(*state)
            last_saved = time.perf_counter()
            watch.lap("saving")
    watch.lap("training")
    return None


class Run:
    """A model in training: it knows its step, and each step is decided by recipe, data and step alone."""

    def __init__(
        self,
        recipe: Recipe,
        stream: np.ndarray,
        bare: PreTrainedModel,
        accelerator: Accelerator,
        windows_at_once: int,
        compiled: bool = False,
    ) -> None:
        self.recipe, self.bare, self.accelerator = recipe, bare, accelerator
        if accelerator.device.type == "cuda":
            torch.set_float32_matmul_precision("high" if recipe.precision == "tf32" else "highest")
            torch.backends.cudnn.allow_tf32 = recipe.precision == "tf32"  # cuDNN's LSTM has a switch of its own
        self.config = deepcopy(bare.config)  # as it is saved
        bare.loss_type = "ForCausalLM"  # GPT2LMHeadModel's name does not tell transformers which loss it takes
        bare.config.pad_token_id = None  # or transformers looks for padding in every batch, and waits for the device
        if bare.config.model_type == "gpt2":
            bare.set_attn_implementation(UNPADDED_CAUSAL)
        self.model, wrapped = accelerator.prepare(bare, build_optimizer(bare, recipe.weight_decay))
        # The wrapper costs 0.1 ms a step and serves the scaling of gradients, which bf16 has no need of.
        self.state = State(dict(bare.named_parameters()), wrapped.optimizer)
        if compiled:
            self.model = torch.compile(self.model)
        self.model.train()
        self.batches: WindowBatches
        self.carried: Tensor | None = None  # of this process's rows, as a checkpoint holds it
        if recipe.carry_state:
            self.batches = LaneBatches(stream, recipe.context, recipe.batch_size, recipe.seed)
            rows, lstm = recipe.batch_size // accelerator.num_processes, self.config
            shape = (rows, self.batches.groups, 2, lstm.num_hidden_layers, lstm.hidden_size)
            self.carried = torch.zeros(shape, device=accelerator.device)
        else:
            self.batches = WindowBatches(stream, recipe.context, recipe.batch_size, recipe.seed)
        self.windows_at_once = windows_at_once
        self.step = self._since = 0
        self._loss = torch.zeros((), device=accelerator.device)
        self._norm = torch.zeros((), device=accelerator.device)

    def gather(self) -> dict[str, Tensor]:
        """Return weights, moments and carried states whole, on the CPU; every process has to call this."""
        tensors = self.state.gather()
        if self.carried is not None:
            by_process = self.accelerator.gather(self.carried).unflatten(0, (self.accelerator.num_processes, -1))
            tensors[CARRIED] = whole(by_process.transpose(0, 1).flatten(0, 1))
        return tensors

    def go_on_from(self, step: int, tensors: dict[str, Tensor]) -> None:
        """Take up the run at `step` with its weights, moments and carried states."""
        self.state.place(tensors)
        if self.carried is not None:
            self.carried.copy_(self._mine(tensors[CARRIED]))
        self.step = self._since = step

    def _mine(self, batch: Tensor) -> Tensor:
        """Return this process's rows of a batch, on its device."""
        accelerator = self.accelerator
        rows = batch[accelerator.process_index :: accelerator.num_processes]
        return rows.to(accelerator.device, non_blocking=True)

    def autocast(self) -> torch.autocast:
        """Return the context in which the model computes in the recipe's precision."""
        return torch.autocast(self.accelerator.device.type, torch.bfloat16, self.recipe.precision == "bf16")

    def advance(self) -> float:
        """Do one step of the optimiser; return its learning rate."""
        recipe, accelerator = self.recipe, self.accelerator
        processes, process = accelerator.num_processes, accelerator.process_index
        tokens = self._mine(self.batches.batch(self.step))
        pieces = tokens.split(self.windows_at_once)
        carried = self._states_of_step()
        for number, piece in enumerate(pieces, 1):
            if recipe.dropout:  # masks depend on seed, step, process and piece: a resumed run draws the same
                drawn = ((self.step * processes) + process) * len(pieces) + number
                torch.manual_seed(((recipe.seed << 40) + drawn) % 2**63)
            # Processes exchange their gradients once a step.
            with nullcontext() if number == len(pieces) else accelerator.no_sync(self.model):
                with self.autocast():
                    loss = self._loss_of(piece, None if carried is None else carried[number - 1])
                if len(pieces) > 1:
                    loss = loss * (len(piece) / len(tokens))
                accelerator.backward(loss)
            self._loss += loss.detach()  # read only where the curve has a point: each reading waits for the device
        norm = accelerator.clip_grad_norm_(self.state.parameters.values(), CLIP_NORM)
        self._norm += norm.full_tensor() if isinstance(norm, DTensor) else norm
        rate = rate_at(self.step, recipe)
        for group in self.state.optimizer.param_groups:
            group["lr"] = rate
        self.state.optimizer.step()
        self.state.optimizer.zero_grad()
        self.step += 1
        return rate

    def _states_of_step(self) -> Sequence[Tensor] | None:
        """Return the states from which each piece of this step's windows starts: [rows, 2, layers, hidden], views."""
        if not isinstance(self.batches, LaneBatches) or self.carried is None:
            return None
        group, place = self.batches.turn(self.step)
        states = self.carried[:, group]
        if place == 0:
            states.zero_()
        return states.split(self.windows_at_once)

    def _loss_of(self, tokens: Tensor, states: Tensor | None) -> Tensor:
        """Return the mean loss of windows [rows, context]; go on from carried states, if any, and replace them."""
        if states is None:
            loss: Tensor = self.model(input_ids=tokens, labels=tokens, use_cache=False).loss
            return loss
        cache = AbcLstmCache()
        h, c = states.movedim(0, 2).clone(memory_format=torch.contiguous_format)  # the gradient reads them later
        cache.store((h, c), 0)
        targets = tokens[:, 1:].contiguous()  # the last one is the next window's first input: it is not read here
        loss = self.model(input_ids=tokens[:, :-1], labels=targets, shift_labels=targets, past_key_values=cache).loss
        assert cache.state is not None
        states.copy_(torch.stack(cache.state).detach().movedim(2, 0))
        return loss

    def means(self) -> tuple[float, float]:
        """Return the mean training loss and gradient norm (before clipping) since the last call."""
        steps = self.step - self._since
        loss = float(self.accelerator.reduce(self._loss, "mean")) / steps
        norm = float(self._norm) / steps
        self._loss.zero_()
        self._norm.zero_()
        self._since = self.step
        return loss, norm


class Stopwatch:
    """The seconds that a run spends on training, evaluation and saving."""

    def __init__(self, seconds: dict[str, float]) -> None:
        self.seconds = dict(seconds)
        self._since = time.perf_counter()

    def lap(self, name: str) -> float:
        """Count the time since the last lap as `name`; return the seconds of `name` so far."""
        now = time.perf_counter()
        self.seconds[name] += now - self._since
        self._since = now
        return self.seconds[name]


def finished_record(plan: Plan, corpus_digest: str) -> dict[str, Any] | None:
    """Return the record of a run that is done, None if it is still to do (or failed for want of memory or space).

    A trunk is done when it holds all states that are asked of it. Raises DoorError if the folder holds another run:
    nothing finished is ever overwritten.
    """
    record = read_record(plan.folder)
    if record is None or record["status"] == FAILED:
        return None
    wrong = f"delete {plan.folder} or choose another --output_root"
    if record["corpus"] != corpus_digest:
        raise DoorError(f"{plan.folder} was trained on another corpus or vocabulary: {wrong}")
    wanted, found = asdict(plan.recipe), record["recipe"]
    if plan.recipe.schedule == TRUNK:
        wanted.pop("tokens")  # a trunk grows with the budgets that branch off it
    different = [f"{k} {found.get(k)!r}, not {v!r}" for k, v in wanted.items() if found.get(k) != v]
    if different:
        raise DoorError(f"{plan.folder} holds another run ({'; '.join(different)}): {wrong}")
    if record["status"] == FINISHED and not all(branch_point(plan.folder, step).is_file() for step in plan.keep_at):
        return None
    for name in (LATEST, BEFORE):  # there is one only if the process was killed right after its record
        (plan.folder / name).unlink(missing_ok=True)
    return record


def _counts(run: Run, unique_tokens: int) -> dict[str, Any]:
    groups = count_parameters(run.bare)
    flops = count_flops(run.bare, run.recipe.context)
    tokens = run.step * run.recipe.tokens_per_step
    return {
        "n_params": groups["total"],
        "n_params_non_embedding": groups["total"] - groups["tables"],
        "n_params_by_group": groups,
        "steps": run.step,
        "tokens": tokens,
        "unique_tokens": unique_tokens,
        "epochs": tokens / (len(run.batches.stream) - 1),
        "flops_per_token": sum(flops.values()),
        "flops_per_token_by_module": flops,
        "flops": sum(flops.values()) * tokens,
        "flops_6nd": 6 * groups["total"] * tokens,
    }


def _costs(device: torch.device, seconds: dict[str, float], flops: int, tokens: int) -> dict[str, Any]:
    unit = 1 if sys.platform == "darwin" else 1024  # of ru_maxrss, in bytes
    return {
        "seconds": seconds["training"],
        "seconds_evaluation": seconds["evaluation"],
        "seconds_saving": seconds["saving"],
        "tokens_per_second": tokens / seconds["training"],
        "flops_per_second": flops / seconds["training"],
        "threads": torch.get_num_threads(),
        "peak_memory_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit,
        "peak_device_memory_bytes": torch.cuda.max_memory_allocated(device) if device.type == "cuda" else None,
    }


def _scores(split: str, model: PreTrainedModel, corpus: Corpus, recipe: Recipe) -> dict[str, Any]:
    losses = held_out_losses(model, corpus, split, recipe.context, recipe.carry_state)
    reset = {}
    if recipe.carry_state:  # scored as the other runs are
        reset[f"{split}_loss_reset"] = held_out_losses(model, corpus, split, recipe.context).whole.loss
    return reset | {
        f"{split}_loss": losses.whole.loss,
        f"{split}_loss_standard_error": losses.whole.standard_error,
        f"{split}_bits_per_character": losses.whole.loss / log(2),
        f"{split}_tokens": losses.whole.tokens,
        f"{split}_loss_of_headers": losses.headers,
        f"{split}_loss_of_bodies": losses.bodies,
        f"{split}_loss_by_position": losses.by_position,
    }


def save_model(config: PreTrainedConfig, weights: dict[str, Tensor], corpus: Corpus, folder: Path) -> None:
    """Write weights, configuration and tokenizer so that from_pretrained(folder) loads them.

    `header_fields` in the configuration names the header fields that the model has seen.
    """
    model = AutoModelForCausalLM.from_config(config)  # the trained one may be sharded
    model.load_state_dict(weights, strict=False)  # a tied head is its table
    model.config.header_fields = corpus.header_fields
    shutil.rmtree(folder / ".model", ignore_errors=True)  # half moved, by a process that was killed
    with whole_folder(folder / ".model", mark="config.json") as temporary:
        try:
            model.save_pretrained(temporary)
        except SafetensorError as error:  # the library's own name for a full disk
            raise OSError(28, str(error), str(folder / "model.safetensors")) from None
        corpus.tokenizer().save_pretrained(temporary)
    for file in sorted((folder / ".model").iterdir()):
        file.replace(folder / file.name)
    (folder / ".model").rmdir()


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


@cache
def git_commit() -> str | None:
    """Return the commit of the code that runs, with `+` if it was changed since, or None outside a repository."""
    command = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--abbrev=40", "--dirty=+"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None


def hardware(device: torch.device) -> str:
    """Return the device in words."""
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
