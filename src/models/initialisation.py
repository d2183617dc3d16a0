"""How the weights of a recurrence start: the same two passes for every model, so that one seed gives one network.

1. torch's uniform draws in +-1/sqrt(hidden_size), layer after layer: U, W, b_ih, b_hh;
2. `initialise_` layer after layer, with `input_scale` for the first layer and `interlayer_scale` for all others.
"""

from collections.abc import Iterable

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
    scale: float = 1.0,
) -> None:
    """Initialise one layer in place, after torch's uniform draws; U and W may be views of a larger matrix.

        torch       leave W and b as drawn: the spectral radius of W is near 1/sqrt(3) = 0.58, and a signal fades
        orthogonal  W W^T = I: |W h| = |h|, at first only tanh can shrink a signal (Saxe, McClelland, Ganguli 2014)
        identity    W = I, b = 0: a unit keeps its value until an input arrives (Le, Jaitly, Hinton 2015, for relu)

    U keeps its uniform draw times `scale`.
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
    if scale != 1.0:
        U.mul_(scale)


def keep_one_bias_(bias_ih: Tensor, bias_hh: Tensor) -> None:
    """Move the sum of both biases into the first and freeze the second at zero, in place."""
    with torch.no_grad():
        bias_ih.add_(bias_hh)
        bias_hh.zero_()
    bias_hh.requires_grad_(False)
