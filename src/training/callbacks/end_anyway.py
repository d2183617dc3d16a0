"""The end of a run that has no step left to make."""

from __future__ import annotations

from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.callbacks import Callback


class EndAnyway(Callback):
    """Let every callback end a run that Lightning has found nothing to do for.

    A run that was killed behind its last checkpoint, but before its last figures and points were written, is taken up
    with no step to make. Lightning then calls neither `on_train_start` nor `on_train_end`, and what a run writes at its
    end would be missing for ever.
    """

    def __init__(self) -> None:
        self.ended = False

    def on_train_end(self, *_: Any) -> None:
        """The usual end."""
        self.ended = True

    def on_fit_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """The other one; the loggers are still open here."""
        if not self.ended and trainer.global_step:
            for callback in trainer.callbacks:  # type: ignore[attr-defined]
                callback.on_train_end(trainer, pl_module)
