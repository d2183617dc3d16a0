"""Checkpoints: plain data only, written atomically, each a model by itself.

A file is what `torch.save` writes: Lightning's own dump (weights, optimizer, loops, callbacks), and under `unroll`
what makes it a model without its run: format, config, vocabulary; and what makes a resume exact: the carried state, the
random generators, the schedule's counters. Nothing in it needs a class, so it loads with `weights_only=True`.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.plugins.io import CheckpointIO

from src.training.reading import FORMAT, newest_sound, read_checkpoint

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
