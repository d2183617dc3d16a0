"""Lightning's loop over epochs, for a run that is taken up where no step is left."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, nullcontext
from typing import Any, TypeVar

import lightning.pytorch as pl
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.loops.fit_loop import _FitLoop
from lightning.pytorch.profilers import PassThroughProfiler


class ToTheEnd(_FitLoop):
    """Begin and end a run in any case.

    A run that was killed behind its last checkpoint, but before its last figures and points were written, is taken up
    with no step to make. Lightning then calls neither `on_train_start` nor `on_train_end`, and what a run writes at its
    end would be missing for ever.
    """

    def run(self) -> None:
        """As Lightning does, wherever a step is left."""
        self.setup_data()
        if self.skip and self.trainer.global_step > 0:
            self.on_run_start()
            self.on_run_end()
        else:
            super().run()


def end_always(trainer: pl.Trainer) -> None:
    """Give a new trainer this loop in the place of its own."""
    own = trainer.fit_loop
    trainer.fit_loop = ToTheEnd(trainer, own.min_epochs, own.max_epochs)
    trainer.fit_loop.epoch_loop = own.epoch_loop


# ---- What Lightning does at every step for hooks that do nothing and a profiler that measures nothing, left out.

Step = TypeVar("Step", bound=Callable[..., Any])

OF_A_STEP = (
    "on_train_batch_start",
    "on_before_zero_grad",
    "on_before_backward",
    "on_after_backward",
    "on_before_optimizer_step",
    "on_train_batch_end",
)


class Unprofiled(PassThroughProfiler):
    """Lightning's profiler that measures nothing, without a generator for each thing that it does not measure."""

    nothing: AbstractContextManager[Any] = nullcontext()

    def profile(self, action_name: str) -> AbstractContextManager[Any]:  # type: ignore[override]  # a looser context
        """The same context for whatever is done in it."""
        return self.nothing


def signed(step: Step) -> Step:
    """Keep a function's signature with it: Lightning asks for that of `training_step` at every step."""
    step.__signature__ = inspect.signature(step)  # type: ignore[attr-defined]
    return step


def without_idle_hooks(callbacks: Iterable[Callback]) -> None:
    """Take from callbacks each hook of a step that their class does not write: Lightning passes over None."""
    for callback in callbacks:
        for hook in OF_A_STEP:
            if getattr(type(callback), hook) is getattr(Callback, hook):
                setattr(callback, hook, None)
