"""Is the recurrent matrix about to explode: the eigenvalues of each W beside the unit circle, its singular values."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from src.analysis.spectrum import eigenvalues, singular_values
from src.analysis.through_time import Layers
from src.training.callbacks.gradient_flow import is_plain
from src.training.callbacks.probe import View
from src.training.callbacks.watcher import Watcher


class RecurrentMatrix(Watcher):
    """Draw `recurrent/eigenvalues`: now, and in grey as it was before the first step."""

    name = "recurrent_matrix"
    draws_at_start = True  # where an initialisation puts them is half of what is to be seen

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.first: list[tuple[Tensor, Tensor]] = []  # a layer: eigenvalues, singular values

    def means_something(self, view: View) -> bool:
        """A gated cell has a W a gate, and no power of one of them is what a signal is multiplied by."""
        return is_plain(view)

    def draw(self, view: View) -> None:
        """Compute and draw."""
        from src.analysis import pictures

        now = [(eigenvalues(W), singular_values(W)) for W in Layers.of(view.model.recurrence).W()]
        self.first = self.first or now
        values, sigma = zip(*now, strict=True)
        first, first_sigma = zip(*self.first, strict=True)
        figure = pictures.eigenvalues(view.step, values, first, list(zip(sigma, first_sigma, strict=True)))
        self.gallery.figure(view.trainer, "recurrent/eigenvalues", figure, view.step)

    def memory(self) -> dict[str, Any]:
        """How it was before the first step."""
        return {"first": [list(layer) for layer in self.first]}

    def remember(self, memory: dict[str, Any]) -> None:
        """Take it back."""
        self.first = [(values, sigma) for values, sigma in memory["first"]]
