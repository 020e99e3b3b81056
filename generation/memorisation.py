"""What a generated tune has copied from the training set, measured so that human tunes can stand beside it.

After the originality report of Yin, Reuben, Stepney & Collins (2022, https://doi.org/10.1007/s42979-022-01220-y): only
what goes beyond the sharing among human tunes is a copy. A melody is its intervals in semitones, so that neither key
nor rhythm nor bar lines hide a copy. Matches are exact and lie within one training tune.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from generation.quality import Share
from preprocessing.notation import judge

SEED = 9  # notes whose 8 intervals fill a 64-bit word: equal words are equal melodies, nothing is hashed
LARGEST = 126  # semitones; a larger interval matches nothing
TRAINING_WALL, SAMPLE_WALL = 0, 255  # neither is an interval, and they differ: no match goes over a tune's edge

NGRAMS = (5, 7, 9, 12, 16)  # notes
OVERLAP = 9  # the n-grams of the summary: human tunes share 38 % of them, so it can move both ways
LONG_RUN = 17  # notes; in 95 % of the human validation tunes the longest run is shorter

# A tune is copied if it follows one training tune at one offset in ALIGNED of its 9-note runs (one run of 18 notes, or
# several between changed notes) that are ALIGNED_SHARE of all it has, or if one run is nearly the whole of it. Of the
# human validation tunes 1.2 % are, some of them under the same title as the training tune that is named.
ALIGNED, ALIGNED_SHARE, WHOLE = 10, 0.2, 0.9


@dataclass(frozen=True)
class Trace:
    """What one tune shares with the training set; runs are in notes, sources are indices of training tunes.

    `long_runs` is the share of its notes in runs of LONG_RUN notes or more, `ngrams` the share of its runs of n notes
    that stand in the training set (None where it has fewer notes), `aligned` the number of its 9-note runs that stand
    in one training tune, `aligned_source`, all at the same offset. Of equal training melodies the first is named.
    """

    notes: int
    longest_run: int
    source: int | None
    long_runs: float
    ngrams: dict[int, float | None]
    aligned: int
    aligned_source: int | None

    @property
    def copied(self) -> bool:
        runs = self.notes - SEED + 1
        whole = self.longest_run >= max(SEED, WHOLE * self.notes)
        return whole or self.aligned >= max(ALIGNED, ALIGNED_SHARE * runs)

    def as_dict(self) -> dict[str, Any]:
        return {**asdict(self), "ngrams": {str(n): share for n, share in self.ngrams.items()}, "copied": self.copied}


class Memory:
    """The training melodies, sorted by what stands at each of their notes; built once, asked many times.

    Takes 12 bytes a note of different melodies, and about twice that while it is built.
    """

    def __init__(self, tunes: Iterable[Sequence[int]]) -> None:
        """Sort the melodies of `tunes`, each its pitches as MIDI numbers."""
        first: dict[bytes, int] = {}
        for i, pitches in enumerate(tunes):
            first.setdefault(_steps(pitches, TRAINING_WALL).tobytes(), i)
        self._indices = np.array([*first.values()], np.int64)
        self._starts = np.cumsum([0, *map(len, first)])[:-1]
        words = _words(np.frombuffer(b"".join(first), np.uint8), TRAINING_WALL)
        self._places = np.argsort(words).astype(np.int32)
        self._words = words[self._places]

    def recall(self, pitches: Sequence[int]) -> Trace:
        """Return what a melody shares with the training melodies."""
        words = _words(_steps(pitches, SAMPLE_WALL), SAMPLE_WALL)
        notes, seeds = len(pitches), max(0, len(pitches) - SEED + 1)
        start, length, place = self._runs(words[:seeds])
        found = {n: self._holds(words, n) for n in range(2, SEED + 1)}
        found |= {n: _covered(start, length - n + 1, notes) for n in NGRAMS if n > SEED}
        short = max((n for n in range(2, SEED) if found[n].any()), default=min(notes, 1))
        longest = int(length.argmax()) if len(length) else None
        aligned, aligned_place = self._alignment(start, length - SEED + 1, place)
        return Trace(
            notes,
            short if longest is None else int(length[longest]),
            None if longest is None else self._tune(place[longest]),
            float(_covered(start, np.where(length >= LONG_RUN, length, 0), notes).mean()) if notes else 0.0,
            {n: float(found[n][: notes - n + 1].mean()) if n <= notes else None for n in NGRAMS},
            aligned,
            None if aligned_place is None else self._tune(aligned_place),
        )

    def _holds(self, words: np.ndarray, notes: int) -> np.ndarray:
        """Return where the training set holds the first `notes` notes of a word: [words], bool."""
        rest = np.uint64(2 ** (8 * (SEED - notes)) - 1)
        low = np.searchsorted(self._words, words & ~rest)
        high = np.searchsorted(self._words, words | rest, side="right")
        found: np.ndarray = low < high
        return found

    def _runs(self, words: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return the longest common runs of SEED notes or more: first note, length in notes, training place: [runs].

        They are in the order of their offset to the training set, then of their first note.
        """
        low = np.searchsorted(self._words, words)
        counts = np.searchsorted(self._words, words, side="right") - low
        note = np.repeat(np.arange(len(words)), counts)
        nth = np.arange(len(note)) - np.repeat(np.cumsum(counts) - counts, counts)
        # Neighbours in a run have the same offset and next notes: numbers that follow each other.
        base = len(words) + 1
        met = np.sort((self._places[low[note] + nth] - note + base) * base + note)
        edge = np.flatnonzero(np.diff(met, prepend=-2, append=-2) != 1)
        first = met[edge[:-1]]
        start = first % base
        return start, np.diff(edge) + SEED - 1, first // base - base + start

    def _alignment(self, start: np.ndarray, seeds: np.ndarray, place: np.ndarray) -> tuple[int, int | None]:
        """Return the most seeds in one training tune at one offset, and a place in that tune."""
        if not len(start):
            return 0, None
        tune = np.searchsorted(self._starts, place, side="right")
        edge = (np.diff(place - start, prepend=-1 - place.max()) != 0) | (np.diff(tune, prepend=0) != 0)
        together = np.add.reduceat(seeds, np.flatnonzero(edge))
        best = int(together.argmax())
        return int(together[best]), int(place[edge][best])

    def _tune(self, place: int) -> int:
        return int(self._indices[np.searchsorted(self._starts, place, side="right") - 1])


def _steps(pitches: Sequence[int], wall: int) -> np.ndarray:
    """Return a melody's intervals as bytes with a wall behind them: [notes], uint8."""
    steps = np.append(np.diff(np.asarray(pitches, np.int64)), 2 * LARGEST)
    return np.where(abs(steps) <= LARGEST, steps + 128, wall).astype(np.uint8)


def _words(steps: np.ndarray, wall: int) -> np.ndarray:
    """Return the intervals from each note on, the first in the highest byte: [steps], uint64."""
    padded = np.append(steps, np.full(SEED - 2, wall, np.uint8))
    windows = np.ascontiguousarray(sliding_window_view(padded, SEED - 1))
    return windows.view(">u8")[:, 0].astype(np.uint64)


def _covered(start: np.ndarray, length: np.ndarray, size: int) -> np.ndarray:
    """Return which of `size` places lie in a stretch; stretches of no or negative length cover none: [size], bool."""
    length = np.maximum(length, 0)
    edges = np.bincount(start, minlength=size + 1) - np.bincount(start + length, minlength=size + 1)
    covered: np.ndarray = np.cumsum(edges)[:size] > 0
    return covered


def summarise(traces: Sequence[Trace], resamples: int = 1000, seed: int = 0) -> dict[str, Any]:
    """Return the share of copied tunes and the numbers over all tunes, with 95 % bootstrap intervals over tunes.

    `longest_copied_run`: median, notes; `long_runs` and `ngram_overlap` (of OVERLAP notes): means of the tunes' shares.
    A tune too short for an n-gram does not count in its mean; None where all are.
    """
    overlaps = {n: [trace.ngrams[n] for trace in traces] for n in NGRAMS}
    return {
        "copied": Share(sum(trace.copied for trace in traces), len(traces)).as_dict(),
        "longest_copied_run": _interval(np.median, [trace.longest_run for trace in traces], resamples, seed),
        "long_runs": _interval(np.mean, [trace.long_runs for trace in traces], resamples, seed),
        "ngram_overlap": _interval(np.mean, overlaps[OVERLAP], resamples, seed),
        "ngram_overlaps": {str(n): _interval(np.mean, overlaps[n], resamples, seed) for n in NGRAMS},
    }


def _interval(
    statistic: Callable[..., Any], values: Iterable[float | None], resamples: int, seed: int
) -> dict[str, Any]:
    """Return a statistic of the values that are known, with its 95 % percentile interval."""
    known = np.array([value for value in values if value is not None], float)
    if not known.size:
        return {"value": None, "interval": None}
    draws = np.random.default_rng(seed).integers(known.size, size=(resamples, known.size))
    low, high = np.percentile(statistic(known[draws], axis=1), [2.5, 97.5])
    return {"value": float(statistic(known)), "interval": (float(low), float(high))}


def originality(samples: Sequence[str], training: Sequence[str]) -> dict[str, Any]:
    """Return what `summarise` says of `samples` against `training`, both ABC texts, and each sample's trace."""
    memory = Memory(judge(text).pitches for text in training)
    traces = [memory.recall(judge(text).pitches) for text in samples]
    return {**summarise(traces), "tunes": [trace.as_dict() for trace in traces]}
