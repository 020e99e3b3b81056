"""Untrained models of a shape. Importing this module makes transformers' Auto classes know the LSTM."""

from math import log, sqrt
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM, GPT2Config, PreTrainedConfig, PreTrainedModel

from .configuration_abc_lstm import AbcLstmConfig
from .modeling_abc_lstm import AbcLstmForCausalLM
from .shapes import Shape

AutoConfig.register(AbcLstmConfig.model_type, AbcLstmConfig)
AutoModelForCausalLM.register(AbcLstmConfig, AbcLstmForCausalLM)
# A saved LSTM carries its two files, so that trust_remote_code=True loads it where this project is not installed.
AbcLstmConfig.register_for_auto_class()
AbcLstmForCausalLM.register_for_auto_class("AutoModelForCausalLM")

CONFIG_CLASSES: dict[str, type[PreTrainedConfig]] = {"gpt2": GPT2Config, "abc_lstm": AbcLstmConfig}  # by model_type


def model_config(
    architecture: str,
    shape: Shape,
    *,
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


@torch.no_grad()
def new_model(config: PreTrainedConfig, slowest_wave: float = 100.0) -> PreTrainedModel:
    """Return an untrained model; its weights are drawn from torch's global generator.

    A GPT's learned positions begin as sinusoids (Vaswani et al. 2017, section 3.5) of the scale of its other
    embeddings: a small model otherwise spends a million tokens on finding the neighbouring characters. `slowest_wave`
    is the ratio of their longest wavelength to the shortest.
    """
    model: PreTrainedModel = AutoModelForCausalLM.from_config(config)
    if config.model_type == "gpt2":
        positions = model.get_parameter("transformer.wpe.weight")
        length, width = positions.shape
        angles = torch.arange(length)[:, None] * torch.exp(-log(slowest_wave) * torch.arange(0, width, 2) / width)
        waves = torch.stack([angles.sin(), angles.cos()], dim=-1).flatten(1)[:, :width]
        positions.copy_(waves * config.initializer_range * sqrt(2))
    return model
