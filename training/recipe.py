"""The recipe: everything that decides one run, the rate rule LR(N), the schedules and the optimiser."""

from dataclasses import dataclass, replace
from math import cos, pi, sqrt
from typing import Any

import torch
from torch import nn

from door import DoorError
from training.record import TRUNK

BETAS = (0.9, 0.98)
CLIP_NORM = 1.0
WARMUP_SHARE = 0.02
FINAL_RATE_SHARE = 0.01
COOLDOWN_SHARE = 0.2  # of a WSD run (Hägele et al. 2024, section 3)
COSINE, WSD = "cosine", "wsd"


@dataclass(frozen=True)
class Recipe:
    """What decides one run: with the same corpus, machine and versions, the same recipe gives the same weights.

    `schedule`: cosine; wsd (warm-up, constant, 1-sqrt cooldown), which may start from a checkpoint of the trunk that
    it shares with other budgets; or trunk, the constant part alone. `warmup` is in steps. `one_in` trains on every
    one_in-th family of tunes only, and these parts are nested. With `carry_state` (LSTM) the windows of a batch's row
    follow each other, each from the state that the one before it ended in. `init_from` is a folder or a Hub id.
    Raises DoorError if a GPT is to carry state.
    """

    architecture: str
    size: str
    seed: int
    tokens: int
    batch_size: int
    context: int
    learning_rate: float
    weight_decay: float
    warmup: int
    dropout: float = 0.0
    schedule: str = COSINE
    one_in: int = 1
    carry_state: bool = False
    precision: str = "fp32"
    init_from: str | None = None

    def __post_init__(self) -> None:
        if self.carry_state and self.architecture == "gpt":
            raise DoorError(f"--carry_state: a GPT ({self.size}) has no state to carry, give LSTM sizes only")

    @property
    def tokens_per_step(self) -> int:
        """Tokens predicted in one step: the first token of a window has nothing before it."""
        return self.batch_size * (self.context - 1)

    @property
    def steps(self) -> int:
        """Steps that reach `tokens`."""
        return steps_of(self.tokens, self.batch_size, self.context)

    @property
    def cooldown_start(self) -> int:
        """The step from which a WSD run's rate falls: up to it, runs of one trunk are the same."""
        return self.steps - round(COOLDOWN_SHARE * self.steps)

    def trunk(self, tokens: int = 0) -> "Recipe":
        """Return the trunk's recipe: this one without what sets the budgets of one trunk apart."""
        return replace(self, schedule=TRUNK, tokens=tokens)


def steps_of(tokens: int, batch_size: int, context: int) -> int:
    """Return the steps that reach a number of tokens."""
    return max(1, round(tokens / (batch_size * (context - 1))))


def warmup_steps(steps: int) -> int:
    """Return the steps of warm-up of a run of `steps`; budgets that share a trunk take the smallest one's."""
    return max(1, round(WARMUP_SHARE * steps))


RateRule = tuple[float, float]  # peak rate = coefficient · N^-exponent, N without tables
# Fitted to the sweeps in results/rate_sweep_{schedule}.json.
RATE_RULES: dict[str, dict[str, RateRule]] = {
    COSINE: {"gpt": (0.6201, 0.4317), "lstm": (0.5845, 0.3226)},
    WSD: {"gpt": (0.7596, 0.4822), "lstm": (0.6085, 0.3601)},
}


def learning_rate(
    architecture: str, n_params_non_embedding: int, schedule: str = COSINE, rule: RateRule | None = None
) -> float:
    """Return the peak learning rate of an architecture at a size; a trunk has the rate of its branches.

    `rule` stands in for the one of the schedule.
    """
    coefficient, exponent = rule or RATE_RULES[WSD if schedule == TRUNK else schedule][architecture]
    return float(f"{coefficient * n_params_non_embedding**-exponent:.3g}")


def rate_at(step: int, recipe: Recipe) -> float:
    """Return the rate of `step` (from 0): a linear warm-up, then what the schedule says, to the last step.

    Cosine: to FINAL_RATE_SHARE of the peak. WSD: constant, then peak · (1 - sqrt(share of the cooldown done)).
    """
    peak, steps = recipe.learning_rate, recipe.steps
    if step < recipe.warmup:
        return peak * (step + 1) / recipe.warmup
    if recipe.schedule == COSINE:
        place = (step - recipe.warmup) / max(1, steps - 1 - recipe.warmup)
        return peak * (FINAL_RATE_SHARE + (1 - FINAL_RATE_SHARE) * 0.5 * (1 + cos(pi * min(1.0, place))))
    if recipe.schedule == TRUNK or step < recipe.cooldown_start:
        return peak
    return peak * (1 - sqrt((step - recipe.cooldown_start) / (steps - recipe.cooldown_start)))


def build_optimizer(model: nn.Module, weight_decay: float, **options: Any) -> torch.optim.AdamW:
    """Return fused AdamW that decays the matrices of products only, not tables, biases or norms."""
    tables = {id(p) for m in model.modules() if isinstance(m, nn.Embedding) for p in m.parameters()}
    parameters = [p for p in model.parameters() if p.requires_grad]
    decayed = [p for p in parameters if p.ndim > 1 and id(p) not in tables]
    others = [p for p in parameters if p.ndim <= 1 or id(p) in tables]
    groups = [{"params": decayed, "weight_decay": weight_decay}, {"params": others, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=0.0, betas=BETAS, fused=True, **options)
