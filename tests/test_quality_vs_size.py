"""Quality against size on made studies: planted effects are in their intervals, absent ones are not found."""

import json
from copy import deepcopy

import numpy as np
import pytest
from made_quality import HUMAN, SIZES, TEMPERATURES, TRAINING_DISTANCE, both, constant, made_study, rising
from scipy.special import expit

from cli import UserError
from generation.curves import fit_logistic
from generation.quality_vs_size import NO_TREND, analyse, newcombe
from generation.shares import share

GPT_N50, LSTM_N50 = 1.5e5, 5e4
BARS = {"bars_add_up": {"gpt": rising(GPT_N50), "lstm": rising(LSTM_N50)}}


def of_loss(middle, steep=8.0):
    """A share that depends on the loss alone."""
    return lambda _, loss: 0.9 * expit(steep * (middle - loss))


def chosen(study, metric="bars_add_up", resamples=50, **how):
    return analyse(study, resamples, **how)["chosen"][metric]


def slope(view, architecture="gpt"):
    return view["curves"][architecture]["n_params"]


def test_the_interval_of_a_difference_of_shares_is_newcombes():
    # Newcombe 1998, table II, case (a) method 10: 56/70 − 48/80
    one, other = ({"value": k / n, "interval": share(k, n)["interval"]} for k, n in ((56, 70), (48, 80)))
    assert newcombe(one, other) == pytest.approx([0.0524, 0.3339], abs=1e-4)


def test_seeds_that_differ_more_than_binomially_widen_the_interval_of_a_size():
    even = made_study({"parses": {"gpt": constant(0.5)}})
    apart = deepcopy(even)
    for cell, other in zip(even["cells"], apart["cells"], strict=True):
        cell["shares"]["parses"] = share(100, 200)
        other["shares"]["parses"] = share(100 + 30 * (cell["seed"] - 1), 200)
    narrow, wide = (chosen(s, "parses")["points"]["gpt"][0] for s in (even, apart))
    assert narrow["value"] == wide["value"] == 0.5
    assert narrow["interval"] == pytest.approx(share(300, 600)["interval"])
    assert wide["interval"][1] - wide["interval"][0] > 3 * (narrow["interval"][1] - narrow["interval"][0])


# Temperatures


def test_the_temperature_is_chosen_on_validation_and_distances_are_to_test():
    study = made_study({"parses": both(constant(0.9))}, {"distance_key": both(constant(0.3))}, best=0.8)
    cells = [cell | {"temperature": t} for cell in study["cells"] for t in (0.8, 1.0)]
    for cell in cells:
        near = cell["temperature"] == 0.8
        cell["numbers"] = {"distance_key": {"value": 0.1 if near else 0.2, "interval": [0.1, 0.2]}}
        cell["test_numbers"] = {"distance_key": {"value": 0.5 if near else 0.4, "interval": [0.4, 0.5]}}
    found = analyse(study | {"cells": cells}, resamples=50)
    assert {row["chosen"] for row in found["temperatures"]} == {0.8}
    scores = [row["score"] for row in found["temperatures"][0]["scores"]]
    assert scores == pytest.approx([0.1 / TRAINING_DISTANCE, 0.2 / TRAINING_DISTANCE])
    assert found["chosen"]["distance_key"]["points"]["gpt"][0]["value"] == pytest.approx(0.5)
    assert found["at_1"]["distance_key"]["points"]["gpt"][0]["value"] == pytest.approx(0.4)


def test_a_temperature_that_lacks_a_seed_or_a_distance_is_not_chosen():
    study = made_study({"parses": {"gpt": constant(0.9)}}, {"distance_key": {"gpt": constant(0.3)}})
    near, unknown = deepcopy(study["cells"][0]), deepcopy(study["cells"][1])
    near |= {"temperature": 0.7, "numbers": {"distance_key": {"value": 0.01, "interval": [0, 0.02]}}}
    unknown |= {"temperature": 0.6, "numbers": {"distance_key": {"value": None, "interval": [None, None]}}}
    study["cells"] += [near, unknown]
    assert analyse(study, resamples=50)["temperatures"][0]["chosen"] == 1.0


def test_without_distances_the_temperature_nearest_to_1_is_chosen_with_a_reason():
    found = analyse(made_study({"parses": {"gpt": constant(0.9)}}, temperatures=(0.5, 0.9, 1.3)), resamples=50)
    assert {row["chosen"] for row in found["temperatures"]} == {0.9}
    assert found["temperatures"][0]["reason"] is not None
    assert found["at_1"] is None


# Trends


def test_the_logistic_fit_returns_the_curve_that_made_the_counts():
    t = np.linspace(-1, 1, 9)
    counts = 1e6 * (0.1 + 0.75 * expit(0.4 + 2.5 * t))
    fitted = fit_logistic(t, counts[None], np.full((1, 9), 1e6), chance=0.1, ceiling=0.85)
    assert fitted[0] == pytest.approx([0.4, 2.5], abs=1e-3)


def test_planted_trends_thresholds_and_differences_are_found_and_absent_ones_are_not():
    study = made_study(
        {**BARS, "parses": both(constant(0.95))},
        {"distance_key": {"gpt": lambda n, _: 3 * n**-0.2, "lstm": lambda n, _: 2 * n**-0.2}},
        {"repeated_bars": both(constant(0.2))},
        temperatures=TEMPERATURES,
        best=0.8,
        seed=1,
    )
    view = analyse(study, resamples=1000)["chosen"]
    verdicts = {name: slope(row)["verdict"] for name, row in view.items()}
    expected = {"bars_add_up": "rises", "parses": NO_TREND, "distance_key": "falls", "repeated_bars": NO_TREND}
    assert verdicts == expected
    low, high = slope(view["distance_key"])["slope"]["interval"]
    assert low < -0.2 * np.log(10) < high  # a factor of 10^-0.2 a decade
    at = view["bars_add_up"]["appears"]["n_params"]
    for name, true in (("gpt", GPT_N50), ("lstm", LSTM_N50)):
        low, high = at["at"][name]["interval"]
        assert low < true < high < 1.6 * low
    assert at["ratio"]["interval"][0] < LSTM_N50 / GPT_N50 < at["ratio"]["interval"][1] < 1
    signs = {name: row["equal_size"]["mean"]["sign"] for name, row in view.items()}
    assert signs == {"bars_add_up": 1, "parses": 0, "distance_key": -1, "repeated_bars": 0}
    assert {row["size"]: row["sign"] for row in view["bars_add_up"]["equal_size"]["sizes"]}["120k"] == 1


def test_intervals_cover_the_truth_as_often_as_they_should():
    covered = flat = 0
    truth = {"bars_add_up": {"gpt": rising(GPT_N50)}, "parses": {"gpt": constant(0.9)}}
    for seed in range(40):
        view = analyse(made_study(truth, spread=0.2, seed=seed, seeds=(0, 1)), resamples=200, seed=seed)["chosen"]
        low, high = view["bars_add_up"]["appears"]["n_params"]["at"]["gpt"]["interval"]
        covered += (low or 0) <= GPT_N50 <= (high or np.inf)
        flat += slope(view["parses"])["verdict"] == NO_TREND
    assert covered >= 35  # of 40; 38 expected
    assert flat >= 35


def test_the_level_of_an_ability_is_halfway_from_chance_to_human_tunes():
    study = made_study({"tonic_ending": both(rising(1e5, 3, ceiling=0.8, chance=1 / 7))})
    for chance, given in ((1 / 7, study), (0.3, study | {"chance": {"tonic_ending": 0.3}})):
        metric = analyse(given, resamples=50)["metrics"][0]
        assert metric["level"] == pytest.approx((chance + HUMAN["tonic_ending"]) / 2, abs=1e-3)
    low, high = chosen(study, "tonic_ending", 400)["appears"]["n_params"]["at"]["gpt"]["interval"]
    assert low < 1e5 < high


@pytest.mark.parametrize(
    ("truth", "status", "interval"),
    [
        (rising(3e3), "below", [None, 17000]),
        (constant(0.7), "below", [None, 17000]),
        (rising(6e6), "beyond", [490000, None]),
        (constant(0.3), "no trend", [None, None]),
    ],
)
def test_an_ability_outside_of_the_measured_sizes_gets_no_number(truth, status, interval):
    row = chosen(made_study({"bars_add_up": both(truth)}), resamples=400)["appears"]["n_params"]["at"]["gpt"]
    assert (row["status"], row["value"], row["interval"]) == (status, None, interval)


def test_a_ratio_with_one_side_beyond_the_sizes_is_bounded_on_the_other():
    study = made_study({"bars_add_up": {"gpt": rising(3e6), "lstm": rising(5e4)}})
    found = chosen(study, resamples=400)["appears"]["n_params"]
    ratio = found["ratio"]
    assert (found["at"]["gpt"]["status"], ratio["value"], ratio["interval"][0]) == ("beyond", None, None)
    assert 5e4 / 3e6 < ratio["interval"][1] < 0.2


@pytest.mark.parametrize(("truth", "ceiling"), [(both(rising(5e4, 4, ceiling=1.0)), 1), (BARS["bars_add_up"], 0.9)])
def test_models_above_human_tunes_get_a_ceiling_of_1(truth, ceiling):
    assert slope(chosen(made_study({"bars_add_up": truth})))["ceiling"] == ceiling


# LSTM against GPT


def test_a_difference_at_equal_loss_is_found_where_planted_and_only_there():
    alike = {"valid": both(of_loss(1.4))}
    apart = {"bars_add_up": {"gpt": of_loss(1.4), "lstm": of_loss(1.5)}}
    signs = []
    for seed in range(5):
        view = analyse(made_study(alike | apart, seed=seed), resamples=300)["chosen"]
        signs.append(view["valid"]["equal_loss"]["sign"])
        assert view["valid"]["equal_size"]["mean"]["sign"] == 1  # better at equal N by its loss alone
        assert view["bars_add_up"]["equal_loss"]["sign"] == 1
    assert signs.count(0) >= 4


def test_losses_that_do_not_overlap_are_not_compared():
    study = made_study(BARS)
    for cell in study["cells"]:
        cell["validation_loss"] += 2 * (cell["architecture"] == "gpt")
    assert chosen(study)["equal_loss"]["range"] is None


# Studies with little in them


def test_missing_cells_are_left_out():
    study = made_study(BARS)
    gone = {("gpt", "15k", 0), ("gpt", "120k", 0), ("gpt", "120k", 1), ("gpt", "120k", 2), ("lstm", "500k", 1)}
    study["cells"] = [c for c in study["cells"] if (c["architecture"], c["size"], c["seed"]) not in gone]
    view = chosen(study, resamples=300)
    assert [row["size"] for row in view["equal_size"]["sizes"]] == [size for size in SIZES if size != "120k"]
    assert view["equal_size"]["mean"]["pairs"] == 13
    assert view["points"]["gpt"][0]["runs"] == 2
    low, high = view["appears"]["n_params"]["at"]["gpt"]["interval"]
    assert low < GPT_N50 < high


@pytest.mark.parametrize(("sizes", "seeds"), [(["60k"], (0, 1, 2)), (list(SIZES)[:5], (0,))])
def test_too_few_sizes_or_runs_get_points_and_no_curve(sizes, seeds):
    study = made_study(BARS, {"distance_key": both(constant(0.3))}, sizes={s: SIZES[s] for s in sizes}, seeds=seeds)
    for row in analyse(study, resamples=50)["chosen"].values():
        assert row["curves"] == {}
        assert set(row["no_curve"]) == {"gpt", "lstm"}
        assert row["equal_loss"]["value"] is None
        assert row["equal_size"]["mean"]["interval"] == [None, None]
        assert len(row["equal_size"]["sizes"]) == len(sizes)


def test_one_architecture_is_compared_with_nothing():
    view = chosen(made_study({"bars_add_up": {"lstm": rising(5e4)}}))
    assert "equal_size" not in view
    assert view["appears"]["n_params"]["ratio"] is None


def test_shares_of_no_tunes_are_left_out():
    study = made_study({"repeats_close": both(rising(5e4))})
    for cell in study["cells"]:
        if cell["size"] in ("15k", "30k"):
            cell["shares"]["repeats_close"] = share(0, 0)
    study["human"]["validation"]["shares"]["repeats_close"] = share(0, 0)
    found = analyse(study, resamples=50)
    view = found["chosen"]["repeats_close"]
    assert [row["size"] for row in view["points"]["gpt"]] == ["60k", "120k", "250k", "500k"]
    assert found["metrics"][0]["level"] is None
    assert "appears" not in view
    json.dumps(found, allow_nan=False)


@pytest.mark.parametrize(("count", "status"), [(0, "no trend"), (200, "below")])
def test_shares_of_0_or_1_everywhere_have_no_trend_and_are_not_compared(count, status):
    study = made_study(BARS)
    for cell in study["cells"]:
        cell["shares"]["bars_add_up"] = share(count, 200)
    view = chosen(study)
    assert slope(view)["verdict"] == NO_TREND
    assert slope(view)["slope"]["interval"] == [None, None]
    assert view["appears"]["n_params"]["at"]["gpt"]["status"] == status
    assert view["equal_loss"]["value"] is None
    json.dumps(view, allow_nan=False)


def test_tunes_of_strict_bars_are_another_study():
    study = made_study(BARS)
    strict = [cell | {"bars": "strict", "shares": {"bars_add_up": share(200, 200)}} for cell in study["cells"]]
    together = study | {"cells": study["cells"] + strict}
    assert analyse(together, resamples=50) == analyse(study, resamples=50)
    assert chosen(together, bars="strict")["points"]["gpt"][0]["value"] == 1
    with pytest.raises(UserError, match="strict"):
        analyse(study, bars="strict")
