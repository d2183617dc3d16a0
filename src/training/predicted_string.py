"""The tutorial's line, one an epoch: what the network predicts and what it costs, before that epoch's step."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.callbacks import Callback

from src.diagnostics.scalar_logger import last_window
from src.training.console import say
from src.training.module import LanguageModule


class PredictedString(Callback):
    """Print `Predicted string:ohlll,Epoch [15/15] loss=3.4000`, in exactly the form of the tutorial's script.

    Args:
        decode: ids to text.
    """

    def __init__(self, decode: Callable[[Any], str]) -> None:
        self.decode = decode

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule, *_: Any) -> None:
        """Print the line of the window that was just trained on (its first stream, where there are several)."""
        assert isinstance(pl_module, LanguageModule) and pl_module.outcome is not None
        outcome = pl_module.outcome
        predicted = self.decode(outcome.logits[:, 0].argmax(-1).cpu().numpy())
        loss = last_window(trainer, outcome)["train/loss"]
        epoch = f"Epoch [{trainer.current_epoch + 1}/{trainer.max_epochs}]"
        if trainer.is_global_zero:
            say(f"Predicted string:{predicted},{epoch} loss={loss:.4f}")
