"""Distances between two sets of tunes: how their pitches, rhythms, lengths, keys and metres are distributed.

Total variation for categories without order, the Kolmogorov-Smirnov distance for ordered ones. Both are the largest
difference in probability that two distributions give to an event: 0 if they are equal, 1 if they share nothing.
"""

from collections.abc import Sequence
from fractions import Fraction
from itertools import pairwise
from math import log2
from typing import Any

import numpy as np
from numpy.typing import NDArray

from analysis.intervals import percentiles
from preprocessing.notation import KEY, MODE_SHIFT, sounding_tonic, transcribe

OCTAVE = 12
MOST_NOTES = 32  # in a bar
DRAWS = 1000  # of the baseline
STEPS_PER_DOUBLING, DOUBLINGS = 8, 12  # of a tune's length
DURATIONS = [Fraction(1, below) for below in (32, 24, 16, 12, 8, 4, 2, 1)]
DURATIONS += [Fraction(3, below) for below in (32, 16, 8, 4, 2)] + [Fraction(5, 8), Fraction(2)]
METRES = [f"{beats}/4" for beats in (2, 3, 4, 5, 6)] + [f"{beats}/8" for beats in (3, 5, 6, 7, 9, 12)]
METRES += ["2/2", "3/2", "4/2", "6/2", "3/1", "4/1"]
ALIASES = {"C": "4/4", "C|": "2/2"}

# The number of categories of each feature. The last holds all other values: in the bundled corpus 0.1 % of the
# durations and 2 % of the metres.
FEATURES = {
    "pitch_class": OCTAVE,  # above the tonic; `key` counts the keys
    "interval": 2 * OCTAVE + 3,  # semitones from note to note; the first and last are all above an octave
    "duration": len(DURATIONS) + 1,
    "notes_per_bar": MOST_NOTES + 1,
    "length": STEPS_PER_DOUBLING * DOUBLINGS + 1,  # notes of a tune, in steps of 9 %
    "key": OCTAVE * len(set(MODE_SHIFT.values())) + 1,  # tonic and mode
    "metre": len(METRES) + 1,
}
ORDINAL = ("notes_per_bar", "length")

Features = dict[str, NDArray[np.uint32]]


def key_category(key: str | None) -> int:
    """Return the category of a canonical key: its tonic and mode; the last for none."""
    tonic, mode = sounding_tonic(key), (KEY.match(key or "")["mode"] or "").lower()[:3]  # type: ignore[index]
    if tonic is None or mode not in MODE_SHIFT:
        return FEATURES["key"] - 1
    return tonic + OCTAVE * (MODE_SHIFT[mode] - min(MODE_SHIFT.values()))


def index_of(value: Any, among: Sequence[Any]) -> int:
    """Return the index of a value in a list, the length of the list if it is not there."""
    return among.index(value) if value in among else len(among)


def categories(text: str) -> dict[str, list[int]]:
    """Return the categories of each feature that occur in a tune, one a note, step, bar or tune; none without notes."""
    transcript = transcribe(text)
    verdict = transcript.verdict
    found: dict[str, list[int]] = {name: [] for name in FEATURES}
    if not verdict.pitches:
        return found
    for part in transcript.parts:
        melody = []  # the highest note of each chord
        for bar in part.bars:
            notes = [note for sound in bar.sounds for note in sound.struck]
            melody += [max(note.pitch for note in sound.struck) for sound in bar.sounds if sound.struck]
            tonic = sounding_tonic(bar.key)
            if tonic is not None:
                found["pitch_class"] += [(note.pitch - tonic) % OCTAVE for note in notes]
            found["duration"] += [index_of(note.duration, DURATIONS) for note in notes]
            found["notes_per_bar"].append(min(len(notes), MOST_NOTES))
        found["interval"] += [
            min(max(after - before, -OCTAVE - 1), OCTAVE + 1) + OCTAVE + 1 for before, after in pairwise(melody)
        ]
    found["length"] = [min(int(STEPS_PER_DOUBLING * log2(len(verdict.pitches))), FEATURES["length"] - 1)]
    found["key"] = [key_category(verdict.key)]
    found["metre"] = [index_of(ALIASES.get(verdict.metre or "", verdict.metre), METRES)]
    return found


def features(texts: Sequence[str]) -> Features:
    """Return how often each category occurs in each tune: [tunes, categories] for each feature.

    The readable part of a broken tune counts; a tune without a note gives rows of zeros.
    """
    counts = {name: np.zeros((len(texts), size), np.uint32) for name, size in FEATURES.items()}
    for row, text in enumerate(texts):
        for name, found in categories(text).items():
            counts[name][row] = np.bincount(found, minlength=FEATURES[name]) if found else 0
    return counts


def distance(name: str, counts: NDArray[np.float64], reference: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the distance of counts [..., categories] to those of a reference [categories]; neither is all zeros."""
    difference = counts / counts.sum(axis=-1, keepdims=True) - reference / reference.sum()
    if name in ORDINAL:
        return np.abs(difference.cumsum(axis=-1)).max(axis=-1)
    return np.abs(difference).sum(axis=-1) / 2


def distances(sample: Features, reference: Features, resamples: int = 1000, seed: int = 0) -> dict[str, dict[str, Any]]:
    """Return for each feature the distance of a sample to a reference, its 95 % interval, and the number of tunes.

    The notes of all tunes are pooled. The interval is a bootstrap over the sample's tunes. A resample is farther from
    the reference than the sample, by as much as the sample is for being finite, so the resamples are shifted to have
    their mean at the value: the interval is for the mean of samples of this size, as `baseline_distances` are. The
    value is None if either set has no such feature.
    """
    generator = np.random.default_rng(seed)
    table: dict[str, dict[str, Any]] = {}
    for name in FEATURES:
        counts = sample[name][sample[name].any(axis=1)].astype(np.float64)
        target = reference[name].sum(axis=0, dtype=np.float64)
        tunes = len(counts)
        if not (tunes and target.any()):
            table[name] = {"value": None, "interval": (0.0, 1.0), "tunes": 0}
            continue
        value = float(distance(name, counts.sum(axis=0), target))
        weights = generator.multinomial(tunes, np.full(tunes, 1 / tunes), resamples)
        resampled = distance(name, weights @ counts, target)
        low, high = percentiles(value + resampled - resampled.mean())
        interval = max(0.0, min(value, low or 0.0)), min(1.0, max(value, high or 0.0))
        table[name] = {"value": value, "interval": interval, "tunes": tunes}
    return table


def baseline_distances(training: Features, reference: Features, size: int) -> dict[str, dict[str, Any]]:
    """Return the distance of `size` training tunes to a reference: mean and 95 % range over DRAWS.

    This is the baseline that a perfect model reaches. The mean is None if a draw or the reference has no such feature.
    Raises ValueError if there are fewer than `size` training tunes.
    """
    tunes = len(training["key"])
    if size > tunes:
        raise ValueError(f"the baseline of {size} tunes needs as many training tunes, and there are {tunes}")
    generator = np.random.default_rng(0)
    chosen = [generator.choice(tunes, size, replace=False, shuffle=False) for _ in range(DRAWS)]
    table: dict[str, dict[str, Any]] = {}
    for name in FEATURES:
        counts = np.stack([training[name][rows].sum(axis=0, dtype=np.float64) for rows in chosen])
        target = reference[name].sum(axis=0, dtype=np.float64)
        if counts.any(axis=1).all() and target.any():
            values = distance(name, counts, target)
            table[name] = {"mean": float(values.mean()), "interval": percentiles(values)}
        else:
            table[name] = {"mean": None, "interval": (0.0, 1.0)}
    return table
