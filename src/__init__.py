"""Unroll: recurrent networks on character sequences, from the tutorial's equations to whole books."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from src.inference.load import load
    from src.reports.runs import curves, runs

__all__ = ["curves", "load", "runs"]


def __getattr__(name: str) -> Any:
    """Import a name when it is first used, so that importing the package imports neither torch nor pandas."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module("src.inference.load" if name == "load" else "src.reports.runs"), name)
