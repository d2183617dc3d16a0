"""Weights between implementations: each of the three is read as, and written from, one (U, W, b) a layer."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from src.models.cell import CellRNN
from src.models.kernels import split
from src.models.manual import ManualRNN
from src.models.stacked import StackedRNN


class Layer(NamedTuple):
    """One layer's weights in the tutorial's letters: U, or [U S], (hidden, input), W (hidden, hidden), b (hidden)."""

    U: Tensor
    W: Tensor
    b: Tensor


@torch.no_grad()
def read_layers(recurrence: nn.Module) -> list[Layer]:
    """Return copies of the weights, with one bias b = b_ih + b_hh a layer. TypeError for other equations."""
    return [Layer(U.clone(), W.clone(), sum(more, b.clone())) for U, W, b, *more in _weights(recurrence)]


@torch.no_grad()
def write_layers(recurrence: nn.Module, layers: list[Layer]) -> None:
    """Copy `layers` into a recurrence, b into b_ih, with zeros in b_hh. ValueError for other sizes."""
    targets = _weights(recurrence)
    shapes, expected = ([[tuple(t.shape) for t in layer[:3]] for layer in each] for each in (layers, targets))
    if shapes != expected:
        raise ValueError(f"weights of shapes {shapes} do not fit a model of shapes {expected}")
    for target, layer in zip(targets, layers, strict=True):
        for tensor, source in zip(target[:3], layer, strict=True):
            tensor.copy_(source)
        for b_hh in target[3:]:
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


def _weights(recurrence: nn.Module) -> list[list[Tensor]]:
    """Return [U, W, b] or [U, W, b_ih, b_hh] of each layer, the model's own memory."""
    if isinstance(recurrence, CellRNN):
        return [[c.weight_ih, c.weight_hh, c.bias_ih, c.bias_hh] for c in recurrence.cells]
    if isinstance(recurrence, ManualRNN) and recurrence.bias and not recurrence.bidirectional:
        return [[*split(weight), bias] for weight, bias in recurrence.directions() if bias is not None]
    plain = isinstance(recurrence, nn.RNN) and recurrence.bias and not recurrence.bidirectional
    if plain or isinstance(recurrence, StackedRNN):
        return [list(layer) for layer in recurrence.all_weights]  # type: ignore[union-attr]
    expected = "cell, stacked, manual or a torch.nn.RNN, with a bias and in one direction"
    raise TypeError(f"the weights of {type(recurrence).__name__} cannot be converted: expected {expected}")
