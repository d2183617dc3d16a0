"""Ctrl-C and SIGTERM: finish the step, save, stop. A second Ctrl-C stops at once. SIGUSR1: save, and go on."""

from __future__ import annotations

import contextlib
import logging
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from types import FrameType
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.callbacks import Callback

from src.training.checkpoint_callback import Keeper
from src.training.distributed import agree
from src.training.run_record import job

TAKEN = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)
log = logging.getLogger(__name__)


class Interrupted(SystemExit):
    """A signal, or the end of the time that was given, asked the run to stop, and its state is saved.

    Python leaves with its exit code, and nobody on the way takes it for a failure.

    Args:
        signum: the signal; None for `trainer.max_time`.
    """

    def __init__(self, signum: int | None) -> None:
        super().__init__(0 if signum is None else 128 + signum)  # as a shell counts; 0: the time was up as planned
        self.signum = signum


class StopOnSignal(Callback):
    """Note a signal when it comes, and act when a checkpoint is exact.

    Must stand before `Keeper` in the list of callbacks: it asks it for a checkpoint at the end of a batch, and raises
    `Interrupted` at the beginning of the next one, when that is written. A run that was in its last batch is done.

    Args:
        keeper: writes the checkpoints; None where the run keeps none.
        max_time: `[DD:]HH:MM:SS` that this process may train, or None.
    """

    def __init__(self, keeper: Keeper | None, max_time: str | None = None) -> None:
        self.keeper = keeper
        self.max_seconds = seconds_in(max_time) if max_time else None
        self.started = time.monotonic()
        self.received: int | None = None  # what this process has been told: the handler's to set
        self.preempting = False
        self.stop = 0  # what all have agreed on at the end of a batch: a signal's number, 1 for the end of the time
        self.preempted = False

    @contextlib.contextmanager
    def listening(self) -> Iterator[None]:
        """Take the signals for as long as a run has a record that says running; only the main thread may."""
        before = self._take()
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _take(self) -> dict[int, Any]:
        if threading.current_thread() is not threading.main_thread():
            return {}
        return {number: signal.signal(number, self._handle) for number in TAKEN}

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Take them again: Lightning has just added its own handlers, which stop in the middle of anything."""
        self._take()
        trainer._signal_connector.received_sigterm = False

    def _handle(self, signum: int, frame: FrameType | None) -> None:
        if signum == signal.SIGUSR1:
            self.preempting = True
        elif signum == signal.SIGINT and self.received == signal.SIGINT:
            raise Interrupted(signum)  # a KeyboardInterrupt would be turned into exit code 1 by Lightning
        else:
            self.received = signum

    def on_train_batch_end(self, trainer: pl.Trainer, *_: Any) -> None:
        """Have a checkpoint written at this batch's end, or at the next good one."""
        late = self.max_seconds is not None and time.monotonic() - self.started > self.max_seconds
        due = self.keeper is not None and self.keeper.due(trainer.global_step)
        # A signal that comes while the processes agree is one for the next batch: it must not be overwritten here
        preempting, self.preempting = self.preempting, False
        stop, preempted, save = agree(trainer, self.received or int(late), preempting, due)
        self.stop, self.preempted = max(self.stop, stop), self.preempted or preempted > 0
        if self.keeper is not None and (self.stop or self.preempted or save):
            self.keeper.wanted = True

    def on_train_batch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule, *_: Any) -> None:
        """Stop, or hand the job back to the queue, once the checkpoint that was asked for is there."""
        saved = self.keeper is None or self.keeper.last_step == trainer.global_step
        if self.preempted and saved:
            self.preempted = False
            (queued,) = agree(trainer, trainer.is_global_zero and requeue())
            if queued:
                raise Interrupted(signal.SIGUSR1)
        if self.stop and saved:
            raise Interrupted(self.stop if self.stop > 1 else None)


def requeue() -> bool:
    """Under SLURM, put the job back into the queue; return whether that was done."""
    number = job()
    if number is None:
        return False
    done = subprocess.run(["scontrol", "requeue", number], capture_output=True, text=True, check=False)
    log.info("preempted: saved; scontrol requeue %s: %s", number, done.stderr.strip() or "done")
    return done.returncode == 0


def seconds_in(text: str) -> int:
    """Return the seconds in `[DD:]HH:MM:SS`."""
    parts = [int(part) for part in text.split(":")]
    return sum(part * unit for part, unit in zip(reversed(parts), (1, 60, 3600, 86400), strict=False))
