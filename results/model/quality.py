"""How many tunes are valid, tier by tier, with intervals, and the same test on tunes that people wrote.

parses        a K: field that names a key, and a note
no_errors     nothing in it that is not ABC
bars_add_up   every bar is full, or one of two halves at a repeat, a double bar or an ending
enough_notes  as many notes, and no more time in rests, than 99 % of the tunes that people wrote
ended         by itself
"""

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from math import sqrt
from typing import Any

from .notation import transcribe

TIERS = ("parses", "no_errors", "bars_add_up", "enough_notes", "ended")
# Of the 740 validation tunes of the bundled corpus 99 % have as many notes or more, and as long rests or shorter.
MIN_NOTES = 19
MAX_REST_SHARE = Fraction(1, 6)
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
        """Return it for a record; of nothing the share is None, as JSON knows no NaN."""
        share = self.value if self.total else None
        return {"count": self.count, "total": self.total, "share": share, "interval": self.interval}


def score_tune(text: str, ended: bool) -> dict[str, Any]:
    """Return each tier of one tune by itself, and the numbers behind them. `ended`: the model closed it itself."""
    transcript = transcribe(text)
    verdict = transcript.verdict
    sounds = [sound for part in transcript.parts for bar in part.bars for sound in bar.sounds]
    time = sum(sound.ticks for sound in sounds)
    rests = sum(sound.ticks for sound in sounds if not sound.pitches)
    score = {
        "parses": verdict.key is not None and bool(verdict.pitches),
        "no_errors": not verdict.errors,
        "bars_add_up": verdict.bars_add_up,
        "enough_notes": len(verdict.pitches) >= MIN_NOTES and rests <= MAX_REST_SHARE * time,
        "ended": ended,
    }
    return {
        **score,
        "valid": all(score.values()),
        "bars": verdict.bars,
        "good_bars_share": 1 - len(verdict.bad_bars) / verdict.bars if verdict.bars else 0.0,
        "notes": len(verdict.pitches),
        "rest_share": float(rests / time) if time else 0.0,
        "errors": verdict.errors[:5],
    }


def shares(scores: Sequence[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Return the share of tunes that pass each tier and all before it; `valid` is the last, that of all tiers."""
    passed = list(scores)
    table = {}
    for tier in TIERS:
        passed = [score for score in passed if score[tier]]
        table[tier] = Share(len(passed), len(scores)).as_dict()
    return {**table, "valid": table[TIERS[-1]]}
