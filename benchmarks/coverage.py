"""How often 95 % intervals of fitted laws hold the truth: python benchmarks/coverage.py [--studies 500] [--law mupt …]

Synthetic studies of known laws, with designs of real ones. All budgets of a trunk (size, seed, part of the data, keys)
share its noise, and each run has its own noise; trunks are the clusters. A cell is the share of studies whose interval
holds the true parameter, ± half of its Wilson interval; an open side holds everything. Studies count whether or not
their parameters are identified.
"""

import os

os.environ |= dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")  # before numpy

import argparse
import platform
import time
import warnings
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import product
from multiprocessing import get_context
from typing import Any

import numpy as np
import scipy
from numpy.typing import NDArray
from tqdm import tqdm

from analysis.fitting import columns_of, fit
from analysis.intervals import wilson
from analysis.laws import LAWS
from training.measurements import cpu_name

INTERVALS = ("bootstrap", "profile", "jackknife")
SEEDS = (0, 1, 2)
SIZES = tuple(np.geomspace(2e4, 6e6, 8).tolist())
FEWER_SIZES = tuple(np.geomspace(2e4, 2e6, 5).tolist())
UNIQUE = 3e6
CHINCHILLA = (0.9, np.log(25), 0.35, np.log(300), 0.42)
MUPT = (0.8, np.log(15), 0.33, np.log(150), 0.4, np.log(2000), np.log(0.08))


@dataclass(frozen=True)
class Design:
    """The true parameters, as they are fitted, and the axes of a study."""

    theta: tuple[float, ...]
    sizes: tuple[float, ...] = SIZES
    budgets: tuple[float, ...] = (2e6,)
    one_in: tuple[float, ...] = (1,)
    keys: tuple[float, ...] = (1,)


REPEATED: dict[str, Any] = {"sizes": FEWER_SIZES, "budgets": (1e6, 4e6, 16e6), "one_in": (1, 2, 4, 8, 16, 32)}
DESIGNS = {
    "power": Design((np.log(8), 0.12)),
    "power_irreducible": Design((1.0, np.log(20), 0.3)),
    "chinchilla": Design(CHINCHILLA, budgets=(1e6, 2e6, 4e6, 8e6)),
    "data_constrained": Design((*CHINCHILLA, np.log(12), np.log(6)), **REPEATED),
    "transposition": Design((*CHINCHILLA, np.log(8), 0.25), FEWER_SIZES, (4e6, 16e6, 64e6), keys=(1, 3, 6, 12)),
    "mupt": Design(MUPT, **REPEATED),
    "sms": Design((*MUPT, 2e-8, 0.06, 0.05, 0.3), **REPEATED),
}


def study(name: str, delta: float, noise: float, resamples: int, seed: int) -> tuple[NDArray[np.bool_], bool, float]:
    """Fit one synthetic study: which interval holds which parameter [intervals, parameters], convergence, seconds."""
    design, law = DESIGNS[name], LAWS[name]
    rows = list(product(design.sizes, SEEDS, design.one_in, design.keys, design.budgets))
    n, _, one_in, keys, d = np.array(rows).T
    given = {"n": n, "d": d, "u": UNIQUE / one_in, "keys": keys}
    given = {key: given[key] for key in (("n",) if law.needs == ("x",) else law.needs)}
    trunk = np.repeat(np.arange(len(rows) // len(design.budgets)), len(design.budgets))
    draw = np.random.default_rng(seed)
    shared = draw.normal(0, noise, trunk.max() + 1)[trunk] if len(design.budgets) > 1 else 0.0
    noise_of_points = shared + draw.normal(0, noise, len(rows))
    loss = law.predict(np.array([design.theta]), columns_of(law, given)[0])[0] * np.exp(noise_of_points)
    start = time.perf_counter()
    fitted = fit(law, loss, **given, clusters=trunk, sizes=n, delta=delta, resamples=resamples, seed=seed)
    seconds = time.perf_counter() - start
    holds = np.zeros((len(INTERVALS), len(design.theta)), dtype=bool)
    for i, (parameter, value) in enumerate(zip(law.parameters, design.theta, strict=True)):
        truth = float(parameter.shown(value))
        for kind, interval in enumerate(INTERVALS):
            low, high = getattr(fitted.parameters[parameter.name], interval)
            holds[kind, i] = (low is None or low <= truth) and (high is None or truth <= high)
    return holds, fitted.converged and bool(np.isfinite(fitted.resampled).all()), seconds


def cell(held: int, studies: int) -> str:
    """Return a share in percent with half of its Wilson interval; in bold where that lies outside 93 to 97 %."""
    low, high = wilson(held / studies, studies)
    text = f"{100 * held / studies:.1f} ± {50 * (high - low):.1f}"
    return f"**{text}**" if high < 0.93 or low > 0.97 else text


def main() -> None:
    """Print a table a law."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--studies", type=int, default=500)
    parser.add_argument("--first", type=int, default=0, help="the first study's seed")
    parser.add_argument("--law", nargs="+", default=list(DESIGNS), choices=list(DESIGNS))
    parser.add_argument("--delta", type=float, default=0.01)
    parser.add_argument("--noise", type=float, default=0.003)
    parser.add_argument("--resamples", type=int, default=400)
    options = parser.parse_args()
    warnings.simplefilter("error")
    print(f"{cpu_name()}, Python {platform.python_version()}, numpy {np.__version__}, scipy {scipy.__version__}")
    print(f"{options.studies} studies a law, {options.resamples} resamples, delta {options.delta:g}, ", end="")
    print(f"noise {options.noise:.1%} of the trunk and of the run")
    seeds = range(options.first, options.first + options.studies)
    with ProcessPoolExecutor(os.cpu_count(), mp_context=get_context("spawn")) as pool:
        for name in options.law:
            one = partial(study, name, options.delta, options.noise, options.resamples)
            found = list(tqdm(pool.map(one, seeds), total=len(seeds), desc=name, leave=False, disable=None))
            held = np.sum([holds for holds, _, _ in found], axis=0)
            converged = sum(whole for _, whole, _ in found)
            seconds = np.median([seconds for _, _, seconds in found])
            print(f"\n| {name} | {' | '.join(LAWS[name].names)} |\n" + "|---" * (len(LAWS[name].names) + 1) + "|")
            for interval, shares in zip(INTERVALS, held, strict=True):
                print(f"| {interval} | {' | '.join(cell(int(share), options.studies) for share in shares)} |")
            print(f"\n{converged} studies converged in all resamples; {seconds:.2f} s a study", flush=True)


if __name__ == "__main__":
    main()
