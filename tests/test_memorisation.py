"""Copies of training melodies: runs, n-grams and alignments, against trying every place."""

import json
from itertools import pairwise

import numpy as np
import pytest

from generation.memorisation import NGRAMS, Memory
from generation.shares import originality, summarise


def melody(notes, seed=1, start=1000):
    """Return a random melody, by default one that no training tune leads to: the step to it is too large."""
    return (start + np.cumsum(np.random.default_rng([notes, seed]).integers(-7, 8, size=notes))).tolist()


TRAINING = [melody(notes, seed=0, start=60) for notes in (40, 80, 9, 120, 60, 25)]
MEMORY = Memory(TRAINING)


def steps(pitches):
    return [after - before for before, after in pairwise(pitches)]


def holds(tune, run):
    """Whether a training tune holds a run of intervals, by trying each place."""
    found = steps(tune)
    return any(found[i : i + len(run)] == run for i in range(len(found) - len(run) + 1))


def longest_by_trying(pitches):
    wanted = steps(pitches)
    runs = [wanted[a:b] for a in range(len(wanted)) for b in range(a + 1, len(wanted) + 1)]
    return 1 + max(len(run) for run in runs if any(holds(tune, run) for tune in TRAINING))


@pytest.mark.parametrize("seed", range(6))
def test_runs_and_overlaps_are_those_that_trying_every_place_finds(seed):
    other = np.random.default_rng(seed)
    source = TRAINING[seed]
    start = int(other.integers(len(source) - 8))
    pitches = [*melody(6), *(pitch + 5 for pitch in source[start : start + int(other.integers(2, 20))]), *melody(7)]
    trace = MEMORY.recall(pitches)
    assert trace.notes == len(pitches)
    assert trace.longest_run == longest_by_trying(pitches)
    for n in NGRAMS:
        runs = [steps(pitches[i : i + n]) for i in range(len(pitches) - n + 1)]
        expected = sum(any(holds(tune, run) for tune in TRAINING) for run in runs) / len(runs) if runs else None
        assert trace.ngrams[n] == (None if expected is None else pytest.approx(expected))


@pytest.mark.parametrize("source", range(len(TRAINING)))
def test_a_whole_tune_is_found_in_any_key_and_names_its_source(source):
    trace = MEMORY.recall([pitch - 7 for pitch in TRAINING[source]])
    assert trace.longest_run == trace.notes == len(TRAINING[source])
    assert (trace.source, trace.aligned_source) == (source, source)
    assert trace.copied
    assert set(trace.ngrams.values()) <= {1.0, None}
    again = Memory([melody(30), TRAINING[source], [pitch + 3 for pitch in TRAINING[source]]])
    assert again.recall(TRAINING[source]).source == 1  # the first of equal melodies


@pytest.mark.parametrize("pitches", [[*TRAINING[1][:40], *melody(40)], [*melody(40), *TRAINING[1][:40]]])
def test_half_a_tune_is_a_copy_and_half_of_the_new_tune(pitches):
    trace = MEMORY.recall(pitches)
    assert (trace.copied, trace.aligned_source) == (True, 1)
    assert trace.long_runs == pytest.approx(0.5, abs=0.03)


def test_a_tune_with_a_few_changed_notes_is_a_copy():
    pitches = [*TRAINING[4]]
    for place in (13, 27, 41, 55):
        pitches[place] += 2
    trace = MEMORY.recall(pitches)
    assert (trace.longest_run, trace.copied, trace.aligned_source) == (13, True, 4)


def test_a_new_tune_is_not_a_copy_and_neither_is_a_mosaic_of_short_runs():
    assert not MEMORY.recall(melody(80)).copied
    mosaic = [pitch for tune in TRAINING[:2] for i in (0, 20) for pitch in tune[i : i + 12]]
    trace = MEMORY.recall(mosaic)
    assert trace.longest_run >= 12
    assert not trace.copied


@pytest.mark.parametrize(("shared", "copied"), [(17, False), (18, True)])
def test_a_run_as_human_tunes_share_it_is_not_a_copy_even_in_a_short_tune(shared, copied):
    trace = MEMORY.recall([*TRAINING[1][:shared], *melody(10)])
    assert (trace.longest_run, trace.aligned) == (shared, shared - 8)
    assert trace.copied == copied
    assert not MEMORY.recall([*TRAINING[1][:shared], *melody(80)]).copied


def test_runs_at_different_offsets_are_not_aligned():
    first, last = melody(9), melody(9, seed=2)
    trace = Memory([[*first, 4, 4, 4, 4, *last]]).recall([*first, 5, 5, 5, 5, 5, *last])
    assert (trace.longest_run, trace.aligned) == (9, 1)


def test_no_match_and_no_alignment_crosses_the_edge_of_a_training_tune():
    joined = [*TRAINING[0], *(pitch - TRAINING[1][0] + TRAINING[0][-1] + 3 for pitch in TRAINING[1])]
    assert MEMORY.recall(joined).longest_run == 80
    two = Memory([TRAINING[0][:16], TRAINING[0][16:32], TRAINING[3][:16]])
    trace = two.recall(TRAINING[0][:32])
    assert (trace.longest_run, trace.aligned) == (16, 8)


def test_intervals_too_large_for_a_byte_match_nothing():
    wide = [0, 200, 0, 300, *TRAINING[0][:5]]
    assert Memory([wide]).recall([0, 250, 0, 350, *TRAINING[0][:5]]).longest_run == 5
    assert Memory([wide]).recall(wide).longest_run == 5


@pytest.mark.parametrize("notes", [0, 1, 2])
def test_tunes_of_hardly_any_notes_are_not_copies(notes):
    trace = MEMORY.recall([60] * notes)
    assert (trace.notes, trace.copied, trace.ngrams[5]) == (notes, False, None)
    assert trace.longest_run <= notes


TUNE = "X:1\nM:4/4\nL:1/8\nK:G\nGABc dedB|c2ec B2dB|ABcA GABG|FGAF D4|GABc d2ef|g2fe d2cB|c2A2 F2D2|G4 z4|]"
DISGUISED = "X:9\nM:3/4\nL:1/4\nR:waltz\nK:A\nABc|d3/2e/f|ec|d f d|c e c|Bcd|B A B c|A GA B|G E A B|c de2|\n"
DISGUISED += "fga|gf e|d c d|B GE|A2|]"
UNRELATED = "X:1\nM:3/4\nL:1/4\nK:Dm\nDAF|EcA|GdB|AFD|^cEG|AeC|BGE|DFd|]"


def test_originality_reads_abc_in_other_keys_rhythms_and_bars_and_is_plain_json():
    report = originality([DISGUISED, UNRELATED, "nonsense"], [UNRELATED.replace("K:Dm", "K:Cm"), TUNE])
    copy, other, nothing = report["tunes"]
    assert (copy["copied"], copy["source"], copy["longest_run"]) == (True, 1, copy["notes"])
    assert (other["copied"], nothing["copied"]) == (False, False)
    assert (nothing["notes"], nothing["source"]) == (0, None)
    assert (report["copied"]["count"], report["copied"]["total"]) == (1, 3)
    assert json.loads(json.dumps(report))["tunes"] == report["tunes"]


def test_a_summary_has_intervals_around_its_values_and_leaves_out_unknown_values():
    traces = [MEMORY.recall(melody(30, seed)) for seed in range(1, 21)] + [MEMORY.recall(TRAINING[3])]
    summary = summarise(traces, resamples=200)
    assert summary["copied"]["count"] == 1
    for name in ("longest_copied_run", "long_runs", "ngram_overlap"):
        low, high = summary[name]["interval"]
        assert low <= summary[name]["value"] <= high
    assert summary["longest_copied_run"]["value"] == np.median([trace.longest_run for trace in traces])
    assert summarise([MEMORY.recall([60, 62])])["ngram_overlap"] == {"value": None, "interval": None}
    assert summary == summarise(traces, resamples=200)
