"""Sizes, calls timed in turns, the peak memory of this process, measurements in a process of their own, and tables."""

from __future__ import annotations

import gc
import math
import multiprocessing
import re
import textwrap
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

from tabulate import tabulate  # type: ignore[import-untyped]

from src.errors import counted

MB = 1e6
TURN = 0.05  # seconds of a turn of something quick, so that its data stays in the caches
AT_LEAST = 5  # rounds, however long they take


class Size(NamedTuple):
    """A network and its windows."""

    hidden_size: int
    num_layers: int
    seq_len: int
    batch_size: int
    vocab_size: int = 65  # Tiny Shakespeare's

    def __str__(self) -> str:
        layers = f"{counted(self.num_layers, 'layers')} of {self.hidden_size} units"
        return f"{layers}, windows of {self.seq_len} steps x {self.batch_size} streams, {self.vocab_size} characters"


def take_turns(
    calls: Mapping[str, Callable[[], object]], seconds: float, rounds: int | None = None
) -> dict[str, list[float]]:
    """Return the seconds of each call, in turns so that other load affects all: `rounds`, or what `seconds` allow."""
    times: dict[str, list[float]] = {name: [] for name in calls}
    repeats = {}
    for name, call in calls.items():
        call()
        repeats[name] = max(1, min(10, int(TURN / timed(call))))
    started, done = time.perf_counter(), 0
    gc.disable()
    try:
        while done < (rounds or AT_LEAST) or (rounds is None and time.perf_counter() - started < seconds):
            for name, call in list(calls.items())[:: -1 if done % 2 else 1]:
                if repeats[name] > 1:
                    call()  # fills the caches again after the other calls
                times[name] += [timed(call) for _ in range(repeats[name])]
            done += 1
            gc.collect()
    finally:
        gc.enable()
    return times


def timed(call: Callable[[], object]) -> float:
    """Return the seconds of a call."""
    started = time.perf_counter()
    call()
    return max(time.perf_counter() - started, 1e-9)


def table_lines(formats: Mapping[str, str], rows: Sequence[Sequence[object]]) -> list[str]:
    """Return the lines of an indented table; `formats` has the number format of each column by its title."""

    def shown(cell: object, spec: str) -> str:
        return "-" if cell is None else f"{cell:{spec}}" if isinstance(cell, float) else str(cell)

    # The titles are a row like the others: a header is two characters wider, and nine columns fit into 100
    cells = [list(formats), *(map(shown, row, formats.values()) for row in rows)]
    align = ["right" if spec else "left" for spec in formats.values()]
    text = tabulate(cells, tablefmt="plain", disable_numparse=True, colalign=align)
    return textwrap.indent(str(text), "  ").splitlines()


def peak_memory() -> float:
    """Return the largest number of bytes of memory that this process had; NaN where the system has no /proc."""
    status = Path("/proc/self/status")  # getrusage would count the parent's memory, too
    found = re.search(r"VmHWM:\s*(\d+) kB", status.read_text()) if status.exists() else None
    return float(found[1]) * 1024 if found else math.nan


def in_own_process(function: Callable[..., Any], *arguments: object) -> Any:
    """Return function(*arguments), called in a new process."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(function, *arguments).result()
