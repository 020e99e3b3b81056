"""One optimiser step of a model, the same for any number of processes.

Axes: rows (sequences of a batch), context (tokens of a sequence), layers, hidden (units of an LSTM's layer).
"""

from collections.abc import Sequence
from contextlib import nullcontext
from copy import deepcopy

import numpy as np
import torch
from accelerate import Accelerator
from torch import Tensor
from torch.distributed.tensor import DTensor
from transformers import PreTrainedModel

from cli import UserError
from modeling.modeling_abc_lstm import AbcLstmCache
from training.batches import StreamBatches, WindowBatches
from training.config import RunConfig
from training.learning_rate import learning_rate_at
from training.models import build_optimizer, make_trainable
from training.saving import State, whole

STATES = "states"  # in a checkpoint: [batch, groups of streams, 2 (h and c), layers, hidden]


def rows_per_process(config: RunConfig, accelerator: Accelerator) -> int:
    """Return the sequences of a batch that each process has. Raises UserError if they cannot be shared evenly."""
    if config.batch_size % accelerator.num_processes:
        raise UserError(f"--batch_size {config.batch_size}: not shared evenly by {accelerator.num_processes} processes")
    return config.batch_size // accelerator.num_processes


class Trainer:
    """A model in training; a step depends on the configuration, the data and its number alone."""

    def __init__(
        self,
        config: RunConfig,
        stream: np.ndarray,
        bare: PreTrainedModel,
        accelerator: Accelerator,
        micro_batch_size: int,
        compiled: bool = False,
    ) -> None:
        self.config, self.bare, self.accelerator = config, bare, accelerator
        if accelerator.device.type == "cuda":
            torch.set_float32_matmul_precision("high" if config.precision == "tf32" else "highest")
            torch.backends.cudnn.allow_tf32 = config.precision == "tf32"  # for the LSTM
        self.model_config = deepcopy(bare.config)  # as it is saved
        make_trainable(bare)
        self.model, wrapped = accelerator.prepare(bare, build_optimizer(bare, config))
        # Accelerate's optimiser wrapper costs 0.1 ms a step and scales gradients, which bf16 does not need.
        self.state = State(dict(bare.named_parameters()), wrapped.optimizer)
        if compiled:
            self.model = torch.compile(self.model)
        self.batches: WindowBatches
        self.states: Tensor | None = None  # of this process's rows, in stateful training
        if config.stateful:
            self.batches = StreamBatches(stream, config.context, config.batch_size, config.seed, config.stream_groups)
            rows, lstm = rows_per_process(config, accelerator), self.model_config
            shape = (rows, self.batches.groups, 2, lstm.num_hidden_layers, lstm.hidden_size)
            self.states = torch.zeros(shape, device=accelerator.device)
        else:
            self.batches = WindowBatches(stream, config.context, config.batch_size, config.seed)
        self.micro_batch_size = micro_batch_size
        self.step = self._since = 0
        self._loss = torch.zeros((), device=accelerator.device)
        self._norm = torch.zeros((), device=accelerator.device)

    def gather(self) -> dict[str, Tensor]:
        """Return weights, moments and recurrent states, on the CPU; every process has to call this."""
        tensors = self.state.gather()
        if self.states is not None:
            by_process = self.accelerator.gather(self.states).unflatten(0, (self.accelerator.num_processes, -1))
            tensors[STATES] = whole(by_process.transpose(0, 1).flatten(0, 1))
        return tensors

    def resume(self, step: int, tensors: dict[str, Tensor]) -> None:
        """Continue at `step` with its weights, moments and recurrent states."""
        self.state.place(tensors)
        if self.states is not None:
            self.states.copy_(self._rows_of_process(tensors[STATES]))
        self.step = self._since = step

    def _rows_of_process(self, batch: Tensor) -> Tensor:
        """Return this process's rows of a batch, on its device."""
        accelerator = self.accelerator
        rows = batch[accelerator.process_index :: accelerator.num_processes]
        return rows.to(accelerator.device, non_blocking=True)

    def autocast(self) -> torch.autocast:
        """Return the context in which the model computes in the run's precision."""
        return torch.autocast(self.accelerator.device.type, torch.bfloat16, self.config.precision == "bf16")

    def advance(self) -> float:
        """Take one step of the optimiser and return its learning rate."""
        config, accelerator = self.config, self.accelerator
        process = accelerator.process_index
        tokens = self._rows_of_process(self.batches.batch(self.step))
        pieces = tokens.split(self.micro_batch_size)
        states = self._states_of_step()
        for number, piece in enumerate(pieces, 1):
            if config.dropout:  # masks depend on seed, step, process and piece: a resumed run draws the same
                drawn = np.random.SeedSequence((config.seed, self.step, process, number)).generate_state(1, np.uint64)
                torch.manual_seed(int(drawn[0]))
            # Processes exchange their gradients once a step.
            with nullcontext() if number == len(pieces) else accelerator.no_sync(self.model):
                with self.autocast():
                    loss = self._loss_of(piece, None if states is None else states[number - 1])
                if len(pieces) > 1:
                    loss = loss * (len(piece) / len(tokens))
                accelerator.backward(loss)
            self._loss += loss.detach()  # read at points of the curve only: each reading waits for the device
        norm = accelerator.clip_grad_norm_(self.state.parameters.values(), config.clip_norm)
        self._norm += norm.full_tensor() if isinstance(norm, DTensor) else norm
        learning_rate = learning_rate_at(self.step, config)
        for group in self.state.optimizer.param_groups:
            group["lr"] = learning_rate
        self.state.optimizer.step()
        self.state.optimizer.zero_grad()
        self.step += 1
        return learning_rate

    def _states_of_step(self) -> Sequence[Tensor] | None:
        """Return the states that each piece of this step's rows starts from, views: [rows, 2, layers, hidden]."""
        if not isinstance(self.batches, StreamBatches) or self.states is None:
            return None
        group, place = self.batches.turn(self.step)
        states = self.states[:, group]
        if place == 0:
            states.zero_()
        return states.split(self.micro_batch_size)

    def _loss_of(self, tokens: Tensor, states: Tensor | None) -> Tensor:
        """Return the mean loss of sequences [rows, context]; in stateful training, `states` are updated."""
        if states is None:
            loss: Tensor = self.model(input_ids=tokens, labels=tokens, use_cache=False).loss
            return loss
        cache = AbcLstmCache()
        h, c = states.movedim(0, 2).clone(memory_format=torch.contiguous_format)  # the gradient reads them later
        cache.store((h, c), 0)
        targets = tokens[:, 1:].contiguous()  # the last one is the next sequence's first input
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
