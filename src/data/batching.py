"""The splits of a corpus (train, val, test), and their windows for truncated backpropagation through time.

A text is laid out as `batch_size` parallel streams and read `seq_len` steps at a time. Column i of one window continues
column i of the window before it, so the hidden state may be carried across. Every transition is predicted once; up to
`batch_size - 1` are dropped at the end so that columns are equal; a window may be shorter than `seq_len`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from src.config.schema import DataConfig
from src.errors import UserError

if TYPE_CHECKING:  # the layout of windows is computed without torch
    from torch import Tensor

BOUNDARY = "\n"  # the symbol before, between and after the items of a list
FEWEST_WINDOWS = 8  # of an epoch, where a short text decides the batch size: one step an epoch trains little
IGNORED = -100  # the target that torch's cross_entropy leaves out


@dataclass(frozen=True, eq=False)
class TextSplit:
    """Ids (length,), in memory or memory-mapped: one long text. Every id but the first is predicted once."""

    name: str
    ids: np.ndarray

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def transitions(self) -> int:
        return max(0, len(self.ids) - 1)


@dataclass(frozen=True, eq=False)
class LineSplit(TextSplit):
    """Items in one array, with a boundary id before the first, between two and after the last; `len` counts none."""

    boundary: int

    def __len__(self) -> int:
        return len(self.ids) - len(self.starts) - 1

    @cached_property
    def starts(self) -> np.ndarray:
        """Index of the boundary before each item (items,)."""
        return np.flatnonzero(self.ids == self.boundary)[:-1]

    @cached_property
    def lengths(self) -> np.ndarray:
        """Transitions of each item (items,): its characters, and its end."""
        return np.diff(self.starts, append=len(self.ids) - 1)


@dataclass(frozen=True, eq=False)
class PairSplit(TextSplit):
    """Input ids (length,) and the target of each step (length,): the tutorial's "hello" -> "ohlol"."""

    targets: np.ndarray

    @property
    def transitions(self) -> int:
        return len(self.ids)


class Splits(dict[str, TextSplit]):
    """The splits of a corpus by name; one that it does not have is a UserError with the names of all."""

    def __missing__(self, name: str) -> TextSplit:
        raise UserError(f"this corpus has no split {name!r}; it has {', '.join(self)}")


# A plan: how many windows an epoch has (`count`), how many transitions are in none (`dropped`), whether every epoch
# starts from a zero state (`fresh`). cut(): inputs and targets (time, batch) of a window, int64, for some of its
# columns, and whether it starts from a zero state.
Cut = tuple[np.ndarray, np.ndarray, bool]


class StreamPlan:
    """A text as `batch_size` parallel streams, `seq_len` steps at a time.

    Column i has the transitions [i L, (i + 1) L), L = transitions // batch_size. With a random offset the first window
    of an epoch is shorter, by an amount drawn from (seed, epoch), and all window borders move with it.
    """

    fresh = False

    def __init__(self, split: TextSplit, seq_len: int, batch_size: int, offset: str, seed: int) -> None:
        errors = [
            f"{split.name}: a text of {len(split):,} characters has {split.transitions:,} transitions to predict, "
            f"fewer than {key}={size}; lower data.{key} or use a longer text"
            for key, size in (("seq_len", seq_len), ("batch_size", batch_size))
            if size > split.transitions
        ]
        if errors:
            raise UserError(*errors)
        self.length = split.transitions // batch_size
        self.dropped = split.transitions - self.length * batch_size
        used = split.ids[: self.length * batch_size + 1]
        # (batch, L + 1) without a copy: the last id of a row, its last target, is also the first id of the next row
        self.rows = np.lib.stride_tricks.sliding_window_view(used, self.length + 1)[:: self.length]
        self.seq_len, self.seed = seq_len, seed
        self.drawn: tuple[int, int] | None = None  # an epoch and the length of its first window
        self.count, self.firsts = -(-self.length // seq_len), (seq_len, seq_len)
        if offset == "random":
            # A first window of `last` to seq_len steps leaves the count as it is, one of 1 to last - 1 adds a window.
            # The larger of the two ranges is used in all epochs, so that they have equally many windows.
            last = self.length - (self.count - 1) * seq_len
            if seq_len - last >= last - 1:
                self.firsts = (last, seq_len)
            else:
                self.firsts, self.count = (1, last - 1), self.count + 1

    def first(self, epoch: int) -> int:
        if self.drawn is None or self.drawn[0] != epoch:
            low, high = self.firsts
            self.drawn = (epoch, int(np.random.default_rng((self.seed, epoch)).integers(low, high + 1)))
        return self.drawn[1]

    def cut(self, epoch: int, index: int, columns: slice) -> Cut:
        start = 0 if index == 0 else self.first(epoch) + (index - 1) * self.seq_len
        stop = min(self.length, self.first(epoch) + index * self.seq_len)
        block = self.rows[columns, start : stop + 1].T.astype(np.int64, order="C")
        return block[:-1], block[1:], index == 0


class LinePlan:
    """Items side by side, padded to the longest of a batch; one longer than `seq_len` continues in the next window.

    Items are grouped by the number of windows they need. With a random offset the order within a group and the order of
    the batches are drawn from (seed, epoch).
    """

    dropped, fresh = 0, True

    def __init__(self, split: LineSplit, seq_len: int, batch_size: int, offset: str, seed: int) -> None:
        if len(split.starts) == 0:
            raise UserError(f"{split.name}: a list without items has nothing to predict; use one item a line")
        seq_len = min(seq_len, int(split.lengths.max()))  # a longer window would be padding only
        self.split, self.seq_len, self.batch_size = split, seq_len, batch_size
        self.random, self.seed = offset == "random", seed
        windows = -(-split.lengths // seq_len)
        self.groups = {size: np.flatnonzero(windows == size) for size in np.unique(windows).tolist()}
        self.count = sum(size * -(-len(group) // batch_size) for size, group in self.groups.items())
        self.drawn: tuple[int, list[tuple[np.ndarray, int]]] | None = None  # an epoch and its windows

    def windows(self, epoch: int) -> list[tuple[np.ndarray, int]]:
        """Return, for each window of an epoch, its items and how many windows with them come before it."""
        if self.drawn is None or self.drawn[0] != epoch:
            generator = np.random.default_rng((self.seed, epoch))
            mixed = generator.permutation if self.random else np.asarray
            batches = []
            for size, group in self.groups.items():
                items = mixed(group)
                batches += [(items[at : at + self.batch_size], size) for at in range(0, len(items), self.batch_size)]
            order = mixed(np.arange(len(batches)))
            self.drawn = (epoch, [(batches[at][0], part) for at in order for part in range(batches[at][1])])
        return self.drawn[1]

    def cut(self, epoch: int, index: int, columns: slice) -> Cut:
        items, part = self.windows(epoch)[index]
        lengths, starts = np.zeros((2, self.batch_size), np.int64)
        lengths[: len(items)], starts[: len(items)] = self.split.lengths[items], self.split.starts[items]
        times = np.arange(part * self.seq_len, min(int(lengths.max()), (part + 1) * self.seq_len))[:, None]
        real = times < lengths[columns]
        at = np.where(real, starts[columns] + times, 0)
        here, after = (self.split.ids[where].astype(np.int64) for where in (at, np.where(real, at + 1, 0)))
        return np.where(real, here, self.split.boundary), np.where(real, after, IGNORED), part == 0


class WarmPlan:
    """A text in at most `streams` columns, each transition predicted once, after others that are read and not counted.

    Column i predicts the transitions [i L, (i + 1) L), L = ceil(transitions / streams). It starts `warmup` transitions
    before them, where the text has as many, so that its state has forgotten that it began with zeros. The first window
    is longer by the warm-up.
    """

    dropped, fresh = 0, True

    def __init__(self, split: TextSplit, seq_len: int, streams: int, warmup: int) -> None:
        self.ids, self.seq_len, self.length = split.ids, seq_len, -(-split.transitions // streams)
        if self.length + warmup >= split.transitions:  # each column would read all of the text
            self.length, warmup = split.transitions, 0
        self.streams, self.warmup = -(-split.transitions // self.length), warmup
        begins = np.arange(self.streams) * self.length - warmup
        self.begins = np.clip(begins, 0, split.transitions - self.length - warmup)
        self.count = -(-self.length // seq_len)

    def cut(self, epoch: int, index: int, columns: slice) -> Cut:
        start = self.warmup + index * self.seq_len if index else 0
        stop = self.warmup + min((index + 1) * self.seq_len, self.length)
        at = self.begins[columns] + np.arange(start, stop)[:, None]
        here, after = (self.ids[where].astype(np.int64) for where in (at, at + 1))
        return here, np.where(at // self.length == np.arange(self.streams)[columns], after, IGNORED), index == 0


class PairPlan:
    """The whole pair as one window of one column."""

    count, dropped, fresh = 1, 0, True

    def __init__(self, split: PairSplit, *_: Any) -> None:
        self.split = split

    def cut(self, epoch: int, index: int, columns: slice) -> Cut:
        return self.split.ids[:, None].astype(np.int64), self.split.targets[:, None].astype(np.int64), True


PLANS: dict[type[TextSplit], Any] = {TextSplit: StreamPlan, LineSplit: LinePlan, PairSplit: PairPlan}


def plan(split: TextSplit, *options: Any) -> StreamPlan | LinePlan | PairPlan:
    """Return the plan for this kind of split; `options`: seq_len, batch_size, offset, seed."""
    return PLANS[type(split)](split, *options)


class Window(NamedTuple):
    """Ids and next ids (time, batch), int64; a target of -100 is not predicted. `starts`: from a zero state.

    `allowed`, of a task: (time, batch) int64, bit i is set where id i would also be right.
    """

    inputs: Tensor
    targets: Tensor
    starts: bool
    allowed: Tensor | None = None


class Windows:
    """The windows of a split, epoch after epoch. One window is one batch.

    offset  "fixed": the same window borders (lists: the same order) in every epoch; "random": drawn from (seed, epoch)
    reset   "epoch": every epoch starts from a zero state; "never": only the first one does; "window": every window does
    rank    of world_size R processes has columns [rank B/R, (rank + 1) B/R) of the B that one process would have
    limit   windows in an epoch, if fewer than all
    warmup  of a text: each stream first reads so many transitions uncounted; None: it starts from a zero state
    noise   the share of the inputs that is replaced (arXiv:1703.02573), drawn from (seed, epoch, window)

    Each `iter()` is the next epoch, from its first window, unless `load_state_dict` has set the position.
    """

    def __init__(
        self,
        split: TextSplit,
        seq_len: int,
        batch_size: int,
        *,
        offset: str = "fixed",
        reset: str = "never",
        seed: int = 0,
        rank: int = 0,
        world_size: int = 1,
        limit: int | None = None,
        warmup: int | None = None,
        noise: float = 0.0,
    ) -> None:
        self.ids, self.seed, self.noise = split.ids, seed, noise
        if warmup is not None and type(split) is TextSplit:
            self.plan: Any = WarmPlan(split, seq_len, batch_size, warmup)
            batch_size = self.plan.streams
        else:
            self.plan = plan(split, seq_len, batch_size, offset, seed)
        if isinstance(self.plan, PairPlan):
            batch_size = world_size  # one sequence: every process reads all of it, and only rank 0 learns it
        if batch_size % world_size:
            remedy = f"make data.batch_size a multiple of {world_size}"
            raise UserError(f"batch_size={batch_size} does not divide among {world_size} processes; {remedy}")
        share = batch_size // world_size
        self.columns = slice(rank * share, (rank + 1) * share)
        self.idle = isinstance(self.plan, PairPlan) and rank > 0
        self.count = self.plan.count if limit is None else min(limit, self.plan.count)
        self.carries, self.resets = reset == "never", reset == "window"
        self.dropped = self.plan.dropped
        self.streams, self.scored = batch_size, split.transitions - self.dropped
        self.layout = [split.transitions, seq_len, batch_size, offset, seed, self.count]
        self.epoch, self.position = 0, 0  # of the next window
        self.restored = True  # the first iter() is epoch 0, not the one after it

    def __len__(self) -> int:
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
        import torch

        inputs, targets, begins, *more = self.plan.cut(epoch, index, self.columns)
        if self.noise:
            inputs = self.noisy(inputs, epoch, index)
        if self.idle:
            targets = np.full_like(targets, IGNORED)
        continues = self.carries and epoch > 0 and index == 0 and not self.plan.fresh
        starts = self.resets or (begins and not continues)
        allowed = torch.from_numpy(more[0]) if more else None
        return Window(torch.from_numpy(inputs), torch.from_numpy(targets), starts, allowed)

    def noisy(self, inputs: np.ndarray, epoch: int, index: int) -> np.ndarray:
        """Replace a share of inputs (time, columns) by ids as frequent as in the split (Xie et al. 2017)."""
        generator, shape = np.random.default_rng((self.seed, epoch, index, 0)), (len(inputs), self.streams)
        replaced, others = generator.random(shape) < self.noise, self.ids[generator.integers(len(self.ids), size=shape)]
        return np.where(replaced[:, self.columns], others[:, self.columns], inputs)

    def state_dict(self) -> dict[str, Any]:
        """Return the position of the next window as plain data; Lightning stores it in the checkpoint."""
        return {"epoch": self.epoch, "position": self.position, "layout": list(self.layout)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        if state["position"] and list(state["layout"]) != self.layout:
            names = ("transitions", "seq_len", "batch_size", "offset", "seed", "windows an epoch")
            parts = zip(names, state["layout"], self.layout, strict=True)
            changed = ", ".join(f"{name} {was} -> {now}" for name, was, now in parts if was != now)
            raise UserError(f"the checkpoint is from the middle of an epoch of other windows ({changed}); keep them")
        self.epoch, self.position, self.restored = int(state["epoch"]), int(state["position"]), True


def evaluation_windows(
    split: TextSplit, seq_len: int, streams: int = 1, warmup: int | None = None, seed: int = 0
) -> Windows:
    """Return the transitions of a split in at most `streams` columns; one stream, or a warm-up, drops none.

    `seed` draws the training sequences of a task.
    """
    streams, seq_len = (max(1, min(size, split.transitions)) for size in (streams, seq_len))
    return Windows(split, seq_len, streams, reset="epoch", warmup=warmup, seed=seed)


def fitted(config: DataConfig, train: TextSplit) -> tuple[DataConfig, tuple[str, ...]]:
    """Return a configuration whose open window sizes fit a short text, and notes; UserError if given ones do not."""
    if config.is_task:
        return config, ()
    (seq_len, batch_size), count = config.window, train.transitions
    notes: tuple[str, ...] = ()
    # A list is never too short. A run made before there was a warm-up had smaller windows, and keeps them
    if type(train) is TextSplit and count < seq_len * batch_size and config.evaluation_warmup is not None:
        usual = f"{seq_len} x {batch_size}"
        if config.seq_len is None:
            seq_len = max(1, min(seq_len, count // (config.batch_size or 1)))
        if config.batch_size is None:
            batch_size = max(1, count // (seq_len * FEWEST_WINDOWS))
        size = f"the training text has {count:,} characters to predict"
        if count < seq_len * batch_size:
            fits = {"seq_len": count // batch_size, "batch_size": count // seq_len}
            largest = " or ".join(f"data.{key}={value}" for key, value in fits.items() if value)
            given = f"data.seq_len={seq_len} x data.batch_size={batch_size}"
            raise UserError(f"{given}: {size}, too few for one window; the largest that fits: {largest}")
        notes = (f"windows of data.seq_len={seq_len} x data.batch_size={batch_size}, not {usual}: {size}",)
    return dataclasses.replace(config, seq_len=seq_len, batch_size=batch_size), notes
