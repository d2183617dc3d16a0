"""The figures about the network: where in the window it is bad, how far back a gradient reaches, W, the hidden states.

Each function takes tensors and numbers and returns a figure; `figures.png` makes it a file. The two about characters
stand in `pictures_of_text.py`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from src.analysis import figures as f
from src.analysis.lettering import characters_below

NAT = 1 / math.log(2)  # bits in a nat
ACROSS = 3  # layers side by side; more of them go into further rows
MOST_UNITS = 64  # rows of a heat map that are still to be told apart


def loss_by_position(step: int, carried: Tensor, fresh: Tensor, overall: tuple[float, float]) -> Any:
    """Draw what a character costs by its place in the window.

    Args:
        step: optimizer steps made.
        carried: (time,) nats, the state carried from the window before.
        fresh: (time,) nats, every window from a zero state.
        overall: nats a character of both, over all places.
    """
    figure, [[axes]] = f.page(f"Loss by position in the window, after {step:,} steps", 4.2, [[1]])
    for values, mean, colour, name in (
        (fresh, overall[1], f.VERMILION, "fresh: every window starts from a zero state"),
        (carried, overall[0], f.BLUE, "carried: the state of the window before"),
    ):
        places = range(1, len(values) + 1)
        axes.plot(places, (values * NAT).tolist(), color=colour, label=f"{name}; {mean * NAT:.2f} on average",
                  marker="o", markersize=3)  # fmt: skip
        axes.axhline(mean * NAT, color=colour, linewidth=0.8, linestyle=":")
    f.describe(axes, "", "step t of the window", "bits a character")
    f.whole_numbers(axes, most=9)
    axes.set_ylim(bottom=0)
    axes.set_xlim(0.5, max(len(carried), len(fresh)) + 0.5)
    axes.legend(loc="best")
    return figure


def gradient_by_lag(steps: Sequence[int], lags: Tensor, window: Tensor, words: str = "") -> Any:
    """Draw how far back an error reaches.

    Args:
        steps: (points,) optimizer steps at which it was measured, the last one is now.
        lags: (points, layers, time) |dL_T/dz_(T-k)|, entry k is lag k.
        window: (layers, time) |delta_t| of the ordinary backward, now.
        words: a verdict, under the title.
    """
    layers = lags.shape[1]
    title = f"How far back the gradient reaches, after {steps[-1]:,} steps"
    across, down = min(layers, ACROSS), -(-layers // ACROSS)
    grid = [[1] * across] * down
    figure, [[now, whole], *rows] = f.page(title, 4.0 + 2.0 * down, [[1, 1], *grid], right=0.905, subtitle=words)
    maps = f.wrapped(rows, layers)
    logs = f.exponents(lags)
    for layer in range(layers):
        look: dict[str, Any] = {"color": f.LINES[layer % len(f.LINES)]}
        if lags.shape[2] == 1:
            look["marker"] = "o"  # one point makes no line
        now.plot(logs[-1, layer], **look, label=f"layer {layer}")
        if len(steps) > 1:
            now.plot(logs[0, layer], **look, linewidth=0.9, linestyle=":")
        whole.plot(range(1, window.shape[1] + 1), f.exponents(window[layer]), **look, label=f"layer {layer}")
    dotted = f" (dotted: at step {steps[0]:,})" if len(steps) > 1 else ""
    f.describe(now, "The last step's error" + dotted, "lag k, steps back", "|dL_T / dz_(T-k)|")
    f.describe(whole, "The errors of all steps", "step t of the window", "|delta_t| = |dL / dz_t|")
    for axes in (now, whole):
        f.powers_of_ten(axes, *axes.get_ylim())
        f.whole_numbers(axes)
    now.legend(loc="upper right")
    finite = logs[logs == logs]
    low, high = (float(finite.min()), float(finite.max())) if len(finite) else (-1.0, 0.0)
    for layer, axes in enumerate(maps):
        unit = "|dL_T / dz_(T-k)|, grey: less" if layer % across == across - 1 or layer == layers - 1 else ""
        f.heat(axes, logs[:, layer].T, unit, low, max(high, low + 0.5), log=True, upside=True)
        f.describe(axes, f"Layer {layer} over training", "optimizer steps",
                   "" if layer % across else "lag k, steps back")  # fmt: skip
        f.whole_numbers(axes, "y")
        places = sorted({round(i * (len(steps) - 1) / 3) for i in range(4)})
        axes.set_xticks(places, [f"{steps[place]:,}" for place in places])
    return figure


def eigenvalues(step: int, now: Sequence[Tensor], first: Sequence[Tensor], sigma: Sequence[Sequence[Tensor]]) -> Any:
    """Draw each layer's W: its eigenvalues beside the unit circle, and its singular values; in grey those at the start.

    Args:
        step: optimizer steps made.
        now, first: for each layer complex (hidden,); now and before the first step.
        sigma: for each layer its singular values, now and before the first step.
    """
    layers = len(now)
    across, down = min(layers, ACROSS), -(-layers // ACROSS)
    title = f"The recurrent matrix W, after {step:,} steps"
    figure, rows = f.page(title, 6.4 if down == 1 else 4.9 * down, [[1] * across] * (2 * down), [1.9, 1] * down)
    circles, spectra = (f.wrapped(rows[half::2], layers) for half in (0, 1))
    angles = torch.linspace(0, 2 * math.pi, 200)
    for layer, (plane, spectrum) in enumerate(zip(circles, spectra, strict=True)):
        radius = float(now[layer].abs().max())
        plane.plot(angles.cos(), angles.sin(), color="black", linewidth=0.8)
        for values, colour, name in ((first[layer], f.PALE, "before the first step"), (now[layer], f.BLUE, "now")):
            plane.plot(values.real, values.imag, ".", markersize=3, color=colour, label=name)
        reach = 1.08 * f.largest(torch.cat([now[layer], first[layer]]), 1.0)
        plane.set(xlim=(-reach, reach), ylim=(-reach, reach), aspect="equal")
        f.whole_numbers(plane)
        f.whole_numbers(plane, "y")
        f.describe(plane, f"Layer {layer}: radius {radius:.3f}", "real part", "imaginary part")
        spectrum.plot(sigma[layer][1], color=f.PALE, label="before the first step")
        spectrum.plot(sigma[layer][0], color=f.BLUE, label="now")
        spectrum.axhline(1, color="black", linewidth=0.8)
        spectrum.set_ylim(bottom=0)
        f.describe(spectrum, "Its singular values", "from the largest on", "singular value")
        f.whole_numbers(spectrum)
    spectra[0].legend(loc="lower left")
    return figure


def units_over_text(step: int, hidden: Sequence[Tensor], names: Sequence[str], text: Sequence[str]) -> Any:
    """Draw hidden states under the text that they read: a row a unit, the slowest unit at the top.

    Args:
        step: optimizer steps made.
        hidden: for each layer shown (time, hidden).
        names: of those layers.
        text: (time,) labels of the characters read.
    """
    height = 1.2 + 2.6 * len(hidden)
    title = f"Hidden states over a passage, after {step:,} steps"
    figure, rows = f.page(title, height, [[1]] * len(hidden), right=0.905)
    for [axes], states, name in zip(rows, hidden, names, strict=True):
        states = states.double()
        bound = f.largest(states, 1.0)
        states = torch.where(states.isfinite(), states, torch.nan)
        order = slowest_first(states)[:: -(-states.shape[1] // MOST_UNITS)]
        f.heat(axes, states[:, order].T.numpy(), "h_t", -bound, bound, f.SIGNS)
        characters_below(axes, text)
        axes.set_yticks([])
        shown = f"{len(order)} of {states.shape[1]} units" if len(order) < states.shape[1] else f"{len(order)} units"
        f.describe(axes, f"{name}: {shown}, the slowest at the top", "character read", "units")
    return figure


def slowest_first(states: Tensor) -> Tensor:
    """Return the units of (time, hidden) by how little they change in a step, relative to how much they vary."""
    change = states.diff(dim=0).square().mean(0)
    spread = states.var(0, correction=0).clamp(min=1e-12)
    return (change / spread).nan_to_num(0.0).argsort(stable=True)
