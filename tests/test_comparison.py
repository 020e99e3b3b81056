"""GPT against LSTM: differences with their signs, crossovers, equal loss, and positions in the context."""

import json

import numpy as np
import pytest
from scipy.optimize import brentq
from scipy.stats import f

from analysis.comparison import AXES, compare, compare_law, compare_positions, compare_resources, sign_of
from analysis.runs import weights_of

SIZES = np.geomspace(2e4, 2e7, 8)
SEEDS = (0, 1, 2)
BUDGET = 2_000_000


@pytest.fixture(autouse=True, scope="module")
def _rough_intervals():
    """Intervals of few resamples and profiles of few points: rough, and made in a fraction of the time."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("analysis.fitting.RESAMPLES", 300)
        patch.setattr("analysis.profiles.POINTS", 8)
        patch.setattr("analysis.comparison.RESAMPLES_OF_RATIOS", 200)
        yield


def law(e, a, alpha, b=0.0, beta=1.0):
    return lambda n, d: e + a * n**-alpha + b * d**-beta


def by_visible(loss, draw, fall=0.0, context=256):
    """Losses by position with mean `loss` and the noise of a text: they fall until 64 characters, then by `fall`."""
    visible = np.arange(1, context)
    curve = 0.5 / np.minimum(visible, 64) - fall * np.log2(np.maximum(visible, 64) / 64)
    return (loss + curve - curve.mean() + draw).tolist()


def made_run(architecture, size, seed, n_params, tokens, loss, text, **changes):
    """A record as training writes it, as far as the comparison reads it, of a made-up run."""
    record = {
        **{"architecture": architecture, "size": size, "seed": seed, "budget": tokens, "schedule": "cosine"},
        **{"data_fraction": 1.0, "n_keys": 1, "stateful": False},
        "n_params": int(n_params),
        "n_params_non_embedding": int(n_params * 0.9) - 5000,
        "tokens": tokens,
        "unique_tokens": BUDGET,
        "epochs": tokens / BUDGET,
        "flops": 6.0 * n_params * tokens,
        "seconds": 20.0 * n_params**0.5,
        "peak_memory_bytes": int(5e7 + 16 * n_params),
        "validation_loss": loss,
        "validation_loss_by_position": by_visible(loss, text, 0.02 if architecture == "gpt" else 0.0),
    }
    return record | changes


def made_ladder(architecture, formula, noise=0.002, sizes=SIZES, seeds=SEEDS, budgets=(BUDGET,), **changes):
    """Runs of one architecture under a known law; the two architectures' noise and sizes differ a little."""
    draw = np.random.default_rng([len(architecture), 7])
    text = np.random.default_rng(3).normal(0, 0.02, 255)  # both read the same
    runs = []
    for n in sizes:
        matched = n * (1.01 if architecture == "lstm" else 1)
        for seed in seeds:
            for tokens in budgets:
                loss = float(formula(matched, tokens) * np.exp(draw.normal(0, noise)))
                positions = text + draw.normal(0, 0.002, 255)
                runs.append(
                    made_run(architecture, f"{n / 1e3:.0f}k", seed, matched, tokens, loss, positions, **changes)
                )
    return runs


GPT_LAW, LSTM_LAW = law(1.0, 30, 0.35), law(1.2, 8, 0.2)
RISING = law(0.0, 0.5, -0.08)


def made_ladders(gpt=GPT_LAW, lstm=LSTM_LAW, **changes):
    return {"gpt": made_ladder("gpt", gpt, **changes), "lstm": made_ladder("lstm", lstm, **changes)}


@pytest.fixture(scope="module")
def plain():
    """The comparison of the made ladders as they are."""
    return compare(made_ladders())


@pytest.fixture(scope="module")
def of_one_seed():
    return compare(made_ladders(seeds=(0,)))


def under(name, ladders, axis="n_params"):
    return compare_law(name, axis, ladders, BUDGET)


# Differences


@pytest.mark.parametrize("name", ["power", "power_irreducible"])
def test_no_architecture_is_steeper_while_the_interval_holds_zero(name):
    same = law(1.0, 20, 0.3)
    found = under(name, made_ladders(same, same, noise=0.005))
    alpha = found["differences"]["alpha"]
    low, high = alpha["bootstrap"]
    assert low < 0 < high
    assert alpha["sign"] == 0
    assert alpha["test"]["p"] > 0.05
    assert found["steeper"] is None


@pytest.mark.parametrize("steeper", ["gpt", "lstm"])
def test_the_steeper_law_is_found_if_the_difference_is_clear(steeper):
    steep, shallow = law(1.0, 60, 0.4), law(1.0, 10, 0.2)
    laws = {"gpt": steep, "lstm": shallow} if steeper == "gpt" else {"gpt": shallow, "lstm": steep}
    found = under("power_irreducible", made_ladders(**laws, noise=0.001))
    alpha, e = found["differences"]["alpha"], found["differences"]["E"]
    assert found["steeper"] == steeper
    assert alpha["value"] == pytest.approx(0.2 if steeper == "gpt" else -0.2, abs=0.02)
    for low, high in (alpha["bootstrap"], alpha["jackknife"]):
        assert low < alpha["value"] < high
    assert alpha["test"]["p"] < 1e-6
    assert e["value"] == pytest.approx(0.0, abs=0.05)


@pytest.mark.parametrize(
    ("bootstrap", "over_sizes", "sign"),
    [
        ((0.1, 0.2), (0.05, 0.3), 1),
        ((-0.2, -0.1), (-0.3, -0.05), -1),
        ((0.1, 0.2), (-0.01, 0.3), 0),
        ((-0.1, 0.2), (0.05, 0.3), 0),
        ((None, None), (0.05, 0.3), 0),
    ],
)
def test_a_difference_has_a_sign_only_if_both_intervals_agree(bootstrap, over_sizes, sign):
    assert sign_of(bootstrap, over_sizes) == sign


def test_a_shared_noise_of_pairs_cancels_in_the_difference():
    ladders = made_ladders(noise=0.0)
    draw = np.random.default_rng(0)
    for gpt, lstm in zip(*ladders.values(), strict=True):
        shared = np.exp(draw.normal(0, 0.005))
        gpt["validation_loss"] *= shared * np.exp(draw.normal(0, 0.0002))
        lstm["validation_loss"] *= shared * np.exp(draw.normal(0, 0.0002))
    found = under("power_irreducible", ladders)
    alone = [np.ptp(fit["parameters"]["alpha"]["bootstrap"]) for fit in found["fits"].values()]
    assert np.ptp(found["differences"]["alpha"]["bootstrap"]) < 0.5 * np.hypot(*alone)


def test_the_test_of_a_shared_exponent_is_walds_with_the_variance_of_the_jackknife_over_pairs():
    """By hand for the power law, which is a straight line in logs, with the Huber loss far from its edges."""
    ladders = made_ladders(law(0, 8, 0.1), law(0, 8, 0.1))
    slopes = []
    for without in (None, *range(24)):
        pair = []
        for runs in ladders.values():
            kept = [run for i, run in enumerate(runs) if i != without]
            n, loss = (np.log([run[name] for run in kept]) for name in ("n_params", "validation_loss"))
            weights = np.delete(weights_of(runs), [] if without is None else without)
            pair.append(-np.polyfit(n, loss, 1, w=np.sqrt(weights))[0])
        slopes.append(pair[0] - pair[1])
    value, left_out = slopes[0], np.array(slopes[1:])
    statistic = value**2 / (23 / 24 * np.sum((left_out - left_out.mean()) ** 2))
    test = under("power", ladders)["differences"]["alpha"]["test"]
    assert test["degrees_of_freedom"] == (1, 22)
    assert test["statistic"] == pytest.approx(statistic, rel=1e-4)
    assert test["p"] == pytest.approx(f.sf(statistic, 1, 22), rel=1e-4)


def test_a_law_that_is_not_identified_gives_a_reason_and_no_result():
    found = under("power", made_ladders(RISING, GPT_LAW, noise=0.001))
    assert found["steeper"] is None
    assert "of the GPT: " in found["reason"]
    assert found["differences"]["alpha"]["test"]["p"] is None
    assert found["crossovers"][0]["value"] is None
    assert found["crossovers"][0]["reason"] == found["reason"]


# The runs that are compared


def test_every_axis_and_law_is_compared_and_the_order_of_the_runs_changes_nothing(plain):
    assert {(c["axis"], c["law"]) for c in plain["laws"]} == {
        (axis, name) for axis in AXES for name in ("power", "power_irreducible")
    }
    assert "3 budgets" in plain["left_out"]["chinchilla"]
    ladders = made_ladders()
    ladders["lstm"].reverse()
    assert compare(ladders) == plain


def test_only_runs_with_a_partner_on_the_whole_corpus_are_compared():
    ladders = made_ladders(sizes=SIZES[:4])
    ladders["gpt"].pop(4)
    for architecture, runs in made_ladders(law(2, 30, 0.35), law(2, 8, 0.2), sizes=SIZES[:4]).items():
        for i, run in enumerate(runs):
            run.update({"n_keys": 12} if i % 2 else {"data_fraction": 0.25})
        ladders[architecture] += runs
    found = compare(ladders)
    assert found["pairs"] == 11
    assert {c["fits"]["lstm"]["points"] for c in found["laws"]} == {11}
    for run in ladders["lstm"]:
        run["seed"] += 10
    with pytest.raises(ValueError, match="partner"):
        compare(ladders)


def test_a_law_with_too_few_runs_is_left_out_with_a_reason():
    found = compare(made_ladders(sizes=SIZES[:3], seeds=(0,), validation_loss_by_position=[]))
    assert {c["law"] for c in found["laws"]} == {"power"}
    assert "too few" in found["left_out"]["power_irreducible n_params"]
    assert found["positions"] is None
    assert "validation_loss_by_position" in found["left_out"]["positions"]


# Crossovers


def test_the_crossover_is_where_the_gpts_law_falls_below():
    laws = {"gpt": law(0, 40, 0.25), "lstm": law(0, 10, 0.15)}
    crossing = (40 / 10) ** (1 / (0.25 - 0.15))
    [found] = under("power", made_ladders(**laws, noise=0.005))["crossovers"]
    low, high = found["interval"]
    assert low < crossing < high
    assert (found["axis"], found["tokens"], found["share"], found["measured"]) == ("n_params", BUDGET, 1, True)
    [found] = under("power", made_ladders(**laws, noise=1e-5))["crossovers"]
    assert found["value"] == pytest.approx(crossing, rel=1e-3)


@pytest.mark.parametrize(
    ("gpt", "lstm"),
    [
        (law(0, 8, 0.15), law(0, 9, 0.15)),
        (law(0, 10, 0.15), law(0, 40, 0.25)),
        (law(1.3, 300, 0.5), law(1.0, 6, 0.15)),
    ],
    ids=["the GPT is always below", "the LSTM falls below", "a higher E takes the lead back"],
)
def test_there_is_no_crossover_if(gpt, lstm):
    name = "power" if gpt(1e30, 1) < 1e-3 else "power_irreducible"
    [found] = under(name, made_ladders(gpt, lstm, noise=1e-5))["crossovers"]
    assert (found["value"], found["interval"], found["measured"]) == (None, (None, None), None)
    assert found["reason"]


OF_TWO = {"gpt": (0.8, 90, 0.40, 300, 0.42), "lstm": (0.95, 25, 0.33, 200, 0.38)}
BUDGETS = (500_000, 2_000_000, 8_000_000, 32_000_000)


@pytest.fixture(scope="module")
def ladders_of_two():
    """Both axes: 8 sizes × 4 budgets × 3 seeds under known laws, with hardly any noise."""
    return made_ladders(**{a: law(*theta) for a, theta in OF_TWO.items()}, budgets=BUDGETS, noise=1e-4)


def best_loss(theta, flops):
    """The lowest loss that a budget of FLOPs buys, by trying all sizes."""
    n = np.geomspace(1e2, 1e12, 200_001)
    return law(*theta)(n, flops / (6 * n)).min()


def test_chinchillas_law_crosses_in_size_at_a_budget_and_in_flops_along_the_best_sizes(ladders_of_two):
    in_size, in_flops = compare_law("chinchilla", "n_params", ladders_of_two, BUDGETS[-1])["crossovers"]
    gpt, lstm = (law(*OF_TWO[a]) for a in ("gpt", "lstm"))
    exact = brentq(lambda n: gpt(n, BUDGETS[-1]) - lstm(n, BUDGETS[-1]), 1e4, 1e9)
    assert in_size["tokens"] == BUDGETS[-1]
    assert in_size["value"] == pytest.approx(exact, rel=0.02)
    exact = brentq(lambda x: best_loss(OF_TWO["gpt"], np.exp(x)) - best_loss(OF_TWO["lstm"], np.exp(x)), 20, 60)
    assert (in_flops["axis"], in_flops["tokens"]) == ("flops", None)
    assert np.log(in_flops["value"]) == pytest.approx(exact, abs=0.03)


# Equal loss

SHIFTED = law(1.0, 60, 0.35), law(1.0, 40, 0.35)
RESOURCES = ["n_params", "flops", "seconds"]


def ratios(ladders, resource, budgets=(BUDGET,)):
    found = compare_resources(ladders, budgets[-1], list(budgets), RESOURCES)
    return [row for row in found if row["resource"] == resource]


def test_the_ratio_of_parameters_at_equal_loss_is_that_of_the_laws():
    ladders = made_ladders(*SHIFTED)
    reached = [
        sorted(np.mean([run["validation_loss"] for run in runs[i : i + 3]]) for i in range(0, 24, 3))
        for runs in ladders.values()
    ]
    found = ratios(ladders, "n_params")
    assert len(found) == 3
    for row in found:
        assert row["tokens"] == BUDGET
        assert max(losses[0] for losses in reached) < row["loss"] < min(losses[-1] for losses in reached)
        assert row["gpt"] / row["lstm"] == row["ratio"] == pytest.approx((60 / 40) ** (1 / 0.35), rel=0.1)
        low, high = row["interval"]
        assert low < row["ratio"] < high
    for seconds, flops in zip(ratios(ladders, "seconds"), ratios(ladders, "flops"), strict=True):
        assert seconds["ratio"] == pytest.approx(flops["ratio"] ** 0.5, rel=0.02)
    for run in ladders["gpt"]:  # a size that is worse than a smaller one is passed over
        run["validation_loss"] *= 1.3 if run["size"] == "386k" else 1
    for row, before in zip(ratios(ladders, "n_params"), found, strict=True):
        assert row["ratio"] == pytest.approx(before["ratio"], rel=0.3)


def test_the_ratio_of_tokens_at_equal_loss_is_that_of_the_laws(ladders_of_two):
    found = ratios(ladders_of_two, "tokens", BUDGETS)
    assert {row["size"] for row in found} == {f"{n / 1e3:.0f}k" for n in SIZES}
    for row in found[-3:]:  # the largest size
        needed = [
            brentq(lambda d, a=a, n=n, loss=row["loss"]: law(*OF_TWO[a])(n, d) - loss, 1e5, 1e9)
            for a, n in (("gpt", SIZES[-1]), ("lstm", SIZES[-1] * 1.01))
        ]
        assert row["ratio"] == pytest.approx(needed[0] / needed[1], rel=0.03)


def test_without_a_loss_that_both_reach_or_a_second_seed_there_is_no_ratio_or_no_interval(of_one_seed):
    assert ratios(made_ladders(law(3.0, 60, 0.35), law(0.5, 10, 0.35)), "n_params") == []
    assert {(row["interval"], row["reason"]) for row in of_one_seed["ratios"]} == {
        ((None, None), "one seed of each size does not measure the noise")
    }


# Positions


def test_a_curve_that_keeps_falling_differs_from_one_that_stops(plain):
    found = plain["positions"]
    assert found["bins"][0] == (1, 2)
    assert found["bins"][-2:] == [(65, 128), (129, 255)]
    assert (found["size"], found["seeds"], found["tokens"]) == ("20000k", 3, BUDGET)
    assert found["lstm"]["falls_until"] == 32  # to 64 the fall is 0.0039 more: less than the text's noise
    low, high = found["difference"]["slope_interval"]
    assert low < -0.02 < high < 0
    assert high - low < 0.5 * np.ptp(found["gpt"]["slope_interval"])  # the noise of the text cancels
    low, high = found["lstm"]["slope_interval"]
    assert low < 0 < high


def test_the_interval_of_the_plateau_holds_what_all_seeds_share():
    """New texts, seeds that agree: the slope of a curve that does not fall is 0 in about 95 of 100 texts."""
    covered = 0
    ladders = made_ladders(sizes=SIZES[-1:], seeds=(0, 1))
    for seed in range(200):
        draw = np.random.default_rng(seed)
        noise = np.convolve(draw.normal(0, 0.03, 256), [0.9, 0.4], "valid")  # neighbours are correlated
        for run in ladders["lstm"]:
            run["validation_loss_by_position"] = by_visible(1.0, noise + draw.normal(0, 0.003, 255))
        low, high = compare_positions(ladders, BUDGET)["lstm"]["slope_interval"]
        covered += low < 0 < high
    assert 180 <= covered < 200, covered


def test_one_seed_gives_positions_without_intervals(of_one_seed):
    found = of_one_seed["positions"]
    assert found["gpt"]["slope_interval"] == (None, None)
    assert found["gpt"]["falls_until"] is None
    assert "one seed" in found["reason"]
    assert json.loads(json.dumps(of_one_seed, allow_nan=False))["positions"]["bins"][0] == [1, 2]
