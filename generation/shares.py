"""Shares of tunes with 95 % Wilson intervals, in the form of quality.json and the evaluate metrics."""

from collections.abc import Sequence
from typing import Any

from analysis.intervals import wilson
from generation.quality import TIERS


def share(count: int, total: int) -> dict[str, Any]:
    """Return a share with its count, total and interval; the share of no tunes is None."""
    value = count / total if total else None
    return {"count": count, "total": total, "share": value, "interval": wilson(value or 0.0, total)}


def tier_shares(scores: Sequence[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Return the share of scored tunes that pass each tier and all before it; `valid` is that of all tiers."""
    passed = list(scores)
    table = {}
    for tier in TIERS:
        passed = [score for score in passed if score[tier]]
        table[tier] = share(len(passed), len(scores))
    return table | {"valid": share(len(passed), len(scores))}
