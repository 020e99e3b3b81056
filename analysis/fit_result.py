"""The result of a fit: parameters with intervals and verdicts, predictions, and the record for fits.json."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from analysis.intervals import EDGES, Interval
from analysis.laws import Array, Columns, Law
from analysis.profiles import Profile


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


@dataclass
class Fit:
    """A law fitted to points. `domain` is the range of each variable, `distinct` counts different points.

    `refitted` counts the points of profiles: fewer in a large table. `degrees_of_freedom` are clusters less parameters.
    `theta` [parameters], `resampled` [resamples, parameters] and `without_one` [sizes, parameters] are as fitted
    (coefficients as logarithms); fits that did not converge are NaN. `residuals` [points] are log measured minus log
    fitted loss.
    """

    law: Law
    variables: dict[str, str]
    domain: dict[str, tuple[float, float]]
    points: int
    distinct: int
    refitted: int
    clusters: int
    degrees_of_freedom: int
    delta: float
    starts: int
    objective: float
    converged: bool
    at_bound: list[str]
    residuals: Array
    theta: Array
    resampled: Array = field(repr=False)
    without_one: Array = field(repr=False)
    profiles: dict[str, Profile] = field(repr=False)
    parameters: dict[str, Estimate] = field(default_factory=dict)

    @property
    def identified(self) -> bool:
        """True if every parameter is identified."""
        return all(estimate.identified for estimate in self.parameters.values())

    def columns(self, **given: ArrayLike) -> Columns:
        """Return variables by the names that the law uses."""
        return columns_of(self.law, given)[0]

    def predict(self, **given: ArrayLike) -> Array:
        """Return the fitted loss at given variables, for example n=… and d=…: [points]."""
        return self.law.predict(self.theta[None], self.columns(**given))[0]

    def band(self, **given: ArrayLike) -> tuple[Array, Array]:
        """Return the edges of the pointwise 95 % bootstrap band: [points] each, NaN without resamples."""
        x = self.columns(**given)
        finite = self.resampled[np.isfinite(self.resampled).all(axis=1)]
        if not len(finite):
            nothing = np.full(len(next(iter(x.values()))), np.nan)
            return nothing, nothing
        low, high = np.quantile(self.law.predict(finite, x), EDGES, axis=0)
        return low, high

    def correlations(self) -> Array:
        """Return the correlations of the fitted parameters over resamples; one that does not vary has 0."""
        finite = self.resampled[np.isfinite(self.resampled).all(axis=1)]
        if len(finite) < 2:
            return np.eye(len(self.theta))
        spread = finite.std(axis=0)
        standard = (finite - finite.mean(axis=0)) / np.where(spread > 0, spread, 1.0)
        return standard.T @ standard / len(finite)

    def as_dict(self) -> dict[str, Any]:
        """Return everything but the resamples as JSON values, in full precision."""
        squares, names = bool(np.isinf(self.delta)), self.law.names
        profiles = {}
        for parameter, profile in zip(self.law.parameters, self.profiles.values(), strict=True):
            finite = np.isfinite(profile.rise)
            at = parameter.shown(profile.at[finite]).tolist()
            profiles[parameter.name] = {"at": at, "rise": profile.rise[finite].tolist(), "limit": profile.limit}
        return {
            "law": self.law.name,
            "form": self.law.form,
            "source": self.law.source,
            "variables": list(self.variables.values()),
            "domain": self.domain,
            "points": self.points,
            "distinct": self.distinct,
            "refitted": self.refitted,
            "clusters": self.clusters,
            "degrees_of_freedom": self.degrees_of_freedom,
            "loss": "squares" if squares else "huber",
            "delta": None if squares else self.delta,
            "starts": self.starts,
            "resamples": len(self.resampled),
            "resamples_converged": int(np.isfinite(self.resampled).all(axis=1).sum()),
            "objective": self.objective,
            "converged": self.converged,
            "at_bound": self.at_bound,
            "identified": self.identified,
            "parameters": {name: vars(estimate) for name, estimate in self.parameters.items()},
            "theta": dict(zip(names, self.theta.tolist(), strict=True)),
            "correlations": {
                name: dict(zip(names, row, strict=True))
                for name, row in zip(names, self.correlations().tolist(), strict=True)
            },
            "residuals": self.residuals.tolist(),
            "profiles": profiles,
        }


def line_of(fitted: Fit) -> dict[str, Any] | None:
    """Return the line and band of a law of one variable, over a little more than its points; None for other laws."""
    if fitted.law.needs != ("x",):
        return None
    [(variable, (low, high))] = fitted.domain.items()
    at = np.geomspace(low / 1.3, high * 1.3, 60)
    lower, upper = ([e if np.isfinite(e) else None for e in edge.tolist()] for edge in fitted.band(**{variable: at}))
    return {"at": at.tolist(), "loss": fitted.predict(**{variable: at}).tolist(), "low": lower, "high": upper}


def columns_of(law: Law, given: Mapping[str, ArrayLike | None]) -> tuple[dict[str, Array], dict[str, str]]:
    """Return the variables a law needs as arrays, and the given name of each.

    Raises ValueError if one is missing, or is not positive and finite.
    """
    named = {name: np.atleast_1d(np.asarray(values, float)) for name, values in given.items() if values is not None}
    if law.needs == ("x",):
        if len(named) != 1 or not {"n", "d", "c", "x"} & named.keys():
            raise ValueError(f"the {law.name} law takes one variable of n, d and c, not {sorted(named) or 'none'}")
        variables = {"x": next(iter(named))}
    else:
        variables = {name: name for name in law.needs}
        if missing := [name for name in law.needs if name not in named]:
            raise ValueError(f"the {law.name} law needs {', '.join(law.needs)}: {', '.join(missing)} is missing")
    for name in variables.values():
        if not (np.isfinite(named[name]).all() and (named[name] > 0).all()):
            raise ValueError(f"{name} must be positive and finite")
    return {variable: named[name] for variable, name in variables.items()}, variables
