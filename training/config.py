"""`RunConfig`: everything that decides one run, and its hash. Imports no torch."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any, cast

from cli import UserError
from modeling.shapes import Shape

COSINE, WSD, TRUNK = "cosine", "wsd", "trunk"
SCHEDULES = (COSINE, WSD, TRUNK)
WINDOWS, STREAMS = "windows", "streams"
NAMES = ("size", "init_from")  # not in the hash: the shape and the hash of the starting weights say the same


def later(default: Any) -> Any:
    """Return a field of `RunConfig` that older records lack; `default` is the value that their runs had in effect.

    A record without the field is read as having the default, which is left out of the hash: old hashes stay.
    """
    return field(default=default, metadata={"later": True})


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    """Everything that decides a run: the same configuration, machine and versions give the same weights.

    No constant elsewhere changes the weights. `config_hash` is the only test of "the same run". A new field is declared
    with `later`. Raises UserError for an invalid value.
    """

    # data
    corpus: str  # hash of the vocabulary and of all splits
    n_keys: int  # keys of the training tunes; 1: not transposed
    data_fraction: float = 1.0  # of the families of training tunes; smaller fractions are parts of larger ones
    sequences: str = WINDOWS  # cut anywhere; streams: contiguous, with the LSTM's state passed on
    stream_groups: int = 16  # groups of contiguous streams that take turns, a step each
    context: int = 256  # tokens of a training sequence
    batch_size: int = 4  # sequences of a step
    # model
    architecture: str  # gpt or lstm
    size: str  # name of the size, or of the model it starts from
    n_layer: int
    width: int  # of a GPT's residual stream, of an LSTM's h and c
    n_head: int  # 0: an LSTM
    embedding_size: int
    init_std: float  # of a GPT's weights, of an LSTM's tied embedding
    activation: str = "gelu"  # of a GPT's feed-forward layers
    slowest_wave: float = 100.0  # ratio of the wavelengths in a GPT's initial position embedding
    forget_bias: float = 1.0  # of an LSTM, at initialisation
    dropout: float = 0.0
    init_from: str | None = None  # folder or Hub id of the starting weights
    init_sha256: str | None = None  # hash of them and of their model's configuration
    # optimisation
    tokens: int = 0  # training tokens to predict; rounded to whole steps
    learning_rate: float = 0.0  # its peak
    schedule: str = COSINE
    warmup_tokens: int = 20_000
    cooldown_tokens: int = 0  # of a WSD run
    final_lr_fraction: float = 0.01  # last learning rate of a cosine run, as a fraction of the peak
    weight_decay: float = 0.1  # decoupled, on matrices only
    beta1: float = 0.9
    beta2: float = 0.98
    adam_epsilon: float = 1e-8
    clip_norm: float = 1.0
    precision: str = "fp32"
    seed: int = 0

    def __post_init__(self) -> None:
        for f in fields(self):
            name, kind, value = f.name, cast(type, f.type), getattr(self, f.name)
            if kind is float and type(value) is int:
                object.__setattr__(self, name, float(value))
            elif not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
                raise UserError(f"{name} {value!r}: not {getattr(kind, '__name__', kind)}")
        if self.schedule not in SCHEDULES:
            raise UserError(f"schedule {self.schedule!r}: not one of {', '.join(SCHEDULES)}")
        if self.schedule != TRUNK and 0 < self.tokens < 2 * self.warmup_tokens:
            raise UserError(
                f"--warmup_tokens {self.warmup_tokens}: more than half of a budget of {self.tokens} tokens: give less"
            )
        if self.stateful and self.architecture == "gpt":
            raise UserError(f"--sequences {STREAMS}: a GPT ({self.size}) has no recurrent state, give LSTM sizes only")

    @property
    def stateful(self) -> bool:
        """Whether training is stateful: a sequence starts from the state at the end of the one before it."""
        return self.sequences == STREAMS

    @property
    def shape(self) -> Shape:
        """The shape of the model."""
        return Shape(self.n_layer, self.width, self.n_head, self.embedding_size, self.init_std)

    @property
    def tokens_per_step(self) -> int:
        """Tokens predicted in one step; the first token of a sequence is not predicted."""
        return self.batch_size * (self.context - 1)

    @property
    def steps(self) -> int:
        """Number of steps closest to `tokens`."""
        return steps_of(self.tokens, self.tokens_per_step)

    @property
    def warmup_steps(self) -> int:
        """Steps of linear warm-up."""
        return steps_of(self.warmup_tokens, self.tokens_per_step)

    @property
    def cooldown_start(self) -> int:
        """The step from which a WSD run's learning rate falls; up to it, all runs of one trunk are the same."""
        return max(0, self.steps - round(self.cooldown_tokens / self.tokens_per_step))

    def trunk(self, tokens: int = 0) -> "RunConfig":
        """Return the configuration of the trunk of a WSD run: the part that all budgets share."""
        return replace(self, schedule=TRUNK, tokens=tokens, cooldown_tokens=0)

    @property
    def config_hash(self) -> str:
        """The hash of all fields but NAMES and `later` ones at their default.

        Trunks of any length have the same hash, as they grow.
        """
        config, defaults = self.trunk() if self.schedule == TRUNK else self, self.later_defaults()
        values = {
            name: value
            for name, value in config.to_dict().items()
            if name not in NAMES and not (name in defaults and value == defaults[name])
        }
        return hashlib.sha256(json.dumps(values, sort_keys=True, allow_nan=False).encode()).hexdigest()[:16]

    def differences(self, other: "RunConfig") -> list[str]:
        """Return the fields in which `other` differs, with both values."""
        mine, theirs = self.to_dict(), other.to_dict()
        return [
            f"{name} {theirs[name]!r}, not {value!r}"
            for name, value in mine.items()
            if theirs[name] != value and name not in NAMES
        ]

    def to_dict(self) -> dict[str, Any]:
        """Return the configuration as a record holds it."""
        return asdict(self)

    @classmethod
    def later_defaults(cls) -> dict[str, Any]:
        """Return the fields declared with `later`, with their defaults."""
        return {f.name: f.default for f in fields(cls) if "later" in f.metadata}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "RunConfig":
        """Return the configuration of a record. Raises UserError naming a field that is missing or unknown."""
        values = cls.later_defaults() | dict(values)
        known = {f.name for f in fields(cls)}
        if unknown := sorted(values.keys() - known):
            raise UserError(f"config: unknown fields {', '.join(unknown)}: written by a newer version")
        if missing := sorted(known - values.keys()):
            raise UserError(f"config: no {', '.join(missing)}")
        return cls(**values)


def steps_of(tokens: int, tokens_per_step: int) -> int:
    """Return the number of steps closest to a number of tokens, at least 1."""
    return max(1, round(tokens / tokens_per_step))
