"""The one module that talks to TensorBoard: events straight in the run's folder."""

from __future__ import annotations

from pathlib import Path

from lightning.pytorch.loggers import TensorBoardLogger


class RunTensorBoard(TensorBoardLogger):
    """Lightning's logger without folders of its own and without its `hparams.yaml` (config.yaml says more).

    Args:
        folder: the run's folder.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__(save_dir=folder, name="", version="", default_hp_metric=False)

    def save(self) -> None:
        """Bring to the disk what was written so far."""
        self.experiment.flush()
