"""Peak memory, each measurement in a process of its own: python -m src.benchmarks.memory runs one and prints JSON."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
MB = 1e6


def forget_peak() -> None:
    """Let the peak of this process begin anew, where the system can (Linux)."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return


def resident() -> tuple[float, float]:
    """Return how many bytes this process has in memory, now and at its peak."""
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
        sizes = {line.split(":")[0]: float(line.split()[1]) * 1024 for line in lines if line.startswith("Vm")}
        return sizes["VmRSS"], sizes["VmHWM"]
    except (OSError, KeyError):
        import resource

        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
        return peak, peak


def in_own_process(module: str, *words: str, **environment: str) -> dict[str, Any]:
    """Run `python -m module words...` to its end and return what it printed last, which is JSON.

    Raises:
        RuntimeError: it failed; its last words are told.
    """
    paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(paths), **environment}
    done = subprocess.run([sys.executable, "-m", module, *words], env=env, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{module} {' '.join(words)} failed: {done.stderr.strip()[-2000:]}")
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def of_step(name: str, size: tuple[int, ...], threads: int) -> dict[str, float]:
    """Return megabytes: `peak_mb` of the whole process, `step_mb` of it what the steps took beyond the start."""
    words = json.dumps({"name": name, "size": size, "threads": threads})
    return in_own_process("src.benchmarks.memory", words)


def main(words: str) -> None:
    """Make three steps and print the peak."""
    from src.benchmarks.implementations import Size, Step
    from src.training.machine import keep_memory, use_threads

    given = json.loads(words)
    use_threads(given["threads"])
    keep_memory()
    small = Step(given["name"], Size(8, 1, 2, 2, 4))
    small()  # what torch loads at its first step is no model's memory
    step = Step(given["name"], Size(*given["size"]))
    forget_peak()
    before, _ = resident()
    for _ in range(3):
        step()
    _, peak = resident()
    print(json.dumps({"step_mb": round((peak - before) / MB, 1), "peak_mb": round(peak / MB, 1)}))


if __name__ == "__main__":
    main(sys.argv[1])
