r"""Character tasks whose chance and best losses are known exactly, generated from a seed, as many sequences as wanted.

A sequence is an item as in a list: the boundary \n is read first, from a zero state, then its characters. Only some of
them are targets; the others are in no loss and no mean.

    copy            c_1 ... c_K, T blanks, >, c_1 ... c_K       targets: the K after > (Hochreiter and Schmidhuber 1997;
                    Arjovsky, Shah and Bengio 2016). What was recalled is read back, as in any language model; the
                    characters are independent, so it says nothing about the next one.
    temporal_order  T symbols of a, b, c, d, but X or Y at one place in [T/10, 2T/10] and at one in [4T/10, 5T/10]; then
                    Q, R, S or U for XX, XY, YX, YY, the only target (Hochreiter and Schmidhuber 1997, task 6a; the
                    places as in Pascanu, Mikolov and Bengio 2013, section 4)
    brackets        balanced brackets (a Dyck word) of n kinds, nested at most d deep, then \n; all are targets
    anbn            a^n b^n, then \n; all are targets
    reber           the embedded Reber grammar (Hochreiter and Schmidhuber 1997, task 1), then \n; all are targets

Two losses bound what a network can do, in nats per target, both exact (`Grammar.levels`):

    chance   H(q), q(c) = the share of c among all targets: a predictor that knows the task and has read nothing
    optimum  the conditional entropy of a target given all before it: no predictor is better

For copy and temporal_order chance is log(kinds) and log 4, the optimum 0: uniform targets, decided by what was read.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np

from src.config.schema import DataConfig
from src.data.batching import BOUNDARY, IGNORED, PLANS, LineSplit, Splits
from src.data.vocabulary import Vocabulary

LETTERS = "abcdefghijklmnopqrstuvwxyz"
BLANK, RECALL = "-", ">"
ORDER = {"symbols": "abcdXY", "classes": "QRSU"}
PAIRS = ("()", "[]", "{}", "<>")
MOST_KINDS = {"copy": len(LETTERS), "brackets": len(PAIRS)}
MOST_LENGTH = {"copy": 10_000, "temporal_order": 10_000}  # of the others 500: the table of `Grammar` grows with it
LEAST_LENGTH = {"temporal_order": 10, "brackets": 2}  # 10: the two places are then different
# Symbol and next state by state of the Reber grammar; 7 is its end. Each branch is taken with probability 1/2.
REBER = {0: "B1", 1: "T2 P3", 2: "S2 X4", 3: "T3 V5", 4: "X3 S6", 5: "P4 V6", 6: "E7"}


class Drawn(NamedTuple):
    """Sequences side by side: `ids` (steps + 1, count), the first the boundary, after the end boundaries too.

    `allowed` (steps, count) int64 belongs to ids[1:]: bit i is set if symbol i is allowed there; 0: no target.
    """

    ids: np.ndarray
    allowed: np.ndarray


# A task has `symbols` of the vocabulary, after the boundary; `targets` of a sequence, on average; `levels`, chance and
# optimum in nats per target; and `draw`, how the sequences of a split are drawn.


class Copy:
    """`lengths`: the least and the largest number of blanks T; `kinds` of characters, K = `recall` of them."""

    def __init__(self, lengths: Sequence[int], kinds: int, recall: int) -> None:
        self.lengths, self.kinds, self.recall, self.targets = lengths, kinds, recall, float(recall)
        self.symbols = BLANK + RECALL + LETTERS[:kinds]
        self.levels = {"chance": math.log(kinds), "optimum": 0.0}

    def draw(self, generator: np.random.Generator, count: int) -> Drawn:
        K, blanks = self.recall, generator.integers(self.lengths[0], self.lengths[-1] + 1, count)
        content = generator.integers(3, 3 + self.kinds, (K, count))  # ids 0, 1, 2: boundary, blank, recall
        times = np.arange(2 * K + int(blanks.max()) + 2)[:, None]
        ids = np.where(times <= K + blanks, 1, np.where(times == K + blanks + 1, 2, 0))
        ids[0], ids[1 : K + 1] = 0, content
        recalled = times - (K + blanks + 2)  # which of the characters, if 0 to K - 1
        wanted = (recalled >= 0) & (recalled < K)
        ids = np.where(wanted, np.take_along_axis(content, recalled.clip(0, K - 1), 0), ids)
        return Drawn(ids, np.where(wanted, 1 << ids, 0)[1:])


class TemporalOrder:
    """`lengths`: the least and the largest T."""

    def __init__(self, lengths: Sequence[int]) -> None:
        self.lengths, self.targets = lengths, 1.0
        self.symbols = "".join(ORDER.values())
        self.levels = {"chance": math.log(4), "optimum": 0.0}

    def draw(self, generator: np.random.Generator, count: int) -> Drawn:
        T = generator.integers(self.lengths[0], self.lengths[-1] + 1, count)
        times = np.arange(int(T.max()) + 2)[:, None]
        ids = generator.integers(1, 5, (len(times), count))
        relevant = generator.integers(0, 2, (2, count))
        for which, low, high in ((0, T // 10, 2 * T // 10), (1, 4 * T // 10, 5 * T // 10)):
            place = generator.integers(low, high + 1)
            ids = np.where(times == 1 + place, 5 + relevant[which], ids)
        ids = np.where(times == T + 1, 7 + 2 * relevant[0] + relevant[1], np.where(times > T + 1, 0, ids))
        ids[0] = 0
        return Drawn(ids, np.where(times == T + 1, 1 << ids, 0)[1:])


class Grammar:
    """Words of a finite automaton, of certain lengths: the length is drawn first, then a word of that length.

    From state s the move m goes to `successors[s, m]` and has weight `weights[s, m]`; the last move is the end of the
    word. A word has the product of its moves' weights, and words of one length are drawn in proportion. With C(r, s)
    the weight of all ways from s to the end in r moves, the move after t moves, given all before it, has the
    probability

        p(m | t, s) = w(s, m) W(t + 1, s') / W(t, s),      W(t, s) = sum over L of e(L) C(L - t, s)

    e(L) = 1 / C(L, 0) makes all possible lengths equally likely; e(L) = 1 (`natural`) leaves them as the weights have
    them. So (t, s) is a Markov chain, and what was read decides t and s.
    """

    def __init__(self, weights: np.ndarray, successors: np.ndarray, lengths: Sequence[int], natural: bool) -> None:
        self.successors, last = successors, lengths[-1]
        with np.errstate(divide="ignore", invalid="ignore"):  # log 0 = -inf: impossible
            moves, ends = np.log(weights[:, :-1]), np.log(weights[:, -1])
            ways = [ends]  # log C(r, s)
            for _ in range(last):
                ways.append(np.logaddexp.reduce(moves + ways[-1][successors[:, :-1]], axis=1))
            possible = [L for L in range(lengths[0], last + 1) if np.isfinite(ways[L][0])]
            end_at = {L: 0.0 if natural else -ways[L][0] for L in possible}
            self.possible = bool(possible)
            after = np.full(len(weights), -np.inf)  # log W(t + 1, s)
            rows = []
            for t in range(last, -1, -1):
                end = end_at.get(t, -np.inf) + ends
                each = np.concatenate([moves + after[successors[:, :-1]], end[:, None]], axis=1)
                after = np.logaddexp.reduce(each, axis=1)
                rows.append(np.nan_to_num(np.exp(each - after[:, None])))
        self.probabilities = np.stack(rows[::-1])  # p(m | t, s): (last + 1, states, moves)

    def visits(self) -> np.ndarray:
        """Return how often a word is in state s after t moves, on average: (last + 1, states)."""
        found = np.zeros(self.probabilities.shape[:2])
        found[0, 0] = 1.0
        for t in range(len(found) - 1):
            np.add.at(found[t + 1], self.successors[:, :-1], found[t, :, None] * self.probabilities[t, :, :-1])
        return found

    def levels(self, spread: np.ndarray) -> tuple[float, dict[str, float]]:
        """Return the targets of a word, on average, and chance and optimum; a move is one of `spread` (moves,) symbols.

        N(t, s) = `visits`. The targets are sum N. A mean over very many targets is a ratio of sums, so

            optimum = sum N(t, s) H(p(. | t, s)) / sum N        chance = H(q), q(m) = sum N(t, s) p(m | t, s) / sum N

        A move that is one of n equally likely symbols (an opening bracket) costs log n more; if what was read decides
        which one (a closing bracket), only chance pays for it.
        """
        visits, p = self.visits(), self.probabilities
        each = np.einsum("ts,tsm->m", visits, p)
        targets, q = float(each.sum()), each / each.sum()
        costs = np.log(np.abs(spread))
        conditional = -np.einsum("ts,tsm->", visits, p * np.log(np.where(p > 0, p, 1.0))) / targets
        optimum = conditional + float(q @ np.where(spread > 0, costs, 0.0))
        chance = float(-(q * np.log(np.where(q > 0, q, 1.0))).sum() + q @ costs)
        return targets, {"chance": chance, "optimum": abs(float(optimum))}

    def walk(self, generator: np.random.Generator, count: int) -> tuple[np.ndarray, np.ndarray]:
        """Draw words; return moves (time, count), -1 after the end, and which were possible (time, count, moves)."""
        cumulative, end = self.probabilities.cumsum(2), self.probabilities.shape[2] - 1
        state, ended = np.zeros(count, np.int64), np.zeros(count, bool)
        moves, possible = [], []
        for t in range(len(cumulative)):
            total = cumulative[t, state]
            move = (total <= (generator.random(count) * total[:, -1])[:, None]).sum(1).clip(max=end)
            moves.append(np.where(ended, -1, move))
            possible.append((self.probabilities[t, state] > 0) & ~ended[:, None])
            ended = ended | (move == end)
            state = np.where(ended, 0, self.successors[state, move])
            if ended.all():
                break
        return np.stack(moves), np.stack(possible)


class Words:
    """A grammar whose moves are symbols; of brackets, opening and closing, of several kinds."""

    def __init__(self, name: str, lengths: Sequence[int], kinds: int = 1, depth: int = 1) -> None:
        self.kinds, self.depth = kinds, depth
        automaton = {"brackets": self._brackets, "anbn": self._anbn, "reber": self._reber}[name]
        self.symbols, weights, successors = automaton(lengths)
        steps = [2 * length for length in lengths] if name == "anbn" else lengths
        self.nested = name == "brackets"
        self.grammar = Grammar(weights, successors, steps, natural=name == "reber")
        spread = np.array([kinds, -kinds, 1]) if self.nested else np.ones(weights.shape[1])
        if self.grammar.possible:
            self.targets, self.levels = self.grammar.levels(spread)

    def _brackets(self, _: Sequence[int]) -> tuple[str, np.ndarray, np.ndarray]:
        """States: the depth; moves: open, close, end."""
        depth = np.arange(self.depth + 1)
        weights = np.stack([depth < self.depth, depth > 0, depth == 0], axis=1).astype(float)
        successors = np.stack([depth + 1, depth - 1, depth], axis=1).clip(0, self.depth)
        kinds = PAIRS[: self.kinds]
        return "".join(pair[0] for pair in kinds) + "".join(pair[1] for pair in kinds), weights, successors

    def _anbn(self, lengths: Sequence[int]) -> tuple[str, np.ndarray, np.ndarray]:
        """States: i after i of a (0 to n), then n + 1 + j with j of b to come (0 to n - 1); moves: a, b, end."""
        n, state = lengths[-1], np.arange(2 * lengths[-1] + 1)
        before, left = state <= n, state - n - 1
        b = np.where(before, n + state, state - 1)  # from i of a: i - 1 of b are left
        weights = np.stack([state < n, (before & (state > 0)) | (left > 0), left == 0], axis=1).astype(float)
        return "ab", weights, np.stack([state + 1, b, state], axis=1).clip(0, 2 * n)

    def _reber(self, _: Sequence[int]) -> tuple[str, np.ndarray, np.ndarray]:
        """States: 0 and 1, then 2 to 9 and 10 to 17 inside, after T and after P, 18 and 19; moves: symbols, end."""
        symbols = "BTPSXVE"
        arcs = [(0, "B", 1), (1, "T", 2), (1, "P", 10), (9, "T", 18), (17, "P", 18), (18, "E", 19)]
        for first in (2, 10):
            arcs += [(first + s, a[0], first + int(a[1])) for s, those in REBER.items() for a in those.split()]
        weights, successors = np.zeros((20, len(symbols) + 1)), np.zeros((20, len(symbols) + 1), np.int64)
        for state, symbol, successor in arcs:
            branches = sum(arc[0] == state for arc in arcs)
            move = symbols.index(symbol)
            weights[state, move], successors[state, move] = 1 / branches, successor
        weights[19, -1] = 1.0
        return symbols, weights, successors

    def draw(self, generator: np.random.Generator, count: int) -> Drawn:
        moves, possible = self.grammar.walk(generator, count)
        if self.nested:
            ids, allowed = self._with_kinds(generator, moves, possible)
        else:
            bits = np.append(1 << np.arange(1, possible.shape[2]), 1)  # the end is the boundary, id 0
            ids, allowed = (moves + 1) % possible.shape[2], possible @ bits
            ids = np.where(moves < 0, 0, ids)
        return Drawn(np.concatenate([np.zeros((1, count), np.int64), ids]), allowed)

    def _with_kinds(
        self, generator: np.random.Generator, moves: np.ndarray, possible: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return ids and allowed symbols: any kind may open, only that of the innermost open pair may close."""
        n, count = self.kinds, moves.shape[1]
        kinds = generator.integers(0, n, moves.shape)
        stack, depth, each = np.zeros((self.depth + 1, count), np.int64), np.zeros(count, np.int64), np.arange(count)
        ids, allowed, opening = np.zeros_like(moves), np.zeros_like(moves), ((1 << n) - 1) << 1
        for t, (move, may) in enumerate(zip(moves, possible, strict=True)):
            closing = 1 + n + stack[depth, each]
            allowed[t] = may[:, 0] * opening + (may[:, 1].astype(np.int64) << closing) + may[:, 2]
            ids[t] = np.where(move == 0, 1 + kinds[t], np.where(move == 1, closing, 0))
            depth = depth + (move == 0) - (move == 1)
            stack[depth, each] = np.where(move == 0, kinds[t], stack[depth, each])
        return ids, allowed


def task_of(config: DataConfig, split: str = "train") -> Copy | TemporalOrder | Words:
    """Return the task that a split is drawn from; `test` may have other lengths and another depth."""
    test = split == "test"
    length = (test and config.test_length) or config.length or [1]
    if config.name == "copy":
        return Copy(length, config.kinds or 1, config.recall or 1)
    if config.name == "temporal_order":
        return TemporalOrder(length)
    return Words(config.name, length, config.kinds or 1, (test and config.test_depth) or config.depth or 1)


def errors_in_task(config: DataConfig) -> list[str]:
    """Return what is wrong with the keys of a task, one text an error."""
    name, errors = config.name, []
    if config.seq_len is not None:
        what = f"a window of data={name} is a batch of whole sequences"
        errors.append(f"data.seq_len={config.seq_len}: {what}; leave it out")
    kinds, least, most = MOST_KINDS.get(name), LEAST_LENGTH.get(name, 1), MOST_LENGTH.get(name, 500)
    if kinds and not 1 <= (config.kinds or 0) <= kinds:
        errors.append(f"data.kinds={config.kinds}: expected 1 to {kinds} for data={name}")
    for key in ("length", "test_length"):
        value = getattr(config, key)
        if value is None and key == "test_length":
            continue
        if not value or len(value) > 2 or not least <= value[0] <= value[-1] <= most:
            expected = f"expected one length or two, the least and the largest, from {least} to {most}"
            errors.append(f"data.{key}={value}: {expected}, such as [{least},{10 * least}]")
    for split in () if errors else ("train", "test"):
        if isinstance(task := task_of(config, split), Words) and not task.grammar.possible:
            key = "test_length" if split == "test" and config.test_length else "length"
            errors.append(f"data.{key}={getattr(config, key)}: data={name} has no word of such a length")
    return list(dict.fromkeys(errors))


@dataclass(frozen=True, eq=False)
class TaskSplit(LineSplit):
    """Sequences of a task; `ids` is empty, for they are drawn: of `val` and `test` once, from `seed`, then fixed."""

    task: Copy | TemporalOrder | Words
    count: int
    seed: int
    held_out: int

    def __len__(self) -> int:
        return self.count

    @property
    def transitions(self) -> int:
        """The targets of all sequences; of `train`, where each epoch has others, on average."""
        return round(self.count * self.task.targets) if self.name == "train" else int((self.fixed.allowed != 0).sum())

    @cached_property
    def fixed(self) -> Drawn:
        return self.task.draw(np.random.default_rng((1 + len(self.name), self.seed)), self.count)


class TaskPlan:
    """Whole sequences side by side, `batch_size` in a window, padded to the longest; an epoch's are drawn at once.

    With a random offset `train` has others in each epoch, drawn from (seed, epoch); else those of epoch 0 in all.
    """

    dropped, fresh = 0, True

    def __init__(self, split: TaskSplit, _: int, batch_size: int, offset: str, seed: int) -> None:
        self.split, self.batch_size, self.random, self.seed = split, batch_size, offset == "random", seed
        self.count = -(-len(split) // batch_size)
        self.drawn: tuple[int, Drawn] | None = None  # an epoch and its sequences

    def sequences(self, epoch: int) -> Drawn:
        if self.split.name != "train":
            return self.split.fixed
        epoch = epoch if self.random else 0
        if self.drawn is None or self.drawn[0] != epoch:
            # Numpy treats (4, 0, 0) as (4, 0): an equal number of sequences would repeat val's (5: test's)
            taken = self.seed in (4, 5) and epoch == self.split.seed and len(self.split) == self.split.held_out
            self.drawn = epoch, self.split.task.draw(np.random.default_rng((self.seed, epoch, taken)), len(self.split))
        return self.drawn[1]

    def cut(self, epoch: int, index: int, columns: slice) -> tuple[np.ndarray, np.ndarray, bool, np.ndarray]:
        """Return inputs, targets, True and the allowed symbols of a window's columns; missing ones are boundaries."""
        own = slice(index * self.batch_size, (index + 1) * self.batch_size)
        ids, allowed = (part[:, own] for part in self.sequences(epoch))
        steps = 1 + int(np.flatnonzero(allowed.any(1))[-1])  # the last target of any column
        missing = ((0, 0), (0, self.batch_size - ids.shape[1]))
        ids, allowed = (np.pad(part, missing)[:, columns] for part in (ids[: steps + 1], allowed[:steps]))
        inputs, targets = ids[:-1].astype(np.int64), np.where(allowed != 0, ids[1:], IGNORED)
        return np.ascontiguousarray(inputs), targets, True, np.ascontiguousarray(allowed)


PLANS[TaskSplit] = TaskPlan


def open_task(config: DataConfig) -> tuple[Vocabulary, Splits, dict[str, Any]]:
    """Return vocabulary, splits and the record for run.json of a task whose configuration has no errors."""
    vocabulary = Vocabulary.of(BOUNDARY + task_of(config).symbols)
    sizes = {"train": config.sequences or 1, **dict.fromkeys(("val", "test"), config.held_out or 1)}
    splits, empty = Splits(), np.zeros(0, np.uint8)
    for name, size in sizes.items():
        splits[name] = TaskSplit(name, empty, 0, task_of(config, name), size, config.split_seed, sizes["val"])
    keys = ("length", "test_length", "kinds", "recall", "depth", "test_depth", "split_seed")
    return vocabulary, splits, {key: getattr(config, key) for key in keys} | {"sequences": sizes}


def target_mask(config: DataConfig, vocabulary: Vocabulary, ids: np.ndarray) -> np.ndarray:
    """Return which ids (length,) of an item, from its first boundary on, are targets."""
    symbols = np.array(vocabulary.symbols)[ids]
    found = np.arange(len(ids)) > 0
    if config.name == "copy":
        found &= (np.cumsum(symbols == RECALL) > 0) & ~np.isin(symbols, (RECALL, BOUNDARY))
    elif config.name == "temporal_order":
        found &= np.isin(symbols, list(ORDER["classes"]))
    return found
