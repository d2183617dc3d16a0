"""Which curves share a chart on TensorBoard's page Custom Scalars."""

from __future__ import annotations

from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.callbacks import Callback

from src.training.tensorboard import writers

CHARTS = {
    "learning": {
        "bits a character: train, val and what to beat": [
            r"^(train|val)/bits_per_character$",
            r"^baseline/(uniform|unigram|ngram_5)$",
        ],
        "accuracy": [r"^(train|val)/accuracy$"],
        "a fresh state against the carried one, nats a character": [r"^window/cross_entropy_(carried|fresh)$"],
    },
    "the recurrent matrix": {
        "spectral radius of W": [r"^recurrent/spectral_radius/layer_\d+$"],
        "share of saturated units": [r"^recurrent/saturated/layer_\d+$"],
    },
    "the step": {
        "norm of the gradient, before clipping": [r"^train/grad_norm$"],
        "share of steps clipped": [r"^train/clip_rate$"],
        "learning rate": [r"^optimizer/learning_rate$"],
    },
}


class Layout(Callback):
    """Tell TensorBoard's page Custom Scalars what to draw together: train against val, and the baselines with them."""

    def __init__(self) -> None:
        self.told = False

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Once a run, before its first step; one that goes on has told it."""
        for writer in writers(trainer.loggers) if not self.told else []:
            writer.layout(CHARTS)
            self.told = True

    def state_dict(self) -> dict[str, Any]:
        """Whether it is told."""
        return {"told": self.told}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take it back."""
        self.told = state_dict["told"]
