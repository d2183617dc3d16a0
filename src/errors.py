"""A mistake of the user's: told in one or two lines, with the way out, and never as a traceback."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from functools import partial
from typing import Any


class UserError(ValueError):
    """Something a user can mend: what came, what was expected, the nearest right word. Exit code 2.

    Args:
        messages: one text a mistake, each of one or two lines; all that are known at once.
    """

    def __init__(self, *messages: str) -> None:
        super().__init__("\n".join(messages))
        self.messages = messages

    def __reduce__(self) -> tuple[type[UserError], tuple[str, ...]]:
        """Travel between processes: a worker's mistake must arrive as one."""
        return type(self), self.messages


class RunFailure(RuntimeError):
    """A run that cannot go on for a reason that words tell better than a traceback. Exit code 1."""


def nearest(word: str, allowed: Iterable[str]) -> str:
    """Return `; did you mean X?` for the allowed word most like `word`, or nothing where none is like it."""
    matches = difflib.get_close_matches(word, list(allowed), n=1, cutoff=0.6)
    return f"; did you mean {matches[0]}?" if matches else ""


# ---- What is wrong with a text, said in one or two lines: what came, what was expected, the remedy.


class DataError(UserError):
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
