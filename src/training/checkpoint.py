"""Checkpoints: plain data only, written atomically, each a model by itself.

A file is what `torch.save` writes: Lightning's own dump (weights, optimizer, loops, callbacks), and under `unroll`
what makes it a model without its run: format, config, vocabulary; and what makes a resume exact: the carried state, the
random generators, the schedule's counters. Nothing in it needs a class, so it loads with `weights_only=True`.
"""

from __future__ import annotations

import logging
import os
import pickle
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.plugins.io import CheckpointIO

from src.mistakes import Mistake

FORMAT = 1
log = logging.getLogger(__name__)


class AtomicCheckpointIO(CheckpointIO):
    """Lightning's way to the disk: a reader finds the whole new file or the whole old one, whatever is killed when.

    Replacing `last.ckpt` leaves the one before it as `previous.ckpt`.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None) -> None:
        """Write beside, flush to the disk, rename."""
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{path.name}.{os.getpid()}")
        with temporary.open("wb") as file:
            torch.save(checkpoint, file)
            file.flush()
            os.fsync(file.fileno())
        if path.name == "last.ckpt" and path.exists():
            keep = path.with_name(f".previous.ckpt.{os.getpid()}")
            keep.unlink(missing_ok=True)
            os.link(path, keep)  # so that there is no moment without a last.ckpt
            os.replace(keep, path.with_name("previous.ckpt"))
        os.replace(temporary, path)

    def load_checkpoint(self, path: str | Path, map_location: Any = None, weights_only: bool | None = None) -> Any:
        """Read and check a checkpoint; no pickle in it is ever executed."""
        return read_checkpoint(path, map_location or "cpu")

    def remove_checkpoint(self, path: str | Path) -> None:
        """Delete a file."""
        Path(path).unlink(missing_ok=True)


def read_checkpoint(path: str | Path, map_location: Any = "cpu") -> dict[str, Any]:
    """Return a checkpoint's contents.

    Raises:
        Mistake: no such file, a torn or altered one, a file of another program, a newer format.
    """
    path = Path(path)
    if not path.is_file():
        raise Mistake(f"{path}: no such checkpoint")
    try:
        with zipfile.ZipFile(path) as archive:
            torn = archive.testzip()  # torch.load itself accepts a file with a flipped byte
    except (zipfile.BadZipFile, EOFError, OSError) as error:
        raise Mistake(f"{path} is no checkpoint, or only a part of one ({error})") from error
    if torn is not None:
        raise Mistake(f"{path} is damaged: {torn} in it does not have the checksum it was written with")
    try:
        checkpoint = torch.load(path, map_location=map_location, weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, ValueError, KeyError, EOFError) as error:
        raise Mistake(
            f"{path} holds more than plain data, or something else than a checkpoint; it was not loaded"
        ) from error
    ours = checkpoint.get("unroll") if isinstance(checkpoint, dict) else None
    if not isinstance(ours, dict) or "format" not in ours:
        raise Mistake(f"{path} was not written by this program: it has no config and no vocabulary inside")
    if ours["format"] != FORMAT:
        raise Mistake(f"{path} has format {ours['format']}; this version reads format {FORMAT}")
    return checkpoint


def newest_sound(folder: Path) -> tuple[Path, dict[str, Any]]:
    """Return the last checkpoint of a run that is whole: `last.ckpt`, or the one before it, which is said.

    Raises:
        Mistake: there is none, or none is whole.
    """
    troubles: list[str] = []
    for name in ("last.ckpt", "previous.ckpt"):
        path = folder / name
        if not path.exists():
            continue
        try:
            return path, read_checkpoint(path)
        except Mistake as trouble:
            troubles.extend(trouble.messages)
            log.warning("%s; trying the one before it", trouble)
    raise Mistake(*troubles) if troubles else Mistake(f"{folder} holds no last.ckpt and no previous.ckpt")


def random_state() -> dict[str, Any]:
    """Return the state of torch's global generators (dropout draws from them)."""
    state: dict[str, Any] = {"cpu": torch.get_rng_state()}
    if torch.cuda.is_available():
        state["cuda"] = torch.cuda.get_rng_state_all()
    return state


def set_random_state(state: Mapping[str, Any]) -> None:
    """Take it back."""
    torch.set_rng_state(state["cpu"])
    if "cuda" in state and torch.cuda.is_available():
        torch.cuda.set_rng_state_all(state["cuda"])
