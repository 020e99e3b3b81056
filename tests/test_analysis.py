"""A table of runs becomes fits.json; its figures and texts hold the numbers of fits.json and nothing else."""

import copy
import hashlib
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from conftest import made_once
from made_runs import GPT_LAW, SIZES, made_ladder, made_ladders, made_run, record_of, repeated_law, write_table

from analysis import report, run
from analysis.fits_json import NO_DIFFERENCE, difference_verdict, find_fit, lower_loss
from analysis.page import write_page
from analysis.runs import read_study, weights_of
from analysis.study import analyse, extrapolate, frontier, learning_rates_used
from files import read_json, write_json
from training.record import BASELINE, DIVERGED, NOT_RUN
from training.runs_table import Row, read_runs_table, write_runs

FIGURES = {
    "GPT_analysis": {"scaling_law", "training_curves", "training_metrics", "loss_comparison"},
    "comparison_analysis": {
        *("training_curves", "combined_scaling_laws", "computational_efficiency", "absolute_resources"),
        *("sample_efficiency", "loss_comparison_bars", "residuals", "profile_likelihoods", "extrapolation"),
        *("loss_by_position", "published"),
    },
}
REASON = "the training loss is nan at step 17"


@pytest.fixture(autouse=True, scope="module")
def _rough_intervals():
    """Intervals of 100 resamples and profiles of 6 points a side: rough, and made in a fraction of the time."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("analysis.fitting.RESAMPLES", 100)
        patch.setattr("analysis.profiles.POINTS", 6)
        yield


def analyse_in(folder):
    with pytest.MonkeyPatch.context() as patch:
        flags = ["--runs", folder / "runs.parquet", "--study", "cpu", "--output_dir", folder]
        patch.setattr(sys, "argv", ["run.py", *map(str, flags)])
        run.main()


def refusal(capsys, folder):
    with pytest.raises(SystemExit) as caught:
        analyse_in(folder)
    assert caught.value.code == 1
    [line] = capsys.readouterr().err.splitlines()[-1:]
    assert line.startswith("error:")
    return line


def made_quality():
    """Two temperatures of which 1.0 is nearer to the validation split; 10 and 80 of 100 tunes are valid there."""
    cells = []
    for architecture, valid in (("gpt", 10), ("lstm", 80)):
        for seed in (0, 1):
            for temperature, distance in ((0.8, 0.4), (1.0, 0.2)):
                shares = {name: {"count": valid, "total": 100} for name in report.SHARES}
                cell = {"architecture": architecture, "size": "20k", "seed": seed, "n_params": 20_000, "samples": 100}
                cell |= {"temperature": temperature, "bars": "free", "best": False}
                shares["valid"] = {"count": valid if temperature == 1.0 else 0, "total": 100}
                cells.append(cell | {"shares": shares, "numbers": {"distance_key": {"value": distance}}})
    human = {"test": {"shares": {name: {"share": 0.9} for name in report.SHARES}}}
    return {"cells": cells, "analysis": {"bars": "free"}, "floors": {"distance_key": {"value": 0.1}}, "human": human}


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """A study of one budget with a diverged run, and two runs that are only planned."""

    def make(root):
        ladders = made_ladders()
        ladders["lstm"][5] |= {"status": DIVERGED, "reason": REASON, "validation_loss": None}
        planned = record_of(made_run("gpt", "9m", 0, 9e6, 1.0, status=NOT_RUN, validation_loss=None))
        write_table(root, ladders, more=[Row("gpu", "ladders", planned), Row("gpu", "ladders", planned)])
        write_json(root / "generation_analysis" / "quality.json", made_quality())
        analyse_in(root)

    return made_once(tmp_path_factory, "study", make)


@pytest.fixture
def data(study):
    return read_json(study / "comparison_analysis" / "fits.json")


@pytest.fixture(scope="module")
def rich(tmp_path_factory):
    """A study of the GPT alone: four budgets, parts of the data, and a corpus in more keys."""

    def make(root):
        law = repeated_law(0.9, 25, 0.35, 300, 0.42, 6)
        shared = {"sizes": SIZES[:5], "seeds": (0, 1), "noise": 0.003}
        runs = made_ladder("gpt", law, tokens=(500_000, 1_000_000, 2_000_000, 4_000_000), **shared)
        runs += made_ladder("gpt", law, tokens=(4_000_000,), fractions=(0.25, 1 / 16), **{**shared, "sizes": SIZES[:4]})
        runs += made_ladder("gpt", law, tokens=(1_000_000, 8_000_000), keys=4, corpus="in four keys", **shared)
        write_table(root, {"gpt": runs})
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("analysis.drawing.METADATA", {"svg": {"Date": None}})  # in half of the time
            analyse_in(root)

    return made_once(tmp_path_factory, "rich", make)


@pytest.fixture
def rich_data(rich):
    return read_json(rich / "comparison_analysis" / "fits.json")


@pytest.fixture
def no_drawing(monkeypatch):
    """Studies are analysed without their figures, which take most of the time."""
    monkeypatch.setattr(run, "study_figures", lambda *_: {})


# What is read


def test_a_diverged_run_is_listed_with_its_reason_and_planned_runs_are_counted(study, data):
    [line] = data["left_out"]
    text = (study / "comparison_analysis" / "report.md").read_text()
    assert REASON in line
    assert line in text
    assert data["planned"] == {"gpu": {"runs": 2, "not_run": 2}}
    assert data["runs"] == {"gpt": 24, "lstm": 23}
    assert {fit["points"] for fit in data["fits"]["lstm"]} == {23}
    assert data["comparison"]["pairs"] == 23


def test_runs_of_another_schedule_than_most_are_left_out(tmp_path):
    ladders = made_ladders()
    for run_ in ladders["gpt"][:3]:
        run_["schedule"] = "wsd"
    study = read_study(write_table(tmp_path, ladders), "cpu")
    assert len(study.runs["gpt"]) == len(study.main["gpt"]) == len(ladders["gpt"]) - 3
    assert study.left_out == ["3 runs with the schedule wsd: most have cosine"]


def test_without_a_name_the_study_with_the_most_finished_runs_is_read(tmp_path):
    other = Row("other", "ladders", record_of(made_run("gpt", "9m", 0, 9e6, 1.0)))
    assert len(read_study(write_table(tmp_path, made_ladders(), more=[other])).runs["gpt"]) == 24


def damaged(folder, name):
    """Write a table of runs of the least that can be analysed, damaged in one way."""
    ladders = made_ladders(sizes=SIZES[:2] if name == "too few sizes" else SIZES[:4], seeds=(0,))
    path = write_table(folder, ladders)
    rows = read_runs_table(path)
    if name == "twice":
        write_runs(path, [*rows, rows[0]])
    elif name == "no such study":
        write_runs(path, [Row("gpu", "ladders", row.record) for row in rows])
    elif name == "other held-out tunes":
        other = made_run("gpt", "9m", 0, 9e6, 1.0, corpus="other", keys=12, validation_tokens=99)
        write_runs(path, [*rows, Row("cpu", "ladders", record_of(other))])
    elif name == "no table":
        path.write_text("loss\n1\n")
    elif name == "no baseline":
        (folder / BASELINE).unlink()
    elif name == "damaged baseline":
        (folder / BASELINE).write_text('{"order": 5')


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        ("too few sizes", "2 finished sizes"),
        ("twice", "in the table twice"),
        ("no such study", "--study cpu: no finished run"),
        ("other held-out tunes", "99 validation tokens"),
        ("no table", "runs.parquet is not a table of runs"),
        ("no baseline", "ngram_baseline.json is missing"),
        ("damaged baseline", "ngram_baseline.json is damaged"),
    ],
)
def test_a_table_that_cannot_be_analysed_is_refused_by_name(tmp_path, capsys, damage, words):
    damaged(tmp_path, damage)
    assert words in refusal(capsys, tmp_path)


def test_too_few_runs_for_a_law_are_refused(tmp_path, capsys):
    write_table(tmp_path, made_ladders(sizes=SIZES[:3], seeds=(0,)))
    assert "runs.parquet: no law can be fitted" in refusal(capsys, tmp_path)


# What is found


def test_a_study_of_one_budget_is_fitted_by_the_laws_of_n_on_both_counts_of_n(data):
    for fits in data["fits"].values():
        assert [(fit["axis"], fit["law"]) for fit in fits] == [
            (axis, law) for axis in ("n_params", "n_params_non_embedding") for law in ("power", "power_irreducible")
        ]
    alpha = find_fit(data, "gpt", "power_irreducible")["parameters"]["alpha"]
    assert alpha["bootstrap"][0] < 0.35 < alpha["bootstrap"][1]


def test_more_budgets_parts_and_keys_are_fitted_by_every_law_that_needs_them(rich_data):
    found = {(fit["axis"], fit["law"]) for fit in rich_data["fits"]["gpt"]}
    assert found >= {("n_params", "chinchilla"), ("n_params_non_embedding", "chinchilla"), ("flops", "power")}
    assert found >= {("tokens", "power_irreducible"), ("n_params", "data_constrained"), ("n_params", "transposition")}
    assert rich_data["budgets"] == [500_000, 1_000_000, 2_000_000, 4_000_000, 8_000_000]
    assert rich_data["comparison"] is None


def test_chinchillas_law_is_recovered_from_the_runs_on_all_tunes_in_their_own_keys_alone(rich_data):
    fitted = find_fit(rich_data, "gpt", "chinchilla")
    assert fitted["points"] == 5 * 2 * 4
    assert fitted["clusters"] == 10  # budgets of one size and seed are drawn together
    low, high = fitted["parameters"]["alpha"]["profile"]
    assert low < 0.35 < high


def test_the_worth_of_repetition_and_transposition_is_recovered(rich_data):
    found = rich_data["repetition"]["gpt"]
    [four] = [row for row in found["keys"]["rows"] if row["keys"] == 4]
    low, high = four["bootstrap"]
    assert low < 1 + 0.3 * 3 < high
    epochs = {row["epochs"]: row["value"] for row in found["epochs"]["rows"]}
    assert epochs[1] == 1
    assert epochs[2] <= 2
    assert epochs[64] < 64


def test_the_frontier_holds_the_runs_that_none_with_as_little_compute_beats():
    runs = made_ladder("gpt", repeated_law(0.9, 25, 0.35, 300, 0.42, 6), noise=0, tokens=(10**6, 4 * 10**6), seeds=(0,))
    best = frontier(runs)
    for run_ in runs:
        on_it = any(run_["flops"] == b["flops"] and run_["validation_loss"] == b["validation_loss"] for b in best)
        beaten = any(b["flops"] <= run_["flops"] and b["validation_loss"] < run_["validation_loss"] for b in best)
        assert on_it != beaten


def test_weights_follow_the_spread_of_seeds_only_if_there_are_enough():
    few, many = (made_ladder("gpt", GPT_LAW, seeds=seeds) for seeds in ((0, 1), (0, 1, 2)))
    assert weights_of(few) is None
    assert weights_of(many).mean() == pytest.approx(1)


def test_the_right_law_predicts_larger_sizes_and_the_wrong_one_does_not():
    runs = made_ladder("gpt", GPT_LAW, noise=0)
    rows = extrapolate("gpt", runs, runs)
    assert {row["law"] for row in rows} == {"power", "power_irreducible"}
    for row in rows:
        assert row["error"] == row["predicted"] / row["loss"] - 1
        assert row["n_params"] > row["largest_fitted"]
        if row["law"] == "power_irreducible" and row["fitted_sizes"] > 3:
            assert row["error"] == pytest.approx(0, abs=1e-4)
        if row["law"] == "power" and row["times"] > 10:
            assert row["error"] < -0.02  # it lacks E


def test_laws_are_ranked_by_their_error_on_the_same_larger_runs(data, rich_data):
    ranking = [row for row in report.extrapolation_rows(data) if row["architecture"] == "gpt"]
    assert [row["law"] for row in ranking] == ["power_irreducible", "power"]
    assert ranking[0]["error"] < ranking[1]["error"]
    assert ranking[0]["farthest"]["times"] >= 10
    rows = rich_data["extrapolation"]
    assert {row["budget"] for row in rows if row["law"] == "chinchilla"} == {500_000, 10**6, 2 * 10**6, 4 * 10**6}
    assert {row["tests"] for row in report.extrapolation_rows(rich_data)} == {3}  # 5 sizes: cuts at 3 and at 4


def test_the_cost_of_the_learning_rates_is_that_of_the_sweeps_parabola():
    runs = made_ladder("gpt", GPT_LAW, sizes=(2e4, 2e5, 2e6), seeds=(0,))
    for made, rate in zip(runs, (0.01, 0.004, 0.001), strict=True):
        made["learning_rate"] = rate
    optima = [
        {"size": "20k", "n": 13_000, "rate": 0.01, "bend": 0.1},
        {"size": "200k", "n": 175_000, "rate": 0.002, "bend": 0.05},
    ]
    sweep = {"rules": {"gpt": {"coefficient": 1.0, "exponent": 0.5, "optima": optima}}}
    used = learning_rates_used(sweep, {"gpt": runs, "lstm": []})
    assert [row["rise"] for row in used["gpt"]] == [0, pytest.approx(0.05 * np.log(2) ** 2), None]
    [row] = report.learning_rate_rows({"learning_rate": sweep | {"used": used}})
    assert (row["swept"], row["worst"]["size"], row["beyond"]) == (2, "200k", ["2000k"])


def test_verdicts_follow_from_intervals():
    law = {"identified": True, "reason": None, "steeper": None}
    assert difference_verdict(law) == NO_DIFFERENCE
    assert difference_verdict(law | {"steeper": "lstm"}) == "LSTM steeper"
    assert difference_verdict(law | {"identified": False, "reason": "E", "steeper": "gpt"}) == "not identified: E"
    edges = [(-0.2, -0.1), (0.1, 0.2), (-0.1, 0.1), (None, None)]
    assert [lower_loss({"interval": e}) for e in edges] == ["GPT", "LSTM", NO_DIFFERENCE, NO_DIFFERENCE]


def test_a_rising_loss_identifies_no_law(tmp_path):
    def rising(n, *_):
        return 0.5 * n**0.08

    data = analyse(read_study(write_table(tmp_path, made_ladders(rising, rising, noise=0.001)), "cpu"))
    assert not any(fit["parameters"]["alpha"]["identified"] for fits in data["fits"].values() for fit in fits)
    assert {difference_verdict(law).partition(":")[0] for law in data["comparison"]["laws"]} == {"not identified"}


def test_tunes_are_counted_at_the_temperature_nearest_to_the_validation_split(data):
    table = report.quality_table(made_quality())
    assert data["quality"] == table
    [row] = table["sizes"]
    assert [row[name]["valid"] for name in ("gpt", "lstm")] == [0.1, 0.8]
    assert (row["gpt"]["temperature"], row["gpt"]["tunes"]) == (1.0, 200)
    quality = made_quality()
    quality["cells"] = [cell for cell in quality["cells"] if (cell["seed"], cell["temperature"]) != (1, 1.0)]
    assert report.quality_table(quality)["sizes"][0]["lstm"]["temperature"] == 0.8  # only it has both seeds


# Templates

NUMBERS = [
    ("tokens",),
    ("epochs",),
    ("budgets", 0),
    ("runs", "lstm"),
    ("validation_tokens",),
    ("validation_standard_error",),
    ("baseline", "orders", 1, "validation_loss"),
    ("sizes", 3, "lstm", "loss"),
    ("sizes", 3, "lstm", "seed_deviation"),
    ("sizes", 3, "gpt", "seconds"),
    ("fits", "gpt", 1, "parameters", "alpha", "value"),
    ("fits", "gpt", 1, "parameters", "alpha", "jackknife", 0),
    ("fits", "lstm", 1, "parameters", "E", "bootstrap", 1),
    ("comparison", "pairs"),
    ("comparison", "matches", 2, "difference"),
    ("comparison", "laws", 1, "differences", "alpha", "value"),
    ("comparison", "laws", 1, "differences", "alpha", "test", "p"),
    ("comparison", "positions", "gpt", "loss", 0),
    ("comparison", "ratios", 5, "ratio"),
    ("planned", "gpu", "not_run"),
    ("quality", "sizes", 0, "lstm", "valid"),
    ("quality", "human", "copied"),
    ("left_out", 0),
]
RICH_NUMBERS = [
    ("compute_optimal", "gpt", "ways", "parametric", "a", "value"),
    ("compute_optimal", "gpt", "ways", "parametric", "optima", 2, "tokens_per_parameter", "value"),
    ("ablations", "gpt", -1, "difference"),
    ("repetition", "gpt", "keys", "rows", 0, "value"),
    ("extrapolation", 1, "predicted"),
    ("fits", "gpt", 4, "parameters", "beta", "bootstrap", 0),
]


def change(data, *path):
    """Return a copy with another number at the end of `path`, and the forms in which a template may show it."""
    changed = copy.deepcopy(data)
    place = changed
    for step in path[:-1]:
        place = place[step]
    place[path[-1]] = new = "changed" if isinstance(place[path[-1]], str) else 7890 if path[-1] != "p" else 0.789
    shown = {"changed"} if isinstance(new, str) else {"7.89K", "+7890.000", "7.89e+03", "7890", "789000", "0.789"}
    return changed, shown


def assert_shows(text, before, shown):
    assert text != before
    assert any(text.count(form) > before.count(form) for form in shown)


@pytest.mark.parametrize("path", NUMBERS, ids=lambda path: ".".join(map(str, path)))
def test_the_report_shows_the_changed_numbers(data, path):
    changed, shown = change(data, *path)
    assert_shows(report.report(changed, set(), None), report.report(data, set(), None), shown)


@pytest.mark.parametrize("path", RICH_NUMBERS, ids=lambda path: ".".join(map(str, path)))
def test_the_report_of_a_rich_study_shows_the_changed_numbers(rich_data, path):
    rich_data["repetition"]["gpt"]["keys"]["identified"] = True
    changed, shown = change(rich_data, *path)
    assert_shows(report.report(changed, set(), None), report.report(rich_data, set(), None), shown)


def test_the_findings_show_the_changed_numbers(data):
    quality = made_quality()
    text = report.findings(data, quality)
    for path in (("comparison", "laws", 1, "crossovers", 0, "value"), ("sizes", 0, "gpt", "loss")):
        changed, shown = change(data, *path)
        assert_shows(report.findings(changed, quality), text, shown)
    quality["human"]["test"]["shares"]["valid"]["share"] = 0.789
    assert "79 %" in report.findings(data, quality)
    assert all(len(line.split()) <= 26 for line in text.splitlines() if line.startswith("- "))


@pytest.mark.usefixtures("no_drawing")
def test_conclusions_are_filled_with_numbers_and_stop_at_other_fits(study, data, tmp_path, capsys):
    for name in ("runs.parquet", BASELINE, "generation_analysis/quality.json"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes((study / name).read_bytes())
    conclusions = tmp_path / "conclusions.md.j2"
    conclusions.write_text("{# fits: " + 64 * "0" + " #}\nThe GPT has {{ data.runs.gpt }} runs.\n")
    line = refusal(capsys, tmp_path)
    written = tmp_path / "comparison_analysis" / "report.md"
    assert "24 runs." not in written.read_text()
    digest = hashlib.sha256((tmp_path / "comparison_analysis" / "fits.json").read_bytes()).hexdigest()
    assert line.endswith("{# fits: " + digest + " #}")
    conclusions.write_text(conclusions.read_text().replace(64 * "0", digest))
    analyse_in(tmp_path)
    assert "The GPT has 24 runs." in written.read_text()
    assert report.conclusions_of(conclusions, data | {"runs": {"gpt": 7890}}).strip() == "The GPT has 7890 runs."


def test_a_report_of_one_architecture_leaves_the_other_out(rich):
    text = (rich / "comparison_analysis" / "report.md").read_text()
    assert "LSTM" not in text.split("## Beside published numbers")[0]
    assert "## GPT against LSTM" not in text


# Files


def outputs(root: Path) -> dict[str, str]:
    return {
        f"{folder}/{path.name}": hashlib.sha256(path.read_bytes()).hexdigest()
        for folder in FIGURES
        for path in (root / folder).iterdir()
    }


def test_every_figure_is_drawn_as_png_and_svg(study):
    for folder, names in FIGURES.items():
        for kind, start in (("png", b"\x89PNG"), ("svg", b"<?xml")):
            assert {path.stem for path in (study / folder).glob(f"*.{kind}")} == names
            for path in (study / folder).glob(f"*.{kind}"):
                assert path.read_bytes().startswith(start)


def test_figures_look_as_they_did(study, assert_looks_like):
    """A law with its band, E and the baseline; bars with seeds. Other figures have too many panels to compare."""
    for folder, name in (("GPT_analysis", "scaling_law"), ("comparison_analysis", "loss_comparison_bars")):
        assert_looks_like(study / folder / f"{name}.png", name)


def test_a_rich_study_has_the_figures_of_budgets_compute_and_repetition(rich):
    names = {path.stem for path in (rich / "comparison_analysis").glob("*.svg")}
    assert names >= {"budgets", "repetition", "isoflop"}


def test_the_page_is_that_of_the_report_and_the_fits_are_in_files_of_their_own(study, data):
    folder = study / "comparison_analysis"
    text = (folder / "report.md").read_text()
    assert text.count("![") == len(FIGURES["comparison_analysis"])
    assert (folder / "report.html").read_text() == write_page(text, folder)
    assert read_json(study / "GPT_analysis" / "scaling_law_fit.json") == data["fits"]["gpt"]
    compared = read_json(folder / "comparison_data.json")
    for law in compared["laws"]:
        assert set(law.pop("fits")) == {"gpt", "lstm"}
    assert compared == data["comparison"]


def test_the_same_runs_give_the_same_bytes_and_a_second_run_does_nothing(study, tmp_path, capsys, monkeypatch):
    for name in ("runs.parquet", BASELINE, "generation_analysis/quality.json"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes((study / name).read_bytes())
    analyse_in(tmp_path)
    assert outputs(tmp_path) == outputs(study)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.png")}
    monkeypatch.setattr(run, "analyse", None)  # not called again
    analyse_in(tmp_path)
    assert "finished" in capsys.readouterr().out
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.png")} == before
    (tmp_path / "comparison_analysis" / "residuals.png").unlink()
    analyse_in(tmp_path)
    assert outputs(tmp_path) == outputs(study)


@pytest.mark.usefixtures("no_drawing")
def test_other_runs_are_fitted_again_and_damaged_fits_are_refused(tmp_path, capsys):
    write_table(tmp_path, made_ladders(sizes=SIZES[:4], seeds=(0,)))
    analyse_in(tmp_path)
    path = tmp_path / "comparison_analysis" / "fits.json"
    before = read_json(path)["sizes"]
    content = path.read_text()
    path.write_text(content[:1000])
    assert str(path) in refusal(capsys, tmp_path)
    path.write_text(content)
    write_table(tmp_path, made_ladders(sizes=SIZES[:4], seeds=(0,), noise=0.01))
    analyse_in(tmp_path)
    assert read_json(path)["sizes"] != before


def test_the_example_of_the_documentation_finds_the_law_that_it_makes(tmp_path):
    text = (Path(__file__).parent.parent / "docs" / "fitting.md").read_text(encoding="utf-8")
    [code] = [block for block in re.findall(r"```python\n(.*?)```", text, re.DOTALL) if "analysis.fitting" in block]
    process = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert re.search(r"value=0\.3(49999|500000)", process.stdout)


def test_importing_the_command_imports_no_torch():
    code = "import sys, analysis.run; sys.exit('torch' in sys.modules or 'transformers' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
