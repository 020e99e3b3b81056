"""A model → tunes to read and to hear: python generation/run.py --model PATH_OR_HUB_ID --key Dmix --meter 6/8 --n 12

The folder gets each tune as .abc, .mid, .svg and .wav, and index.html, which shows and plays them. Without arguments
the best model of the study writes tunes of its own.
"""

import hashlib
import sys
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm
from transformers.utils import logging as transformers_logging

import cli
from cli import UserError
from files import atomic_folder, check_output, read_json, write_json, write_text
from generation.abc_pipeline import AT_ONCE, FREE, STRICT, AbcGenerationPipeline, check_setting, shown
from generation.page import Tune, write_page
from generation.rendering import missing, notes, render
from generation.shares import tier_shares
from generation.study import load_pipeline, read_memory
from generation.words import missed, nearest
from preprocessing.corpus import Corpus
from preprocessing.notation import judge

transformers_logging.disable_progress_bar()  # the door has one bar, its own

SAMPLES = "samples.json"
SAMPLING = ("key", "metre", "rhythm", "unit_length", "title", "top_p", "top_k", "min_p", "bars", "max_characters")
FORMATS = ("mid", "svg", "wav")
MOST = {"n": 100_000}


def option(default: Any, about: str, **more: Any) -> Any:
    """Return a field with its default, its help, and what else its flag has."""
    metadata = {"help": about, **more}
    if isinstance(default, list):
        return field(default_factory=lambda: list(default), metadata=metadata)
    return field(default=default, metadata=metadata)


@dataclass
class GenerationArguments:
    """Which tunes, by which model, and where they go."""

    model: str = option("data/best_model", "a folder with a model, or its id on the Hub")
    out: str | None = option(None, "the folder for the tunes; of a model in a folder: its samples/")
    n: int = option(12, "tunes, in equal parts at each temperature")
    key: str | None = option(None, "of the tunes, such as D, F#m or Amix; without one the model chooses")
    metre: str | None = option(None, "such as 6/8 or C", aliases=["--meter"])
    rhythm: str | None = option(None, "such as jig")
    unit_length: str | None = option(None, "such as 1/8")
    title: str | None = option(None, "of all the tunes")
    prompt: str = option("", r"how each tune begins: any beginning of a tune in ABC, \n for a new line")
    temperatures: list[float] = option([0.8, 0.9, 1.0], "of the sampling")
    top_p: float = option(1.0, "sample from the likeliest characters that together have this probability")
    top_k: int = option(0, "sample from so many of the likeliest characters; 0: all")
    min_p: float = option(0.0, "sample from characters of this share of the likeliest one's probability, or more")
    bars: str = option(FREE, "strict: a bar ends only when it is full", choices=[FREE, STRICT])
    max_characters: int = option(1000, "a longer tune is cut at its last bar line")
    seed: int = option(0, "of the sampling")
    formats: list[str] = option([*FORMATS], f"of {', '.join(FORMATS)}, beside the text")
    corpus: str = option("data/processed_music_data", "what the model was trained on, to find copies")

    def __post_init__(self) -> None:
        for name, most in MOST.items():
            if not 1 <= getattr(self, name) <= most:
                raise UserError(f"--{name} {shown(getattr(self, name))}: must be from 1 to {most:,}")
        for name in ("temperatures", "formats"):
            values = getattr(self, name)
            if len(set(values)) < len(values) or (not values and name == "temperatures"):
                raise UserError(f"--{name}: give at least one, and none twice")
        with usable():
            for temperature in self.temperatures:
                check_setting("temperature", temperature)
            for name in (*SAMPLING, "seed"):
                check_setting(name, getattr(self, name))
        if unknown := sorted(set(self.formats) - set(FORMATS)):
            raise UserError(f"--formats {unknown[0]}: one of {', '.join(FORMATS)}")


@contextmanager
def usable() -> Iterator[None]:
    """Turn the pipeline's complaint into the door's, which names a setting by its flag."""
    try:
        yield
    except ValueError as error:
        flag = "--" if str(error).split()[0] in (*SAMPLING, "temperature", "seed", "n") else ""
        raise UserError(f"{flag}{error}".replace("--temperature ", "--temperatures ", 1)) from None


def write_tunes(arguments: GenerationArguments) -> None:
    """Write tunes of one model to a folder, each in every format, with a page that shows and plays them."""
    if arguments.out is None and not Path(arguments.model).is_dir():
        raise UserError(f"--model {arguments.model}: no such folder; for a model of the Hub, name the tunes' --out")
    folder = Path(arguments.out or Path(arguments.model) / "samples")
    check_output(folder, mark=SAMPLES)
    pipe = load_pipeline(arguments.model)
    absent = {kind: line for kind, line in missing().items() if kind in arguments.formats}
    corpus = Corpus.open(arguments.corpus) if Path(arguments.corpus).is_dir() else None
    decided = repr((sorted(absent), corpus and corpus.digest()))
    identity = digest(arguments, pipe.model, decided)
    if (folder / SAMPLES).is_file() and read_json(folder / SAMPLES, "identity")["identity"] == identity:
        print(f"{folder}: finished already, nothing to do")
        return
    tunes = generate(pipe, arguments)
    find_copies(tunes, corpus)
    with atomic_folder(folder, mark=SAMPLES) as temporary:
        pages = []
        with ThreadPoolExecutor(2) as pool:
            made = pool.map(lambda tune: render(tune["abc"], arguments.formats), tunes)
            pairs = zip(tunes, made, strict=True)
            for i, (tune, (files, failures)) in enumerate(tqdm(pairs, desc="rendering", total=len(tunes))):
                tune["file"] = f"{i + 1:03d}.abc"
                write_text(temporary / tune["file"], as_abc(tune, arguments.model))
                for kind, content in files.items():
                    (temporary / f"{i + 1:03d}.{kind}").write_bytes(content)
                for line in failures:
                    print(f"{tune['file']}: {line}")
                tune["formats"] = sorted(files)
                pages.append(page_entry(tune, files.get("mid")))
        write_page(
            temporary, pages, told({"model": arguments.model} | {name: getattr(arguments, name) for name in SAMPLING})
        )
        write_json(
            temporary / SAMPLES,
            {
                "identity": identity,
                "settings": asdict(arguments),
                "shares": tier_shares([tune["verdict"] for tune in tunes]),
                "samples": tunes,
            },
        )
    for line in absent.values():
        print(line)
    if corpus is None:
        print(f"{arguments.corpus}: no such corpus, so nothing says whether tunes are copied from it (--corpus FOLDER)")
    copies = "not compared with" if corpus is None else f"{sum(tune['copied'] for tune in tunes)} copied from"
    valid = sum(tune["verdict"]["valid"] for tune in tunes)
    print(f"{folder}: {len(tunes)} tunes, {valid} valid, {copies} training; open {folder / 'index.html'}")


def generate(pipe: AbcGenerationPipeline, arguments: GenerationArguments) -> list[dict[str, Any]]:
    """Return the tunes of all temperatures as the pipeline gives them."""
    settings = {name: getattr(arguments, name) for name in SAMPLING}
    prompt = arguments.prompt.replace("\\n", "\n")
    tunes = []
    with tqdm(total=arguments.n, desc="generating", unit=" tunes") as bar:
        for i, temperature in enumerate(arguments.temperatures):
            for start in range(i, arguments.n, len(arguments.temperatures) * AT_ONCE):
                n = len(range(start, arguments.n, len(arguments.temperatures))[:AT_ONCE])
                with usable():
                    seed = zlib.crc32(f"{arguments.seed} {temperature} {start}".encode())
                    tunes += pipe(prompt, n=n, temperature=temperature, seed=seed, **settings)
                bar.update(n)
    return tunes


def find_copies(tunes: list[dict[str, Any]], corpus: Corpus | None) -> None:
    """Add to each tune whether it is copied from a training tune and what it shares with which; None if unknown."""
    for tune in tunes:
        tune |= {"copied": None, "copy": None}
    if corpus is None:
        return
    memory, training = read_memory(corpus)
    for tune in tunes:
        trace = memory.recall(judge(tune["abc"]).pitches)
        place = trace.aligned_source if trace.copied and trace.aligned_source is not None else trace.source
        source = {} if place is None else training[place]
        named = {name: source.get(name) for name in ("title", "file")}
        tune |= {"copied": trace.copied, "copy": trace.as_dict() | named | {"words": nearest(trace, training)}}


def describe(tune: dict[str, Any]) -> str:
    """Return a tune's verdict in words: the first tier that it misses, and what it copies."""
    words = missed(tune["verdict"]) or "valid"
    return f"COPIED from {describe_copy(tune)}; {words}" if tune["copied"] else words


def describe_copy(tune: dict[str, Any]) -> str:
    """Return what a tune shares with the training tune that it is most like."""
    return "not compared" if tune["copy"] is None else str(tune["copy"]["words"])


def as_abc(tune: dict[str, Any], model: str) -> str:
    """Return a tune as a file: comments with its settings and verdict, then the tune."""
    lines = [f"generated by {model}", *(f"{name}: {value}" for name, value in told(tune["settings"]).items())]
    return (
        "".join(
            f"% {' '.join(line.split())}\n"
            for line in [*lines, f"verdict: {describe(tune)}", f"in training: {describe_copy(tune)}"]
        )
        + tune["abc"]
    )


def told(settings: dict[str, Any]) -> dict[str, str]:
    """Return the settings that say something."""
    return {name: str(value) for name, value in settings.items() if value not in (None, "")}


def page_entry(tune: dict[str, Any], midi: bytes | None) -> Tune:
    """Return what the page says of a tune."""
    verdict, settings = tune["verdict"], tune["settings"]
    facts = {
        "temperature": f"{settings['temperature']:.2g}",
        "seed": str(settings["seed"]),
        "bars": f"{verdict['bars']}, {100 * verdict['good_bars_share']:.0f} % of them add up",
        "notes": str(verdict["notes"]),
        "most like in training": describe_copy(tune),
    }
    stem = Path(tune["file"]).stem
    name = f"{settings['title']} {stem}" if "title" in settings else f"Tune {stem}"
    return Tune(stem, name, tune["abc"], describe(tune), verdict["valid"], facts, notes(midi) if midi else None)


def digest(arguments: GenerationArguments, model: torch.nn.Module, decided: str) -> str:
    """Return the hash of the weights, the settings, this room's code and what else has `decided` the files."""
    settings = {name: value for name, value in asdict(arguments).items() if name not in ("out", "corpus")}
    content = hashlib.sha256((repr(settings) + decided).encode())
    for file in sorted(Path(__file__).parent.glob("*.*")):
        content.update(file.read_bytes())
    for weights in model.state_dict().values():
        content.update(weights.cpu().numpy().tobytes())
    return content.hexdigest()


def run(arguments: GenerationArguments) -> None:
    torch.set_num_threads(1)  # a step is too small to share between threads
    try:
        write_tunes(arguments)
    except KeyboardInterrupt:
        print("\nstopped: the folder is written whole or not at all, and was not", file=sys.stderr)
        raise SystemExit(130) from None


def main() -> None:
    cli.main(run, GenerationArguments, about=__doc__)


if __name__ == "__main__":
    main()
