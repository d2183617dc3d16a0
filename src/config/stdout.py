"""Writing to standard output and reading from standard input, in a pipe or on a terminal."""

from __future__ import annotations

import contextlib
import json
import os
import sys
from collections.abc import Iterator
from typing import Any

from src import paths
from src.mistakes import Mistake


@contextlib.contextmanager
def pipe_may_close() -> Iterator[None]:
    """A reader that closed the pipe (`| head`) has seen enough: the end, and no mistake."""
    reconfigure = getattr(sys.stdout, "reconfigure", None)
    if reconfigure is not None:
        reconfigure(errors="backslashreplace")  # a terminal without Chinese still gets its text
    try:
        yield
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # Python flushes once more when it exits


def say(text: str) -> None:
    """Write and let it be seen at once."""
    sys.stdout.write(text)
    sys.stdout.flush()


def in_json(content: Any, indent: int | None = None) -> str:
    """Plain data as JSON with a line break behind it; where standard output lacks letters, in ASCII."""
    has_all = "utf" in (getattr(sys.stdout, "encoding", None) or "utf").lower()
    return json.dumps(content, ensure_ascii=not has_all, indent=indent) + "\n"


def line_of_standard_input() -> str | None:
    """The next line without its end, bytes that are no UTF-8 as below; None behind the last."""
    line = sys.stdin.buffer.readline().decode("utf-8", "surrogateescape")
    return line.removesuffix("\n").removesuffix("\r") if line else None


def from_standard_input(what: str) -> str:
    """Everything that standard input has, to the letter; bytes that are no UTF-8 as Python holds those of a word."""
    text = sys.stdin.buffer.read().decode("utf-8", "surrogateescape")
    if not text:
        raise Mistake(f"{what}=- reads standard input, and it was empty")
    return text


def write_file(path: str, text: str, key: str = "output") -> None:
    """Write a file that the user named with `key`, in one move.

    Raises:
        Mistake: its folder is not there, or it cannot be written.
    """
    target = paths.given(path)
    if not target.parent.is_dir():
        raise Mistake(f"{key}={path}: there is no folder {target.parent}")
    if target.is_dir():
        raise Mistake(f"{key}={path} is a folder; name a file in it")
    temporary = target.with_name(f".{target.name}.{os.getpid()}")
    try:
        temporary.write_text(text, encoding="utf-8", errors="backslashreplace", newline="")
        temporary.replace(target)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise Mistake(f"{key}={path} cannot be written: {error.strerror}") from error
