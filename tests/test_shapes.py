"""Sizes: the names say the parameters, the LSTM matches its GPT, and counts are those of the models."""

import subprocess
import sys

import pytest
import torch
from made_models import BUILD
from torch import nn
from transformers import AutoModelForCausalLM
from transformers.pytorch_utils import Conv1D

from modeling.models import model_config, new_model
from modeling.shapes import SIZES, count, shape_of

VOCABULARY, CONTEXT = 84, 256  # the bundled corpus's
NAMED = {"tiny": 1e6, "small": 5e6, "medium": 20e6, "large": 50e6, "xl": 100e6}
ARCHITECTURES = ["gpt", "lstm"]


def counted(architecture, size, vocabulary=VOCABULARY):
    return count(architecture, shape_of(architecture, size, vocabulary, CONTEXT), vocabulary, CONTEXT)[0]


def test_a_gpt_has_the_parameters_its_name_says_and_sizes_grow():
    totals = {size: counted("gpt", size)["total"] for size in SIZES}
    for size, total in totals.items():
        assert total == pytest.approx(NAMED.get(size) or float(size.removesuffix("k")) * 1000, rel=0.15)
    assert list(totals.values()) == sorted(totals.values())


@pytest.mark.parametrize("vocabulary", [70, VOCABULARY, 130])
@pytest.mark.parametrize("size", SIZES)
def test_an_lstm_matches_its_gpt_within_three_percent_with_and_without_embeddings(size, vocabulary):
    gpt, lstm = (counted(architecture, size, vocabulary) for architecture in ARCHITECTURES)
    assert lstm["total"] == pytest.approx(gpt["total"], rel=0.03)
    assert lstm["total"] - lstm["tables"] == pytest.approx(gpt["total"] - gpt["tables"], rel=0.03)


def counts_of_modules(model):
    """Count a model's parameters by group and its FLOPs per token by kind of module, module by module."""
    head = model.get_output_embeddings()
    tables = {id(p) for m in model.modules() if isinstance(m, nn.Embedding) or m is head for p in m.parameters()}
    groups = {"tables": 0, "matrices": 0, "vectors": 0, "total": model.num_parameters()}
    for parameter in model.parameters():
        group = "tables" if id(parameter) in tables else "matrices" if parameter.ndim > 1 else "vectors"
        groups[group] += parameter.numel()
    flops = {"matrices": 0, "recurrence": 0, "attention": 0, "head": 0}
    for module in model.modules():
        if isinstance(module, (nn.Linear, Conv1D)):
            flops["head" if module is head else "matrices"] += 6 * module.weight.numel()
        elif isinstance(module, nn.LSTM):
            gates = [parameter for name, parameter in module.named_parameters() if name.startswith("weight")]
            flops["recurrence"] += 6 * sum(gate.numel() for gate in gates)
    if model.config.model_type == "gpt2":  # 4·T·d a layer forward, twice that backward, half of it causal
        flops["attention"] = 3 * model.config.n_layer * (4 * CONTEXT * model.config.n_embd) // 2
    return groups, flops


@pytest.mark.parametrize("changes", [{}, {"tie_word_embeddings": False}, {"n_inner": 50}], ids=str)
@pytest.mark.parametrize("size", ["15k", "500k", "tiny"])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_counts_are_those_of_the_model(architecture, size, changes):
    shape = shape_of(architecture, size, VOCABULARY, CONTEXT)
    config = model_config(architecture, shape, vocabulary_size=VOCABULARY, context=CONTEXT, boundary=2, pad=0)
    for name, value in changes.items():
        setattr(config, name, value)
    with torch.device("meta"):
        groups, flops = counts_of_modules(AutoModelForCausalLM.from_config(config))
    options = {"tied": config.tie_word_embeddings, "feed_forward": changes.get("n_inner")}
    assert count(architecture, shape, VOCABULARY, CONTEXT, **options) == (groups, flops)


def test_shapes_are_imported_without_torch():
    code = "import sys, modeling.shapes; assert not {'torch', 'transformers'} & {*sys.modules}"
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("build", BUILD.values(), ids=ARCHITECTURES)
def test_the_seed_decides_the_weights(build):
    def weights(seed):
        torch.manual_seed(seed)
        return torch.cat([p.flatten() for p in new_model(build("15k", VOCABULARY, CONTEXT, 2, 0)).parameters()])

    assert torch.equal(weights(1), weights(1))
    assert not torch.equal(weights(1), weights(2))


def test_an_untrained_gpt_distinguishes_neighbouring_positions_the_same_way_everywhere():
    positions = new_model(BUILD["gpt"]("120k", VOCABULARY, CONTEXT, 2, 0)).transformer.wpe.weight.detach()
    products = positions @ positions.T
    steps = torch.stack([products.diagonal(offset)[:200] for offset in (0, 1, 2, 40)])
    assert steps.std(dim=1).max() < 1e-4  # how alike two positions are depends on their distance alone
    assert (steps[0] > steps[1]).all()
    assert positions.square().mean().sqrt().item() == pytest.approx(1 / 8, rel=1e-3)  # 1/sqrt(width), as the tokens


@pytest.mark.parametrize("build", BUILD.values(), ids=ARCHITECTURES)
def test_generating_with_and_without_a_cache_gives_the_same_tokens(build):
    torch.manual_seed(0)
    model = new_model(build("30k", VOCABULARY, CONTEXT, boundary=2, pad=0)).eval()
    prompt = torch.randint(3, VOCABULARY, (3, 7))
    settings = {"do_sample": False, "max_new_tokens": 40, "eos_token_id": None}
    outputs = [model.generate(prompt, use_cache=use_cache, **settings) for use_cache in (True, False)]
    assert outputs[0].shape == (3, 47)
    assert torch.equal(*outputs)
