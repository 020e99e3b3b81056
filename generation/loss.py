"""The loss of a tune by a model, from the characters that the model sees when it writes."""

from typing import Any

import torch
from torch.nn import functional as F

from generation.abc_pipeline import AbcGenerationPipeline
from generation.decoding import KEPT, Decoder, window


@torch.inference_mode()
def tune_loss(pipe: AbcGenerationPipeline, abc: str, ended: bool) -> float:
    """Return the mean loss of a tune's characters in nats at temperature 1, with its end if the model ended it.

    An LSTM reads all of the tune, a GPT the windows of :class:`generation.decoding.Decoder`.
    """
    model, tokenizer = pipe.model, pipe.tokenizer
    ids = tokenizer(abc, verbose=False)["input_ids"] + [tokenizer.eos_token_id] * ended
    context = getattr(model.config, "n_positions", len(ids))
    bar_lines: Any = Decoder(tokenizer).bar_lines
    nats, read = 0.0, 1
    while read < len(ids):
        start = 0 if read <= context else read - len(window(ids[:read], int(KEPT * context), bar_lines))
        end = min(start + context + 1, len(ids))
        logits = model(torch.tensor([ids[start : end - 1]]), use_cache=False).logits[0, read - 1 - start :]
        nats += float(F.cross_entropy(logits, torch.tensor(ids[read:end]), reduction="sum"))
        read = end
    return nats / (len(ids) - 1)
