"""A study as the Hub will show it: a folder for each branch of each repository, whole before anything is pushed."""

import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from math import log
from pathlib import Path
from typing import Any

from tqdm import tqdm

from analysis.page import write_page
from cli import UserError
from files import atomic_folder, read_json, write_json, write_text
from generation.memorisation import Memory
from generation.packing import pack
from generation.quality import score_tune
from generation.rendering import render
from generation.study import CELLS, QUALITY_FOLDER, Cell, read_memory, weights_digest
from model_cards.card import LAW_FIGURE, QUALITY_FIGURE, Place, model_card
from model_cards.demo import stage as stage_demo
from model_cards.paths import bare, bare_names, forget, forget_paths
from model_cards.publish import CARD, ROOT, TOKENIZER_FILES, add_code, copy_results
from model_cards.releases import DATASET, DEMO, MAIN, METRICS, Release, model_repository, releases
from model_cards.results import CORPUS, Results, shown_tunes
from modeling.loading import load_model
from preprocessing.blocks import file_sha256
from preprocessing.corpus import Corpus
from preprocessing.dataset_card import dataset_card
from preprocessing.notation import judge
from training.evaluation import held_out_losses
from training.record import BEST, write_record

RESULTS, MANIFEST = "results", "manifest.json"
LOSSES = "losses.json"
TOLERANCE = 0.01  # nats per character between a loss in fp32 and the record's, which may be of bf16
MODEL_FILES = ("config.json", "generation_config.json", "model.safetensors", *TOKENIZER_FILES)
KINDS = ("svg", "mid")


@dataclass(frozen=True)
class Branch:
    """A branch of a repository on the Hub, and the folder that holds all its files."""

    repository: str
    kind: str  # model, dataset or space
    revision: str
    folder: Path


def stage(root: Path, results: Results, namespace: str, folder: Path) -> list[Branch]:
    """Fill `folder` with all that is pushed of a study, and return its branches in the order of their push.

    What others refer to comes first, so that nothing that is visible names what is not there: data, sizes, each
    architecture's main, metrics, demo. Raises UserError if a model's weights are not those of its record.
    """
    corpus = Corpus.open(root / CORPUS)
    shared = [measured(release, corpus, folder / LOSSES) for release in releases(root)]
    shared = [replace(release, record=forget(release.record, root)) for release in shared]
    results = replace(results, best=forget(results.best, root), search=forget(results.search, root))
    memory, _ = read_memory(corpus)
    branches: list[Branch] = []

    def branch(repository: str, kind: str, revision: str = MAIN) -> Branch:
        made = Branch(repository, kind, revision, folder / kind / repository.split("/")[1] / revision)
        branches.append(made)
        return made

    dataset = f"{namespace}/{DATASET}"
    with atomic_folder(branch(dataset, "dataset").folder, mark=CARD) as temporary:
        stage_dataset(corpus, dataset, temporary)
    for release in tqdm(sorted(shared, key=lambda release: release.revision == MAIN), desc="models", unit=" models"):
        repository = model_repository(namespace, release.architecture)
        shelf = [other for other in shared if other.architecture == release.architecture]
        place = Place(repository, release.revision, dataset)
        with atomic_folder(branch(repository, "model", release.revision).folder, mark=CARD) as temporary:
            stage_model(root, results, release, shelf, place, memory, temporary)
            forget_paths(temporary, root)
    for name in METRICS:
        with atomic_folder(branch(f"{namespace}/{name}", "space").folder, mark=CARD) as temporary:
            stage_metric(name, namespace, temporary)
    stage_demo(root, branch(f"{namespace}/{DEMO}", "space").folder, namespace)
    return branches


def measured(release: Release, corpus: Corpus, kept: Path) -> Release:
    """Return a release whose record has the loss on the test split; it is kept in a file, by the hash of the weights.

    Raises UserError if the weights cannot be read, or do not have the validation loss that the record says.
    """
    model, context = load_model(release.folder), release.record.config.context
    losses: dict[str, Any] = read_json(kept) if kept.is_file() else {}
    losses = losses if isinstance(losses, dict) else {}  # they can be computed again
    key = f"{corpus.digest()} {weights_digest(release.folder)}"
    if key not in losses:
        found = {split: held_out_losses(model, corpus, split, context).whole for split in ("validation", "test")}
        losses[key] = {split: asdict(loss) for split, loss in found.items()}
        write_json(kept, losses)
    told, validation, test = release.record.validation_loss, losses[key]["validation"], losses[key]["test"]
    if not abs(validation["loss"] - told) <= TOLERANCE:
        raise UserError(
            f"{release.folder}: the weights have a validation loss of {validation['loss']:.4f} nats per character, "
            f"the record says {told:.4f}: delete the folder and train it again"
        )
    scored = {
        "test_loss": test["loss"],
        "test_loss_standard_error": test["standard_error"],
        "test_bits_per_character": test["loss"] / log(2),
        "test_tokens": test["tokens"],
    }
    record = release.record
    return replace(release, record=record if record.test_loss is not None else replace(record, **scored))


def stage_dataset(corpus: Corpus, repository: str, folder: Path) -> None:
    """Copy the files of a corpus that its manifest names, with a card that names its place on the Hub.

    No path of the machine is among them. Raises UserError if one of them is not the one that was built.
    """
    manifest = corpus.manifest()
    for name in manifest["outputs"]:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(corpus.file(name), folder / name)
    names = bare_names([*manifest["inputs"], *manifest["arguments"].get("source", [])])
    manifest["inputs"] = {names[source]: files for source, files in manifest["inputs"].items()}
    given = manifest["arguments"]
    given |= {name: bare(value) for name, value in given.items() if isinstance(value, str)}
    given["source"] = [names[source] for source in given.get("source", [])]
    write_text(folder / CARD, dataset_card(corpus.stats, manifest, repository))
    forget_paths(folder, corpus.folder.parent)
    manifest["outputs"] = {name: file_sha256(folder / name) for name in manifest["outputs"]}  # the card has changed
    write_json(folder / MANIFEST, manifest)


def stage_model(
    root: Path,
    results: Results,
    release: Release,
    shelf: Sequence[Release],
    place: Place,
    memory: Memory,
    folder: Path,
) -> None:
    """Copy a model with its code, record, pictures and card; `main` also holds the results of the whole study."""
    for name in MODEL_FILES:
        shutil.copyfile(release.folder / name, folder / name)
    add_code(folder, release.architecture)
    write_record(folder, release.record)
    (folder / place.figures).mkdir()
    shutil.copyfile(root / "comparison_analysis" / LAW_FIGURE, folder / place.figures / LAW_FIGURE)
    shutil.copyfile(root / QUALITY_FOLDER / QUALITY_FIGURE, folder / place.figures / QUALITY_FIGURE)
    tunes = shown_tunes(tunes_of(root, results, release, memory))
    for i, tune in enumerate(tunes):
        stem = f"{i + 1:03d}"
        files, _ = render(tune["abc"], KINDS)
        tune |= {"file": f"{stem}.abc", "formats": sorted(files)}
        write_text(folder / place.scores / f"{stem}.abc", tune["abc"])
        for kind, content in files.items():
            (folder / place.scores / f"{stem}.{kind}").write_bytes(content)
    if release.revision == MAIN:
        (folder / RESULTS).mkdir()
        copy_results(results, folder / RESULTS)
    write_text(folder / CARD, model_card(results, release.record, tunes, place, shelf))


def tunes_of(root: Path, results: Results, release: Release, memory: Memory) -> list[dict[str, Any]]:
    """Return the tunes of a model whose quality was measured, with verdict and whether each is copied."""
    if release.folder == root / BEST:
        return [{**tune} for tune in results.samples["samples"]]
    tunes = []
    for row in results.cells(release.record):
        cell = Cell(**{name: row[name] for name in Cell.__dataclass_fields__})
        for tune in read_json(root / QUALITY_FOLDER / CELLS / f"{cell.name}.json", "tunes")["tunes"]:
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
    """Pack an evaluate metric with its card, which names its place on the Hub, and a page for its Space."""
    source = ROOT / "generation" / name
    pack(source / f"{name}.py", folder)
    card = (source / CARD).read_text(encoding="utf-8").replace(f"generation/{name}", f"{namespace}/{name}")
    write_text(folder / CARD, card)
    write_text(folder / "index.html", write_page(card.split("---\n", 2)[2], folder))
