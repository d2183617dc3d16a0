"""Ctrl-C and SIGTERM while a sweep runs: every signal is noted, and the sweep stops where nothing is lost.

Jobs in the sweep's own process (basic launcher): the run saves and raises, or the signal raises here between two runs.
Jobs in other processes: the sweep's record says `stopping`, no further job starts, and the running ones are asked to
save and stop; a second signal waits for nothing.
"""

from __future__ import annotations

import contextlib
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from typing import Any

TAKEN = (signal.SIGINT, signal.SIGTERM)


class Caught:
    """The signals that this process has had, whoever handled them: a run that ends with one may have answered it.

    The system's wake-up socket gets a byte for each, beneath Python's handlers. In another process it knows of none.
    """

    def __init__(self) -> None:
        self.first: int | None = None
        self.reader: socket.socket | None = None

    def look(self) -> int | None:
        """Return the first of TAKEN that came, or None."""
        if self.reader is not None and self.first is None:
            with contextlib.suppress(BlockingIOError):
                numbers = self.reader.recv(4096)
                self.first = next((number for number in numbers if number in TAKEN), None)
        return self.first

    def raise_if_any(self, here: bool) -> None:
        """In the sweep's own process, stop if a signal has come."""
        if here and self.look() is not None:
            raise KeyboardInterrupt

    def __getstate__(self) -> dict[str, Any]:
        """Travel without the socket."""
        return {"first": None, "reader": None}


@contextlib.contextmanager
def given_back() -> Iterator[None]:
    """Whatever a run that raised has left of its own handlers, have those from before it afterwards.

    Lightning calls no teardown then, and after a KeyboardInterrupt leaves Ctrl-C ignored.
    """
    if threading.current_thread() is not threading.main_thread():
        yield  # only the main thread may
        return
    before = {number: signal.getsignal(number) for number in (*TAKEN, signal.SIGUSR1)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def leave_ctrl_c_to_the_sweep() -> None:
    """In a worker: between runs, Ctrl-C is the sweep's own to answer; a run takes it for itself, saves and stops."""
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGINT, signal.SIG_IGN)


@contextlib.contextmanager
def kept_from_children() -> Iterator[None]:
    """Start processes that never see Ctrl-C, which a terminal sends to all of them: this one answers for them.

    It still has it itself, as long as another of its threads was started before.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})  # a mask is handed down, a handler is not
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextlib.contextmanager
def taken(caught: Caught, elsewhere: Callable[[], None] | None) -> Iterator[None]:
    """Take the signals while a sweep runs.

    Args:
        caught: is told of every signal.
        elsewhere: where the jobs run in other processes, what asks them to stop; None where they run in this one.
    """
    if threading.current_thread() is not threading.main_thread():
        yield  # only the main thread may
        return
    reader, writer = socket.socketpair()
    reader.setblocking(False)
    writer.setblocking(False)
    caught.reader = reader
    seen = 0

    def handle(number: int, frame: Any) -> None:
        nonlocal seen
        seen += 1
        if elsewhere is None or seen > 1:
            raise KeyboardInterrupt
        elsewhere()

    before = {number: signal.signal(number, handle) for number in TAKEN}
    old = signal.set_wakeup_fd(writer.fileno(), warn_on_full_buffer=False)
    try:
        yield
    finally:
        signal.set_wakeup_fd(old)
        for number, handler in before.items():
            signal.signal(number, handler)
        caught.look()
        caught.reader = None
        reader.close()
        writer.close()
