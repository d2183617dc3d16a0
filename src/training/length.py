"""How long an epoch and a run are, under the limits of the `trainer` group; known before torch is imported."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from src.mistakes import Mistake


def windows_an_epoch(trainer: Mapping[str, Any], windows: int) -> int:
    """Return how many windows an epoch has under Lightning's limits: a whole number counts, a fraction is a share."""
    for limit in (trainer["limit_train_batches"], trainer["overfit_batches"] or 1.0):
        share = int(limit) if limit > 1 or isinstance(limit, int) else int(windows * limit)
        windows = max(1, min(windows, share))
    return windows


def run_steps(trainer: Mapping[str, Any], steps_an_epoch: int) -> int:
    """Return how many optimizer steps the run will make."""
    steps = int(trainer["max_epochs"]) * steps_an_epoch
    return steps if trainer["max_steps"] < 0 else min(steps, trainer["max_steps"])


def check_validations(trainer: Mapping[str, Any], windows: int) -> None:
    """Raise Mistake where a validation is to come after more windows than an epoch has: it would never come."""
    every = trainer["val_check_interval"]
    if every > windows and every > 1:
        raise Mistake(
            f"trainer.val_check_interval={every:g}: an epoch has {windows} windows; expected at most as many, or a "
            "share of them, 0 < x <= 1"
        )
