"""Windows of a text for truncated backpropagation through time.

The text lies as `batch_size` parallel streams and is handed out `seq_len` steps at a time. Column i of one window
continues column i of the window before it, so the hidden state may be carried across. Every transition is predicted
once; up to `batch_size - 1` are dropped at the end so that columns are equal; a window may be shorter than `seq_len`.
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
    """Ids and next ids (time, batch), int64; targets are -100 where nothing is predicted. starts: from a zero state."""

    inputs: Tensor
    targets: Tensor
    starts: bool


class Windows:
    """The windows of a split, epoch after epoch; one of them is one batch and one optimizer step.

    offset  "fixed": the same window borders (lines: the same order) in each epoch; "random": drawn from (seed, epoch)
    reset   "epoch": each epoch starts from a zero state; "never": only the first one does
    rank    of world_size R processes sees columns [rank B/R, (rank + 1) B/R) of the B that one process would see
    limit   windows an epoch gives, where fewer than all are wanted

    Each `iter()` is the next epoch, from its first window, unless `load_state_dict` has put the position elsewhere.
    torch's global generator is never drawn from. Raises DataError where the text is too short for the batch.
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
            batch_size = world_size  # one sequence: every process reads it whole, and the first one learns it
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
        self.position = 0  # the next window of the epoch
        self.epoch = 0
        self.restored = True  # the first iter() is epoch 0, not the one after it

    def __len__(self) -> int:
        """Windows an epoch."""
        return self.count

    def __iter__(self) -> Iterator[Window]:
        if not self.restored and self.position:  # the last epoch was left before its end
            self.position, self.epoch = 0, self.epoch + 1
        self.restored = False
        while True:
            epoch, index = self.epoch, self.position
            # Moved before the window is handed out: a checkpoint written after it names the next one, modulo the epoch
            self.epoch, self.position = (epoch, index + 1) if index + 1 < self.count else (epoch + 1, 0)
            yield self.window(epoch, index)
            if index + 1 == self.count:
                return

    def window(self, epoch: int, index: int) -> Window:
        """Window `index` of an epoch."""
        inputs, targets = self.plan.cut(epoch, index, self.columns)
        if self.idle:
            targets = np.full_like(targets, IGNORED)
        continues = self.carries and epoch > 0 and index == 0 and not self.plan.fresh
        return Window(
            torch.from_numpy(inputs), torch.from_numpy(targets), self.plan.begins(epoch, index) and not continues
        )

    def described(self) -> dict[str, int]:
        """The streams of all processes, and what becomes of the split's transitions in an epoch without a limit."""
        return {"streams": self.streams, "scored": self.scored, "dropped": self.dropped}

    def state_dict(self) -> dict[str, Any]:
        """The place of the next window, in plain data; Lightning stores it in the checkpoint."""
        return {"epoch": self.epoch, "position": self.position, "layout": list(self.layout)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where `state` was taken. Raises DataError where it was taken in mid-epoch of other windows."""
        if state["position"] and list(state["layout"]) != self.layout:
            words = ("transitions", "seq_len", "batch_size", "offset", "seed", "windows an epoch")
            parts = zip(words, state["layout"], self.layout, strict=True)
            changed = ", ".join(f"{word} {was} -> {now}" for word, was, now in parts if was != now)
            raise DataError(f"the checkpoint stands in the middle of an epoch of other windows ({changed}); keep them")
        self.epoch, self.position, self.restored = int(state["epoch"]), int(state["position"]), True


def evaluation_windows(split: Split, seq_len: int, streams: int = 1, *, rank: int = 0, world_size: int = 1) -> Windows:
    """Every transition of a split in at most `streams` columns, from a zero state; one stream drops none."""
    streams = max(world_size, min(streams, split.transitions) // world_size * world_size)
    seq_len = max(1, min(seq_len, split.transitions))
    return Windows(split, seq_len, streams, reset="epoch", rank=rank, world_size=world_size)
