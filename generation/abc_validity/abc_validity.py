"""How many tunes are valid ABC, tier by tier, as an evaluate metric: evaluate.load("generation/abc_validity")."""

from collections.abc import Sequence
from typing import Any

import evaluate

from generation.quality import score_tune, shares
from generation.tune_metric import TuneMetric

DESCRIPTION = "The shares of tunes in ABC notation that pass each tier of validity, with 95 % Wilson intervals."

INPUTS = """
Args:
    predictions (list of str): tunes, each the text of its ABC, header and body.
    references (list of str, optional): tunes that people wrote, put through the same test. Any number of them.
    ended (list of bool, optional): for each prediction whether the model ended it itself. Left out: all did.

Returns:
    dict: for each tier "count", "total", "share" and "interval"; with references the same for them in "references".
"""

CITATION = """
@misc{abcstandard,
  title = {The ABC music standard 2.1},
  author = {Walshaw, Chris},
  year = {2011},
  url = {https://abcnotation.com/wiki/abc:standard:v2.1}
}
"""


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
            raise ValueError(f"ended: give one truth value a tune ({len(tunes)} tunes, {len(ended)} values)")
        table = shares([score_tune(tune, bool(by_itself)) for tune, by_itself in zip(tunes, ended, strict=True)])
        if references is None:
            return table
        return {**table, "references": shares([score_tune(tune, ended=True) for tune in references])}
