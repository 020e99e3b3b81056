"""Distances between two sets of tunes, as an evaluate metric: evaluate.load("generation/tune_statistics")."""

from collections.abc import Sequence
from typing import Any

import evaluate

from generation.distances import distances, features
from generation.tune_metric import TuneMetric, check_tunes

DESCRIPTION = "Distances between the pitches, rhythms, lengths, keys and metres of two sets of tunes in ABC notation."
INPUTS = """
Args:
    predictions (list of str): tunes, each the text of its ABC, header and body.
    references (list of str): tunes to compare with, such as a test set. Any number of them.
    resamples (int, optional): bootstrap resamples of the predictions. Default 1000.
    seed (int, optional): of the bootstrap. Default 0.

Returns:
    dict: for each statistic its distance "value", its 95 % bootstrap "interval" and the number of "tunes".
"""
CITATION = "Yang & Lerch 2020, Neural Computing and Applications 32, 4773, https://doi.org/10.1007/s00521-018-3849-7"


class TuneStatistics(TuneMetric):
    """Distances between the statistics of tunes and of the references."""

    def _info(self) -> evaluate.MetricInfo:
        return self.describe(DESCRIPTION, INPUTS, CITATION)

    def score(
        self, tunes: Sequence[str], references: Sequence[str] | None, resamples: int = 1000, seed: int = 0
    ) -> dict[str, Any]:
        """Return the result of `distances`. Raises ValueError without references that have notes."""
        compared = features(check_tunes("references", references))
        if not compared["length"].any():
            raise ValueError("references: none of these tunes has a note")
        return distances(features(tunes), compared, resamples, seed)
