"""Tokens/s of training beside plain PyTorch and the Trainer: python benchmarks/training_speed.py [--sizes tiny]

this project   training/trainer.py, through Accelerate
bare step      the same model and optimiser, but a fixed batch, forward, backward, clipping and update, nothing else
plain          the same network and weights in nanoGPT's style: random crops of a memmap stacked one by one, torch's
               scaled_dot_product_attention and GELU, or nn.LSTM; fused AdamW, clipping
… compiled     by torch.compile: GPTs on a GPU; on a CPU only with --compiled, as it takes most of a minute
Trainer        transformers.Trainer with its defaults on a datasets.Dataset of windows; for a GPT also GPT2Config's
               defaults, dropout 0.1 and gelu_new among them. Its start is left out

Each row is measured in a separate process, in which the ways take turns; before that the plain network's loss is
compared with the model's. A token is a token predicted. × is the median over the rounds of a way's speed divided by
the plain one's; the peak is that of square matrix products just before (an nn.LSTM in fp32 can exceed it on a CPU: its
kernel is oneDNN's, torch's product is MKL's); the loop's share is the time that the bare step does not need.
"""

import argparse
import platform
import statistics
import tempfile
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from importlib.metadata import version
from itertools import product
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import clip_grad_norm_
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    PreTrainedModel,
    PrinterCallback,
    Trainer,
    TrainerCallback,
    TrainingArguments,
)
from transformers.pytorch_utils import Conv1D
from transformers.utils import logging

from modeling.configuration_abc_lstm import AbcLstmConfig
from modeling.models import model_config, new_model
from modeling.shapes import SIZES, count, shape_of
from training.config import RunConfig
from training.execution import Tracking
from training.measurements import hardware
from training.record import FINISHED, read_runs
from training.trainer import Trainer as Engine

VOCABULARY = 85  # of the bundled corpus
FIRST = 2  # token id after the pad's and the boundary's
CONTEXT = 256
LEARNING_RATE = 1e-3
MEASURED = {"gpt": ["120k", "tiny", "small", "medium"], "lstm": ["120k", "tiny", "small"]}
SAME_LOSS = 1e-4  # nats
TRAINER_COSTS = 2  # times the plain step, to choose how many steps a round has

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
SIDES = (2048, 4096) if DEVICE.type == "cpu" else (8192, 16384)  # of the products that show the peak

Way = Callable[[], object]  # trains one step; the device may still be at it afterwards


@dataclass(frozen=True)
class Case:
    """One line of a table."""

    architecture: str
    size: str
    precision: str
    batch_size: int
    rounds: int
    seconds: float
    compiled: bool


class Attention(nn.Module):
    """Causal attention: [batch, time, width] to the same."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.inward, self.outward = nn.Linear(width, 3 * width), nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        query, key, value = (
            part.unflatten(2, (self.heads, -1)).transpose(1, 2) for part in self.inward(x).chunk(3, dim=2)
        )
        y = F.scaled_dot_product_attention(query, key, value, is_causal=True)
        return self.outward(y.transpose(1, 2).flatten(2))


class Block(nn.Module):
    """A pre-norm transformer block: [batch, time, width] to the same."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.norm_1, self.attention = nn.LayerNorm(width), Attention(width, heads)
        self.norm_2 = nn.LayerNorm(width)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attention(self.norm_1(x))
        return x + self.mlp(self.norm_2(x))


class PlainGPT(nn.Module):
    """GPT-2: inputs and targets [batch, time] to their mean loss."""

    def __init__(self, config: GPT2Config) -> None:
        super().__init__()
        self.tokens = nn.Embedding(config.vocab_size, config.n_embd)
        self.positions = nn.Embedding(config.n_positions, config.n_embd)
        self.blocks = nn.Sequential(*(Block(config.n_embd, config.n_head) for _ in range(config.n_layer)))
        self.norm = nn.LayerNorm(config.n_embd)
        self.head = nn.Linear(config.n_embd, config.vocab_size, bias=False)
        self.head.weight = self.tokens.weight

    def forward(self, inputs: Tensor, targets: Tensor) -> Tensor:
        x = self.tokens(inputs) + self.positions(torch.arange(inputs.shape[1], device=inputs.device))
        return F.cross_entropy(self.head(self.norm(self.blocks(x))).flatten(0, 1), targets.flatten())


class PlainLSTM(nn.Module):
    """The ladder's LSTM, whose head is tied: inputs and targets [batch, time] to their mean loss."""

    def __init__(self, config: AbcLstmConfig) -> None:
        super().__init__()
        width, hidden = config.embedding_size, config.hidden_size
        self.tokens = nn.Embedding(config.vocab_size, width)
        self.lstm = nn.LSTM(width, hidden, config.num_hidden_layers, batch_first=True)
        self.projection = nn.Identity() if width == hidden else nn.Linear(hidden, width, bias=False)
        self.head = nn.Linear(width, config.vocab_size, bias=False)
        self.head.weight = self.tokens.weight

    def forward(self, inputs: Tensor, targets: Tensor) -> Tensor:
        hidden, _ = self.lstm(self.tokens(inputs))
        return F.cross_entropy(self.head(self.projection(hidden)).flatten(0, 1), targets.flatten())


def finish() -> None:
    """Wait until the device has finished."""
    if DEVICE.type == "cuda":
        torch.cuda.synchronize()


def seconds_of(work: Callable[[], object], times: int = 1) -> float:
    """Return the seconds that so many calls take until the device has done them."""
    finish()
    start = time.perf_counter()
    for _ in range(times):
        work()
    finish()
    return time.perf_counter() - start


def make_stream(folder: str) -> np.memmap:
    """Return a million token ids on disk, each at most 2 from the one before, so that there is something to learn."""
    stream = np.memmap(Path(folder) / "stream.bin", dtype=np.uint8, mode="w+", shape=1_000_000)
    stream[:] = FIRST + np.cumsum(np.random.default_rng(0).integers(-2, 3, len(stream))) % (VOCABULARY - FIRST)
    return stream


def make_model(case: Case) -> PreTrainedModel:
    """Return the untrained model of a case."""
    torch.manual_seed(0)
    shape = shape_of(case.architecture, case.size, VOCABULARY, CONTEXT)
    return new_model(
        model_config(case.architecture, shape, vocabulary_size=VOCABULARY, context=CONTEXT, boundary=1, pad=0)
    )


def make_run(case: Case, stream: np.ndarray, compiled: bool) -> Engine:
    """Return the engine under test."""
    shape = shape_of(case.architecture, case.size, VOCABULARY, CONTEXT)
    values = {"architecture": case.architecture, "size": case.size, "corpus": "made", "n_keys": 1, **asdict(shape)}
    values |= {"batch_size": case.batch_size, "precision": case.precision, "context": CONTEXT, "tokens": 10**9}
    config = RunConfig(**values, learning_rate=LEARNING_RATE)
    return Engine(config, stream, make_model(case), Tracking().accelerator(Path()), case.batch_size, compiled)


def autocast(precision: str) -> torch.autocast:
    """Return the context of a forward pass."""
    return torch.autocast(DEVICE.type, torch.bfloat16, precision == "bf16")


def bare_step(run: Engine) -> Way:
    """Return a step of a run's model and optimiser without its loop."""
    parameters, optimizer = list(run.state.parameters.values()), run.state.optimizer
    tokens = run.batches.batch(0).to(DEVICE)

    def step() -> None:
        with autocast(run.config.precision):
            loss = run.model(input_ids=tokens, labels=tokens, use_cache=False).loss
        loss.backward()
        clip_grad_norm_(parameters, RunConfig.clip_norm)
        optimizer.step()
        optimizer.zero_grad()

    return step


def make_plain(model: PreTrainedModel) -> nn.Module:
    """Return the plain network with a model's weights."""
    config: Any = model.config
    plain = (PlainGPT(config) if config.model_type == "gpt2" else PlainLSTM(config)).to(DEVICE)
    transposed = {id(module.weight) for module in model.modules() if isinstance(module, Conv1D)}
    with torch.no_grad():
        for mine, theirs in zip(plain.parameters(), model.parameters(), strict=True):
            mine.copy_(theirs.T if id(theirs) in transposed else theirs)
    return plain


def plain_step(plain: nn.Module, case: Case, stream: np.ndarray) -> Way:
    """Return a step of the plain loop."""
    parameters = list(plain.parameters())
    betas = (RunConfig.beta1, RunConfig.beta2)
    optimizer = torch.optim.AdamW(parameters, lr=LEARNING_RATE, betas=betas, weight_decay=0.1, fused=True)

    def crops(starts: Tensor) -> Tensor:
        batch = torch.stack([torch.from_numpy(stream[i : i + CONTEXT].astype(np.int64)) for i in starts])
        return batch.pin_memory().to(DEVICE, non_blocking=True) if DEVICE.type == "cuda" else batch

    def step() -> None:
        starts = torch.randint(len(stream) - CONTEXT, (case.batch_size,))
        inputs, targets = crops(starts), crops(starts + 1)
        with autocast(case.precision):
            loss = plain(inputs, targets)
        loss.backward()
        clip_grad_norm_(parameters, RunConfig.clip_norm)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return step


def check_same_loss(run: Engine, plain: nn.Module) -> None:
    """Raise RuntimeError if model and plain network do not compute the same loss, in fp32."""
    tokens = run.batches.batch(0).to(DEVICE)
    with torch.no_grad():
        difference = abs(float(run.model(input_ids=tokens, labels=tokens).loss - plain(tokens[:, :-1], tokens[:, 1:])))
    if difference > SAME_LOSS:
        raise RuntimeError(f"the plain network's loss differs by {difference:.1e}: the two do not do the same work")


class Turns(TrainerCallback):
    """The Trainer's rounds, and between them those of the others."""

    def __init__(self, ways: dict[str, Way], steps: int) -> None:
        self.ways, self.steps = deque(ways.items()), steps
        self.seconds: dict[str, list[float]] = {way: [] for way in (*ways, "Trainer")}

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:  # noqa: ARG002 - as given
        self._since = time.perf_counter()

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:  # noqa: ARG002 - as given
        if state.global_step % self.steps:
            return
        finish()
        self.seconds["Trainer"].append(time.perf_counter() - self._since)
        for name, way in self.ways:
            self.seconds[name].append(seconds_of(way, self.steps))
        self.ways.rotate()  # the way after the Trainer finds cold caches
        self._since = time.perf_counter()


def make_trainer(case: Case, stream: np.ndarray, turns: Turns, folder: str) -> Trainer:
    """Return a Trainer as its documentation starts one."""
    model = make_model(case)
    if case.architecture == "gpt":
        shape = {name: getattr(model.config, name) for name in ("vocab_size", "n_positions", "n_embd", "n_layer")}
        model = GPT2LMHeadModel(GPT2Config(**shape, n_head=model.config.n_head, bos_token_id=1, eos_token_id=1))
    windows = stream[: len(stream) // CONTEXT * CONTEXT].reshape(-1, CONTEXT)
    arguments = TrainingArguments(
        output_dir=folder,
        max_steps=turns.steps * (case.rounds + 1),
        per_device_train_batch_size=case.batch_size,
        bf16=case.precision == "bf16",
        use_cpu=DEVICE.type == "cpu",  # or it refuses bf16
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
    )
    dataset = Dataset.from_dict({"input_ids": windows, "labels": windows})
    trainer = Trainer(model, arguments, train_dataset=dataset, callbacks=[turns])
    trainer.remove_callback(PrinterCallback)
    return trainer


def peak(precision: str) -> float:
    """Return the FLOP/s of the fastest square matrix product."""
    fastest = 0.0
    for side in SIDES:
        matrix = torch.randn(side, side, device=DEVICE, dtype=torch.bfloat16 if precision == "bf16" else torch.float32)
        work = lambda matrix=matrix: matrix @ matrix  # noqa: E731
        fastest = max(fastest, *(2 * side**3 / seconds_of(work) for _ in range(4)))
    return fastest


def measure(case: Case) -> dict[str, Any]:
    """Return the speed of each way in tokens/s, and the figures beside them."""
    logging.set_verbosity_error()
    with tempfile.TemporaryDirectory() as folder:
        stream = make_stream(folder)
        run = make_run(case, stream, compiled=False)
        plain = make_plain(run.bare)
        check_same_loss(run, plain)
        flops = sum(count(case.architecture, run.config.shape, VOCABULARY, CONTEXT)[1].values())
        ways: dict[str, Way] = {
            "this project": run.advance,
            "bare step": bare_step(run),
            "plain": plain_step(plain, case, stream),
        }
        if case.compiled and case.architecture == "gpt":
            ways["this project compiled"] = make_run(case, stream, compiled=True).advance
            compiled = make_plain(run.bare)
            compiled.compile()
            ways["plain compiled"] = plain_step(compiled, case, stream)
        highest = peak(case.precision)
        for way in ways.values():
            seconds_of(way, 2)  # allocates, and compiles
        alone = {name: min(seconds_of(way) for _ in range(2)) for name, way in ways.items()}
        round_seconds = sum(alone.values()) + TRAINER_COSTS * alone["plain"]
        turns = Turns(ways, max(1, round(case.seconds / (case.rounds + 1) / round_seconds)))
        make_trainer(case, stream, turns, folder).train()
    taken = {way: np.array(seconds[1:]) for way, seconds in turns.seconds.items()}  # the first round warms up
    predicted = {way: CONTEXT if way.startswith("plain") else CONTEXT - 1 for way in taken}
    speeds = {way: turns.steps * case.batch_size * predicted[way] / seconds for way, seconds in taken.items()}
    own = float(np.median(speeds["this project"]))
    return {
        "n_params": run.bare.num_parameters(),
        "speed": {way: float(np.median(speed)) for way, speed in speeds.items()},
        "beside plain": {way: float(np.median(speed / speeds["plain"])) for way, speed in speeds.items()},
        "FLOP/s": flops * own,
        "peak": highest,
        "loop": float(np.median(1 - taken["bare step"] / taken["this project"])),
        "steps": turns.steps,
    }


def print_table(cases: Sequence[Case]) -> None:
    """Measure the cases of an architecture and print a row for each."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn"), max_tasks_per_child=1) as pool:
        for i, (case, found) in enumerate(zip(cases, pool.map(measure, cases), strict=True)):
            ways = [way for way in found["speed"] if way != "bare step"]
            if i == 0:
                print(f"\n| {case.architecture} | N | precision | {' | '.join(ways)} | GFLOP/s | of the peak | loop |")
                print("|---" * (len(ways) + 6) + "|")
            cells = [f"{found['speed'][way]:,.0f} (× {found['beside plain'][way]:.2f})" for way in ways]
            print(
                f"| {case.size} | {found['n_params']:,} | {case.precision} | {' | '.join(cells)} "
                f"| {found['FLOP/s'] / 1e9:,.0f} | {found['FLOP/s'] / found['peak']:.0%} | {found['loop']:.1%} |",
                flush=True,
            )


def print_evaluation_shares(root: Path) -> None:
    """Print which share of its time each architecture's runs in a study spent on evaluation."""
    for architecture in MEASURED:
        runs = [run for run in read_runs(root, architecture) if run.status == FINISHED]
        shares = [run.seconds_evaluation / (run.seconds + run.seconds_evaluation) for run in runs]
        if shares:
            each = f"{min(shares):.1%} to {max(shares):.1%}, median {statistics.median(shares):.1%}"
            print(f"evaluation, {architecture}: {each} of a run's time in {len(runs)} runs")


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--architectures", nargs="+", default=list(MEASURED), choices=list(MEASURED))
    parser.add_argument("--sizes", nargs="+", choices=list(SIZES), help="default: GPTs to medium, LSTMs to small")
    parser.add_argument("--precisions", nargs="+", default=["fp32", "bf16"], choices=["fp32", "tf32", "bf16"])
    parser.add_argument("--batch_size", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=25, help="of a line's measuring; a round has a step at least")
    parser.add_argument("--compiled", action=argparse.BooleanOptionalAction, default=DEVICE.type == "cuda")
    parser.add_argument("--records", type=Path, help="the folder of a study, for the share of validation")
    options = parser.parse_args()
    print(f"{hardware(DEVICE)}; {torch.get_num_threads()} threads; Python {platform.python_version()}, ", end="")
    print(", ".join(f"{name} {version(name)}" for name in ("torch", "transformers", "accelerate", "datasets")))
    print(f"batches {options.batch_size}×{CONTEXT}; tokens/s, medians of {options.rounds} rounds")
    shared = (options.batch_size, options.rounds, options.seconds, options.compiled)
    for architecture in options.architectures:
        lines = product(options.sizes or MEASURED[architecture], options.precisions)
        print_table([Case(architecture, size, precision, *shared) for size, precision in lines])
    if options.records:
        print()
        print_evaluation_shares(options.records)


if __name__ == "__main__":
    main()
