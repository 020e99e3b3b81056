"""Laws with known parameters, designs of runs like real ones, and losses made from them."""

import numpy as np

from analysis.fitting import columns_of
from analysis.laws import LAWS

SIZES = np.geomspace(2e4, 2e7, 8)
N = np.repeat(SIZES, 3)
CHINCHILLA = [0.9, np.log(25), 0.35, np.log(300), 0.42]
MUPT = [0.8, np.log(15), 0.33, np.log(150), 0.4, np.log(2000), np.log(0.08)]
THETA = {
    "power": [np.log(8), 0.12],
    "power_irreducible": [1.0, np.log(20), 0.3],
    "chinchilla": CHINCHILLA,
    "data_constrained": [*CHINCHILLA, np.log(12), np.log(6)],
    "transposition": [*CHINCHILLA, np.log(8), 0.25],
    "mupt": MUPT,
    "sms": [*MUPT, 2e-8, 0.06, 0.05, 0.3],
}


def crossed(*axes):
    """All combinations of the axes' values, one array an axis."""
    return [values.ravel() for values in np.meshgrid(*axes, indexing="ij")]


_FEW_SIZES = np.geomspace(2e4, 2e6, 5)
_N, _PART, _D = crossed(_FEW_SIZES, [1.0, 4, 8, 16, 32], [1e6, 4e6, 16e6])
_N_OF_KEYS, _KEYS, _D_OF_KEYS = crossed(_FEW_SIZES, [1.0, 3, 6, 12], [2e6, 8e6, 32e6])
GRID = dict(zip(("n", "d"), crossed(SIZES, [1e6, 2e6, 4e6, 8e6]), strict=True))
REPEATED = {"n": _N, "d": _D, "u": 3e6 / _PART}
TRANSPOSED = {"n": _N_OF_KEYS, "d": _D_OF_KEYS, "u": np.full(len(_KEYS), 1e6), "keys": _KEYS}
DESIGNS = {
    "power": {"n": N},
    "power_irreducible": {"n": N},
    "chinchilla": GRID,
    "data_constrained": REPEATED,
    "transposition": TRANSPOSED,
    "mupt": REPEATED,
    "sms": REPEATED,
}


def with_noise(loss, spread, seed=0):
    return loss * np.exp(np.random.default_rng(seed).normal(0, spread, np.shape(loss)))


def made(name, noise=0.0, seed=0):
    """Losses of a known law at its design, and the design."""
    law, given = LAWS[name], DESIGNS[name]
    loss = law.predict(np.array([THETA[name]]), columns_of(law, given)[0])[0]
    return with_noise(loss, noise, seed), given


def falling(n, e=1.0, a=30, alpha=0.35):
    """The loss of a power law with an irreducible loss."""
    return e + a * n**-alpha
