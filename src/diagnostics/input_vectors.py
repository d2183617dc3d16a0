"""The characters as the network sees them: the columns of U, in TensorBoard's projector."""

from __future__ import annotations

from torch import Tensor

from src.diagnostics.diagnostic import View, Watcher
from src.diagnostics.drawing import labels
from src.diagnostics.gradient_flow import Layers, is_plain
from src.diagnostics.tensorboard import writers
from src.models.gated import Gated


class InputVectors(Watcher):
    """Put `input_vectors` into the projector: a point a character, of its column of the first layer's U (all gates)."""

    name = "input_vectors"

    def means_something(self, view: View) -> bool:
        """A recurrence of one's own need not have a U."""
        return isinstance(view.model.recurrence, Gated) or is_plain(view)

    def draw(self, view: View) -> None:
        """Write the vectors of now in the place of earlier ones."""
        vectors = columns(view).float().numpy()
        for writer in writers(view.trainer.loggers):
            writer.vectors("input_vectors", vectors, labels(self.gallery.symbols))


def columns(view: View) -> Tensor:
    """Return the columns of U as rows, (vocab, hidden or gates * hidden)."""
    recurrence = view.model.recurrence
    if isinstance(recurrence, Gated):
        U = recurrence.rnn.weight_ih_l0
        assert isinstance(U, Tensor)
        return U.detach().cpu().T
    return Layers.of(recurrence).weights[0][:, : len(view.trainer.datamodule.corpus.vocabulary)].T  # type: ignore[attr-defined]
