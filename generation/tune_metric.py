"""What the evaluate metrics of tunes share. (evaluate takes seconds to import: nothing else imports this.)"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import datasets
import evaluate


class TuneMetric(evaluate.Metric, ABC):
    """A metric of tunes, each the text of its ABC. (It is abstract: evaluate.load takes what inherits from it.)"""

    @abstractmethod
    def score(self, tunes: Sequence[str], references: Sequence[str] | None, *_: Any, **options: Any) -> dict[str, Any]:
        """Return the metric as plain numbers, lists and dictionaries; each metric names the options that it takes."""

    def describe(self, description: str, inputs: str, citation: str) -> evaluate.MetricInfo:
        """Return what evaluate has to know. References are not among the features, which would force one length."""
        features = datasets.Features({"predictions": datasets.Value("string")})
        return evaluate.MetricInfo(description, citation, features, inputs)

    def compute(
        self, *, predictions: Sequence[str] | None = None, references: Sequence[str] | None = None, **options: Any
    ) -> dict[str, Any] | None:
        """Compute the metric of `predictions`, or of what add_batch has collected.

        Raises ValueError of one line if an argument is not a list of tunes.
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
    """Return `tunes`. Raises ValueError of one line unless it is a list of strings with something in it."""
    if not isinstance(tunes, Sequence) or isinstance(tunes, str) or not tunes:
        raise ValueError(f"{name}: give a list of at least one tune, each the text of its ABC")
    for i, tune in enumerate(tunes):
        if not isinstance(tune, str):
            raise ValueError(f"{name}[{i}]: give the text of a tune's ABC, not {type(tune).__name__}")
    return tunes
