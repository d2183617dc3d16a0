"""`model=lstm` and `model=gru`: torch's own, as references beside the three plain models.

Which variant torch computes: the LSTM of Hochreiter and Schmidhuber (1997) with the forget gate of Gers et al. (2000)
and no peepholes; the GRU of Cho et al. (2014) with the reset gate applied after the product,
n_t = tanh(U x_t + b + r_t * (W h_{t-1} + b_hn)) and h_t = (1 - z_t) * n_t + z_t * h_{t-1}.
"""

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
