"""Literal values: what a user typed after the first `=` is taken as it stands, whatever Hydra's grammar makes of it.

Hydra's grammar refuses or changes commas, quotes, braces, `=`, newlines, non-ASCII letters, `1e3`, `true` and leading
blanks. So these words are handed to it as quoted strings, which it returns to the letter.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

LITERAL_KEYS = (
    "prompt",
    "text",
    "stop",
    "file",
    "run",
    "checkpoint",
    "resume",
    "rerun",
    "init_from",
    "data.path",
    "data.root",
)
# Ours beside those that the specification names: paths and texts too.
ALSO_LITERAL = (
    *("data.val_path", "data.test_path", "data.separator", "data.input", "data.target", "data.symbols"),
    *("explain.input", "explain.target", "benchmark.out", "benchmark.folder", "output"),
)


def split_word(word: str) -> tuple[str, str] | None:
    """Return key and value of a word whose value is literal, else None; a leading + is not part of the key."""
    key, equals, value = word.partition("=")
    key = key.lstrip("+")
    return (key, value) if equals and key in LITERAL_KEYS + ALSO_LITERAL else None


def quote(value: str) -> str:
    """Return a word of Hydra's grammar that stands for exactly `value`, interpolations and escapes included.

    Backslashes count only before a quote, before `${`, or at the end, and are doubled there.
    """
    value = re.sub(r"(\\*)\$\{", lambda m: 2 * m[1] + r"\${", value)
    value = re.sub(r"(\\*)'", lambda m: 2 * m[1] + r"\'", value)
    value = re.sub(r"(\\+)$", lambda m: 2 * m[1], value)
    return f"'{value}'"


def quote_literals(words: Iterable[str]) -> list[str]:
    """Return the command line with every literal value quoted."""
    quoted = []
    for word in words:
        literal = split_word(word)
        if literal is None:
            quoted.append(word)
        else:
            key, value = literal
            quoted.append(f"{key}={quote(value)}")
    return quoted
