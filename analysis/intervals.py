"""95 % confidence intervals, for the whole project: shares, means, bootstrap percentiles, the jackknife (no torch)."""

from collections.abc import Callable, Sequence
from math import inf, sqrt
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import norm
from scipy.stats import t as student

Array = NDArray[np.float64]
Interval = tuple[float | None, float | None]  # None: open on that side

LEVEL = 0.95
EDGES = ((1 - LEVEL) / 2, (1 + LEVEL) / 2)
MAX_FAILED = 0.02  # of the resamples; with more the interval is open
Z = float(norm.ppf(EDGES[1]))


def wilson(share: float, total: float) -> tuple[float, float]:
    """Return the interval of a share of `total` trials, which need not be a whole number (Wilson 1927)."""
    if not total:
        return 0.0, 1.0
    centre = (share + Z**2 / (2 * total)) / (1 + Z**2 / total)
    half = Z / (1 + Z**2 / total) * sqrt(share * (1 - share) / total + Z**2 / (4 * total * total))
    return max(0.0, centre - half), min(1.0, centre + half)


def mean_intervals(groups: Sequence[Array]) -> list[tuple[float, Interval]]:
    """Return the mean of each group and its interval by Student's t, with one variance pooled over the groups.

    The intervals are (None, None) where no group has two values.
    """
    degrees = sum(len(group) - 1 for group in groups)
    squares = sum(float(((group - group.mean()) ** 2).sum()) for group in groups)
    reach = float(student.ppf(EDGES[1], degrees)) * sqrt(squares / degrees) if degrees else None
    found: list[tuple[float, Interval]] = []
    for group in groups:
        mean, half = float(group.mean()), None if reach is None else reach / sqrt(len(group))
        found.append((mean, (None, None) if half is None else (mean - half, mean + half)))
    return found


def percentiles(samples: Array, degrees: float = inf) -> Interval:
    """Return the two-sided percentile interval of bootstrap estimates, [resamples].

    Plain percentiles are too narrow with few clusters (Hesterberg 2015), so they are read where Student's t of
    `degrees` degrees of freedom lies on the normal distribution. The interval is open if more than 2 % of the
    estimates are not finite.
    """
    found = samples[np.isfinite(samples)]
    if not len(found) or len(found) < (1 - MAX_FAILED) * len(samples):
        return None, None
    share = norm.cdf(student.ppf(EDGES[0], degrees))
    low, high = np.quantile(found, (share, 1 - share))
    return float(low), float(high)


def jackknife(value: float, without_one: Array) -> Interval:
    """Return the delete-one jackknife interval of a value from the values with one group left out, [groups].

    Source: Efron & Tibshirani 1993, chapter 11, with Student's t of groups - 1 degrees of freedom. It is open with
    fewer than two groups, or if an estimate is not finite.
    """
    count = len(without_one)
    if count < 2 or not np.isfinite(without_one).all():
        return None, None
    error = sqrt((count - 1) / count * float(((without_one - without_one.mean()) ** 2).sum()))
    reach = float(student.ppf(EDGES[1], count - 1)) * error
    return value - reach, value + reach


def bootstrap(statistic: Callable[..., Any], values: Array, resamples: int, seed: int) -> Interval:
    """Return the percentile interval of `statistic(values, axis=…)` over resamples of values, [values]."""
    draws = np.random.default_rng(seed).integers(len(values), size=(resamples, len(values)))
    return percentiles(statistic(values[draws], axis=1))
