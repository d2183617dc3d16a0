"""What a character costs by its place in the window: with a fresh state the first ones are predicted without a past."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class Positions(NamedTuple):
    """Sums by place in the window: nats (time,) float64 and characters (time,)."""

    nats: Tensor
    characters: Tensor

    @classmethod
    def none(cls) -> Positions:
        """Nothing added yet."""
        return cls(torch.zeros(0, dtype=torch.float64), torch.zeros(0, dtype=torch.float64))

    def plus(self, losses: Tensor, real: Tensor) -> Positions:
        """Return these and a window's (time, batch): nats of each character, zero where `real` is false."""
        return Positions(*(_add(old, new.double().sum(1).cpu()) for old, new in zip(self, (losses, real), strict=True)))

    def mean(self) -> Tensor:
        """Return nats a character at each place, (time,)."""
        return self.nats / self.characters.clamp(min=1)

    def overall(self) -> float:
        """Return nats a character over all places."""
        return float(self.nats.sum() / self.characters.sum().clamp(min=1))


def _add(a: Tensor, b: Tensor) -> Tensor:
    """Add two vectors of which one may be longer: a window may be shorter than the others."""
    longer, shorter = (a, b) if len(a) >= len(b) else (b, a)
    total = longer.clone()
    total[: len(shorter)] += shorter
    return total
