"""Decoder against plain generate: the same tokens, and tunes beyond a GPT's context."""

import copy

import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    GPT2Config,
    LlamaConfig,
    LogitsProcessor,
    StoppingCriteria,
    set_seed,
)

from generation.decoding import Decoder, window
from modeling.configuration_abc_lstm import AbcLstmConfig
from preprocessing.tokens import build_tokenizer, build_vocabulary

CONTEXT = 48
TOKENIZER = build_tokenizer(build_vocabulary(["abcdefg|\n:XK1"]), CONTEXT)
PAD, BOUNDARY = TOKENIZER.pad_token_id, TOKENIZER.bos_token_id
BAR_LINES = set(TOKENIZER.convert_tokens_to_ids(["|", "\n"]))
DECODER = Decoder(TOKENIZER)
SPECIAL = {"vocab_size": len(TOKENIZER), "pad_token_id": PAD, "bos_token_id": BOUNDARY, "eos_token_id": BOUNDARY}

CONFIGS = {
    "gpt": GPT2Config(n_positions=CONTEXT, n_embd=16, n_layer=2, n_head=2, initializer_range=0.3, **SPECIAL),
    "lstm, one layer": AbcLstmConfig(embedding_size=12, hidden_size=12, **SPECIAL),
    "lstm, two layers": AbcLstmConfig(embedding_size=8, hidden_size=12, num_hidden_layers=2, **SPECIAL),
    "lstm, projection": AbcLstmConfig(
        embedding_size=16, hidden_size=12, num_hidden_layers=2, tie_word_embeddings=True, **SPECIAL
    ),
}


def make(name, **changes):
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(copy.deepcopy(CONFIGS[name]), **changes).eval()
    if name == "gpt":  # so that its head and biases matter
        for parameter in model.parameters():
            parameter.data += 0.3 * torch.randn_like(parameter)
    return model


MODELS = {name: make(name) for name in CONFIGS}
each_model = pytest.mark.parametrize("model", MODELS.values(), ids=MODELS.keys())


def encode(*texts):
    return TOKENIZER(list(texts), return_tensors="pt", padding=True)


def both(model, inputs, seed=0, **settings):
    """Generate plainly and with the Decoder; both leave the global generator in the same state."""
    outputs, states = [], []
    for way in ({}, {"custom_generate": DECODER}):
        set_seed(seed)
        given = {name: copy.copy(value) for name, value in settings.items()}
        outputs.append(model.generate(**inputs, **given, **way))
        states.append(torch.get_rng_state())
    assert torch.equal(*states)
    return outputs


SAMPLED = {"do_sample": True, "top_k": 0}


@each_model
@pytest.mark.parametrize(
    ("texts", "settings"),
    [
        (["X1\nab|"], {"eos_token_id": None}),
        (["X1\nab|"], {**SAMPLED, "num_return_sequences": 3}),
        (["X1\nab|"], {"do_sample": True, "temperature": 0.8, "top_p": 0.9, "top_k": 0, "num_return_sequences": 3}),
        (["X1\nab|"], {"do_sample": True, "top_k": 5, "num_return_sequences": 3}),
        (["X1\nab|"], {**SAMPLED, "min_p": 0.1, "num_return_sequences": 3}),
        (["a", "X1\nab|cd|", "Kab", "gfedcba"], {**SAMPLED, "num_return_sequences": 4, "seed": 3}),
    ],
    ids=["greedy", "sampling", "top-p", "top-k", "min-p", "rows of different lengths"],
)
def test_the_same_seed_gives_the_tokens_of_plain_generate(model, texts, settings):
    plain, own = both(model, encode(*texts), max_new_tokens=30, **settings)
    assert torch.equal(plain, own)


@each_model
def test_several_end_tokens_and_a_least_length_are_kept(model):
    ends = [BOUNDARY, *BAR_LINES]
    settings = {"max_new_tokens": 30, "min_new_tokens": 6, "eos_token_id": ends, "num_return_sequences": 4}
    plain, own = both(model, encode("X1", "abcdefg"), **SAMPLED, **settings)
    assert torch.equal(plain, own)
    assert not set(plain[:, 8:14].flatten().tolist()) & set(ends)
    assert (plain[:, -1] == PAD).any()


def test_rows_that_have_ended_are_not_computed(monkeypatch):
    computed, addmm = [], torch.addmm
    monkeypatch.setattr(
        torch, "addmm", lambda bias, x, *rest, **more: computed.append(len(x)) or addmm(bias, x, *rest, **more)
    )
    plain, _ = both(MODELS["lstm, one layer"], encode("a"), **SAMPLED, max_new_tokens=60, num_return_sequences=6)
    ended = (plain[:, 2:] == BOUNDARY).cumsum(1) > 0
    growing = (~ended).sum(0).tolist()[:-1]
    assert computed == [6, *growing]
    assert growing[-1] < 6


class Recorder(LogitsProcessor):
    def __init__(self):
        self.seen = []

    def __call__(self, input_ids, scores):
        self.seen.append((input_ids.clone(), tuple(scores.shape)))
        return scores


@each_model
def test_processors_see_all_rows_with_all_their_ids(model):
    records = [Recorder(), Recorder()]
    for record, way in zip(records, (None, DECODER), strict=True):
        set_seed(3)
        settings = {"do_sample": True, "max_new_tokens": 30, "num_return_sequences": 3, "logits_processor": [record]}
        model.generate(**encode("a", "X1\nab|cd|"), custom_generate=way, **settings)
    plain, own = (record.seen for record in records)
    assert len(plain) == len(own)
    for (ids, shape), (own_ids, own_shape) in zip(plain, own, strict=True):
        assert torch.equal(ids, own_ids)
        assert shape == own_shape


@each_model
def test_other_stopping_criteria_end_single_rows(model):
    class SecondBar(StoppingCriteria):
        def __call__(self, input_ids, scores, **kwargs):  # noqa: ARG002 - as criteria are called
            return torch.isin(input_ids, torch.tensor(list(BAR_LINES))).sum(1) > 2

    for end in (BOUNDARY, None):  # without an end token, rows that have ended continue
        settings = {"do_sample": True, "max_new_tokens": 30, "eos_token_id": end, "stopping_criteria": [SecondBar()]}
        if end is None:
            model = copy.deepcopy(model)
            model.generation_config.eos_token_id = None
        plain, own = both(model, encode("a", "X1\nab"), num_return_sequences=3, seed=5, **settings)
        assert torch.equal(plain, own)


@each_model
def test_bfloat16_is_supported(model):
    model = copy.deepcopy(model).to(torch.bfloat16)
    plain, own = both(model, encode("X1\nab|"), max_new_tokens=8)
    assert plain[0, : len(own[0])].tolist()[:8] == own[0].tolist()[:8]


@pytest.mark.parametrize(
    ("size", "text"), [(12, "fgab|cdef|a"), (11, "fgab|cdef|a"), (7, "cdef|a"), (5, "a"), (1, "a")]
)
def test_a_window_begins_after_a_bar_line_or_a_newline(size, text):
    ids = TOKENIZER("abc|de\nfgab|cdef|a", add_special_tokens=False)["input_ids"]
    assert TOKENIZER.decode(window(ids, size, BAR_LINES)) == text
    assert window([9, 8, 9, 8], 3, BAR_LINES) == [8, 9, 8]  # without a bar line


class Bars(LogitsProcessor):
    """Ends a bar every few tokens, in each row at another time, and never the tune."""

    def __call__(self, input_ids, scores):
        scores[:, BOUNDARY] = -torch.inf
        for row in range(len(scores)):
            if (input_ids.shape[1] + row) % (7 + row) == 0:
                scores[row, min(BAR_LINES)] = 1e4
        return scores


def test_a_gpt_continues_beyond_its_context_from_windows():
    model, inputs = MODELS["gpt"], encode("X1\nabcd|efg|", "Kab", "g")
    total, given = 3 * CONTEXT, inputs["input_ids"].shape[1]
    own = model.generate(
        **inputs, custom_generate=DECODER, max_new_tokens=total - given, logits_processor=[Bars()], do_sample=False
    )
    assert own.shape == (3, total)
    within = model.generate(**inputs, max_new_tokens=CONTEXT - given + 1, logits_processor=[Bars()], do_sample=False)
    assert torch.equal(own[:, : CONTEXT + 1], within)
    windows = []
    for row, (ids, mask) in enumerate(zip(own, inputs["attention_mask"], strict=True)):
        history = ids[(mask == 0).sum() :].tolist()
        start, first = 0, int(mask.sum())
        for end in range(first, len(history)):
            if end - start > CONTEXT:
                start = end - len(window(history[:end], CONTEXT // 2, BAR_LINES))
                windows.append((history[start - 1] in BAR_LINES, end - start))
            scores = model(torch.tensor([history[start:end]])).logits[:, -1]
            padded = torch.full((3, total - len(history) + end), PAD)
            assert Bars()(padded, scores.detach().repeat(3, 1))[row].argmax() == history[end]
    assert len(windows) >= 9
    assert all(after and CONTEXT // 2 - 9 <= length <= CONTEXT // 2 for after, length in windows)


def test_a_prompt_longer_than_the_context_is_read_from_a_window():
    model, text = MODELS["gpt"], "X1\n" + "abcd|efg|" * 9
    own = model.generate(**encode(text), custom_generate=DECODER, max_new_tokens=1, do_sample=False)
    ids = window(encode(text)["input_ids"][0].tolist(), CONTEXT // 2, BAR_LINES)
    assert own[0, -1] == model(torch.tensor([ids])).logits[0, -1].argmax()


@pytest.mark.parametrize("name", ["lstm, one layer", "lstm, projection"])
def test_an_lstm_has_no_context_length(name):
    plain, own = both(MODELS[name], encode("a", "X1\nab|"), max_new_tokens=5 * CONTEXT, logits_processor=[Bars()])
    assert own.shape[1] > 5 * CONTEXT
    assert torch.equal(plain, own)


@pytest.mark.parametrize("name", ["gpt", "lstm, two layers"])
def test_dropout_in_training_mode_acts_as_in_plain_generate(name):
    model = copy.deepcopy(MODELS[name]).train()
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.5
    plain, own = both(model, encode("X1\nab|"), do_sample=True, max_new_tokens=20)
    assert torch.equal(plain, own)
    assert not torch.equal(own, both(MODELS[name], encode("X1\nab|"), do_sample=True, max_new_tokens=20)[1])


@each_model
def test_a_dictionary_is_returned_as_by_plain_generate(model):
    plain, own = both(model, encode("ab"), max_new_tokens=5, return_dict_in_generate=True, output_scores=True)
    assert torch.equal(plain.sequences, own.sequences)
    assert torch.equal(torch.stack(plain.scores), torch.stack(own.scores))


def test_a_filled_cache_is_continued_as_by_plain_generate():
    model, inputs = MODELS["gpt"], encode("X1\nab|")
    outputs = []
    for way in ({}, {"custom_generate": DECODER}):
        cache = model(inputs["input_ids"][:, :-2], use_cache=True).past_key_values
        outputs.append(model.generate(**inputs, past_key_values=cache, max_new_tokens=10, **way))
    assert torch.equal(*outputs)


def test_beams_and_other_architectures_are_refused():
    with pytest.raises(ValueError, match="not by beam_search"):
        MODELS["gpt"].generate(**encode("a"), custom_generate=DECODER, num_beams=2, max_new_tokens=3)
    shape = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1}
    model = AutoModelForCausalLM.from_config(LlamaConfig(**shape, **SPECIAL))
    with pytest.raises(ValueError, match="not llama"):
        model.generate(**encode("a"), custom_generate=DECODER, max_new_tokens=3)
