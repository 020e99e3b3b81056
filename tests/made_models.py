"""Untrained models that know the characters of ABC."""

from functools import partial

import torch
from transformers import PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerFast

from modeling.models import model_config, new_model
from modeling.shapes import shape_of
from preprocessing.tokens import build_tokenizer, build_vocabulary

CHARACTERS = "\n #'(,-./0123456789:<>=ABCDEFGKLMXT[]^_abcdefgmixz{|}"
CONTEXT = 64


def sized_config(
    architecture: str, size: str, vocabulary_size: int, context: int, boundary: int, pad: int
) -> PreTrainedConfig:
    """Return the configuration of a model of a size."""
    shape = shape_of(architecture, size, vocabulary_size, context)
    return model_config(
        architecture, shape, vocabulary_size=vocabulary_size, context=context, boundary=boundary, pad=pad
    )


BUILD = {name: partial(sized_config, name) for name in ("gpt", "lstm")}


def made_model(architecture: str, size: str = "15k", seed: int = 0) -> tuple[PreTrainedModel, PreTrainedTokenizerFast]:
    """Return an untrained model of a size, and its tokenizer; its configuration has the header fields X, M, L and K."""
    tokenizer = build_tokenizer(build_vocabulary([CHARACTERS]), CONTEXT)
    torch.manual_seed(seed)
    config = BUILD[architecture](size, len(tokenizer), CONTEXT, tokenizer.eos_token_id, tokenizer.pad_token_id)
    model = new_model(config).eval()
    model.config.header_fields = "XMLK"
    return model, tokenizer
