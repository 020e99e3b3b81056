"""What the demo computes, and the folder that it runs from."""

import ast
import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import replace
from math import log
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from huggingface_hub import RepoCard
from made_results import made_corpus, made_results
from transformers import LogitsProcessor, LogitsProcessorList

from cli import UserError
from files import read_json, write_json
from generation.decoding import Decoder
from generation.rendering import RenderingError
from model_cards.demo_folder import ROOT, SPACE, closure, describe_study, requirements, space_card, stage_demo
from model_cards.results import FITS, QUALITY_VS_SIZE
from model_cards.space import studio
from model_cards.space.studio import Studio, bits_per_character, load
from training.record import RECORD, read_record, write_record

HTML = '<img src=x onerror="alert(1)">'
ARGUMENTS = ("GPT 15k", "G", "4/4", 1.0, 3, True)


@pytest.fixture(scope="module")
def study(tmp_path_factory, build_from):
    corpus = made_corpus(tmp_path_factory.mktemp("made") / "corpus", build_from)
    return made_results(tmp_path_factory.mktemp("study") / "data", corpus)


@pytest.fixture(scope="module")
def staged(study, tmp_path_factory):
    folder = tmp_path_factory.mktemp("staged") / "demo"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("model_cards.demo_folder.vendor_abcjs", lambda _: None)  # npm may ask the network
        stage_demo(study, folder, None)
    return folder


@pytest.fixture
def demo(staged, monkeypatch):
    """A studio whose tunes are short."""
    monkeypatch.setattr(studio, "MAX_LENGTH", 90)
    return open_studio(staged)


def open_studio(folder):
    """Return a studio that loads nothing in the background of other tests."""
    demo = Studio(folder)
    wait([demo.ready])
    return demo


def with_training(staged, folder, *tunes):
    """Return a copy of the demo with other training tunes, each (text, title, file, shift)."""
    shutil.copytree(staged, folder, dirs_exist_ok=True)
    names = ("text", "title", "file", "shift")
    table = pa.table(dict(zip(names, map(list, zip(*tunes, strict=True)), strict=True)))
    (folder / "corpus" / "data").mkdir(parents=True, exist_ok=True)
    pq.write_table(table, folder / "corpus" / "data" / "train.parquet")
    write_json(folder / "study.json", read_json(folder / "study.json") | {"training": {"path": str(folder / "corpus")}})
    return folder


# The folder

ALONE = """
import json, sys
sys.path[:0] = [".", sys.argv[1]]
from pathlib import Path
import studio
studio.MAX_LENGTH = 90
tune = studio.Studio(Path(".")).write(*json.loads(sys.argv[2]))
files = [str(Path(sys.modules[name].__file__).resolve()) for name in ("generation", "modeling", "preprocessing")]
print(json.dumps({"abc": tune.abc, "bits": tune.bits_per_character, "nearest": tune.nearest, "files": files}))
"""


def test_the_staged_folder_works_where_this_project_is_not_installed(demo, staged, tmp_path):
    environment = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    arguments = [sysconfig.get_paths()["purelib"], json.dumps(ARGUMENTS)]
    command = [sys.executable, "-I", "-S", "-c", ALONE, *arguments]  # -S: no .pth leads to this project
    result = subprocess.run(command, env=environment, cwd=staged, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    found = json.loads(result.stdout)
    tune = demo.write(*ARGUMENTS)
    assert (found["abc"], found["nearest"]) == (tune.abc, tune.nearest)
    assert found["bits"] == pytest.approx(tune.bits_per_character, rel=1e-5)
    assert all(Path(path).is_relative_to(staged.resolve()) for path in found["files"])


def test_the_staged_folder_holds_the_page_and_only_the_modules_that_it_needs(staged):
    for path in SPACE.rglob("*"):
        if path.is_file() and "__pycache__" not in path.parts:
            assert (staged / path.relative_to(SPACE)).read_bytes() == path.read_bytes()
    assert (staged / "generation" / "page.js").is_file()
    carried = {path.relative_to(ROOT) for path in closure(SPACE.glob("*.py"))}
    assert {Path("modeling/modeling_abc_lstm.py"), Path("preprocessing/notation.py")} <= carried
    assert not {"training", "model_cards"} & {path.parts[0] for path in carried}
    assert not {path for path in carried if path.stem in ("corpus", "study", "travel")}
    for path in carried:
        assert (staged / path).read_bytes() == (ROOT / path).read_bytes()


def test_the_space_installs_the_project_s_packages_and_torch_for_cpus(staged):
    lines = (staged / "requirements.txt").read_text().splitlines()
    assert "whl/cpu" in lines[0]
    assert lines[1:] == requirements()
    installed = {re.split("[<>]", line)[0].replace("-", "_") for line in lines[1:]}
    installed |= {"starlette", "yaml", "httpx2"}  # gradio, transformers and huggingface-hub bring them
    own = {path.stem for path in staged.rglob("*.py")} | {path.parent.name for path in staged.rglob("*.py")}
    for path in (*SPACE.glob("*.py"), *closure(SPACE.glob("*.py"))):
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module] if isinstance(node, ast.ImportFrom) and node.module else []
            packages = {name.split(".")[0] for name in names} - sys.stdlib_module_names - own
            assert packages <= installed, path


def test_the_card_tells_the_hub_how_to_run_the_space():
    card = RepoCard(space_card("band", "Do what you like."))
    assert (card.data.sdk, card.data.app_file) == ("gradio", "app.py")
    assert card.data.models == ["band/abc-gpt", "band/abc-lstm"]
    assert card.data.datasets == ["band/abc-tunes"]
    assert "models" not in RepoCard(space_card(None, "")).data.to_dict()


def test_a_folder_with_other_files_is_left_alone(study, tmp_path):
    (tmp_path / "mine.txt").touch()
    with pytest.raises(UserError):
        stage_demo(study, tmp_path, None)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_the_models_are_those_that_are_shared_each_once(study):
    local, shared = describe_study(study, None), describe_study(study, "somebody")
    best = read_record(study / "best_model").config.size
    names = ["GPT 15k", "GPT 30k", f"GPT {best}, trained further", "LSTM 15k", "LSTM 30k"]
    assert [model["name"] for model in local["models"]] == names
    assert all(Path(model["model"], "config.json").is_file() for model in local["models"])
    assert {model["revision"] for model in local["models"]} == {None}
    assert Path(local["training"]["path"], "data", "train.parquet").is_file()
    places = [(model["model"], model["revision"]) for model in shared["models"]]
    assert places[1:4] == [("somebody/abc-gpt", "30k"), ("somebody/abc-gpt", "main"), ("somebody/abc-lstm", "15k")]
    assert shared["training"] == {"repository": "somebody/abc-tunes"}
    assert str(study) not in json.dumps(shared)


def test_the_numbers_of_the_figures_are_those_of_records_fits_and_quality(study, tmp_path):
    root = shutil.copytree(study, tmp_path / "study", ignore=shutil.ignore_patterns("*.safetensors", "tokenizer*"))
    folder = next(path.parent for path in root.rglob(f"30k/**/seed_0/{RECORD}") if "LSTM" in str(path))
    record = read_record(folder)
    changed = {"validation_loss": 0.5, "validation_bits_per_character": 0.7, "n_params": 77, "seconds": 3.0}
    write_record(folder, replace(record, **changed))
    figures = describe_study(root, None)["figures"]
    assert len(figures["points"]) == 8
    [point] = [point for point in figures["points"] if point["n_params"] == 77]
    assert {name: point[name] for name in changed} == changed
    assert (point["architecture"], point["size"], point["seed"]) == ("lstm", "30k", 0)
    assert point["learning_rate"] == record.config.learning_rate
    fits, scores = read_json(root / FITS), read_json(root / QUALITY_VS_SIZE)
    for architecture in ("gpt", "lstm"):
        fitted = [fit["line"] for fit in fits["fits"][architecture] if fit["axis"] == "n_params"]
        assert figures["curves"][architecture] in fitted
    assert figures["baseline"]["validation_loss"] == fits["baseline"]["validation_loss"]
    valid = scores["chosen"]["valid"]
    drawn = [point["value"] for point in figures["quality"]["points"] if point["architecture"] == "lstm"]
    assert drawn == [point["value"] for point in valid["points"]["lstm"]]
    assert figures["quality"]["curves"]["gpt"] == valid["curves"]["gpt"]["n_params"]["line"]


# The tunes


def test_a_tune_follows_the_request_and_comes_with_sound_and_settings(demo):
    tune = demo.write("LSTM 30k", "Dmix", " 6/8 ", 1, 5, True)
    assert tune.abc.startswith("X:1\nM:6/8\n")
    assert "\nK:Dmix\n" in tune.abc
    assert tune.midi.startswith(b"MThd")
    assert all(length > 0 and 0 <= pitch < 128 for _, length, pitch in tune.notes)
    settings = {"model": "LSTM 30k", "key": "Dmix", "metre": "6/8", "seed": 5, "bars": "strict"}
    assert tune.settings.items() >= settings.items()


def test_a_tune_without_sound_or_that_was_cut_comes_with_the_reason(demo, monkeypatch):
    def fail(_):
        raise RenderingError("abc2midi crashes (SIGSEGV)")

    monkeypatch.setattr(studio, "to_midi", fail)
    monkeypatch.setattr(studio, "SECONDS", 1e-6)
    tune = demo.write("GPT 30k", "", "", 1.0, 0)
    assert tune.abc.startswith("X:1\n")
    assert not tune.valid
    assert (tune.midi, tune.notes) == (None, [])
    assert len(tune.messages) == 2
    assert tune.messages[-1] == "abc2midi crashes (SIGSEGV)"


def test_fifty_simultaneous_users_each_get_the_tune_that_they_get_alone(demo, staged, monkeypatch):
    def silent(abc):
        raise RenderingError(abc)

    monkeypatch.setattr(studio, "to_midi", silent)
    keys = ("", "C", "Dmix", "G")
    requests = [(demo.names[i % 5], keys[i % 4], "", 1.0, i // 2, i % 3 == 0) for i in range(50)]
    alone = [demo.write(*arguments) for arguments in requests]
    assert len({tune.abc for tune in alone}) > 40
    fresh = Studio(staged)  # reads and loads while all wait
    with ThreadPoolExecutor(50) as pool:
        together = list(pool.map(lambda arguments: fresh.write(*arguments), requests))
    assert together == alone


@pytest.mark.parametrize(
    ("field", "value"),
    [
        *(("model", value) for value in ("GPT 9k", ["GPT 15k"])),
        *(("key", value) for value in ("H", "C\nI:abc-include x", "C" * 21, None)),
        *(("metre", value) for value in ("six", "4/4" * 9)),
        *(("temperature", value) for value in (0.05, 2.1, float("nan"), "1")),
        *(("seed", value) for value in (-1, 2**31, 1.5, True)),
        ("strict", "yes"),
    ],
)
def test_a_bad_argument_is_refused_in_one_line_that_names_it(demo, field, value):
    good = {"name": "GPT 15k", "key": "C", "metre": "4/4", "temperature": 1.0, "seed": 0}
    with pytest.raises(ValueError, match=f"^{field}") as error:
        demo.write(**good | {"name" if field == "model" else field: value})
    assert "\n" not in str(error.value)


def test_a_missing_model_or_corpus_is_one_line_and_may_appear_later(study, staged, tmp_path):
    folder = shutil.copytree(staged, tmp_path / "demo")
    described = read_json(folder / "study.json")
    described["models"][0]["model"] = str(tmp_path / "none")
    described["training"] = {"path": str(tmp_path / "corpus")}
    write_json(folder / "study.json", described)
    demo = open_studio(folder)
    for name in ("GPT 15k", "GPT 30k"):
        with pytest.raises(ValueError, match=name) as error:
            demo.write(name, "", "", 1.0, 0)
        assert "\n" not in str(error.value)
    shutil.copytree(study / "processed_music_data", tmp_path / "corpus")
    assert demo.write("GPT 30k", "", "", 1.0, 0).abc


def test_a_copy_names_its_training_tune_and_transposed_training_tunes_do_not_count(demo, staged, tmp_path):
    own = demo.write(*ARGUMENTS)
    assert len(own.notes) > 20
    assert not own.copied
    transposed = (own.abc, "transposed", "b.abc", 2)
    again = open_studio(with_training(staged, tmp_path / "a", transposed, (own.abc, HTML, "a.abc", 0))).write(
        *ARGUMENTS
    )
    assert again.abc == own.abc
    assert again.copied
    assert f"{HTML} (a.abc)" in again.nearest
    other = ("X:1\nK:C\nCEG", "other", "c.abc", 0)
    assert not open_studio(with_training(staged, tmp_path / "b", transposed, other)).write(*ARGUMENTS).copied


class Forced(LogitsProcessor):
    """Lets a model write one tune only, and adds up the nats of its characters."""

    def __init__(self, ids):
        self.ids, self.nats = ids, 0.0

    def __call__(self, input_ids, scores):
        forced = self.ids[input_ids.shape[1]]
        self.nats -= float(scores.log_softmax(-1)[0, forced])
        return torch.full_like(scores, -torch.inf).index_fill_(1, torch.tensor([forced]), 0.0)


@pytest.mark.parametrize("name", ["GPT 15k", "LSTM 15k"])
@pytest.mark.parametrize("ended", [True, False])
def test_the_bits_are_those_of_the_model_as_it_writes_also_beyond_its_context(demo, name, ended):
    [model] = [model["model"] for model in demo.study["models"] if model["name"] == name]
    with studio.LOCK:
        pipe = load(model, None)
    abc = "X:1\nT:Never seen\nM:4/4\nL:1/8\nK:C\n" + "CDEFGABc|" * 20 + "\n"
    text = abc.replace("T:Never seen\n", "").strip()
    ids = pipe.tokenizer(text, verbose=False)["input_ids"] + [pipe.tokenizer.eos_token_id] * ended
    assert len(ids) > 3 * 50
    forced = Forced(ids)
    pipe.model.generate(
        torch.tensor([ids[:1]]),
        max_new_tokens=len(ids) - 1,
        logits_processor=LogitsProcessorList([forced]),
        custom_generate=Decoder(pipe.tokenizer),
        eos_token_id=None,
        pad_token_id=pipe.tokenizer.pad_token_id,
    )
    assert bits_per_character(pipe, abc, ended) == pytest.approx(forced.nats / log(2) / (len(ids) - 1), rel=1e-4)
