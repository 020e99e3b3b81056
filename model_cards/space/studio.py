"""What the demo computes: a tune of a model, with its sound, its verdict and the most similar training tune.

This file, the modules that it imports and study.json, which names the models and holds the numbers of the figures, are
staged into one folder by model_cards/demo_folder.py. The demo needs nothing else of this project.
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
from generation.memorisation import Memory, describe_copy
from generation.quality import describe_failure
from generation.rendering import RenderingError, read_notes, to_midi
from modeling.loading import load_model, load_tokenizer
from preprocessing.notation import judge

transformers_logging.disable_progress_bar()

TRAINING = "data/train*.parquet"
MAX_LENGTH, SECONDS = 1000, 10.0  # characters and seconds that a tune may take
LOADED = 16  # models in memory
MAX_CHARACTERS = {"model": 80, "key": 20, "metre": 10}
TEMPERATURES, SEEDS = (0.1, 2.0), (0, 2**31 - 1)
SETTINGS = ("key", "metre", "temperature", "seed", "bars")  # those that are shown
HEARD = 0.9  # of the notes: a sound with fewer gets a message
LOCK = Lock()  # of loading and writing: threads share torch's random numbers, and from_pretrained is not thread-safe


@dataclass(frozen=True)
class Tune:
    """A tune and what is shown with it.

    `nearest` is one line on the most similar training tune; `copied` says that the tune counts as a copy of it. `notes`
    are [start in seconds, length in seconds, MIDI pitch]; they and `midi` are empty where abc2midi plays nothing, and
    `messages` say why. `settings` are those that were asked for.
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

    `names` are those of the models, `figures` the numbers of the figures, `study` the content of study.json; `ready` is
    done when the training tunes are read.
    """

    def __init__(self, folder: Path) -> None:
        """Read study.json in `folder`, and start to read the training tunes and the first model in the background."""
        self.study = json.loads((folder / "study.json").read_text(encoding="utf-8"))
        self.figures: dict[str, Any] = self.study["figures"]
        self._models = {model["name"]: model for model in self.study["models"]}
        self.names = [*self._models]
        self._load = lru_cache(LOADED)(load)
        self._read_training = lru_cache(1)(lambda: read_training(self.study["training"]))
        torch.set_num_threads(1)  # a step is too small to share between threads
        self.ready = ThreadPoolExecutor(1).submit(self._warm_up)  # if it fails, the first tune tries again

    def write(self, name: str, key: str, metre: str, temperature: float, seed: int, strict: bool = False) -> Tune:
        """Return the tune that the model `name` writes; it depends on the arguments only, not on other visitors.

        An empty key or metre is the model's choice. Raises ValueError with one line for an argument that cannot be
        used, and if the model or the training tunes cannot be loaded.
        """
        self._check(name, key, metre, temperature, seed, strict)
        with LOCK:
            pipe, memory, sources = self._open(name)
            [made] = pipe(
                key=key.strip(),
                metre=metre.strip(),
                temperature=float(temperature),
                seed=seed,
                bars=STRICT if strict else FREE,
                max_characters=MAX_LENGTH,
                max_time=SECONDS,
            )
            bits = bits_per_character(pipe, made["abc"], made["ended"])
        abc, verdict = made["abc"], made["verdict"]
        trace = memory.recall(judge(abc).pitches)
        messages = [] if made["ended"] else [f"cut after {MAX_LENGTH} characters or {SECONDS:g} s"]
        try:
            midi = to_midi(abc)
        except RenderingError as error:
            midi = None
            messages.append(str(error))
        sounding = read_notes(midi) if midi else []
        played = [[round(start, 3), round(length, 3), pitch] for start, length, pitch in sounding]
        if midi and len(played) < HEARD * verdict["notes"]:  # repeats can only add notes
            left_out = verdict["notes"] - len(played)
            messages.append(f"the sound lacks {left_out} notes: abc2midi reads the repeats differently")
        return Tune(
            abc=abc,
            valid=verdict["valid"],
            verdict=describe(verdict, strict),
            bits_per_character=bits,
            nearest=describe_copy(trace, sources),
            copied=trace.copied,
            notes=played,
            midi=midi,
            messages=messages,
            settings={"model": name, **{setting: made["settings"].get(setting, "any") for setting in SETTINGS}},
        )

    def _check(self, name: str, key: str, metre: str, temperature: float, seed: int, strict: bool) -> None:
        for field, text in (("model", name), ("key", key), ("metre", metre)):
            if not isinstance(text, str) or len(text) > MAX_CHARACTERS[field]:
                raise ValueError(f"{field}: give a text of at most {MAX_CHARACTERS[field]} characters")
        if name not in self._models:
            raise ValueError(f"model {name!r}: choose one of {', '.join(self.names)}")
        for field, number, kinds, (least, most) in (
            ("temperature", temperature, (int, float), TEMPERATURES),
            ("seed", seed, int, SEEDS),
        ):
            if isinstance(number, bool) or not isinstance(number, kinds) or not least <= number <= most:
                raise ValueError(f"{field}: give a {'whole ' if kinds is int else ''}number from {least} to {most}")
        if not isinstance(strict, bool):
            raise ValueError("strict: true or false")

    def _warm_up(self) -> None:
        with LOCK:
            self._open(self.names[0])

    def _open(self, name: str) -> tuple[AbcGenerationPipeline, Memory, list[dict[str, str]]]:
        """Return a model, and the training tunes with their titles and files. The caller holds LOCK."""
        model = self._models[name]
        try:
            return self._load(model["model"], model["revision"]), *self._read_training()
        except (UserError, OSError, ValueError) as error:
            raise ValueError(f"{name} cannot be loaded now: {' '.join(str(error).split())}") from None


def load(model: str, revision: str | None) -> AbcGenerationPipeline:
    """Load a model from a folder, or from the Hub at a revision. The caller holds LOCK."""
    return AbcGenerationPipeline(model=load_model(model, revision), tokenizer=load_tokenizer(model, revision))


def read_training(training: dict[str, str]) -> tuple[Memory, list[dict[str, str]]]:
    """Return the melodies of the training tunes, and title and file of each; no transpositions.

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
    """Return the mean of -log2 of the probability that a model gives to each character of a tune.

    All characters of the tune count, the requested ones too, but no field that the model never saw and no newline at
    the end. If the model ended the tune, the end counts as a character, as in the validation loss. Each is predicted
    from the characters that the model saw when it wrote, at temperature 1 and with no bar forced: an LSTM reads all of
    them, a GPT the windows of :class:`generation.decoding.Decoder`.
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
    """Return a verdict of :func:`generation.quality.score_tune` as one line."""
    reason = describe_failure(verdict)
    if reason is not None:
        return f"not valid: {reason}"
    bars = "bars, forced to add up" if strict else "bars that add up"
    return f"valid: {verdict['bars']} {bars}, {verdict['notes']} notes"
