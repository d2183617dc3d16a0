"""What torch and Lightning cost at start-up and exit, and how most of it is saved."""

from __future__ import annotations

import atexit
import contextlib
import gc
import sys
from collections.abc import Iterator


@contextlib.contextmanager
def heavy_imports() -> Iterator[None]:
    """Import millions of objects without the garbage collector looking at them, now or at exit.

    They live as long as the process. Walking them while they are imported and once more at the end costs over a second.
    """
    if "lightning.pytorch" in sys.modules:  # a further job in this process: frozen, what the last one left would stay
        yield
        return
    gc.disable()
    try:
        with without_plots():
            yield
    finally:
        gc.enable()
        gc.freeze()
        atexit.register(gc.freeze)


@contextlib.contextmanager
def without_plots() -> Iterator[None]:
    """Keep matplotlib out of it until our first figure is drawn.

    torchmetrics, which Lightning brings, imports it where it finds it, for plots of its own: .4 s at every start.
    """
    from lightning_utilities.core.imports import RequirementCache

    before = RequirementCache.__bool__
    RequirementCache.__bool__ = lambda self: self.requirement != "matplotlib" and before(self)  # type: ignore[method-assign]
    try:
        yield
    finally:
        RequirementCache.__bool__ = before  # type: ignore[method-assign]
