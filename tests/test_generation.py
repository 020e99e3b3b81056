"""generation/run.py: tunes of one model in a folder, with settings, verdicts, copies and a page."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from made_models import made_model

import generation.run
from generation.quality import describe_failure, score_tune

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module", params=["gpt", "lstm"])
def model_folder(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp(request.param)
    for part in made_model(request.param):
        part.save_pretrained(folder)
    return folder


@pytest.fixture
def run(monkeypatch, model_folder, tmp_path):
    """Run the command with the made model, without a corpus, unless the arguments name others; return its folder."""

    def main(*arguments):
        defaults = {"--model": model_folder, "--corpus": tmp_path / "none", "--output_dir": tmp_path / "out"}
        given = [*arguments, *(each for flag in defaults if flag not in arguments for each in (flag, defaults[flag]))]
        monkeypatch.setattr(sys, "argv", ["run.py", *map(str, given)])
        generation.run.main()
        return tmp_path / "out"

    return main


@pytest.fixture
def error_of(run, capsys, tmp_path):
    """Return the error message that the command ends with, without having written anything."""

    def fail(*arguments):
        with pytest.raises(SystemExit) as ending:
            run(*arguments)
        assert ending.value.code != 0
        [line] = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error")]
        assert len(line) < 300
        assert not (tmp_path / "out" / "index.html").exists()
        return line

    return fail


def samples(folder):
    return json.loads((folder / "samples.json").read_text())["samples"]


def test_tunes_are_written_with_settings_and_a_page_once(run, small_corpus, capsys):
    arguments = ["--corpus", small_corpus.folder, "--num_samples", 5, "--meter", "4/4", "--temperatures", 0.8, 1.0]
    arguments += ["--bars", "strict", "--max_characters", 150, "--formats", "mid"]
    out = run(*arguments)
    rows = samples(out)
    assert [row["file"] for row in rows] == [f"{i:03d}.abc" for i in range(1, 6)]
    assert [row["settings"]["temperature"] for row in rows] == [0.8, 0.8, 0.8, 1.0, 1.0]
    page = (out / "index.html").read_text()
    for row in rows:
        text = (out / row["file"]).read_text()
        assert text.endswith(row["abc"])
        assert f"% temperature: {row['settings']['temperature']}\n" in text
        assert "% bars: strict\n" in text
        assert "M:4/4" in row["abc"]
        assert row["copied"] is False
        assert f'href="{row["file"]}"' in page
    capsys.readouterr()
    run(*arguments)
    assert "finished already" in capsys.readouterr().out
    assert samples(out) == rows


def test_a_tune_copied_from_training_is_found(run, small_corpus):
    planted = small_corpus.tunes("train")[7]
    prompt = planted["text"].replace("\n", "\\n")
    arguments = ["--corpus", small_corpus.folder, "--num_samples", 1, "--formats", "mid", "--max_characters", 999]
    out = run(*arguments, "--prompt", prompt)
    [row] = samples(out)
    assert row["copied"] is True
    assert row["copy"]["title"] == planted["title"]
    assert f"% verdict: COPIED from {row['copy']['words']}" in (out / "001.abc").read_text()


def test_without_a_corpus_copies_are_unknown(run, capsys):
    [row] = samples(run("--num_samples", 1, "--formats", "mid", "--max_characters", 60))
    assert row["copied"] is None
    assert "no such corpus" in capsys.readouterr().out


BIG = "1" + "0" * 21


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--model", "nowhere"], "nowhere: no folder"),
        (["--key", "H"], "--key 'H'"),
        (["--temperatures", "0"], "--temperatures 0"),
        (["--temperatures", "nan"], "--temperatures nan"),
        (["--temperatures", "1", "1"], "--temperatures"),
        (["--num_samples", "0"], "--num_samples 0"),
        (["--num_samples", "1" + "0" * 4000], "--num_samples 1000"),
        *(([flag, BIG], flag) for flag in ("--max_characters", "--top_k", "--seed")),
        (["--top_p", "nan"], "--top_p"),
        (["--min_p", "inf"], "--min_p"),
        (["--formats", "mid", "mid"], "--formats"),
        (["--formats", "mp3"], "--formats mp3"),
        (["--prompt", "CDEF"], "music without a key"),
        (["--bars", "loose"], "loose"),
    ],
)
def test_arguments_that_cannot_be_used_are_named(arguments, words, error_of):
    assert words in error_of(*arguments)


def test_an_output_link_is_followed_and_one_to_nothing_is_refused_before_the_model_is_read(
    run, error_of, tmp_path, monkeypatch
):
    (tmp_path / "disk" / "tunes").mkdir(parents=True)
    (tmp_path / "out").symlink_to("disk/tunes")
    out = run("--num_samples", 1, "--formats", "mid", "--max_characters", 60)
    assert out.is_symlink()
    assert (tmp_path / "disk" / "tunes" / "index.html").is_file()
    out.unlink()
    out.symlink_to("unmounted/tunes")
    monkeypatch.setattr(generation.run, "load_pipeline", None)
    assert f"{out} is a link to" in error_of()


@pytest.mark.parametrize("text", ["{}", "[]", "[" * 50_000, "1" * 5000])
def test_a_damaged_record_is_named(text, error_of, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "samples.json").write_text(text)
    assert f"{tmp_path / 'out' / 'samples.json'} is damaged" in error_of()


@pytest.mark.parametrize("file", ["model.safetensors", "config.json", "cut model.safetensors"])
def test_a_damaged_model_is_named(file, model_folder, error_of, tmp_path):
    folder = tmp_path / "model"
    shutil.copytree(model_folder, folder)
    damaged = folder / file.removeprefix("cut ")
    content = damaged.read_bytes()[:1000]
    damaged.unlink()
    if file.startswith("cut"):
        damaged.write_bytes(content)
    assert str(folder) in error_of("--model", folder)


GOOD = "CDEF|GABc|cBAG|FEDC|CDEF|GABc|"


@pytest.mark.parametrize(
    ("music", "ended", "words"),
    [
        (GOOD, True, None),
        (GOOD, False, "not ended"),
        ("CDEF|GABcd|cBAG|FEDC|", True, "1 of 4 bars"),
        ("CDEF|", True, "too few notes"),
        ("CDEF| (% )3|", True, "too few notes"),
        ("[CDEF|", True, "not ABC"),
        ("|", True, "no tune"),
    ],
)
def test_the_first_failed_tier_is_described(music, ended, words):
    found = describe_failure(score_tune(f"X:1\nM:4/4\nL:1/4\nK:C\n{music}\n", ended))
    assert found is None if words is None else words in found


@pytest.mark.parametrize("page", ["README.md", "docs/generation.md"])
def test_the_documented_python_runs_as_printed(page, tmp_path):
    text = (ROOT / page).read_text(encoding="utf-8")
    blocks = [block for block in re.findall(r"```python\n(.*?)```", text, re.DOTALL) if "results/model" in block]
    assert blocks
    (tmp_path / "results").symlink_to(ROOT / "results")
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path / "home"), "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", "\n".join(blocks)]
    result = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert "K:Dmix" in result.stdout
