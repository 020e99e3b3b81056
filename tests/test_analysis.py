"""A study's runs become fits.json, and its figures and report say no more than fits.json does."""

import copy
import hashlib
import json
import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from conftest import made_once
from made_runs import (
    GPT_LAW,
    SIZES,
    made_ladder,
    made_ladders,
    repeated_law,
    write_study,
)
from small_runs import made_config

from analysis import figures, report, run
from analysis.evidence import of_folders
from analysis.runs import weights_of
from analysis.study import Study, analyse, extrapolate, frontier, rates_used
from cli import UserError
from files import read_json
from training.record import DIVERGED, baseline_file, read_ladders, run_folder


@pytest.fixture(autouse=True, scope="module")
def _rough_intervals():
    """Intervals of 100 resamples and profiles of 6 points a side: rough, and made in a fraction of the time."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("analysis.fitting.RESAMPLES", 100)
        patch.setattr("analysis.fitting.PROFILE_POINTS", 6)
        yield


def go_in(monkeypatch, *flags):
    monkeypatch.setattr(sys, "argv", ["run.py", *map(str, flags)])
    run.main()


def analyse_in(monkeypatch, root, *flags):
    go_in(monkeypatch, "--output_root", root, "--sweeps", root / "none", *flags)


def refusal(monkeypatch, capsys, *flags):
    """The one line with which the door refuses."""
    with pytest.raises(SystemExit) as caught:
        go_in(monkeypatch, *flags)
    assert caught.value.code > 0
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith("error:")
    return line


def refusal_of(monkeypatch, capsys, root):
    return refusal(monkeypatch, capsys, "--output_root", root)


# A study of one budget


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """A study of one budget with one diverged run, through the door."""

    def make(root):
        ladders = made_ladders()
        diverged = ladders["lstm"][5]
        diverged |= {"status": DIVERGED, "reason": "the training loss is nan at step 17"}
        for name in [name for name in diverged if name.startswith("validation_") and name != "validation_curve"]:
            del diverged[name]
        write_study(root, ladders)
        with pytest.MonkeyPatch.context() as patch:
            analyse_in(patch, root)

    return made_once(tmp_path_factory, "study", make)


@pytest.fixture
def data(study):
    return read_json(study / "comparison_analysis" / "fits.json")


@pytest.fixture(scope="module")
def rich(tmp_path_factory):
    """A study of the GPT alone: four budgets, parts of the data and, in a folder within it, more keys."""

    def make(root):
        law = repeated_law(0.9, 25, 0.35, 300, 0.42, 6)
        shared = {"sizes": SIZES[:5], "seeds": (0, 1), "noise": 0.003}
        main = made_ladder("gpt", law, tokens=(500_000, 1_000_000, 2_000_000, 4_000_000), **shared)
        main += made_ladder("gpt", law, tokens=(4_000_000,), fractions=(0.25, 1 / 16), **{**shared, "sizes": SIZES[:4]})
        write_study(root, {"gpt": main})
        transposed = made_ladder("gpt", law, tokens=(1_000_000, 8_000_000), keys=4, corpus="in four keys", **shared)
        write_study(root / "four_keys", {"gpt": transposed})
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("analysis.figures.METADATA", {"svg": figures.METADATA["svg"]})  # in half of the time
            analyse_in(patch, root, "--also", root / "four_keys")

    return made_once(tmp_path_factory, "rich", make)


@pytest.fixture
def rich_data(rich):
    return read_json(rich / "comparison_analysis" / "fits.json")


def test_a_diverged_run_is_listed_with_its_reason_and_never_fitted(study, data):
    assert len(data["left_out"]) == 1
    for text in (data["left_out"][0], (study / "comparison_analysis" / "report.md").read_text()):
        assert "the training loss is nan at step 17" in text
        assert re.search(r"lstm \S+ seed 2", text)
    assert data["runs"] == {"gpt": 24, "lstm": 23}
    assert {fit["points"] for fit in data["fits"]["lstm"]} == {23}
    assert data["comparison"]["pairs"] == 23


def test_a_study_of_one_budget_is_fitted_by_the_laws_of_n_on_both_counts_of_n(data):
    for fits in data["fits"].values():
        assert [(fit["axis"], fit["law"]) for fit in fits] == [
            (axis, law) for axis in ("n_params", "n_params_non_embedding") for law in ("power", "power_irreducible")
        ]
    alpha = report.find_fit(data, "gpt", "power_irreducible")["parameters"]["alpha"]
    assert alpha["bootstrap"][0] < 0.35 < alpha["bootstrap"][1]


def test_more_budgets_parts_and_keys_are_fitted_by_every_law_that_needs_them(rich_data):
    for fits in rich_data["fits"].values():
        found = {(fit["axis"], fit["law"]) for fit in fits}
        assert found >= {
            ("n_params", "chinchilla"),
            ("n_params_non_embedding", "chinchilla"),
            ("tokens", "power_irreducible"),
        }
        assert found >= {
            ("flops", "power"),
            ("n_params", "data_constrained"),
            ("n_params", "mupt"),
            ("n_params", "sms"),
        }
        assert ("n_params", "transposition") in found
    assert rich_data["budgets"] == [500_000, 1_000_000, 2_000_000, 4_000_000, 8_000_000]


def test_chinchillas_law_is_recovered_from_the_runs_on_all_tunes_in_their_own_keys_alone(rich_data):
    fitted = report.find_fit(rich_data, "gpt", "chinchilla")
    assert fitted["points"] == 5 * 2 * 4
    assert fitted["clusters"] == 10  # budgets of one size and seed are drawn together
    # More than 2 M characters repeat, which this law does not know of: the budgets up to there are 3 of the 4.
    low, high = fitted["parameters"]["alpha"]["profile"]
    assert low < 0.35 < high


def test_what_repetition_and_transposition_are_worth_is_recovered(rich_data):
    found = rich_data["repetition"]["gpt"]
    [four] = [row for row in found["keys"]["rows"] if row["keys"] == 4]
    low, high = four["bootstrap"]
    assert low < 1 + 0.3 * 3 < high
    assert all(1 <= row["value"] <= row["keys"] for row in found["keys"]["rows"])
    epochs = {row["epochs"]: row["value"] for row in found["epochs"]["rows"]}
    assert epochs[1] == 1
    assert epochs[2] <= 2
    assert epochs[64] < 64


def test_runs_of_other_keys_on_other_held_out_tunes_are_refused(rich, tmp_path, monkeypatch, capsys):
    write_study(tmp_path, made_ladders(validation_tokens=99, sizes=SIZES[:3]))
    line = refusal(monkeypatch, capsys, "--output_root", rich, "--also", tmp_path)
    assert "99 validation tokens" in line
    line = refusal(monkeypatch, capsys, "--output_root", rich, "--also", tmp_path / "nothing")
    assert "is no folder" in line


def test_one_architecture_alone_is_analysed_without_a_comparison(rich, rich_data):
    assert rich_data["comparison"] is None
    text = (rich / "comparison_analysis" / "report.md").read_text()
    assert "LSTM" not in text.split("## Beside published numbers")[0]  # where names of studies hold it
    assert "How the GPT scales" in text


def test_the_frontier_holds_the_runs_that_none_with_as_little_compute_beats():
    runs = made_ladder("gpt", repeated_law(0.9, 25, 0.35, 300, 0.42, 6), noise=0, tokens=(10**6, 4 * 10**6), seeds=(0,))
    best = frontier(runs)
    for run_ in runs:
        on_it = any(run_["flops"] == b["flops"] and run_["validation_loss"] == b["validation_loss"] for b in best)
        beaten = any(b["flops"] <= run_["flops"] and b["validation_loss"] < run_["validation_loss"] for b in best)
        assert on_it != beaten


def test_weights_follow_the_spread_of_seeds_only_where_there_are_enough():
    few, many = (made_ladder("gpt", GPT_LAW, seeds=seeds) for seeds in ((0, 1), (0, 1, 2)))
    assert weights_of(few) is None
    weights = weights_of(many)
    assert len(weights) == len(many)
    assert weights.mean() == pytest.approx(1)


def test_the_right_law_foretells_larger_sizes_and_the_wrong_one_does_not():
    runs = made_ladder("gpt", GPT_LAW, noise=0)
    rows = extrapolate("gpt", runs, runs)
    assert {row["law"] for row in rows} == {"power", "power_irreducible"}
    for row in rows:
        if row["law"] == "power_irreducible" and row["fitted_sizes"] > 3:
            assert row["error"] == pytest.approx(0, abs=1e-4)
    far = [row for row in rows if row["law"] == "power" and row["times"] > 10]
    assert far
    assert all(row["error"] < -0.02 for row in far)  # a floor that it does not know of
    assert all(row["n_params"] > row["largest_fitted"] for row in rows)


def test_laws_are_ranked_by_their_error_on_larger_sizes(data):
    rows = [row for row in data["extrapolation"] if row["architecture"] == "gpt"]
    ranking = report.extrapolation_ranking(rows)
    assert [row["law"] for row in ranking] == ["power_irreducible", "power"]
    assert ranking[0]["error"] < ranking[1]["error"]
    assert sum(row["tests"] for row in ranking) == len(rows)


def test_all_laws_are_ranked_on_the_same_runs(rich_data):
    """Errors of opposite sign at several budgets must not cancel in favour of the law that foretells them all."""
    rows = rich_data["extrapolation"]
    assert {row["budget"] for row in rows if row["law"] == "chinchilla"} == {500_000, 10**6, 2 * 10**6, 4 * 10**6}
    assert {row["budget"] for row in rows if row["law"] != "chinchilla"} == {rich_data["main_budget"]}
    assert {row["tests"] for row in report.extrapolation_ranking(rows)} == {3}  # 5 sizes: cuts at 3 and at 4
    for row in rows:
        assert row["error"] == row["foretold"] / row["loss"] - 1


def test_runs_of_another_schedule_than_most_are_left_out_and_said(tmp_path):
    ladders = made_ladders()
    for record in ladders["gpt"][:3]:
        record["schedule"] = "wsd"
    write_study(tmp_path, ladders)
    study = Study(of_folders(tmp_path, [], tmp_path))
    assert len(study.runs["gpt"]) == len(study.main["gpt"]) == len(ladders["gpt"]) - 3
    assert study.left_out == ["3 runs with the schedule wsd: most have cosine"]


def test_a_decade_is_spoken_of_only_where_one_was_foretold(data):
    text = "\n".join(report.extrapolation_lines(data))
    assert re.search(r"\d\d\.\d times the largest of \d sizes fitted", text)
    data["extrapolation"] = [row for row in data["extrapolation"] if row["times"] < 10]
    assert "no size lies a decade above" in "\n".join(report.extrapolation_lines(data))


# The report


def change(data, *path):
    """A copy with another number at the end of `path`."""
    changed = copy.deepcopy(data)
    place = changed
    for step in path[:-1]:
        place = place[step]
    number = place[path[-1]]
    place[path[-1]] = (
        not number if isinstance(number, bool) else "changed" if isinstance(number, str) else 3 * number + 2
    )
    return changed


FIGURES_OF_ONE_BUDGET = {
    "GPT_analysis": {"scaling_law", "training_curves", "training_metrics", "loss_comparison"},
    "comparison_analysis": {
        "training_curves",
        "combined_scaling_laws",
        "computational_efficiency",
        "absolute_resources",
        "sample_efficiency",
        "loss_comparison_bars",
        "residuals",
        "profile_likelihoods",
        "extrapolation",
        "loss_by_position",
        "published",
    },
}


def written(data):
    return run.report_of(data, FIGURES_OF_ONE_BUDGET["comparison_analysis"])


NUMBERS = [
    ("tokens",),
    ("epochs",),
    ("budgets", 0),
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
    ("sizes", 3, "gpt", "seeds"),
    ("fits", "lstm", 1, "parameters", "A", "jackknife", 0),
    ("fits", "gpt", 1, "parameters", "alpha", "value"),
    ("fits", "gpt", 1, "parameters", "alpha", "identified"),
    ("fits", "lstm", 1, "parameters", "E", "bootstrap", 1),
    ("fits", "lstm", 1, "parameters", "E", "identified"),
    ("fits", "lstm", 0, "converged"),
    ("fits", "lstm", 0, "objective"),
    ("fits", "lstm", 0, "points"),
    ("fits", "lstm", 0, "correlations", "A", "alpha"),
    ("comparison", "pairs"),
    ("comparison", "laws", 1, "identified"),
    ("comparison", "laws", 1, "differences", "alpha", "value"),
    ("comparison", "laws", 1, "differences", "alpha", "bootstrap", 0),
    ("comparison", "laws", 1, "differences", "alpha", "jackknife", 1),
    ("comparison", "positions", "gpt", "loss", 0),
    ("comparison", "ratios", 5, "ratio"),
    ("extrapolation", 0, "error"),
    ("left_out", 0),
]


@pytest.mark.parametrize("path", NUMBERS, ids=[".".join(map(str, path)) for path in NUMBERS])
def test_another_number_gives_another_report(data, path):
    assert written(change(data, *path)) != written(data)


@pytest.mark.parametrize(
    "path",
    [
        ("repetition", "gpt", "keys", "rows", 0, "value"),
        ("fits", "gpt", 4, "parameters", "beta", "profile", 0),
        ("extrapolation", -1, "error"),
    ],
    ids=str,
)
def test_another_number_gives_another_report_of_a_rich_study(rich_data, path):
    rich_data["repetition"]["gpt"]["keys"]["identified"] = True
    assert written(change(rich_data, *path)) != written(rich_data)


def test_the_report_on_disk_is_that_of_the_data_on_disk(study, data):
    assert (study / "comparison_analysis" / "report.md").read_text() == written(data)


def test_the_fits_of_the_comparison_and_of_the_gpt_are_those_of_fits_json(study, data):
    assert read_json(study / "GPT_analysis" / "scaling_law_fit.json") == data["fits"]["gpt"]
    compared = read_json(study / "comparison_analysis" / "comparison_data.json")
    for law in compared["laws"]:
        assert set(law.pop("fits")) == {"gpt", "lstm"}
    assert compared == data["comparison"]


class Page(HTMLParser):
    def __init__(self, text):
        super().__init__()
        self.seen, self.loaded = [], []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.seen.append(tag)
        self.loaded += [
            value
            for name, value in attributes
            if name in ("src", "href") and tag != "a" and not value.startswith(("#", "data:"))
        ]


def test_the_page_holds_every_figure_of_the_report_and_loads_nothing(study):
    folder = study / "comparison_analysis"
    page = Page((folder / "report.html").read_text())
    assert page.loaded == []
    assert page.seen.count("figure") == (folder / "report.md").read_text().count("![") > 4


CONCLUSIONS = re.compile(r"falls faster|nears its own floor faster|scale[s]? better|on \(it does")


def the_comparison(data, law="power_irreducible", axis="n_params"):
    return report.find_comparison(data, law, axis)


def test_a_clear_difference_is_said_with_its_numbers(data):
    comparison = the_comparison(data)
    comparison |= {"identified": True, "steeper": "lstm"}
    comparison["differences"].pop("E")
    comparison["differences"]["alpha"] |= {"value": -0.1234, "bootstrap": [-0.2, -0.05], "jackknife": [-0.3, -0.01]}
    sentence = report.exponent_sentence(comparison)
    assert "the loss of the LSTM falls faster" in sentence
    assert all(number in sentence for number in ("-0.123", "-0.200", "-0.050", "-0.300", "-0.010"))
    comparison["steeper"] = "gpt"
    assert "the loss of the GPT falls faster" in report.exponent_sentence(comparison)


def test_with_floors_the_faster_approach_is_said_beside_their_difference(data):
    comparison = the_comparison(data)
    comparison |= {"identified": True, "steeper": "gpt"}
    comparison["differences"]["E"] |= {"value": 0.217, "bootstrap": [0.1, 0.3], "jackknife": [0.0, 0.4]}
    sentence = report.exponent_sentence(comparison)
    assert "the GPT nears its own floor faster" in sentence
    assert "+0.217" in sentence


def test_an_interval_that_holds_zero_allows_no_conclusion(data):
    comparison = the_comparison(data)
    comparison |= {"identified": True, "steeper": None}
    sentence = report.exponent_sentence(comparison)
    assert "no architecture" in sentence
    assert "faster" not in sentence


def test_nothing_is_concluded_from_fits_that_are_not_identified(data):
    comparison = the_comparison(data)
    comparison |= {"identified": False, "reason": "E lies at its bound", "steeper": "gpt"}
    assert not CONCLUSIONS.search(report.exponent_sentence(comparison))
    assert "E lies at its bound" in report.exponent_sentence(comparison)


def crossing(**changes):
    found = {"axis": "n_params", "tokens": 1e6, "value": 3e5, "interval": [2e5, 4e5], "share": 0.99}
    return found | {"measured": True, "reason": None} | changes


def test_a_crossover_is_said_with_its_interval_and_outside_the_measured_as_an_extrapolation():
    inside = report.crossover_sentence(crossing())
    assert all(number in inside for number in ("300K", "200K", "400K", "99 %"))
    assert "extrapolation" not in inside
    assert "extrapolation" in report.crossover_sentence(crossing(value=3e9, measured=False))
    laws = [{"law": "power", "crossovers": [crossing(reason="too few resamples cross")]}]
    [line] = report.crossover_lines({"laws": laws})
    assert not CONCLUSIONS.search(line)
    assert "too few resamples cross" in line


@pytest.mark.parametrize("law", ["power", "power_irreducible"])
def test_a_parameter_that_is_not_identified_is_called_so_with_the_reason(data, law):
    fitted = report.find_fit(data, "gpt", law)
    fitted["parameters"]["alpha"] |= {"identified": True}
    assert "α = not identified" not in report.law_line("gpt", fitted)
    fitted["parameters"]["alpha"] |= {"identified": False, "reason": "its profile is flat above"}
    assert "α = not identified" in report.law_line("gpt", fitted)
    assert "its profile is flat above" in report.law_line("gpt", fitted)


def test_sizes_out_of_order_are_named(data):
    sizes = data["sizes"]
    assert "every larger model" in report.order_sentence(data, "gpt")
    sizes[3]["gpt"]["loss"] = sizes[2]["gpt"]["loss"] + 0.1
    sentence = report.order_sentence(data, "gpt")
    assert f"{sizes[3]['size']} ({sizes[3]['gpt']['loss']:.3f}) is not below {sizes[2]['size']}" in sentence
    assert "every larger model" not in sentence


def test_a_size_beyond_the_sweep_is_named(data):
    largest = data["sizes"][-1]
    rule = {"optima": [{"size": row["size"], "n": row["gpt"]["n_params_non_embedding"]} for row in data["sizes"][:-1]]}
    data["learning_rate"] = {"rules": {"gpt": rule}}
    [line] = report.unswept_lines(data)
    assert line.startswith(f"Beyond the sizes whose peak rate was swept: GPT {largest['size']}. The rule")
    rule["optima"].append({"size": largest["size"], "n": largest["gpt"]["n_params_non_embedding"]})
    assert report.unswept_lines(data) == []


def test_what_the_rates_of_the_runs_cost_is_told_for_every_size_swept(data, tmp_path):
    runs = made_ladder("gpt", GPT_LAW, sizes=(2e4, 2e5, 2e6), seeds=(0,))
    for made, rate in zip(runs, (0.01, 0.004, 0.001), strict=True):
        made["learning_rate"] = rate
    optima = [
        {"size": "20k", "n": 13_000, "rate": 0.01, "bend": 0.1},
        {"size": "200k", "n": 175_000, "rate": 0.002, "bend": 0.05},
    ]
    sweep = {"config": {"corpus": data["corpus"], "tokens": 1_000_000}}
    sweep["rules"] = {"gpt": {"coefficient": 1.0, "exponent": 0.5, "optima": optima}}
    used = rates_used(sweep, {"gpt": runs, "lstm": []})
    assert used["lstm"] == []
    assert [row["rise"] for row in used["gpt"]] == [0, pytest.approx(0.05 * np.log(2) ** 2), None]
    data["learning_rate"] = sweep | {"used": {"gpt": used["gpt"]}}
    text = "\n".join(report.rate_section(data, set()))
    assert "at the 2 of 3 sizes that were swept, the rates of the runs raise the loss by at most 0.0240" in text
    assert "| GPT | 200k | 0.004 | 0.002 | +0.0240 |" in text
    assert "| GPT | 2000k | 0.001 | – | – |" in text
    figures.learning_rate(tmp_path / "learning_rate", data)
    assert (tmp_path / "learning_rate.png").is_file()


def test_the_lead_is_counted_over_the_sizes(data):
    edges = [(-0.2, -0.1)] * 3 + [(0.1, 0.2)] * 4 + [(-0.1, 0.1)]
    for row, interval in zip(data["comparison"]["matches"], edges, strict=True):
        row["interval"] = interval
    told = re.sub(r" \([^)]*\)", "", report.lead_sentence(data))
    assert told.endswith("to the GPT at 3, the LSTM at 4, neither, as it is not told, at 1.")


@pytest.mark.parametrize(("loss", "beats"), [(1.5, True), (1.7, False)])
def test_the_baseline_is_beaten_only_by_a_lower_loss(data, loss, beats):
    data["sizes"][0]["gpt"]["loss"] = loss
    assert ("does NOT beat" not in report.baseline_sentence(data, "gpt")) == beats


def test_a_rising_loss_is_reported_without_a_claim(tmp_path):
    def rising(n, *_):
        return 0.5 * n**0.08

    write_study(tmp_path, made_ladders(rising, rising, noise=0.001))
    text = written(analyse(of_folders(tmp_path, [], tmp_path)))
    assert not CONCLUSIONS.search(text)
    assert "every larger model" not in text
    lines = re.findall(r"^- (?:GPT|LSTM), power law.*α = .*$", text, re.MULTILINE)
    claims = [
        claim for line in lines for claim in re.findall(r"(?:α|floor at this budget E) = [a-z\d.]+ ?[a-z]*", line)
    ]
    assert len(claims) == 6
    assert [claim for claim in claims if "not identified" not in claim] == []


# The files


def outputs(root: Path) -> dict[str, str]:
    return {
        f"{folder}/{path.name}": hashlib.sha256(path.read_bytes()).hexdigest()
        for folder in FIGURES_OF_ONE_BUDGET
        for path in (root / folder).iterdir()
    }


def test_every_figure_is_drawn_as_png_and_svg(study):
    for folder, names in FIGURES_OF_ONE_BUDGET.items():
        for kind, start in (("png", b"\x89PNG"), ("svg", b"<?xml")):
            assert {path.stem for path in (study / folder).glob(f"*.{kind}")} == names
            for path in (study / folder).glob(f"*.{kind}"):
                assert path.read_bytes().startswith(start)


def test_figures_look_as_they_did(study, assert_looks_like):
    """A law with its band, floor and baseline; bars with seeds. The other figures have more panels than can be told."""
    for folder, name in (("GPT_analysis", "scaling_law"), ("comparison_analysis", "loss_comparison_bars")):
        assert_looks_like(study / folder / f"{name}.png", name)


def test_the_figure_of_a_table_looks_as_it_did(table, tmp_path, monkeypatch, assert_looks_like):
    flags = ["--n", "params", "--law", "power_irreducible", "--out", tmp_path / "out", "--delta", "0.01"]
    go_in(monkeypatch, "--table", table, *flags)
    assert_looks_like(tmp_path / "out" / "law.png", "table_law")


def test_a_rich_study_has_the_figures_of_budgets_allocation_and_repetition(rich):
    names = {path.stem for path in (rich / "comparison_analysis").glob("*.svg")}
    assert names >= {"budgets", "repetition", "isoflop"}


def test_the_same_numbers_give_the_same_bytes(study, tmp_path, monkeypatch):
    for name in ("GPT_initial_training", "LSTM_training"):
        shutil.copytree(study / name, tmp_path / name)
    analyse_in(monkeypatch, tmp_path)
    ours, theirs = outputs(tmp_path), outputs(study)
    # The unfinished run is told by name; no path stands in any file.
    assert ours == theirs


def test_a_second_run_says_finished_and_draws_nothing(study, monkeypatch, capsys):
    before = {path: path.stat().st_mtime_ns for path in study.rglob("*")}
    analyse_in(monkeypatch, study)
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
    assert "corpora" in refusal_of(monkeypatch, capsys, tmp_path)


def test_too_few_sizes_are_refused(tmp_path, monkeypatch, capsys):
    write_study(tmp_path, made_ladders(sizes=SIZES[:2]))
    assert "2 sizes" in refusal_of(monkeypatch, capsys, tmp_path)


def test_too_few_runs_for_a_law_are_refused(tmp_path, monkeypatch, capsys):
    write_study(tmp_path, made_ladders(sizes=SIZES[:3], seeds=(0,)))
    assert str(tmp_path) in refusal_of(monkeypatch, capsys, tmp_path)


def test_an_empty_folder_is_refused_with_the_command_that_fills_it(tmp_path, monkeypatch, capsys):
    assert "training/run.py" in refusal_of(monkeypatch, capsys, tmp_path)


def without(record, name):
    return {key: value for key, value in record.items() if key != name}


DAMAGES = {
    "cut off": lambda record: json.dumps(record)[:200],
    "empty": lambda _: "",
    "a list": lambda record: json.dumps([record]),
    "no config": lambda record: json.dumps(without(record, "config")),
    "no hash": lambda record: json.dumps(without(record, "config_hash")),
    "another hash": lambda record: json.dumps({**record, "config_hash": "0123456789abcdef"}),
    "no loss": lambda record: json.dumps(without(record, "validation_loss")),
    "an empty config": lambda record: json.dumps({**record, "config": {}}),
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES.keys())
def test_a_damaged_record_is_refused_by_name(tmp_path, monkeypatch, capsys, damage):
    write_study(tmp_path, some_runs())
    path = next((tmp_path / "LSTM_training").glob("*/*/seed_0/record.json"))
    path.write_text(damage(json.loads(path.read_text())))
    assert str(path) in refusal_of(monkeypatch, capsys, tmp_path)


@pytest.mark.parametrize("content", [None, "", '{"order": 5'], ids=["missing", "empty", "cut off"])
def test_a_damaged_baseline_is_refused_by_name(tmp_path, monkeypatch, capsys, content):
    write_study(tmp_path, some_runs())
    if content is None:
        baseline_file(tmp_path).unlink()
    else:
        baseline_file(tmp_path).write_text(content)
    assert str(baseline_file(tmp_path)) in refusal_of(monkeypatch, capsys, tmp_path)


def test_damaged_fits_are_refused_by_name(study, tmp_path, monkeypatch, capsys):
    shutil.copytree(study, tmp_path / "study")
    path = tmp_path / "study" / "comparison_analysis" / "fits.json"
    path.write_text(path.read_text()[:1000])
    assert str(path) in refusal_of(monkeypatch, capsys, tmp_path / "study")


def test_a_run_without_a_record_is_named_in_the_report(data, tmp_path):
    write_study(tmp_path, some_runs())
    folder = run_folder(tmp_path, made_config("gpt", "20k", tokens=1_000_000, seed=7))
    folder.mkdir()
    [line] = Study(of_folders(tmp_path, [], tmp_path)).left_out
    assert folder.name in line
    assert folder.name not in written(data)
    assert folder.name in written({**data, "left_out": [line]})


def test_runs_are_read_smallest_first(study):
    sizes = [run.n_params for run in read_ladders(study)["gpt"].finished]
    assert sizes == sorted(sizes)
    with pytest.raises(UserError, match="no finished run"):
        read_ladders(study / "GPT_analysis")


# Anyone's table


@pytest.fixture
def table(tmp_path):
    n, d = (axis.ravel() for axis in np.meshgrid(np.geomspace(1e5, 1e8, 6), np.geomspace(1e7, 1e9, 4)))
    loss = (1.5 + 80 * n**-0.35 + 900 * d**-0.4) * np.exp(np.random.default_rng(0).normal(0, 0.002, len(n)))
    path = tmp_path / "runs.csv"
    rows = [
        f"{a:.0f},{b:.0f},{6 * a * b:.6e},{c!r},{i % 3}"
        for i, (a, b, c) in enumerate(zip(n, d, loss.tolist(), strict=True))
    ]
    path.write_text("\n".join(["params,tokens,flops,loss,seed", *rows]) + "\n")
    return path


def test_a_table_is_fitted_with_figures_and_a_report(table, tmp_path, monkeypatch, capsys):
    out = tmp_path / "out"
    go_in(monkeypatch, "--table", table, "--n", "params", "--d", "tokens", "--out", out, "--delta", "0.01")
    fitted = read_json(out / "fits.json")["fit"]
    assert fitted["parameters"]["alpha"]["value"] == pytest.approx(0.35, abs=0.03)
    assert fitted["points"] == 24
    assert {path.name for path in out.iterdir()} >= {"law.png", "law.svg", "residuals.png", "profile_likelihoods.png"}
    text = (out / "report.md").read_text()
    assert text == report.write_table_report(read_json(out / "fits.json"), {"law", "residuals", "profile_likelihoods"})
    assert "α = " in capsys.readouterr().out
    assert Page((out / "report.html").read_text()).seen.count("figure") == 3


def test_a_law_of_one_variable_takes_the_column_that_is_named(table, tmp_path, monkeypatch):
    go_in(monkeypatch, "--table", table, "--c", "flops", "--law", "power", "--out", tmp_path / "out")
    assert read_json(tmp_path / "out" / "fits.json")["fit"]["variables"] == ["c"]


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--n", "params", "--d", "nothing"], "no column 'nothing'"),
        (["--n", "params"], "--d"),
        (["--n", "params", "--d", "tokens", "--law", "magic"], "--law magic"),
        (["--n", "params", "--d", "tokens", "--law", "power"], "one variable"),
        (["--n", "params", "--d", "tokens", "--delta", "0"], "--delta"),
        (["--n", "params", "--d", "tokens", "--resamples", "3"], "--resamples"),
        (["--n", "params", "--d", "tokens", "--law", "sms"], "--u"),
        (["--n", "params", "--d", "tokens", "--c", "flops"], "does not use --c"),
    ],
    ids=" ".join,
)
def test_what_does_not_fit_the_table_is_one_line(table, tmp_path, monkeypatch, capsys, flags, words):
    assert words in refusal(monkeypatch, capsys, "--table", table, "--out", tmp_path / "out", *flags)


def test_a_folder_of_other_files_is_not_written_to(table, tmp_path, monkeypatch, capsys):
    flags = ["--table", table, "--n", "params", "--d", "tokens", "--out", tmp_path]
    assert str(tmp_path) in refusal(monkeypatch, capsys, *flags)
    assert [path.name for path in tmp_path.iterdir()] == ["runs.csv"]


def test_odd_names_of_file_and_columns_break_neither_figure_nor_report(table, tmp_path, monkeypatch):
    odd = tmp_path / "a|b *c* <b>.csv"
    odd.write_text(table.read_text().replace("params", "t$o_{$k 音"))
    go_in(monkeypatch, "--table", odd, "--n", "t$o_{$k 音", "--law", "power", "--out", tmp_path / "out")
    page = (tmp_path / "out" / "report.html").read_text()
    assert "fitted to a|b *c* &lt;b&gt;.csv</h1>" in page
    rows = [line for line in (tmp_path / "out" / "report.md").read_text().splitlines() if line.startswith("|")]
    assert len({line.count("|") for line in rows}) == 1


def test_flags_of_a_table_without_a_table_are_refused(monkeypatch, capsys):
    assert "--table" in refusal(monkeypatch, capsys, "--n", "params")


def test_a_constant_loss_is_one_line(table, tmp_path, monkeypatch, capsys):
    head, *rows = table.read_text().splitlines()
    fields = [row.split(",") for row in rows]
    table.write_text("\n".join([head, *(",".join([*row[:3], "2.0", row[4]]) for row in fields)]) + "\n")
    flags = ["--table", table, "--n", "params", "--d", "tokens", "--out", tmp_path / "out"]
    assert "all losses are equal" in refusal(monkeypatch, capsys, *flags)


def test_a_table_without_a_folder_for_its_results_is_one_line(table, monkeypatch, capsys):
    assert "--out" in refusal(monkeypatch, capsys, "--table", table, "--n", "params", "--d", "tokens")


def test_the_readmes_fit_runs_as_printed_and_finds_the_law_that_it_makes(tmp_path):
    readme = (Path(__file__).parent.parent / "README.md").read_text(encoding="utf-8")
    [code] = [block for block in re.findall(r"```python\n(.*?)```", readme, re.DOTALL) if "analysis.fitting" in block]
    process = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert re.search(r"value=0\.3(49999|500000)", process.stdout)
