"""`model=lstm` and `model=gru`: torch's own, beside the three plain models; the equations are in README.md.

`nonlinearity` and `single_bias` are not for them.
"""

from torch import nn

from src.models.stacked import TorchRecurrence


class LSTM(TorchRecurrence):
    """Long short-term memory; its state is the pair (h, c), each (num_layers, batch, hidden)."""

    kind = nn.LSTM


class GRU(TorchRecurrence):
    """The gated recurrent unit; its state is h (num_layers, batch, hidden)."""

    kind = nn.GRU
