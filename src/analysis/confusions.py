"""Which character was taken for which, and what each costs."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class Confusions(NamedTuple):
    """Counts over a text. Ids are those of the vocabulary.

    counts: (true, predicted) int64, how often the first guess was the one where the other stood.
    nats: (true,) what the characters of each kind cost together.
    """

    counts: Tensor
    nats: Tensor

    @classmethod
    def none(cls, vocab_size: int) -> Confusions:
        """Nothing counted yet."""
        return cls(torch.zeros(vocab_size, vocab_size, dtype=torch.int64), torch.zeros(vocab_size, dtype=torch.float64))

    def plus(self, targets: Tensor, predicted: Tensor, losses: Tensor) -> Confusions:
        """Return these and a window's: targets, first guesses and nats, all (time, batch); targets below 0 are none."""
        real = targets >= 0
        true, guess, nats = (part[real].cpu() for part in (targets, predicted, losses))
        size = len(self.nats)
        pairs = torch.bincount(true * size + guess, minlength=size * size).view(size, size)
        return Confusions(self.counts + pairs, self.nats + torch.bincount(true, nats.double(), minlength=size))

    def worst(self, most: int) -> list[tuple[int, int, int]]:
        """Return the commonest mistakes as (true, predicted, how often), the commonest first."""
        wrong = self.counts.clone().fill_diagonal_(0)
        how_often, place = wrong.flatten().topk(min(most, wrong.numel()))
        size = len(self.nats)
        found = zip(place.tolist(), how_often.tolist(), strict=True)
        return [(p // size, p % size, n) for p, n in found if n > 0]

    def per_character(self) -> Tensor:
        """Return the mean nats of each character, (true,); not a number where it never stood."""
        return self.nats / self.counts.sum(1)
