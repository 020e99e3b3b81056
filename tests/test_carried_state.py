"""An LSTM that carries its state from window to window: losses, batches, resumption, place in a study."""

from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from made_runs import made_ladders, made_run
from test_distributed import assert_close, train_by_two
from test_exactness import Grid, assert_branches_are
from test_training import OFTEN, RECIPE, InterruptedRun, assert_same_run, quiet, refusal
from torch.nn import functional as F

from analysis.arms import LONGER, STATE, STATE_RESET, arm_differences
from analysis.evidence import of_folders
from analysis.study import Study
from door import DoorError, write_json
from training.batches import LANE_GROUPS, LaneBatches
from training.checkpoint import LATEST
from training.evaluation import WINDOWS_AT_ONCE, held_out_losses, token_losses
from training.loop import Conduct, Plan, Run, build_model, load_model, train
from training.recipe import WSD
from training.record import arm_of, baseline_file, folder_of, read_ladders, read_record, run_folder, write_record
from training.tracking import Tracking

CARRIED = replace(RECIPE, architecture="lstm", carry_state=True)
STRIDE = RECIPE.context - 1
SHORT_EPOCHS = replace(CARRIED, dropout=0.1, one_in=16, tokens=24 * RECIPE.tokens_per_step)
TURNS = 3  # windows of a lane in an epoch of the stream of LANES
LANES = RECIPE.batch_size * LANE_GROUPS * TURNS * STRIDE + 1


@torch.no_grad()
def losses_of_one_forward(model, rows):
    """Return the loss of each token of rows [rows, tokens] but the first, from zero state."""
    tokens = torch.from_numpy(rows.astype(np.int64))
    return F.cross_entropy(model(tokens[:, :-1]).logits.transpose(1, 2), tokens[:, 1:], reduction="none").numpy()


# --- losses ----------------------------------------------------------------------------------------------------------


def lanes_of(windows):
    """Join the windows of an epoch's steps, each [rows, context], to its lanes: [groups, rows, tokens]."""
    turns = windows.unflatten(0, (-1, LANE_GROUPS))  # [turns, groups, rows, context]
    return torch.cat([turns[0, :, :, :1], *turns[:, :, :, 1:]], -1)


@pytest.mark.parametrize("windows_at_once", [4, 3])
def test_the_training_losses_of_an_epoch_are_those_of_one_forward_over_each_lane(small_corpus, windows_at_once):
    recipe = replace(CARRIED, learning_rate=0.0, tokens=100 * RECIPE.tokens_per_step)
    stream = np.append(np.asarray(small_corpus.tokens("train"))[: LANES - 1], small_corpus.boundary)
    run = Run(recipe, stream, build_model(recipe, small_corpus), Tracking().accelerator(Path()), windows_at_once)
    steps = run.batches.steps_per_epoch
    for epoch in range(2):
        found = []
        for _ in range(steps):
            run.advance()
            found.append(run.means()[0])
        lanes = lanes_of(torch.stack([run.batches.batch(epoch * steps + step) for step in range(steps)])).numpy()
        losses = losses_of_one_forward(run.bare, lanes.reshape(-1, lanes.shape[-1]))
        expected = losses.reshape(LANE_GROUPS, RECIPE.batch_size, TURNS, STRIDE).mean((1, 3)).T.flatten()
        assert found == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("tokens", [64, WINDOWS_AT_ONCE * STRIDE + 1, WINDOWS_AT_ONCE * STRIDE + 2, 5000])
def test_a_carried_evaluation_is_one_forward_over_the_stream(small_corpus, tokens):
    model = build_model(CARRIED, small_corpus).eval()
    stream = np.asarray(small_corpus.tokens("train"))[:tokens]
    [expected] = losses_of_one_forward(model, stream[None])
    np.testing.assert_allclose(token_losses(model, stream, RECIPE.context, carry_state=True), expected, atol=1e-5)


# --- batches ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("left_over", [0, 20, 4 * LANE_GROUPS * 20 - 1], ids=["nothing", "a window", "all but a turn"])
def test_every_token_of_a_lane_is_predicted_once_in_an_epoch_and_the_next_one_begins_elsewhere(left_over):
    targets = 4 * LANE_GROUPS * TURNS * 20
    stream = np.append(np.arange(targets + left_over), 0)  # the end is the same boundary as the start
    batches = LaneBatches(stream, context=21, batch_size=4, seed=3)
    steps = batches.steps_per_epoch
    assert steps == LANE_GROUPS * TURNS
    firsts = []
    for epoch in range(3):
        windows = torch.stack([batches.batch(epoch * steps + step) for step in range(steps)])
        lanes = lanes_of(windows)
        for step, window in enumerate(windows):
            group, place = batches.turn(epoch * steps + step)
            assert torch.equal(window, lanes[group, :, place * 20 : place * 20 + 21])
        assert torch.equal(lanes[:, :, 1:], (lanes[:, :, :-1] + 1) % (targets + left_over))
        in_order = lanes.transpose(0, 1).flatten(0, 1)
        assert torch.equal(in_order[1:, 0], in_order[:-1, -1])  # a lane ends where the next one begins
        assert len(lanes[:, :, 1:].unique()) == targets
        firsts.append(int(lanes[0, 0, 0]))
    assert len(set(firsts)) == 3


@pytest.mark.parametrize(("windows", "groups"), [(4, 1), (11, 2), (4 * LANE_GROUPS + 3, LANE_GROUPS)])
def test_a_short_stream_has_fewer_groups_of_lanes(windows, groups):
    batches = LaneBatches(np.zeros(windows * 20 + 1, dtype=np.uint8), 21, 4, seed=0)
    assert (batches.groups, batches.steps_per_epoch) == (groups, groups)


def test_a_batch_of_lanes_needs_no_step_before_it():
    stream = np.append(np.random.default_rng(0).integers(1, 50, 3000), 0).astype(np.uint8)
    batches = LaneBatches(stream, 32, 4, seed=1)
    walked = [batches.batch(step) for step in range(100)]
    assert torch.equal(LaneBatches(stream, 32, 4, seed=1).batch(99), walked[99])
    assert not torch.equal(LaneBatches(stream, 32, 4, seed=2).batch(99), walked[99])


def test_a_stream_that_holds_no_window_for_each_lane_is_one_line():
    stream = np.zeros(4 * 20, dtype=np.uint8)
    with pytest.raises(DoorError, match="--batch_size 4: 80 training tokens hold no window of 21 for each lane: give"):
        LaneBatches(stream, 21, 4, seed=0)


# --- runs ------------------------------------------------------------------------------------------------------------


def interrupt(plan, corpus, step, conduct=OFTEN):
    """Train up to a step and stop behind it, before its checkpoint is written."""

    def progress(tokens, _):
        if tokens == step * plan.recipe.tokens_per_step:
            raise InterruptedRun

    with pytest.raises(InterruptedRun):
        train(plan, corpus, progress, conduct)
    assert (plan.folder / LATEST).is_file()


@pytest.fixture(scope="module")
def whole(small_corpus, tmp_path_factory):
    """A run of more than two epochs with dropout, trained in one go."""
    folder = tmp_path_factory.mktemp("whole") / "seed_0"
    record = train(Plan(SHORT_EPOCHS, folder), small_corpus, quiet, Conduct())
    assert record["epochs"] > 2
    return folder


def test_a_run_interrupted_in_an_epoch_and_between_two_ends_with_the_same_bits(small_corpus, tmp_path, whole):
    epoch = LaneBatches(small_corpus.part(1 / SHORT_EPOCHS.one_in)[0], 64, 4, 0).steps_per_epoch
    plan = Plan(SHORT_EPOCHS, tmp_path / "seed_0")
    for step in (3, epoch + 1, epoch + 4):
        interrupt(plan, small_corpus, step)
    train(plan, small_corpus, quiet, OFTEN)
    assert_same_run(plan.folder, whole)


def test_a_bf16_run_goes_on_with_the_same_bits(small_corpus, tmp_path):
    recipe = replace(CARRIED, tokens=6 * RECIPE.tokens_per_step, precision="bf16")
    train(Plan(recipe, tmp_path / "whole"), small_corpus, quiet, Conduct())
    plan = Plan(recipe, tmp_path / "interrupted")
    interrupt(plan, small_corpus, 4)
    train(plan, small_corpus, quiet, OFTEN)
    assert_same_run(plan.folder, tmp_path / "whole")


def grid_of_carried(corpus, root, **changes):
    grid = Grid(corpus, root, "lstm")
    grid.shared = replace(grid.shared, architecture="lstm", carry_state=True, **changes)
    return grid


def test_a_branch_ends_with_the_bits_of_the_same_run_trained_alone(small_corpus, tmp_path):
    alone = {}
    for plan in grid_of_carried(small_corpus, tmp_path / "alone").plans(10, 20)[1:]:
        train(replace(plan, trunk=None), small_corpus, quiet, Conduct())
        alone[plan.recipe.steps] = plan.folder
    grid = grid_of_carried(small_corpus, tmp_path / "grid")
    grid.train(10, 20)
    assert_branches_are(grid, alone, 10, 20)


def test_accumulated_windows_carry_the_states_of_the_whole_batch(small_corpus, tmp_path):
    """Also where a run went on with fewer windows at once, as after running out of memory."""
    recipe = replace(SHORT_EPOCHS, dropout=0.0)
    expected = train(Plan(recipe, tmp_path / "whole"), small_corpus, quiet, Conduct())
    interrupt(Plan(recipe, tmp_path / "less"), small_corpus, 4, replace(OFTEN, windows_at_once=3))
    found = train(Plan(recipe, tmp_path / "less"), small_corpus, quiet, replace(OFTEN, windows_at_once=1))
    assert found["windows_at_once"] == 1
    assert_close(found, expected)


def test_two_processes_go_on_from_one_and_one_from_two_as_one_does(small_corpus, tmp_path):
    """One begins a trunk, two end it, one goes on with its branch."""
    trunk, branch = grid_of_carried(small_corpus, tmp_path, dropout=0.0).plans(20)
    interrupt(trunk, small_corpus, 4)
    assert train_by_two(trunk, small_corpus) == [0, 0]
    assert read_record(trunk.folder)["processes"] == 2
    found = train(branch, small_corpus, quiet, Conduct())
    assert found["trunk"]["step"] == 16
    alone = replace(branch, folder=tmp_path / "alone", trunk=None)
    assert_close(found, train(alone, small_corpus, quiet, Conduct()))


def test_the_recorded_losses_are_those_of_one_pass(small_corpus, whole):
    model, record = load_model(str(whole)), read_record(whole)
    carried, reset = (held_out_losses(model, small_corpus, "validation", 64, carry).whole for carry in (True, False))
    assert record["validation_loss"] == pytest.approx(carried.loss, abs=1e-6)
    assert record["validation_loss_reset"] == pytest.approx(reset.loss, abs=1e-6)
    assert carried.tokens == reset.tokens == record["validation_tokens"]
    assert abs(carried.loss - reset.loss) > 1e-4
    curve = record["validation_curve"]
    start = np.asarray(small_corpus.tokens("validation"))[: curve["characters"] + 1]
    assert curve["loss"][-1] == pytest.approx(token_losses(model, start, 64, carry_state=True).mean(), abs=1e-6)


# --- recipes and records ---------------------------------------------------------------------------------------------


def test_a_gpt_with_carried_state_is_one_line(small_corpus, tmp_path, capsys):
    line = refusal(
        capsys,
        *("--corpus", small_corpus.folder, "--output_root", tmp_path, "--context", 64, "--log_with", "none"),
        *("--lstm_sizes", "15k", "--gpt_sizes", "15k", "--carry_state"),
    )
    assert line == "error: --carry_state: a GPT (15k) has no state to carry, give LSTM sizes only"


@pytest.mark.parametrize(
    ("changes", "arm"),
    [
        ({}, "tokens_12000-carried"),
        ({"schedule": WSD, "one_in": 4}, "tokens_12000-wsd-one_in_4-carried"),
        ({"schedule": "trunk"}, "trunk-carried"),
    ],
)
def test_a_folder_says_that_state_is_carried(changes, arm):
    recipe = asdict(replace(CARRIED, **changes))
    assert folder_of(Path("data"), recipe) == Path("data/LSTM_training/15k") / arm / "seed_0"
    assert folder_of(Path("data"), {**recipe, "carry_state": False}).parent.name == arm.removesuffix("-carried")


# --- analysis --------------------------------------------------------------------------------------------------------

GAIN, TRAINING_GAIN = 0.02, 0.005


def carried_twin(run):
    loss = run["validation_loss"]
    losses = {"validation_loss": loss - GAIN, "validation_loss_reset": loss - TRAINING_GAIN}
    return {**run, "recipe": {**run["recipe"], "carry_state": True}, **losses}


def write(root, runs):
    for run in runs:
        recipe = run["recipe"]
        arm = arm_of(recipe["tokens"], recipe["schedule"], recipe["one_in"], recipe.get("carry_state", False))
        write_record(run_folder(root, recipe["architecture"], recipe["size"], arm, recipe["seed"]), run)
    write_json(baseline_file(root), {"corpus": runs[0]["corpus"], "orders": []})


@pytest.fixture
def study(tmp_path):
    """LSTMs of which more carry state than not, at a budget of their own as well."""
    ladders = made_ladders()
    reset = ladders["gpt"] + ladders["lstm"]
    longer = [made_run("lstm", size, 0, 1e5, 1.4, tokens=2_000_000) for size in ("20k", "54k")]
    for run in longer:
        run["recipe"]["carry_state"] = True
    write(tmp_path, reset + [carried_twin(run) for run in ladders["lstm"]] + longer)
    return tmp_path, ladders


def test_runs_with_carried_state_are_not_of_the_main_budget(study):
    root, ladders = study
    found = read_ladders(root)
    assert {name: len(ladder.finished) for name, ladder in found.items()} == {"gpt": 24, "lstm": 24}
    assert not any(run["recipe"].get("carry_state") for run in found["lstm"].finished)
    assert sum(run["recipe"]["carry_state"] for run in found["lstm"].others) == len(ladders["lstm"]) + 2


def test_no_law_is_of_runs_with_carried_state_but_their_difference_is_told(study):
    root, _ = study
    found = Study(of_folders(root, [], root))
    for members in (found.main, found.runs):
        assert {name: len(runs) for name, runs in members.items()} == {"gpt": 24, "lstm": 24}
        assert not any(run["recipe"].get("carry_state") for run in members["lstm"])
    rows = arm_differences(found.every["lstm"])
    for kind, gain in ((STATE, GAIN), (STATE_RESET, TRAINING_GAIN)):
        mine = [row for row in rows if row["against"] == kind]
        assert [row["seeds"] for row in mine] == [3] * 8
        assert [row["difference"] for row in mine] == pytest.approx([-gain] * 8)
    assert len(rows) == 16
    assert arm_differences(found.every["gpt"]) == []


def test_carried_state_is_compared_on_the_same_part_in_the_same_keys():
    def runs(one_in, keys, reset, carried):
        run = made_run("lstm", "20k", 0, 2e4, reset, one_in=one_in, keys=keys)
        other = made_run("lstm", "20k", 0, 2e4, carried, one_in=one_in, keys=keys)
        other["recipe"]["carry_state"] = True
        other["validation_loss_reset"] = carried + 0.03
        return [run, other]

    rows = arm_differences([*runs(1, 1, 2.0, 1.9), *runs(4, 1, 2.5, 2.8), *runs(1, 12, 1.8, 1.79)])
    found = {(row["against"], row["one_in"], row["keys"]): row["difference"] for row in rows}
    expected = {
        ("state", 1, 1): -0.1,
        ("state", 4, 1): 0.3,
        ("state", 1, 12): -0.01,
        ("state reset", 1, 1): -0.07,
        ("state reset", 4, 1): 0.33,
        ("state reset", 1, 12): 0.02,
        ("part", 4, 1): 0.5,
        ("keys", 1, 12): -0.2,
    }
    assert found == pytest.approx(expected)


def test_what_more_passes_over_a_part_change_is_told_apart_from_the_budget():
    runs = [
        made_run("lstm", "20k", seed, 2e4, loss + 0.01 * seed, one_in=one_in, tokens=tokens)
        for one_in, losses in ((1, (2.0, 1.8, 1.7)), (16, (2.2, 2.1, 2.4)))
        for tokens, loss in zip((1_000_000, 2_000_000, 8_000_000), losses, strict=True)
        for seed in (0, 1)
    ]
    rows = [row for row in arm_differences(runs) if row["against"] == LONGER]
    found = [(row["one_in"], row["from_budget"], row["budget"], row["seeds"], row["difference"]) for row in rows]
    assert found == [
        (16, 1_000_000, 2_000_000, 2, pytest.approx(-0.1)),
        (16, 2_000_000, 8_000_000, 2, pytest.approx(0.3)),
    ]
