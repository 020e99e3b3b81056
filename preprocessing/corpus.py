"""The corpus folder: what preprocessing writes and the only code that reads it.

data/*.parquet    the DatasetDict, one row a tune (load_dataset reads the folder without any code of ours)
tokens/*.npy      each split as one stream of token ids, memory-mapped for training
tokenizer.json, tokenizer_config.json, vocab.json
stats.json        tunes and characters per split, lengths, keys, metres, drops, every character accounted for
figures/*.png     the same to look at
README.md         the dataset card
manifest.json     hashes of inputs and outputs, versions, arguments; the hash of each split and of the vocabulary
"""

import hashlib
import importlib.metadata
import io
import json
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from datasets import Dataset, DatasetDict, Features, Value, disable_progress_bars
from tqdm import tqdm
from transformers import PreTrainedTokenizerFast
from transformers.utils.hub import cached_file

from cli import UserError
from files import atomic_folder, read_json, write_json, write_text
from preprocessing.dataset_card import dataset_card
from preprocessing.families import Families, assign
from preprocessing.sources import Block, Names, Reading, file_sha256
from preprocessing.tokens import BOUNDARY, SPECIAL_TOKENS, UNKNOWN, build_tokenizer, build_vocabulary, encode_stream
from preprocessing.tunes import Candidate, Policy, Tally, Tune, batches, in_order, read_blocks, transpose_tunes

disable_progress_bars()  # they show nothing but flicker on files of this size

SPLITS = ("train", "validation", "test")
MOST_UNKNOWN = 0.001  # share of unknown characters above which a text does not suit a vocabulary
COLUMN_TYPES = {str: "string", int: "int32"}
FEATURES = Features({name: Value(COLUMN_TYPES[kind]) for name, kind in Tune.__annotations__.items()})
LIBRARIES = (
    "datasets", "datasketch", "matplotlib", "music21", "numpy", "pyarrow", "scipy", "tokenizers", "transformers",
)  # fmt: skip


def collect_tunes(blocks: Iterable[Block], policy: Policy, pool: Executor) -> tuple[list[Candidate], Tally]:
    """Return the tunes of all blocks, the first of each text, and the count of everything that is not among them."""
    kept: dict[str, Candidate] = {}
    tally = Tally()
    batched = batches(blocks, lambda block: len(block.content))
    with tqdm(desc="reading tunes", unit=" tunes") as bar:
        for candidates, counted in in_order(pool, read_blocks, batched, policy):
            tally.add(counted)
            bar.update(counted.tunes)
            for candidate in candidates:
                if candidate.tune.text in kept:
                    tally.drop(candidate, "exact duplicate")
                else:
                    kept[candidate.tune.text] = candidate
    return list(kept.values()), tally


def split_by_family(candidates: Sequence[Candidate], tally: Tally) -> tuple[dict[str, list[Tune]], Families]:
    """Return the tunes of each split, with their families; what gives way to a held-out tune is counted in `tally`."""
    families = assign([candidate.melody for candidate in candidates])
    splits: dict[str, list[Tune]] = {split: [] for split in SPLITS}
    for candidate, split, name in zip(candidates, families.splits, families.names, strict=True):
        if split is None:
            tally.drop(candidate, "similar to a held-out tune")
        else:
            tally.keep(candidate)
            splits[split].append(replace(candidate.tune, family=name))
    return splits, families


def augment(tunes: Sequence[Tune], keys: int, pool: Executor) -> tuple[list[Tune], Counter[str]]:
    """Return the tunes in up to `keys` further keys each, and the failures by reason. No text comes twice."""
    seen = {tune.text for tune in tunes}
    made: list[Tune] = []
    failures: Counter[str] = Counter()
    batched = batches(tunes, lambda tune: len(tune.text) * keys)
    with tqdm(desc="transposing", unit=" tunes", total=len(tunes) * keys) as bar:
        for transposed, failed in in_order(pool, transpose_tunes, batched, keys):
            failures += failed
            bar.update(len(transposed) + failed.total())
            for tune in transposed:
                if tune.text in seen:
                    failures["same text as another training tune"] += 1
                else:
                    seen.add(tune.text)
                    made.append(tune)
    return made, failures


def build_corpus(
    folder: Path,
    blocks: Iterable[Block],
    reading: Reading,
    policy: Policy,
    manifest: dict[str, Any],
    pool: Executor,
    context: int,
    keys: int = 0,
    vocabulary: dict[str, int] | None = None,
) -> dict[str, Any]:
    """Build the corpus of `blocks`, write its whole folder at once and return its statistics.

    `keys` further keys for the training tunes. The vocabulary is that of the training split unless one is given; every
    other character is the unknown token. The stream of a split is in the order of the tunes' hashes: neighbours in it
    have nothing to do with each other. Raises UserError if a split would be empty.
    """
    candidates, tally = collect_tunes(blocks, policy, pool)
    reading.drops.update(tally.texts)
    if not candidates:
        named = _merged(reading.dropped, tally.dropped)
        counts = Counter({reason: len(names) for reason, names in named.items()}) | tally.drops | reading.drops
        dropped = ", ".join(f"{n:,} {reason}" for reason, n in counts.most_common(3))
        source = " ".join(manifest["arguments"]["source"])
        raise UserError(f"--source {source}: no tune in it that could be used (dropped: {dropped or 'nothing'})")
    splits, families = split_by_family(candidates, tally)
    for split, rows in splits.items():
        if not rows:
            raise UserError(
                f"the {split} split is empty: {len(candidates)} tunes are too few, give --source more of them "
                "(it takes about a hundred; a few hundred to say anything)"
            )
    found = [tune for rows in splits.values() for tune in rows]
    kept = sum(len(tune.text) for tune in found)
    assert tally.ledger.balanced(tally.characters, kept), "the characters of the corpus do not add up"
    made, failures = augment(splits["train"], keys, pool) if keys else ([], Counter())
    rows_of = {split: _shuffled([*rows, *(made if split == "train" else [])]) for split, rows in splits.items()}
    vocabulary = vocabulary or build_vocabulary(tune.text for tune in rows_of["train"])
    streams = {split: encode_stream((tune.text for tune in rows), vocabulary) for split, rows in rows_of.items()}
    stats = {
        **describe_tunes(splits, len(vocabulary)),
        "characters_accounted": _account(tally, kept),
        "drops": _by_count(tally.drops),
        "dropped": _merged(reading.dropped, tally.dropped),
        "similarity": families.statistics,
        "transposed": {"tunes": len(made), "characters": sum(len(t.text) for t in made), "failures": dict(failures)},
        "unknown_share": {split: float(np.mean(stream == vocabulary[UNKNOWN])) for split, stream in streams.items()},
        "reading": _describe_reading(reading),
    }
    with atomic_folder(folder, mark="manifest.json") as temporary:
        _write(temporary, rows_of, streams, vocabulary, context, stats, manifest, keys)
    return stats


def _shuffled(tunes: Sequence[Tune]) -> list[Tune]:
    return sorted(tunes, key=lambda tune: hashlib.sha256(tune.text.encode()).digest())


def _merged(*all_names: Names) -> Names:
    merged = Names()
    for names in all_names:
        merged.include(names)
    return merged


def _describe_reading(reading: Reading) -> dict[str, Any]:
    converted = {
        kind: {"converted": 0, **counts, "success_rate": counts["converted"] / counts["tried"]}
        for kind, counts in reading.converted.items()
    }
    return {**{name: value for name, value in vars(reading).items() if name != "dropped"}, "converted": converted}


def _account(tally: Tally, kept: int) -> dict[str, Any]:
    dropped, added = tally.ledger.dropped, tally.ledger.added
    return {
        "read": tally.characters,
        "dropped": _by_count(dropped),
        "kept": tally.characters - dropped.total(),
        "added": _by_count(added),
        "written": kept,
        "tunes_changed": _by_count(tally.changed),
    }


def _write(
    folder: Path,
    rows_of: dict[str, list[Tune]],
    streams: dict[str, np.ndarray],
    vocabulary: dict[str, int],
    context: int,
    stats: dict[str, Any],
    manifest: dict[str, Any],
    keys: int,
) -> None:
    from preprocessing.figures import draw_figures  # matplotlib: half a second that who reads a corpus need not pay

    for name in ("data", "tokens", "figures"):
        (folder / name).mkdir()
    columns = {
        split: {name: [getattr(tune, name) for tune in rows] for name in FEATURES} for split, rows in rows_of.items()
    }
    dataset = DatasetDict({split: Dataset.from_dict(of, FEATURES) for split, of in columns.items()})
    for split in SPLITS:
        dataset[split].to_parquet(folder / "data" / f"{split}.parquet")
        (folder / "tokens" / f"{split}.npy").write_bytes(_as_npy(streams[split]))
    build_tokenizer(vocabulary, context).save_pretrained(folder)
    write_json(folder / "vocab.json", vocabulary)
    write_json(folder / "stats.json", stats)
    draw_figures(
        stats, {split: [len(tune.text) for tune in rows] for split, rows in rows_of.items()}, folder / "figures"
    )
    write_text(folder / "README.md", dataset_card(stats, manifest))
    outputs = {
        path.relative_to(folder).as_posix(): file_sha256(path) for path in sorted(folder.rglob("*")) if path.is_file()
    }
    corpus = {
        "splits": {split: outputs[f"tokens/{split}.npy"] for split in SPLITS},
        "vocabulary": outputs["vocab.json"],
        "n_keys": 1 + keys,
    }
    write_json(folder / "manifest.json", {**manifest, "corpus": corpus, "outputs": outputs})


def _as_npy(stream: np.ndarray) -> memoryview:
    """Return an array as the bytes of a .npy file. (Where the disk is full, np.save itself does not say so.)"""
    buffer = io.BytesIO()
    np.save(buffer, stream, allow_pickle=False)
    return buffer.getbuffer()


def describe_tunes(splits: dict[str, list[Tune]], vocabulary_size: int) -> dict[str, Any]:
    """Return the statistics of the tunes as they were found, in no further key; lengths are characters a tune."""
    everything = [tune for rows in splits.values() for tune in rows]
    lengths = np.array([len(tune.text) for tune in everything])
    percentiles = (1, 5, 25, 50, 75, 95, 99)
    return {
        "tunes": {split: len(rows) for split, rows in splits.items()},
        "characters": {split: sum(len(tune.text) for tune in rows) for split, rows in splits.items()},
        "families": len({tune.family for tune in everything}),
        "vocabulary_size": vocabulary_size,
        "length": {
            "mean": float(lengths.mean()),
            "min": int(lengths.min()),
            "max": int(lengths.max()),
            "percentiles": {
                str(p): float(v) for p, v in zip(percentiles, np.percentile(lengths, percentiles), strict=True)
            },
        },
        "notes": sum(tune.notes for tune in everything),
        "bars": sum(tune.bars for tune in everything),
        "tunes_with_bad_bars": sum(tune.bad_bars > 0 for tune in everything),
        "sources": _most_common(tune.source for tune in everything),
        "keys": _most_common(tune.key for tune in everything),
        "metres": _most_common(tune.metre for tune in everything),
        "rhythms": _most_common(tune.rhythm for tune in everything),
        "character_counts": _most_common(character for tune in everything for character in tune.text),
    }


def _most_common(values: Iterable[str]) -> dict[str, int]:
    return _by_count(Counter(values))


def _by_count(counts: Counter[str]) -> dict[str, int]:
    """Return counts, the largest first; of equal ones not the first counted, which differs between processes."""
    return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))


def warn_of_unknown(stats: dict[str, Any]) -> None:
    """Print a line for each split of which too many characters are not in the vocabulary."""
    for split, share in stats["unknown_share"].items():
        if share > MOST_UNKNOWN:
            print(f"warning: {100 * share:.2f} % of the {split} split's characters are not in the vocabulary: <unk>")


def read_vocabulary(folder: str) -> dict[str, int]:
    """Return the vocabulary of a corpus or a model, a folder or a Hub id. Raises UserError if it has none of ours."""
    if (Path(folder) / "manifest.json").is_file():
        return Corpus.open(folder).vocabulary
    try:
        path = cached_file(folder, "tokenizer.json")
    except (OSError, ValueError):
        raise UserError(f"--vocabulary {folder}: no folder and no model of the Hub with a tokenizer.json") from None
    tokenizer = read_json(Path(path or folder))
    model = tokenizer.get("model") if isinstance(tokenizer, dict) else None
    found = model.get("vocab") if isinstance(model, dict) else None
    vocabulary: dict[str, int] = found if isinstance(found, dict) else {}
    tokens, ids = set(vocabulary), [*vocabulary.values()]
    numbered = all(type(i) is int for i in ids) and sorted(ids) == list(range(len(ids)))
    if not numbered or not set(SPECIAL_TOKENS) <= tokens or any(len(t) > 1 for t in tokens - set(SPECIAL_TOKENS)):
        raise UserError(
            f"--vocabulary {folder}: its tokenizer.json is not one of characters with {', '.join(SPECIAL_TOKENS)}"
        )
    return dict(sorted(vocabulary.items(), key=lambda item: item[1]))


def describe_build(
    inputs: dict[str, dict[str, str]], arguments: dict[str, Any], vocabulary: dict[str, int] | None = None
) -> dict[str, Any]:
    """Return what decides the corpus's bytes: inputs, arguments, a given vocabulary, our code, libraries' versions."""
    code = hashlib.sha256()
    for path in sorted(Path(__file__).parent.glob("*.py")):
        code.update(path.read_bytes())
    return {
        "arguments": arguments,
        "code": code.hexdigest(),
        "versions": {name: importlib.metadata.version(name) for name in LIBRARIES},
        "inputs": inputs,
        "given_vocabulary": vocabulary,
    }


def read_manifest(folder: Path) -> dict[str, Any]:
    """Return how a corpus was built, and the hashes of its files under `outputs`. Raises UserError if it is no such."""
    manifest = read_json(folder / "manifest.json")
    if not isinstance(manifest, dict) or not all(
        isinstance(manifest.get(key), dict) for key in ("arguments", "outputs")
    ):
        raise UserError(f"{folder / 'manifest.json'} is not that of a corpus: delete {folder} and build it again")
    return manifest


def place_of(family: str) -> float:
    """Return a family's place in [0, 1), by its hash alone: a part of the data is the families below a threshold.

    The bits are read from the last one on, so that 1/2, 1/4, … are the families whose hash is divisible by 2, 4, ….
    """
    last = int(hashlib.sha256(family.encode()).hexdigest(), 16) % 2**53  # as many bits as a float holds exactly
    return int(f"{last:053b}"[::-1], 2) / 2**53


HEADER = re.compile(r"(?:.*\n)*?K:.*\n?")
DECIDING = ("tokenizer.json", "tokenizer_config.json", "vocab.json", "stats.json")  # beside what is read when asked for


@dataclass(frozen=True)
class Corpus:
    """A corpus folder opened for reading. Every file that decides a result is held against the manifest's hash."""

    folder: Path
    vocabulary: dict[str, int]
    stats: dict[str, Any]

    @classmethod
    def open(cls, folder: str | Path) -> "Corpus":
        """Open a corpus folder. Raises UserError if it is missing, not one, or not as it was built."""
        folder = Path(folder)
        if not (folder / "manifest.json").is_file():
            raise UserError(
                f"{folder} holds no corpus: build it with python preprocessing/run.py --output_dir {folder} "
                "(and --transpose all, if it is to be in all keys)"
            )
        manifest = read_manifest(folder)
        if not isinstance(manifest.get("corpus"), dict):
            raise UserError(f"{folder / 'manifest.json'} is of another version: delete {folder} and build it again")
        for name in DECIDING:
            _check_file(folder, name, manifest)
        return cls(folder, read_json(folder / "vocab.json"), read_json(folder / "stats.json"))

    def tokens(self, split: str) -> np.ndarray:
        """Return a split's stream of token ids, memory-mapped: [tokens].

        Raises UserError if the file is not the one that was built with the folder.
        """
        stream: np.ndarray = np.load(self.whole(f"tokens/{split}.npy"), mmap_mode="r", allow_pickle=False)
        return stream

    def manifest(self) -> dict[str, Any]:
        """Return how the corpus was built, and the hashes of its files under `outputs`."""
        return read_manifest(self.folder)

    @property
    def split_hashes(self) -> dict[str, str]:
        """The SHA-256 of each split's stream."""
        return dict(self.manifest()["corpus"]["splits"])

    @property
    def n_keys(self) -> int:
        """The number of keys in which the training split was asked for: 1 as found, 12 in all."""
        return int(self.manifest()["corpus"]["n_keys"])

    def whole(self, name: str) -> Path:
        """Return the path of one of the corpus's files. Raises UserError if it is not the one that was built."""
        return _check_file(self.folder, name, self.manifest())

    def tunes(self, split: str) -> Dataset:
        """Return a split's rows. Raises UserError if the file is not the one that was built with the folder."""
        rows = Dataset.from_parquet(str(self.whole(f"data/{split}.parquet")), keep_in_memory=True)
        assert isinstance(rows, Dataset)
        return rows

    def part(self, fraction: float = 1.0, split: str = "train") -> tuple[np.ndarray, int]:
        """Return the stream of a fraction of a split's families, [tokens], and its U.

        U, of the data-constrained laws, counts the tokens of tunes as they were found, in no further key. Every smaller
        fraction is a part of every larger one. Raises UserError for a fraction that is not above 0 and at most 1.
        """
        if not 0 < fraction <= 1:
            raise UserError(f"data fraction {fraction}: must be above 0 and at most 1")
        stream = self.tokens(split)
        if fraction == 1:
            return stream, int(self.stats["characters"][split] + self.stats["tunes"][split])
        rows = self.tunes(split)
        chosen = np.array([place_of(family) < fraction for family in rows["family"]])
        tune = np.cumsum(stream == self.boundary) - 1  # a boundary stands before each tune, and one at the end
        lengths = np.bincount(tune)[:-1]
        kept = np.append(np.repeat(chosen, lengths), True)
        return stream[kept], int(lengths[chosen & (np.array(rows["shift"]) == 0)].sum())

    def in_header(self, split: str) -> np.ndarray:
        """Return which tokens of a split's stream belong to a header, up to the end of its K: line: [tokens], bool."""
        stream = self.tokens(split)
        heads = [HEADER.match(text) for text in self.tunes(split)["text"]]
        lengths = [0 if head is None else head.end() for head in heads]
        starts = np.flatnonzero(stream == self.boundary)
        place = np.arange(len(stream)) - np.repeat(starts, np.diff(np.append(starts, len(stream))))
        length = np.repeat([*lengths, 0], np.diff(np.append(starts, len(stream))))
        inside: np.ndarray = (place >= 1) & (place <= length)
        return inside

    @property
    def boundary(self) -> int:
        """The id of the token that stands between tunes."""
        return self.vocabulary[BOUNDARY]

    @property
    def header_fields(self) -> str:
        """The letters of the header fields that a model sees."""
        fields: str = self.manifest()["arguments"]["keep_fields"]
        return fields

    def tokenizer(self) -> PreTrainedTokenizerFast:
        """Return the tokenizer that the corpus was encoded with."""
        return PreTrainedTokenizerFast.from_pretrained(self.folder)

    def digest(self) -> str:
        """Return the hash of the vocabulary and of the streams: runs on the same corpus agree in it."""
        outputs = self.manifest()["outputs"]
        named = [outputs["vocab.json"], *(outputs[f"tokens/{split}.npy"] for split in SPLITS)]
        return hashlib.sha256(json.dumps(named).encode()).hexdigest()[:16]


def _check_file(folder: Path, name: str, manifest: dict[str, Any]) -> Path:
    path = folder / name
    if not path.is_file() or file_sha256(path) != manifest["outputs"].get(name):
        raise UserError(f"{path} is damaged or of another build: delete {folder} and build it again")
    return path
