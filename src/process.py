"""The process around a command: fast imports, and standard input and output in a pipe or on a terminal."""

from __future__ import annotations

import atexit
import contextlib
import gc
import json
import os
import sys
from collections.abc import Iterator
from typing import Any

from src.errors import UserError
from src.files import user_path, write_atomic


@contextlib.contextmanager
def heavy_imports() -> Iterator[None]:
    """Inside, import torch and Lightning without the garbage collector looking at them, now or at exit.

    Their millions of objects live as long as the process. Visiting them takes over a second.
    """
    if "lightning.pytorch" in sys.modules:  # a further job in this process: freezing would keep the garbage of the last
        yield
        return
    gc.disable()
    try:
        with without_plots():
            yield
    finally:
        gc.enable()
        gc.freeze()
        atexit.register(gc.freeze)


@contextlib.contextmanager
def without_plots() -> Iterator[None]:
    """Inside, torchmetrics (a part of Lightning) finds no matplotlib: importing it takes 0.4 s at every start."""
    from lightning_utilities.core.imports import RequirementCache

    before = RequirementCache.__bool__
    RequirementCache.__bool__ = lambda self: self.requirement != "matplotlib" and before(self)  # type: ignore[method-assign]
    try:
        yield
    finally:
        RequirementCache.__bool__ = before  # type: ignore[method-assign]


@contextlib.contextmanager
def pipe_may_close() -> Iterator[None]:
    """End without an error if the reader of standard output has closed the pipe (`| head`)."""
    if reconfigure := getattr(sys.stdout, "reconfigure", None):
        reconfigure(errors="backslashreplace")  # a terminal without Chinese still gets its text
    try:
        yield
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # Python flushes once more when it exits


def say(text: str) -> None:
    """Write a text to standard output at once."""
    sys.stdout.write(text)
    sys.stdout.flush()


def in_json(content: Any, indent: int | None = None) -> str:
    """Return plain data as a line of JSON; in ASCII if standard output has no Unicode."""
    has_all = "utf" in (getattr(sys.stdout, "encoding", None) or "utf").lower()
    return json.dumps(content, ensure_ascii=not has_all, indent=indent) + "\n"


def line_of_standard_input() -> str | None:
    """Return the next line without its end, or None after the last; other bytes than UTF-8 as surrogates."""
    line = sys.stdin.buffer.readline().decode("utf-8", "surrogateescape")
    return line.removesuffix("\n").removesuffix("\r") if line else None


def from_standard_input(what: str) -> str:
    """Return all of standard input; other bytes than UTF-8 as surrogates.

    Raises:
        UserError: it is empty.
    """
    text = sys.stdin.buffer.read().decode("utf-8", "surrogateescape")
    if not text:
        raise UserError(f"{what}=- reads standard input, and it was empty")
    return text


def write_file(path: str, text: str, key: str = "output") -> None:
    """Write a file that the user named with `key`; UserError if its folder is missing or it cannot be written."""
    target = user_path(path)
    if not target.parent.is_dir() or target.is_dir():
        raise UserError(f"{key}={path}: expected the name of a file in a folder that exists")
    try:
        write_atomic(target, text)
    except OSError as error:
        raise UserError(f"{key}={path} cannot be written: {error.strerror}") from error
