"""What a user got wrong, in one line each, with the nearest right word."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class UserError(Exception):
    """One or more mistakes of the caller; `lines` are meant for stderr, one mistake a line."""

    def __init__(self, *lines: str) -> None:
        super().__init__("\n".join(lines))
        self.lines = lines


def nearest(word: str, known: Iterable[str]) -> str | None:
    """The known word that `word` was most likely meant to be, or None where nothing is near.

    The part after the last slash or dot counts too: `bits_per_char` finds `val/bits_per_character`.
    """
    names = list(known)
    close = difflib.get_close_matches(word, names, n=1, cutoff=0.6)
    if close:
        return close[0]
    tails: dict[str, str] = {}
    for name in names:
        tails.setdefault(name.replace("/", ".").rpartition(".")[2], name)
    tail = word.replace("/", ".").rpartition(".")[2]
    close = difflib.get_close_matches(tail, tails, n=1, cutoff=0.6)
    return tails[close[0]] if close else None


def suggestion(word: str, known: Iterable[str]) -> str:
    """`; did you mean X?` where something is near, else the known words themselves."""
    names = list(known)
    close = nearest(word, names)
    if close is not None:
        return f"; did you mean {close}?"
    return f"; known: {', '.join(names)}" if names else ""
