"""The baseline of all models: character n-grams with Witten–Bell smoothing."""

from math import log
from pathlib import Path

import numpy as np

from files import read_json, write_json
from preprocessing.corpus import Corpus
from training.evaluation import summarise

ORDERS = range(1, 8)
BASELINE_ORDER = 3


def write_baseline(corpus: Corpus, path: Path) -> None:
    """Write the losses of n-grams on the validation split, unless the file has those of this corpus already."""
    if path.is_file() and read_json(path, "corpus")["corpus"] == corpus.digest():
        return
    train, held_out = np.asarray(corpus.tokens("train")), np.asarray(corpus.tokens("validation"))
    rows = {}
    for order in ORDERS:
        losses = ngram_losses(train, held_out, len(corpus.vocabulary), order)
        loss = summarise(losses, held_out, corpus.boundary).loss
        rows[order] = {"order": order, "validation_loss": loss, "bits_per_character": loss / log(2)}
    found = {"corpus": corpus.digest(), "smoothing": "Witten-Bell", **rows[BASELINE_ORDER]}
    write_json(path, {**found, "orders": list(rows.values())})


def ngram_losses(train: np.ndarray, held_out: np.ndarray, vocabulary_size: int, order: int) -> np.ndarray:
    """Return the loss in nats of each held-out token but the first, under an n-gram of `order`: [tokens - 1].

    An n-gram of order 3 sees two characters before the one it predicts. Orders are interpolated down to the uniform
    distribution by Witten–Bell (1991): p = (count + kinds · p_shorter) / (count of context + kinds), where kinds is
    the number of different characters seen after the context. Both streams are token ids, [tokens].
    """
    train = train.astype(np.int64)
    held_out = held_out.astype(np.int64)
    probability = np.full(len(held_out) - 1, 1 / vocabulary_size)
    for length in range(order):  # length of the context
        seen_context, seen = _codes(train, length, vocabulary_size)
        held_context, held = _codes(held_out, length, vocabulary_size)
        grams, gram_counts = np.unique(seen, return_counts=True)
        contexts, context_counts = np.unique(seen_context, return_counts=True)
        kinds = np.unique(grams // vocabulary_size, return_counts=True)[1]  # sorted as `contexts` is
        counts = _look_up(grams, gram_counts, held)
        totals = _look_up(contexts, context_counts, held_context)
        different = _look_up(contexts, kinds, held_context)
        shorter = probability[max(0, length - 1) :]  # the first tokens have no context of this length
        mixed = (counts + different * shorter) / np.maximum(totals + different, 1)
        probability[max(0, length - 1) :] = np.where(totals > 0, mixed, shorter)
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


def _look_up(keys: np.ndarray, values: np.ndarray, queries: np.ndarray) -> np.ndarray:
    """Return the value of each query, 0 if it is not among the sorted keys."""
    index = np.minimum(np.searchsorted(keys, queries), len(keys) - 1)
    return np.where(keys[index] == queries, values[index], 0)
