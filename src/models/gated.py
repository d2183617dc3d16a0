"""`model=lstm` and `model=gru`: torch's own, as references beside the three plain models.

Which variant torch computes: the LSTM of Hochreiter and Schmidhuber (1997) with the forget gate of Gers et al. (2000)
and no peepholes; the GRU of Cho et al. (2014) with the reset gate applied after the product,
n_t = tanh(U x_t + b + r_t * (W h_{t-1} + b_hn)) and h_t = (1 - z_t) * n_t + z_t * h_{t-1}.
"""

from __future__ import annotations

from torch import nn

from src.models.stacked import TorchRecurrence


class Gated(TorchRecurrence):
    """A gated recurrence of torch; arguments as in `CellRNN`."""

    kind: type[nn.LSTM] | type[nn.GRU]

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        dropout: float = 0.0,
        init: str = "torch",
        input_scale: float = 1.0,
        interlayer_scale: float = 1.0,
    ) -> None:
        super().__init__(
            self.kind(input_size, hidden_size, num_layers, dropout=dropout), init, input_scale, interlayer_scale
        )


class LSTM(Gated):
    """Long short-term memory; its state is the pair (h, c), each (num_layers, batch, hidden)."""

    kind = nn.LSTM


class GRU(Gated):
    """The gated recurrent unit; its state is h (num_layers, batch, hidden)."""

    kind = nn.GRU
