"""All that watch a run, as one callback of Lightning's, which knows what each of them has cost.

Lightning asks every callback at some ten places of every step, 2 us each time; twelve callbacks that have nothing to
say there would double a small network's step. This one passes on only what somebody listens to.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.callbacks import Callback

HOOKS = (
    "setup", "on_train_start", "on_train_batch_start", "on_train_batch_end", "on_train_epoch_end", "on_train_end",
    "on_validation_start", "on_validation_batch_end", "on_validation_end", "on_exception",
)  # fmt: skip


class Watching(Callback):
    """Pass on what happens, in order.

    Args:
        parts: callbacks; a part with `listens(hook) -> bool` is asked what it wants to hear.
    """

    def __init__(self, parts: Sequence[Callback]) -> None:
        self.parts = list(parts)
        self.listeners = {hook: [part for part in self.parts if listens(part, hook)] for hook in HOOKS}
        self.seconds = {type(part).__name__: 0.0 for part in self.parts}  # spent in each so far

    def _pass_on(self, hook: str, *arguments: Any) -> None:
        for part in self.listeners[hook]:
            started = time.perf_counter()
            getattr(part, hook)(*arguments)
            self.seconds[type(part).__name__] += time.perf_counter() - started

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Pass it on, as all that follow."""
        self._pass_on("setup", trainer, pl_module, stage)

    def on_train_start(self, *arguments: Any) -> None:
        self._pass_on("on_train_start", *arguments)

    def on_train_batch_start(self, *arguments: Any) -> None:
        self._pass_on("on_train_batch_start", *arguments)

    def on_train_batch_end(self, *arguments: Any) -> None:
        self._pass_on("on_train_batch_end", *arguments)

    def on_train_epoch_end(self, *arguments: Any) -> None:
        self._pass_on("on_train_epoch_end", *arguments)

    def on_train_end(self, *arguments: Any) -> None:
        self._pass_on("on_train_end", *arguments)

    def on_validation_start(self, *arguments: Any) -> None:
        self._pass_on("on_validation_start", *arguments)

    def on_validation_batch_end(self, *arguments: Any) -> None:
        self._pass_on("on_validation_batch_end", *arguments)

    def on_validation_end(self, *arguments: Any) -> None:
        self._pass_on("on_validation_end", *arguments)

    def on_exception(self, *arguments: Any) -> None:
        self._pass_on("on_exception", *arguments)

    def state_dict(self) -> dict[str, Any]:
        """What each must know after a resume."""
        states = {type(part).__name__: part.state_dict() for part in self.parts}
        return {name: state for name, state in states.items() if state}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take it back; one that was switched on or off since begins anew or is forgotten."""
        for part in self.parts:
            state = state_dict.get(type(part).__name__)
            if state:
                part.load_state_dict(state)


def listens(part: Callback, hook: str) -> bool:
    """Return whether a callback does anything at a hook."""
    has_it = getattr(type(part), hook) is not getattr(Callback, hook)
    return has_it and (part.listens(hook) if hasattr(part, "listens") else True)
