"""When a checkpoint is written: only at moments from which a resumed run goes on to the bit."""

from __future__ import annotations

import os
import shutil
import time
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import Callback

from src.training.checkpoint import lengths
from src.training.metrics_log import History


class Keeper(Callback):
    """Write `last.ckpt` at the end of an epoch and at a cadence between, `best.ckpt` when a validation was the best.

    Between two epochs a checkpoint is written only after a step that no validation follows: Lightning's loops take up
    exactly there, and a validation is never skipped or repeated on the way.

    Args:
        folder: checkpoints/ in the run's folder.
        history: knows whether the last validation was the best.
        every_n_steps, every_n_minutes: the cadence between epochs; None for neither.
    """

    def __init__(
        self, folder: Path, history: History, every_n_steps: int | None, every_n_minutes: float | None
    ) -> None:
        self.folder, self.history = folder, history
        self.every_n_steps, self.every_n_minutes = every_n_steps, every_n_minutes
        self.wanted = False  # somebody asked for a checkpoint at the next good moment (a signal, say)
        self.last_save = time.monotonic()
        self.last_step = -1
        self.lengths: dict[str, int] = {}  # of the files that only grow, at the last checkpoint

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule, *_: Any) -> None:
        """Save if it is wanted, or as soon after as the moment is good."""
        if self.wanted and good_moment(trainer):
            self.save(trainer)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Save; and keep the best where the epoch itself was the validation."""
        self.save(trainer)
        best = self.history.improved and not trainer.fit_loop.epoch_loop._should_check_val_epoch()
        if best and trainer.is_global_zero and self.last_step == trainer.global_step:
            copy(self.folder / "last.ckpt", self.folder / "best.ckpt")

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Keep the best."""
        if trainer.state.fn == "fit" and self.history.improved:
            trainer.save_checkpoint(self.folder / "best.ckpt", weights_only=False)

    def on_fit_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Save the model as it was born, where no step was to be made (trainer.max_steps=0)."""
        if self.last_step < 0 and trainer.global_step == 0:
            self.save(trainer)

    def save(self, trainer: pl.Trainer) -> None:
        """Write `last.ckpt`; the one before it becomes `previous.ckpt`."""
        for logger in trainer.loggers:
            logger.save()  # what a curve shows up to here must survive a kill, as the checkpoint does
        if not all(bool(torch.isfinite(p).all()) for p in trainer.lightning_module.parameters()):
            return  # the last step has spoilt the weights: the checkpoint before it stays, the next loss ends the run
        self.lengths = lengths(self.folder.parent)
        trainer.save_checkpoint(self.folder / "last.ckpt", weights_only=False)
        self.wanted, self.last_save, self.last_step = False, time.monotonic(), trainer.global_step

    def state_dict(self) -> dict[str, Any]:
        """To what length a resume cuts the files that only grow."""
        return {"lengths": self.lengths}

    def due(self, step: int) -> bool:
        """Whether the cadence asks for a checkpoint; `StopOnSignal` asks this of all processes together."""
        if self.every_n_steps and step % self.every_n_steps == 0 and step != self.last_step:
            return True
        return self.every_n_minutes is not None and time.monotonic() - self.last_save > 60 * self.every_n_minutes


def copy(there: Path, path: Path) -> None:
    """Let `path` hold, at once, what another file holds; a second name of it would share its damage too."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    shutil.copyfile(there, temporary)
    os.replace(temporary, path)


def good_moment(trainer: pl.Trainer) -> bool:
    """Whether, at the end of a batch, neither a validation nor the end of the epoch nor more accumulation follows."""
    loop = trainer.fit_loop.epoch_loop
    if loop._num_ready_batches_reached() or trainer.fit_loop._should_accumulate():
        return False
    every = trainer.val_check_batch
    validates = loop._should_check_val_epoch() and every is not None and every != float("inf")
    return not (validates and (loop.batch_idx + 1) % int(every or 1) == 0)
