"""How many units stand at the end of tanh's range, where f' = 1 - h^2 is next to nothing and no gradient passes."""

from __future__ import annotations

import math
from typing import Any

import lightning.pytorch as pl
import torch
from torch import Tensor

from src.diagnostics.diagnostic import View, Watcher
from src.diagnostics.gradient_flow import Layers, is_plain

LIMIT = 0.99  # f' < 0.02 beyond it


def saturated(hidden: Tensor, limit: float = LIMIT) -> Tensor:
    """Return the share of |h| > limit, layer by layer: (layers, ...) -> (layers,)."""
    return (hidden.detach().abs() > limit).flatten(1).float().mean(1)


# ---- The recurrent matrix W: its eigenvalues, their largest modulus, its singular values.

SQUARINGS = 8  # W^256: what the norm adds to the radius has shrunk to its 128th root


def eigenvalues(W: Tensor) -> Tensor:
    """Return the eigenvalues of W (hidden, hidden), complex (hidden,), the largest modulus first.

    Not a number where W is not finite: LAPACK raises then, or takes the process with it.
    """
    A = _plain(W)
    if not is_finite(A):
        return torch.full((len(A),), torch.nan, dtype=A.dtype.to_complex())
    found = torch.linalg.eigvals(A)
    return found[found.abs().argsort(descending=True)]


def singular_values(W: Tensor) -> Tensor:
    """Return the singular values of W (hidden, hidden), (hidden,), the largest first; nan where W is not finite."""
    A = _plain(W)
    return torch.linalg.svdvals(A) if is_finite(A) else torch.full((len(A),), torch.nan, dtype=A.dtype)


def spectral_radius(W: Tensor) -> float:
    """Return the largest modulus of an eigenvalue of W, by Gelfand's formula, rho = lim |W^k|^(1/k).

    W is squared eight times. With the ratio |W^256| / |W^128| = rho^128 the constant in front of rho^k cancels, so an
    orthogonal W gives 1 to the last digits and one whose eigenvectors span the space is right to about 1e-3. Where m
    eigenvectors fall together (a Jordan block) |W^k| grows as k^(m-1) rho^k, and the answer is up to 2^((m-1)/128) too
    large: 0.5 % for m = 2, 11 % for m = 20. For hidden = 512 this is a tenth of what the eigenvalues cost.
    Not a number where W is not finite.
    """
    A = _plain(W)
    if not is_finite(A):
        return math.nan
    scale = float(A.abs().max())
    if scale == 0.0:
        return 0.0
    A = A / scale  # the sum of squares must neither overflow nor vanish
    log_norm = 0.0  # log |W^k|, kept apart: W^256 itself would overflow
    for squaring in range(SQUARINGS + 1):
        norm = float(torch.linalg.matrix_norm(A))
        if norm == 0.0:
            return 0.0  # W^k = 0: every eigenvalue is zero
        before, log_norm = log_norm, 2 * log_norm + math.log(norm)
        A = A / norm
        if squaring < SQUARINGS:
            A = A @ A
    # log_norm is log |W^256|, and `before` log |W^128|
    return scale * math.exp((log_norm - before) / 2 ** (SQUARINGS - 1))


def is_finite(A: Tensor) -> bool:
    """Return whether every number of a tensor is finite."""
    return bool(torch.isfinite(A).all())


def _plain(W: Tensor) -> Tensor:
    """Return W detached, on the CPU, in single precision at least: LAPACK has no half."""
    W = W.detach().cpu()
    return W.to(torch.promote_types(W.dtype, torch.float32))


# ---- Is the recurrent matrix about to explode: the eigenvalues of each W beside the unit circle, its singular ...


class RecurrentMatrix(Watcher):
    """Draw `recurrent/eigenvalues`: now, and in grey as it was before the first step."""

    name = "recurrent_matrix"
    draws_at_start = True  # where an initialisation puts them is half of what is to be seen

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.first: list[tuple[Tensor, Tensor]] = []  # a layer: eigenvalues, singular values

    def means_something(self, view: View) -> bool:
        """A gated cell has a W a gate, and no power of one of them is what a signal is multiplied by."""
        return is_plain(view)

    def draw(self, view: View) -> None:
        """Compute and draw."""
        from src.diagnostics import drawing as pictures

        now = [(eigenvalues(W), singular_values(W)) for W in Layers.of(view.model.recurrence).W()]
        self.first = self.first or now
        values, sigma = zip(*now, strict=True)
        first, first_sigma = zip(*self.first, strict=True)
        figure = pictures.eigenvalues(view.step, values, first, list(zip(sigma, first_sigma, strict=True)))
        self.gallery.figure(view.trainer, "recurrent/eigenvalues", figure, view.step)

    def memory(self) -> dict[str, Any]:
        """How it was before the first step."""
        return {"first": [list(layer) for layer in self.first]}

    def remember(self, memory: dict[str, Any]) -> None:
        """Take it back."""
        self.first = [(values, sigma) for values, sigma in memory["first"]]


# ---- Two numbers a layer that tell early what goes wrong: the spectral radius of W, and how many units are ...


class RecurrentScalars(Watcher):
    """Write `recurrent/spectral_radius/layer_<l>` and `recurrent/saturated/layer_<l>`.

    Saturation is that of the state which the last window of training left behind, all streams; at step 0 that of the
    first window, which the weights of step 0 have read. A gated model has a W a gate, and a signal is multiplied by no
    power of any of them: it has saturation alone.
    """

    name = "recurrent_scalars"
    waits = False  # for the first state: before the first window there is none

    def look(self, view: View) -> None:
        """Write a point of each."""
        if is_plain(view):
            matrices = Layers.of(view.model.recurrence).W()
            radii = {f"recurrent/spectral_radius/layer_{layer}": spectral_radius(W) for layer, W in enumerate(matrices)}
            self.gallery.scalars(view.trainer, radii, view.step)
        self.waits = view.step == 0
        if not self.waits:
            self._saturation(view)

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule, *_: Any) -> None:
        """Write the first point of saturation."""
        if self.waits:
            self.waits = False
            view = self._view(trainer, pl_module)
            view.step = 0
            self._saturation(view)

    def _saturation(self, view: View) -> None:
        state = view.module.states["train"]
        state = state[0] if isinstance(state, tuple) else state  # the LSTM's h, not its c
        if state is not None:
            shares = saturated(state).tolist()
            points = {f"recurrent/saturated/layer_{layer}": share for layer, share in enumerate(shares)}
            self.gallery.scalars(view.trainer, points, view.step)
