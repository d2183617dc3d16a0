"""`model=lstm` and `model=gru`: torch's own, beside the three plain models; the equations are in README.md."""

from torch import nn

from src.models.stacked import TorchRecurrence


class Gated(TorchRecurrence):
    """A gated recurrence of torch; `nonlinearity` and `single_bias` are not for it."""


class LSTM(Gated):
    """Long short-term memory; its state is the pair (h, c), each (num_layers, batch, hidden)."""

    kind = nn.LSTM


class GRU(Gated):
    """The gated recurrent unit; its state is h (num_layers, batch, hidden)."""

    kind = nn.GRU
