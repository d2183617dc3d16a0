"""What a keyed folder holds: nothing, a finished run, one that was interrupted, one that failed, one that runs now."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import socket
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from src.config.run_key import what_matters
from src.config.schema import Config, from_plain
from src.training.run_record import boot_id, new_folder

LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # ten times as fast; a sweep may have a thousand jobs
SILENT = 15 * 60  # seconds: a run writes a checkpoint every five minutes; one of another machine that does not is gone


@dataclass(frozen=True)
class State:
    """What a keyed folder holds.

    `status`: new (nothing there), done, failed, stopped (it was asked to), interrupted (it says running, but its
    process is gone), running, other (a run of another configuration, or no run at all).
    """

    status: str
    record: dict[str, Any] = field(default_factory=dict)


def state_of(folder: Path, config: Config) -> State:
    """Return what the folder of a job holds; the stored configuration is compared before a run is taken for the job's.

    Args:
        folder: the job's keyed folder.
        config: the job's whole configuration.
    """
    if not folder.exists():
        return State("new")
    record = record_of(folder)
    status = record.get("status")
    if status == "running":
        status = "interrupted" if is_gone(record, folder) else "running"
    if status not in ("done", "failed", "stopped", "interrupted", "running") or not same(folder, config):
        return State("running" if status == "running" else "other", record)
    return State(status, record)


def record_of(folder: Path) -> dict[str, Any]:
    """Return a folder's run.json; nothing where it is missing or unreadable."""
    try:
        record = json.loads((folder / "run.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return record if isinstance(record, dict) else {}


def same(folder: Path, config: Config) -> bool:
    """Whether the stored configuration is the job's in everything that can change the result."""
    try:
        stored = yaml.load((folder / "config.yaml").read_text(encoding="utf-8"), Loader=LOADER)
        mine, theirs = what_matters(config), what_matters(from_plain(stored))
    except (OSError, yaml.YAMLError, TypeError, AttributeError, KeyError):
        return False
    if mine.get("seed") is None:  # drawn by the run, which stores what it drew
        mine.pop("seed", None)
        theirs.pop("seed", None)
    return mine == theirs


def is_gone(record: Mapping[str, Any], folder: Path) -> bool:
    """Whether the process that a record names trains no more.

    Here: another boot, no such process, or one that does not hold the run's lock (the number was given to another).
    Here under another name, as in a container: the lock alone, for its numbers of processes are others too.
    On another machine: it holds no lock, and nothing in its folder has changed for a quarter of an hour.
    """
    process = record.get("process") or {}
    boot = boot_id()
    if process.get("host") == socket.gethostname():
        return process.get("boot") != boot or not is_alive(process.get("pid")) or is_unlocked(folder)
    if boot and process.get("boot") == boot:
        return is_unlocked(folder)
    return is_unlocked(folder) and time.time() - last_change(folder) > SILENT


def is_alive(pid: Any) -> bool:
    """Whether there is a process of this number here."""
    try:
        os.kill(int(pid), 0)
    except (ProcessLookupError, TypeError, ValueError):
        return False
    except PermissionError:
        return True
    return True


def is_unlocked(folder: Path) -> bool:
    """Whether no process holds the run's lock; False where that cannot be known."""
    path = folder / ".lock"
    if not path.exists():
        return False
    try:
        with path.open("r+") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def last_change(folder: Path) -> float:
    """Return when something in a run's folder was last written, in seconds since the epoch."""
    times = [entry.stat().st_mtime for entry in (*folder.iterdir(), *folder.glob("checkpoints/*"))]
    return max(times, default=folder.stat().st_mtime)


# ---- Moving an old attempt out of a job's keyed folder, and holding a job for one process at a time.


def move_aside(folder: Path) -> Path:
    """Move a folder to `.earlier/<its key>/<date>_<time>_<id>` beside it, whole, and return where it lies now.

    The name begins with a dot, so that neither a report nor the next sweep takes it for a run of the sweep.
    """
    place = new_folder(folder.parent / ".earlier" / folder.name)
    os.replace(folder, place)  # onto an empty folder: one step, nothing is copied, nothing can be half there
    return place


@contextlib.contextmanager
def claimed(folder: Path) -> Iterator[bool]:
    """Hold a job for this process; yield False where another process holds it.

    The system lets go when the process ends, however it ends. Where the file system knows no locks, nobody holds any.
    """
    locks = folder.parent / ".locks"
    locks.mkdir(parents=True, exist_ok=True)
    with (locks / folder.name).open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            yield error.errno not in (errno.EWOULDBLOCK, errno.EACCES)
        else:
            yield True
