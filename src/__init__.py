"""Unroll: recurrent networks on character sequences, from the tutorial's equations to whole books."""

from __future__ import annotations

import gc
import signal
import sys
from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from src.inference.load import load
    from src.reports.runs import curves, runs

__all__ = ["curves", "fit", "load", "runs"]  # `fit` is not imported above: nothing imports an entry but this door
if sys.argv[:1] == ["-m"]:  # this is `python -m src....`
    if find_spec("hydra") is None:  # with another Python
        sys.exit(f"{sys.executable} lacks Unroll's packages: run   . .venv/bin/activate   first (make train makes it)")
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # else it is ignored, in a shell's background
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # until `exit_with`: Ctrl-C ends the imports without a traceback
    gc.set_threshold(100_000)  # a collection at each 700 new objects takes a fifth of the start; heavy_imports ends it
HOMES = {"fit": "src.train", "load": "src.inference.load", "runs": "src.reports.runs", "curves": "src.reports.runs"}


def __getattr__(name: str) -> Any:
    """Import a name when it is first used, so that importing the package imports neither torch nor pandas."""
    if name not in HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(HOMES[name]), name)
