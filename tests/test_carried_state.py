"""An LSTM that carries its state from window to window: losses, batches, resumption, place in a study."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from made_runs import made_ladders, made_run, write_study
from small_runs import build_model, train
from test_distributed import assert_close, train_by_two
from test_exactness import Grid, assert_branches_are
from test_training import CONFIG, OFTEN, InterruptedRun, assert_same_run, quiet, refusal
from torch.nn import functional as F

from cli import UserError
from modeling.loading import load_model
from training.batches import StreamBatches
from training.checkpoint import LATEST
from training.config import STREAMS, WSD
from training.evaluation import EVALUATION_BATCH, held_out_losses, token_losses
from training.loop import ExecutionConfig, Plan
from training.record import read_ladders, read_record, run_folder
from training.tracking import Tracking
from training.trainer import Trainer

CARRIED = replace(CONFIG, architecture="lstm", sequences=STREAMS)
STRIDE = CONFIG.context - 1
SHORT_EPOCHS = replace(CARRIED, dropout=0.1, data_fraction=1 / 16, tokens=24 * CONFIG.tokens_per_step)
GROUPS = CONFIG.stream_groups
TURNS = 3  # sequences of a stream in an epoch of the data of LANES
LANES = CONFIG.batch_size * GROUPS * TURNS * STRIDE + 1


@torch.no_grad()
def losses_of_one_forward(model, rows):
    """Return the loss of each token of rows [rows, tokens] but the first, from zero state."""
    tokens = torch.from_numpy(rows.astype(np.int64))
    return F.cross_entropy(model(tokens[:, :-1]).logits.transpose(1, 2), tokens[:, 1:], reduction="none").numpy()


# --- losses ----------------------------------------------------------------------------------------------------------


def lanes_of(windows):
    """Join the windows of an epoch's steps, each [rows, context], to its lanes: [groups, rows, tokens]."""
    turns = windows.unflatten(0, (-1, GROUPS))  # [turns, groups, rows, context]
    return torch.cat([turns[0, :, :, :1], *turns[:, :, :, 1:]], -1)


@pytest.mark.parametrize("micro_batch_size", [4, 3])
def test_the_training_losses_of_an_epoch_are_those_of_one_forward_over_each_lane(small_corpus, micro_batch_size):
    config = replace(CARRIED, learning_rate=0.0, tokens=100 * CONFIG.tokens_per_step)
    stream = np.append(np.asarray(small_corpus.tokens("train"))[: LANES - 1], small_corpus.boundary)
    run = Trainer(config, stream, build_model(config, small_corpus), Tracking().accelerator(Path()), micro_batch_size)
    steps = run.batches.steps_per_epoch
    for epoch in range(2):
        found = []
        for _ in range(steps):
            run.advance()
            found.append(run.means()[0])
        lanes = lanes_of(torch.stack([run.batches.batch(epoch * steps + step) for step in range(steps)])).numpy()
        losses = losses_of_one_forward(run.bare, lanes.reshape(-1, lanes.shape[-1]))
        expected = losses.reshape(GROUPS, CONFIG.batch_size, TURNS, STRIDE).mean((1, 3)).T.flatten()
        assert found == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("tokens", [64, EVALUATION_BATCH * STRIDE + 1, EVALUATION_BATCH * STRIDE + 2, 5000])
def test_a_carried_evaluation_is_one_forward_over_the_stream(small_corpus, tokens):
    model = build_model(CARRIED, small_corpus).eval()
    stream = np.asarray(small_corpus.tokens("train"))[:tokens]
    [expected] = losses_of_one_forward(model, stream[None])
    np.testing.assert_allclose(token_losses(model, stream, CONFIG.context, stateful=True), expected, atol=1e-5)


# --- batches ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("left_over", [0, 20, 4 * GROUPS * 20 - 1], ids=["nothing", "a window", "all but a turn"])
def test_every_token_of_a_lane_is_predicted_once_in_an_epoch_and_the_next_one_begins_elsewhere(left_over):
    targets = 4 * GROUPS * TURNS * 20
    stream = np.append(np.arange(targets + left_over), 0)  # the end is the same boundary as the start
    batches = StreamBatches(stream, context=21, batch_size=4, seed=3, groups=GROUPS)
    steps = batches.steps_per_epoch
    assert steps == GROUPS * TURNS
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


@pytest.mark.parametrize(("windows", "groups"), [(4, 1), (11, 2), (4 * GROUPS + 3, GROUPS)])
def test_a_short_stream_has_fewer_groups_of_lanes(windows, groups):
    batches = StreamBatches(np.zeros(windows * 20 + 1, dtype=np.uint8), 21, 4, seed=0, groups=GROUPS)
    assert (batches.groups, batches.steps_per_epoch) == (groups, groups)


def test_a_batch_of_lanes_needs_no_step_before_it():
    stream = np.append(np.random.default_rng(0).integers(1, 50, 3000), 0).astype(np.uint8)
    batches = StreamBatches(stream, 32, 4, seed=1, groups=GROUPS)
    walked = [batches.batch(step) for step in range(100)]
    assert torch.equal(StreamBatches(stream, 32, 4, seed=1, groups=GROUPS).batch(99), walked[99])
    assert not torch.equal(StreamBatches(stream, 32, 4, seed=2, groups=GROUPS).batch(99), walked[99])


def test_a_stream_that_holds_no_window_for_each_lane_is_one_line():
    stream = np.zeros(4 * 20, dtype=np.uint8)
    with pytest.raises(UserError, match="--batch_size 4: 80 training tokens hold no sequence of 21 for each row: give"):
        StreamBatches(stream, 21, 4, seed=0, groups=GROUPS)


# --- runs ------------------------------------------------------------------------------------------------------------


def interrupt(plan, corpus, step, conduct=OFTEN):
    """Train up to a step and stop behind it, before its checkpoint is written."""

    def progress(tokens, _):
        if tokens == step * plan.config.tokens_per_step:
            raise InterruptedRun

    with pytest.raises(InterruptedRun):
        train(plan, corpus, progress, conduct)
    assert (plan.folder / LATEST).is_file()


@pytest.fixture(scope="module")
def whole(small_corpus, tmp_path_factory):
    """A run of more than two epochs with dropout, trained in one go."""
    folder = tmp_path_factory.mktemp("whole") / "seed_0"
    record = train(Plan(SHORT_EPOCHS, folder), small_corpus, quiet, ExecutionConfig())
    assert record.epochs > 2
    return folder


def test_a_run_interrupted_in_an_epoch_and_between_two_ends_with_the_same_bits(small_corpus, tmp_path, whole):
    epoch = StreamBatches(small_corpus.part(SHORT_EPOCHS.data_fraction)[0], 64, 4, 0, GROUPS).steps_per_epoch
    plan = Plan(SHORT_EPOCHS, tmp_path / "seed_0")
    for step in (3, epoch + 1, epoch + 4):
        interrupt(plan, small_corpus, step)
    train(plan, small_corpus, quiet, OFTEN)
    assert_same_run(plan.folder, whole)


def test_a_bf16_run_goes_on_with_the_same_bits(small_corpus, tmp_path):
    config = replace(CARRIED, tokens=6 * CONFIG.tokens_per_step, precision="bf16")
    train(Plan(config, tmp_path / "whole"), small_corpus, quiet, ExecutionConfig())
    plan = Plan(config, tmp_path / "interrupted")
    interrupt(plan, small_corpus, 4)
    train(plan, small_corpus, quiet, OFTEN)
    assert_same_run(plan.folder, tmp_path / "whole")


def grid_of_carried(corpus, root, **changes):
    grid = Grid(corpus, root, "lstm")
    grid.recipe = replace(grid.recipe, sequences=STREAMS, **changes)
    return grid


def test_a_branch_ends_with_the_bits_of_the_same_run_trained_alone(small_corpus, tmp_path):
    alone = {}
    for plan in grid_of_carried(small_corpus, tmp_path / "alone").plans(10, 20)[1:]:
        train(replace(plan, trunk=None), small_corpus, quiet, ExecutionConfig())
        alone[plan.config.steps] = plan.folder
    grid = grid_of_carried(small_corpus, tmp_path / "grid")
    grid.train(10, 20)
    assert_branches_are(grid, alone, 10, 20)


def test_accumulated_windows_carry_the_states_of_the_whole_batch(small_corpus, tmp_path):
    """Also where a run went on with fewer windows at once, as after running out of memory."""
    config = replace(SHORT_EPOCHS, dropout=0.0)
    expected = train(Plan(config, tmp_path / "whole"), small_corpus, quiet, ExecutionConfig())
    interrupt(Plan(config, tmp_path / "less"), small_corpus, 4, replace(OFTEN, micro_batch_size=3))
    found = train(Plan(config, tmp_path / "less"), small_corpus, quiet, replace(OFTEN, micro_batch_size=1))
    assert found.micro_batch_size == 1
    assert_close(found, expected)


def test_two_processes_go_on_from_one_and_one_from_two_as_one_does(small_corpus, tmp_path):
    """One begins a trunk, two end it, one goes on with its branch."""
    trunk, branch = grid_of_carried(small_corpus, tmp_path, dropout=0.0).plans(20)
    interrupt(trunk, small_corpus, 4)
    assert train_by_two(trunk, small_corpus) == [0, 0]
    assert read_record(trunk.folder).processes == 2
    found = train(branch, small_corpus, quiet, ExecutionConfig())
    assert found.trunk["step"] == 16
    alone = replace(branch, folder=tmp_path / "alone", trunk=None)
    assert_close(found, train(alone, small_corpus, quiet, ExecutionConfig()))


def test_the_recorded_losses_are_those_of_one_pass(small_corpus, whole):
    model, record = load_model(str(whole)), read_record(whole)
    carried, reset = (held_out_losses(model, small_corpus, "validation", 64, carry).whole for carry in (True, False))
    assert record.validation_loss == pytest.approx(carried.loss, abs=1e-6)
    assert record.validation_loss_reset == pytest.approx(reset.loss, abs=1e-6)
    assert carried.tokens == reset.tokens == record.validation_tokens
    assert abs(carried.loss - reset.loss) > 1e-4
    curve = record.validation_curve
    start = np.asarray(small_corpus.tokens("validation"))[: curve["characters"] + 1]
    assert curve["loss"][-1] == pytest.approx(token_losses(model, start, 64, stateful=True).mean(), abs=1e-6)


# --- recipes and records ---------------------------------------------------------------------------------------------


def test_a_gpt_on_streams_is_refused(small_corpus, tmp_path, capsys):
    line = refusal(
        capsys,
        *("--corpus", small_corpus.folder, "--output_root", tmp_path, "--context", 64, "--log_with", "none"),
        *("--lstm_sizes", "15k", "--gpt_sizes", "15k", "--sequences", STREAMS),
    )
    assert "--sequences streams: a GPT (15k)" in line


@pytest.mark.parametrize(
    ("changes", "variant"),
    [
        ({}, "tokens_12000-streams"),
        ({"schedule": WSD, "data_fraction": 0.25}, "tokens_12000-wsd-fraction_0.25-streams"),
        ({"schedule": "trunk"}, "trunk-streams"),
    ],
)
def test_a_folder_says_that_training_is_stateful(changes, variant):
    config = replace(CARRIED, **changes)
    assert run_folder(Path("data"), config) == Path("data/LSTM_training/15k") / variant / "seed_0"
    windows = replace(config, sequences="windows")
    assert run_folder(Path("data"), windows).parent.name == variant.removesuffix("-streams")


# --- analysis --------------------------------------------------------------------------------------------------------

GAIN, TRAINING_GAIN = 0.02, 0.005


def stateful(run, **losses):
    return run | {"sequences": STREAMS, "stateful": True} | losses


def carried_twin(run):
    loss = run["validation_loss"]
    return stateful(run, validation_loss=loss - GAIN, validation_loss_reset=loss - TRAINING_GAIN)


@pytest.fixture
def study(tmp_path):
    """LSTMs of which more are stateful than not, at a budget of their own as well."""
    ladders = made_ladders()
    longer = [stateful(made_run("lstm", size, 0, 1e5, 1.4, tokens=2_000_000)) for size in ("20k", "54k")]
    lstm = ladders["lstm"] + [carried_twin(run) for run in ladders["lstm"]] + longer
    write_study(tmp_path, {"gpt": ladders["gpt"], "lstm": lstm})
    return tmp_path, ladders


def test_runs_with_carried_state_are_not_of_the_main_budget(study):
    root, ladders = study
    found = read_ladders(root)
    assert {name: len(ladder.finished) for name, ladder in found.items()} == {"gpt": 24, "lstm": 24}
    assert not any(run.config.stateful for run in found["lstm"].finished)
    assert sum(run.config.stateful for run in found["lstm"].others) == len(ladders["lstm"]) + 2
