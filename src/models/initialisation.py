"""How the weights of a recurrence start: one procedure for the cell, the stacked and the manual model.

`uniform_layer` draws what `torch.nn.RNNCell` draws, in the order in which it draws it, so that one seed gives one set
of weights to all three implementations. The recipe has two passes, and the order is part of the promise:

    1. the uniform draws of every layer, layer after layer, as `torch.nn.RNN` does (and of both directions, if two);
    2. `initialise_` layer after layer, with `input_scale` for the first layer and `interlayer_scale` for all others.
"""

import math
from collections.abc import Iterable
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

INITIALISATIONS = ("torch", "orthogonal", "identity")


class LayerWeights(NamedTuple):
    """U (hidden, input), W (hidden, hidden) and torch's two biases (hidden,), None where a layer has none."""

    U: Tensor
    W: Tensor
    b_ih: Tensor | None
    b_hh: Tensor | None


def check_init(init: str) -> None:
    """Raise ValueError unless `init` is one of INITIALISATIONS."""
    if init not in INITIALISATIONS:
        raise ValueError(f"Unknown init '{init}'. Select from {', '.join(map(repr, INITIALISATIONS))}.")


def uniform_layer(
    input_size: int,
    hidden_size: int,
    bias: bool = True,
    device: torch.device | str | None = None,
    dtype: torch.dtype | None = None,
) -> LayerWeights:
    """Draw one layer as `torch.nn.RNNCell` does: uniform in +-1/sqrt(hidden_size), in the order U, W, b_ih, b_hh."""
    bound = 1 / math.sqrt(hidden_size)

    def draw(*shape: int) -> Tensor:
        return torch.empty(shape, device=device, dtype=dtype).uniform_(-bound, bound)

    U = draw(hidden_size, input_size)
    W = draw(hidden_size, hidden_size)
    b_ih = draw(hidden_size) if bias else None
    b_hh = draw(hidden_size) if bias else None
    return LayerWeights(U, W, b_ih, b_hh)


@torch.no_grad()
def initialise_(
    U: Float[Tensor, "hidden input"],
    W: Float[Tensor, "hidden hidden"],
    biases: Iterable[Tensor | None],
    init: str = "torch",
    scale: float = 1.0,
) -> None:
    """Start one layer, in place, from uniform draws; U and W may be views of [U W].

        torch       leave W and b as drawn: the spectral radius of W is near 1/sqrt(3) = 0.58, and a signal fades
        orthogonal  W W^T = I: |W h| = |h|, at first only tanh can shrink a signal (Saxe, McClelland, Ganguli 2014)
        identity    W = I, b = 0: a unit repeats itself until an input arrives (Le, Jaitly, Hinton 2015, for relu)

    U keeps its uniform draw times `scale`. Raises ValueError for any other `init`.
    """
    check_init(init)
    if init == "orthogonal":
        # LAPACK has no half precision, so the factorisation runs in float32 at least.
        Q = torch.empty(W.shape, device=W.device, dtype=torch.promote_types(W.dtype, torch.float32))
        W.copy_(nn.init.orthogonal_(Q))
    elif init == "identity":
        nn.init.eye_(W)
        for b in biases:
            if b is not None:
                b.zero_()
    if scale != 1.0:
        U.mul_(scale)
