"""Checks before a trained model is loaded: its path and the options. Imports no torch."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from src.config import schema
from src.errors import UserError, nearest
from src.files import read_json, user_path
from src.process import complain
from src.reports.runs import run_folders

LAST = "last"  # the newest run of all, where a run's folder is expected
STORED = ("run", "resume", "rerun", "init_from")  # keys whose value may be LAST or the name of a run
# Default file names
EXPORTED = {"onnx": "step.onnx", "torch": "step.pt2", "safetensors": "weights.safetensors", "html": "page.html"}


def locate(path: str | Path, at: str | None = None) -> Path:
    """Return a file itself, or the checkpoint of a run's folder: `best` or `last`; None is the best one there is."""
    if not str(path):
        raise UserError("an empty path names no run: expected its folder, or a file of its checkpoints/")
    place = user_path(path)
    if os.path.isfile(place):  # os.path answers False where pathlib raises: a name too long, a folder not readable
        return place
    if not os.path.isdir(place):
        if os.path.exists(place):
            raise UserError(f"{path} is a pipe or a device, not a run or a checkpoint")
        above = next((parent for parent in place.parents if os.path.isdir(parent)), Path())
        names = sorted({x.name for at in ("", "sweeps/") for x in Path("runs").glob(f"{at}[!.]*/")} - {str(path)})
        near = newest_below(above) if above != Path() else nearest(str(path), [LAST, *names] if names else [])
        near = near or f", and no run of that name below runs (relative paths start at {Path.cwd()})"
        raise UserError(f"{path}: there is no such file or folder{near}")
    folder = place / "checkpoints"
    if not os.path.isfile(place / "run.json") and not os.path.isdir(folder):
        inside = f"; did you mean {place.parent}?" if (place.parent / "run.json").is_file() else newest_below(place)
        raise UserError(f"{path} is no run: it has no run.json and no checkpoints{inside}")
    found = [one for one in (schema.AT if at else (*schema.AT, "previous")) if os.path.isfile(folder / f"{one}.ckpt")]
    if not found:
        if odd := [name for name in schema.AT if os.path.exists(folder / f"{name}.ckpt")]:
            raise UserError(f"{folder / odd[0]}.ckpt is a folder, a pipe or a device, not a file")
        why = "it ended before the first one, or had checkpoint.enabled=false"
        raise UserError(f"{path} is a run without a checkpoint: {why}; train it again (python -m src.train rerun=...)")
    if at is not None and at not in found:
        raise UserError(f"{path} has no {at}.ckpt; it has {' and '.join(found)}: at={found[0]}")
    return folder / f"{at or found[0]}.ckpt"


def with_named_runs(arguments: Iterable[str]) -> list[str]:
    """Return a command line with `run=last` and `run=NAME` replaced by their folder, which is printed.

    That is the newest run of all, or of that name, below `runs=`: the one written last. A file or folder of that
    path comes first.
    """
    arguments = list(arguments)
    runs = next((one.partition("=")[2] for one in arguments if one.startswith("runs=")), "runs")
    for i, (key, _, value) in enumerate(one.partition("=") for one in arguments):
        if key in STORED and (folder := newest_run(value, runs)):
            in_job = key != "run" and "SLURM_JOB_ID" in os.environ
            if in_job or {"-m", "--multirun"}.intersection(arguments):  # run again, it would begin from another run
                what = "a SLURM job" if in_job else "a sweep"
                raise UserError(f"{key}={value}: {what} needs the run's folder: {key}={folder}")
            complain(f"{key}={value} is {folder}")
            arguments[i] = f"{key}={folder}"
    return arguments


def newest_run(name: str, runs: str = "runs") -> Path | None:
    """Return the folder that `last` or the name of a run means; None if there is none, or `name` is a path."""
    if not name or os.path.lexists(user_path(name)):
        return None
    root = user_path(runs)
    places = [root] if name == LAST else [root / name, root / "sweeps" / name]
    records = [folder / "run.json" for place in places for folder in run_folders(place)]
    records = [record for record in records if record.is_file()]
    return max(records, key=lambda record: (record.stat().st_mtime_ns, str(record))).parent if records else None


def run_of(checkpoint: Path) -> Path | None:
    """Return the folder of the run that a checkpoint is in, or None if it was copied elsewhere."""
    folder = checkpoint.resolve().parent
    if folder.name != "checkpoints" or not (folder.parent / "run.json").is_file():
        return None
    named = checkpoint.parent.parent  # as the user wrote it, unless that is another folder because of a link
    return named if named.resolve() == folder.parent else folder.parent


def evaluated_before(folder: Path, split: str | None, checkpoint: Path) -> dict[str, Any] | None:
    """Return what a run's evaluation_<split>.json has for this checkpoint, on the text that the run was trained on."""
    file = folder / f"evaluation_{split or 'val'}.json"
    with contextlib.suppress(OSError, ValueError, TypeError, KeyError):
        result: dict[str, Any] = read_json(file)
        own = result["checkpoint"] == checkpoint.stem and not result["text"]["changed"]
        if own and os.path.getmtime(file) >= os.path.getmtime(checkpoint):
            return result
    return None


def newest_below(place: Path) -> str:
    """Return `; did you mean ...`: the newest run below a folder, up to the three levels of a sweep down."""
    records = [record for depth in ("*", "*/*", "*/*/*") for record in place.glob(f"{depth}/run.json")]
    if not records:
        return "; name the folder of one run (python -m src.train makes one under runs/)"
    return f"; did you mean {max(records, key=lambda record: record.stat().st_mtime).parent}?"


def errors_in_inference(config: schema.StoredModel) -> list[str]:
    """Return what is wrong with the choice of a model, and every value that its key does not allow, one text each."""
    errors = list(schema.errors_in_values(config, type(config)))
    if (config.run is None) == (config.checkpoint is None):
        return ["which model? give run=... (the folder of a run) or checkpoint=... (a file), one of them", *errors]
    if isinstance(config, schema.EvaluateConfig) and runs_of(config):
        return errors  # a folder of runs; those without a checkpoint are named and left out
    try:
        locate(config.path or "", config.at if config.at in schema.AT else None)
    except UserError as error:
        errors += error.messages
    return errors


def runs_of(config: schema.EvaluateConfig) -> list[Path]:
    """Return the folders of runs below `run=`, if that is a folder of runs and not one run."""
    place = user_path(config.run or "")
    if not config.run or (place / "run.json").is_file() or (place / "checkpoints").is_dir():
        return []
    return sorted(run_folders(place))


def errors_in_sample(config: schema.SampleConfig) -> list[str]:
    """Return what is wrong with the options of `python -m src.sample`."""
    errors = errors_in_inference(config)
    if config.stop == "":
        errors.append("stop is empty: expected the text before which a sample ends; leave it out for none")
    if config.prompt == "":
        errors.append("prompt is empty: the model needs a character to begin with; leave it out for a line break")
    if config.interactive and config.prompt == "-":
        errors.append("interactive=true reads its prompts from standard input; leave prompt=- out")
    if config.interactive and (config.num_samples > 1 or config.format != "text"):
        errors.append("interactive=true writes one text as it comes; leave num_samples and format out")
    return errors


def errors_in_score(config: schema.ScoreConfig) -> list[str]:
    """Return what is wrong with the options of `python -m src.score`."""
    errors = errors_in_inference(config)
    if (config.text is None) == (config.file is None):
        errors.append("nothing to score: give text=... or file=..., one of them")
    elif "" in (config.text, config.file):
        what = "text" if config.file is None else "file"
        errors.append(f"{what} is empty: expected a text of at least two characters, or a file, a folder or a glob")
    return errors


def errors_in_export(config: schema.ExportConfig) -> list[str]:
    """Return what is wrong with the options of `python -m src.export`."""
    errors, output = errors_in_inference(config), config.output
    if config.example is not None and config.format != "html":
        errors.append(f"example={config.example} stands in a page only: use format=html, or leave it out")
    elif config.example == "":
        errors.append("example is empty: expected the text to begin with; leave it out for none")
    if output is None:
        return errors
    target = user_path(output)
    if output == "" or os.path.isdir(target):
        return [*errors, f"output={output} is not a file; name one, or leave it out for export/ in the run's folder"]
    if not os.path.isdir(target.parent):
        errors.append(f"output={output}: there is no folder {target.parent}")
    if config.format == "safetensors" and target.suffix != ".safetensors":
        named = Path(output).with_suffix(".safetensors")
        errors.append(f"output={output}: weights are recognised by their suffix; use output={named}")
    return errors
