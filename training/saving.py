"""What a run saves: checkpoints in one safetensors file, verified by hash, and its model. Nothing is unpickled."""

import hashlib
import json
import os
import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.distributed.tensor import DTensor, distribute_tensor
from transformers import AutoModelForCausalLM, PreTrainedConfig

from cli import UserError
from files import atomic_folder, atomic_write
from modeling.loading import WEIGHTS
from preprocessing.corpus import Corpus

LATEST, PREVIOUS = "checkpoint.safetensors", "checkpoint.before.safetensors"
MOMENTS = ("exp_avg", "exp_avg_sq")  # of AdamW, beside its step


class DamagedError(Exception):
    """A checkpoint that is not as it was written; the text gives the reason."""


def as_os_error(error: SafetensorError, path: Path) -> Exception:
    """Return the OSError in an error of safetensors (such as a full disk), naming the file; or the error itself."""
    code = re.search(r"\(os error (\d+)\)", str(error))
    return OSError(int(code[1]), os.strerror(int(code[1])), str(path)) if code else error


def branch_point(trunk: Path, step: int) -> Path:
    """Return the file in which a trunk keeps its state of `step`, for budgets whose cooldown starts there."""
    return trunk / f"step_{step}.safetensors"


@dataclass(frozen=True)
class State:
    """A run's parameters by name, and their optimiser.

    Parameters are captured once: after an evaluation FSDP returns other objects, for which the optimiser has no
    moments.
    """

    parameters: dict[str, nn.Parameter]
    optimizer: torch.optim.Optimizer

    def gather(self) -> dict[str, Tensor]:
        """Return weights and moments, unsharded and on the CPU; every process has to call this."""
        return {
            f"{key}.{name}": whole(value)
            for name, parameter in self.parameters.items()
            for key, value in {"model": parameter.detach(), **self.optimizer.state[parameter]}.items()
        }

    def place(self, tensors: dict[str, Tensor]) -> None:
        """Set weights and moments to those that `gather` returned."""
        with torch.no_grad():
            for name, parameter in self.parameters.items():
                parameter.copy_(_like(parameter, tensors[f"model.{name}"]))
                moments = {key: _like(parameter, tensors[f"{key}.{name}"]) for key in MOMENTS}
                step = tensors[f"step.{name}"].to(parameter.device)  # fused AdamW needs it there
                self.optimizer.state[parameter] = {"step": step, **moments}


def whole(tensor: Tensor) -> Tensor:
    """Return a tensor unsharded, contiguous and on the CPU."""
    return (tensor.full_tensor() if isinstance(tensor, DTensor) else tensor).contiguous().cpu()


def _like(parameter: Tensor, value: Tensor) -> Tensor:
    value = value.to(parameter.device)
    if isinstance(parameter, DTensor):
        return distribute_tensor(value, parameter.device_mesh, parameter.placements, src_data_rank=None)
    return value


def write_state(path: Path, config_hash: str, step: int, curves: dict[str, Any], tensors: dict[str, Tensor]) -> None:
    """Write the state of a run atomically as one safetensors file. Raises OSError naming the file.

    The tensors are, for each parameter NAME, its weights `model.NAME`, AdamW's moments `exp_avg.NAME` and
    `exp_avg_sq.NAME`, and its step `step.NAME`; of stateful training also the recurrent `states` (Trainer.gather). The
    metadata has `config_hash`, `step`, `curves` (JSON of History.to_dict), and `sha256` of all tensors and the other
    metadata.
    """
    metadata = {"config_hash": config_hash, "step": str(step), "curves": json.dumps(curves)}
    metadata["sha256"] = _hash(tensors, metadata)
    with atomic_write(path) as temporary:
        try:
            save_file(tensors, temporary, metadata)
        except SafetensorError as error:
            raise as_os_error(error, path) from None


def read_state(path: Path, config_hash: str) -> tuple[int, dict[str, Any], dict[str, Tensor]]:
    """Return the step, the curves and the tensors of a state.

    Raises DamagedError if the file is not as it was written, UserError if it is another run's.
    """
    try:
        with safe_open(path, framework="pt") as file:
            metadata = dict(file.metadata() or {})
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no mapping
    except (SafetensorError, OSError) as error:
        raise DamagedError(str(error)) from None
    if metadata.pop("sha256", None) != _hash(tensors, metadata):
        raise DamagedError("its content does not have the hash that was written with it")
    if metadata["config_hash"] != config_hash:
        raise UserError(f"{path} belongs to another configuration or corpus: delete {path.parent} to train it again")
    return int(metadata["step"]), json.loads(metadata["curves"]), tensors


def _hash(tensors: dict[str, Tensor], metadata: dict[str, str]) -> str:
    content = hashlib.sha256(json.dumps(metadata, sort_keys=True).encode())
    for name in sorted(tensors):
        content.update(name.encode())
        content.update(tensors[name].view(-1).view(torch.uint8).numpy().data)
    return content.hexdigest()


class Checkpoints:
    """The last two states of a run: if the last one is damaged, the previous one is used."""

    def __init__(self, folder: Path, config_hash: str) -> None:
        self.latest, self.previous, self.config_hash = folder / LATEST, folder / PREVIOUS, config_hash

    def save(self, step: int, curves: dict[str, Any], tensors: dict[str, Tensor]) -> None:
        """Write the state; the last one becomes the previous one."""
        if self.latest.is_file():
            self.latest.replace(self.previous)
        write_state(self.latest, self.config_hash, step, curves, tensors)

    def last(self) -> tuple[tuple[int, dict[str, Any], dict[str, Tensor]] | None, list[str]]:
        """Return the last undamaged state (None: there is none) and a message for every damaged one.

        Files that killed processes left half written are deleted. Raises UserError if a state is another run's.
        """
        for pattern in (".*.????????.*", ".tmp??????"):  # temporary names of atomic_write and of safetensors
            for left in self.latest.parent.glob(pattern):
                left.unlink(missing_ok=True)
        damaged: list[str] = []
        for path in (self.latest, self.previous):
            if path.is_file():
                try:
                    return read_state(path, self.config_hash), damaged
                except DamagedError as error:
                    damaged.append(f"{path} is damaged ({error})")
        return None, damaged

    def delete(self) -> None:
        """Delete both."""
        self.latest.unlink(missing_ok=True)
        self.previous.unlink(missing_ok=True)


def save_model(config: PreTrainedConfig, weights: dict[str, Tensor], corpus: Corpus, folder: Path) -> None:
    """Write weights, configuration and tokenizer so that from_pretrained(folder) loads them.

    `header_fields` in the configuration names the header fields that the model has seen. Raises ValueError unless
    `weights` are all of the model's, tied ones once.
    """
    model = AutoModelForCausalLM.from_config(config)  # the trained one may be sharded
    missing, unexpected = model.load_state_dict(weights, strict=False)
    if unexpected or set(missing) - set(model.all_tied_weights_keys):
        raise ValueError(f"not the weights of this model: missing {missing}, unexpected {unexpected}")
    model.config.header_fields = corpus.header_fields
    shutil.rmtree(folder / ".model", ignore_errors=True)  # half moved, by a process that was killed
    with atomic_folder(folder / ".model", mark="config.json") as temporary:
        try:
            model.save_pretrained(temporary)
        except SafetensorError as error:
            raise as_os_error(error, folder / WEIGHTS) from None
        corpus.tokenizer().save_pretrained(temporary)
    for file in sorted((folder / ".model").iterdir()):
        file.replace(folder / file.name)
    (folder / ".model").rmdir()
