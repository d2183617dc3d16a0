"""How far back an error reaches: the size of delta_t^l = dL/dz_t^l, layer by layer, and what it tells in words."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

VANISHED = 1e-3  # of what arrives at the last step: nothing that one step of an optimizer would notice
EXPLODED = 10.0


def sizes(deltas: Tensor) -> Tensor:
    """Return |delta_t|, the norm over a stream's units averaged over streams: (time, batch, hidden) -> (time,)."""
    return torch.linalg.vector_norm(deltas.double(), dim=-1).mean(-1)


def by_lag(deltas: Sequence[Tensor]) -> Tensor:
    """Return |dL_T/dz_{T-k}| as (layers, time): entry k of a layer is k steps before the last.

    `deltas`: one (time, batch, hidden) a layer, of the loss of the window's last step alone.
    """
    return torch.stack([sizes(layer) for layer in deltas]).flip(1)


def vanishes_at(curve: Tensor) -> int | None:
    """Return the lag from which on the gradient stays below VANISHED of that at lag 0, or None where it never does.

    One that is zero from lag 0 on (every unit of a relu dead) has vanished there.
    """
    below = curve <= VANISHED * curve[0]
    if not bool(below[-1]):
        return None
    above = (~below).nonzero()
    return int(above[-1]) + 1 if len(above) else 0


def explodes_at(curve: Tensor) -> int | None:
    """Return the first lag at which the gradient is not finite or over EXPLODED times that at lag 0, or None.

    Where nothing arrives at lag 0 there is nothing to compare with.
    """
    beyond = (~torch.isfinite(curve) | ((curve > EXPLODED * curve[0]) & (curve[0] > 0))).nonzero()
    return int(beyond[0]) if len(beyond) else None


def in_words(lags: Tensor) -> dict[str, str]:
    """Return what is to be said of (layers, time) gradients by lag: at most `vanishing` and `exploding`."""
    said: dict[str, str] = {}
    for layer, curve in enumerate(lags):
        explodes, vanishes = explodes_at(curve), vanishes_at(curve)
        start = float(curve[0])
        if explodes is not None and "exploding" not in said:
            size = float(curve[explodes])
            how = f"{size / start:.1f} times that at lag 0" if math.isfinite(size) else f"{size}"
            said["exploding"] = (
                f"the gradient explodes: in layer {layer} |dL_T/dz_(T-k)| is {how} at lag k = {explodes}; "
                "trainer.gradient_clip_val=1 bounds the step"
            )
        elif vanishes is not None and "vanishing" not in said:
            how = f"stays below {VANISHED:g} of that at lag 0" if start else "is zero"
            said["vanishing"] = (
                f"the gradient vanishes: in layer {layer} |dL_T/dz_(T-k)| {how} "
                f"from lag k = {vanishes} on; what lies further back is not learned from this error"
            )
    return said
