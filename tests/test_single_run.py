"""One run: what it records, how it resumes, and how it fails."""

import re
from dataclasses import replace
from pathlib import Path
from shutil import copytree

import numpy as np
import pytest
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from small_runs import build_model, made_config, planned, train
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import AutoModelForCausalLM, GPT2LMHeadModel

from cli import UserError
from preprocessing.corpus import Corpus
from training import single_run
from training.evaluation import token_losses
from training.execution import ExecutionConfig, Tracking
from training.record import read_ladders, read_record, run_folder
from training.saving import LATEST, PREVIOUS, as_os_error, save_model
from training.trainer import Trainer

CONFIG = made_config()
SHORT = replace(CONFIG, tokens=3_000)
OFTEN = ExecutionConfig(checkpoint_seconds=0)
VOLATILE = {
    *("seconds", "seconds_evaluation", "seconds_saving", "tokens_per_second", "flops_per_second", "started"),
    "peak_memory_bytes",
}
ARCHITECTURES = ["gpt", "lstm"]


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


class InterruptedRun(Exception):  # noqa: N818 - not an error
    pass


def interrupt(config, folder, corpus, tokens, execution=OFTEN, **relations):
    """Train and stop after `tokens`, before the checkpoint of that step."""

    def progress(done, _):
        if done >= tokens:
            raise InterruptedRun

    with pytest.raises(InterruptedRun):
        train(config, folder, corpus, execution, progress, **relations)
    assert (folder / LATEST).is_file()
    assert read_record(folder) is None


@pytest.fixture(scope="module")
def uninterrupted(small_corpus, tmp_path_factory):
    """A run of each architecture, with dropout, trained without interruption."""
    folders = {architecture: tmp_path_factory.mktemp(architecture) for architecture in ARCHITECTURES}
    for architecture, folder in folders.items():
        train(replace(CONFIG, architecture=architecture, dropout=0.1), folder, small_corpus)
    return folders


# --- what it records -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_run_learns_its_record_adds_up_and_its_model_loads_with_the_recorded_loss(
    uninterrupted, small_corpus, architecture
):
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
    assert record.versions["torch"].split("+")[0] == torch.__version__.split("+")[0]
    assert record.test_loss is None  # the test split is for the best model, once
    model = AutoModelForCausalLM.from_pretrained(uninterrupted[architecture])
    losses = token_losses(model, np.asarray(small_corpus.tokens("validation")), 64)
    assert losses.mean() == pytest.approx(record.validation_loss, rel=1e-5)
    assert model.num_parameters() == record.n_params


def test_a_run_on_a_fraction_of_the_data_records_what_it_saw(small_corpus, tmp_path):
    record = train(replace(SHORT, data_fraction=0.25), tmp_path, small_corpus)
    stream, unique = small_corpus.part(0.25)
    assert record.unique_tokens == unique < 0.4 * small_corpus.part()[1]
    assert record.epochs == pytest.approx(record.tokens / (len(stream) - 1))
    assert record.split_hashes == small_corpus.split_hashes


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_bf16_trains_to_nearly_the_loss_of_fp32(small_corpus, tmp_path, architecture):
    config = replace(CONFIG, architecture=architecture, tokens=6_000)
    single, half = (
        train(replace(config, precision=precision), tmp_path / precision, small_corpus).validation_loss
        for precision in ("fp32", "bf16")
    )
    assert half != single
    assert half == pytest.approx(single, abs=0.05)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_accumulated_pieces_of_a_batch_give_the_loss_curve_of_the_whole_batch(small_corpus, tmp_path, architecture):
    config = replace(SHORT, architecture=architecture)
    whole, *others = (
        train(config, tmp_path / str(size), small_corpus, ExecutionConfig(micro_batch_size=size)) for size in (0, 1, 3)
    )
    for other in others:
        np.testing.assert_allclose(other.train_curve["loss"], whole.train_curve["loss"], atol=1e-5)
    assert [record.micro_batch_size for record in (whole, *others)] == [4, 1, 3]


class Readings(TorchDispatchMode):
    """Counts how often a value is read from the device."""

    count = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.count += function is torch.ops.aten._local_scalar_dense.default
        return function(*args, **(kwargs or {}))


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_step_reads_nothing_from_the_device_so_that_a_gpu_never_waits(small_corpus, architecture):
    config = replace(CONFIG, architecture=architecture)
    stream = np.asarray(small_corpus.tokens("train"))
    trainer = Trainer(config, stream, build_model(config, small_corpus), Tracking().accelerator(Path()), 2)
    with Readings() as readings:
        trainer.advance()
        assert readings.count == 0
        trainer.means()
        assert readings.count == 2


def test_dropout_masks_depend_on_the_step_not_on_earlier_draws(small_corpus, tmp_path):
    config = replace(CONFIG, dropout=0.3, tokens=2_000)
    torch.manual_seed(1)
    first = train(config, tmp_path / "a", small_corpus)
    torch.manual_seed(2)
    second = train(config, tmp_path / "b", small_corpus, progress=lambda *_: torch.rand(7))
    assert first.train_curve["loss"] == second.train_curve["loss"]


def test_the_memory_of_a_run_does_not_include_a_larger_one_before_it_in_the_same_process(small_corpus, tmp_path):
    large = train(replace(SHORT, size="tiny"), tmp_path / "large", small_corpus)
    small = train(replace(SHORT, tokens=6_000), tmp_path / "small", small_corpus)
    assert large.peak_memory_bytes > 16 * large.n_params  # weights, gradients and two moments
    assert small.peak_memory_bytes < large.peak_memory_bytes / 3


def test_a_model_is_not_saved_with_weights_missing_or_of_another_model(small_corpus, tmp_path):
    for architecture in ARCHITECTURES:
        model = build_model(made_config(architecture), small_corpus)
        weights = dict(model.named_parameters())
        name = next(name for name in weights if "weight" in name and "wte" not in name and "embed" not in name)
        for wrong in ({k: v for k, v in weights.items() if k != name}, {**weights, "more.weight": weights[name]}):
            with pytest.raises(ValueError, match=re.escape(name) if len(wrong) < len(weights) else "more.weight"):
                save_model(model.config, wrong, small_corpus, tmp_path / architecture)
        save_model(model.config, weights, small_corpus, tmp_path / architecture)
        found = AutoModelForCausalLM.from_pretrained(tmp_path / architecture)
        assert all(torch.equal(value, weights[key]) for key, value in found.named_parameters())


# --- resuming --------------------------------------------------------------------------------------------------------


def test_a_finished_run_is_not_trained_again(uninterrupted, small_corpus):
    config = replace(CONFIG, dropout=0.1)
    train(config, uninterrupted["gpt"], small_corpus, progress=lambda *_: pytest.fail("trained"))


def test_a_finished_run_of_another_configuration_or_corpus_is_refused_by_the_field_that_differs(
    uninterrupted, small_corpus, monkeypatch
):
    with pytest.raises(UserError, match="tokens 12000, not 24000"):
        train(replace(CONFIG, dropout=0.1, tokens=24_000), uninterrupted["gpt"], small_corpus)
    monkeypatch.setattr(Corpus, "digest", lambda _: "another")
    with pytest.raises(UserError, match=r"corpus '\w+', not 'another'"):
        train(replace(CONFIG, dropout=0.1), uninterrupted["gpt"], small_corpus)


DAMAGES = {
    "cut": lambda content: content[: len(content) // 2],
    "empty": lambda _: b"",
    "garbage": lambda _: b"not a checkpoint",
    "one bit": lambda content: content[:-5] + bytes([content[-5] ^ 1]) + content[-4:],
}


@pytest.fixture(scope="module")
def half_way(small_corpus, tmp_path_factory):
    """A short run's record, and a folder in which the same run was interrupted."""
    record = train(SHORT, tmp_path_factory.mktemp("short"), small_corpus)
    folder = tmp_path_factory.mktemp("half") / "way"
    interrupt(SHORT, folder, small_corpus, 1_600)
    return record, folder


@pytest.mark.parametrize("names", [[LATEST], [LATEST, PREVIOUS]], ids=["the last", "both"])
@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES.keys())
def test_after_a_damaged_checkpoint_the_previous_one_or_the_start_is_used(
    small_corpus, half_way, tmp_path, capsys, damage, names
):
    expected, before = half_way
    folder = copytree(before, tmp_path / "damaged")
    for name in names:
        (folder / name).write_bytes(damage((folder / name).read_bytes()))
    found = train(SHORT, folder, small_corpus)
    warnings = capsys.readouterr().err.splitlines()
    assert [name in warning for name, warning in zip(names, warnings, strict=True)] == [True] * len(names)
    assert ("resuming from step 0" in warnings[0]) == (len(names) == 2)
    assert comparable(found) == comparable(expected)


def test_a_checkpoint_of_another_run_and_a_damaged_record_are_refused_by_name(small_corpus, half_way, tmp_path):
    with pytest.raises(UserError, match=f"{LATEST} belongs to another config"):
        train(replace(SHORT, seed=1), half_way[1], small_corpus)
    (tmp_path / "record.json").write_text('{"status": "fini')
    with pytest.raises(UserError, match=r"record\.json is damaged"):
        train(CONFIG, tmp_path, small_corpus)


def test_an_error_of_safetensors_is_reported_as_that_of_the_system(tmp_path):
    assert as_os_error(SafetensorError("I/O error: No such file or directory (os error 2)"), tmp_path).errno == 2
    assert isinstance(as_os_error(SafetensorError("InvalidHeader"), tmp_path), SafetensorError)


# --- failing ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "changes", [{"learning_rate": 1e12}, {"weight_decay": 1e30}, {"learning_rate": 30.0, "tokens": 200_000}], ids=str
)
def test_a_run_that_diverges_ends_early_is_recorded_with_its_reason_and_never_fitted(small_corpus, tmp_path, changes):
    config = replace(CONFIG, **changes)
    folder = run_folder(tmp_path, config)
    record = train(config, folder, small_corpus)
    assert record.status == "diverged"
    assert "loss is" in record.reason
    assert record.tokens < 100_000
    assert record.validation_loss is None
    assert not (folder / "model.safetensors").exists()
    ladder = read_ladders(tmp_path)["gpt"]
    assert (len(ladder.finished), len(ladder.unfinished)) == (0, 1)


def exhausted_above(sequences):
    """A forward pass that has memory for so many sequences."""
    forward = GPT2LMHeadModel.forward

    def limited(self, input_ids, **options):
        if len(input_ids) > sequences and self.training:
            raise RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 9")
        return forward(self, input_ids=input_ids, **options)

    return limited


def test_if_memory_is_short_the_batch_is_accumulated_from_fewer_sequences(small_corpus, tmp_path, monkeypatch, capsys):
    expected = train(SHORT, tmp_path / "a", small_corpus)
    monkeypatch.setattr(GPT2LMHeadModel, "forward", exhausted_above(1))
    found = train(SHORT, tmp_path / "b", small_corpus)
    assert (found.micro_batch_size, found.tokens) == (1, expected.tokens)
    np.testing.assert_allclose(found.train_curve["loss"], expected.train_curve["loss"], atol=1e-5)
    assert "out of memory" in capsys.readouterr().err


def test_without_memory_for_one_sequence_a_run_fails(small_corpus, tmp_path, monkeypatch):
    monkeypatch.setattr(GPT2LMHeadModel, "forward", exhausted_above(0))
    with pytest.raises(single_run.OutOfMemoryError):
        train(SHORT, tmp_path, small_corpus)
    assert not list(tmp_path.iterdir())
    assert planned(SHORT, tmp_path, small_corpus).record(small_corpus).status == "not run"
