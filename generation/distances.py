"""Distances between two sets of tunes: how differently their pitches, rhythms, lengths, keys and metres fall.

Total variation where order tells nothing, Kolmogorov and Smirnov's distance where it does. Both are the largest
difference in probability that the two sets give to an event, any event or one of the kind "at most so many": 0 if the
distributions are equal, 1 if they share nothing.
"""

from collections.abc import Sequence
from fractions import Fraction
from itertools import pairwise
from math import log2
from typing import Any

import numpy as np
from numpy.typing import NDArray

from preprocessing.notation import KEY, MODE_SHIFT, sounding_tonic, transcribe

OCTAVE = 12
MOST_NOTES = 32  # in a bar
STEPS_PER_DOUBLING, DOUBLINGS = 8, 12  # of a tune's length
DURATIONS = [Fraction(1, below) for below in (32, 24, 16, 12, 8, 4, 2, 1)]
DURATIONS += [Fraction(3, below) for below in (32, 16, 8, 4, 2)] + [Fraction(5, 8), Fraction(2)]
METRES = [f"{beats}/4" for beats in (2, 3, 4, 5, 6)] + [f"{beats}/8" for beats in (3, 5, 6, 7, 9, 12)]
METRES += ["2/2", "3/2", "4/2", "6/2", "3/1", "4/1"]
ALIASES = {"C": "4/4", "C|": "2/2"}

# The number of categories of each feature. The last takes what no other does: of the bundled corpus one note in a
# thousand has another duration, two tunes in a hundred no metre or another.
FEATURES = {
    "pitch_class": OCTAVE,  # above the tonic, as `key` already tells which keys there are
    "interval": 2 * OCTAVE + 3,  # semitones from note to note; the first and the last are all above an octave
    "duration": len(DURATIONS) + 1,
    "notes_per_bar": MOST_NOTES + 1,
    "length": STEPS_PER_DOUBLING * DOUBLINGS + 1,  # notes of a tune, in steps of 9 %
    "key": OCTAVE * len(set(MODE_SHIFT.values())) + 1,  # tonic and mode
    "metre": len(METRES) + 1,
}
ORDINAL = ("notes_per_bar", "length")

Features = dict[str, NDArray[np.uint32]]


def key_category(key: str | None) -> int:
    """Return the place of a canonical key among all tonics and modes."""
    tonic, mode = sounding_tonic(key), (KEY.match(key or "")["mode"] or "").lower()[:3]  # type: ignore[index]
    if tonic is None or mode not in MODE_SHIFT:
        return FEATURES["key"] - 1
    return tonic + OCTAVE * (MODE_SHIFT[mode] - min(MODE_SHIFT.values()))


def place(value: Any, among: Sequence[Any]) -> int:
    """Return the place of a value in a list, the one behind its end if it is not there."""
    return among.index(value) if value in among else len(among)


def categories(text: str) -> dict[str, list[int]]:
    """Return the category of each note, step, bar or tune under each feature; nothing for a tune without notes."""
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
            found["duration"] += [place(note.duration, DURATIONS) for note in notes]
            found["notes_per_bar"].append(min(len(notes), MOST_NOTES))
        found["interval"] += [
            min(max(after - before, -OCTAVE - 1), OCTAVE + 1) + OCTAVE + 1 for before, after in pairwise(melody)
        ]
    found["length"] = [min(int(STEPS_PER_DOUBLING * log2(len(verdict.pitches))), FEATURES["length"] - 1)]
    found["key"] = [key_category(verdict.key)]
    found["metre"] = [place(ALIASES.get(verdict.metre or "", verdict.metre), METRES)]
    return found


def features(texts: Sequence[str]) -> Features:
    """Return how often each category occurs in each tune: [tunes, categories] for each feature.

    What can be read of a broken tune counts; one without a note gives rows of zeros.
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
    """Return for each feature the distance of a sample to a reference, its 95 % interval, and the tunes that it is of.

    The notes of all tunes are pooled. The interval is a bootstrap over the sample's tunes; the reference stays as it
    is. A resample lies farther off than the sample, by as much as the sample does for being finite, so the
    resamples are moved to have their mean at the value: the interval is for what samples of this size give on average,
    which is what `floors` are to be compared with. Where either set gives nothing the value is None.
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
        low, high = value + np.quantile(resampled, (0.025, 0.975)) - resampled.mean()
        interval = max(0.0, min(value, float(low))), min(1.0, max(value, float(high)))
        table[name] = {"value": value, "interval": interval, "tunes": tunes}
    return table


def floors(
    training: Features, reference: Features, size: int, draws: int = 1000, seed: int = 0
) -> dict[str, dict[str, Any]]:
    """Return the distance to the reference of `size` tunes of the training set, the mean and 95 % range over draws.

    A model whose tunes are like those that it learnt from gets no nearer. Where a draw or the reference gives nothing
    the mean is None. Raises ValueError if there are too few tunes.
    """
    tunes = len(training["key"])
    if size > tunes:
        raise ValueError(f"the floor of {size} tunes needs as many training tunes, and there are {tunes}")
    generator = np.random.default_rng(seed)
    chosen = [generator.choice(tunes, size, replace=False, shuffle=False) for _ in range(draws)]
    table: dict[str, dict[str, Any]] = {}
    for name in FEATURES:
        counts = np.stack([training[name][rows].sum(axis=0, dtype=np.float64) for rows in chosen])
        target = reference[name].sum(axis=0, dtype=np.float64)
        if not (counts.any(axis=1).all() and target.any()):
            table[name] = {"mean": None, "interval": (0.0, 1.0)}
            continue
        values = distance(name, counts, target)
        low, high = np.quantile(values, (0.025, 0.975))
        table[name] = {"mean": float(values.mean()), "interval": (float(low), float(high))}
    return table
