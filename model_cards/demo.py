"""The demo's folder: a Space of the Hub, or the same page on the study at hand.

It holds the page, what it computes, the modules of the rooms that this needs, and study.json with its numbers.
"""

import ast
import re
import shutil
import tomllib
from collections.abc import Iterable
from math import log
from pathlib import Path
from typing import Any

from huggingface_hub import SpaceCardData

from analysis.report import NAMES, chosen_fit, law_line
from files import atomic_folder, read_json, write_json, write_text
from generation.study import FINDINGS, QUALITY_FOLDER
from model_cards.card import licence_words
from model_cards.releases import DATASET, MAIN, model_repository, releases
from model_cards.results import CORPUS, CORPUS_FIELDS, STATS
from model_cards.vendor import vendor_abcjs
from training.record import baseline_file, read_ladders

ROOT = Path(__file__).parent.parent
SPACE = Path(__file__).parent / "space"
PLAYER = ROOT / "generation" / "page.js"
STUDY = "study.json"
# Else the Space would install gigabytes for a GPU that it does not have.
TORCH_FOR_CPU = "--extra-index-url https://download.pytorch.org/whl/cpu"
NEEDS = ("huggingface-hub", "numpy", "pyarrow", "safetensors", "symusic", "torch", "transformers")
PAGE_NEEDS = ("gradio", "pillow")  # of pyproject's extra "demo"
ABOUT = """# Music scaling laws

Choose two of a study's models and ask them for a tune: each comes as a score that can be played, with a verdict, its
bits per character and the training tune that is most like it. The figures of the study are on the second tab.

The code is under the Apache License 2.0, abcjs under the MIT licence (vendor/abcjs/LICENSE.md). """
OF_CONFIG = ("architecture", "size", "seed", "learning_rate", "batch_size")
OF_BASELINE = ("order", "validation_loss", "bits_per_character")
OF_RECORD = (
    *("n_params", "n_params_non_embedding", "tokens", "epochs", "flops", "validation_loss"),
    *("validation_loss_standard_error", "validation_bits_per_character", "seconds", "tokens_per_second", "hardware"),
)


def stage(root: Path, folder: Path, namespace: str | None) -> None:
    """Write the demo of the study below `root` to `folder`, on models in folders here or, with a namespace, on the Hub.

    Raises UserError if the study is not finished, if `folder` holds anything else, or if abcjs cannot be had.
    """
    with atomic_folder(folder, mark=STUDY) as temporary:
        shutil.copytree(SPACE, temporary, dirs_exist_ok=True, ignore=shutil.ignore_patterns("__pycache__"))
        for path in (PLAYER, *closure(SPACE.glob("*.py"))):
            copy = temporary / path.relative_to(ROOT)
            copy.parent.mkdir(exist_ok=True)
            shutil.copyfile(path, copy)
        vendor_abcjs(temporary)
        study = describe_study(root, namespace)
        write_text(temporary / "README.md", space_card(namespace, study["licence"]))
        write_text(temporary / "requirements.txt", "\n".join([TORCH_FOR_CPU, *requirements()]) + "\n")
        write_json(temporary / STUDY, study)


def closure(modules: Iterable[Path]) -> list[Path]:
    """Return the project's modules that `modules` import, directly or through others, rooms' __init__ with them."""
    found: dict[Path, None] = {}
    waiting = [*modules]
    while waiting:
        path = waiting.pop()
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                origin = ".".join(filter(None, [path.parent.name if node.level else None, node.module]))
                names = [origin, *(f"{origin}.{alias.name}" for alias in node.names)]
            for room, _, name in (name.partition(".") for name in names):
                for file in (ROOT / f"{room}.py", ROOT / room / "__init__.py", ROOT / room / f"{name}.py"):
                    if file.is_file() and file not in found:
                        found[file] = None
                        waiting.append(file)
    return sorted(found)


def requirements() -> list[str]:
    """Return what a Space installs, in the versions that the project asks for."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    lines = [*project["optional-dependencies"]["demo"], *project["dependencies"]]
    return [line for line in lines if re.split(r"[<>=!~\[ ]", line)[0] in PAGE_NEEDS + NEEDS]


def space_card(namespace: str | None, licence: str) -> str:
    """Return the card of the Space, which tells the Hub how to run it; `licence` is a sentence on models and tunes."""
    [gradio] = [line for line in requirements() if line.startswith("gradio")]
    data = SpaceCardData(
        title="Music scaling laws",
        sdk="gradio",
        sdk_version=f"{gradio.partition('>=')[2]}.0",
        python_version="3.12",
        app_file="app.py",
        license="apache-2.0",
        models=[model_repository(namespace, architecture) for architecture in NAMES] if namespace else None,
        datasets=[f"{namespace}/{DATASET}"] if namespace else None,
        tags=["music", "abc-notation", "scaling-laws"],
        emoji="🎻",
        colorFrom="blue",
        colorTo="yellow",
        short_description="Two small models write a tune each, side by side",
    )
    return f"---\n{data.to_yaml()}\n---\n\n{ABOUT}{licence}\n"


def describe_study(root: Path, namespace: str | None) -> dict[str, Any]:
    """Return what study.json holds: the models, where the training tunes are, and the numbers of the figures."""
    corpus = {"path": str((root / CORPUS).resolve())}
    return {
        "namespace": namespace,
        "models": _models(root, namespace),
        "training": corpus if namespace is None else {"repository": f"{namespace}/{DATASET}"},
        "figures": _figures(root),
        "licence": licence_words(read_json(root / CORPUS / STATS, *CORPUS_FIELDS)),
    }


def _models(root: Path, namespace: str | None) -> list[dict[str, Any]]:
    models: list[dict[str, Any]] = []
    folders = set()
    for release in releases(root):
        if release.folder in folders:  # the best of an architecture is one of its sizes
            continue
        folders.add(release.folder)
        record = release.record
        size = record.config.size + (", trained further" if release.revision == MAIN else "")
        place = (
            str(release.folder.resolve()) if namespace is None else model_repository(namespace, release.architecture)
        )
        models.append(
            {
                "name": f"{NAMES[release.architecture]} {size}",
                "architecture": release.architecture,
                "size": size,
                "model": place,
                "revision": None if namespace is None else release.revision,
                "n_params": record.n_params,
                "n_params_non_embedding": record.n_params_non_embedding,
                "tokens": record.tokens,
                "validation_bits_per_character": record.validation_bits_per_character,
                "validation_bits_per_character_standard_error": (record.validation_loss_standard_error or 0.0) / log(2),
                "commit": record.git_commit,
            }
        )
    return models


def _figures(root: Path) -> dict[str, Any]:
    """Return the runs at the main budget with the law fitted to them, and the share of valid tunes by size."""
    fits = read_json(root / "comparison_analysis" / "fits.json", "fits")
    found = read_json(root / QUALITY_FOLDER / FINDINGS, "chosen", "metrics")
    valid, metrics = found["chosen"]["valid"], {metric["name"]: metric for metric in found["metrics"]}
    baseline = read_json(baseline_file(root), *OF_BASELINE)
    laws = {architecture: chosen_fit(fits, architecture) for architecture in fits["fits"]}
    return {
        "points": [
            {name: getattr(run.config, name) for name in OF_CONFIG} | {name: getattr(run, name) for name in OF_RECORD}
            for ladder in read_ladders(root).values()
            for run in ladder.finished
        ],
        "curves": {
            architecture: {**law["line"], "law": law["law"], "words": law_line(architecture, law)}
            for architecture, law in laws.items()
        },
        "baseline": {name: baseline[name] for name in OF_BASELINE},
        "quality": {
            "label": metrics["valid"]["label"],
            "people": metrics["valid"]["human"]["test"],
            "points": [
                {"architecture": architecture, **point}
                for architecture, points in valid["points"].items()
                for point in points
            ],
            "curves": {
                architecture: {**curve["n_params"]["line"], "verdict": curve["n_params"]["verdict"]}
                for architecture, curve in valid["curves"].items()
            },
        },
    }
