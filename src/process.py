"""What torch and Lightning cost at start-up and exit, and how most of it is saved."""

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
from src.files import user_path


@contextlib.contextmanager
def heavy_imports() -> Iterator[None]:
    """Import millions of objects without the garbage collector looking at them, now or at exit.

    They live as long as the process. Walking them while they are imported and once more at the end costs over a second.
    """
    if "lightning.pytorch" in sys.modules:  # a further job in this process: frozen, what the last one left would stay
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
    """Keep matplotlib out of it until our first figure is drawn.

    torchmetrics, which Lightning brings, imports it where it finds it, for plots of its own: .4 s at every start.
    """
    from lightning_utilities.core.imports import RequirementCache

    before = RequirementCache.__bool__
    RequirementCache.__bool__ = lambda self: self.requirement != "matplotlib" and before(self)  # type: ignore[method-assign]
    try:
        yield
    finally:
        RequirementCache.__bool__ = before  # type: ignore[method-assign]


# ---- Writing to standard output and reading from standard input, in a pipe or on a terminal.


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
        raise UserError(f"{what}=- reads standard input, and it was empty")
    return text


def write_file(path: str, text: str, key: str = "output") -> None:
    """Write a file that the user named with `key`, in one move.

    Raises:
        UserError: its folder is not there, or it cannot be written.
    """
    target = user_path(path)
    if not target.parent.is_dir():
        raise UserError(f"{key}={path}: there is no folder {target.parent}")
    if target.is_dir():
        raise UserError(f"{key}={path} is a folder; name a file in it")
    temporary = target.with_name(f".{target.name}.{os.getpid()}")
    try:
        temporary.write_text(text, encoding="utf-8", errors="backslashreplace", newline="")
        temporary.replace(target)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise UserError(f"{key}={path} cannot be written: {error.strerror}") from error
