"""What comes into a recurrence: ids or features, and a state or none. Checked once, in the words of the shapes."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def as_features(inputs: Tensor, input_size: int, like: Tensor) -> Tensor:
    """Return features (time, batch, input) in the type of `like`: ids become one-hot vectors, as torch's cells ask.

    Raises:
        ValueError: neither (time, batch) ids nor (time, batch, input_size) features.
    """
    if not inputs.is_floating_point() and inputs.dim() == 2:
        return one_hot(inputs, input_size, like.dtype)
    if inputs.dim() == 3 and inputs.size(-1) == input_size:
        return inputs
    raise ValueError(
        f"inputs of shape {tuple(inputs.shape)} and type {inputs.dtype}; "
        f"expected (time, batch) integer ids or (time, batch, {input_size}) features"
    )


def one_hot(ids: Tensor, size: int, dtype: torch.dtype) -> Tensor:
    """Return the one-hot vectors of `ids` (any shape) along a new last axis."""
    if ids.is_meta:  # F.one_hot looks at the values, and there are none
        return torch.empty(*ids.shape, size, dtype=dtype, device=ids.device)
    return F.one_hot(ids.long(), size).to(dtype)


def check_state(state: Tensor | None, features: Tensor, num_layers: int, hidden_size: int) -> Tensor:
    """Return the state, zeros where none is given.

    Raises:
        ValueError: a state that is not (num_layers, batch, hidden).
    """
    expected = (num_layers, features.size(1), hidden_size)
    if state is None:
        return features.new_zeros(expected)
    if tuple(state.shape) != expected:
        raise ValueError(f"a state of shape {tuple(state.shape)}; expected (num_layers, batch, hidden) = {expected}")
    return state
