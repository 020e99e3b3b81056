"""Untrained models that know the characters of ABC."""

from functools import partial

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from modeling.ladder import ladder_config, new_model
from preprocessing.tokens import build_tokenizer, build_vocabulary

BUILD = {name: partial(ladder_config, name) for name in ("gpt", "lstm")}
CHARACTERS = "\n #'(,-./0123456789:<>=ABCDEFGKLMXT[]^_abcdefgmixz{|}"
CONTEXT = 64


def made_model(architecture: str, size: str = "15k", seed: int = 0) -> tuple[PreTrainedModel, PreTrainedTokenizerFast]:
    """Return a model of a rung, and its tokenizer; it says that it was trained on X, M, L and K."""
    tokenizer = build_tokenizer(build_vocabulary([CHARACTERS]), CONTEXT)
    torch.manual_seed(seed)
    config = BUILD[architecture](size, len(tokenizer), CONTEXT, tokenizer.eos_token_id, tokenizer.pad_token_id)
    model = new_model(config).eval()
    model.config.header_fields = "XMLK"
    return model, tokenizer
