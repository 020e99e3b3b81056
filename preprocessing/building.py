"""Blocks of raw ABC become a corpus folder: collected, split by family, transposed, counted and written."""

import hashlib
import importlib.metadata
import io
from collections import Counter
from collections.abc import Iterable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from datasets import Dataset, Features, Value, disable_progress_bars
from tqdm import tqdm

from cli import UserError
from files import atomic_folder, write_json, write_text
from preprocessing.blocks import Block, DroppedNames, Reading, file_sha256
from preprocessing.corpus import SPLITS
from preprocessing.dataset_card import dataset_card
from preprocessing.families import Families, assign
from preprocessing.tokens import UNKNOWN, build_tokenizer, build_vocabulary, encode_stream
from preprocessing.tunes import Candidate, Policy, Tally, TuneRow, batches, in_order, read_blocks, transpose_tunes

disable_progress_bars()

COLUMN_TYPES = {str: "string", int: "int32"}
FEATURES = Features({name: Value(COLUMN_TYPES[kind]) for name, kind in TuneRow.__annotations__.items()})
PERCENTILES = (1, 5, 25, 50, 75, 95, 99)
LIBRARIES = (
    "datasets", "datasketch", "matplotlib", "music21", "numpy", "pyarrow", "scipy", "tokenizers", "transformers",
)  # fmt: skip


def describe_build(
    inputs: dict[str, dict[str, str]], arguments: dict[str, Any], vocabulary: dict[str, int] | None = None
) -> dict[str, Any]:
    """Return what decides the corpus's bytes: inputs, arguments, a given vocabulary, our code, libraries' versions."""
    code = hashlib.sha256()
    for path in sorted([*Path(__file__).parent.glob("*.py"), *Path(__file__).parent.glob("*.j2")]):
        code.update(path.read_bytes())
    return {
        "arguments": arguments,
        "code": code.hexdigest(),
        "versions": {name: importlib.metadata.version(name) for name in LIBRARIES},
        "inputs": inputs,
        "given_vocabulary": vocabulary,
    }


@dataclass(frozen=True)
class CorpusOptions:
    """What a model sees of a tune, further keys of the training tunes, tokenizer length, and a vocabulary to keep."""

    policy: Policy
    context: int
    keys: int = 0
    vocabulary: dict[str, int] | None = None


@dataclass(frozen=True)
class CorpusContent:
    """What a corpus folder holds: by split the rows and their token stream, the vocabulary and the statistics."""

    rows: dict[str, list[TuneRow]]
    streams: dict[str, np.ndarray]
    vocabulary: dict[str, int]
    stats: dict[str, Any]


def build_corpus(
    folder: Path,
    blocks: Iterable[Block],
    reading: Reading,
    options: CorpusOptions,
    manifest: dict[str, Any],
    pool: Executor,
) -> dict[str, Any]:
    """Build the corpus of `blocks`, write its folder and return its statistics.

    The vocabulary is that of the training split unless one is given; other characters are the unknown token. Each split
    is in the order of its tunes' hashes, so that neighbours are unrelated. Raises UserError if a split would be empty.
    """
    candidates, tally = collect_tunes(blocks, options.policy, pool)
    reading.drops.update(tally.texts)
    if not candidates:
        source = " ".join(manifest["arguments"]["source"])
        raise UserError(
            f"--source {source}: no tune in it that could be used (dropped: {_most_dropped(reading, tally)})"
        )
    splits, families = split_by_family(candidates, tally)
    for split, tunes in splits.items():
        if not tunes:
            raise UserError(
                f"the {split} split is empty: {len(candidates)} tunes are too few, give --source at least a hundred "
                "(a few hundred for a meaningful loss)"
            )
    content = _content(splits, families, reading, tally, options, pool)
    with atomic_folder(folder, mark="manifest.json") as temporary:
        _write(temporary, content, options, manifest)
    return content.stats


def _content(
    splits: dict[str, list[TuneRow]],
    families: Families,
    reading: Reading,
    tally: Tally,
    options: CorpusOptions,
    pool: Executor,
) -> CorpusContent:
    """Return the corpus of tunes that are split: transposed, encoded and counted."""
    written = sum(len(tune.text) for tunes in splits.values() for tune in tunes)
    assert tally.ledger.balanced(tally.characters, written), "the characters of the corpus do not add up"
    transposed, failures = augment(splits["train"], options.keys, pool) if options.keys else ([], Counter())
    rows = {split: _in_hash_order([*splits[split], *(transposed if split == "train" else [])]) for split in SPLITS}
    vocabulary = options.vocabulary or build_vocabulary(tune.text for tune in rows["train"])
    streams = {split: encode_stream((tune.text for tune in rows[split]), vocabulary) for split in SPLITS}
    stats = {
        **describe_tunes(splits, len(vocabulary)),
        "characters_accounted": _account(tally, written),
        "drops": _by_count(tally.drops),
        "dropped": _merge_names(reading.dropped, tally.dropped),
        "similarity": families.statistics,
        "transposed": {
            "tunes": len(transposed),
            "characters": sum(len(tune.text) for tune in transposed),
            "failures": dict(failures),
        },
        "unknown_share": {split: float(np.mean(stream == vocabulary[UNKNOWN])) for split, stream in streams.items()},
        "reading": _describe_reading(reading),
    }
    return CorpusContent(rows, streams, vocabulary, stats)


def _most_dropped(reading: Reading, tally: Tally) -> str:
    """Return the three most frequent reasons why nothing is left."""
    dropped = _merge_names(reading.dropped, tally.dropped)
    counts = Counter({reason: len(names) for reason, names in dropped.items()}) | tally.drops | reading.drops
    return ", ".join(f"{n:,} {reason}" for reason, n in counts.most_common(3)) or "nothing"


def collect_tunes(blocks: Iterable[Block], policy: Policy, pool: Executor) -> tuple[list[Candidate], Tally]:
    """Return the tunes of all blocks, the first of each text, and the count of everything that is left out."""
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


def split_by_family(candidates: Sequence[Candidate], tally: Tally) -> tuple[dict[str, list[TuneRow]], Families]:
    """Return the tunes of each split, with their families; tunes similar to a held-out one are dropped in `tally`."""
    families = assign([candidate.melody for candidate in candidates])
    splits: dict[str, list[TuneRow]] = {split: [] for split in SPLITS}
    for candidate, split, name in zip(candidates, families.splits, families.names, strict=True):
        if split is None:
            tally.drop(candidate, "similar to a held-out tune")
        else:
            tally.keep(candidate)
            splits[split].append(replace(candidate.tune, family=name))
    return splits, families


def augment(tunes: Sequence[TuneRow], keys: int, pool: Executor) -> tuple[list[TuneRow], Counter[str]]:
    """Return the tunes in up to `keys` further keys each, and the failures by reason. No text comes twice."""
    seen = {tune.text for tune in tunes}
    made: list[TuneRow] = []
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


def _in_hash_order(tunes: Sequence[TuneRow]) -> list[TuneRow]:
    return sorted(tunes, key=lambda tune: hashlib.sha256(tune.text.encode()).digest())


def describe_tunes(splits: dict[str, list[TuneRow]], vocabulary_size: int) -> dict[str, Any]:
    """Return the statistics of the tunes in their original keys; lengths are characters per tune."""
    tunes = [tune for rows in splits.values() for tune in rows]
    lengths = np.array([len(tune.text) for tune in tunes])
    percentiles = np.percentile(lengths, PERCENTILES).tolist()
    return {
        "tunes": {split: len(rows) for split, rows in splits.items()},
        "characters": {split: sum(len(tune.text) for tune in rows) for split, rows in splits.items()},
        "families": len({tune.family for tune in tunes}),
        "vocabulary_size": vocabulary_size,
        "length": {
            "mean": float(lengths.mean()),
            "min": int(lengths.min()),
            "max": int(lengths.max()),
            "percentiles": dict(zip(map(str, PERCENTILES), percentiles, strict=True)),
        },
        "notes": sum(tune.notes for tune in tunes),
        "bars": sum(tune.bars for tune in tunes),
        "tunes_with_bad_bars": sum(tune.bad_bars > 0 for tune in tunes),
        "sources": _by_count(Counter(tune.source for tune in tunes)),
        "keys": _by_count(Counter(tune.key for tune in tunes)),
        "metres": _by_count(Counter(tune.metre for tune in tunes)),
        "rhythms": _by_count(Counter(tune.rhythm for tune in tunes)),
        "character_counts": _by_count(Counter(character for tune in tunes for character in tune.text)),
    }


def _account(tally: Tally, written: int) -> dict[str, Any]:
    dropped, added = tally.ledger.dropped, tally.ledger.added
    return {
        "read": tally.characters,
        "dropped": _by_count(dropped),
        "kept": tally.characters - dropped.total(),
        "added": _by_count(added),
        "written": written,
        "tunes_changed": _by_count(tally.changed),
    }


def _describe_reading(reading: Reading) -> dict[str, Any]:
    converted = {
        kind: {"converted": 0, **counts, "success_rate": counts["converted"] / counts["tried"]}
        for kind, counts in reading.converted.items()
    }
    return {**{name: value for name, value in vars(reading).items() if name != "dropped"}, "converted": converted}


def _merge_names(*all_names: DroppedNames) -> DroppedNames:
    merged = DroppedNames()
    for names in all_names:
        merged.include(names)
    return merged


def _by_count(counts: Counter[str]) -> dict[str, int]:
    """Return counts, the largest first, equal ones by name: the order of counting differs between processes."""
    return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))


def _write(folder: Path, content: CorpusContent, options: CorpusOptions, manifest: dict[str, Any]) -> None:
    from preprocessing.figures import draw_figures  # matplotlib takes half a second to import

    for name in ("data", "tokens", "figures"):
        (folder / name).mkdir()
    for split in SPLITS:
        columns = {name: [getattr(tune, name) for tune in content.rows[split]] for name in FEATURES}
        Dataset.from_dict(columns, FEATURES).to_parquet(folder / "data" / f"{split}.parquet")
        (folder / "tokens" / f"{split}.npy").write_bytes(_as_npy(content.streams[split]))
    build_tokenizer(content.vocabulary, options.context).save_pretrained(folder)
    write_json(folder / "vocab.json", content.vocabulary)
    write_json(folder / "stats.json", content.stats)
    lengths = {split: [len(tune.text) for tune in tunes] for split, tunes in content.rows.items()}
    draw_figures(content.stats, lengths, folder / "figures")
    write_text(folder / "README.md", dataset_card(content.stats, manifest))
    outputs = {
        path.relative_to(folder).as_posix(): file_sha256(path) for path in sorted(folder.rglob("*")) if path.is_file()
    }
    corpus = {
        "splits": {split: outputs[f"tokens/{split}.npy"] for split in SPLITS},
        "vocabulary": outputs["vocab.json"],
        "n_keys": 1 + options.keys,
    }
    write_json(folder / "manifest.json", {**manifest, "corpus": corpus, "outputs": outputs})


def _as_npy(stream: np.ndarray) -> memoryview:
    """Return an array as the bytes of a .npy file (np.save to a file does not report a full disk)."""
    buffer = io.BytesIO()
    np.save(buffer, stream, allow_pickle=False)
    return buffer.getbuffer()
