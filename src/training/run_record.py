"""Under SLURM: which job this is, and which run it was on when the queue took it back."""

from __future__ import annotations

import contextlib
import datetime
import functools
import json
import os
import platform
import secrets
import socket
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

from src.errors import UserError
from src.files import lock, to_json, write_atomic


def job() -> str | None:
    """Return the job's number as `scontrol` takes it, `<array>_<task>` for one of an array; None outside of SLURM."""
    array, task = os.environ.get("SLURM_ARRAY_JOB_ID"), os.environ.get("SLURM_ARRAY_TASK_ID")
    return f"{array}_{task}" if array and task else os.environ.get("SLURM_JOB_ID")


def run_before(runs: Path, words: Sequence[str]) -> Path | None:
    """Return the run that this command had begun before its job was put back into the queue, or None.

    Args:
        runs: where runs of this name lie.
        words: the command line, for a job may have several commands.
    """
    if job() is None or int(os.environ.get("SLURM_RESTART_COUNT") or 0) == 0:
        return None
    for path in sorted(runs.glob("*/run.json"), reverse=True):
        try:
            record = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            continue
        mine = record.get("slurm_job") == job() and record.get("overrides") == list(words)
        if mine and record["status"] != "failed":
            return path.parent
    return None


# ---- A run's folder and its record, run.json: who wrote it, from what, and how it ended.

FORMAT = 1
VERSIONS_OF = ("torch", "lightning", "hydra-core", "omegaconf", "tensorboard", "numpy")


def new_folder(parent: Path) -> Path:
    """Make and return a folder that was never used: `<date>_<time>_<id>` under `parent`.

    The id is random and the folder is made exclusively, so a thousand runs may start in one second.
    """
    parent.mkdir(parents=True, exist_ok=True)
    while True:
        folder = parent / f"{datetime.datetime.now():%Y-%m-%d_%H-%M-%S}_{secrets.token_hex(3)}"
        try:
            folder.mkdir()
        except FileExistsError:
            continue
        return folder


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold a run's folder for this process; the system lets go of it when the process ends, however it ends.

    Raises:
        UserError: another process trains in it.
    """
    with lock(folder / ".lock") as held:
        if not held:
            raise UserError(f"{folder}: another process is training in it; wait for it, or stop it first")
        yield


class Record:
    """run.json: plain JSON, replaced atomically at each change of status.

    Args:
        folder: the run's folder, which exists.
        entries: what is known at the start.
    """

    def __init__(self, folder: Path, entries: Mapping[str, Any]) -> None:
        self.folder = folder
        self.entries: dict[str, Any] = dict(entries)

    @classmethod
    def read(cls, folder: Path) -> Record:
        """Read the record of an existing run; OSError or ValueError where there is none."""
        entries = json.loads((folder / "run.json").read_text(encoding="utf-8"))
        if not isinstance(entries, dict) or "status" not in entries:
            raise ValueError("run.json is no record of a run: it has no status")
        return cls(folder, entries)

    def update(self, **entries: Any) -> None:
        """Change entries and write the file."""
        self.entries.update(entries)
        write_atomic(self.folder / "run.json", to_json(self.entries, indent=2) + "\n")


def provenance() -> dict[str, Any]:
    """Return what a reader needs to repeat a run: code, versions, machine, process."""
    return {
        "format": FORMAT,
        "started": now(),
        "finished": None,
        "process": {"pid": os.getpid(), "boot": boot_id(), "host": socket.gethostname()},
        "slurm_job": job(),
        "git": git_state(),
        "versions": {"python": platform.python_version(), **{name: _version(name) for name in VERSIONS_OF}},
        "machine": {"system": platform.platform(), "processor": processor(), "cores": os.cpu_count()},
    }


def now() -> str:
    """Return the time of day with its zone, to the second."""
    return datetime.datetime.now().astimezone().isoformat(timespec="seconds")


def boot_id() -> str:
    """Return what distinguishes this start of the machine from others: a process id means nothing after a reboot."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""


@functools.cache
def processor() -> str:
    """Return the processor's name where the system tells it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next(
        (line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.processor()
    )


@functools.cache  # of the code that this process has loaded
def git_state() -> dict[str, Any]:
    """Return the commit of the source tree and whether it differs from it; None for both where git cannot say."""
    root = Path(__file__).resolve().parents[2]
    try:
        # One process for both: the branch header names the commit, every further line is a change.
        status = subprocess.run(
            ["git", "-C", str(root), "status", "--porcelain=v2", "--branch", "--untracked-files=no"],
            capture_output=True, text=True, timeout=5, check=True,
        ).stdout.splitlines()  # fmt: skip
    except (OSError, subprocess.SubprocessError):
        return {"commit": None, "dirty": None}
    commit = next((line.split()[-1] for line in status if line.startswith("# branch.oid")), None)
    return {"commit": commit, "dirty": any(not line.startswith("#") for line in status)}


@functools.cache
def _version(distribution: str) -> str | None:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None
