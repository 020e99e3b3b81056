"""Compute-optimal result: three methods that find the optimum of a known law, and refuse what the runs do not show."""

import copy
import json

import numpy as np
import pytest
from scipy.optimize import minimize_scalar

from analysis.compute_optimal import Cost, compute_optimal
from analysis.fitting import fit
from analysis.runs import clusters, column

SIZES = np.geomspace(1.7e4, 5e6, 8)
LAW = (0.9, 12.0, 0.30, 900.0, 0.45)  # E, A, alpha, B, beta: an asymmetric valley
CENTRED, OFF_CENTRE = (1.2e14, 5e15), (9.3e12, 2.8e14)  # FLOPs whose optima lie amid SIZES, among the smaller ones
TOKENS = np.geomspace(6e6, 6e8, 6)
COST = Cost(6.0, 150.0, 0.0)


def flops_per_token(n):
    return 6 * n + 150 * np.sqrt(n)


def true_loss(n, d, law=LAW):
    e, a, alpha, b, beta = law
    return e + a * n**-alpha + b * d**-beta


def true_optimum(flops):
    """N, D and loss at the optimum, by another way than the code's."""
    found = minimize_scalar(
        lambda log_n: true_loss(np.exp(log_n), flops / flops_per_token(np.exp(log_n))),
        bounds=(5, 25),
        method="bounded",
        options={"xatol": 1e-9},
    )
    n = float(np.exp(found.x))
    return n, flops / flops_per_token(n), found.fun


def true_exponents(used):
    flops = np.geomspace(*used, 12)
    n, d, _ = np.array([true_optimum(c) for c in flops]).T
    return tuple(np.polyfit(np.log(flops), np.log(axis), 1)[0] for axis in (n, d))


def made_runs(flops=None, tokens=None, sizes=SIZES, seeds=(0, 1, 2), noise=0.002, law=LAW):
    """Runs of every size at budgets of FLOPs or of tokens, rounded to steps; seeds differ, and so do single runs."""
    draw = np.random.default_rng(5)
    runs = []
    for n in sizes:
        budgets = np.asarray(flops) / flops_per_token(n) if tokens is None else tokens
        for seed in seeds:
            of_seed = draw.normal(0, noise)
            for budget in budgets:
                d = round(budget / 1020) * 1020
                loss = true_loss(n, d, law) * np.exp(of_seed + draw.normal(0, noise))
                runs.append(
                    {
                        **{"architecture": "gpt", "size": f"{n / 1e3:.0f}k", "seed": seed, "budget": d},
                        **{"data_fraction": 1.0, "n_keys": 1, "schedule": "cosine"},
                        "n_params": int(n),
                        "tokens": d,
                        "epochs": d / 1e6,
                        "unique_tokens": 1_000_000,
                        "flops_per_token": flops_per_token(n),
                        "flops": flops_per_token(n) * d,
                        "validation_loss": float(loss),
                    }
                )
    return runs


def chinchilla(runs):
    n, d = column(runs, "n_params"), column(runs, "tokens")
    return fit(
        "chinchilla", column(runs, "validation_loss"), n=n, d=d, clusters=clusters(runs), delta=0.01, resamples=300
    )


@pytest.fixture(scope="module")
def studies():
    """The three plans of a study, each with what `compute_optimal` makes of it."""
    plans = {
        "centred": made_runs(np.geomspace(*CENTRED, 6)),
        "off centre": made_runs(np.geomspace(*OFF_CENTRE, 6)),
        "tokens": made_runs(tokens=TOKENS),
    }
    return {name: (runs, compute_optimal(runs, chinchilla(runs))) for name, runs in plans.items()}


def holds(interval, value):
    low, high = interval
    return low <= value <= high


@pytest.mark.parametrize("plan", ["centred", "off centre", "tokens"])
@pytest.mark.parametrize("name", ["envelope", "isoflop", "parametric"])
def test_each_method_recovers_the_exponents_within_intervals_that_say_something(studies, plan, name):
    way = studies[plan][1]["ways"][name]
    assert way["reason"] is None
    for exponent, true in zip((way["a"], way["b"]), true_exponents(way["used"]), strict=True):
        assert holds(exponent["bootstrap"], true) or holds(exponent["jackknife"], true)
        assert exponent["bootstrap"][1] - exponent["bootstrap"][0] < (0.2 if name == "envelope" else 0.06)


@pytest.mark.parametrize("name", ["envelope", "isoflop", "parametric"])
def test_the_optimum_of_a_budget_spends_it_and_is_the_laws(studies, name):
    result = studies["centred"][1]
    *inside, beyond = result["ways"][name]["optima"]
    assert len(inside) == 3
    assert not any(optimum["extrapolated"] for optimum in inside)
    assert beyond["extrapolated"]
    assert beyond["flops"] == pytest.approx(10 * CENTRED[1], rel=0.01)
    for optimum in (*inside, beyond):
        n, _, loss = true_optimum(optimum["flops"])
        assert optimum["n_params"]["value"] == pytest.approx(n, rel=0.25 if name == "envelope" else 0.12)
        assert optimum["tokens"]["value"] * flops_per_token(optimum["n_params"]["value"]) == pytest.approx(
            optimum["flops"], rel=1e-3
        )
        assert optimum["tokens_per_parameter"]["value"] == pytest.approx(
            optimum["tokens"]["value"] / optimum["n_params"]["value"]
        )
        if optimum["loss"] is not None:
            assert optimum["loss"]["value"] == pytest.approx(loss, rel=0.005)
    assert (beyond["loss"] is None) == (name != "parametric")


def test_a_law_that_is_known_gives_its_exact_optimum_and_its_local_exponent():
    runs = made_runs(tokens=TOKENS, noise=1e-9)
    way = compute_optimal(runs, chinchilla(runs))["ways"]["parametric"]
    for optimum in way["optima"]:
        n, _, loss = true_optimum(optimum["flops"])
        assert optimum["n_params"]["value"] == pytest.approx(n, rel=1e-3)
        assert optimum["loss"]["value"] == pytest.approx(loss, rel=1e-6)
        a, b = optimum["local_exponents"]
        true_a, true_b = true_exponents((optimum["flops"] * 0.9, optimum["flops"] * 1.1))
        assert (a["value"], b["value"]) == pytest.approx((true_a, true_b), abs=1e-4)
    assert way["plain"]["value"] == pytest.approx(0.45 / 0.75, abs=1e-4)
    assert way["a"]["value"] + way["b"]["value"] > 1.001  # a token costs less than in proportion to N


def test_parabolas_alone_are_biased_off_centre_and_the_cubic_is_not(studies):
    way = studies["off centre"][1]["ways"]["isoflop"]
    true, _ = true_exponents(way["used"])
    assert way["plain"]["bootstrap"][1] < true - 0.015
    assert way["a"]["value"] == pytest.approx(true, abs=0.015)


def test_budgets_that_differ_by_rounding_are_shared_and_those_of_a_token_grid_are_not(studies):
    assert studies["centred"][1]["exact"]
    assert len(studies["centred"][1]["ways"]["isoflop"]["minima"]) == 6
    assert not studies["tokens"][1]["exact"]


def test_optima_at_the_ends_of_the_ladder_are_listed_and_not_used():
    runs = made_runs(np.geomspace(1e11, 1e18, 8), noise=1e-4)
    result = compute_optimal(runs, None)
    for name in ("envelope", "isoflop"):
        minima = result["ways"][name]["minima"]
        assert minima[0]["reason"] == "the smallest size is the best there"
        assert minima[-1]["reason"] == "the largest size is the best there"
        used = [minimum for minimum in minima if minimum["reason"] is None]
        for minimum in used:
            n, _, loss = true_optimum(minimum["flops"])
            assert SIZES[0] < n < SIZES[-1]
            if name == "isoflop":  # its budgets are those of the runs
                assert minimum["loss"] == pytest.approx(loss, rel=0.01)
                assert minimum["n_params"] == pytest.approx(n, rel=0.1)


def test_a_run_that_went_wrong_does_not_move_the_valley(studies):
    runs, _ = studies["centred"]
    spoilt = copy.deepcopy(runs)
    spoilt[5]["validation_loss"] *= 1.3  # of the smallest size, at the largest budget
    before, after = (compute_optimal(some, None)["ways"]["isoflop"]["minima"][-1] for some in (runs, spoilt))
    assert after["n_params"] == pytest.approx(before["n_params"], rel=0.02)


IN_TOO_FEW = "budgets with a minimum within the sizes: 0"
REFUSED = {
    "one budget of tokens": (made_runs(tokens=TOKENS[:1]), IN_TOO_FEW),
    "one budget of FLOPs": (made_runs([1e15]), "budgets with a minimum within the sizes: 1"),
    "two sizes": (made_runs(tokens=TOKENS, sizes=SIZES[3:5]), IN_TOO_FEW),
    "sizes below the optimum": (made_runs(np.geomspace(3e16, 3e17, 5)), IN_TOO_FEW),
    "one seed": (made_runs(tokens=TOKENS, seeds=(0,)), "every size has one seed"),
    "much noise": (made_runs(np.geomspace(*CENTRED, 6), noise=0.3), "3 are needed"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_an_optimum_that_the_runs_do_not_show_is_refused_with_its_reason(name):
    runs, reason = REFUSED[name]
    result = compute_optimal(runs, None)
    isoflop = result["ways"]["isoflop"]
    assert reason in isoflop["reason"]
    for way in result["ways"].values():
        assert way["reason"]
        assert way["a"] is way["b"] is None
        assert way["optima"] == []
    assert result["comparisons"] == []
    json.dumps(result, allow_nan=False)
    of_minima = {"sizes below the optimum": "the largest size is the best there"}
    of_minima["much noise"] = "it is within the sizes in too few resamples"
    assert of_minima.get(name) in {None, *(minimum["reason"] for minimum in isoflop["minima"])}


def test_an_envelope_of_few_sizes_is_refused():
    result = compute_optimal(made_runs(np.geomspace(3e14, 6e14, 4), noise=1e-4), None)
    assert result["ways"]["envelope"]["reason"].endswith("3 are needed")


def test_methods_that_agree_are_distinguished_from_one_that_does_not(studies):
    runs, result = studies["centred"]
    assert len(result["comparisons"]) == 9
    assert not any(comparison["differ"] for comparison in result["comparisons"])
    other = made_runs(np.geomspace(*CENTRED, 6), law=(0.9, 60, 0.45, 60, 0.28))
    apart = [row for row in compute_optimal(runs, chinchilla(other))["comparisons"] if row["differ"]]
    assert {(c["quantity"], c["ways"]) for c in apart} >= {
        ("a", ("isoflop", "parametric")),
        ("b", ("isoflop", "parametric")),
    }
    assert all("parametric" in comparison["ways"] for comparison in apart)


def test_everything_is_plain_json_and_the_valleys_pass_through_their_minima(studies):
    written = json.loads(json.dumps(studies["centred"][1], allow_nan=False))
    for minimum in written["ways"]["isoflop"]["minima"]:
        assert min(minimum["valley_losses"]) == pytest.approx(minimum["loss"], rel=1e-3)
        assert minimum["valley_n_params"][0] == pytest.approx(SIZES[0], rel=1e-3)


def test_the_cost_of_a_token_is_recovered_with_its_derivatives(studies):
    cost = studies["centred"][1]["cost"]
    assert (cost["linear"], cost["root"]) == pytest.approx((6, 150), rel=1e-3)
    assert cost["error"] < 1e-4
    x, step = np.array([9.0, 12.0, 16.0]), 1e-3
    low, middle, high = (COST.of(x + side * step)[0] for side in (-1, 0, 1))
    assert np.exp(middle) == pytest.approx(flops_per_token(np.exp(x)))
    assert COST.of(x)[1] == pytest.approx((high - low) / (2 * step), rel=1e-6)
    assert COST.of(x)[2] == pytest.approx((high - 2 * middle + low) / step**2, rel=1e-3)
