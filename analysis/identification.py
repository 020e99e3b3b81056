"""Which parameters of a fit the data identify, by a fixed list of verdicts."""

from dataclasses import dataclass

import numpy as np

from analysis.intervals import Interval, jackknife, percentiles
from analysis.laws import Array, Law, Parameter
from analysis.optimiser import SMALLEST_SHARE
from analysis.profiles import Profile

SPARE_CLUSTERS = 4  # more than parameters
SMALLEST_E = 1e-3  # of the least loss; below, E is not distinguished from zero
# While the first is not identified, neither are the others: they can compensate for it.
DEPENDENT = (
    ("alpha", {"A", "E"}),
    ("beta", {"B", "d", "E"}),
    ("k", {"B", "d"}),
    ("E", {"A", "alpha", "B", "beta", "d"}),
)


@dataclass
class Estimate:
    """One parameter with its standard error, 95 % intervals, and the reason if it is not identified.

    `bootstrap` resamples clusters and measures their noise; `jackknife` leaves out one size at a time and also measures
    misfit; in `profile` the other parameters are fitted again. A side without a bound is None.
    """

    value: float
    standard_error: float | None
    bootstrap: Interval
    jackknife: Interval
    profile: Interval
    identified: bool
    reason: str | None


def parameters_at_bound(law: Law, theta: Array, shares: Array) -> list[str]:
    """Return the parameters that lie at a bound, and the coefficients of terms that have vanished.

    `shares` [parameters] is the largest share of the loss, over points, that each parameter moves.
    """
    return [
        parameter.name
        for parameter, value, share in zip(law.parameters, theta, shares, strict=True)
        if (parameter.linear and parameter.scale == "log" and not share >= SMALLEST_SHARE)
        or value in (parameter.lower, parameter.upper)
    ]


def estimate_parameters(
    law: Law,
    theta: Array,
    samples: tuple[Array, Array],
    profiles: list[Profile],
    degrees_of_freedom: int,
    lowest: Array,
    doubts: list[str | None],
) -> dict[str, Estimate]:
    """Return every parameter with its intervals and its verdict.

    `samples` are theta of the resamples [resamples, parameters] and of fits without a size [sizes, parameters].
    `lowest` [parameters] is what the intervals have to stay above, `doubts` are reasons known without intervals.
    """
    resampled, without_one = samples
    finite = resampled[np.isfinite(resampled).all(axis=1)]
    estimates = {}
    for i, parameter in enumerate(law.parameters):
        value = float(theta[i])
        intervals = {
            "bootstrap": percentiles(resampled[:, i], degrees_of_freedom),
            "jackknife": jackknife(value, without_one[:, i]),
            "profile": profiles[i].interval,
        }
        reason = doubts[i] or _doubt(parameter, float(lowest[i]), intervals)
        error = _finite(parameter.shown(finite[:, i]).std(ddof=1)) if len(finite) > 1 else None
        shown = {name: _shown(parameter, interval) for name, interval in intervals.items()}
        estimates[parameter.name] = Estimate(
            float(parameter.shown(value)), error, **shown, identified=reason is None, reason=reason
        )
    for first, others in DEPENDENT:
        for name in others & estimates.keys():
            if first in estimates and not estimates[first].identified and estimates[name].identified:
                estimates[name].identified = False
                estimates[name].reason = f"it depends on {first}, which is not identified"
    return estimates


def lowest_values(law: Law, theta: Array, shares: Array, least_loss: float) -> Array:
    """Return the values above which intervals have to stay: [parameters].

    That is zero for E and exponents, a vanishing term for coefficients, and the lower bound for the others.
    """

    def lowest(parameter: Parameter, value: float, share: float) -> float:
        if parameter.name == "E":
            return SMALLEST_E * least_loss
        if parameter.name in ("alpha", "beta"):
            return 0.0
        return value + float(np.log(SMALLEST_SHARE / share)) if parameter.linear else parameter.lower

    return np.array([lowest(*each) for each in zip(law.parameters, theta, shares, strict=True)])


def _doubt(parameter: Parameter, lowest: float, intervals: dict[str, Interval]) -> str | None:
    """Return why intervals, on the scale that is fitted, do not identify a parameter, or None if they do."""
    low, high = intervals["profile"]
    if low is None or high is None:
        return f"its profile is flat {'below' if (low is None) != (parameter.scale == 'decay') else 'above'}"
    if None in intervals["bootstrap"]:
        return "too many resamples did not converge"
    if None in intervals["jackknife"]:
        return "a fit without one of the sizes did not converge"
    for name, (low, high) in intervals.items():
        if low is not None and low <= lowest:
            return f"its {name} interval reaches {'its bound' if lowest == parameter.lower else 'zero'}"
        if high is not None and high >= parameter.upper:
            return f"its {name} interval reaches its bound"
    return None


def _shown(parameter: Parameter, interval: Interval) -> Interval:
    """Return an interval on the parameter's own scale; a side beyond all numbers is open."""
    low, high = (None if edge is None else _finite(parameter.shown(edge)) for edge in interval)
    return (high, low) if parameter.scale == "decay" else (low, high)


def _finite(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None
