"""How many units stand at the end of tanh's range, where f' = 1 - h^2 is next to nothing and no gradient passes."""

from __future__ import annotations

from torch import Tensor

LIMIT = 0.99  # f' < 0.02 beyond it


def saturated(hidden: Tensor, limit: float = LIMIT) -> Tensor:
    """Return the share of |h| > limit, layer by layer: (layers, ...) -> (layers,)."""
    return (hidden.detach().abs() > limit).flatten(1).float().mean(1)
