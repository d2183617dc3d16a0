"""One step as a module of its own: (ids, h[, c]) -> (logits, h_n[, c_n]), with no loop over time, to be exported.

    ids (batch,) int64;   h, h_n, and the lstm's c, c_n (num_layers, batch, hidden);   logits (batch, vocab)

The weights are copies, laid out so that the first layer looks its column of U up instead of multiplying a one-hot.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from src.models.convert import read_layers
from src.models.gated import GRU, LSTM
from src.models.language_model import LanguageModel
from src.models.stepper import nonlinearity_of

Ids = Int[Tensor, " batch"]
States = Float[Tensor, "layers batch hidden"]
Logits = Float[Tensor, "batch vocab"]


def one_step(model: LanguageModel) -> nn.Module:
    """Return the step of a model, in evaluation mode, its parameters frozen."""
    recurrence = model.recurrence
    step: nn.Module
    if isinstance(recurrence, LSTM):
        step = LSTMStep([list(layer) for layer in recurrence.rnn.all_weights], model.readout)
    elif isinstance(recurrence, GRU):
        step = GRUStep([list(layer) for layer in recurrence.rnn.all_weights], model.readout)
    else:
        try:
            layers = [[U, W, b, torch.zeros_like(b)] for U, W, b in read_layers(recurrence)]
        except TypeError:  # a recurrence of one's own
            step = AnyStep(model)
        else:
            step = ElmanStep(layers, model.readout, nonlinearity_of(recurrence))
    return step.eval().requires_grad_(False)


def input_names(step: nn.Module) -> tuple[str, ...]:
    """`ids`, `h`, and of an lstm `c`."""
    return ("ids", "h", "c") if isinstance(step, LSTMStep) else ("ids", "h")


def output_names(step: nn.Module) -> tuple[str, ...]:
    """`logits`, `h_n`, and of an lstm `c_n`."""
    return ("logits", "h_n", "c_n") if isinstance(step, LSTMStep) else ("logits", "h_n")


class Step(nn.Module):
    """What all steps hold: the table of the first layer, the weights of all, the readout."""

    def __init__(self, layers: Sequence[Sequence[Tensor]], readout: nn.Module) -> None:
        super().__init__()
        copies = [[part.detach().clone() for part in layer] for layer in layers]
        self.table = nn.Parameter(copies[0][0].T.contiguous())  # (vocab, gates * hidden): a row an id
        self.U = nn.ParameterList(layer[0] for layer in copies[1:])
        self.W = nn.ParameterList(layer[1] for layer in copies)
        self.b = nn.ParameterList(layer[2] for layer in copies)
        self.b_hh = nn.ParameterList(layer[3] for layer in copies)
        self.readout = readout

    def from_below(self, layer: int, ids: Tensor, h_below: Tensor) -> Tensor:
        """U x + b of a layer, (batch, gates * hidden)."""
        x = F.embedding(ids, self.table) if layer == 0 else F.linear(h_below, self.U[layer - 1])
        return x + self.b[layer]

    def from_before(self, layer: int, h: Tensor) -> Tensor:
        """W h + b_hh of a layer, (batch, gates * hidden)."""
        return F.linear(h[layer], self.W[layer], self.b_hh[layer])


class ElmanStep(Step):
    """h = f(U x + W h + b)."""

    def __init__(self, layers: Sequence[Sequence[Tensor]], readout: nn.Module, nonlinearity: str) -> None:
        super().__init__(layers, readout)
        self.f = torch.relu if nonlinearity == "relu" else torch.tanh

    def forward(self, ids: Ids, h: States) -> tuple[Logits, States]:
        """Shapes as above."""
        h_n: list[Tensor] = []
        below = h[0]
        for layer in range(len(self.W)):
            below = self.f(self.from_below(layer, ids, below) + self.from_before(layer, h))
            h_n.append(below)
        return self.readout(below), torch.stack(h_n)


class LSTMStep(Step):
    """torch.nn.LSTM: c = f c + i g, h = o tanh(c)."""

    def forward(self, ids: Ids, h: States, c: States) -> tuple[Logits, States, States]:
        """Shapes as above."""
        h_n: list[Tensor] = []
        c_n: list[Tensor] = []
        below = h[0]
        for layer in range(len(self.W)):
            gates = self.from_below(layer, ids, below) + self.from_before(layer, h)
            i, f, g, o = gates.chunk(4, dim=1)
            cell = torch.sigmoid(f) * c[layer] + torch.sigmoid(i) * torch.tanh(g)
            below = torch.sigmoid(o) * torch.tanh(cell)
            h_n.append(below)
            c_n.append(cell)
        return self.readout(below), torch.stack(h_n), torch.stack(c_n)


class GRUStep(Step):
    """torch.nn.GRU: h = (1 - z) n + z h, the reset gate after the product."""

    def forward(self, ids: Ids, h: States) -> tuple[Logits, States]:
        """Shapes as above."""
        h_n: list[Tensor] = []
        below = h[0]
        for layer in range(len(self.W)):
            r_x, z_x, n_x = self.from_below(layer, ids, below).chunk(3, dim=1)
            r_h, z_h, n_h = self.from_before(layer, h).chunk(3, dim=1)
            z = torch.sigmoid(z_x + z_h)
            n = torch.tanh(n_x + torch.sigmoid(r_x + r_h) * n_h)
            below = (1 - z) * n + z * h[layer]
            h_n.append(below)
        return self.readout(below), torch.stack(h_n)


class AnyStep(nn.Module):
    """Any model, by its own forward on a window of one step; its state is one tensor."""

    def __init__(self, model: LanguageModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, ids: Ids, h: Tensor) -> tuple[Logits, Tensor]:
        """Shapes as above."""
        logits, h_n = self.model(ids[None], h)
        return logits[0], h_n
