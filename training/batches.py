"""Batches of training sequences, in an order that depends on seed and step alone."""

import numpy as np
import torch

from cli import UserError


class WindowBatches:
    """Batches of windows, each [batch, context]; an epoch predicts every token once, the next one cuts elsewhere.

    The order of an epoch is a permutation drawn from (seed, epoch): a batch does not need the ones before it.
    """

    def __init__(self, stream: np.ndarray, context: int, batch_size: int, seed: int) -> None:
        self.stream, self.context, self.batch_size, self.seed = stream, context, batch_size, seed
        self.stride = context - 1  # windows share one token: the last target is the next window's first input
        self.per_epoch = (len(stream) - context) // self.stride
        if self.per_epoch < 1:
            raise ValueError(f"a stream of {len(stream)} tokens holds no {context}-token windows")
        self._epoch = -1
        self._starts = np.empty(0, dtype=np.int64)

    def _starts_of(self, epoch: int) -> np.ndarray:
        if epoch != self._epoch:
            draw = np.random.default_rng((self.seed, epoch))
            offset = draw.integers(
                min(self.stride, len(self.stream) - self.context - (self.per_epoch - 1) * self.stride)
            )
            self._starts = offset + self.stride * draw.permutation(self.per_epoch)
            self._epoch = epoch
        return self._starts

    def batch(self, step: int) -> torch.Tensor:
        """Return the token ids of a step: [batch, context], int64."""
        windows = np.arange(step * self.batch_size, (step + 1) * self.batch_size)
        starts = np.array([self._starts_of(int(w) // self.per_epoch)[int(w) % self.per_epoch] for w in windows])
        return torch.from_numpy(self.stream[starts[:, None] + np.arange(self.context)].astype(np.int64))


class StreamBatches(WindowBatches):
    """Batches of sequences, each [batch, context], whose rows are contiguous streams of text.

    A stream's next sequence starts with the last token of the one before, so every token of a stream is predicted once.
    `groups` groups of streams take turns, a step each: a model learns less from neighbouring steps on adjoining text
    (docs/log.md). The streams of an epoch are equal stretches of the data, which continue from their end to their start
    (both are the same boundary); the start of the first stream is drawn from (seed, epoch). Raises UserError if the
    data have fewer sequences than a batch has rows.
    """

    def __init__(self, stream: np.ndarray, context: int, batch_size: int, seed: int, groups: int) -> None:
        super().__init__(stream, context, batch_size, seed)
        sequences = (len(stream) - 1) // self.stride
        self.groups = min(groups, sequences // batch_size)
        if self.groups < 1:
            raise UserError(
                f"--batch_size {batch_size}: {len(stream)} training tokens are too few for sequences of {context}: "
                "give a smaller batch"
            )
        self.per_stream = sequences // (batch_size * self.groups)
        self.steps_per_epoch = self.groups * self.per_stream

    def turn(self, step: int) -> tuple[int, int]:
        """Return the group of streams of a step, and the number of its sequence in the epoch."""
        sequence, group = divmod(step % self.steps_per_epoch, self.groups)
        return group, sequence

    def batch(self, step: int) -> torch.Tensor:
        """Return the token ids of a step: [batch, context], int64."""
        group, sequence = self.turn(step)
        length = len(self.stream) - 1
        begin = np.random.default_rng((self.seed, step // self.steps_per_epoch)).integers(length)
        streams = group + self.groups * np.arange(self.batch_size)
        starts = begin + self.stride * (streams * self.per_stream + sequence)
        return torch.from_numpy(self.stream[(starts[:, None] + np.arange(self.context)) % length].astype(np.int64))
