"""The parts of a run: batches, learning rate, configuration, evaluation and the n-gram baseline."""

import json
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path

import numpy as np
import pytest
import torch
from small_runs import build_model, made_config, train, with_config

import training.record
from cli import UserError
from training import ngram, single_run
from training.batches import WindowBatches
from training.config import RunConfig, later
from training.evaluation import held_out_losses, summarise, token_losses
from training.execution import ExecutionConfig
from training.learning_rate import RULES, learning_rate_at, peak_learning_rate
from training.models import build_optimizer
from training.planning import plan_run
from training.record import RunRecord, read_ladders, run_folder, write_record
from training.runs_table import read_runs_table
from training.sweep import best_learning_rate, fit_rule

ROOT = Path(__file__).parent.parent
CONFIG = made_config()


# --- batches ---------------------------------------------------------------------------------------------------------


def test_an_epoch_predicts_every_token_at_most_once_and_nearly_all():
    batches = WindowBatches(np.arange(1000, dtype=np.uint16), context=17, batch_size=4, seed=3)
    steps = batches.per_epoch // 4
    targets = torch.cat([batches.batch(step)[:, 1:].flatten() for step in range(steps)])
    assert len(targets.unique()) == len(targets) >= 1000 - 2 * 16 - 4 * 16
    assert not torch.equal(batches.batch(0), batches.batch(-(-batches.per_epoch // 4)))  # the next epoch's order


def test_a_batch_depends_on_seed_and_step_alone():
    stream = np.random.default_rng(0).integers(0, 50, 5000).astype(np.uint8)
    forward = WindowBatches(stream, 32, 4, seed=1)
    walked = [forward.batch(step) for step in range(100)]
    assert torch.equal(WindowBatches(stream, 32, 4, seed=1).batch(99), walked[99])
    assert not torch.equal(WindowBatches(stream, 32, 4, seed=2).batch(99), walked[99])


# --- learning rate ---------------------------------------------------------------------------------------------------


def with_steps(steps, **changes):
    """A configuration of so many steps; a fifth of a WSD run is its cooldown."""
    step = CONFIG.tokens_per_step
    cooldown = step * round(0.2 * steps) if changes.get("schedule") == "wsd" else 0
    shared = {"tokens": steps * step, "cooldown_tokens": cooldown, "learning_rate": 1e-2, "warmup_tokens": 20 * step}
    return replace(CONFIG, **shared | changes)


@pytest.mark.parametrize("schedule", ["cosine", "wsd"])
def test_the_learning_rate_warms_up_peaks_and_ends_at_the_last_step(schedule):
    config = with_steps(1000, schedule=schedule)
    rates = np.array([learning_rate_at(step, config) for step in range(1000)])
    assert rates.max() == pytest.approx(1e-2)
    assert np.all(np.diff(rates[:19]) > 0)
    assert np.all(np.diff(rates[20:]) <= 0)
    assert 0 < rates[-1] < 0.02 * rates.max()
    for steps in (1, 2, 3, 10):
        short = with_steps(steps, schedule=schedule, warmup_tokens=0)
        assert all(0 < learning_rate_at(step, short) <= 1e-2 for step in range(steps))


def test_budgets_of_one_trunk_have_its_learning_rates_up_to_their_square_root_cooldown():
    trunk = with_steps(1600, schedule="wsd").trunk(1600 * CONFIG.tokens_per_step)
    for steps in (500, 1000, 2000):
        branch = with_steps(steps, schedule="wsd")
        shared = range(branch.cooldown_start)
        assert [learning_rate_at(step, branch) for step in shared] == [learning_rate_at(step, trunk) for step in shared]
        assert branch.trunk() == trunk.trunk()
        assert learning_rate_at(int(0.85 * steps), branch) == pytest.approx(1e-2 * (1 - 0.25**0.5))


def test_only_matrices_of_products_decay(small_corpus):
    for architecture in ("gpt", "lstm"):
        model = build_model(replace(CONFIG, architecture=architecture), small_corpus)
        decayed, others = build_optimizer(model, CONFIG).param_groups
        names = {id(parameter): name for name, parameter in model.named_parameters()}
        assert (decayed["weight_decay"], others["weight_decay"]) == (0.1, 0)
        assert not [n for p in decayed["params"] if "embed" in (n := names[id(p)]) or "wte" in n or "bias" in n]
        assert len(decayed["params"]) + len(others["params"]) == len(names)


def test_the_learning_rate_rules_are_those_of_the_committed_sweeps():
    for schedule, rules in RULES.items():
        sweep = json.loads((ROOT / "results" / f"learning_rate_sweep_{schedule}.json").read_text())
        assert sweep["config"]["schedule"] == schedule
        for architecture, (coefficient, exponent) in rules.items():
            rows = [row for row in sweep["runs"] if row["architecture"] == architecture]
            rule = fit_rule(rows)
            assert coefficient == pytest.approx(rule["coefficient"], rel=5e-3)
            assert exponent == pytest.approx(rule["exponent"], abs=5e-4)
            assert len({row["size"] for row in rows}) >= 4
            assert peak_learning_rate(architecture, 10_000, schedule) > peak_learning_rate(
                architecture, 10**6, schedule
            )


def test_a_rule_goes_through_the_vertices_of_parabolas():
    rates = np.array([1e-3, 2e-3, 4e-3, 8e-3])
    assert best_learning_rate(rates, (np.log(rates) - np.log(3e-3)) ** 2 + 1) == pytest.approx((3e-3, 1.0))
    grid = product((1e4, 1e5, 1e6), np.geomspace(1e-3, 0.1, 9))
    rows = [sweep_row(str(n), n, rate, (np.log(rate) - np.log(0.5 * n**-0.3)) ** 2) for n, rate in grid]
    rule = fit_rule(rows)
    assert (rule["coefficient"], rule["exponent"]) == pytest.approx((0.5, 0.3), rel=1e-6)


def sweep_row(size, n, rate, loss):
    return {"size": size, "learning_rate": rate, "loss": loss, "n_params_non_embedding": n, "architecture": "gpt"}


def test_a_best_learning_rate_on_the_edge_is_no_optimum():
    assert best_learning_rate(np.array([1e-3, 2e-3, 4e-3]), np.array([3.0, 2.0, 1.0])) is None
    assert best_learning_rate(np.array([1e-3, 2e-3, 4e-3]), np.array([3.0, 2.0, np.inf])) is None
    with pytest.raises(UserError, match=r"--gpt_learning_rates.*a at 1, b at 1"):
        fit_rule([sweep_row(size, 100, rate, rate) for size, rate in product(("a", "b"), (1, 2, 3))])


# --- configuration and records ---------------------------------------------------------------------------------------


OTHER_VALUES = {
    "beta1": 0.8, "beta2": 0.95, "adam_epsilon": 1e-4, "clip_norm": 0.1, "weight_decay": 0.5, "learning_rate": 4e-3,
    "warmup_tokens": 504, "final_lr_fraction": 0.5, "init_std": 0.1, "slowest_wave": 10.0, "activation": "gelu_new",
    "dropout": 0.1, "precision": "bf16", "seed": 1, "n_head": 2, "n_layer": 1, "data_fraction": 0.5, "context": 32,
    "batch_size": 2,
}  # fmt: skip
OTHER_VALUES_OF_LSTM = {"forget_bias": 0.0, "sequences": "streams", "embedding_size": 50}


@pytest.fixture(scope="module")
def ten_steps(small_corpus, tmp_path_factory):
    """The record of a run of ten steps, by architecture."""
    tokens = 10 * CONFIG.tokens_per_step
    folders = {name: tmp_path_factory.mktemp(name) for name in ("gpt", "lstm")}
    return {name: train(made_config(name, tokens=tokens), folder, small_corpus) for name, folder in folders.items()}


@pytest.mark.parametrize(
    ("architecture", "name", "value"),
    [("gpt", *item) for item in OTHER_VALUES.items()] + [("lstm", *item) for item in OTHER_VALUES_OF_LSTM.items()],
)
def test_every_field_of_a_configuration_decides_the_run_and_its_hash(
    small_corpus, ten_steps, tmp_path, architecture, name, value
):
    before = ten_steps[architecture]
    config = replace(before.config, **{name: value})
    assert config.config_hash != before.config_hash
    run = plan_run(config, tmp_path, small_corpus)
    record = single_run.train(run, small_corpus, lambda *_: None, ExecutionConfig())
    assert record.validation_loss != before.validation_loss


def test_the_hash_of_a_configuration_never_changes():
    assert CONFIG.config_hash == "e7a0d9342c4e1e8f"
    assert CONFIG.trunk(5).config_hash == replace(CONFIG, tokens=24_000).trunk(6).config_hash
    started = replace(CONFIG, init_from="a/model", size="model", init_sha256="0" * 64)
    assert replace(started, init_from="b/moved", size="moved").config_hash == started.config_hash
    assert replace(started, init_sha256="1" * 64).config_hash != started.config_hash


@dataclass(frozen=True, kw_only=True)
class GrownConfig(RunConfig):
    """A configuration to which fields were added after runs were published."""

    label_smoothing: float = later(0.0)
    optimiser: str = later("adamw")


def test_a_field_that_is_added_later_leaves_old_records_readable_and_their_hashes_unchanged(monkeypatch):
    grown = GrownConfig.from_dict(CONFIG.to_dict())
    assert (grown.label_smoothing, grown.optimiser) == (0.0, "adamw")
    assert grown.config_hash == CONFIG.config_hash
    assert grown.trunk(5).config_hash == CONFIG.trunk(5).config_hash
    changed = [replace(grown, label_smoothing=0.1), replace(grown, optimiser="muon")]
    assert len({config.config_hash for config in (grown, *changed)}) == 3
    assert all(GrownConfig.from_dict(config.to_dict()) == config for config in changed)
    published = read_runs_table(ROOT / "results" / "runs.parquet")
    monkeypatch.setattr(training.record, "RunConfig", GrownConfig)
    again = read_runs_table(ROOT / "results" / "runs.parquet")  # each row's hash is checked
    assert [row.record.config_hash for row in again] == [row.record.config_hash for row in published]
    assert all(isinstance(row.record.config, GrownConfig) for row in again)


@pytest.mark.parametrize("changes", [{"seed": None}, {"surprise": 1}, {"tokens": "many"}, {"schedule": "linear"}])
def test_a_configuration_with_a_field_missing_unknown_or_of_another_kind_is_refused_by_name(changes):
    values = {k: v for k, v in (CONFIG.to_dict() | changes).items() if v is not None or k.startswith("init_")}
    with pytest.raises(UserError, match=next(iter(changes))):
        RunConfig.from_dict(values)


def test_a_warm_up_longer_than_half_of_the_budget_is_refused():
    with pytest.raises(UserError, match="--warmup_tokens 900"):
        replace(CONFIG, warmup_tokens=900, tokens=1_000)


@pytest.fixture(scope="module")
def record(small_corpus, tmp_path_factory):
    return train(replace(CONFIG, tokens=3_000), tmp_path_factory.mktemp("run"), small_corpus)


@pytest.mark.parametrize(
    "changes", [{"n_params": "many"}, {"version": 99}, {"train_curve": []}, {"validation_loss": "1"}]
)
def test_a_record_with_a_field_of_another_kind_or_version_is_refused_by_name(record, changes):
    with pytest.raises(UserError, match=next(iter(changes))):
        RunRecord.from_dict(record.to_dict() | changes)


def test_ladders_are_of_the_most_frequent_budget_and_of_one_corpus(record, tmp_path):
    def add(tokens, seed, **changes):
        changed = with_config(record, tokens=tokens, seed=seed, **changes)
        write_record(run_folder(tmp_path, changed.config), changed)

    for tokens, seed in ((12_000, 0), (12_000, 1), (50_000, 0)):
        add(tokens, seed)
    add(12_000, 0, data_fraction=0.5)
    add(99_000, 0, schedule="trunk")  # part of its branches
    ladder = read_ladders(tmp_path)["gpt"]
    assert [(run.config.tokens, run.config.seed) for run in ladder.finished] == [(12_000, 0), (12_000, 1)]
    others = sorted((run.config.tokens, run.config.data_fraction) for run in ladder.others)
    assert others == [(12_000, 0.5), (50_000, 1.0)]
    add(12_000, 3, corpus="another")
    with pytest.raises(UserError, match="different corpora"):
        read_ladders(tmp_path)


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


def test_losses_of_headers_bodies_and_positions_add_up_to_the_whole(small_corpus):
    model = build_model(CONFIG, small_corpus)
    found = held_out_losses(model, small_corpus, "validation", 64)
    share = small_corpus.in_header("validation")[1:].mean()
    assert share * found.headers + (1 - share) * found.bodies == pytest.approx(found.whole.loss)
    whole_windows = token_losses(model, np.asarray(small_corpus.tokens("validation")), 64)
    whole_windows = whole_windows[: len(whole_windows) // 63 * 63]
    assert len(found.by_position) == 63
    assert np.mean(found.by_position) == pytest.approx(whole_windows.mean(), abs=1e-5)


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
    train_stream = np.random.default_rng(0).integers(0, 5, 400)
    for order in (1, 2, 3, 4):
        for context in product(range(5), repeat=3):
            streams = [np.array([*context, following]) for following in range(5)]
            total = sum(np.exp(-ngram.ngram_losses(train_stream, stream, 5, order)[-1]) for stream in streams)
            assert total == pytest.approx(1.0)


def test_an_ngram_agrees_with_witten_bell_by_hand():
    train_stream = np.array([0, 1, 1, 2, 1, 1, 0, 1])  # predicted: 1 1 2 1 1 0 1
    one = (5 + 3 * (1 / 3)) / (7 + 3)
    assert np.exp(-ngram.ngram_losses(train_stream, np.array([2, 1]), 3, 1))[0] == pytest.approx(one)
    # after 1: 1, 2, 1, 0 → three kinds, four times
    found = np.exp(-ngram.ngram_losses(train_stream, np.array([1, 1]), 3, 2))[0]
    assert found == pytest.approx((2 + 3 * one) / (4 + 3))
