"""Which parameters of a fit the data identify, by a fixed list of verdicts."""

import numpy as np

from analysis.fit_result import Estimate, Fit
from analysis.intervals import Interval, jackknife, percentiles
from analysis.laws import Array, Parameter
from analysis.optimiser import SMALLEST_SHARE

GREEK = {"alpha": "α", "beta": "β"}

SPARE_CLUSTERS = 4  # more than parameters
SMALLEST_E = 1e-3  # of the least loss; below, E is not distinguished from zero


def estimate_parameters(fitted: Fit, shares: Array, least_loss: float) -> None:
    """Add to a fit its parameters with intervals and verdicts, and those that are at a bound.

    `shares` [parameters] is the largest share of the loss, over points, that moves with each parameter: for a
    coefficient the share of its term.
    """
    finite = fitted.resampled[np.isfinite(fitted.resampled).all(axis=1)]
    for i, parameter in enumerate(fitted.law.parameters):
        value, name = float(fitted.theta[i]), parameter.name
        vanished = parameter.linear and parameter.scale == "log" and not shares[i] >= SMALLEST_SHARE
        if vanished or value in (parameter.lower, parameter.upper):
            fitted.at_bound.append(name)
        intervals = {
            "bootstrap": percentiles(fitted.resampled[:, i], fitted.degrees_of_freedom),
            "jackknife": jackknife(value, fitted.without_one[:, i]),
            "profile": fitted.profiles[name].interval,
        }
        reason: str | None
        if not fitted.converged:
            reason = "the fit did not converge"
        elif fitted.clusters - len(fitted.theta) < SPARE_CLUSTERS:
            reason = f"there are fewer than {SPARE_CLUSTERS} clusters more than parameters"
        elif name in fitted.at_bound:
            reason = "the best fit is at its bound"
        else:
            reason = _why_not_identified(parameter, _lowest(parameter, value, float(shares[i]), least_loss), intervals)
        error = _finite(parameter.shown(finite[:, i]).std(ddof=1)) if len(finite) > 1 else None
        shown = {kind: _shown(parameter, interval) for kind, interval in intervals.items()}
        fitted.parameters[name] = Estimate(
            float(parameter.shown(value)), error, **shown, identified=reason is None, reason=reason
        )
    estimates = fitted.parameters
    for first, others in fitted.law.dependent:
        for name in others & estimates.keys():
            if first in estimates and not estimates[first].identified and estimates[name].identified:
                estimates[name].identified = False
                estimates[name].reason = f"it depends on {GREEK.get(first, first)}, which is not"


def _lowest(parameter: Parameter, value: float, share: float, least_loss: float) -> float:
    """Return the value above which intervals have to stay.

    That is zero for E and exponents, a vanishing term for coefficients, and the lower bound for the others.
    """
    if parameter.linear and parameter.scale == "as is":
        return SMALLEST_E * least_loss
    if parameter.exponent:
        return 0.0
    return value + float(np.log(SMALLEST_SHARE / share)) if parameter.linear else parameter.lower


def _why_not_identified(parameter: Parameter, lowest: float, intervals: dict[str, Interval]) -> str | None:
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
