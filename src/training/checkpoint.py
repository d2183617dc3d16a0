"""The files of a run that only grow, and how they are cut back to a checkpoint.

A run that was killed has written curves and lines behind its last checkpoint. Resumed, it writes them again. So each
checkpoint remembers how long these files were, and a resume cuts them to that length: one clean curve, no line twice.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.plugins.io import CheckpointIO

from src.inference.load import FORMAT, newest_sound, read_checkpoint

PATTERNS = ("metrics.jsonl", "metrics.csv", "events.out.tfevents.*")


def growing_files(folder: Path) -> Iterator[Path]:
    """Yield the append-only files of a run that exist."""
    for pattern in PATTERNS:
        yield from sorted(folder.glob(pattern))


def lengths(folder: Path) -> dict[str, int]:
    """Return the length in bytes of each append-only file of a run; what is still in a buffer does not count."""
    return {file.name: file.stat().st_size for file in growing_files(folder)}


def cut_back(folder: Path, to: Mapping[str, int]) -> None:
    """Cut each append-only file to the length it had, and remove those that came later."""
    for file in list(growing_files(folder)):
        if file.name in to:
            os.truncate(file, min(to[file.name], file.stat().st_size))
        else:
            file.unlink()


# ---- Checkpoints: plain data only, written atomically, each a model by itself.

__all__ = ["FORMAT", "AtomicCheckpointIO", "newest_sound", "random_state", "read_checkpoint", "set_random_state"]


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
