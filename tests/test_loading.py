"""Models that are refused, each with an error message and before anything can act."""

import io
import json
import os
import pickle
import subprocess
import sys
import time

import pytest
import torch
from hub_server import hub_server
from made_models import made_model
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from cli import UserError
from modeling.loading import load_config, load_model, load_tokenizer

CODE = "from pathlib import Path\nPath({!r}).touch()\n"


class Bomb:
    """Leaves a mark where it is unpickled."""

    def __init__(self, mark):
        self.mark = mark

    def __reduce__(self):
        return exec, (CODE.format(str(self.mark)),)


@pytest.fixture(params=["gpt", "lstm"])
def folder(request, tmp_path):
    for part in made_model(request.param):
        part.save_pretrained(tmp_path / "model")
    return tmp_path / "model"


@pytest.fixture
def refusal(folder, monkeypatch):
    """Return the error message of a model that is refused; nobody is asked on standard input."""

    def load():
        monkeypatch.setattr(sys, "stdin", io.StringIO("y\n" * 9))
        with pytest.raises(UserError) as refused:
            (load_model(folder), load_tokenizer(folder))
        assert sys.stdin.read() == "y\n" * 9
        message = str(refused.value)
        assert message.startswith(f"{folder}: ")
        assert len(message.splitlines()) == 1
        assert len(message) < 600
        return message

    return load


def change_config(folder, **changes):
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def change_weights(folder, change):
    path = folder / "model.safetensors"
    weights = load_file(path)
    save_file(change(weights), path, {"format": "pt"})


def changed(value):
    """Return a change that puts `value` into the middle of the last tensor."""

    def change(weights):
        name = max(weights)
        weights[name].view(-1)[3] = value
        return weights

    return change


def test_a_model_is_loaded_as_it_was_saved_with_the_dropout_to_train_it_with(folder):
    model, config = load_model(folder), load_config(folder, dropout=0.25)
    expected = AutoModelForCausalLM.from_pretrained(folder)
    assert all(torch.equal(*pair) for pair in zip(model.parameters(), expected.parameters(), strict=True))
    assert (model.dtype, model.training, model.config.header_fields) == (torch.float32, False, "XMLK")
    assert 0.25 in (getattr(config, "resid_pdrop", 0), getattr(config, "dropout", 0))
    assert len(load_tokenizer(folder)) == model.config.vocab_size
    half = folder.parent / "half"
    model.half().save_pretrained(half)
    assert load_model(half).dtype == torch.float32


@pytest.mark.parametrize(
    "name", ["pytorch_model.bin", "pytorch_model.bin.index.json", "flax_model.msgpack", "model.safetensors"]
)
def test_weights_that_are_no_safetensors_are_refused_and_not_read(folder, refusal, name, tmp_path):
    mark = tmp_path / "mark"
    (folder / "model.safetensors").unlink()
    (folder / name).write_bytes(pickle.dumps({"x": Bomb(mark)}))
    torch.save({"x": Bomb(mark)}, folder / "adapter_model.bin")
    assert "model.safetensors" in refusal()
    assert not mark.exists()


@pytest.mark.parametrize("kind", ["abc_lstm", "gpt2", "stranger"])
def test_code_beside_a_model_is_never_run(folder, refusal, kind, tmp_path):
    mark = tmp_path / "mark"
    places = {"AutoConfig": "evil.C", "AutoModelForCausalLM": "evil.M", "AutoTokenizer": ["evil.T", "evil.T"]}
    change_config(folder, model_type=kind, auto_map=places)
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    (folder / "tokenizer_config.json").write_text(json.dumps(settings | {"auto_map": places, "tokenizer_class": "T"}))
    (folder / "custom_generate").mkdir()
    for path in (folder / "evil.py", folder / "custom_generate" / "generate.py"):
        path.write_text(CODE.format(str(mark)))
    if kind == ("gpt2" if "n_embd" in json.loads((folder / "config.json").read_text()) else "abc_lstm"):
        load_model(folder)
        load_tokenizer(folder)
    else:
        refusal()
    assert not mark.exists()


@pytest.mark.parametrize(
    "changes",
    [
        {"model_type": "llama"},
        {"model_type": None},
        {"model_type": ["gpt2"]},
        {"vocab_size": 10**12},
        {"vocab_size": 57},
        {"vocab_size": -1},
        {"vocab_size": "many"},
        {"n_layer": 10**6, "num_hidden_layers": 10**6},
        {"n_layer": 3, "num_hidden_layers": 3},
        {"n_layer": -1, "num_hidden_layers": -1},
        {"n_embd": 10**7, "hidden_size": 10**7},
        {"n_head": 0, "embedding_size": 0},
        {"n_head": 10**21, "embedding_size": 10**21},
        {"activation_function": "none of them", "embedding_size": None},
        {"layer_norm_epsilon": float("nan"), "forget_bias": float("nan")},
        {"pad_token_id": "x"},
        {"header_fields": 5},
    ],
)
def test_an_impossible_configuration_is_refused_within_seconds(folder, refusal, changes):
    change_config(folder, **changes)
    start = time.perf_counter()
    refusal()
    assert time.perf_counter() - start < 5


@pytest.mark.parametrize(
    "change",
    [
        changed(float("nan")),
        changed(float("inf")),
        lambda weights: {name: torch.full_like(values, 1e38) for name, values in weights.items()},
        lambda weights: {name: values * -1e30 for name, values in weights.items()},
        lambda weights: dict([*weights.items()][1:]),
        lambda weights: weights | {"more.weight": torch.zeros(2)},
        lambda weights: {name: values[:-1].contiguous() for name, values in weights.items()},
        lambda _: {},
        lambda weights: weights | {max(weights): torch.zeros(0)},
    ],
)
def test_weights_that_no_training_gives_are_refused(folder, refusal, change):
    change_weights(folder, change)
    refusal()


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "tokenizer_config.json"])
@pytest.mark.parametrize("text", ["{}", "[]", "", "null", '{"a":' * 50_000, None])
def test_a_damaged_or_missing_file_is_refused(folder, refusal, name, text):
    (folder / name).unlink()
    if text is not None:
        (folder / name).write_text(text)
    refusal()


@pytest.mark.parametrize(
    "change",
    [
        lambda tokens: tokens["model"]["vocab"].popitem(),
        lambda tokens: tokens["model"]["vocab"].update({"\u2603": 56}),
        lambda tokens: tokens["model"]["vocab"].update(a=7, b=7),
        lambda tokens: tokens["model"]["vocab"].update(a=10**6),
        lambda tokens: tokens.update(model={"type": "Unigram", "vocab": []}),
        lambda tokens: tokens.update(model=None),
    ],
)
def test_a_tokenizer_of_another_vocabulary_is_refused(folder, refusal, change):
    tokens = json.loads((folder / "tokenizer.json").read_text())
    change(tokens)
    (folder / "tokenizer.json").write_text(json.dumps(tokens))
    assert "tokenizer.json" in refusal()


def test_an_adapter_beside_a_model_is_refused(folder, refusal):
    (folder / "adapter_config.json").write_text('{"base_model_name_or_path": "somebody/else"}')
    assert "adapter" in refusal()


@pytest.mark.parametrize("name", ["nowhere", "a/b/c", "../x", "https://host/x", "", "band/no..ne"])
def test_a_name_that_is_neither_a_folder_nor_a_hub_id_is_refused(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for load in (load_model, load_config, load_tokenizer):
        with pytest.raises(UserError, match="no folder with a model") as refused:
            load(name)
        assert "\n" not in str(refused.value)


FROM_THE_HUB = """
import sys
from cli import UserError
from modeling.loading import load_model, load_tokenizer

assert load_model("band/gpt").config.vocab_size == len(load_tokenizer("band/gpt"))
for name in ("pickled", "stranger", "none"):
    try:
        load_model(f"band/{name}")
    except UserError as error:
        print(error)
"""


def test_only_the_files_that_are_read_are_fetched_from_the_hub(tmp_path):
    for name in ("gpt", "pickled", "stranger"):
        for part in made_model("gpt"):
            part.save_pretrained(tmp_path / "band" / name)
        (tmp_path / "band" / name / "evil.py").touch()
        (tmp_path / "band" / name / "pytorch_model.bin").write_bytes(b"pickle")
    (tmp_path / "band" / "pickled" / "model.safetensors").unlink()
    change_config(tmp_path / "band" / "stranger", model_type="stranger")
    with hub_server(tmp_path) as hub:
        environment = {**os.environ, **hub.environment(tmp_path / "cache")}
        command = [sys.executable, "-c", FROM_THE_HUB]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, input="y\n")
    assert done.returncode == 0, done.stderr
    pickled, stranger, none = done.stdout.splitlines()
    assert "model.safetensors" in pickled
    assert "stranger model" in stranger
    assert "no model of the Hub" in none
    assert not [request for request in hub.requests if ".py" in request or ".bin" in request]
    assert not [request for request in hub.requests if "stranger" in request and "safetensors" in request]
