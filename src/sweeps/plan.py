"""The plan of a sweep: each job's status and action; and the sweep's own record."""

from __future__ import annotations

import contextlib
import datetime
import os
import secrets
import shlex
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from src.config.hydra_compat import ComposedJob
from src.config.run_key import run_key, sweep_folder, what_matters
from src.config.schema import Config, from_plain
from src.errors import counted
from src.files import boot_id, lock, process_ended, read_json, read_yaml, this_process, write_json
from src.training.run_record import Record, new_folder, now

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
SILENT = 15 * 60  # seconds: a run writes a checkpoint every five minutes


@dataclass(frozen=True)
class Job:
    """One job of a sweep; `label` is those of its overrides that not all jobs share."""

    overrides: list[str]
    label: str
    config: Config
    key: str
    folder: Path
    action: str


@dataclass(frozen=True)
class Plan:
    """The jobs of a sweep, each configuration once, and the labels of repeated ones."""

    jobs: list[Job]
    duplicates: list[str]

    @property
    def to_do(self) -> list[Job]:
        return [job for job in self.jobs if job.action in TO_DO]

    def summary(self) -> str:
        """Return one line: `12 jobs: 3 done, 9 to do (7 to run, 1 to resume, 1 to retry), 2 duplicates`."""
        count = Counter(job.action for job in self.jobs)
        to_do = ", ".join(f"{count[action]} to {action}" for action in TO_DO if count[action])
        parts = [f"{count['skip']} done", f"{len(self.to_do)} to do" + (f" ({to_do})" if to_do else "")]
        parts += [f"{count['wait']} running in another process"] * (count["wait"] > 0)
        parts.append(counted(len(self.duplicates), "duplicates"))
        return f"{counted(len(self.jobs) + len(self.duplicates), 'jobs')}: {', '.join(parts)}"

    def lines(self) -> list[str]:
        """Return the whole plan: the summary, then action, label and folder of each job."""
        width = max((len(job.label) for job in self.jobs), default=0)
        jobs = [f"  {job.action.replace('skip', 'done'):7} {job.label:{width}}  {job.folder}" for job in self.jobs]
        return [self.summary(), *jobs, *(f"  twice   {label}" for label in self.duplicates)]

    def earlier_meaning(self) -> str | None:
        """Return a line about runs of the same overrides when these made another configuration; None without any."""
        new = {(job.folder.parent, tuple(job.overrides)) for job in self.jobs if job.action == "run"}
        folders = {folder for parent, _ in new if parent.is_dir() for folder in parent.iterdir()}
        runs = {folder for folder in folders if (folder.parent, tuple(record_of(folder).get("overrides", ()))) in new}
        if not runs:
            return None
        what = f"{counted(len(runs), 'runs')} with these overrides but another configuration"
        return f"{what}: left as they are, the jobs train in new folders (one of them: {min(runs)})"


def make_plan(composed: Sequence[ComposedJob]) -> Plan:
    """Look at the folder of each job and plan what to do about it."""
    shared = set(composed[0].overrides).intersection(*(job.overrides for job in composed))
    jobs: dict[tuple[str, str], Job] = {}
    duplicates = []
    for overrides, config in composed:
        differs = [one for one in overrides if one not in shared]
        label = " ".join(differs) or " ".join(overrides) or "(no overrides)"
        key = config.run_name, run_key(config)
        if key in jobs:
            duplicates.append(label)
            continue
        folder = sweep_folder(config, differs)
        jobs[key] = Job(overrides, label, config, key[1], folder, ACTIONS[status_of(folder, config)])
    return Plan(list(jobs.values()), duplicates)


def status_of(folder: Path, config: Config) -> str:
    """Return the status of a job, a key of ACTIONS; `other` is no run, or one with other settings."""
    if not folder.exists():
        return "new"
    status = ended_status(record_of(folder), folder)
    return status if status == "running" or (status in ACTIONS and has_configuration(folder, config)) else "other"


def ended_status(record: Mapping[str, Any], folder: Path) -> str:
    """Return the status in a record: `interrupted` if its process is gone, `not run` without one."""
    status = str(record.get("status", "not run"))
    return "interrupted" if status == "running" and is_gone(record, folder) else status


def record_of(folder: Path) -> dict[str, Any]:
    """Return a folder's run.json; an empty dict where it is missing or unreadable."""
    with contextlib.suppress(OSError, ValueError):
        return Record.read(folder).entries
    return {}


def has_configuration(folder: Path, config: Config) -> bool:
    """Whether a folder's stored configuration equals the given one in everything that can change the result."""
    try:
        made: Config = from_plain(read_yaml(folder / "config.yaml"))
        chosen = (config, made, "seed"), *((config.data, made.data, key) for key in ("seq_len", "batch_size"))
        for given, found, key in chosen:
            if getattr(given, key) is None:  # the run drew a seed, or chose windows that fit its text, and stored it
                setattr(found, key, None)
        made.chosen = config.chosen  # a budget may choose more keys by now
        return what_matters(config) == what_matters(made)
    except (OSError, ValueError, TypeError, AttributeError, KeyError):
        return False


def is_gone(record: Mapping[str, Any], folder: Path) -> bool:
    """Whether the process in a run's record trains no more: it has ended, or it holds no lock on the run.

    The lock decides, for a process number may be in use again. A run of another machine must be silent, too.
    """
    process = record.get("process") or {}
    if process_ended(process):
        return True
    path, newest = folder / ".lock", 0.0
    if path.is_symlink() or not path.exists():
        return False
    if process.get("boot") != boot_id():
        for file in folder.rglob("*"):
            with contextlib.suppress(FileNotFoundError):  # a temporary file
                newest = max(newest, file.stat().st_mtime)
        if time.time() - newest <= SILENT:
            return False
    with lock(path) as free, lock(path) as twice:  # twice: this file system has no locks
        return free and not twice


def archive(folder: Path) -> Path:
    """Move a job's folder to `.earlier/<key>/<date>_<time>_<id>` beside it, which reports skip; return its new path."""
    target = new_folder(folder.parent / ".earlier" / folder.name)
    os.replace(folder, target)  # onto an empty folder, in one step
    return target


def claim(parent: Path, key: str) -> AbstractContextManager[bool]:
    """Reserve a job for this process; the context is False if another process has it."""
    locks = parent / ".locks"
    locks.mkdir(parents=True, exist_ok=True)
    return lock(locks / key)


class SweepRecord:
    """`runs/sweeps/<date>_<time>_<id>.json`, replaced atomically.

    `status`: running, stopping (no further job is started), done (all jobs are), incomplete, stopped.
    Each job: label, folder, planned action, and status: done, failed, stopped, interrupted, running, not run.
    """

    def __init__(self, folder: Path, command: Sequence[str], plan: Plan) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.path = folder.resolve() / f"{datetime.datetime.now():%Y-%m-%d_%H-%M-%S}_{secrets.token_hex(3)}.json"
        jobs = [{"words": job.label, "folder": str(job.folder), "plan": job.action} for job in plan.jobs]
        self.entries: dict[str, Any] = {"format": 1, "status": "running", "command": shlex.join(command)}
        self.entries |= {"started": now(), "finished": None, "process": this_process()}
        self.entries |= {"plan": plan.summary(), "jobs": jobs}
        self.update([record_of(job.folder).get("status", "not run") for job in plan.jobs])

    def update(self, statuses: Sequence[str] = (), **entries: Any) -> None:
        """Change entries, and the status of each job where given, and write the file."""
        for job, status in zip(self.entries["jobs"], statuses, strict=False):
            job["status"] = status
        self.entries |= entries
        write_json(self.path, self.entries)


def stop_further_jobs(record: Path) -> None:
    """Mark a sweep as stopping, from the process of one of its jobs."""
    with contextlib.suppress(OSError, ValueError):  # a worker on another machine may not see the file
        write_json(record, read_json(record) | {"status": "stopping"})


def is_stopping(record: Path) -> bool:
    """Whether the sweep of this record is being stopped, or was; workers read it before each job."""
    try:
        return read_json(record)["status"] in ("stopping", "stopped")
    except (OSError, ValueError, KeyError):
        return False  # a worker on another machine may not see the file
