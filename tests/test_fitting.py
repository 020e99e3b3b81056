"""Fits that recover what is known, that no general optimiser improves on, and that doubt what data do not identify."""

import csv
import json
import os
from pathlib import Path

import numpy as np
import pytest
from scipy.optimize import minimize
from scipy.stats import t

from analysis.fitting import Problem, _Side, columns_of, fit, jackknife, percentiles, resample, seed_weights
from analysis.laws import LAWS

CASES = Path(os.environ.get("SCALING_REFERENCE_CASES", Path(__file__).parents[2] / "shared" / "reference_cases"))
POINTS = CASES / "chinchilla_svg_extracted_data.csv"
SIZES = np.geomspace(2e4, 2e7, 8)
N = np.repeat(SIZES, 3)


@pytest.fixture(autouse=True)
def _rough_profiles(monkeypatch):
    """Profiles of 6 points a side: as good for a verdict, and made in a fourth of the time."""
    monkeypatch.setattr("analysis.fitting.PROFILE_POINTS", 6)


def with_noise(loss, spread, seed=0):
    return loss * np.exp(np.random.default_rng(seed).normal(0, spread, np.shape(loss)))


def floor_law(n, e=1.0, a=30, alpha=0.35):
    return e + a * n**-alpha


def crossed(*axes):
    """All combinations of the axes' values, one array an axis."""
    return [values.ravel() for values in np.meshgrid(*axes, indexing="ij")]


SOME_SIZES = np.geomspace(2e4, 2e6, 5)
SIZE, ONE_IN, BUDGET = crossed(SOME_SIZES, [1.0, 4, 8, 16, 32], [1e6, 4e6, 16e6])
REPEATED = {"n": SIZE, "d": BUDGET, "u": 3e6 / ONE_IN}
SIZE_K, KEYS, BUDGET_K = crossed(SOME_SIZES, [1.0, 3, 6, 12], [2e6, 8e6, 32e6])
TRANSPOSED = {"n": SIZE_K, "d": BUDGET_K, "u": np.full(len(KEYS), 1e6), "keys": KEYS}
PLAIN = dict(zip(("n", "d"), crossed(SIZES, [1e6, 2e6, 4e6, 8e6]), strict=True))
CHINCHILLA = [0.9, np.log(25), 0.35, np.log(300), 0.42]
MUPT = [0.8, np.log(15), 0.33, np.log(150), 0.4, np.log(2000), np.log(0.08)]
KNOWN = {
    "power": ({"n": N}, [np.log(8), 0.12]),
    "power_irreducible": ({"n": N}, [1.0, np.log(20), 0.3]),
    "chinchilla": (PLAIN, CHINCHILLA),
    "data_constrained": (REPEATED, [*CHINCHILLA, np.log(12), np.log(6)]),
    "transposition": (TRANSPOSED, [*CHINCHILLA, np.log(8), 0.25]),
    "mupt": (REPEATED, MUPT),
    "sms": (REPEATED, [*MUPT, 2e-8, 0.06, 0.05, 0.3]),
}
LAW = pytest.mark.parametrize("name", KNOWN)


def made(name, noise=0.0, seed=0):
    """Losses of a known law at its design, and the design."""
    given, theta = KNOWN[name]
    loss = LAWS[name].predict(np.array([theta]), columns_of(LAWS[name], given)[0])[0]
    return with_noise(loss, noise, seed), given


# Optima


@LAW
def test_every_law_is_recovered_from_exact_losses(name):
    loss, given = made(name)
    fitted = fit(name, loss, **given, resamples=10)
    assert fitted.converged
    assert fitted.identified
    assert fitted.theta == pytest.approx(KNOWN[name][1], rel=1e-6)
    assert fitted.objective < 1e-25


@pytest.mark.parametrize(
    ("e", "a", "alpha"), [(0.5, 5, 0.15), (1.8172, 477.8, 0.3473), (0.9, 8, 0.05), (0.01, 8, 0.12)]
)
def test_a_floor_high_or_low_is_recovered(e, a, alpha):
    fitted = fit("power_irreducible", floor_law(N, e, a, alpha), n=N, resamples=10)
    assert fitted.theta == pytest.approx([e, np.log(a), alpha], abs=1e-6)
    assert fitted.predict(n=[1e9]) == pytest.approx([floor_law(1e9, e, a, alpha)], abs=1e-6)


def scipy_optimum(problem, weights, starts):
    """The least objective that L-BFGS-B finds from some starts, and exact Newton steps from where it ends."""
    bounds = [(parameter.lower, parameter.upper) for parameter in problem.law.parameters]
    ends = []
    for start in starts:
        scale = 1 / problem.evaluate(start[None], weights[None])[0][0]

        def objective(theta, scale=scale):
            with np.errstate(all="ignore"):
                value, slope, _, _ = problem.evaluate(theta[None], weights[None])
            if not (np.isfinite(value[0]) and np.isfinite(slope).all()):
                return 1e10, np.zeros(len(theta))
            return scale * value[0], scale * slope[0]

        options = {"maxiter": 2000, "maxfun": 4000, "ftol": 1e-15, "gtol": 1e-12, "maxcor": 30}
        ends.append(minimize(objective, start, jac=True, method="L-BFGS-B", bounds=bounds, options=options).x)
    polished = problem.solve(np.repeat(weights[None], len(ends), axis=0), np.stack(ends))
    return polished.objective.min()


@pytest.mark.parametrize(
    ("name", "seed", "noise", "delta"),
    [(name, 0, 0.003, 1e-2) for name in KNOWN]
    + [(name, *harder) for name in list(KNOWN)[:5] for harder in ((1, 0.02, 1e-3), (2, 0.02, np.inf))],
)
def test_no_general_optimiser_finds_a_lower_objective_on_noisy_losses(name, seed, noise, delta):
    loss, given = made(name, noise, seed)
    loss[seed] *= 1.15  # an outlier, so that both branches of the Huber loss count
    fitted = fit(name, loss, **given, delta=delta, resamples=3)
    problem = Problem(LAWS[name], columns_of(LAWS[name], given)[0], np.log(loss), delta)
    draw = np.random.default_rng(seed)
    truth = np.array(KNOWN[name][1])
    starts = truth * draw.uniform(0.8, 1.2, (3, len(truth)))
    assert fitted.converged
    assert fitted.objective <= scipy_optimum(problem, np.ones(len(loss)), [truth, *starts]) * (1 + 1e-9)


@pytest.mark.parametrize("seed", [0, 4])
def test_a_bad_start_does_not_leave_the_law_of_repeated_data_in_a_worse_minimum(seed):
    """Of the starts that look best before any step many lead to a minimum tens of times as high."""
    loss, given = made("data_constrained", 0.003 if seed % 2 else 0.02, seed)
    fitted = fit("data_constrained", loss, **given, resamples=5)
    problem = Problem(fitted.law, columns_of(fitted.law, given)[0], np.log(loss), fitted.delta)
    truth = np.array([KNOWN["data_constrained"][1]])
    assert fitted.objective <= problem.solve(np.ones((1, len(loss))), truth).objective[0] * (1 + 1e-9)


@pytest.mark.parametrize("seed", range(1, 9))
def test_the_fit_converges_where_most_runs_lie_off_the_law(seed):
    """A power law fitted to losses that have a floor: most residuals are on the linear branch of the Huber loss."""
    n = with_noise(N, 0.02, seed)
    fitted = fit("power", with_noise(floor_law(n), 0.004, seed + 100), n=n, resamples=200)
    assert fitted.converged
    assert np.isfinite(fitted.resampled).all()


@pytest.mark.parametrize("name", ["power", "power_irreducible", "chinchilla", "transposition", "mupt"])
def test_the_units_of_the_variables_and_the_order_of_the_runs_change_nothing_but_factors(name):
    loss, given = made(name, 0.003)
    order = np.random.default_rng(1).permutation(len(loss))
    fitted = fit(name, loss, **given, resamples=10)
    units = {"n": 1e-3, "d": 1e6, "u": 1e6, "keys": 1}
    others = fit(name, loss[order], **{key: values[order] * units[key] for key, values in given.items()}, resamples=10)
    same = [
        i
        for i, parameter in enumerate(LAWS[name].names)
        if parameter in ("E", "alpha", "beta", "R_D*", "R_N*", "w", "k")
    ]
    assert others.objective == pytest.approx(fitted.objective, rel=1e-8)
    assert others.theta[same] == pytest.approx(fitted.theta[same], rel=2e-4)


def test_a_point_of_weight_two_is_two_points_and_one_of_weight_zero_is_none():
    loss = with_noise(floor_law(N), 0.003)
    weights = np.ones(len(N))
    weights[:3], weights[3:6] = 2, 0
    kept = np.r_[0:3, 0:3, 6:24]
    weighted = fit("power_irreducible", loss, n=N, weights=weights, resamples=10)
    written_out = fit("power_irreducible", loss[kept], n=N[kept], resamples=10)
    assert weighted.theta == pytest.approx(written_out.theta, rel=1e-7)
    assert weighted.objective == pytest.approx(written_out.objective)


SHAPES = {
    "falling to a floor": floor_law,
    "falling without a floor": lambda n: 8 * n**-0.12,
    "steeper than a power law": lambda n: 3 - 0.15 * np.log(n / 2e4),
    "flat": lambda n: 1.5 + 0 * n,
    "rising": lambda n: 0.5 * n**0.08,
    "rising like a logarithm": lambda n: 1 + 0.1 * np.log(n),
}


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES.keys())
def test_a_free_floor_never_makes_a_fit_worse(shape):
    loss = with_noise(shape(N), 0.003)
    power, floor = (fit(law, loss, n=N, resamples=20).objective for law in ("power", "power_irreducible"))
    assert floor <= power * (1 + 1e-9)


def test_one_outlier_moves_the_exponent_little():
    loss = with_noise(floor_law(N), 0.002)
    spoilt = loss.copy()
    spoilt[10] *= 1.5
    clean, moved = (fit("power_irreducible", losses, n=N, resamples=10).theta[2] for losses in (loss, spoilt))
    assert abs(moved - clean) < 0.02


@pytest.mark.parametrize(
    "changes",
    [
        {"loss": [3, 2]},
        {"n": [1e4, 1e4, 1e5, 1e5, 1e5]},
        {"loss": [3, 2, 1.5, np.nan, 1.1]},
        {"loss": [3, 2, 1.5, 0, 1.1]},
        {"n": [0, 1e4, 1e5, 1e6, 1e7]},
        {"n": None},
        {"weights": [1, 1, 1, 1, np.nan]},
        {"weights": [1, 1, 1, 1, -1]},
        {"weights": [1, 1, 0, 0, 0]},
        {"weights": [1, 1, 1]},
        {"clusters": [1, 1, 1]},
        {"sizes": [1, 1, 1]},
        {"delta": 0.0},
        {"delta": np.nan},
    ],
    ids=str,
)
def test_what_cannot_be_fitted_is_refused_in_one_sentence(changes):
    given = {"loss": [3, 2, 1.5, 1.2, 1.1], "n": [1e4, 1e5, 1e6, 1e7, 1e8]} | changes
    with pytest.raises(
        ValueError, match=r"too few|positive|weights must|there are 5 losses|there are 2 losses|one variable"
    ):
        fit("power", **given, resamples=5)


# Large tables


def test_equal_points_are_one_of_so_many_copies():
    few = {"n": N, "loss": with_noise(floor_law(N), 0.005)}
    times = np.arange(len(N)) % 3 + 1
    many = {name: np.repeat(values, times) for name, values in few.items()}
    order = np.random.default_rng(0).permutation(len(many["n"]))
    fitted = fit("power_irreducible", **{name: values[order] for name, values in many.items()}, resamples=200)
    weighted = fit("power_irreducible", **few, weights=times, resamples=200)
    assert (fitted.points, fitted.distinct, fitted.clusters) == (len(order), len(N), len(order))
    np.testing.assert_allclose(fitted.theta, weighted.theta, rtol=1e-6)
    np.testing.assert_allclose(fitted.residuals, np.repeat(weighted.residuals, times)[order], rtol=1e-5, atol=1e-9)
    # The draws are those of single copies, and so is the covariance.
    draws = resample(len(N), 200, copies=times)
    assert (draws.sum(axis=1) == times.sum()).all()
    assert draws.mean(axis=0) == pytest.approx(times, rel=0.4)
    apart = fit("power_irreducible", **many, draws=resample(len(order), 400))
    assert fitted.parameters["alpha"].standard_error == pytest.approx(
        apart.parameters["alpha"].standard_error, rel=0.25
    )
    assert fitted.parameters["alpha"].profile == pytest.approx(apart.parameters["alpha"].profile, rel=3e-3)


def test_equal_points_of_one_cluster_are_drawn_together():
    loss, trunk = with_noise(floor_law(N), 0.005), np.arange(len(N)) % 6
    twice = fit("power_irreducible", np.tile(loss, 2), n=np.tile(N, 2), clusters=np.tile(trunk, 2), resamples=100)
    once = fit("power_irreducible", loss, n=N, clusters=trunk, resamples=100)
    assert (twice.distinct, twice.clusters) == (len(N), 6)
    np.testing.assert_allclose(twice.resampled, once.resampled, rtol=1e-5)


@pytest.mark.parametrize("tails", ["normal", "heavy"])
@pytest.mark.parametrize("trunks", [None, 12])
def test_a_large_table_has_the_fit_and_nearly_the_intervals_of_all_its_points(monkeypatch, tails, trunks):
    generator = np.random.default_rng(3)
    n, d = np.exp(generator.uniform(np.log([1e6, 1e8]), np.log([1e10, 1e12]), (3000, 2)).T)
    off = generator.normal(0, 0.01, 3000) if tails == "normal" else generator.standard_t(2, 3000) * 0.005
    loss = (1.8 + 480 * n**-0.35 + 2100 * d**-0.37) * np.exp(off)
    given = {"n": n, "d": d, "clusters": None if trunks is None else generator.integers(0, trunks, 3000)}
    fits = []
    for largest in (4000, 1000):
        monkeypatch.setattr("analysis.fitting.LARGE", largest)
        fits.append(fit("chinchilla", loss, **given, resamples=400))
    exact, large = fits
    assert large.refitted <= 1000 < large.distinct == exact.refitted == 3000
    np.testing.assert_allclose(large.theta, exact.theta, rtol=1e-6)
    for name, estimate in large.parameters.items():
        other = exact.parameters[name]
        assert estimate.identified
        assert other.identified
        assert estimate.standard_error == pytest.approx(other.standard_error, rel=0.3)
        for kind in ("bootstrap", "jackknife", "profile"):
            low, high = getattr(estimate, kind)
            assert low < estimate.value < high
            assert high - low == pytest.approx(np.ptp(getattr(other, kind)), rel=0.4)


def test_a_few_runs_at_a_rare_size_are_not_lost_in_a_large_table():
    n = np.concatenate([np.tile([1e6, 2e6, 4e6], 2000), np.full(5, 1e9)])
    loss = with_noise(floor_law(n, a=300), 0.003)
    fitted = fit("power_irreducible", loss, n=n)
    assert fitted.refitted < fitted.distinct
    assert values(fitted) == pytest.approx({"E": 1.0, "A": 300, "alpha": 0.35}, rel=0.2)
    assert (
        not fitted.parameters["E"].identified
        or fitted.parameters["E"].bootstrap[0] < 1 < fitted.parameters["E"].bootstrap[1]
    )


def test_a_law_that_a_large_table_does_not_identify_is_not_identified():
    n = np.exp(np.random.default_rng(0).uniform(np.log(1e6), np.log(1e10), 5000))
    loss = with_noise(1.8 + 480 * n**-0.35 + 2100 * (20 * n) ** -0.37, 0.01)
    fitted = fit("chinchilla", loss, n=n, d=20 * n, resamples=100)
    assert not fitted.parameters["alpha"].identified
    assert not fitted.parameters["beta"].identified


def test_the_sums_over_blocks_of_points_are_those_over_all(monkeypatch):
    problem = Problem(LAWS["chinchilla"], {name: PLAIN[name] for name in ("n", "d")}, np.zeros(len(PLAIN["n"])), 1e-3)
    theta, weights = np.outer([1, 1.1], CHINCHILLA), np.ones((2, len(PLAIN["n"])))
    once = problem.evaluate(theta, weights)
    monkeypatch.setattr("analysis.fitting.CACHE", 20)
    for found, expected in zip(problem.evaluate(theta, weights), once, strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-12)


# Published fits


@pytest.fixture(scope="module")
def hoffmann():
    """The points read off the figure of Hoffmann et al. 2022."""
    if not POINTS.is_file():
        pytest.skip(f"there is no {POINTS}: SCALING_REFERENCE_CASES names the folder that holds it")
    with POINTS.open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    n, c, loss = (np.array([float(row[name]) for row in rows]) for name in ("Model Size", "Training FLOP", "loss"))
    return {"n": n, "d": c / 6 / n, "loss": loss}


@pytest.fixture(scope="module")
def kept(hoffmann):
    """The 240 points whose loss is below the fifth largest."""
    few = hoffmann["loss"] < np.sort(hoffmann["loss"])[-5]
    return {name: values[few] for name, values in hoffmann.items()}


def values(fitted):
    return {name: estimate.value for name, estimate in fitted.parameters.items()}


def test_the_chinchilla_law_has_the_known_optimum_at_the_usual_delta(kept):
    fitted = fit("chinchilla", **kept, delta=1e-3, resamples=10)
    assert fitted.points == 240
    assert fitted.converged
    assert fitted.objective <= 1.01828e-3
    found = values(fitted)
    assert {name: found[name] for name in ("E", "alpha", "beta")} == pytest.approx(
        {"E": 1.81722, "alpha": 0.34731, "beta": 0.36717}, abs=1e-4
    )
    assert (found["A"], found["B"]) == pytest.approx((477.826, 2143.42), rel=1e-5)


def test_the_published_replication_is_the_limit_of_a_small_delta(kept):
    """Besiroglu et al. 2024."""
    found = values(fit("chinchilla", **kept, delta=1e-6, resamples=10))
    assert (found["alpha"], found["beta"]) == pytest.approx((0.3478, 0.3659), abs=2e-4)
    assert (found["A"], found["B"]) == pytest.approx((482.0, 2085.4), rel=5e-3)
    assert found["E"] == pytest.approx(1.8169, abs=2e-4)


def test_all_of_the_points_give_the_known_values(hoffmann):
    found = values(fit("chinchilla", **hoffmann, delta=1e-3, resamples=10))
    assert (found["E"], found["alpha"], found["beta"]) == pytest.approx((1.891, 0.349, 0.453), abs=1e-3)


def test_the_published_resamples_give_the_known_standard_errors(kept):
    state = np.random.RandomState(42)
    draws = np.stack([np.bincount(state.choice(240, 240, replace=True), minlength=240) for _ in range(4000)])
    fitted = fit("chinchilla", **kept, delta=1e-3, draws=draws.astype(float))
    assert np.isfinite(fitted.resampled).all()
    found = {name: estimate.standard_error for name, estimate in fitted.parameters.items()}
    expected = {"E": 0.025654, "A": 124.478, "alpha": 0.015396, "B": 1293.007, "beta": 0.020592}
    assert found == pytest.approx(expected, rel=2e-4)  # they divide by 4,000, not by 3,999


# Intervals


def huber(residual, delta):
    size = np.abs(residual)
    return np.where(size <= delta, size**2 / 2, delta * (size - delta / 2)).sum()


def test_the_edges_of_a_profile_are_where_a_refit_by_hand_reaches_the_limit(monkeypatch):
    monkeypatch.setattr("analysis.fitting.PROFILE_POINTS", 24)
    loss = with_noise(floor_law(N), 0.003)
    fitted = fit("power_irreducible", loss, n=N, delta=1e-2, resamples=10)
    profile = fitted.profiles["alpha"]

    def refitted(alpha):
        def objective(theta):
            return 1e6 * huber(np.log(theta[0] + np.exp(theta[1] - alpha * np.log(N))) - np.log(loss), 1e-2)

        options = {"xatol": 1e-10, "fatol": 1e-10, "maxiter": 4000}
        return minimize(objective, fitted.theta[:2], method="Nelder-Mead", options=options).fun / 1e6

    for edge in profile.interval:
        assert refitted(edge) - fitted.objective == pytest.approx(profile.limit, rel=0.01)
    some = slice(None, None, 12)
    rises = [refitted(alpha) - fitted.objective for alpha in profile.at[some]]
    assert rises == pytest.approx(profile.rise[some], rel=1e-4, abs=1e-10)


@pytest.mark.parametrize("name", ["power_irreducible", "chinchilla", "transposition", "mupt"])
def test_every_interval_holds_its_estimate(name):
    loss, given = made(name, 0.003, seed=3)
    for estimate in fit(name, loss, **given, delta=1e-2, resamples=200).parameters.values():
        for low, high in (estimate.bootstrap, estimate.profile, estimate.jackknife):
            assert (-np.inf if low is None else low) <= estimate.value <= (np.inf if high is None else high)


def test_more_noise_gives_wider_intervals():
    widths = []
    for noise in (0.001, 0.01):
        alpha = fit("power_irreducible", with_noise(floor_law(N), noise), n=N, delta=1e-2, resamples=200).parameters[
            "alpha"
        ]
        widths.append([np.ptp(interval) for interval in (alpha.bootstrap, alpha.profile, alpha.jackknife)])
    assert (np.array(widths[1]) > 3 * np.array(widths[0])).all()


def test_both_intervals_of_the_exponent_cover_the_truth_in_about_95_of_100_studies():
    covered = np.zeros(2)
    for seed in range(50):
        loss = with_noise(floor_law(N, 1.0, 20, 0.3), 0.005, seed)
        alpha = fit("power_irreducible", loss, n=N, delta=1e-2, resamples=300).parameters["alpha"]
        covered += [low <= 0.3 <= high for low, high in (alpha.bootstrap, alpha.profile)]
    assert (covered >= 42).all(), covered  # of 50 at 95 %: 47.5 ± 1.5
    assert (covered < 50).any(), covered  # and not so wide that they say nothing


def test_trunks_that_share_their_noise_give_wider_intervals_than_points_of_their_own():
    given = PLAIN
    trunk = np.unique(given["n"], return_inverse=True)[1]
    loss = made("chinchilla")[0] * np.exp(np.random.default_rng(0).normal(0, 0.005, 8)[trunk])
    alone = fit("chinchilla", loss, **given, delta=1e-2, resamples=200).parameters["E"]
    together = fit("chinchilla", loss, **given, clusters=trunk, delta=1e-2, resamples=200)
    assert together.clusters == 8
    assert np.ptp(together.parameters["E"].bootstrap) > 1.3 * np.ptp(alone.bootstrap)


def test_fits_that_share_their_draws_share_their_resamples():
    draws = resample(24, 50)
    loss = with_noise(floor_law(N), 0.003)
    first, second = (fit("power_irreducible", factor * loss, n=N, draws=draws).resampled for factor in (1, 2))
    assert second[:, 2] == pytest.approx(first[:, 2], rel=1e-6)
    assert second[:, 0] == pytest.approx(2 * first[:, 0], rel=1e-6)


def test_a_draw_of_every_cluster_once_is_the_fit_itself():
    loss, given = made("chinchilla", 0.003)
    fitted = fit("chinchilla", loss, **given, draws=np.ones((5, len(loss))))
    assert fitted.resampled == pytest.approx(np.repeat(fitted.theta[None], 5, axis=0), rel=1e-7)


def test_every_resample_has_three_different_clusters_and_is_drawn_the_same_each_time():
    draws = resample(4, 500)
    assert ((draws > 0).sum(axis=1) >= 3).all()
    assert (draws.sum(axis=1) == 4).all()
    assert np.array_equal(draws, resample(4, 500))


def test_percentiles_are_read_farther_out_with_few_clusters_and_are_open_where_fits_fail():
    samples = np.random.default_rng(0).normal(size=20_000)
    low, high = percentiles(samples)
    assert (low, high) == pytest.approx((-1.96, 1.96), abs=0.05)
    assert np.ptp(percentiles(samples, 5)) == pytest.approx(2 * t.ppf(0.975, 5), rel=0.05)
    samples[: len(samples) // 20] = np.nan
    assert percentiles(samples) == (None, None)


def test_the_jackknife_of_a_mean_is_its_students_interval():
    values = np.array([1.0, 2.0, 4.0, 7.0, 8.0])
    without_one = (values.sum() - values) / 4
    expected = t.interval(0.95, 4, values.mean(), values.std(ddof=1) / np.sqrt(5))
    assert jackknife(values.mean(), without_one) == pytest.approx(expected)


def test_the_jackknife_is_made_of_fits_without_one_size():
    loss = with_noise(floor_law(N), 0.003)
    fitted = fit("power_irreducible", loss, n=N, resamples=10)
    assert len(fitted.without_one) == len(SIZES)
    for i, size in enumerate(SIZES):
        rest = size != N
        assert fitted.without_one[i] == pytest.approx(
            fit("power_irreducible", loss[rest], n=N[rest], resamples=5).theta, rel=1e-5
        )


def test_seeds_that_agree_do_not_hide_a_law_that_is_wrong():
    """Runs without noise on a curve that is no power law: resampling sees nothing, leaving sizes out does."""
    bent = floor_law(N) * (1 + 0.05 * np.sin(np.log(N) * 2))
    alpha = fit("power_irreducible", bent, n=N, resamples=200).parameters["alpha"]
    assert np.ptp(alpha.jackknife) > 1.5 * np.ptp(alpha.bootstrap)


# Weights by the spread of the seeds


@pytest.mark.parametrize("seeds", [2, 3])
def test_weights_recover_how_the_spread_of_the_seeds_depends_on_the_size(seeds):
    n = np.repeat(np.geomspace(2e4, 2e7, 40), seeds)
    slopes = []
    for seed in range(20):
        log_loss = np.random.default_rng(seed).normal(0, 0.01 * (n / 2e4) ** -0.2)
        weights = seed_weights(log_loss, n, np.log(n))
        assert weights.mean() == pytest.approx(1)
        slopes.append(np.polyfit(np.log(n), np.log(weights), 1)[0])
    assert np.mean(slopes) == pytest.approx(0.4, abs=0.05)


def test_weights_are_even_where_nothing_tells_the_spread():
    at = np.log(N)
    alone = np.arange(len(N))
    assert seed_weights(np.zeros(len(N)), N, at) == pytest.approx(np.ones(len(N)))
    assert seed_weights(with_noise(N, 0.1), alone, at) == pytest.approx(np.ones(len(N)))
    one_setting = np.where(SIZES[0] == N, 0, alone + 1)
    assert seed_weights(with_noise(N, 0.1), one_setting, at) == pytest.approx(np.ones(len(N)))


# What the data identify


def test_the_floor_is_identified_on_a_long_clean_range_and_not_on_a_short_noisy_one():
    assert fit("power_irreducible", with_noise(floor_law(N), 0.002), n=N, resamples=200).identified
    short = np.repeat(np.geomspace(1e5, 4e5, 5), 3)
    fitted = fit("power_irreducible", with_noise(floor_law(short), 0.02), n=short, resamples=200)
    assert not fitted.parameters["E"].identified
    assert fitted.parameters["E"].reason


@pytest.mark.parametrize("law", ["power", "power_irreducible"])
@pytest.mark.parametrize("shape", ["flat", "rising", "rising like a logarithm"])
@pytest.mark.parametrize("noise", [0, 0.003])
def test_nothing_of_a_loss_that_does_not_fall_is_called_an_exponent_or_a_floor(law, shape, noise):
    fitted = fit(law, with_noise(SHAPES[shape](N), noise), n=N, resamples=100)
    assert [name for name in ("alpha", "E") if name in fitted.parameters and fitted.parameters[name].identified] == []


def test_a_floor_at_its_bound_is_flagged_and_not_identified():
    fitted = fit("power_irreducible", with_noise(SHAPES["steeper than a power law"](N), 0.001), n=N, resamples=50)
    assert fitted.parameters["E"].value == 0
    assert fitted.at_bound == ["E"]
    assert not fitted.parameters["E"].identified


def test_an_exact_power_law_has_no_identified_floor():
    assert not fit("power_irreducible", 8 * N**-0.12, n=N, resamples=50).parameters["E"].identified


@pytest.mark.parametrize(("name", "without", "term"), [("chinchilla", 1, "A"), ("chinchilla", 3, "B")])
def test_a_term_that_the_losses_do_not_have_is_not_identified(name, without, term):
    given, theta = KNOWN[name]
    theta = list(theta)
    theta[without] = -np.inf
    loss = LAWS[name].predict(np.array([theta]), given)[0]
    for noise in (0.0, 0.003):
        fitted = fit(name, with_noise(loss, noise), **given, resamples=50)
        assert not fitted.parameters[term].identified
        assert not fitted.parameters["E"].identified


def test_sizes_and_budgets_that_rise_together_identify_neither_exponent():
    loss = with_noise(LAWS["chinchilla"].predict(np.array([CHINCHILLA]), {"n": N, "d": 20 * N})[0], 0.003)
    fitted = fit("chinchilla", loss, n=N, d=20 * N, resamples=50)
    assert not fitted.parameters["alpha"].identified
    assert not fitted.parameters["beta"].identified


def test_the_worth_of_repeated_data_is_not_identified_where_none_repeat():
    given = {"n": PLAIN["n"], "d": PLAIN["d"], "u": 2 * PLAIN["d"]}
    parameters = fit("data_constrained", made("chinchilla", 0.003)[0], **given, resamples=50).parameters
    assert not parameters["R_D*"].identified


@pytest.mark.parametrize("count", [1, 2, 3])
def test_too_few_clusters_identify_nothing(count):
    fitted = fit("power", with_noise(8 * N**-0.12, 0.003), n=N, clusters=np.arange(len(N)) % count, resamples=50)
    assert not fitted.identified
    assert "clusters" in fitted.parameters["alpha"].reason


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES.keys())
def test_the_record_of_any_fit_is_valid_json(shape):
    for noise in (0, 0.003):
        fitted = fit("power_irreducible", with_noise(shape(N), noise), n=N, resamples=20)
        record = json.loads(json.dumps(fitted.as_dict(), allow_nan=False))
        assert record["theta"]["E"] == fitted.theta[0]
        assert record["parameters"]["alpha"]["identified"] == fitted.parameters["alpha"].identified


def test_the_band_holds_the_law_and_widens_beyond_the_largest_size():
    fitted = fit("power_irreducible", with_noise(floor_law(N), 0.003), n=N, resamples=200)
    at = np.array([1e5, 1e6, 1e9])
    low, high = fitted.band(n=at)
    assert (low <= fitted.predict(n=at)).all()
    assert (fitted.predict(n=at) <= high).all()
    assert high[2] - low[2] > 2 * (high[1] - low[1])


def test_verdicts_do_not_depend_on_the_unit_of_the_loss():
    loss = with_noise(floor_law(N), 0.002)
    for scale in (1e-4, 1e4):
        scaled = fit("power_irreducible", scale * loss, n=N, delta=0.01, resamples=100)
        assert {name: estimate.identified for name, estimate in scaled.parameters.items()} == {
            "E": True,
            "A": True,
            "alpha": True,
        }


def test_a_profile_ends_where_it_leaves_the_limit_for_the_last_time():
    """Beyond a hill there may be a second valley, and what lies in it is no worse."""
    side = _Side(0, error=1.0, limit=1.0, theta=np.zeros(1), direction=np.ones(1))
    side.add(
        np.arange(1.0, 7.0)[:, None], np.array([0.5, 2.0, 0.8, 0.9, 4.0, 9.0]), LAWS["power_irreducible"].parameters[1]
    )
    assert 4 < side.edge < 5


def test_few_clusters_identify_nothing():
    few = fit("power", [2.0, 1.9, 1.8, 1.72, 1.65], n=[1e4, 3e4, 1e5, 3e5, 1e6], resamples=100)
    assert not any(estimate.identified for estimate in few.parameters.values())
    assert "clusters more than parameters" in few.parameters["alpha"].reason
