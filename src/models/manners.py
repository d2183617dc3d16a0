"""torch.nn.RNN's manners for `ManualRNN`: the words and the inputs it refuses, with its types of exception.

Every message says what came, what was expected and, where it is not plain, the way out.
"""

from __future__ import annotations

import warnings
from numbers import Real
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence

from src.models.step import NONLINEARITIES


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
