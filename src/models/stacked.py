"""`model=stacked`: `torch.nn.RNN`, all layers and steps in one call. The reference, and cuDNN on a GPU."""

from __future__ import annotations

from typing import cast

from torch import Tensor, nn

from src.models.cell import keep_one_bias_
from src.models.initialisation import initialise_
from src.models.inputs import as_features


class StackedRNN(nn.Module):
    """`torch.nn.RNN` behind the call that all three share; the words of the constructor are those of `CellRNN`.

    Raises:
        ValueError, RuntimeError: an input or a state of the wrong shape (the latter is torch's own word).
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        nonlinearity: str = "tanh",
        dropout: float = 0.0,
        init: str = "torch",
        input_scale: float = 1.0,
        interlayer_scale: float = 1.0,
        single_bias: bool = False,
    ) -> None:
        super().__init__()
        self.input_size, self.hidden_size, self.num_layers = input_size, hidden_size, num_layers
        between = dropout if num_layers > 1 else 0.0  # torch warns of a dropout that has no layer to follow
        self.rnn = nn.RNN(input_size, hidden_size, num_layers, nonlinearity=nonlinearity, dropout=between)
        for layer, (U, W, *biases) in enumerate(self.rnn.all_weights):
            initialise_(U, W, biases, init, input_scale if layer == 0 else interlayer_scale)
            if single_bias:
                keep_one_bias_(*biases)

    def forward(self, inputs: Tensor, state: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Run a window; shapes as in `CellRNN.forward`."""
        hidden, state = self.rnn(as_features(inputs, self.input_size, cast("Tensor", self.rnn.weight_ih_l0)), state)
        return hidden, state
