"""The tunes of every model of a study, and what is measured on them. A cell is one model at one temperature."""

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from random import Random
from statistics import fmean
from typing import Any

import numpy as np
from tqdm import tqdm

from cli import UserError
from files import read_json, write_json
from generation import bar_automaton, bar_state, decoding, logits_processors
from generation.abc_pipeline import STRICT, AbcGenerationPipeline
from generation.distances import baseline_distances, distances, features
from generation.external_validators import agreement, frechet_music_distance, missing, validate_all
from generation.identity import identity_of, is_current
from generation.memorisation import Memory
from generation.quality import score_tune
from generation.shares import share, summarise, tier_shares
from generation.structure import structure, summary
from modeling.loading import WEIGHTS, load_model, load_tokenizer
from preprocessing.corpus import HEADER, Corpus
from preprocessing.notation import TOKEN, WORDS, judge
from training.record import BEST, read_ladders, read_record, run_folder

QUALITY_FOLDER = "generation_analysis"
CELLS = "cells"  # the folder of the cells' tunes
QUALITY, ANALYSIS, REPORT = "quality.json", "quality_vs_size.json", "quality.md"
MAX_CHARACTERS = 1000  # of a tune: three times what 95 % of the bundled tunes have
BASELINE_TUNES = 4000  # training tunes from which those of the baseline distances are drawn
HELD_OUT = ("validation", "test")
LETTERS = (list("CDEFGAB"), list("cdefgab"))
TIMES_BEST = 4  # as many tunes of the best model as of a run: its shares are reported alone, without a curve
STRUCTURE = ("repeats_close", "tonic_ending", "key_kept")

Tunes = list[dict[str, Any]]  # each with its `abc`, and whether the model `ended` it


@dataclass(frozen=True)
class Cell:
    """One model of a study at one temperature."""

    architecture: str
    size: str
    seed: int
    n_params: int
    n_params_non_embedding: int
    validation_loss: float
    temperature: float
    bars: str
    best: bool  # the best model, which was trained further and is no run of the study
    folder: Path

    @property
    def name(self) -> str:
        model = "best" if self.best else f"{self.architecture}-{self.size}-seed_{self.seed}"
        return f"{model}-t{self.temperature:g}-{self.bars}"

    @property
    def weights(self) -> Path:
        return self.folder / WEIGHTS


def plan_cells(root: Path, temperatures: Sequence[float], bars: str) -> list[Cell]:
    """Return the cells of a study: all finished runs at the main budget, and the best model if there is one.

    Raises UserError if there is no run.
    """
    runs = [
        (run, run_folder(root, run.config), False) for ladder in read_ladders(root).values() for run in ladder.finished
    ]
    best = read_record(root / BEST)
    if best is not None:
        runs.append((best, root / BEST, True))
    return [
        Cell(
            run.config.architecture,
            run.config.size,
            run.config.seed,
            run.n_params,
            run.n_params_non_embedding,
            run.measured_loss,
            temperature,
            bars,
            is_best,
            folder,
        )
        for run, folder, is_best in runs
        for temperature in temperatures
    ]


def check_corpus(cells: Sequence[Cell], corpus: Corpus) -> None:
    """Raise UserError if the runs of a study were trained on another corpus. The best model may have been."""
    for cell in [cell for cell in cells if not cell.best][:1]:  # all runs of a study have the same corpus
        record = read_record(cell.folder)
        if record is None or record.config.corpus != corpus.digest():
            raise UserError(f"{corpus.folder}: not the corpus that {cell.folder} was trained on (--corpus FOLDER)")


def load_pipeline(model: str) -> AbcGenerationPipeline:
    """Load a model and its tokenizer, from a folder or the Hub, as a pipeline.

    Raises UserError as :func:`modeling.loading.load_model` does.
    """
    return AbcGenerationPipeline(model=load_model(model), tokenizer=load_tokenizer(model))


def sample_cells(cells: Sequence[Cell], folder: Path, n: int, seed: int) -> dict[str, Tunes]:
    """Return `n` tunes of each cell by its name, of the best model's TIMES_BEST as many.

    They are written to `folder`; what is there of the same weights, settings and code is read instead.
    """
    tunes = {}
    progress = tqdm(cells, desc="sampling", unit=" cells")
    for cell in progress:
        progress.set_postfix_str(cell.name)
        own_seed = zlib.crc32(f"{seed} {cell.name}".encode()) % 2**31  # independent of the other cells
        count = n * (TIMES_BEST if cell.best else 1)
        settings = {"n": count, "temperature": cell.temperature, "seed": own_seed, "bars": cell.bars}
        modules = (decoding, *((bar_automaton, bar_state, logits_processors) if cell.bars == STRICT else ()))
        code = [Path(str(module.__file__)) for module in modules]
        identity = identity_of(cell.weights.read_bytes(), settings, code=code)
        path = folder / f"{cell.name}.json"
        if not is_current(path, identity):
            made = load_pipeline(str(cell.folder))(max_characters=MAX_CHARACTERS, tunes_per_batch=n, **settings)
            rows = [{"abc": tune["abc"], "ended": tune["ended"]} for tune in made]
            write_json(path, {"identity": identity, "settings": settings, "tunes": rows})
        tunes[cell.name] = read_json(path, "tunes")["tunes"]
    return tunes


def read_memory(corpus: Corpus) -> tuple[Memory, Any]:
    """Return the melodies of a corpus's training tunes without transpositions, to find copies, and the tunes' rows."""
    training = corpus.tunes("train")
    training = training.select(np.flatnonzero(np.array(training["shift"]) == 0))
    melodies = [judge(text).pitches for text in tqdm(training["text"], desc="reading training tunes", unit=" tunes")]
    return Memory(melodies), training


class Reference:
    """The tunes of a corpus as generated tunes are compared with them: training melodies, and held-out features."""

    def __init__(self, corpus: Corpus) -> None:
        self.memory, self.training = read_memory(corpus)
        self.training_features = features(self.training["text"][:BASELINE_TUNES])  # their order is random
        self.texts = {split: corpus.tunes(split)["text"] for split in HELD_OUT}
        self.features = {split: features(texts) for split, texts in self.texts.items()}

    def measure(self, texts: Sequence[str], ended: Sequence[bool], n: int | None = None) -> dict[str, Any]:
        """Return `shares` and `numbers` of a set of tunes; `test_numbers` has the distances to test, not validation.

        Distances are those of the first `n` tunes, as they fall with the number of tunes.
        """
        form = summary([structure(text) for text in texts])
        copies = summarise([self.memory.recall(judge(text).pitches) for text in texts])
        tiers = tier_shares([score_tune(text, end) for text, end in zip(texts, ended, strict=True)])
        tiers["ended"] = share(sum(ended), len(texts))  # of all tunes: as the last tier it would equal `valid`
        repeated = form["repeated_bars"]
        numbers = {"repeated_bars": {"value": repeated["mean"], "interval": repeated["interval"]}}
        numbers |= {name: copies[name] for name in ("longest_copied_run", "ngram_overlap")}
        own = features(texts[:n])
        validation, test = (
            {f"distance_{name}": row for name, row in distances(own, self.features[split]).items()}
            for split in HELD_OUT
        )
        return {
            "shares": tiers | {name: form[name] for name in STRUCTURE} | {"copied": copies["copied"]},
            "numbers": numbers | validation,
            "test_numbers": numbers | test,
        }

    def baseline(self, size: int) -> dict[str, Any]:
        """Return the distances of `size` training tunes to the test tunes."""
        size = min(size, len(self.training_features["key"]))
        found = baseline_distances(self.training_features, self.features["test"], size)
        return {f"distance_{name}": {"value": row["mean"], **row} for name, row in found.items()}

    def chance(self, seed: int) -> dict[str, float]:
        """Return the share of validation tunes that keep their key when every note gets a random letter."""
        random = Random(seed)
        rows = [structure(with_random_letters(text, random))["key_kept"] for text in self.texts["validation"]]
        return {"key_kept": fmean(row for row in rows if row is not None)}


def with_random_letters(text: str, random: Random) -> str:
    """Return a tune with the same rhythm and octaves, each note with a random letter and no accidental."""
    header = HEADER.match(text)
    start = header.end() if header else 0
    words = [
        f"{random.choice(LETTERS[note['letter'].islower()])}{note['octave']}{note['note_length']}"
        if (note := TOKEN.fullmatch(word)) and note.lastgroup == "note"
        else word
        for word in WORDS(text[start:])
    ]
    return text[:start] + "".join(words)


def reuse_cells(cells: Sequence[Cell], path: Path | None, n: int) -> dict[str, dict[str, Any]]:
    """Return by name what an earlier quality.json has measured on `n` tunes of each of these cells.

    Raises UserError naming the first cell that it lacks: the run has to be trained again.
    """
    rows = [] if path is None else read_json(path, "cells")["cells"]
    found = {}
    for cell in cells:
        key = {name: value for name, value in asdict(cell).items() if name != "folder"} | {"samples": n}
        row = next((row for row in rows if all(row[name] == value for name, value in key.items())), None)
        if row is None:
            lacking = f"{path} has not measured {n} tunes of {cell.name}" if path else "there is no --reuse_quality"
            raise UserError(f"{cell.weights} is missing, and {lacking}: delete {cell.folder} and train it again")
        found[cell.name] = row
    return found


def measure_cells(
    cells: Sequence[Cell],
    tunes: Mapping[str, Tunes],
    reused: Mapping[str, Any],
    reference: Reference,
    n: int,
    seed: int,
) -> dict[str, Any]:
    """Return what is measured on the cells' tunes, beside human tunes; reused cells as they are, as JSON."""
    measured = dict(reused)
    for cell in tqdm([cell for cell in cells if cell.name in tunes], desc="measuring", unit=" cells"):
        rows = tunes[cell.name]
        found = reference.measure([tune["abc"] for tune in rows], [tune["ended"] for tune in rows], n)
        measured[cell.name] = {**asdict(cell), "folder": cell.folder.as_posix(), "samples": len(rows), **found}
    rows = [measured[cell.name] for cell in cells]
    best = [tune["abc"] for cell in cells if cell.best for tune in tunes.get(cell.name, [])]
    human = reference.texts["test"]
    validators = {name: agreement(texts, validate_all(texts)) for name, texts in (("best", best), ("human", human))}
    return {
        "cells": [row for row in rows if not row["best"]],
        "best": [row for row in rows if row["best"]],
        "human": {split: reference.measure(texts, [True] * len(texts)) for split, texts in reference.texts.items()},
        "floors": reference.baseline(n),
        "chance": reference.chance(seed),
        "judges": {"missing": missing(), **validators},
        "frechet_music_distance": frechet_music_distance(human, best),
    }
