"""The loss of every timestep, and the one number that is minimised."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor
from torch.nn import functional as F

NO_TARGET = -100  # torch's word for "no loss here": the padding of items of unequal length


@dataclass
class WindowLoss:
    """What a window costs.

    minimised: scalar, L = sum_t L_t or its mean over time; it carries the graph.
    losses: (time, batch) nats of each character, zero where there is no target; detached.
    real: (time, batch) whether there is a target.
    characters: scalar, how many there are.
    """

    minimised: Tensor
    losses: Tensor
    real: Tensor
    characters: Tensor

    def by_position(self) -> Tensor:
        """Return L_t, (time,) nats, averaged over the streams that have a target at t."""
        return self.losses.sum(1) / self.real.sum(1).clamp(min=1)

    def mean(self) -> Tensor:
        """Return the mean over the window's characters: nats a character."""
        return self.losses.sum() / self.characters.clamp(min=1)


def window_loss(logits: Tensor, targets: Tensor, over_time: str) -> WindowLoss:
    """Return the losses of a window.

        L_t = -log softmax(o_t)[target_t]      averaged over the batch
        L   = L_1 + L_2 + ... + L_T            over_time=sum, added in this order, as the tutorial's script adds them
        L   = the mean over all characters     over_time=mean

    Shapes: logits (time, batch, vocab), targets (time, batch) with NO_TARGET where there is none.
    """
    losses = F.cross_entropy(logits.flatten(0, 1), targets.flatten(), reduction="none", ignore_index=NO_TARGET)
    losses = losses.view(targets.shape)
    real = targets != NO_TARGET
    characters = real.sum()
    if over_time == "sum":
        L_t = losses.sum(1) / real.sum(1).clamp(min=1)
        minimised = sum_in_order(L_t)
    else:
        minimised = losses.sum() / characters.clamp(min=1)  # a whole window may be padding on one rank of several
    return WindowLoss(minimised, losses.detach(), real, characters)


def sum_in_order(L_t: Tensor) -> Tensor:
    """Return L_1 + L_2 + ... + L_T, added one after another: another order changes the last digits."""
    L = L_t.new_zeros(())
    for term in L_t.unbind():
        L = L + term
    return L
