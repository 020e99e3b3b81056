"""The generation door: tunes of one model for people, and the quality of every model of a study."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import made_tunes
from made_models import BUILD, made_model
from made_runs import made_run, record_of
from small_runs import made_config

import generation.run
from files import write_json
from generation.memorisation import Memory
from generation.quality import score_tune
from generation.run import describe
from generation.study import (
    QUALITY,
    QUALITY_FOLDER,
    REPORT,
    plan_cells,
    read_memory,
    sample_cells,
    with_random_letters,
)
from preprocessing.blocks import Block
from preprocessing.notation import judge
from training.record import run_folder, write_record

ROOT = Path(__file__).parent.parent


def save_model(folder, architecture, size="15k", seed=0):
    for part in (made := made_model(architecture, size, seed)):
        part.save_pretrained(folder)
    return made[0].num_parameters()


@pytest.fixture(scope="module", params=["gpt", "lstm"])
def model_folder(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp(request.param)
    save_model(folder, request.param)
    return folder


def run_door(monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", ["run.py", *map(str, arguments)])
    generation.run.main()


def test_the_door_writes_every_tune_with_its_settings_and_one_page(
    model_folder, small_corpus, tmp_path, monkeypatch, capsys
):
    out = tmp_path / "tunes"
    arguments = ["--model", model_folder, "--corpus", small_corpus.folder, "--out", out, "--n", 5, "--meter", "4/4"]
    arguments += ["--temperatures", 0.8, 1.0, "--bars", "strict", "--max_characters", 150, "--formats", "mid"]
    run_door(monkeypatch, *arguments)
    samples = json.loads((out / "samples.json").read_text())["samples"]
    assert [row["file"] for row in samples] == [f"{i:03d}.abc" for i in range(1, 6)]
    assert [row["settings"]["temperature"] for row in samples] == [0.8, 0.8, 0.8, 1.0, 1.0]
    page = (out / "index.html").read_text()
    for row in samples:
        text = (out / row["file"]).read_text()
        assert text.endswith(row["abc"])
        assert f"% temperature: {row['settings']['temperature']}\n% " in text
        assert "M:4/4" in row["abc"]
        assert row["copied"] is False
        assert "bars: strict" in text
        assert Path(row["file"]).stem in page
    assert "5 tunes, " in capsys.readouterr().out
    run_door(monkeypatch, *arguments)
    assert "finished already" in capsys.readouterr().out


def test_a_tune_copied_from_training_is_named(model_folder, small_corpus, tmp_path, monkeypatch, capsys):
    planted = small_corpus.tunes("train")[7]
    out = tmp_path / "tunes"
    music = planted["text"].split("\nK:")[1]
    header = planted["text"].removesuffix(music)
    arguments = ["--model", model_folder, "--corpus", small_corpus.folder, "--out", out, "--n", 1, "--formats", "mid"]
    run_door(monkeypatch, *arguments, "--prompt", (header + music).replace("\n", "\\n"), "--max_characters", 999)
    [row] = json.loads((out / "samples.json").read_text())["samples"]
    assert row["copied"] is True
    assert row["copy"]["title"] == planted["title"]
    assert f"COPIED from {row['copy']['longest_run']} notes" in (out / "001.abc").read_text()
    assert "1 copied from training" in capsys.readouterr().out


def test_without_the_corpus_the_tunes_are_written_and_nothing_is_said_of_copies(
    model_folder, tmp_path, monkeypatch, capsys
):
    out = tmp_path / "tunes"
    arguments = ["--model", model_folder, "--corpus", tmp_path / "none", "--out", out, "--n", 1, "--formats", "mid"]
    run_door(monkeypatch, *arguments, "--max_characters", 60)
    [row] = json.loads((out / "samples.json").read_text())["samples"]
    assert row["copied"] is None
    assert "nothing says whether tunes are copied" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--model", "nowhere"], "nowhere: no folder"),
        (["--key", "H"], "--key 'H'"),
        (["--temperatures", "0"], "--temperatures 0"),
        (["--temperatures", "nan"], "--temperatures nan"),
        (["--temperatures", "1", "1"], "--temperatures"),
        (["--n", "0"], "--n 0"),
        (["--n", "1" + "0" * 21], "--n 1000"),
        (["--n", "1" + "0" * 4000], "--n 1000"),
        (["--samples", "1" + "0" * 21], "--samples"),
        (["--resamples", "1" + "0" * 21], "--resamples"),
        (["--max_characters", "1" + "0" * 21], "--max_characters"),
        (["--max_characters", "1" + "0" * 400], "--max_characters"),
        (["--top_k", "1" + "0" * 21], "--top_k"),
        (["--seed", "1" + "0" * 21], "--seed"),
        (["--top_p", "nan"], "--top_p"),
        (["--min_p", "inf"], "--min_p"),
        (["--formats", "mid", "mid"], "--formats"),
        (["--prompt", "CDEF"], "music without a key"),
        (["--formats", "mp3"], "--formats mp3"),
        (["--bars", "loose"], "loose"),
        (["--part", "quality", "--output_root", "nowhere"], "no corpus"),
    ],
)
def test_what_cannot_be_generated_gets_one_line(arguments, words, model_folder, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    given = [] if "--model" in arguments else ["--model", model_folder]
    with pytest.raises(SystemExit) as ending:
        run_door(monkeypatch, *given, *arguments, "--out", tmp_path / "out")
    assert ending.value.code != 0
    [line] = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error")]
    assert words in line
    assert len(line) < 300
    assert not (tmp_path / "out").exists()


def test_an_output_that_is_a_link_is_followed_and_one_that_leads_nowhere_is_refused_before_a_model_is_read(
    model_folder, tmp_path, monkeypatch, capsys
):
    (tmp_path / "disk" / "tunes").mkdir(parents=True)
    (tmp_path / "out").symlink_to("disk/tunes")
    arguments = ["--model", model_folder, "--corpus", tmp_path / "none", "--n", 1, "--formats", "mid"]
    run_door(monkeypatch, *arguments, "--max_characters", 60, "--out", tmp_path / "out")
    assert (tmp_path / "out").is_symlink()
    assert (tmp_path / "disk" / "tunes" / "index.html").is_file()
    (tmp_path / "gone").symlink_to("unmounted/tunes")
    monkeypatch.setattr(generation.run, "load_pipeline", None)
    with pytest.raises(SystemExit):
        run_door(monkeypatch, *arguments, "--out", tmp_path / "gone")
    assert f"error: {tmp_path / 'gone'} is a link to" in capsys.readouterr().err
    assert sorted(path.name for path in tmp_path.rglob("*") if path.suffix in ("", ".partial")) == [
        *("disk", "gone", "out", "tunes"),
    ]


@pytest.mark.parametrize("text", ["{}", "[]", "[" * 50_000, "1" * 5000])
@pytest.mark.parametrize("part", ["tunes", "quality_report"])
def test_a_record_of_its_own_that_is_damaged_is_named(part, text, model_folder, tmp_path, monkeypatch, capsys):
    for name in ("samples.json", "quality.json"):
        (tmp_path / name).write_text(text)
    with pytest.raises(SystemExit):
        run_door(monkeypatch, "--part", part, "--model", model_folder, "--out", tmp_path)
    name = "samples.json" if part == "tunes" else "quality.json"
    assert f"error: {tmp_path / name} is damaged" in capsys.readouterr().err


@pytest.mark.parametrize("damage", ["weights cut", "no weights", "no configuration"])
def test_a_damaged_model_is_named(damage, model_folder, tmp_path, monkeypatch, capsys):
    folder = tmp_path / "model"
    folder.mkdir()
    for file in model_folder.iterdir():
        if file.is_file():
            (folder / file.name).write_bytes(file.read_bytes())
    weights = folder / "model.safetensors"
    if damage == "weights cut":
        weights.write_bytes(weights.read_bytes()[:1000])
    else:
        (weights if damage == "no weights" else folder / "config.json").unlink()
    with pytest.raises(SystemExit):
        run_door(monkeypatch, "--model", folder, "--out", tmp_path / "out")
    [line] = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error")]
    assert str(folder) in line
    assert not (tmp_path / "out").exists()


@pytest.fixture(scope="module")
def study(small_corpus, tmp_path_factory):
    """A folder of untrained models as a study leaves it: three sizes of both architectures, two seeds, and a best."""
    root = tmp_path_factory.mktemp("study")
    for architecture in BUILD:
        for number, size in enumerate(("15k", "30k", "60k")):
            for seed in (0, 1):
                folder = run_folder(root, made_config(architecture, size, seed=seed, tokens=1000))
                n, loss = save_model(folder, architecture, size, seed), 2.0 - 0.2 * number + 0.01 * seed
                row = made_run(architecture, size, seed, n, loss, 1000, corpus=small_corpus.digest())
                record = record_of(row | {"n_params_non_embedding": n // 2})
                write_record(folder, record)
    save_model(root / "best_model", "lstm", "60k")
    write_record(root / "best_model", record)
    return root


def test_every_model_of_a_study_is_sampled_measured_and_reported_once(study, small_corpus, monkeypatch):
    arguments = ["--part", "quality", "--output_root", study, "--corpus", small_corpus.folder, "--samples", 6]
    arguments += ["--temperatures", 0.8, 1.0, "--resamples", 50, "--bars", "strict"]
    monkeypatch.setattr("generation.study.LONGEST", 120)
    run_door(monkeypatch, *arguments)
    folder = study / QUALITY_FOLDER
    quality = json.loads((folder / QUALITY).read_text())
    assert len(quality["cells"]) == 2 * 3 * 2 * 2
    assert len(quality["best"]) == 2
    for cell in [*quality["cells"], *quality["best"]]:
        assert cell["samples"] == cell["shares"]["parses"]["total"] == (24 if cell["best"] else 6)
        assert {"bars_add_up", "valid", "tonic_ending", "key_kept", "repeats_close", "copied"} <= cell["shares"].keys()
        assert cell["numbers"]["distance_interval"]["value"] != cell["test_numbers"]["distance_interval"]["value"]
    assert quality["human"]["test"]["shares"]["bars_add_up"]["share"] == 1.0  # made tunes are exact
    assert 0 < quality["floors"]["distance_interval"]["value"] < 1
    assert quality["human"]["test"]["shares"]["parses"]["total"] == len(small_corpus.tunes("test"))
    report = (folder / REPORT).read_text()
    for name in re.findall(r"!\[.*?\]\((.+?)\)", report):
        assert (folder / name).is_file()
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}
    assert quality["frechet_music_distance"] in report
    for row in quality["judges"]["human"]:
        assert f"| {row['both']} | {row['ours']} | {row['theirs']} | {row['neither']} |" in report
    run_door(monkeypatch, *arguments)
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()} == before


@pytest.mark.long
def test_what_was_measured_elsewhere_stands_in_for_runs_without_weights(
    study, small_corpus, tmp_path, monkeypatch, capsys
):
    def measure(root, *more):
        arguments = ["--part", "quality", "--output_root", root, "--corpus", small_corpus.folder, "--samples", 4]
        run_door(monkeypatch, *arguments, "--temperatures", 1.0, "--resamples", 20, *more)
        return json.loads((root / QUALITY_FOLDER / QUALITY).read_text())

    monkeypatch.setattr("generation.study.LONGEST", 60)
    there, here = tmp_path / "there", tmp_path / "here"
    for root in (there, here):
        shutil.copytree(study, root, ignore=shutil.ignore_patterns(QUALITY_FOLDER))
    before = measure(there)
    for weights in here.glob("LSTM_training/*/*/*/model.safetensors"):
        weights.unlink()
    earlier = there / QUALITY_FOLDER / QUALITY
    after = measure(here, "--measured_in", earlier)
    places = [(cell["architecture"], cell["size"], cell["seed"]) for cell in before["cells"]]
    assert [(cell["architecture"], cell["size"], cell["seed"]) for cell in after["cells"]] == places
    for old, new in zip(before["cells"], after["cells"], strict=True):
        assert new["folder"].startswith(str(there if new["architecture"] == "lstm" else here))
        assert new["architecture"] == "gpt" or new == old
    write_json(earlier, before | {"cells": [cell | {"validation_loss": 9.0} for cell in before["cells"]]})
    for more, words in ((["--measured_in", earlier], "has not measured 4 tunes of lstm-15k"), ([], "no --measured_in")):
        with pytest.raises(SystemExit):
            measure(here, *more)
        [line] = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error")]
        assert "model.safetensors is missing, and " in line
        assert words in line


def test_new_weights_are_sampled_anew_and_the_other_cells_are_kept(study, tmp_path, monkeypatch):
    monkeypatch.setattr("generation.study.LONGEST", 40)
    cells = [cell for cell in plan_cells(study, [1.0], "free") if cell.best or cell.size == "15k"]
    first = sample_cells(cells, tmp_path, 3, seed=0)
    times = {path.name: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    save_model(study / "best_model", "lstm", "60k", seed=9)
    second = sample_cells(cells, tmp_path, 3, seed=0)
    changed = {path.name for path in tmp_path.iterdir() if path.stat().st_mtime_ns != times[path.name]}
    assert changed == {"best-t1-free.json"}
    assert first[:-1] == second[:-1]
    assert first[-1] != second[-1]


@pytest.mark.parametrize(
    ("music", "ended", "words"),
    [
        ("CDEF|GABc|cBAG|FEDC|CDEF|GABc|", True, "valid"),
        ("CDEF|GABc|cBAG|FEDC|CDEF|GABc|", False, "cut at a bar line, for the model did not end it"),
        ("CDEF|GABcd|cBAG|FEDC|", True, "of its 4 bars 1 do not add up"),
        ("CDEF|", True, "too few notes, or too many rests"),
        ("CDEF| (% )3|", True, "too few notes, or too many rests"),
        ("[CDEF|", True, "not ABC in places"),
        ("|", True, "no tune: no key, or no note"),
    ],
)
def test_the_first_tier_that_a_tune_misses_is_told_in_words(music, ended, words):
    verdict = score_tune(f"X:1\nM:4/4\nL:1/4\nK:C\n{music}\n", ended)
    assert describe({"verdict": verdict, "copied": None}) == words


def test_random_letters_keep_rhythm_bars_and_octaves_and_change_the_tune():
    from random import Random

    text = "X:1\nM:6/8\nL:1/8\nK:D\n^A>B [ce]2 {g}d'|(3EFG a3|]\n"
    changed = with_random_letters(text, Random(1))
    assert changed != text
    strip = re.compile(r"[A-Ga-g]|\^")
    header = len("X:1\nM:6/8\nL:1/8\nK:D\n")
    assert strip.sub("", changed[header:]) == strip.sub("", text[header:])
    assert len(judge(changed).naturals) == len(judge(text).naturals)


def test_the_memory_of_a_corpus_leaves_transpositions_out(build_from, tmp_path):
    block = Block("made", "made.abc", made_tunes(60, seed=3).encode())
    corpus = build_from(tmp_path / "corpus", [block], keys=3)
    memory, rows = read_memory(corpus)
    written = corpus.tunes("train")["shift"]
    assert isinstance(memory, Memory)
    assert len(written) > len(rows) == sum(shift == 0 for shift in written)


def test_the_readmes_python_runs_as_printed_in_a_fresh_process(tmp_path):
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    [code] = [block for block in re.findall(r"```python\n(.*?)```", readme, re.DOTALL) if "results/model" in block]
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path / "home")}
    result = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert "K:Dmix" in result.stdout
