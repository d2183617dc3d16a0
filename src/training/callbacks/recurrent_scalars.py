"""Two numbers a layer that tell early what goes wrong: the spectral radius of W, and how many units are saturated."""

from __future__ import annotations

from typing import Any

import lightning.pytorch as pl

from src.analysis.saturation import saturated
from src.analysis.spectrum import spectral_radius
from src.analysis.through_time import Layers
from src.training.callbacks.gradient_flow import is_plain
from src.training.callbacks.probe import View
from src.training.callbacks.watcher import Watcher


class RecurrentScalars(Watcher):
    """Write `recurrent/spectral_radius/layer_<l>` and `recurrent/saturated/layer_<l>`.

    Saturation is that of the state which the last window of training left behind, all streams; at step 0 that of the
    first window, which the weights of step 0 have read. A gated model has a W a gate, and a signal is multiplied by no
    power of any of them: it has saturation alone.
    """

    name = "recurrent_scalars"
    waits = False  # for the first state: before the first window there is none

    def look(self, view: View) -> None:
        """Write a point of each."""
        if is_plain(view):
            matrices = Layers.of(view.model.recurrence).W()
            radii = {f"recurrent/spectral_radius/layer_{layer}": spectral_radius(W) for layer, W in enumerate(matrices)}
            self.gallery.scalars(view.trainer, radii, view.step)
        self.waits = view.step == 0
        if not self.waits:
            self._saturation(view)

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule, *_: Any) -> None:
        """Write the first point of saturation."""
        if self.waits:
            self.waits = False
            view = self._view(trainer, pl_module)
            view.step = 0
            self._saturation(view)

    def _saturation(self, view: View) -> None:
        state = view.module.states["train"]
        state = state[0] if isinstance(state, tuple) else state  # the LSTM's h, not its c
        if state is not None:
            shares = saturated(state).tolist()
            points = {f"recurrent/saturated/layer_{layer}": share for layer, share in enumerate(shares)}
            self.gallery.scalars(view.trainer, points, view.step)
