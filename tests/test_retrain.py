"""Which runs may be trained again, and what their losses are held against."""

import importlib.util
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from door import DoorError
from training.recipe import Recipe
from training.record import DIVERGED, FINISHED


@pytest.fixture(scope="module")
def benchmark():
    path = Path(__file__).parent.parent / "benchmarks" / "retrain.py"
    spec = importlib.util.spec_from_file_location("retrain_benchmark", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def rows(losses, **changes):
    """A run for each loss, seed after seed."""
    recipe = replace(Recipe("gpt", "15k", 0, 1_000_000, 4, 256, 0.01, 0.1, 20), **changes)
    shared = {"status": FINISHED, "corpus": "mine", "n_params": 15_000}
    return [
        {**shared, "recipe": asdict(replace(recipe, seed=seed)), "validation_loss": loss}
        for seed, loss in enumerate(losses)
    ]


def test_the_deviation_is_pooled_over_the_settings_of_one_size(benchmark):
    runs = rows([1.0, 1.2, 1.4]) + rows([0.5, 0.7], tokens=2_000_000) + rows([9.0], architecture="lstm")
    other_corpus = [run | {"corpus": "another"} for run in rows([5.0, 6.0])]
    deviation, freedom, seeds = benchmark.seeds_of(runs[0], runs + other_corpus)
    assert deviation == pytest.approx(((0.04 + 0.04 + 0.02) / 3) ** 0.5)
    assert (freedom, seeds) == (3, 3)


def test_runs_of_other_corpora_without_seeds_or_larger_than_asked_are_not_drawn(benchmark):
    small, large = rows([1.0, 1.2]), [run | {"n_params": 10**6} for run in rows([1.0, 1.1], size="tiny")]
    lonely, tuned = rows([1.0], architecture="lstm"), rows([1.0], init_from="a/model")
    longer, foreign = rows([1.0, 1.1], tokens=2_000_000), [run | {"corpus": "another"} for run in rows([1.0, 1.2])]
    runs = small + large + lonely + tuned + longer + foreign
    assert benchmark.candidates(runs, "mine", 10**5, 1e6) == small
    with pytest.raises(DoorError, match=r"--corpus: its digest is third, the runs are of another, mine: give"):
        benchmark.candidates(runs, "third", 10**5, 1e6)
    with pytest.raises(DoorError, match="--max_params, --max_tokens: no finished run"):
        benchmark.candidates(runs, "mine", 10, 1e6)


@pytest.mark.parametrize(("loss", "agrees"), [(1.29, True), (1.45, False), (None, False)])
def test_a_run_agrees_within_three_deviations_and_never_if_it_diverges(benchmark, monkeypatch, tmp_path, loss, agrees):
    runs = [run | {"threads": 1, "windows_at_once": 4, "compiled": False, "tokens": 10**6} for run in rows([1.0, 1.2])]
    record = {"status": DIVERGED} if loss is None else {"validation_loss": loss}
    monkeypatch.setattr(benchmark, "train", lambda *_: record)
    again = benchmark.train_again(runs[0], runs, None, tmp_path)
    assert again.agrees is agrees
    assert ("DOES NOT AGREE" in benchmark.line(again)) is not agrees
    assert again.difference == (None if loss is None else pytest.approx(loss - 1.0))
