"""The progress bar of a run in a notebook: one line below the cell, replaced in place, with or without ipywidgets."""

from __future__ import annotations

import time
from datetime import timedelta
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.callbacks import Callback

SECONDS = 0.5  # between two updates


class NotebookProgress(Callback):
    """Show the step, the epoch and the time that is left; `total` counts optimizer steps."""

    def __init__(self, total: int) -> None:
        self.total = total
        self.handle: Any = None

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        from IPython.display import display

        self.began, self.first = time.monotonic(), trainer.global_step
        self.updated = self.began
        self.handle = display(self.content(trainer), raw=True, display_id=True)

    def on_train_batch_end(self, trainer: pl.Trainer, *_: Any) -> None:
        if time.monotonic() - self.updated > SECONDS:
            self.updated = time.monotonic()
            self.handle.update(self.content(trainer), raw=True)

    def on_train_end(self, trainer: pl.Trainer, *_: Any) -> None:
        self.handle.update(self.content(trainer), raw=True)

    def on_exception(self, trainer: pl.Trainer, *_: Any) -> None:
        if self.handle is not None:
            self.handle.update(self.content(trainer), raw=True)

    def content(self, trainer: pl.Trainer) -> dict[str, str]:
        """Return the line as text and as HTML."""
        step, seconds = trainer.global_step, time.monotonic() - self.began
        left = seconds / (step - self.first) * (self.total - step) if step > self.first else 0.0
        text = f"step {step:,} of {self.total:,}, {timedelta(seconds=round(seconds))}"
        text += f", about {timedelta(seconds=round(left))} left" if round(left) else ""
        bar = f'<progress value="{step}" max="{self.total}"></progress>'
        return {"text/plain": text, "text/html": f"{bar} <code>{text}</code>"}
