"""Distances between sets of tunes: what is counted, their values, intervals and the baseline of training tunes."""

import json

import numpy as np
import pytest

from generation.distances import (
    DURATIONS,
    FEATURES,
    METRES,
    ORDINAL,
    baseline_distances,
    distance,
    distances,
    features,
)


def tune(body, key="C", metre="4/4"):
    return f"X:1\nM:{metre}\nL:1/8\nK:{key}\n{body}"


def counted(name, *texts):
    """Return the categories that occur, with their counts over all tunes."""
    counts = features(texts)[name].sum(axis=0)
    return {int(category): int(counts[category]) for category in np.flatnonzero(counts)}


def random_tunes(count, seed, letters="CDEFGABc", bars=8):
    draw = np.random.default_rng(seed)
    bodies = ["|".join("".join(draw.choice(list(letters), 8)) for _ in range(bars)) for _ in range(count)]
    return [tune(body) for body in bodies]


# What is counted


def test_pitch_classes_are_counted_from_the_tonic_of_their_bar():
    assert counted("pitch_class", tune("C2D2e2c2|", "C")) == {0: 2, 2: 1, 4: 1}
    assert counted("pitch_class", tune("A2c2|", "Am")) == {0: 1, 3: 1}
    assert counted("pitch_class", tune("D2F2|", "Ddor")) == {0: 1, 3: 1}
    assert counted("pitch_class", tune("C8|[K:D]D8|")) == {0: 2}
    assert counted("pitch_class", tune("C8|", "none")) == {}


def test_intervals_are_steps_of_the_highest_voice_within_each_part():
    unison = 13
    assert counted("interval", tune("C2E2D2D2|")) == {unison + 4: 1, unison - 2: 1, unison: 1}
    assert counted("interval", tune("[CE]4[DG]4|")) == {unison + 3: 1}
    assert counted("interval", tune("C4z2-C2-|C8|")) == {unison: 1}
    assert counted("interval", tune("C,2c'2C,2|")) == {0: 1, 26: 1}
    assert counted("interval", tune("V:1\nC8|\nV:2\nc8|")) == {}


def test_durations_are_those_of_sounding_notes():
    named = {str(value): place for place, value in enumerate(DURATIONS)}
    assert counted("duration", tune("C4-|C4D2E2|(3CDEC>D")) == {
        named["1"]: 1,
        named["1/4"]: 2,
        named["1/12"]: 3,
        named["3/16"]: 1,
        named["1/16"]: 1,
    }
    assert counted("duration", tune("C7|")) == {len(DURATIONS): 1}


def test_notes_are_counted_in_the_bar_where_they_begin():
    assert counted("notes_per_bar", tune("C|C4-C4-|C8|z8|CDEFGABc|")) == {1: 2, 0: 2, 8: 1}
    assert counted("notes_per_bar", tune("C/" * 50)) == {32: 1}


def test_a_tune_has_one_length_one_key_and_one_metre():
    found = features([tune("C8|" * 8, "Am", "C|"), tune("C8|" * 16, "A", "2/2"), tune("C8|", "none", "13/8")])
    assert found["length"].argmax(axis=1).tolist() == [24, 32, 0]
    assert found["metre"].argmax(axis=1).tolist() == [METRES.index("2/2"), METRES.index("2/2"), len(METRES)]
    assert len(set(found["key"].argmax(axis=1))) == 3
    for name in ("length", "key", "metre"):
        assert found[name].sum(axis=1).tolist() == [1, 1, 1]


def test_keys_differ_by_tonic_and_mode_and_not_by_spelling():
    keys = ["C", "Cm", "Cdor", "Cmix", "Clyd", "Cphr", "Cloc", "D", "C#"]
    assert len(counted("key", *(tune("C8|", key) for key in keys))) == len(keys)
    assert len(counted("key", *(tune("C8|", key) for key in ("C#", "Db", "C# major")))) == 1


def test_the_readable_part_of_a_broken_tune_counts_and_without_notes_rows_are_zeros():
    assert counted("pitch_class", tune("C4§D4|")) == {0: 1, 2: 1}
    for name, counts in features(["", "no tune", tune(""), tune("z8|")]).items():
        assert counts.shape == (4, FEATURES[name])
        assert not counts.any()


# Distances


def test_distances_have_their_values():
    sample = features([tune("C2C2C2D2|"), tune("C2C2D2D2|")])
    reference = features([tune("C2C2C2E2|")])
    found = distances(sample, reference, 10)
    assert found["pitch_class"]["value"] == pytest.approx(0.5 * (1 / 8 + 3 / 8 + 2 / 8))  # 5/8, 3/8, 0; 3/4, 0, 1/4
    assert found["interval"]["value"] == pytest.approx(1 / 3)  # unison 4/6, second 2/6; unison 2/3, third 1/3
    assert found["notes_per_bar"]["value"] == 0


def test_an_ordinal_feature_is_compared_by_its_cumulated_shares():
    sample = features([tune("C8|C4C4|CDEF G4|CDEFGABc|")])  # 1, 2, 5, 8 notes
    reference = features([tune("C8|C4C4|C4C4|C4C4|")])  # 1, 2, 2, 2
    assert distances(sample, reference, 10)["notes_per_bar"]["value"] == pytest.approx(1 / 2)


@pytest.mark.parametrize("name", FEATURES)
def test_a_distance_is_0_to_itself_1_to_what_shares_nothing_and_the_same_both_ways(name):
    one, other, mixed = np.zeros((3, FEATURES[name]))
    one[0], other[-1], mixed[0], mixed[-1] = 5, 3, 1, 3
    assert distance(name, one, 7 * one) == 0
    assert distance(name, one, other) == 1
    assert distance(name, one, mixed) == distance(name, mixed, one) == pytest.approx(3 / 4)


def test_the_distance_of_an_ordinal_feature_is_never_above_total_variation():
    draw = np.random.default_rng(0)
    for name in ORDINAL:
        counts, reference = draw.integers(1, 9, (2, FEATURES[name])).astype(float)
        variation = np.abs(counts / counts.sum() - reference / reference.sum()).sum() / 2
        assert 0 < distance(name, counts, reference) <= variation


@pytest.mark.parametrize("shift", [-5, 1, 7])
def test_transposition_changes_the_key_and_nothing_else(shift):
    texts = random_tunes(10, 0)
    moved = [text.replace("K:C", f"K:C transpose={shift}") for text in texts]
    found = distances(features(moved), features(texts), 10)
    assert found.pop("key")["value"] == 1
    assert {row["value"] for row in found.values()} == {0}


def test_a_set_without_features_has_no_distance():
    empty, full = features(["", "no tune"]), features(random_tunes(3, 0))
    for found in (distances(empty, full, 10), distances(full, empty, 10)):
        assert {row["value"] for row in found.values()} == {None}
        assert json.dumps(found, allow_nan=False)
    mixed = distances(features(["", *random_tunes(3, 0)]), full, 10)
    assert {row["tunes"] for row in mixed.values()} == {3}


def test_intervals_hold_their_value_are_decided_by_the_seed_and_shrink_with_the_sample():
    reference = features(random_tunes(100, 0))
    small, large = (features(random_tunes(count, 1, "CCDEGABcc")) for count in (10, 160))
    first, again, other = (distances(small, reference, 200, seed) for seed in (0, 0, 1))
    assert first == again
    assert first != other
    for name in ("pitch_class", "interval"):
        low, high = first[name]["interval"]
        assert low < first[name]["value"] < high
        narrow = distances(large, reference, 200)[name]["interval"]
        assert narrow[1] - narrow[0] < (high - low) / 2


def test_intervals_cover_the_mean_distance_of_such_samples():
    population, reference = features(random_tunes(800, 0, "CCDEGAB")), features(random_tunes(100, 1))
    samples = [{name: counts[i : i + 20] for name, counts in population.items()} for i in range(0, 800, 20)]
    for name in ("pitch_class", "interval"):
        found = [distances(sample, reference, 200)[name] for sample in samples]
        mean = np.mean([row["value"] for row in found])
        covered = sum(row["interval"][0] <= mean <= row["interval"][1] for row in found)
        assert covered >= 34  # of 40: fewer by chance in 3 of 1,000


# The baseline of training tunes


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


def test_the_baseline_of_all_training_tunes_is_their_distance():
    training, reference = features(random_tunes(30, 0)), features(random_tunes(20, 1))
    found = baseline_distances(training, reference, 30, 3)
    for name, row in distances(training, reference, 10).items():
        assert found[name]["mean"] == pytest.approx(row["value"])


def test_a_baseline_without_a_feature_is_none_and_needs_enough_tunes():
    training = features([tune("C8|", "none")] * 4)
    assert baseline_distances(training, training, 2, 5)["pitch_class"] == {"mean": None, "interval": (0.0, 1.0)}
    with pytest.raises(ValueError, match="there are 4"):
        baseline_distances(training, training, 5)
