"""Early stopping: counted in lines of metrics.jsonl, so that every metric that a line has can be watched."""

from __future__ import annotations

import logging
import math
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.callbacks import Callback

log = logging.getLogger(__name__)


class StopEarly(Callback):
    """Stop when the monitored metric has not improved by more than `min_delta` for `patience` lines.

    `History` hands over each value before a checkpoint is written, so the checkpoint knows the count.

    Args:
        monitor, mode: what is watched, and whether it is better as `min` or as `max`.
    """

    def __init__(self, monitor: str, mode: str, patience: int, min_delta: float) -> None:
        self.monitor, self.patience, self.min_delta = monitor, patience, min_delta
        self.sign = 1.0 if mode == "min" else -1.0
        self.best = math.inf
        self.lines = 0  # since the best

    def after_line(self, trainer: pl.Trainer, value: float) -> None:
        """Count a line; at the last one of its patience ask the trainer to stop."""
        if self.sign * value + self.min_delta < self.best:
            self.best, self.lines = self.sign * value, 0
            return
        self.lines += 1
        if self.lines >= self.patience:
            trainer.should_stop = True
            log.info("stopping early: %s has not improved %d times in a row", self.monitor, self.lines)

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """A run that was killed between its decision to stop and its end does not go on."""
        if self.lines >= self.patience:
            trainer.should_stop = True

    def state_dict(self) -> dict[str, Any]:
        """The count, as plain numbers."""
        return {"best": self.best, "lines": self.lines}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take it back."""
        self.best, self.lines = state_dict["best"], state_dict["lines"]
