"""One character at a time, fast: the state is carried, nothing is computed twice, nothing is allocated twice.

The slow truth is `LanguageModel.forward` on a window of one step; a `Stepper` gives its numbers without autograd,
modules and dispatch. A tanh network of 2 x 512 took 330 us a character that way, and takes 75 us here, one thread.

    z^l = U^l x^l + b^l + W^l h^l          one product each; U of the first layer is a table: a column an id
    cell, stacked, manual                  h = f(z)
    lstm    gates i, f, g, o of z          c = f c + i g,                    h = o tanh(c)
    gru     gates r, z, n                  n = tanh(U x + b + r (W h + b')),   h = (1 - z) n + z h
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor, nn

from src.models.cell import CellRNN
from src.models.convert import read_layers
from src.models.gated import GRU, LSTM
from src.models.language_model import LanguageModel, State


@runtime_checkable
class Stepper(Protocol):
    """A model that reads one character of each of `batch` streams at a time."""

    def step(self, ids: np.ndarray) -> np.ndarray:
        """ids (batch,) -> logits (batch, vocab), in a buffer that the next step overwrites."""

    def restart(self, streams: np.ndarray) -> None:
        """Streams (batch,) of bool: those whose state becomes zeros."""

    def state(self) -> State:
        """Return a copy of the state, as the model takes it."""


class Weights(NamedTuple):
    """One layer, transposed for products from the left: U (input, gates * hidden), W (hidden, gates * hidden)."""

    U: np.ndarray
    W: np.ndarray
    b: np.ndarray  # what is added once: b_ih + b_hh, of the gru without b_hn
    b_n: np.ndarray | None = None  # the gru's b_hn, which its reset gate multiplies


def stepper(model: LanguageModel, batch: int, state: State = None) -> Stepper:
    """Return the fastest stepper for a model on the CPU, from `state` (zeros if None)."""
    recurrence = model.recurrence
    if isinstance(recurrence, (LSTM, GRU)):
        layers = [_gated_weights(recurrence, *layer) for layer in recurrence.rnn.all_weights]
        cell: type[Cells] = LSTMCells if isinstance(recurrence, LSTM) else GRUCells
    else:
        try:
            layers = [Weights(_t(U), _t(W), _n(b)) for U, W, b in read_layers(recurrence)]
        except TypeError:  # a recurrence of one's own
            return PlainStepper(model, batch, state)
        cell = ReluCells if nonlinearity_of(recurrence) == "relu" else TanhCells
    readout = model.readout if isinstance(model.readout, nn.Linear) else None
    return cell(layers, readout, batch, state)


def nonlinearity_of(recurrence: nn.Module) -> str:
    """Return `tanh` or `relu`, for a `cell`, `stacked` or `manual` recurrence or a `torch.nn.RNN`."""
    inner = recurrence.cells[0] if isinstance(recurrence, CellRNN) else getattr(recurrence, "rnn", recurrence)
    return str(inner.nonlinearity)


class PlainStepper:
    """Any model, by its own forward: the reference for the others, and the way of a cell of one's own."""

    def __init__(self, model: LanguageModel, batch: int, state: State = None) -> None:
        self.model, self.carried = model, state
        if state is None:
            with torch.inference_mode():  # what zeros look like, only the model knows
                _, ended = model(torch.zeros(1, batch, dtype=torch.int64), None)
                self.carried = _each(ended, torch.zeros_like)

    def step(self, ids: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            logits, self.carried = self.model(torch.from_numpy(ids)[None], self.carried)
        return logits[0].numpy()

    def restart(self, streams: np.ndarray) -> None:
        keep = torch.from_numpy(~streams)[:, None]
        with torch.inference_mode():
            self.carried = _each(self.carried, lambda part: part * keep)

    def state(self) -> State:
        return _each(self.carried, torch.clone)


class Cells(ABC):
    """Layers of cells in numpy: what is alike in all kinds. `layers` from the bottom, buffers made once."""

    gates = 1

    def __init__(self, layers: list[Weights], readout: nn.Linear | None, batch: int, state: State) -> None:
        hidden, dtype = layers[0].W.shape[0], layers[0].W.dtype
        self.batch, self.layers = batch, layers
        self.table = layers[0].U + layers[0].b
        self.from_below = [None, *(product(layer.U, batch) for layer in layers[1:])]
        self.from_before = [product(layer.W, batch) for layer in layers]
        self.readout = None if readout is None else (product(_t(readout.weight), batch), _n(readout.bias))
        self.z = np.empty((batch, self.gates * hidden), dtype)
        self.recurrent = np.empty_like(self.z)
        self.logits = np.empty((batch, readout.out_features if readout is not None else hidden), dtype)
        parts = (2 if isinstance(self, LSTMCells) else 1, len(layers), batch, hidden)
        self.states = np.zeros(parts, dtype)
        if state is not None:
            self.states[:] = np.stack([_n(part) for part in (state if isinstance(state, tuple) else (state,))])
        self.h = list(self.states[0])  # one buffer a layer

    def step(self, ids: np.ndarray) -> np.ndarray:
        for index, layer in enumerate(self.layers):
            into = self.from_below[index]
            if into is None:
                np.take(self.table, ids, axis=0, out=self.z, mode="clip")
            else:
                into(self.h[index - 1], self.z)
                self.z += layer.b
            self.from_before[index](self.h[index], self.recurrent)
            self.move(index)
        if self.readout is None:
            return self.h[-1]
        times, bias = self.readout
        times(self.h[-1], self.logits)
        self.logits += bias
        return self.logits

    @abstractmethod
    def move(self, index: int) -> None:
        """Layer `index` from h_{t-1} to h_t, in place, given U x + b in `z` and W h in `recurrent`."""

    def restart(self, streams: np.ndarray) -> None:
        self.states[:, :, streams] = 0

    def state(self) -> State:
        parts = tuple(torch.from_numpy(part.copy()) for part in self.states)
        return parts if len(parts) > 1 else parts[0]


class TanhCells(Cells):
    """h = tanh(z)."""

    def move(self, index: int) -> None:
        self.z += self.recurrent
        np.tanh(self.z, out=self.h[index])


class ReluCells(Cells):
    """h = max(z, 0)."""

    def move(self, index: int) -> None:
        self.z += self.recurrent
        np.maximum(self.z, 0, out=self.h[index])


class LSTMCells(Cells):
    """torch.nn.LSTM: c = f c + i g, h = o tanh(c)."""

    gates = 4

    def move(self, index: int) -> None:
        self.z += self.recurrent
        i, f, g, o = np.split(self.z, 4, axis=1)
        c, h = self.states[1, index], self.h[index]
        c *= _sigmoid(f)
        c += _sigmoid(i) * np.tanh(g)
        np.multiply(_sigmoid(o), np.tanh(c), out=h)


class GRUCells(Cells):
    """torch.nn.GRU: h = (1 - z) n + z h, the reset gate after the product."""

    gates = 3

    def move(self, index: int) -> None:
        h, hidden = self.h[index], self.h[index].shape[1]
        gates = self.z[:, : 2 * hidden] + self.recurrent[:, : 2 * hidden]
        r, z = np.split(_sigmoid(gates), 2, axis=1)
        n = np.tanh(self.z[:, 2 * hidden :] + r * (self.recurrent[:, 2 * hidden :] + self.layers[index].b_n))
        h *= z
        h += (1 - z) * n


def product(M: np.ndarray, rows: int) -> Callable[[np.ndarray, np.ndarray], object]:
    """The function (a (rows, k), out (rows, n)) that writes a M into `out`, for a fixed M (k, n).

    numpy's, for its small overhead and because its threads yield where torch's spin. 512 x 512 in float32, us: 1 row,
    one thread: torch 44, numpy 15. A step of 64 streams of 2 x 512, two threads: 710, and 1,000 beside other work;
    with oneDNN's packed weights instead, which are 15 % faster on one thread, 28,000 and more beside other work.
    """
    M = np.ascontiguousarray(M)
    if rows == 1:
        return lambda a, out: np.dot(a[0], M, out=out[0])
    return lambda a, out: np.matmul(a, M, out=out)


def _sigmoid(x: np.ndarray) -> np.ndarray:
    return 0.5 * (1 + np.tanh(0.5 * x))  # by tanh, which cannot overflow


def _gated_weights(recurrence: nn.Module, U: Tensor, W: Tensor, b_ih: Tensor, b_hh: Tensor) -> Weights:
    if isinstance(recurrence, LSTM):
        return Weights(_t(U), _t(W), _n(b_ih + b_hh))
    outside = b_hh.detach().clone()
    outside[-(len(b_hh) // 3) :] = 0
    return Weights(_t(U), _t(W), _n(b_ih + outside), _n(b_hh[-(len(b_hh) // 3) :]))


def _n(tensor: Tensor) -> np.ndarray:
    return tensor.detach().cpu().numpy().copy()


def _t(tensor: Tensor) -> np.ndarray:
    return np.ascontiguousarray(_n(tensor).T)


def _each(state: State, change: Callable[[Tensor], Tensor]) -> State:
    return tuple(map(change, state)) if isinstance(state, tuple) else change(state)
