"""torch.nn.RNN's manners for `ManualRNN`: the words and the inputs it refuses, with its types of exception.

Every message says what came, what was expected and, where it is not plain, the way out.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from numbers import Real
from typing import Any, no_type_check

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

from src.models.bptt import recurrence, reference
from src.models.initialisation import check_init, initialise_, uniform_layer
from src.models.kernels import NONLINEARITIES, split


def check_words(
    input_size: Any, hidden_size: Any, num_layers: Any, nonlinearity: Any, bias: Any, batch_first: Any, dropout: Any
) -> None:
    """Check the words of the constructor. Raises ValueError, TypeError; warns of a dropout that does nothing."""
    if nonlinearity not in NONLINEARITIES:
        raise ValueError(f"Unknown nonlinearity '{nonlinearity}'. Select from 'tanh' or 'relu'.")
    if isinstance(dropout, bool) or not isinstance(dropout, Real) or not 0 <= float(dropout) <= 1:
        raise ValueError(f"dropout should be a number in range [0, 1], the share that becomes zero, got: {dropout!r}")
    for name, flag in (("bias", bias), ("batch_first", batch_first)):
        if not isinstance(flag, bool):
            raise TypeError(f"{name} should be of type bool, got: {type(flag).__name__}")
    for name, size in (("input_size", input_size), ("hidden_size", hidden_size), ("num_layers", num_layers)):
        if not isinstance(size, int) or isinstance(size, bool):
            raise TypeError(f"{name} should be of type int, got: {type(size).__name__}")
        if size <= 0:
            raise ValueError(f"{name} must be greater than zero, got: {size}")
    if float(dropout) > 0 and num_layers == 1:
        warnings.warn(
            f"dropout stands between recurrent layers, and num_layers=1 has no between: dropout={dropout} does nothing",
            stacklevel=3,
        )


def is_ids(input: Tensor) -> bool:
    """Whether a tensor holds ids: integers of any width."""
    return not (input.is_floating_point() or input.is_complex() or input.dtype is torch.bool)


def time_first(
    input: Any, hx: Tensor | None, weight: Tensor, input_size: int, state_size: tuple[int, int], batch_first: bool
) -> tuple[Tensor, Tensor | None, bool]:
    """Check a call and bring it into one form: input (time, batch, ...), state (layers, batch, hidden), was it batched?

    `weight` tells dtype and device, `state_size` is (num_layers * directions, hidden_size). Raises as torch.nn.RNN.
    """
    if isinstance(input, PackedSequence):
        raise TypeError(
            "ManualRNN takes no PackedSequence: pad it (torch.nn.utils.rnn.pad_packed_sequence) and leave the padded "
            "steps out of the loss, or use a torch.nn.RNN; to_torch_rnn() makes one"
        )
    if not isinstance(input, Tensor):
        raise TypeError(f"ManualRNN: Expected input to be a tensor, got {type(input).__name__}")
    ids = is_ids(input)
    if input.dim() not in ((1, 2) if ids else (2, 3)):
        expected = "ids (time, batch) or (time,)" if ids else "2D or 3D"
        raise ValueError(f"ManualRNN: Expected input to be {expected}, got {input.dim()}D tensor instead")
    batched = input.dim() == (2 if ids else 3)
    if hx is not None and hx.dim() != (3 if batched else 2):
        wanted = "batched input, hx should be 3-D" if batched else "unbatched input, hx should be 2-D"
        raise RuntimeError(f"For {wanted} but got {hx.dim()}-D tensor; input {_shape(input)}, hx {_shape(hx)}")
    _check_kind(input, hx, weight, ids)
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


def _check_kind(input: Tensor, hx: Tensor | None, weight: Tensor, ids: bool) -> None:
    for name, tensor in (("input", input), ("hx, the hidden state,", hx)):
        if tensor is not None and tensor.device != weight.device:
            raise RuntimeError(
                f"{name} and the parameters are not at the same device, "
                f"found {tensor.device} and {weight.device}; move one to the other with .to()"
            )
    if torch._C._is_any_autocast_enabled():
        return
    if not ids and input.dtype is not weight.dtype:
        raise ValueError(
            f"RNN input dtype ({input.dtype}) does not match weight dtype ({weight.dtype}). "
            f"Convert input: input.to({weight.dtype}), or convert model: model.to({input.dtype})"
        )
    if hx is not None and hx.dtype is not weight.dtype:
        raise RuntimeError(f"hx dtype ({hx.dtype}) does not match weight dtype ({weight.dtype}): hx.to({weight.dtype})")


def _shape(tensor: Tensor) -> tuple[int, ...]:
    return tuple(tensor.shape)


# ---- `model=manual`: torch.nn.RNN's manners over a forward and backward through time that is written out (bptt.py).

_NAMES = ("weight", "bias"), ("weight_reverse", "bias_reverse")


class ManualLayer(nn.Module):
    """One layer's parameters: weight = [U W] (hidden, input + hidden), bias (hidden,), and the reverse direction's."""

    weight: nn.Parameter
    bias: nn.Parameter | None

    def __init__(self, input_size: int, hidden_size: int, bias: bool, suffixes: tuple[str, ...], like: Tensor) -> None:
        super().__init__()
        for suffix in suffixes:
            weight = like.new_empty(hidden_size, input_size + hidden_size)
            self.register_parameter(f"weight{suffix}", nn.Parameter(weight))
            self.register_parameter(f"bias{suffix}", nn.Parameter(like.new_empty(hidden_size)) if bias else None)


class ManualRNN(nn.Module):
    """A drop-in for `torch.nn.RNN`: the same numbers, faster on a CPU, every delta visible, ids welcome as inputs.

        h_t^l = f(U^l h_t^{l-1} + W^l h_{t-1}^l + b^l),   h_t^0 = x_t,   weight = [U W],   f = tanh or relu

    Args:
        input_size, hidden_size, num_layers, nonlinearity, bias, batch_first, dropout, bidirectional, device, dtype:
            as in `torch.nn.RNN`; one bias a layer, b = b_ih + b_hh.
        init: `torch`, `orthogonal` or `identity`; see initialisation.py.
        input_scale, interlayer_scale: the first layer's U, every other one's, is multiplied by it at the start.

    Parameters: `layers.<l>.weight`, `layers.<l>.bias`; of the other direction `weight_reverse`, `bias_reverse`.

    Second derivatives, torch.compile, tracing and torch.func go through the slow reference.
    """

    lends_output = False  # True: output is what the backward pass reads, not a copy (1 to 2 % of a step); leave it be

    input_size: int
    hidden_size: int
    num_layers: int
    nonlinearity: str
    bias: bool
    batch_first: bool
    dropout: float
    bidirectional: bool
    init: str
    input_scale: float
    interlayer_scale: float
    layers: nn.ModuleList
    _suffixes: tuple[str, ...]
    _deltas: list[Tensor | None] | None

    @no_type_check  # a wrong word is answered by check_words with torch's exceptions, under a type checker as well
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
    ) -> None:
        super().__init__()
        check_words(input_size, hidden_size, num_layers, nonlinearity, bias, batch_first, dropout)
        check_init(init)
        self.input_size, self.hidden_size, self.num_layers = input_size, hidden_size, num_layers
        self.nonlinearity, self.bias, self.batch_first = nonlinearity, bias, batch_first
        self.dropout, self.bidirectional = float(dropout), bidirectional
        self.init, self.input_scale, self.interlayer_scale = init, input_scale, interlayer_scale
        self._suffixes = ("", "_reverse") if bidirectional else ("",)
        self._deltas = None
        like = torch.empty(0, device=device, dtype=dtype)
        sizes = [input_size] + [hidden_size * len(self._suffixes)] * (num_layers - 1)
        self.layers = nn.ModuleList(ManualLayer(size, hidden_size, bias, self._suffixes, like) for size in sizes)
        self.reset_parameters()

    def directions(self) -> list[tuple[Tensor, Tensor | None]]:
        """(weight, bias) of every layer and direction, in the order of h_n: the first layer's two directions first."""
        names = _NAMES[: len(self._suffixes)]
        return [(getattr(layer, weight), getattr(layer, bias)) for layer in self.layers for weight, bias in names]

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Draw all weights: what `torch.nn.RNN` would draw from the same seed, then `init` and both scales."""
        for weight, bias in self.directions():
            input_size = weight.shape[1] - self.hidden_size
            U, W, *biases = uniform_layer(input_size, self.hidden_size, self.bias, weight.device, weight.dtype)
            _assign(weight, bias, U, W, biases)
        for i, (weight, bias) in enumerate(self.directions()):
            U, W = split(weight)
            scale = self.input_scale if i < len(self._suffixes) else self.interlayer_scale
            initialise_(U, W, [bias], self.init, scale)

    def flatten_parameters(self) -> None:
        """Do nothing: here for programs that call it on torch's RNN."""

    def forward(self, input: Tensor | PackedSequence, hx: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Run a window: (output, h_n).

        `input`: features (time, batch, input), or ids (time, batch) of an integer type; (batch, time, ...) under
        `batch_first`; without batch (time, input) or (time,). `hx`: (num_layers * directions, batch, hidden), without
        batch (num_layers * directions, hidden); None is zeros. output: (time, batch, directions * hidden), laid out as
        the input; h_n as `hx`. Under autocast both are in its dtype.

        Raises TypeError, ValueError, RuntimeError where torch.nn.RNN does, IndexError for an id out of range.
        """
        parameters, directions = self.directions(), len(self._suffixes)
        x, h_0, batched = time_first(
            input, hx, parameters[0][0], self.input_size, (len(parameters), self.hidden_size), self.batch_first
        )
        starts = [None] * len(parameters) if h_0 is None else h_0.unbind(0)
        ends: list[Tensor] = []
        outputs: list[Tensor] = []
        for i, (weight, bias) in enumerate(parameters):
            reverse = i % directions == 1
            if i and not reverse:
                x = outputs[0] if directions == 1 else torch.cat(outputs, dim=2)
                x = nn.functional.dropout(x, self.dropout, self.training) if self.dropout else x
                outputs.clear()
            if _needs_plain_torch():
                hidden, h_n = reference(x, weight, bias, starts[i], self.nonlinearity, reverse)
            else:
                own = i < len(parameters) - directions  # but for the last layer, hidden stays in here
                hidden, h_n = recurrence(
                    x, weight, bias, starts[i], self.nonlinearity, reverse, on_deltas=self._recorder(i), spend_grad=own
                )
            outputs.append(hidden)
            ends.append(h_n)
        output = outputs[0] if directions == 1 else torch.cat(outputs, dim=2)
        if directions == 1 and output.requires_grad and not self.lends_output:
            output = output.clone()  # the caller's, to change in place
        h_n = ends[0].unsqueeze(0) if len(ends) == 1 else torch.stack(ends)
        if not batched:
            return output.squeeze(1), h_n.squeeze(1)
        return output.transpose(0, 1) if self.batch_first else output, h_n

    def load_torch_rnn(self, rnn: nn.RNN) -> ManualRNN:
        """Copy the weights of a `torch.nn.RNN` in, b = b_ih + b_hh, and return self.

        Raises TypeError for another kind of module, ValueError for one of other sizes, nonlinearity or biases.
        """
        if not isinstance(rnn, nn.RNN):
            raise TypeError(f"load_torch_rnn takes a torch.nn.RNN, got {type(rnn).__name__}")
        words = "input_size", "hidden_size", "num_layers", "nonlinearity", "bias", "bidirectional"
        theirs, mine = ({word: getattr(model, word) for word in words} for model in (rnn, self))
        wrong = [f"{word}={theirs[word]} (here {mine[word]})" for word in words if theirs[word] != mine[word]]
        if wrong:
            raise ValueError(f"this torch.nn.RNN has {', '.join(wrong)}; build a ManualRNN with the same words")
        with torch.no_grad():
            for (weight, bias), (U, W, *biases) in zip(self.directions(), rnn.all_weights, strict=True):
                _assign(weight, bias, U, W, biases)
        return self

    def to_torch_rnn(self) -> nn.RNN:
        """A `torch.nn.RNN` that computes the same: b in b_ih, zeros in b_hh; same mode, dtype, place, requires_grad."""
        weight, _ = self.directions()[0]
        rnn = nn.RNN(
            self.input_size,
            self.hidden_size,
            self.num_layers,
            self.nonlinearity,
            self.bias,
            self.batch_first,
            self.dropout,
            self.bidirectional,
            device="meta",  # where nothing is drawn: the generator is the caller's
            dtype=weight.dtype,
        ).to_empty(device=weight.device)
        with torch.no_grad():
            for (weight, bias), (U, W, *biases) in zip(self.directions(), rnn.all_weights, strict=True):
                for target, source in zip((U, W), split(weight), strict=True):
                    target.copy_(source).requires_grad_(weight.requires_grad)
                if bias is not None:
                    biases[0].copy_(bias).requires_grad_(bias.requires_grad)
                    biases[1].zero_().requires_grad_(bias.requires_grad)
        return rnn.train(self.training)

    def extra_repr(self) -> str:
        """What differs from the default words, as torch.nn.RNN tells it."""
        words = {"num_layers": 1, "nonlinearity": "tanh", "bias": True, "batch_first": False, "dropout": 0.0}
        words |= {"bidirectional": False, "init": "torch", "input_scale": 1.0, "interlayer_scale": 1.0}
        told = [f"{word}={getattr(self, word)}" for word, usual in words.items() if getattr(self, word) != usual]
        return ", ".join([str(self.input_size), str(self.hidden_size), *told])

    def __getstate__(self) -> dict[str, object]:
        """What a copy or a pickle gets: all but the deltas, which are this one's."""
        return {**self.__dict__, "_deltas": None}

    def _recorder(self, index: int) -> Callable[[Tensor], None] | None:
        """What the backward pass of one layer and direction does with its deltas; None when nobody asks."""
        return None if self._deltas is None else partial(self._deltas.__setitem__, index)


@contextmanager
def record_deltas(rnn: ManualRNN) -> Iterator[list[Tensor | None]]:
    """The deltas of windows run inside the block: a list that every backward pass of such a window fills.

        with record_deltas(rnn) as deltas:
            output, h_n = rnn(inputs, h_0)
            loss(output).backward()
        deltas[l]  # dL/dz_t^l of all t: (time, batch, hidden), time first whatever batch_first says

    One entry a layer and direction, in the order of h_n. The backward pass computes them anyway and hands them over;
    a window run outside such a block keeps nothing. None stays where no error arrives: in first layers that are
    frozen, fed with what asks for no gradient. A copy of `rnn` made inside the block is not recorded.
    """
    before, rnn._deltas = rnn._deltas, [None] * len(rnn.directions())
    try:
        yield rnn._deltas
    finally:
        rnn._deltas = before


def _assign(weight: Tensor, bias: Tensor | None, U: Tensor, W: Tensor, biases: Sequence[Tensor | None]) -> None:
    """weight = [U W], b = b_ih + b_hh, in place."""
    weight.copy_(torch.cat([U, W], dim=1))
    if bias is not None:
        bias.copy_(torch.stack([b for b in biases if b is not None]).sum(0))


def _needs_plain_torch() -> bool:
    """Whether someone records or transforms the operations, and must see each of them."""
    return bool(torch.jit.is_tracing() or torch.compiler.is_compiling() or torch._C._are_functorch_transforms_active())
