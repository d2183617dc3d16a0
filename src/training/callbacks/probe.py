"""A look at the model in the middle of training that leaves no trace, and the text that it reads then."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass

import lightning.pytorch as pl
import torch
from torch import Tensor

from src.data.windows import Window, Windows, evaluation_windows
from src.models.language_model import LanguageModel, State
from src.training.loss import WindowLoss, window_loss
from src.training.module import LanguageModule


@dataclass
class View:
    """A run at one moment.

    step: optimizer steps made.
    """

    trainer: pl.Trainer
    module: LanguageModule
    step: int

    @property
    def model(self) -> LanguageModel:
        """The model itself, outside of whatever a strategy wraps around it."""
        return self.module.model

    def windows(self) -> Windows:
        """Return the validation's windows (those of training, where there is no val): new ones, nobody's position."""
        data = self.trainer.datamodule  # type: ignore[attr-defined]
        windows: Windows = data.val_windows() or data.windows()
        return windows

    def passage(self, length: int) -> list[Window]:
        """Return the first `length` characters of that text, read as one stream; see `passage`."""
        data = self.trainer.datamodule  # type: ignore[attr-defined]
        return passage(evaluation_windows(data.corpus.splits[self.split()], data.seq_len), length)

    def validated(self) -> Iterator[Window]:
        """Yield the windows that a validation reads, from the first one: `trainer.limit_val_batches` may end it."""
        windows = self.windows()
        limit = self.trainer.limit_val_batches if self.split() == "val" else None
        count = int(limit * len(windows)) if isinstance(limit, float) else limit
        for index in range(min(count or len(windows), len(windows))):
            yield windows.window(0, index)

    def split(self) -> str:
        """Return which split those windows are of."""
        corpus = self.trainer.datamodule.corpus  # type: ignore[attr-defined]
        return "val" if "val" in corpus.splits else "train"

    def read(self, window: Window, state: State) -> tuple[Tensor, WindowLoss, State]:
        """Return logits (time, batch, vocab), losses and the state behind a window, in the precision of training."""
        inputs, targets = window.inputs.to(self.module.device), window.targets.to(self.module.device)
        with self.trainer.precision_plugin.forward_context():
            logits, state = self.model(inputs, state)
        return logits, window_loss(logits, targets, "mean"), state


@contextlib.contextmanager
def undisturbed(module: torch.nn.Module) -> Iterator[None]:
    """While it lasts the module is in evaluation mode without gradients; afterwards modes and generators are as before.

    Tensors made inside are ordinary ones, also within Lightning's validation, so that they may be kept.
    """
    modes = [(part, part.training) for part in module.modules()]
    devices = [torch.cuda.current_device()] if torch.cuda.is_initialized() else []
    module.eval()
    try:
        with torch.random.fork_rng(devices), torch.inference_mode(False), torch.no_grad():
            yield
    finally:
        for part, training in modes:
            part.training = training


def passage(windows: Windows, length: int) -> list[Window]:
    """Return the first `length` characters of a text as windows of one column; of a list item by item."""
    found: list[Window] = []
    for index in range(len(windows)):
        window = windows.window(0, index)
        items = windows.plan.fresh
        for column in range(window.inputs.shape[1]) if items else [0]:
            real = min(int((window.targets[:, column] >= 0).sum()), length)
            if real:
                inputs, targets = (part[:real, column : column + 1] for part in (window.inputs, window.targets))
                found.append(Window(inputs, targets, items or window.starts))
                length -= real
            if not length:
                return found
    return found
