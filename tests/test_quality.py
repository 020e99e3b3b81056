"""The tiers of validity, and shares with their intervals."""

import json

import pytest

from generation.quality import MIN_NOTES, TIERS, Tier, describe_failure, first_failure, score_tune
from generation.shares import share, tier_shares

TUNE = "X:1\nM:4/4\nL:1/4\nK:C\nCDEF|GABc|cBAG|FEDC|CDEF|GABc|]"


@pytest.mark.parametrize(
    ("count", "total", "low", "high"),
    [(0, 10, 0.0, 0.2775), (10, 10, 0.7225, 1.0), (81, 263, 0.2553, 0.3662)],  # the last: Newcombe 1998, table I
)
def test_a_share_has_wilsons_published_interval(count, total, low, high):
    found = share(count, total)
    assert found["share"] == count / total
    assert found["interval"] == pytest.approx((low, high), abs=1e-4)


def test_a_share_of_nothing_is_unknown():
    found = share(0, 0)
    assert (found["share"], found["interval"]) == (None, (0.0, 1.0))
    assert json.dumps(found, allow_nan=False)


def test_a_tune_with_one_bad_bar_of_six_has_five_sixths_good_bars():
    score = score_tune(TUNE.replace("|GABc|c", "|GABcd|c"), ended=True)
    assert (score["no_errors"], score["bars_add_up"], score["valid"]) == (True, False, False)
    assert score["good_bars_share"] == pytest.approx(5 / 6)


@pytest.mark.parametrize(
    ("text", "first_failed"),
    [
        ("", "parses"),
        ("X:1\nM:4/4\nCDEF|", "parses"),
        ("X:1\nM:4/4\nK:C\n", "parses"),
        ("X:1\nM:4/4\nK:C\nz8|z8|", "parses"),
        ("X:1\nM:4/4\nK:soup\nCDEF|", "parses"),
        (TUNE.replace("cBAG", "cBA§G"), "no_errors"),
        (TUNE.replace("cBAG", "[cBAG"), "no_errors"),
        (TUNE.replace("cBAG", "cBA"), "bars_add_up"),
        ("X:1\nM:4/4\nL:1/4\nK:C\nCDEF|GABc|]", "enough_notes"),
        (TUNE.replace("|]", "|Z|z4|]"), "enough_notes"),
        (TUNE, "ended"),
    ],
)
def test_each_tier_stops_what_the_one_before_lets_through(text, first_failed):
    score = score_tune(text, ended=False)
    assert first_failure(score) == first_failed
    assert not score["valid"]


@pytest.mark.parametrize(("rests", "enough"), [("z4", True), ("z4|z4", False)])
def test_rests_may_take_a_sixth_of_the_time(rests, enough):
    score = score_tune(TUNE.replace("|GABc|]", f"|{rests}|]"), ended=True)
    assert score["notes"] == MIN_NOTES + 1
    assert score["enough_notes"] is score["valid"] is enough


def test_a_tune_counts_in_a_tier_only_if_it_passed_those_before():
    broken = TUNE.replace("cBAG", "cBA§G")
    scores = [score_tune(*tune) for tune in ((TUNE, True), (TUNE, False), (broken, True), ("", True))]
    table = tier_shares(scores)
    assert [table[tier]["count"] for tier in TIERS] == [3, 2, 2, 2, 1]
    assert table["valid"] == table["ended"]
    assert {row["total"] for row in table.values()} == {4}


def test_another_tier_is_counted_and_described(monkeypatch):
    score = score_tune(TUNE, ended=True)
    assert [*score][: len(TIERS)] == [*TIERS]
    monkeypatch.setitem(TIERS, "in_c", Tier("in C", "in another key"))
    scores = [score | {"in_c": in_c} for in_c in (True, False)]
    assert [describe_failure(each) for each in scores] == [None, "in another key"]
    assert tier_shares(scores)["valid"]["count"] == 1
