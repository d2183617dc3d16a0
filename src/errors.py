"""Errors that a user can mend: one or two lines with the remedy, never a traceback."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import Any


class UserError(ValueError):
    """Bad input: one text an error, with the key or file, what is wrong with it and what to do. Exit code 2."""

    def __init__(self, *messages: str) -> None:
        super().__init__("\n".join(messages))
        self.messages = messages

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle, so that a worker's error arrives as one in another process."""
        return type(self), self.messages


class UnknownCharacter(UserError):
    """Characters that a vocabulary lacks: how many, which ones, and the offset of the first."""

    def __init__(self, what: str, remedy: str) -> None:
        super().__init__(f"{what}; {remedy}")
        self.what, self.remedy = what, remedy

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.what, self.remedy)


class RunFailure(RuntimeError):
    """A run that cannot go on, for a reason that is clearer in words than as a traceback. Exit code 1."""


def nearest(name: str, allowed: Iterable[str]) -> str:
    """Return `; did you mean X?` for the first allowed name that begins with `name`, else the one most like it."""
    allowed = list(allowed)
    begin = [one for one in allowed if name and one.startswith(name)]  # orth, bf16
    matches = begin or difflib.get_close_matches(name, allowed, n=1, cutoff=0.6)
    return f"; did you mean {matches[0]}?" if matches else ""


def shown(symbol: str) -> str:
    """Return one character so that it can be told from similar ones: 'é' (U+00E9)."""
    return f"{symbol!r} (U+{ord(symbol):04X})" if len(symbol) == 1 else repr(symbol)


def typed(value: object) -> str:
    """Return a value as a user types it: null and true, not Python's None and True."""
    return "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


def counted(count: int, things: str) -> str:
    """Return `1 character`, `2 characters`."""
    return f"{count:,} {things if count != 1 else things.removesuffix('s')}"


def first_line(error: object) -> str:
    """Return the first line of a message, which names its key; others of CUDA or Hydra are advice on debugging."""
    line, key = str(error).strip().partition("\n")[0], getattr(error, "full_key", None)
    line = "expected a list" if "is not a ListConfig" in line else line
    known = getattr(getattr(error, "object_type", None), "__dataclass_fields__", ())
    line += nearest(str(key).rpartition(".")[2], known) if isinstance(error, KeyError) else ""
    return f"{key}: {line}" if key and f"'{key}'" not in line else line
