from functools import partial

import pytest
import torch
from modeling.counting import count_flops, count_parameters
from modeling.ladder import LADDER, ladder_config, new_model
from transformers import AutoModelForCausalLM

gpt_config, lstm_config = partial(ladder_config, "gpt"), partial(ladder_config, "lstm")
VOCABULARY, CONTEXT = 84, 256  # the bundled corpus's
NAMED = {"tiny": 1e6, "small": 5e6, "medium": 20e6, "large": 50e6, "xl": 100e6}


def untrained(build, size, vocabulary=VOCABULARY):
    with torch.device("meta"):
        return AutoModelForCausalLM.from_config(build(size, vocabulary, CONTEXT, boundary=2, pad=0))


def nominal(size):
    return NAMED.get(size) or float(size.removesuffix("k")) * 1000


@pytest.mark.parametrize("size", LADDER)
def test_a_gpt_has_the_parameters_its_name_says(size):
    assert untrained(gpt_config, size).num_parameters() == pytest.approx(nominal(size), rel=0.15)


def test_the_ladder_climbs():
    totals = [untrained(gpt_config, size).num_parameters() for size in LADDER]
    assert totals == sorted(totals)


@pytest.mark.parametrize("vocabulary", [70, VOCABULARY, 130])
@pytest.mark.parametrize("size", LADDER)
def test_an_lstm_matches_its_gpt_within_three_percent_with_and_without_tables(size, vocabulary):
    gpt = count_parameters(untrained(gpt_config, size, vocabulary))
    lstm = count_parameters(untrained(lstm_config, size, vocabulary))
    assert lstm["total"] == pytest.approx(gpt["total"], rel=0.03)
    assert lstm["total"] - lstm["tables"] == pytest.approx(gpt["total"] - gpt["tables"], rel=0.03)


@pytest.mark.parametrize("size", ["15k", "120k", "tiny"])
def test_gpt_parameters_and_flops_agree_with_a_hand_count(size):
    model = untrained(gpt_config, size)
    width, layers = LADDER[size].n_embd, LADDER[size].n_layer
    # attention: query, key, value and output; MLP: up and down by 4; two norms a block and one at the end
    matrices = layers * (4 * width**2 + 8 * width**2)
    vectors = layers * (4 * width + 5 * width + 4 * width) + 2 * width
    tables = (VOCABULARY + CONTEXT) * width
    counted = count_parameters(model)
    assert counted == {"tables": tables, "matrices": matrices, "vectors": vectors, "total": model.num_parameters()}
    products = matrices + VOCABULARY * width
    # 2 FLOPs a weight forward, twice that backward; scores and mixing cost 4·T·d a layer forward, half of it causal
    flops = count_flops(model, CONTEXT)
    assert flops["attention"] == 3 * layers * (4 * CONTEXT * width) // 2
    assert sum(flops.values()) == 6 * products + flops["attention"]


@pytest.mark.parametrize("size", ["15k", "500k", "tiny"])
def test_lstm_parameters_and_flops_agree_with_a_hand_count(size):
    model = untrained(lstm_config, size)
    config = model.config
    hidden, embedding, layers = config.hidden_size, config.embedding_size, config.num_hidden_layers
    gates = 4 * hidden * (embedding + hidden) + (layers - 1) * 4 * hidden * 2 * hidden
    projection = hidden * embedding if hidden != embedding else 0
    head = VOCABULARY * embedding
    counted = count_parameters(model)
    assert counted["tables"] == head
    assert counted["matrices"] == gates + projection
    assert counted["vectors"] == layers * 8 * hidden
    assert counted["total"] == model.num_parameters()
    assert count_flops(model, CONTEXT) == {
        "matrices": 6 * projection,
        "recurrence": 6 * gates,
        "attention": 0,
        "head": 6 * head,
    }


def test_an_untied_head_counts_as_a_table():
    config = lstm_config("15k", VOCABULARY, CONTEXT, boundary=2, pad=0)
    config.tie_word_embeddings = False
    counted = count_parameters(AutoModelForCausalLM.from_config(config))
    assert counted["tables"] == VOCABULARY * (config.embedding_size + config.hidden_size)


@pytest.mark.parametrize("build", [gpt_config, lstm_config])
def test_the_seed_decides_the_weights(build):
    def weights(seed):
        torch.manual_seed(seed)
        return torch.cat([p.flatten() for p in new_model(build("15k", VOCABULARY, CONTEXT, 2, 0)).parameters()])

    assert torch.equal(weights(1), weights(1))
    assert not torch.equal(weights(1), weights(2))


def test_an_untrained_gpt_tells_neighbouring_positions_apart_the_same_way_everywhere():
    positions = new_model(gpt_config("120k", VOCABULARY, CONTEXT, 2, 0)).transformer.wpe.weight.detach()
    products = positions @ positions.T
    steps = torch.stack([products.diagonal(offset)[:200] for offset in (0, 1, 2, 40)])
    assert steps.std(dim=1).max() < 1e-4  # how alike two positions are depends on their distance alone
    assert (steps[0] > steps[1]).all()
    assert positions.square().mean().sqrt().item() == pytest.approx(1 / 8, rel=1e-3)  # 1/sqrt(width), as the tokens


@pytest.mark.parametrize("build", [gpt_config, lstm_config])
def test_generating_with_and_without_a_cache_gives_the_same_tokens(build):
    torch.manual_seed(0)
    model = new_model(build("30k", VOCABULARY, CONTEXT, boundary=2, pad=0)).eval()
    prompt = torch.randint(3, VOCABULARY, (3, 7))
    outputs = [
        model.generate(prompt, do_sample=False, max_new_tokens=40, use_cache=use_cache, eos_token_id=None)
        for use_cache in (True, False)
    ]
    assert outputs[0].shape == (3, 47)
    assert torch.equal(*outputs)
