"""Tokens/s of several small runs trained at once: python -m benchmarks.company [--runs 4] [--rounds 7]

in turn                one after another, on all cores
processes              in processes of one thread, one a core, as training/study.py does
batched                as one model whose parameters are [runs, ...]: vmap over the GPT, a written-out scan for the LSTM
batched in processes   each process trains its share as one model
graphs                 on a GPU only: each run's step a CUDA graph on a stream of its own. Not run on a GPU yet

All train the same configs (seed, peak rate and weight decay differ) on the same made-up stream, and take turns in every
round. Before that the losses in company are held against those of each run alone; the last column shows how far apart
they are at most, as a share of the loss.

Axes: runs, batch, time (tokens), units (of the LSTM), gates (4 × units, in the order cell, input, forget, output).
"""

import argparse
import multiprocessing
import os
import platform
import statistics
import time
import warnings
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from dataclasses import replace
from importlib.metadata import version
from multiprocessing.connection import Connection
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.func import functional_call, vmap
from torch.nn import functional as F
from torch.nn.utils import clip_grad_norm_
from transformers import AttentionInterface, PreTrainedModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward

from modeling.counting import count_parameters
from modeling.ladder import ARCHITECTURE_OF, ladder_config, new_model, shape_of
from training.batches import WindowBatches
from training.config import RunConfig, learning_rate_at
from training.grid import Recipe, base_config
from training.learning_rate import learning_rate
from training.measurements import hardware
from training.models import build_optimizer

VOCABULARY = 85  # of the bundled corpus
FIRST = 2  # token id after the pad's and the boundary's
CONTEXT = 256
BATCH = 4
HORIZON = 1000  # steps that the rate's schedule is made for
CHECKED_STEPS = 30
FACTORS = (0.5, 1.0, 2.0)  # times the rule's rate
DECAYS = (0.0, 0.1)
RECIPE = Recipe(batch_size=BATCH, context=CONTEXT, precision="fp32")

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")


def made_stream() -> np.ndarray:
    """Return a million token ids, each at most 2 from the one before, so that there is something to learn."""
    return FIRST + np.cumsum(np.random.default_rng(0).integers(-2, 3, 1_000_000)) % (VOCABULARY - FIRST)


def make_model(architecture: str, size: str, seed: int) -> PreTrainedModel:
    """Return an untrained model in training mode."""
    torch.manual_seed(seed)
    model = new_model(ladder_config(architecture, size, VOCABULARY, CONTEXT, 1, 0)).train()
    model.loss_type = "ForCausalLM"
    return model.to(device=DEVICE)


def make_configs(architecture: str, size: str, runs: int) -> list[RunConfig]:
    """Return configurations of one size that differ in seed, peak learning rate and weight decay."""
    groups = count_parameters(make_model(architecture, size, 0))
    peak = learning_rate(architecture, groups["total"] - groups["tables"])
    tokens = HORIZON * BATCH * (CONTEXT - 1)
    rates, decays = ([values[r % len(values)] for r in range(runs)] for values in (FACTORS, DECAYS))
    shape = shape_of(architecture, size, VOCABULARY, CONTEXT)
    base = replace(base_config(RECIPE, architecture, size, shape, "made", 1), tokens=tokens)
    return [replace(base, seed=r, learning_rate=peak * rates[r], weight_decay=decays[r]) for r in range(runs)]


class Run:
    """One run, trained as training/loop.py trains it."""

    def __init__(self, config: RunConfig) -> None:
        self.config = config
        self.model = make_model(config.architecture, config.size, config.seed)
        self.optimizer = build_optimizer(self.model, config)
        self.batches = WindowBatches(made_stream(), config.context, config.batch_size, config.seed)

    def step(self, step: int) -> Tensor:
        """Train one step and return its loss."""
        tokens = self.batches.batch(step).to(DEVICE, non_blocking=True)
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate_at(step, self.config)
        return self.update(tokens)

    def update(self, tokens: Tensor) -> Tensor:
        """Train on a batch at the optimiser's present rate and return the loss."""
        loss = self.model(input_ids=tokens, labels=tokens, use_cache=False).loss
        loss.backward()
        clip_grad_norm_(self.model.parameters(), RECIPE.clip_norm)
        self.optimizer.step()
        self.optimizer.zero_grad()
        return loss.detach()


class GraphedRun(Run):
    """One run whose whole step is a CUDA graph, replayed on a stream of its own."""

    def __init__(self, config: RunConfig) -> None:
        super().__init__(config)
        if config.architecture == "gpt":
            # While a graph is captured, transformers writes the causal mask out, which costs the fast attention kernel;
            # for an attention that its masks do not know it makes none.
            AttentionInterface.register("causal_sdpa", sdpa_attention_forward)
            self.model.set_attn_implementation("causal_sdpa")
        for group in self.optimizer.param_groups:
            group |= {"lr": torch.zeros((), device=DEVICE), "capturable": True}
        self.tokens = self.batches.batch(0).to(DEVICE)
        self.stream = torch.cuda.Stream()
        self.stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(self.stream):  # what allocates at first use does so before the capture
            self.model.config.pad_token_id = None  # else a tensor is read, to look for padding
            for _ in range(3):
                self.update(self.tokens)
            for state in self.optimizer.state.values():  # the rate was 0: only the moments and the count have moved
                for value in state.values():
                    value.zero_()
        self.graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self.graph, stream=self.stream):
            self.loss = self.update(self.tokens)

    def step(self, step: int) -> Tensor:
        with torch.cuda.stream(self.stream):
            self.tokens.copy_(self.batches.batch(step).pin_memory(), non_blocking=True)
            for group in self.optimizer.param_groups:
                group["lr"].fill_(learning_rate_at(step, self.config))
            self.graph.replay()
        return self.loss


class BatchedRuns:
    """All runs as one model. Row r of a matrix [runs, parameters] is run r; a tensor [runs, ...] is a view of it."""

    def __init__(self, configs: Sequence[RunConfig]) -> None:
        runs = [Run(config) for config in configs]
        self.configs, self.batches = configs, [run.batches for run in runs]
        decayed, others = zip(*([group["params"] for group in run.optimizer.param_groups] for run in runs), strict=True)
        rows = [[*matrices, *rest] for matrices, rest in zip(decayed, others, strict=True)]
        self.values = torch.stack([torch.cat([parameter.detach().flatten() for parameter in row]) for row in rows])
        self.gradients = torch.zeros_like(self.values)
        names = {parameter: name for name, parameter in runs[0].model.named_parameters()}
        blocks = self.values.split([parameter.numel() for parameter in rows[0]], dim=1)
        self.parameters = {
            names[parameter]: block.view(-1, *parameter.shape).requires_grad_()
            for parameter, block in zip(rows[0], blocks, strict=True)
        }
        width = sum(parameter.numel() for parameter in decayed[0])
        groups: list[dict[str, Any]] = []
        for config, values, gradients in zip(configs, self.values, self.gradients, strict=True):
            for columns, decay in ((slice(width), config.weight_decay), (slice(width, None), 0.0)):
                part = values[columns]
                part.grad = gradients[columns]
                groups.append({"params": [part], "weight_decay": decay})
        self.optimizer = torch.optim.AdamW(groups, lr=0.0, betas=(RECIPE.beta1, RECIPE.beta2), fused=True)
        self.losses = gpt_losses(runs[0].model) if configs[0].architecture == "gpt" else lstm_losses

    def step(self, step: int) -> Tensor:
        """Train one step of every run and return the losses [runs]."""
        tokens = torch.stack([batches.batch(step) for batches in self.batches]).to(DEVICE, non_blocking=True)
        for i, group in enumerate(self.optimizer.param_groups):
            group["lr"] = learning_rate_at(step, self.configs[i // 2])
        losses = self.losses(self.parameters, tokens)
        parts = torch.autograd.grad(losses.sum(), list(self.parameters.values()))
        torch.cat([part.flatten(1) for part in parts], dim=1, out=self.gradients)
        norms = torch.linalg.vector_norm(self.gradients, dim=1, keepdim=True)
        self.gradients.mul_((RECIPE.clip_norm / (norms + 1e-6)).clamp(max=1.0))
        self.optimizer.step()
        return losses.detach()


def gpt_losses(model: PreTrainedModel) -> Callable[[dict[str, Tensor], Tensor], Tensor]:
    """Return a function of parameters [runs, ...] and tokens [runs, batch, time] that gives the losses [runs]."""
    # vmap has no rule for the CPU's attention kernel: it calls the kernel once a run, and says so.
    warnings.filterwarnings("ignore", "There is a performance drop because we have not yet implemented")
    model.config.pad_token_id = None  # else a tensor is read, to look for padding, which vmap forbids

    def loss_of(parameters: dict[str, Tensor], tokens: Tensor) -> Tensor:
        inputs = {"input_ids": tokens, "labels": tokens, "use_cache": False}
        return functional_call(model, parameters, kwargs=inputs).loss

    return vmap(loss_of)


def lstm_losses(parameters: dict[str, Tensor], tokens: Tensor) -> Tensor:
    """Return the losses [runs] of LSTMs of one layer on tokens [runs, batch, time]: vmap has no rule for nn.LSTM."""
    runs, batch, length = tokens.shape
    table = parameters["model.embed_tokens.weight"]
    inward, recurrent, bias_in, bias_hidden = (
        parameters[f"model.lstm.{name}_l0"].unflatten(1, (4, -1))[:, [2, 0, 1, 3]].flatten(1, 2)  # torch: i, f, g, o
        for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
    )
    # A token gives the gates the same wherever it stands: the product is over the vocabulary, not over the windows.
    given = torch.baddbmm((bias_in + bias_hidden).unsqueeze(1), table, inward.transpose(1, 2)).flatten(0, 1)
    rows = tokens + VOCABULARY * torch.arange(runs, device=tokens.device)[:, None, None]
    hidden = Scan.apply(F.embedding(rows.permute(2, 0, 1), given), recurrent).permute(1, 2, 0, 3).flatten(1, 2)
    if "projection.weight" in parameters:
        hidden = hidden @ parameters["projection.weight"].transpose(1, 2)
    logits = (hidden @ table.transpose(1, 2)).view(runs, batch, length, -1)[:, :, :-1]
    losses = F.cross_entropy(logits.flatten(0, 2), tokens[:, :, 1:].flatten(), reduction="none")
    return losses.view(runs, -1).mean(1)


class Scan(torch.autograd.Function):
    """LSTM layers over time: tokens' share of the gates [time, runs, batch, gates], weights [runs, gates, units] → h.

    Twelve kernels a token, there and back: autograd's own record of the loop has more and takes longer.
    """

    @staticmethod
    def forward(ctx: Any, given: Tensor, weights: Tensor) -> Tensor:
        """Return h [time, runs, batch, units]."""
        units, across = weights.shape[-1], weights.transpose(1, 2).contiguous()
        gates = given.clone()
        squashed_gates = gates[..., units:]
        g, i, f, o = gates.unflatten(-1, (4, units)).unbind(-2)
        c, tanh_c, h = (torch.empty_like(g) for _ in range(3))
        h_before = c_before = torch.zeros_like(h[0])
        every = (gates, squashed_gates, g, i, f, o, c, tanh_c, h)
        for gates_t, squashed_t, g_t, i_t, f_t, o_t, c_t, tanh_t, h_t in zip(*map(torch.unbind, every), strict=True):
            gates_t.baddbmm_(h_before, across)
            squashed_t.sigmoid_()
            g_t.tanh_()
            torch.mul(i_t, g_t, out=c_t).addcmul_(f_t, c_before)
            torch.mul(o_t, torch.tanh(c_t, out=tanh_t), out=h_t)
            h_before, c_before = h_t, c_t
        ctx.save_for_backward(gates, c, tanh_c, h, weights)
        return h

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor]:
        """Return the gradients of both inputs."""
        gates, c, tanh_c, h, weights = ctx.saved_tensors
        g, i, f, o = gates.unflatten(-1, (4, weights.shape[-1])).unbind(-2)
        h_before, c_before = (torch.cat([torch.zeros_like(x[:1]), x[:-1]]) for x in (h, c))
        c_from_h = o * (1 - tanh_c**2)
        gif_from_c = torch.stack([i * (1 - g**2), g * i * (1 - i), c_before * f * (1 - f)], -2)
        o_from_h = tanh_c * o * (1 - o)
        d_gates, d_h = torch.empty_like(gates), gradients[0].clone()
        d_gif, d_o = d_gates.unflatten(-1, (4, weights.shape[-1])).split([3, 1], -2)
        d_c = torch.zeros_like(c[0])
        d_after, f_after = torch.zeros_like(gates[0]), d_c
        every = (d_gates, d_gif, d_o.squeeze(-2), d_h, f, c_from_h, gif_from_c, o_from_h)
        steps = list(zip(*map(torch.unbind, every), strict=True))
        for d_t, d_gif_t, d_o_t, d_h_t, f_t, c_from_h_t, gif_from_c_t, o_from_h_t in reversed(steps):
            d_h_t.baddbmm_(d_after, weights)
            d_c = d_c.mul(f_after).addcmul_(d_h_t, c_from_h_t)
            torch.mul(d_c.unsqueeze(-2), gif_from_c_t, out=d_gif_t)
            torch.mul(d_h_t, o_from_h_t, out=d_o_t)
            d_after, f_after = d_t, f_t
        return d_gates, torch.einsum("trbg,trbu->rgu", d_gates, h_before)


Train = Callable[[range], None]  # trains these steps of every run, and returns when the device has done them


def finish() -> None:
    """Wait until the device has done what it was told."""
    if DEVICE.type == "cuda":
        torch.cuda.synchronize()


def in_turn(configs: Sequence[RunConfig]) -> Train:
    """Train one run after another."""
    runs = [Run(config) for config in configs]

    def train(steps: range) -> None:
        for run in runs:
            for step in steps:
                run.step(step)
        finish()

    return train


def batched(configs: Sequence[RunConfig]) -> Train:
    """Train all runs as one model."""
    company = BatchedRuns(configs)

    def train(steps: range) -> None:
        for step in steps:
            company.step(step)
        finish()

    return train


def graphs(configs: Sequence[RunConfig]) -> Train:
    """Train every run by its CUDA graph, a step of each in turn: the streams run side by side."""
    runs = [GraphedRun(config) for config in configs]

    def train(steps: range) -> None:
        for step in steps:
            for run in runs:
                run.step(step)
        finish()

    return train


def in_processes(way: Callable[[Sequence[RunConfig]], Train], configs: Sequence[RunConfig], stack: ExitStack) -> Train:
    """Share the runs among one-thread processes, one a core; they end with the stack."""
    # CUDA does not survive a fork; where there is none, a server that has the libraries forks the workers.
    context: Any = multiprocessing.get_context("forkserver" if DEVICE.type == "cpu" else "spawn")
    context.set_forkserver_preload(["training.study"])
    at_once = min(len(configs), os.cpu_count() or 1)
    pipes = []
    for i in range(at_once):
        ours, theirs = context.Pipe()
        process = context.Process(target=serve, args=(way, configs[i::at_once], theirs), daemon=True)
        process.start()
        theirs.close()
        stack.callback(process.join)
        stack.callback(ours.close)
        pipes.append(ours)

    def train(steps: range) -> None:
        for pipe in pipes:
            pipe.send(steps)
        for pipe in pipes:
            pipe.recv()

    return train


def serve(way: Callable[[Sequence[RunConfig]], Train], configs: Sequence[RunConfig], pipe: Connection) -> None:
    """Train the steps that come through the pipe, until it closes."""
    torch.set_num_threads(1)
    train = way(configs)
    with suppress(EOFError):
        while True:
            train(pipe.recv())
            pipe.send(None)


def losses_of(step: Callable[[int], Tensor]) -> Tensor:
    """Return the losses of the first steps: [steps] or [steps, runs]."""
    losses = []
    for i in range(CHECKED_STEPS):
        loss = step(i)
        finish()
        losses.append(loss.clone())
    return torch.stack(losses)


def difference(configs: Sequence[RunConfig]) -> float:
    """Return the largest relative difference between the losses of runs alone and of the same runs in company."""
    alone = torch.stack([losses_of(Run(config).step) for config in configs], dim=1)
    company = [losses_of(BatchedRuns(configs).step)]
    if DEVICE.type == "cuda":
        company.append(torch.stack([losses_of(GraphedRun(config).step) for config in configs], dim=1))
    return max(float(((losses - alone) / alone).abs().max()) for losses in company)


def measure(configs: Sequence[RunConfig], rounds: int, steps: int) -> dict[str, float]:
    """Return the median tokens/s of each way, all runs together."""
    with ExitStack() as stack:
        ways = {
            "in turn": in_turn(configs),
            "processes": in_processes(in_turn, configs, stack),
            "batched": batched(configs),
            "batched in processes": in_processes(batched, configs, stack),
        }
        if DEVICE.type == "cuda":
            ways["graphs"] = graphs(configs)
        seconds: dict[str, list[float]] = {way: [] for way in ways}
        for round_ in range(rounds + 1):
            for way, train in ways.items():
                start = time.perf_counter()
                train(range(round_ * steps, (round_ + 1) * steps))
                seconds[way].append(time.perf_counter() - start)
    tokens = steps * sum(config.tokens_per_step for config in configs)
    return {way: tokens / statistics.median(taken[1:]) for way, taken in seconds.items()}  # the first round warms up


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--architectures", nargs="+", default=[*ARCHITECTURE_OF.values()], choices=[*ARCHITECTURE_OF.values()]
    )
    parser.add_argument("--sizes", nargs="+", default=["15k", "120k", "500k"])
    parser.add_argument("--runs", type=int, default=4 if DEVICE.type == "cpu" else 16)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--steps", type=int, default=10, help="of every run in a round")
    options = parser.parse_args()
    print(f"{hardware(DEVICE)}; Python {platform.python_version()}, ", end="")
    print(", ".join(f"{name} {version(name)}" for name in ("torch", "transformers")))
    print(
        f"{options.runs} runs, batches {BATCH}×{CONTEXT}; {torch.get_num_threads()} threads, processes have one each; ",
        end="",
    )
    print(f"total tokens/s, medians of {options.rounds} rounds of {options.steps} steps\n")
    for architecture in options.architectures:
        for size in options.sizes:
            configs = make_configs(architecture, size, options.runs)
            differs = difference(configs)
            speeds = measure(configs, options.rounds, options.steps)
            if (architecture, size) == (options.architectures[0], options.sizes[0]):
                print(f"| | {' | '.join(speeds)} | losses differ by |\n{'|---' * (len(speeds) + 2)}|")
            cells = [f"{speed:,.0f} (× {speed / speeds['processes']:.2f})" for speed in speeds.values()]
            print(f"| {architecture} {size} | {' | '.join(cells)} | {differs:.0e} |", flush=True)


if __name__ == "__main__":
    main()
