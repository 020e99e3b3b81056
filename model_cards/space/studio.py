"""What the demo computes: one tune of one model, and all that is shown beside it.

This file, the rooms' modules that it imports and study.json, which names the models and holds the figures' numbers, are
staged into one folder by model_cards/demo.py; the rest of the project is not needed where the demo runs.
"""

import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from math import log
from pathlib import Path
from threading import Lock
from typing import Any

import pyarrow.compute as pc
import pyarrow.parquet as pq
import torch
from huggingface_hub import snapshot_download
from transformers.utils import logging as transformers_logging

from cli import UserError
from generation.abc_pipeline import FREE, STRICT, AbcGenerationPipeline, split_header
from generation.decoding import KEPT, Decoder, window
from generation.memorisation import Memory
from generation.messages import describe_copy, describe_failure
from generation.rendering import RenderingError, read_notes, to_midi
from modeling.loading import load_model, load_tokenizer
from preprocessing.notation import judge

transformers_logging.disable_progress_bar()

TRAINING = "data/train*.parquet"
LONGEST, SECONDS = 1000, 10.0  # characters and seconds that a tune may take
LOADED = 16  # models in memory at once
CHARACTERS = {"model": 80, "key": 20, "metre": 10}  # at most, of what is given
TEMPERATURES, SEEDS = (0.1, 2.0), (0, 2**31 - 1)
TOLD = ("key", "metre", "temperature", "seed", "bars")  # of the settings
HEARD = 0.9  # of the notes: fewer in the sound are told
TURN = Lock()  # to load and to ask models: threads share torch's randomness, and from_pretrained is for one at a time


@dataclass(frozen=True)
class Tune:
    """A tune and what is said of it.

    bits_per_character: see :func:`bits_per_character`.
    nearest: what it shares with which training tune, one line; `copied`: that is so much that it counts as a copy.
    notes: [start in seconds, length in seconds, MIDI pitch] of each; with `midi`, empty where abc2midi plays nothing,
    and `messages` say why, a line each.
    settings: what was asked for.
    """

    abc: str
    valid: bool
    verdict: str
    bits_per_character: float
    nearest: str
    copied: bool
    notes: list[list[float]]
    midi: bytes | None
    messages: list[str]
    settings: dict[str, Any]


class Studio:
    """The models of a study, for any number of threads.

    `names` are those of the models, `figures` the numbers of the figures, `study` all that study.json holds; `ready` is
    done when the training tunes are read.
    """

    def __init__(self, folder: Path) -> None:
        """Read study.json in `folder`, and begin to read the training tunes and the first model behind the scenes."""
        self.study = json.loads((folder / "study.json").read_text(encoding="utf-8"))
        self.figures: dict[str, Any] = self.study["figures"]
        self._models = {model["name"]: model for model in self.study["models"]}
        self.names = [*self._models]
        self._load = lru_cache(LOADED)(load)
        self._read_training = lru_cache(1)(lambda: read_training(self.study["training"]))
        torch.set_num_threads(1)  # a step is too small to share between threads
        self.ready = ThreadPoolExecutor(1).submit(self._warm)  # where it fails, the first tune tries again

    def write(self, name: str, key: str, metre: str, temperature: float, seed: int, strict: bool = False) -> Tune:
        """Return the tune that the model `name` writes; the same arguments give the same tune, whoever else writes.

        An empty key or metre leaves it to the model. Raises ValueError with one line for an argument that cannot be
        used, and for a model or training tunes that cannot be loaded.
        """
        self._check(name, key, metre, temperature, seed, strict)
        with TURN:
            pipe, memory, sources = self._open(name)
            [made] = pipe(
                key=key.strip(),
                metre=metre.strip(),
                temperature=float(temperature),
                seed=seed,
                bars=STRICT if strict else FREE,
                max_characters=LONGEST,
                max_time=SECONDS,
            )
            bits = bits_per_character(pipe, made["abc"], made["ended"])
        abc, verdict = made["abc"], made["verdict"]
        trace = memory.recall(judge(abc).pitches)
        messages = [] if made["ended"] else [f"cut: it may take {LONGEST} characters and {SECONDS:g} s"]
        try:
            midi = to_midi(abc)
        except RenderingError as error:
            midi = None
            messages.append(str(error))
        played = [list(note) for note in read_notes(midi)] if midi else []
        if midi and len(played) < HEARD * verdict["notes"]:  # repeats can only make them more
            left_out = verdict["notes"] - len(played)
            messages.append(f"the sound leaves out {left_out} of its notes: abc2midi reads its repeats otherwise")
        return Tune(
            abc,
            verdict["valid"],
            describe(verdict, strict),
            bits,
            describe_copy(trace, sources),
            trace.copied,
            played,
            midi,
            messages,
            {"model": name, **{what: made["settings"].get(what, "any") for what in TOLD}},
        )

    def _check(self, name: str, key: str, metre: str, temperature: float, seed: int, strict: bool) -> None:
        for what, text in (("model", name), ("key", key), ("metre", metre)):
            if not isinstance(text, str) or len(text) > CHARACTERS[what]:
                raise ValueError(f"{what}: give a text of at most {CHARACTERS[what]} characters")
        if name not in self._models:
            raise ValueError(f"model {name!r}: there are {', '.join(self.names)}")
        for what, number, kinds, (least, most) in (
            ("temperature", temperature, (int, float), TEMPERATURES),
            ("seed", seed, int, SEEDS),
        ):
            if isinstance(number, bool) or not isinstance(number, kinds) or not least <= number <= most:
                raise ValueError(f"{what}: give a {'whole ' if kinds is int else ''}number from {least} to {most}")
        if not isinstance(strict, bool):
            raise ValueError("strict: true or false")

    def _warm(self) -> None:
        with TURN:
            self._open(self.names[0])

    def _open(self, name: str) -> tuple[AbcGenerationPipeline, Memory, list[dict[str, str]]]:
        """Return a model, and the training tunes with what names them; read once. To be called in one's turn."""
        model = self._models[name]
        try:
            return self._load(model["model"], model["revision"]), *self._read_training()
        except (UserError, OSError, ValueError) as error:
            raise ValueError(f"{name} cannot be loaded now: {' '.join(str(error).split())}") from None


def load(model: str, revision: str | None) -> AbcGenerationPipeline:
    """Load a model from a folder, or from the Hub at a revision. To be called in one's turn."""
    return AbcGenerationPipeline(model=load_model(model, revision), tokenizer=load_tokenizer(model, revision))


def read_training(training: dict[str, str]) -> tuple[Memory, list[dict[str, str]]]:
    """Return the melodies of the training tunes, to ask for copies, and the title and file of each; no transpositions.

    `training` has the `path` of the corpus's folder or its `repository` on the Hub.
    """
    folder = training.get("path") or snapshot_download(
        training["repository"], repo_type="dataset", allow_patterns=TRAINING
    )
    files = sorted(Path(folder).glob(TRAINING))
    if not files:
        raise FileNotFoundError(f"{folder} holds no {TRAINING}")
    table = pq.read_table(files, columns=["text", "title", "file"], filters=pc.field("shift") == 0)
    memory = Memory(judge(text).pitches for text in table["text"].to_pylist())
    return memory, table.select(["title", "file"]).to_pylist()


@torch.inference_mode()
def bits_per_character(pipe: AbcGenerationPipeline, abc: str, ended: bool) -> float:
    """Return -log2 of the probability that a model gives to a tune, over its characters, the mean.

    They are all of the tune as it is shown, the header and what was asked for among them, but no field that the model
    was never shown and no newline at the end; if the model ended the tune, its end counts as a character, as in the
    validation loss. Each is foretold from what stands before it as in writing, at temperature 1 and with no bar
    forced: an LSTM reads all of it, a GPT the windows of :class:`generation.decoding.Decoder`.
    """
    model, tokenizer = pipe.model, pipe.tokenizer
    fields, music = split_header(abc)
    known = "X" + pipe.header_fields
    text = "".join(f"{letter}:{value}\n" for letter, value in fields if letter in known) + music.rstrip()
    ids = tokenizer(text, verbose=False)["input_ids"] + [tokenizer.eos_token_id] * ended
    context = getattr(model.config, "n_positions", len(ids))
    bar_lines: Any = Decoder(tokenizer).bar_lines
    nats, read = 0.0, 1
    while read < len(ids):
        start = 0 if read <= context else read - len(window(ids[:read], int(KEPT * context), bar_lines))
        end = min(start + context + 1, len(ids))
        scores = model(torch.tensor([ids[start : end - 1]])).logits[0, read - 1 - start :].log_softmax(-1)
        nats -= float(scores.gather(1, torch.tensor(ids[read:end])[:, None]).sum())
        read = end
    return nats / log(2) / (len(ids) - 1)


def describe(verdict: dict[str, Any], strict: bool) -> str:
    """Return a verdict of :func:`generation.quality.score_tune` in words."""
    words = describe_failure(verdict)
    if words is not None:
        return f"not valid: {words}"
    add_up = "that were made to add up" if strict else "that add up"
    return f"valid: {verdict['bars']} bars {add_up}, {verdict['notes']} notes, ended by itself"
