"""What all recurrences share: layer connections, dropout and weight initialisation.

    h_t^l = f(U^l h_t^{l-1} + S^l x_t + W^l h_{t-1}^l + b^l)      skip=input: layers l > 1 read the characters too
    o_t   = V [h_t^1; ...; h_t^L] + c                             skip=output: the readout reads all layers
    both: Graves 2013, arXiv:1308.0850, equations 4 and 5         U and S are side by side in one matrix [U S]

    dropout       h_t^l is dropped on its way to the layer above, as in torch.nn.RNN, by another mask at each step; with
                  dropout_mask=window by one mask a window and stream, also on its way to the readout
                  (Gal and Ghahramani 2016, arXiv:1512.05287)
    weight_drop   entries of W are dropped, by one mask a window and layer (Merity et al. 2018, arXiv:1708.02182)

Masks come from torch's global generator, which a checkpoint holds; those of a window at its start, W's first: equal
seeds give equal masks in all implementations. What is kept is divided by 1 - p.

The weights start by the same two passes in every model, so that one seed gives one network:

1. torch's uniform draws in +-1/sqrt(hidden_size), layer after layer: U, W, b_ih, b_hh;
2. `initialise_` layer after layer, with `input_scale` on what reads the characters, else `interlayer_scale`.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

INITIALISATIONS = ("torch", "orthogonal", "identity")


@dataclass(frozen=True)
class Wiring:
    """The connections of `num_layers` layers; `skip` is None, `input`, `output` or `both`."""

    input_size: int
    hidden_size: int
    num_layers: int
    skip: str | None = None
    dropout: float = 0.0
    dropout_mask: str | None = None
    weight_drop: float = 0.0

    @property
    def from_input(self) -> bool:
        return self.skip in ("input", "both")

    @property
    def to_output(self) -> bool:
        return self.skip in ("output", "both")

    @property
    def step_dropout(self) -> float:
        """The dropout that torch's modules know."""
        return self.dropout if self.dropout_mask != "window" else 0.0

    def input_sizes(self, directions: int = 1) -> list[int]:
        """Return what each layer reads beside its own state."""
        above = self.hidden_size * directions + (self.input_size if self.from_input else 0)
        return [self.input_size] + [above] * (self.num_layers - 1)

    def window(self, recurrent: Sequence[Tensor], batch: int, training: bool, directions: int = 1) -> "WiredWindow":
        """Draw the masks of a window; `recurrent` are the W of all layers and directions."""
        masks = None
        if training and self.weight_drop:
            recurrent = [F.dropout(W.contiguous(), self.weight_drop) for W in recurrent]
        if training and self.dropout != self.step_dropout:
            whole = recurrent[0].new_ones(batch, self.hidden_size * directions)
            masks = [F.dropout(whole, self.dropout) for _ in range(self.num_layers)]
        return WiredWindow(self, recurrent, masks, training)


@dataclass(frozen=True)
class WiredWindow:
    """The wiring of one window; hidden states are (..., batch, hidden)."""

    wiring: Wiring
    recurrent: Sequence[Tensor]  # W as this window has it
    masks: list[Tensor] | None  # (batch, hidden), of each layer's h
    training: bool

    def above(self, layer: int, hidden: Tensor) -> Tensor:
        """Return h of `layer` after dropout."""
        if self.masks is not None:
            return hidden * self.masks[layer].to(hidden.dtype)
        return F.dropout(hidden, self.wiring.step_dropout, self.training) if self.wiring.step_dropout else hidden

    def below(self, layer: int, hidden: Tensor, x: Tensor) -> Tensor:
        """Return what `layer`, above the first, reads: h of the layer below it, and with skip=input the features x."""
        hidden = self.above(layer - 1, hidden)
        return torch.cat([hidden, x], dim=-1) if self.wiring.from_input else hidden

    def output(self, layers: Sequence[Tensor]) -> Tensor:
        """Return what the readout reads, of h of all layers."""
        read = range(0 if self.wiring.to_output else len(layers) - 1, len(layers))
        seen = [layers[i] if self.masks is None else self.above(i, layers[i]) for i in read]
        return torch.cat(seen, dim=-1) if len(seen) > 1 else seen[0]


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
    """Initialise (U, W, b_ih, b_hh) of each layer, gate by gate; `single_bias`: b_ih = b_ih + b_hh, b_hh stays zero."""
    for layer, (U, W, b_ih, b_hh) in enumerate(layers):
        for U_gate, W_gate, *biases in zip(*(part.split(W.size(1)) for part in (U, W, b_ih, b_hh)), strict=True):
            initialise_(U_gate, W_gate, biases, init, input_scale, interlayer_scale, W.size(1) if layer else 0)
        if single_bias:
            b_ih.add_(b_hh)
            b_hh.zero_().requires_grad_(False)
