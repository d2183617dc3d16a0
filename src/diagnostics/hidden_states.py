"""What the units do while they read: a heat map above the text, and how their values are distributed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from src.diagnostics import drawing
from src.diagnostics.diagnostic import Diagnostic, EvalView
from src.diagnostics.gradient_flow import plain
from src.models.language_model import State

SHOWN = 72  # characters below the heat map: as many as can be read at 800 pixels
COUNTED = 256  # characters whose states make the histograms
MOST_LAYERS = 2  # maps in one figure: the lowest and the top
MOST_UNITS = 64  # rows of a map that can still be told apart


class HiddenStates(Diagnostic):
    """Draw `hidden/units_over_text`, and the histograms `hidden/layer_<l>`: peaks at -1 and 1 are saturation."""

    name = "hidden_states"

    def draw(self, view: EvalView) -> dict[str, Any]:
        """Read a passage and draw."""
        ids, states = states_over_passage(view, COUNTED)
        text = [drawing.short(view.symbols[i]) for i in ids[:SHOWN].tolist()]
        names = list(states)
        names = names if len(names) <= MOST_LAYERS else [names[0], names[-1]]
        for writer in view.writers:
            for name, values in states.items():
                writer.histogram(f"hidden/{name.replace(' ', '_')}", values.float().numpy(), view.step)
        shown = {name: states[name][:SHOWN] for name in names}
        return {"hidden/units_over_text": units_over_text(view.step, shown, text)}


def states_over_passage(view: EvalView, length: int) -> tuple[Tensor, dict[str, Tensor]]:
    """Return the ids (time,) of a passage and the hidden states (time, hidden) that reading them leaves, by layer.

    A gated or unknown recurrence shows its top layer only.
    """
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
            hidden = [top.cpu()]
        ids.append(window.inputs[:, 0])
        found.append([h[:, 0] for h in hidden])
    layers = [torch.cat(parts) for parts in zip(*found, strict=True)]
    names = [f"layer {layer}" for layer in range(len(layers))] if recurrence else ["top layer"]
    return torch.cat(ids), dict(zip(names, layers, strict=True))


def units_over_text(step: int, hidden: dict[str, Tensor], text: Sequence[str]) -> Any:
    """Draw hidden states above the text that they read: a row per unit, the slowest unit at the top.

    hidden: (time, hidden) by the layer's name; text: (time,) labels of the characters read.
    """
    title = f"Hidden states over a passage, after {step:,} steps"
    figure, rows = drawing.page(title, 1.2 + 2.6 * len(hidden), [1] * len(hidden))
    for [axes], (name, states) in zip(rows, hidden.items(), strict=True):
        values = drawing.finite(states)
        bound = drawing.largest(values, 1.0)
        order = slowest_first(torch.from_numpy(values)).numpy()[:: -(-states.shape[1] // MOST_UNITS)]
        image = drawing.heat(axes, values[:, order].T, cmap="PuOr", vmin=-bound, vmax=bound)
        drawing.colour_bar(image, axes, "h_t")
        drawing.characters_below(axes, text)
        axes.set_yticks([])
        units = f"{len(order)} of {states.shape[1]} units" if len(order) < states.shape[1] else f"{len(order)} units"
        axes.set(title=f"{name}: {units}, the slowest at the top", xlabel="character read", ylabel="units")
    return figure


def slowest_first(states: Tensor) -> Tensor:
    """Return the units of (time, hidden) by how little they change in a step, relative to how much they vary."""
    change = states.diff(dim=0).square().mean(0)
    spread = states.var(0, correction=0).clamp(min=1e-12)
    return (change / spread).nan_to_num(0.0).argsort(stable=True)
