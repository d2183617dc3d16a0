"""`model=lstm` and `model=gru`: torch's own, beside the three, as the reference that every reader asks for.

Which variant torch computes: the LSTM of Hochreiter and Schmidhuber (1997) with the forget gate of Gers et al. (2000)
and no peepholes; the GRU of Cho et al. (2014) with the reset gate applied after the product,
n_t = tanh(U x_t + b + r_t * (W h_{t-1} + b_hn)) and h_t = (1 - z_t) * n_t + z_t * h_{t-1}.
"""

from __future__ import annotations

from typing import cast

from torch import Tensor, nn

from src.models.initialisation import initialise_
from src.models.inputs import as_features

GatedState = Tensor | tuple[Tensor, Tensor]


class Gated(nn.Module):
    """A gated recurrence of torch's behind the call that all models share.

    Each gate's block of W is initialised by itself (an orthogonal matrix a gate). The LSTM's state is the pair (h, c),
    each (num_layers, batch, hidden); the GRU's is h.
    """

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
        super().__init__()
        self.input_size, self.hidden_size, self.num_layers = input_size, hidden_size, num_layers
        self.rnn = self.kind(input_size, hidden_size, num_layers, dropout=dropout if num_layers > 1 else 0.0)
        for layer, (U, W, *biases) in enumerate(self.rnn.all_weights):
            blocks = zip(U.split(hidden_size), W.split(hidden_size), strict=True)
            for gate, (U_gate, W_gate) in enumerate(blocks):
                gate_biases = [b.split(hidden_size)[gate] for b in biases]
                initialise_(U_gate, W_gate, gate_biases, init, input_scale if layer == 0 else interlayer_scale)

    def forward(self, inputs: Tensor, state: GatedState | None = None) -> tuple[Tensor, GatedState]:
        """Run a window; shapes as in `CellRNN.forward`."""
        hidden, state = self.rnn(as_features(inputs, self.input_size, cast("Tensor", self.rnn.weight_ih_l0)), state)
        return hidden, state


class LSTM(Gated):
    """Long short-term memory; state (h, c)."""

    kind = nn.LSTM


class GRU(Gated):
    """The gated recurrent unit; state h."""

    kind = nn.GRU
