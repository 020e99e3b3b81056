"""The base class of the evaluate metrics of tunes. (evaluate takes seconds to import: nothing else imports this.)"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import datasets
import evaluate


class TuneMetric(evaluate.Metric, ABC):
    """A metric of tunes in ABC. (It is abstract: evaluate.load takes the class that inherits from it.)"""

    @abstractmethod
    def score(self, tunes: Sequence[str], references: Sequence[str] | None, *_: Any, **options: Any) -> dict[str, Any]:
        """Return the metric as plain numbers, lists and dictionaries; each metric names its own options."""

    def describe(self, description: str, inputs: str, citation: str) -> evaluate.MetricInfo:
        """Return what evaluate has to know. References are no feature: features would have to be equally many."""
        features = datasets.Features({"predictions": datasets.Value("string")})
        return evaluate.MetricInfo(description, citation, features, inputs)

    def compute(
        self, *, predictions: Sequence[str] | None = None, references: Sequence[str] | None = None, **options: Any
    ) -> dict[str, Any] | None:
        """Compute the metric of `predictions`, or of the tunes that add_batch has collected.

        Raises ValueError with one line for an argument that is not a list of tunes.
        """
        for name, tunes in (("predictions", predictions), ("references", references)):
            if tunes is not None:
                check_tunes(name, tunes)
        result: dict[str, Any] | None = super().compute(predictions=predictions, compared_with=references, **options)
        return result

    def _compute(
        self, *, predictions: Sequence[str], compared_with: Sequence[str] | None, **options: Any
    ) -> dict[str, Any]:
        return self.score(predictions, compared_with, **options)


def check_tunes(name: str, tunes: Sequence[str] | None) -> Sequence[str]:
    """Return `tunes`. Raises ValueError with one line unless it is a list of at least one string."""
    if not isinstance(tunes, Sequence) or isinstance(tunes, str) or not tunes:
        raise ValueError(f"{name}: give a list of at least one tune, each the text of its ABC")
    for i, tune in enumerate(tunes):
        if not isinstance(tune, str):
            raise ValueError(f"{name}[{i}]: give the text of a tune's ABC, not {type(tune).__name__}")
    return tunes
