"""Shares of valid tunes, tier by tier, as an evaluate metric: evaluate.load("generation/abc_validity")."""

from collections.abc import Sequence
from typing import Any

import evaluate

from generation.quality import score_tune
from generation.shares import tier_shares
from generation.tune_metric import TuneMetric

DESCRIPTION = "The shares of tunes in ABC notation that pass each tier of validity, with 95 % Wilson intervals."
INPUTS = """
Args:
    predictions (list of str): tunes, each the text of its ABC, header and body.
    references (list of str, optional): human tunes, put through the same test. Any number of them.
    ended (list of bool, optional): for each prediction whether the model ended it itself. Default: all did.

Returns:
    dict: for each tier "count", "total", "share" and "interval"; with references the same for them in "references".
"""
CITATION = "Walshaw 2011, The ABC music standard 2.1, https://abcnotation.com/wiki/abc:standard:v2.1"


class AbcValidity(TuneMetric):
    """The shares of tunes that pass each tier of validity."""

    def _info(self) -> evaluate.MetricInfo:
        return self.describe(DESCRIPTION, INPUTS, CITATION)

    def score(
        self, tunes: Sequence[str], references: Sequence[str] | None, ended: Sequence[bool] | None = None
    ) -> dict[str, Any]:
        """Return the shares of the tiers. Raises ValueError if `ended` has another length than `tunes`."""
        ended = [True] * len(tunes) if ended is None else ended
        if len(ended) != len(tunes):
            raise ValueError(f"ended: give one boolean a tune ({len(tunes)} tunes, {len(ended)} values)")
        table: dict[str, Any] = tier_shares(
            [score_tune(tune, bool(end)) for tune, end in zip(tunes, ended, strict=True)]
        )
        if references is not None:
            table["references"] = tier_shares([score_tune(tune, ended=True) for tune in references])
        return table
