"""Weights between implementations: every one of the three is read as, and written from, one (U, W, b) a layer."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from src.models.cell import CellRNN
from src.models.kernels import split
from src.models.manual import ManualLayer, ManualRNN
from src.models.stacked import StackedRNN


class Layer(NamedTuple):
    """One layer's weights in the tutorial's letters: U (hidden, input), W (hidden, hidden), b (hidden)."""

    U: Tensor
    W: Tensor
    b: Tensor


def read_layers(recurrence: nn.Module) -> list[Layer]:
    """Return the weights of a `cell`, `stacked` or `manual` recurrence, or of a `torch.nn.RNN`, as copies.

    torch's two biases become the one that the equation has: b = b_ih + b_hh.

    Raises:
        TypeError: a recurrence with other equations (a gated one, say), whose weights mean something else.
    """
    if isinstance(recurrence, ManualRNN):
        pairs = [(split(weight), bias) for weight, bias in _manual_layers(recurrence)]
        return [Layer(U.detach().clone(), W.detach().clone(), b.detach().clone()) for (U, W), b in pairs]
    layers = []
    for U, W, b_ih, b_hh in _torch_layers(recurrence):
        layers.append(Layer(U.detach().clone(), W.detach().clone(), (b_ih + b_hh).detach()))
    return layers


def write_layers(recurrence: nn.Module, layers: list[Layer]) -> None:
    """Copy `layers` into a recurrence of the same sizes, in place; b goes into b_ih and leaves b_hh zero.

    Raises:
        ValueError: another number of layers or other sizes.
        TypeError: a recurrence with other equations.
    """
    mine = read_layers(recurrence)
    shapes, expected = (
        [[tuple(t.shape) for t in layer] for layer in layers],
        [[tuple(t.shape) for t in layer] for layer in mine],
    )
    if shapes != expected:
        raise ValueError(f"weights of shapes {shapes} do not fit a model of shapes {expected}")
    with torch.no_grad():
        if isinstance(recurrence, ManualRNN):
            for (weight, bias), layer in zip(_manual_layers(recurrence), layers, strict=True):
                weight.copy_(torch.cat([layer.U, layer.W], dim=1))
                bias.copy_(layer.b)
            return
        for (U, W, b_ih, b_hh), layer in zip(_torch_layers(recurrence), layers, strict=True):
            U.copy_(layer.U)
            W.copy_(layer.W)
            b_ih.copy_(layer.b)
            b_hh.zero_()


def convert_(into: nn.Module, source: nn.Module) -> None:
    """Make `into` compute what `source` computes, in place: recurrences, or language models with their readouts."""
    if hasattr(into, "readout") and hasattr(source, "readout"):
        into.readout.load_state_dict(source.readout.state_dict())  # type: ignore[union-attr]
        into, source = into.recurrence, source.recurrence  # type: ignore[assignment]
    if type(into) is type(source):
        into.load_state_dict(source.state_dict())
    else:
        write_layers(into, read_layers(source))


def _manual_layers(recurrence: ManualRNN) -> list[tuple[nn.Parameter, nn.Parameter]]:
    """Return (weight, bias) a layer.

    Raises:
        TypeError: two directions or no bias; such weights move to a torch.nn.RNN by `to_torch_rnn` alone.
    """
    layers = [layer for layer in recurrence.layers if isinstance(layer, ManualLayer)]
    pairs = [(layer.weight, layer.bias) for layer in layers if layer.bias is not None]
    if recurrence.bidirectional or len(pairs) < len(layers):
        raise TypeError("a ManualRNN of two directions or without bias has no counterpart among cell and stacked")
    return pairs


def _torch_layers(recurrence: nn.Module) -> list[tuple[Tensor, Tensor, Tensor, Tensor]]:
    if isinstance(recurrence, CellRNN):
        return [(c.weight_ih, c.weight_hh, c.bias_ih, c.bias_hh) for c in recurrence.cells]
    rnn = recurrence.rnn if isinstance(recurrence, StackedRNN) else recurrence
    if isinstance(rnn, nn.RNN) and rnn.bias and not rnn.bidirectional:
        return [(U, W, b_ih, b_hh) for U, W, b_ih, b_hh in rnn.all_weights]
    raise TypeError(
        f"{type(recurrence).__name__} is none of cell, stacked, manual: its weights mean something else and cannot move"
    )
