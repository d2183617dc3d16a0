"""Training scalars: `train/...` at a cadence in optimizer steps, to every logger of the run."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import Callback
from torch import Tensor

from src.metrics import four_metrics
from src.models.language_model import Outcome


def write_scalars(trainer: pl.Trainer, metrics: Mapping[str, float], step: int) -> None:
    """Write scalars to every logger of the run; `step` is the number of optimizer steps made before."""
    for logger in trainer.loggers:
        logger.log_metrics(dict(metrics), step)


def last_window(trainer: pl.Trainer, outcome: Outcome) -> dict[str, float]:
    """Return `train/loss` and the four metrics of a training window, over the columns of all processes.

    A collective call: every process has to make it.
    """
    loss = outcome.loss
    characters = max(1, int(loss.everywhere))
    share = int(loss.characters) / characters
    sums = [loss.minimised.item() / trainer.world_size, float(loss.mean()) * share, float(outcome.hits()) / characters]
    if trainer.world_size > 1:
        mine = torch.tensor(sums, dtype=torch.float64, device=trainer.strategy.root_device)
        torch.distributed.all_reduce(mine)
        sums = mine.tolist()
    minimised, nats, accuracy = sums
    return {"train/loss": minimised, **four_metrics("train", nats, accuracy)}


class ScalarLogger(Callback):
    """Write the `train/...` scalars every `every_n_steps` optimizer steps, the first at step 0.

    Nothing is written, and no number is fetched from the device, on the steps between. A point shows the loss before
    its step; with gradient accumulation that of the last window.
    """

    state_key = "scalars"

    def __init__(self, every_n_steps: int) -> None:
        self.every_n_steps = every_n_steps
        self.last_point: tuple[float, float, int] | None = None  # seconds, characters, step of the point before
        self.since = 0
        self.latest: dict[str, float] = {}
        self.constant: dict[str, float] = {}  # baselines: a point at the first step and one at the last make a line
        self.steps_before = 0  # optimizer steps made before this batch

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Begin the constant lines; a resumed run has begun them."""
        if trainer.global_step == 0 and self.constant:
            write_scalars(trainer, self.constant, 0)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """End them."""
        if trainer.global_step and self.constant:
            write_scalars(trainer, self.constant, trainer.global_step)

    def on_train_batch_start(self, trainer: pl.Trainer, pl_module: Any, *_: Any) -> None:
        """Ask for the gradient's norm on the steps that are written."""
        self.steps_before = trainer.global_step
        pl_module.norm_wanted = self.steps_before % self.every_n_steps == 0
        if self.last_point is None:
            self.last_point = (time.perf_counter(), float(pl_module.characters), self.since)

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: Any, *_: Any) -> None:
        """Write a point if the optimizer has just made a step that is due."""
        if self.steps_before % self.every_n_steps == 0 and trainer.global_step > self.steps_before:
            self.latest = self._point(trainer, pl_module, self.steps_before)
            write_scalars(trainer, self.latest, self.steps_before)

    def state_dict(self) -> dict[str, Any]:
        """Since which step the clip rate is counted, and the last point; the clock starts anew."""
        return {"since": self.last_point[2] if self.last_point else 0, "latest": self.latest}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore it."""
        self.since, self.latest = state_dict["since"], dict(state_dict.get("latest", {}))

    def _point(self, trainer: pl.Trainer, module: Any, step: int) -> dict[str, float]:
        outcome, last = module.outcome, self.last_point
        assert outcome is not None and last is not None
        seconds, characters = time.perf_counter(), float(module.characters)
        point = last_window(trainer, outcome)
        if isinstance(module.grad_norm, Tensor):
            point["train/grad_norm"] = float(module.grad_norm)
        if trainer.gradient_clip_val is not None:
            point["train/clip_rate"] = float(module.clipped_steps) / max(1, step + 1 - last[2])
            module.clipped_steps = 0.0
        point["train/characters_per_second"] = (characters - last[1]) / max(1e-9, seconds - last[0])
        point["optimizer/learning_rate"] = trainer.optimizers[0].param_groups[0]["lr"]
        self.last_point = (seconds, characters, step + 1)
        return point
