"""The one module that talks to TensorBoard: events straight in the run's folder, one clean curve after a resume."""

from __future__ import annotations

from pathlib import Path

from lightning.pytorch.loggers import TensorBoardLogger


class RunTensorBoard(TensorBoardLogger):
    """Lightning's logger without folders of its own and without its `hparams.yaml` (config.yaml says more).

    Args:
        folder: the run's folder.
        purge_step: points from this step on belong to what a resumed run writes again; None for a new run.
    """

    def __init__(self, folder: Path, purge_step: int | None = None) -> None:
        super().__init__(save_dir=folder, name="", version="", default_hp_metric=False, purge_step=purge_step)

    def save(self) -> None:
        """Bring to the disk what was written so far."""
        self.experiment.flush()
