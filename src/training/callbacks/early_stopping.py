"""Lightning's early stopping, at moments from which a resumed run stops just so."""

from __future__ import annotations

import lightning.pytorch as pl
from lightning.pytorch.callbacks import EarlyStopping


class StopEarly(EarlyStopping):
    """Stop when the monitored metric has not improved for `patience` validations.

    Counted at validations only, so that the checkpoint at the end of the epoch knows the count.
    """

    def __init__(self, monitor: str, mode: str, patience: int, min_delta: float) -> None:
        super().__init__(
            monitor, min_delta, patience, mode=mode, check_finite=False, check_on_train_epoch_end=False, verbose=False
        )

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """A run that was killed between its decision to stop and its end does not go on."""
        if self.wait_count >= self.patience:
            trainer.should_stop = True
