"""Stored runs as data: `runs(path)` has one row a run, `curves(path)` one row a validation.

frame = runs("runs/sweeps/depth")
frame[frame.status == "done"].groupby("model.num_layers")["val/cross_entropy"].agg(["mean", "std"])
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from src.config.schema import NO_RUNS, flatten
from src.errors import UserError
from src.files import parse_json, parse_yaml, process_ended, read_text, user_path

if TYPE_CHECKING:
    from pandas import DataFrame

FORMAT = 1
STATUSES = ("done", "failed", "stopped", "running")
COSTS = ("parameters", "steps", "characters", "seconds")
RUN_NUMBERS = (*COSTS, "epochs")  # numbers of run.json itself
POSITION = ("step", "epoch", "characters", "seconds")  # where in training a line of metrics.jsonl was written
TRACES = {"checkpoints", "metrics.jsonl", "train.log"}  # with one of these and config.yaml a folder is a run

Value = str | int | float | None
Settings = dict[str, Value]
Paths = str | Path | Iterable[str | Path]


@dataclass
class Run:
    """A run's folder; `status`: one of STATUSES, interrupted (its process is gone), pruned (a search) or unreadable."""

    folder: Path
    status: str = "unreadable"
    problem: str = ""
    record: dict[str, Any] = field(default_factory=dict)  # run.json
    settings: Settings = field(default_factory=dict)  # the configuration by dotted key
    curve: list[dict[str, Any]] = field(default_factory=list)  # the lines of metrics.jsonl by step
    evaluations: dict[str, dict[str, Any]] = field(default_factory=dict)  # evaluation_<split>.json by split

    @property
    def seed(self) -> int | None:
        """The recorded seed (drawn at random where the configuration had none)."""
        seeds = (self.record.get("seed"), self.settings.get("seed"))
        return next((seed for seed in seeds if isinstance(seed, int)), None)

    @cached_property
    def numbers(self) -> dict[str, float]:
        """Every number by its column in `runs`; a final value is that of run.json, else of the last line with it."""
        metrics = mapping(self.record.get("metrics"))
        best = mapping(metrics.get("best"))
        at_best = next((line for line in self.curve if line["step"] == best.get("step")), {})
        at_best = {**at_best, **best, str(best.get("monitor")): best.get("value")}
        found = {name: value for line in self.curve for name, value in line.items() if name not in POSITION}
        found |= {**mapping(metrics.get("final")), **{name: self.record.get(name) for name in RUN_NUMBERS}}
        found |= {f"best/{name}": value for name, value in at_best.items() if "/" in name}
        for split, evaluation in self.evaluations.items():
            found |= {f"evaluation/{split}/{name}": value for name, value in evaluation.items()}
        return {name: value for name, given in found.items() if (value := number(given)) is not None}


def runs(path: Paths) -> DataFrame:
    """Return one row for each run at or below one or several paths, sorted by folder; UserError if one holds no run.

    Columns: `folder`, `status`, `problem`, `seed`, `started`; the configuration by dotted key as on the command line
    (`model`, `model.hidden_size`); final metrics by their name (`val/cross_entropy`, nats per character), those at the
    best checkpoint as `best/<name>`, of an evaluation as `evaluation/<split>/<name>`, baselines as `baseline/<name>`
    (bits per character); `parameters`, `steps`, `characters`, `epochs`, `seconds`.
    """
    from pandas import DataFrame

    rows = []
    for run in find_runs(path):
        about = {"folder": str(run.folder), "status": run.status, "problem": run.problem, "seed": run.seed}
        baselines = {f"baseline/{name}": bits for name, bits in mapping(run.record.get("baselines")).items()}
        rows.append({**about, "started": run.record.get("started"), **run.settings, **baselines, **run.numbers} | about)
    return DataFrame(rows)


def curves(path: Paths) -> DataFrame:
    """Return one row for each validation: `folder`, `seed`, `step`, `epoch`, `characters`, `seconds` and metrics."""
    from pandas import DataFrame

    lines = [{"folder": str(run.folder), "seed": run.seed, **line} for run in find_runs(path) for line in run.curve]
    return DataFrame(lines, columns=None if lines else ["folder", "seed", *POSITION])


def find_runs(paths: Paths) -> list[Run]:
    """Return every run at or below the paths, each once, sorted by folder; UserError names all paths without one."""
    errors: list[str] = []
    found: dict[str, Path] = {}  # by real path
    for given in [paths] if isinstance(paths, str | Path) else paths:
        unread: list[OSError] = []
        below = list(run_folders(user_path(given), unread.append))
        errors += [f"{error.filename} cannot be read: {error.strerror}" for error in unread]
        if not below and not unread:
            errors.append(f"no run below {given}: none of its folders has a run.json (python -m src.train makes one)")
        found = {os.path.realpath(path): path for path in below} | found
    if errors:
        raise UserError(*errors)
    return [read_run(path) for path in sorted(found.values(), key=str)]


def run_folders(place: Path, onerror: Callable[[OSError], None] | None = None) -> Iterator[Path]:
    """Yield the folder of each run at or below a folder; `onerror` gets a folder that cannot be read."""
    for folder, folders, files in os.walk(place, onerror=onerror):
        if "run.json" in files or ("config.yaml" in files and TRACES.intersection(folders + files)):
            yield Path(folder)
        folders[:] = [name for name in folders if name not in NO_RUNS and not name.startswith(".")]


def read_run(folder: Path) -> Run:
    """Read one run folder; what is wrong with it becomes its `problem`."""
    record, problem = _read(folder / "run.json", parse_json)
    settings, config_problem = _read(folder / "config.yaml", lambda text: settings_of(mapping(parse_yaml(text))))
    points, curve_problem = _read(folder / "metrics.jsonl", _parse_lines)
    problem = problem or config_problem or (curve_problem if (folder / "metrics.jsonl").exists() else "")
    status = str(record.get("status"))
    if not problem and (status not in STATUSES or record.get("format", FORMAT) != FORMAT):
        problem = f"run.json has format {record.get('format')} and status {status}, this report reads format {FORMAT}"
    if problem:
        status = "unreadable"
    elif status == "stopped" and record.get("pruned") is True:
        status = "pruned"
    elif status == "running" and process_ended(mapping(record.get("process"))):
        status = "interrupted"
    settings |= {key: record[key] for key in ("experiment", "data", "model") if isinstance(record.get(key), str)}
    if settings.get("model") in ("manual", "lstm", "gru"):
        settings["model.single_bias"] = None  # not used: manual has one bias in any case, a gate needs both
    if isinstance(sha256 := mapping(record.get("data_provenance")).get("sha256"), str):
        settings["data.sha256"] = sha256[:12]  # files of one name may have different content
    files = sorted(folder.glob("evaluation_*.json"))
    evaluations = {file.stem.removeprefix("evaluation_"): _read(file, parse_json)[0] for file in files}
    own = (None, mapping(mapping(record.get("metrics")).get("best")).get("step"), record.get("steps"))
    evaluations = {name: one for name, one in evaluations.items() if status != "done" or one.get("step") in own}
    return Run(folder, status, problem, record, settings, points.get("lines", []), evaluations)


def _read(file: Path, parse: Callable[[str], Any]) -> tuple[dict[str, Any], str]:
    """Return what a file holds, and what is wrong with it; one of the two is empty."""
    try:
        content = parse(read_text(file, errors="replace"))
    except OSError as error:
        return {}, f"{file.name} cannot be read: {error.strerror}"
    except ValueError as error:
        return {}, f"{file.name} cannot be read: {' '.join(str(error).split())}"
    return (content, "") if isinstance(content, dict) and content else ({}, f"{file.name} holds no keys and values")


def settings_of(config: Mapping[str, Any]) -> Settings:
    """Return a configuration by the keys of the command line: `model` is `model.name`; lists and booleans are JSON."""
    flat: Settings = {}
    for key, value in flatten(config):
        if isinstance(value, bool) or not isinstance(value, str | int | float | None):
            value = json.dumps(value, ensure_ascii=False, default=str)
        flat[key.removesuffix(".name")] = value if value != "{}" else None
    return flat


def _parse_lines(text: str) -> dict[str, list[dict[str, Any]]]:
    """Return the lines of metrics.jsonl by step; one that a crash has cut is left out."""
    lines = []
    for line in text.splitlines():
        with suppress(ValueError):
            lines.append(parse_json(line))
    points = [line for line in lines if isinstance(line, dict) and isinstance(line.get("step"), int)]
    return {"lines": sorted(points, key=lambda point: point["step"])}


def number(value: Any) -> float | None:
    """Return a number as a float, and None for anything else (and for an integer beyond every float)."""
    with suppress(OverflowError):
        return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None
    return None


def mapping(value: Any) -> Mapping[str, Any]:
    """Return a mapping as it is and an empty one for anything else, such as a null of run.json."""
    return value if isinstance(value, Mapping) else {}
