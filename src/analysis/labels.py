"""How a character is shown where it stands alone: on an axis, in a table, beside a point. Every label has ink."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable

SHOWN = {" ": "␣", "\n": "↵", "\t": "⇥", "\r": "⇤"}


def label(symbol: str) -> str:
    """Return a printable form of one symbol: a blank as ␣, a newline as ↵, an invisible one by its number."""
    if symbol in SHOWN:
        return SHOWN[symbol]
    if len(symbol) != 1:
        return symbol  # a byte as \\xNN, <unknown>: printable already
    if unicodedata.combining(symbol):
        return "◌" + symbol
    return symbol if symbol.isprintable() else f"U+{ord(symbol):04X}"


def labels(symbols: Iterable[str]) -> list[str]:
    """Return the labels of several."""
    return [label(symbol) for symbol in symbols]


def one_column(symbol: str) -> str:
    """Return the label if it is as wide as a character, else a box: for texts set in a grid."""
    shown = label(symbol)
    return shown if len(shown) == 1 else "▯"
