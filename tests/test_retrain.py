"""Which runs are trained again, and what their losses are compared with."""

import importlib.util
from dataclasses import replace
from pathlib import Path

import pytest
from made_runs import made_run, record_of

from cli import UserError


@pytest.fixture(scope="module")
def benchmark():
    path = Path(__file__).parent.parent / "benchmarks" / "retrain.py"
    spec = importlib.util.spec_from_file_location("retrain_benchmark", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def runs_of(losses, n_params=15_000, **changes):
    """A run for each loss, seed after seed."""
    given = {"architecture": "gpt", "size": "15k", "tokens": 1_000_000, "corpus": "mine"} | changes
    architecture, size, tokens = (given.pop(name) for name in ("architecture", "size", "tokens"))
    return [
        record_of(made_run(architecture, size, seed, n_params, loss, tokens, **given))
        for seed, loss in enumerate(losses)
    ]


def test_the_deviation_is_pooled_over_the_settings_of_one_size(benchmark):
    runs = runs_of([1.0, 1.2, 1.4]) + runs_of([0.5, 0.7], tokens=2_000_000) + runs_of([9.0], architecture="lstm")
    deviation, degrees_of_freedom, seeds = benchmark.seeds_of(runs[0], runs + runs_of([5.0, 6.0], corpus="another"))
    assert deviation == pytest.approx(((0.04 + 0.04 + 0.02) / 3) ** 0.5)
    assert (degrees_of_freedom, seeds) == (3, 3)


def test_runs_of_other_corpora_without_seeds_or_larger_than_asked_are_not_drawn(benchmark):
    small, large = runs_of([1.0, 1.2]), runs_of([1.0, 1.1], 10**6, size="tiny")
    lonely, tuned = runs_of([1.0], architecture="lstm"), runs_of([1.0], init_from="a/model")
    longer, foreign = runs_of([1.0, 1.1], tokens=2_000_000), runs_of([1.0, 1.2], corpus="another")
    runs = small + large + lonely + tuned + longer + foreign
    assert benchmark.candidates(runs, "mine", 10**5, 1e6) == small
    with pytest.raises(UserError, match=r"--corpus: .*third.*another, mine"):
        benchmark.candidates(runs, "third", 10**5, 1e6)
    with pytest.raises(UserError, match="--max_params, --max_tokens"):
        benchmark.candidates(runs, "mine", 10, 1e6)


@pytest.mark.parametrize(("loss", "agrees"), [(1.29, True), (1.45, False), (None, False)])
def test_a_run_agrees_within_three_deviations_and_never_if_it_diverges(benchmark, monkeypatch, tmp_path, loss, agrees):
    runs = runs_of([1.0, 1.2])
    monkeypatch.setattr(benchmark, "plan_run", lambda *_: None)
    monkeypatch.setattr(benchmark, "train", lambda *_: replace(runs[0], validation_loss=loss))
    again = benchmark.train_again(runs[0], runs, None, tmp_path)
    assert again.agrees is agrees
    assert ("DOES NOT AGREE" in benchmark.line(again)) is not agrees
    assert again.difference == (None if loss is None else pytest.approx(loss - 1.0))
