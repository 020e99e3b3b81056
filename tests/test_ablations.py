"""Ablations: fewer tunes, transposed copies and stateful training, each against the same runs without it."""

import pytest
from made_runs import made_ladders, made_run, write_table

from analysis.ablations import LONGER, STATE, STATE_RESET, loss_differences
from analysis.runs import read_study
from training.config import STREAMS

GAIN, TRAINING_GAIN = 0.02, 0.005


def stateful(run, **losses):
    return run | {"sequences": STREAMS, "stateful": True} | losses


def test_stateful_runs_are_compared_and_never_fitted(tmp_path):
    ladders = made_ladders()
    for run in list(ladders["lstm"]):
        loss = run["validation_loss"]
        losses = {"validation_loss": loss - GAIN, "validation_loss_reset": loss - TRAINING_GAIN}
        ladders["lstm"].append(stateful(run, **losses))
    found = read_study(write_table(tmp_path, ladders))
    for members in (found.main, found.runs):
        assert {name: len(runs) for name, runs in members.items()} == {"gpt": 24, "lstm": 24}
        assert not any(run["stateful"] for run in members["lstm"])
    rows = loss_differences(found.every["lstm"])
    assert len(rows) == 16
    for kind, gain in ((STATE, GAIN), (STATE_RESET, TRAINING_GAIN)):
        of_kind = [row for row in rows if row["against"] == kind]
        assert [row["seeds"] for row in of_kind] == [3] * 8
        assert [row["difference"] for row in of_kind] == pytest.approx([-gain] * 8)
    assert loss_differences(found.every["gpt"]) == []


def test_each_ablation_is_compared_on_the_same_part_in_the_same_keys():
    def runs(fraction, keys, reset, loss):
        run = made_run("lstm", "20k", 0, 2e4, reset, data_fraction=fraction, keys=keys)
        return [run, stateful(run, validation_loss=loss, validation_loss_reset=loss + 0.03)]

    rows = loss_differences([*runs(1.0, 1, 2.0, 1.9), *runs(0.25, 1, 2.5, 2.8), *runs(1.0, 12, 1.8, 1.79)])
    found = {(row["against"], row["data_fraction"], row["keys"]): row["difference"] for row in rows}
    expected = {
        ("state", 1.0, 1): -0.1,
        ("state", 0.25, 1): 0.3,
        ("state", 1.0, 12): -0.01,
        ("state reset", 1.0, 1): -0.07,
        ("state reset", 0.25, 1): 0.33,
        ("state reset", 1.0, 12): 0.02,
        ("part", 0.25, 1): 0.5,
        ("keys", 1.0, 12): -0.2,
    }
    assert found == pytest.approx(expected)


def test_more_epochs_on_a_part_are_compared_with_the_next_smaller_budget():
    runs = [
        made_run("lstm", "20k", seed, 2e4, loss + 0.01 * seed, data_fraction=fraction, tokens=tokens)
        for fraction, losses in ((1.0, (2.0, 1.8, 1.7)), (1 / 16, (2.2, 2.1, 2.4)))
        for tokens, loss in zip((1_000_000, 2_000_000, 8_000_000), losses, strict=True)
        for seed in (0, 1)
    ]
    rows = [row for row in loss_differences(runs) if row["against"] == LONGER]
    found = [(row["data_fraction"], row["from_budget"], row["budget"], row["seeds"], row["difference"]) for row in rows]
    assert found == [
        (1 / 16, 1_000_000, 2_000_000, 2, pytest.approx(-0.1)),
        (1 / 16, 2_000_000, 8_000_000, 2, pytest.approx(0.3)),
    ]
