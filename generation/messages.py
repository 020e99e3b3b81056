"""Short texts about a tune: the first tier of validity that it fails, and the training tune most like it."""

from typing import Any

from generation.memorisation import SEED, Trace
from generation.quality import TIERS

FAILURES = {
    "parses": "no tune: no key, or no note",
    "no_errors": "not ABC in places",
    "bars_add_up": "{bad} of {bars} bars do not add up",
    "enough_notes": "too few notes, or too many rests",
    "ended": "not ended by the model: cut at a bar line",
}


def describe_failure(verdict: dict[str, Any]) -> str | None:
    """Return the first tier that a verdict of `generation.quality.score_tune` fails, None for a valid tune."""
    bars = verdict["bars"]
    bad = bars - round(verdict["good_bars_share"] * bars)
    failed = next((tier for tier in TIERS if not verdict[tier]), None)
    return FAILURES[failed].format(bad=bad, bars=bars) if failed else None


def describe_copy(trace: Trace, training: Any) -> str:
    """Return what a tune shares with the training tune that it copies, or else shares most with.

    `training` are the rows of the training tunes, with `title` and `file`.
    """
    source, shared = trace.source, f"{trace.longest_run} notes in a row"
    if trace.copied and trace.aligned_source not in (None, source):
        source, shared = trace.aligned_source, f"{trace.aligned} aligned runs of {SEED} notes"
    if source is None:
        return f"at most {shared} of any training tune"
    return f"{shared} of {training[source]['title'] or 'an untitled tune'} ({training[source]['file']})"
