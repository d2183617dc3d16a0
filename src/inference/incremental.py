"""Incremental decoding: one character at a time, the state carried, nothing computed twice.

`ForwardStepper` is the reference. `CellStepper` computes the same in numpy: 2 x 512 tanh units in 75 us, not 330.

    x = T[x_t] + U h + b_ih   from below: T is a table with one row an id, h that of the layer below. The first layer
                              has no U; the others have a T with skip connections from the input
    r = W h_{t-1} + b_hh      from before
    cell, stacked, manual     h = f(x + r)
    lstm    i, f, g, o        c = sigmoid(f) c + sigmoid(i) tanh(g)      h = sigmoid(o) tanh(c)
    gru     reset, update, n  n = tanh(x_n + reset r_n)                  h = (1 - update) n + update h
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from src.models.cell import CellRNN
from src.models.convert import read_layers
from src.models.gated import GRU, LSTM
from src.models.language_model import LanguageModel, State, change_parts, reads_all
from src.models.stacked import StackedRNN

Array = Any  # of numpy, or a tensor: the equations below are the same for both
Function = Callable[[Any], Any]
Cell = Callable[[Array, Array, tuple[Array, ...], Function, Function], tuple[Array, ...]]


def elman_cell(x: Array, r: Array, state: tuple[Array, ...], f: Function, sigmoid: Function) -> tuple[Array, ...]:
    """x, r and the parts of the state (batch, hidden) -> the new parts; h comes first."""
    return (f(x + r),)


def lstm_cell(x: Array, r: Array, state: tuple[Array, ...], tanh: Function, sigmoid: Function) -> tuple[Array, ...]:
    """x, r (batch, 4 * hidden), (h, c) -> (h, c), as torch.nn.LSTM."""
    _, c = state
    i, f, g, o = _gates(x + r, 4)
    c = sigmoid(f) * c + sigmoid(i) * tanh(g)
    return sigmoid(o) * tanh(c), c


def gru_cell(x: Array, r: Array, state: tuple[Array, ...], tanh: Function, sigmoid: Function) -> tuple[Array, ...]:
    """x, r (batch, 3 * hidden), (h,) -> (h,), as torch.nn.GRU: the reset gate after the product."""
    (h,) = state
    (x_reset, x_update, x_n), (r_reset, r_update, r_n) = _gates(x, 3), _gates(r, 3)
    update = sigmoid(x_update + r_update)
    n = tanh(x_n + sigmoid(x_reset + r_reset) * r_n)
    return ((1 - update) * n + update * h,)


def _gates(z: Array, count: int) -> list[Array]:
    hidden = z.shape[1] // count
    return [z[:, gate * hidden : (gate + 1) * hidden] for gate in range(count)]


class Network(NamedTuple):
    """A recurrence as its cell and copies of the weights, transposed: T, U, W (..., gates * hidden), biases."""

    cell: Cell
    nonlinearity: str  # of an Elman network
    layers: list[tuple[Tensor, ...]]  # a T or U that a layer does not have is of no rows
    to_output: bool  # the readout reads all layers


def network_of(recurrence: nn.Module) -> Network | None:
    """Return the cell and the weights of one of this project's recurrences, None for a class of the user's own."""
    found: list[tuple[Tensor, ...]] = []
    cell: Cell = elman_cell
    if isinstance(recurrence, (LSTM, GRU)):
        cell, f = lstm_cell if isinstance(recurrence, LSTM) else gru_cell, "tanh"
        for U, W, b_ih, b_hh in recurrence.all_weights:
            b_n = torch.zeros_like(b_hh)  # the part that a gate of the gru multiplies; all other biases join b_ih
            if cell is gru_cell:
                b_n[-recurrence.hidden_size :] = b_hh[-recurrence.hidden_size :]
            found.append((U, W, b_ih + (b_hh - b_n), b_n))
    else:
        try:
            found = [(U, W, b, torch.zeros_like(b)) for U, W, b in read_layers(recurrence)]
        except TypeError:
            return None
        f = nonlinearity_of(recurrence)
    below = [0, *[W.size(1) for _, W, *_ in found[1:]]]  # what U reads of the layer below; the rest of it is T
    layers = [(U[:, n:], U[:, :n], *others) for n, (U, *others) in zip(below, found, strict=True)]
    copies = [tuple(part.detach().t().contiguous().clone() for part in layer) for layer in layers]
    return Network(cell, f, copies, reads_all(recurrence))


def nonlinearity_of(recurrence: nn.Module) -> str:
    """Return `tanh` or `relu`, for a `cell`, `stacked` or `manual` recurrence or a `torch.nn.RNN`."""
    if isinstance(recurrence, CellRNN):
        return recurrence.cells[0].nonlinearity
    return str((recurrence.layers[0] if isinstance(recurrence, StackedRNN) else recurrence).nonlinearity)


def parts_of(state: State) -> tuple[Tensor, ...]:
    """Return the parts of a state: (h,), or (h, c) of an lstm."""
    return state if isinstance(state, tuple) else (state,)


class ForwardStepper:
    """Any model, by its own forward: the reference for `CellStepper`, and the fallback for a custom recurrence."""

    def __init__(self, model: LanguageModel, state: State) -> None:
        self.model, self.state = model, state

    def step(self, ids: np.ndarray) -> np.ndarray:
        """ids (batch,) -> logits (batch, vocab) of the next character."""
        with torch.inference_mode():
            logits, self.state = self.model(torch.from_numpy(ids)[None], self.state)
        return logits[0].numpy()

    def restart(self, streams: np.ndarray) -> None:
        """Set the state to zeros in the streams for which `streams` (batch,) is true."""
        keep = torch.from_numpy(~streams)[:, None]
        with torch.inference_mode():
            self.state = change_parts(self.state, lambda part: part * keep)


class CellStepper:
    """A network in numpy, reading one character of each stream at a time, from `state` (num_layers, batch, hidden)."""

    def __init__(self, network: Network, readout: nn.Module, state: State) -> None:
        self.cell = network.cell
        self.f: Function = np.tanh if network.nonlinearity == "tanh" else lambda z: np.maximum(z, 0)
        self.layers = [tuple(part.cpu().numpy() for part in layer) for layer in network.layers]
        self.layers = [(T + b_ih, *others, b_ih, b_hh) for T, *others, b_ih, b_hh in self.layers]
        self.states = np.ascontiguousarray(np.stack([part.detach().cpu().numpy() for part in parts_of(state)]))
        self.by_layer = [tuple(self.states[:, layer]) for layer in range(len(self.layers))]  # views
        self.to_output, self.readout = network.to_output, None
        if isinstance(readout, nn.Linear):
            weight, bias = (part.detach().cpu().numpy().copy() for part in (readout.weight, readout.bias))
            self.readout = np.ascontiguousarray(weight.T), bias

    @np.errstate(over="ignore", invalid="ignore")  # of a network that diverged: torch's forward does not warn either
    def step(self, ids: np.ndarray) -> np.ndarray:
        below: Any = None
        for (T, U, W, b_ih, b_hh), state in zip(self.layers, self.by_layer, strict=True):
            x = T.take(ids, 0) if len(T) else b_ih  # which is in T
            x = x if below is None else below.dot(U) + x
            for part, value in zip(state, self.cell(x, state[0].dot(W) + b_hh, state, self.f, sigmoid), strict=True):
                part[:] = value
            below = state[0]
        if self.to_output:
            below = np.concatenate([state[0] for state in self.by_layer], axis=1)
        return below.copy() if self.readout is None else below.dot(self.readout[0]) + self.readout[1]

    def restart(self, streams: np.ndarray) -> None:
        self.states[:, :, streams] = 0


def stepper(model: LanguageModel, state: State) -> CellStepper | ForwardStepper:
    """Return the fastest stepper for a model on the CPU."""
    network = network_of(model.recurrence)
    return ForwardStepper(model, state) if network is None else CellStepper(network, model.readout, state)


def sigmoid(x: np.ndarray) -> np.ndarray:
    """1 / (1 + exp(-x)), by tanh, which cannot overflow."""
    return 0.5 * (1 + np.tanh(0.5 * x))
