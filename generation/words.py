"""What is said of a tune: the first tier that it misses, and the training tune that it is most like."""

from typing import Any

from generation.memorisation import SEED, Trace
from generation.quality import TIERS

MISSED = {
    "parses": "no tune: no key, or no note",
    "no_errors": "not ABC in places",
    "bars_add_up": "of its {bars} bars {bad} do not add up",
    "enough_notes": "too few notes, or too many rests",
    "ended": "cut at a bar line, for the model did not end it",
}


def missed(verdict: dict[str, Any]) -> str | None:
    """Return the first tier that a verdict of :func:`generation.quality.score_tune` misses, None for a valid tune."""
    bars = verdict["bars"]
    bad = bars - round(verdict["good_bars_share"] * bars)
    words = next((MISSED[tier] for tier in TIERS if not verdict[tier]), None)
    return words and words.format(bad=bad, bars=bars)


def nearest(trace: Trace, sources: Any) -> str:
    """Return what a tune shares with the training tune that it is copied from, or else shares most with.

    `sources` are the rows of the training tunes, with their `title` and `file`.
    """
    place, shared = trace.source, f"{trace.longest_run} notes in a row"
    if trace.copied and trace.aligned_source not in (None, place):
        place, shared = trace.aligned_source, f"{trace.aligned} runs of {SEED} notes, each in its place,"
    if place is None:
        return f"at most {shared} of any training tune"
    return f"{shared} of {sources[place]['title'] or 'an untitled tune'} ({sources[place]['file']})"
