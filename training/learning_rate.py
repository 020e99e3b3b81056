"""The rule for peak learning rates LR(N), one for each schedule and architecture."""

from training.config import COSINE, TRUNK, WSD

Rule = tuple[float, float]  # peak learning rate = coefficient · N^-exponent, N non-embedding
# Fitted to the sweeps in results/rate_sweep_{schedule}.json.
RULES: dict[str, dict[str, Rule]] = {
    COSINE: {"gpt": (0.6201, 0.4317), "lstm": (0.5845, 0.3226)},
    WSD: {"gpt": (0.7596, 0.4822), "lstm": (0.6085, 0.3601)},
}


def learning_rate(
    architecture: str, n_params_non_embedding: int, schedule: str = COSINE, rule: Rule | None = None
) -> float:
    """Return the peak learning rate of an architecture at a size; a trunk has that of its branches.

    `rule` replaces the schedule's own.
    """
    coefficient, exponent = rule or RULES[WSD if schedule == TRUNK else schedule][architecture]
    return float(f"{coefficient * n_params_non_embedding**-exponent:.3g}")
