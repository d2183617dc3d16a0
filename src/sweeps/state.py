"""What the folder of a job holds: nothing, a finished run, an interrupted one, a failed one, one that runs now."""

from __future__ import annotations

import contextlib
import os
import socket
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from src.config.run_key import what_matters
from src.config.schema import Config, from_plain
from src.files import is_alive, lock, read_json
from src.training.run_record import boot_id, new_folder

LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # ten times as fast; a sweep may have a thousand jobs
SILENT = 15 * 60  # seconds: a run writes a checkpoint every five minutes


def status_of(folder: Path, config: Config) -> str:
    """Return the status of a job.

    new (no folder), done, failed, stopped (by a signal), interrupted (its record says running, but its process is
    gone), running, other (no run, or a run whose stored configuration differs in what can change the result).
    """
    if not folder.exists():
        return "new"
    status = ended_status(record_of(folder), folder)
    known = status in ("done", "failed", "stopped", "interrupted") and has_configuration(folder, config)
    return status if known or status == "running" else "other"


def ended_status(record: Mapping[str, Any], folder: Path) -> str:
    """Return the status in a record: `interrupted` if its process is gone, `not run` without one."""
    status = str(record.get("status", "not run"))
    return "interrupted" if status == "running" and is_gone(record, folder) else status


def record_of(folder: Path) -> dict[str, Any]:
    """Return a folder's run.json; an empty dict where it is missing or unreadable."""
    try:
        record = read_json(folder / "run.json")
    except (OSError, ValueError):
        return {}
    return record if isinstance(record, dict) else {}


def has_configuration(folder: Path, config: Config) -> bool:
    """Whether a folder's stored configuration equals the given one in everything that can change the result."""
    try:
        stored = yaml.load((folder / "config.yaml").read_text(encoding="utf-8"), Loader=LOADER)
        given, found = what_matters(config), what_matters(from_plain(stored))
    except (OSError, yaml.YAMLError, TypeError, AttributeError, KeyError):
        return False
    if given.get("seed") is None:  # the run drew a seed and stored it
        found["seed"] = None
    return given == found


def this_process() -> dict[str, Any]:
    """Return what identifies this process."""
    return {"pid": os.getpid(), "boot": boot_id(), "host": socket.gethostname()}


def process_ended(process: Mapping[str, Any]) -> bool:
    """Whether a process of this machine has ended; one of another machine cannot be seen and counts as running."""
    if process.get("host") != socket.gethostname():
        return False
    return process.get("boot") != boot_id() or not is_alive(process.get("pid"))


def is_gone(record: Mapping[str, Any], folder: Path) -> bool:
    """Whether the process in a run's record trains no more.

    On this machine: it has ended, or it does not hold the run's lock (its number was given to another process). In a
    container of this machine, whose process numbers differ: the lock alone decides. On another machine: it holds no
    lock, and nothing in the folder has changed for a quarter of an hour.
    """
    process = record.get("process") or {}
    if process_ended(process):
        return True
    if process.get("host") == socket.gethostname() or (boot_id() and process.get("boot") == boot_id()):
        return is_unlocked(folder)
    return is_unlocked(folder) and time.time() - max(path.stat().st_mtime for path in folder.rglob("*")) > SILENT


def is_unlocked(folder: Path) -> bool:
    """Whether no process holds the run's lock; False where that cannot be known."""
    if not (path := folder / ".lock").exists():
        return False
    try:
        with lock(path) as free, lock(path) as twice:  # twice: this file system has no locks
            return free and not twice
    except OSError:  # another user's
        return False


def archive(folder: Path) -> Path:
    """Move a job's folder to `.earlier/<key>/<date>_<time>_<id>` beside it and return its new path.

    The leading dot keeps reports and later sweeps from reading it as a run of the sweep.
    """
    target = new_folder(folder.parent / ".earlier" / folder.name)
    os.replace(folder, target)  # onto an empty folder, in one step
    return target


@contextlib.contextmanager
def claim(folder: Path) -> Iterator[bool]:
    """Reserve a job for this process; yield False if another process has it."""
    locks = folder.parent / ".locks"
    locks.mkdir(parents=True, exist_ok=True)
    with lock(locks / folder.name) as mine:
        yield mine
