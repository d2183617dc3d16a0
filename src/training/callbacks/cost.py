"""What watching costs: a run as it is configured, and the seconds that each callback took of it."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from src.training.callbacks.watching import Watching
from src.training.prepare import prepare
from src.training.trainer import build_trainer


@dataclass
class Cost:
    """Seconds of a run, and of each callback in it."""

    seconds: float
    callbacks: dict[str, float]

    @property
    def share(self) -> float:
        """Watching as a share of the rest of the run."""
        watching = sum(self.callbacks.values())
        return watching / (self.seconds - watching)

    def lines(self) -> list[str]:
        """Return the table, the dearest first."""
        found = [f"{'callback':<20} {'seconds':>8} {'of training':>12}"]
        rest = self.seconds - sum(self.callbacks.values())
        for name, seconds in sorted(self.callbacks.items(), key=lambda item: -item[1]):
            found.append(f"{name:<20} {seconds:>8.2f} {seconds / rest:>12.2%}")
        found.append(f"{'all of them':<20} {sum(self.callbacks.values()):>8.2f} {self.share:>12.2%}")
        found.append(f"{'training without':<20} {rest:>8.2f}")
        return found


def measure(config: dict[str, Any], folder: Path) -> Cost:
    """Train a run in a folder that exists, as its configuration says, and return what its callbacks took.

    matplotlib's import, which the first figure pays, is part of it.
    """
    prepared = prepare(config)
    watched = build_trainer(config, folder, prepared.corpus, prepared.steps_an_epoch)
    started = time.perf_counter()
    watched.trainer.fit(prepared.module, datamodule=prepared.data)
    seconds = time.perf_counter() - started
    watching = [callback for callback in watched.trainer.callbacks if isinstance(callback, Watching)]  # type: ignore[attr-defined]
    return Cost(seconds, {name: spent for callback in watching for name, spent in callback.seconds.items()})
