"""Loads the model and the tokenizer of a folder, or of a copy from the Hub.

Anything but a model of this project is refused here with a UserError: other formats than safetensors, files that
contradict each other, numbers that no training gives. Nothing is run or unpickled, and code beside a model is neither
fetched nor read.
"""

import hashlib
import json
import re
from dataclasses import fields
from pathlib import Path
from typing import Any

import torch
from httpx2 import HTTPError
from huggingface_hub import hf_hub_download, snapshot_download
from safetensors import SafetensorError, safe_open
from transformers import (
    AutoModelForCausalLM,
    GenerationConfig,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)

from cli import UserError
from modeling.models import CONFIG_CLASSES

CONFIG, WEIGHTS, TOKENIZER = "config.json", "model.safetensors", "tokenizer.json"
TEXTS = (CONFIG, TOKENIZER, "tokenizer_config.json")  # read beside the weights
HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")
DROPOUTS = {"gpt2": ("resid_pdrop", "embd_pdrop"), "abc_lstm": ("dropout",)}
KEPT = ("architectures", "header_fields")  # fields of a configuration beside those of its class
MOST = 10**7  # limit of any number in a configuration
LARGEST = 1_000_000  # limit of weights and logits; trained ones stay below a thousandth of it


def load_config(source: str | Path, revision: str | None = None, dropout: float = 0.0) -> PreTrainedConfig:
    """Return a model's configuration, with the dropout to train it with.

    `source` is a folder or an id of the Hub. Only fields that the configuration's class knows are read, so no foreign
    kernel, quantisation or class is used. Raises UserError if there is none, or if it is of another kind of model.
    """
    return _read_config(source, _texts(source, revision), dropout)


def load_model(source: str | Path, revision: str | None = None, dropout: float = 0.0) -> PreTrainedModel:
    """Return a model in fp32, in evaluation mode. The arguments are those of `load_config`.

    Raises UserError also if the weights are missing, not safetensors, damaged, not those of the configuration, or if
    weights or logits are not finite or beyond LARGEST.
    """
    folder = _texts(source, revision)
    config = _read_config(source, folder, dropout)
    weights = _weights(source, folder)
    try:
        with safe_open(weights, framework="pt") as file:
            shapes = {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        raise _damaged(source, f"{WEIGHTS}: {error}") from None
    try:
        _check_shapes(config, shapes)
        model: PreTrainedModel = AutoModelForCausalLM.from_pretrained(
            weights.parent,
            config=config,
            generation_config=GenerationConfig.from_model_config(config),
            dtype=torch.float32,
            use_safetensors=True,
            trust_remote_code=False,
            local_files_only=True,
        )
        with torch.inference_mode():
            one = torch.ones(1, 1, dtype=torch.long)
            logits = model(one, attention_mask=one).logits
            sane = all(bool(values.abs().max() <= LARGEST) for values in [*model.state_dict().values(), logits])
    except Exception as error:  # an untested configuration can make a model raise anything
        raise _damaged(source, str(error) or type(error).__name__) from None
    if not sane:
        raise _damaged(source, f"{WEIGHTS}: weights or logits beyond ±{LARGEST:,} or not finite")
    return model


def model_sha256(source: str | Path, revision: str | None = None) -> str:
    """Return the hash of a model's configuration and weights. Raises UserError if it has no safetensors."""
    folder = _texts(source, revision)
    found = hashlib.sha256((folder / CONFIG).read_bytes())
    with _weights(source, folder).open("rb") as file:
        found.update(hashlib.file_digest(file, "sha256").digest())
    return found.hexdigest()


def load_tokenizer(source: str | Path, revision: str | None = None) -> PreTrainedTokenizerFast:
    """Return a model's tokenizer. Raises UserError if there is none, or if its vocabulary is not the model's."""
    folder = _texts(source, revision)
    config = _read_config(source, folder)
    if not (folder / TOKENIZER).is_file():
        raise _damaged(source, f"no {TOKENIZER}")
    try:
        tokenizer = PreTrainedTokenizerFast.from_pretrained(folder, trust_remote_code=False, local_files_only=True)
        ids = sorted(tokenizer.get_vocab().values())
    except Exception as error:  # tokenizers raises nothing narrower
        raise _damaged(source, f"{TOKENIZER}: {error or type(error).__name__}") from None
    if ids != list(range(config.vocab_size)):
        raise _damaged(source, f"{TOKENIZER} does not have the model's {config.vocab_size} tokens")
    if None in (tokenizer.eos_token_id, tokenizer.pad_token_id, tokenizer.unk_token_id):
        raise _damaged(source, f"{TOKENIZER} has no end, padding or unknown token")
    return tokenizer


def _texts(source: str | Path, revision: str | None) -> Path:
    """Return the folder of a model; for one on the Hub, the folder of its copy, still without weights."""
    if Path(source).is_dir():
        return Path(source)
    if not HUB_ID.fullmatch(str(source)):
        raise _missing(source, "a Hub id is OWNER/NAME")
    try:
        return Path(snapshot_download(str(source), revision=revision, allow_patterns=[*TEXTS]))
    except (OSError, ValueError, HTTPError) as error:
        raise _missing(source, str(error)) from None


def _weights(source: str | Path, folder: Path) -> Path:
    """Return the file of a model's weights; it is fetched if the model is on the Hub, whose copy is named by commit."""
    path = folder / WEIGHTS
    if not path.is_file() and not Path(source).is_dir():
        try:
            path = Path(hf_hub_download(str(source), WEIGHTS, revision=folder.name))
        except (OSError, ValueError, HTTPError) as error:
            raise _missing(source, f"{WEIGHTS}: {error}") from None
    if not path.is_file():
        raise _damaged(source, f"no {WEIGHTS}; other formats are not read")
    if (folder / "adapter_config.json").exists():
        raise _damaged(source, "adapter_config.json: merge the adapter into its model first")
    return path


def _read_config(source: str | Path, folder: Path, dropout: float = 0.0) -> PreTrainedConfig:
    try:
        given: Any = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise _missing(source, f"no {CONFIG}") from None
    except (ValueError, RecursionError):
        raise _missing(source, f"{CONFIG} is damaged") from None
    kind = given.get("model_type") if isinstance(given, dict) else None
    if not isinstance(kind, str) or kind not in CONFIG_CLASSES:
        raise UserError(f"{source}: a {kind} model, not one of {', '.join(CONFIG_CLASSES)}")
    try:
        known = {field.name for field in fields(CONFIG_CLASSES[kind])} - {"quantization_config", "auto_map"} | {*KEPT}
        taken = {name: value for name, value in given.items() if name in known}
        if not isinstance(taken.get("header_fields", ""), str):
            raise ValueError("header_fields is not a text")
        large = [name for name, value in taken.items() if isinstance(value, int | float) and not -MOST <= value <= MOST]
        if large:
            raise ValueError(f"{large[0]} {taken[large[0]]:.3g} is out of range")
        taken |= dict.fromkeys(DROPOUTS[kind], dropout)
        return CONFIG_CLASSES[kind](**taken)
    except Exception as error:  # a field of a wrong type can raise anything
        raise _missing(source, f"{CONFIG}: {error}") from None


def _check_shapes(config: PreTrainedConfig, shapes: dict[str, tuple[int, ...]]) -> None:
    """Raise ValueError unless a file's tensors are those of the configuration's model; checked before it is built."""
    if config.num_hidden_layers > len(shapes):
        raise ValueError(f"{WEIGHTS} has {len(shapes)} tensors, too few for {config.num_hidden_layers} layers")
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config, trust_remote_code=False)
    expected = {name: tuple(values.shape) for name, values in model.state_dict().items()}
    tied = {*getattr(model, "all_tied_weights_keys", {})}
    for name in sorted(expected.keys() - tied | shapes.keys()):
        if expected.get(name) != shapes.get(name):
            raise ValueError(f"{WEIGHTS}: {name} is {shapes.get(name)}, not {expected.get(name)} as {CONFIG} says")


def _missing(source: str | Path, reason: str) -> UserError:
    return UserError(f"{source}: no folder with a model, and no model of the Hub ({_line(reason)})")


def _damaged(source: str | Path, reason: str) -> UserError:
    return UserError(f"{source}: the model cannot be loaded ({_line(reason)})")


def _line(reason: str) -> str:
    return f"{' '.join(reason.split()):.300}"
