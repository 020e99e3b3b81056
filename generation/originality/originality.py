"""How much tunes copy from a training set, as an evaluate metric: evaluate.load("generation/originality")."""

from collections.abc import Sequence
from typing import Any

import evaluate

from generation.shares import originality
from generation.tune_metric import TuneMetric, check_tunes

DESCRIPTION = "How much tunes in ABC notation copy from training tunes, in any key and any rhythm."
INPUTS = """
Args:
    predictions (list of str): tunes, each the text of its ABC, header and body.
    references (list of str): all tunes of the training set. Any number of them.

Returns:
    dict: "copied" ("count", "total", "share", "interval"); "longest_copied_run", "long_runs", "ngram_overlap" and, for
    each n, "ngram_overlaps" ("value", "interval"); "tunes", the numbers and sources of each prediction.
"""
CITATION = "Yin, Reuben, Stepney & Collins 2022, SN Computer Science 3, 340, https://doi.org/10.1007/s42979-022-01220-y"


class Originality(TuneMetric):
    """How much tunes copy from the references, their training set."""

    def _info(self) -> evaluate.MetricInfo:
        return self.describe(DESCRIPTION, INPUTS, CITATION)

    def score(self, tunes: Sequence[str], references: Sequence[str] | None) -> dict[str, Any]:
        """Return the result of `originality`. Raises ValueError without references."""
        return originality(tunes, check_tunes("references", references))
