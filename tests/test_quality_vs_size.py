"""Quality against size on made studies: what is planted is found with intervals that hold it, what is absent is not."""

import json
from copy import deepcopy

import numpy as np
import pytest
from made_quality import FLOOR, HUMAN, SIZES, TEMPERATURES, both, constant, made_study, rising, share
from scipy.special import expit

from cli import UserError
from generation.quality import Share
from generation.quality_vs_size import analyse, fit_logistic, newcombe, wilson

GPT_N50, LSTM_N50 = 1.5e5, 5e4
BARS = {"bars_add_up": {"gpt": rising(GPT_N50), "lstm": rising(LSTM_N50)}}


def of_loss(middle, steep=8.0):
    """A share that depends on the loss alone."""
    return lambda _, loss: 0.9 * expit(steep * (middle - loss))


def appears(study, metric="bars_add_up", axis="n_params", **how):
    return analyse(study, resamples=400, **how)["chosen"][metric]["appears"][axis]


@pytest.fixture(scope="module")
def found():
    study = made_study(
        {**BARS, "parses": both(constant(0.95))},
        {"distance_key": {"gpt": lambda n, _: 3 * n**-0.2, "lstm": lambda n, _: 2 * n**-0.2}},
        {"repeated_bars": both(constant(0.2))},
        temperatures=TEMPERATURES,
        best=0.8,
        seed=1,
    )
    return analyse(study, resamples=1000)


# Intervals


@pytest.mark.parametrize(("count", "total"), [(0, 10), (10, 10), (81, 263)])
def test_the_interval_of_a_share_is_wilsons(count, total):
    assert wilson(count / total, total) == pytest.approx(Share(count, total).interval)


def test_the_interval_of_a_difference_of_shares_is_newcombes():
    # Newcombe 1998, table II, case (a) method 10: 56/70 − 48/80
    one, other = ({"value": k / n, "interval": wilson(k / n, n)} for k, n in ((56, 70), (48, 80)))
    assert newcombe(one, other) == pytest.approx([0.0524, 0.3339], abs=1e-4)


def test_seeds_that_differ_more_than_tunes_explain_widen_a_sizes_interval():
    even = made_study({"parses": {"gpt": constant(0.5)}})
    apart = deepcopy(even)
    for cell in even["cells"]:
        cell["shares"]["parses"] = share(100, 200)
    for cell in apart["cells"]:
        cell["shares"]["parses"] = share(100 + 30 * (cell["seed"] - 1), 200)
    narrow, wide = (analyse(s, resamples=50)["chosen"]["parses"]["points"]["gpt"][0] for s in (even, apart))
    assert narrow["value"] == wide["value"] == 0.5
    assert narrow["interval"] == pytest.approx(Share(300, 600).interval)
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
    scores = found["temperatures"][0]["scores"]
    assert [row["score"] for row in scores] == pytest.approx([0.1 / FLOOR, 0.2 / FLOOR])
    assert found["chosen"]["distance_key"]["points"]["gpt"][0]["value"] == pytest.approx(0.5)
    assert found["at_1"]["distance_key"]["points"]["gpt"][0]["value"] == pytest.approx(0.4)


def test_a_temperature_that_lacks_a_seed_or_a_distance_is_not_chosen():
    study = made_study({"parses": {"gpt": constant(0.9)}}, {"distance_key": {"gpt": constant(0.3)}})
    near, unknown = deepcopy(study["cells"][0]), deepcopy(study["cells"][1])
    near |= {"temperature": 0.7, "numbers": {"distance_key": {"value": 0.01, "interval": [0, 0.02]}}}
    unknown |= {"temperature": 0.6, "numbers": {"distance_key": {"value": None, "interval": [None, None]}}}
    study["cells"] += [near, unknown]
    assert analyse(study, resamples=50)["temperatures"][0]["chosen"] == 1.0


def test_without_distances_the_temperature_nearest_to_1_is_taken_and_it_is_said():
    study = made_study({"parses": {"gpt": constant(0.9)}}, temperatures=(0.5, 0.9, 1.3))
    found = analyse(study, resamples=50)
    assert {row["chosen"] for row in found["temperatures"]} == {0.9}
    assert "no temperature has all distances" in found["temperatures"][0]["reason"]
    assert found["at_1"] is None


# Curves


def test_the_logistic_fit_returns_the_curve_that_made_the_counts():
    t = np.linspace(-1, 1, 9)
    counts = 1e6 * (0.1 + 0.75 * expit(0.4 + 2.5 * t))
    fitted = fit_logistic(t, counts[None], np.full((1, 9), 1e6), chance=0.1, ceiling=0.85)
    assert fitted[0] == pytest.approx([0.4, 2.5], abs=1e-3)


def test_trends_are_told_where_there_are_any(found):
    verdicts = {name: row["curves"]["gpt"]["n_params"]["verdict"] for name, row in found["chosen"].items()}
    flat = "not told from flat"
    assert verdicts == {"bars_add_up": "rises", "parses": flat, "distance_key": "falls", "repeated_bars": flat}
    slope = found["chosen"]["distance_key"]["curves"]["gpt"]["n_params"]["slope"]
    assert slope["interval"][0] < -0.2 * np.log(10) < slope["interval"][1]  # a factor of 10^-0.2 a decade


def test_thresholds_and_their_ratio_lie_in_their_intervals(found):
    at = found["chosen"]["bars_add_up"]["appears"]["n_params"]
    for name, true in (("gpt", GPT_N50), ("lstm", LSTM_N50)):
        low, high = at["at"][name]["interval"]
        assert low < true < high < 1.6 * low
    assert at["ratio"]["interval"][0] < LSTM_N50 / GPT_N50 < at["ratio"]["interval"][1] < 1
    assert at["ratio"]["sign"] == -1


def test_intervals_hold_the_truth_about_as_often_as_they_should():
    held = flat = 0
    truth = {"bars_add_up": {"gpt": rising(GPT_N50)}, "parses": {"gpt": constant(0.9)}}
    for seed in range(60):
        view = analyse(made_study(truth, spread=0.2, seed=seed, seeds=(0, 1)), resamples=200, seed=seed)["chosen"]
        low, high = view["bars_add_up"]["appears"]["n_params"]["at"]["gpt"]["interval"]
        held += (low or 0) <= GPT_N50 <= (high or np.inf)
        flat += view["parses"]["curves"]["gpt"]["n_params"]["verdict"] == "not told from flat"
    assert held >= 53  # of 60; 57 expected
    assert flat >= 53


def test_the_level_of_the_tonic_lies_halfway_from_chance_to_people():
    study = made_study({"tonic_ending": both(rising(1e5, 3, ceiling=0.8, chance=1 / 7))})
    metric = analyse(study, resamples=50)["metrics"][0]
    assert metric["level"] == pytest.approx((1 / 7 + HUMAN["tonic_ending"]) / 2)
    low, high = appears(study, "tonic_ending")["at"]["gpt"]["interval"]
    assert low < 1e5 < high
    measured = analyse(study | {"chance": {"tonic_ending": 0.3}}, resamples=50)["metrics"][0]
    assert measured["level"] == pytest.approx((0.3 + 0.8) / 2)


@pytest.mark.parametrize(
    ("truth", "status"),
    [(rising(3e3), "below"), (rising(6e6), "beyond"), (constant(0.3), "no trend"), (constant(0.7), "below")],
)
def test_an_ability_outside_of_the_sizes_gets_no_number(truth, status):
    row = appears(made_study({"bars_add_up": both(truth)}))["at"]["gpt"]
    assert (row["status"], row["value"]) == (status, None)
    assert row["interval"] == {"below": [None, 17000], "beyond": [490000, None], "no trend": [None, None]}[status]


def test_a_ratio_with_one_side_beyond_the_sizes_is_bounded_on_the_other():
    found = appears(made_study({"bars_add_up": {"gpt": rising(3e6), "lstm": rising(5e4)}}))
    ratio = found["ratio"]
    assert found["at"]["gpt"]["status"] == "beyond"
    assert ratio["value"] is None
    assert ratio["interval"][0] is None
    assert 5e4 / 3e6 < ratio["interval"][1] < 0.2


def test_models_above_people_get_a_ceiling_of_1():
    study = made_study({"bars_add_up": both(rising(5e4, 4, ceiling=1.0))})
    assert analyse(study, resamples=50)["chosen"]["bars_add_up"]["curves"]["gpt"]["n_params"]["ceiling"] == 1
    assert (
        analyse(made_study(BARS), resamples=50)["chosen"]["bars_add_up"]["curves"]["gpt"]["n_params"]["ceiling"] == 0.9
    )


# LSTM against GPT


def test_a_difference_at_equal_size_is_found_and_an_absent_one_is_not(found):
    bars, parses = (found["chosen"][name]["equal_size"] for name in ("bars_add_up", "parses"))
    assert bars["mean"]["sign"] == 1
    assert {row["size"]: row["sign"] for row in bars["sizes"]}["120k"] == 1
    assert parses["mean"]["sign"] == 0
    assert found["chosen"]["distance_key"]["equal_size"]["mean"]["sign"] == -1


def test_a_difference_at_equal_loss_is_found_where_planted_and_only_there():
    alike = {"valid": both(of_loss(1.4))}
    apart = {"bars_add_up": {"gpt": of_loss(1.4), "lstm": of_loss(1.5)}}
    signs = []
    for seed in range(8):
        view = analyse(made_study(alike | apart, seed=seed), resamples=300)["chosen"]
        signs.append(view["valid"]["equal_loss"]["sign"])
        assert view["valid"]["equal_size"]["mean"]["sign"] == 1  # better at equal N by its loss alone
        assert view["bars_add_up"]["equal_loss"]["sign"] == 1
    assert signs.count(0) >= 7


def test_losses_that_do_not_overlap_are_not_compared():
    study = made_study(BARS)
    for cell in study["cells"]:
        cell["validation_loss"] += 2 * (cell["architecture"] == "gpt")
    found = analyse(study, resamples=50)["chosen"]["bars_add_up"]["equal_loss"]
    assert found["value"] is None
    assert "no common range" in found["reason"]


# Studies with little in them


def test_missing_cells_are_no_bar():
    study = made_study(BARS)
    gone = {("gpt", "15k", 0), ("gpt", "120k", 0), ("gpt", "120k", 1), ("gpt", "120k", 2), ("lstm", "500k", 1)}
    study["cells"] = [c for c in study["cells"] if (c["architecture"], c["size"], c["seed"]) not in gone]
    view = analyse(study, resamples=300)["chosen"]["bars_add_up"]
    assert [row["size"] for row in view["equal_size"]["sizes"]] == [size for size in SIZES if size != "120k"]
    assert view["equal_size"]["mean"]["pairs"] == 13
    assert view["points"]["gpt"][0]["runs"] == 2
    low, high = view["appears"]["n_params"]["at"]["gpt"]["interval"]
    assert low < GPT_N50 < high


def test_a_single_size_gets_points_and_no_curve():
    study = made_study(BARS, {"distance_key": both(constant(0.3))}, sizes={"60k": 6.2e4})
    view = analyse(study, resamples=50)["chosen"]
    for row in view.values():
        assert row["curves"] == {}
        assert row["no_curve"] == {"gpt": "fewer than 3 sizes", "lstm": "fewer than 3 sizes"}
        assert row["equal_loss"]["value"] is None
        assert row["equal_size"]["mean"]["interval"] == [None, None]
        assert len(row["equal_size"]["sizes"]) == 1


def test_one_seed_of_five_sizes_is_too_few_runs_for_a_curve():
    sizes = dict(list(SIZES.items())[:5])
    assert analyse(made_study(BARS, sizes=sizes, seeds=(0,)), resamples=50)["chosen"]["bars_add_up"]["no_curve"]


def test_one_architecture_is_compared_with_nothing():
    view = analyse(made_study({"bars_add_up": {"lstm": rising(5e4)}}), resamples=300)["chosen"]["bars_add_up"]
    assert "equal_size" not in view
    assert view["appears"]["n_params"]["ratio"] is None


def test_totals_of_zero_are_left_out():
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
def test_shares_of_0_or_1_everywhere_are_flat_and_not_compared(count, status):
    study = made_study(BARS)
    for cell in study["cells"]:
        cell["shares"]["bars_add_up"] = share(count, 200)
    found = analyse(study, resamples=50)
    view = found["chosen"]["bars_add_up"]
    assert view["curves"]["gpt"]["n_params"]["verdict"] == "not told from flat"
    assert view["curves"]["gpt"]["n_params"]["slope"]["interval"] == [None, None]
    assert view["appears"]["n_params"]["at"]["gpt"]["status"] == status
    assert view["equal_loss"]["value"] is None
    json.dumps(found, allow_nan=False)


def test_tunes_made_to_add_up_are_another_study():
    study = made_study(BARS)
    strict = [cell | {"bars": "strict", "shares": {"bars_add_up": share(200, 200)}} for cell in study["cells"]]
    whole = study | {"cells": study["cells"] + strict}
    assert analyse(whole, resamples=50) == analyse(study, resamples=50)
    assert analyse(whole, resamples=50, bars="strict")["chosen"]["bars_add_up"]["points"]["gpt"][0]["value"] == 1
    with pytest.raises(UserError, match="no cell has bars 'strict'"):
        analyse(study, bars="strict")
