"""Intervals cover the truth, and what the data do not identify is not called identified."""

import json

import numpy as np
import pytest
from known_laws import CHINCHILLA, GRID, N, falling, made, with_noise
from scipy.optimize import minimize
from scipy.stats import t

from analysis.fitting import fit
from analysis.intervals import jackknife, percentiles
from analysis.laws import LAWS

SHAPES = {
    "falling to E": falling,
    "falling without E": lambda n: 8 * n**-0.12,
    "steeper than a power law": lambda n: 3 - 0.15 * np.log(n / 2e4),
    "flat": lambda n: 1.5 + 0 * n,
    "rising": lambda n: 0.5 * n**0.08,
    "rising like a logarithm": lambda n: 1 + 0.1 * np.log(n),
}


@pytest.fixture(autouse=True)
def _rough_profiles(monkeypatch):
    monkeypatch.setattr("analysis.profiles.POINTS", 6)


def identified(fitted):
    return {name for name, estimate in fitted.parameters.items() if estimate.identified}


# Intervals


def test_a_profile_reaches_its_limit_where_a_refit_by_hand_does(monkeypatch):
    monkeypatch.setattr("analysis.profiles.POINTS", 24)
    loss = with_noise(falling(N), 0.003)
    fitted = fit("power_irreducible", loss, n=N, delta=1e-2, resamples=10)
    profile = fitted.profiles["alpha"]

    def rise(alpha):
        def objective(theta):
            size = np.abs(np.log(theta[0] + np.exp(theta[1] - alpha * np.log(N))) - np.log(loss))
            return 1e6 * np.where(size <= 1e-2, size**2 / 2, 1e-2 * (size - 1e-2 / 2)).sum()

        options = {"xatol": 1e-10, "fatol": 1e-10, "maxiter": 4000}
        return minimize(objective, fitted.theta[:2], method="Nelder-Mead", options=options).fun / 1e6 - fitted.objective

    for edge in profile.interval:
        assert rise(edge) == pytest.approx(profile.limit, rel=0.01)
    some = slice(None, None, 12)
    assert [rise(alpha) for alpha in profile.at[some]] == pytest.approx(profile.rise[some], rel=1e-4, abs=1e-10)


@pytest.mark.parametrize("name", ["power_irreducible", "chinchilla", "transposition", "mupt"])
def test_every_interval_holds_its_estimate(name):
    loss, given = made(name, 0.003, seed=3)
    for estimate in fit(name, loss, **given, delta=1e-2, resamples=200).parameters.values():
        for low, high in (estimate.bootstrap, estimate.profile, estimate.jackknife):
            assert (-np.inf if low is None else low) <= estimate.value <= (np.inf if high is None else high)


def test_intervals_of_the_exponent_cover_the_truth_in_about_95_of_100_studies():
    covered = np.zeros(2)
    for seed in range(40):
        loss = with_noise(falling(N, 1.0, 20, 0.3), 0.005, seed)
        alpha = fit("power_irreducible", loss, n=N, delta=1e-2, resamples=200).parameters["alpha"]
        covered += [low <= 0.3 <= high for low, high in (alpha.bootstrap, alpha.profile)]
    assert (covered >= 34).all(), covered  # of 40 at 95 %: 38 ± 1.4
    assert (covered < 40).any(), covered


def test_percentiles_widen_with_few_clusters_and_are_open_where_fits_fail():
    samples = np.random.default_rng(0).normal(size=20_000)
    assert percentiles(samples) == pytest.approx((-1.96, 1.96), abs=0.05)
    assert np.ptp(percentiles(samples, 5)) == pytest.approx(2 * t.ppf(0.975, 5), rel=0.05)
    samples[: len(samples) // 20] = np.nan
    assert percentiles(samples) == (None, None)


def test_the_jackknife_of_a_mean_is_students_interval():
    values = np.array([1.0, 2.0, 4.0, 7.0, 8.0])
    expected = t.interval(0.95, 4, values.mean(), values.std(ddof=1) / np.sqrt(5))
    assert jackknife(values.mean(), (values.sum() - values) / 4) == pytest.approx(expected)


def test_the_jackknife_sees_a_wrong_law_that_agreeing_seeds_hide():
    bent = falling(N) * (1 + 0.05 * np.sin(np.log(N) * 2))
    alpha = fit("power_irreducible", bent, n=N, resamples=200).parameters["alpha"]
    assert np.ptp(alpha.jackknife) > 1.5 * np.ptp(alpha.bootstrap)


def test_the_band_holds_the_law_and_widens_beyond_the_largest_size():
    fitted = fit("power_irreducible", with_noise(falling(N), 0.003), n=N, resamples=200)
    at = np.array([1e5, 1e6, 1e9])
    low, high = fitted.band(n=at)
    assert (low <= fitted.predict(n=at)).all()
    assert (fitted.predict(n=at) <= high).all()
    assert high[2] - low[2] > 2 * (high[1] - low[1])


# Verdicts


def test_e_is_identified_on_a_long_clean_range_and_not_on_a_short_noisy_one():
    assert fit("power_irreducible", with_noise(falling(N), 0.002), n=N, resamples=200).identified
    short = np.repeat(np.geomspace(1e5, 4e5, 5), 3)
    assert "E" not in identified(fit("power_irreducible", with_noise(falling(short), 0.02), n=short, resamples=200))


@pytest.mark.parametrize("noise", [0, 0.003])
@pytest.mark.parametrize("shape", SHAPES)
def test_no_fit_of_any_shape_is_worse_with_e_or_breaks_its_record(shape, noise):
    loss = with_noise(SHAPES[shape](N), noise)
    power, irreducible = (fit(law, loss, n=N, resamples=50) for law in ("power", "power_irreducible"))
    assert irreducible.objective <= power.objective * (1 + 1e-9) + 1e-25
    for fitted in (power, irreducible):
        record = json.loads(json.dumps(fitted.as_dict(), allow_nan=False))
        assert list(record["theta"].values()) == fitted.theta.tolist()
        for name, row in record["parameters"].items():
            assert row["identified"] == (row["reason"] is None) == fitted.parameters[name].identified
        if "falling" not in shape and "steeper" not in shape:
            assert not identified(fitted) & {"alpha", "E"}
    if shape == "falling without E":
        assert "E" not in identified(irreducible)


def test_e_at_its_bound_is_not_identified():
    fitted = fit("power_irreducible", with_noise(SHAPES["steeper than a power law"](N), 0.001), n=N, resamples=50)
    assert fitted.parameters["E"].value == 0
    assert fitted.at_bound == ["E"]
    assert identified(fitted) == set()


@pytest.mark.parametrize(("without", "term"), [(1, "A"), (3, "B")])
@pytest.mark.parametrize("noise", [0, 0.003])
def test_a_term_that_the_losses_do_not_have_is_not_identified(without, term, noise):
    theta = list(CHINCHILLA)
    theta[without] = -np.inf
    loss = LAWS["chinchilla"].predict(np.array([theta]), GRID)[0]
    assert not identified(fit("chinchilla", with_noise(loss, noise), **GRID, resamples=50)) & {term, "E"}


@pytest.mark.parametrize("points", [len(N), 5000], ids=["small", "large"])
def test_sizes_and_budgets_that_rise_together_identify_neither_exponent(points):
    n = N if points == len(N) else np.exp(np.random.default_rng(0).uniform(np.log(2e4), np.log(2e7), points))
    loss = with_noise(LAWS["chinchilla"].predict(np.array([CHINCHILLA]), {"n": n, "d": 20 * n})[0], 0.003)
    assert not identified(fit("chinchilla", loss, n=n, d=20 * n, resamples=50)) & {"alpha", "beta"}


def test_repetition_is_not_identified_where_no_data_repeat():
    given = {**GRID, "u": 2 * GRID["d"]}
    assert "R_D*" not in identified(fit("data_constrained", made("chinchilla", 0.003)[0], **given, resamples=50))


@pytest.mark.parametrize("count", [1, 2, 3, 5])
def test_too_few_clusters_identify_nothing(count):
    given = {"n": N, "loss": with_noise(8 * N**-0.12, 0.003), "clusters": np.arange(len(N)) % count}
    fitted = fit("power", **given, resamples=50)
    assert identified(fitted) == set()
    assert all("clusters" in estimate.reason for estimate in fitted.parameters.values())


@pytest.mark.parametrize("scale", [1e-4, 1e4])
def test_verdicts_do_not_depend_on_the_unit_of_the_loss(scale):
    loss = scale * with_noise(falling(N), 0.002)
    assert identified(fit("power_irreducible", loss, n=N, delta=0.01, resamples=100)) == {"E", "A", "alpha"}
