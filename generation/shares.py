"""Shares of tunes that are valid or copied from the training set, with 95 % intervals, as quality.json has them."""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from analysis.intervals import bootstrap, wilson
from generation.memorisation import NGRAMS, Memory, Trace
from generation.quality import TIERS
from preprocessing.notation import judge

OVERLAP = 9  # the n-grams of the summary: human tunes share 38 % of them, so the share can rise and fall


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


def summarise(traces: Sequence[Trace], resamples: int = 1000, seed: int = 0) -> dict[str, Any]:
    """Return the share of copied tunes and the numbers over all tunes, with 95 % bootstrap intervals over tunes.

    `longest_copied_run`: median, notes; `long_runs` and `ngram_overlap` (of OVERLAP notes): means of the tunes' shares.
    Tunes too short for an n-gram are left out of its mean; it is None if all are.
    """

    def estimate(statistic: Any, values: Iterable[float | None]) -> dict[str, Any]:
        known = np.array([value for value in values if value is not None], float)
        if not known.size:
            return {"value": None, "interval": None}
        return {"value": float(statistic(known)), "interval": bootstrap(statistic, known, resamples, seed)}

    overlaps = {n: estimate(np.mean, (trace.ngrams[n] for trace in traces)) for n in NGRAMS}
    return {
        "copied": share(sum(trace.copied for trace in traces), len(traces)),
        "longest_copied_run": estimate(np.median, (trace.longest_run for trace in traces)),
        "long_runs": estimate(np.mean, (trace.long_runs for trace in traces)),
        "ngram_overlap": overlaps[OVERLAP],
        "ngram_overlaps": {str(n): overlap for n, overlap in overlaps.items()},
    }


def originality(samples: Sequence[str], training: Sequence[str]) -> dict[str, Any]:
    """Return the summary of `samples` against `training`, both ABC texts, and the trace of each sample as `tunes`."""
    memory = Memory(judge(text).pitches for text in training)
    traces = [memory.recall(judge(text).pitches) for text in samples]
    return {**summarise(traces), "tunes": [trace.as_dict() for trace in traces]}
