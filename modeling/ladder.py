"""The size ladder: GPT shapes by name, and for each the LSTM that matches it in parameters."""

from bisect import bisect_right
from dataclasses import dataclass
from math import ceil, log, sqrt
from typing import Any

import torch
from transformers import AutoModelForCausalLM, GPT2Config, PreTrainedConfig, PreTrainedModel

from modeling.configuration_abc_lstm import AbcLstmConfig

ARCHITECTURE_OF = {"gpt2": "gpt", AbcLstmConfig.model_type: "lstm"}
SLOWEST_WAVE = 100  # wavelength ratio of the initial position table: slow waves would only repeat each other
MATCH = 0.025  # by how much, at most, an LSTM's parameters differ from its GPT's
EMBEDDING_STD = 0.25  # of the LSTM's tied table, from the pilots in docs/log.md
HEAD_WIDTH = 64  # wider heads are faster on CPUs and no worse here; narrower models have one head


@dataclass(frozen=True)
class Rung:
    """One size: GPT-2 blocks and their width, and the depth of the LSTM that matches them."""

    n_layer: int
    n_embd: int
    lstm_layers: int


LADDER = {
    "15k": Rung(2, 20, 1),
    "30k": Rung(2, 28, 1),
    "60k": Rung(2, 44, 1),
    "120k": Rung(2, 64, 1),
    "250k": Rung(2, 96, 1),
    "500k": Rung(3, 112, 1),
    "tiny": Rung(5, 128, 2),
    "small": Rung(6, 256, 2),
    "medium": Rung(6, 512, 2),
    "large": Rung(10, 640, 2),
    "xl": Rung(14, 768, 2),
}


@dataclass(frozen=True)
class Shape:
    """What a model is built to before training: layers, their width, attention heads, embedding, scale of the weights.

    `width` is that of a GPT's residual stream, or of an LSTM's h and c. `n_head` is 0 for an LSTM. `init_std` is the
    standard deviation of a GPT's weights, or of an LSTM's tied embedding.
    """

    n_layer: int
    width: int
    n_head: int
    embedding_size: int
    init_std: float


def shape_of(architecture: str, size: str, vocabulary_size: int, context: int) -> Shape:
    """Return the shape of a rung of the ladder for an architecture ("gpt" or "lstm").

    GPT: weights N(0, 1/width), at which a row of the token table has unit length, whatever the width. LSTM: matches the
    rung's GPT, in all parameters and in those without embeddings, within MATCH. A GPT has a position table, which an
    LSTM has no use for. Where the tolerance covers that, the LSTM's embedding is as wide as its state; in small models
    it is wider, and a projection leads from the state to the tied head.
    """
    rung = LADDER[size]
    if architecture == "gpt":
        heads = max(1, rung.n_embd // HEAD_WIDTH)
        return Shape(rung.n_layer, rung.n_embd, heads, rung.n_embd, 1 / sqrt(rung.n_embd))
    tables = (vocabulary_size + context) * rung.n_embd
    blocks = rung.n_layer * (12 * rung.n_embd**2 + 13 * rung.n_embd) + 2 * rung.n_embd
    least = (1 - MATCH) * (tables + blocks)

    def inner(hidden: int, embedding: int) -> int:
        """Count gates, biases and projection."""
        gates = 4 * hidden * (embedding + hidden + 2) + (rung.lstm_layers - 1) * 8 * hidden * (hidden + 1)
        return gates + (hidden * embedding if hidden != embedding else 0)

    sizes = range(1, 2**15)
    for most in (blocks, (1 + MATCH) * blocks):
        hidden = embedding = bisect_right(sizes, most, key=lambda size: inner(size, size))
        if inner(hidden, hidden) + vocabulary_size * hidden >= least:
            break
    else:
        embedding = ceil((least - most) / vocabulary_size)
        hidden = bisect_right(sizes, most, key=lambda size: inner(size, embedding))
        while inner(hidden, embedding) + vocabulary_size * embedding < least:
            embedding += 1
    return Shape(rung.lstm_layers, hidden, 0, embedding, EMBEDDING_STD)


def model_config(
    architecture: str,
    shape: Shape,
    vocabulary_size: int,
    context: int,
    boundary: int,
    pad: int,
    dropout: float = 0.0,
    activation: str = "gelu",
    forget_bias: float = 1.0,
) -> PreTrainedConfig:
    """Return the configuration of a model of a shape, with tied embeddings. `boundary` and `pad` are token ids."""
    ids: dict[str, Any] = {"bos_token_id": boundary, "eos_token_id": boundary, "pad_token_id": pad}
    if architecture == "gpt":
        return GPT2Config(
            vocab_size=vocabulary_size,
            n_positions=context,
            n_embd=shape.width,
            n_layer=shape.n_layer,
            n_head=shape.n_head,
            activation_function=activation,  # "gelu", by erf: on CPU three times as fast as the tanh forms
            resid_pdrop=dropout,
            embd_pdrop=dropout,
            attn_pdrop=0.0,  # on CPU any attention dropout costs the fast attention kernel
            initializer_range=shape.init_std,
            **ids,
        )
    return AbcLstmConfig(
        vocab_size=vocabulary_size,
        embedding_size=shape.embedding_size,
        hidden_size=shape.width,
        num_hidden_layers=shape.n_layer,
        dropout=dropout,
        context_length=context,
        embedding_std=shape.init_std,
        forget_bias=forget_bias,
        tie_word_embeddings=True,
        **ids,
    )


def ladder_config(
    architecture: str, size: str, vocabulary_size: int, context: int, boundary: int, pad: int, dropout: float = 0.0
) -> PreTrainedConfig:
    """Return the configuration of an architecture's model at a rung of the ladder."""
    shape = shape_of(architecture, size, vocabulary_size, context)
    return model_config(architecture, shape, vocabulary_size, context, boundary, pad, dropout)


@torch.no_grad()
def new_model(config: PreTrainedConfig, slowest_wave: float = SLOWEST_WAVE) -> PreTrainedModel:
    """Return an untrained model; draw its weights from torch's global generator.

    A GPT's learned positions begin as sinusoids (Vaswani et al. 2017, section 3.5) of the scale of its other tables:
    what stands one or two characters back is then easy to find, which a small model else spends a million tokens on.
    `slowest_wave` is the ratio of their longest wavelength to the shortest.
    """
    model: PreTrainedModel = AutoModelForCausalLM.from_config(config)
    if config.model_type == "gpt2":
        positions = model.get_parameter("transformer.wpe.weight")
        length, width = positions.shape
        angles = torch.arange(length)[:, None] * torch.exp(-log(slowest_wave) * torch.arange(0, width, 2) / width)
        waves = torch.stack([angles.sin(), angles.cos()], dim=-1).flatten(1)[:, :width]
        positions.copy_(waves * config.initializer_range * sqrt(2))
    return model
