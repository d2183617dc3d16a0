"""A run's folder and its record, run.json: what was run, where and from which code, and how it ended."""

from __future__ import annotations

import contextlib
import datetime
import functools
import os
import platform
import re
import secrets
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

from src.errors import UserError
from src.files import DISK_FULL, NO_FOLDER, lock, read_json, this_process, to_json, write_json

FORMAT = 1
VERSIONS_OF = ("torch", "lightning", "hydra-core", "omegaconf", "tensorboard", "numpy")


def new_folder(parent: Path) -> Path:
    """Make a new folder `<date>_<time>_<random id>`, exclusively: a thousand runs may start in one second."""
    parent.mkdir(parents=True, exist_ok=True)
    while True:
        folder = parent / f"{datetime.datetime.now():%Y-%m-%d_%H-%M-%S}_{secrets.token_hex(3)}"
        with contextlib.suppress(FileExistsError):
            folder.mkdir()
            return folder


class Busy(UserError):
    """Another process is training the run."""


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold a run's folder for this process, until its end at most; Busy if another process trains in it."""
    refuse_links(folder)
    with contextlib.nullcontext(True) if folder == NO_FOLDER else lock(folder / ".lock") as held:
        if not held:
            raise Busy(f"{folder}: another process is training in it; wait for it, or stop it first")
        yield


def refuse_links(folder: Path) -> None:
    """Raise UserError for a symbolic link in a folder that may be somebody else's: we would write through it."""
    for path in folder.rglob("*"):
        if path.is_symlink():
            raise UserError(f"{path} is a symbolic link, and writing would follow it; replace it by a copy")


class Record:
    """run.json in a run's folder: plain JSON, replaced atomically at each change of status; NO_FOLDER has none."""

    def __init__(self, folder: Path, entries: Mapping[str, Any]) -> None:
        self.folder = folder
        self.entries: dict[str, Any] = dict(entries)

    @classmethod
    def read(cls, folder: Path) -> Record:
        entries = read_json(folder / "run.json")
        if not isinstance(entries, dict) or "status" not in entries:
            raise ValueError("run.json is not the record of a run: it has no status")
        return cls(folder, entries)

    def update(self, **entries: Any) -> None:
        self.entries.update(entries)
        if self.folder == NO_FOLDER:
            return
        try:
            write_json(self.folder / "run.json", self.entries)
        except OSError as error:
            if error.errno not in DISK_FULL or not (self.folder / "run.json").exists():
                raise
            with (self.folder / "run.json").open("r+b") as file:  # in the space that the old record has
                file.truncate(file.write(f"{to_json(self.entries)}\n".encode()))


def provenance() -> dict[str, Any]:
    """Return what a reader needs to repeat a run: code, versions, machine, process."""
    return {
        "format": FORMAT, "started": now(), "finished": None, "process": this_process(), "slurm_job": slurm_job(),
        "git": git_state(),
        "versions": {"python": platform.python_version(), **{name: metadata.version(name) for name in VERSIONS_OF}},
        "machine": {"system": platform.platform(), "processor": processor(), "cores": os.cpu_count()},
    }  # fmt: skip


def now() -> str:
    """Return the local time with its zone, to the second."""
    return datetime.datetime.now().astimezone().isoformat(timespec="seconds")


@functools.cache
def processor() -> str:
    """Return the processor's name."""
    path = Path("/proc/cpuinfo")
    found = re.search(r"model name\s*:(.*)", path.read_text()) if path.exists() else None
    return found[1].strip() if found else platform.processor()


@functools.cache  # of the code that this process has loaded
def git_state() -> dict[str, Any]:
    """Return the commit of the source tree and whether it differs from it; None for both if git cannot tell."""
    # One process for both: the branch header names the commit, every further line is a change.
    command = ["git", "-C", str(Path(__file__).parent), "status", "--porcelain=v2", "--branch", "--untracked-files=no"]
    try:
        status = subprocess.run(command, capture_output=True, text=True, timeout=5, check=True).stdout.splitlines()
    except (OSError, subprocess.SubprocessError):
        return {"commit": None, "dirty": None}
    commit = next((line.split()[-1] for line in status if line.startswith("# branch.oid")), None)
    return {"commit": commit, "dirty": any(not line.startswith("#") for line in status)}


def slurm_job() -> str | None:
    """Return the job's number as `scontrol` takes it, `<array>_<task>` in an array; None outside of SLURM."""
    array, task = os.environ.get("SLURM_ARRAY_JOB_ID"), os.environ.get("SLURM_ARRAY_TASK_ID")
    return f"{array}_{task}" if array and task else os.environ.get("SLURM_JOB_ID")


def run_before(runs: Path, command_line: Sequence[str]) -> Path | None:
    """Return the run below `runs` that this command had begun before SLURM put its job back into the queue, or None."""
    if slurm_job() is None or int(os.environ.get("SLURM_RESTART_COUNT") or 0) == 0:
        return None
    for path in sorted(runs.glob("*/run.json"), reverse=True):
        with contextlib.suppress(OSError, ValueError):
            entries = Record.read(path.parent).entries
            own = (entries.get("slurm_job"), entries.get("overrides")) == (slurm_job(), list(command_line))
            if own and entries["status"] != "failed":
                return path.parent
    return None
