"""benchmark=callbacks: what the callbacks that watch a run cost, as a share of its training."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from src.benchmarks.composed import training_config
from src.config.start import heavy_imports

WORDS = ("experiment=tiny_shakespeare", "trainer.enable_progress_bar=false")


def run(words: Sequence[str]) -> dict[str, Any]:
    """Train the preset (the user's `words` may change or shorten it) and return what was measured, as plain data."""
    config = training_config([*WORDS, *words])
    with heavy_imports():
        from src.training.callbacks.cost import measure
        from src.training.logs import logging_to

    with tempfile.TemporaryDirectory(prefix="unroll-benchmark-") as folder, logging_to(Path(os.devnull)):
        cost = measure(config, Path(folder))
    watching = sum(cost.callbacks.values())
    return {
        "experiment": config["name"],
        "epochs": config["trainer"]["max_epochs"],
        "seconds": cost.seconds,
        "callbacks": cost.callbacks,
        "watching_seconds": watching,
        "share": cost.share,
        "table": cost.lines(),
    }


def lines(found: dict[str, Any]) -> list[str]:
    """Return the table."""
    return [
        f"{found['experiment']}, {found['epochs']} epochs, validation included: what watches it, as it is configured",
        *(f"  {line}" for line in found["table"]),
        f"  the callbacks take {found['share']:.2%} of the time that the rest of the run takes",
    ]
