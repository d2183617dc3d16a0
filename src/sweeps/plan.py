"""What a sweep will do: each job's folder, what lies there, and what follows from it.

nothing there                       -> run
done, with the same configuration   -> skip
stopped, or its process is gone     -> resume, from its last checkpoint
failed                              -> retry: the old folder is moved aside, the job starts again
another configuration, or torn      -> run, the old folder moved aside
running in another process          -> wait: it is left alone, and not counted as done
"""

from __future__ import annotations

import datetime
import json
import os
import secrets
import shlex
import socket
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from src.config.hydra_compat import Composed
from src.config.run_key import run_key, run_name, sweep_folder
from src.config.schema import Config
from src.files import write_atomic
from src.sweeps.state import record_of, state_of
from src.training.run_record import now

ACTIONS = {
    "new": "run",
    "other": "run",
    "done": "skip",
    "stopped": "resume",
    "interrupted": "resume",
    "failed": "retry",
    "running": "wait",
}


@dataclass(frozen=True)
class Job:
    """One job of a sweep.

    words: its whole command line; label: those of them that tell it from the other jobs.
    """

    words: list[str]
    label: str
    config: Config
    name: str
    key: str
    folder: Path
    action: str

    @property
    def to_do(self) -> bool:
        """Whether there is something to do for this sweep."""
        return self.action in ("run", "resume", "retry")


@dataclass(frozen=True)
class Plan:
    """The jobs of a sweep, each configuration once, and the words of those that came again."""

    jobs: list[Job]
    duplicates: list[str]

    @property
    def to_do(self) -> list[Job]:
        """The jobs that the sweep will start."""
        return [job for job in self.jobs if job.to_do]

    def in_words(self) -> str:
        """Return the plan in one line: `12 jobs: 3 done, 9 to do (7 to run, 1 to resume, 1 to retry), 2 duplicates`."""
        count = Counter(job.action for job in self.jobs)
        to_do = ", ".join(f"{count[action]} to {action}" for action in ("run", "resume", "retry") if count[action])
        parts = [f"{count['skip']} done", f"{len(self.to_do)} to do" + (f" ({to_do})" if to_do else "")]
        if count["wait"]:
            parts.append(f"{count['wait']} running in another process")
        parts.append(f"{len(self.duplicates)} duplicate{'' if len(self.duplicates) == 1 else 's'}")
        jobs = len(self.jobs) + len(self.duplicates)
        return f"{jobs} job{'' if jobs == 1 else 's'}: {', '.join(parts)}"

    def lines(self) -> list[str]:
        """Return the plan, a line a job: what is done about it, its words, its folder."""
        width = max((len(job.label) for job in self.jobs), default=0)
        found = [
            f"  {'done' if job.action == 'skip' else job.action:7} {job.label:{width}}  {job.folder}"
            for job in self.jobs
        ]
        return [self.in_words(), *found, *(f"  twice   {label}" for label in self.duplicates)]


def make_plan(composed: Sequence[Composed]) -> Plan:
    """Look at what lies in the jobs' folders, and say what follows."""
    shared = set(composed[0].words).intersection(*(job.words for job in composed)) if len(composed) > 1 else set()
    jobs: dict[tuple[str, str], Job] = {}
    duplicates = []
    for words, config in composed:
        label = " ".join(word for word in words if word not in shared) or " ".join(words) or "(no words)"
        name, key = run_name(config), run_key(config)
        if (name, key) in jobs:
            duplicates.append(label)
            continue
        folder = sweep_folder(config)
        jobs[name, key] = Job(words, label, config, name, key, folder, ACTIONS[state_of(folder, config).status])
    return Plan(list(jobs.values()), duplicates)


# ---- A sweep's own record: what it was asked, which jobs it has, how each ended, what was not run.

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
        write_atomic(self.path, json.dumps(self.entries, indent=2, ensure_ascii=False) + "\n")

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
