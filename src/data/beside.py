"""Work done in order in a second thread while the first goes on: hashing and writing let go of the interpreter."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

AHEAD = 2  # calls that may wait; more did not help, and what waits long is no longer in the processor's cache


class Beside:
    """`call(f, *arguments)` runs f in the second thread, after all calls before it; leaving the block waits for them.

    At most `AHEAD` calls wait, so memory stays bounded. What a call raises is raised by a later one, or on leaving.
    """

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(1)
        self._pending: deque[Future[Any]] = deque()

    def call(self, function: Callable[..., Any], *arguments: Any) -> None:
        """Hand over one call."""
        if len(self._pending) >= AHEAD:
            self._pending.popleft().result()
        self._pending.append(self._pool.submit(function, *arguments))

    def __enter__(self) -> Beside:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._pool.shutdown(wait=True, cancel_futures=kind is not None)
        if kind is None:
            for future in self._pending:
                future.result()
