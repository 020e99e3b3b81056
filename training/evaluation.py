"""The loss on a held-out split: every token predicted once, its error from the spread over tunes."""

from dataclasses import dataclass

import numpy as np
import torch
from torch.nn import functional as F
from transformers import PreTrainedModel

WINDOWS_AT_ONCE = 32


@dataclass(frozen=True)
class HeldOutLoss:
    """Mean loss in nats per character (the end of a tune counts as one), and its standard error over tunes."""

    loss: float
    standard_error: float
    tokens: int


@torch.inference_mode()
def token_losses(model: PreTrainedModel, stream: np.ndarray, context: int) -> np.ndarray:
    """Return the loss of each token but the first, in windows of `context`, in nats: [tokens - 1], float32."""
    stride = context - 1
    whole = (len(stream) - 1) // stride
    windows = np.lib.stride_tricks.sliding_window_view(stream, context)[::stride][:whole]
    pieces = [windows[i : i + WINDOWS_AT_ONCE] for i in range(0, whole, WINDOWS_AT_ONCE)]
    rest = stream[whole * stride :]
    if len(rest) > 1:
        pieces.append(rest[None])
    was_training = model.training
    model.eval()
    losses = []
    for piece in pieces:
        tokens = torch.from_numpy(piece.astype(np.int64)).to(model.device)
        logits = model(tokens, use_cache=False).logits[:, :-1]
        losses.append(F.cross_entropy(logits.flatten(0, 1).float(), tokens[:, 1:].flatten(), reduction="none").cpu())
    model.train(was_training)
    return torch.cat(losses).numpy()


def held_out_loss(model: PreTrainedModel, stream: np.ndarray, context: int, boundary: int) -> HeldOutLoss:
    """Return the loss of a whole split. Tunes are the clusters of the standard error (a ratio estimator)."""
    losses = token_losses(model, stream, context).astype(np.float64)
    return summarise(losses, stream, boundary)


def summarise(losses: np.ndarray, stream: np.ndarray, boundary: int) -> HeldOutLoss:
    """Return mean and error of per-token losses [tokens - 1] of a stream [tokens] that starts with a boundary."""
    tune = np.cumsum(stream[:-1] == boundary) - 1  # a tune's closing boundary is the tune's last target
    sums, counts = np.bincount(tune, weights=losses), np.bincount(tune)
    mean = losses.mean()
    spread = np.sum((sums - mean * counts) ** 2) * len(sums) / max(1, len(sums) - 1)
    return HeldOutLoss(float(mean), float(np.sqrt(spread) / len(losses)), len(losses))
