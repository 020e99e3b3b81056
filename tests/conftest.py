"""What all tests share. The process that hands them out to others reads this file too: it need not wait for torch."""

import gc
import os

os.environ["OMP_NUM_THREADS"] = "1"  # set before torch is imported: two tests side by side must not spin

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pictures
import pytest
from filelock import FileLock
from hypothesis import settings
from PIL import Image

settings.register_profile("the same every time", derandomize=True, deadline=None)
settings.load_profile("the same every time")


def pytest_addoption(parser):
    parser.addoption("--rewrite-references", action="store_true", help="write tests/references/ anew from the figures")


def pytest_collection_finish():
    gc.freeze()  # each training run collects garbage: a third of a second where all that is imported is looked through


def made_tunes(count: int, seed: int = 0) -> str:
    """Return `count` random tunes of eight bars in 4/4, as one ABC file."""
    draw = np.random.default_rng(seed)
    tunes = []
    for number in range(count):
        bars = ["".join(draw.choice(list("CDEFGABcdefg"), 8)) for _ in range(8)]
        body = "|".join(bars[:4]) + "|\n" + "|".join(bars[4:]) + "|]"
        tunes.append(
            f"X:{number + 1}\nT:Tune {number + 1}\nM:4/4\nL:1/8\nK:{draw.choice(['C', 'G', 'D', 'Am'])}\n{body}\n"
        )
    return "\n".join(tunes)


def made_once(tmp_path_factory, name, make):
    """Fill a folder that all test processes share, in one of them."""
    base = tmp_path_factory.getbasetemp()
    shared = base.parent if os.environ.get("PYTEST_XDIST_WORKER") else base
    root = shared / name
    with FileLock(shared / f"{name}.lock"):
        if not (root / "done").is_file():
            root.mkdir()
            make(root)
            (root / "done").touch()
    return root


@pytest.fixture
def no_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Corpora are built without their figures, which take longer than all the rest."""
    monkeypatch.setattr("preprocessing.figures.draw_figures", lambda *_: None)


@pytest.fixture(scope="session")
def build_from():
    """Build a corpus from blocks, without process, file or figures: build_from(folder, blocks, keep_fields)."""

    from preprocessing.blocks import Reading
    from preprocessing.building import CorpusOptions, build_corpus, describe_build
    from preprocessing.corpus import Corpus
    from preprocessing.tunes import Policy

    def builder(folder: Path, blocks, keep_fields: str = "XMLK", context: int = 64, **options) -> Corpus:
        with ThreadPoolExecutor(1) as pool, pytest.MonkeyPatch.context() as patch:
            patch.setattr("preprocessing.figures.draw_figures", lambda *_: None)
            manifest = describe_build({}, {"source": ["made"], "keep_fields": keep_fields})
            chosen = CorpusOptions(Policy(keep_fields), context, **options)
            build_corpus(folder, blocks, Reading(), chosen, manifest, pool)
        return Corpus.open(folder)

    return builder


@pytest.fixture(scope="session")
def small_corpus(tmp_path_factory, build_from):
    """A corpus of 400 random tunes: large enough to train on, small enough to build in a moment."""
    from preprocessing.blocks import Block

    folder = tmp_path_factory.mktemp("small") / "corpus"
    return build_from(folder, [Block("made", "made.abc", made_tunes(400).encode())])


@pytest.fixture(scope="session")
def bundled_corpus(tmp_path_factory):
    """The whole bundled corpus, built once as the command builds it."""
    from preprocessing.corpus import Corpus
    from preprocessing.run import PreprocessingArguments, build

    def make(root):
        build(PreprocessingArguments(output_dir=str(root / "corpus")))

    return Corpus.open(made_once(tmp_path_factory, "bundled", make) / "corpus")


@pytest.fixture(scope="session")
def small_source(tmp_path_factory) -> Path:
    """A folder with one file of 150 random tunes, of which every split gets some."""

    def make(root):
        (root / "tunes").mkdir()
        (root / "tunes" / "made.abc").write_text(made_tunes(150, seed=1))

    return made_once(tmp_path_factory, "source", make) / "tunes"


@pytest.fixture
def assert_looks_like(request):
    """assert_looks_like(figure_path, name): the figure is like tests/references/<name>.png."""

    def check(figure, name):
        path = pictures.REFERENCES / f"{name}.png"
        if request.config.getoption("--rewrite-references"):
            pictures.REFERENCES.mkdir(exist_ok=True)
            pictures.shrink(figure).save(path, optimize=True)
        assert path.is_file(), f"{path} is missing: pytest --rewrite-references writes it"
        assert path.stat().st_size <= pictures.MAX_BYTES
        with Image.open(path) as reference:
            found = pictures.distance(figure, reference)
        assert found <= pictures.TOLERANCE, f"{figure} differs from {path} by {found:.3f}: look at both"

    return check
