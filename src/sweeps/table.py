"""The progress line of a sweep: read from the jobs' records, so it is the same for every engine."""

from __future__ import annotations

import contextlib
import math
import os
import signal
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from src.metrics import bits_per_character
from src.sweeps.plan import Job
from src.sweeps.state import is_gone, record_of

POLL = 1.0  # seconds; a look costs some 20 microseconds a job
ENDED = ("done", "failed", "stopped")


class Watch:
    """Looks at the jobs' records now and then, says a line when something changed, and asks running jobs to stop.

    Args:
        jobs: those that the sweep starts.
        say: where a line goes.
        every: seconds between two lines, at least.
    """

    def __init__(self, jobs: Sequence[Job], say: Callable[[str], None], every: float) -> None:
        self.jobs, self.say, self.every = jobs, say, every
        self.began, self.said_at = time.time(), 0.0
        self.ended: dict[Path, str] = {}
        self.before = {job.folder: _stamp(job) for job in jobs}  # an old record must not count for the new attempt
        self.last = ""
        self.stopping = False
        self.asked: set[int] = set()

    def has_begun(self, job: Job) -> bool:
        """Whether the job's record has changed since the sweep began."""
        return _stamp(job) != self.before[job.folder]

    def look(self) -> None:
        """Read the records that may have changed."""
        running = 0
        for job in self.jobs:
            if job.folder in self.ended or not self.has_begun(job):
                continue
            record = record_of(job.folder)
            status = record.get("status")
            if status in ENDED:
                self.ended[job.folder] = str(status)
            elif status == "running":
                running += 1
                if self.stopping:
                    self._ask(record.get("process") or {})
        self._tell(running)

    def _tell(self, running: int) -> None:
        count = Counter(self.ended.values())
        parts = [f"sweep: {count['done']} of {len(self.jobs)} done"]
        parts += [f"{count[status]} {status}" for status in ("failed", "stopped") if count[status]]
        if running:
            parts.append(f"{running} running")
        line = ", ".join(parts)
        if line == self.last or time.time() - self.said_at < self.every:
            return
        self.last, self.said_at = line, time.time()
        left = len(self.jobs) - len(self.ended)
        if self.ended and left:
            seconds = (time.time() - self.began) / len(self.ended) * left
            line += f", about {seconds / 60:.0f} min left" if seconds > 120 else f", about {seconds:.0f} s left"
        self.say(line)

    def _ask(self, process: dict[str, object]) -> None:
        """Send a run of this machine SIGTERM, once: it saves and stops."""
        pid = process.get("pid")
        here = process.get("host") == socket.gethostname()
        if here and isinstance(pid, int) and pid not in self.asked | {os.getpid()}:
            self.asked.add(pid)
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGTERM)


@contextlib.contextmanager
def watching(watch: Watch) -> Iterator[None]:
    """Look every second, from a thread of its own, while the jobs run."""
    over = threading.Event()

    def loop() -> None:
        while not over.wait(POLL):
            watch.look()

    thread = threading.Thread(target=loop, name="sweep progress", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def _stamp(job: Job) -> tuple[int, int] | None:
    try:
        stat = (job.folder / "run.json").stat()
    except OSError:
        return None
    return stat.st_ino, stat.st_mtime_ns


# ---- The table at the end of a sweep: every job, the failures last and named.

ORDER = ("done", "running", "stopped", "interrupted", "not run", "failed")


def final_status(job: Job, record: Mapping[str, Any]) -> str:
    """Return what became of a job: its record's word; `interrupted` if its process is gone, `not run` without one."""
    status = str(record.get("status", "not run"))
    return "interrupted" if status == "running" and is_gone(record, job.folder) else status


def result_in_words(record: Mapping[str, Any]) -> str:
    """Return the best value of what the run watched, and bits a character where that is nats on `val`."""
    best = (record.get("metrics") or {}).get("best")
    if not best:
        return "-"
    value = best["value"]
    told = f"{best['monitor']} {value:.4f}" if math.isfinite(value) else f"{best['monitor']} {value}"
    if best["monitor"] == "val/cross_entropy" and math.isfinite(value):
        told += f" = {bits_per_character(value):.4f} bits"
    return told


def table(jobs: Sequence[Job], records: Sequence[Mapping[str, Any]], statuses: Sequence[str]) -> list[str]:
    """Return the lines: status, job, result, seconds, folder of each; then what each failure was, where it is told."""
    rows = []
    for job, record, status in zip(jobs, records, statuses, strict=True):
        begun = status != "not run"
        seconds = record.get("seconds") if begun else None
        shown = f"{seconds:.1f}" if isinstance(seconds, int | float) else "-"
        rows.append((status, job.label, result_in_words(record) if begun else "-", shown, str(job.folder)))
    order = sorted(range(len(rows)), key=lambda i: ORDER.index(statuses[i]) if statuses[i] in ORDER else len(ORDER) - 1)
    head = ("status", "job", "best", "seconds", "folder")
    widths = [max(len(row[i]) for row in [head, *rows]) for i in range(len(head))]
    lines = [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in [head, *(rows[i] for i in order)]
    ]
    for i in (i for i in order if statuses[i] == "failed"):
        error = records[i].get("error") or {}
        first = next(iter(str(error.get("message", "")).strip().splitlines()), "")
        lines.append(f"failed: {jobs[i].label}: {error.get('type', 'unknown')}: {first}")
        lines.append(f"        its traceback: {jobs[i].folder / 'train.log'}")
    return lines


def summary(statuses: Sequence[str]) -> str:
    """Return one line: `10 of 12 jobs are done, 2 failed`."""
    count = Counter(statuses)
    parts = [f"{count['done']} of {len(statuses)} job{'' if len(statuses) == 1 else 's'} done"]
    parts += [f"{count[status]} {status}" for status in reversed(ORDER[1:]) if count[status]]
    return ", ".join(parts)
