"""`model=manual`: a replacement of torch.nn.RNN whose backward through time is written out (bptt.py)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

from src.models.bptt import recurrence, reference
from src.models.kernels import autocast_dtype, needs_plain_torch, split
from src.models.layers import Wiring, initialise_

ARGUMENTS = (
    "input_size", "hidden_size", "num_layers", "nonlinearity", "bias", "batch_first", "dropout", "bidirectional"
)  # fmt: skip
NAMES = ("weight", "bias"), ("weight_reverse", "bias_reverse")


class ManualLayer(nn.Module):
    """One layer's parameters: weight = [U W] (hidden, input + hidden), bias (hidden,), and the reverse direction's."""

    def __init__(self, input_size: int, hidden_size: int, bias: bool, directions: int, like: Tensor) -> None:
        super().__init__()
        for weight_name, bias_name in NAMES[:directions]:
            weight = like.new_empty(hidden_size, input_size + hidden_size)
            self.register_parameter(weight_name, nn.Parameter(weight))
            self.register_parameter(bias_name, nn.Parameter(like.new_empty(hidden_size)) if bias else None)


class ManualRNN(nn.Module):
    """A drop-in for `torch.nn.RNN`: the same numbers, faster on a CPU, every delta visible, and inputs may be ids.

        h_t^l = f(U^l h_t^{l-1} + W^l h_{t-1}^l + b^l),   h_t^0 = x_t,   weight = [U W],   f = tanh or relu

    Arguments are those of `torch.nn.RNN`, with one bias a layer, b = b_ih + b_hh, and those of `CellRNN`. Second
    derivatives, torch.compile, tracing and torch.func go through the slow reference.

    Where the drop-in ends: a PackedSequence is refused (pad it); there are no `weight_ih_l0`, `weight_hh_l0`,
    `all_weights`, but parameters `layers.<l>.weight`, `layers.<l>.bias`, and `weight_reverse`, `bias_reverse` of the
    other direction. `load_state_dict` takes those of a torch.nn.RNN as well; `to_torch_rnn().state_dict()` gives them.
    """

    lends_output = False  # True: output is no copy, and must not be changed before backward (saves 1 to 2 % of a step)

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        nonlinearity: str = "tanh",
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        *,
        init: str = "torch",
        input_scale: float = 1.0,
        interlayer_scale: float = 1.0,
        skip: str | None = None,
        dropout_mask: str | None = None,
        weight_drop: float = 0.0,
    ) -> None:
        super().__init__()
        self.wiring = Wiring(input_size, hidden_size, num_layers, skip, dropout, dropout_mask, weight_drop)
        among_layers = self.wiring.step_dropout
        arguments = (input_size, hidden_size, num_layers, nonlinearity, bias, batch_first, among_layers, bidirectional)
        nn.RNN(*arguments, device="meta", dtype=dtype)  # raises torch's own exceptions for wrong arguments
        self.input_size, self.hidden_size, self.num_layers = input_size, hidden_size, num_layers
        self.nonlinearity, self.bias, self.batch_first = nonlinearity, bias, batch_first
        self.dropout, self.bidirectional, self.skip = float(dropout), bidirectional, skip
        self.init, self.input_scale, self.interlayer_scale = init, input_scale, interlayer_scale
        self._deltas: list[Tensor | None] | None = None
        like, directions = torch.empty(0, device=device, dtype=dtype), 2 if bidirectional else 1
        sizes = self.wiring.input_sizes(directions)
        self.layers = nn.ModuleList(ManualLayer(size, hidden_size, bias, directions, like) for size in sizes)
        self.register_load_state_dict_pre_hook(_from_torch_names)
        self.reset_parameters()

    def directions(self) -> list[tuple[Tensor, Tensor | None]]:
        """Return (weight, bias) of every layer and direction, in the order of h_n: layer by layer, forward first."""
        names = NAMES[: 2 if self.bidirectional else 1]
        return [(getattr(layer, weight), getattr(layer, bias)) for layer in self.layers for weight, bias in names]

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Draw all weights: what `torch.nn.RNN` draws from the same seed, then `init` and both scales."""
        for weight, bias in self.directions():
            sizes = weight.shape[1] - self.hidden_size, self.hidden_size
            U, W, *biases = nn.RNNCell(*sizes, bias=self.bias, device=weight.device, dtype=weight.dtype).parameters()
            weight.copy_(torch.cat([U, W], dim=1))
            if bias is not None:
                bias.copy_(biases[0] + biases[1])
        for i, (weight, bias) in enumerate(self.directions()):
            directions = len(self.directions()) // self.num_layers
            below = 0 if i < directions else directions * self.hidden_size
            initialise_(*split(weight), [bias], self.init, self.input_scale, self.interlayer_scale, below)

    def forward(self, input: Tensor | PackedSequence, hx: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Run a window: (output, h_n), with shapes and exceptions as in `torch.nn.RNN`.

        `input` may also be ids (time, batch) of an integer type; IndexError for one that is out of range.
        """
        parameters, directions = self.directions(), 2 if self.bidirectional else 1
        state_size = len(parameters), self.hidden_size
        x, h_0, batched = time_first(input, hx, parameters[0][0], self.input_size, state_size, self.batch_first)
        starts = [None] * len(parameters) if h_0 is None else h_0.unbind(0)
        ends: list[Tensor] = []
        outputs: list[Tensor] = []  # a layer each, both directions side by side
        features, ids = x, None
        recurrent = [split(weight)[1] for weight, _ in parameters]
        window = self.wiring.window(recurrent, x.size(1), self.training, directions)
        for i, (weight, bias) in enumerate(parameters):
            if self.training and self.wiring.weight_drop:
                weight = torch.cat([split(weight)[0], window.recurrent[i]], dim=1)
            reverse = i % directions == 1
            if i and not reverse:
                layer = i // directions
                if features.is_floating_point():
                    x = window.below(layer, outputs[-1], features)
                else:
                    x, ids = window.above(layer - 1, outputs[-1]), features if self.wiring.from_input else None
            if needs_plain_torch():
                hidden, h_n = reference(x, weight, bias, starts[i], self.nonlinearity, reverse, ids)
            else:
                inner = i < len(parameters) - directions and not self.wiring.to_output  # read by nothing but the next
                on_deltas = None if self._deltas is None else partial(self._deltas.__setitem__, i)
                how = self.nonlinearity, reverse, ids
                hidden, h_n = recurrence(x, weight, bias, starts[i], *how, on_deltas=on_deltas, spend_grad=inner)
            if reverse:
                outputs[-1] = torch.cat([outputs[-1], hidden], dim=2)
            else:
                outputs.append(hidden)
            ends.append(h_n)
        output = window.output(outputs)
        if directions == 1 and output.requires_grad and not self.lends_output:
            output = output.clone()  # the caller may change it in place
        h_n = ends[0].unsqueeze(0) if len(ends) == 1 else torch.stack(ends)
        if not batched:
            return output.squeeze(1), h_n.squeeze(1)
        return output.transpose(0, 1) if self.batch_first else output, h_n

    def load_torch_rnn(self, rnn: nn.RNN) -> ManualRNN:
        """Copy the weights of a `torch.nn.RNN` of the same arguments in, b = b_ih + b_hh, and return self."""
        if not isinstance(rnn, nn.RNN):
            raise TypeError(f"load_torch_rnn takes a torch.nn.RNN, got {type(rnn).__name__}")
        compared = [name for name in (*ARGUMENTS, "skip") if name not in ("batch_first", "dropout")]  # may differ
        theirs, ours = ({name: getattr(one, name, None) for name in compared} for one in (rnn, self))
        if theirs != ours:
            raise ValueError(f"this torch.nn.RNN has {theirs}, here {ours}; build a ManualRNN with the same arguments")
        self.load_state_dict(rnn.state_dict())  # see _from_torch_names
        return self

    def to_torch_rnn(self) -> nn.RNN:
        """Return an equal `torch.nn.RNN`: b in b_ih, zeros in b_hh; same mode, dtype, device, requires_grad."""
        if self.skip is not None:
            raise ValueError(f"torch.nn.RNN has no skip connections, and this network has skip={self.skip}")
        if self.training and (self.wiring.weight_drop or self.dropout != self.wiring.step_dropout):
            raise ValueError("torch.nn.RNN trains without weight_drop and dropout_mask=window; call eval() first")
        first = self.directions()[0][0]
        arguments = {name: getattr(self, name) for name in ARGUMENTS}
        meta = nn.RNN(**arguments, device="meta", dtype=first.dtype)  # draws nothing from torch's generator
        rnn = meta.to_empty(device=first.device)
        with torch.no_grad():
            for (weight, bias), (U, W, *biases) in zip(self.directions(), rnn.all_weights, strict=True):
                for target, source in zip((U, W), split(weight), strict=True):
                    target.copy_(source).requires_grad_(weight.requires_grad)
                if bias is not None:
                    biases[0].copy_(bias).requires_grad_(bias.requires_grad)
                    biases[1].zero_().requires_grad_(bias.requires_grad)
        return rnn.train(self.training)

    def extra_repr(self) -> str:
        return ", ".join(f"{name}={getattr(self, name)}" for name in (*ARGUMENTS, "init"))


@contextmanager
def record_deltas(rnn: ManualRNN) -> Iterator[list[Tensor | None]]:
    """Record the deltas of windows that run inside the block: yields a list that their backward passes fill.

        with record_deltas(rnn) as deltas:
            output, h_n = rnn(inputs, h_0)
            loss(output).backward()
        deltas[l]  # dL/dz_t^l of all t: (time, batch, hidden), time first even under batch_first

    One entry a layer and direction, in the order of h_n; None where no gradient is needed.
    """
    before, rnn._deltas = rnn._deltas, [None] * len(rnn.directions())
    try:
        yield rnn._deltas
    finally:
        rnn._deltas = before


def _from_torch_names(module: nn.Module, weights: dict[str, Any], prefix: str, *_: Any) -> None:
    """Before load_state_dict: a torch.nn.RNN's weights get the names here, weight = [U W], b = b_ih + b_hh."""
    for layer, own in enumerate(module.get_submodule("layers").children()):
        for suffix, (weight_name, bias_name) in zip(("", "_reverse"), NAMES, strict=True):
            theirs = [f"{prefix}{kind}_l{layer}{suffix}" for kind in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")]
            found = [weights.pop(name) for name in theirs if name in weights and hasattr(own, weight_name)]
            if len(found) >= 2:
                weights[f"{prefix}layers.{layer}.{weight_name}"] = torch.cat(found[:2], dim=1)
            if len(found) == 4:
                weights[f"{prefix}layers.{layer}.{bias_name}"] = found[2] + found[3]


def time_first(
    input: Any, hx: Tensor | None, weight: Tensor, input_size: int, state_size: tuple[int, int], batch_first: bool
) -> tuple[Tensor, Tensor | None, bool]:
    """Check a call as torch.nn.RNN does; return input (time, batch, ...), state and whether there was a batch axis."""
    if not isinstance(input, Tensor):
        remedy = "pad a PackedSequence (pad_packed_sequence), or use the module of to_torch_rnn()"
        raise TypeError(f"ManualRNN: Expected input to be a tensor, got {type(input).__name__}; {remedy}")
    ids = not (input.is_floating_point() or input.is_complex() or input.dtype is torch.bool)
    if input.dim() not in ((1, 2) if ids else (2, 3)):
        raise ValueError(f"ManualRNN: Expected 2D or 3D features, or 1D or 2D ids, got {input.dim()}D {input.dtype}")
    batched = input.dim() == (2 if ids else 3)
    if hx is not None and hx.dim() != 2 + batched:
        raise RuntimeError(f"hx should be {2 + batched}-D for input {tuple(input.shape)}, got {hx.dim()}-D tensor")
    for name, tensor in (("input", input), ("hx, the hidden state,", hx)):
        if tensor is not None and tensor.device != weight.device:
            devices = f"{tensor.device} and {weight.device}"
            raise RuntimeError(f"{name} and the parameters are on two devices, {devices}; move one with .to()")
    if autocast_dtype(weight) is None:
        for error, name, tensor in ((ValueError, "input", None if ids else input), (RuntimeError, "hx", hx)):
            if tensor is not None and tensor.dtype is not weight.dtype:
                raise error(
                    f"RNN {name} dtype ({tensor.dtype}) does not match weight dtype ({weight.dtype}). "
                    f"Convert {name}: {name}.to({weight.dtype}), or convert model: model.to({tensor.dtype})"
                )
    if not ids and input.size(-1) != input_size:
        raise RuntimeError(f"input.size(-1) must be equal to input_size. Expected {input_size}, got {input.size(-1)}")
    if not batched:
        input, hx = input.unsqueeze(1), None if hx is None else hx.unsqueeze(1)
    elif batch_first:
        input = input.transpose(0, 1)
    if input.size(0) == 0:
        raise RuntimeError("Expected sequence length to be larger than 0 in RNN")
    expected_state = (state_size[0], input.size(1), state_size[1])
    if hx is not None and tuple(hx.shape) != expected_state:
        raise RuntimeError(f"Expected hidden size {expected_state}, got {list(hx.shape)}")
    if ids and input.dtype not in (torch.int64, torch.int32):
        input = input.long()
    return input, hx, batched
