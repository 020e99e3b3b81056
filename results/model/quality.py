"""Validity of a tune, tier by tier. (The pipeline on the Hub packs this file: it imports the notation alone.)

A new tier is a row of TIERS and its condition in `score_tune`.
"""

from fractions import Fraction
from typing import Any, NamedTuple

from .notation import transcribe


class Tier(NamedTuple):
    """`failure` is the text of a tune whose first failed tier this is; {bad} of its {bars} bars do not add up."""

    label: str
    failure: str


TIERS = {
    # a K: field that names a key, and a note
    "parses": Tier("parses", "no tune: no key, or no note"),
    # nothing that is not ABC
    "no_errors": Tier("no errors", "not ABC in places"),
    # every bar is full, or is one of two halves at a repeat, a double bar or an ending
    "bars_add_up": Tier("bars add up", "{bad} of {bars} bars do not add up"),
    # as many notes as 99 % of human tunes or more, and as long rests or shorter
    "enough_notes": Tier("enough notes", "too few notes, or too many rests"),
    # the model ended the tune itself
    "ended": Tier("ended by itself", "not ended by the model: cut at a bar line"),
}
# Of the 740 validation tunes of the bundled corpus 99 % have as many notes or more, and as long rests or shorter.
MIN_NOTES = 19
MAX_REST_SHARE = Fraction(1, 6)


def score_tune(text: str, ended: bool) -> dict[str, Any]:
    """Return whether a tune passes each tier by itself, whether it passes all (`valid`), and the numbers behind them.

    `ended`: the model ended the tune itself.
    """
    transcript = transcribe(text)
    verdict = transcript.verdict
    sounds = [sound for part in transcript.parts for bar in part.bars for sound in bar.sounds]
    time = sum(sound.ticks for sound in sounds)
    rests = sum(sound.ticks for sound in sounds if not sound.pitches)
    tiers = {
        "parses": verdict.key is not None and bool(verdict.pitches),
        "no_errors": not verdict.errors,
        "bars_add_up": verdict.bars_add_up,
        "enough_notes": len(verdict.pitches) >= MIN_NOTES and rests <= MAX_REST_SHARE * time,
        "ended": ended,
    }
    return {
        **tiers,
        "valid": all(tiers.values()),
        "bars": verdict.bars,
        "good_bars_share": 1 - len(verdict.bad_bars) / verdict.bars if verdict.bars else 0.0,
        "notes": len(verdict.pitches),
        "rest_share": float(rests / time) if time else 0.0,
        "errors": verdict.errors[:5],
    }


def first_failure(verdict: dict[str, Any]) -> str | None:
    """Return the first tier that a verdict of `score_tune` fails, None for a valid tune."""
    return next((tier for tier in TIERS if not verdict[tier]), None)


def describe_failure(verdict: dict[str, Any]) -> str | None:
    """Return why a tune is not valid, by the first tier that it fails; None for a valid tune."""
    failed, bars = first_failure(verdict), verdict["bars"]
    bad = bars - round(verdict["good_bars_share"] * bars)
    return TIERS[failed].failure.format(bad=bad, bars=bars) if failed else None
