"""Unroll: recurrent networks on character sequences, from the tutorial's equations to whole books."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from src.inference.load import load

__all__ = ["load"]


def __getattr__(name: str) -> Any:
    """`from src import load`, lazily: importing the package alone imports no torch."""
    if name == "load":
        from src.inference.load import load

        return load
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
