"""debug=profile: a chrome trace of a few steps, for ui.perfetto.dev or chrome://tracing."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import Callback

log = logging.getLogger(__name__)


class ProfilerCallback(Callback):
    """Record `steps` training steps after the first `warm_up`, in which caches settle; fewer in a shorter run."""

    def __init__(self, path: Path, warm_up: int = 10, steps: int = 20) -> None:
        self.path, self.warm_up, self.steps = path, warm_up, steps
        self.profiler: torch.profiler.profile | None = None

    def on_train_batch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule, *_: Any) -> None:
        first = min(self.warm_up, max(0, trainer.estimated_stepping_batches - self.steps))
        if self.profiler is None and trainer.global_step == first and trainer.is_global_zero:
            self.profiler = torch.profiler.profile()
            self.profiler.start()
        elif trainer.global_step >= self.warm_up + self.steps:
            self.on_train_end(trainer, pl_module)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if self.profiler is not None and not self.path.exists():
            self.profiler.stop()
            self.profiler.export_chrome_trace(str(self.path))
            log.info("a trace for ui.perfetto.dev: %s", self.path)
