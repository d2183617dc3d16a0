"""What torch and Lightning cost at start-up and exit, and how most of it is saved."""

from __future__ import annotations

import atexit
import contextlib
import gc
from collections.abc import Iterator


@contextlib.contextmanager
def heavy_imports() -> Iterator[None]:
    """Import millions of objects without the garbage collector looking at them, now or at exit.

    They live as long as the process. Walking them while they are imported and once more at the end costs over a second.
    """
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
        gc.freeze()
        atexit.register(gc.freeze)
