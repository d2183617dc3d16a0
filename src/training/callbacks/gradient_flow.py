"""How far back an error reaches: |dL_T/dz_(T-k)| by lag k and layer, over training, from the written-out backward."""

from __future__ import annotations

import logging
from typing import Any

import torch
from torch import Tensor

from src.analysis.gradients import by_lag, in_words, sizes
from src.analysis.through_time import Layers, error_at_readout
from src.data.windows import Window
from src.training.callbacks.probe import View
from src.training.callbacks.watcher import Watcher

log = logging.getLogger(__name__)
STREAMS = 8  # columns of the window that is measured: the means over them hardly move any more
WARM_UP = 16  # steps read before it from a zero state, so that the window starts as windows do in training
MOST_POINTS = 128  # columns of the heat map; beyond it every other point is dropped


class GradientFlow(Watcher):
    """Draw `gradient/by_lag`, and say once in words where the gradient vanishes or explodes.

    Measured on the same window every time: the second of the text that is validated on, behind the state that the end
    of the first one leaves, without dropout. A backward pass of its own for the loss of the last step alone; for the
    picture another for the loss of all steps. Nothing of the training step is touched.
    """

    name = "gradient_flow"

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.steps: list[int] = []
        self.lags: list[Tensor] = []  # (layers, time) each
        self.said: list[str] = []

    def means_something(self, view: View) -> bool:
        """A gated cell has no z_t of its own, but one a gate."""
        return is_plain(view)

    def look(self, view: View) -> None:
        """Measure, and say what is to be said."""
        lags = by_lag(probe_deltas(view, last_alone=True))
        if len(self.steps) >= MOST_POINTS:
            self.steps, self.lags = self.steps[::2], self.lags[::2]
        self.steps.append(view.step)
        self.lags.append(lags)
        for kind, words in in_words(lags).items():
            if kind not in self.said:
                self.said.append(kind)
                (log.warning if kind == "exploding" else log.info)("at step %d %s", view.step, words)

    def draw(self, view: View) -> None:
        """Draw the curves of now and the map of all."""
        from src.analysis.pictures import gradient_by_lag

        words = "; ".join(said.split(";")[0] for said in in_words(self.lags[-1]).values())
        window = torch.stack([sizes(layer) for layer in probe_deltas(view, last_alone=False)])
        figure = gradient_by_lag(self.steps, torch.stack(self.lags), window, words)
        self.gallery.figure(view.trainer, "gradient/by_lag", figure, view.step)

    def memory(self) -> dict[str, Any]:
        """The map so far, and what was said."""
        return {"steps": self.steps, "lags": self.lags, "said": self.said}

    def remember(self, memory: dict[str, Any]) -> None:
        """Take it back."""
        self.steps, self.lags = list(memory["steps"]), list(memory["lags"])
        self.said = list(memory["said"])


def probe_deltas(view: View, last_alone: bool) -> list[Tensor]:
    """Return delta_t (time, streams, hidden) of each layer, for the window that is always measured."""
    layers = Layers.of(view.model.recurrence)
    before, window = probe_windows(view)
    state = None
    if before is not None:
        state = torch.stack([h[-1] for h in layers.hidden(before.inputs[-WARM_UP:])])
    hidden = layers.hidden(window.inputs, state)
    return layers.deltas(hidden, error_at_readout(view.model, hidden[-1], window.targets, last_alone))


def probe_windows(view: View) -> tuple[Window | None, Window]:
    """Return the window to measure, and before it the one it continues, if any; streams with a target at its end."""
    windows = view.windows()
    index = 1 if len(windows) > 2 else 0  # the last one may be short
    window = windows.window(0, index)
    full = window.targets[-1] >= 0
    columns = full.nonzero()[:STREAMS, 0]
    before = None if window.starts else windows.window(0, index - 1)
    cut = [
        None if w is None else Window(w.inputs[:, columns], w.targets[:, columns], w.starts) for w in (before, window)
    ]
    assert cut[1] is not None
    return cut[0], cut[1]


def is_plain(view: View) -> bool:
    """Return whether the model is one of those with a single z_t a layer and step."""
    try:
        Layers.of(view.model.recurrence)
    except TypeError:
        return False
    return True
