"""Numbers that carry their exact first and second derivatives through a formula, for Newton's method."""

from collections.abc import Callable
from typing import Any

import numpy as np
from scipy.special import ndtr

Derivatives = dict[Any, Any]  # parameter i, or pair (i, j) with i <= j → derivative; an absent one is zero


class Jet:
    """A value with its derivatives by numbered parameters; each broadcasts to [problems, points]."""

    __array_ufunc__ = None  # so that array * jet calls Jet.__rmul__

    def __init__(self, value: Any, first: Derivatives, second: Derivatives) -> None:
        self.value, self.first, self.second = value, first, second

    def __add__(self, other: Any) -> "Jet":
        if not isinstance(other, Jet):
            return Jet(self.value + other, self.first, self.second)
        return Jet(self.value + other.value, _sum(self.first, other.first), _sum(self.second, other.second))

    def __mul__(self, other: Any) -> "Jet":
        if not isinstance(other, Jet):
            return Jet(self.value * other, _scaled(self.first, other), _scaled(self.second, other))
        first = _sum(_scaled(self.first, other.value), _scaled(other.first, self.value))
        crossed = [
            {(min(i, j), max(i, j)): left * right * (2 if i == j else 1)}
            for i, left in self.first.items()
            for j, right in other.first.items()
        ]
        second = _sum(_scaled(self.second, other.value), _scaled(other.second, self.value), *crossed)
        return Jet(self.value * other.value, first, second)

    __radd__, __rmul__ = __add__, __mul__

    def __neg__(self) -> "Jet":
        return self * -1.0

    def __sub__(self, other: Any) -> "Jet":
        return self + -other

    def __rsub__(self, other: Any) -> "Jet":
        return -self + other

    def chain(self, value: Any, slope: Any, curvature: Any) -> "Jet":
        """Return f(self) from the value and the first two derivatives of f there."""
        outer = {(i, j): curvature * self.first[i] * self.first[j] for i in self.first for j in self.first if i <= j}
        return Jet(value, _scaled(self.first, slope), _sum(_scaled(self.second, slope), outer))


def _sum(*parts: Derivatives) -> Derivatives:
    total: Derivatives = {}
    for part in parts:
        for key, entry in part.items():
            total[key] = total[key] + entry if key in total else entry
    return total


def _scaled(part: Derivatives, factor: Any) -> Derivatives:
    return {key: entry * factor for key, entry in part.items()}


def _elementwise(function: Callable[[Any], tuple[Any, Any, Any]]) -> Callable[[Any], Any]:
    """Make a function of arrays and jets from one that returns its value, slope and curvature."""

    def apply(x: Any) -> Any:
        return x.chain(*function(x.value)) if isinstance(x, Jet) else function(x)[0]

    return apply


@_elementwise
def exp(x: Any) -> tuple[Any, Any, Any]:
    """Return e^x."""
    value = np.exp(x)
    return value, value, value


@_elementwise
def log(x: Any) -> tuple[Any, Any, Any]:
    """Return the natural logarithm."""
    return np.log(x), 1 / x, -1 / x**2


@_elementwise
def inverse(x: Any) -> tuple[Any, Any, Any]:
    """Return 1 / x."""
    return 1 / x, -1 / x**2, 2 / x**3


@_elementwise
def saturation(x: Any) -> tuple[Any, Any, Any]:
    """Return 1 - e^-x, exact for small x."""
    decay = np.exp(-x)
    return -np.expm1(-x), decay, -decay


@_elementwise
def gelu(x: Any) -> tuple[Any, Any, Any]:
    """Return x·Φ(x)."""
    share, density = ndtr(x), np.exp(-(x**2) / 2) / np.sqrt(2 * np.pi)
    return x * share, share + x * density, (2 - x**2) * density


def at_most(x: Any, highest: Any) -> Any:
    """Return the smaller of an array or a jet and an array."""
    if not isinstance(x, Jet):
        return np.minimum(x, highest)
    below = x.value < highest
    return x.chain(np.where(below, x.value, highest), below * 1.0, 0.0)
