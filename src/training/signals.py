"""Ctrl-C, SIGTERM, a closed terminal: finish the step, save, stop. A second Ctrl-C stops at once.

SIGUSR1: save, and go on; under SLURM, save, put the job back into the queue and stop.
"""

from __future__ import annotations

import logging
import signal
import subprocess
import time
from types import FrameType
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.callbacks import Callback

from src.process import RECEIVED, STOP_SIGNALS, set_handlers
from src.training.checkpoint import CheckpointCallback
from src.training.lightning_compat import ignore_lightnings_sigterm
from src.training.machine import reduced
from src.training.run_record import slurm_job

SIGNALS = (*STOP_SIGNALS, signal.SIGUSR1)
log = logging.getLogger(__name__)


class Interrupted(SystemExit):
    """A signal (None: the pruning of a trial) has stopped the run, and its state is saved."""

    def __init__(self, signum: int | None) -> None:
        super().__init__(0 if signum is None else 128 + signum)  # as a shell counts
        self.signum = signum


class StopOnSignal(Callback):
    """Note a signal when it comes, request a checkpoint, and act when it is written."""

    def __init__(self, checkpoints: CheckpointCallback | None, max_time: str | None = None) -> None:
        self.checkpoints = checkpoints
        parts = [float(part) for part in reversed((max_time or "inf").split(":"))]  # [DD:]HH:MM:SS
        self.max_seconds = sum(part * unit for part, unit in zip(parts, (1, 60, 3600, 86400), strict=False))
        self.started = time.monotonic()
        self.received: int | None = None  # by this process; set by the handler, as is `preempting`
        self.preempting = False
        self.stop = 0.0  # agreed on by all processes at the end of a batch: a signal's number, 0.5 for `max_time`
        self.preempted = False
        self.handlers = dict.fromkeys(SIGNALS, self._handle)

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Set the handlers again: Lightning has just set its own, which stop in the middle of anything."""
        set_handlers(self.handlers)
        ignore_lightnings_sigterm(trainer)

    def _handle(self, signum: int, frame: FrameType | None) -> None:
        if signum == signal.SIGUSR1:
            self.preempting = True
        elif signum == signal.SIGINT and self.received == signal.SIGINT:
            raise Interrupted(signum)  # Lightning would turn a KeyboardInterrupt into exit code 1
        else:
            self.received = signum
            RECEIVED.append(signum)

    def on_train_batch_end(self, trainer: pl.Trainer, *_: Any) -> None:
        """Request a checkpoint: `ResumableEpoch` writes it after this step, or else the end of the epoch does."""
        late = time.monotonic() - self.started > self.max_seconds
        due = self.checkpoints is not None and self.checkpoints.is_due(trainer.global_step)
        # A signal that comes while the processes agree counts at the next batch: it must not be overwritten here
        preempting, self.preempting = self.preempting, False
        stop, preempted, save = reduced(trainer, "max", self.received or late / 2, preempting, due)
        self.stop, self.preempted = max(self.stop, stop), self.preempted or preempted > 0
        if self.checkpoints is not None and (self.stop or self.preempted or save):
            self.checkpoints.requested = True

    def on_train_batch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule, *_: Any) -> None:
        """Stop, or put the job back into the queue, once the requested checkpoint is written."""
        saved = self.checkpoints is None or self.checkpoints.last_step == trainer.global_step
        if self.preempted and saved:
            self.preempted = False
            if any(reduced(trainer, "max", trainer.is_global_zero and requeue())):
                raise Interrupted(signal.SIGUSR1)
        if self.stop and saved:
            # StopIteration ends the run as its last step does
            raise Interrupted(int(self.stop)) if self.stop >= 1 else StopIteration


def requeue() -> bool:
    """Under SLURM, put the job back into the queue; return whether this is SLURM, where the run stops in any case."""
    if (number := slurm_job()) is None:
        return False
    try:
        done = subprocess.run(["scontrol", "requeue", number], capture_output=True, text=True, check=False)
        problem = done.stderr.strip() or (f"exit code {done.returncode}" if done.returncode else "")
    except OSError as error:  # no scontrol in this container
        problem = str(error)
    if problem:
        log.warning("preempted: saved, but not put back into the queue: scontrol requeue %s: %s", number, problem)
    else:
        log.info("preempted: saved, and put back into the queue: scontrol requeue %s", number)
    return True
