import os

os.environ["OMP_NUM_THREADS"] = "1"  # set before torch is imported: two tests side by side must not spin

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch

from preprocessing.corpus import Corpus, build_corpus, collect_tunes, describe_build
from preprocessing.sources import BUNDLED, SourceFile, read_source

torch.set_num_threads(1)


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


@pytest.fixture(scope="session")
def small_corpus(tmp_path_factory) -> Corpus:
    """A corpus of 400 random tunes: large enough to train on, small enough to build in a moment."""
    folder = tmp_path_factory.mktemp("small") / "corpus"
    files = [SourceFile("made", "made.abc", made_tunes(400).encode())]
    tunes, drops = collect_tunes(files, "XMLK")
    build_corpus(folder, tunes, Counter(drops), describe_build({"made.abc": files[0].sha256}, {}), context=64)
    return Corpus.open(folder)


@pytest.fixture(scope="session")
def bundled_corpus(tmp_path_factory) -> Corpus:
    """The whole bundled corpus, built once (about ten seconds)."""
    folder = tmp_path_factory.mktemp("bundled") / "corpus"
    arguments = {"source": BUNDLED, "keep_fields": "XMLK", "context": 256}
    files = list(read_source(arguments["source"]))
    tunes, drops = collect_tunes(files, arguments["keep_fields"])
    manifest = describe_build({file.name: file.sha256 for file in files}, arguments)
    build_corpus(folder, tunes, drops, manifest, arguments["context"])
    return Corpus.open(folder)


@pytest.fixture(scope="session")
def small_source(tmp_path_factory) -> Path:
    """A folder with one file of 150 random tunes, of which every split gets some."""
    folder = tmp_path_factory.mktemp("source") / "tunes"
    folder.mkdir()
    (folder / "made.abc").write_text(made_tunes(150, seed=1))
    return folder
