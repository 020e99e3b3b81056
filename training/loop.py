"""The training loop: one for every architecture, `model(input_ids, labels).loss` through Accelerate."""

import hashlib
import json
import platform
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from datetime import UTC, datetime
from functools import cache
from importlib.metadata import version
from math import isfinite, log
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import safetensors.torch
import torch
from accelerate import Accelerator
from accelerate.utils import set_seed
from safetensors import SafetensorError, safe_open
from transformers import AutoModelForCausalLM, PreTrainedConfig, PreTrainedModel
from transformers.utils import logging as transformers_logging

from door import DoorError, whole_file, whole_folder
from modeling.counting import count_parameters, flops_per_token
from modeling.ladder import gpt_config, lstm_config, new_model
from preprocessing.corpus import Corpus
from training.batches import WindowBatches
from training.evaluation import held_out_loss, token_losses
from training.recipe import CLIP_NORM, Recipe, build_optimizer, rate_at
from training.record import DIVERGED, FINISHED, read_record, write_record

transformers_logging.disable_progress_bar()  # a study has one bar, its own

CHECKPOINT = "checkpoint.safetensors"
CURVE_POINTS = 50  # of the training loss; each is the mean over the steps since the last
VALIDATION_POINTS = 8
CURVE_WINDOWS = 32  # the validation curve uses these; the final loss uses the whole split
LIBRARIES = ("torch", "transformers", "accelerate", "datasets", "numpy")


def build_config(recipe: Recipe, corpus: Corpus) -> PreTrainedConfig:
    """Return the model configuration of a recipe."""
    tokenizer = corpus.tokenizer()
    build = gpt_config if recipe.architecture == "gpt" else lstm_config
    return build(
        recipe.size, len(tokenizer), recipe.context, tokenizer.eos_token_id, tokenizer.pad_token_id, recipe.dropout
    )


def build_model(recipe: Recipe, corpus: Corpus) -> PreTrainedModel:
    """Return the model of a recipe, untrained or with the weights it starts from."""
    config = build_config(recipe, corpus)
    if recipe.init_from is not None:
        return load_model(Path(recipe.init_from), config)
    set_seed(recipe.seed)
    return new_model(config)


def load_model(folder: Path, config: PreTrainedConfig | None = None) -> PreTrainedModel:
    """Load a trained model. Raises DoorError naming the file if it is missing or only half written."""
    weights = folder / "model.safetensors"
    try:
        with safe_open(weights, framework="pt"):
            pass
    except (OSError, SafetensorError) as error:
        raise DoorError(f"{weights} is missing or damaged ({error}): delete {folder} and train it again") from None
    return AutoModelForCausalLM.from_pretrained(folder, config=config, dtype=torch.float32)


def train(
    recipe: Recipe,
    corpus: Corpus,
    folder: Path,
    progress: Callable[[int, float | None], None],
    checkpoint_seconds: float = 30.0,
    score_test: bool = False,
) -> dict[str, Any]:
    """Train one run to its end in `folder` and return its record; go on from its checkpoint if there is one.

    `progress` is called with the tokens done so far and the latest training loss.
    Raises DoorError if the folder holds a run of another recipe or corpus, or a damaged checkpoint.
    """
    digest = corpus.digest()
    finished = finished_record(recipe, digest, folder)
    if finished is not None:
        return finished
    accelerator = Accelerator()
    if recipe.batch_size % accelerator.num_processes:
        raise DoorError(f"--batch_size {recipe.batch_size}: not shared evenly by {accelerator.num_processes} processes")
    before = {
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "memory_before_bytes": psutil.Process().memory_info().rss,
    }
    bare = build_model(recipe, corpus)
    bare.loss_type = "ForCausalLM"  # GPT2LMHeadModel's name does not tell transformers which loss it takes
    model, optimizer = accelerator.prepare(bare, build_optimizer(bare, recipe.weight_decay))
    model.train()
    batches = WindowBatches(corpus.tokens("train"), recipe.context, recipe.batch_size, recipe.seed)
    validation = np.asarray(corpus.tokens("validation"))
    curve_part = validation[: CURVE_WINDOWS * (recipe.context - 1) + 1]
    checkpoint = Checkpoint(folder / CHECKPOINT, recipe, digest)
    step, curves = checkpoint.restore(bare, optimizer.optimizer)
    watch = Stopwatch(curves["seconds"])
    last_saved = time.perf_counter()

    train_every = max(1, recipe.steps // CURVE_POINTS)
    validate_every = max(1, recipe.steps // VALIDATION_POINTS)
    rows = slice(accelerator.process_index, None, accelerator.num_processes)
    running = torch.zeros((), device=accelerator.device)
    reason = None
    while step < recipe.steps and reason is None:
        tokens = batches.batch(step)[rows].to(accelerator.device, non_blocking=True)
        rate = rate_at(step, recipe.steps, recipe.learning_rate)
        for group in optimizer.param_groups:
            group["lr"] = rate
        if recipe.dropout:  # its masks depend on seed, step and process alone, so a resumed run draws the same ones
            torch.manual_seed((recipe.seed << 32) + step * accelerator.num_processes + accelerator.process_index)
        loss = model(input_ids=tokens, labels=tokens, use_cache=False).loss
        accelerator.backward(loss)
        accelerator.clip_grad_norm_(model.parameters(), CLIP_NORM)
        optimizer.step()
        optimizer.zero_grad()
        running += loss.detach()  # read only where the curve has a point: each reading waits for the device
        step += 1
        done = step * recipe.tokens_per_step
        if step % train_every == 0 or step == recipe.steps:
            mean = float(accelerator.reduce(running, "mean")) / (step - (curves["train"]["step"] or [0])[-1])
            running.zero_()
            seconds = watch.read()
            if isfinite(mean):
                _append(curves["train"], step=step, tokens=done, seconds=seconds, loss=mean, learning_rate=rate)
                progress(done, mean)
            else:
                reason = f"the training loss is {mean} at step {step}"
        if step % validate_every == 0:
            with watch.stopped() as seconds:
                mean = float(token_losses(bare, curve_part, recipe.context).mean())
            _append(curves["validation"], step=step, tokens=done, seconds=seconds, loss=mean)
        due = time.perf_counter() - last_saved > checkpoint_seconds
        if due and reason is None and step % train_every == 0 and step < recipe.steps:
            with watch.stopped() as seconds:
                if accelerator.is_main_process:
                    checkpoint.save(step, {**curves, "seconds": seconds}, bare, optimizer.optimizer)
            last_saved = time.perf_counter()

    record = {
        "status": FINISHED if reason is None else DIVERGED,
        "reason": reason,
        "recipe": asdict(recipe),
        "corpus": digest,
        **_counts(bare, recipe, step, batches, corpus.unique_tokens),
        **_costs(step * recipe.tokens_per_step * flops_per_token(bare, recipe.context), step, recipe, watch.read()),
        **before,
        "train_curve": curves["train"],
        "validation_curve": {**curves["validation"], "characters": len(curve_part) - 1},
        "processes": accelerator.num_processes,
        "mixed_precision": accelerator.mixed_precision,
        "versions": {name: version(name) for name in LIBRARIES} | {"python": platform.python_version()},
        "hardware": hardware(accelerator.device),
        "git_commit": git_commit(),
        "config": bare.config.to_diff_dict(),
    }
    if reason is None:
        for split in ("validation", "test") if score_test else ("validation",):
            record |= _scores(split, bare, np.asarray(corpus.tokens(split)), recipe.context, corpus.boundary)
    if accelerator.is_main_process:
        if reason is None:
            save_model(bare, corpus, folder)
        write_record(folder, record)
        checkpoint.path.unlink(missing_ok=True)
    accelerator.wait_for_everyone()
    return record


class Stopwatch:
    """The seconds of training alone: it stands while a run is evaluated or saved."""

    def __init__(self, seconds: float) -> None:
        self._seconds, self._since = seconds, time.perf_counter()

    def read(self) -> float:
        """Return the seconds so far."""
        return self._seconds + time.perf_counter() - self._since

    @contextmanager
    def stopped(self) -> Iterator[float]:
        """Stand still; give the seconds so far."""
        self._seconds = self.read()
        yield self._seconds
        self._since = time.perf_counter()


def finished_record(recipe: Recipe, corpus_digest: str, folder: Path) -> dict[str, Any] | None:
    """Return the record of a run that is done, None if it is still to do.

    Raises DoorError if the folder holds another run: nothing finished is ever overwritten.
    """
    record = read_record(folder)
    if record is None:
        return None
    if record["corpus"] != corpus_digest:
        raise DoorError(
            f"{folder} was trained on another corpus or vocabulary: delete it or choose another --output_root"
        )
    wanted = asdict(recipe)
    different = [
        f"{k} {record['recipe'].get(k)!r}, not {v!r}" for k, v in wanted.items() if record["recipe"].get(k) != v
    ]
    if different:
        raise DoorError(
            f"{folder} holds another run ({'; '.join(different)}): delete it or choose another --output_root"
        )
    return record


def _counts(
    model: PreTrainedModel, recipe: Recipe, steps: int, batches: WindowBatches, unique_tokens: int
) -> dict[str, Any]:
    groups = count_parameters(model)
    tokens = steps * recipe.tokens_per_step
    per_token = flops_per_token(model, recipe.context)
    return {
        "n_params": groups["total"],
        "n_params_non_embedding": groups["total"] - groups["tables"],
        "n_params_by_group": groups,
        "steps": steps,
        "tokens": tokens,
        "unique_tokens": unique_tokens,
        "epochs": tokens / (len(batches.stream) - 1),
        "flops_per_token": per_token,
        "flops": per_token * tokens,
        "flops_6nd": 6 * groups["total"] * tokens,
    }


def _costs(flops: int, steps: int, recipe: Recipe, seconds: float) -> dict[str, Any]:
    unit = 1 if sys.platform == "darwin" else 1024  # of ru_maxrss, in bytes
    return {
        "seconds": seconds,
        "tokens_per_second": steps * recipe.tokens_per_step / seconds,
        "flops_per_second": flops / seconds,
        "threads": torch.get_num_threads(),
        "peak_memory_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit,
    }


def _scores(split: str, model: PreTrainedModel, stream: np.ndarray, context: int, boundary: int) -> dict[str, float]:
    result = held_out_loss(model, stream, context, boundary)
    return {
        f"{split}_loss": result.loss,
        f"{split}_loss_standard_error": result.standard_error,
        f"{split}_bits_per_character": result.loss / log(2),
        f"{split}_tokens": result.tokens,
    }


def save_model(model: PreTrainedModel, corpus: Corpus, folder: Path) -> None:
    """Write weights, configuration and tokenizer so that from_pretrained(folder) loads them."""
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
    train: dict[str, list[float]] = {"step": [], "tokens": [], "seconds": [], "loss": [], "learning_rate": []}
    validation: dict[str, list[float]] = {"step": [], "tokens": [], "seconds": [], "loss": []}
    return {"train": train, "validation": validation, "seconds": 0.0}


class Checkpoint:
    """A run's state on disk: weights, optimiser, step and curves in one safetensors file. Nothing is unpickled."""

    def __init__(self, path: Path, recipe: Recipe, corpus_digest: str) -> None:
        self.path = path
        content = json.dumps([asdict(recipe), corpus_digest], sort_keys=True)
        self.identity = hashlib.sha256(content.encode()).hexdigest()

    def save(self, step: int, curves: dict[str, Any], model: PreTrainedModel, optimizer: torch.optim.Optimizer) -> None:
        """Write the state whole or not at all."""
        tensors = {f"model.{name}": parameter.detach() for name, parameter in model.named_parameters()}
        for name, parameter in model.named_parameters():
            tensors |= {f"{key}.{name}": value for key, value in optimizer.state[parameter].items()}
        content = safetensors.torch.save(
            {name: value.contiguous().cpu() for name, value in tensors.items()},
            metadata={"identity": self.identity, "step": str(step), "curves": json.dumps(curves)},
        )
        with whole_file(self.path) as temporary:
            temporary.write_bytes(content)

    def restore(self, model: PreTrainedModel, optimizer: torch.optim.Optimizer) -> tuple[int, dict[str, Any]]:
        """Load the state into model and optimiser; return its step and curves, or those of a fresh start.

        Raises DoorError if the file is damaged or of another run.
        """
        if not self.path.is_file():
            return 0, _empty_curves()
        try:
            with safe_open(self.path, framework="pt") as file:
                metadata = file.metadata() or {}
                if metadata.get("identity") != self.identity:
                    raise DoorError(
                        f"{self.path} belongs to another recipe or corpus: delete {self.path.parent} to train it anew"
                    )
                for name, parameter in model.named_parameters():
                    with torch.no_grad():
                        parameter.copy_(file.get_tensor(f"model.{name}"))
                    optimizer.state[parameter] = {
                        key: file.get_tensor(f"{key}.{name}").to("cpu" if key == "step" else parameter.device)
                        for key in ("step", "exp_avg", "exp_avg_sq")
                    }
                return int(metadata["step"]), json.loads(metadata["curves"])
        except (SafetensorError, OSError, KeyError, ValueError, RuntimeError) as error:
            raise DoorError(f"{self.path} is damaged ({error}): delete it to train this run from its start") from None


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
