"""What is wrong with a text, said in one or two lines: what came, what was expected, the remedy."""

from __future__ import annotations

from functools import partial
from typing import Any

from src.mistakes import Mistake


class DataError(Mistake):
    """A text, a corpus or its options cannot be used as they are."""


class UnknownCharacter(DataError):
    """Characters that a vocabulary lacks: how many, which ones, where the first stands (offset in symbols)."""

    def __init__(self, what: str, remedy: str, *, count: int, distinct: tuple[str, ...], first: int) -> None:
        super().__init__(f"{what}; {remedy}")
        self.what = what
        self.remedy = remedy
        self.count = count
        self.distinct = distinct
        self.first = first

    def __reduce__(self) -> tuple[Any, ...]:
        """Travel between processes."""
        rest = partial(UnknownCharacter, count=self.count, distinct=self.distinct, first=self.first)
        return rest, (self.what, self.remedy)

    def with_remedy(self, remedy: str) -> UnknownCharacter:
        """The same, told where another way out is open."""
        return UnknownCharacter(self.what, remedy, count=self.count, distinct=self.distinct, first=self.first)


def shown(symbol: str) -> str:
    """One character as a reader can tell it from its look-alikes: 'é' (U+00E9)."""
    return f"{symbol!r} (U+{ord(symbol):04X})" if len(symbol) == 1 else repr(symbol)


def counted(count: int, things: str) -> str:
    """1 character, 2 characters."""
    return f"{count:,} {things if count != 1 else things.removesuffix('s')}"
