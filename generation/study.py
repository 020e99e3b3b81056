"""Tunes of every model of a study, and what is measured on them: quality.json, figures and report.

A cell is one model at one temperature. Its tunes are written once and kept; what is measured on them is measured anew.
"""

import hashlib
import zlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from random import Random
from statistics import fmean
from typing import Any

import numpy as np
from tqdm import tqdm

from cli import UserError
from files import read_json, write_json, write_text
from generation import bar_automaton, bar_state, decoding, logits_processors
from generation.abc_pipeline import STRICT, AbcGenerationPipeline
from generation.distances import distances, features, floors
from generation.external_validators import agreement, frechet_music_distance, missing, opinions
from generation.figures import draw_figures
from generation.memorisation import Memory, summarise
from generation.quality import Share, score_tune, shares
from generation.quality_vs_size import analyse
from generation.report import findings, headlines, report
from generation.structure import structure, summary
from modeling.loading import WEIGHTS, load_model, load_tokenizer
from preprocessing.corpus import HEADER, Corpus
from preprocessing.notation import TOKEN, WORDS, judge
from training.record import BEST, read_ladders, read_record, run_folder

QUALITY_FOLDER = "generation_analysis"
CELLS = "tunes"  # the folder of the cells' tunes
QUALITY, FINDINGS, REPORT = "quality.json", "quality_against_size.json", "quality.md"
LONGEST = 1000  # characters of a tune: three times what 95 % of the bundled tunes have
FLOOR_TUNES = 4000  # training tunes that the floors' draws come from
MEASURED = ("cells", "human", "floors", "frechet_music_distance", "analysis")  # what the report needs
HELD_OUT = ("validation", "test")
LETTERS = (list("CDEFGAB"), list("cdefgab"))
TIMES_BEST = 4  # as many tunes of the best model as of a run: its shares are read by themselves, not as a curve
STRUCTURE = ("repeats_close", "tonic_ending", "key_kept")


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
    best: bool  # the model that was trained further, which belongs to no ladder
    folder: Path

    @property
    def name(self) -> str:
        kind = "best" if self.best else f"{self.architecture}-{self.size}-seed_{self.seed}"
        return f"{kind}-t{self.temperature:g}-{self.bars}"

    @property
    def weights(self) -> Path:
        return self.folder / WEIGHTS


def plan_cells(root: Path, temperatures: Sequence[float], bars: str) -> list[Cell]:
    """Return the cells of a study: all finished runs of the ladders at the main budget, and the best model if any.

    Raises UserError if there is no run.
    """
    runs = []
    for ladder in read_ladders(root).values():
        for run in ladder.finished:
            runs.append((run, run_folder(root, run.config), False))
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


def load_pipeline(model: str) -> AbcGenerationPipeline:
    """Load a model and its tokenizer, from a folder or the Hub, as a pipeline.

    Raises UserError as :func:`modeling.loading.load_model` does.
    """
    return AbcGenerationPipeline(model=load_model(model), tokenizer=load_tokenizer(model))


def weights_digest(folder: Path) -> str:
    """Return the hash of a model's weights."""
    return hashlib.sha256((folder / WEIGHTS).read_bytes()).hexdigest()


def sample_cells(cells: Sequence[Cell], folder: Path, n: int, seed: int) -> list[list[dict[str, Any]]]:
    """Return `n` tunes of each cell, of the best model's TIMES_BEST as many, as rows of `abc` and `ended`.

    What stands in `folder` is not written again.
    """
    code = Path(str(decoding.__file__)).read_bytes()
    strict_code = b"".join(
        Path(str(module.__file__)).read_bytes() for module in (bar_automaton, bar_state, logits_processors)
    )
    tunes = []
    bar = tqdm(cells, desc="sampling", unit=" cells")
    for cell in bar:
        bar.set_postfix_str(cell.name)
        own_seed = zlib.crc32(f"{seed} {cell.name}".encode()) % 2**31  # whatever other cells there are
        count = n * (TIMES_BEST if cell.best else 1)
        settings = {"n": count, "temperature": cell.temperature, "seed": own_seed, "bars": cell.bars}
        decides = code + (strict_code if cell.bars == STRICT else b"")
        content = cell.weights.read_bytes() + repr(settings).encode() + decides
        identity = hashlib.sha256(content).hexdigest()
        path = folder / f"{cell.name}.json"
        if not path.is_file() or read_json(path, "identity")["identity"] != identity:
            made = load_pipeline(str(cell.folder))(max_characters=LONGEST, tunes_per_batch=n, **settings)
            rows = [{"abc": tune["abc"], "ended": tune["ended"]} for tune in made]
            write_json(path, {"identity": identity, "settings": settings, "tunes": rows})
        tunes.append(read_json(path, "tunes")["tunes"])
    return tunes


def read_memory(corpus: Corpus) -> tuple[Memory, Any]:
    """Return the melodies of a corpus's training tunes, to ask for copies, and the tunes' rows; no transpositions."""
    training = corpus.tunes("train")
    training = training.select(np.flatnonzero(np.array(training["shift"]) == 0))
    melodies = [judge(text).pitches for text in tqdm(training["text"], desc="reading training tunes", unit=" tunes")]
    return Memory(melodies), training


class Yardstick:
    """What tunes are held against: the melodies of the training tunes, and the features of the held-out ones."""

    def __init__(self, corpus: Corpus) -> None:
        self.memory, training = read_memory(corpus)
        self.learnt = features(training["text"][:FLOOR_TUNES])  # their order is random
        self.texts = {split: corpus.tunes(split)["text"] for split in HELD_OUT}
        self.held_out = {split: features(texts) for split, texts in self.texts.items()}

    def measure(self, texts: Sequence[str], ended: Sequence[bool], n: int | None = None) -> dict[str, Any]:
        """Return `shares` and `numbers` of a set of tunes; `test_numbers` has the distances to test, not validation.

        Distances are those of the first `n` tunes, as they fall with the number of tunes.
        """
        made = summary([structure(text) for text in texts])
        copies = summarise([self.memory.recall(judge(text).pitches) for text in texts])
        tiers = shares([score_tune(text, end) for text, end in zip(texts, ended, strict=True)])
        tiers["ended"] = Share(sum(ended), len(texts)).as_dict()  # of all: as the last tier it would be `valid` again
        repeated = made["repeated_bars"]
        numbers = {"repeated_bars": {"value": repeated["mean"], "interval": repeated["interval"]}}
        numbers |= {name: copies[name] for name in ("longest_copied_run", "ngram_overlap")}
        own = features(texts[:n])
        near, far = (
            {f"distance_{name}": row for name, row in distances(own, self.held_out[split]).items()}
            for split in HELD_OUT
        )
        return {
            "shares": tiers | {name: made[name] for name in STRUCTURE} | {"copied": copies["copied"]},
            "numbers": numbers | near,
            "test_numbers": numbers | far,
        }

    def floors(self, size: int) -> dict[str, Any]:
        """Return the distances of `size` training tunes to the test tunes."""
        found = floors(self.learnt, self.held_out["test"], min(size, len(self.learnt["key"])))
        return {f"distance_{name}": {"value": row["mean"], **row} for name, row in found.items()}

    def chance(self, seed: int) -> dict[str, float]:
        """Return what share of the validation tunes keeps its key once every note has a letter drawn by lot."""
        draw = Random(seed)
        rows = [structure(with_random_letters(text, draw))["key_kept"] for text in self.texts["validation"]]
        return {"key_kept": fmean(row for row in rows if row is not None)}


def with_random_letters(text: str, draw: Random) -> str:
    """Return a tune whose notes keep rhythm and octave, but each takes any letter, and no accidental."""
    header = HEADER.match(text)
    start = header.end() if header else 0
    words = [
        f"{draw.choice(LETTERS[note['letter'].islower()])}{note['octave']}{note['note_length']}"
        if (note := TOKEN.fullmatch(word)) and note.lastgroup == "note"
        else word
        for word in WORDS(text[start:])
    ]
    return text[:start] + "".join(words)


def measured_elsewhere(cells: Sequence[Cell], path: Path | None, n: int) -> dict[str, dict[str, Any]]:
    """Return by its name what an earlier quality.json has measured on `n` tunes of each cell that has no weights here.

    Raises UserError naming the first cell that it lacks: the run has to be trained again.
    """
    rows = [] if path is None else read_json(path, "cells")["cells"]
    found = {}
    for cell in cells:
        wanted = {name: value for name, value in asdict(cell).items() if name != "folder"} | {"samples": n}
        row = next((row for row in rows if all(row[name] == value for name, value in wanted.items())), None)
        if row is None:
            what = "no --measured_in is given" if path is None else f"{path} has not measured {n} tunes of {cell.name}"
            raise UserError(f"{cell.weights} is missing, and {what}: delete {cell.folder} and train it again")
        found[cell.name] = row
    return found


def measure_study(
    root: Path,
    corpus: Corpus,
    temperatures: Sequence[float],
    bars: str,
    n: int,
    seed: int,
    resamples: int,
    earlier: Path | None = None,
) -> dict[str, Any]:
    """Sample every model of a study, write numbers, figures and report to QUALITY_FOLDER, and return the numbers.

    For runs that have no weights here `earlier` stands in, a quality.json that has measured them. What was written of
    the same tunes by the same code is left as it is. Raises UserError if a model was measured nowhere.
    """
    folder = root / QUALITY_FOLDER
    planned = plan_cells(root, temperatures, bars)
    cells = [cell for cell in planned if cell.weights.is_file()]
    elsewhere = measured_elsewhere([cell for cell in planned if cell not in cells], earlier, n)
    written = sample_cells(cells, folder / CELLS, n, seed)
    code = [path.read_bytes() for path in sorted(Path(__file__).parent.glob("*.py"))]
    decided = repr((written, [asdict(cell) for cell in planned], elsewhere, corpus.digest(), resamples)).encode()
    identity = hashlib.sha256(b"".join([decided, *code])).hexdigest()
    if (folder / QUALITY).is_file() and (before := read_json(folder / QUALITY, "identity"))["identity"] == identity:
        return before
    yardstick = Yardstick(corpus)
    measured = dict(elsewhere)
    for cell, tunes in tqdm(list(zip(cells, written, strict=True)), desc="measuring", unit=" cells"):
        found = yardstick.measure([tune["abc"] for tune in tunes], [tune["ended"] for tune in tunes], n)
        measured[cell.name] = {**asdict(cell), "folder": cell.folder.as_posix(), "samples": len(tunes), **found}
    rows = [measured[cell.name] for cell in planned]
    best = [tune["abc"] for cell, tunes in zip(cells, written, strict=True) if cell.best for tune in tunes]
    people = yardstick.texts["test"]
    quality: dict[str, Any] = {
        "identity": identity,
        "cells": [row for row in rows if not row["best"]],
        "best": [row for row in rows if row["best"]],
        "human": {split: yardstick.measure(texts, [True] * len(texts)) for split, texts in yardstick.texts.items()},
        "floors": yardstick.floors(n),
        "chance": yardstick.chance(seed),
        "judges": {
            "missing": missing(),
            **{name: agreement(texts, opinions(texts)) for name, texts in (("best", best), ("human", people))},
        },
        "frechet_music_distance": frechet_music_distance(people, best),
        "analysis": {"resamples": resamples, "seed": seed, "bars": bars},
    }
    return report_quality(quality, folder)


def report_quality(quality: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Write figures and report of what was measured, and the numbers with what is found in them, which are returned."""
    analysis = analyse(quality, **quality["analysis"])
    quality = quality | {"findings": findings(quality, analysis), "headlines": headlines(analysis)}
    draw_figures(analysis, folder)
    write_text(folder / REPORT, report(quality, analysis))
    write_json(folder / FINDINGS, analysis)
    write_json(folder / QUALITY, quality)
    return quality
