"""The loss of every timestep, and the one number that is minimised."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor
from torch.nn import functional as F

NO_TARGET = -100  # torch's ignore_index: the padding of items of unequal length


@dataclass
class WindowLoss:
    """The losses of a window.

    minimised: scalar, L = sum_t L_t or its mean over time, with its graph.
    nats: scalar, the sum over the characters, detached.
    characters: scalar, the number of targets.
    everywhere: scalar, the number of targets of this window in all processes of the run.
    logits, targets: (time, batch, vocab), detached, and (time, batch).
    """

    minimised: Tensor
    nats: Tensor
    characters: Tensor
    everywhere: Tensor
    logits: Tensor
    targets: Tensor

    @cached_property
    def losses(self) -> Tensor:
        """Return (time, batch) nats of each character, zero where there is no target."""
        return losses_of(self.logits.to(self.nats.dtype), self.targets)  # the dtype that autocast chose for the loss

    @cached_property
    def real(self) -> Tensor:
        """Return (time, batch) whether there is a target."""
        return self.targets != NO_TARGET

    def by_position(self) -> Tensor:
        """Return L_t, (time,) nats, averaged over the streams that have a target at t."""
        return self.losses.sum(1) / self.real.sum(1).clamp(min=1)

    def mean(self) -> Tensor:
        """Return the mean over the window's characters: nats a character."""
        return self.nats / self.characters.clamp(min=1)


def window_loss(logits: Tensor, targets: Tensor, over_time: str, world_size: int = 1) -> WindowLoss:
    """Return the losses of a window.

        L_t = -log softmax(o_t)[target_t]      averaged over the batch
        L   = L_1 + L_2 + ... + L_T            over_time=sum, added in this order, as the tutorial's script adds them
        L   = the mean over all characters     over_time=mean

    Each of several processes has some columns of the batch, and DDP averages their gradients. So each divides by the
    characters of all columns and multiplies by `world_size`: the mean over the processes is the L of a single one.

    Shapes: logits (time, batch, vocab), targets (time, batch) with NO_TARGET where there is none.
    """
    real = targets != NO_TARGET
    characters = everywhere = real.sum()
    if over_time == "mean" and world_size == 1 and logits.requires_grad:  # training rarely needs each loss
        nats = F.cross_entropy(logits.flatten(0, 1), targets.flatten(), reduction="sum", ignore_index=NO_TARGET)
        minimised = nats / characters.clamp(min=1)
        return WindowLoss(minimised, nats.detach(), characters, everywhere, logits.detach(), targets)
    losses = losses_of(logits, targets)
    at_t = real.sum(1) if over_time == "sum" or world_size > 1 else None  # (time,)
    if at_t is not None and world_size > 1:
        torch.distributed.all_reduce(at_t)
        everywhere = at_t.sum()
    if over_time == "sum":
        assert at_t is not None
        minimised = sum_in_order(losses.sum(1) / at_t.clamp(min=1))
    else:
        minimised = losses.sum() / everywhere.clamp(min=1)
    if world_size > 1:
        minimised = minimised * world_size
    each = losses.detach()
    found = WindowLoss(minimised, each.sum(), characters, everywhere, logits.detach(), targets)
    found.losses = each
    return found


def losses_of(logits: Tensor, targets: Tensor) -> Tensor:
    """Return (time, batch) nats of each character, zero where there is no target, with their graph."""
    each = F.cross_entropy(logits.flatten(0, 1), targets.flatten(), reduction="none", ignore_index=NO_TARGET)
    return each.view(targets.shape)


def sum_in_order(L_t: Tensor) -> Tensor:
    """Return L_1 + L_2 + ... + L_T, added one after another: another order changes the last digits."""
    L = L_t.new_zeros(())
    for term in L_t.unbind():
        L = L + term
    return L


@dataclass
class Outcome:
    """A window that was just read.

    targets: (time, batch), NO_TARGET where nothing is predicted.
    logits: (time, batch, vocab), detached.
    loss: its losses.
    """

    targets: Tensor
    logits: Tensor
    loss: WindowLoss

    def hits(self) -> Tensor:
        """Return how many characters were the model's first guess, as a scalar."""
        return (self.logits.argmax(-1) == self.targets).sum()


def exact(losses: Tensor) -> Tensor:
    """Return losses in the precision that long sums are kept in; Apple's GPUs know no float64."""
    return losses.float() if losses.device.type == "mps" else losses.double()
