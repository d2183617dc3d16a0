"""`model=cell`: `torch.nn.RNNCell`, one a layer, in a loop over time. Made for reading, changing, probing one step."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn
from torch.func import functional_call

from src.models.layers import Wiring, initialise_layers_


class CellRNN(nn.Module):
    """The recurrent network as the tutorial's script writes it: one step, called again and again.

        h_t^l = f(U^l h_t^{l-1} + W^l h_{t-1}^l + b^l),   h_t^0 = x_t

    Args:
        input_size, hidden_size, num_layers, nonlinearity, dropout: as in `torch.nn.RNN`.
        init: `torch`, `orthogonal` or `identity`; see `layers.py`.
        input_scale, interlayer_scale: initial factor on U of the first layer, of all other layers.
        single_bias: train one bias a layer, as the equation has it; torch's two, b = b_ih + b_hh, move twice as far.
        skip, dropout_mask, weight_drop: see `layers.py`.
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
        skip: str | None = None,
        dropout_mask: str | None = None,
        weight_drop: float = 0.0,
    ) -> None:
        super().__init__()
        self.input_size, self.hidden_size, self.num_layers = input_size, hidden_size, num_layers
        self.wiring = Wiring(input_size, hidden_size, num_layers, skip, dropout, dropout_mask, weight_drop)
        sizes = self.wiring.input_sizes()
        cells = nn.ModuleList(nn.RNNCell(size, hidden_size, nonlinearity=nonlinearity) for size in sizes)
        self.cells = cast("Sequence[nn.RNNCell]", cells)  # nn.ModuleList is not typed by its elements
        layers = [(cell.weight_ih, cell.weight_hh, cell.bias_ih, cell.bias_hh) for cell in self.cells]
        initialise_layers_(layers, init, input_scale, interlayer_scale, single_bias)

    def forward(self, inputs: Tensor, state: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Return the top layer's hidden (time, batch, hidden), or all layers', and the state after the last step.

        Inputs are ids (time, batch) or features (time, batch, input); state (num_layers, batch, hidden), None is zeros.
        """
        features = as_features(inputs, self.input_size, self.cells[0].weight_ih.dtype)
        expected = (self.num_layers, features.size(1), self.hidden_size)
        if state is not None and state.shape != expected:
            raise ValueError(f"a state of shape {tuple(state.shape)}; expected (layers, batch, hidden) = {expected}")
        h = list((features.new_zeros(expected) if state is None else state).unbind(0))
        hidden = []
        window = self.wiring.window([cell.weight_hh for cell in self.cells], features.size(1), self.training)
        for x_t in features.unbind(0):
            for layer, cell in enumerate(self.cells):
                read = window.below(layer, h[layer - 1], x_t) if layer else x_t
                if self.wiring.weight_drop:
                    h[layer] = functional_call(cell, {"weight_hh": window.recurrent[layer]}, (read, h[layer]))
                else:
                    h[layer] = cell(read, h[layer])
            hidden.append(window.output(h))
        return torch.stack(hidden), torch.stack(h)


def as_features(inputs: Tensor, input_size: int, dtype: torch.dtype) -> Tensor:
    """Return features (time, batch, input): ids (time, batch) become one-hot vectors. ValueError for another shape."""
    if not inputs.is_floating_point() and inputs.dim() == 2:
        # Not F.one_hot, which may read the values to check them, and synchronise with the GPU
        return (inputs.unsqueeze(-1) == torch.arange(input_size, device=inputs.device)).to(dtype)
    if inputs.dim() == 3 and inputs.size(-1) == input_size:
        return inputs
    expected = f"expected (time, batch) integer ids or (time, batch, {input_size}) features"
    raise ValueError(f"inputs of shape {tuple(inputs.shape)} and type {inputs.dtype}; {expected}")
