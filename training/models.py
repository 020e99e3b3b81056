"""The model of a run, untrained or with the weights that it starts from, and its optimiser."""

import torch
from accelerate.utils import set_seed
from torch import nn
from transformers import PreTrainedModel
from transformers.utils import logging as transformers_logging

from cli import UserError
from modeling.attention import UNPADDED_CAUSAL
from modeling.loading import load_model, model_sha256
from modeling.models import model_config, new_model
from preprocessing.corpus import Corpus
from training.config import RunConfig

transformers_logging.disable_progress_bar()  # a study has one bar for all runs


def build_model(config: RunConfig, corpus: Corpus) -> PreTrainedModel:
    """Return the model of a run. Raises UserError if the weights that it starts from have changed."""
    if config.init_from is not None:
        if model_sha256(config.init_from) != config.init_sha256:
            raise UserError(f"--model {config.init_from}: it has changed since this run was planned")
        return load_model(config.init_from, dropout=config.dropout)
    set_seed(config.seed)
    tokenizer = corpus.tokenizer()
    built = model_config(
        config.architecture,
        config.shape,
        vocabulary_size=len(tokenizer),
        context=config.context,
        boundary=tokenizer.eos_token_id,
        pad=tokenizer.pad_token_id,
        dropout=config.dropout,
        activation=config.activation,
        forget_bias=config.forget_bias,
    )
    return new_model(built, config.slowest_wave)


def make_trainable(model: PreTrainedModel) -> None:
    """Put a model in training mode, with unpadded causal attention and without a search for padding."""
    model.loss_type = "ForCausalLM"  # transformers does not find it by GPT2LMHeadModel's name
    model.config.pad_token_id = None  # or transformers looks for padding in every batch, and waits for the device
    if model.config.model_type == "gpt2":
        model.set_attn_implementation(UNPADDED_CAUSAL)
    model.train()


def build_optimizer(model: nn.Module, config: RunConfig) -> torch.optim.AdamW:
    """Return fused AdamW that decays the matrices of products only, not embeddings, biases or norms."""
    embeddings = {id(p) for m in model.modules() if isinstance(m, nn.Embedding) for p in m.parameters()}
    parameters = [p for p in model.parameters() if p.requires_grad]
    decayed = [p for p in parameters if p.ndim > 1 and id(p) not in embeddings]
    others = [p for p in parameters if p.ndim <= 1 or id(p) in embeddings]
    groups = [{"params": decayed, "weight_decay": config.weight_decay}, {"params": others, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=0.0, betas=(config.beta1, config.beta2), eps=config.adam_epsilon, fused=True)
