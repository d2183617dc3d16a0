"""Early stopping: counted in lines of metrics.jsonl, so that every metric that a line has can be watched."""

from __future__ import annotations

import logging
import math
import time
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import Callback

from src.diagnostics.scalar_logger import last_window, write_scalars
from src.files import to_json
from src.metrics import bits_per_character, four_metrics
from src.training.module import LanguageModule

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


# ---- metrics.jsonl: one line a validation (an epoch, where the corpus has no val), and what hangs on its metrics.


def total(trainer: pl.Trainer, value: float) -> float:
    """Return the sum of a number over all processes of the run."""
    if trainer.world_size == 1:
        return value
    device = trainer.strategy.root_device  # where the processes meet: NCCL knows no tensor of a CPU
    return float(trainer.strategy.reduce(torch.tensor(value, dtype=torch.float64, device=device), reduce_op="sum"))


class History(Callback):
    """Write the lines, say each in plain words, and remember the best by the monitored metric.

    Args:
        path: metrics.jsonl in the run's folder.
        monitor, mode: which metric is watched, and whether it is better as `min` or as `max`.
        quiet: write the file and say nothing (the tutorial's lines stand alone).
        stopper: told the monitored metric of each line that has it.
    """

    def __init__(
        self, path: Path, monitor: str, mode: str, quiet: bool = False, stopper: StopEarly | None = None
    ) -> None:
        self.path, self.stopper = path, stopper
        self.monitor, self.mode, self.quiet = monitor, mode, quiet
        self.best: dict[str, Any] | None = None
        self.final: dict[str, float] = {}
        self.improved = False  # by the last line
        self.seconds_before = 0.0  # of earlier processes of this run
        self.started = time.perf_counter()
        self.mark = (0.0, 0)  # nats and characters at the last line

    @property
    def seconds(self) -> float:
        """Seconds of training so far, validations included, the time between an end and a resume left out."""
        return self.seconds_before + time.perf_counter() - self.started

    def on_train_batch_end(self, trainer: pl.Trainer, *_: Any) -> None:
        """A run that `trainer.max_steps` ends in mid-epoch has a last line too: Lightning validates where it stops."""
        if 0 <= trainer.max_steps <= trainer.global_step:
            trainer.should_stop = True

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """A validation in training makes a line."""
        if trainer.state.fn == "fit" and not trainer.sanity_checking:
            assert isinstance(pl_module, LanguageModule)
            metrics = pl_module.val_tally.metrics("val")
            write_scalars(trainer, metrics, trainer.global_step)
            self._line(trainer, pl_module, metrics)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Where there is nothing to validate on, an epoch makes a line."""
        if not trainer.fit_loop.epoch_loop._should_check_val_epoch():
            assert isinstance(pl_module, LanguageModule)
            self._line(trainer, pl_module, {})

    def _line(self, trainer: pl.Trainer, module: LanguageModule, validated: dict[str, float]) -> None:
        nats, characters = total(trainer, float(module.nats)), int(module.characters)
        metrics = self._of_training(trainer, module, nats, characters) | validated
        self.mark = (nats, characters)
        where = {
            "step": trainer.global_step,
            "epoch": trainer.current_epoch,
            "characters": characters,
        }
        self.final = metrics
        self._compare(metrics, where)
        value = metrics.get(self.monitor)
        if value is not None:
            module.schedule.after_validation(value)
            if self.stopper:
                self.stopper.after_line(trainer, value)
        if trainer.is_global_zero:
            with self.path.open("a", encoding="utf-8") as file:
                file.write(to_json(where | {"seconds": round(self.seconds, 3)} | metrics) + "\n")
        if not self.quiet:
            log.info(self._in_words(trainer, where, metrics))

    def _of_training(
        self, trainer: pl.Trainer, module: LanguageModule, nats: float, characters: int
    ) -> dict[str, float]:
        """The cross-entropy is the mean since the line before; loss and accuracy: the last window's, as in curves."""
        if module.outcome is None or characters <= self.mark[1]:
            return {}  # nothing was trained on since
        window = last_window(trainer, module.outcome)
        mean = (nats - self.mark[0]) / (characters - self.mark[1])
        return {"train/loss": window["train/loss"], **four_metrics("train", mean, window["train/accuracy"])}

    def _compare(self, metrics: dict[str, float], where: dict[str, int]) -> None:
        value = metrics.get(self.monitor, math.nan)
        better = self.best is None or (value < self.best["value"] if self.mode == "min" else value > self.best["value"])
        self.improved = math.isfinite(value) and better
        if self.improved:
            self.best = {"monitor": self.monitor, "mode": self.mode, "value": value, **where, **metrics}

    def _in_words(self, trainer: pl.Trainer, where: dict[str, int], metrics: dict[str, float]) -> str:
        stage = "val" if "val/cross_entropy" in metrics else "train"
        nats = metrics[f"{stage}/cross_entropy"]
        train = (
            f"train {metrics['train/cross_entropy']:.4f}  "
            if stage == "val" and "train/cross_entropy" in metrics
            else ""
        )
        return (
            f"epoch {where['epoch'] + 1}/{trainer.max_epochs}  step {where['step']}  {train}{stage} {nats:.4f} nats "
            f"= {bits_per_character(nats):.4f} bits a character  {self.seconds:.0f} s{' best' if self.improved else ''}"
        )

    def state_dict(self) -> dict[str, Any]:
        """What a resumed run goes on from; plain numbers."""
        return {"best": self.best, "final": self.final, "seconds": self.seconds, "mark": list(self.mark)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take it back."""
        self.best, self.final, self.seconds_before = state_dict["best"], state_dict["final"], state_dict["seconds"]
        self.mark = (state_dict["mark"][0], state_dict["mark"][1])
        self.started = time.perf_counter()
