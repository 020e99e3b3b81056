"""The report of quality against size says what its numbers say, and the figures show them."""

import pytest
from made_quality import TEMPERATURES, both, constant, made_study, rising, share

from generation.figures import draw_figures
from generation.quality_vs_size import analyse
from generation.report import FIGURES, findings, report

SHARES = {
    "bars_add_up": {"gpt": rising(1.5e5), "lstm": rising(5e4)},
    "valid": {"gpt": rising(2.5e5), "lstm": rising(8e4)},
    "tonic_ending": {"gpt": rising(2e6, 2.5, 0.8, 1 / 7), "lstm": rising(1e5, 3, 0.8, 1 / 7)},
    "copied": both(constant(0.005)),
}
DISTANCES = {"distance_key": {"gpt": lambda n, _: 3 * n**-0.2, "lstm": lambda n, _: 2 * n**-0.2}}
NUMBERS = {"repeated_bars": both(constant(0.2))}


@pytest.fixture(scope="module")
def quality():
    return made_study(SHARES, DISTANCES, NUMBERS, temperatures=TEMPERATURES, best=0.8)


@pytest.fixture(scope="module")
def analysis(quality):
    return analyse(quality, resamples=400)


def test_findings_are_few_and_hold_their_numbers(quality, analysis):
    lines = findings(quality, analysis)
    assert len(lines) <= 6
    valid = analysis["chosen"]["valid"]["points"]["lstm"][-1]
    low, high = (100 * edge for edge in valid["interval"])
    assert f"{100 * valid['value']:.1f} % [{low:.1f}, {high:.1f}] at 500k (rises)" in "\n".join(lines)
    people = 100 * quality["human"]["test"]["shares"]["valid"]["share"]
    assert f"people's test tunes {people:.1f} %" in "\n".join(lines)


def test_sentences_follow_the_numbers(quality, analysis):
    before = "\n".join(findings(quality, analysis))
    assert "ends on the tonic: GPT beyond the largest size, 490K" in before
    assert "LSTM better in 3 (valid (all tiers), ends on the tonic, 1 distance)" in before
    other = {"gpt": "lstm", "lstm": "gpt"}
    swapped = [cell | {"architecture": other[cell["architecture"]]} for cell in quality["cells"]]
    after = "\n".join(findings(quality | {"cells": swapped}, analyse(quality | {"cells": swapped}, resamples=400)))
    assert "ends on the tonic: GPT" in after
    assert "LSTM beyond the largest size, 490K" in after
    assert "GPT better in 3 (valid (all tiers), ends on the tonic, 1 distance)" in after


def test_nothing_is_concluded_of_what_is_not_told():
    study = made_study({"tonic_ending": both(constant(0.3))})
    text = "\n".join(findings(study, analyse(study, resamples=400)))
    assert "no trend (not shown to rise" in text
    assert "ratio not identified" in text
    assert "LSTM better in 0; GPT better in 0; not told in 1" in text


def test_the_report_has_every_metric_and_size_beside_people_and_floors(quality, analysis):
    text = report(quality, analysis)
    rows = [line for line in text.splitlines() if line.startswith("| distance: key | 60k |")]
    assert len(rows) == 2  # at the chosen temperature and at 1
    assert all(row.endswith("| – | 0.03 [0.02, 0.045] |") for row in rows)
    assert text.count("| copied from training | 15k |") == 2
    for name in FIGURES:
        assert f"({name}.png)" in text
    assert "| GPT | 15k | 0.8 | 0.8: " in text


def test_the_report_counts_its_intervals(quality, analysis):
    line = next(line for line in report(quality, analysis).splitlines() if "Multiple comparisons" in line)
    metrics, choices = 6, 2
    # slopes on three axes of two architectures, six sizes and their mean, equal loss; ratios on two axes where bounded
    least = choices * metrics * (3 * 2 + 6 + 1 + 1)
    assert least <= int(line.split("comparisons: ")[1].split()[0]) <= least + choices * 2 * 2


def test_a_study_of_one_size_is_reported_and_drawn(tmp_path):
    study = made_study(SHARES, DISTANCES, NUMBERS, sizes={"60k": 6.2e4}, seeds=(0,))
    study["cells"][0]["shares"]["copied"] = share(0, 0)
    found = analyse(study, resamples=50)
    text = report(study, found)
    assert "fewer than 3 sizes" in text
    assert "at equal validation loss: not identified" in text
    draw_figures(found, tmp_path)


def test_the_figures_look_as_they_should(tmp_path, analysis, assert_looks_like):
    draw_figures(analysis, tmp_path)
    assert (
        {path.stem for path in tmp_path.glob("*.png")} == {path.stem for path in tmp_path.glob("*.svg")} == set(FIGURES)
    )
    assert_looks_like(tmp_path / "abilities.png", "abilities")
