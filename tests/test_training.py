import json
import os
import re
import resource
import subprocess
import sys
import time
from dataclasses import dataclass, field, replace
from itertools import product
from pathlib import Path
from shutil import copytree

import numpy as np
import psutil
import pytest
import torch
from filelock import FileLock
from forks import has_ended
from safetensors import SafetensorError
from safetensors.torch import load_file
from small_runs import build_model, made_config, train, with_config, with_corpus
from training.checkpoint import BEFORE as BEFORE_LATEST
from training.checkpoint import LATEST, as_os_error
from transformers import AutoModelForCausalLM

import training.run
from cli import UserError, read_arguments
from preprocessing.corpus import Corpus
from training import loop, ngram
from training.batches import WindowBatches
from training.config import BEFORE, RunConfig, learning_rate_at
from training.evaluation import summarise, token_losses
from training.learning_rate import RULES, learning_rate
from training.loop import ExecutionConfig, Plan
from training.models import build_optimizer, save_model
from training.record import RunRecord, read_ladders, read_record, run_folder, write_record
from training.run import StudyArguments
from training.sweep import best_rate, fit_rule

ROOT = Path(__file__).parent.parent
CONFIG = made_config()
OFTEN = ExecutionConfig(checkpoint_seconds=0)
VOLATILE = {
    *("seconds", "seconds_evaluation", "seconds_saving", "tokens_per_second", "flops_per_second", "started"),
    "peak_memory_bytes",
}


def quiet(tokens, loss):
    pass


def go_in(*arguments):
    """The command in this process, with one worker."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["run.py", *map(str, arguments)])
        patch.setattr(training.run, "share_machine", lambda _: (1, 1))
        training.run.main()


def refusal(capsys, *arguments):
    """Return the one line that the door ends with."""
    with pytest.raises(SystemExit) as ending:
        go_in(*arguments)
    assert ending.value.code != 0
    [line] = [line for line in capsys.readouterr().err.splitlines() if line]
    assert line.startswith("error: ")
    return line


def comparable(record):
    record = {k: v for k, v in record.to_dict().items() if k not in VOLATILE}
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


# --- config ----------------------------------------------------------------------------------------------------------


def with_steps(steps, **changes):
    """A configuration of so many steps; a fifth of a WSD run is its cooldown."""
    step = CONFIG.tokens_per_step
    cooldown = step * round(0.2 * steps) if changes.get("schedule") == "wsd" else 0
    shared = {"tokens": steps * step, "cooldown_tokens": cooldown, "learning_rate": 1e-2, "warmup_tokens": 20 * step}
    return replace(CONFIG, **shared | changes)


@pytest.mark.parametrize("schedule", ["cosine", "wsd"])
def test_the_rate_warms_up_peaks_and_ends_at_the_last_step(schedule):
    config = with_steps(1000, schedule=schedule)
    rates = np.array([learning_rate_at(step, config) for step in range(1000)])
    assert rates.max() == pytest.approx(1e-2)
    assert np.all(np.diff(rates[:19]) > 0)
    assert np.all(np.diff(rates[20:]) <= 0)
    assert 0 < rates[-1] < 0.02 * rates.max()


def test_a_wsd_rate_is_constant_and_then_falls_by_the_square_root_of_the_share_of_its_cooldown():
    config = with_steps(1000, schedule="wsd")
    rates = np.array([learning_rate_at(step, config) for step in range(1000)])
    assert config.cooldown_start == 800
    assert set(rates[20:801]) == {1e-2}
    assert rates[850] == pytest.approx(1e-2 * (1 - 0.25**0.5))


def test_budgets_of_one_trunk_have_its_rates_up_to_their_cooldown():
    trunk = with_steps(1600, schedule="wsd").trunk(1600 * CONFIG.tokens_per_step)
    for steps in (500, 1000, 2000):
        branch = with_steps(steps, schedule="wsd")
        shared = range(branch.cooldown_start)
        assert [learning_rate_at(step, branch) for step in shared] == [learning_rate_at(step, trunk) for step in shared]
        assert branch.trunk() == trunk.trunk()


@pytest.mark.parametrize("schedule", ["cosine", "wsd"])
@pytest.mark.parametrize("steps", [1, 2, 3, 10])
def test_the_rate_is_defined_for_the_shortest_runs(schedule, steps):
    config = with_steps(steps, schedule=schedule, warmup_tokens=0)
    assert all(0 < learning_rate_at(step, config) <= 1e-2 for step in range(steps))


def test_only_matrices_of_products_decay(small_corpus):
    for architecture in ("gpt", "lstm"):
        model = build_model(replace(CONFIG, architecture=architecture), small_corpus)
        decayed, others = build_optimizer(model, CONFIG).param_groups
        names = {id(parameter): name for name, parameter in model.named_parameters()}
        assert decayed["weight_decay"] == 0.1
        assert others["weight_decay"] == 0
        assert not [n for p in decayed["params"] if "embed" in (n := names[id(p)]) or "wte" in n or "bias" in n]
        assert len(decayed["params"]) + len(others["params"]) == len(names)


def test_the_rate_rules_are_the_ones_that_the_committed_sweeps_give():
    rules = [(schedule, *rule) for schedule, both in RULES.items() for rule in both.items()]
    for schedule, architecture, (coefficient, exponent) in rules:
        sweep = json.loads((ROOT / "results" / f"rate_sweep_{schedule}.json").read_text())
        assert sweep["config"]["schedule"] == schedule
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
    with pytest.raises(UserError, match=r"--gpt_rates: .* grid's edge.* \(a at 1, b at 1\): widen"):
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


# --- the same run ----------------------------------------------------------------------------------------------------


OTHER_VALUES = {
    "beta1": 0.8, "beta2": 0.95, "adam_epsilon": 1e-4, "clip_norm": 0.1, "weight_decay": 0.5, "learning_rate": 4e-3,
    "warmup_tokens": 504, "final_lr_fraction": 0.5, "init_std": 0.1, "slowest_wave": 10.0, "activation": "gelu_new",
    "dropout": 0.1, "precision": "bf16", "seed": 1, "n_head": 2, "n_layer": 1, "data_fraction": 0.5, "context": 32,
    "batch_size": 2,
}  # fmt: skip
OTHER_VALUES_OF_LSTM = {"forget_bias": 0.0, "sequences": "streams", "embedding_size": 50}


@pytest.mark.parametrize(
    ("architecture", "name", "value"),
    [("gpt", *item) for item in OTHER_VALUES.items()] + [("lstm", *item) for item in OTHER_VALUES_OF_LSTM.items()],
)
def test_what_decides_a_run_is_read_from_its_configuration_and_is_in_its_hash(
    small_corpus, tmp_path, architecture, name, value
):
    config = with_corpus(made_config(architecture, tokens=10 * CONFIG.tokens_per_step), small_corpus)
    other = replace(config, **{name: value})
    assert config.config_hash != other.config_hash
    losses = [
        loop.train(Plan(one, tmp_path / one.config_hash), small_corpus, quiet, ExecutionConfig()).validation_loss
        for one in (config, other)
    ]
    assert losses[0] != losses[1]


def test_the_hash_of_a_configuration_never_changes():
    assert CONFIG.config_hash == "e7a0d9342c4e1e8f"
    assert CONFIG.trunk(5).config_hash == replace(CONFIG, tokens=24_000).trunk(6).config_hash


def test_starting_weights_are_told_apart_by_what_they_are_not_by_where_they_lie():
    started = replace(CONFIG, init_from="a/model", size="model", init_sha256="0" * 64)
    assert replace(started, init_from="b/moved", size="moved").config_hash == started.config_hash
    assert replace(started, init_sha256="1" * 64).config_hash != started.config_hash


@dataclass(frozen=True, kw_only=True)
class LaterConfig(RunConfig):
    """A configuration with a field that was added later: older runs did what False says."""

    nesterov: bool = field(default=True, metadata={BEFORE: False})


def test_a_field_that_is_added_later_makes_no_old_run_a_stranger():
    old = CONFIG.to_dict()
    assert LaterConfig.from_dict(old).nesterov is False
    assert LaterConfig.from_dict(old).config_hash == CONFIG.config_hash
    assert LaterConfig(**old).config_hash != CONFIG.config_hash


@pytest.mark.parametrize(
    "changes", [{"n_params": "many"}, {"version": 99}, {"train_curve": []}, {"validation_loss": "1"}]
)
def test_a_record_with_a_field_of_another_kind_or_version_is_refused_by_name(uninterrupted, changes):
    values = read_record(uninterrupted["gpt"]).to_dict()
    with pytest.raises(UserError, match=next(iter(changes))):
        RunRecord.from_dict(values | changes)


@pytest.mark.parametrize("changes", [{"seed": None}, {"surprise": 1}, {"tokens": "many"}, {"schedule": "linear"}])
def test_a_configuration_with_a_field_missing_unknown_or_of_another_kind_is_refused_by_name(changes):
    values = {k: v for k, v in (CONFIG.to_dict() | changes).items() if v is not None or k.startswith("init_")}
    with pytest.raises(UserError, match=next(iter(changes))):
        RunConfig.from_dict(values)


def test_a_warm_up_longer_than_half_of_the_budget_is_refused():
    with pytest.raises(UserError, match="--warmup_tokens 900"):
        replace(CONFIG, warmup_tokens=900, tokens=1_000)


def test_a_model_is_not_saved_with_weights_that_are_missing_or_another_s(small_corpus, tmp_path):
    for architecture in ("gpt", "lstm"):
        model = build_model(made_config(architecture), small_corpus)
        weights = dict(model.named_parameters())
        name = next(name for name in weights if "weight" in name and "wte" not in name and "embed" not in name)
        for wrong in ({k: v for k, v in weights.items() if k != name}, {**weights, "more.weight": weights[name]}):
            with pytest.raises(ValueError, match=re.escape(name) if len(wrong) < len(weights) else "more.weight"):
                save_model(model.config, wrong, small_corpus, tmp_path / architecture)
        save_model(model.config, weights, small_corpus, tmp_path / architecture)
        found = AutoModelForCausalLM.from_pretrained(tmp_path / architecture)
        assert all(torch.equal(value, weights[key]) for key, value in found.named_parameters())


def test_an_error_of_safetensors_is_reported_as_what_it_is(tmp_path):
    missing, other = "I/O error: No such file or directory (os error 2)", "InvalidHeader"
    assert as_os_error(SafetensorError(missing), tmp_path).errno == 2
    assert isinstance(as_os_error(SafetensorError(other), tmp_path), SafetensorError)


# --- evaluation and the baseline -------------------------------------------------------------------------------------


@pytest.mark.parametrize("length", [64, 65, 127, 128, 200, 64 * 33])
def test_every_token_but_the_first_is_scored_once_whatever_the_length(small_corpus, length):
    model = build_model(CONFIG, small_corpus)
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
        train(
            Plan(replace(CONFIG, architecture=architecture, dropout=0.1), folder),
            small_corpus,
            quiet,
            ExecutionConfig(),
        )
        folders[architecture] = folder
    return folders


@pytest.mark.parametrize("architecture", ["gpt", "lstm"])
def test_a_run_learns_and_its_record_adds_up(uninterrupted, small_corpus, architecture):
    record = read_record(uninterrupted[architecture])
    curve = record.train_curve["loss"]
    assert curve[-1] < curve[0] - 0.5
    assert record.status == "finished"
    assert record.tokens == record.steps * 4 * 63 == pytest.approx(12_000, rel=0.02)
    assert record.epochs == pytest.approx(record.tokens / (len(small_corpus.tokens("train")) - 1))
    assert record.flops == record.flops_per_token * record.tokens
    assert record.flops_6nd == 6 * record.n_params * record.tokens
    assert record.validation_tokens == len(small_corpus.tokens("validation")) - 1
    assert record.validation_bits_per_character == pytest.approx(record.validation_loss / np.log(2))
    assert record.versions["torch"].split("+")[0] == torch.__version__.split("+")[0]  # not every build names itself
    assert record.test_loss is None  # the test split is for the best model, once


@pytest.mark.parametrize("architecture", ["gpt", "lstm"])
def test_a_trained_run_loads_by_the_auto_classes_with_the_recorded_loss(uninterrupted, small_corpus, architecture):
    folder = uninterrupted[architecture]
    model = AutoModelForCausalLM.from_pretrained(folder)
    record = read_record(folder)
    losses = token_losses(model, np.asarray(small_corpus.tokens("validation")), 64)
    assert losses.mean() == pytest.approx(record.validation_loss, rel=1e-5)
    assert model.num_parameters() == record.n_params


class InterruptedRun(Exception):  # noqa: N818 — it is no error
    pass


@pytest.mark.parametrize("architecture", ["gpt", "lstm"])
def test_an_interrupted_run_ends_with_bitwise_the_same_weights_and_losses(
    uninterrupted, small_corpus, tmp_path, architecture
):
    config = replace(CONFIG, architecture=architecture, dropout=0.1)

    def interrupt_after(limit):
        def progress(tokens, _):
            if tokens >= limit:
                raise InterruptedRun

        return progress

    for limit in (3_000, 8_000):
        with pytest.raises(InterruptedRun):
            train(Plan(config, tmp_path), small_corpus, interrupt_after(limit), OFTEN)
        assert (tmp_path / LATEST).is_file()
        assert read_record(tmp_path) is None
    train(Plan(config, tmp_path), small_corpus, quiet, OFTEN)
    expected, found = uninterrupted[architecture], tmp_path
    for name, weight in load_file(expected / "model.safetensors").items():
        assert torch.equal(weight, load_file(found / "model.safetensors")[name]), name
    assert comparable(read_record(found)) == comparable(read_record(expected))
    assert not (tmp_path / LATEST).exists()


def test_a_finished_run_is_not_trained_again(uninterrupted, small_corpus):
    before = (uninterrupted["gpt"] / "model.safetensors").stat().st_mtime_ns
    train(
        Plan(replace(CONFIG, dropout=0.1), uninterrupted["gpt"]),
        small_corpus,
        lambda *_: pytest.fail("trained"),
        ExecutionConfig(),
    )
    assert (uninterrupted["gpt"] / "model.safetensors").stat().st_mtime_ns == before


def test_a_finished_run_of_another_recipe_is_refused_by_the_field_that_differs(uninterrupted, small_corpus):
    with pytest.raises(UserError, match="tokens 12000, not 24000"):
        train(
            Plan(replace(CONFIG, dropout=0.1, tokens=24_000), uninterrupted["gpt"]),
            small_corpus,
            quiet,
            ExecutionConfig(),
        )


def test_a_run_on_another_corpus_is_refused(uninterrupted, small_corpus, monkeypatch):
    monkeypatch.setattr(Corpus, "digest", lambda _: "another")
    with pytest.raises(UserError, match=r"corpus '\w+', not 'another'"):
        train(Plan(replace(CONFIG, dropout=0.1), uninterrupted["gpt"]), small_corpus, quiet, ExecutionConfig())


def interrupted(corpus, folder, tokens, config):
    """Train and stop after `tokens`, with checkpoints at every point of the curve."""

    def interrupt(done, _):
        if done > tokens:
            raise InterruptedRun

    with pytest.raises(InterruptedRun):
        train(Plan(config, folder), corpus, interrupt, OFTEN)


DAMAGES = {
    "cut": lambda content: content[: len(content) // 2],
    "empty": lambda _: b"",
    "garbage": lambda _: b"not a checkpoint",
    "one bit": lambda content: content[:-5] + bytes([content[-5] ^ 1]) + content[-4:],
}


SHORT = replace(CONFIG, tokens=3_000)


@pytest.fixture(scope="module")
def half_way(small_corpus, tmp_path_factory):
    """A short run's record, and a folder in which the same run was interrupted."""
    record = train(Plan(SHORT, tmp_path_factory.mktemp("short")), small_corpus, quiet, ExecutionConfig())
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
    for name in (LATEST, BEFORE_LATEST) if both else (LATEST,):
        (folder / name).write_bytes(damage((folder / name).read_bytes()))
    found = train(Plan(SHORT, folder), small_corpus, quiet, ExecutionConfig())
    lines = capsys.readouterr().err.splitlines()
    assert [str(folder / LATEST) in lines[0], len(lines)] == [True, 2 if both else 1]
    assert all("is damaged" in line for line in lines)
    assert ("resuming from step 0" in lines[0]) == both
    assert comparable(found) == comparable(expected)


def test_a_checkpoint_of_another_run_is_refused_by_name(small_corpus, half_way):
    with pytest.raises(UserError, match=f"{LATEST} belongs to another config"):
        train(Plan(replace(SHORT, seed=1), half_way[1]), small_corpus, quiet, ExecutionConfig())


def test_a_damaged_record_is_refused_by_name(small_corpus, tmp_path):
    (tmp_path / "record.json").write_text('{"status": "fini')
    with pytest.raises(UserError, match=r"record\.json is damaged"):
        train(Plan(CONFIG, tmp_path), small_corpus, quiet, ExecutionConfig())


def test_a_run_that_diverges_is_recorded_with_its_reason_and_never_fitted(small_corpus, tmp_path):
    folder = run_folder(tmp_path, CONFIG)
    record = train(Plan(replace(CONFIG, learning_rate=1e12), folder), small_corpus, quiet, ExecutionConfig())
    assert record.status == "diverged"
    assert "loss is" in record.reason
    assert record.validation_loss is None
    assert not (folder / "model.safetensors").exists()
    ladder = read_ladders(tmp_path)["gpt"]
    assert (len(ladder.finished), len(ladder.unfinished)) == (0, 1)


def test_a_ladder_is_of_the_budget_that_most_runs_have_and_keeps_the_others_apart(uninterrupted, tmp_path):
    record = read_record(uninterrupted["gpt"])

    def add(tokens, seed, **changes):
        changed = with_config(record, tokens=tokens, seed=seed, **changes)
        write_record(run_folder(tmp_path, changed.config), changed)

    for tokens, seed in ((12_000, 0), (12_000, 1), (50_000, 0)):
        add(tokens, seed)
    add(12_000, 0, data_fraction=0.5)
    add(99_000, 0, schedule="trunk")
    ladder = read_ladders(tmp_path)["gpt"]
    assert [(run.config.tokens, run.config.seed) for run in ladder.finished] == [(12_000, 0), (12_000, 1)]
    # The longer one and the one on half of the data; a trunk is no run of its own.
    others = sorted((run.config.tokens, run.config.data_fraction) for run in ladder.others)
    assert others == [(12_000, 0.5), (50_000, 1.0)]


def test_runs_of_different_corpora_are_not_mixed(uninterrupted, tmp_path):
    record = read_record(uninterrupted["gpt"])
    for seed, corpus in enumerate(("one", "another")):
        changed = with_config(record, seed=seed, corpus=corpus)
        write_record(run_folder(tmp_path, changed.config), changed)
    with pytest.raises(UserError, match="different corpora"):
        read_ladders(tmp_path)


def test_dropout_masks_depend_on_the_step_not_on_what_was_drawn_before(small_corpus, tmp_path):
    config = replace(CONFIG, dropout=0.3, tokens=2_000)
    torch.manual_seed(1)
    first = train(Plan(config, tmp_path / "a"), small_corpus, quiet, ExecutionConfig()).train_curve["loss"]
    torch.manual_seed(2)
    second = train(Plan(config, tmp_path / "b"), small_corpus, lambda *_: torch.rand(7), ExecutionConfig())
    assert first == second.train_curve["loss"]


# --- the door --------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def grid(small_corpus):
    return [
        *("--corpus", small_corpus.folder, "--gpt_sizes", "15k", "30k", "--lstm_sizes", "15k", "--seeds", "0"),
        *("--tokens", "15000", "--context", "64", "--warmup_tokens", "252", "--checkpoint_seconds", "0"),
        *("--search_tokens", "3000"),
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


@pytest.mark.long
def test_workers_end_with_the_study_that_was_killed_and_the_same_study_ends_as_if_it_had_not_been(
    grid, whole, tmp_path, capsys
):
    """Half of its runs would take minutes to their first point."""
    more = changed(grid, "--tokens", "15000", "900000000")
    more.remove("30k")
    more += ["--num_parallel_runs", max(4, os.cpu_count() or 1)]  # so that each has one thread
    more += ["--output_root", tmp_path]
    command = [sys.executable, ROOT / "training" / "run.py", *more]
    study = psutil.Popen([str(part) for part in command], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    family = []
    try:
        deadline = time.monotonic() + 120
        while not list(tmp_path.rglob(LATEST)):
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
    assert not list(tmp_path.rglob("tokens_900000000/*/record.json"))
    go_in(*grid, "--output_root", tmp_path)
    for folder in (
        "GPT_initial_training/15k/tokens_15000/seed_0",
        "GPT_initial_training/30k/tokens_15000/seed_0",
        "LSTM_training/15k/tokens_15000/seed_0",
    ):
        assert_same_run(tmp_path / folder, whole / folder)
    capsys.readouterr()
    go_in(*grid, "--output_root", tmp_path)
    assert "3 of 3 runs have ended already" in capsys.readouterr().out


def test_the_best_run_is_trained_further_as_the_search_finds_best(grid, whole):
    go_in(*grid, "--output_root", whole, "--part", "best")
    record = read_record(whole / "best_model")
    searched = [read_record(path.parent) for path in whole.glob("best_model/search/*/record.json")]
    assert len(searched) == 2
    chosen = min(searched, key=lambda r: r.validation_loss).config
    assert record.config == replace(chosen, tokens=6000, warmup_tokens=120)
    assert record.test_tokens > 0
    ladder = [r for a in ("gpt", "lstm") for r in read_ladders(whole)[a].finished]
    lowest = min(ladder, key=lambda r: r.validation_loss).config
    assert (record.config.architecture, record.config.size) == (lowest.architecture, lowest.size)


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


def small_files_only():
    """No file of this process or its children can grow beyond 20 kB, as if the disk were full."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))


@pytest.mark.long
def test_a_full_disk_costs_the_run_and_nothing_that_was_finished(grid, whole):
    kept = run_folder(whole, made_config(tokens=15_000)) / "model.safetensors"
    before = kept.read_bytes()
    more = [*changed(grid, "--seeds", "1"), "--output_root", whole]
    command = [str(part) for part in [sys.executable, ROOT / "training" / "run.py", *more]]
    ended = subprocess.run(command, preexec_fn=small_files_only, capture_output=True, text=True, check=False)
    assert ended.returncode == 1
    assert re.search(r"safetensors: File too large.*; free some space", ended.stderr)
    assert "Traceback" not in ended.stderr
    assert kept.read_bytes() == before
    marked = [read_record(path.parent) for path in whole.rglob("seed_1/record.json")]
    assert len(marked) == 3
    assert all(record.status == "failed" and "free some space" in record.reason for record in marked)
    go_in(*more)
    assert all(read_record(path.parent).status == "finished" for path in whole.rglob("seed_1/record.json"))


@pytest.mark.parametrize("flags", [("--arm", "nonsense"), ("--arm=nonsense",)])
def test_an_arm_that_a_study_file_has_not_is_one_line(flags, capsys):
    study = str(ROOT / "studies" / "cpu.yaml")
    with pytest.raises(SystemExit):
        [each for (each,) in read_arguments(StudyArguments, argv=[study, *flags])]
    assert capsys.readouterr().err.startswith(f"error: --arm nonsense: {study} has ['ladders', 'tiny', ")


@pytest.mark.parametrize("study", sorted((ROOT / "studies").glob("*.yaml")), ids=lambda path: path.stem)
def test_a_committed_study_can_be_read(study):
    arms = [each for (each,) in read_arguments(StudyArguments, argv=[str(study)])]
    named = len({(arm.study, arm.arm) for arm in arms}) == len(arms)
    for arm in arms if named and len(arms) > 1 else []:
        assert [each for (each,) in read_arguments(StudyArguments, argv=[str(study), "--arm", arm.arm])] == [arm]
    assert all((arm.gpt_sizes and arm.lstm_sizes) or arm.sequences == "streams" or arm.part == "best" for arm in arms)
    assert named or arms[0].part == "sweep"
