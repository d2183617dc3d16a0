"""What a corpus is cut into: one long text, a list of items, or one pair of input and target.

`len(split)` counts its characters, `split.transitions` the predictions that a complete evaluation scores.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import numpy as np

from src.errors import DataError


@dataclass(frozen=True, eq=False)
class TextSplit:
    """One text as ids (length,), in memory or mapped from a file; every character but the first is predicted once."""

    name: str
    ids: np.ndarray

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def transitions(self) -> int:
        """The first character is given, each later one is predicted from those before it."""
        return max(0, len(self.ids) - 1)


@dataclass(frozen=True, eq=False)
class LineSplit:
    """Items one behind the other, a boundary id before the first, between two and after the last (length,)."""

    name: str
    ids: np.ndarray
    boundary: int

    def __len__(self) -> int:
        """Characters of the items themselves, without the boundaries."""
        return len(self.ids) - len(self.starts) - 1

    @cached_property
    def starts(self) -> np.ndarray:
        """Where each item's leading boundary stands (items,)."""
        return np.flatnonzero(self.ids == self.boundary)[:-1]

    @cached_property
    def lengths(self) -> np.ndarray:
        """Transitions an item: its characters and the boundary that ends it (items,)."""
        return np.diff(self.starts, append=len(self.ids) - 1)

    @property
    def transitions(self) -> int:
        """An item of n characters has n + 1: the end is predicted too."""
        return max(0, len(self.ids) - 1)


@dataclass(frozen=True, eq=False)
class PairSplit:
    """A given input (length,) and the target of each of its steps (length,): the tutorial's "hello" -> "ohlol"."""

    name: str
    ids: np.ndarray
    targets: np.ndarray

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def transitions(self) -> int:
        return len(self.ids)


Split = TextSplit | LineSplit | PairSplit


class Splits(dict[str, Split]):
    """The splits a corpus has; another one is refused with the names of those."""

    def __missing__(self, name: str) -> Split:
        raise DataError(f"this corpus has no split {name!r}; it has {', '.join(self)}")


# ---- Where the windows of an epoch lie in a split. A plan knows how many there are and cuts any one of them.

IGNORED = -100  # torch's cross_entropy leaves such targets out
Cut = tuple[np.ndarray, np.ndarray]


class Plan(Protocol):
    """The windows of an epoch, by number."""

    count: int
    dropped: int
    fresh: bool

    def cut(self, epoch: int, index: int, columns: slice) -> Cut: ...
    def begins(self, epoch: int, index: int) -> bool: ...


class StreamPlan:
    """A text as `batch_size` parallel streams, `seq_len` steps at a time.

    Column i holds the transitions [i L, (i + 1) L), L = transitions // batch_size, and column i of one window continues
    column i of the window before it. With a random offset the first window of an epoch is shorter, by an amount drawn
    from (seed, epoch), and the borders of all windows move with it: still every transition comes once.
    """

    fresh = False

    def __init__(self, split: TextSplit, seq_len: int, batch_size: int, offset: str, seed: int) -> None:
        sizes = {"seq_len": seq_len, "batch_size": batch_size}
        if too_large := {word: size for word, size in sizes.items() if size > split.transitions}:
            raise DataError(
                *(
                    f"{split.name}: a text of {len(split):,} characters has {split.transitions:,} transitions to "
                    f"predict, fewer than {word}={size}; lower data.{word} or use a longer text"
                    for word, size in too_large.items()
                )
            )
        self.length = split.transitions // batch_size
        self.dropped = split.transitions - self.length * batch_size
        used = split.ids[: self.length * batch_size + 1]
        step = used.strides[0]
        # (batch, L + 1) without a copy: a row's last id, predicted there, is the next row's first, read here
        self.rows = np.lib.stride_tricks.as_strided(
            used, (batch_size, self.length + 1), (self.length * step, step), writeable=False
        )
        self.seq_len, self.seed = seq_len, seed
        self.drawn: tuple[int, int] | None = None  # epoch and its first window's length
        self.count, self.firsts = -(-self.length // seq_len), (seq_len, seq_len)
        if offset == "random":
            # The first window may be `last` to seq_len long and leave the count as it is, or 1 to last - 1 and add a
            # window. The choice with more freedom is taken for good, so that every epoch has the same count.
            last = self.length - (self.count - 1) * seq_len
            if seq_len - last >= last - 1:
                self.firsts = (last, seq_len)
            else:
                self.firsts, self.count = (1, last - 1), self.count + 1

    def first(self, epoch: int) -> int:
        """Length of the first window of an epoch."""
        if self.drawn is None or self.drawn[0] != epoch:
            low, high = self.firsts
            self.drawn = (epoch, int(np.random.default_rng((self.seed, epoch)).integers(low, high + 1)))
        return self.drawn[1]

    def cut(self, epoch: int, index: int, columns: slice) -> Cut:
        start = 0 if index == 0 else self.first(epoch) + (index - 1) * self.seq_len
        stop = min(self.length, self.first(epoch) + index * self.seq_len)
        block = self.rows[columns, start : stop + 1].T.astype(np.int64, order="C")
        return block[:-1], block[1:]

    def begins(self, epoch: int, index: int) -> bool:
        return index == 0


class LinePlan:
    """Items side by side, padded to the longest of a batch; one longer than `seq_len` goes on in the next window.

    Items are grouped by the number of windows they need, so that short ones do not wait for long ones. With a random
    offset the order within a group and the order of the batches are drawn anew from (seed, epoch).
    """

    dropped, fresh = 0, True

    def __init__(self, split: LineSplit, seq_len: int, batch_size: int, offset: str, seed: int) -> None:
        if len(split.starts) == 0:
            raise DataError(f"{split.name}: a list of no items has nothing to predict; use a file with one item a line")
        seq_len = min(seq_len, int(split.lengths.max()))  # one longer than any item cuts nothing
        self.split, self.seq_len, self.batch_size = split, seq_len, batch_size
        self.random, self.seed = offset == "random", seed
        windows = -(-split.lengths // seq_len)
        self.groups = [np.flatnonzero(windows == size) for size in np.unique(windows)]
        sizes = np.unique(windows).tolist()
        self.batches = [
            (group, k, size)
            for group, size in enumerate(sizes)
            for k in range(-(-len(self.groups[group]) // batch_size))
        ]
        self.count = sum(size for _, _, size in self.batches)
        self.orders: tuple[int, list[np.ndarray], list[tuple[int, int]]] | None = None

    def order(self, epoch: int) -> tuple[list[np.ndarray], list[tuple[int, int]]]:
        """The epoch's order of items in each group, and for each window its batch and its place in that batch."""
        if self.orders is None or self.orders[0] != epoch:
            groups, batches = self.groups, np.arange(len(self.batches))
            if self.random:
                generator = np.random.default_rng((self.seed, epoch))
                groups = [generator.permutation(group) for group in groups]
                batches = generator.permutation(batches)
            places = [(int(batch), part) for batch in batches for part in range(self.batches[batch][2])]
            self.orders = (epoch, groups, places)
        return self.orders[1], self.orders[2]

    def cut(self, epoch: int, index: int, columns: slice) -> Cut:
        groups, places = self.order(epoch)
        batch, part = places[index]
        group, k, _ = self.batches[batch]
        items = groups[group][k * self.batch_size : (k + 1) * self.batch_size]
        lengths = np.zeros(self.batch_size, np.int64)
        starts = np.zeros(self.batch_size, np.int64)
        lengths[: len(items)], starts[: len(items)] = self.split.lengths[items], self.split.starts[items]
        times = np.arange(part * self.seq_len, min(int(lengths.max()), (part + 1) * self.seq_len))[:, None]
        real = times < lengths[columns]
        place = np.where(real, starts[columns] + times, 0)
        here, after = (self.split.ids[at].astype(np.int64) for at in (place, np.where(real, place + 1, 0)))
        return np.where(real, here, self.split.boundary), np.where(real, after, IGNORED)

    def begins(self, epoch: int, index: int) -> bool:
        _, places = self.order(epoch)
        return places[index][1] == 0


class PairPlan:
    """The whole pair as one window of one column."""

    count, dropped, fresh = 1, 0, True

    def __init__(self, split: PairSplit) -> None:
        self.split = split

    def cut(self, epoch: int, index: int, columns: slice) -> Cut:
        return self.split.ids[:, None].astype(np.int64), self.split.targets[:, None].astype(np.int64)

    def begins(self, epoch: int, index: int) -> bool:
        return True


def plan(split: Split, seq_len: int, batch_size: int, offset: str, seed: int) -> Plan:
    """The plan that fits the kind of split."""
    if isinstance(split, PairSplit):
        return PairPlan(split)
    if isinstance(split, LineSplit):
        return LinePlan(split, seq_len, batch_size, offset, seed)
    return StreamPlan(split, seq_len, batch_size, offset, seed)
