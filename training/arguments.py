"""The arguments that the training commands share."""

from dataclasses import dataclass, field, fields
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from cli import UserError
from modeling.shapes import SIZES
from training.config import COSINE, STREAMS, WINDOWS, WSD
from training.execution import AUTO, COMPILE_CHOICES, TENSORBOARD, TRACKIO, ExecutionConfig, Tracking
from training.learning_rate import Rule

MAX_TOKENS = 10**10  # of a run: thousands of times the bundled corpus
TINY = 1e-12
RULE = "one value for all sizes, or coefficient and exponent of coefficient · N^-exponent, N non-embedding"


RANGES = {
    **dict.fromkeys(("tokens", "search_tokens"), (1, MAX_TOKENS)),
    "warmup_tokens": (0, MAX_TOKENS),
    "flops": (1, 1e30),
    "data_fraction": (1e-9, 1),
    "cooldown_fraction": (TINY, 1),
    "seeds": (0, 2**31),
    "context": (2, 2**20),
    "batch_size": (1, 2**20),
    "micro_batch_size": (0, 2**20),
    "num_parallel_runs": (0, 1024),
    "epochs": (0.01, 1e6),
    **dict.fromkeys(("dropout", "dropouts"), (0, 0.99)),
    **dict.fromkeys(("weight_decay", "weight_decays", "checkpoint_seconds"), (0, 1e6)),
    **dict.fromkeys(("gpt_lr_rule", "lstm_lr_rule", "gpt_learning_rates", "lstm_learning_rates"), (TINY, 1e6)),
    **dict.fromkeys(("learning_rate_factor", "learning_rate_factors"), (TINY, 1e6)),
}


def option(default: Any, about: str, choices: list[str] | None = None) -> Any:
    """Return a dataclass field with its default, its help text and its choices."""
    metadata = {"help": about} | ({"choices": choices} if choices else {})
    if isinstance(default, list):
        return field(default_factory=lambda: list(default), metadata=metadata)
    return field(default=default, metadata=metadata)


def check(arguments: Any) -> None:
    """Raise UserError naming the field whose value is not in its range, or a size that does not exist."""
    for name in (one.name for one in fields(arguments)):
        given = getattr(arguments, name)
        for value in given if isinstance(given, list) else [given]:
            if name in RANGES and not RANGES[name][0] <= value <= RANGES[name][1]:  # NaN is in no range
                raise UserError(f"--{name} {value}: must be from {RANGES[name][0]:g} to {RANGES[name][1]:g}")
            if name in ("gpt_sizes", "lstm_sizes") and value not in SIZES:
                raise UserError(f"--{name} {value}: no such size, there are {', '.join(SIZES)}")


@dataclass
class ExecutionArguments:
    """How runs are executed."""

    dry_run: bool = option(False, "print what the runs will cost, and train nothing")
    num_parallel_runs: int = option(0, "runs side by side; 0: one a core on CPU, else one")
    compile: str = option(AUTO, "torch.compile; auto: GPTs on a GPU, where a run is long", COMPILE_CHOICES)
    micro_batch_size: int = option(0, "sequences in a forward pass, the rest is accumulated; 0: what fits")
    checkpoint_seconds: float = option(20.0, "how often a run is saved")
    log_with: list[str] = option([TRACKIO], "trackers", [TRACKIO, TENSORBOARD, "none"])

    def __post_init__(self) -> None:
        check(self)
        self.log_with = [name for name in self.log_with if name != "none"]
        for name in self.log_with:
            if find_spec(name) is None:
                raise UserError(f"--log_with {name}: not installed, pip install {name}")

    def config(self, root: Path) -> ExecutionConfig:
        """Return how the runs below `root` are executed."""
        tracking = Tracking(tuple(self.log_with), root)
        return ExecutionConfig(self.checkpoint_seconds, self.micro_batch_size, self.compile, tracking)


@dataclass
class StudyExecutionArguments(ExecutionArguments):
    """How a study is executed."""

    reuse_runs: str | None = option(
        None, "a table of runs: those finished there are not trained again, and get their record without weights"
    )


@dataclass
class RecipeArguments:
    """What all runs of a study or of a sweep have in common."""

    corpus: str = option("data/processed_music_data", "the corpus folder")
    output_dir: str = option("data", "the folder for the training folders")
    schedule: str = option(COSINE, "wsd: all budgets of a size branch off one trunk", [COSINE, WSD])
    warmup_tokens: int = option(20_000, "tokens of linear warm-up, whatever the budget")
    cooldown_fraction: float = option(0.2, "wsd: fraction of a run in which the learning rate falls")
    sequences: str = option(WINDOWS, "streams: stateful training of LSTMs", [WINDOWS, STREAMS])
    batch_size: int = option(4, "sequences in a step")
    context: int = option(256, "characters in a sequence")
    weight_decay: float = option(0.1, "decoupled, on matrices only")
    precision: str = option(
        AUTO, "auto: bf16 for sizes at least 128 wide where the processor has it", [AUTO, "fp32", "tf32", "bf16"]
    )

    def __post_init__(self) -> None:
        check(self)


@dataclass
class StudyArguments(RecipeArguments):
    """The axes of a study: every size with every budget, fraction of the data and seed."""

    study: str = option("study", "the study's name in the table of runs")
    arm: str = option("ladders", "the arm's name there; of a file with several arms, the one to train")
    gpt_sizes: list[str] = option([], f"of {list(SIZES)}")
    lstm_sizes: list[str] = option([], "names of the GPT sizes they match")
    seeds: list[int] = option([0], "one run for each size, budget and seed")
    tokens: list[int] = option([], "budgets: training tokens (characters); default: 2000000")
    flops: list[float] = option([], "budgets as training FLOPs: each size gets the tokens they buy")
    data_fraction: list[float] = option([1.0], "fractions of the training tunes; 0.25 trains on tunes that are in 0.5")
    gpt_lr_rule: list[float] = option([], f"peak learning rates of GPTs instead of the schedule's: {RULE}")
    lstm_lr_rule: list[float] = option([], "the same for LSTMs")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.tokens and self.flops:
            raise UserError("--tokens, --flops: a budget is given as tokens or as FLOPs, not both: leave one out")
        self.tokens = self.tokens or ([] if self.flops else [2_000_000])
        for name in ("seeds", "data_fraction"):
            if not getattr(self, name):
                raise UserError(f"--{name}: give one or more")
        for name in ("gpt_lr_rule", "lstm_lr_rule"):
            if len(getattr(self, name)) > 2:
                raise UserError(f"--{name} {getattr(self, name)}: {RULE}")

    def lr_rule(self, architecture: str) -> Rule | None:
        """Return the learning-rate rule given for an architecture; a single value has exponent 0."""
        given = self.gpt_lr_rule if architecture == "gpt" else self.lstm_lr_rule
        return (given[0], given[1] if given[1:] else 0.0) if given else None
