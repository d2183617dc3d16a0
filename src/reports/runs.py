"""Stored runs as data: `runs(path)` has one row a run, `curves(path)` one row a validation.

    from src import curves, runs

    frame = runs("runs/sweeps/depth")
    frame[frame.status == "done"].groupby("model.num_layers")["val/cross_entropy"].agg(["mean", "std"])

Reading never raises for a damaged file and never drops a run: it becomes `status` unreadable with a `problem`.
pandas is imported by these two functions only.
"""

from __future__ import annotations

import json
import math
import os
import platform
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from src.config.schema import flatten
from src.errors import UserError, nearest
from src.files import is_alive, user_path

if TYPE_CHECKING:
    from pandas import DataFrame

FORMAT = 1
STATUSES = ("done", "failed", "stopped", "running")
SPLITS = ("train", "val", "test")
COSTS = ("parameters", "steps", "characters", "seconds")
RUN_NUMBERS = (*COSTS, "epochs")  # numbers of run.json itself
POSITION = ("step", "epoch", "characters", "seconds")  # where in training a line of metrics.jsonl was written
LARGEST_STEP = 2**53  # beyond it a float does not tell two steps apart
NOT_ENTERED = {"checkpoints", "figures", "__pycache__", "node_modules"}  # hold no runs and may be large
# A folder with a config.yaml and one of these was meant to be a run, even if it has no run.json.
TRACES = {"checkpoints", "metrics.jsonl", "train.log"}
LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # libyaml is ten times as fast; PyYAML may be built without it

Value = str | int | float | None
Settings = dict[str, Value]


@dataclass
class Run:
    """What one run folder holds.

    Args:
        folder: where it is.
        status: one of STATUSES; `interrupted` (recorded as running, but its process is gone), `pruned` (by its search)
            or `unreadable`.
        problem: why it is unreadable, or an empty text.
        record: run.json.
        settings: its configuration by dotted key, as `settings_of` makes it.
        curve: the lines of metrics.jsonl, by step.
        evaluations: evaluation_<split>.json by split; an empty dict for one that cannot be read.
        numbers: every number by column name, as `numbers_of` makes it.
    """

    folder: Path
    status: str = "unreadable"
    problem: str = ""
    record: dict[str, Any] = field(default_factory=dict, repr=False)
    settings: Settings = field(default_factory=dict, repr=False)
    curve: list[dict[str, Any]] = field(default_factory=list, repr=False)
    evaluations: dict[str, dict[str, Any]] = field(default_factory=dict, repr=False)
    numbers: dict[str, float] = field(default_factory=dict, repr=False)

    @property
    def seed(self) -> int | None:
        """The recorded seed (drawn at random where the configuration had none)."""
        seeds = (self.record.get("seed"), self.settings.get("seed"))
        return next((seed for seed in seeds if isinstance(seed, int)), None)


# -- for notebooks ----------------------------------------------------------------------------------------------------


def runs(path: str | Path | Iterable[str | Path]) -> DataFrame:
    """Return one row for each run at or below a path, or several paths, sorted by folder.

    Columns: `folder`, `status`, `problem`, `seed`, `started`; the configuration by dotted key as on the command line
    (`model`, `model.hidden_size`, `data.seq_len`); final metrics by their name (`val/cross_entropy`, nats), those of the
    best checkpoint as `best/<name>`, of an evaluation as `evaluation/<split>/<name>`, baselines as `baseline/<name>`
    (bits per character); `parameters`, `steps`, `characters`, `epochs`, `seconds`.

    Raises:
        UserError: a path does not exist or holds no run.
    """
    from pandas import DataFrame

    rows = []
    for run in find_runs(path):
        about = {"folder": str(run.folder), "status": run.status, "problem": run.problem, "seed": run.seed}
        baselines = {f"baseline/{name}": bits for name, bits in mapping(run.record.get("baselines")).items()}
        settings = {key: value for key, value in run.settings.items() if key not in about}
        rows.append({**about, "started": run.record.get("started"), **settings, **baselines, **run.numbers})
    return DataFrame(rows)


def curves(path: str | Path | Iterable[str | Path]) -> DataFrame:
    """Return one row for each validation of each run: `folder`, `seed`, `step`, `epoch`, `characters`, `seconds`, metrics.

    `runs(path).merge(curves(path), on=["folder", "seed"])` adds the configuration.

    Raises:
        UserError: a path does not exist or holds no run.
    """
    from pandas import DataFrame

    lines = [{"folder": str(run.folder), "seed": run.seed, **line} for run in find_runs(path) for line in run.curve]
    return DataFrame(lines, columns=None if lines else ["folder", "seed", *POSITION])


# -- finding ----------------------------------------------------------------------------------------------------------


def find_runs(paths: str | Path | Iterable[str | Path]) -> list[Run]:
    """Return every run at or below the paths, each once, sorted by folder.

    Raises:
        UserError: a message for each path that does not exist or holds no run.
    """
    errors: list[str] = []
    found: dict[str, Run] = {}
    for given in [paths] if isinstance(paths, str | Path) else paths:
        path = user_path(given)
        if path.name == "run.json" and path.is_file():
            path = path.parent
        if not path.exists():
            errors.append(f"{given} does not exist{_similar_folder(path)}")
            continue
        if not path.is_dir():
            errors.append(f"{given} is a file; give a run's folder, or a folder with runs below it")
            continue
        unreadable: list[OSError] = []
        below = dict.fromkeys(_run_folders(path, unreadable))
        blocked = {Path(error.filename): Run(Path(error.filename), problem=str(error.strerror)) for error in unreadable}
        if not below and not blocked:
            errors.append(f"no run below {given}: none of its folders has a run.json (python -m src.train makes one)")
        for folder, run in {**below, **blocked}.items():
            if (real := os.path.realpath(folder)) not in found:
                found[real] = run or read_run(folder)
    if errors:
        raise UserError(*errors)
    return sorted(found.values(), key=lambda run: str(run.folder))


def suggestion(name: str, known: Iterable[str]) -> str:
    """Return `; did you mean X?`, else the known names; `bits_per_char` finds `val/bits_per_character` too."""
    names = list(known)
    if close := nearest(name, names):
        return close
    last = {full.replace("/", ".").rpartition(".")[2]: full for full in reversed(names)}
    for tail, full in last.items():
        if nearest(name.replace("/", ".").rpartition(".")[2], [tail]):
            return f"; did you mean {full}?"
    return f"; known: {', '.join(names)}" if names else ""


def _similar_folder(path: Path) -> str:
    """Return `; did you mean X?` for the first part of the path that does not exist."""
    while not path.parent.exists():
        path = path.parent
    try:
        return nearest(str(path), [str(entry) for entry in path.parent.iterdir() if entry.is_dir()])
    except OSError:
        return ""


def _run_folders(top: Path, unreadable: list[OSError]) -> Iterator[Path]:
    for folder, folders, files in os.walk(top, onerror=unreadable.append):
        if "run.json" in files or ("config.yaml" in files and TRACES.intersection(folders + files)):
            yield Path(folder)
        folders[:] = [name for name in folders if name not in NOT_ENTERED and not name.startswith(".")]


# -- reading ----------------------------------------------------------------------------------------------------------


def read_run(folder: Path) -> Run:
    """Read one run folder; what is wrong with it becomes its `problem`."""
    record, problem = _read(folder / "run.json", json.loads)
    if not problem and "status" not in record:
        problem = "run.json is not the record of a run: it has no status"
    if problem:
        return Run(folder, problem=problem)
    if record.get("format", FORMAT) != FORMAT:
        problem = f"run.json has format {record['format']}, this report reads format {FORMAT}"
    elif record["status"] not in STATUSES:
        problem = f"run.json has status {record['status']!r}; expected one of {', '.join(STATUSES)}"
    settings, error = _read(folder / "config.yaml", _parse_config)
    problem = problem or error
    status = "unreadable" if problem else str(record["status"])
    if status == "stopped" and record.get("pruned") is True:
        status = "pruned"
    if status == "running" and process_is_gone(record.get("process")):
        status = "interrupted"
    settings |= {key: record[key] for key in ("experiment", "data", "model") if isinstance(record.get(key), str)}
    if isinstance(sha256 := mapping(record.get("data_provenance")).get("sha256"), str):
        settings["data.sha256"] = sha256[:12]
    run = Run(folder, status, problem, record, settings, _read_curve(folder / "metrics.jsonl"))
    for file in sorted(folder.glob("evaluation_*.json")):
        run.evaluations[file.stem.removeprefix("evaluation_")] = _read(file, json.loads)[0]
    run.numbers = numbers_of(run)
    return run


def _read(file: Path, parse: Callable[[str], Any]) -> tuple[dict[str, Any], str]:
    """Return what a file holds, and what is wrong with it; one of the two is empty."""
    try:
        content = parse(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}, f"there is no {file.name}"
    except OSError as error:
        return {}, f"{file.name}: {error.strerror}"
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        return {}, f"{file.name} cannot be read: {' '.join(str(error).split())}"
    if not isinstance(content, dict):
        return {}, f"{file.name} holds {type(content).__name__}; expected keys and values"
    return content, ""


def _parse_config(text: str) -> Settings:
    """Return a configuration as flat `key -> value`, keys as on the command line: `model`, `model.hidden_size`.

    A section's name is the value of the section itself (`model: {name: gru}` gives `model = gru`). Lists are JSON,
    booleans `true` and `false` (in Python, True equals 1). Aliases, with which a few lines can stand for gigabytes, are
    refused.
    """
    if "*" in text and any(isinstance(event, yaml.AliasEvent) for event in yaml.parse(text, Loader=LOADER)):
        raise ValueError("it has YAML aliases, which a stored configuration never has")
    config = yaml.load(text, Loader=LOADER)
    if not isinstance(config, dict):
        raise ValueError("it holds no keys")
    flat: Settings = {}
    for key, value in flatten(config):
        section = key.removesuffix(".name").removesuffix("._target_")
        if value is not None and not isinstance(value, str | int | float) or isinstance(value, bool):
            value = json.dumps(value, ensure_ascii=False, default=str)
        flat[key.removesuffix(".name")] = value
        if key.endswith("._target_"):  # stands for the name of a section without one
            flat.setdefault(section, str(value).rpartition(".")[2])
    return flat


def _read_curve(file: Path) -> list[dict[str, Any]]:
    """Return the lines of metrics.jsonl by step; a line that a crash has cut is left out."""
    try:
        text = file.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return []
    lines = []
    for line in text.splitlines():
        try:
            point = json.loads(line)
        except (ValueError, RecursionError):
            continue
        if isinstance(point, dict) and isinstance(step := point.get("step"), int) and abs(step) < LARGEST_STEP:
            lines.append(point)
    return sorted(lines, key=lambda point: point["step"])


def process_is_gone(process: Any) -> bool:
    """Whether the recorded process surely does not run: it was on this host, before a restart or with a free number.

    A run of another machine counts as running as long as its record says so.
    """
    if not isinstance(process, dict) or process.get("host") != platform.node():
        return False
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        boot = None
    restarted = bool(boot and process.get("boot")) and str(process["boot"]).strip() != boot
    return restarted or not is_alive(process.get("pid"))


def numbers_of(run: Run) -> dict[str, float]:
    """Return every number of a run by the name of its column in `runs`; final values are those of the last line."""
    metrics = mapping(run.record.get("metrics"))
    best = mapping(metrics.get("best"))
    at_best: dict[str, Any] = {}
    for line in run.curve:
        if line["step"] == best.get("step"):
            at_best = line
    at_best = {**at_best, **best, str(best.get("monitor")): best.get("value")}
    found = {**(run.curve[-1] if run.curve else {}), **mapping(metrics.get("final"))}
    found = {name: value for name, value in found.items() if name not in POSITION}
    found |= {name: run.record.get(name) for name in RUN_NUMBERS}
    found |= {f"best/{name}": value for name, value in at_best.items() if "/" in name}
    for split, evaluation in run.evaluations.items():
        found |= {f"evaluation/{split}/{name}": value for name, value in evaluation.items()}
    return {name: float_ for name, value in found.items() if (float_ := number(value)) is not None}


def number(value: Any) -> float | None:
    """Return a number as a float, NaN and infinities included (also as text), and None for anything else."""
    if isinstance(value, str) and value.strip().lower().lstrip("+-") in ("nan", "inf", "infinity"):
        return float(value)
    if not isinstance(value, int | float) or isinstance(value, bool):
        return None
    try:
        return float(value)
    except OverflowError:  # an integer beyond every float
        return math.inf if value > 0 else -math.inf


def mapping(value: Any) -> Mapping[str, Any]:
    """Return a mapping as it is and an empty one for anything else, such as a null of run.json."""
    return value if isinstance(value, Mapping) else {}


def metric_names(some: Sequence[Run]) -> list[str]:
    """Return the names of all final numbers that some run has, metrics first."""
    names = dict.fromkeys(name for run in some for name in run.numbers if not name.startswith(("best/", "evaluation/")))
    return [name for name in names if name not in RUN_NUMBERS] + [name for name in RUN_NUMBERS if name in names]
