"""Windows of a text for truncated backpropagation through time.

A text is laid out as `batch_size` parallel streams and read `seq_len` steps at a time. Column i of one window continues
column i of the window before it, so the hidden state may be carried across. Every transition is predicted once; up to
`batch_size - 1` are dropped at the end so that columns are equal; a window may be shorter than `seq_len`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from src.data.splits import IGNORED, PairPlan, Split, plan
from src.errors import DataError


class Window(NamedTuple):
    """Ids and next ids (time, batch), int64; a target of -100 is not predicted. `starts`: from a zero state."""

    inputs: Tensor
    targets: Tensor
    starts: bool


class Windows:
    """The windows of a split, epoch after epoch. One window is one batch.

    offset  "fixed": the same window borders (lists: the same order) in every epoch; "random": drawn from (seed, epoch)
    reset   "epoch": every epoch starts from a zero state; "never": only the first one does
    rank    of world_size R processes has columns [rank B/R, (rank + 1) B/R) of the B that one process would have
    limit   windows in an epoch, if fewer than all

    Each `iter()` is the next epoch, from its first window, unless `load_state_dict` has set the position. The global
    generator of torch is not used. Raises DataError if the text is too short for the batch.
    """

    def __init__(
        self,
        split: Split,
        seq_len: int,
        batch_size: int,
        *,
        offset: str = "fixed",
        reset: str = "never",
        seed: int = 0,
        rank: int = 0,
        world_size: int = 1,
        limit: int | None = None,
    ) -> None:
        self.plan = plan(split, seq_len, batch_size, offset, seed)
        if isinstance(self.plan, PairPlan):
            batch_size = world_size  # one sequence: every process reads all of it, and only rank 0 learns it
        if batch_size % world_size:
            raise DataError(
                f"batch_size={batch_size} does not divide among {world_size} processes; "
                f"make data.batch_size a multiple of {world_size}"
            )
        share = batch_size // world_size
        self.columns = slice(rank * share, (rank + 1) * share)
        self.idle = isinstance(self.plan, PairPlan) and rank > 0
        self.count = self.plan.count if limit is None else min(limit, self.plan.count)
        self.carries = reset == "never"
        self.dropped = self.plan.dropped
        self.streams, self.scored = batch_size, split.transitions - self.dropped
        self.layout = [split.transitions, seq_len, batch_size, offset, seed, self.count]
        self.position = 0  # number of the next window in the epoch
        self.epoch = 0
        self.restored = True  # the first iter() is epoch 0, not the one after it

    def __len__(self) -> int:
        """Windows in an epoch."""
        return self.count

    def __iter__(self) -> Iterator[Window]:
        if not self.restored and self.position:  # the last epoch was not read to its end
            self.position, self.epoch = 0, self.epoch + 1
        self.restored = False
        while True:
            epoch, index = self.epoch, self.position
            # Set before the window is returned: a checkpoint written after it has the position of the next one
            self.epoch, self.position = (epoch, index + 1) if index + 1 < self.count else (epoch + 1, 0)
            yield self.window(epoch, index)
            if index + 1 == self.count:
                return

    def window(self, epoch: int, index: int) -> Window:
        """Return window `index` of an epoch."""
        inputs, targets = self.plan.cut(epoch, index, self.columns)
        if self.idle:
            targets = np.full_like(targets, IGNORED)
        continues = self.carries and epoch > 0 and index == 0 and not self.plan.fresh
        return Window(
            torch.from_numpy(inputs), torch.from_numpy(targets), self.plan.begins(epoch, index) and not continues
        )

    def described(self) -> dict[str, int]:
        """Return the streams of all processes, and how many transitions an epoch without a limit scores and drops."""
        return {"streams": self.streams, "scored": self.scored, "dropped": self.dropped}

    def state_dict(self) -> dict[str, Any]:
        """Return the position of the next window as plain data; Lightning stores it in the checkpoint."""
        return {"epoch": self.epoch, "position": self.position, "layout": list(self.layout)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from `state`. Raises DataError if it is from the middle of an epoch of other windows."""
        if state["position"] and list(state["layout"]) != self.layout:
            names = ("transitions", "seq_len", "batch_size", "offset", "seed", "windows an epoch")
            parts = zip(names, state["layout"], self.layout, strict=True)
            changed = ", ".join(f"{name} {was} -> {now}" for name, was, now in parts if was != now)
            raise DataError(f"the checkpoint is from the middle of an epoch of other windows ({changed}); keep them")
        self.epoch, self.position, self.restored = int(state["epoch"]), int(state["position"]), True


def evaluation_windows(split: Split, seq_len: int, streams: int = 1, *, rank: int = 0, world_size: int = 1) -> Windows:
    """Return the transitions of a split in at most `streams` columns, from a zero state; one stream drops none."""
    streams = max(world_size, min(streams, split.transitions) // world_size * world_size)
    seq_len = max(1, min(seq_len, split.transitions))
    return Windows(split, seq_len, streams, reset="epoch", rank=rank, world_size=world_size)
