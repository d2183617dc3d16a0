"""Find runs below a path and read what they left: never raises, never drops one that cannot be read."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml

from src.reports import plain_yaml
from src.reports.mistake import UserError, nearest
from src.reports.settings import Settings, flatten

FORMAT = 1
STATUSES = ("done", "failed", "stopped", "running")
LAST_STEP = 2**53  # beyond it a float does not tell steps apart
# Folders inside a run or beside it that hold no runs and may be large.
_NOT_ENTERED = {"checkpoints", "figures", "__pycache__", "node_modules"}
# A folder with one of these and a config.yaml was meant to be a run, even if its record is gone.
_TRACES = {"checkpoints", "metrics.jsonl", "train.log"}


@dataclass
class Run:
    """What one run folder says.

    `status` is one of STATUSES; or `pruned`, stopped by the study it is a trial of; or `interrupted`, or `unreadable`
    with a `problem`.
    """

    folder: Path
    status: str
    record: dict[str, Any] = field(default_factory=dict)
    settings: Settings = field(default_factory=dict)
    problem: str = ""
    evaluations: tuple[str, ...] = ()  # the splits that have an evaluation_<split>.json
    _read: dict[str, dict[str, Any]] = field(default_factory=dict, repr=False)

    @property
    def seed(self) -> int | None:
        """The recorded seed (drawn where the configuration had none)."""
        for seed in (self.record.get("seed"), self.settings.get("seed")):
            if isinstance(seed, int) and not isinstance(seed, bool):
                return seed
        return None

    def evaluation(self, split: str) -> dict[str, Any]:
        """evaluation_<split>.json; empty where it is missing or cannot be read."""
        if split not in self._read:
            try:
                content = json.loads((self.folder / f"evaluation_{split}.json").read_text(encoding="utf-8"))
            except (OSError, ValueError, RecursionError):
                content = None
            self._read[split] = content if isinstance(content, dict) else {}
        return self._read[split]

    @cached_property
    def curve(self) -> list[dict[str, Any]]:
        """The lines of metrics.jsonl, by step; a line cut short by a crash is left out."""
        lines: list[dict[str, Any]] = []
        try:
            text = (self.folder / "metrics.jsonl").read_text(encoding="utf-8", errors="replace")
        except OSError:
            return []
        for line in text.splitlines():
            try:
                point = json.loads(line)
            except (ValueError, RecursionError):
                continue
            if isinstance(point, dict) and isinstance(step := point.get("step"), int) and abs(step) < LAST_STEP:
                lines.append(point)
        return sorted(lines, key=lambda point: point["step"])


def find_runs(paths: Sequence[str]) -> list[Run]:
    """Every run at or below `paths`, each once, sorted by folder.

    Raises UserError with a line for each path that does not exist or holds no run.
    """
    mistakes: list[str] = []
    found: dict[str, Path] = {}
    blocked: dict[str, Run] = {}
    for given in paths:
        path = Path(given)
        if path.name == "run.json" and path.is_file():
            path = path.parent
        if not path.exists():
            mistakes.append(f"{given} does not exist{_nearest_sibling(path)}")
            continue
        if not path.is_dir():
            mistakes.append(f"{given} is a file; a run's folder, or one with runs below it, was expected")
            continue
        unreadable: list[OSError] = []
        folders = list(_run_folders(path, unreadable))
        for error in unreadable:
            folder = Path(error.filename)
            blocked[os.path.realpath(folder)] = Run(folder, "unreadable", problem=f"{error.strerror}")
        if not folders and not unreadable:
            mistakes.append(f"no run below {given}: none of its folders has a run.json (python -m src.train makes one)")
        for folder in folders:
            found.setdefault(os.path.realpath(folder), folder)
    if mistakes:
        raise UserError(*mistakes)
    runs = [read_run(folder) for folder in found.values()] + list(blocked.values())
    return sorted(runs, key=lambda run: str(run.folder))


def _nearest_sibling(path: Path) -> str:
    """`; did you mean X?` by the entries of the last folder of `path` that exists."""
    while not path.parent.exists():
        path = path.parent
    try:
        close = nearest(path.name, [entry.name for entry in path.parent.iterdir() if entry.is_dir()])
    except OSError:
        close = None
    return f"; did you mean {path.parent / close}?" if close else ""


def _run_folders(top: Path, unreadable: list[OSError]) -> Iterator[Path]:
    for folder, folders, files in os.walk(top, onerror=unreadable.append):
        if "run.json" in files or ("config.yaml" in files and _TRACES.intersection(folders + files)):
            yield Path(folder)
        folders[:] = [name for name in folders if name not in _NOT_ENTERED and not name.startswith(".")]


def read_run(folder: Path) -> Run:
    """One run's record and settings; whatever is wrong with them becomes `status` unreadable and a `problem`."""
    try:
        record = json.loads((folder / "run.json").read_bytes())
    except FileNotFoundError:
        return Run(folder, "unreadable", problem="there is no run.json")
    except OSError as error:
        return Run(folder, "unreadable", problem=f"run.json: {error.strerror}")
    except (ValueError, RecursionError) as error:
        return Run(folder, "unreadable", problem=f"run.json is no JSON: {error}")
    if not isinstance(record, dict) or "status" not in record:
        return Run(folder, "unreadable", problem="run.json is not the record of a run: it has no status")
    problem = ""
    if record.get("format", FORMAT) != FORMAT:
        problem = f"run.json has format {record['format']}, this report reads format {FORMAT}"
    elif record["status"] not in STATUSES:
        problem = f"run.json has status {record['status']!r}; expected one of {', '.join(STATUSES)}"
    settings: Settings = {}
    try:
        text = (folder / "config.yaml").read_text(encoding="utf-8")
        settings = flatten(plain_yaml.parse(text))
    except FileNotFoundError:
        problem = problem or "there is no config.yaml"
    except OSError as error:
        problem = problem or f"config.yaml: {error.strerror}"
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        problem = problem or f"config.yaml cannot be read: {' '.join(str(error).split())}"
    for key in ("experiment", "data", "model"):
        if isinstance(record.get(key), str):
            settings[key] = record[key]
    evaluations = tuple(
        sorted(entry.name[len("evaluation_") : -len(".json")] for entry in folder.glob("evaluation_*.json"))
    )
    status = "unreadable" if problem else str(record["status"])
    if status == "stopped" and record.get("pruned") is True:
        status = "pruned"
    if status == "running" and process_is_gone(record.get("process")):
        status = "interrupted"
    return Run(folder, status, record, settings, problem, evaluations)


def process_is_gone(process: object) -> bool:
    """Whether the recorded process surely no longer runs: this host, and another boot or no such process id.

    A run of another machine, or one on a system without /proc, is believed when it says that it runs.
    """
    proc = Path("/proc")
    if not isinstance(process, dict) or process.get("host") != platform.node() or not (proc / "self").exists():
        return False
    boot = process.get("boot")
    try:
        now = (proc / "sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        now = None
    if boot and now and str(boot).strip() != now:
        return True
    pid = process.get("pid")
    return isinstance(pid, int) and not (proc / str(pid)).exists()
