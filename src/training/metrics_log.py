"""metrics.jsonl: one line per validation (per epoch if there is no val split), and what depends on its metrics."""

from __future__ import annotations

import logging
import math
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.callbacks import Callback
from tqdm import tqdm  # type: ignore[import-untyped]

from src.config.schema import CheckpointConfig, EarlyStoppingConfig
from src.diagnostics.loggers import last_window, write_scalars
from src.files import to_json
from src.metrics import four_metrics
from src.process import say_line
from src.training.machine import reduced
from src.training.module import LanguageModule

log = logging.getLogger(__name__)


def validates_this_epoch(trainer: pl.Trainer) -> bool:
    """Whether the present epoch has a validation."""
    return trainer.enable_validation and (trainer.current_epoch + 1) % (trainer.check_val_every_n_epoch or 1) == 0


class EarlyStopping(Callback):
    """Stop when the monitored metric has not improved by more than `min_delta` for `patience` lines."""

    state_key = "early_stopping"

    def __init__(self, config: EarlyStoppingConfig, monitor: str) -> None:
        self.monitor, self.patience, self.min_delta = monitor, config.patience, config.min_delta
        self.best = math.inf
        self.lines = 0  # since the best

    def after_line(self, trainer: pl.Trainer, signed: float) -> None:
        """Count a line with the metric, lower is better; ask the trainer to stop when there were `patience` of them."""
        self.best, self.lines = (signed, 0) if signed + self.min_delta < self.best else (self.best, self.lines + 1)
        trainer.should_stop = self.lines >= self.patience  # trainer.min_epochs may let the run go on and recover
        if trainer.should_stop:
            log.info("stopping early: %s has not improved %d times in a row", self.monitor, self.lines)

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Stop a resumed run that was killed between its decision to stop and its end."""
        if self.lines >= self.patience:
            trainer.should_stop = True

    def state_dict(self) -> dict[str, Any]:
        return {"best": self.best, "lines": self.lines}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.best, self.lines = state_dict["best"], state_dict["lines"]


class MetricsLog(Callback):
    """Write the lines (`quiet`: not to the console), and remember the best by the monitored metric."""

    state_key = "metrics"

    def __init__(self, path: Path, monitored: CheckpointConfig, quiet: bool, stopper: EarlyStopping | None) -> None:
        self.path, self.quiet, self.stopper = path, quiet, stopper
        self.monitor, self.mode = monitored.monitor, monitored.mode
        self.sign = 1.0 if self.mode == "min" else -1.0
        self.best: dict[str, Any] | None = None
        self.final: dict[str, float] = {}
        self.improved = False  # by the last line
        self.started = time.perf_counter()  # excludes the time between a stop and a resume
        self.mark = (0.0, 0)  # nats and characters at the last line
        self.epoch = 0  # of the last window; Lightning's is the next one once an epoch has ended
        self.window: dict[str, float] = {}  # its loss and accuracy at the last checkpoint, if no step is left after it
        self.closing = False  # at the end: a line affects no schedule or stop; extending the run removes it

    @property
    def seconds(self) -> float:
        """Seconds of training so far, with validations, without the time between a stop and a resume."""
        return time.perf_counter() - self.started

    def on_train_batch_end(self, trainer: pl.Trainer, *_: Any) -> None:
        self.epoch = trainer.current_epoch

    def note_window(self, trainer: pl.Trainer) -> None:
        """Keep the last window's loss and accuracy for a checkpoint."""
        module = trainer.lightning_module
        assert isinstance(module, LanguageModule)
        if module.outcome is not None:
            self.window = last_window(trainer, module.outcome)

    def close(self, trainer: pl.Trainer) -> bool:
        """Return whether the last weights lack a validation; lines from here on are those of the run's end."""
        module, self.closing, self.improved = trainer.lightning_module, True, False
        assert isinstance(module, LanguageModule)
        validated = "val/cross_entropy" in self.final and int(module.characters) == self.mark[1]
        return trainer.enable_validation and not validated

    def on_train_end(self, trainer: pl.Trainer, pl_module: Any) -> None:
        """Write the last line of a run without validations that ends within an epoch."""
        if int(pl_module.characters) != self.mark[1]:
            self._write(trainer, pl_module, {})

    def on_validation_end(self, trainer: pl.Trainer, pl_module: Any) -> None:
        if trainer.state.fn == "fit":
            metrics = pl_module.val_tally.metrics("val")
            write_scalars(trainer, metrics, trainer.global_step)
            self._write(trainer, pl_module, metrics)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: Any) -> None:
        if not validates_this_epoch(trainer):
            self._write(trainer, pl_module, {})

    def _write(self, trainer: pl.Trainer, module: LanguageModule, validated: dict[str, float]) -> None:
        (nats,), characters = reduced(trainer, "sum", float(module.nats)), int(module.characters)
        metrics = validated
        self.note_window(trainer)
        if self.window and characters > self.mark[1]:  # else nothing was trained on since
            window = self.window  # whose loss and accuracy are shown beside the mean
            mean = (nats - self.mark[0]) / (characters - self.mark[1])
            trained = {"train/loss": window["train/loss"], **four_metrics("train", mean, window["train/accuracy"])}
            metrics = trained | validated
        elif self.closing and characters == self.mark[1]:  # the line before has the same weights
            metrics = self.final | validated
        metrics = metrics | (module.measures[1] if module.measures[0] == trainer.global_step else {})
        self.final, self.mark = metrics, (nats, characters)
        position = {"step": trainer.global_step, "epoch": self.epoch, "characters": characters}
        value = metrics.get(self.monitor, math.nan)
        better = self.best is None or self.sign * value < self.sign * self.best["value"]
        self.improved = math.isfinite(value) and better
        if self.improved:
            self.best = {"monitor": self.monitor, "mode": self.mode, "value": value, **position, **metrics}
        if self.monitor in metrics and not self.closing:
            module.schedule.after_validation(self.sign * value)
            if self.stopper:
                self.stopper.after_line(trainer, self.sign * value)
        if trainer.is_global_zero:
            with self.path.open("a", encoding="utf-8") as file:
                file.write(to_json(position | {"seconds": round(self.seconds, 3)} | metrics) + "\n")
        if not self.quiet:
            known = [(stage, metrics.get(f"{stage}/cross_entropy")) for stage in ("train", "val")]
            losses = "  ".join(f"{stage} {nats:.4f}" for stage, nats in known if nats is not None)
            where = f"epoch {self.epoch + 1}/{trainer.max_epochs}  step {trainer.global_step}"
            log.info(f"{where}  {losses}  {self.seconds:.0f} s{' best' * self.improved}")

    def state_dict(self) -> dict[str, Any]:
        known = {"best": self.best, "final": self.final, "epoch": self.epoch, "window": self.window}
        return {**known, "seconds": self.seconds, "mark": list(self.mark)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.best, self.final, (nats, characters) = state_dict["best"], state_dict["final"], state_dict["mark"]
        self.mark, self.started = (nats, characters), time.perf_counter() - state_dict["seconds"]
        self.epoch, self.window = state_dict.get("epoch", 0), state_dict.get("window", {})


class ProgressBar(Callback):
    """One bar for a whole run of `run_steps`, which `Console` clears before a line; loss and speed are recent."""

    INTERVAL = 0.25  # seconds: reading the loss at every step would cost a tenth of a small one

    def __init__(self, run_steps: int) -> None:
        self.run_steps = run_steps
        self.bar: Any = None
        self.mark = (0.0, 0.0, 0)  # time, nats and characters when it was drawn

    def on_train_start(self, trainer: pl.Trainer, pl_module: Any) -> None:
        if trainer.is_global_zero:
            form = "{desc} {percentage:3.0f}% |{bar}| {remaining} left{postfix}"
            known: dict[str, Any] = {"total": self.run_steps, "initial": trainer.global_step, "bar_format": form}
            self.bar = tqdm(file=sys.stdout, leave=False, dynamic_ncols=True, desc=self._epoch(trainer), **known)
            self.mark = (time.perf_counter(), float(pl_module.nats), int(pl_module.characters))

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: Any, *_: Any) -> None:
        now, (before, nats_before, characters_before) = time.perf_counter(), self.mark
        if self.bar is None or now - before < self.INTERVAL:
            return
        nats, characters = float(pl_module.nats), int(pl_module.characters)
        read = max(1, characters - characters_before)
        loss, speed = (nats - nats_before) / read * trainer.world_size, read / (now - before)
        self.bar.n, self.mark = trainer.global_step, (now, nats, characters)
        self.bar.set_description_str(self._epoch(trainer), refresh=False)
        self.bar.set_postfix_str(f"loss {loss:.3f}, {speed:,.0f} characters/s", refresh=True)

    def _epoch(self, trainer: pl.Trainer) -> str:
        return f"epoch {trainer.current_epoch + 1}/{trainer.max_epochs}"

    def on_train_end(self, *_: Any) -> None:
        if self.bar is not None:
            self.bar.close()

    on_exception = on_train_end  # type: ignore[assignment]


class PredictedString(Callback):
    """Print `Predicted string:ohlll,Epoch [15/15] loss=3.4000`, of each step, as the tutorial's script does."""

    def __init__(self, decode: Callable[[Any], str]) -> None:
        self.decode = decode

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: Any, *_: Any) -> None:
        predicted = self.decode(pl_module.outcome.logits[:, 0].argmax(-1).cpu().numpy())
        loss = last_window(trainer, pl_module.outcome)["train/loss"]
        if trainer.is_global_zero:
            epoch = f"{trainer.current_epoch + 1}/{trainer.max_epochs}"
            say_line(f"Predicted string:{predicted},Epoch [{epoch}] loss={loss:.4f}")
