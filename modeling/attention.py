"""Causal attention for training: no padding, and on CPUs exact in blocks of queries, as plain matrix products.

torch's own CPU kernel does its products without the matrix library, in bf16 no faster than in fp32. Here each block of
queries meets the keys up to its end alone, so about 3/8 of the scores are never computed, and the probabilities are
kept for the backward pass: memory grows with time², which is why long windows stay with torch.

Axes: batch, heads, time, width (of a head).
"""

from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward

UNPADDED_CAUSAL = "unpadded_causal"
LONGEST = 1024  # beyond it the kept probabilities cost more than they save
BLOCK = {torch.float32: 64, torch.bfloat16: 128}  # fastest of 64, 128 and 256 on a CPU with avx512_bf16


class _CausalBlocks(torch.autograd.Function):
    """softmax(q·kᵀ·scaling, causal)·v for [batch · heads, time, width]; the gradient by hand (Dao et al. 2022, B.2).

    With P the probabilities and dO the gradient of the output: dV = Pᵀ·dO and dP = dO·Vᵀ; the scores' gradient is
    dS = P ∘ (dP - rowsum(P ∘ dP)); dQ = scaling · dS·K and dK = scaling · dSᵀ·Q. A block of queries adds to the keys
    and values up to its end.
    """

    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor, scaling: float) -> Tensor:
        time, size = query.shape[1], BLOCK[query.dtype]
        future = torch.full((size, size), float("-inf"), dtype=query.dtype).triu(1)
        output, kept = torch.empty_like(query), []
        with torch.autocast("cpu", enabled=False):  # the inputs' dtype is the one to compute in
            for start in range(0, time, size):
                end = min(start + size, time)
                scores = query.new_empty(query.shape[0], end - start, end)
                scores = torch.baddbmm(scores, query[:, start:end], key[:, :end].mT, beta=0, alpha=scaling)
                scores[:, :, start:] += future[: end - start, : end - start]
                probabilities = torch.softmax(scores, -1)
                output[:, start:end] = torch.bmm(probabilities, value[:, :end])
                kept.append(probabilities)
        ctx.save_for_backward(query, key, value, *kept)
        ctx.scaling = scaling
        return output

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        [gradient] = gradients
        query, key, value, *kept = ctx.saved_tensors
        of_query, of_key, of_value = torch.empty_like(query), torch.zeros_like(key), torch.zeros_like(value)
        start = 0
        for probabilities in kept:
            rows, end = slice(start, start + probabilities.shape[1]), probabilities.shape[2]
            above = gradient[:, rows]
            of_value[:, :end] += torch.bmm(probabilities.mT, above)
            of_scores = torch.bmm(above, value[:, :end].mT)
            of_scores = torch._softmax_backward_data(of_scores, probabilities, -1, probabilities.dtype)
            of_query[:, rows] = torch.bmm(of_scores, key[:, :end])
            of_key[:, :end] += torch.bmm(of_scores.mT, query[:, rows])
            start = end
        return of_query.mul_(ctx.scaling), of_key.mul_(ctx.scaling), of_value, None


def unpadded_causal(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    **kwargs: Any,
) -> tuple[Tensor, Tensor | None]:
    """Attend from query to key and value [batch, heads, time, width]; returns [batch, time, heads, width] and None.

    Whatever is not plain causal attention over a short window on a CPU goes to torch's scaled_dot_product_attention.
    There is never a mask: whole windows of training data have no padding.
    """
    batch, heads, time, width = query.shape
    plain = attention_mask is None and not dropout and key.shape[2] == time > 1
    if not plain or time > LONGEST or query.device.type != "cpu" or query.dtype not in BLOCK:
        return sdpa_attention_forward(
            module, query, key, value, attention_mask, scaling=scaling, dropout=dropout, **kwargs
        )
    query, key, value = (part.reshape(batch * heads, time, width) for part in (query, key, value))
    output = _CausalBlocks.apply(query, key, value, width**-0.5 if scaling is None else scaling)
    return output.view(batch, heads, time, width).transpose(1, 2).contiguous(), None


# No mask function is registered with it: transformers then makes no mask, for which it would read every batch back from
# the device.
AttentionInterface.register(UNPADDED_CAUSAL, unpadded_causal)
