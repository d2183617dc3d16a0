"""From what a user names, a run's folder or a checkpoint, to the file to read. Paths alone; torch is not imported."""

from __future__ import annotations

import os
from pathlib import Path

from src.errors import UserError
from src.files import user_path

AT = ("best", "last")


def locate(path: str | Path, at: str | None = None) -> Path:
    """Return the checkpoint of a run's folder, or the file itself.

    Args:
        path: a run's folder, or a file (a checkpoint, or weights that `src.export` wrote).
        at: `best` or `last`; None is the best where the run has one, else the last.

    Raises:
        UserError: there is nothing, or nothing that could be a run, with what lies near.
    """
    if not str(path):
        raise UserError("an empty path names no run: expected its folder, or a file of its checkpoints/")
    place = user_path(path)
    if place.name == "run.json":
        place = place.parent
    if os.path.isfile(place):  # False of a name too long, where Path.is_file raises
        return place
    if not os.path.exists(place):
        raise UserError(f"{path}: there is no such file or folder{_nearest_above(place)}")
    if os.path.isdir(place) and not os.access(place, os.R_OK | os.X_OK):
        raise UserError(f"{path} cannot be read: permission denied")
    folder = place / "checkpoints"
    if not (place / "run.json").is_file() and not folder.is_dir():
        inside = f"; did you mean {place.parent}?" if (place.parent / "run.json").is_file() else newest_below(place)
        raise UserError(f"{path} is no run: it has no run.json and no checkpoints{inside}")
    there = [name for name in AT if (folder / f"{name}.ckpt").is_file()]
    if at is None and (folder / "previous.ckpt").is_file():
        there.append("previous")
    if not there:
        raise UserError(
            f"{path} is a run without a checkpoint in {folder}: it ended before the first one was written, or was "
            "trained with checkpoint.enabled=false; train it again (python -m src.train rerun=...) or name another"
        )
    if at is not None and at not in there:
        raise UserError(f"{path} has no {at}.ckpt; it has {' and '.join(there)}: at={there[0]}")
    return folder / f"{at or there[0]}.ckpt"


def run_of(checkpoint: Path) -> Path | None:
    """Return the run's folder that a checkpoint lies in, or None where it was carried elsewhere."""
    folder = checkpoint.resolve().parent
    if folder.name != "checkpoints" or not (folder.parent / "run.json").is_file():
        return None
    named = checkpoint.parent.parent  # as the user wrote it, unless a link or the working directory hides the run
    return named if named.resolve() == folder.parent else folder.parent


def newest_below(place: Path) -> str:
    """`; did you mean ...`: the newest run below a folder of runs, up to the three levels of a sweep down."""
    records = [record for depth in ("*", "*/*", "*/*/*") for record in place.glob(f"{depth}/run.json")]
    if not records:
        return "; name the folder of one run (python -m src.train makes one under runs/)"
    return f"; did you mean {max(records, key=lambda record: record.stat().st_mtime).parent}?"


def _nearest_above(place: Path) -> str:
    """What there is, from the nearest folder above that exists."""
    above = next((parent for parent in place.parents if os.path.isdir(parent)), Path())
    return newest_below(above) if above != Path() else f" (relative paths start at {Path.cwd()})"
