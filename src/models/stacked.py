"""`model=stacked`: `torch.nn.RNN`, all layers and steps in one call. The reference, and cuDNN on a GPU."""

from __future__ import annotations

from typing import Any, cast

from torch import Tensor, nn

from src.models.cell import as_features
from src.models.cuda import run_apart, run_cudnn
from src.models.kernels import autocast_dtype, needs_plain_torch
from src.models.layers import Wiring, initialise_layers_


class TorchRecurrence(nn.Module):
    """A recurrent module of torch, of the class `kind`; arguments as in `CellRNN`."""

    kind: type[nn.RNNBase]

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        nonlinearity: str | None = None,
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
        own: dict[str, Any] = {} if nonlinearity is None else {"nonlinearity": nonlinearity}
        kind = cast("Any", self.kind)
        if self.wiring.from_input:  # torch has no module for layers that read different things: one a layer
            self.rnn = nn.ModuleList(kind(size, hidden_size, **own) for size in self.wiring.input_sizes())
        else:
            self.rnn = kind(input_size, hidden_size, num_layers, dropout=self.wiring.step_dropout, **own)
        initialise_layers_(self.all_weights, init, input_scale, interlayer_scale, single_bias)

    @property
    def layers(self) -> list[nn.RNNBase]:
        """torch's modules: one of all layers, or with skip connections from the input one a layer."""
        return cast("list[nn.RNNBase]", list(self.rnn) if self.wiring.from_input else [self.rnn])

    @property
    def all_weights(self) -> list[list[Tensor]]:
        """U, W, b_ih, b_hh of each layer."""
        return [list(weights) for rnn in self.layers for weights in rnn.all_weights]

    def forward(self, inputs: Tensor, state: Any = None) -> tuple[Tensor, Any]:
        """Run a window; shapes as in `CellRNN.forward`, the state of an LSTM is the pair (h, c)."""
        weights = self.all_weights
        weight = weights[0][0]
        x = as_features(inputs, self.input_size, weight.dtype)
        own = self.wiring
        if own.skip or own.weight_drop or own.dropout != own.step_dropout:  # torch's modules do not compute it
            window = own.window([W for _, W, *_ in weights], x.size(1), self.training)
            dtype = autocast_dtype(weight) or weight.dtype
            return run_apart(self.layers[0], x, state, x.size(-1), dtype, weights, window)
        if x.is_cuda and not needs_plain_torch():
            return run_cudnn(self.layers[0], x, state, autocast_dtype(weight))
        found: tuple[Tensor, Any] = self.rnn(x, state)
        return found


class StackedRNN(TorchRecurrence):
    """`torch.nn.RNN`."""

    kind = nn.RNN
