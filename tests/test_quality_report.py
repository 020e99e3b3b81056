"""The report of quality against size shows the numbers and verdicts of the analysis, the figures its points."""

import re

import pytest
from made_quality import SIZES, TEMPERATURES, both, constant, made_study, rising

from generation.figures import draw_figures
from generation.quality_vs_size import analyse
from generation.report import decisions, findings, report, verdict
from generation.shares import share

SHARES = {
    "bars_add_up": {"gpt": rising(1.5e5), "lstm": rising(5e4)},
    "valid": {"gpt": rising(2.5e5), "lstm": rising(8e4)},
    "tonic_ending": {"gpt": rising(2e6, 2.5, 0.8, 1 / 7), "lstm": rising(1e5, 3, 0.8, 1 / 7)},
    "copied": both(constant(0.005)),
}
DISTANCES = {"distance_key": {"gpt": lambda n, _: 3 * n**-0.2, "lstm": lambda n, _: 2 * n**-0.2}}
NUMBERS = {"repeated_bars": both(constant(0.2))}


@pytest.fixture(scope="module")
def study():
    return made_study(SHARES, DISTANCES, NUMBERS, temperatures=TEMPERATURES, best=0.8)


@pytest.fixture(scope="module")
def analysis(study):
    return analyse(study, resamples=400)


def render(quality, analysis):
    return report(quality | {"findings": findings(analysis)}, analysis)


def rows(text, *cells):
    """The rows of tables that begin with these cells."""
    start = "| " + " | ".join(cells) + " |"
    return [line for line in text.splitlines() if line.startswith(start)]


def test_every_metric_and_size_is_in_a_table_at_the_chosen_temperature_and_at_1(study, analysis):
    text = render(study, analysis)
    for metric in analysis["metrics"]:
        for size in SIZES:
            assert len(rows(text, metric["label"], size)) == 2, (metric["label"], size)
    last = analysis["chosen"]["valid"]["points"]["lstm"][-1]
    low, high = (100 * edge for edge in last["interval"])
    assert f"{100 * last['value']:.1f} % [{low:.1f}, {high:.1f}]" in rows(text, "valid (all tiers)", "500k")[0]
    assert "| 0.03 [0.02, 0.045] |" in rows(text, "distance: key", "60k")[0]


def test_the_report_follows_the_numbers(study, analysis):
    other = {"gpt": "lstm", "lstm": "gpt"}
    cells = [cell | {"architecture": other[cell["architecture"]]} for cell in study["cells"]]
    swapped = study | {"cells": cells}
    row, turned = (
        rows(render(quality, found), "ends on the tonic", "parameters")[-1].split(" | ")
        for quality, found in ((study, analysis), (swapped, analyse(swapped, resamples=400)))
    )
    assert row[3] == turned[4] == "> 490K"
    assert row[4] == turned[3]


@pytest.mark.parametrize(
    ("better", "sign", "expected"),
    [
        (1, 1, "LSTM better"),
        (1, -1, "GPT better"),
        (-1, 1, "GPT better"),
        (-1, -1, "LSTM better"),
        (0, 1, "LSTM higher"),
    ],
)
def test_the_verdict_follows_the_sign_and_what_is_better(better, sign, expected):
    assert verdict({"better": better}, {"value": 0.1, "sign": sign}) == expected
    assert verdict({"better": better}, {"value": 0.1, "sign": 0}) == "no significant difference"


def test_the_caveats_count_all_intervals(study, analysis):
    counted = list(decisions([analysis["chosen"], analysis["at_1"]]))
    metrics, choices = 6, 2
    # slopes on three axes of two architectures, six sizes and their mean, equal loss; ratios on two axes where bounded
    least = choices * metrics * (3 * 2 + 6 + 1 + 1)
    assert least <= len(counted) <= least + choices * 2 * 2
    caveat = re.search(r"(\d+) intervals are compared with 0, (\d+) exclude it", render(study, analysis))
    assert caveat.groups() == (str(len(counted)), str(sum(row["sign"] != 0 for row in counted)))


@pytest.mark.parametrize("architectures", [("gpt", "lstm"), ("lstm",)])
def test_a_study_of_one_size_is_reported_and_drawn(architectures, tmp_path):
    one, two, three = (
        {name: {a: truth[a] for a in architectures} for name, truth in truths.items()}
        for truths in (SHARES, DISTANCES, NUMBERS)
    )
    study = made_study(one, two, three, sizes={"60k": 6.2e4}, seeds=(0,))
    study["cells"][0]["shares"]["copied"] = share(0, 0)
    found = analyse(study, resamples=50)
    assert "not identified: fewer than 3 sizes" in render(study, found)
    draw_figures(found, tmp_path)
    assert {path.name for path in tmp_path.iterdir()} >= set(re.findall(r"\]\((.+?\.png)\)", render(study, found)))


def test_the_figure_of_abilities_looks_as_it_should(tmp_path, analysis, assert_looks_like):
    draw_figures(analysis, tmp_path)
    assert_looks_like(tmp_path / "abilities.png", "abilities")
