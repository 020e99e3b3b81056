"""The model of a run: built or loaded to be trained, and saved so that from_pretrained loads it."""

import shutil
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import set_seed
from safetensors import SafetensorError
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, PreTrainedConfig, PreTrainedModel
from transformers.utils import logging as transformers_logging

from cli import UserError
from files import atomic_folder
from modeling.ladder import Shape, model_config, new_model
from modeling.loading import WEIGHTS, load_config, load_model, model_sha256
from preprocessing.corpus import Corpus
from training.checkpoint import as_os_error
from training.config import RunConfig

transformers_logging.disable_progress_bar()  # a study has one bar, its own


def build_config(config: RunConfig, corpus: Corpus) -> PreTrainedConfig:
    """Return the configuration of a run's model: of its shape, or that of the model that it starts from."""
    if config.init_from is not None:
        return load_config(config.init_from, dropout=config.dropout)
    tokenizer = corpus.tokenizer()
    return model_config(
        config.architecture,
        Shape(config.n_layer, config.width, config.n_head, config.embedding_size, config.init_std),
        len(tokenizer),
        config.context,
        tokenizer.eos_token_id,
        tokenizer.pad_token_id,
        config.dropout,
        config.activation,
        config.forget_bias,
    )


def build_model(config: RunConfig, corpus: Corpus) -> PreTrainedModel:
    """Return the model of a run, untrained or with the weights that it starts from.

    Raises UserError if these are not the ones that the configuration names by their hash.
    """
    if config.init_from is not None:
        if model_sha256(config.init_from) != config.init_sha256:
            raise UserError(f"--init_from {config.init_from}: it has changed since this run was planned")
        return load_model(config.init_from, dropout=config.dropout)
    set_seed(config.seed)
    return new_model(build_config(config, corpus), config.slowest_wave)


def save_model(config: PreTrainedConfig, weights: dict[str, Tensor], corpus: Corpus, folder: Path) -> None:
    """Write weights, configuration and tokenizer so that from_pretrained(folder) loads them.

    `header_fields` in the configuration names the header fields that the model has seen. Raises ValueError unless
    `weights` are all of the model's, tied ones once.
    """
    model = AutoModelForCausalLM.from_config(config)  # the trained one may be sharded
    missing, unexpected = model.load_state_dict(weights, strict=False)
    if unexpected or set(missing) - set(model.all_tied_weights_keys):
        raise ValueError(f"not the weights of this model: missing {missing}, unexpected {unexpected}")
    model.config.header_fields = corpus.header_fields
    shutil.rmtree(folder / ".model", ignore_errors=True)  # half moved, by a process that was killed
    with atomic_folder(folder / ".model", mark="config.json") as temporary:
        try:
            model.save_pretrained(temporary)
        except SafetensorError as error:
            raise as_os_error(error, folder / WEIGHTS) from None
        corpus.tokenizer().save_pretrained(temporary)
    for file in sorted((folder / ".model").iterdir()):
        file.replace(folder / file.name)
    (folder / ".model").rmdir()


def build_optimizer(model: nn.Module, config: RunConfig, **options: Any) -> torch.optim.AdamW:
    """Return fused AdamW that decays the matrices of products only, not embeddings, biases or norms."""
    tables = {id(p) for m in model.modules() if isinstance(m, nn.Embedding) for p in m.parameters()}
    parameters = [p for p in model.parameters() if p.requires_grad]
    decayed = [p for p in parameters if p.ndim > 1 and id(p) not in tables]
    others = [p for p in parameters if p.ndim <= 1 or id(p) in tables]
    groups = [{"params": decayed, "weight_decay": config.weight_decay}, {"params": others, "weight_decay": 0.0}]
    betas = (config.beta1, config.beta2)
    return torch.optim.AdamW(groups, lr=0.0, betas=betas, eps=config.adam_epsilon, fused=True, **options)
