"""`model=stacked`: `torch.nn.RNN`, all layers and steps in one call. The reference, and cuDNN on a GPU."""

from __future__ import annotations

from typing import Any, cast

from torch import Tensor, nn

from src.models.cell import as_features
from src.models.cuda import run_cudnn
from src.models.initialisation import initialise_layers_
from src.models.kernels import autocast_dtype, needs_plain_torch


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
    ) -> None:
        super().__init__()
        self.input_size, self.hidden_size, self.num_layers = input_size, hidden_size, num_layers
        own: dict[str, Any] = {} if nonlinearity is None else {"nonlinearity": nonlinearity}
        self.rnn = cast("Any", self.kind)(input_size, hidden_size, num_layers, dropout=dropout, **own)
        initialise_layers_(self.rnn.all_weights, init, input_scale, interlayer_scale, single_bias)

    def forward(self, inputs: Tensor, state: Any = None) -> tuple[Tensor, Any]:
        """Run a window; shapes as in `CellRNN.forward`, the state of an LSTM is the pair (h, c)."""
        weight = self.rnn.weight_ih_l0
        x = as_features(inputs, self.input_size, weight.dtype)
        if x.is_cuda and not needs_plain_torch():
            return run_cudnn(self.rnn, x, state, autocast_dtype(weight))
        found: tuple[Tensor, Any] = self.rnn(x, state)
        return found


class StackedRNN(TorchRecurrence):
    """`torch.nn.RNN`."""

    kind = nn.RNN
