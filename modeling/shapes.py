"""Sizes by name, the LSTM that matches each GPT, and their parameters and FLOPs. Imports no torch."""

from bisect import bisect_right
from dataclasses import dataclass
from math import ceil, sqrt

ARCHITECTURE_OF = {"gpt2": "gpt", "abc_lstm": "lstm"}  # by model_type
MATCH = 0.025  # largest relative difference between the parameters of an LSTM and those of its GPT
EMBEDDING_STD = 0.25  # of the LSTM's tied embedding, from the pilots in docs/log.md
HEAD_WIDTH = 64  # wider heads are faster on CPUs and no worse here; narrower models have one head


@dataclass(frozen=True)
class Size:
    """Blocks of a GPT-2, their width, and the layers of the LSTM that matches it."""

    n_layer: int
    n_embd: int
    lstm_layers: int


SIZES = {
    "15k": Size(2, 20, 1),
    "30k": Size(2, 28, 1),
    "60k": Size(2, 44, 1),
    "120k": Size(2, 64, 1),
    "250k": Size(2, 96, 1),
    "500k": Size(3, 112, 1),
    "tiny": Size(5, 128, 2),
    "small": Size(6, 256, 2),
    "medium": Size(6, 512, 2),
    "large": Size(10, 640, 2),
    "xl": Size(14, 768, 2),
}


@dataclass(frozen=True)
class Shape:
    """Shape and initial scale of a model; `n_head` is 0 for an LSTM.

    `width` is that of a GPT's residual stream, or of an LSTM's h and c. `init_std` is the standard deviation of a GPT's
    weights, or of an LSTM's tied embedding.
    """

    n_layer: int
    width: int
    n_head: int
    embedding_size: int
    init_std: float


def shape_of(architecture: str, size: str, vocabulary_size: int, context: int) -> Shape:
    """Return the shape of a size, for an architecture ("gpt" or "lstm").

    A GPT's weights are N(0, 1/width): a token's embedding then has unit length at any width. The LSTM matches the GPT
    of its size in all parameters and in those without embeddings, within MATCH. As it has no position embedding, its
    token embedding is wider than its state in small models, with a projection from the state to the tied head.
    """
    layers, width = SIZES[size].n_layer, SIZES[size].n_embd
    gpt = Shape(layers, width, max(1, width // HEAD_WIDTH), width, 1 / sqrt(width))
    if architecture == "gpt":
        return gpt
    counted = count_parameters("gpt", gpt, vocabulary_size, context)
    without_embeddings = counted["matrices"] + counted["vectors"]
    least = (1 - MATCH) * counted["total"]

    def parameters(hidden: int, embedding: int) -> dict[str, int]:
        return count_parameters("lstm", shaped(hidden, embedding), vocabulary_size, context)

    def shaped(hidden: int, embedding: int) -> Shape:
        return Shape(SIZES[size].lstm_layers, hidden, 0, embedding, EMBEDDING_STD)

    def widest(most: float, embedding: int | None = None) -> int:
        """Return the largest hidden size with at most `most` parameters without embeddings."""

        def found(hidden: int) -> int:
            counted = parameters(hidden, embedding or hidden)
            return counted["matrices"] + counted["vectors"]

        return bisect_right(range(1, 2**15), most, key=found)

    for most in (without_embeddings, (1 + MATCH) * without_embeddings):
        hidden = widest(most)
        if parameters(hidden, hidden)["total"] >= least:
            return shaped(hidden, hidden)
    embedding = ceil((least - most) / vocabulary_size)
    hidden = widest(most, embedding)
    while parameters(hidden, embedding)["total"] < least:
        embedding += 1
    return shaped(hidden, embedding)


def _products(architecture: str, shape: Shape, tied: bool, feed_forward: int | None) -> dict[str, int]:
    """Return the weights in matrix products by kind, without the head, and the input width of the head."""
    width, embedding, layers = shape.width, shape.embedding_size, shape.n_layer
    if architecture == "gpt":
        blocks = layers * (4 * width**2 + 2 * width * (feed_forward or 4 * width))
        return {"matrices": blocks, "recurrence": 0, "head_width": width}
    return {
        "matrices": width * embedding if tied and width != embedding else 0,
        "recurrence": 4 * width * (embedding + width) + (layers - 1) * 8 * width**2,
        "head_width": embedding if tied else width,
    }


def count_parameters(
    architecture: str,
    shape: Shape,
    vocabulary_size: int,
    positions: int,
    tied: bool = True,
    feed_forward: int | None = None,
) -> dict[str, int]:
    """Return the trainable parameters by group, and their total.

    `tables` are the embeddings of tokens and positions, and an untied head: without them a tied and an untied model
    count alike. `total - tables` is `n_params_non_embedding` (Kaplan et al. 2020, section 2.1). `feed_forward` is the
    inner width of a GPT's blocks, 4 · width by default; an LSTM has no `positions`.
    """
    width, layers = shape.width, shape.n_layer
    products = _products(architecture, shape, tied, feed_forward)
    if architecture == "gpt":
        vectors = layers * (9 * width + (feed_forward or 4 * width)) + 2 * width
        tables = (vocabulary_size + positions) * width
    else:
        vectors = layers * 8 * width
        tables = vocabulary_size * shape.embedding_size
    tables += 0 if tied else vocabulary_size * width
    matrices = products["matrices"] + products["recurrence"]
    return {"tables": tables, "matrices": matrices, "vectors": vectors, "total": tables + matrices + vectors}


def count_flops(
    architecture: str,
    shape: Shape,
    vocabulary_size: int,
    context: int,
    tied: bool = True,
    feed_forward: int | None = None,
) -> dict[str, int]:
    """Return training FLOPs per token, forward and backward, by kind of module, at a context of `context` tokens.

    6 · weights of every matrix product, the head included; for a GPT also 6 · layers · context · width for causal
    attention (Hoffmann et al. 2022, appendix F, halved for causality). 6·N·D is wrong by a third for small models.
    """
    products = _products(architecture, shape, tied, feed_forward)
    return {
        "matrices": 6 * products["matrices"],
        "recurrence": 6 * products["recurrence"],
        "attention": 6 * shape.n_layer * context * shape.width if architecture == "gpt" else 0,
        "head": 6 * vocabulary_size * products["head_width"],
    }
