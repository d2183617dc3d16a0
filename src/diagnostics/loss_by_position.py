"""What a character costs by its place in the window: with a fresh state the first ones are predicted without a past."""

from __future__ import annotations

from typing import Any, NamedTuple

import lightning.pytorch as pl
import torch
from torch import Tensor

from src.diagnostics.diagnostic import View, Watcher
from src.training.module import LanguageModule


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


# ---- Where in the window it is bad: what a character costs by its place, with the carried state and from a ...

MOST_READ = 8_192  # characters compared: a quarter of a bit of noise at each place, the same in both curves


class LossByPosition(Watcher):
    """Draw `window/loss_by_position`, and `window/cross_entropy_carried|fresh` as curves.

    With the carried state the first windows of a validation are counted as they go by; where none was at this step,
    they are read. From fresh states they are read once more, so that both curves are about the same characters.
    """

    name = "loss_by_position"

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.carried, self.seen_at = Positions.none(), -1  # of the validation at which step

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Count anew."""
        self.carried, self.seen_at = Positions.none(), trainer.global_step

    def on_validation_batch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule, *_: Any) -> None:
        """Count a window that was validated on."""
        assert isinstance(pl_module, LanguageModule)
        if self.active and pl_module.val_outcome is not None and not enough(self.carried):
            loss = pl_module.val_outcome.loss
            self.carried = self.carried.plus(loss.losses, loss.real)

    def draw(self, view: View) -> None:
        """Read some windows from fresh states, and draw both."""
        from src.diagnostics.drawing import loss_by_position

        seen = self.seen_at == view.step and len(self.carried.nats)
        carried = self.carried if seen else positions(view, carry=True)
        fresh = positions(view, carry=False)
        overall = (carried.overall(), fresh.overall())
        figure = loss_by_position(view.step, carried.mean(), fresh.mean(), overall)
        self.gallery.figure(view.trainer, "window/loss_by_position", figure, view.step)
        curves = {f"window/cross_entropy_{name}": x for name, x in zip(("carried", "fresh"), overall, strict=True)}
        self.gallery.scalars(view.trainer, curves, view.step)


def enough(found: Positions) -> bool:
    """Return whether no more windows are wanted."""
    return bool(found.characters.sum() >= MOST_READ)


def positions(view: View, carry: bool) -> Positions:
    """Return the losses of a text's first windows, the state carried from one to the next or always zero."""
    found, state = Positions.none(), None
    for window in view.validated():
        _, loss, ended = view.read(window, None if window.starts else state)
        found = found.plus(loss.losses, loss.real)
        state = ended if carry else None
        if enough(found):
            break
    return found
