"""4,000 bootstrap resamples of the Chinchilla law beside scipy's L-BFGS-B, on one core: python benchmarks/fitting.py

The points are the 240 of tests/data with a loss below the fifth largest; Huber loss on log loss with delta 1e-3.

this project   analysis.fitting.fit: the fit, profiles, jackknife, and 4,000 resamples from the fit's minimum
scipy          scipy.optimize.minimize on the logarithms of E, A and B, as published analyses do, from several starts a
               resample; a few resamples, extrapolated

The check: scipy finds no lower objective on sampled resamples, from the same starts or from our minimum.
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
from scipy.optimize import minimize
from scipy.special import logsumexp

from analysis.fitting import fit, resample
from training.measurements import cpu_name

Array = NDArray[np.float64]
POINTS = Path(__file__).parents[1] / "tests" / "data" / "chinchilla_svg_extracted_data.csv"
DELTA = 1e-3
STARTS = [np.array(start) for start in product((0.5,), (5.0, 10.0), (0.3, 0.6), (5.0, 10.0), (0.3,))]


def read_points() -> dict[str, Array]:
    """Return n, d and loss of the points whose loss is below the fifth largest."""
    with POINTS.open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    n, c, loss = (np.array([float(row[name]) for row in rows]) for name in ("Model Size", "Training FLOP", "loss"))
    kept = loss < np.sort(loss)[-5]
    return {"n": n[kept], "d": (c / 6 / n)[kept], "loss": loss[kept]}


def objective(theta: Array, points: dict[str, Array], weights: Array) -> tuple[float, Array]:
    """Return the weighted Huber loss of log E, log A, alpha, log B, beta and its gradient."""
    log_n, log_d = np.log(points["n"]), np.log(points["d"])
    logs = np.stack([np.full(len(log_n), theta[0]), theta[1] - theta[2] * log_n, theta[3] - theta[4] * log_d])
    total = logsumexp(logs, axis=0)
    residual = total - np.log(points["loss"])
    slope = np.clip(residual, -DELTA, DELTA)
    pull = weights * slope * np.exp(logs - total)
    gradient = np.array([pull[0].sum(), pull[1].sum(), -pull[1] @ log_n, pull[2].sum(), -pull[2] @ log_d])
    return float(weights @ (slope * (residual - slope / 2))), gradient


def by_scipy(
    points: dict[str, Array], weights: Array, starts: list[Array], gradient: bool, precise: bool = False
) -> float:
    """Return the lowest objective of L-BFGS-B from all starts, with its default tolerances or to full precision."""
    lowest = float("inf")
    options = {"maxiter": 5000, "maxfun": 50_000} | ({"ftol": 1e-15, "gtol": 1e-12} if precise else {})
    for start in starts:
        scale = 1 / objective(start, points, weights)[0] if precise else 1.0

        def scaled(theta: Array, scale: float = scale) -> tuple[float, Array] | float:
            value, slope = objective(theta, points, weights)
            return (scale * value, scale * slope) if gradient else scale * value

        found = minimize(scaled, start, jac=gradient, method="L-BFGS-B", options=options)
        lowest = min(lowest, objective(found.x, points, weights)[0])
    return lowest


def main() -> None:
    """Print the table and the check."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--resamples", type=int, default=4000)
    parser.add_argument("--sampled", type=int, default=40, help="resamples that scipy fits")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    print(f"{cpu_name()}, one thread, Python {platform.python_version()}, numpy {np.__version__}, ", end="")
    print(f"scipy {scipy.__version__}")
    points = read_points()
    draws = resample(len(points["loss"]), options.resamples)
    rounds = []
    for _ in range(options.rounds):
        start = time.perf_counter()
        fitted = fit("chinchilla", **points, delta=DELTA, draws=draws)
        rounds.append(time.perf_counter() - start)
    ours = statistics.median(rounds)
    print(f"\n| {options.resamples:,} resamples | seconds | |\n|---|---|---|\n| this project | {ours:.2f} | |")
    some = np.random.default_rng(0).permutation(options.resamples)[: options.sampled]
    for gradient in (True, False):
        start = time.perf_counter()
        for row in some:
            by_scipy(points, draws[row], STARTS, gradient)
        seconds = (time.perf_counter() - start) / len(some) * options.resamples
        name = f"scipy, {len(STARTS)} starts, {'gradient given' if gradient else 'finite differences'}"
        print(f"| {name} (extrapolated from {len(some)}) | {seconds:.0f} | × {seconds / ours:.0f} |")
    excess = []
    for row in some:
        e, *others = fitted.resampled[row]
        theta = np.array([np.log(e), *others])
        lowest = by_scipy(points, draws[row], [*STARTS, theta], gradient=True, precise=True)
        excess.append(objective(theta, points, draws[row])[0] / lowest - 1)
    converged = int(np.isfinite(fitted.resampled).all(axis=1).sum())
    print(f"\n{converged:,} of {options.resamples:,} converged; standard errors:")
    print(", ".join(f"{name} {estimate.standard_error:.6g}" for name, estimate in fitted.parameters.items()))
    print(f"our objective over scipy's lowest: at most {max(excess):+.1e}, at least {min(excess):+.1e}")


if __name__ == "__main__":
    main()
