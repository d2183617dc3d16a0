"""A mistake of the user's: told in one or two lines, with the way out, and never as a traceback."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class Mistake(ValueError):
    """Something a user can mend: what came, what was expected, the nearest right word. Exit code 2.

    Args:
        messages: one text a mistake, each of one or two lines; all that are known at once.
    """

    def __init__(self, *messages: str) -> None:
        super().__init__("\n".join(messages))
        self.messages = messages

    def __reduce__(self) -> tuple[type[Mistake], tuple[str, ...]]:
        """Travel between processes: a worker's mistake must arrive as one."""
        return type(self), self.messages


class Failure(RuntimeError):
    """A run that cannot go on for a reason that words tell better than a traceback. Exit code 1."""


def nearest(word: str, allowed: Iterable[str]) -> str:
    """Return `; did you mean X?` for the allowed word most like `word`, or nothing where none is like it."""
    matches = difflib.get_close_matches(word, list(allowed), n=1, cutoff=0.6)
    return f"; did you mean {matches[0]}?" if matches else ""
