"""Fits recover known laws and published numbers, and no general optimiser finds a lower objective."""

import numpy as np
import pytest
from known_laws import DESIGNS, GRID, SIZES, THETA, N, falling, made, with_noise
from reference_points import read_kept_points, read_points
from scipy.optimize import minimize

from analysis.fitting import columns_of, fit, resample, seed_weights
from analysis.laws import LAWS
from analysis.optimiser import Problem


@pytest.fixture(autouse=True)
def _rough_profiles(monkeypatch):
    monkeypatch.setattr("analysis.profiles.POINTS", 6)


def values(fitted):
    return {name: estimate.value for name, estimate in fitted.parameters.items()}


# Known laws


@pytest.mark.parametrize("name", THETA)
def test_every_law_is_recovered_from_exact_losses(name):
    loss, given = made(name)
    fitted = fit(name, loss, **given, resamples=10)
    assert fitted.converged
    assert fitted.identified
    assert fitted.theta == pytest.approx(THETA[name], rel=1e-6)
    assert fitted.objective < 1e-25


def scipy_objective(problem, start):
    """The least objective that L-BFGS-B finds from a start."""
    bounds = [(parameter.lower, parameter.upper) for parameter in problem.law.parameters]
    weights = np.ones((1, len(problem.log_loss)))
    scale = 1 / problem.evaluate(start[None], weights)[0][0]

    def objective(theta):
        with np.errstate(all="ignore"):
            value, slope, _, _ = problem.evaluate(theta[None], weights)
        if not (np.isfinite(value[0]) and np.isfinite(slope).all()):
            return 1e10, np.zeros(len(theta))
        return scale * value[0], scale * slope[0]

    options = {"maxiter": 2000, "maxfun": 4000, "ftol": 1e-15, "gtol": 1e-12, "maxcor": 30}
    return minimize(objective, start, jac=True, method="L-BFGS-B", bounds=bounds, options=options).fun / scale


@pytest.mark.parametrize(
    ("name", "seed", "noise", "delta"),
    [(name, 0, 0.003, 1e-2) for name in THETA]
    + [(name, *harder) for name in list(THETA)[:5] for harder in ((1, 0.02, 1e-3), (2, 0.02, np.inf))],
)
def test_no_general_optimiser_finds_a_lower_objective(name, seed, noise, delta):
    loss, given = made(name, noise, seed)
    loss[seed] *= 1.15  # an outlier, so that both branches of the Huber loss count
    fitted = fit(name, loss, **given, delta=delta, resamples=3)
    problem = Problem(LAWS[name], columns_of(LAWS[name], given)[0], np.log(loss), delta)
    truth = np.array(THETA[name])
    near = truth * np.random.default_rng(seed).uniform(0.8, 1.2, (2, len(truth)))
    assert fitted.converged
    for start in (truth, *near):
        assert fitted.objective <= scipy_objective(problem, start) * (1 + 1e-9)
    assert fitted.objective <= problem.solve(np.ones((1, len(loss))), truth[None]).objective[0] * (1 + 1e-9)


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_a_fit_converges_where_most_residuals_are_on_the_linear_branch(seed):
    n = with_noise(N, 0.02, seed)
    fitted = fit("power", with_noise(falling(n), 0.004, seed + 100), n=n, resamples=200)
    assert fitted.converged
    assert np.isfinite(fitted.resampled).all()


@pytest.mark.parametrize("name", ["power_irreducible", "chinchilla", "transposition", "mupt"])
def test_units_and_order_of_the_runs_change_only_coefficients(name):
    loss, given = made(name, 0.003)
    order = np.random.default_rng(1).permutation(len(loss))
    units = {"n": 1e-3, "d": 1e6, "u": 1e6, "keys": 1}
    fitted = fit(name, loss, **given, resamples=10)
    others = fit(name, loss[order], **{key: values[order] * units[key] for key, values in given.items()}, resamples=10)
    same = [i for i, parameter in enumerate(LAWS[name].names) if parameter not in ("A", "B", "d")]
    assert others.objective == pytest.approx(fitted.objective, rel=1e-8)
    assert others.theta[same] == pytest.approx(fitted.theta[same], rel=2e-4)


def test_a_point_of_weight_two_is_two_points_and_one_of_weight_zero_is_none():
    loss, weights = with_noise(falling(N), 0.003), np.ones(len(N))
    weights[:3], weights[3:6] = 2, 0
    kept = np.r_[0:3, 0:3, 6:24]
    weighted = fit("power_irreducible", loss, n=N, weights=weights, resamples=10)
    repeated = fit("power_irreducible", loss[kept], n=N[kept], resamples=10)
    assert weighted.theta == pytest.approx(repeated.theta, rel=1e-7)
    assert weighted.objective == pytest.approx(repeated.objective)


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
        {"law": "magic"},
        {"draws": np.ones((5, 4))},
    ],
    ids=str,
)
def test_unusable_input_is_refused(changes):
    given = {"law": "power", "loss": [3, 2, 1.5, 1.2, 1.1], "n": [1e4, 1e5, 1e6, 1e7, 1e8], "resamples": 5}
    with pytest.raises(ValueError, match=r"."):
        fit(**given | changes)


# Large tables


def test_equal_points_are_one_point_of_so_many_copies():
    few = {"n": N, "loss": with_noise(falling(N), 0.005)}
    times = np.arange(len(N)) % 3 + 1
    many = {name: np.repeat(values, times) for name, values in few.items()}
    order = np.random.default_rng(0).permutation(len(many["n"]))
    fitted = fit("power_irreducible", **{name: values[order] for name, values in many.items()}, resamples=200)
    weighted = fit("power_irreducible", **few, weights=times, resamples=200)
    assert (fitted.points, fitted.distinct, fitted.clusters) == (len(order), len(N), len(order))
    np.testing.assert_allclose(fitted.theta, weighted.theta, rtol=1e-6)
    np.testing.assert_allclose(fitted.residuals, np.repeat(weighted.residuals, times)[order], rtol=1e-5, atol=1e-9)
    draws = resample(len(N), 200, copies=times)  # single copies are drawn
    assert (draws.sum(axis=1) == times.sum()).all()
    assert draws.mean(axis=0) == pytest.approx(times, rel=0.4)
    apart = fit("power_irreducible", **many, draws=resample(len(order), 400)).parameters["alpha"]
    assert fitted.parameters["alpha"].standard_error == pytest.approx(apart.standard_error, rel=0.25)
    assert fitted.parameters["alpha"].profile == pytest.approx(apart.profile, rel=3e-3)


def test_equal_points_of_one_cluster_are_drawn_together():
    loss, trunk = with_noise(falling(N), 0.005), np.arange(len(N)) % 6
    twice = fit("power_irreducible", np.tile(loss, 2), n=np.tile(N, 2), clusters=np.tile(trunk, 2), resamples=100)
    once = fit("power_irreducible", loss, n=N, clusters=trunk, resamples=100)
    assert (twice.distinct, twice.clusters) == (len(N), 6)
    np.testing.assert_allclose(twice.resampled, once.resampled, rtol=1e-5)


@pytest.mark.parametrize(("tails", "trunks"), [("normal", None), ("heavy", None), ("normal", 12)])
def test_a_large_table_has_the_fit_and_nearly_the_intervals_of_all_its_points(monkeypatch, tails, trunks):
    generator = np.random.default_rng(3)
    n, d = np.exp(generator.uniform(np.log([1e6, 1e8]), np.log([1e10, 1e12]), (2400, 2)).T)
    off = generator.normal(0, 0.01, 2400) if tails == "normal" else generator.standard_t(2, 2400) * 0.005
    loss = (1.8 + 480 * n**-0.35 + 2100 * d**-0.37) * np.exp(off)
    given = {"n": n, "d": d, "clusters": None if trunks is None else generator.integers(0, trunks, 2400)}
    fits = []
    for largest in (4000, 1000):
        monkeypatch.setattr("analysis.fitting.LARGE", largest)
        fits.append(fit("chinchilla", loss, **given, resamples=300))
    exact, large = fits
    assert large.refitted <= 1100 < large.distinct == exact.refitted == 2400
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


def test_a_few_runs_of_a_rare_size_count_in_a_large_table():
    n = np.concatenate([np.tile([1e6, 2e6, 4e6], 2000), np.full(5, 1e9)])
    fitted = fit("power_irreducible", with_noise(falling(n, a=300), 0.003), n=n)
    estimate = fitted.parameters["E"]
    assert fitted.refitted < fitted.distinct
    assert values(fitted) == pytest.approx({"E": 1.0, "A": 300, "alpha": 0.35}, rel=0.2)
    assert not estimate.identified or estimate.bootstrap[0] < 1 < estimate.bootstrap[1]


# Published fits


def test_the_chinchilla_law_has_the_known_optimum_at_the_usual_delta():
    fitted = fit("chinchilla", **read_kept_points(), delta=1e-3, resamples=10)
    found = values(fitted)
    assert fitted.points == 240
    assert fitted.converged
    assert fitted.objective <= 1.01828e-3
    assert [found[name] for name in ("E", "alpha", "beta")] == pytest.approx([1.81722, 0.34731, 0.36717], abs=1e-4)
    assert (found["A"], found["B"]) == pytest.approx((477.826, 2143.42), rel=1e-5)


def test_the_replication_is_the_limit_of_a_small_delta():
    """Besiroglu et al. 2024."""
    found = values(fit("chinchilla", **read_kept_points(), delta=1e-6, resamples=10))
    assert (found["alpha"], found["beta"]) == pytest.approx((0.3478, 0.3659), abs=2e-4)
    assert (found["A"], found["B"]) == pytest.approx((482.0, 2085.4), rel=5e-3)
    assert found["E"] == pytest.approx(1.8169, abs=2e-4)


def test_all_points_give_the_known_values():
    found = values(fit("chinchilla", **read_points(), delta=1e-3, resamples=10))
    assert [found[name] for name in ("E", "alpha", "beta")] == pytest.approx([1.891, 0.349, 0.453], abs=1e-3)


def test_the_published_resamples_give_the_known_standard_errors():
    state = np.random.RandomState(42)
    draws = np.stack([np.bincount(state.choice(240, 240, replace=True), minlength=240) for _ in range(4000)])
    fitted = fit("chinchilla", **read_kept_points(), delta=1e-3, draws=draws.astype(float))
    assert np.isfinite(fitted.resampled).all()
    found = {name: estimate.standard_error for name, estimate in fitted.parameters.items()}
    expected = {"E": 0.025654, "A": 124.478, "alpha": 0.015396, "B": 1293.007, "beta": 0.020592}
    assert found == pytest.approx(expected, rel=2e-4)  # they divide by 4,000, not by 3,999


# Resamples


def test_fits_that_share_their_draws_share_their_resamples():
    draws, loss = resample(24, 50), with_noise(falling(N), 0.003)
    first, second = (fit("power_irreducible", factor * loss, n=N, draws=draws).resampled for factor in (1, 2))
    assert second[:, 2] == pytest.approx(first[:, 2], rel=1e-6)
    assert second[:, 0] == pytest.approx(2 * first[:, 0], rel=1e-6)


def test_a_draw_of_every_cluster_once_is_the_fit_itself():
    loss, given = made("chinchilla", 0.003)
    fitted = fit("chinchilla", loss, **given, draws=np.ones((5, len(loss))))
    assert fitted.resampled == pytest.approx(np.repeat(fitted.theta[None], 5, axis=0), rel=1e-7)


def test_every_resample_has_three_different_clusters_and_is_reproducible():
    draws = resample(4, 500)
    assert ((draws > 0).sum(axis=1) >= 3).all()
    assert (draws.sum(axis=1) == 4).all()
    assert np.array_equal(draws, resample(4, 500))


def test_the_jackknife_is_made_of_fits_without_one_size():
    loss = with_noise(falling(N), 0.003)
    fitted = fit("power_irreducible", loss, n=N, resamples=10)
    for size, without in zip(SIZES, fitted.without_one, strict=True):
        rest = size != N
        assert without == pytest.approx(fit("power_irreducible", loss[rest], n=N[rest], resamples=5).theta, rel=1e-5)


def test_clusters_that_share_their_noise_give_wider_intervals():
    trunk = np.unique(GRID["n"], return_inverse=True)[1]
    loss = made("chinchilla")[0] * np.exp(np.random.default_rng(0).normal(0, 0.005, 8)[trunk])
    alone = fit("chinchilla", loss, **DESIGNS["chinchilla"], delta=1e-2, resamples=200).parameters["E"]
    together = fit("chinchilla", loss, **DESIGNS["chinchilla"], clusters=trunk, delta=1e-2, resamples=200)
    assert together.clusters == 8
    assert np.ptp(together.parameters["E"].bootstrap) > 1.3 * np.ptp(alone.bootstrap)


# Weights from the spread of the seeds


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


@pytest.mark.parametrize("loss", [np.zeros(len(N)), with_noise(N, 0.1)], ids=["equal", "noisy"])
def test_weights_are_even_where_the_spread_is_unknown(loss):
    alone = np.arange(len(N))
    one_setting = np.where(SIZES[0] == N, 0, alone + 1)
    for groups in (N, alone) if not loss.any() else (alone, one_setting):
        assert seed_weights(loss, groups, np.log(N)) == pytest.approx(np.ones(len(N)))
