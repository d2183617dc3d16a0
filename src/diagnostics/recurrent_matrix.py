"""The weights: eigenvalues, singular values and spectral radius of each W, saturated units, the columns of U."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from src.config.schema import DiagnosticConfig
from src.diagnostics import drawing
from src.diagnostics.diagnostic import Diagnostic, EvalView
from src.diagnostics.gradient_flow import PlainRecurrence, plain, widened
from src.models.gated import Gated

LIMIT = 0.99  # of |h|; beyond it f' = 1 - h^2 is below 0.02, and hardly any gradient passes
SQUARINGS = 8  # W^256: what the norm adds to the radius has shrunk to its 128th root


def spectrum(W: Tensor) -> list[Tensor]:
    """Return the eigenvalues of W (hidden, hidden), complex, and its singular values, the largest first.

    NaN if W is not finite: LAPACK raises then, or ends the process.
    """
    A = widened(W)
    if not bool(A.isfinite().all()):
        return [torch.full((len(A),), math.nan, dtype=dtype) for dtype in (A.dtype.to_complex(), A.dtype)]
    found = torch.linalg.eigvals(A)
    return [found[found.abs().argsort(descending=True)], torch.linalg.svdvals(A)]


def spectral_radius(W: Tensor) -> float:
    """Return the largest modulus of an eigenvalue of W, by Gelfand's formula, rho = lim |W^k|^(1/k).

    W is squared eight times. With the ratio |W^256| / |W^128| = rho^128 the constant in front of rho^k cancels, so an
    orthogonal W gives 1 to the last digits and one whose eigenvectors span the space is right to about 1e-3. If m
    eigenvectors fall together (a Jordan block) |W^k| grows as k^(m-1) rho^k, and the answer is up to 2^((m-1)/128) too
    large: 0.5 % for m = 2, 11 % for m = 20. For hidden = 512 this is a tenth of what the eigenvalues cost.
    NaN if W is not finite.
    """
    A = widened(W)
    if not bool(A.isfinite().all()):
        return math.nan
    scale = float(A.abs().max())
    if scale == 0.0:
        return 0.0
    A = A / scale  # the sum of squares must neither overflow nor vanish
    log_norm = 0.0  # log |W^k|, kept apart: W^256 itself would overflow
    for _ in range(SQUARINGS + 1):
        norm = float(torch.linalg.matrix_norm(A))
        if norm == 0.0:
            return 0.0  # W^k = 0: every eigenvalue is zero
        before, log_norm = log_norm, 2 * log_norm + math.log(norm)
        A = (A / norm) @ (A / norm)
    # log_norm is log |W^256|, and `before` log |W^128|
    return scale * math.exp((log_norm - before) / 2 ** (SQUARINGS - 1))


def saturated(hidden: Tensor) -> Tensor:
    """Return the share of |h| > LIMIT, layer by layer: (layers, ...) -> (layers,)."""
    return (hidden.detach().abs() > LIMIT).flatten(1).float().mean(1)


class RecurrentScalars(Diagnostic):
    """Write `recurrent/spectral_radius/layer_<l>` and `recurrent/saturated/layer_<l>`, early signs of trouble.

    Saturation is that of the state which the last window of training left behind, all streams; before the first one
    that which a window of the evaluation leaves. A gated model has saturation alone, see `RecurrentMatrix`.
    """

    name = "recurrent_scalars"

    def look(self, view: EvalView) -> None:
        """Write a point of each."""
        recurrence = plain(view)
        radii = [spectral_radius(layer.W) for layer in recurrence.layers] if recurrence else []
        state = view.module.states["train"]
        if state is None:
            _, state = view.read(view.windows().window(0, 0), None)
        shares = saturated(state[0] if isinstance(state, tuple) else state).tolist()  # the LSTM's h, not its c
        for name, values in (("spectral_radius", radii), ("saturated", shares)):
            view.scalars({f"recurrent/{name}/layer_{layer}": value for layer, value in enumerate(values)})


class RecurrentMatrix(Diagnostic):
    """Draw `recurrent/eigenvalues`: now, and in grey as it was before the first step."""

    name = "recurrent_matrix"
    draws_at_start = True  # where an initialisation puts them is half of what there is to see
    kept = ("first",)

    def __init__(self, config: DiagnosticConfig) -> None:
        super().__init__(config)
        self.first: list[list[Tensor]] = []  # per layer: eigenvalues, singular values

    def applies_to(self, view: EvalView) -> bool:
        """A gated cell has a W per gate, and a signal is multiplied by no power of any of them."""
        return plain(view) is not None

    def draw(self, view: EvalView) -> dict[str, Any]:
        """Compute and draw."""
        now = [spectrum(layer.W) for layer in PlainRecurrence(view.model.recurrence).layers]
        self.first = self.first or now
        return {"recurrent/eigenvalues": spectrum_figure(view.step, now, self.first)}


def spectrum_figure(step: int, now: Sequence[Sequence[Tensor]], first: Sequence[Sequence[Tensor]]) -> Any:
    """Draw each layer's W: its eigenvalues beside the unit circle, and its singular values; in grey those at the start.

    now, first: `spectrum` of each layer's W.
    """
    rows = drawing.in_rows(len(now))
    height = 6.4 if len(rows) == 1 else 4.9 * len(rows)
    pairs, heights = [count for count in rows for _ in range(2)], [1.9, 1.0] * len(rows)
    figure, grid = drawing.page(f"The recurrent matrix W, after {step:,} steps", height, pairs, heights)
    circles, spectra = ([axes for row in grid[half::2] for axes in row] for half in (0, 1))
    angles = torch.linspace(0, 2 * math.pi, 200)
    for layer, (plane, sigma_axes) in enumerate(zip(circles, spectra, strict=True)):
        plane.plot(angles.cos(), angles.sin(), color="black", linewidth=0.8)
        for (values, sigma), colour, name in (
            (first[layer], drawing.PALE, "before the first step"),
            (now[layer], drawing.BLUE, "now"),
        ):
            plane.plot(drawing.finite(values.real), drawing.finite(values.imag), ".", markersize=3, color=colour)
            sigma_axes.plot(drawing.finite(sigma), color=colour, label=name)
        reach = 1.08 * drawing.largest(torch.cat([now[layer][0], first[layer][0]]), 1.0)
        plane.set(xlim=(-reach, reach), ylim=(-reach, reach), aspect="equal")
        radius = float(now[layer][0].abs().max())
        plane.set(title=f"Layer {layer}: radius {radius:.3f}", xlabel="real part", ylabel="imaginary part")
        sigma_axes.axhline(1, color="black", linewidth=0.8)
        sigma_axes.set_ylim(bottom=0)
        sigma_axes.set(title="Its singular values", xlabel="from the largest on", ylabel="singular value")
        for axes, which in ((plane, "x"), (plane, "y"), (sigma_axes, "x")):
            drawing.whole_numbers(axes, which)
    spectra[0].legend(loc="lower left")
    return figure


class InputVectors(Diagnostic):
    """Put `input_vectors` into the projector: a point per character, its column of the first layer's U (all gates)."""

    name = "input_vectors"

    def applies_to(self, view: EvalView) -> bool:
        """A recurrence of the user's own need not have a U."""
        return isinstance(view.model.recurrence, Gated) or plain(view) is not None

    def draw(self, view: EvalView) -> dict[str, Any]:
        """Write the vectors of now in place of earlier ones."""
        gated, recurrence = view.model.recurrence, plain(view)
        U = recurrence.layers[0].U if recurrence else widened(gated.rnn.weight_ih_l0)  # type: ignore[arg-type, union-attr]
        for writer in view.writers:
            writer.vectors("input_vectors", U.T.numpy(), [drawing.label(symbol) for symbol in view.symbols])
        return {}
