"""The laws: fits that recover what is known and doubt what is not, reports that say no more than their numbers."""

import copy
import hashlib
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from scipy.optimize import minimize
from scipy.stats import t

from analysis import report, run
from analysis.comparison import Difference, compare, held_out_error, paired
from analysis.fitting import DELTA, LAWS, fit, jackknife, resample
from door import DoorError, open_door, write_json
from training.record import DIVERGED, FINISHED, baseline_file, read_ladders, run_folder, write_record

SIZES = np.geomspace(2e4, 2e7, 8)
SEEDS = (0, 1, 2)
N = np.repeat(SIZES, len(SEEDS))


@pytest.fixture(autouse=True, scope="module")
def _rough_intervals():
    """Intervals of 200 resamples and profiles of 60 points: rough, and made in a fourth of the time."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("analysis.fitting.RESAMPLES", 200)
        patch.setattr("analysis.fitting.PROFILE_POINTS", 60)
        patch.setattr("analysis.comparison.RESAMPLES", 200)
        yield


def floor_law(e, a, alpha):
    return lambda n: e + a * n**-alpha


def with_noise(loss, spread, seed=0):
    return loss * np.exp(np.random.default_rng(seed).normal(0, spread, np.shape(loss)))


ARM = "tokens_2000000"


def made_run(architecture, size, seed, n_params, loss, **changes):
    """A record as training writes it, of a run that never took place."""
    tokens = 1_000_000
    curve = {"step": [10, 20, 40], "tokens": [250_000, 500_000, tokens], "seconds": [5.0, 10.0, 20.0]}
    curve |= {"loss": [loss * 1.5, loss * 1.2, loss]}
    record = {
        "status": FINISHED,
        "reason": None,
        "recipe": {"architecture": architecture, "size": size, "seed": seed, "tokens": tokens},
        "corpus": "0123456789abcdef",
        "n_params": int(n_params),
        "n_params_non_embedding": int(n_params * 0.9) - 5000,
        "steps": 40,
        "tokens": tokens,
        "epochs": 0.5,
        "flops": 6.0 * n_params * tokens,
        "seconds": 20.0 * n_params**0.5,
        "tokens_per_second": tokens / (20.0 * n_params**0.5),
        "peak_memory_bytes": int(4e8 + 16 * n_params),
        "memory_before_bytes": int(3.5e8),
        "validation_loss": loss,
        "validation_loss_standard_error": 0.01,
        "validation_bits_per_character": loss / np.log(2),
        "validation_tokens": 100_000,
        "train_curve": {**curve, "learning_rate": [1e-3, 1e-3, 0.0]},
        "validation_curve": {**curve, "characters": 8160},
    }
    return record | changes


def made_ladder(architecture, law, noise=0.002, sizes=SIZES, seeds=SEEDS, **changes):
    """Runs of one architecture under a known law; the two architectures' noise and sizes differ a little."""
    draw = np.random.default_rng([len(architecture), 7])
    runs = []
    for n in sizes:
        matched = n * (1.01 if architecture == "lstm" else 1)
        for seed in seeds:
            loss = float(law(matched) * np.exp(draw.normal(0, noise)))
            runs.append(made_run(architecture, f"{n / 1e3:.0f}k", seed, matched, loss, **changes))
    return runs


GPT_LAW, LSTM_LAW = floor_law(1.0, 30, 0.35), floor_law(1.2, 8, 0.2)


def made_ladders(gpt=GPT_LAW, lstm=LSTM_LAW, **changes):
    return {"gpt": made_ladder("gpt", gpt, **changes), "lstm": made_ladder("lstm", lstm, **changes)}


def write_study(root, ladders, baseline=1.6):
    for architecture, runs in ladders.items():
        for record in runs:
            recipe = record["recipe"]
            write_record(run_folder(root, architecture, recipe["size"], ARM, recipe["seed"]), record)
    orders = [{"order": n, "validation_loss": baseline + 0.1 * (5 - n), "bits_per_character": 2.0} for n in (3, 4, 5)]
    best = {"order": 5, "validation_loss": baseline, "bits_per_character": baseline / np.log(2)}
    write_json(
        baseline_file(root), {"corpus": "0123456789abcdef", "smoothing": "Witten-Bell", **best, "orders": orders}
    )


def go_in(monkeypatch, root):
    monkeypatch.setattr(sys, "argv", ["run.py", "--output_root", str(root)])
    open_door(run.main)


def refusal(monkeypatch, capsys, root):
    """The one line with which the door refuses a study."""
    with pytest.raises(SystemExit) as caught:
        go_in(monkeypatch, root)
    assert caught.value.code > 0
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith("error:")
    return line


# Fits

KNOWN = [(1.0, 20, 0.3), (0.5, 5, 0.15), (1.8172, 477.8, 0.3473), (0.9, 8, 0.05), (0.01, 8, 0.12)]


@pytest.mark.parametrize(("e", "a", "alpha"), KNOWN)
def test_a_law_with_a_floor_is_recovered_from_exact_losses(e, a, alpha):
    fitted = fit("power_floor", N, floor_law(e, a, alpha)(N))
    assert fitted.converged
    assert fitted.theta == pytest.approx([e, np.log(a), alpha], abs=1e-6)
    assert fitted.predict(np.array([1e9])) == pytest.approx(floor_law(e, a, alpha)(1e9), abs=1e-6)


@pytest.mark.parametrize(("a", "alpha"), [(8, 0.12), (3, 0.02), (300, 0.5)])
def test_a_power_law_is_recovered_from_exact_losses(a, alpha):
    fitted = fit("power", N, a * N**-alpha)
    assert fitted.theta == pytest.approx([0, np.log(a), alpha], abs=1e-6)
    assert all(estimate.identified for estimate in fitted.parameters.values())


def test_the_fit_does_not_depend_on_the_order_of_the_runs_and_scales_with_the_unit_of_size():
    loss = with_noise(GPT_LAW(N), 0.005)
    order = np.random.default_rng(1).permutation(len(N))
    fitted, shuffled = fit("power_floor", N, loss), fit("power_floor", N[order], loss[order])
    in_thousands = fit("power_floor", N / 1e3, loss)
    assert shuffled.theta == pytest.approx(fitted.theta, rel=1e-6)
    assert in_thousands.theta[[0, 2]] == pytest.approx(fitted.theta[[0, 2]], rel=1e-6)
    assert in_thousands.theta[1] == pytest.approx(fitted.theta[1] - fitted.theta[2] * np.log(1e3), rel=1e-6)


def huber(theta, n, loss, law):
    e, log_a, alpha = theta if law == "power_floor" else (0, *theta)
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
        size = np.abs(np.log(max(e, 0) + np.exp(log_a - alpha * np.log(n))) - np.log(loss))
    value = np.where(size <= DELTA, size**2 / 2, DELTA * (size - DELTA / 2)).sum()
    return value if np.isfinite(value) else 1e9


def scipy_optimum(law, n, loss):
    """The least objective that scipy finds from many starts, polished without gradients."""
    bounds = [(0, None), (None, None), (None, 3)][0 if law == "power_floor" else 1 :]
    best = None
    for alpha in (0.05, 0.1, 0.2, 0.4, 0.8):
        for share in (0.2, 0.6, 0.95) if law == "power_floor" else (0,):
            e = share * loss.min()
            start = [e, np.log(np.median((loss - e) * n**alpha)), alpha][0 if law == "power_floor" else 1 :]
            found = minimize(huber, start, (n, loss, law), method="L-BFGS-B", bounds=bounds)
            best = found if best is None or found.fun < best.fun else best
    polish = {"xatol": 1e-11, "fatol": 1e-17, "maxiter": 4000, "maxfev": 4000}
    return minimize(huber, best.x, (n, loss, law), method="Nelder-Mead", bounds=bounds, options=polish).fun


@pytest.mark.parametrize("law", LAWS)
@pytest.mark.parametrize("seed", range(4))
def test_no_general_optimiser_finds_a_lower_objective_on_noisy_losses(law, seed):
    loss = with_noise(GPT_LAW(N), 0.01, seed)
    loss[seed] *= 1.15  # an outlier, so that both branches of the Huber loss count
    fitted = fit(law, N, loss, resample(20, len(N)))
    assert fitted.objective == pytest.approx(huber(fitted.theta[0 if law == "power_floor" else 1 :], N, loss, law))
    assert fitted.objective <= scipy_optimum(law, N, loss) * (1 + 1e-9)


@pytest.mark.parametrize("seed", range(1, 9))
def test_the_fit_converges_where_most_runs_lie_off_the_law(seed):
    """A power law fitted to losses that have a floor: most residuals are on the linear branch of the Huber loss."""
    n = with_noise(N, 0.02, seed)
    loss = with_noise(GPT_LAW(n), 0.004, seed + 100)
    fitted = fit("power", n, loss)
    assert fitted.converged
    assert fitted.objective <= scipy_optimum("power", n, loss) * (1 + 1e-9)
    assert np.isfinite(fitted.resampled).all()


SHAPES = {
    "falling to a floor": GPT_LAW,
    "falling without a floor": lambda n: 8 * n**-0.12,
    "steeper than a power law": lambda n: 3 - 0.15 * np.log(n / 2e4),
    "flat": lambda n: 1.5 + 0 * n,
    "rising": lambda n: 0.5 * n**0.08,
    "rising like a logarithm": lambda n: 1 + 0.1 * np.log(n),
}


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES.keys())
def test_a_free_floor_never_makes_a_fit_worse(shape):
    loss = with_noise(shape(N), 0.003)
    power, floor = (fit(law, N, loss, resample(20, len(N))).objective for law in LAWS)
    assert floor <= power * (1 + 1e-9)


def test_one_outlier_moves_the_exponent_little():
    loss = with_noise(GPT_LAW(N), 0.002)
    spoilt = loss.copy()
    spoilt[10] *= 1.5
    clean, moved = fit("power_floor", N, loss), fit("power_floor", N, spoilt)
    assert abs(moved.theta[2] - clean.theta[2]) < 0.02


@pytest.mark.parametrize(
    ("n", "loss"),
    [
        ([1e4, 1e5, 1e6], [3, 2, 1.5]),
        ([1e4, 1e4, 1e5, 1e5, 1e5], [3, 3, 2, 2, 2]),
        ([1e4, 1e5, 1e6, 1e7], [3, 2, 1.5, float("nan")]),
        ([1e4, 1e5, 1e6, 1e7], [3, 2, 1.5, 0]),
        ([0, 1e5, 1e6, 1e7], [3, 2, 1.5, 1.2]),
    ],
    ids=["too few runs", "too few sizes", "a loss that is no number", "a loss of zero", "a size of zero"],
)
def test_what_cannot_be_fitted_is_refused(n, loss):
    with pytest.raises(ValueError, match=r"too few|positive and finite"):
        fit("power", np.array(n), np.array(loss))


# What the data identify


def test_the_floor_is_identified_on_a_long_clean_range_and_not_on_a_short_noisy_one():
    long = fit("power_floor", N, with_noise(GPT_LAW(N), 0.002)).parameters
    assert {name: estimate.identified for name, estimate in long.items()} == dict.fromkeys(long, True)
    short = np.repeat(np.geomspace(1e5, 4e5, 5), 3)
    assert not fit("power_floor", short, with_noise(GPT_LAW(short), 0.02)).parameters["E"].identified


@pytest.mark.parametrize("law", LAWS)
@pytest.mark.parametrize("shape", ["flat", "rising", "rising like a logarithm"])
def test_nothing_of_a_loss_that_does_not_fall_is_called_an_exponent_or_a_floor(law, shape):
    parameters = fit(law, N, with_noise(SHAPES[shape](N), 0.003)).parameters
    claimed = [name for name in ("alpha", "E") if name in parameters and parameters[name].identified]
    assert claimed == []


def test_a_floor_at_its_bound_is_flagged_and_not_identified():
    fitted = fit("power_floor", N, with_noise(SHAPES["steeper than a power law"](N), 0.001))
    assert fitted.parameters["E"].value == 0
    assert fitted.at_bound == ["E"]
    assert not fitted.parameters["E"].identified


def test_an_exact_power_law_has_no_identified_floor():
    assert not fit("power_floor", N, 8 * N**-0.12).parameters["E"].identified


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("law", [GPT_LAW, floor_law(1.2, 1e4, 1.0)], ids=["far from the floor", "down on the floor"])
def test_every_interval_holds_its_estimate(law, seed):
    for estimate in fit("power_floor", N, with_noise(law(N), 0.003, seed)).parameters.values():
        for low, high in (estimate.bootstrap, estimate.profile):
            assert (-np.inf if low is None else low) <= estimate.value <= (np.inf if high is None else high)


def test_more_noise_gives_wider_intervals():
    widths = []
    for noise in (0.001, 0.01):
        alpha = fit("power_floor", N, with_noise(GPT_LAW(N), noise)).parameters["alpha"]
        widths.append([high - low for low, high in (alpha.bootstrap, alpha.profile)])
    assert all(wide > 3 * narrow for narrow, wide in zip(*widths, strict=True))


def test_both_intervals_of_the_exponent_cover_the_truth_in_about_95_of_100_studies():
    truth = 0.3
    weights = resample(200, len(N))
    covered = np.zeros(2)
    for seed in range(60):
        loss = with_noise(floor_law(1.0, 20, truth)(N), 0.005, seed)
        alpha = fit("power_floor", N, loss, weights).parameters["alpha"]
        covered += [low <= truth <= high for low, high in (alpha.bootstrap, alpha.profile)]
    assert (covered >= 50).all(), covered  # 60 studies at 95 %: 57 ± 1.7; percentiles of 24 runs are a little narrow
    assert (covered < 60).any(), covered  # and not so wide that they say nothing


def test_every_resample_has_three_different_clusters_and_is_drawn_the_same_each_time():
    weights = resample(500, 4)
    assert ((weights > 0).sum(axis=1) >= 3).all()
    assert (weights.sum(axis=1) == 4).all()
    assert np.array_equal(weights, resample(500, 4))


# GPT against LSTM


def test_no_architecture_is_named_while_the_interval_holds_zero():
    same = floor_law(1.0, 20, 0.3)
    for comparison in compare(made_ladders(same, same, noise=0.005)):
        low, high = comparison.alpha.bootstrap
        assert low < 0 < high
        assert comparison.alpha.sign == 0
        assert comparison.steeper is None


@pytest.mark.parametrize("steeper", ["gpt", "lstm"])
def test_the_steeper_law_is_named_where_the_difference_is_clear_and_has_its_sign(steeper):
    steep, shallow = floor_law(1.0, 60, 0.4), floor_law(1.0, 10, 0.2)
    laws = {"gpt": steep, "lstm": shallow} if steeper == "gpt" else {"gpt": shallow, "lstm": steep}
    comparisons = {(c.axis, c.law): c for c in compare(made_ladders(**laws, noise=0.001))}
    assert comparisons.keys() == {(axis, law) for axis in ("n_params", "n_params_non_embedding") for law in LAWS}
    with_floor = [comparison for (_, law), comparison in comparisons.items() if law == "power_floor"]
    assert [comparison.steeper for comparison in with_floor] == [steeper, steeper]
    sign = 1 if steeper == "gpt" else -1
    on_all = comparisons["n_params", "power_floor"]
    assert on_all.alpha.value == pytest.approx(sign * 0.2, abs=0.02)
    for low, high in (on_all.alpha.bootstrap, on_all.alpha.jackknife):
        assert low < on_all.alpha.value < high
    assert on_all.floor.value == pytest.approx(0.0, abs=0.05)
    assert comparisons["n_params", "power"].floor is None


@pytest.mark.parametrize(
    ("bootstrap", "over_sizes", "sign"),
    [
        ((0.1, 0.2), (0.05, 0.3), 1),
        ((-0.2, -0.1), (-0.3, -0.05), -1),
        ((0.1, 0.2), (-0.01, 0.3), 0),
        ((-0.1, 0.2), (0.05, 0.3), 0),
    ],
)
def test_a_difference_has_a_sign_only_where_both_intervals_agree(bootstrap, over_sizes, sign):
    assert Difference(0.15, bootstrap, over_sizes).sign == sign


def test_the_jackknife_of_a_mean_is_its_students_interval():
    values = np.array([1.0, 2.0, 4.0, 7.0, 8.0])
    without_one = (values.sum() - values) / 4
    expected = t.interval(0.95, 4, values.mean(), values.std(ddof=1) / np.sqrt(5))
    assert jackknife(values.mean(), without_one) == pytest.approx(expected)


def test_seeds_that_agree_do_not_hide_a_law_that_is_wrong():
    """Runs without noise on a curve that is no power law: resampling sees nothing, leaving sizes out does."""
    bent = floor_law(1.0, 30, 0.35)(N) * (1 + 0.05 * np.sin(np.log(N) * 2))
    alpha = fit("power_floor", N, bent).parameters["alpha"]
    assert np.ptp(alpha.jackknife) > 1.5 * np.ptp(alpha.bootstrap)


def test_a_difference_between_fits_that_are_not_identified_names_nobody():
    comparisons = compare(made_ladders(SHAPES["rising"], GPT_LAW, noise=0.001))
    assert [c.steeper for c in comparisons if c.identified] == []
    assert [c.steeper for c in comparisons] == [None] * 4


def test_only_runs_with_a_partner_of_their_size_and_seed_are_compared():
    ladders = made_ladders()
    alone = ladders["gpt"].pop(4)
    partners = paired(ladders)
    assert [run["recipe"]["size"] for run in partners["gpt"]] == [run["recipe"]["size"] for run in partners["lstm"]]
    assert len(partners["lstm"]) == len(N) - 1
    lost = (alone["recipe"]["size"], alone["recipe"]["seed"])
    assert lost not in [(run["recipe"]["size"], run["recipe"]["seed"]) for run in partners["lstm"]]
    assert {c.fits["lstm"].points for c in compare(ladders)} == {len(N) - 1}


def test_partners_stand_at_the_same_place_in_whatever_order_the_runs_are_read():
    """One resample draws the same places of both lists: only so does what a pair shares cancel in the difference."""
    ladders = made_ladders()
    ladders["lstm"].reverse()
    partners = {
        architecture: [(run["recipe"]["size"], run["recipe"]["seed"]) for run in runs]
        for architecture, runs in paired(ladders).items()
    }
    assert partners["gpt"] == partners["lstm"]


CROSSING = {"gpt": floor_law(0, 40, 0.25), "lstm": floor_law(0, 10, 0.15)}
CROSSOVER = (40 / 10) ** (1 / (0.25 - 0.15))


def the_power_laws(ladders):
    [found] = [c for c in compare(ladders) if (c.axis, c.law) == ("n_params", "power")]
    return found


def test_the_crossover_is_where_the_gpts_law_comes_to_lie_below():
    found = the_power_laws(made_ladders(**CROSSING, noise=0.01))
    assert found.crossover == pytest.approx(CROSSOVER, rel=0.3)
    low, high = found.crossover_interval
    assert low < CROSSOVER < high
    assert found.crossover_share == 1


def test_the_crossover_of_exact_laws_is_exact_to_the_digits_that_a_report_prints():
    assert the_power_laws(made_ladders(**CROSSING, noise=0)).crossover == pytest.approx(CROSSOVER, rel=1e-3)


@pytest.mark.parametrize(
    ("gpt", "lstm"),
    [
        (floor_law(0, 8, 0.15), floor_law(0, 9, 0.15)),
        (floor_law(0, 10, 0.15), floor_law(0, 40, 0.25)),
        (floor_law(0, 9, 0.15), floor_law(0, 8, 0.15)),
    ],
    ids=["the GPT is always below", "the LSTM comes to lie below", "the LSTM is always below"],
)
def test_there_is_no_crossover_where(gpt, lstm):
    for comparison in compare(made_ladders(gpt, lstm, noise=0)):
        if comparison.law == "power":
            assert comparison.crossover is None
            assert comparison.crossover_interval is None


def test_a_lead_that_a_higher_floor_takes_back_is_no_crossover():
    """The GPT lies above at the smallest size, below from there on, and above again far beyond the largest."""
    comparisons = compare(made_ladders(floor_law(1.3, 300, 0.5), floor_law(1.0, 6, 0.15), noise=0))
    [found] = [c for c in comparisons if (c.axis, c.law) == ("n_params", "power_floor")]
    assert found.crossover is None


def test_the_largest_size_is_foretold_by_the_right_law():
    runs = made_ladder("gpt", GPT_LAW, noise=0)
    assert held_out_error("power_floor", runs, "n_params") == pytest.approx(0, abs=1e-6)
    assert held_out_error("power", runs, "n_params") < -0.02  # a floor that it does not know of
    assert held_out_error("power", made_ladder("gpt", GPT_LAW, sizes=SIZES[:3]), "n_params") is None


# The report


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """A study with one diverged run, through the door."""
    root = tmp_path_factory.mktemp("study")
    ladders = made_ladders()
    diverged = ladders["lstm"][5]
    diverged |= {"status": DIVERGED, "reason": "the training loss is nan at step 17"}
    for name in [name for name in diverged if name.startswith("validation_") and name != "validation_curve"]:
        del diverged[name]
    write_study(root, ladders)
    with pytest.MonkeyPatch.context() as patch:
        go_in(patch, root)
    return root


@pytest.fixture
def data(study):
    return json.loads((study / "comparison_analysis" / "comparison_data.json").read_text())


def test_a_diverged_run_is_listed_with_its_reason_and_never_fitted(study, data):
    assert len(data["unfinished"]) == 1
    for text in (data["unfinished"][0], (study / "comparison_analysis" / "report.md").read_text()):
        assert "the training loss is nan at step 17" in text
        assert re.search(r"lstm \S+ seed 2", text)
    assert len(read_ladders(study)["lstm"].finished) == len(N) - 1
    assert data["runs"] == {"gpt": len(N) - 1, "lstm": len(N) - 1}
    points = {fitted["points"] for c in data["comparisons"] for fitted in c["fits"].values()}
    assert points == {len(N) - 1}


def test_the_data_file_holds_the_fits_in_full_precision(study, data):
    ladders = paired({name: read_ladders(study)[name].finished for name in ("gpt", "lstm")})
    for comparison, stored in zip(compare(ladders), data["comparisons"], strict=True):
        for architecture, fitted in comparison.fits.items():
            found = stored["fits"][architecture]["parameters"]["alpha"]
            assert found["value"] == fitted.parameters["alpha"].value
            assert tuple(found["bootstrap"]) == fitted.parameters["alpha"].bootstrap
    gpt = json.loads((study / "GPT_analysis" / "scaling_law_fit.json").read_text())
    assert gpt["n_params"]["power"] == data["comparisons"][0]["fits"]["gpt"]


def the_comparison(data, law="power_floor", axis="n_params"):
    return report.find(data["comparisons"], law, axis)


def change(data, *path):
    """A copy with another number at the end of `path`."""
    changed = copy.deepcopy(data)
    place = changed
    for step in path[:-1]:
        place = place[step]
    number = place[path[-1]]
    place[path[-1]] = not number if isinstance(number, bool) else 3 * number + 2
    return changed


NUMBERS = [
    ("tokens",),
    ("epochs",),
    ("runs", "lstm"),
    ("validation_tokens",),
    ("validation_standard_error",),
    ("baseline", "validation_loss"),
    ("baseline", "order"),
    ("baseline", "orders", 1, "bits_per_character"),
    ("sizes", 0, "gpt", "loss"),
    ("sizes", 3, "lstm", "loss"),
    ("sizes", 3, "lstm", "seed_deviation"),
    ("sizes", 3, "lstm", "n_params"),
    ("sizes", 3, "gpt", "seconds"),
    ("sizes", 3, "seeds"),
    ("comparisons", 1, "identified"),
    ("comparisons", 1, "delta_alpha", "value"),
    ("comparisons", 1, "delta_alpha", "bootstrap", 0),
    ("comparisons", 1, "delta_alpha", "jackknife", 1),
    ("comparisons", 1, "fits", "lstm", "parameters", "log_a", "jackknife", 0),
    ("comparisons", 1, "crossover_share_of_resamples"),
    ("comparisons", 1, "fits", "gpt", "parameters", "alpha", "value"),
    ("comparisons", 1, "fits", "gpt", "parameters", "alpha", "identified"),
    ("comparisons", 1, "fits", "lstm", "parameters", "E", "bootstrap", 1),
    ("comparisons", 1, "fits", "lstm", "parameters", "E", "identified"),
    ("comparisons", 1, "fits", "lstm", "converged"),
    ("held_out", 1, "error"),
]


@pytest.mark.parametrize("path", NUMBERS, ids=[".".join(map(str, path)) for path in NUMBERS])
def test_another_number_gives_another_report(data, path):
    assert report.write_report(change(data, *path)) != report.write_report(data)


def test_the_report_on_disk_is_that_of_the_data_on_disk(study, data):
    assert (study / "comparison_analysis" / "report.md").read_text() == report.write_report(data)


CONCLUSIONS = re.compile(r"falls faster|nears its own floor faster|scale[s]? better|from N = ")


def test_a_clear_difference_is_said_with_its_numbers(data):
    comparison = the_comparison(data)
    comparison |= {"identified": True, "steeper": "lstm", "delta_floor": None}
    comparison["delta_alpha"] = {"value": -0.1234, "bootstrap": [-0.2, -0.05], "jackknife": [-0.3, -0.01]}
    sentence = report.exponent_sentence(comparison)
    assert "the LSTM falls faster" in sentence
    assert all(number in sentence for number in ("-0.123", "-0.200", "-0.050", "-0.300", "-0.010"))
    comparison["steeper"] = "gpt"
    assert "the GPT falls faster" in report.exponent_sentence(comparison)


def test_with_floors_the_faster_approach_is_said_beside_their_difference(data):
    comparison = the_comparison(data)
    comparison |= {"identified": True, "steeper": "gpt"}
    comparison["delta_floor"] = {"value": 0.217, "bootstrap": [0.1, 0.3], "jackknife": [0.0, 0.4]}
    sentence = report.exponent_sentence(comparison)
    assert "the GPT nears its own floor faster" in sentence
    assert "+0.217" in sentence


def test_an_interval_that_holds_zero_allows_no_conclusion(data):
    comparison = the_comparison(data)
    comparison |= {"identified": True, "steeper": None}
    sentence = report.exponent_sentence(comparison)
    assert "no architecture" in sentence
    assert "faster" not in sentence


@pytest.mark.parametrize("sentence", [report.exponent_sentence, report.crossover_sentence])
def test_nothing_is_concluded_from_fits_that_are_not_identified(data, sentence):
    comparison = the_comparison(data)
    comparison |= {"identified": False, "steeper": None}
    comparison |= {"crossover": 3e5, "crossover_interval": [2e5, 4e5], "crossover_share_of_resamples": 1.0}
    assert not CONCLUSIONS.search(sentence(comparison))


@pytest.mark.parametrize("law", ["power", "power_floor"])
def test_a_parameter_that_is_not_identified_is_called_so(data, law):
    fitted = the_comparison(data, law)["fits"]["gpt"]
    fitted["parameters"]["alpha"]["identified"] = True
    assert "α = not identified" not in report.law_line("gpt", fitted)
    fitted["parameters"]["alpha"]["identified"] = False
    assert "α = not identified" in report.law_line("gpt", fitted)


def test_a_crossover_is_said_with_its_interval_and_beyond_the_largest_model_as_an_extrapolation(data):
    comparison = the_comparison(data)
    comparison |= {"identified": True, "crossover": 3e5, "crossover_interval": [2e5, 4e5], "largest_n": 1e6}
    inside = report.crossover_sentence(comparison)
    assert all(number in inside for number in ("300K", "200K", "400K"))
    assert "extrapolation" not in inside
    comparison |= {"crossover": 3e9, "crossover_interval": [2e9, 4e9]}
    assert "extrapolation" in report.crossover_sentence(comparison)
    comparison |= {"crossover_interval": None}
    assert not CONCLUSIONS.search(report.crossover_sentence(comparison))
    comparison |= {"crossover": None}
    assert not re.search(r"N = ", report.crossover_sentence(comparison))


def test_sizes_out_of_order_are_named(data):
    sizes = data["sizes"]
    assert "every larger model" in report.order_sentence("GPT", sizes, "gpt")
    sizes[3]["gpt"]["loss"] = sizes[2]["gpt"]["loss"] + 0.1
    sentence = report.order_sentence("GPT", sizes, "gpt")
    assert f"{sizes[3]['size']} ({sizes[3]['gpt']['loss']:.3f}) is not below {sizes[2]['size']}" in sentence
    assert "every larger model" not in sentence


def test_the_lead_is_counted_over_the_sizes(data):
    for i, row in enumerate(data["sizes"]):
        row["gpt"]["loss"], row["lstm"]["loss"] = (1.0, 1.1) if i < 3 else (1.1, 1.0)
    assert "the GPT at 3, the LSTM at 5" in report.lead_sentence(data["sizes"])


def test_the_baseline_is_beaten_only_by_a_lower_loss(data):
    smallest = data["sizes"][0]
    for loss, beats in ((1.5, True), (1.7, False)):
        smallest["gpt"]["loss"] = loss
        sentence = report.baseline_sentence(
            "GPT",
            smallest,
            "gpt",
            {"order": 5, "validation_loss": 1.6, "orders": [{"order": 5, "validation_loss": 1.6}]},
        )
        assert ("does NOT beat" not in sentence) == beats


def test_a_rising_loss_is_reported_without_a_claim(tmp_path):
    write_study(tmp_path, made_ladders(SHAPES["rising"], SHAPES["rising"], noise=0.001))
    text = report.write_report(run.analyse(tmp_path)[0])
    assert not CONCLUSIONS.search(text)
    assert "every larger model" not in text
    lines = re.findall(r"^- (?:GPT|LSTM), power law.*α = .*$", text, re.MULTILINE)
    claims = [
        claim for line in lines for claim in re.findall(r"(?:α|floor at this budget E) = [a-z\d.]+ ?[a-z]*", line)
    ]
    assert len(claims) == 6
    assert [claim for claim in claims if "not identified" not in claim] == []


# The files

FIGURES = {
    "GPT_analysis": ["scaling_law", "training_curves", "training_metrics", "loss_comparison"],
    "comparison_analysis": [
        "combined_scaling_laws",
        "computational_efficiency",
        "absolute_resources",
        "sample_efficiency",
        "loss_comparison_bars",
    ],
}


def outputs(root: Path) -> dict[str, str]:
    return {
        f"{folder}/{path.name}": hashlib.sha256(path.read_bytes()).hexdigest()
        for folder in FIGURES
        for path in (root / folder).iterdir()
    }


def test_all_nine_figures_are_drawn(study):
    for folder, names in FIGURES.items():
        assert {path.stem for path in (study / folder).glob("*.png")} == set(names)
        for name in names:
            content = (study / folder / f"{name}.png").read_bytes()
            assert content.startswith(b"\x89PNG")
            assert len(content) > 10_000


def test_the_same_numbers_give_the_same_bytes(study, tmp_path, monkeypatch):
    for name in ("GPT_initial_training", "LSTM_training"):
        shutil.copytree(study / name, tmp_path / name)
    go_in(monkeypatch, tmp_path)
    assert outputs(tmp_path) == outputs(study)


def test_a_second_run_says_finished_and_draws_nothing(study, monkeypatch, capsys):
    before = {path: path.stat().st_mtime_ns for path in study.rglob("*")}
    go_in(monkeypatch, study)
    assert "finished" in capsys.readouterr().out
    assert {path: path.stat().st_mtime_ns for path in study.rglob("*")} == before


def test_importing_the_room_does_not_import_torch():
    code = "import sys, analysis.run; sys.exit('torch' in sys.modules or 'transformers' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


# What the door refuses


def some_runs(**changes):
    """Four sizes with one seed: the least that can be analysed."""
    return made_ladders(sizes=SIZES[:4], seeds=(0,), **changes)


@pytest.mark.parametrize("architectures", [["gpt"], ["lstm"], ["gpt", "lstm"]], ids="+".join)
def test_runs_of_different_corpora_are_refused(tmp_path, monkeypatch, capsys, architectures):
    ladders = some_runs()
    for architecture in architectures:
        ladders[architecture][0]["corpus"] = "another"
    write_study(tmp_path, ladders)
    assert "corpora" in refusal(monkeypatch, capsys, tmp_path)


@pytest.mark.parametrize("changes", [{"tokens": 4_000_000}, {"one_in": 2}], ids=["budget", "part of the data"])
def test_runs_of_another_budget_or_part_of_the_data_are_counted_and_left_out(tmp_path, capsys, changes):
    ladders = made_ladders()
    ladders["gpt"][0]["recipe"] |= changes
    write_study(tmp_path, ladders)
    data, _, _ = run.analyse(tmp_path)
    assert "left out of the fits: 1 gpt runs of other budgets or parts of the data" in capsys.readouterr().out
    assert data["runs"]["gpt"] == len(ladders["gpt"]) - 1


def test_ladders_of_different_corpora_are_refused(tmp_path, monkeypatch, capsys):
    ladders = {**some_runs(), "lstm": some_runs(corpus="another")["lstm"]}
    write_study(tmp_path, ladders)
    assert "corpora" in refusal(monkeypatch, capsys, tmp_path)


def test_ladders_of_different_budgets_are_not_compared(tmp_path, monkeypatch, capsys):
    ladders = some_runs()
    for record in ladders["lstm"]:
        record["recipe"]["tokens"] = record["tokens"] = 4_000_000
    write_study(tmp_path, ladders)
    assert "0 sizes are finished in both ladders" in refusal(monkeypatch, capsys, tmp_path)


def test_too_few_sizes_are_refused(tmp_path, monkeypatch, capsys):
    write_study(tmp_path, made_ladders(sizes=SIZES[:2]))
    assert "2 sizes" in refusal(monkeypatch, capsys, tmp_path)


def test_too_few_runs_for_a_law_are_refused(tmp_path, monkeypatch, capsys):
    write_study(tmp_path, made_ladders(sizes=SIZES[:3], seeds=(0,)))
    assert str(tmp_path) in refusal(monkeypatch, capsys, tmp_path)


def test_an_empty_folder_is_refused_with_the_command_that_fills_it(tmp_path, monkeypatch, capsys):
    assert "training/run.py" in refusal(monkeypatch, capsys, tmp_path)


def without(record, name):
    return {key: value for key, value in record.items() if key != name}


DAMAGES = {
    "cut off": lambda record: json.dumps(record)[:200],
    "empty": lambda _: "",
    "a list": lambda record: json.dumps([record]),
    "no recipe": lambda record: json.dumps(without(record, "recipe")),
    "no corpus": lambda record: json.dumps(without(record, "corpus")),
    "no loss": lambda record: json.dumps(without(record, "validation_loss")),
    "an empty recipe": lambda record: json.dumps({**record, "recipe": {}}),
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES.keys())
def test_a_damaged_record_is_refused_by_name(tmp_path, monkeypatch, capsys, damage):
    write_study(tmp_path, some_runs())
    path = next((tmp_path / "LSTM_training").glob("*/*/seed_0/record.json"))
    path.write_text(damage(json.loads(path.read_text())))
    assert str(path) in refusal(monkeypatch, capsys, tmp_path)


@pytest.mark.parametrize("content", [None, "", '{"order": 5'], ids=["missing", "empty", "cut off"])
def test_a_damaged_baseline_is_refused_by_name(tmp_path, monkeypatch, capsys, content):
    write_study(tmp_path, some_runs())
    if content is None:
        baseline_file(tmp_path).unlink()
    else:
        baseline_file(tmp_path).write_text(content)
    assert str(baseline_file(tmp_path)) in refusal(monkeypatch, capsys, tmp_path)


def test_a_damaged_comparison_is_refused_by_name(study, tmp_path, monkeypatch, capsys):
    shutil.copytree(study, tmp_path / "study")
    path = tmp_path / "study" / "comparison_analysis" / "comparison_data.json"
    path.write_text(path.read_text()[:1000])
    assert str(path) in refusal(monkeypatch, capsys, tmp_path / "study")


def test_a_run_without_a_record_is_unfinished_and_no_error(tmp_path):
    write_study(tmp_path, some_runs())
    (run_folder(tmp_path, "gpt", "20k", ARM, 1)).mkdir()
    assert len(read_ladders(tmp_path)["gpt"].finished) == 4


def test_a_run_without_a_record_is_named_in_the_report(tmp_path, capsys):
    write_study(tmp_path, some_runs())
    folder = run_folder(tmp_path, "gpt", "20k", ARM, 7)
    folder.mkdir()
    data, _, _ = run.analyse(tmp_path)
    assert str(folder) in capsys.readouterr().out
    assert str(folder) in report.write_report(data)


def test_a_record_that_is_no_number_is_not_written(tmp_path):
    with pytest.raises(ValueError, match="JSON"):
        write_record(tmp_path, {"validation_loss": float("nan")})
    assert list(tmp_path.iterdir()) == []


def test_runs_are_read_smallest_first(study):
    sizes = [run["n_params"] for run in read_ladders(study)["gpt"].finished]
    assert sizes == sorted(sizes)
    with pytest.raises(DoorError, match="no finished run"):
        read_ladders(study / "GPT_analysis")
