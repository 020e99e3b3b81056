"""Everything that decides one run: `RunConfig`, its hash, and the schedule of its learning rate. Imports no torch."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from math import cos, pi, sqrt
from typing import Any, cast

from cli import UserError

COSINE, WSD, TRUNK = "cosine", "wsd", "trunk"
SCHEDULES = (COSINE, WSD, TRUNK)
WINDOWS, STREAMS = "windows", "streams"
NAMES = ("size", "init_from")  # of what other fields decide: the shape, the hash of the starting weights
BEFORE = "before"  # metadata of a field that was added later: the value that older runs had


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    """Everything that decides a run: the same configuration, machine and versions give the same weights.

    No constant elsewhere changes the weights. `config_hash` is the only test of "the same run". A field that is added
    later needs `field(metadata={BEFORE: value})`, the value that older runs had: they stay readable and keep their
    hash. Raises UserError where a value has no meaning.
    """

    # data
    corpus: str  # hash of the vocabulary and of all splits
    n_keys: int  # keys in which the training tunes stand; 1: as they were found
    data_fraction: float  # of the families of training tunes; smaller fractions are parts of larger ones
    sequences: str  # windows: cut anywhere; streams: contiguous, the LSTM's state is carried from one to the next
    stream_groups: int  # groups of contiguous streams that take turns, a step each
    context: int  # tokens in a training sequence
    batch_size: int  # sequences a step
    # model
    architecture: str  # gpt or lstm
    size: str  # its name on the ladder, or that of the model it starts from
    n_layer: int
    width: int  # of a GPT's residual stream, of an LSTM's h and c
    n_head: int  # 0: an LSTM
    embedding_size: int
    init_std: float  # of a GPT's weights, of an LSTM's tied embedding
    activation: str  # of a GPT's feed-forward layers
    slowest_wave: float  # ratio of the wavelengths in a GPT's initial position table
    forget_bias: float  # of an LSTM, at initialisation
    dropout: float
    init_from: str | None  # folder or Hub id of the starting weights
    init_sha256: str | None  # hash of them and of their model's configuration
    # optimisation
    tokens: int  # training tokens to predict; rounded to whole steps
    learning_rate: float  # its peak
    schedule: str
    warmup_tokens: int
    cooldown_tokens: int  # of a WSD run
    final_lr_fraction: float  # of a cosine run: its last learning rate, as a fraction of the peak
    weight_decay: float  # decoupled, on matrices only
    beta1: float
    beta2: float
    adam_epsilon: float
    clip_norm: float
    precision: str
    seed: int

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
            raise UserError(f"--sequences {STREAMS}: a GPT ({self.size}) has no state to carry, give LSTM sizes only")

    @property
    def stateful(self) -> bool:
        """Whether the state at the end of a sequence is the start of the next one's."""
        return self.sequences == STREAMS

    @property
    def tokens_per_step(self) -> int:
        """Tokens predicted in one step: the first token of a sequence has nothing before it."""
        return self.batch_size * (self.context - 1)

    @property
    def steps(self) -> int:
        """Steps that come nearest to `tokens`."""
        return steps_of(self.tokens, self.tokens_per_step)

    @property
    def warmup_steps(self) -> int:
        """Steps of linear warm-up."""
        return steps_of(self.warmup_tokens, self.tokens_per_step)

    @property
    def cooldown_start(self) -> int:
        """The step from which a WSD run's learning rate falls: up to it, runs of one trunk are the same."""
        return max(0, self.steps - round(self.cooldown_tokens / self.tokens_per_step))

    def trunk(self, tokens: int = 0) -> "RunConfig":
        """Return the configuration of the trunk of a WSD run: this one without what its budgets differ in."""
        return replace(self, schedule=TRUNK, tokens=tokens, cooldown_tokens=0)

    @property
    def config_hash(self) -> str:
        """The hash of all fields but NAMES. Trunks of any length have the same one, as they grow."""
        config = self.trunk() if self.schedule == TRUNK else self
        values = {
            f.name: getattr(config, f.name)
            for f in fields(config)
            if f.name not in NAMES and (BEFORE not in f.metadata or getattr(config, f.name) != f.metadata[BEFORE])
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
        """Return the fields as a record holds them."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "RunConfig":
        """Return the configuration that a record holds. Raises UserError naming a field that is missing or unknown."""
        known = {f.name: f for f in fields(cls)}
        if unknown := sorted(values.keys() - known.keys()):
            raise UserError(f"config: unknown fields {', '.join(unknown)}: written by a newer version")
        before = {name: f.metadata[BEFORE] for name, f in known.items() if BEFORE in f.metadata}
        if missing := [name for name in known if name not in values and name not in before]:
            raise UserError(f"config: no {', '.join(missing)}")
        return cls(**before | dict(values))


def steps_of(tokens: int, tokens_per_step: int) -> int:
    """Return the steps that come nearest to a number of tokens, at least 1."""
    return max(1, round(tokens / tokens_per_step))


def learning_rate_at(step: int, config: RunConfig) -> float:
    """Return the learning rate of `step` (from 0): a linear warm-up, then what the schedule says, to the last step.

    Cosine: to `final_lr_fraction` of the peak. WSD: constant, then peak · (1 - sqrt(share of the cooldown done))
    (Hägele et al. 2024, section 3). Trunk: constant.
    """
    peak, steps, warmup = config.learning_rate, config.steps, config.warmup_steps
    if step < warmup:
        return peak * (step + 1) / warmup
    if config.schedule == COSINE:
        place = (step - warmup) / max(1, steps - 1 - warmup)
        final = config.final_lr_fraction
        return peak * (final + (1 - final) * 0.5 * (1 + cos(pi * min(1.0, place))))
    if config.schedule == TRUNK or step < config.cooldown_start:
        return peak
    return peak * (1 - sqrt((step - config.cooldown_start) / (steps - config.cooldown_start)))
