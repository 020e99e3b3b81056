"""Fine-tuning: any model, trained further on other tunes."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from shutil import copytree

import numpy as np
import pytest
import torch
from conftest import made_tunes
from hub_server import hub_server
from safetensors.torch import save_file
from small_runs import made_config, quiet, train
from transformers import AutoModelForCausalLM, GPTNeoConfig

import training.finetune
import training.workers
from cli import UserError
from generation.study import load_pipeline
from preprocessing.blocks import Block
from preprocessing.corpus import Corpus, read_vocabulary
from training import single_run
from training.evaluation import token_losses
from training.execution import ExecutionConfig
from training.finetune import FineTuningArguments, loss_before, plan_fine_tuning
from training.learning_rate import peak_learning_rate
from training.record import FINE_TUNED

ROOT = Path(__file__).parent.parent
ARCHITECTURES = ["gpt", "lstm"]


@pytest.fixture(scope="module")
def models(tmp_path_factory, small_corpus) -> Path:
    """A folder with a model of each architecture, trained on the small corpus."""
    folder = tmp_path_factory.mktemp("hub") / "band"
    for architecture in ARCHITECTURES:
        train(made_config(architecture), folder / architecture, small_corpus)
    return folder


@pytest.fixture(scope="module")
def new_tunes(tmp_path_factory, build_from, models) -> Corpus:
    """Tunes in the lower octave only, in the models' vocabulary."""
    text = made_tunes(200, seed=5).translate(str.maketrans("cdefg", "CDEFG"))
    vocabulary = read_vocabulary(str(models / "gpt"))
    folder = tmp_path_factory.mktemp("new") / "corpus"
    return build_from(folder, [Block("mine", "mine.abc", text.encode())], vocabulary=vocabulary)


def plan(model, corpus, root, **changes):
    short = {"context": 64, "precision": "fp32", "epochs": 0.5, "learning_rate_factor": 0.3}
    return plan_fine_tuning(FineTuningArguments(model=str(model), output_dir=str(root), **short | changes), corpus)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_the_loss_on_new_tunes_falls_and_the_output_says_how_to_continue(
    models, new_tunes, small_corpus, tmp_path, monkeypatch, capsys, architecture
):
    source, folder = models / architecture, tmp_path / FINE_TUNED
    given = ["--model", source, "--corpus", new_tunes.folder, "--output_dir", tmp_path, "--context", 64]
    given += ["--precision", "fp32", "--epochs", 3, "--log_with", "none"]
    monkeypatch.setattr(sys, "argv", ["finetune.py", *map(str, given)])
    monkeypatch.setattr(training.workers, "share_machine", lambda _: (1, 1))  # one thread is faster beside other tests
    training.finetune.main()
    result, command = capsys.readouterr().out.splitlines()
    before, after = map(float, re.findall(r"\d\.\d{4}", result))
    stream = np.asarray(new_tunes.tokens("validation"))
    for loss, trained in ((before, source), (after, folder)):
        model = AutoModelForCausalLM.from_pretrained(trained)
        assert loss == pytest.approx(token_losses(model, stream, 64).mean(), abs=1e-4)
    assert after < before - 0.1
    assert command.endswith(f"--model {folder} --corpus {new_tunes.folder}")
    pipe = load_pipeline(str(folder))
    assert pipe.tokenizer.get_vocab() == small_corpus.vocabulary
    assert pipe(seed=0, max_characters=40)[0]["abc"].startswith("X:1")
    training.finetune.main()
    assert "1 of 1 runs have ended already" in capsys.readouterr().out


def test_budget_and_learning_rate_follow_from_the_corpus_and_the_rule(models, new_tunes, tmp_path):
    run = plan(models / "gpt", new_tunes, tmp_path, epochs=3, learning_rate_factor=0.5)
    assert run.config.tokens == 3 * (len(new_tunes.tokens("train")) - 1)
    rule = peak_learning_rate("gpt", run.n_params_non_embedding)
    assert run.config.learning_rate == pytest.approx(0.5 * rule, rel=0.01)
    assert (run.config.architecture, run.config.init_from) == ("gpt", str(models / "gpt"))


HUB = """
import sys
from pathlib import Path
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM
from cli import UserError
from preprocessing.corpus import Corpus
from training.execution import ExecutionConfig
from training.finetune import FineTuningArguments, loss_before, plan_fine_tuning
from training.single_run import train

corpus, root = Corpus.open(sys.argv[1]), Path(sys.argv[2])
shared = {"context": 64, "precision": "fp32", "epochs": 0.5, "learning_rate_factor": 0.3}
for name in ("gpt", "lstm"):
    expected = load_file(root / f"{name}.safetensors")
    model = AutoModelForCausalLM.from_pretrained(f"band/{name}")
    assert model(expected["ids"]).logits.equal(expected["logits"]), name
    run = plan_fine_tuning(FineTuningArguments(model=f"band/{name}", output_dir=str(root / name), **shared), corpus)
    record = train(run, corpus, lambda tokens, loss: None, ExecutionConfig())
    print(record.config.architecture, loss_before(run.config, corpus), record.validation_loss)
try:
    plan_fine_tuning(FineTuningArguments(model="band/none", **shared), corpus)
except UserError as error:
    print(error)
"""


def test_a_model_of_the_hub_is_trained_further_without_trusting_its_code(models, new_tunes, tmp_path):
    ids = torch.from_numpy(np.asarray(new_tunes.tokens("test"))[:120].reshape(2, 60).astype(np.int64))
    for name in ARCHITECTURES:
        logits = AutoModelForCausalLM.from_pretrained(models / name)(ids).logits.detach()
        save_file({"ids": ids, "logits": logits}, tmp_path / f"{name}.safetensors")
    with hub_server(models.parent) as hub:
        environment = {**os.environ, **hub.environment(tmp_path / "cache")}
        command = [sys.executable, "-c", HUB, new_tunes.folder, tmp_path]
        done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    *lines, error = done.stdout.splitlines()
    assert error.startswith("--model band/none: no folder with a model, and no model of the Hub")
    rows = [line.split() for line in lines]
    assert [row[0] for row in rows] == ARCHITECTURES
    for (_, before, after), architecture in zip(rows, ARCHITECTURES, strict=True):
        local = plan(models / architecture, new_tunes, tmp_path)
        assert float(before) == pytest.approx(loss_before(local.config, new_tunes), abs=1e-5)
        assert float(after) < float(before) - 0.05
    assert not any(".py" in request for request in hub.requests)


def refusal(model, corpus, root, **changes):
    with pytest.raises(UserError) as refused:
        plan(model, corpus, root, **changes)
    return str(refused.value)


def test_a_corpus_of_another_vocabulary_is_refused_with_the_command_that_builds_it(models, build_from, tmp_path):
    text = made_tunes(150).replace("g|", "g'|")
    other = build_from(tmp_path / "other", [Block("mine", "mine.abc", text.encode())])
    message = refusal(models / "gpt", other, tmp_path)
    assert str(other.folder) in message
    assert f"preprocessing/run.py --vocabulary {models / 'gpt'}" in message


def test_a_context_longer_than_the_positions_of_a_gpt_is_refused_and_an_lstm_has_none(models, new_tunes, tmp_path):
    assert "takes 64 characters at most" in refusal(models / "gpt", new_tunes, tmp_path, context=65)
    assert plan(models / "lstm", new_tunes, tmp_path, context=65)


def test_a_folder_without_a_model_of_this_project_is_refused_by_name(models, new_tunes, tmp_path):
    foreign, corpus_like, damaged, bare = (tmp_path / name for name in ("foreign", "tunes", "damaged", "bare"))
    GPTNeoConfig(num_layers=1, attention_types=[[["global"], 1]], hidden_size=16, num_heads=2).save_pretrained(foreign)
    new_tunes.tokenizer().save_pretrained(corpus_like)
    for folder in (damaged, bare):
        copytree(models / "gpt", folder)
    (damaged / "config.json").write_text("{")
    for file in bare.glob("tokenizer*"):
        file.unlink()
    for source in (tmp_path / "nothing", corpus_like, damaged):
        assert refusal(source, new_tunes, tmp_path).startswith(f"--model {source}: no folder with a model")
    assert f"--model {foreign}: a gpt_neo model" in refusal(foreign, new_tunes, tmp_path)
    assert f"--model {bare}: " in refusal(bare, new_tunes, tmp_path)


def test_a_model_that_changed_after_the_run_was_planned_is_refused(models, new_tunes, tmp_path):
    source = copytree(models / "gpt", tmp_path / "model")
    run = plan(source, new_tunes, tmp_path)
    config = json.loads((source / "config.json").read_text())
    (source / "config.json").write_text(json.dumps(config | {"activation_function": "relu"}))
    with pytest.raises(UserError, match="has changed"):
        single_run.train(run, new_tunes, quiet, ExecutionConfig())
