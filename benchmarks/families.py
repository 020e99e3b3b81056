"""What the search for near-duplicate tunes finds, and what it costs: python benchmarks/families.py

Planted variants of bundled tunes give the recall. Retrograde inversions (the same intervals in the opposite order)
give the precision: they are music of the same kind and variants of no tune, so a pair with one is a false alarm.
"""

import platform
import resource
import time
from collections import Counter
from collections.abc import Iterator

import numpy as np

from preprocessing.blocks import Reading
from preprocessing.cleaning import clean_tune, reason_to_drop
from preprocessing.families import (
    Families,
    Melody,
    assign,
    melody_of,
    shingles,
    similar_pairs,
)
from preprocessing.notation import judge, split_tunes
from preprocessing.sources import BUNDLED, fingerprint, read_source
from preprocessing.text_files import decode
from training.measurements import cpu_name

PLANTED = 1000
LARGE = (50_000, 200_000)


def bundled_tunes() -> tuple[list[list[int]], np.ndarray, list[list[int]]]:
    """Return the pitches of every bundled tune but exact duplicates, their characters and staff positions."""
    tunes: dict[str, tuple[list[int], list[int]]] = {}
    for block in read_source(BUNDLED, fingerprint(BUNDLED), Reading(), None, 1):
        for raw in split_tunes(decode(block).replace("\r\n", "\n")):
            clean = clean_tune(raw, "XRMLK")
            verdict = judge(clean.whole)
            if reason_to_drop(verdict, clean.ledger) is None:
                tunes[clean.text] = verdict.pitches, verdict.staff
    pitches, places = map(list, zip(*tunes.values(), strict=True))
    return pitches, np.array([len(text) for text in tunes]), places


def ornamented(pitches: list[int], share: float, draw: np.random.Generator) -> list[int]:
    """Return a melody with this share of its notes split, joined, turned or followed by a passing or escape note."""
    notes = len(pitches)
    kinds = np.full(notes, -1)
    chosen = draw.choice(notes, max(1, round(share * notes)), replace=False)
    kinds[chosen] = draw.integers(4, size=len(chosen))
    steps = draw.choice([-2, -1, 1, 2], notes).tolist()
    played: list[int] = []
    for pitch, after, kind, step in zip(pitches, [*pitches[1:], pitches[-1]], kinds.tolist(), steps, strict=True):
        if kind == 0 and abs(after - pitch) >= 3:
            played += [pitch, pitch + abs(step) * (1 if after > pitch else -1)]
        elif kind in (0, 1):
            played += [pitch, pitch + step, pitch]
        elif kind == 2:
            played += [pitch, pitch]
        elif kind == 3 and not (played and played[-1] == pitch):
            played += [pitch, pitch + step]
        elif kind == -1:
            played.append(pitch)
    return played


def variants(pitches: list[int], others: list[list[int]], draw: np.random.Generator) -> Iterator[tuple[str, list[int]]]:
    """Yield what players and editors do to a tune, by name; `others` are two other tunes. The rhythm is no pitch."""
    half, ending = len(pitches) // 2, max(2, len(pitches) // 8)
    written_out = pitches[:half] * 2 + pitches[half:] * 2
    yield "transposed, re-barred, other L:", [pitch + 5 for pitch in pitches]
    for share in (0.05, 0.1, 0.2):
        yield f"ornamented at {share:.0%} of the notes", ornamented(pitches, share, draw)
    yield "sections written out", written_out
    yield "written out, transposed, 10 % ornamented", [pitch - 3 for pitch in ornamented(written_out, 0.1, draw)]
    yield "parts exchanged", pitches[half:] + pitches[:half]
    yield "the last eighth replaced", pitches[:-ending] + others[0][-ending:]
    yield "the first half alone", pitches[:half]
    yield "in a medley between two others", others[0] + pitches + others[1]


def recall_and_false_alarms(tunes: list[list[int]], planted: int, seed: int = 0) -> tuple[dict[str, float], float]:
    """Return the share found of each kind of variant, and the false alarms for all pairs of `tunes`."""
    draw = np.random.default_rng(seed)
    long_enough = [i for i, pitches in enumerate(tunes) if len(pitches) >= 16]
    sets = [shingles(pitches) for pitches in tunes]
    made: list[tuple[str, int]] = []
    for i in draw.choice(long_enough, planted, replace=False).tolist():
        for kind, pitches in variants(tunes[i], [tunes[j] for j in draw.choice(len(tunes), 2)], draw):
            made.append((kind, i))
            sets.append(shingles(pitches))
    found = set(map(tuple, similar_pairs(sets).tolist()))
    hits = Counter(kind for n, (kind, i) in enumerate(made, len(tunes)) if (i, n) in found)
    reversed_sets = [shingles([-pitch for pitch in reversed(pitches)]) for pitches in tunes]
    first, second = similar_pairs(sets[: len(tunes)] + reversed_sets).T
    alarms = (first < len(tunes)) & (second >= len(tunes)) & (second - first != len(tunes))
    return {kind: hits[kind] / planted for kind, _ in made}, int(alarms.sum()) / 2


def described(tunes: list[list[int]], places: list[list[int]] | None = None) -> list[Melody]:
    """Return what `assign` must know of the tunes and print the CPU seconds that it took."""
    start = time.process_time()
    melodies = [melody_of(pitches, staff=of) for pitches, of in zip(tunes, places or [[]] * len(tunes), strict=True)]
    print(f"    melody_of: {len(tunes):,} tunes in {time.process_time() - start:.1f} s of one core")
    return melodies


def assigned(melodies: list[Melody]) -> Families:
    """Return the families of tunes and print the CPU seconds and the memory that they took."""
    start = time.process_time()
    families = assign(melodies)
    seconds = time.process_time() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024  # kilobytes on Linux
    print(f"    assign: {len(melodies):,} tunes in {seconds:.1f} s of one core, {peak:,} MB at the peak so far")
    return families


def main() -> None:
    """Print all tables (about three minutes of one core)."""
    print(f"{cpu_name()}, Python {platform.python_version()}, numpy {np.__version__}")
    tunes, lengths, places = bundled_tunes()
    print("\nThe bundled corpus")
    families = assigned(described(tunes, places))
    characters: Counter[str | None] = Counter()
    for split, length in zip(families.splits, lengths.tolist(), strict=True):
        characters[split] += length
    total = sum(length for split, length in characters.items() if split is not None)
    for split, count in Counter(families.splits).most_common():
        print(f"    {split or 'dropped'}: {count:,} tunes, {characters[split] / total:.2%} of the characters kept")
    sizes = Counter(n for n, split in zip(families.names, families.splits, strict=True) if split is not None)
    print(f"    {len(sizes):,} families, the largest of {[size for _, size in sizes.most_common(5)]} tunes")
    for name, value in families.statistics.items():
        print(f"    {name}: {value:,}")

    recall, alarms = recall_and_false_alarms(tunes, PLANTED)
    print(f"\n{'planted variant':<45}found of {PLANTED:,}")
    for kind, share in recall.items():
        print(f"{kind:<45}{share:>8.1%}")
    print(f"false alarms expected among the corpus's similar pairs: {alarms:.0f}")

    print("\nVariants: every tune ornamented at 10 % of its notes, again and again")
    draw = np.random.default_rng(0)
    melodies = described([ornamented(tunes[i % len(tunes)], 0.1, draw) for i in range(LARGE[-1])])
    for count in LARGE:
        assigned(melodies[:count])
    print("\nEqual melodies: one tune in every key")
    assigned(described([[pitch + i % 12 for pitch in tunes[0]] for i in range(LARGE[-1])]))


if __name__ == "__main__":
    main()
