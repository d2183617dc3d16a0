"""How the weights of a recurrence start: the same two passes for every model, so that one seed gives one network.

1. torch's uniform draws in +-1/sqrt(hidden_size), layer after layer: U, W, b_ih, b_hh;
2. `initialise_` layer after layer, with `input_scale` on what reads the characters, else `interlayer_scale`.
"""

from collections.abc import Iterable, Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

INITIALISATIONS = ("torch", "orthogonal", "identity")


@torch.no_grad()
def initialise_(
    U: Float[Tensor, "hidden input"],
    W: Float[Tensor, "hidden hidden"],
    biases: Iterable[Tensor | None],
    init: str = "torch",
    input_scale: float = 1.0,
    interlayer_scale: float = 1.0,
    below: int = 0,
) -> None:
    """Initialise one layer in place, after torch's uniform draws; U and W may be views of a larger matrix.

    `init` is about W and b (README.md has the reasons and sources); U keeps its uniform draw times a scale: its first
    `below` columns, which read the layer below, times `interlayer_scale`, the others times `input_scale`.
    """
    if init not in INITIALISATIONS:
        raise ValueError(f"Unknown init '{init}'. Select from {', '.join(map(repr, INITIALISATIONS))}.")
    if init == "orthogonal":
        # LAPACK has no half precision, so the factorisation runs in float32 at least
        Q = torch.empty(W.shape, device=W.device, dtype=torch.promote_types(W.dtype, torch.float32))
        W.copy_(nn.init.orthogonal_(Q))
    elif init == "identity":
        nn.init.eye_(W)
        for b in biases:
            if b is not None:
                b.zero_()
    U[:, :below].mul_(interlayer_scale)
    U[:, below:].mul_(input_scale)


@torch.no_grad()
def initialise_layers_(
    layers: Iterable[Sequence[Tensor]],
    init: str,
    input_scale: float = 1.0,
    interlayer_scale: float = 1.0,
    single_bias: bool = False,
) -> None:
    """Initialise torch's parameters (U, W, b_ih, b_hh) of each layer in place, each gate's block by itself.

    `single_bias` moves the sum of both biases into the first and freezes the second at zero.
    """
    for layer, (U, W, b_ih, b_hh) in enumerate(layers):
        for U_gate, W_gate, *biases in zip(*(part.split(W.size(1)) for part in (U, W, b_ih, b_hh)), strict=True):
            initialise_(U_gate, W_gate, biases, init, input_scale, interlayer_scale, W.size(1) if layer else 0)
        if single_bias:
            b_ih.add_(b_hh)
            b_hh.zero_().requires_grad_(False)
