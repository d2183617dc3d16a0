"""Which character was taken for which, and what each costs."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class ConfusionCounts(NamedTuple):
    """Counts over a text. Ids are those of the vocabulary.

    pairs: (found,) true * vocab + predicted, each pair that came, in order: of V * V a text has few.
    times: (found,) how often it came.
    nats: (vocab,) what the characters of each kind cost together.
    stood: (vocab,) how often each was the true one.
    """

    pairs: Tensor
    times: Tensor
    nats: Tensor
    stood: Tensor

    @classmethod
    def none(cls, vocab_size: int) -> ConfusionCounts:
        """Nothing counted yet."""
        empty, whole = torch.zeros(0, dtype=torch.int64), torch.zeros(vocab_size, dtype=torch.int64)
        return cls(empty, empty, whole.double(), whole)

    def plus(self, targets: Tensor, predicted: Tensor, losses: Tensor) -> ConfusionCounts:
        """Return these and a window's: targets, first guesses and nats, all (time, batch); targets below 0 are none."""
        real = targets >= 0
        true, guess, nats = (part[real].cpu() for part in (targets, predicted, losses))
        size = len(self.nats)
        new, times = torch.unique(true * size + guess, return_counts=True)
        pairs, place = torch.unique(torch.cat([self.pairs, new]), return_inverse=True)
        return ConfusionCounts(
            pairs,
            torch.zeros_like(pairs).index_add_(0, place, torch.cat([self.times, times])),
            self.nats + torch.bincount(true, nats.double(), minlength=size),
            self.stood + torch.bincount(true, minlength=size),
        )

    def hits(self) -> int:
        """Return how often the first guess was right."""
        return int(self.times[self._right()].sum())

    def worst(self, most: int) -> list[tuple[int, int, int]]:
        """Return the commonest mistakes as (true, predicted, how often), the commonest first."""
        pairs, times = self.pairs[~self._right()], self.times[~self._right()]
        commonest = times.argsort(descending=True, stable=True)[:most]
        size, found = len(self.nats), zip(pairs[commonest].tolist(), times[commonest].tolist(), strict=True)
        return [(p // size, p % size, n) for p, n in found]

    def per_character(self) -> Tensor:
        """Return the mean nats of each character, (vocab,); not a number where it never stood."""
        return self.nats / self.stood

    def _right(self) -> Tensor:
        size = len(self.nats)
        return self.pairs // size == self.pairs % size
