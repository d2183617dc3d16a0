"""A sweep's own record: what it was asked, which jobs it has, how each ended, what was not run."""

from __future__ import annotations

import datetime
import json
import os
import secrets
import shlex
import socket
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from src.sweeps.plan import Job, Plan
from src.sweeps.state import record_of
from src.training.run import now, write_atomically

FORMAT = 1


class SweepRecord:
    """`runs/sweeps/<date>_<time>_<id>.json`, replaced atomically.

    `status`: running, stopping (no further job is started), done (all jobs are), incomplete, stopped.
    Each job: words, folder, what the plan said, and its `status`: done, failed, stopped, interrupted, running, not run.

    Args:
        folder: runs/sweeps.
        command: the sweep's command line.
        plan: its jobs.
    """

    def __init__(self, folder: Path, command: Sequence[str], plan: Plan) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.path = folder.resolve() / f"{datetime.datetime.now():%Y-%m-%d_%H-%M-%S}_{secrets.token_hex(3)}.json"
        self.plan = plan
        self.entries: dict[str, Any] = {
            "format": FORMAT,
            "status": "running",
            "command": shlex.join(command),
            "started": now(),
            "finished": None,
            "process": {"pid": os.getpid(), "host": socket.gethostname()},
            "plan": plan.in_words(),
            "jobs": [_entry(job) for job in plan.jobs],
        }
        self.write("running")

    def write(self, status: str) -> None:
        """Write how the sweep stands."""
        self.entries["status"] = status
        write_atomically(self.path, json.dumps(self.entries, indent=2, ensure_ascii=False) + "\n")

    def finish(self, status: str, statuses: Sequence[str]) -> None:
        """Write how the sweep and each of its jobs ended."""
        for entry, how in zip(self.entries["jobs"], statuses, strict=True):
            entry["status"] = how
        self.entries["not_run"] = [entry["words"] for entry in self.entries["jobs"] if entry["status"] == "not run"]
        self.entries["finished"] = now()
        self.write(status)


def is_stopping(path: Path) -> bool:
    """Whether the sweep of this record is being stopped; read by the workers before each job."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))["status"] == "stopping"
    except (OSError, ValueError, KeyError):
        return False  # another machine, perhaps, that does not see the file


def _entry(job: Job) -> dict[str, Any]:
    status = "done" if job.action == "skip" else str(record_of(job.folder).get("status", "not run"))
    return {"words": job.label, "folder": str(job.folder), "plan": job.action, "status": status}
