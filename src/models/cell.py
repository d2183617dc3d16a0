"""`model=cell`: `torch.nn.RNNCell`, one a layer, in a loop over time. Made for reading, changing, probing one step."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn

from src.models.initialisation import initialise_
from src.models.inputs import as_features, check_state


class CellRNN(nn.Module):
    """The recurrent network as the tutorial's script writes it: one step, called again and again.

        h_t^l = f(U^l h_t^{l-1} + W^l h_{t-1}^l + b^l),   h_t^0 = x_t

    Args:
        input_size, hidden_size, num_layers, nonlinearity, dropout: as `torch.nn.RNN` has them.
        init: `torch`, `orthogonal` or `identity`; see `initialisation.py`.
        input_scale, interlayer_scale: U of the first layer, of every other one, is multiplied by this at the start.
        single_bias: train one bias a layer, as the equation has it. torch keeps two, b = b_ih + b_hh, and an
            optimizer that moves each by the same step moves their sum twice as far.

    Raises:
        ValueError: an input or a state of the wrong shape.
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
        sizes = [input_size] + [hidden_size] * (num_layers - 1)
        cells = nn.ModuleList(nn.RNNCell(size, hidden_size, nonlinearity=nonlinearity) for size in sizes)
        self.cells = cast("Sequence[nn.RNNCell]", cells)  # torch's types forget what a ModuleList holds
        self.dropout = nn.Dropout(dropout)
        for layer, cell in enumerate(self.cells):
            biases = (cell.bias_ih, cell.bias_hh)
            initialise_(cell.weight_ih, cell.weight_hh, biases, init, input_scale if layer == 0 else interlayer_scale)
            if single_bias:
                keep_one_bias_(*biases)

    def forward(self, inputs: Tensor, state: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Run a window.

        Shapes: inputs (time, batch) ids or (time, batch, input); state (num_layers, batch, hidden), zeros if None.
        Returns hidden (time, batch, hidden) of the top layer, and the state after the last step.
        """
        features = as_features(inputs, self.input_size, self.cells[0].weight_ih)
        h = list(check_state(state, features, self.num_layers, self.hidden_size).unbind(0))
        hidden = []
        for x_t in features.unbind(0):
            for layer, cell in enumerate(self.cells):
                x_t = h[layer] = cell(x_t if layer == 0 else self.dropout(x_t), h[layer])
            hidden.append(x_t)
        return torch.stack(hidden), torch.stack(h)


def keep_one_bias_(bias_ih: Tensor, bias_hh: Tensor) -> None:
    """Move the sum of both biases into the first and freeze the second at zero, in place."""
    with torch.no_grad():
        bias_ih.add_(bias_hh)
        bias_hh.zero_()
    bias_hh.requires_grad_(False)
