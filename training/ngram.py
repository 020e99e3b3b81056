"""The baseline that any model has to beat: character n-grams with Witten–Bell smoothing."""

import numpy as np


def ngram_losses(train: np.ndarray, held_out: np.ndarray, vocabulary_size: int, order: int) -> np.ndarray:
    """Return the loss in nats of each held-out token but the first, under an n-gram of `order`: [tokens - 1].

    An n-gram of order 3 sees two characters before the one it predicts. Orders are interpolated down to the uniform
    distribution by Witten–Bell (1991): p = (count + kinds · p_shorter) / (count of context + kinds), where kinds is
    the number of different characters seen after the context. Both streams are [tokens] of ids.
    """
    train = train.astype(np.int64)
    held_out = held_out.astype(np.int64)
    probability = np.full(len(held_out) - 1, 1 / vocabulary_size)
    for length in range(order):  # length of the context
        seen_context, seen = _codes(train, length, vocabulary_size)
        asked_context, asked = _codes(held_out, length, vocabulary_size)
        grams, gram_counts = np.unique(seen, return_counts=True)
        contexts, context_counts = np.unique(seen_context, return_counts=True)
        kinds = np.unique(grams // vocabulary_size, return_counts=True)[1]  # sorted as `contexts` is
        counts = _look_up(grams, gram_counts, asked)
        totals = _look_up(contexts, context_counts, asked_context)
        different = _look_up(contexts, kinds, asked_context)
        shorter = probability[max(0, length - 1) :]  # the first tokens have no context of this length
        place = slice(max(0, length - 1), None)
        mixed = (counts + different * shorter) / np.maximum(totals + different, 1)
        probability[place] = np.where(totals > 0, mixed, shorter)
    return -np.log(probability)


def _codes(stream: np.ndarray, length: int, vocabulary_size: int) -> tuple[np.ndarray, np.ndarray]:
    """Number each context of `length` tokens, and each context with the token after it.

    The first token of a stream is never predicted, so contexts begin there and targets one later.
    """
    skip = max(1, length)
    targets = stream[skip:]
    context = np.zeros(len(targets), dtype=np.int64)
    for back in range(length, 0, -1):
        context = context * vocabulary_size + stream[skip - back : len(stream) - back]
    return context, context * vocabulary_size + targets


def _look_up(keys: np.ndarray, values: np.ndarray, asked: np.ndarray) -> np.ndarray:
    place = np.minimum(np.searchsorted(keys, asked), len(keys) - 1)
    return np.where(keys[place] == asked, values[place], 0)
