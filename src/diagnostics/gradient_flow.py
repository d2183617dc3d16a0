"""How far back an error reaches: the size of delta_t^l = dL/dz_t^l, layer by layer, and what it tells in words."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from src.data.batching import Window
from src.diagnostics.diagnostic import View, Watcher
from src.inference.incremental import nonlinearity_of
from src.models.convert import read_layers
from src.models.kernels import backward_window, forward_window, split
from src.models.language_model import LanguageModel

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


# ---- Every hidden state and every delta of a window, layer by layer, from the written-out forward and backward.


class Layers(NamedTuple):
    """A plain recurrence as numbers: [U W] (hidden, input + hidden) and b (hidden,) a layer; f is `tanh` or `relu`."""

    weights: list[Tensor]
    biases: list[Tensor]
    nonlinearity: str

    @classmethod
    def of(cls, recurrence: nn.Module) -> Layers:
        """Copy them from a `cell`, `stacked` or `manual` recurrence, in single precision at least, to the CPU.

        Raises:
            TypeError: a recurrence with other equations (a gated one, say).
        """
        layers = read_layers(recurrence)
        weights = [_plain(torch.cat([U, W], dim=1)) for U, W, _ in layers]
        return cls(weights, [_plain(layer.b) for layer in layers], nonlinearity_of(recurrence))

    def W(self) -> list[Tensor]:
        """Return each layer's recurrent matrix (hidden, hidden)."""
        return [split(weight)[1] for weight in self.weights]

    def hidden(self, inputs: Tensor, state: Tensor | None = None) -> list[Tensor]:
        """Return h_t of every layer, (time, batch, hidden) each, for inputs (time, batch) ids.

        `state`: (num_layers, batch, hidden), zeros if None.
        """
        found: list[Tensor] = []
        with torch.no_grad(), torch.autocast("cpu", enabled=False):
            for layer, (weight, b) in enumerate(zip(self.weights, self.biases, strict=True)):
                h_0 = None if state is None else state[layer].to(weight)
                found.append(forward_window(found[-1] if found else inputs, weight, b, h_0, self.nonlinearity, False))
        return found

    def deltas(self, hidden: list[Tensor], grad_top: Tensor) -> list[Tensor]:
        """Return delta_t of every layer, (time, batch, hidden) each, from the lowest to the top.

        `hidden`: what `hidden` returned; `grad_top`: dL/dh_t^L by way of the readout, (time, batch, hidden).
        """
        found: list[Tensor] = []
        with torch.no_grad(), torch.autocast("cpu", enabled=False):
            g = grad_top
            for weight, h in zip(reversed(self.weights), reversed(hidden), strict=True):
                delta = backward_window(g, torch.zeros_like(h[0]), weight, h, self.nonlinearity, False, False)
                found.insert(0, delta)
                g = delta @ split(weight)[0]
        return found


def error_at_readout(model: LanguageModel, hidden: Tensor, targets: Tensor, last_alone: bool) -> Tensor:
    """Return dL/dh_t^L by way of the readout, V^T (yhat_t - y_t), for each stream by itself: (time, batch, hidden).

    `last_alone`: L is the last step's loss L_T, and all other steps are zero; else L = L_1 + ... + L_T.
    A step without a target (below 0) counts for nothing.
    """
    with torch.no_grad():
        linear = model.readout if isinstance(model.readout, nn.Linear) else None  # None: o_t = h_t
        V = None if linear is None else _plain(linear.weight)
        logits = hidden if linear is None else nn.functional.linear(hidden, V, _plain(linear.bias))  # type: ignore[arg-type]
        error = logits.softmax(-1)
        real = targets >= 0
        error.scatter_add_(2, targets.clamp(min=0)[..., None], -torch.ones_like(error[..., :1]))
        error *= real[..., None]
        if last_alone:
            error[:-1] = 0
        return error if V is None else error @ V


def window_deltas(
    model: LanguageModel, inputs: Tensor, targets: Tensor, state: Tensor | None, last_alone: bool
) -> list[Tensor]:
    """Return delta_t = dL/dz_t of every layer for one window (time, batch), each stream's loss by itself.

    Raises:
        TypeError: a model whose recurrence is none of cell, stacked, manual.
    """
    layers = Layers.of(model.recurrence)
    hidden = layers.hidden(inputs, state)
    return layers.deltas(hidden, error_at_readout(model, hidden[-1], targets, last_alone))


def _plain(tensor: Tensor) -> Tensor:
    tensor = tensor.detach().cpu()
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))


# ---- How far back an error reaches: |dL_T/dz_(T-k)| by lag k and layer, over training, from the written-out ...

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
        from src.diagnostics.drawing import gradient_by_lag

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
