"""How a character is shown where it stands alone: on an axis, in a table, beside a point. Every label has ink."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable

SHOWN = {" ": "␣", "\n": "↵", "\t": "⇥", "\r": "⇤"}
# Printable by Unicode's book, and yet no ink: fillers, the empty braille pattern, selectors of a glyph's variant.
BLANK = frozenset((0x034F, 0x115F, 0x1160, 0x17B4, 0x17B5, 0x2800, 0x3164, 0xFFA0, *range(0x180B, 0x1810),
                   *range(0xFE00, 0xFE10), *range(0xE0100, 0xE01F0)))  # fmt: skip


def label(symbol: str) -> str:
    """Return a printable form of one symbol: a blank as ␣, a newline as ↵, an invisible one by its number."""
    if symbol in SHOWN:
        return SHOWN[symbol]
    if len(symbol) != 1:
        return symbol  # a byte as \\xNN, <unknown>: printable already
    if ord(symbol) in BLANK or not symbol.isprintable():
        return f"U+{ord(symbol):04X}"
    return "◌" + symbol if unicodedata.category(symbol).startswith("M") else symbol


def labels(symbols: Iterable[str]) -> list[str]:
    """Return the labels of several."""
    return [label(symbol) for symbol in symbols]


def short(symbol: str) -> str:
    """Return the label where there is little room: an invisible character by its bare number, <unknown> as <?>."""
    return "<?>" if len(symbol) > 4 else label(symbol).removeprefix("U+")
