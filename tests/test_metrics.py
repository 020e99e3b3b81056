"""The evaluate metrics, in one fresh process: importing evaluate takes seconds."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import transformers.dynamic_module_utils

from generation.distances import distances, features
from generation.packing import pack
from generation.quality import score_tune
from generation.shares import originality, tier_shares

ROOT = Path(__file__).parent.parent
METRICS = ("abc_validity", "originality", "tune_statistics")
TUNES = [
    "X:1\nM:4/4\nL:1/4\nK:C\nCDEF|GABc|cBAG|FEDC|]",
    "X:2\nM:3/4\nL:1/4\nK:G\nGBd|gdB|cAF|G3|]",
    "X:3\nM:4/4\nL:1/4\nK:C\nCDEF|GABcd|]",
]
WRITTEN = [TUNES[0].replace("K:C", "K:D"), *TUNES[1:], TUNES[1].replace("GBd", "dBG")]

PROCESS = """
import contextlib, io, json, sys
import evaluate

def attempts(metric, tunes):
    for bad in ({"predictions": []}, {"predictions": tunes[0]}, {"predictions": [tunes[0], 5]},
                {"predictions": tunes, "references": []}, {"predictions": tunes, "references": [None]}):
        try:
            yield repr(metric.compute(**bad))
        except ValueError as error:
            yield str(error)

def try_all(folder):
    found = {}
    for name in metrics:
        metric = evaluate.load(f"{folder}/{name}")
        found[name] = metric.compute(predictions=tunes, references=written)
        found[name + " errors"] = list(attempts(metric, tunes))
        metric.add_batch(predictions=tunes[:1])
        metric.add(prediction=tunes[1])
        metric.add(prediction=tunes[2])
        found[name + " collected"] = metric.compute(references=written)
        with contextlib.redirect_stdout(io.StringIO()) as printed:
            exec(examples[name].replace("generation/", f"{folder}/"))
        found[name + " printed"] = printed.getvalue().split()
    return found

class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ours:
            raise ModuleNotFoundError(f"{name} is not installed here")

metrics, tunes, written, examples, packed, ours = json.load(sys.stdin)
here = try_all("generation")
ended = evaluate.load("generation/abc_validity")
here["ended"] = ended.compute(predictions=tunes, ended=[True, False, True])
for name in [name for name in sys.modules if name.partition(".")[0] in ours]:
    del sys.modules[name]
sys.meta_path.insert(0, Absent())
print(json.dumps([here, try_all(packed)]))
"""


@pytest.fixture(scope="module")
def loaded(tmp_path_factory):
    """The metrics' results, loaded from this project's folders, and packed where the project is not installed."""
    folder = tmp_path_factory.mktemp("metrics")
    for name in METRICS:
        pack(ROOT / "generation" / name / f"{name}.py", folder / "packed" / name)
    cards = {name: (ROOT / "generation" / name / "README.md").read_text(encoding="utf-8") for name in METRICS}
    examples = {name: re.search(r"```python\n(.*?)```", card, re.DOTALL)[1] for name, card in cards.items()}
    ours = ["preprocessing", "modeling", "training", "analysis", "generation", "model_cards", "cli"]
    given = json.dumps([METRICS, TUNES, WRITTEN, examples, str(folder / "packed"), ours])
    environment = {**os.environ, "HF_HOME": str(folder / "hub"), "HF_HUB_OFFLINE": "1", "PYTHONPATH": str(ROOT)}
    environment["HF_MODULES_CACHE"] = str(folder / "modules")
    process = subprocess.run(
        [sys.executable, "-c", PROCESS], input=given, env=environment, cwd=ROOT, capture_output=True, text=True
    )
    assert process.returncode == 0, process.stderr
    return json.loads(process.stdout)


def test_each_metric_gives_the_result_of_its_plain_function(loaded):
    here, _ = loaded
    scores = [score_tune(tune, ended=True) for tune in TUNES]
    ended = [score_tune(tune, ended) for tune, ended in zip(TUNES, [True, False, True], strict=True)]
    written = [score_tune(tune, ended=True) for tune in WRITTEN]
    expected = {
        "abc_validity": {**tier_shares(scores), "references": tier_shares(written)},
        "originality": originality(TUNES, WRITTEN),
        "tune_statistics": distances(features(TUNES), features(WRITTEN)),
        "ended": tier_shares(ended),
    }
    assert {name: here[name] for name in expected} == json.loads(json.dumps(expected))
    for name in METRICS:
        assert here[f"{name} collected"] == here[name]


def test_packed_metrics_give_the_same_where_the_project_is_not_installed(loaded):
    here, packed = loaded
    assert packed | {"ended": here["ended"]} == here


@pytest.mark.parametrize("name", METRICS)
def test_bad_input_gets_one_line_that_names_the_argument(loaded, name):
    errors = loaded[0][f"{name} errors"]
    assert [error.partition(":")[0] for error in errors] == [
        "predictions", "predictions", "predictions[1]", "references", "references[0]",
    ]  # fmt: skip
    assert not any("\n" in error for error in errors)


@pytest.mark.parametrize("name", METRICS)
def test_a_card_has_its_sections_and_its_example_prints_the_given_results(loaded, name):
    card = (ROOT / "generation" / name / "README.md").read_text(encoding="utf-8")
    assert re.match(r"---\n(?:.*\n)*?tags:\n- evaluate\n- metric\n(?:.*\n)*?---\n", card)
    for section in ("Description", "How to use", "Inputs", "Output values", "Limitations", "Citation"):
        assert f"\n## {section}\n" in card
    promised = re.findall(r"print\(.*\)  # (.*)", card)
    assert promised
    assert loaded[0][f"{name} printed"] == " ".join(promised).split()


def test_packed_modules_import_nothing_of_this_project(tmp_path):
    module = tmp_path / "toy.py"
    module.write_text(
        '"""A toy."""\n\n'
        "from preprocessing.notation import (  # all of it\n    judge,\n    split_tunes,\n)\n"
        "from generation.shares import summarise  # noqa: F401\n"
        "from collections.abc import Sequence\n"
    )
    pack(module, tmp_path / "packed")
    written = {path.name: path.read_text() for path in (tmp_path / "packed").iterdir()}
    parts = {f"abc_{part}.py" for part in ("fields", "lexer", "reader", "transcript", "voice")}
    named = {"intervals.py", "memorisation.py", "notation.py", "shares.py", "toy.py"}
    assert named | parts <= set(written)
    assert written["toy.py"].startswith(
        '"""A toy."""\n\n'
        "from .notation import (\n    judge,\n    split_tunes,\n)\n"
        "from .shares import summarise\n"
        "from collections.abc import Sequence\n"
    )
    for text in written.values():
        assert not re.search(r"^from (preprocessing|generation|analysis|cli)\b", text, re.MULTILINE)


def test_two_modules_of_one_name_cannot_be_packed_together(tmp_path):
    module = tmp_path / "notation.py"
    module.write_text("from preprocessing.notation import judge\n")
    with pytest.raises(ValueError, match="same name"):
        pack(module, tmp_path / "packed")


def test_transformers_loads_a_packed_module_with_all_that_it_imports(tmp_path, monkeypatch):
    module = tmp_path / "toy_pipeline.py"
    module.write_text("from generation.shares import originality\n\n\nclass Toy:\n    work = originality\n")
    pack(module, tmp_path / "packed")
    monkeypatch.setattr(transformers.dynamic_module_utils, "HF_MODULES_CACHE", str(tmp_path / "modules"))
    monkeypatch.setattr(sys, "path", [*sys.path])
    toy = transformers.dynamic_module_utils.get_class_from_dynamic_module("toy_pipeline.Toy", str(tmp_path / "packed"))
    assert toy.work.__module__.startswith("transformers_modules.")
    assert toy.work.__globals__["judge"].__module__.startswith("transformers_modules.")
    assert toy.work(TUNES, WRITTEN) == originality(TUNES, WRITTEN)
