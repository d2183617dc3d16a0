"""The recurrence: eigenvalues, singular values and spectral radius of each W, the columns of U, the hidden units."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from src.config.schema import DiagnosticConfig
from src.data.vocabulary import label
from src.diagnostics import drawing
from src.diagnostics.diagnostic import Diagnostic, EvalView
from src.diagnostics.gradient_flow import PlainRecurrence, plain, widened
from src.models.gated import GRU, LSTM
from src.models.language_model import State

LIMIT = 0.99  # of |h|; beyond it f' = 1 - h^2 is below 0.02, and hardly any gradient passes
SQUARINGS = 14  # W^16384: what the norm adds to the radius has shrunk to its 8192nd root
SHOWN = 72  # characters below the heat map: as many as can be read at 800 pixels
COUNTED = 256  # characters whose states make the histograms
MOST_UNITS = 64  # rows of a map that remain distinguishable


def spectrum(W: Tensor) -> list[Tensor]:
    """Return eigenvalues and singular values of W (hidden, hidden), the largest first; NaN where LAPACK would crash."""
    A = widened(W)
    if not bool(A.isfinite().all()):
        return [torch.full((len(A),), math.nan, dtype=dtype) for dtype in (A.dtype.to_complex(), A.dtype)]
    found = torch.linalg.eigvals(A)
    return [found[found.abs().argsort(descending=True)], torch.linalg.svdvals(A)]


def spectral_radius(W: Tensor) -> float:
    """Return the largest modulus of an eigenvalue of W, NaN if W is not finite; Gelfand: rho = lim |W^k|^(1/k).

    In the ratio |W^16384| / |W^8192| = rho^8192 the constant in front of rho^k cancels: right to 3e-4 in thousands of
    random matrices (1e-4 if two eigenvectors fall together). For hidden = 512 the eigenvalues cost twice as much.
    """
    A = widened(W)
    before = log_norm = 0.0  # log |W^k|, kept apart: W^256 itself would overflow
    for _ in range(SQUARINGS + 1):
        norm = float(torch.linalg.matrix_norm(A, dtype=torch.float64))  # its squares neither overflow nor vanish
        if norm == 0.0:
            return 0.0  # W^k = 0: every eigenvalue is zero
        before, log_norm = log_norm, 2 * log_norm + math.log(norm)
        A = (A / norm) @ (A / norm)
    return math.exp((log_norm - before) / 2 ** (SQUARINGS - 1))


def saturated(hidden: Tensor) -> Tensor:
    """Return the share of |h| > LIMIT, layer by layer: (layers, ...) -> (layers,)."""
    return (hidden.detach().abs() > LIMIT).flatten(1).float().mean(1)


class RecurrentScalars(Diagnostic):
    """Write `recurrent/spectral_radius/layer_<l>`, and `recurrent/saturated/...` of the last state."""

    name, measures = "recurrent_scalars", True

    def look(self, view: EvalView) -> dict[str, float]:
        recurrence = plain(view)
        radii = [spectral_radius(layer.W) for layer in recurrence.layers] if recurrence else []
        found = {f"recurrent/spectral_radius/layer_{layer}": radius for layer, radius in enumerate(radii)}
        if recurrence and recurrence.f is torch.relu:
            return found  # its slope is 1 there
        state = view.module.states["train"] if view.module.averaged is None else None  # of the trained weights
        if state is None:
            _, state = view.read(view.windows().window(0, 0), None)
        shares = saturated(state[0] if isinstance(state, tuple) else state).tolist()  # the LSTM's h, not its c
        return found | {f"recurrent/saturated/layer_{layer}": share for layer, share in enumerate(shares)}


class RecurrentMatrix(Diagnostic):
    """Draw `recurrent/eigenvalues`: now, and in grey as it was when first drawn."""

    name = "recurrent_matrix"
    draws_at_start = True  # it shows where the initialisation puts the eigenvalues
    kept = ("first",)

    def __init__(self, config: DiagnosticConfig) -> None:
        super().__init__(config)
        self.first: list[list[Tensor]] = []  # per layer: eigenvalues, singular values

    def applies_to(self, view: EvalView) -> bool:
        return plain(view) is not None  # a gated cell has a W per gate, and multiplies by no power of any of them

    def draw(self, view: EvalView) -> dict[str, Any]:
        now = [spectrum(layer.W) for layer in PlainRecurrence(view.model.recurrence).layers]
        self.first = self.first or now
        return {"recurrent/eigenvalues": spectrum_figure(view.step, now, self.first)}


def spectrum_figure(step: int, now: Sequence[Sequence[Tensor]], first: Sequence[Sequence[Tensor]]) -> Any:
    """Draw the `spectrum` of each layer's W, and in grey the first one: eigenvalues, singular values."""
    rows = drawing.in_rows(len(now))
    sizes = 3 + 2.5 * len(rows), [count for count in rows for _ in range(2)], [1.9, 1.0] * len(rows)
    figure, grid = drawing.page(f"The recurrent matrix W, after {step:,} steps", *sizes)
    circles, spectra = ([axes for row in grid[half::2] for axes in row] for half in (0, 1))
    angles = torch.linspace(0, 2 * math.pi, 200)
    for layer, (plane, sigma_axes) in enumerate(zip(circles, spectra, strict=True)):
        plane.plot(angles.cos(), angles.sin(), color="black", linewidth=0.8)
        both = (first[layer], drawing.GREY, "when first drawn"), (now[layer], drawing.BLUE, "now")
        for (values, sigma), colour, name in both:
            plane.plot(drawing.finite(values.real), drawing.finite(values.imag), ".", markersize=3, color=colour)
            sigma_axes.plot(drawing.finite(sigma), color=colour, label=name)
        radius = float(now[layer][0].abs().max())
        plane.set(title=f"Layer {layer}: radius {radius:.3f}", xlabel="real part", ylabel="imaginary part")
        plane.set_aspect("equal", adjustable="datalim")
        sigma_axes.axhline(1, color="black", linewidth=0.8)
        sigma_axes.set(title="Its singular values", xlabel="from the largest on", ylabel="singular value")
        drawing.whole_numbers(sigma_axes)
    spectra[0].legend(loc="lower left")
    return figure


class InputVectors(Diagnostic):
    """Put `input_vectors` into the projector: a point per character, its column of the first layer's U (all gates)."""

    name = "input_vectors"

    def applies_to(self, view: EvalView) -> bool:
        return isinstance(view.model.recurrence, GRU | LSTM) or plain(view) is not None

    def draw(self, view: EvalView) -> dict[str, Any]:
        gated, recurrence = view.model.recurrence, plain(view)
        U = recurrence.layers[0].U if recurrence else widened(gated.all_weights[0][0])  # type: ignore[index]
        for writer in view.writers:
            writer.vectors("input_vectors", U.T.numpy(), [*map(label, view.symbols)])
        return {}


class HiddenStates(Diagnostic):
    """Draw `hidden/units_over_text`, and the histograms `hidden/layer_<l>`: peaks at -1 and 1 are saturation."""

    name = "hidden_states"

    def draw(self, view: EvalView) -> dict[str, Any]:
        ids, states = states_over_passage(view, COUNTED)
        text = [drawing.short(view.symbols[i]) for i in ids[:SHOWN].tolist()]
        for writer in view.writers:
            for name, values in states.items():
                writer.histogram(f"hidden/{name.replace(' ', '_')}", values.float().numpy(), view.step)
        shown = {name: states[name][:SHOWN] for name in (next(iter(states)), list(states)[-1])}
        return {"hidden/units_over_text": units_over_text(view.step, shown, text)}


def states_over_passage(view: EvalView, length: int) -> tuple[Tensor, dict[str, Tensor]]:
    """Return the ids (time,) of a passage and the hidden states (time, hidden) by layer; of other cells the top one."""
    recurrence, state = plain(view), None
    ids, found = [], []
    for window in view.passage(length):
        before: State = None if window.starts else state
        if recurrence is not None:
            _, hidden = recurrence.run(window.inputs, before)
            state = torch.stack([h[-1] for h in hidden])
        else:
            with view.trainer.precision_plugin.forward_context():
                top, state = view.model.recurrence(window.inputs.to(view.module.device), before)
            hidden = [top.cpu()[..., -int(view.model.recurrence.hidden_size) :]]  # type: ignore[arg-type]
        ids.append(window.inputs[:, 0])
        found.append([h[:, 0] for h in hidden])
    layers = [torch.cat(parts) for parts in zip(*found, strict=True)]
    return torch.cat(ids), {f"layer {i}" if recurrence else "top layer": layer for i, layer in enumerate(layers)}


def units_over_text(step: int, hidden: dict[str, Tensor], text: Sequence[str]) -> Any:
    """Draw hidden states (time, hidden) by layer above the text (time,) that they read, the slowest unit at the top."""
    title = f"Hidden states over a passage, after {step:,} steps"
    figure, rows = drawing.page(title, 1.2 + 2.6 * len(hidden), [1] * len(hidden))
    for [axes], (name, states) in zip(rows, hidden.items(), strict=True):
        values = drawing.finite(states)
        bound = drawing.largest(values, 1.0)
        x = torch.from_numpy(values)  # ordered by the change in a step, relative to how much a unit varies
        change, spread = x.diff(dim=0).square().mean(0), x.var(0, correction=0).clamp(min=1e-12)
        slowest_first = (change / spread).nan_to_num(0.0).argsort(stable=True).numpy()
        order = slowest_first[:: -(-states.shape[1] // MOST_UNITS)]
        image = drawing.heat(axes, values[:, order].T, cmap="PuOr", vmin=-bound, vmax=bound)
        drawing.colour_bar(image, axes, "h_t")
        drawing.characters_below(axes, text)
        units = f"{len(order)} of {states.shape[1]} units, the slowest at the top"
        axes.set(title=f"{name}: {units}", xlabel="character read", ylabel="units", yticks=[])
    return figure
