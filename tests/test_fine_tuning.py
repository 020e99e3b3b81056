import json
import os
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from shutil import copytree

import numpy as np
import pytest
import torch
from conftest import made_tunes
from hub_server import hub_server
from safetensors.torch import load_file, save_file
from small_runs import RECIPE, made_config, train
from training.checkpoint import LATEST
from transformers import AutoModelForCausalLM, AutoTokenizer, GPTNeoConfig

import training.run
from cli import UserError
from generation.study import load_pipeline
from preprocessing.corpus import Corpus, read_vocabulary
from preprocessing.sources import Block
from training.best import loss_before, plan_fine_tuning
from training.evaluation import token_losses
from training.learning_rate import learning_rate
from training.loop import ExecutionConfig, Plan
from training.record import FINE_TUNED

ROOT = Path(__file__).parent.parent
ARCHITECTURES = ["gpt", "lstm"]


def quiet(tokens, loss):
    pass


@pytest.fixture(scope="module")
def models(tmp_path_factory, small_corpus) -> Path:
    """A folder with a model of each architecture, trained on the small corpus."""
    folder = tmp_path_factory.mktemp("hub") / "band"
    for architecture in ARCHITECTURES:
        config = made_config(architecture)
        train(Plan(config, folder / architecture), small_corpus, quiet, ExecutionConfig())
    return folder


@pytest.fixture(scope="module")
def new_tunes(tmp_path_factory, build_from, models) -> Corpus:
    """Tunes of a musician who only knows the lower octave, in the models' vocabulary."""
    text = made_tunes(200, seed=5).translate(str.maketrans("cdefg", "CDEFG"))
    folder = tmp_path_factory.mktemp("new") / "corpus"
    return build_from(
        folder, [Block("mine", "mine.abc", text.encode())], vocabulary=read_vocabulary(str(models / "gpt"))
    )


def door(monkeypatch, corpus, root, source, *arguments):
    """Fine-tune by the door, in this process."""
    given = ["--init_from", source, "--corpus", corpus.folder, "--output_root", root, "--context", 64]
    given += ["--precision", "fp32", "--fine_tuning_epochs", 3, *arguments]
    monkeypatch.setattr(sys, "argv", ["run.py", *map(str, given), "--log_with", "none"])
    monkeypatch.setattr(training.run, "share_machine", lambda _: (1, 1))
    training.run.main()


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_the_loss_on_new_tunes_falls_and_the_last_lines_say_so_and_how_to_go_on(
    models, new_tunes, small_corpus, tmp_path, monkeypatch, capsys, architecture
):
    source, folder = models / architecture, tmp_path / FINE_TUNED
    door(monkeypatch, new_tunes, tmp_path, source)
    told, command = capsys.readouterr().out.splitlines()
    before, after = map(float, re.findall(r"\d\.\d{4}", told))
    stream = np.asarray(new_tunes.tokens("validation"))
    for loss, trained in ((before, source), (after, folder)):
        model = AutoModelForCausalLM.from_pretrained(trained)
        assert loss == pytest.approx(token_losses(model, stream, 64).mean(), abs=1e-4)
    assert after < before - 0.1
    assert command.endswith(f"--model {folder} --corpus {new_tunes.folder}")
    pipe = load_pipeline(str(folder))
    assert pipe.tokenizer.get_vocab() == small_corpus.vocabulary
    assert pipe(seed=0, max_characters=40)[0]["abc"].startswith("X:1")
    door(monkeypatch, new_tunes, tmp_path, source)
    assert "1 of 1 runs have ended already" in capsys.readouterr().out


def test_budget_and_rate_follow_from_the_corpus_and_the_rule(models, new_tunes, tmp_path):
    job = plan_fine_tuning(RECIPE, str(models / "gpt"), new_tunes, tmp_path, epochs=3, rate_share=0.5)
    config = job.plan.config
    assert config.tokens == 3 * (len(new_tunes.tokens("train")) - 1)
    assert config.learning_rate == pytest.approx(0.5 * learning_rate("gpt", job.n_params_non_embedding), rel=0.01)
    assert (config.architecture, config.init_from) == ("gpt", str(models / "gpt"))


def test_an_interrupted_fine_tuning_goes_on_to_the_same_weights(models, new_tunes, tmp_path):
    often = ExecutionConfig(checkpoint_seconds=0)
    shared = replace(RECIPE, dropout=0.1)
    job, again = (
        plan_fine_tuning(shared, str(models / "lstm"), new_tunes, tmp_path / name, 0.5, 0.3)
        for name in ("whole", "cut")
    )

    def stop_half_way(tokens, _):
        if tokens > job.plan.config.tokens / 2:
            raise KeyboardInterrupt

    train(job.plan, new_tunes, quiet, often)
    with pytest.raises(KeyboardInterrupt):
        train(again.plan, new_tunes, stop_half_way, often)
    assert (again.plan.folder / LATEST).is_file()
    started = []
    train(again.plan, new_tunes, lambda tokens, _: started.append(tokens), often)
    assert started[0] > job.plan.config.tokens / 3
    whole, cut = (load_file(plan.folder / "model.safetensors") for plan in (job.plan, again.plan))
    assert all(whole[name].equal(cut[name]) for name in whole)


HUB = """
import json, sys
from pathlib import Path
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM
from cli import UserError
from preprocessing.corpus import Corpus
from training.best import loss_before, plan_fine_tuning
from training.grid import Recipe
from training.loop import ExecutionConfig, train

corpus, root, shared = Corpus.open(sys.argv[1]), Path(sys.argv[2]), Recipe(**json.loads(sys.argv[3]))
for name in ("gpt", "lstm"):
    expected = load_file(root / f"{name}.safetensors")
    model = AutoModelForCausalLM.from_pretrained(f"band/{name}")
    assert model(expected["ids"]).logits.equal(expected["logits"]), name
    job = plan_fine_tuning(shared, f"band/{name}", corpus, root / name, 0.5, 0.3)
    record = train(job.plan, corpus, lambda tokens, loss: None, ExecutionConfig())
    print(record.config.architecture, loss_before(job, corpus), record.validation_loss)
try:
    plan_fine_tuning(shared, "band/none", corpus, root, 1, 0.3)
except UserError as error:
    print(error)
"""


def test_a_fresh_process_computes_the_same_logits_with_a_model_of_the_hub_and_trains_it_without_trusting_its_code(
    models, new_tunes, tmp_path
):
    ids = torch.from_numpy(np.asarray(new_tunes.tokens("test"))[:120].reshape(2, 60).astype(np.int64))
    for name in ARCHITECTURES:
        logits = AutoModelForCausalLM.from_pretrained(models / name)(ids).logits.detach()
        save_file({"ids": ids, "logits": logits}, tmp_path / f"{name}.safetensors")
    with hub_server(models.parent) as hub:
        environment = {**os.environ, **hub.environment(tmp_path / "cache")}
        command = [sys.executable, "-c", HUB, new_tunes.folder, tmp_path, json.dumps(vars(RECIPE))]
        done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    *lines, refused = done.stdout.splitlines()
    assert refused.startswith("--init_from band/none: no folder with a model, and no model of the Hub")
    rows = [line.split() for line in lines]
    assert [row[0] for row in rows] == ARCHITECTURES
    for (_, before, after), architecture in zip(rows, ARCHITECTURES, strict=True):
        local = plan_fine_tuning(RECIPE, str(models / architecture), new_tunes, tmp_path, 0.5, 0.3)
        assert float(before) == pytest.approx(loss_before(local, new_tunes), abs=1e-5)
        assert float(after) < float(before) - 0.05
    assert not any(".py" in request for request in hub.requests)


def refusal(source, corpus, root, context=64):
    with pytest.raises(UserError) as refused:
        plan_fine_tuning(replace(RECIPE, context=context), str(source), corpus, root, 1, 0.1)
    [line] = str(refused.value).splitlines()
    return line


def test_a_corpus_of_another_vocabulary_is_refused_with_what_builds_it_right(models, build_from, tmp_path):
    text = made_tunes(150).replace("g|", "g'|")
    other = build_from(tmp_path / "other", [Block("mine", "mine.abc", text.encode())])
    line = refusal(models / "gpt", other, tmp_path)
    assert str(other.folder) in line
    assert f"preprocessing/run.py --vocabulary {models / 'gpt'}" in line


def test_a_context_longer_than_the_positions_of_a_gpt_is_refused_and_an_lstm_has_none(models, new_tunes, tmp_path):
    assert "takes 64 characters at most" in refusal(models / "gpt", new_tunes, tmp_path, context=65)
    assert plan_fine_tuning(replace(RECIPE, context=65), str(models / "lstm"), new_tunes, tmp_path, 1, 0.1)


def test_what_is_no_model_of_this_project_is_refused_by_name_and_nothing_is_said_to_be_deleted(
    models, new_tunes, tmp_path
):
    foreign, corpus_like, damaged = tmp_path / "foreign", tmp_path / "tunes", tmp_path / "damaged"
    GPTNeoConfig(num_layers=1, attention_types=[[["global"], 1]], hidden_size=16, num_heads=2).save_pretrained(foreign)
    new_tunes.tokenizer().save_pretrained(corpus_like)
    copytree(models / "gpt", damaged)
    (damaged / "config.json").write_text("{")
    for source in (tmp_path / "nothing", corpus_like, damaged):
        line = refusal(source, new_tunes, tmp_path)
        assert line.startswith(f"--init_from {source}: no folder with a model")
        assert "delete" not in line
    assert f"--init_from {foreign}: a gpt_neo model" in refusal(foreign, new_tunes, tmp_path)


def test_a_flag_that_a_fine_tuning_has_no_use_for_is_refused(models, new_tunes, tmp_path, monkeypatch, capsys):
    with pytest.raises(SystemExit):
        door(monkeypatch, new_tunes, tmp_path, models / "gpt", "--tokens", 20_000)
    assert "--tokens" in capsys.readouterr().err


def test_a_model_that_changed_after_the_run_was_planned_is_refused(models, new_tunes, tmp_path):
    source = copytree(models / "gpt", tmp_path / "model")
    job = plan_fine_tuning(RECIPE, str(source), new_tunes, tmp_path, 0.5, 0.3)
    config = json.loads((source / "config.json").read_text())
    (source / "config.json").write_text(json.dumps(config | {"activation_function": "relu"}))
    with pytest.raises(UserError, match="has changed"):
        train(job.plan, new_tunes, quiet, ExecutionConfig())


@pytest.mark.parametrize("name", ["fine_tuning_epochs", "fine_tuning_rate"])
def test_a_fine_tuning_of_nothing_is_refused(models, new_tunes, tmp_path, monkeypatch, capsys, name):
    with pytest.raises(SystemExit):
        door(monkeypatch, new_tunes, tmp_path, models / "gpt", f"--{name}", 0)
    assert f"error: --{name} 0.0: must be from" in capsys.readouterr().err


def test_a_model_without_its_tokenizer_is_refused(models, new_tunes, tmp_path):
    bare = copytree(models / "gpt", tmp_path / "bare")
    for file in bare.glob("tokenizer*"):
        file.unlink()
    assert str(bare) in refusal(bare, new_tunes, tmp_path)
    assert AutoTokenizer.from_pretrained(models / "gpt").get_vocab() == new_tunes.vocabulary
