"""The demo's folder: a Space of the Hub, or the same page for a study on this machine.

It holds the page, the modules of this project that it needs, and study.json with models and numbers.
"""

import re
import shutil
import tomllib
from collections.abc import Iterable
from modulefinder import ModuleFinder
from pathlib import Path
from typing import Any

from analysis.fits_json import NAMES
from files import atomic_folder, read_json, render, write_json, write_text
from model_cards.card import CARD, licence_terms
from model_cards.releases import DATASET, ROOT, Release, model_repository, releases
from model_cards.results import CORPUS, CORPUS_FIELDS, FITS, QUALITY_VS_SIZE, STATS, chosen_fits
from model_cards.vendor import vendor_abcjs
from training.record import BASELINE, read_ladders

SPACE = Path(__file__).parent / "space"
SPACE_CARD = Path(__file__).parent / "space_card.md.j2"
PLAYER = ROOT / "generation" / "page.js"
STUDY = "study.json"
# Without it the Space would install gigabytes for a GPU that it does not have.
TORCH_FOR_CPU = "--extra-index-url https://download.pytorch.org/whl/cpu"
PACKAGES = (
    *("gradio", "huggingface-hub", "numpy", "pillow", "psutil", "pyarrow", "safetensors", "scipy", "symusic"),
    *("torch", "transformers"),
)
OF_CONFIG = ("architecture", "size", "seed", "learning_rate")
OF_RECORD = ("n_params", "tokens", "flops", "validation_loss", "validation_bits_per_character", "seconds")


def stage_demo(root: Path, folder: Path, namespace: str | None) -> None:
    """Write the demo of the study in `root` to `folder`; its models are local folders or, with a namespace, on the Hub.

    Raises UserError if the study is not finished, if `folder` holds other files, or if abcjs cannot be fetched.
    """
    with atomic_folder(folder, mark=STUDY) as temporary:
        shutil.copytree(SPACE, temporary, dirs_exist_ok=True, ignore=shutil.ignore_patterns("__pycache__"))
        for path in (PLAYER, *closure(SPACE.glob("*.py"))):
            copy = temporary / path.relative_to(ROOT)
            copy.parent.mkdir(exist_ok=True)
            shutil.copyfile(path, copy)
        vendor_abcjs(temporary)
        study = describe_study(root, namespace)
        write_text(temporary / CARD, space_card(namespace, study["licence"]))
        write_text(temporary / "requirements.txt", "\n".join([TORCH_FOR_CPU, *requirements()]) + "\n")
        write_json(temporary / STUDY, study)


def closure(modules: Iterable[Path]) -> list[Path]:
    """Return the project's modules that `modules` import, directly or through others, with their packages' __init__."""
    finder = ModuleFinder(path=[str(ROOT)])
    for module in modules:
        finder.run_script(str(module))
    found = (getattr(module, "__file__", None) for module in finder.modules.values())
    files = {Path(name) for name in found if name}
    return sorted(path for path in files if not path.is_relative_to(SPACE))


def requirements() -> list[str]:
    """Return what a Space installs, in the versions of pyproject.toml."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    lines = [*project["optional-dependencies"]["demo"], *project["dependencies"]]
    return [line for line in lines if re.split(r"[<>=!~\[ ]", line)[0] in PACKAGES]


def space_card(namespace: str | None, licence: str) -> str:
    """Return the card of the Space, which tells the Hub how to run it."""
    [gradio] = [line for line in requirements() if line.startswith("gradio")]
    models = [model_repository(namespace, architecture) for architecture in NAMES] if namespace else []
    return render(
        SPACE_CARD,
        sdk_version=f"{gradio.partition('>=')[2]}.0",
        models=models,
        dataset=f"{namespace}/{DATASET}",
        licence=licence,
    )


def describe_study(root: Path, namespace: str | None) -> dict[str, Any]:
    """Return the content of study.json: the models, where the training tunes are, and the numbers of the figures."""
    corpus = {"path": str((root / CORPUS).resolve())}
    return {
        "namespace": namespace,
        "models": _models(root, namespace),
        "training": corpus if namespace is None else {"repository": f"{namespace}/{DATASET}"},
        "figures": _figures(root),
        "licence": licence_terms(read_json(root / STATS, *CORPUS_FIELDS)),
    }


def _models(root: Path, namespace: str | None) -> list[dict[str, Any]]:
    models: dict[Path, Release] = {}
    for release in releases(root):  # the best model of an architecture may be one of its sizes
        models.setdefault(release.folder, release)
    return [
        {
            "name": f"{NAMES[release.architecture]} {release.record.config.size}"
            + (", trained further" if release.record.config.init_from else ""),
            "model": model_repository(namespace, release.architecture) if namespace else str(folder.resolve()),
            "revision": release.revision if namespace else None,
        }
        for folder, release in models.items()
    ]


def _figures(root: Path) -> dict[str, Any]:
    """Return the runs at the main budget with the laws fitted to them, and the share of valid tunes by size."""
    laws = chosen_fits(read_json(root / FITS, "fits"))
    found = read_json(root / QUALITY_VS_SIZE, "chosen", "metrics")
    baseline = read_json(root / BASELINE, "order", "validation_loss")
    valid = found["chosen"]["valid"]
    [metric] = [metric for metric in found["metrics"] if metric["name"] == "valid"]
    runs = [run for ladder in read_ladders(root).values() for run in ladder.finished]
    return {
        "points": [
            {name: getattr(run.config, name) for name in OF_CONFIG} | {name: getattr(run, name) for name in OF_RECORD}
            for run in runs
        ],
        "curves": {architecture: fit["line"] for architecture, fit in laws.items()},
        "baseline": {name: baseline[name] for name in ("order", "validation_loss")},
        "quality": {
            "human": metric["human"]["test"]["share"],
            "points": [
                {"architecture": architecture, **point}
                for architecture, points in valid["points"].items()
                for point in points
            ],
            "curves": {architecture: curve["n_params"]["line"] for architecture, curve in valid["curves"].items()},
        },
    }
