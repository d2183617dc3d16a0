"""What a character costs by its position in the window, with the carried state and from a zero state."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from src.diagnostics import drawing
from src.diagnostics.diagnostic import Diagnostic, EvalView, Reading

MOST_READ = 8_192  # characters: a quarter of a bit of noise at each position, the same in both curves


class Positions(NamedTuple):
    """Sums by position in the window: nats (time,) float64 and characters (time,)."""

    nats: Tensor
    characters: Tensor

    @classmethod
    def of(cls, readings: Sequence[Reading]) -> Positions:
        """Add up windows, some of which may be shorter than others."""
        time = max(len(reading.targets) for reading in readings)
        nats, characters = torch.zeros(2, time, dtype=torch.float64)
        for targets, _, losses in readings:
            missing = (0, time - len(targets))
            nats += F.pad(losses.double().sum(1), missing)
            characters += F.pad((targets >= 0).double().sum(1), missing)
        return cls(nats, characters)

    def mean(self) -> Tensor:
        """Return nats per character at each position, (time,)."""
        return self.nats / self.characters.clamp(min=1)

    def overall(self) -> float:
        """Return nats per character over all positions."""
        return float(self.nats.sum() / self.characters.sum().clamp(min=1))


class LossByPosition(Diagnostic):
    """Draw `window/loss_by_position`, and write `window/cross_entropy_carried` and `_fresh` as curves."""

    name = "loss_by_position"

    def draw(self, view: EvalView) -> dict[str, Any]:
        """Read some windows of the validation with the carried state and from zero states, and draw both."""
        carried, fresh = (Positions.of(view.readings(MOST_READ, carry)) for carry in (True, False))
        view.scalars({"window/cross_entropy_carried": carried.overall(), "window/cross_entropy_fresh": fresh.overall()})
        return {"window/loss_by_position": loss_by_position(view.step, carried, fresh)}


def loss_by_position(step: int, carried: Positions, fresh: Positions) -> Any:
    """Draw what a character costs by its position in the window, after `step` optimizer steps."""
    figure, [[axes]] = drawing.page(f"Loss by position in the window, after {step:,} steps", 4.2, [1])
    for positions, colour, name in (
        (fresh, drawing.VERMILION, "fresh: every window starts from a zero state"),
        (carried, drawing.BLUE, "carried: the state of the window before"),
    ):
        bits, mean = drawing.finite(positions.mean() * drawing.NAT), positions.overall() * drawing.NAT
        axes.plot(
            range(1, len(bits) + 1), bits, "o-", markersize=3, color=colour, label=f"{name}; {mean:.2f} on average"
        )
        axes.axhline(float(drawing.finite(mean)), color=colour, linewidth=0.8, linestyle=":")
    axes.set(xlabel="step t of the window", ylabel="bits per character")
    drawing.whole_numbers(axes, most=9)
    axes.set_ylim(bottom=0)
    axes.legend(loc="best")
    return figure
