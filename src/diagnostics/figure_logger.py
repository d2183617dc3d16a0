"""Where what is seen goes: curves to every logger, pictures and texts to TensorBoard, to figures/ if wanted."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import numpy as np

from src.diagnostics.scalar_logger import write_scalars
from src.diagnostics.tensorboard import writers

log = logging.getLogger(__name__)


class Gallery:
    """What all that watch a run share.

    Args:
        folder: the run's folder.
        symbols: of the vocabulary, by id.
        save_figures: write each figure as figures/<tag>_<step>.png too.
    """

    def __init__(self, folder: Path, symbols: tuple[str, ...], save_figures: bool) -> None:
        self.folder, self.symbols, self.save_figures = folder, symbols, save_figures
        self.left_out: list[str] = []  # the names of those that mean nothing for this model or text, until it is said

    def scalars(self, trainer: pl.Trainer, values: Mapping[str, float], step: int) -> None:
        """Write points of curves."""
        write_scalars(trainer, values, step)

    def figure(self, trainer: pl.Trainer, tag: str, figure: Any, step: int) -> None:
        """Make a PNG of a figure, once, and let the figure go."""
        from src.diagnostics.drawing import png

        picture = png(figure)
        for writer in writers(trainer.loggers):
            writer.image(tag, picture, step)
        if self.save_figures:
            place = self.folder / "figures"
            place.mkdir(exist_ok=True)
            (place / f"{tag.replace('/', '_')}_{step:06d}.png").write_bytes(picture)

    def text(self, trainer: pl.Trainer, tag: str, text: str, step: int) -> None:
        """Write a text, shown as it is."""
        for writer in writers(trainer.loggers):
            writer.text(tag, text, step)

    def histogram(self, trainer: pl.Trainer, tag: str, values: np.ndarray, step: int) -> None:
        """Write a distribution."""
        for writer in writers(trainer.loggers):
            writer.histogram(tag, values, step)

    def say_left_out(self, model: str) -> None:
        """Say once which callbacks have no meaning here."""
        if self.left_out:
            names = ", ".join(f"callbacks.{name}" for name in self.left_out)
            log.info("%s: no meaning for %s, left out", names, model)
            self.left_out.clear()
