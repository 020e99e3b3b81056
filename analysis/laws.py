"""Scaling laws as formulas: L is the loss in nats per token, N parameters, D tokens, U unique tokens, C FLOPs.

Each formula is written once. Given arrays it returns the loss; given jets also the derivatives that the optimiser
needs. Coefficients are fitted as logarithms and the irreducible loss E as it is, so that a fit can reach E = 0.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from analysis.jets import Jet, at_most, exp, gelu, inverse, log, saturation

Array = NDArray[np.float64]
Columns = Mapping[str, Array]  # variable → [points]
Theta = Any  # a sequence of one array or jet a parameter, each broadcasts to [problems, points]
Formula = Callable[[Theta, Columns], Any]

MAX_LOG = 700.0  # its exponential is still finite
MAX_EXPONENT = 3.0
START_EXPONENTS = (-0.1, 0.02, 0.05, 0.1, 0.15, 0.2, 0.3, 0.4, 0.55, 0.75, 1.0, 1.4, 2.0)


@dataclass(frozen=True)
class Parameter:
    """A parameter of a law: its name, the scale it is fitted on, bounds and starting values on that scale.

    `scale`: "as is", "log" (its logarithm is fitted) or "decay" (the parameter is e^-e^x of the fitted x).
    `linear`: the loss is linear in the parameter if the others are held, so it needs no starting values.
    """

    name: str
    scale: str = "as is"
    lower: float = -np.inf
    upper: float = np.inf
    linear: bool = False
    starts: tuple[float, ...] = ()

    def shown(self, fitted: Any) -> Any:
        """Return the parameter on its own scale from the fitted value."""
        if self.scale == "as is":
            return fitted
        return np.exp(np.minimum(fitted, MAX_LOG)) if self.scale == "log" else np.exp(-np.exp(fitted))


@dataclass(frozen=True)
class Law:
    """A law: its form and source, the variables it needs, its parameters in the order of theta, and its formula.

    `for_starts` is a formula that is linear in the coefficients, where `formula` is not.
    """

    name: str
    form: str
    source: str
    needs: tuple[str, ...]
    parameters: tuple[Parameter, ...]
    formula: Formula
    for_starts: Formula | None = None

    @property
    def names(self) -> list[str]:
        """The parameters' names, in the order of theta."""
        return [parameter.name for parameter in self.parameters]

    def predict(self, theta: Array, x: Columns) -> Array:
        """Return the loss under fitted parameters `theta` [problems, parameters] at points `x`: [problems, points]."""
        with np.errstate(all="ignore"):
            loss: Array = self.formula(theta.T[:, :, None], x)
        return np.broadcast_to(loss, (len(theta), len(next(iter(x.values())))))

    def basis(self, theta: Array, x: Columns) -> Array:
        """Return what each linear parameter multiplies, the others held at `theta`: [linear parameters, points]."""
        linear = [i for i, parameter in enumerate(self.parameters) if parameter.linear]
        jets = [Jet(0.0, {i: 1.0}, {}) if i in linear else theta[i] for i in range(len(theta))]
        loss = (self.for_starts or self.formula)(jets, x)
        return np.stack([np.broadcast_to(loss.first[i], len(next(iter(x.values())))) for i in linear])


def term(log_coefficient: Any, exponent: Any, log_x: Any) -> Any:
    """Return A·x^-alpha."""
    return exp(log_coefficient - exponent * log_x)


def power(t: Theta, x: Columns) -> Any:
    """Return the loss of a law of one variable; see LAWS for the forms."""
    return term(t[0], t[1], np.log(x["x"]))


def power_irreducible(t: Theta, x: Columns) -> Any:
    """Return the loss of a law of one variable with an irreducible loss."""
    return t[0] + term(t[1], t[2], np.log(x["x"]))


def chinchilla(t: Theta, x: Columns) -> Any:
    """Return the loss of a law of N and D."""
    return t[0] + term(t[1], t[2], np.log(x["n"])) + term(t[3], t[4], np.log(x["d"]))


def log_unique_and_repeats(x: Columns, worth: Any = None) -> tuple[Any, Any]:
    """Return log U, with every transposed copy counted as `worth` new tunes, and the repetitions R = D/U - 1."""
    unique = at_most(x["u"] if worth is None else x["u"] * (1 + worth * (x["keys"] - 1)), x["d"])
    return log(unique), x["d"] * inverse(unique) - 1


def log_effective(log_unique: Any, repeats: Any, log_star: Any) -> Any:
    """Return log(U + U·R*·(1 - e^(-R/R*))): the value of repeated data or parameters (Muennighoff 2023, eq. 5)."""
    return log_unique + log(1 + exp(log_star) * saturation(repeats * exp(-log_star)))


def transposition(t: Theta, x: Columns) -> Any:
    """Return the loss of a law of N and effective D, where a transposed copy is worth w of a new tune."""
    e, a, alpha, b, beta, star_d, worth = t
    return e + term(a, alpha, np.log(x["n"])) + term(b, beta, log_effective(*log_unique_and_repeats(x, worth), star_d))


def repeated_data(t: Theta, x: Columns) -> Any:
    """Return the loss of the data-constrained law with N' = N."""
    return transposition([*t[:6], 0.0], {**x, "keys": np.ones_like(x["u"])})


def data_constrained(t: Theta, x: Columns) -> Any:
    """Return the loss of a law of effective N and D under repetition."""
    e, a, alpha, b, beta, star_d, star_n = t
    log_n = np.log(x["n"])
    log_unique, repeats = log_unique_and_repeats(x)
    # U_N: the parameters that are optimal for U tokens, at most N (eq. 6)
    log_g = (log(alpha) + a - log(beta) - b) * inverse(alpha + beta)
    log_unique_n = at_most(beta * inverse(alpha) * (log_unique + log_g) + log_g, log_n)
    log_n = log_effective(log_unique_n, exp(log_n - log_unique_n) - 1, star_n)
    return e + term(a, alpha, log_n) + term(b, beta, log_effective(log_unique, repeats, star_d))


def mupt(t: Theta, x: Columns) -> Any:
    """Return the loss of a law of N and D'', a geometric sum over epochs (eq. 12), with their interaction."""
    e, a, alpha, b, beta, d, log_decay = t
    decay = exp(log_decay)
    log_n = np.log(x["n"])
    log_d = np.log(x["u"]) + log(saturation(decay * (x["d"] / x["u"]))) - log(saturation(decay))
    return e + term(a, alpha, log_n) + term(b, beta, log_d) + term(d - alpha * log_n, beta, log_d)


def sms(t: Theta, x: Columns) -> Any:
    """Return the loss of `mupt` plus a term for overfitting."""
    k_d, k_n, k_u, k_in = t[7:]
    return mupt(t[:7], x) + gelu(k_d * x["d"] + k_n * np.log(x["n"]) - k_u * np.log(x["u"]) - k_in)


def coefficient(name: str) -> Parameter:
    """Return the coefficient of a term: positive, fitted as its logarithm."""
    return Parameter(name, "log", linear=True)


def exponent(name: str, lower: float = -MAX_EXPONENT) -> Parameter:
    """Return an exponent; where a formula takes its logarithm, `lower` is positive."""
    return Parameter(name, lower=lower, upper=MAX_EXPONENT, starts=tuple(at for at in START_EXPONENTS if at > lower))


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
        Law("power", "L = A·x^-alpha", "Kaplan et al. 2020 (2001.08361)", ("x",), (A, ALPHA), power),
        Law(
            "power_irreducible",
            "L = E + A·x^-alpha",
            "Henighan et al. 2020 (2010.14701)",
            ("x",),
            (E, A, ALPHA),
            power_irreducible,
        ),
        Law(
            "chinchilla",
            "L = E + A·N^-alpha + B·D^-beta",
            "Hoffmann et al. 2022 (2203.15556), eq. 10",
            ("n", "d"),
            CHINCHILLA,
            chinchilla,
        ),
        Law(
            "data_constrained",
            "L = E + A·N'^-alpha + B·D'^-beta, D' = U + U·R_D*·(1 - e^(-(D/U - 1)/R_D*)), N' likewise",
            "Muennighoff et al. 2023 (2305.16264), eq. 5–6",
            ("n", "d", "u"),
            (E, A, exponent("alpha", 1e-3), B, exponent("beta", 1e-3), R_D, R_N),
            data_constrained,
            for_starts=repeated_data,
        ),
        Law(
            "transposition",
            "L = E + A·N^-alpha + B·D'^-beta, D' as in data_constrained with U·(1 + w·(keys - 1)) for U",
            "this project",
            ("n", "d", "u", "keys"),
            (*CHINCHILLA, R_D, WORTH),
            transposition,
        ),
        Law(
            "mupt",
            "L = E + A·N^-alpha + B·D''^-beta + d·N^-alpha·D''^-beta, D'' = U·(1 - k^(D/U))/(1 - k)",
            "Qu et al. 2024 (MuPT, 2404.06393), eq. 2 and 12",
            ("n", "d", "u"),
            MUPT,
            mupt,
        ),
        Law(
            "sms",
            "L = mupt's + GELU(k_d·D + k_n·log N - k_u·log U - k_in)",
            "Qu et al. 2024 (MuPT, 2404.06393), eq. 3 and 4",
            ("n", "d", "u"),
            (*MUPT, *OVERFIT),
            sms,
        ),
    )
}
