"""How much of a tune is copied from the training set, in any key and rhythm.

After the originality report of Yin, Reuben, Stepney & Collins (2022, https://doi.org/10.1007/s42979-022-01220-y): only
more than human tunes share with each other is a copy. A melody is its intervals in semitones, so neither key, rhythm
nor bar lines hide a copy. Matches are exact and within one training tune.
"""

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

SEED = 9  # notes whose 8 intervals fill a 64-bit word: equal words are equal melodies, nothing is hashed
LARGEST = 126  # semitones; a larger interval matches nothing
TRAINING_END, SAMPLE_END = 0, 255  # no intervals, and different: no match crosses the end of a tune

NGRAMS = (5, 7, 9, 12, 16)  # notes
LONG_RUN = 17  # notes; in 95 % of the human validation tunes the longest run is shorter

# A tune is copied if it follows one training tune at one offset in ALIGNED of its 9-note runs (one run of 18 notes, or
# several between changed notes) that are ALIGNED_SHARE of its runs, or if one run is nearly the whole tune. By this
# rule 1.2 % of the human validation tunes are copied, some with the same title as the training tune.
ALIGNED, ALIGNED_SHARE, WHOLE = 10, 0.2, 0.9


@dataclass(frozen=True)
class Trace:
    """What a tune shares with the training set; runs are in notes, sources are indices of training tunes.

    `long_runs`: share of its notes in runs of LONG_RUN notes or more. `ngrams`: share of its runs of n notes that are
    in the training set, None for shorter tunes. `aligned`: the most of its SEED-note runs that are in one training
    tune, `aligned_source`, at one offset. Of equal training melodies the first is the source.
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
        return {**asdict(self), "ngrams": {str(n): value for n, value in self.ngrams.items()}, "copied": self.copied}


class Memory:
    """An index of the training melodies, sorted by the SEED notes that begin at each note.

    Takes 12 bytes a note of different melodies, about twice that while it is built.
    """

    def __init__(self, tunes: Iterable[Sequence[int]]) -> None:
        """Index `tunes`, each the MIDI pitches of a melody."""
        first: dict[bytes, int] = {}
        for i, pitches in enumerate(tunes):
            first.setdefault(_steps(pitches, TRAINING_END).tobytes(), i)
        self._indices = np.array([*first.values()], np.int64)
        self._starts = np.cumsum([0, *map(len, first)])[:-1]
        words = _words(np.frombuffer(b"".join(first), np.uint8), TRAINING_END)
        self._positions = np.argsort(words).astype(np.int32)
        self._words = words[self._positions]

    def recall(self, pitches: Sequence[int]) -> Trace:
        """Return what a melody shares with the training melodies."""
        words = _words(_steps(pitches, SAMPLE_END), SAMPLE_END)
        notes, seeds = len(pitches), max(0, len(pitches) - SEED + 1)
        start, length, position = self._runs(words[:seeds])
        found = {n: self._holds(words, n) for n in range(2, SEED + 1)}
        found |= {n: _covered(start, length - n + 1, notes) for n in NGRAMS if n > SEED}
        short = max((n for n in range(2, SEED) if found[n].any()), default=min(notes, 1))
        longest = int(length.argmax()) if len(length) else None
        aligned, aligned_position = self._alignment(start, length - SEED + 1, position)
        return Trace(
            notes,
            short if longest is None else int(length[longest]),
            None if longest is None else self._tune(position[longest]),
            float(_covered(start, np.where(length >= LONG_RUN, length, 0), notes).mean()) if notes else 0.0,
            {n: float(found[n][: notes - n + 1].mean()) if n <= notes else None for n in NGRAMS},
            aligned,
            None if aligned_position is None else self._tune(aligned_position),
        )

    def _holds(self, words: np.ndarray, notes: int) -> np.ndarray:
        """Return whether the first `notes` notes of each word are in the training set: [words], bool."""
        rest = np.uint64(2 ** (8 * (SEED - notes)) - 1)
        low = np.searchsorted(self._words, words & ~rest)
        high = np.searchsorted(self._words, words | rest, side="right")
        found: np.ndarray = low < high
        return found

    def _runs(self, words: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return the longest common runs of SEED notes or more: first note, length in notes, training position: [runs].

        They are in the order of their offset to the training set, then of their first note.
        """
        low = np.searchsorted(self._words, words)
        counts = np.searchsorted(self._words, words, side="right") - low
        note = np.repeat(np.arange(len(words)), counts)
        nth = np.arange(len(note)) - np.repeat(np.cumsum(counts) - counts, counts)
        # Neighbours in a run have the same offset and consecutive notes: consecutive numbers.
        base = len(words) + 1
        met = np.sort((self._positions[low[note] + nth] - note + base) * base + note)
        edge = np.flatnonzero(np.diff(met, prepend=-2, append=-2) != 1)
        first = met[edge[:-1]]
        start = first % base
        return start, np.diff(edge) + SEED - 1, first // base - base + start

    def _alignment(self, start: np.ndarray, seeds: np.ndarray, position: np.ndarray) -> tuple[int, int | None]:
        """Return the most seeds in one training tune at one offset, and a position in that tune."""
        if not len(start):
            return 0, None
        tune = np.searchsorted(self._starts, position, side="right")
        edge = (np.diff(position - start, prepend=-1 - position.max()) != 0) | (np.diff(tune, prepend=0) != 0)
        together = np.add.reduceat(seeds, np.flatnonzero(edge))
        best = int(together.argmax())
        return int(together[best]), int(position[edge][best])

    def _tune(self, position: int) -> int:
        return int(self._indices[np.searchsorted(self._starts, position, side="right") - 1])


def describe_copy(trace: Trace, training: Any) -> str:
    """Return what a tune shares with the training tune that it copies, or else shares most with.

    `training` are the rows of the training tunes, with `title` and `file`.
    """
    source, shared = trace.source, f"{trace.longest_run} notes in a row"
    if trace.copied and trace.aligned_source not in (None, source):
        source, shared = trace.aligned_source, f"{trace.aligned} aligned runs of {SEED} notes"
    if source is None:
        return f"at most {shared} of any training tune"
    return f"{shared} of {training[source]['title'] or 'an untitled tune'} ({training[source]['file']})"


def _steps(pitches: Sequence[int], end: int) -> np.ndarray:
    """Return a melody's intervals as bytes, followed by `end`: [notes], uint8."""
    steps = np.append(np.diff(np.asarray(pitches, np.int64)), 2 * LARGEST)
    return np.where(abs(steps) <= LARGEST, steps + 128, end).astype(np.uint8)


def _words(steps: np.ndarray, end: int) -> np.ndarray:
    """Return the intervals from each note on, the first in the highest byte: [steps], uint64."""
    padded = np.append(steps, np.full(SEED - 2, end, np.uint8))
    windows = np.ascontiguousarray(sliding_window_view(padded, SEED - 1))
    return windows.view(">u8")[:, 0].astype(np.uint64)


def _covered(start: np.ndarray, length: np.ndarray, size: int) -> np.ndarray:
    """Return which of `size` positions are in a stretch; stretches of length 0 or less cover none: [size], bool."""
    length = np.maximum(length, 0)
    edges = np.bincount(start, minlength=size + 1) - np.bincount(start + length, minlength=size + 1)
    covered: np.ndarray = np.cumsum(edges)[:size] > 0
    return covered
