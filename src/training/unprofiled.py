"""What Lightning does at every step for hooks that do nothing and a profiler that measures nothing, left out.

Some thirty times a step it makes a context manager for its profiler, it asks callbacks that have nothing to say, and it
has Python take the training step's signature apart. A small step can do without. `trainer.profile=true` is torch's
profiler, which needs none of this.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, nullcontext
from typing import Any, TypeVar

from lightning.pytorch.callbacks import Callback
from lightning.pytorch.profilers import PassThroughProfiler

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
