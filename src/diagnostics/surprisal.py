"""A passage coloured by what each of its characters cost."""

from __future__ import annotations

import torch

from src.diagnostics.diagnostic import View, Watcher

LENGTH = 512  # eight lines of 64 characters


class Surprisal(Watcher):
    """Draw `text/surprisal`: the beginning of the text that is validated on, each character predicted from the past."""

    name = "surprisal"

    def draw(self, view: View) -> None:
        """Read the passage and draw."""
        from src.diagnostics.drawing import surprisal

        ids, nats, state = [], [], None
        for window in view.passage(LENGTH):
            _, loss, state = view.read(window, None if window.starts else state)
            ids += window.targets[:, 0].tolist()
            nats.append(loss.losses[:, 0].cpu())
        text = [self.gallery.symbols[i] for i in ids]
        figure = surprisal(view.step, text, torch.cat(nats), f"the beginning of {view.split()}")
        self.gallery.figure(view.trainer, "text/surprisal", figure, view.step)
