"""Published numbers beside the study's: they are transcribed rightly, and each verdict follows from two numbers."""

import re

import numpy as np
import pytest
from scipy.optimize import minimize_scalar, nnls

from analysis.page import write_page
from analysis.published import LADDERS, PUBLISHED, Ours, Published, compare_with_published, published_figure
from analysis.published import published_lines as lines_of

FEW = "budgets with a minimum within the sizes: 0, 3 are needed"


def number(value, bootstrap, jackknife=None, reason=None):
    row = {"value": value, "bootstrap": bootstrap, "identified": reason is None, "reason": reason}
    return {**row, "jackknife": jackknife or bootstrap}


def fitted(law, axis="n_params", **parameters):
    return {"law": law, "axis": axis, "parameters": parameters}


def optimum(flops, ratio, extrapolated):
    found = {"value": ratio, "bootstrap": [ratio - 1, ratio + 1], "jackknife": [ratio - 2, ratio + 1]}
    return {"flops": flops, "extrapolated": extrapolated, "tokens_per_parameter": found}


def study(*names):
    """A study with a law of N on both counts, one way to the best split, and repeated epochs."""
    fits = [
        fitted("power", "n_params", alpha=number(0.06, [0.05, 0.07], [0.055, 0.085])),
        fitted("power", "n_params_non_embedding", alpha=number(0.05, [0.04, 0.06])),
        fitted(
            "chinchilla",
            alpha=number(0.5, [0.4, 0.6]),
            beta=number(0.3, [0.2, 0.4], reason="flat"),
            E=number(1, [0, 2]),
        ),
    ]
    parametric = {
        "reason": None,
        "plain": number(0.5, [0.4, 0.6]),
        "optima": [optimum(1e12, 30, False), optimum(1e13, 40, False), optimum(1e14, 50, True)],
    }
    ways = {way: {"reason": FEW, "a": None, "plain": None, "optima": []} for way in ("envelope", "isoflop")}
    worth = [{"epochs": n, "value": n * 0.9, "bootstrap": [n * 0.8, None]} for n in (1, 2, 4)]
    return {
        "tokens": 2_000_220,
        "epochs": 0.97,
        "sizes": [{"size": "15k", **{name: {"n_params": 16_000} for name in names}}],
        "fits": dict.fromkeys(names, fits),
        "allocation": {name: {"ways": {**ways, "parametric": parametric}} for name in names},
        "repetition": {name: {"epochs": {"reason": None, "rows": worth}, "keys": None} for name in names},
    }


def row(rows, what, source):
    return next(r for r in rows if r.published.what == what and r.published.source.name.startswith(source))


@pytest.fixture(scope="module")
def rows():
    return compare_with_published(study("gpt", "lstm"))


@pytest.mark.parametrize(
    "ladder", LADDERS, ids=lambda ladder: f"{ladder.repository}-{ladder.architecture}-{ladder.alpha}"
)
def test_the_losses_of_a_small_study_give_its_exponent_again(ladder):
    n, losses = np.array(ladder.n_params), np.array(ladder.losses)

    def miss(alpha):
        return nnls(np.stack([(n / n[0]) ** -alpha, np.ones(len(n))], axis=1), losses)[1]

    with_floor = minimize_scalar(miss, bounds=(0.01, 2), method="bounded").x
    found = with_floor if ladder.law == "power_irreducible" else ladder.without_floor()
    assert found == pytest.approx(ladder.alpha, rel=0.035)


def test_small_studies_agree_without_a_floor_and_not_with_one():
    characters = [ladder for ladder in LADDERS if ladder.token == "character"]
    assert max(ladder.alpha for ladder in characters) > 8 * min(ladder.alpha for ladder in characters)
    assert max(ladder.without_floor() for ladder in characters) < 3 * min(
        ladder.without_floor() for ladder in characters
    )


def test_every_published_interval_holds_its_value_or_is_one_that_was_printed_so():
    outside = {
        (r.source.name, r.where) for r in PUBLISHED if r.interval and not r.interval[0] <= r.value <= r.interval[1]
    }
    assert outside == {("Hoffmann et al. 2022", "table 2, approach 3")}  # 0.46 (0.454, 0.455)


def test_published_numbers_that_imply_others_do():
    of = {(r.source.name, r.what): r.value for r in PUBLISHED if "tables" not in r.where}
    alpha, beta = (of["Besiroglu et al. 2024", f"Chinchilla's {name}"] for name in "αβ")
    assert beta / (alpha + beta) == pytest.approx(of["Besiroglu et al. 2024", "a of N_opt ∝ C^a"], abs=1e-3)
    assert of["Muennighoff et al. 2023", "worth of 4 epochs (data)"] == pytest.approx(3.73, abs=0.005)


@pytest.mark.parametrize(
    ("value", "published", "ours", "verdict"),
    [
        (0.5, None, (0.4, 0.6), "includes it"),
        (0.6, None, (0.4, 0.6), "includes it"),
        (0.7, None, (0.4, 0.6), "lies below"),
        (0.3, None, (0.4, 0.6), "lies above"),
        (0.3, (0.2, 0.45), (0.4, 0.6), "lies above, but the intervals overlap"),
        (0.3, (0.2, 0.39), (0.4, 0.6), "lies above"),
        (9.0, None, (0.4, None), "not identified (its interval is open)"),
        (0.3, None, (None, 0.2), "lies below"),
    ],
)
def test_a_verdict_follows_from_the_intervals(value, published, ours, verdict):
    theirs = Published(PUBLISHED[0].source, "", "", (), value, published)
    assert Ours(None, 0.5, ours).verdict(theirs) == verdict


def test_an_interval_goes_as_far_as_that_over_runs_or_that_over_sizes(rows):
    ours = row(rows, "α of N^-α, GPT", "suryaajith21").ours["gpt"]
    assert (ours.value, ours.interval) == (0.06, (0.05, 0.085))
    assert ours.verdict(PUBLISHED[0]) == "includes it"  # 0.076 lies within that over sizes alone


def test_an_exponent_is_held_against_one_of_the_same_count_of_parameters(rows):
    assert row(rows, "α of N^-α", "Kaplan").ours["lstm"].value == 0.05


def test_what_is_not_identified_has_no_number_but_its_reason(rows):
    kaplan, hoffmann = row(rows, "α of D^-α", "Kaplan"), row(rows, "a of N_opt ∝ C^a", "Hoffmann")
    assert row(rows, "Chinchilla's β", "Besiroglu").ours["gpt"] == Ours("flat")
    assert hoffmann.ours["gpt"].verdict(hoffmann.published) == f"not identified ({FEW})"
    assert "too few runs" in kaplan.ours["gpt"].verdict(kaplan.published)


def test_tokens_a_parameter_are_those_at_the_largest_budget_that_was_trained(rows):
    assert row(rows, "tokens a parameter", "Besiroglu").ours["gpt"] == Ours(None, 40, (38, 41))


def test_the_worth_of_epochs_is_that_of_as_many(rows):
    assert row(rows, "worth of 4 epochs (data)", "Muennighoff").ours["gpt"] == Ours(None, 3.6, (3.2, None))


def test_the_exponent_of_an_lstm_is_held_against_no_gpt(rows):
    of_lstm = [r for r in rows if r.published.architectures == ("lstm",)]
    assert of_lstm
    assert all(set(r.ours) == {"lstm"} for r in of_lstm)


def test_a_study_of_one_architecture_is_compared_too():
    lines = lines_of(compare_with_published(study("gpt")))
    assert not any("LSTM here" in line or "LSTM, beside" in line for line in lines)
    assert sum("GPT here" in line for line in lines) == 1


def test_differences_say_tokens_sizes_and_budget(rows):
    assert row(rows, "α of N^-α, GPT", "thisisadi").differences == [
        "a character of ABC made of MIDI there, a character of ABC here",
        "the smallest N there is 67.8 times the largest here",
        "2M tokens (0.97 epochs) here",
        "5 runs there, one a size",
    ]


def test_the_counts_are_those_of_the_table(rows, tmp_path):
    lines = lines_of(rows)
    table = [line for line in lines if line.startswith("|")]
    assert len(table) == 2 + len(rows)
    assert {len(re.split(r"(?<!\\)\|", line)) for line in table} == {8}
    counts = dict(re.findall(r"(includes it|lies above|lies below|not identified) (\d+)", lines[1]))
    cells = [line.split(" | ")[3] for line in table[2:]]
    assert counts == {words: str(sum(words in cell for cell in cells)) for words in counts}
    assert sum(map(int, counts.values())) == sum("gpt" in r.ours for r in rows)
    page = write_page("\n".join(lines), tmp_path)
    assert page.count("<tr>") == 1 + len(rows)
    assert "R_D*<" in page


def test_the_figure_is_the_same_every_time(rows, tmp_path):
    published_figure(tmp_path / "first", rows)
    published_figure(tmp_path / "second", rows)
    assert (tmp_path / "first.svg").read_bytes() == (tmp_path / "second.svg").read_bytes()
    assert (tmp_path / "first.png").stat().st_size > 10_000
