"""The loss on a held-out split: every token is predicted once, the standard error is over tunes."""

from dataclasses import dataclass

import numpy as np
import torch
from torch.nn import functional as F
from transformers import PreTrainedModel

from modeling.modeling_abc_lstm import AbcLstmCache
from preprocessing.corpus import Corpus

EVALUATION_BATCH = 32


@dataclass(frozen=True)
class HeldOutLoss:
    """Mean loss in nats per character (the end of a tune counts as one), and its standard error over tunes."""

    loss: float
    standard_error: float
    tokens: int


@torch.inference_mode()
def token_losses(model: PreTrainedModel, stream: np.ndarray, context: int, stateful: bool = False) -> np.ndarray:
    """Return the loss in nats of each token but the first, in windows of `context`: [tokens - 1], float32.

    With `stateful` it is one pass in pieces, each from the state at the end of the one before, also across tunes.
    """
    stride = context - 1
    whole = (len(stream) - 1) // stride
    windows = np.lib.stride_tricks.sliding_window_view(stream, context)[::stride][:whole]
    pieces = [windows[i : i + EVALUATION_BATCH] for i in range(0, whole, EVALUATION_BATCH)]
    rest = stream[whole * stride :]
    if len(rest) > 1:
        pieces.append(rest[None])
    cache = None
    if stateful:
        cache, length = AbcLstmCache(), EVALUATION_BATCH * stride
        pieces = [stream[None, i : i + length + 1] for i in range(0, len(stream) - 1, length)]
    was_training = model.training
    model.eval()
    losses = []
    for piece in pieces:
        tokens = torch.from_numpy(piece.astype(np.int64)).to(model.device)
        if cache is None:
            logits = model(tokens, use_cache=False).logits[:, :-1]
        else:  # a piece's last token is read by the next one
            logits = model(tokens[:, :-1], past_key_values=cache).logits
        losses.append(F.cross_entropy(logits.flatten(0, 1).float(), tokens[:, 1:].flatten(), reduction="none").cpu())
    model.train(was_training)
    return torch.cat(losses).numpy()


@dataclass(frozen=True)
class HeldOutLosses:
    """The loss of a whole split, of its headers and its bodies, and by position in the window: [context - 1]."""

    whole: HeldOutLoss
    headers: float
    bodies: float
    by_position: list[float]


def held_out_losses(
    model: PreTrainedModel, corpus: Corpus, split: str, context: int, stateful: bool = False
) -> HeldOutLosses:
    """Return the losses of a split, in nats per character.

    At position 0 of a window a prediction sees one token, at position 1 two, and so on; whole windows only. With
    `stateful` it sees all tokens before it at every position.
    """
    stream = np.asarray(corpus.tokens(split))
    losses = token_losses(model, stream, context, stateful).astype(np.float64)
    in_header = corpus.in_header(split)[1:]
    by_position = losses[: len(losses) // (context - 1) * (context - 1)].reshape(-1, context - 1).mean(0)
    return HeldOutLosses(
        summarise(losses, stream, corpus.boundary),
        float(losses[in_header].mean()),
        float(losses[~in_header].mean()),
        [round(float(loss), 6) for loss in by_position],
    )


def summarise(losses: np.ndarray, stream: np.ndarray, boundary: int) -> HeldOutLoss:
    """Return mean and error of per-token losses [tokens - 1] of a stream [tokens] that starts with a boundary."""
    tune = np.cumsum(stream[:-1] == boundary) - 1  # a tune's closing boundary is the tune's last target
    sums, counts = np.bincount(tune, weights=losses), np.bincount(tune)
    mean = losses.mean()
    spread = np.sum((sums - mean * counts) ** 2) * len(sums) / max(1, len(sums) - 1)
    return HeldOutLoss(float(mean), float(np.sqrt(spread) / len(losses)), len(losses))
