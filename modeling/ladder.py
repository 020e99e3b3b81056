"""The size ladder: GPT shapes by name, and for each the LSTM that matches it in parameters."""

from bisect import bisect_right
from dataclasses import dataclass
from math import ceil, log, sqrt

import torch
from transformers import AutoModelForCausalLM, GPT2Config, PreTrainedConfig, PreTrainedModel

from modeling.configuration_abc_lstm import AbcLstmConfig

ARCHITECTURE_OF = {"gpt2": "gpt", AbcLstmConfig.model_type: "lstm"}
SLOWEST_WAVE = 100  # wavelength ratio of the initial position table: slow waves would only repeat each other
MATCH = 0.025  # by how much, at most, an LSTM's parameters differ from its GPT's
EMBEDDING_STD = 0.25  # of the LSTM's tied table, from the pilots in docs/LOG.md
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


def gpt_config(
    size: str, vocabulary_size: int, context: int, boundary: int, pad: int, dropout: float = 0.0
) -> GPT2Config:
    """Return the GPT-2 of a rung, tied embeddings, weights N(0, 1/width) before training.

    At that scale a row of the token table has unit length, whatever the width.
    """
    rung = LADDER[size]
    return GPT2Config(
        vocab_size=vocabulary_size,
        n_positions=context,
        n_embd=rung.n_embd,
        n_layer=rung.n_layer,
        n_head=max(1, rung.n_embd // HEAD_WIDTH),
        activation_function="gelu",  # by erf: on CPU three times as fast as the tanh forms
        resid_pdrop=dropout,
        embd_pdrop=dropout,
        attn_pdrop=0.0,  # on CPU any attention dropout costs the fast attention kernel
        initializer_range=1 / sqrt(rung.n_embd),
        bos_token_id=boundary,
        eos_token_id=boundary,
        pad_token_id=pad,
    )


def lstm_config(
    size: str, vocabulary_size: int, context: int, boundary: int, pad: int, dropout: float = 0.0
) -> AbcLstmConfig:
    """Return the LSTM that matches a rung's GPT, in all parameters and in those without tables, within MATCH.

    A GPT has a position table, which an LSTM has no use for. Where the tolerance covers that, the LSTM's embedding is
    as wide as its state; in small models it is wider, and a projection leads from the state to the tied head.
    """
    rung = LADDER[size]
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
    return AbcLstmConfig(
        vocab_size=vocabulary_size,
        embedding_size=embedding,
        hidden_size=hidden,
        num_hidden_layers=rung.lstm_layers,
        dropout=dropout,
        context_length=context,
        embedding_std=EMBEDDING_STD,
        tie_word_embeddings=True,
        bos_token_id=boundary,
        eos_token_id=boundary,
        pad_token_id=pad,
    )


@torch.no_grad()
def new_model(config: PreTrainedConfig) -> PreTrainedModel:
    """Return an untrained model; draw its weights from torch's global generator.

    A GPT's learned positions begin as sinusoids (Vaswani et al. 2017, section 3.5) of the scale of its other tables:
    what stands one or two characters back is then easy to find, which a small model else spends a million tokens on.
    """
    model: PreTrainedModel = AutoModelForCausalLM.from_config(config)
    if config.model_type == "gpt2":
        positions = model.get_parameter("transformer.wpe.weight")
        length, width = positions.shape
        angles = torch.arange(length)[:, None] * torch.exp(-log(SLOWEST_WAVE) * torch.arange(0, width, 2) / width)
        waves = torch.stack([angles.sin(), angles.cos()], dim=-1).flatten(1)[:, :width]
        positions.copy_(waves * config.initializer_range * sqrt(2))
    return model
