"""Which characters are taken for which, and what each character costs."""

from __future__ import annotations

from typing import Any

import lightning.pytorch as pl

from src.analysis.confusions import Confusions as Counts
from src.training.callbacks.probe import View
from src.training.callbacks.watcher import Watcher
from src.training.module import LanguageModule, Outcome

MOST_READ = 32_768  # characters, where there is no validation that goes by


class Confusions(Watcher):
    """Draw `text/confusions`, counted over the whole validation as it goes by."""

    name = "confusions"

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.counts = self._none()

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Count anew."""
        self.counts = self._none()

    def on_validation_batch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule, *_: Any) -> None:
        """Count a window that was validated on."""
        assert isinstance(pl_module, LanguageModule)
        if self.active and trainer.state.fn == "fit" and pl_module.val_outcome is not None:
            self._add(pl_module.val_outcome)

    def draw(self, view: View) -> None:
        """Draw what was counted."""
        from src.analysis.pictures_of_text import confusions

        if not self.counts.counts.any():
            self._read(view)
        figure = confusions(view.step, self.counts, self.gallery.symbols)
        self.gallery.figure(view.trainer, "text/confusions", figure, view.step)

    def _read(self, view: View) -> None:
        """Count the first windows, where no validation has gone by."""
        self.counts, state, windows = self._none(), None, view.windows()
        for index in range(len(windows)):
            window = windows.window(0, index)
            logits, loss, state = view.read(window, None if window.starts else state)
            self._add(Outcome(window, logits, loss))
            if self.counts.counts.sum() >= MOST_READ:
                break

    def _add(self, outcome: Outcome) -> None:
        guesses = outcome.logits.argmax(-1).cpu()
        self.counts = self.counts.plus(outcome.window.targets.cpu(), guesses, outcome.loss.losses.cpu())

    def _none(self) -> Counts:
        return Counts.none(len(self.gallery.symbols))
