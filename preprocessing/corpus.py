"""The corpus folder: what preprocessing writes and the only code that reads it.

data/*.parquet    the DatasetDict, one row a tune (load_dataset reads the folder without any code of ours)
tokens/*.npy      each split as one stream of token ids, memory-mapped for training
tokenizer.json, tokenizer_config.json, vocab.json
stats.json        tunes and characters per split, lengths, characters, keys, metres, drops
manifest.json     hashes of inputs and outputs, versions, arguments
"""

import hashlib
import importlib.metadata
import json
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from datasets import Dataset, DatasetDict, Features, Value, disable_progress_bars
from tqdm import tqdm
from transformers import PreTrainedTokenizerFast

from door import DoorError, read_json, whole_folder, write_json, write_text
from preprocessing.cleaning import clean_tune, reason_to_drop
from preprocessing.families import melody_hash, split_of
from preprocessing.notation import judge, split_tunes
from preprocessing.sources import SourceFile
from preprocessing.tokens import BOUNDARY, build_tokenizer, build_vocabulary, encode_stream

disable_progress_bars()  # they show nothing but flicker on files of this size

SPLITS = ("train", "validation", "test")
COLUMNS = ("text", "title", "key", "metre", "rhythm", "source", "file", "family")
FEATURES = Features({column: Value("string") for column in COLUMNS})
LIBRARIES = ("datasets", "music21", "numpy", "pyarrow", "tokenizers", "transformers")

DATASET_CARD = """---
configs:
- config_name: default
  data_files:
{files}
---
Built by `python preprocessing/run.py`; stats.json and manifest.json say from what.
"""


@dataclass(frozen=True)
class Tune:
    """One row of the corpus; the fields are the columns of the DatasetDict."""

    text: str
    title: str
    key: str
    metre: str
    rhythm: str
    source: str
    file: str
    family: str


def collect_tunes(files: Sequence[SourceFile], keep_fields: str) -> tuple[list[Tune], Counter[str]]:
    """Return the tunes kept and the drops counted by reason.

    A tune whose cleaned text was seen before is an exact duplicate. Files that are not text are counted, not read.
    """
    tunes: dict[str, Tune] = {}
    drops: Counter[str] = Counter()
    for file in tqdm(files, desc="reading tunes", unit=" files"):
        try:
            raw_tunes = list(split_tunes(file.text()))
        except ValueError as error:
            drops[f"{error} (files)"] += 1
            continue
        for raw in raw_tunes:
            tune = clean_tune(raw)
            text, verdict = tune.text(keep_fields), judge(raw)
            reason = reason_to_drop(verdict)
            if reason is None and text in tunes:
                reason = "exact duplicate"
            if reason is not None:
                drops[reason] += 1
                continue
            tunes[text] = Tune(
                text=text,
                title=tune.title,
                key=tune.header["K"],
                metre=tune.header["M"],
                rhythm=tune.header.get("R", "").lower(),
                source=file.collection,
                file=file.name,
                family=melody_hash(verdict.pitches),
            )
    return list(tunes.values()), drops


def build_corpus(
    folder: Path, tunes: Sequence[Tune], drops: Counter[str], manifest: dict[str, Any], context: int
) -> dict[str, Any]:
    """Write the whole corpus folder at once and return its statistics.

    The stream of a split is in the order of the tunes' hashes: neighbours in it have nothing to do with each other.
    """
    order = sorted(tunes, key=lambda tune: hashlib.sha256(tune.text.encode()).digest())
    splits = {split: [tune for tune in order if split_of(tune.family) == split] for split in SPLITS}
    for split, rows in splits.items():
        if not rows:
            raise DoorError(f"the {split} split is empty: {len(tunes)} tunes are too few, give --source more of them")
    vocabulary = build_vocabulary(tune.text for tune in tunes)
    tokenizer = build_tokenizer(vocabulary, context)
    stats = corpus_statistics(splits, drops, len(vocabulary))
    with whole_folder(folder, mark="manifest.json") as temporary:
        (temporary / "data").mkdir()
        (temporary / "tokens").mkdir()
        dataset = DatasetDict(
            {split: Dataset.from_list([vars(tune) for tune in rows], FEATURES) for split, rows in splits.items()}
        )
        lines = []
        for split in SPLITS:
            dataset[split].to_parquet(temporary / "data" / f"{split}.parquet")
            stream = encode_stream((tune.text for tune in splits[split]), vocabulary)
            np.save(temporary / "tokens" / f"{split}.npy", stream, allow_pickle=False)
            lines.append(f"  - split: {split}\n    path: data/{split}.parquet")
        tokenizer.save_pretrained(temporary)
        write_json(temporary / "vocab.json", vocabulary)
        write_json(temporary / "stats.json", stats)
        write_text(temporary / "README.md", DATASET_CARD.format(files="\n".join(lines)))
        outputs = {
            path.relative_to(temporary).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
            for path in sorted(temporary.rglob("*"))
            if path.is_file()
        }
        write_json(temporary / "manifest.json", {**manifest, "outputs": outputs})
    return stats


def corpus_statistics(splits: dict[str, list[Tune]], drops: Counter[str], vocabulary_size: int) -> dict[str, Any]:
    """Return what stats.json holds; lengths are characters a tune."""
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
        "sources": _most_common(tune.source for tune in everything),
        "keys": _most_common(tune.key for tune in everything),
        "metres": _most_common(tune.metre for tune in everything),
        "drops": dict(drops.most_common()),
        "character_counts": _most_common(character for tune in everything for character in tune.text),
    }


def _most_common(values: Iterable[str]) -> dict[str, int]:
    return dict(sorted(Counter(values).items(), key=lambda item: (-item[1], item[0])))


def describe_build(hashes: dict[str, str], arguments: dict[str, Any]) -> dict[str, Any]:
    """Return what decides the corpus's bytes: inputs, arguments, our code and the libraries' versions."""
    code = hashlib.sha256()
    for path in sorted(Path(__file__).parent.glob("*.py")):
        code.update(path.read_bytes())
    return {
        "arguments": arguments,
        "code": code.hexdigest(),
        "versions": {name: importlib.metadata.version(name) for name in LIBRARIES},
        "inputs": hashes,
    }


@dataclass(frozen=True)
class Corpus:
    """A corpus folder opened for reading."""

    folder: Path
    vocabulary: dict[str, int]
    stats: dict[str, Any]

    @classmethod
    def open(cls, folder: str | Path) -> "Corpus":
        """Open a corpus folder. Raises DoorError if it is missing or not one."""
        folder = Path(folder)
        if not (folder / "manifest.json").is_file():
            raise DoorError(
                f"{folder} holds no corpus: build it with python preprocessing/run.py --output_dir {folder}"
            )
        return cls(folder, read_json(folder / "vocab.json"), read_json(folder / "stats.json"))

    def tokens(self, split: str) -> np.ndarray:
        """Return a split's stream of token ids, memory-mapped: [tokens].

        Raises DoorError if the file is damaged or was made with a larger vocabulary than the folder's.
        """
        path = self.folder / "tokens" / f"{split}.npy"
        try:
            stream: np.ndarray = np.load(path, mmap_mode="r", allow_pickle=False)
            highest = int(stream.max())
        except (OSError, ValueError, EOFError) as error:
            raise DoorError(f"{path} is damaged ({error}): delete {self.folder} and build it again") from None
        if highest >= len(self.vocabulary):
            raise DoorError(
                f"{path} holds token {highest} but {self.folder / 'vocab.json'} has {len(self.vocabulary)}: "
                f"they come from different builds, delete {self.folder} and build it again"
            )
        return stream

    def tunes(self, split: str) -> Dataset:
        """Return a split's rows."""
        rows = Dataset.from_parquet(str(self.folder / "data" / f"{split}.parquet"), keep_in_memory=True)
        assert isinstance(rows, Dataset)
        return rows

    @property
    def boundary(self) -> int:
        """The id of the token that stands between tunes."""
        return self.vocabulary[BOUNDARY]

    def tokenizer(self) -> PreTrainedTokenizerFast:
        """Return the tokenizer that the corpus was encoded with."""
        return PreTrainedTokenizerFast.from_pretrained(self.folder)

    def digest(self) -> str:
        """Return the hash of the vocabulary and of the streams: runs on the same corpus agree in it."""
        outputs = read_json(self.folder / "manifest.json")["outputs"]
        named = [outputs["vocab.json"], *(outputs[f"tokens/{split}.npy"] for split in SPLITS)]
        return hashlib.sha256(json.dumps(named).encode()).hexdigest()[:16]
