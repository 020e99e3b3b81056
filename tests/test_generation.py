import json
import math
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import generation.run
from door import open_door
from generation.quality import Share, score_tune, shares
from generation.run import header, load, sample
from modeling.ladder import gpt_config, lstm_config, new_model

ROOT = Path(__file__).parent.parent
TUNE = "X:1\nM:4/4\nL:1/4\nK:C\nCDEF|GABc|cBAG|FEDC|]"


@pytest.fixture(scope="module", params=["gpt", "lstm"])
def model_folder(request, small_corpus, tmp_path_factory):
    folder = tmp_path_factory.mktemp(request.param)
    tokenizer = small_corpus.tokenizer()
    build = gpt_config if request.param == "gpt" else lstm_config
    torch.manual_seed(0)
    new_model(build("15k", len(tokenizer), 64, tokenizer.eos_token_id, tokenizer.pad_token_id)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def run_door(monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", ["run.py", *map(str, arguments)])
    open_door(generation.run.main)


@pytest.mark.parametrize(
    ("count", "total", "low", "high"),
    [(0, 10, 0.0, 0.2775), (10, 10, 0.7225, 1.0), (81, 263, 0.2553, 0.3662)],  # the last: Newcombe 1998, table I
)
def test_the_wilson_interval_has_its_published_values(count, total, low, high):
    assert Share(count, total).interval == pytest.approx((low, high), abs=1e-4)


def test_a_share_of_nothing_is_not_zero():
    assert math.isnan(Share(0, 0).value)
    assert Share(0, 0).interval == (0.0, 1.0)


def test_a_good_tune_is_valid_only_if_it_ended_by_itself():
    assert score_tune(TUNE, ended=True)["valid"]
    assert not score_tune(TUNE, ended=False)["valid"]


def test_a_tune_with_one_bad_bar_of_four_has_three_quarters_good_bars():
    score = score_tune(TUNE.replace("|GABc|", "|GABcd|"), ended=True)
    assert (score["parses"], score["bars_add_up"], score["valid"]) == (True, False, False)
    assert score["good_bars_share"] == 0.75


def test_shares_count_each_tier_by_itself():
    table = shares([score_tune(TUNE, True), score_tune(TUNE, False), score_tune("nonsense", True)])
    assert {tier: row["count"] for tier, row in table.items()} == {
        "parses": 2,
        "bars_add_up": 2,
        "ended": 2,
        "valid": 1,
    }


def test_a_prompt_becomes_a_header_in_the_corpuss_order():
    assert header("K:Dmix M:6/8 L:1/8") == "X:1\nM:6/8\nL:1/8\nK:Dmix\n"


def test_sampling_is_decided_by_its_seed_and_begins_with_the_prompt(model_folder):
    model, tokenizer = load(str(model_folder))
    prompt = header("M:4/4 L:1/8 K:C")
    first, again, other = (sample(model, tokenizer, prompt, 1.0, 3, 20, seed) for seed in (1, 1, 2))
    assert first == again
    assert first != other
    assert all(text.startswith(prompt) for text, _ in first)


def test_the_door_writes_every_tune_with_its_settings_and_a_summary(
    model_folder, small_corpus, tmp_path, monkeypatch, capsys
):
    out = tmp_path / "samples"
    arguments = ["--model", model_folder, "--corpus", small_corpus.folder, "--output_dir", out]
    arguments += [
        "--n",
        2,
        "--max_characters",
        40,
        "--temperatures",
        0.8,
        1.0,
        "--prompts",
        "M:4/4 L:1/8 K:C",
        "M:4/4 K:G",
    ]
    run_door(monkeypatch, *arguments)
    summary = json.loads((out / "samples.json").read_text())
    files = sorted(path.name for path in out.glob("*.abc"))
    assert files == sorted(row["file"] for row in summary["samples"])
    assert len(files) == 2 * (2 + 2)
    assert len(summary["shares"]) == 4
    assert summary["human"]["parses"]["total"] == len(small_corpus.tunes("test"))
    for row in summary["samples"]:
        text = (out / row["file"]).read_text()
        assert text.startswith("% ")
        assert f"temperature {row['temperature']}, seed {row['seed']}" in text
        assert row["text"].strip("\n") in text
        assert f"valid: {row['valid']}" in text
    capsys.readouterr()
    run_door(monkeypatch, *arguments)
    assert "finished already" in capsys.readouterr().out


@pytest.mark.parametrize("damage", ["weights cut", "no weights", "no folder", "bad prompt", "bad temperature"])
def test_what_cannot_be_generated_from_gets_one_line(model_folder, tmp_path, monkeypatch, capsys, damage):
    folder = tmp_path / "model"
    arguments, names = ["--model", folder], str(folder)
    if damage != "no folder":
        folder.mkdir()
        for file in model_folder.iterdir():
            if file.is_file():
                (folder / file.name).write_bytes(file.read_bytes())
    if damage == "weights cut":
        weights = folder / "model.safetensors"
        weights.write_bytes(weights.read_bytes()[:1000])
    elif damage == "no weights":
        (folder / "model.safetensors").unlink()
    elif damage == "bad prompt":
        arguments, names = ["--prompts", "jig in D"], "jig in D"
    elif damage == "bad temperature":
        arguments, names = ["--temperatures", "0"], "--temperatures"
    with pytest.raises(SystemExit) as ending:
        run_door(monkeypatch, *arguments, "--output_dir", tmp_path / "out")
    assert ending.value.code != 0
    [line] = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error")]
    assert names in line
    assert not (tmp_path / "out").exists()


def test_the_readmes_python_runs_as_printed_in_a_fresh_process(model_folder):
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    [code] = [block for block in re.findall(r"```python\n(.*?)```", readme, re.DOTALL) if "pipeline" in block]
    assert "data/best_model" in code
    code = code.replace("data/best_model", str(model_folder)).replace("max_new_tokens=200", "max_new_tokens=30")
    environment = {**os.environ, "HF_HUB_OFFLINE": "1"}
    result = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert result.stdout.startswith("X:1\nM:6/8\nL:1/8\nK:G\n")
