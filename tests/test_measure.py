"""generation/measure.py samples, measures and reports every model of a study, and reports again without models."""

import re
import shutil
import sys
from random import Random

import pytest
from conftest import made_tunes
from made_models import BUILD, made_model
from made_quality import made_study, rising
from made_runs import made_run, record_of
from small_runs import made_config, with_config

import generation.measure
from files import read_json, write_json
from generation.memorisation import Memory
from generation.study import (
    ANALYSIS,
    CELLS,
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
from training.record import read_record, run_folder, write_record


def save_model(folder, architecture, size="15k", seed=0):
    for part in (made := made_model(architecture, size, seed)):
        part.save_pretrained(folder)
    return made[0].num_parameters()


@pytest.fixture(scope="module")
def study(small_corpus, tmp_path_factory):
    """A folder of untrained models as a study leaves it: two sizes of both architectures, two seeds, and a best."""
    root = tmp_path_factory.mktemp("study")
    for architecture in BUILD:
        for number, size in enumerate(("15k", "30k")):
            for seed in (0, 1):
                folder = run_folder(root, made_config(architecture, size, seed=seed, tokens=1000))
                n, loss = save_model(folder, architecture, size, seed), 2.0 - 0.2 * number + 0.01 * seed
                row = made_run(architecture, size, seed, n, loss, 1000, corpus=small_corpus.digest())
                record = record_of(row | {"n_params_non_embedding": n // 2})
                write_record(folder, record)
    save_model(root / "best_model", "lstm", "30k")
    write_record(root / "best_model", record)
    return root


@pytest.fixture
def measure(small_corpus, monkeypatch):
    """Run the script on a folder with few short tunes; return quality.json."""
    monkeypatch.setattr("generation.study.MAX_CHARACTERS", 60)
    monkeypatch.setattr("generation.measure.write_selection", lambda *_: [])
    monkeypatch.setattr("generation.measure.draw_figures", lambda _, folder: (folder / "abilities.png").touch())

    def run(root, *more):
        arguments = ["--output_dir", root, "--corpus", small_corpus.folder, "--num_samples", 4, "--resamples", 20]
        monkeypatch.setattr(sys, "argv", ["measure.py", *map(str, [*arguments, *more])])
        generation.measure.main()
        return read_json(root / QUALITY_FOLDER / QUALITY)

    return run


def error_of(capsys, call, *arguments):
    with pytest.raises(SystemExit):
        call(*arguments)
    [line] = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error")]
    return line


def test_every_model_is_sampled_measured_and_reported_once(study, small_corpus, measure, capsys):
    arguments = ["--temperatures", 0.8, 1.0, "--bars", "strict"]
    quality = measure(study, *arguments)
    folder = study / QUALITY_FOLDER
    assert len(quality["cells"]) == 2 * 2 * 2 * 2
    assert len(quality["best"]) == 2
    for cell in [*quality["cells"], *quality["best"]]:
        assert cell["samples"] == cell["shares"]["parses"]["total"] == (16 if cell["best"] else 4)
        assert {"bars_add_up", "valid", "tonic_ending", "key_kept", "repeats_close", "copied"} <= cell["shares"].keys()
        assert cell["numbers"]["distance_interval"]["value"] != cell["test_numbers"]["distance_interval"]["value"]
    human = quality["human"]["test"]["shares"]
    assert human["bars_add_up"]["share"] == 1.0  # made tunes are exact
    assert human["parses"]["total"] == len(small_corpus.tunes("test"))
    assert 0 < quality["floors"]["distance_interval"]["value"] < 1
    report = (folder / REPORT).read_text()
    for row in quality["judges"]["human"]:
        assert f"| {row['both']} | {row['ours']} | {row['theirs']} | {row['neither']} |" in report
    kept = [*(folder / CELLS).iterdir()]
    times = [path.stat().st_mtime_ns for path in kept]
    (folder / REPORT).unlink()
    capsys.readouterr()
    assert measure(study, *arguments) == quality
    assert "nothing left to measure" in capsys.readouterr().out
    assert [path.stat().st_mtime_ns for path in kept] == times
    assert (folder / REPORT).read_text() == report


def test_without_models_report_and_figures_are_rendered_from_quality_json(tmp_path, measure, capsys):
    made = made_study({"valid": {"gpt": rising(1e5)}}) | {"analysis": {"resamples": 50, "seed": 0, "bars": "free"}}
    made |= {"identity": "", "frechet_music_distance": "missing", "judges": {"missing": [], "best": [], "human": []}}
    path = tmp_path / QUALITY_FOLDER / QUALITY
    write_json(path, made)
    before = read_json(path)
    after = measure(tmp_path)
    assert "no models" in capsys.readouterr().out
    assert after | {"findings": [], "headlines": []} == before | {"findings": [], "headlines": []}
    assert {REPORT, ANALYSIS, "abilities.png"} <= {path.name for path in (tmp_path / QUALITY_FOLDER).iterdir()}


@pytest.mark.parametrize("text", ["{}", "[]", "[" * 50_000, "1" * 5000])
def test_a_damaged_quality_json_is_named(text, tmp_path, measure, capsys):
    path = tmp_path / QUALITY_FOLDER / QUALITY
    path.parent.mkdir()
    path.write_text(text)
    assert f"{path} is damaged" in error_of(capsys, measure, tmp_path)


@pytest.mark.parametrize(
    "argument", ["--num_samples=0", "--temperatures=-1", "--bars=loose", "--seed=-1", "--resamples=0"]
)
def test_a_bad_argument_is_named_in_one_line(argument, tmp_path, measure, capsys):
    assert argument.partition("=")[0] in error_of(capsys, measure, tmp_path, argument)


def test_runs_of_another_corpus_are_refused(study, tmp_path, measure, capsys):
    root = tmp_path / "other"
    shutil.copytree(study, root, ignore=shutil.ignore_patterns(QUALITY_FOLDER))
    for path in root.rglob("record.json"):
        write_record(path.parent, with_config(read_record(path.parent), corpus="0" * 16))
    assert "not the corpus that" in error_of(capsys, measure, root)


@pytest.mark.long
def test_earlier_measurements_are_reused_for_runs_without_weights(study, tmp_path, measure, capsys):
    there, here = tmp_path / "there", tmp_path / "here"
    for root in (there, here):
        shutil.copytree(study, root, ignore=shutil.ignore_patterns(QUALITY_FOLDER))
    before = measure(there, "--temperatures", 1.0)
    for weights in here.glob("LSTM_training/*/*/*/model.safetensors"):
        weights.unlink()
    earlier = there / QUALITY_FOLDER / QUALITY
    after = measure(here, "--temperatures", 1.0, "--reuse_quality", earlier)
    for old, new in zip(before["cells"], after["cells"], strict=True):
        assert new["folder"].startswith(str(there if new["architecture"] == "lstm" else here))
        assert new | {"folder": ""} == old | {"folder": ""}
    write_json(earlier, before | {"cells": [cell | {"validation_loss": 9.0} for cell in before["cells"]]})
    shutil.rmtree(here / QUALITY_FOLDER)
    for more, words in ((["--reuse_quality", earlier], "has not measured 4 tunes"), ([], "no --reuse_quality")):
        line = error_of(capsys, measure, here, "--temperatures", 1.0, *more)
        assert "model.safetensors is missing" in line
        assert words in line


def test_only_new_weights_are_sampled_again(study, tmp_path, monkeypatch):
    monkeypatch.setattr("generation.study.MAX_CHARACTERS", 40)
    cells = [cell for cell in plan_cells(study, [1.0], "free") if cell.best or cell.size == "15k"]
    first = sample_cells(cells, tmp_path, 3, seed=0)
    times = {path.name: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    save_model(study / "best_model", "lstm", "30k", seed=9)
    second = sample_cells(cells, tmp_path, 3, seed=0)
    changed = {path.name for path in tmp_path.iterdir() if path.stat().st_mtime_ns != times[path.name]}
    assert changed == {"best-t1-free.json"}
    assert {name for name in first if first[name] != second[name]} == {"best-t1-free"}


def test_random_letters_keep_rhythm_bars_and_octaves_and_change_the_tune():
    text = "X:1\nM:6/8\nL:1/8\nK:D\n^A>B [ce]2 {g}d'|(3EFG a3|]\n"
    changed = with_random_letters(text, Random(1))
    assert changed != text
    letters = re.compile(r"[A-Ga-g]|\^")
    header = len("X:1\nM:6/8\nL:1/8\nK:D\n")
    assert letters.sub("", changed[header:]) == letters.sub("", text[header:])
    assert len(judge(changed).naturals) == len(judge(text).naturals)


def test_the_memory_of_a_corpus_leaves_transpositions_out(build_from, tmp_path):
    block = Block("made", "made.abc", made_tunes(60, seed=3).encode())
    corpus = build_from(tmp_path / "corpus", [block], keys=3)
    memory, rows = read_memory(corpus)
    written = corpus.tunes("train")["shift"]
    assert isinstance(memory, Memory)
    assert len(written) > len(rows) == sum(shift == 0 for shift in written)
