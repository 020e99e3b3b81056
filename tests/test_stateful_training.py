"""Stateful training of LSTMs: losses, batches of contiguous streams, resuming and records."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from small_runs import build_model, quiet, train
from test_distributed import assert_close, train_by_two
from test_exactness import Grid
from test_single_run import CONFIG, OFTEN, assert_same_run, interrupt
from torch.nn import functional as F

from cli import UserError
from modeling.loading import load_model
from training import single_run
from training.batches import StreamBatches
from training.config import STREAMS, WSD
from training.evaluation import EVALUATION_BATCH, held_out_losses, token_losses
from training.execution import Tracking
from training.record import read_record, run_folder
from training.trainer import Trainer

STATEFUL = replace(CONFIG, architecture="lstm", sequences=STREAMS)
STRIDE = CONFIG.context - 1
SHORT_EPOCHS = replace(STATEFUL, dropout=0.1, data_fraction=1 / 16, tokens=24 * CONFIG.tokens_per_step)
GROUPS = CONFIG.stream_groups
TURNS = 3  # sequences of a stream in an epoch
TOKENS = CONFIG.batch_size * GROUPS * TURNS * STRIDE + 1


@torch.no_grad()
def losses_of_one_forward(model, rows):
    """Return the loss of each token of rows [rows, tokens] but the first, from zero state."""
    tokens = torch.from_numpy(rows.astype(np.int64))
    return F.cross_entropy(model(tokens[:, :-1]).logits.transpose(1, 2), tokens[:, 1:], reduction="none").numpy()


def streams_of(batches):
    """Join the batches of an epoch, [steps, rows, context], to its streams: [groups, rows, tokens]."""
    turns = batches.unflatten(0, (-1, GROUPS))  # [turns, groups, rows, context]
    return torch.cat([turns[0, :, :, :1], *turns[:, :, :, 1:]], -1)


@pytest.mark.parametrize("micro_batch_size", [4, 3])
def test_the_training_losses_of_an_epoch_are_those_of_one_forward_over_each_stream(small_corpus, micro_batch_size):
    config = replace(STATEFUL, learning_rate=0.0, tokens=100 * CONFIG.tokens_per_step)
    data = np.append(np.asarray(small_corpus.tokens("train"))[: TOKENS - 1], small_corpus.boundary)
    trainer = Trainer(config, data, build_model(config, small_corpus), Tracking().accelerator(Path()), micro_batch_size)
    steps = trainer.batches.steps_per_epoch
    for epoch in range(2):
        found = []
        for _ in range(steps):
            trainer.advance()
            found.append(trainer.means()[0])
        streams = streams_of(
            torch.stack([trainer.batches.batch(epoch * steps + step) for step in range(steps)])
        ).numpy()
        losses = losses_of_one_forward(trainer.bare, streams.reshape(-1, streams.shape[-1]))
        expected = losses.reshape(GROUPS, CONFIG.batch_size, TURNS, STRIDE).mean((1, 3)).T.flatten()
        assert found == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("tokens", [64, EVALUATION_BATCH * STRIDE + 1, EVALUATION_BATCH * STRIDE + 2, 5000])
def test_a_stateful_evaluation_is_one_forward_over_the_stream(small_corpus, tokens):
    model = build_model(STATEFUL, small_corpus).eval()
    stream = np.asarray(small_corpus.tokens("train"))[:tokens]
    [expected] = losses_of_one_forward(model, stream[None])
    np.testing.assert_allclose(token_losses(model, stream, CONFIG.context, stateful=True), expected, atol=1e-5)


# --- batches ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("left_over", [0, 20, 4 * GROUPS * 20 - 1], ids=["nothing", "a sequence", "all but a turn"])
def test_every_token_of_a_stream_is_predicted_once_in_an_epoch_and_the_next_one_begins_elsewhere(left_over):
    targets = 4 * GROUPS * TURNS * 20
    data = np.append(np.arange(targets + left_over), 0)  # the end is the same boundary as the start
    batches = StreamBatches(data, context=21, batch_size=4, seed=3, groups=GROUPS)
    steps = batches.steps_per_epoch
    assert steps == GROUPS * TURNS
    firsts = []
    for epoch in range(3):
        found = torch.stack([batches.batch(epoch * steps + step) for step in range(steps)])
        streams = streams_of(found)
        for step, batch in enumerate(found):
            group, turn = batches.turn(epoch * steps + step)
            assert torch.equal(batch, streams[group, :, turn * 20 : turn * 20 + 21])
        assert torch.equal(streams[:, :, 1:], (streams[:, :, :-1] + 1) % (targets + left_over))
        in_order = streams.transpose(0, 1).flatten(0, 1)
        assert torch.equal(in_order[1:, 0], in_order[:-1, -1])  # a stream ends where the next one begins
        assert len(streams[:, :, 1:].unique()) == targets
        firsts.append(int(streams[0, 0, 0]))
    assert len(set(firsts)) == 3


@pytest.mark.parametrize(("sequences", "groups"), [(4, 1), (11, 2), (4 * GROUPS + 3, GROUPS)])
def test_short_data_have_fewer_groups_of_streams(sequences, groups):
    batches = StreamBatches(np.zeros(sequences * 20 + 1, dtype=np.uint8), 21, 4, seed=0, groups=GROUPS)
    assert (batches.groups, batches.steps_per_epoch) == (groups, groups)
    with pytest.raises(UserError, match="--batch_size 4"):
        StreamBatches(np.zeros(4 * 20, dtype=np.uint8), 21, 4, seed=0, groups=GROUPS)


def test_a_batch_of_streams_depends_on_seed_and_step_alone():
    data = np.append(np.random.default_rng(0).integers(1, 50, 3000), 0).astype(np.uint8)
    batches = StreamBatches(data, 32, 4, seed=1, groups=GROUPS)
    walked = [batches.batch(step) for step in range(100)]
    assert torch.equal(StreamBatches(data, 32, 4, seed=1, groups=GROUPS).batch(99), walked[99])
    assert not torch.equal(StreamBatches(data, 32, 4, seed=2, groups=GROUPS).batch(99), walked[99])


# --- runs ------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def whole(small_corpus, tmp_path_factory):
    """A run of more than two epochs with dropout, trained without interruption."""
    folder = tmp_path_factory.mktemp("whole") / "seed_0"
    assert train(SHORT_EPOCHS, folder, small_corpus).epochs > 2
    return folder


def test_a_run_interrupted_in_an_epoch_and_between_two_ends_with_the_same_bits(small_corpus, tmp_path, whole):
    epoch = StreamBatches(small_corpus.part(SHORT_EPOCHS.data_fraction)[0], 64, 4, 0, GROUPS).steps_per_epoch
    for step in (3, epoch + 1, epoch + 4):
        interrupt(SHORT_EPOCHS, tmp_path / "seed_0", small_corpus, step * CONFIG.tokens_per_step)
    train(SHORT_EPOCHS, tmp_path / "seed_0", small_corpus, OFTEN)
    assert_same_run(tmp_path / "seed_0", whole)


def test_a_bf16_run_resumes_with_the_same_bits(small_corpus, tmp_path):
    config = replace(STATEFUL, tokens=6 * CONFIG.tokens_per_step, precision="bf16")
    train(config, tmp_path / "whole", small_corpus)
    interrupt(config, tmp_path / "interrupted", small_corpus, 4 * CONFIG.tokens_per_step)
    train(config, tmp_path / "interrupted", small_corpus, OFTEN)
    assert_same_run(tmp_path / "interrupted", tmp_path / "whole")


def test_accumulated_pieces_use_the_states_of_their_rows_also_after_the_piece_size_changed(small_corpus, tmp_path):
    config = replace(SHORT_EPOCHS, dropout=0.0)
    expected = train(config, tmp_path / "whole", small_corpus)
    less = replace(OFTEN, micro_batch_size=3)
    interrupt(config, tmp_path / "less", small_corpus, 4 * CONFIG.tokens_per_step, less)
    found = train(config, tmp_path / "less", small_corpus, replace(OFTEN, micro_batch_size=1))
    assert found.micro_batch_size == 1
    assert_close(found, expected)


def test_two_processes_continue_the_run_of_one_and_one_that_of_two(small_corpus, tmp_path):
    """One begins a trunk, two end it, one continues with its branch."""
    trunk, branch = Grid(small_corpus, tmp_path, "lstm", dropout=0.0, sequences=STREAMS).runs(20)
    interrupt(trunk.config, trunk.folder, small_corpus, 4 * CONFIG.tokens_per_step, keep_at=trunk.keep_at)
    assert train_by_two(trunk, small_corpus) == [0, 0]
    assert read_record(trunk.folder).processes == 2
    found = single_run.train(branch, small_corpus, quiet, OFTEN)
    assert found.trunk["step"] == 16
    alone = replace(branch, folder=tmp_path / "alone", trunk=None)
    assert_close(found, single_run.train(alone, small_corpus, quiet, OFTEN))


def test_the_recorded_losses_are_those_of_one_pass(small_corpus, whole):
    model, record = load_model(str(whole)), read_record(whole)
    stateful, reset = (held_out_losses(model, small_corpus, "validation", 64, one).whole for one in (True, False))
    assert record.validation_loss == pytest.approx(stateful.loss, abs=1e-6)
    assert record.validation_loss_reset == pytest.approx(reset.loss, abs=1e-6)
    assert stateful.tokens == reset.tokens == record.validation_tokens
    assert abs(stateful.loss - reset.loss) > 1e-4
    curve = record.validation_curve
    start = np.asarray(small_corpus.tokens("validation"))[: curve["characters"] + 1]
    assert curve["loss"][-1] == pytest.approx(token_losses(model, start, 64, stateful=True).mean(), abs=1e-6)


@pytest.mark.parametrize(
    ("changes", "variant"),
    [
        ({}, "tokens_12000-streams"),
        ({"schedule": WSD, "data_fraction": 0.25}, "tokens_12000-wsd-fraction_0.25-streams"),
        ({"schedule": "trunk"}, "trunk-streams"),
    ],
)
def test_a_folder_name_says_that_training_is_stateful(changes, variant):
    config = replace(STATEFUL, **changes)
    assert run_folder(Path("data"), config) == Path("data/LSTM_training/15k") / variant / "seed_0"
    windows = replace(config, sequences="windows")
    assert run_folder(Path("data"), windows).parent.name == variant.removesuffix("-streams")
