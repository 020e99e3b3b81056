"""Scaling laws as formulas: L is the loss in nats per token, N parameters, D tokens, U unique tokens, C FLOPs.

A formula is written once, in sympy; exact derivatives follow from it. Its variables are logarithms: x["n"] is log N.
Coefficients are fitted as logarithms and the irreducible loss E as it is, so that a fit can reach E = 0.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import sympy
from numpy.typing import NDArray
from sympy import exp, log
from sympy.codegen.cfunctions import expm1

Array = NDArray[np.float64]
Columns = Mapping[str, Array]  # variable → [points]
Formula = Callable[[Any, Any], Any]  # (symbols of the parameters, symbols of the variables' logarithms) → loss

MAX_LOG = 700.0  # its exponential is still finite
MAX_EXPONENT = 3.0
START_EXPONENTS = (-0.1, 0.02, 0.05, 0.1, 0.15, 0.2, 0.3, 0.4, 0.55, 0.75, 1.0, 1.4, 2.0)


@dataclass(frozen=True)
class Parameter:
    """A parameter of a law: its name, the scale it is fitted on, bounds and starting values on that scale.

    `scale`: "as is", "log" (its logarithm is fitted) or "decay" (the parameter is e^-e^x of the fitted x).
    `linear`: the loss is linear in the parameter if the others are held, so it needs no starting values.
    `exponent`: it is identified only if it is above zero.
    """

    name: str
    scale: str = "as is"
    lower: float = -np.inf
    upper: float = np.inf
    linear: bool = False
    starts: tuple[float, ...] = ()
    exponent: bool = False

    def shown(self, fitted: Any) -> Any:
        """Return the parameter on its own scale from the fitted value."""
        if self.scale == "as is":
            return fitted
        return np.exp(np.minimum(fitted, MAX_LOG)) if self.scale == "log" else np.exp(-np.exp(fitted))


# While the first is not identified, neither are the others: they can compensate for it.
DEPENDENT = (
    ("alpha", {"A", "E"}),
    ("beta", {"B", "d", "E"}),
    ("k", {"B", "d"}),
    ("E", {"A", "alpha", "B", "beta", "d"}),
)


@dataclass(frozen=True)
class Law:
    """A law: its form and source, the variables it needs, its parameters in the order of theta, and its formula.

    `for_starts` is a formula that is linear in the coefficients, where `formula` is not. `label` and `colour` are those
    of reports and figures. A law that `studies` is fitted to a study's runs wherever they vary what the law needs.
    `dependent`: pairs of a parameter and those that are not identified without it.
    """

    name: str
    form: str
    source: str
    needs: tuple[str, ...]
    parameters: tuple[Parameter, ...]
    formula: Formula
    for_starts: Formula | None = None
    label: str = ""
    colour: str = "#000000"
    studies: bool = False
    dependent: tuple[tuple[str, set[str]], ...] = DEPENDENT

    @property
    def names(self) -> list[str]:
        """The parameters' names, in the order of theta."""
        return [parameter.name for parameter in self.parameters]

    @property
    def linear(self) -> list[int]:
        """The places in theta of the parameters that the loss is linear in."""
        return [i for i, parameter in enumerate(self.parameters) if parameter.linear]

    @cached_property
    def _symbols(self) -> tuple[list[sympy.Symbol], dict[str, sympy.Symbol]]:
        theta = [sympy.Symbol(f"t{i}", real=True) for i in range(len(self.parameters))]
        return theta, {name: sympy.Symbol(name, real=True) for name in self.needs}

    def _compile(self, expressions: list[Any]) -> Callable[..., list[Any]]:
        theta, x = self._symbols
        functions = {"positive_part": lambda z: np.maximum(z, 0.0), "step": lambda z: (z > 0) * 1.0}
        compiled: Callable[..., list[Any]] = sympy.lambdify(
            [*theta, *x.values()], expressions, [functions, "scipy", "numpy"], cse=True
        )
        return compiled

    @cached_property
    def _loss(self) -> Callable[..., list[Any]]:
        return self._compile([self.formula(*self._symbols)])

    @cached_property
    def _basis(self) -> Callable[..., list[Any]]:
        loss = (self.for_starts or self.formula)(*self._symbols)
        return self._compile([loss.diff(self._symbols[0][i]) for i in self.linear])

    @cached_property
    def _derivatives(self) -> tuple[Callable[..., list[Any]], list[tuple[int, int]]]:
        theta, loss = self._symbols[0], self.formula(*self._symbols)
        first = [loss.diff(t) for t in theta]
        second = {(i, j): first[i].diff(theta[j]) for i in range(len(theta)) for j in range(i, len(theta))}
        second = {pair: expression for pair, expression in second.items() if expression != 0}
        return self._compile([loss, *first, *second.values()]), list(second)

    def _arguments(self, theta: Array, x: Columns) -> list[Array]:
        return [*theta.T[:, :, None], *(np.log(x[name]) for name in self.needs)]

    def predict(self, theta: Array, x: Columns) -> Array:
        """Return the loss under fitted parameters `theta` [problems, parameters] at points `x`: [problems, points]."""
        with np.errstate(all="ignore"):
            [loss] = self._loss(*self._arguments(theta, x))
        return np.broadcast_to(loss, (len(theta), len(x[self.needs[0]])))

    def derivatives(self, theta: Array, x: Columns) -> tuple[Any, list[Any], dict[tuple[int, int], Any]]:
        """Return the loss, its first derivatives and those second ones that are not zero, by (i, j) with i <= j.

        Each broadcasts to [problems, points].
        """
        function, pairs = self._derivatives
        loss, *found = function(*self._arguments(theta, x))
        count = len(self.parameters)
        return loss, found[:count], dict(zip(pairs, found[count:], strict=True))

    def basis(self, theta: Array, x: Columns) -> Array:
        """Return what each linear parameter multiplies, the others held at `theta`: [linear parameters, points]."""
        held = theta.copy()
        held[self.linear] = 0.0  # the logarithm of a coefficient of 1
        terms = self._basis(*self._arguments(held[None], x))
        return np.concatenate([np.broadcast_to(term, (1, len(x[self.needs[0]]))) for term in terms])


class step(sympy.Function):  # noqa: N801
    """1 above zero, else 0."""

    def fdiff(self, *_: int) -> Any:
        return sympy.Integer(0)


class positive_part(sympy.Function):  # noqa: N801
    """The argument above zero, else 0."""

    def fdiff(self, *_: int) -> Any:
        return step(self.args[0])


def at_most(x: Any, highest: Any) -> Any:
    """Return the smaller of two expressions."""
    return highest - positive_part(highest - x)


def term(log_coefficient: Any, exponent: Any, log_x: Any) -> Any:
    """Return A·x^-alpha."""
    return exp(log_coefficient - exponent * log_x)


def chinchilla(t: Any, x: Any) -> Any:
    """Return the loss of a law of N and D."""
    return t[0] + term(t[1], t[2], x["n"]) + term(t[3], t[4], x["d"])


def log_effective(log_unique: Any, log_seen: Any, log_star: Any) -> Any:
    """Return log(U + U·R*·(1 - e^(-R/R*))), R = seen/U - 1: the value of repeated data (Muennighoff 2023, eq. 5)."""
    repeats = exp(log_seen - log_unique) - 1
    return log_unique + log(1 - exp(log_star) * expm1(-repeats * exp(-log_star)))


def transposition(t: Any, x: Any) -> Any:
    """Return the loss of a law of N and effective D, where a transposed copy is worth w of a new tune."""
    e, a, alpha, b, beta, star_d, worth = t
    log_unique = at_most(x["u"] + log(1 + worth * (exp(x["keys"]) - 1)), x["d"])
    return e + term(a, alpha, x["n"]) + term(b, beta, log_effective(log_unique, x["d"], star_d))


def data_constrained(t: Any, x: Any) -> Any:
    """Return the loss of a law of effective N and D under repetition."""
    e, a, alpha, b, beta, star_d, star_n = t
    log_unique = at_most(x["u"], x["d"])
    # U_N: the parameters that are optimal for U tokens, at most N (eq. 6)
    log_g = (log(alpha) + a - log(beta) - b) / (alpha + beta)
    log_unique_n = at_most(beta / alpha * (log_unique + log_g) + log_g, x["n"])
    log_n = log_effective(log_unique_n, x["n"], star_n)
    return e + term(a, alpha, log_n) + term(b, beta, log_effective(log_unique, x["d"], star_d))


def repeated_data(t: Any, x: Any) -> Any:
    """Return the loss of the data-constrained law with N' = N."""
    log_d = log_effective(at_most(x["u"], x["d"]), x["d"], t[5])
    return t[0] + term(t[1], t[2], x["n"]) + term(t[3], t[4], log_d)


def mupt(t: Any, x: Any) -> Any:
    """Return the loss of a law of N and D'', a geometric sum over epochs (eq. 12), with their interaction."""
    e, a, alpha, b, beta, d, log_decay = t
    decay = exp(log_decay)
    log_d = x["u"] + log(-expm1(-decay * exp(x["d"] - x["u"]))) - log(-expm1(-decay))
    return e + term(a, alpha, x["n"]) + term(b, beta, log_d) + term(d - alpha * x["n"], beta, log_d)


def sms(t: Any, x: Any) -> Any:
    """Return the loss of `mupt` plus a term for overfitting."""
    k_d, k_n, k_u, k_in = t[7:]
    overfit = k_d * exp(x["d"]) + k_n * x["n"] - k_u * x["u"] - k_in
    gelu = overfit * (1 + sympy.erf(overfit / sympy.sqrt(2))) / 2
    return mupt(t[:7], x) + gelu


def coefficient(name: str) -> Parameter:
    """Return the coefficient of a term: positive, fitted as its logarithm."""
    return Parameter(name, "log", linear=True)


def exponent(name: str, lower: float = -MAX_EXPONENT) -> Parameter:
    """Return an exponent; where a formula takes its logarithm, `lower` is positive."""
    starts = tuple(at for at in START_EXPONENTS if at > lower)
    return Parameter(name, lower=lower, upper=MAX_EXPONENT, starts=starts, exponent=True)


E, A, B = Parameter("E", lower=0.0, linear=True), coefficient("A"), coefficient("B")
ALPHA, BETA = exponent("alpha"), exponent("beta")
LOG_STAR = (float(np.log(1e-2)), float(np.log(1e4)))
R_D = Parameter("R_D*", "log", *LOG_STAR, starts=tuple(np.log([1, 4, 15, 60])))
R_N = Parameter("R_N*", "log", *LOG_STAR, starts=tuple(np.log([5, 1000])))
WORTH = Parameter("w", lower=0.0, upper=1.0, starts=(0.05, 0.3, 0.8))
DECAY = Parameter("k", "decay", float(np.log(1e-4)), float(np.log(20)), starts=tuple(np.log([0.003, 0.03, 0.3])))
CHINCHILLA = (E, A, ALPHA, B, BETA)
MUPT = (*CHINCHILLA, coefficient("d"), DECAY)
OVERFIT = tuple(Parameter(name, starts=(0.0,)) for name in ("k_d", "k_n", "k_u", "k_in"))

LAWS: dict[str, Law] = {
    law.name: law
    for law in (
        Law(
            "power",
            "L = A·x^-alpha",
            "Kaplan et al. 2020 (2001.08361)",
            ("x",),
            (A, ALPHA),
            lambda t, x: term(t[0], t[1], x["x"]),
            label="power law",
            colour="#999999",
            studies=True,
        ),
        Law(
            "power_irreducible",
            "L = E + A·x^-alpha",
            "Henighan et al. 2020 (2010.14701)",
            ("x",),
            (E, A, ALPHA),
            lambda t, x: t[0] + term(t[1], t[2], x["x"]),
            label="power law + E",
            colour="#009E73",
            studies=True,
        ),
        Law(
            "chinchilla",
            "L = E + A·N^-alpha + B·D^-beta",
            "Hoffmann et al. 2022 (2203.15556), eq. 10",
            ("n", "d"),
            CHINCHILLA,
            chinchilla,
            label="Chinchilla",
            colour="#CC79A7",
            studies=True,
        ),
        Law(
            "data_constrained",
            "L = E + A·N'^-alpha + B·D'^-beta, D' = U + U·R_D*·(1 - e^(-(D/U - 1)/R_D*)), N' likewise",
            "Muennighoff et al. 2023 (2305.16264), eq. 5–6",
            ("n", "d", "u"),
            (E, A, exponent("alpha", 1e-3), B, exponent("beta", 1e-3), R_D, R_N),
            data_constrained,
            for_starts=repeated_data,
            label="data-constrained (Muennighoff)",
            colour="#666666",
            studies=True,
        ),
        Law(
            "transposition",
            "L = E + A·N^-alpha + B·D'^-beta, D' as in data_constrained with U·(1 + w·(keys - 1)) for U",
            "this project",
            ("n", "d", "u", "keys"),
            (*CHINCHILLA, R_D, WORTH),
            transposition,
            label="transposition multiplier",
            colour="#56B4E9",
            studies=True,
        ),
        Law(
            "mupt",
            "L = E + A·N^-alpha + B·D''^-beta + d·N^-alpha·D''^-beta, D'' = U·(1 - k^(D/U))/(1 - k)",
            "Qu et al. 2024 (MuPT, 2404.06393), eq. 2 and 12",
            ("n", "d", "u"),
            MUPT,
            mupt,
            label="MuPT",
        ),
        Law(
            "sms",
            "L = mupt's + GELU(k_d·D + k_n·log N - k_u·log U - k_in)",
            "Qu et al. 2024 (MuPT, 2404.06393), eq. 3 and 4",
            ("n", "d", "u"),
            (*MUPT, *OVERFIT),
            sms,
            label="MuPT with overfitting",
        ),
    )
}
STUDIED = [law for law in LAWS.values() if law.studies]
OF_ONE = [law for law in STUDIED if law.needs == ("x",)]
OF_N_AND_D = [law for law in STUDIED if law.needs == ("n", "d")]
OF_REPETITION = [law for law in STUDIED if "u" in law.needs and "keys" not in law.needs]
OF_TRANSPOSITION = [law for law in STUDIED if "keys" in law.needs]
