"""The table at the end of a sweep: every job, the failures last and named."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from src.metrics import bits_per_character
from src.sweeps.plan import Job
from src.sweeps.state import is_gone

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
