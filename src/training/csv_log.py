"""logger=csv: every scalar as a line `step,tag,value`, appended, so that a resumed run goes on in the same file."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import Logger
from lightning.pytorch.utilities import rank_zero_only


class RunCSV(Logger):
    """metrics.csv in the run's folder. Lightning's own CSV logger deletes an existing file when it starts.

    Args:
        folder: the run's folder.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.path = folder / "metrics.csv"

    @property
    def name(self) -> str:
        """Nothing: the run's folder is the name."""
        return ""

    @property
    def version(self) -> str:
        """Nothing, for the same reason."""
        return ""

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Append the scalars of a step."""
        new = not self.path.exists() or not self.path.stat().st_size
        with self.path.open("a", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            if new:
                writer.writerow(["step", "tag", "value"])
            writer.writerows([step, tag, value] for tag, value in metrics.items())

    def log_hyperparams(self, *args: Any, **kwargs: Any) -> None:
        """config.yaml has them."""
