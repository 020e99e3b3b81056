"""4,000 bootstrap resamples of the Chinchilla law beside plain scipy, on one core: python -m benchmarks.fitting

The points read off the figure of Hoffmann et al. 2022, the 240 of them with a loss below the fifth largest, in the
folder that SCALING_REFERENCE_CASES names; Huber loss on log loss with delta 1e-3.

this project   analysis.fitting.fit whole: the fit, its profiles, its jackknife and 4,000 resamples from the fit's
               minimum, the first 100 of them (and all, if one ends lower) from starts of their own too
all own        the same with starts of their own for all
scipy          scipy.optimize.minimize, L-BFGS-B on the logarithms of E, A and B by logsumexp, as published analyses do,
               from several starts a resample, by finite differences or with the gradient; a few resamples, extrapolated

The check: of sampled resamples none has a lower objective by scipy, from the same starts and from our own minimum.
"""

import os

os.environ |= dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")  # before numpy

import argparse
import csv
import platform
import statistics
import time
from itertools import product
from pathlib import Path

import numpy as np
import scipy
from numpy.typing import NDArray
from scipy.optimize import OptimizeResult, minimize

from analysis import fitting
from analysis.fitting import fit, resample
from training.measurements import cpu_name

Array = NDArray[np.float64]
CASES = Path(os.environ.get("SCALING_REFERENCE_CASES", Path(__file__).parents[2] / "shared" / "reference_cases"))
DELTA = 1e-3
STARTS = [np.array(start) for start in product((0.5,), (5.0, 10.0), (0.3, 0.6), (5.0, 10.0), (0.3,))]


def read_points() -> dict[str, Array]:
    """Return n, d and loss of the points whose loss is below the fifth largest."""
    with (CASES / "chinchilla_svg_extracted_data.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    n, c, loss = (np.array([float(row[name]) for row in rows]) for name in ("Model Size", "Training FLOP", "loss"))
    kept = loss < np.sort(loss)[-5]
    return {"n": n[kept], "d": (c / 6 / n)[kept], "loss": loss[kept]}


def objective(theta: Array, log_n: Array, log_d: Array, log_loss: Array, weights: Array) -> tuple[float, Array]:
    """Return the weighted Huber loss of log E, log A, alpha, log B, beta and its gradient."""
    terms = np.stack([np.full(len(log_n), theta[0]), theta[1] - theta[2] * log_n, theta[3] - theta[4] * log_d])
    highest = terms.max(axis=0)
    shares = np.exp(terms - highest)
    total = shares.sum(axis=0)
    residual = highest + np.log(total) - log_loss
    slope = np.clip(residual, -DELTA, DELTA)
    pull = weights * slope * shares / total
    gradient = np.array([pull[0].sum(), pull[1].sum(), -pull[1] @ log_n, pull[2].sum(), -pull[2] @ log_d])
    return float(weights @ (slope * (residual - slope / 2))), gradient


def plain(points: dict[str, Array], weights: Array, starts: list[Array], jac: bool, tight: bool = False) -> float:
    """Return the lowest objective of L-BFGS-B from all starts."""
    given = (np.log(points["n"]), np.log(points["d"]), np.log(points["loss"]), weights)
    options = {"maxiter": 5000, "maxfun": 50_000} | ({"ftol": 1e-15, "gtol": 1e-12} if tight else {})
    found: list[OptimizeResult] = []
    for start in starts:
        function = objective if jac else lambda *args: objective(*args)[0]
        scale = 1 / objective(start, *given)[0] if tight else 1.0
        scaled = (lambda *args, s=scale: tuple(s * part for part in objective(*args))) if tight else function
        found.append(minimize(scaled, start, given, jac=jac, method="L-BFGS-B", options=options))
    return min(objective(result.x, *given)[0] for result in found)


def main() -> None:
    """Print the table and the check."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--resamples", type=int, default=4000)
    parser.add_argument("--plain", type=int, default=40, help="resamples that scipy fits and that are extrapolated")
    parser.add_argument("--checked", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    print(f"{cpu_name()}, one thread, Python {platform.python_version()}, numpy {np.__version__}, ", end="")
    print(f"scipy {scipy.__version__}")
    points = read_points()
    draws = resample(len(points["loss"]), options.resamples)
    some = np.random.default_rng(0).permutation(options.resamples)
    checked = fitting.CHECKED
    ours, theirs = {checked: [], options.resamples: []}, {True: [], False: []}
    for i in range(options.rounds):
        for fitting.CHECKED, seconds in ours.items():
            start = time.perf_counter()
            fitted = fit("chinchilla", **points, delta=DELTA, draws=draws)
            seconds.append(time.perf_counter() - start)
        for jac, seconds in theirs.items():
            part = some[i :: options.rounds][: max(1, options.plain // options.rounds)]
            start = time.perf_counter()
            for row in part:
                plain(points, draws[row], STARTS, jac)
            seconds.append((time.perf_counter() - start) / len(part) * options.resamples)
    mine, all_own = (statistics.median(seconds) for seconds in ours.values())
    print(f"\n| {options.resamples:,} resamples | seconds | |\n|---|---|---|")
    print(f"| this project | {mine:.2f} | |\n| all own | {all_own:.2f} | × {all_own / mine:.1f} |")
    for jac, seconds in theirs.items():
        name = f"scipy L-BFGS-B, {len(STARTS)} starts, {'its gradient given' if jac else 'finite differences'}"
        print(f"| {name} (extrapolated from {options.plain}) | {statistics.median(seconds):.0f} ", end="")
        print(f"| × {statistics.median(seconds) / mine:.0f} |")
    converged = int(np.isfinite(fitted.resampled).all(axis=1).sum())
    print(f"\n{converged:,} of {options.resamples:,} converged; standard errors:")
    print(", ".join(f"{name} {estimate.standard_error:.6g}" for name, estimate in fitted.parameters.items()))

    given = (np.log(points["n"]), np.log(points["d"]), np.log(points["loss"]))
    excess = []
    for row in some[: options.checked]:
        e, *others = fitted.resampled[row]
        theta = np.array([np.log(e), *others])
        own = objective(theta, *given, draws[row])[0]
        excess.append(own / plain(points, draws[row], [*STARTS, theta], True, tight=True) - 1)
    print(f"objective over scipy's, {options.checked} resamples: at most {max(excess):.1e}, at least {min(excess):.1e}")


if __name__ == "__main__":
    main()
