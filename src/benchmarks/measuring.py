"""Calls timed in turns, the peak memory of this process, and measurements in a process of their own."""

from __future__ import annotations

import gc
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
MB = 1e6
TURN = 0.05  # seconds of a turn of something quick, so that its data stays in the caches
AT_LEAST = 5  # rounds, however long they take


def take_turns(
    calls: Mapping[str, Callable[[], object]], seconds: float, rounds: int | None = None
) -> dict[str, list[float]]:
    """Time calls round-robin, every second round in reverse order, so that other load on the machine affects all.

    Args:
        calls: what is timed, by name. Each is called twice before.
        seconds: how long all of it may take; at least AT_LEAST rounds are made.
        rounds: a number of rounds instead.

    Returns the seconds of each call.
    """
    times: dict[str, list[float]] = {name: [] for name in calls}
    repeats = {}
    for name, call in calls.items():
        call()
        repeats[name] = max(1, min(10, int(TURN / timed(call))))
    started = time.perf_counter()
    gc.disable()
    try:
        done = 0
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


def reset_peak() -> None:
    """Reset the peak memory of this process, where the system can (Linux)."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return


def resident() -> tuple[float, float]:
    """Return the bytes of memory of this process, now and at its peak."""
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
        sizes = {line.split(":")[0]: float(line.split()[1]) * 1024 for line in lines if line.startswith("Vm")}
        return sizes["VmRSS"], sizes["VmHWM"]
    except (OSError, KeyError):
        import resource

        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
        return peak, peak


def in_own_process(module: str, *arguments: str, **environment: str) -> dict[str, Any]:
    """Run `python -m module arguments...` and return the JSON of its last line.

    Raises:
        RuntimeError: it failed; with the end of its stderr.
    """
    paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(paths), **environment}
    done = subprocess.run([sys.executable, "-m", module, *arguments], env=env, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{module} {' '.join(arguments)} failed: {done.stderr.strip()[-2000:]}")
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found
