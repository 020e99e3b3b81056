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
    parameters, _ = count("gpt", gpt, vocabulary_size, context)
    least, inner = (1 - MATCH) * parameters["total"], parameters["total"] - parameters["tables"]

    def lstm(hidden: int, embedding: int) -> Shape:
        return Shape(SIZES[size].lstm_layers, hidden, 0, embedding, EMBEDDING_STD)

    def total(hidden: int, embedding: int) -> int:
        return count("lstm", lstm(hidden, embedding), vocabulary_size, context)[0]["total"]

    def widest(most: float, embedding: int = 0) -> int:
        """Return the largest hidden size of at most `most` parameters without embeddings; 0: as wide as the state."""
        sizes = range(1, 2**15)
        return bisect_right(sizes, most, key=lambda h: total(h, embedding or h) - vocabulary_size * (embedding or h))

    for most in (inner, (1 + MATCH) * inner):
        hidden = widest(most)
        if total(hidden, hidden) >= least:
            return lstm(hidden, hidden)
    embedding = ceil((least - most) / vocabulary_size)
    hidden = widest(most, embedding)
    while total(hidden, embedding) < least:
        embedding += 1
    return lstm(hidden, embedding)


def count(
    architecture: str,
    shape: Shape,
    vocabulary_size: int,
    context: int,
    positions: int | None = None,
    tied: bool = True,
    feed_forward: int | None = None,
) -> tuple[dict[str, int], dict[str, int]]:
    """Return a model's parameters by group, and its training FLOPs per token by kind of module.

    Parameters: `tables` are the embeddings of tokens and positions (as many as `context` by default), and an untied
    head: without them a tied and an untied model count alike, and `total - tables` is `n_params_non_embedding` (Kaplan
    et al. 2020, section 2.1). `feed_forward` is the inner width of a GPT's blocks, 4 · width by default.

    FLOPs, forward and backward, at a context of `context` tokens: 6 · weights of every matrix product, the head
    included; for a GPT also 6 · layers · context · width for causal attention (Hoffmann et al. 2022, appendix F, halved
    for causality). 6·N·D is wrong by a third for small models.
    """
    layers, width, embedding = shape.n_layer, shape.width, shape.embedding_size
    if architecture == "gpt":
        inner = feed_forward or 4 * width
        matrices, recurrence = layers * (4 * width**2 + 2 * width * inner), 0
        vectors = layers * (9 * width + inner) + 2 * width
        embeddings, attention = (vocabulary_size + (positions or context)) * width, layers * context * width
    else:
        matrices = width * embedding if tied and width != embedding else 0  # the projection before a tied head
        recurrence = 4 * width * (embedding + width) + (layers - 1) * 8 * width**2
        vectors = layers * 8 * width
        embeddings, attention = vocabulary_size * embedding, 0
    head = vocabulary_size * (embedding if tied else width)
    embeddings += 0 if tied else head
    total = embeddings + matrices + recurrence + vectors
    return (
        {"tables": embeddings, "matrices": matrices + recurrence, "vectors": vectors, "total": total},
        {"matrices": 6 * matrices, "recurrence": 6 * recurrence, "attention": 6 * attention, "head": 6 * head},
    )
