"""Every hidden state and every delta of a window, layer by layer, from the written-out forward and backward.

    h_t^l = f(z_t^l),   z_t^l = U^l h_t^{l-1} + W^l h_{t-1}^l + b^l,   h_t^0 = x_t
    delta_t^l = dL/dz_t^l = f'(z_t^l) * (W^{l T} delta_{t+1}^l + g_t^l)
    g_t^l = U^{l+1 T} delta_t^{l+1},   at the top layer V^T (yhat_t - y_t) for every step t that the loss counts

A cell's and a stacked network's weights are read into the same form first, so the three give the same numbers. No
autograd, no dropout, and the model is only read.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from src.models.convert import read_layers
from src.models.language_model import LanguageModel
from src.models.stepper import nonlinearity_of
from src.models.window import backward_window, forward_window, split


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
