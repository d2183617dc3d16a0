"""Several things timed fairly in one process: they take turns, so that whatever else the machine does meets all."""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import torch

TURN = 0.05  # seconds that a turn of something quick lasts, so that it has its caches warm
AT_LEAST = 5  # rounds, however long they take


@dataclass
class Times:
    """Seconds of each call."""

    seconds: list[float] = field(default_factory=list)

    @property
    def least(self) -> float:
        """The quickest: what the work costs when nothing disturbs it."""
        return min(self.seconds)

    @property
    def median(self) -> float:
        """What it usually takes."""
        return statistics.median(self.seconds)


def take_turns(
    calls: Mapping[str, Callable[[], object]], seconds: float, rounds: int | None = None
) -> dict[str, Times]:
    """Time `calls` round-robin, every second round backwards.

    Args:
        calls: what is timed, by name. Each is called twice before.
        seconds: how long all of it may take; at least AT_LEAST rounds are made.
        rounds: so many rounds instead.
    """
    times = {name: Times() for name in calls}
    turns = {}
    for name, call in calls.items():
        call()
        turns[name] = max(1, min(10, int(TURN / _timed(call))))
    started = time.perf_counter()
    gc.disable()
    try:
        done = 0
        while done < (rounds or AT_LEAST) or (rounds is None and time.perf_counter() - started < seconds):
            for name, call in list(calls.items())[:: -1 if done % 2 else 1]:
                if turns[name] > 1:
                    call()  # brings back what the others have driven out of the caches
                times[name].seconds += [_timed(call) for _ in range(turns[name])]
            done += 1
            gc.collect()
    finally:
        gc.enable()
    return times


def _timed(call: Callable[[], object]) -> float:
    started = time.perf_counter()
    call()
    return max(time.perf_counter() - started, 1e-9)


def product_rate(dtype: torch.dtype, size: int) -> float:
    """Return how many operations a second torch reaches in the product of two matrices (size, size), at its best."""
    A, B = (torch.randn(size, size).to(dtype) for _ in range(2))
    out = torch.empty_like(A)
    torch.mm(A, B, out=out)
    return 2.0 * size**3 / min(_timed(lambda: torch.mm(A, B, out=out)) for _ in range(4))
