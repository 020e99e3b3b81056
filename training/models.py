"""The model of a run: built or loaded to be trained, and saved so that from_pretrained loads it."""

import hashlib
import shutil
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import set_seed
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedConfig, PreTrainedModel
from transformers.utils import logging as transformers_logging
from transformers.utils.hub import cached_file

from door import DoorError, whole_folder
from modeling.ladder import Shape, model_config, new_model
from preprocessing.corpus import Corpus
from training.checkpoint import as_os_error
from training.config import RunConfig

transformers_logging.disable_progress_bar()  # a study has one bar, its own

DROPOUTS = {"gpt2": ("resid_pdrop", "embd_pdrop"), "abc_lstm": ("dropout",)}
WEIGHTS = "model.safetensors"


def build_config(config: RunConfig, corpus: Corpus) -> PreTrainedConfig:
    """Return the configuration of a run's model: of its shape, or that of the model that it starts from."""
    if config.init_from is not None:
        return _with_dropout(AutoConfig.from_pretrained(config.init_from, trust_remote_code=False), config.dropout)
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

    Raises DoorError if these are not the ones that the configuration names by their hash.
    """
    if config.init_from is not None:
        if weights_sha256(config.init_from) != config.init_sha256:
            raise DoorError(f"--init_from {config.init_from}: its weights have changed since this run was planned")
        return load_model(config.init_from, config.dropout)
    set_seed(config.seed)
    return new_model(build_config(config, corpus), config.slowest_wave)


def _with_dropout(config: PreTrainedConfig, dropout: float) -> PreTrainedConfig:
    for name in DROPOUTS.get(config.model_type, ()):
        setattr(config, name, dropout)
    return config


def _weights_of(source: str) -> Path:
    try:
        path = cached_file(source, WEIGHTS)
    except OSError as error:
        raise DoorError(f"{source}: no {WEIGHTS} there ({str(error).splitlines()[0]})") from None
    assert path is not None
    return Path(path)


def weights_sha256(source: str) -> str:
    """Return the hash of a model's weights, a folder or a Hub id. Raises DoorError if it has no model.safetensors."""
    with _weights_of(source).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def load_model(source: str, dropout: float = 0.0) -> PreTrainedModel:
    """Load a trained model from a folder or the Hub, in fp32, with the dropout to train it with.

    Its code is never run and nothing but safetensors is read. Raises DoorError naming the file if the weights are
    missing or only half written.
    """
    weights = _weights_of(source)
    try:
        with safe_open(weights, framework="pt"):
            pass
    except (OSError, SafetensorError) as error:
        raise DoorError(f"{weights} is damaged ({error}): delete {source} and train it again") from None
    config = _with_dropout(AutoConfig.from_pretrained(source, trust_remote_code=False), dropout)
    return AutoModelForCausalLM.from_pretrained(
        source, config=config, dtype=torch.float32, trust_remote_code=False, use_safetensors=True
    )


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
    with whole_folder(folder / ".model", mark="config.json") as temporary:
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
