"""What a corpus is cut into: one long text, a list of items, or one pair of input and target.

`len(split)` counts its characters, `split.transitions` the predictions that a complete evaluation scores.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from src.data.errors import DataError


@dataclass(frozen=True, eq=False)
class TextSplit:
    """One text as ids (length,), in memory or mapped from a file; every character but the first is predicted once."""

    name: str
    ids: np.ndarray

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def transitions(self) -> int:
        """The first character is given, each later one is predicted from those before it."""
        return max(0, len(self.ids) - 1)


@dataclass(frozen=True, eq=False)
class LineSplit:
    """Items one behind the other, a boundary id before the first, between two and after the last (length,)."""

    name: str
    ids: np.ndarray
    boundary: int

    def __len__(self) -> int:
        """Characters of the items themselves, without the boundaries."""
        return len(self.ids) - len(self.starts) - 1

    @cached_property
    def starts(self) -> np.ndarray:
        """Where each item's leading boundary stands (items,)."""
        return np.flatnonzero(self.ids == self.boundary)[:-1]

    @cached_property
    def lengths(self) -> np.ndarray:
        """Transitions an item: its characters and the boundary that ends it (items,)."""
        return np.diff(self.starts, append=len(self.ids) - 1)

    @property
    def transitions(self) -> int:
        """An item of n characters has n + 1: the end is predicted too."""
        return max(0, len(self.ids) - 1)


@dataclass(frozen=True, eq=False)
class PairSplit:
    """A given input (length,) and the target of each of its steps (length,): the tutorial's "hello" -> "ohlol"."""

    name: str
    ids: np.ndarray
    targets: np.ndarray

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def transitions(self) -> int:
        return len(self.ids)


Split = TextSplit | LineSplit | PairSplit


class Splits(dict[str, Split]):
    """The splits a corpus has; another one is refused with the names of those."""

    def __missing__(self, name: str) -> Split:
        raise DataError(f"this corpus has no split {name!r}; it has {', '.join(self)}")
