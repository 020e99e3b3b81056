"""How many tunes are valid, with intervals, and the same test on tunes that people wrote."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import sqrt
from typing import Any

from preprocessing.notation import judge

Z95 = 1.959963984540054


@dataclass(frozen=True)
class Share:
    """A share of tunes with its 95 % Wilson (1927) interval."""

    count: int
    total: int

    @property
    def value(self) -> float:
        return self.count / self.total if self.total else float("nan")

    @property
    def interval(self) -> tuple[float, float]:
        if not self.total:
            return 0.0, 1.0
        n, p = self.total, self.value
        centre = (p + Z95**2 / (2 * n)) / (1 + Z95**2 / n)
        half = Z95 / (1 + Z95**2 / n) * sqrt(p * (1 - p) / n + Z95**2 / (4 * n * n))
        return max(0.0, centre - half), min(1.0, centre + half)

    def as_dict(self) -> dict[str, Any]:
        return {"count": self.count, "total": self.total, "share": self.value, "interval": self.interval}


def score_tune(text: str, ended: bool) -> dict[str, Any]:
    """Return the verdict of one tune as numbers. `ended`: the model closed it itself."""
    verdict = judge(text)
    return {
        "parses": verdict.parses,
        "bars_add_up": verdict.bars_add_up,
        "ended": ended,
        "valid": verdict.bars_add_up and ended,
        "bars": verdict.bars,
        "good_bars_share": 1 - len(verdict.bad_bars) / verdict.bars if verdict.bars else 0.0,
        "notes": len(verdict.pitches),
        "errors": verdict.errors[:5],
    }


def shares(scores: Sequence[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Return the share of tunes that pass each tier."""
    return {
        tier: Share(sum(score[tier] for score in scores), len(scores)).as_dict()
        for tier in ("parses", "bars_add_up", "ended", "valid")
    }
