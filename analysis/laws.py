"""Scaling laws as formulas, and jets: numbers that carry their exact first and second derivatives through a formula.

A law is written once, in terms of +, *, exp and log. Given arrays the formula gives the loss; given jets it gives the
loss with the gradient and the Hessian that Newton's method needs. Losses are nats per token, N parameters, D tokens
seen, U unique untransposed tokens, C FLOPs. Coefficients are fitted as logarithms and E as it is, so that E = 0 can be
reached: nothing takes the logarithm of a single term.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr

Array = NDArray[np.float64]
Columns = Mapping[str, Array]  # variable → [points]
LARGEST = 700.0  # the logarithm of what is still a number
MAX_EXPONENT = 3.0  # steeper is no scaling law but a step
START_EXPONENTS = (-0.1, 0.02, 0.05, 0.1, 0.15, 0.2, 0.3, 0.4, 0.55, 0.75, 1.0, 1.4, 2.0)


class Jet:
    """A value with its derivatives by the parameters that it depends on.

    `value` broadcasts to [problems, points]; `first[i]` and `second[i, j]` with i <= j too. What is not there is zero.
    """

    __array_ufunc__ = None  # array * jet is the jet's business

    def __init__(self, value: Any, first: dict[int, Any], second: dict[tuple[int, int], Any]) -> None:
        self.value, self.first, self.second = value, first, second

    def __add__(self, other: Any) -> "Jet":
        if not isinstance(other, Jet):
            return Jet(self.value + other, self.first, self.second)
        return Jet(self.value + other.value, _merge(self.first, other.first), _merge(self.second, other.second))

    def __mul__(self, other: Any) -> "Jet":
        if not isinstance(other, Jet):
            first = {i: slope * other for i, slope in self.first.items()}
            return Jet(self.value * other, first, {ij: bend * other for ij, bend in self.second.items()})
        first = _merge(
            {i: slope * other.value for i, slope in self.first.items()},
            {i: slope * self.value for i, slope in other.first.items()},
        )
        second = _merge(
            {ij: bend * other.value for ij, bend in self.second.items()},
            {ij: bend * self.value for ij, bend in other.second.items()},
        )
        for i, left in self.first.items():
            for j, right in other.first.items():
                product = left * right * (2 if i == j else 1)
                second = _merge(second, {(min(i, j), max(i, j)): product})
        return Jet(self.value * other.value, first, second)

    __radd__, __rmul__ = __add__, __mul__

    def __neg__(self) -> "Jet":
        return self * -1.0

    def __sub__(self, other: Any) -> "Jet":
        return self + -other

    def __rsub__(self, other: Any) -> "Jet":
        return -self + other

    def through(self, value: Any, slope: Any, bend: Any) -> "Jet":
        """Return f(self) from the value and the first two derivatives of f there."""
        first = {i: slope * mine for i, mine in self.first.items()}
        second = {ij: slope * mine for ij, mine in self.second.items()}
        names = sorted(self.first)
        for place, i in enumerate(names):
            for j in names[place:]:
                second = _merge(second, {(i, j): bend * self.first[i] * self.first[j]})
        return Jet(value, first, second)


def _merge(left: dict[Any, Any], right: dict[Any, Any]) -> dict[Any, Any]:
    merged = dict(left)
    for key, entry in right.items():
        merged[key] = merged[key] + entry if key in merged else entry
    return merged


def exp(x: Any) -> Any:
    """Return e^x of an array or a jet."""
    if not isinstance(x, Jet):
        return np.exp(x)
    value = np.exp(x.value)
    return x.through(value, value, value)


def log(x: Any) -> Any:
    """Return the natural logarithm of an array or a jet."""
    if not isinstance(x, Jet):
        return np.log(x)
    return x.through(np.log(x.value), 1 / x.value, -1 / x.value**2)


def inverse(x: Any) -> Any:
    """Return 1 / x of an array or a jet."""
    return x.through(1 / x.value, -1 / x.value**2, 2 / x.value**3) if isinstance(x, Jet) else 1 / x


def saturation(x: Any) -> Any:
    """Return 1 - e^-x of an array or a jet, exact for small x."""
    if not isinstance(x, Jet):
        return -np.expm1(-x)
    fall = np.exp(-x.value)
    return x.through(-np.expm1(-x.value), fall, -fall)


def gelu(x: Any) -> Any:
    """Return x·Φ(x) of an array or a jet."""
    z = x.value if isinstance(x, Jet) else x
    share, density = ndtr(z), np.exp(-(z**2) / 2) / np.sqrt(2 * np.pi)
    return x.through(z * share, share + z * density, (2 - z**2) * density) if isinstance(x, Jet) else z * share


def at_most(x: Any, highest: Any) -> Any:
    """Return the smaller of an array or a jet and an array."""
    if not isinstance(x, Jet):
        return np.minimum(x, highest)
    below = x.value < highest
    return x.through(np.where(below, x.value, highest), below * 1.0, 0.0)


@dataclass(frozen=True)
class Parameter:
    """A parameter of a law: its name in reports, how it is fitted, its bounds as it is fitted, its starts.

    `scale`: "as is", "log" (log of the parameter is fitted), "decay" (the parameter is e^-e^x).
    `linear`: the loss is linear in the parameter while the others are held; such a one needs no start.
    """

    name: str
    scale: str = "as is"
    lower: float = -np.inf
    upper: float = np.inf
    linear: bool = False
    starts: tuple[float, ...] = ()

    def shown(self, fitted: Any) -> Any:
        """Return the parameter as reports show it from the value that is fitted."""
        if self.scale == "as is":
            return fitted
        if self.scale == "log":
            return np.exp(np.minimum(fitted, LARGEST))
        return np.exp(-np.exp(fitted))


@dataclass(frozen=True)
class Law:
    """A law: the variables that it needs, its parameters, its formula, and what its start is made of.

    `formula(theta, x)` returns the loss [problems, points] from one entry of shape [problems, 1] a parameter.
    `basis(theta, x)` returns the terms that its linear parameters multiply, [points] each, while the others are held.
    """

    name: str
    form: str
    needs: tuple[str, ...]
    parameters: tuple[Parameter, ...]
    formula: Callable[[Any, Columns], Any]
    basis: Callable[[Any, Columns], list[Array]]
    source: str

    @property
    def names(self) -> list[str]:
        """The parameters' names, in the order of theta."""
        return [parameter.name for parameter in self.parameters]

    @property
    def exponents(self) -> list[str]:
        """The names of the exponents."""
        return [name for name in self.names if name in ("alpha", "beta")]

    def predict(self, theta: Array, x: Columns) -> Array:
        """Return the loss under fitted parameters `theta` [problems, parameters] at points `x`: [problems, points]."""
        with np.errstate(all="ignore"):
            loss: Array = self.formula(theta.T[:, :, None], x)
        return np.broadcast_to(loss, (len(theta), len(next(iter(x.values())))))


def seen(x: Columns, worth: Any = None) -> tuple[Any, Any]:
    """Return log U, transposed copies counted by their worth, and how often these tokens repeat: D / U - 1."""
    unique = at_most(x["u"] if worth is None else x["u"] * (1 + worth * (x["keys"] - 1)), x["d"])
    return log(unique), x["d"] * inverse(unique) - 1


def log_effective(log_unique: Any, repeats: Any, log_star: Any) -> Any:
    """Return log of U + U·R*·(1 - e^(-R/R*)): what repeated data or parameters are worth (Muennighoff 2023, eq. 5)."""
    return log_unique + log(1 + exp(log_star) * saturation(repeats * exp(-log_star)))


def log_effective_unique_n(a: Any, alpha: Any, b: Any, beta: Any, log_unique: Any, log_n: Array) -> Any:
    """Return log U_N: the parameters that are optimal for U tokens, at most N (Muennighoff 2023, eq. 6)."""
    log_g = (log(alpha) + a - log(beta) - b) * inverse(alpha + beta)
    return at_most(beta * inverse(alpha) * (log_unique + log_g) + log_g, log_n)


def log_geometric(x: Columns, log_rate: Any) -> Any:
    """Return log of U·(1 - k^(D/U)) / (1 - k), k = e^-rate: MuPT's D'' (2404.06393, eq. 12)."""
    rate = exp(log_rate)
    return np.log(x["u"]) + log(saturation(rate * (x["d"] / x["u"]))) - log(saturation(rate))


E = Parameter("E", lower=0.0, linear=True)


def coefficient(name: str) -> Parameter:
    """Return the factor of a term: positive, fitted as its logarithm."""
    return Parameter(name, "log", linear=True)


def exponent(name: str, lower: float = -MAX_EXPONENT) -> Parameter:
    """Return an exponent; where a formula takes its logarithm it is positive."""
    return Parameter(name, lower=lower, upper=MAX_EXPONENT, starts=tuple(at for at in START_EXPONENTS if at > lower))


A, B = coefficient("A"), coefficient("B")
ALPHA, BETA = exponent("alpha"), exponent("beta")
POSITIVE_ALPHA, POSITIVE_BETA = exponent("alpha", 1e-3), exponent("beta", 1e-3)
LOG_STAR = (float(np.log(1e-2)), float(np.log(1e4)))
R_D = Parameter("R_D*", "log", *LOG_STAR, starts=tuple(np.log([1, 4, 15, 60])))
R_N = Parameter("R_N*", "log", *LOG_STAR, starts=tuple(np.log([5, 1000])))
WORTH = Parameter("w", lower=0.0, upper=1.0, starts=(0.05, 0.3, 0.8))
DECAY = Parameter("k", "decay", float(np.log(1e-4)), float(np.log(20)), starts=tuple(np.log([0.003, 0.03, 0.3])))


def single(name: str, floor: bool) -> Law:
    """Return a law of one variable, "x", with or without a floor."""
    if floor:
        return Law(
            name,
            "L = E + A·x^-alpha",
            ("x",),
            (E, A, ALPHA),
            lambda t, x: t[0] + exp(t[1] - t[2] * np.log(x["x"])),
            lambda t, x: [np.ones_like(x["x"]), x["x"] ** -t[2]],
            "Kaplan et al. 2020; with a floor, Henighan et al. 2020",
        )
    return Law(
        name,
        "L = A·x^-alpha",
        ("x",),
        (A, ALPHA),
        lambda t, x: exp(t[0] - t[1] * np.log(x["x"])),
        lambda t, x: [x["x"] ** -t[1]],
        "Kaplan et al. 2020",
    )


def chinchilla() -> Law:
    """Return the law of Hoffmann et al. 2022, approach 3."""
    return Law(
        "chinchilla",
        "L = E + A·N^-alpha + B·D^-beta",
        ("n", "d"),
        (E, A, ALPHA, B, BETA),
        lambda t, x: t[0] + exp(t[1] - t[2] * np.log(x["n"])) + exp(t[3] - t[4] * np.log(x["d"])),
        lambda t, x: [np.ones_like(x["n"]), x["n"] ** -t[2], x["d"] ** -t[4]],
        "Hoffmann et al. 2022, eq. 10",
    )


def data_constrained() -> Law:
    """Return the law of Muennighoff et al. 2023: Chinchilla's with effective data and parameters under repetition."""

    def formula(t: Sequence[Any], x: Columns) -> Any:
        e, a, alpha, b, beta, star_d, star_n = t
        log_n = np.log(x["n"])
        log_unique, repeats = seen(x)
        log_d = log_effective(log_unique, repeats, star_d)
        log_unique_n = log_effective_unique_n(a, alpha, b, beta, log_unique, log_n)
        log_n = log_effective(log_unique_n, exp(log_n - log_unique_n) - 1, star_n)
        return e + exp(a - alpha * log_n) + exp(b - beta * log_d)

    return Law(
        "data_constrained",
        "L = E + A·N'^-alpha + B·D'^-beta, D' = U + U·R_D*·(1 - e^(-(D/U - 1)/R_D*)), N' likewise",
        ("n", "d", "u"),
        (E, A, POSITIVE_ALPHA, B, POSITIVE_BETA, R_D, R_N),
        formula,
        lambda t, x: [
            np.ones_like(x["n"]),
            x["n"] ** -t[2],
            np.exp(-t[4] * log_effective(*seen(x), t[5])),
        ],
        "Muennighoff et al. 2023, eq. 5–6",
    )


def transposition() -> Law:
    """Return Chinchilla's law of repeated data, a transposed copy being worth w of a new tune: m = 1 + w·(keys - 1)."""
    return Law(
        "transposition",
        "L = E + A·N^-alpha + B·D'^-beta, D' as in data_constrained with U·(1 + w·(keys - 1)) for U",
        ("n", "d", "u", "keys"),
        (E, A, ALPHA, B, BETA, R_D, WORTH),
        lambda t, x: t[0] + exp(t[1] - t[2] * np.log(x["n"])) + exp(t[3] - t[4] * log_effective(*seen(x, t[6]), t[5])),
        lambda t, x: [
            np.ones_like(x["n"]),
            x["n"] ** -t[2],
            np.exp(-t[4] * log_effective(*seen(x, t[6]), t[5])),
        ],
        "this project; m·U with 1 <= m <= keys",
    )


def _mupt_terms(t: Sequence[Any], x: Columns) -> Any:
    e, a, alpha, b, beta, d, rate = t
    log_n, log_d = np.log(x["n"]), log_geometric(x, rate)
    return e + exp(a - alpha * log_n) + exp(b - beta * log_d) + exp(d - alpha * log_n - beta * log_d)


def _mupt_basis(t: Sequence[Any], x: Columns) -> list[Array]:
    of_n, of_d = x["n"] ** -t[2], np.exp(-t[4] * log_geometric(x, t[6]))
    return [np.ones_like(of_n), of_n, of_d, of_n * of_d]


MUPT = (E, A, ALPHA, B, BETA, coefficient("d"), DECAY)


def mupt() -> Law:
    """Return equation 2 of MuPT: Chinchilla's law with D'' and an interaction of N and D."""
    return Law(
        "mupt",
        "L = E + A·N^-alpha + B·D''^-beta + d·N^-alpha·D''^-beta, D'' = U·(1 - k^(D/U))/(1 - k)",
        ("n", "d", "u"),
        MUPT,
        _mupt_terms,
        _mupt_basis,
        "Qu et al. 2024 (MuPT, 2404.06393), eq. 2 and 12",
    )


def sms() -> Law:
    """Return the Symbolic Music Scaling law of MuPT: its equation 2 and a term for overfitting."""

    def formula(t: Sequence[Any], x: Columns) -> Any:
        of_d, of_n, of_u, of_all = t[7:]
        overfit = of_d * x["d"] + of_n * np.log(x["n"]) - of_u * np.log(x["u"]) - of_all
        return _mupt_terms(t[:7], x) + gelu(overfit)

    slopes = tuple(Parameter(name, starts=(0.0,)) for name in ("k_d", "k_n", "k_u", "k_in"))
    return Law(
        "sms",
        "L = mupt's + GELU(k_d·D + k_n·log N - k_u·log U - k_in)",
        ("n", "d", "u"),
        (*MUPT, *slopes),
        formula,
        _mupt_basis,
        "Qu et al. 2024 (MuPT, 2404.06393), eq. 3 and 4",
    )


LAWS: dict[str, Law] = {
    law.name: law
    for law in (
        single("power", floor=False),
        single("power_irreducible", floor=True),
        chinchilla(),
        data_constrained(),
        transposition(),
        mupt(),
        sms(),
    )
}
