"""Published numbers beside the study's: they are transcribed rightly, and each verdict follows from two intervals."""

import numpy as np
import pytest
from scipy.optimize import minimize_scalar, nnls

from analysis.published import (
    compare_with_published,
    exponent_without_e,
    our_number,
    published_rows,
    read_published,
    verdict_counts,
    verdict_of,
)

FEW = "budgets with a minimum within the sizes: 0, 3 are needed"
LADDERS = read_published()["ladders"]
ROWS = published_rows()


def number(value, bootstrap, jackknife=None, reason=None):
    row = {"value": value, "bootstrap": bootstrap, "identified": reason is None, "reason": reason}
    return {**row, "jackknife": jackknife or bootstrap}


def optimum(flops, ratio, extrapolated):
    found = {"value": ratio, "bootstrap": [ratio - 1, ratio + 1], "jackknife": [ratio - 2, ratio + 1]}
    return {"flops": flops, "extrapolated": extrapolated, "tokens_per_parameter": found}


def study(*names):
    """A study with laws of N on both counts, one method for the compute-optimal split, and repeated epochs."""
    parameters = {
        ("power", "n_params"): {"alpha": number(0.06, [0.05, 0.07], [0.055, 0.085])},
        ("power", "n_params_non_embedding"): {"alpha": number(0.05, [0.04, 0.06])},
        ("chinchilla", "n_params"): {
            "alpha": number(0.5, [0.4, 0.6]),
            "beta": number(0.3, [0.2, 0.4], reason="flat"),
            "E": number(1, [0, 2]),
        },
    }
    fits = [{"law": law, "axis": axis, "parameters": found} for (law, axis), found in parameters.items()]
    parametric = {
        "reason": None,
        "plain": number(0.5, [0.4, 0.6]),
        "optima": [optimum(1e12, 30, False), optimum(1e13, 40, False), optimum(1e14, 50, True)],
    }
    ways = {way: {"reason": FEW, "a": None, "plain": None, "optima": []} for way in ("envelope", "isoflop")}
    worth = [{"epochs": n, "value": n * 0.9, "bootstrap": [n * 0.8, None]} for n in (1, 2, 4)]
    return {
        "sizes": [{"size": "15k", **{name: {"n_params": 16_000} for name in names}}],
        "fits": dict.fromkeys(names, fits),
        "compute_optimal": {name: {"ways": {**ways, "parametric": parametric}} for name in names},
        "repetition": {name: {"epochs": {"reason": None, "rows": worth}, "keys": None} for name in names},
    }


@pytest.mark.parametrize("ladder", LADDERS, ids=lambda ladder: f"{ladder['repository']}-{ladder['alpha']}")
def test_the_losses_of_a_small_study_give_its_exponent_again(ladder):
    n, losses = np.array(ladder["n_params"]), np.array(ladder["losses"])

    def misfit(alpha):
        return nnls(np.stack([(n / n[0]) ** -alpha, np.ones(len(n))], axis=1), losses)[1]

    with_e = minimize_scalar(misfit, bounds=(0.01, 2), method="bounded").x
    found = with_e if ladder["law"] == "power_irreducible" else exponent_without_e(ladder)
    assert found == pytest.approx(ladder["alpha"], rel=0.035)


def test_published_numbers_that_imply_others_do():
    assert len(ROWS) == len(read_published()["numbers"]) + 2 * len(LADDERS) - 1
    outside = [r["where"] for r in ROWS if r["interval"] and not r["interval"][0] <= r["value"] <= r["interval"][1]]
    assert outside == ["table 2, approach 3"]  # printed so: 0.46 (0.454, 0.455)
    of = {(r["source"]["name"], r["what"]): r["value"] for r in ROWS if "non-embedding" not in r["where"]}
    alpha, beta = (of["Besiroglu et al. 2024", f"Chinchilla's {name}"] for name in "αβ")
    assert beta / (alpha + beta) == pytest.approx(of["Besiroglu et al. 2024", "a of N_opt ∝ C^a"], abs=1e-3)
    assert of["Muennighoff et al. 2023", "worth of 4 epochs (data)"] == pytest.approx(3.73, abs=0.005)


@pytest.mark.parametrize(
    ("value", "published", "ours", "verdict"),
    [
        (0.6, None, (0.4, 0.6), "included"),
        (0.7, None, (0.4, 0.6), "below"),
        (0.3, None, (0.4, 0.6), "above"),
        (0.3, (0.2, 0.45), (0.4, 0.6), "above, intervals overlap"),
        (0.3, (0.2, 0.39), (0.4, 0.6), "above"),
        (9.0, None, (0.4, None), "not identified: its interval is open"),
        (0.3, None, (None, 0.2), "below"),
    ],
)
def test_a_verdict_follows_from_the_intervals(value, published, ours, verdict):
    assert verdict_of({"reason": None, "interval": ours}, {"value": value, "interval": published}) == verdict


@pytest.mark.parametrize(
    ("at", "value", "interval", "reason"),
    [
        (["law", "power", "n_params", "alpha"], 0.06, (0.05, 0.085), None),  # the wider of both intervals
        (["law", "power", "n_params_non_embedding", "alpha"], 0.05, (0.04, 0.06), None),
        (["law", "chinchilla", "n_params", "beta"], None, (None, None), "flat"),
        (["law", "power", "tokens", "alpha"], None, (None, None), "too few runs here"),
        (["compute_optimal", "envelope", "a"], None, (None, None), FEW),
        (["compute_optimal", "parametric", "tokens_per_parameter"], 40, (38, 41), None),  # the largest budget trained
        (["epochs", "4"], 3.6, (3.2, None), None),
    ],
)
def test_our_number_is_looked_up_with_its_interval_or_reason(at, value, interval, reason):
    assert our_number(study("gpt"), "gpt", at) == {"value": value, "interval": interval, "reason": reason}


def test_each_number_is_compared_with_the_architectures_that_it_is_of():
    rows = compare_with_published(study("gpt", "lstm"))
    of_lstm = [row for row in rows if row["architectures"] == ["lstm"]]
    assert of_lstm
    assert all(set(row["ours"]) == {"lstm"} for row in of_lstm)
    assert sum(verdict_counts(rows, "gpt").values()) == sum("gpt" in row["ours"] for row in rows)
    assert not any("lstm" in row["ours"] for row in compare_with_published(study("gpt")))
    [adi] = [r for r in rows if r["source"]["name"] == "thisisadi" and r["where"] == "as printed"]
    assert adi["differences"] == [
        "character of ABC made of MIDI",
        "smallest N 67.8 × our largest",
        "5 runs there, one a size",
    ]
