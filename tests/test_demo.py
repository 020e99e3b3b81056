"""What the demo computes, and the folder that it runs from."""

import asyncio
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
from made_models import made_model
from made_quality import both, made_study, rising
from made_results import PUBLISHED, SEEDS, SIZES, committed_records
from transformers import LogitsProcessor, LogitsProcessorList

from cli import UserError
from files import read_json, write_json
from generation.decoding import Decoder
from generation.quality_vs_size import analyse
from generation.rendering import RenderingError
from model_cards.demo import ROOT, SPACE, closure, describe_study, requirements, space_card, stage
from model_cards.space import studio
from model_cards.space.studio import Studio, bits_per_character, load
from training.record import BEST, RECORD, read_record, run_folder, write_record

HTML = '<img src=x onerror="alert(1)">'
ARGUMENTS = ("GPT 15k", "G", "4/4", 1.0, 3, True)


def save(architecture, seed, folder):
    for part in made_model(architecture, seed=seed):
        part.save_pretrained(folder)


def write_training(root, *tunes):
    """Write training tunes, each (text, title, file, shift), where a corpus has them."""
    names = ("text", "title", "file", "shift")
    table = pa.table(dict(zip(names, map(list, zip(*tunes, strict=True)), strict=True)))
    (root / "processed_music_data" / "data").mkdir(parents=True, exist_ok=True)
    pq.write_table(table, root / "processed_music_data" / "data" / "train.parquet")


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """A study of two sizes: published records, untrained models, made scores of tunes."""
    root = tmp_path_factory.mktemp("study")
    runs = committed_records()
    write_record(root / BEST, runs[-1])
    save("lstm", 9, root / BEST)
    for number, run in enumerate(runs):
        config = run.config
        if config.size in SIZES and config.init_from is None and config.seed in SEEDS:
            folder = run_folder(root, config)
            write_record(folder, run)
            if config.seed == 0:
                save(config.architecture, number, folder)
    fits = read_json(PUBLISHED / "fits.json")
    write_json(root / "comparison_analysis" / "fits.json", fits)
    write_json(root / "GPT_initial_training" / "ngram_baseline.json", fits["baseline"])
    write_json(root / "processed_music_data" / "stats.json", read_json(PUBLISHED / "corpus.json"))
    scores = analyse(made_study({"valid": both(rising(1e5))}, {"distance_key": both(lambda n, _: n**-0.1)}), 20)
    write_json(root / "generation_analysis" / "quality_vs_size.json", scores)
    write_training(root, ("X:1\nM:4/4\nL:1/8\nK:C\nCDEFGABc|cBAGFEDC|C8|]", "Scale", "made.abc", 0))
    return root


@pytest.fixture(scope="module")
def staged(study, tmp_path_factory):
    folder = tmp_path_factory.mktemp("staged") / "demo"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("model_cards.demo.vendor_abcjs", lambda _: None)  # npm may ask the network
        stage(study, folder, None)
    return folder


@pytest.fixture
def demo(staged, monkeypatch):
    """A studio whose tunes are short."""
    monkeypatch.setattr(studio, "LONGEST", 90)
    return open_studio(staged)


def open_studio(folder):
    """Return a studio that loads nothing behind the back of other tests."""
    demo = Studio(folder)
    wait([demo.ready])
    return demo


def copy_of(study, folder):
    """Return a study to change: the records and the numbers, no models."""
    return shutil.copytree(study, folder, ignore=shutil.ignore_patterns("*.safetensors", "tokenizer*"))


ALONE = """
import json, sys
sys.path[:0] = [".", sys.argv[1]]
from pathlib import Path
import studio
studio.LONGEST = 90
tune = studio.Studio(Path(".")).write(*json.loads(sys.argv[2]))
rooms = {name: str(Path(sys.modules[name].__file__).resolve()) for name in ("generation", "modeling", "preprocessing")}
print(json.dumps({"abc": tune.abc, "bits": tune.bits_per_character, "nearest": tune.nearest, "rooms": rooms}))
"""


def test_the_staged_folder_works_where_this_project_is_not_installed(demo, staged, tmp_path):
    environment = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    arguments = [sysconfig.get_paths()["purelib"], json.dumps(ARGUMENTS)]
    result = subprocess.run(
        [sys.executable, "-I", "-S", "-c", ALONE, *arguments],  # -S: no .pth leads to this project
        env=environment,
        cwd=staged,
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    found = json.loads(result.stdout)
    tune = demo.write(*ARGUMENTS)
    assert {name: found[name] for name in ("abc", "nearest")} == {"abc": tune.abc, "nearest": tune.nearest}
    assert found["bits"] == pytest.approx(tune.bits_per_character, rel=1e-5)
    assert all(Path(path).is_relative_to(staged.resolve()) for path in found["rooms"].values())


def test_the_staged_folder_holds_the_page_s_files_and_of_the_rooms_only_what_it_needs(staged):
    for path in SPACE.rglob("*"):
        if path.is_file() and "__pycache__" not in path.parts:
            assert (staged / path.relative_to(SPACE)).read_bytes() == path.read_bytes()
    assert (staged / "generation" / "page.js").is_file()
    carried = {path.relative_to(ROOT) for path in closure(SPACE.glob("*.py"))}
    assert {Path("modeling/modeling_abc_lstm.py"), Path("preprocessing/notation.py")} <= carried
    assert not {"training", "analysis", "model_cards"} & {path.parts[0] for path in carried}
    assert not {path for path in carried if path.stem in ("corpus", "study", "travel")}
    for path in carried:
        assert (staged / path).read_bytes() == (ROOT / path).read_bytes()


def test_the_requirements_are_the_project_s_and_torch_is_the_one_for_cpus(staged):
    lines = (staged / "requirements.txt").read_text().splitlines()
    assert "whl/cpu" in lines[0]
    assert lines[1:] == requirements()
    assert {re.split("[<>]", line)[0] for line in lines[1:]} == {
        *("gradio", "huggingface-hub", "numpy", "pillow", "pyarrow", "safetensors", "symusic", "torch"),
        "transformers",
    }


def test_the_card_tells_the_hub_how_to_run_it_and_what_it_shows():
    card = RepoCard(space_card("band", "Do what you like."))
    assert (card.data.sdk, card.data.app_file) == ("gradio", "app.py")
    assert card.data.models == ["band/abc-gpt", "band/abc-lstm"]
    assert len(card.data.short_description) <= 60


def test_a_folder_with_other_files_is_left_alone(study, tmp_path):
    (tmp_path / "mine.txt").touch()
    with pytest.raises(UserError, match="other files"):
        stage(study, tmp_path, None)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_the_models_are_those_that_are_shared_and_the_best_of_an_architecture_only_if_it_is_another(study):
    here, there = describe_study(study, None), describe_study(study, "somebody")
    best = committed_records()[-1].config.size
    names = ["GPT 15k", "GPT 30k", f"GPT {best}, trained further", "LSTM 15k", "LSTM 30k"]
    assert [model["name"] for model in here["models"]] == names
    assert all(Path(model["model"], "config.json").is_file() for model in here["models"])
    assert {model["revision"] for model in here["models"]} == {None}
    assert Path(here["training"]["path"], "data", "train.parquet").is_file()
    places = [(model["model"], model["revision"]) for model in there["models"]]
    assert places[1:4] == [("somebody/abc-gpt", "30k"), ("somebody/abc-gpt", "main"), ("somebody/abc-lstm", "15k")]
    assert there["training"] == {"repository": "somebody/abc-tunes"}
    assert str(study) not in json.dumps(there)


def test_the_numbers_are_the_records(study, tmp_path):
    root = copy_of(study, tmp_path / "study")
    before = describe_study(root, "somebody")
    folder = next(path.parent for path in root.rglob(f"30k/**/seed_0/{RECORD}") if "LSTM" in str(path))
    record = read_record(folder)
    [model] = [model for model in before["models"] if model["name"] == "LSTM 30k"]
    assert model["n_params"] == record.n_params
    assert model["validation_bits_per_character"] == record.validation_bits_per_character
    changed = {"validation_loss": 0.5, "validation_bits_per_character": 0.7, "n_params": 77, "seconds": 3.0}
    write_record(folder, replace(record, **changed))
    after = describe_study(root, "somebody")
    [model] = [model for model in after["models"] if model["name"] == "LSTM 30k"]
    assert (model["n_params"], model["validation_bits_per_character"]) == (77, 0.7)
    [point] = [point for point in after["figures"]["points"] if point["n_params"] == 77]
    assert {name: point[name] for name in changed} == changed
    assert (point["architecture"], point["size"], point["seed"]) == ("lstm", "30k", 0)
    assert point["learning_rate"] == record.config.learning_rate
    assert len(after["figures"]["points"]) == len(before["figures"]["points"]) == 8


def test_the_figures_have_the_law_that_the_report_chooses_the_baseline_and_the_quality(study):
    figures = describe_study(study, None)["figures"]
    fits = read_json(study / "comparison_analysis" / "fits.json")
    scores = read_json(study / "generation_analysis" / "quality_vs_size.json")
    for architecture in ("gpt", "lstm"):
        curve = figures["curves"][architecture]
        [fit] = [f for f in fits["fits"][architecture] if (f["axis"], f["law"]) == ("n_params", curve["law"])]
        assert {name: curve[name] for name in ("at", "loss", "low", "high")} == fit["line"]
        assert f"{fit['parameters']['alpha']['value']:.3f}" in curve["words"]
    assert figures["baseline"]["validation_loss"] == fits["baseline"]["validation_loss"]
    valid = scores["chosen"]["valid"]
    drawn = [point for point in figures["quality"]["points"] if point["architecture"] == "lstm"]
    assert [point["value"] for point in drawn] == [point["value"] for point in valid["points"]["lstm"]]
    assert figures["quality"]["curves"]["gpt"]["value"] == valid["curves"]["gpt"]["n_params"]["line"]["value"]


def test_a_tune_has_what_was_asked_for_and_all_that_is_said_of_it(demo):
    tune = demo.write("LSTM 30k", "Dmix", " 6/8 ", 1, 5, True)
    assert tune.abc.startswith("X:1\nM:6/8\n")
    assert "\nK:Dmix\n" in tune.abc
    assert tune.verdict.startswith("valid" if tune.valid else "not valid")
    assert tune.midi.startswith(b"MThd")
    assert all(length > 0 and 0 <= pitch < 128 for _, length, pitch in tune.notes)
    assert {name: tune.settings[name] for name in ("model", "seed", "bars")} == {
        "model": "LSTM 30k",
        "seed": 5,
        "bars": "strict",
    }


def test_a_tune_without_a_midi_file_comes_with_the_reason(demo, monkeypatch):
    def fail(_):
        raise RenderingError("abc2midi crashes (SIGSEGV)")

    monkeypatch.setattr(studio, "to_midi", fail)
    tune = demo.write("GPT 30k", "", "", 1.0, 0)
    assert tune.abc.startswith("X:1\n")
    assert (tune.midi, tune.notes, tune.messages[-1]) == (None, [], "abc2midi crashes (SIGSEGV)")


def test_a_tune_that_takes_too_long_is_cut_and_says_so(demo, monkeypatch):
    monkeypatch.setattr(studio, "SECONDS", 1e-6)
    tune = demo.write("GPT 30k", "", "", 1.0, 0)
    assert not tune.valid
    assert tune.messages[0].startswith("cut")


def test_fifty_users_at_once_each_get_the_tune_that_they_get_alone(demo, staged, monkeypatch):
    def unplayed(abc):
        raise RenderingError(abc)

    monkeypatch.setattr(studio, "to_midi", unplayed)
    keys = ("", "C", "Am", "G")
    wanted = [(demo.names[i % 5], keys[i % 4], "", 1.0, i // 2, i % 3 == 0) for i in range(50)]
    alone = [demo.write(*arguments) for arguments in wanted]
    assert len({tune.abc for tune in alone}) > 40
    fresh = Studio(staged)  # reads and loads while all wait
    with ThreadPoolExecutor(50) as pool:
        together = list(pool.map(lambda arguments: fresh.write(*arguments), wanted))
    assert together == alone


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"name": "GPT 9k"}, "model 'GPT 9k': there are GPT 15k"),
        ({"name": ["GPT 15k"]}, "model: give a text"),
        ({"key": "H"}, "key 'H': no key"),
        ({"key": "C\nI:abc-include x"}, "key"),
        ({"key": "C" * 21}, "key: give a text of at most 20"),
        ({"key": None}, "key: give a text"),
        ({"metre": "six"}, "metre 'six'"),
        ({"metre": "4/4" * 9}, "metre: give a text"),
        ({"temperature": 0.05}, "temperature"),
        ({"temperature": 2.1}, "temperature"),
        ({"temperature": float("nan")}, "temperature"),
        ({"temperature": "1"}, "temperature"),
        ({"seed": -1}, "seed"),
        ({"seed": 2**31}, "seed"),
        ({"seed": 1.5}, "seed"),
        ({"seed": True}, "seed"),
        ({"strict": "yes"}, "strict"),
    ],
)
def test_what_cannot_be_used_is_refused_in_one_line(demo, change, words):
    good = {"name": "GPT 15k", "key": "C", "metre": "4/4", "temperature": 1.0, "seed": 0}
    with pytest.raises(ValueError, match=words) as error:
        demo.write(**good | change)
    assert "\n" not in str(error.value)


def test_a_model_or_training_tunes_that_are_not_there_are_one_line_and_may_come_later(study, staged, tmp_path):
    folder = shutil.copytree(staged, tmp_path / "demo")
    described = read_json(folder / "study.json")
    root = tmp_path / "corpus"
    described["models"][0]["model"] = str(tmp_path / "none")
    described["training"] = {"path": str(root / "processed_music_data")}
    write_json(folder / "study.json", described)
    demo = open_studio(folder)
    for name in ("GPT 15k", "GPT 30k"):
        with pytest.raises(ValueError, match="cannot be loaded now") as error:
            demo.write(name, "", "", 1.0, 0)
        assert "\n" not in str(error.value)
    shutil.copytree(study / "processed_music_data", root / "processed_music_data")
    assert demo.write("GPT 30k", "", "", 1.0, 0).abc


def test_a_copy_names_its_training_tune_and_a_transposed_training_tune_is_none(demo, staged, tmp_path):
    own = demo.write(*ARGUMENTS)
    assert len(own.notes) > 20
    assert not own.copied
    folder = shutil.copytree(staged, tmp_path / "demo")
    described = read_json(folder / "study.json")
    write_json(folder / "study.json", described | {"training": {"path": str(tmp_path / "processed_music_data")}})
    write_training(tmp_path, (own.abc, "transposed", "b.abc", 2), (own.abc, HTML, "a.abc", 0))
    again = open_studio(folder).write(*ARGUMENTS)
    assert again.abc == own.abc
    assert again.copied
    assert again.nearest.endswith(f"notes in a row of {HTML} (a.abc)")
    write_training(tmp_path, (own.abc, "transposed", "b.abc", 2), ("X:1\nK:C\nCEG", "other", "c.abc", 0))
    assert not open_studio(folder).write(*ARGUMENTS).copied


class Forced(LogitsProcessor):
    """Lets a model write one tune alone, and adds up what it gives to each character."""

    def __init__(self, ids):
        self.ids, self.nats = ids, 0.0

    def __call__(self, input_ids, scores):
        wanted = self.ids[input_ids.shape[1]]
        self.nats -= float(scores.log_softmax(-1)[0, wanted])
        return torch.full_like(scores, -torch.inf).index_fill_(1, torch.tensor([wanted]), 0.0)


@pytest.mark.parametrize("name", ["GPT 15k", "LSTM 15k"])
@pytest.mark.parametrize("ended", [True, False])
def test_the_bits_are_those_of_the_model_as_it_writes_also_beyond_its_context(demo, name, ended):
    [model] = [model["model"] for model in demo.study["models"] if model["name"] == name]
    with studio.TURN:
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


def test_a_body_that_does_not_arrive_is_waited_for_no_longer_than_its_time(monkeypatch):
    pytest.importorskip("starlette")
    from model_cards.space import request_filter

    monkeypatch.setattr(request_filter, "SECONDS", 0.05)
    sent = []

    async def never():
        await asyncio.sleep(60)

    async def keep(message):
        sent.append(message)

    scope = {"type": "http", "method": "POST", "path": "/gradio_api/queue/join", "headers": []}
    asyncio.run(request_filter.RequestFilter(None, values=7)(scope, never, keep))
    assert sent[0]["status"] == 408
