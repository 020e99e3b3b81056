"""Prepare a study for the Hub: one complete folder for each branch of each repository, before anything is pushed."""

import json
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from math import log
from pathlib import Path
from typing import Any

from markdown_it import MarkdownIt
from tqdm import tqdm

from cli import UserError
from files import atomic_folder, read_json, render, write_json, write_text
from generation.memorisation import Memory
from generation.packing import pack
from generation.page import write_tunes
from generation.quality import score_tune
from generation.study import CELLS, Cell, read_memory
from model_cards.card import CARD, LAW_FIGURE, QUALITY_FIGURE, Links, model_card
from model_cards.demo_folder import stage_demo
from model_cards.paths import clean_folder, distinct_names, relative_name
from model_cards.releases import DATASET, MAIN, MODEL_FILES, ROOT, Release, add_code, model_repository, releases
from model_cards.results import CORPUS, PUBLISHED_STATS, QUALITY, STATS, Results, select_tunes
from modeling.loading import WEIGHTS, load_model
from preprocessing.blocks import file_sha256
from preprocessing.corpus import Corpus
from preprocessing.dataset_card import dataset_card
from preprocessing.notation import judge
from training.evaluation import held_out_losses
from training.record import BEST, read_ladders, write_record

DEMO = "abc-scaling-demo"
METRICS = ("abc_validity", "tune_statistics", "originality")
FIGURES, MANIFEST, LOSSES = "figures", "manifest.json", "losses.json"
TOLERANCE = 0.01  # nats per character between a loss in fp32 and the record's, which may be in bf16
METRIC_PAGE = Path(__file__).parent / "metric_page.html.j2"


@dataclass(frozen=True)
class Branch:
    """A branch of a repository on the Hub, and the folder with all its files."""

    repository: str
    kind: str  # model, dataset or space
    revision: str
    folder: Path

    def __str__(self) -> str:
        return f"{self.kind} {self.repository}, branch {self.revision}"


def stage(results: Results, namespace: str, folder: Path) -> list[Branch]:
    """Fill `folder` with all that is pushed of a study, and return its branches in the order of their push.

    The order is data, sizes, each architecture's main, metrics, demo: nothing visible refers to what is not there yet.
    Raises UserError if a model's weights are not those of its record.
    """
    root = results.root
    corpus = Corpus.open(root / CORPUS)
    shared = [with_test_loss(release, corpus, folder / LOSSES) for release in releases(root)]
    memory, _ = read_memory(corpus)
    branches: list[Branch] = []

    def branch(repository: str, kind: str, revision: str = MAIN) -> Path:
        branches.append(Branch(repository, kind, revision, folder / kind / repository.split("/")[1] / revision))
        return branches[-1].folder

    dataset = f"{namespace}/{DATASET}"
    with atomic_folder(branch(dataset, "dataset"), mark=CARD) as temporary:
        stage_dataset(corpus, dataset, temporary)
    for release in tqdm(sorted(shared, key=lambda release: release.revision == MAIN), desc="models", unit=" models"):
        repository = model_repository(namespace, release.architecture)
        sizes = [other for other in shared if other.architecture == release.architecture]
        figures = [f"{FIGURES}/{name}" for name in (LAW_FIGURE, QUALITY_FIGURE)]
        links = Links(repository, release.revision, dataset, *figures)
        with atomic_folder(branch(repository, "model", release.revision), mark=CARD) as temporary:
            stage_model(results, release, sizes, links, memory, temporary)
            clean_folder(temporary, root)
    for name in METRICS:
        with atomic_folder(branch(f"{namespace}/{name}", "space"), mark=CARD) as temporary:
            stage_metric(name, namespace, temporary)
    stage_demo(root, branch(f"{namespace}/{DEMO}", "space"), namespace)
    return branches


def with_test_loss(release: Release, corpus: Corpus, cache: Path) -> Release:
    """Return a release whose record has the loss on the test split; `cache` keeps losses by the hash of the weights.

    Raises UserError if the weights cannot be read, or if their validation loss is not the record's.
    """
    record = release.record
    losses: dict[str, Any] = read_json(cache) if cache.is_file() else {}
    key = f"{corpus.digest()} {file_sha256(release.folder / WEIGHTS)}"
    if key not in losses:
        model = load_model(release.folder)
        found = {
            split: held_out_losses(model, corpus, split, record.config.context).whole
            for split in ("validation", "test")
        }
        losses[key] = {split: asdict(loss) for split, loss in found.items()}
        write_json(cache, losses)
    validation, test = losses[key]["validation"], losses[key]["test"]
    if not abs(validation["loss"] - record.validation_loss) <= TOLERANCE:
        raise UserError(
            f"{release.folder}: the weights have a validation loss of {validation['loss']:.4f} nats per character, "
            f"but the record has {record.validation_loss:.4f}: delete the folder and train it again"
        )
    if record.test_loss is not None:
        return release
    scored = {
        "test_loss": test["loss"],
        "test_loss_standard_error": test["standard_error"],
        "test_bits_per_character": test["loss"] / log(2),
        "test_tokens": test["tokens"],
    }
    return replace(release, record=replace(record, **scored))


def stage_dataset(corpus: Corpus, repository: str, folder: Path) -> None:
    """Copy the files that a corpus's manifest names, with a card that names its repository; without machine paths.

    Raises UserError if a file is not the one that was built.
    """
    manifest = corpus.manifest()
    for name in manifest["outputs"]:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(corpus.file(name), folder / name)
    given = manifest["arguments"]
    names = distinct_names([*manifest["inputs"], *given.get("source", [])])
    manifest["inputs"] = {names[source]: files for source, files in manifest["inputs"].items()}
    given |= {name: relative_name(value) for name, value in given.items() if isinstance(value, str)}
    given["source"] = [names[source] for source in given.get("source", [])]
    write_text(folder / CARD, dataset_card(corpus.stats, manifest, repository))
    clean_folder(folder, corpus.folder.parent)
    manifest["outputs"] = {name: file_sha256(folder / name) for name in manifest["outputs"]}  # the card has changed
    write_json(folder / MANIFEST, manifest)


def stage_model(
    results: Results, release: Release, sizes: Sequence[Release], links: Links, memory: Memory, folder: Path
) -> None:
    """Copy a model with its code, record, pictures and card; `main` also holds the results of the whole study."""
    for name in MODEL_FILES:
        shutil.copyfile(release.folder / name, folder / name)
    add_code(folder, release.architecture)
    write_record(folder, release.record)
    (folder / FIGURES).mkdir()
    shutil.copyfile(results.root / "comparison_analysis" / LAW_FIGURE, folder / links.law_figure)
    shutil.copyfile(results.root / "generation_analysis" / QUALITY_FIGURE, folder / links.quality_figure)
    tunes = select_tunes(tunes_of(results, release, memory))
    write_tunes(folder / links.scores, tunes, ("svg", "mid"), comments=lambda _: {})
    if release.revision == MAIN:
        copy_results(results, folder / "results")
    write_text(folder / CARD, model_card(results, release.record, tunes, links, sizes))


def copy_results(results: Results, folder: Path) -> None:
    """Copy fits, figures, reports and statistics of a study, and its records as JSON lines; no pages, no SVG."""
    leave_out = shutil.ignore_patterns("*.svg", "*.html", "quality_vs_size.json", "tunes", CELLS)
    for name in ("GPT_analysis", "comparison_analysis", "generation_analysis"):
        shutil.copytree(results.root / name, folder / name, ignore=leave_out)
    shutil.copyfile(results.root / STATS, folder / PUBLISHED_STATS)
    ladders = read_ladders(results.root).values()
    runs = [run for ladder in ladders for run in ladder.finished + ladder.others + ladder.unfinished]
    records = [*runs, *results.search, results.best]
    write_text(folder / "runs.jsonl", "".join(json.dumps(record.to_dict()) + "\n" for record in records))


def tunes_of(results: Results, release: Release, memory: Memory) -> list[dict[str, Any]]:
    """Return the tunes of a model whose quality was measured, each with its verdict and whether it is copied."""
    if release.folder == results.root / BEST:
        return [{**tune} for tune in results.samples["samples"]]
    tunes = []
    for row in results.cells(release.record):
        cell = Cell(**{name: row[name] for name in Cell.__dataclass_fields__})
        for tune in read_json((results.root / QUALITY).parent / CELLS / f"{cell.name}.json", "tunes")["tunes"]:
            tunes.append(
                {
                    "abc": tune["abc"],
                    "settings": {"temperature": cell.temperature, "bars": cell.bars},
                    "verdict": score_tune(tune["abc"], tune["ended"]),
                    "copied": memory.recall(judge(tune["abc"]).pitches).copied,
                }
            )
    return tunes


def stage_metric(name: str, namespace: str, folder: Path) -> None:
    """Pack an evaluate metric with its card, which names its repository, and a page for its Space."""
    source = ROOT / "generation" / name
    pack(source / f"{name}.py", folder)
    card = (source / CARD).read_text(encoding="utf-8").replace(f"generation/{name}", f"{namespace}/{name}")
    write_text(folder / CARD, card)
    body = MarkdownIt("commonmark", {"html": False}).enable("table").render(card.split("---\n", 2)[2])
    write_text(folder / "index.html", render(METRIC_PAGE, title=name, body=body))
