"""Families: tunes with the same melody are in the same split, so that no test melody was trained on.

A melody is the set of its shingles: runs of intervals, so that key, rhythm, bar lines and repeats do not matter.
MinHash finds the pairs that may be similar (Broder 1997, https://doi.org/10.1109/SEQUEN.1997.666900), exact counting
decides. A tune's split comes from the tune alone; where two similar tunes fall into different splits, one is dropped.
"""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from scipy.sparse import coo_matrix, csr_matrix
from scipy.sparse.csgraph import connected_components

SHARES = {"validation": 0.06, "test": 0.06}  # the rest trains; each stays above 5 % of the characters
KEEPING_ORDER = ("test", "validation", "train")  # of two similar tunes in different splits the later one is dropped

STEPS = 6  # intervals of a shingle of the melody itself
TURNS = 4  # intervals of a shingle of its turning points
TURN = 3  # semitones back that make a turn: passing and neighbour notes make none
PHRASE = 10  # intervals of the run that decides a split: longer ones are shared by fewer tunes, so splits stay even
MIN_OVERLAP = 1.5  # of similar tunes; benchmarks/families.py shows what it finds
BANDS, ROWS = 160, 2  # a pair of Jaccard index J becomes a candidate with probability 1 - (1 - J²)^160
BUCKET, REPRESENTATIVES = 32, 4  # in a larger bucket each is compared with the first 4: time and memory stay linear
CHUNK = 10_000  # pairs counted together, to bound memory

MULTIPLIERS = np.cumprod(np.full(PHRASE, 0x9E3779B97F4A7C15, np.uint64))


class Melody(NamedTuple):
    """What decides a tune's split and family.

    `group` names tunes that their source calls settings of one tune, `staff` those with the same steps on the staff,
    whatever the key signature.
    """

    name: str
    split: str
    shingles: np.ndarray
    group: str | None
    staff: str | None


@dataclass(frozen=True)
class Families:
    """Per tune its split (None: dropped) and its family's name, and the statistics: all counts are of tunes."""

    splits: list[str | None]
    names: list[str]
    statistics: dict[str, int]


def melody_hash(pitches: Sequence[int]) -> str:
    """Return 16 hex digits that name a melody: its steps in semitones, in any key and any rhythm."""
    steps = ",".join(str(after - before) for before, after in pairwise(pitches))
    return hashlib.sha256(steps.encode()).hexdigest()[:16]


def split_of(key: str) -> str:
    """Return the split of a key. It depends on the key alone, so that adding tunes never moves one."""
    place = int(hashlib.sha256(f"split {key}".encode()).hexdigest()[:8], 16) / 2**32
    for split, share in SHARES.items():
        if place < share:
            return split
        place -= share
    return "train"


def shingles(pitches: Sequence[int]) -> np.ndarray:
    """Return the hashes of a melody's short runs of intervals, sorted: [shingles], uint64.

    Runs of STEPS intervals between different neighbours, and of TURNS intervals between turning points: ornaments
    break many of the first and few of the second.
    """
    moving = _moving(pitches)
    return _distinct(np.concatenate([_runs(moving, STEPS), _runs(_turning_points(moving), TURNS)]))


def split_key(pitches: Sequence[int]) -> str:
    """Return what decides a melody's split: its run of PHRASE intervals with the smallest hash, if it has one.

    Two melodies share a key with the probability of the Jaccard index of their runs (min-wise hashing).
    """
    runs = _runs(_moving(pitches), PHRASE)
    return f"{runs[0]:016x}" if runs.size else melody_hash(pitches)


def melody_of(pitches: Sequence[int], group: str | None = None, staff: Sequence[int] = ()) -> Melody:
    """Return what `assign` must know of a tune. A group is in one split, whatever its melodies.

    `staff` are the staff positions of its notes, as written.
    """
    split = split_of(split_key(pitches) if group is None else f"group {group}")
    return Melody(melody_hash(pitches), split, shingles(pitches), group, melody_hash(staff) if staff else None)


def _moving(pitches: Sequence[int]) -> np.ndarray:
    """Return the pitches without immediate repetitions: [notes]."""
    line = np.asarray(pitches, dtype=np.int64)
    return line[np.diff(line, prepend=line[:1] - 1) != 0]


def _turning_points(line: np.ndarray) -> np.ndarray:
    """Return the first pitch, those from which a line turns back by TURN semitones, and the last extreme: [points]."""
    points = line[:1].tolist()
    low = high = points[0] if points else 0
    direction = 0
    for pitch in line.tolist():
        if direction >= 0 and high - pitch >= TURN:
            if direction:
                points.append(high)
            low, direction = pitch, -1
        elif direction <= 0 and pitch - low >= TURN:
            if direction:
                points.append(low)
            high, direction = pitch, 1
        low, high = min(low, pitch), max(high, pitch)
    return np.array([*points, low if direction < 0 else high], dtype=np.int64)


def _runs(line: np.ndarray, length: int) -> np.ndarray:
    """Return the hashes of the runs of `length` intervals of a line of pitches, sorted: [runs], uint64."""
    intervals = np.diff(line)
    if intervals.size < length:
        return np.zeros(0, np.uint64)
    hashes = np.correlate(intervals.astype(np.uint64), MULTIPLIERS[:length]) + np.uint64(length)
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):  # splitmix64: the smallest is random
        hashes = (hashes ^ (hashes >> np.uint64(shift))) * np.uint64(factor)
    return _distinct(hashes ^ (hashes >> np.uint64(31)))


def _distinct(values: np.ndarray) -> np.ndarray:
    """Return what np.unique returns, many times faster on small and on large arrays."""
    values = np.sort(values)
    return values[np.append(True, values[1:] != values[:-1])[: values.size]]


def similar_pairs(sets: Sequence[np.ndarray]) -> np.ndarray:
    """Return the pairs of similar melodies, by index, the smaller first: [pairs, 2].

    Similar: s³ / (a·b) >= MIN_OVERLAP for s shared shingles of a and b, which is s times their squared cosine. So a
    short tune must agree in nearly all, a long one in a part. A bucket of up to BUCKET tunes is compared in full; of a
    larger one each tune with the first REPRESENTATIVES, in the order given: what two others share may stay unseen.
    """
    large = [i for i, one in enumerate(sets) if len(one) >= MIN_OVERLAP]
    found = [_pairs([])]
    if large:
        indices, sizes = np.array(large), np.array([len(sets[i]) for i in large])
        table = _table([sets[i] for i in large])
        candidates = _candidates(_signatures(sets[i] for i in large))
        for start in range(0, len(candidates), CHUNK):
            pairs = candidates[start : start + CHUNK]
            shared = np.asarray(table[pairs[:, 0]].multiply(table[pairs[:, 1]]).sum(axis=1)).ravel()
            found.append(indices[pairs[shared**3 >= MIN_OVERLAP * sizes[pairs].prod(axis=1)]])
    return np.concatenate(found)


def _table(sets: Sequence[np.ndarray]) -> csr_matrix:
    """Return which shingles each set holds: [sets, different shingles]."""
    different, columns = np.unique(np.concatenate(sets), return_inverse=True)
    ends = np.cumsum([0, *map(len, sets)])
    return csr_matrix((np.ones(len(columns), np.int8), columns, ends), shape=(len(sets), len(different)))


def _signatures(sets: Iterator[np.ndarray]) -> np.ndarray:
    """Return the MinHash signatures: [sets, BANDS · ROWS], uint32."""
    from datasketch import MinHash  # half a second that worker processes need not pay

    upper_halves = ((shingles >> np.uint64(32)).tolist() for shingles in sets)
    hashes = MinHash.generator(upper_halves, num_perm=BANDS * ROWS, hashfunc=int, scheme="affine32")
    return np.stack([one.hashvalues for one in hashes])


def _candidates(signatures: np.ndarray) -> np.ndarray:
    """Return the pairs that share a bucket, as `similar_pairs` bounds them: [pairs, 2]."""
    tunes = len(signatures)
    keys = np.ascontiguousarray(signatures).view(np.uint64)  # a band's ROWS values as one: [tunes, BANDS]
    codes = np.zeros(0, np.int64)
    fresh: list[np.ndarray] = []
    for band in keys.T:
        fresh.append(_bucket_pairs(band) @ [tunes, 1])
        if sum(map(len, fresh)) > len(codes):
            codes, fresh = _distinct(np.concatenate([codes, *fresh])), []
    return np.stack(np.divmod(_distinct(np.concatenate([codes, *fresh])), tunes), axis=1)


def _bucket_pairs(keys: np.ndarray) -> np.ndarray:
    """Return the pairs of members with equal keys, the earlier first, as `similar_pairs` bounds them: [pairs, 2]."""
    order = np.argsort(keys, kind="stable")
    _, starts, sizes = np.unique(keys[order], return_index=True, return_counts=True)
    start, size = np.repeat(starts, sizes), np.repeat(sizes, sizes)  # of each member's bucket
    earlier = np.arange(len(keys)) - start
    compared = np.where(size <= BUCKET, earlier, np.minimum(earlier, REPRESENTATIVES))
    member = np.repeat(np.arange(len(keys)), compared)
    representative = start[member] + np.arange(len(member)) - np.repeat(np.cumsum(compared) - compared, compared)
    return np.stack([order[representative], order[member]], axis=1)


def assign(melodies: Sequence[Melody]) -> Families:
    """Return the split and the family of every tune.

    Of similar tunes in different splits the less held-out one is dropped: train gives way to validation, both to test.
    A family is what chains of similar tunes and groups hold together; its name is the smallest of its melodies'.
    """
    # Equal melodies of a split are one node. The held-out nodes come first, so that they represent their buckets.
    places = [(KEEPING_ORDER.index(melody.split), melody.name) for melody in melodies]
    nodes = sorted(set(places))
    index = {place: i for i, place in enumerate(nodes)}
    node = np.array([index[place] for place in places], np.int64)
    rank = np.array([rank for rank, _ in nodes], np.int64)
    sets = {place: melody.shingles for place, melody in zip(places, melodies, strict=True)}

    equal = [(index[r, name], index[rank, name]) for rank, name in nodes for r in range(rank) if (r, name) in index]
    similar = similar_pairs([sets[place] for place in nodes])
    found = np.concatenate([similar, _pairs(equal), _same_staff(melodies, node)])
    pairs = np.stack(np.divmod(_distinct(found @ [len(nodes), 1]), len(nodes)), axis=1)
    kept = kept_of(pairs, rank)
    members = [(melody.group, i) for melody, i in zip(melodies, node.tolist(), strict=True) if kept[i]]
    names = _family_names(nodes, pairs[kept[pairs].all(axis=1)], members)
    return Families(
        [melody.split if kept[i] else None for melody, i in zip(melodies, node, strict=True)],
        [names[i] for i in node],
        _statistics(node, pairs, rank, kept),
    )


def _same_staff(melodies: Sequence[Melody], node: np.ndarray) -> np.ndarray:
    """Return the pairs of nodes with the same steps on the staff, bounded as in `similar_pairs`: [pairs, 2]."""
    staffs = sorted({(i, melody.staff) for melody, i in zip(melodies, node.tolist(), strict=True) if melody.staff})
    keys = np.unique([staff for _, staff in staffs], return_inverse=True)[1]
    return np.array([i for i, _ in staffs], np.int64)[_bucket_pairs(keys)]


def kept_of(pairs: np.ndarray, rank: np.ndarray) -> np.ndarray:
    """Return who stays of the tunes with these places in KEEPING_ORDER: [tunes], bool.

    Of each of the pairs [pairs, 2] the first has the earlier place or the same.
    """
    first, second = pairs.T
    kept = np.ones(len(rank), dtype=bool)
    for lower in range(1, len(KEEPING_ORDER)):  # a dropped tune drops no other
        kept[second[(rank[first] < lower) & (rank[second] == lower) & kept[first]]] = False
    return kept


def _family_names(nodes: list[tuple[int, str]], pairs: np.ndarray, members: list[tuple[str | None, int]]) -> list[str]:
    """Return the name of each node's family; `members` are the nodes of the groups."""
    heads: dict[str, int] = {}
    groups = _pairs([(heads.setdefault(group, i), i) for group, i in members if group is not None])
    links = np.concatenate([pairs, groups])
    graph = coo_matrix((np.ones(len(links)), links.T), shape=(len(nodes), len(nodes)))
    _, family = connected_components(graph, directed=False)
    _, smallest = np.unique(family, return_index=True)  # a family's nodes are in the order of their melodies' names
    return [nodes[i][1] for i in smallest[family]]


def _pairs(pairs: list[tuple[int, int]]) -> np.ndarray:
    return np.array(pairs, np.int64).reshape(-1, 2)


def _statistics(node: np.ndarray, pairs: np.ndarray, rank: np.ndarray, kept: np.ndarray) -> dict[str, int]:
    """Return how many tunes are similar, were dropped, and would have leaked had the tunes been split at random."""
    chance = np.array([split_of(f"tune {i}") for i in range(len(node))], dtype=object)
    tunes, train, test = (
        np.bincount(node[of], minlength=len(rank)) for of in (chance != "", chance == "train", chance == "test")
    )
    first, second = pairs.T
    trained = train.copy()
    np.add.at(trained, first, train[second])
    np.add.at(trained, second, train[first])
    within = tunes * (tunes - 1) // 2
    between = tunes[first] * tunes[second]
    return {
        "similar_pairs": int(within.sum() + between.sum()),
        "similar_pairs_across_splits": int(between[rank[first] != rank[second]].sum()),
        "dropped_from_validation": int(tunes[~kept & (rank == 1)].sum()),
        "dropped_from_train": int(tunes[~kept & (rank == 2)].sum()),
        "random_split_test_tunes": int(test.sum()),
        "random_split_leaked_test_tunes": int(test[trained > 0].sum()),
        "random_split_leaked_pairs": int((test * trained).sum()),
    }
