"""Write tunes with a trained model: python generation/run.py --model PATH_OR_HUB_ID --key Dmix --metre 6/8

The output folder gets each tune as .abc, .mid, .svg and .wav, and index.html, which shows and plays them. Without
arguments the study's best model writes 12 tunes.
"""

import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm
from transformers.utils import logging as transformers_logging

import cli
from cli import UserError, option
from files import atomic_folder, check_output, write_json
from generation.abc_pipeline import SETTINGS, AbcGenerationPipeline, check_setting
from generation.identity import identity_of, is_current, package_files
from generation.memorisation import describe_copy
from generation.page import Note, Tune, write_page, write_tunes
from generation.quality import describe_failure
from generation.rendering import FORMATS, missing_programs
from generation.shares import tier_shares
from generation.study import load_pipeline, read_memory
from preprocessing.corpus import Corpus
from preprocessing.notation import judge

transformers_logging.disable_progress_bar()

SAMPLES = "samples.json"


def setting(name: str, **more: Any) -> Any:
    """Return a dataclass field for a setting of the pipeline."""
    of = SETTINGS[name]
    return option(of.default, of.about, of.choices or None, **more)


@dataclass
class GenerationArguments:
    """Which tunes, by which model, and where they are written."""

    model: str = option("data/best_model", "folder of a model, or its id on the Hub")
    output_dir: str | None = option(None, "folder for the tunes (default: samples/ in the model's folder)")
    num_samples: int = option(12, "number of tunes, divided equally between the temperatures", least=1, most=100_000)
    key: str | None = setting("key")
    metre: str | None = setting("metre", aliases=["--meter"])
    rhythm: str | None = setting("rhythm")
    unit_length: str | None = setting("unit_length")
    title: str | None = setting("title")
    prompt: str = option("", r"beginning of every tune, in ABC, \n for a new line")
    temperatures: list[float] = option([0.8, 0.9, 1.0], "sampling temperatures")
    top_p: float = setting("top_p")
    top_k: int = setting("top_k")
    min_p: float = setting("min_p")
    bars: str = setting("bars")
    max_characters: int = setting("max_characters")
    seed: int = option(0, SETTINGS["seed"].about)
    formats: list[str] = option([*FORMATS], f"of {', '.join(FORMATS)}, in addition to the ABC text")
    corpus: str = option("data/processed_music_data", "the model's training corpus, to find copied tunes")

    def __post_init__(self) -> None:
        for name in ("temperatures", "formats"):
            values = getattr(self, name)
            if len(set(values)) < len(values) or (not values and name == "temperatures"):
                raise UserError(f"--{name}: give at least one, and none twice")
        if unknown := sorted(set(self.formats) - set(FORMATS)):
            raise UserError(f"--formats {unknown[0]}: one of {', '.join(FORMATS)}")
        with name_flags():
            for temperature in self.temperatures:
                check_setting("temperature", temperature)
            for name in (*GIVEN, "seed"):
                check_setting(name, getattr(self, name))


GIVEN = [name for name in SETTINGS if name in GenerationArguments.__dataclass_fields__ and name != "seed"]


@contextmanager
def name_flags() -> Iterator[None]:
    """Turn the pipeline's ValueError, which names a setting, into a UserError that names its flag."""
    try:
        yield
    except ValueError as error:
        flag = "--" if str(error).split()[0] in (*GIVEN, "temperature", "seed") else ""
        raise UserError(f"{flag}{error}".replace("--temperature ", "--temperatures ", 1)) from None


def run(arguments: GenerationArguments) -> None:
    if arguments.output_dir is None and not Path(arguments.model).is_dir():
        raise UserError(f"--model {arguments.model}: no such folder; for a model of the Hub give --output_dir")
    folder = Path(arguments.output_dir or Path(arguments.model) / "samples")
    check_output(folder, mark=SAMPLES)
    torch.set_num_threads(1)  # a step is too small to share between threads
    pipe = load_pipeline(arguments.model)
    missing = {kind: line for kind, line in missing_programs().items() if kind in arguments.formats}
    corpus = Corpus.open(arguments.corpus) if Path(arguments.corpus).is_dir() else None
    settings = {name: value for name, value in asdict(arguments).items() if name not in ("output_dir", "corpus")}
    weights = [tensor.cpu().numpy().tobytes() for tensor in pipe.model.state_dict().values()]
    inputs = (settings, sorted(missing), corpus and corpus.digest())
    identity = identity_of(inputs, *weights, code=package_files())
    if is_current(folder / SAMPLES, identity):
        print(f"{folder}: finished already, nothing to do")
        return
    tunes = generate(pipe, arguments)
    find_copies(tunes, corpus)
    with atomic_folder(folder, mark=SAMPLES) as temporary:
        write_files(temporary, tunes, arguments)
        record = {
            "identity": identity,
            "settings": asdict(arguments),
            "shares": tier_shares([tune["verdict"] for tune in tunes]),
            "samples": tunes,
        }
        write_json(temporary / SAMPLES, record)
    for line in missing.values():
        print(line)
    if corpus is None:
        print(f"{arguments.corpus}: no such corpus, so copied tunes are not found (--corpus FOLDER)")
    copied = "not compared with" if corpus is None else f"{sum(tune['copied'] for tune in tunes)} copied from"
    valid = sum(tune["verdict"]["valid"] for tune in tunes)
    print(f"{folder}: {len(tunes)} tunes, {valid} valid, {copied} training; open {folder / 'index.html'}")


def generate(pipe: AbcGenerationPipeline, arguments: GenerationArguments) -> list[dict[str, Any]]:
    """Return the tunes of all temperatures as the pipeline returns them."""
    settings = {name: getattr(arguments, name) for name in GIVEN}
    prompt = arguments.prompt.replace("\\n", "\n")
    step, batch = len(arguments.temperatures), SETTINGS["tunes_per_batch"].default
    tunes = []
    with tqdm(total=arguments.num_samples, desc="generating", unit=" tunes") as bar:
        for i, temperature in enumerate(arguments.temperatures):
            for start in range(i, arguments.num_samples, step * batch):
                n = len(range(start, arguments.num_samples, step)[:batch])
                seed = zlib.crc32(f"{arguments.seed} {temperature} {start}".encode())
                with name_flags():
                    tunes += pipe(prompt, n=n, temperature=temperature, seed=seed, **settings)
                bar.update(n)
    return tunes


def find_copies(tunes: list[dict[str, Any]], corpus: Corpus | None) -> None:
    """Add to each tune whether it is copied, and what it shares with which training tune; None without a corpus."""
    if corpus is None:
        for tune in tunes:
            tune |= {"copied": None, "copy": None}
        return
    memory, training = read_memory(corpus)
    for tune in tunes:
        trace = memory.recall(judge(tune["abc"]).pitches)
        source = trace.aligned_source if trace.copied and trace.aligned_source is not None else trace.source
        row = {} if source is None else training[source]
        named = {"title": row.get("title"), "file": row.get("file"), "words": describe_copy(trace, training)}
        tune |= {"copied": trace.copied, "copy": trace.as_dict() | named}


def write_files(folder: Path, tunes: list[dict[str, Any]], arguments: GenerationArguments) -> None:
    """Write each tune's files and the page."""
    notes = write_tunes(folder, tunes, arguments.formats, lambda tune: comments(tune, arguments.model))
    for tune in tunes:
        for error in tune.pop("failures"):
            print(f"{tune['file']}: {error}")
    settings = {"model": arguments.model} | {name: getattr(arguments, name) for name in GIVEN}
    write_page(folder, [page_entry(*pair) for pair in zip(tunes, notes, strict=True)], given_settings(settings))


def describe_verdict(tune: dict[str, Any]) -> str:
    """Return whether a tune is valid and, if not, the first tier that it fails; first of all whether it is copied."""
    verdict = describe_failure(tune["verdict"]) or "valid"
    return f"COPIED from {training_match(tune)}; {verdict}" if tune["copied"] else verdict


def training_match(tune: dict[str, Any]) -> str:
    """Return what a tune shares with the training tune most like it."""
    return "not compared" if tune["copy"] is None else str(tune["copy"]["words"])


def comments(tune: dict[str, Any], model: str) -> dict[str, str]:
    """Return what a tune's file says of it."""
    return {
        "model": model,
        **given_settings(tune["settings"]),
        "verdict": describe_verdict(tune),
        "in training": training_match(tune),
    }


def given_settings(settings: dict[str, Any]) -> dict[str, str]:
    """Return the settings that have a value, as text."""
    return {name: str(value) for name, value in settings.items() if value not in (None, "")}


def page_entry(tune: dict[str, Any], notes: Sequence[Note] | None) -> Tune:
    """Return a tune as the page shows it."""
    verdict, settings = tune["verdict"], tune["settings"]
    facts = {
        "temperature": f"{settings['temperature']:.2g}",
        "seed": str(settings["seed"]),
        "bars": f"{verdict['bars']}, {100 * verdict['good_bars_share']:.0f} % of them add up",
        "notes": str(verdict["notes"]),
        "most like in training": training_match(tune),
    }
    stem = Path(tune["file"]).stem
    name = f"{settings['title']} {stem}" if "title" in settings else f"Tune {stem}"
    return Tune(stem, name, tune["abc"], describe_verdict(tune), verdict["valid"], facts, notes)


def main() -> None:
    cli.main(run, GenerationArguments, about=__doc__)


if __name__ == "__main__":
    main()
