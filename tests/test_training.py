import json
import os
import re
import resource
import subprocess
import sys
import time
from contextlib import contextmanager
from dataclasses import replace
from itertools import product
from pathlib import Path
from shutil import copytree

import numpy as np
import psutil
import pytest
import torch
from filelock import FileLock
from forks import has_ended
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

import training.run
from door import DoorError, open_door, read_arms
from preprocessing.corpus import Corpus
from training import ngram
from training.batches import WindowBatches
from training.checkpoint import BEFORE, LATEST
from training.evaluation import summarise, token_losses
from training.loop import Conduct, Plan, build_model, train
from training.recipe import RATE_RULES, Recipe, build_optimizer, learning_rate, rate_at
from training.record import arm_of, read_ladders, read_record, run_folder, write_record
from training.run import StudyArguments
from training.sweep import best_rate, fit_rule

ROOT = Path(__file__).parent.parent
RECIPE = Recipe(
    "gpt", "15k", seed=0, tokens=12_000, batch_size=4, context=64, learning_rate=5e-3, weight_decay=0.1, warmup=1
)
OFTEN = Conduct(checkpoint_seconds=0)
VOLATILE = {
    *("seconds", "seconds_evaluation", "seconds_saving", "tokens_per_second", "flops_per_second", "started"),
    *("peak_memory_bytes", "memory_before_bytes"),
}


def quiet(tokens, loss):
    pass


def go_in(*arguments):
    """The door in this process, without workers."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["run.py", *map(str, arguments)])
        patch.setattr(training.run, "share_machine", lambda _: (1, 1))
        open_door(training.run.main)


def refusal(capsys, *arguments):
    """Return the one line that the door ends with."""
    with pytest.raises(SystemExit) as ending:
        go_in(*arguments)
    assert ending.value.code != 0
    [line] = [line for line in capsys.readouterr().err.splitlines() if line]
    assert line.startswith("error: ")
    return line


def comparable(record):
    record = {k: v for k, v in record.items() if k not in VOLATILE}
    for curve in ("train_curve", "validation_curve"):
        record[curve] = {k: v for k, v in record[curve].items() if k != "seconds"}
    return record


def assert_same_weights(found, expected):
    found, expected = (load_file(folder / "model.safetensors") for folder in (found, expected))
    assert found.keys() == expected.keys()
    assert not [name for name in expected if not torch.equal(found[name], expected[name])]


def assert_same_run(found, expected):
    assert_same_weights(found, expected)
    assert comparable(read_record(found)) == comparable(read_record(expected))
    assert sorted(path.name for path in found.iterdir()) == sorted(path.name for path in expected.iterdir())


# --- batches ---------------------------------------------------------------------------------------------------------


def test_an_epoch_predicts_every_token_at_most_once_and_nearly_all():
    stream = np.arange(1000, dtype=np.uint16)
    batches = WindowBatches(stream, context=17, batch_size=4, seed=3)
    steps = batches.per_epoch // 4
    targets = torch.cat([batches.batch(step)[:, 1:].flatten() for step in range(steps)])
    assert len(targets.unique()) == len(targets)
    assert len(targets) >= 1000 - 2 * 16 - 4 * 16


def test_a_batch_depends_on_seed_and_step_alone():
    stream = np.random.default_rng(0).integers(0, 50, 5000).astype(np.uint8)
    forward = WindowBatches(stream, 32, 4, seed=1)
    walked = [forward.batch(step) for step in range(100)]
    assert torch.equal(WindowBatches(stream, 32, 4, seed=1).batch(99), walked[99])
    assert not torch.equal(WindowBatches(stream, 32, 4, seed=2).batch(99), walked[99])


def test_epochs_come_in_different_orders():
    batches = WindowBatches(np.arange(2000, dtype=np.uint16), 21, 10, seed=0)
    first, second = batches.batch(0), batches.batch(-(-batches.per_epoch // 10))
    assert not torch.equal(first, second)


def test_a_stream_shorter_than_a_window_is_refused():
    with pytest.raises(ValueError, match="holds no 64-token windows"):
        WindowBatches(np.zeros(30, dtype=np.uint8), 64, 4, seed=0)


# --- recipe ----------------------------------------------------------------------------------------------------------


def with_steps(steps, **changes):
    """A recipe of so many steps."""
    return replace(RECIPE, tokens=steps * RECIPE.tokens_per_step, learning_rate=1e-2, **changes)


@pytest.mark.parametrize("schedule", ["cosine", "wsd"])
def test_the_rate_warms_up_peaks_and_ends_at_the_last_step(schedule):
    recipe = with_steps(1000, schedule=schedule, warmup=20)
    rates = np.array([rate_at(step, recipe) for step in range(1000)])
    assert rates.max() == pytest.approx(1e-2)
    assert np.all(np.diff(rates[:19]) > 0)
    assert np.all(np.diff(rates[20:]) <= 0)
    assert 0 < rates[-1] < 0.02 * rates.max()


def test_a_wsd_rate_is_constant_and_then_falls_by_the_square_root_of_the_share_of_its_cooldown():
    recipe = with_steps(1000, schedule="wsd", warmup=20)
    rates = np.array([rate_at(step, recipe) for step in range(1000)])
    assert recipe.cooldown_start == 800
    assert set(rates[20:801]) == {1e-2}
    assert rates[850] == pytest.approx(1e-2 * (1 - 0.25**0.5))


def test_budgets_of_one_trunk_have_its_rates_up_to_their_cooldown():
    trunk = with_steps(1600, schedule="wsd", warmup=20).trunk(1600 * RECIPE.tokens_per_step)
    for steps in (500, 1000, 2000):
        branch = with_steps(steps, schedule="wsd", warmup=20)
        shared = range(branch.cooldown_start)
        assert [rate_at(step, branch) for step in shared] == [rate_at(step, trunk) for step in shared]
        assert branch.trunk() == trunk.trunk()


@pytest.mark.parametrize("schedule", ["cosine", "wsd"])
@pytest.mark.parametrize("steps", [1, 2, 3, 10])
def test_the_rate_is_defined_for_the_shortest_runs(schedule, steps):
    recipe = with_steps(steps, schedule=schedule)
    assert all(0 < rate_at(step, recipe) <= 1e-2 for step in range(steps))


def test_only_matrices_of_products_decay(small_corpus):
    for architecture in ("gpt", "lstm"):
        model = build_model(replace(RECIPE, architecture=architecture), small_corpus)
        decayed, others = build_optimizer(model, 0.1).param_groups
        names = {id(parameter): name for name, parameter in model.named_parameters()}
        assert decayed["weight_decay"] == 0.1
        assert others["weight_decay"] == 0
        assert not [n for p in decayed["params"] if "embed" in (n := names[id(p)]) or "wte" in n or "bias" in n]
        assert len(decayed["params"]) + len(others["params"]) == len(names)


def test_the_rate_rules_are_the_ones_that_the_committed_sweeps_give():
    rules = [(schedule, *rule) for schedule, both in RATE_RULES.items() for rule in both.items()]
    for schedule, architecture, (coefficient, exponent) in rules:
        sweep = json.loads((ROOT / "results" / f"rate_sweep_{schedule}.json").read_text())
        assert sweep["recipe"]["schedule"] == schedule
        rows = [row for row in sweep["runs"] if row["architecture"] == architecture]
        rule = fit_rule(rows)
        assert coefficient == pytest.approx(rule["coefficient"], rel=5e-3)
        assert exponent == pytest.approx(rule["exponent"], abs=5e-4)
        assert len({row["size"] for row in rows}) >= 4
        assert learning_rate(architecture, 10_000, schedule) > learning_rate(architecture, 1_000_000, schedule)


def test_the_best_rate_of_a_parabola_is_its_vertex():
    rates = np.array([1e-3, 2e-3, 4e-3, 8e-3])
    losses = (np.log(rates) - np.log(3e-3)) ** 2 + 1
    assert best_rate(rates, losses) == pytest.approx((3e-3, 1.0))


def test_a_best_rate_on_the_edge_is_no_optimum():
    assert best_rate(np.array([1e-3, 2e-3, 4e-3]), np.array([3.0, 2.0, 1.0])) is None
    assert best_rate(np.array([1e-3, 2e-3, 4e-3]), np.array([3.0, 2.0, np.inf])) is None
    rows = [
        {"size": size, "learning_rate": rate, "loss": rate, "n_params_non_embedding": 100, "architecture": "gpt"}
        for size, rate in product(("a", "b"), (1, 2, 3))
    ]
    with pytest.raises(DoorError, match=r"--gpt_rates: .* grid's edge.* \(a at 1, b at 1\): widen"):
        fit_rule(rows)


def test_a_rule_is_recovered_from_its_own_optima():
    rows = [
        {
            "size": str(n),
            "learning_rate": r,
            "loss": (np.log(r) - np.log(0.5 * n**-0.3)) ** 2,
            "n_params_non_embedding": n,
            "architecture": "gpt",
        }
        for n, r in product((1e4, 1e5, 1e6), np.geomspace(1e-3, 0.1, 9))
    ]
    rule = fit_rule(rows)
    assert rule["coefficient"] == pytest.approx(0.5, rel=1e-6)
    assert rule["exponent"] == pytest.approx(0.3, rel=1e-6)


# --- evaluation and the baseline -------------------------------------------------------------------------------------


@pytest.mark.parametrize("length", [64, 65, 127, 128, 200, 64 * 33])
def test_every_token_but_the_first_is_scored_once_whatever_the_length(small_corpus, length):
    model = build_model(RECIPE, small_corpus)
    stream = np.asarray(small_corpus.tokens("train"))[:length]
    losses = token_losses(model, stream, 64)
    assert losses.shape == (length - 1,)
    alone = model(torch.from_numpy(stream[None, :64].astype(np.int64)))
    expected = torch.nn.functional.cross_entropy(
        alone.logits[0, :-1], torch.from_numpy(stream[1:64].astype(np.int64)), reduction="none"
    )
    np.testing.assert_allclose(losses[:63], expected.detach().numpy(), rtol=1e-4, atol=1e-5)


def test_the_standard_error_is_the_spread_over_tunes():
    generator = np.random.default_rng(0)
    errors, means = [], []
    for _ in range(300):
        lengths = generator.integers(20, 60, 80)
        levels = generator.normal(1.5, 0.3, 80)  # tunes differ, characters of one tune are alike
        stream = np.concatenate([[0, *([1] * (n - 1))] for n in lengths] + [[0]])
        result = summarise(np.repeat(levels, lengths), stream, boundary=0)
        errors.append(result.standard_error)
        means.append(result.loss)
    assert np.mean(errors) == pytest.approx(np.std(means), rel=0.12)


def test_an_ngram_gives_a_distribution_in_every_context():
    generator = np.random.default_rng(0)
    train = generator.integers(0, 5, 400)
    for order in (1, 2, 3, 4):
        for context in product(range(5), repeat=3):
            asked = [np.array([*context, following]) for following in range(5)]
            total = sum(np.exp(-ngram.ngram_losses(train, stream, 5, order)[-1]) for stream in asked)
            assert total == pytest.approx(1.0)


def test_an_ngram_agrees_with_witten_bell_by_hand():
    train = np.array([0, 1, 1, 2, 1, 1, 0, 1])  # predicted: 1 1 2 1 1 0 1
    one = (5 + 3 * (1 / 3)) / (7 + 3)
    assert np.exp(-ngram.ngram_losses(train, np.array([2, 1]), 3, 1))[0] == pytest.approx(one)
    # after 1: 1, 2, 1, 0 → three kinds, four times
    assert np.exp(-ngram.ngram_losses(train, np.array([1, 1]), 3, 2))[0] == pytest.approx((2 + 3 * one) / (4 + 3))


# --- one run ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def uninterrupted(small_corpus, tmp_path_factory):
    """A run of each architecture, with dropout, trained in one go."""
    folders = {}
    for architecture in ("gpt", "lstm"):
        folder = tmp_path_factory.mktemp(architecture)
        train(Plan(replace(RECIPE, architecture=architecture, dropout=0.1), folder), small_corpus, quiet, Conduct())
        folders[architecture] = folder
    return folders


@pytest.mark.parametrize("architecture", ["gpt", "lstm"])
def test_a_run_learns_and_its_record_adds_up(uninterrupted, small_corpus, architecture):
    record = read_record(uninterrupted[architecture])
    curve = record["train_curve"]["loss"]
    assert curve[-1] < curve[0] - 0.5
    assert record["status"] == "finished"
    assert record["tokens"] == record["steps"] * 4 * 63 == pytest.approx(12_000, rel=0.02)
    assert record["epochs"] == pytest.approx(record["tokens"] / (len(small_corpus.tokens("train")) - 1))
    assert record["flops"] == record["flops_per_token"] * record["tokens"]
    assert record["flops_6nd"] == 6 * record["n_params"] * record["tokens"]
    assert record["validation_tokens"] == len(small_corpus.tokens("validation")) - 1
    assert record["validation_bits_per_character"] == pytest.approx(record["validation_loss"] / np.log(2))
    assert record["peak_memory_bytes"] > 50e6
    assert record["versions"]["torch"].split("+")[0] == torch.__version__.split("+")[0]  # not every build names itself
    assert "test_loss" not in record  # the test split is for the best model, once


@pytest.mark.parametrize("architecture", ["gpt", "lstm"])
def test_a_trained_run_loads_by_the_auto_classes_with_the_recorded_loss(uninterrupted, small_corpus, architecture):
    folder = uninterrupted[architecture]
    model = AutoModelForCausalLM.from_pretrained(folder)
    record = read_record(folder)
    losses = token_losses(model, np.asarray(small_corpus.tokens("validation")), 64)
    assert losses.mean() == pytest.approx(record["validation_loss"], rel=1e-5)
    assert model.num_parameters() == record["n_params"]


class InterruptedRun(Exception):  # noqa: N818 — it is no error
    pass


@pytest.mark.parametrize("architecture", ["gpt", "lstm"])
def test_an_interrupted_run_ends_with_bitwise_the_same_weights_and_losses(
    uninterrupted, small_corpus, tmp_path, architecture
):
    recipe = replace(RECIPE, architecture=architecture, dropout=0.1)

    def interrupt_after(limit):
        def progress(tokens, _):
            if tokens >= limit:
                raise InterruptedRun

        return progress

    for limit in (3_000, 8_000):
        with pytest.raises(InterruptedRun):
            train(Plan(recipe, tmp_path), small_corpus, interrupt_after(limit), OFTEN)
        assert (tmp_path / LATEST).is_file()
        assert read_record(tmp_path) is None
    train(Plan(recipe, tmp_path), small_corpus, quiet, OFTEN)
    expected, found = uninterrupted[architecture], tmp_path
    for name, weight in load_file(expected / "model.safetensors").items():
        assert torch.equal(weight, load_file(found / "model.safetensors")[name]), name
    assert comparable(read_record(found)) == comparable(read_record(expected))
    assert not (tmp_path / LATEST).exists()


def test_a_finished_run_is_not_trained_again(uninterrupted, small_corpus):
    before = (uninterrupted["gpt"] / "model.safetensors").stat().st_mtime_ns
    train(
        Plan(replace(RECIPE, dropout=0.1), uninterrupted["gpt"]),
        small_corpus,
        lambda *_: pytest.fail("trained"),
        Conduct(),
    )
    assert (uninterrupted["gpt"] / "model.safetensors").stat().st_mtime_ns == before


def test_a_finished_run_of_another_recipe_is_refused_by_the_field_that_differs(uninterrupted, small_corpus):
    with pytest.raises(DoorError, match="tokens 12000, not 24000"):
        train(Plan(replace(RECIPE, dropout=0.1, tokens=24_000), uninterrupted["gpt"]), small_corpus, quiet, Conduct())


def test_a_run_on_another_corpus_is_refused(uninterrupted, small_corpus, monkeypatch):
    monkeypatch.setattr(Corpus, "digest", lambda _: "another")
    with pytest.raises(DoorError, match="another corpus or vocabulary"):
        train(Plan(replace(RECIPE, dropout=0.1), uninterrupted["gpt"]), small_corpus, quiet, Conduct())


def interrupted(corpus, folder, tokens, recipe):
    """Train and stop after `tokens`, with checkpoints at every point of the curve."""

    def interrupt(done, _):
        if done > tokens:
            raise InterruptedRun

    with pytest.raises(InterruptedRun):
        train(Plan(recipe, folder), corpus, interrupt, OFTEN)


DAMAGES = {
    "cut": lambda content: content[: len(content) // 2],
    "empty": lambda _: b"",
    "garbage": lambda _: b"not a checkpoint",
    "one bit": lambda content: content[:-5] + bytes([content[-5] ^ 1]) + content[-4:],
}


SHORT = replace(RECIPE, tokens=3_000)


@pytest.fixture(scope="module")
def half_way(small_corpus, tmp_path_factory):
    """A short run's record, and a folder in which the same run was interrupted."""
    record = train(Plan(SHORT, tmp_path_factory.mktemp("short")), small_corpus, quiet, Conduct())
    folder = tmp_path_factory.mktemp("half") / "way"
    interrupted(small_corpus, folder, 1_500, SHORT)
    return record, folder


@pytest.mark.parametrize("both", [False, True], ids=["the last", "both"])
@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES.keys())
def test_a_damaged_checkpoint_is_named_and_the_one_before_it_or_the_start_is_used(
    small_corpus, half_way, tmp_path, capsys, damage, both
):
    expected, before = half_way
    folder = copytree(before, tmp_path / "damaged")
    for name in (LATEST, BEFORE) if both else (LATEST,):
        (folder / name).write_bytes(damage((folder / name).read_bytes()))
    found = train(Plan(SHORT, folder), small_corpus, quiet, Conduct())
    lines = capsys.readouterr().err.splitlines()
    assert [str(folder / LATEST) in lines[0], len(lines)] == [True, 2 if both else 1]
    assert all("is damaged" in line for line in lines)
    assert ("going on from step 0" in lines[0]) == both
    assert comparable(found) == comparable(expected)


def test_a_checkpoint_of_another_run_is_refused_by_name(small_corpus, half_way):
    with pytest.raises(DoorError, match=f"{LATEST} belongs to another recipe"):
        train(Plan(replace(SHORT, seed=1), half_way[1]), small_corpus, quiet, Conduct())


def test_a_damaged_record_is_refused_by_name(small_corpus, tmp_path):
    (tmp_path / "record.json").write_text('{"status": "fini')
    with pytest.raises(DoorError, match=r"record\.json is damaged"):
        train(Plan(RECIPE, tmp_path), small_corpus, quiet, Conduct())


def test_a_run_that_diverges_is_recorded_with_its_reason_and_never_fitted(small_corpus, tmp_path):
    folder = run_folder(tmp_path, "gpt", "15k", "tokens_12000", 0)
    record = train(Plan(replace(RECIPE, learning_rate=1e12), folder), small_corpus, quiet, Conduct())
    assert record["status"] == "diverged"
    assert "loss is" in record["reason"]
    assert "validation_loss" not in record
    assert not (folder / "model.safetensors").exists()
    ladder = read_ladders(tmp_path)["gpt"]
    assert (len(ladder.finished), len(ladder.unfinished)) == (0, 1)


def test_a_ladder_is_of_the_budget_that_most_runs_have_and_keeps_the_others_apart(uninterrupted, tmp_path):
    record = read_record(uninterrupted["gpt"])

    def add(tokens, seed, **changes):
        recipe = {**record["recipe"], "tokens": tokens, "seed": seed, **changes}
        arm = arm_of(tokens, recipe["schedule"], recipe["one_in"], recipe["carry_state"])
        write_record(run_folder(tmp_path, "gpt", "15k", arm, seed), {**record, "recipe": recipe})

    for tokens, seed in ((12_000, 0), (12_000, 1), (50_000, 0)):
        add(tokens, seed)
    add(12_000, 0, one_in=2)
    add(99_000, 0, schedule="trunk")
    ladder = read_ladders(tmp_path)["gpt"]
    assert [(run["recipe"]["tokens"], run["recipe"]["seed"]) for run in ladder.finished] == [(12_000, 0), (12_000, 1)]
    # The longer one and the one on half of the data; a trunk is no run of its own.
    assert sorted((run["recipe"]["tokens"], run["recipe"]["one_in"]) for run in ladder.others) == [
        (12_000, 2),
        (50_000, 1),
    ]


def test_runs_of_different_corpora_are_not_mixed(uninterrupted, tmp_path):
    record = read_record(uninterrupted["gpt"])
    for seed, corpus in enumerate(("one", "another")):
        folder = run_folder(tmp_path, "gpt", "15k", "tokens_12000", seed)
        write_record(folder, {**record, "corpus": corpus})
    with pytest.raises(DoorError, match="different corpora"):
        read_ladders(tmp_path)


def test_dropout_masks_depend_on_the_step_not_on_what_was_drawn_before(small_corpus, tmp_path):
    recipe = replace(RECIPE, dropout=0.3, tokens=2_000)
    torch.manual_seed(1)
    first = train(Plan(recipe, tmp_path / "a"), small_corpus, quiet, Conduct())["train_curve"]["loss"]
    torch.manual_seed(2)
    second = train(Plan(recipe, tmp_path / "b"), small_corpus, lambda *_: torch.rand(7), Conduct())["train_curve"][
        "loss"
    ]
    assert first == second


# --- the door --------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def grid(small_corpus):
    return [
        *("--corpus", small_corpus.folder, "--gpt_sizes", "15k", "30k", "--lstm_sizes", "15k", "--seeds", "0"),
        *("--tokens", "15000", "--context", "64", "--checkpoint_seconds", "0", "--search_tokens", "3000"),
        *("--precision", "fp32", "--log_with", "none"),
        *("--best_tokens", "6000", "--search_rates", "0.5", "1", "--search_dropouts", "0.1"),
        *("--search_weight_decays", "0.1"),
    ]


def changed(grid, flag, *values):
    """The grid with other values of a flag that has one."""
    place = grid.index(flag) + 1
    return [*grid[:place], *values, *grid[place + 1 :]]


@pytest.fixture(scope="module")
def whole(grid, tmp_path_factory):
    """A small study trained in one go."""
    root = tmp_path_factory.mktemp("whole")
    go_in(*grid, "--output_root", root)
    return root


def test_workers_end_with_the_study_that_was_killed_and_the_same_study_ends_as_if_it_had_not_been(
    grid, whole, tmp_path, capsys
):
    """Half of its runs would take minutes to their first point."""
    more = changed(grid, "--tokens", "15000", "900000000")
    more.remove("30k")
    more += ["--at_once", max(4, os.cpu_count() or 1), "--output_root", tmp_path]  # so that each has one thread
    command = [sys.executable, ROOT / "training" / "run.py", *more]
    study = psutil.Popen([str(part) for part in command], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    family = []
    try:
        deadline = time.monotonic() + 60
        while len(list(tmp_path.rglob(LATEST))) < 2:
            assert time.monotonic() < deadline
            assert study.poll() is None
            time.sleep(0.01)
        family = study.children(recursive=True)
        study.kill()
        study.wait()
        assert len(family) >= 5  # the server that forks and its four runs
        deadline = time.monotonic() + 5
        while not all(map(has_ended, family)):
            assert time.monotonic() < deadline
            time.sleep(0.01)
    finally:
        for process in [study, *family]:
            if process.is_running():
                process.kill()
    assert not list(tmp_path.rglob("record.json"))
    go_in(*grid, "--output_root", tmp_path)
    for folder in (
        "GPT_initial_training/15k/tokens_15000/seed_0",
        "GPT_initial_training/30k/tokens_15000/seed_0",
        "LSTM_training/15k/tokens_15000/seed_0",
    ):
        assert_same_run(tmp_path / folder, whole / folder)
    capsys.readouterr()
    go_in(*grid, "--output_root", tmp_path)
    assert "3 of 3 runs are finished already" in capsys.readouterr().out


def test_the_best_run_is_trained_further_as_the_search_finds_best(grid, whole):
    go_in(*grid, "--output_root", whole, "--part", "best")
    record = read_record(whole / "best_model")
    searched = [read_record(path.parent) for path in whole.glob("best_model/search/*/record.json")]
    assert len(searched) == 2
    chosen = min(searched, key=lambda r: r["validation_loss"])["recipe"]
    assert record["recipe"] == {**chosen, "tokens": 6000, "warmup": 1}
    assert record["test_tokens"] > 0
    ladder = [r for a in ("gpt", "lstm") for r in read_ladders(whole)[a].finished]
    lowest = min(ladder, key=lambda r: r["validation_loss"])["recipe"]
    assert (record["recipe"]["architecture"], record["recipe"]["size"]) == (lowest["architecture"], lowest["size"])


@pytest.mark.parametrize(
    ("arguments", "names"),
    [
        (["--gpt_sizes", "gigantic"], "gigantic"),
        (["--corpus", "nowhere"], "nowhere"),
        (["--tokens", "0"], "--tokens"),
        (["missing.yaml"], "missing.yaml"),
        (["--part", "best", "--output_root", "{tmp}/empty"], "holds no finished run"),
    ],
)
def test_bad_arguments_end_with_one_line_that_names_them(grid, tmp_path, monkeypatch, capsys, arguments, names):
    given = [argument.format(tmp=tmp_path) for argument in arguments]
    monkeypatch.chdir(tmp_path)
    assert names in refusal(capsys, *given, *([] if "--corpus" in given else grid[:2]))


def test_a_second_study_on_one_folder_says_so_and_stops(grid, tmp_path, capsys):
    with FileLock(tmp_path / ".training.lock"):
        assert "another study is training there" in refusal(capsys, *grid, "--output_root", tmp_path)


@contextmanager
def small_files_only():
    """No file of this process can grow beyond 20 kB, as if the disk were full."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_full_disk_costs_the_run_and_nothing_that_was_finished(grid, whole, capsys):
    kept = run_folder(whole, "gpt", "15k", "tokens_15000", 0) / "model.safetensors"
    before = kept.read_bytes()
    more = changed(grid, "--seeds", "1")
    with small_files_only(), pytest.raises(SystemExit) as ending:
        go_in(*more, "--output_root", whole)
    assert ending.value.code == 1
    assert re.search(r"File too large.*; free some space", capsys.readouterr().err)
    assert kept.read_bytes() == before
    marked = [read_record(path.parent) for path in whole.rglob("seed_1/record.json")]
    assert len(marked) == 3
    assert all(record["status"] == "failed" and "free some space" in record["reason"] for record in marked)
    go_in(*more, "--output_root", whole)
    assert all(read_record(path.parent)["status"] == "finished" for path in whole.rglob("seed_1/record.json"))


@pytest.mark.parametrize("flags", [("--arm", "nonsense"), ("--arm=nonsense",)])
def test_an_arm_that_a_study_file_has_not_is_one_line(flags, capsys):
    study = str(ROOT / "studies" / "cpu.yaml")
    with pytest.raises(SystemExit):
        read_arms(StudyArguments, "", argv=[study, *flags])
    assert capsys.readouterr().err.startswith(f"error: --arm nonsense: {study} has ['ladders', 'tiny', ")


@pytest.mark.parametrize("study", sorted((ROOT / "studies").glob("*.yaml")), ids=lambda path: path.stem)
def test_a_committed_study_can_be_read(study):
    arms = read_arms(StudyArguments, "", argv=[str(study)])
    named = len({(arm.study, arm.arm) for arm in arms}) == len(arms)
    for arm in arms if named and len(arms) > 1 else []:
        assert read_arms(StudyArguments, "", argv=[str(study), "--arm", arm.arm]) == [arm]
    assert all((arm.gpt_sizes and arm.lstm_sizes) or arm.carry_state or arm.part == "best" for arm in arms)
    assert named or arms[0].part == "sweep"
