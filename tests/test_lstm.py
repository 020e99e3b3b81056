"""The LSTM as a Hugging Face model: recurrence, padding, generation, initialisation, saving and loading."""

import ast
import copy
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from modeling.configuration_abc_lstm import AbcLstmConfig
from modeling.models import AbcLstmForCausalLM

VOCAB, PAD = 20, 0
SAVED_CODE = {"configuration_abc_lstm.py", "modeling_abc_lstm.py"}


def build(seed: int = 0, **changes) -> AbcLstmForCausalLM:
    torch.manual_seed(seed)
    shape = {"vocab_size": VOCAB, "embedding_size": 12, "hidden_size": 16, "num_hidden_layers": 2}
    return AbcLstmForCausalLM(AbcLstmConfig(**(shape | {"pad_token_id": PAD} | changes))).eval()


@pytest.fixture(scope="module")
def model() -> AbcLstmForCausalLM:
    return build()


@pytest.fixture
def ids() -> torch.Tensor:
    return torch.randint(1, VOCAB, (3, 9), generator=torch.Generator().manual_seed(1))


def pad(rows: list[torch.Tensor], side: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Rows of unequal length as (ids, mask), both [batch, time]."""
    padded = nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=PAD, padding_side=side)
    ones = [torch.ones_like(row) for row in rows]
    return padded, nn.utils.rnn.pad_sequence(ones, batch_first=True, padding_side=side)


# Recurrence


@pytest.mark.parametrize("cut", [1, 4, 8])
def test_a_whole_sequence_equals_the_same_sequence_split_with_its_state_passed_on(model, ids, cut):
    whole = model(ids)
    first = model(ids[:, :cut])
    second = model(ids[:, cut:], past_key_values=first.past_key_values)
    torch.testing.assert_close(torch.cat([first.logits, second.logits], dim=1), whole.logits)
    torch.testing.assert_close(second.past_key_values.h, whole.past_key_values.h)
    torch.testing.assert_close(second.past_key_values.c, whole.past_key_values.c)
    assert second.past_key_values.get_seq_length() == ids.shape[1]
    assert second.past_key_values.h.shape == (2, 3, 16)  # layers, batch, hidden
    assert model(ids, use_cache=False).past_key_values is None


def test_changing_a_token_changes_no_earlier_logits(model, ids):
    changed = ids.clone()
    changed[:, 5] = changed[:, 5] % (VOCAB - 1) + 1
    before, after = model(ids).logits, model(changed).logits
    assert torch.equal(before[:, :5], after[:, :5])
    assert not torch.isclose(before[:, 5:], after[:, 5:]).all(dim=-1).any()


def test_a_cache_cannot_be_cropped_and_can_be_reset(model, ids):
    cache = model(ids).past_key_values
    assert not cache.is_croppable
    with pytest.raises(NotImplementedError):
        cache.crop(1)
    cache.reset()
    torch.testing.assert_close(model(ids, past_key_values=cache).logits, model(ids).logits)


# Padding


@pytest.mark.parametrize("side", ["left", "right"])
def test_a_padded_row_equals_the_row_alone(model, ids, side):
    rows = [ids[0], ids[1, :4], ids[2, :1]]
    padded, mask = pad(rows, side)
    outputs = model(padded, attention_mask=mask)
    for index, row in enumerate(rows):
        alone = model(row[None])
        torch.testing.assert_close(outputs.logits[index, mask[index].bool()], alone.logits[0])
        torch.testing.assert_close(outputs.past_key_values.h[:, index], alone.past_key_values.h[:, 0])
        torch.testing.assert_close(outputs.past_key_values.c[:, index], alone.past_key_values.c[:, 0])


@torch.no_grad()  # a state is copied, and torch copies no tensor that has a gradient to pass on
def test_the_state_passes_columns_that_are_padding_for_a_whole_row(model, ids):
    padded, mask = pad([ids[0], ids[1, :3]], "left")
    whole = model(padded, attention_mask=mask)
    # The first part is padding alone in the second row. The mask may be of the whole sequence, as in generate().
    first = model(padded[:, :4], attention_mask=mask[:, :4])
    second = model(padded[:, 4:], attention_mask=mask, past_key_values=copy.deepcopy(first.past_key_values))
    again = model(padded[:, 4:], attention_mask=mask[:, 4:], past_key_values=first.past_key_values)
    torch.testing.assert_close(second.logits[:, -3:], whole.logits[:, -3:])
    torch.testing.assert_close(second.past_key_values.c, whole.past_key_values.c)
    assert torch.equal(again.logits, second.logits)


def test_a_mask_shorter_than_the_tokens_is_refused(model, ids):
    with pytest.raises(ValueError, match="attention_mask has 8 columns for 9 tokens"):
        model(ids, attention_mask=torch.ones_like(ids)[:, 1:])


# Generation

HOW = {
    "greedy": {},
    "sampled several times": {"do_sample": True, "num_return_sequences": 3},
    "several beams": {"num_beams": 4, "num_return_sequences": 2},
}


@pytest.mark.parametrize("how", HOW.values(), ids=HOW.keys())
def test_generating_with_the_state_equals_generating_without(model, ids, how):
    padded, mask = pad([ids[0], ids[1, :4]], "left")
    generated = []
    for use_cache in (True, False):
        torch.manual_seed(0)
        settings = {"use_cache": use_cache, "max_new_tokens": 12, **how}
        generated.append(model.generate(padded, attention_mask=mask, **settings))
    assert generated[0].shape == (2 * how.get("num_return_sequences", 1), padded.shape[1] + 12)
    assert torch.equal(*generated)


def test_one_prompts_state_serves_several_continuations(model, ids):
    prompt = ids[:1]
    cache = model(prompt[:, :-1]).past_key_values
    cache.batch_repeat_interleave(4)
    results = []
    for past in (cache, None):
        torch.manual_seed(0)
        settings = {"do_sample": True, "max_new_tokens": 6, "past_key_values": past}
        results.append(model.generate(prompt.repeat(4, 1), **settings))
    assert torch.equal(*results)


def test_only_the_logits_asked_for_are_computed(model, ids):
    whole = model(ids).logits
    torch.testing.assert_close(model(ids, logits_to_keep=2).logits, whole[:, -2:])
    torch.testing.assert_close(model(ids, logits_to_keep=torch.tensor([0, 3])).logits, whole[:, [0, 3]])


# Loss and training


def test_the_loss_is_the_mean_of_nats_per_predicted_token(model, ids):
    labels = ids.clone()
    labels[0, :4] = -100
    outputs = model(ids, labels=labels)
    nats = -outputs.logits[:, :-1].log_softmax(-1).gather(-1, ids[:, 1:, None])[..., 0]
    counted = nats[labels[:, 1:] != -100]
    torch.testing.assert_close(outputs.loss, counted.mean())
    torch.testing.assert_close(model(ids, labels=labels, num_items_in_batch=7).loss, counted.sum() / 7)


def test_a_state_computed_in_bf16_autocast_is_passed_on(ids):
    model = build().train()
    padded, mask = pad([ids[0, :4], ids[1, :2], ids[2, :3]], "left")
    with torch.autocast("cpu", torch.bfloat16):
        cache = model(padded, attention_mask=mask).past_key_values
        outputs = model(ids[:, 4:], labels=ids[:, 4:], past_key_values=cache)
    assert outputs.logits.dtype == torch.bfloat16
    assert outputs.loss.dtype == torch.float32
    outputs.loss.backward()
    assert all(parameter.grad.isfinite().all() for parameter in model.parameters())


@pytest.mark.parametrize("layers", [1, 2])
def test_dropout_acts_before_between_and_after_the_layers_only_in_training(ids, layers):
    model = build(dropout=0.5, num_hidden_layers=layers)
    zeros = {}

    def note_zeros(part, inputs):
        zeros[part] = (inputs[0] == 0).float().mean()

    for part in (model.model.lstm, model.lm_head):
        part.register_forward_pre_hook(note_zeros)
    assert torch.equal(model(ids).logits, model(ids).logits)
    assert sum(zeros.values()) == 0
    model.train()(ids)
    assert all(0.35 < share < 0.65 for share in zeros.values())
    assert model.model.lstm.dropout == (0.5 if layers > 1 else 0)


# Tying


@pytest.mark.parametrize("embedding_size", [16, 12])
def test_a_tied_model_has_one_matrix_fewer_and_gathers_the_gradients_of_both_uses(ids, embedding_size):
    tied = build(tie_word_embeddings=True, embedding_size=embedding_size)
    assert tied.lm_head.weight is tied.model.embed_tokens.weight
    names = dict(tied.named_parameters()).keys()
    assert ("projection.weight" in names) == (embedding_size != 16)
    untied_names = dict(build(embedding_size=embedding_size).named_parameters()).keys()
    assert untied_names - names == {"lm_head.weight"}

    apart = copy.deepcopy(tied)
    apart.lm_head.weight = nn.Parameter(tied.lm_head.weight.detach().clone())
    for twin in (tied, apart):
        twin(ids, labels=ids).loss.backward()
    summed = apart.model.embed_tokens.weight.grad + apart.lm_head.weight.grad
    torch.testing.assert_close(tied.lm_head.weight.grad, summed)


# Initialisation


def is_normal(weight: torch.Tensor, std: float) -> bool:
    """Mean, standard deviation and the share within one of it, each near a normal distribution's."""
    found = [weight.mean() / std, weight.std() / std, (weight.abs() < std).float().mean()]
    return torch.allclose(torch.stack(found), torch.tensor([0, 1, 0.6827]), rtol=0, atol=0.02)


def is_uniform(weight: torch.Tensor, bound: float) -> bool:
    """Largest value, mean and the share in the inner half, each near a uniform distribution's."""
    found = [weight.abs().max() / bound, weight.mean() / bound, (weight.abs() < bound / 2).float().mean()]
    return torch.allclose(torch.stack(found), torch.tensor([1, 0, 0.5]), rtol=0, atol=0.02)


@pytest.mark.parametrize("tied", [False, True])
def test_the_initialisation_is_the_documented_one(tied):
    units = 100
    shape = {"vocab_size": 300, "embedding_size": 150, "hidden_size": units}
    model = build(tie_word_embeddings=tied, embedding_std=0.3, forget_bias=1.5, **shape)
    assert is_normal(model.model.embed_tokens.weight, 0.3)
    assert is_normal(model.lm_head.weight, 0.3 if tied else units**-0.5)
    if tied:
        assert is_normal(model.projection.weight, units**-0.5)
    forget = torch.zeros(4 * units)
    forget[units : 2 * units] = 1.5
    for layer in range(2):
        assert is_uniform(getattr(model.model.lstm, f"weight_ih_l{layer}"), units**-0.5)
        assert is_uniform(getattr(model.model.lstm, f"weight_hh_l{layer}"), units**-0.5)
        assert torch.equal(getattr(model.model.lstm, f"bias_ih_l{layer}"), forget)
        assert torch.equal(getattr(model.model.lstm, f"bias_hh_l{layer}"), torch.zeros(4 * units))


def test_loading_initialises_what_is_missing_and_nothing_else(tmp_path):
    model = build()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.uniform_(2, 3)  # values that no initialisation gives
    model.save_pretrained(tmp_path)
    complete = AbcLstmForCausalLM.from_pretrained(tmp_path)
    assert all(torch.equal(a, b) for a, b in zip(complete.parameters(), model.parameters(), strict=True))

    weights = load_file(tmp_path / "model.safetensors")
    missing = "model.lstm.bias_ih_l0"
    del weights[missing]
    save_file(weights, tmp_path / "model.safetensors", metadata={"format": "pt"})
    partial = dict(AbcLstmForCausalLM.from_pretrained(tmp_path).named_parameters())
    assert all(torch.equal(partial[name], weight) for name, weight in weights.items())
    assert partial[missing].tolist() == [0.0] * 16 + [1.0] * 16 + [0.0] * 32


@pytest.mark.parametrize(("field", "value"), [("hidden_size", 0), ("num_hidden_layers", 0), ("dropout", 1.0)])
def test_an_impossible_configuration_is_refused_by_the_name_of_its_field(field, value):
    with pytest.raises(ValueError, match=field):
        AbcLstmConfig(**{field: value})


# Travels


@pytest.fixture(scope="module")
def hub_folder(model, tmp_path_factory) -> Path:
    """The model saved with its code, as on the Hub."""
    folder = tmp_path_factory.mktemp("hub")
    # A copy is saved, for saving writes the code's names into the model's configuration.
    copy.deepcopy(model).save_pretrained(folder)
    return folder


def test_a_saved_model_has_two_files_of_code_that_import_only_torch_transformers_and_each_other(hub_folder):
    assert {path.name for path in hub_folder.glob("**/*.py")} == SAVED_CODE
    for name in SAVED_CODE:
        for node in ast.walk(ast.parse((hub_folder / name).read_text())):
            if isinstance(node, ast.Import):
                assert {alias.name.split(".")[0] for alias in node.names} <= {"torch", "transformers"}
            elif isinstance(node, ast.ImportFrom) and node.level:
                assert (node.level, f"{node.module}.py" in SAVED_CODE) == (1, True)
            elif isinstance(node, ast.ImportFrom):
                assert node.module.split(".")[0] in {"torch", "transformers"}


FRESH_PROCESS = """
import sys, torch
from pathlib import Path
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

plain, hub, expected = sys.argv[1:]
expected = load_file(expected)

def agrees(model):
    return torch.equal(model(expected["ids"]).logits, expected["logits"])

remote = AutoModelForCausalLM.from_pretrained(hub, trust_remote_code=True)
assert "modeling" not in sys.modules and agrees(remote)

import modeling.models
assert agrees(AutoModelForCausalLM.from_pretrained(plain))
assert type(AutoModelForCausalLM.from_pretrained(hub)) is modeling.models.AbcLstmForCausalLM
"""


def test_a_fresh_process_computes_the_same_logits_with_this_package_and_with_the_saved_code(
    model, ids, hub_folder, tmp_path
):
    model.save_pretrained(tmp_path / "plain")
    save_file({"ids": ids, "logits": model(ids).logits.detach()}, tmp_path / "expected.safetensors")
    environment = {
        **os.environ,
        "HF_HOME": str(tmp_path / "home"),  # where transformers copies saved code to
        "HF_HUB_OFFLINE": "1",
        "OMP_NUM_THREADS": str(torch.get_num_threads()),  # sums in the same order, for equality to the bit
    }
    arguments = [tmp_path / "plain", hub_folder, tmp_path / "expected.safetensors"]
    result = subprocess.run(
        [sys.executable, "-c", FRESH_PROCESS, *arguments], env=environment, capture_output=True, text=True
    )
    assert result.returncode == 0, result.stderr
