"""The recipe: everything that decides one run, the rate rule LR(N), the optimiser and the schedule."""

from dataclasses import dataclass
from math import cos, pi

import torch
from torch import nn

BETAS = (0.9, 0.98)
CLIP_NORM = 1.0
WARMUP_SHARE = 0.02
FINAL_RATE_SHARE = 0.01


@dataclass(frozen=True)
class Recipe:
    """What decides one run: with the same corpus, machine and versions, the same recipe gives the same weights."""

    architecture: str
    size: str
    seed: int
    tokens: int
    batch_size: int
    context: int
    learning_rate: float
    weight_decay: float
    dropout: float = 0.0
    init_from: str | None = None

    @property
    def tokens_per_step(self) -> int:
        """Tokens predicted in one step: the first token of a window has nothing before it."""
        return self.batch_size * (self.context - 1)

    @property
    def steps(self) -> int:
        """Steps that reach `tokens`."""
        return max(1, round(self.tokens / self.tokens_per_step))


# Peak rate = coefficient · N^-exponent, N without tables; fitted to the sweep in results/rate_sweep.json.
RATE_RULES = {"gpt": (3.531, 0.5847), "lstm": (0.5081, 0.2993)}


def learning_rate(architecture: str, n_params_non_embedding: int) -> float:
    """Return the peak learning rate of an architecture at a size."""
    coefficient, exponent = RATE_RULES[architecture]
    return float(f"{coefficient * n_params_non_embedding**-exponent:.3g}")


def rate_at(step: int, steps: int, peak: float) -> float:
    """Return the rate of `step` (from 0): a linear warm-up, then a cosine that ends at the last step."""
    warmup = max(1, round(WARMUP_SHARE * steps))
    if step < warmup:
        return peak * (step + 1) / warmup
    place = (step - warmup) / max(1, steps - 1 - warmup)
    return peak * (FINAL_RATE_SHARE + (1 - FINAL_RATE_SHARE) * 0.5 * (1 + cos(pi * min(1.0, place))))


def build_optimizer(model: nn.Module, weight_decay: float) -> torch.optim.AdamW:
    """Return fused AdamW that decays the matrices of products only, not tables, biases or norms."""
    tables = {id(p) for m in model.modules() if isinstance(m, nn.Embedding) for p in m.parameters()}
    parameters = [p for p in model.parameters() if p.requires_grad]
    decayed = [p for p in parameters if p.ndim > 1 and id(p) not in tables]
    others = [p for p in parameters if p.ndim <= 1 or id(p) in tables]
    groups = [{"params": decayed, "weight_decay": weight_decay}, {"params": others, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=0.0, betas=BETAS, fused=True)
