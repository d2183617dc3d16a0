"""Checkpoints: how they are written and read, when, and how a resume cuts a run's growing files back to one.

A checkpoint is plain data, written atomically, and a model by itself. It stores the lengths of the files of curves and
lines: a killed run has written more, which a resume cuts off and writes again.
"""

from __future__ import annotations

import contextlib
import io
import logging
import os
import re
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.plugins.io import CheckpointIO

from src.config.schema import CheckpointConfig
from src.errors import UserError
from src.files import remove_leftovers, sync, write_atomic
from src.inference.load import newest_sound, read_checkpoint
from src.training.metrics_log import MetricsLog, validates_this_epoch

log = logging.getLogger(__name__)
EARLIER_BEST = "earlier_best.ckpt"  # the best before the line at the end of the run, which was better
GROWING_FILES = ("metrics.jsonl", "metrics.csv", "events.out.tfevents.*")
# Checkpoints of earlier versions name a callback's state by its class: by these, or in snake_case what is now the key.
STATE_KEYS = {"Keeper": "checkpoint", "History": "metrics", "StopEarly": "early_stopping", "Curves": "scalars",
              "Watching": "diagnostics", "HParams": "hparams"}  # fmt: skip


class Checkpoint(NamedTuple):
    """A checkpoint to resume from, and the file it was read from."""

    path: Path
    content: dict[str, Any]

    @property
    def step(self) -> int:
        return int(self.content["global_step"])

    @property
    def progress(self) -> dict[str, Any]:
        """What makes a resume exact: see `LanguageModule.on_save_checkpoint`."""
        return dict(self.content["unroll"]["progress"])

    def state(self, key: str) -> dict[str, Any]:
        """Return the state of the callback with this `state_key`, or nothing if there was no such callback."""
        return dict(self.content["callbacks"].get(key, {}))


def newest_checkpoint(folder: Path) -> Checkpoint | None:
    """Return the newest undamaged checkpoint of a run, None if there is none; UserError if all are damaged."""
    checkpoints = folder / "checkpoints"
    if not any((checkpoints / name).exists() for name in ("last.ckpt", "previous.ckpt")):
        return None
    path, content = newest_sound(checkpoints)
    return Checkpoint(path, with_state_keys(content))


def with_state_keys(content: dict[str, Any]) -> dict[str, Any]:
    """Return a checkpoint whose callback states have the keys of today, also those inside of `diagnostics`."""

    def renamed(states: Mapping[str, Any]) -> dict[str, Any]:
        named = {name.partition("{")[0]: state for name, state in states.items()}
        return {STATE_KEYS.get(key) or re.sub(r"\B[A-Z]", r"_\g<0>", key).lower(): named[key] for key in named}

    states = renamed(content.get("callbacks", {}))
    return content | {"callbacks": states | {"diagnostics": renamed(states.get("diagnostics", {}))}}


class AtomicCheckpointIO(CheckpointIO):
    """Lightning's access to checkpoint files. Replacing `last.ckpt` keeps the one before it as `previous.ckpt`."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None) -> None:
        path, buffer = Path(path), io.BytesIO()
        path.parent.mkdir(parents=True, exist_ok=True)
        torch.save(checkpoint, buffer)  # not to the file: on a full disk torch raises errors of its own
        keep = path.with_name("previous.ckpt") if path.name == "last.ckpt" else None
        write_atomic(path, buffer.getbuffer(), keep)

    def load_checkpoint(self, path: str | Path, map_location: Any = None, weights_only: bool | None = None) -> Any:
        return with_state_keys(read_checkpoint(path, map_location or "cpu"))

    def remove_checkpoint(self, path: str | Path) -> None:
        Path(path).unlink(missing_ok=True)


class CheckpointCallback(Callback):
    """Write `last.ckpt` at the end of an epoch, `best.ckpt` after the best validation; `ResumableEpoch`: within."""

    state_key = "checkpoint"

    def __init__(self, folder: Path, config: CheckpointConfig, metrics: MetricsLog) -> None:
        self.folder, self.config, self.metrics = folder, config, metrics
        self.requested = False  # a checkpoint after this step, by a signal or the cadence
        self.last_save = time.monotonic()
        self.last_step = -1
        self.lengths: dict[str, int] = {}  # of the growing files, at the last checkpoint

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Save; also as the best if there is no validation and the epoch's training metric was the best."""
        self.save(trainer, best=self.metrics.improved and not validates_this_epoch(trainer))

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if trainer.state.fn == "fit" and self.metrics.improved and not self.metrics.closing:
            trainer.save_checkpoint(self.folder / "best.ckpt", weights_only=False)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Save the last weights as the best if the validation at the end found them so, and keep the earlier best.

        An extended run needs the earlier best. `last.ckpt` stays as it was before this validation.
        """
        if self.metrics.closing and self.metrics.improved:
            best = self.folder / "best.ckpt"
            if trainer.is_global_zero and best.exists():
                best.replace(self.folder / EARLIER_BEST)
            trainer.save_checkpoint(best, weights_only=False)

    def on_fit_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Save the untrained model of a run without steps."""
        if self.last_step < 0 and trainer.global_step == 0:
            self.save(trainer)

    def save(self, trainer: pl.Trainer, best: bool = False) -> None:
        """Write `last.ckpt`, unless the last step has made the weights non-finite: the next loss ends the run.

        It is written last, because it tells a resume what the other files hold: the curves, and the step of
        `best.ckpt`. A kill before this write undoes the whole save.
        """
        for logger in trainer.loggers:
            logger.save()
        if not all(bool(torch.isfinite(p).all()) for p in trainer.lightning_module.parameters()):
            return
        self.lengths = lengths(self.folder.parent)
        if trainer.is_global_zero:
            for name in self.lengths:
                sync(self.folder.parent / name)
        self.metrics.note_window(trainer)
        for name in ("best.ckpt", "last.ckpt") if best else ("last.ckpt",):
            trainer.save_checkpoint(self.folder / name, weights_only=False)
        self.requested, self.last_save, self.last_step = False, time.monotonic(), trainer.global_step

    def state_dict(self) -> dict[str, Any]:
        return {"lengths": self.lengths}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.lengths = dict(state_dict.get("lengths", {}))

    def is_due(self, step: int) -> bool:
        """Whether a checkpoint is due by steps or minutes; `StopOnSignal` combines all processes."""
        steps, minutes = self.config.every_n_steps, self.config.every_n_minutes
        by_steps = bool(steps) and step % (steps or 1) == 0 and step != self.last_step
        return by_steps or (minutes is not None and time.monotonic() - self.last_save > 60 * minutes)


def restore_files(folder: Path, checkpoint: Checkpoint | None) -> None:
    """Set the files of a run back to what they were at a checkpoint (None: before the first step)."""
    checkpoints, last = folder / "checkpoints", folder / "checkpoints" / "last.ckpt"
    if checkpoint and checkpoint.path != last and last.exists():
        last.rename(last.with_name("damaged.ckpt"))  # the next save must not make it previous.ckpt
    remove_leftovers(folder)
    remove_leftovers(checkpoints)
    truncate_logs(folder, checkpoint.state("checkpoint").get("lengths", {}) if checkpoint else {})
    if (checkpoints / EARLIER_BEST).exists():
        (checkpoints / EARLIER_BEST).replace(checkpoints / "best.ckpt")
    best, path = checkpoint and checkpoint.state("metrics").get("best"), checkpoints / "best.ckpt"
    if best is None:
        return path.unlink(missing_ok=True)
    with contextlib.suppress(UserError):  # missing or damaged
        if read_checkpoint(path)["global_step"] >= best["step"]:  # of a later step it will be written again
            return
    log.warning("%s is missing or not of the best step, %d: the next best replaces it", path, best["step"])


def lengths(folder: Path) -> dict[str, int]:
    """Return the length in bytes of each append-only file of a run."""
    return {file.name: file.stat().st_size for pattern in GROWING_FILES for file in folder.glob(pattern)}


def truncate_logs(folder: Path, to: Mapping[str, int]) -> None:
    """Cut each append-only file to the length it had, and remove those that came later; report what is missing."""
    for name, length in lengths(folder).items():
        path = folder / name
        if name not in to:
            path.unlink()
        elif length >= to[name]:
            os.truncate(path, to[name])
        elif "tfevents" not in name:  # the next line must not be added to half a line
            os.truncate(path, path.read_bytes().rfind(b"\n") + 1)
    for name, length in to.items():
        left = (folder / name).stat().st_size if (folder / name).exists() else 0
        if left < length:
            message = "%s is cut short: the last %d of %d bytes are missing; the run goes on without them"
            log.warning(message, folder / name, length - left, length)
