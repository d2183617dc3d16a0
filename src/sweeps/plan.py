"""The plan of a sweep: each job's folder, what it holds, what the sweep does about it; and the sweep's own record."""

from __future__ import annotations

import datetime
import secrets
import shlex
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from src.config.hydra_compat import ComposedJob
from src.config.run_key import run_key, sweep_folder
from src.config.schema import Config
from src.errors import counted
from src.files import read_json, write_json
from src.sweeps.state import record_of, status_of, this_process
from src.training.run_record import now

ACTIONS = {
    "new": "run",
    "other": "run",  # after the folder was archived
    "done": "skip",
    "stopped": "resume",  # from the last checkpoint
    "interrupted": "resume",
    "failed": "retry",  # after the failed attempt was archived
    "running": "wait",  # another process trains it: left alone, and not counted as done
}
TO_DO = ("run", "resume", "retry")
FORMAT = 1


@dataclass(frozen=True)
class Job:
    """One job of a sweep; `label` is those of its overrides that not all jobs share."""

    overrides: list[str]
    label: str
    config: Config
    folder: Path
    action: str
    status: str = "not run"  # in its record, before the sweep

    @property
    def to_do(self) -> bool:
        """Whether the sweep starts it."""
        return self.action in TO_DO


@dataclass(frozen=True)
class Plan:
    """The jobs of a sweep, each configuration once, and the labels of repeated ones."""

    jobs: list[Job]
    duplicates: list[str]

    @property
    def to_do(self) -> list[Job]:
        """The jobs that the sweep starts."""
        return [job for job in self.jobs if job.to_do]

    def summary(self) -> str:
        """Return one line: `12 jobs: 3 done, 9 to do (7 to run, 1 to resume, 1 to retry), 2 duplicates`."""
        count = Counter(job.action for job in self.jobs)
        to_do = ", ".join(f"{count[action]} to {action}" for action in TO_DO if count[action])
        parts = [f"{count['skip']} done", f"{len(self.to_do)} to do" + (f" ({to_do})" if to_do else "")]
        if count["wait"]:
            parts.append(f"{count['wait']} running in another process")
        parts.append(counted(len(self.duplicates), "duplicates"))
        return f"{counted(len(self.jobs) + len(self.duplicates), 'jobs')}: {', '.join(parts)}"

    def lines(self) -> list[str]:
        """Return the whole plan: the summary, then action, label and folder of each job."""
        width = max((len(job.label) for job in self.jobs), default=0)
        jobs = [f"  {job.action.replace('skip', 'done'):7} {job.label:{width}}  {job.folder}" for job in self.jobs]
        return [self.summary(), *jobs, *(f"  twice   {label}" for label in self.duplicates)]


def make_plan(composed: Sequence[ComposedJob]) -> Plan:
    """Look at the folder of each job and plan what to do about it."""
    shared = set(composed[0].overrides).intersection(*(job.overrides for job in composed))
    jobs: dict[tuple[str, str], Job] = {}
    duplicates = []
    for overrides, config in composed:
        label = " ".join(one for one in overrides if one not in shared) or " ".join(overrides) or "(no overrides)"
        key = config.run_name, run_key(config)
        if key in jobs:
            duplicates.append(label)
            continue
        folder = sweep_folder(config)
        status = str(record_of(folder).get("status", "not run"))
        jobs[key] = Job(overrides, label, config, folder, ACTIONS[status_of(folder, config)], status)
    return Plan(list(jobs.values()), duplicates)


class SweepRecord:
    """`runs/sweeps/<date>_<time>_<id>.json`, replaced atomically.

    `status`: running, stopping (no further job is started), done (all jobs are), incomplete, stopped.
    Each job: label, folder, planned action, and status: done, failed, stopped, interrupted, running, not run.

    Args:
        folder: runs/sweeps.
        command: the sweep's command line.
        plan: its jobs.
    """

    def __init__(self, folder: Path, command: Sequence[str], plan: Plan) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.path = folder.resolve() / f"{datetime.datetime.now():%Y-%m-%d_%H-%M-%S}_{secrets.token_hex(3)}.json"
        self.entries: dict[str, Any] = {
            "format": FORMAT,
            "status": "running",
            "command": shlex.join(command),
            "started": now(),
            "finished": None,
            "process": this_process(),
            "plan": plan.summary(),
            "jobs": [
                {"words": job.label, "folder": str(job.folder), "plan": job.action, "status": job.status}
                for job in plan.jobs
            ],
        }
        self.write("running")

    def write(self, status: str) -> None:
        """Write the file with this status."""
        self.entries["status"] = status
        write_json(self.path, self.entries)

    def finish(self, status: str, statuses: Sequence[str]) -> None:
        """Write how the sweep and each of its jobs ended."""
        for entry, ended in zip(self.entries["jobs"], statuses, strict=True):
            entry["status"] = ended
        self.entries["not_run"] = [entry["words"] for entry in self.entries["jobs"] if entry["status"] == "not run"]
        self.entries["finished"] = now()
        self.write(status)


def is_stopping(record: Path) -> bool:
    """Whether the sweep of this record is being stopped; workers read it before each job."""
    try:
        return bool(read_json(record)["status"] == "stopping")
    except (OSError, ValueError, KeyError):
        return False  # a worker on another machine may not see the file
