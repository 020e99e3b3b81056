"""Distances between sets of tunes: what is counted, their values, intervals and the baseline of training tunes."""

import json

import numpy as np
import pytest
from made_abc import tune

from generation.distances import DURATIONS, FEATURES, METRES, ORDINAL, baseline_distances, distance, distances, features

UNISON = 13
DURATION = {str(value): category for category, value in enumerate(DURATIONS)}


def random_tunes(count, seed, letters="CDEFGABc", bars=8):
    draw = np.random.default_rng(seed)
    bodies = ["|".join("".join(draw.choice(list(letters), 8)) for _ in range(bars)) for _ in range(count)]
    return [tune(body) for body in bodies]


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("pitch_class", tune("C2D2e2c2|", "C"), {0: 2, 2: 1, 4: 1}),
        ("pitch_class", tune("A2c2|", "Am"), {0: 1, 3: 1}),
        ("pitch_class", tune("D2F2|", "Ddor"), {0: 1, 3: 1}),
        ("pitch_class", tune("C8|[K:D]D8|"), {0: 2}),
        ("pitch_class", tune("C8|", "none"), {}),
        ("pitch_class", tune("C4§D4|"), {0: 1, 2: 1}),
        ("interval", tune("C2E2D2D2|"), {UNISON + 4: 1, UNISON - 2: 1, UNISON: 1}),
        ("interval", tune("[CE]4[DG]4|"), {UNISON + 3: 1}),
        ("interval", tune("C4z2-C2-|C8|"), {UNISON: 1}),
        ("interval", tune("C,2c'2C,2|"), {0: 1, 26: 1}),
        ("interval", tune("V:1\nC8|\nV:2\nc8|"), {}),
        ("duration", tune("C4-|C4D2E2|"), {DURATION["1"]: 1, DURATION["1/4"]: 2}),
        ("duration", tune("(3CDEC>D"), {DURATION["1/12"]: 3, DURATION["3/16"]: 1, DURATION["1/16"]: 1}),
        ("duration", tune("C7|"), {len(DURATIONS): 1}),
        ("notes_per_bar", tune("C|C4-C4-|C8|z8|CDEFGABc|"), {1: 2, 0: 2, 8: 1}),
        ("notes_per_bar", tune("C/" * 50), {32: 1}),
        ("length", tune("C8|" * 8), {24: 1}),
        ("length", tune("C8|" * 16), {32: 1}),
        ("metre", tune("C8|", metre="C|"), {METRES.index("2/2"): 1}),
        ("metre", tune("C8|", metre="13/8"), {len(METRES): 1}),
    ],
)
def test_notes_steps_bars_and_tunes_are_counted_by_category(name, text, expected):
    counts = features([text])[name]
    assert counts.shape == (1, FEATURES[name])
    assert {int(category): int(counts[0, category]) for category in np.flatnonzero(counts)} == expected


def test_keys_differ_by_tonic_and_mode_and_not_by_spelling():
    def categories(*keys):
        return set(features([tune("C8|", key) for key in keys])["key"].argmax(axis=1))

    assert len(categories("C", "Cm", "Cdor", "Cmix", "Clyd", "Cphr", "Cloc", "D", "C#", "none")) == 10
    assert len(categories("C#", "Db", "C# major")) == 1


def test_distances_have_their_values():
    sample = features([tune("C2C2C2D2|"), tune("C2C2D2D2|")])
    found = distances(sample, features([tune("C2C2C2E2|")]), 10)
    assert found["pitch_class"]["value"] == pytest.approx(0.5 * (1 / 8 + 3 / 8 + 2 / 8))  # 5/8, 3/8, 0; 3/4, 0, 1/4
    assert found["interval"]["value"] == pytest.approx(1 / 3)  # unison 4/6, second 2/6; unison 2/3, third 1/3
    assert found["notes_per_bar"]["value"] == 0
    ordinal = features([tune("C8|C4C4|CDEF G4|CDEFGABc|")]), features([tune("C8|C4C4|C4C4|C4C4|")])
    assert distances(*ordinal, 10)["notes_per_bar"]["value"] == pytest.approx(1 / 2)  # 1, 2, 5, 8 notes; 1, 2, 2, 2


@pytest.mark.parametrize("name", FEATURES)
def test_a_distance_is_0_to_itself_1_without_overlap_and_symmetric(name):
    one, other, mixed = np.zeros((3, FEATURES[name]))
    one[0], other[-1], mixed[0], mixed[-1] = 5, 3, 1, 3
    assert distance(name, one, 7 * one) == 0
    assert distance(name, one, other) == 1
    assert distance(name, one, mixed) == distance(name, mixed, one) == pytest.approx(3 / 4)
    draw = np.random.default_rng(0)
    counts, reference = draw.integers(1, 9, (2, FEATURES[name])).astype(float)
    variation = np.abs(counts / counts.sum() - reference / reference.sum()).sum() / 2
    found = distance(name, counts, reference)
    assert (0 < found <= variation) if name in ORDINAL else found == pytest.approx(variation)


@pytest.mark.parametrize("shift", [-5, 1, 7])
def test_transposition_changes_the_key_and_nothing_else(shift):
    texts = random_tunes(10, 0)
    moved = [text.replace("K:C", f"K:C transpose={shift}") for text in texts]
    found = distances(features(moved), features(texts), 10)
    assert found.pop("key")["value"] == 1
    assert {row["value"] for row in found.values()} == {0}


def test_a_set_without_notes_has_no_distance():
    empty, full = features(["", "no tune", tune("z8|")]), features(random_tunes(3, 0))
    for found in (distances(empty, full, 10), distances(full, empty, 10)):
        assert {row["value"] for row in found.values()} == {None}
        assert json.dumps(found, allow_nan=False)
    mixed = distances(features(["", *random_tunes(3, 0)]), full, 10)
    assert {row["tunes"] for row in mixed.values()} == {3}


def test_intervals_are_decided_by_the_seed_shrink_with_the_sample_and_cover_the_mean():
    population, reference = features(random_tunes(800, 0, "CCDEGAB")), features(random_tunes(100, 1))
    samples = [{name: counts[i : i + 20] for name, counts in population.items()} for i in range(0, 800, 20)]
    rows = [distances(sample, reference, 200) for sample in samples]
    large = distances(population, reference, 200)
    assert rows[0] == distances(samples[0], reference, 200, seed=0)
    assert rows[0] != distances(samples[0], reference, 200, seed=1)
    for name in ("pitch_class", "interval"):
        low, high = rows[0][name]["interval"]
        assert low < rows[0][name]["value"] < high
        assert np.ptp(large[name]["interval"]) < (high - low) / 2
        mean = np.mean([row[name]["value"] for row in rows])
        covered = sum(row[name]["interval"][0] <= mean <= row[name]["interval"][1] for row in rows)
        assert covered >= 34  # of 40: fewer by chance in 3 of 1,000


def test_the_baseline_falls_with_the_number_of_tunes_and_is_below_the_distance_of_other_tunes():
    training, reference = features(random_tunes(300, 0)), features(random_tunes(60, 1))
    small, large = (baseline_distances(training, reference, size, 100) for size in (10, 100))
    strange = distances(features(random_tunes(100, 2, "CEGc")), reference, 50)
    for name in ("pitch_class", "interval"):
        assert 0 < large[name]["mean"] < small[name]["mean"]
        low, high = large[name]["interval"]
        assert low < large[name]["mean"] < high < strange[name]["value"]
    assert small == baseline_distances(training, reference, 10, 100, seed=0)
    assert small != baseline_distances(training, reference, 10, 100, seed=1)
    whole = baseline_distances(training, reference, 300, 3)
    for name, row in distances(training, reference, 10).items():
        assert whole[name]["mean"] == pytest.approx(row["value"])


def test_a_baseline_without_a_feature_is_none_and_needs_enough_tunes():
    training = features([tune("C8|", "none")] * 4)
    assert baseline_distances(training, training, 2, 5)["pitch_class"] == {"mean": None, "interval": (0.0, 1.0)}
    with pytest.raises(ValueError, match="there are 4"):
        baseline_distances(training, training, 5)
