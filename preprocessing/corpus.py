"""The corpus folder as its readers find it.

data/*.parquet    the splits, one row per tune (datasets.load_dataset reads the folder)
tokens/*.npy      each split as one stream of token ids, memory-mapped for training
tokenizer.json, tokenizer_config.json, vocab.json
stats.json        tunes and characters per split, lengths, keys, metres, drops, every character accounted for
figures/*.png     the statistics as figures
README.md         the dataset card
manifest.json     hashes of inputs and outputs, versions, arguments; the hash of each split and of the vocabulary
"""

import hashlib
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from datasets import Dataset
from transformers import PreTrainedTokenizerFast
from transformers.utils.hub import cached_file

from cli import UserError
from files import read_json
from preprocessing.blocks import file_sha256
from preprocessing.tokens import BOUNDARY, SPECIAL_TOKENS

SPLITS = ("train", "validation", "test")
MAX_UNKNOWN = 0.001  # share of unknown characters above which a user is warned
HEADER = re.compile(r"(?:.*\n)*?K:.*\n?")
CHECKED_WHEN_OPENED = ("tokenizer.json", "tokenizer_config.json", "vocab.json", "stats.json")


@dataclass(frozen=True)
class Corpus:
    """A corpus folder opened for reading. Every file that decides a result is checked against the manifest's hash."""

    folder: Path
    vocabulary: dict[str, int]
    stats: dict[str, Any]

    @classmethod
    def open(cls, folder: str | Path) -> "Corpus":
        """Open a corpus folder. Raises UserError if it is missing, no corpus, or changed since it was built."""
        folder = Path(folder)
        if not (folder / "manifest.json").is_file():
            raise UserError(
                f"{folder} holds no corpus: build it with python preprocessing/run.py --output_dir {folder} "
                "(and --transpose all for all keys)"
            )
        manifest = read_manifest(folder)
        if not isinstance(manifest.get("corpus"), dict):
            raise UserError(f"{folder / 'manifest.json'} is of another version: delete {folder} and build it again")
        for name in CHECKED_WHEN_OPENED:
            _check_file(folder, name, manifest)
        return cls(folder, read_json(folder / "vocab.json"), read_json(folder / "stats.json"))

    def manifest(self) -> dict[str, Any]:
        """Return how the corpus was built, and the hashes of its files under `outputs`."""
        return read_manifest(self.folder)

    def file(self, name: str) -> Path:
        """Return the path of one of the corpus's files. Raises UserError if it has changed since it was built."""
        return _check_file(self.folder, name, self.manifest())

    def tokens(self, split: str) -> np.ndarray:
        """Return a split's stream of token ids, memory-mapped: [tokens]. Raises UserError as `file` does."""
        stream: np.ndarray = np.load(self.file(f"tokens/{split}.npy"), mmap_mode="r", allow_pickle=False)
        return stream

    def tunes(self, split: str) -> Dataset:
        """Return a split's rows. Raises UserError as `file` does."""
        rows = Dataset.from_parquet(str(self.file(f"data/{split}.parquet")), keep_in_memory=True)
        assert isinstance(rows, Dataset)
        return rows

    def part(self, fraction: float = 1.0, split: str = "train") -> tuple[np.ndarray, int]:
        """Return the stream of a fraction of a split's families, [tokens], and U, its tokens in original keys.

        Every smaller fraction is a subset of every larger one. Raises UserError for a fraction that is not above 0 and
        at most 1.
        """
        if not 0 < fraction <= 1:
            raise UserError(f"data fraction {fraction}: must be above 0 and at most 1")
        stream = self.tokens(split)
        if fraction == 1:
            return stream, int(self.stats["characters"][split] + self.stats["tunes"][split])
        rows = self.tunes(split)
        chosen = np.array([family_position(family) < fraction for family in rows["family"]])
        tune = np.cumsum(stream == self.boundary) - 1  # a boundary precedes each tune, and one ends the stream
        lengths = np.bincount(tune)[:-1]
        kept = np.append(np.repeat(chosen, lengths), True)
        return stream[kept], int(lengths[chosen & (np.array(rows["shift"]) == 0)].sum())

    def in_header(self, split: str) -> np.ndarray:
        """Return which tokens of a split's stream belong to a header, up to the end of its K: line: [tokens], bool."""
        stream = self.tokens(split)
        headers = [HEADER.match(text) for text in self.tunes(split)["text"]]
        lengths = [0 if header is None else header.end() for header in headers]
        starts = np.flatnonzero(stream == self.boundary)
        repeats = np.diff(np.append(starts, len(stream)))
        position = np.arange(len(stream)) - np.repeat(starts, repeats)
        inside: np.ndarray = (position >= 1) & (position <= np.repeat([*lengths, 0], repeats))
        return inside

    def tokenizer(self) -> PreTrainedTokenizerFast:
        """Return the tokenizer that the corpus was encoded with."""
        return PreTrainedTokenizerFast.from_pretrained(self.folder)

    def digest(self) -> str:
        """Return the hash of the vocabulary and the streams, which identifies the corpus in records of runs."""
        outputs = self.manifest()["outputs"]
        named = [outputs["vocab.json"], *(outputs[f"tokens/{split}.npy"] for split in SPLITS)]
        return hashlib.sha256(json.dumps(named).encode()).hexdigest()[:16]

    @property
    def boundary(self) -> int:
        """The id of the token between tunes."""
        return self.vocabulary[BOUNDARY]

    @property
    def split_hashes(self) -> dict[str, str]:
        """The SHA-256 of each split's stream."""
        return dict(self.manifest()["corpus"]["splits"])

    @property
    def n_keys(self) -> int:
        """The number of keys of the training split: 1 as found, 12 for all."""
        return int(self.manifest()["corpus"]["n_keys"])

    @property
    def header_fields(self) -> str:
        """The letters of the header fields that a model sees."""
        fields: str = self.manifest()["arguments"]["keep_fields"]
        return fields


def _check_file(folder: Path, name: str, manifest: dict[str, Any]) -> Path:
    path = folder / name
    if not path.is_file() or file_sha256(path) != manifest["outputs"].get(name):
        raise UserError(f"{path} is damaged or of another build: delete {folder} and build it again")
    return path


def read_manifest(folder: Path) -> dict[str, Any]:
    """Return how a corpus was built, and the hashes of its files under `outputs`. Raises UserError."""
    manifest = read_json(folder / "manifest.json")
    if not isinstance(manifest, dict) or not all(isinstance(manifest.get(k), dict) for k in ("arguments", "outputs")):
        raise UserError(f"{folder / 'manifest.json'} is not that of a corpus: delete {folder} and build it again")
    return manifest


def family_position(family: str) -> float:
    """Return a family's position in [0, 1) by its hash: a fraction of the data is the families below it.

    The bits are read from the last one on, so that 1/2, 1/4, … are the families whose hash is divisible by 2, 4, ….
    """
    last = int(hashlib.sha256(family.encode()).hexdigest(), 16) % 2**53  # as many bits as a float holds exactly
    return int(f"{last:053b}"[::-1], 2) / 2**53


def warn_of_unknown(stats: dict[str, Any]) -> None:
    """Print a warning for each split of which too many characters are not in the vocabulary."""
    for split, share in stats["unknown_share"].items():
        if share > MAX_UNKNOWN:
            print(f"warning: {100 * share:.2f} % of the {split} split's characters are not in the vocabulary: <unk>")


def read_vocabulary(folder: str) -> dict[str, int]:
    """Return the vocabulary of a corpus or a model, a folder or a Hub id.

    Raises UserError if there is none, or none of single characters.
    """
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
