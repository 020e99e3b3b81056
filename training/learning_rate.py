"""The learning rate: the rule for its peak by size, and its schedule over the steps of a run. Imports no torch."""

from math import cos, pi, sqrt

from training.config import COSINE, TRUNK, WSD, RunConfig

Rule = tuple[float, float]  # peak learning rate = coefficient · N^-exponent, N non-embedding
# Fitted to the sweeps in results/learning_rate_sweep_{schedule}.json.
RULES: dict[str, dict[str, Rule]] = {
    COSINE: {"gpt": (0.6201, 0.4317), "lstm": (0.5845, 0.3226)},
    WSD: {"gpt": (0.7596, 0.4822), "lstm": (0.6085, 0.3601)},
}


def peak_learning_rate(
    architecture: str, n_params_non_embedding: int, schedule: str = COSINE, rule: Rule | None = None
) -> float:
    """Return the peak learning rate of a size, by `rule` or by the schedule's own rule; a trunk has that of WSD."""
    coefficient, exponent = rule or RULES[WSD if schedule == TRUNK else schedule][architecture]
    return float(f"{coefficient * n_params_non_embedding**-exponent:.3g}")


def learning_rate_at(step: int, config: RunConfig) -> float:
    """Return the learning rate of `step` (from 0): linear warm-up, then the schedule, to the last step.

    Cosine: to `final_lr_fraction` of the peak. WSD: constant, then peak · (1 - sqrt(fraction of the cooldown done))
    (Hägele et al. 2024, section 3). Trunk: constant.
    """
    peak, steps, warmup = config.learning_rate, config.steps, config.warmup_steps
    if step < warmup:
        return peak * (step + 1) / warmup
    if config.schedule == COSINE:
        progress = (step - warmup) / max(1, steps - 1 - warmup)
        final = config.final_lr_fraction
        return peak * (final + (1 - final) * 0.5 * (1 + cos(pi * min(1.0, progress))))
    if config.schedule == TRUNK or step < config.cooldown_start:
        return peak
    return peak * (1 - sqrt((step - config.cooldown_start) / (steps - config.cooldown_start)))
