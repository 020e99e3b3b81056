"""The arguments that the training commands share."""

from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from cli import UserError, option
from modeling.shapes import SIZES
from training.config import COSINE, STREAMS, WINDOWS, WSD
from training.execution import AUTO, COMPILE_CHOICES, TENSORBOARD, TRACKIO, ExecutionConfig, Tracking
from training.learning_rate import Rule

MAX_TOKENS = 10**10  # of a run: thousands of times the bundled corpus
TINY = 1e-12
RULE = "one value for all sizes, or coefficient and exponent of coefficient · N^-exponent, N non-embedding"


@dataclass
class ExecutionArguments:
    """How runs are executed."""

    dry_run: bool = option(False, "print what the runs will cost, and train nothing")
    num_parallel_runs: int = option(0, "runs side by side; 0: one a core on CPU, else one", least=0, most=1024)
    compile: str = option(AUTO, "torch.compile; auto: GPTs on a GPU, where a run is long", COMPILE_CHOICES)
    micro_batch_size: int = option(
        0, "sequences in a forward pass, the rest is accumulated; 0: what fits", least=0, most=2**20
    )
    checkpoint_seconds: float = option(20.0, "how often a run is saved", least=0, most=1e6)
    log_with: list[str] = option([TRACKIO], "trackers", [TRACKIO, TENSORBOARD, "none"])

    def __post_init__(self) -> None:
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
    warmup_tokens: int = option(20_000, "tokens of linear warm-up, whatever the budget", least=0, most=MAX_TOKENS)
    cooldown_fraction: float = option(
        0.2, "wsd: fraction of a run in which the learning rate falls", least=TINY, most=1
    )
    sequences: str = option(WINDOWS, "streams: stateful training of LSTMs", [WINDOWS, STREAMS])
    batch_size: int = option(4, "sequences in a step", least=1, most=2**20)
    context: int = option(256, "characters in a sequence", least=2, most=2**20)
    weight_decay: float = option(0.1, "decoupled, on matrices only", least=0, most=1e6)
    precision: str = option(
        AUTO, "auto: bf16 for sizes at least 128 wide where the processor has it", [AUTO, "fp32", "tf32", "bf16"]
    )


@dataclass
class StudyArguments(RecipeArguments):
    """The axes of a study: every size with every budget, fraction of the data and seed."""

    study: str = option("study", "the study's name in the table of runs")
    arm: str = option("ladders", "the arm's name there; of a file with several arms, the one to train")
    gpt_sizes: list[str] = option([], "sizes of GPTs", SIZES)
    lstm_sizes: list[str] = option([], "names of the GPT sizes they match", SIZES)
    seeds: list[int] = option([0], "one run for each size, budget and seed", least=0, most=2**31)
    tokens: list[int] = option([], "budgets: training tokens (characters); default: 2000000", least=1, most=MAX_TOKENS)
    flops: list[float] = option([], "budgets as training FLOPs: each size gets the tokens they buy", least=1, most=1e30)
    data_fraction: list[float] = option(
        [1.0], "fractions of the training tunes; 0.25 trains on tunes that are in 0.5", least=1e-9, most=1
    )
    gpt_lr_rule: list[float] = option(
        [], f"peak learning rates of GPTs instead of the schedule's: {RULE}", least=TINY, most=1e6
    )
    lstm_lr_rule: list[float] = option([], "the same for LSTMs", least=TINY, most=1e6)

    def __post_init__(self) -> None:
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
