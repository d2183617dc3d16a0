"""Cutting a trial by its validation curve."""

from __future__ import annotations

import math
from typing import Any

import lightning.pytorch as pl
import optuna
from lightning.pytorch.callbacks import Callback

from src.training.callbacks.history import History
from src.training.callbacks.signals import Interrupted


class Pruning(Callback):
    """Report each point of the curve to the study, and stop the run where its pruner says so.

    A point is a validation, or an epoch where the corpus has no val; the pruner counts points, not steps, so that
    trials with other batch sizes can be compared.

    Args:
        trial: Optuna's.
        monitor: the metric that the study minimises or maximises.
    """

    def __init__(self, trial: optuna.Trial, monitor: str) -> None:
        self.trial, self.monitor = trial, monitor
        self.points = 0
        self.pruned = False
        self.seen: dict[str, float] = {}

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """A validation is a point."""
        self._look(trainer)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """So is an epoch, where it made a line."""
        self._look(trainer)

    def _look(self, trainer: pl.Trainer) -> None:
        callbacks: list[Any] = trainer.callbacks  # type: ignore[attr-defined]
        history = next(callback for callback in callbacks if isinstance(callback, History))
        if history.final is self.seen:
            return
        self.seen = history.final
        value = self.seen.get(self.monitor, math.nan)
        if math.isfinite(value):
            self.trial.report(value, self.points)
        self.points += 1
        if self.trial.should_prune():
            self.pruned = True
            raise Interrupted(None)
