"""What the units do while they read: a heat map under the text, and how their values are distributed."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from src.diagnostics.diagnostic import View, Watcher
from src.diagnostics.drawing import short
from src.diagnostics.gradient_flow import Layers, is_plain

SHOWN = 72  # characters under the heat map: as many as can be read at 800 pixels
COUNTED = 256  # characters whose states make the histograms
MOST_LAYERS = 2  # maps in one figure: the lowest and the top


class HiddenStates(Watcher):
    """Draw `hidden/units_over_text`, and the histograms `hidden/layer_<l>`: peaks at -1 and 1 are saturation."""

    name = "hidden_states"

    def draw(self, view: View) -> None:
        """Read a passage and draw."""
        from src.diagnostics.drawing import units_over_text

        ids, states = states_over_passage(view, COUNTED)
        text = [short(self.gallery.symbols[i]) for i in ids[:SHOWN].tolist()]
        names = list(states)
        shown = names if len(names) <= MOST_LAYERS else [names[0], names[-1]]
        figure = units_over_text(view.step, [states[name][:SHOWN] for name in shown], shown, text)
        self.gallery.figure(view.trainer, "hidden/units_over_text", figure, view.step)
        for name, values in states.items():
            self.gallery.histogram(view.trainer, f"hidden/{name.replace(' ', '_')}", values.float().numpy(), view.step)


def states_over_passage(view: View, length: int) -> tuple[Tensor, dict[str, Tensor]]:
    """Return the ids (time,) of a passage and the hidden states (time, hidden) that reading them leaves, by layer.

    Of a gated or unknown recurrence only the top layer's are told.
    """
    layers = Layers.of(view.model.recurrence) if is_plain(view) else None
    ids, found = [], []
    state = None
    for window in view.passage(length):
        before: Any = None if window.starts else state
        if layers is not None:
            hidden = layers.hidden(window.inputs, before)
            state = torch.stack([h[-1] for h in hidden])
        else:
            with view.trainer.precision_plugin.forward_context():
                top, state = view.model.recurrence(window.inputs.to(view.module.device), before)
            hidden = [top.cpu()]
        ids.append(window.inputs[:, 0])
        found.append([h[:, 0] for h in hidden])
    names = ["top layer"] if layers is None else [f"layer {layer}" for layer in range(len(layers.weights))]
    return torch.cat(ids), {name: torch.cat(parts) for name, parts in zip(names, zip(*found, strict=True), strict=True)}
