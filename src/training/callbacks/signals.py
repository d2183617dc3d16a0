"""Ctrl-C and SIGTERM: finish the step, save, stop. A second Ctrl-C stops at once. SIGUSR1: save, and go on."""

from __future__ import annotations

import signal
import threading
from types import FrameType
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.callbacks import Callback

from src.training.callbacks.keeper import Keeper


class Interrupted(BaseException):
    """A signal asked the run to stop, and its state is saved.

    Not an Exception: nobody on the way may take it for a failure.
    """

    def __init__(self, signum: int) -> None:
        super().__init__(signum)
        self.signum = signum


class StopOnSignal(Callback):
    """Note a signal when it comes and act at the next moment at which a checkpoint is exact.

    Must stand before `Keeper` in the list of callbacks; it asks it for a checkpoint and raises `Interrupted` at the
    beginning of the next batch (or epoch), when that is written.
    """

    def __init__(self) -> None:
        self.received: int | None = None
        self.usr1 = False
        self.before: dict[int, Any] = {}

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Take the signals; only the main thread may."""
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1):
                self.before[number] = signal.signal(number, self._handle)

    def _handle(self, signum: int, frame: FrameType | None) -> None:
        if signum == signal.SIGUSR1:
            self.usr1 = True
        elif signum == signal.SIGINT and self.received == signal.SIGINT:
            raise KeyboardInterrupt
        else:
            self.received = signum

    def on_train_batch_end(self, trainer: pl.Trainer, *_: Any) -> None:
        """Have a checkpoint written at this batch's end or at the next good one."""
        keeper = self._keeper(trainer)
        if keeper is not None and (self.usr1 or self.received is not None):
            keeper.wanted, self.usr1 = True, False

    def on_train_batch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule, *_: Any) -> None:
        """Stop, once the checkpoint that was asked for is there."""
        keeper = self._keeper(trainer)
        if self.received is not None and (keeper is None or keeper.last_step == trainer.global_step):
            raise Interrupted(self.received)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Stop after the last epoch too: what was asked to stop is not done."""
        self.teardown(trainer, pl_module, "fit")

    def teardown(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Give the signals back."""
        for number, handler in self.before.items():
            signal.signal(number, handler)
        self.before.clear()

    @staticmethod
    def _keeper(trainer: pl.Trainer) -> Keeper | None:
        return next((callback for callback in trainer.callbacks if isinstance(callback, Keeper)), None)  # type: ignore[attr-defined]
