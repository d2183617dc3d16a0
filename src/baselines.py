"""Baselines: an interpolated Witten-Bell n-gram over characters (Witten and Bell 1991; Chen and Goodman 1999).

    P_n(c | h) = (count(h c) + T(h) P_{n-1}(c | h')) / (count(h) + T(h)),      P_0 = 1 / vocabulary

h: the n - 1 characters before c, h' the same without its first; count(h): how often h was followed by a character,
T(h): by how many different ones. After a context that was never seen, P_n = P_{n-1}.

The n-grams of one order are counted by sorting one array of integers: a context is represented by its rank among the
contexts of its length, so rank * vocabulary + character is an n-gram of any order in 64 bits.
"""

from __future__ import annotations

import hashlib
import math

import numpy as np

from src.data.batching import LineSplit, PairSplit
from src.data.corpus import Corpus
from src.data.tasks import TaskSplit
from src.data.text_reader import cache_folder, read_cached, write_cached

MAX_ORDER = 7
MOST_TRAIN = 6_000_000  # of a longer training text the last characters are counted: seconds, and 450 MB
MOST_SCORED = 1_000_000  # of a longer held-out text the first characters are scored


def witten_bell(
    train_ids: np.ndarray, held_out_ids: np.ndarray, vocab_size: int, max_order: int, boundary: int | None = None
) -> list[float]:
    """Return nats per character of the held-out text (length,) for the n-grams of order 1..max_order of `train_ids`.

    Every character but the first is scored, the early ones with the context that there is. `boundary`: an id that
    starts a new item; contexts do not reach back beyond it.
    """
    train, held_out = (np.asarray(ids, np.int64) for ids in (train_ids, held_out_ids))
    reach = _context_length(train, boundary, max_order)
    # Rank of the context before each character; order 1 has one context, the empty one
    context, scored_context = np.zeros(len(train), np.int64), np.zeros(len(held_out), np.int64)
    ranks = 1
    probability = np.full(len(held_out), 1.0 / vocab_size)
    nats = []
    for order in range(1, max_order + 1):
        grams = np.where(reach >= order - 1, context * vocab_size + train, -1)
        known, counts = np.unique(grams[grams >= 0], return_counts=True)
        context_counts = np.bincount(known // vocab_size, weights=counts, minlength=ranks)  # count(h), by rank of h
        context_kinds = np.bincount(known // vocab_size, minlength=ranks)  # T(h), by rank of h
        scored = np.where(scored_context >= 0, scored_context * vocab_size + held_out, -1)
        index = _index(known, scored)
        seen = scored >= 0
        # A context that occurs only at the end of the text, or of an item, has no counts: the shorter one is used
        seen[seen] = context_counts[scored_context[seen]] > 0
        h = scored_context[seen]
        count = np.where(index[seen] >= 0, counts[index[seen]], 0)
        kinds = context_kinds[h]
        probability[seen] = (count + kinds * probability[seen]) / (context_counts[h] + kinds)
        nats.append(float(-np.log(probability[1:]).mean()))
        # An n-gram of this order is the context of the next character in the next order
        context[1:], context[0] = _index(known, grams)[:-1], -1
        scored_context[1:], scored_context[0] = index[:-1], -1
        ranks = len(known)
    return nats


def _context_length(ids: np.ndarray, boundary: int | None, most: int) -> np.ndarray:
    """Return how many characters of context each character has (in its item, if there are items), at most `most`."""
    positions = np.arange(len(ids))
    if boundary is None:
        return np.minimum(positions, most)
    starts = np.maximum.accumulate(np.where(ids == boundary, positions, 0))
    return np.minimum(positions - np.concatenate(([0], starts[:-1])), most)


def _index(values: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """Return the index of each wanted number in the sorted `values`, -1 if it is not there."""
    if not len(values):
        return np.full(len(wanted), -1)
    index = np.minimum(np.searchsorted(values, wanted), len(values) - 1)
    return np.where(values[index] == wanted, index, -1)


def baselines(corpus: Corpus, split: str = "val") -> dict[str, float]:
    """Return bits per character: `uniform` (every symbol equally likely), `unigram`, `ngram_2` to `ngram_7`.

    Counted on `train`, scored on `split`, stored in the cache. A pair, or a split of one character, has `uniform` only;
    a task `uniform`, `chance` and `optimum`, bits per target (src/data/tasks.py).
    """
    train, scored, size = corpus.splits["train"], corpus.splits[split], len(corpus.vocabulary)
    uniform = {"uniform": math.log2(size)}
    if isinstance(scored, TaskSplit):
        return uniform | {name: nats / math.log(2) for name, nats in scored.task.levels.items()}
    if isinstance(scored, PairSplit) or scored.transitions < 1:
        return uniform
    name = hashlib.sha256(f"{corpus.key} {split} {(MAX_ORDER, MOST_TRAIN, MOST_SCORED)}".encode()).hexdigest()[:32]
    path = cache_folder() / "baselines" / f"{name}.checked.json"
    nats: list[float] | None = read_cached(path)
    if nats is None:
        boundary = train.boundary if isinstance(train, LineSplit) else None
        nats = witten_bell(train.ids[-MOST_TRAIN:], scored.ids[: MOST_SCORED + 1], size, MAX_ORDER, boundary)
        write_cached(path, nats)
    names = ["unigram", *(f"ngram_{order}" for order in range(2, MAX_ORDER + 1))]
    # max: of a text of one character they are -0.0
    return uniform | {name: max(0.0, one) / math.log(2) for name, one in zip(names, nats, strict=True)}


def basis(corpus: Corpus, split: str = "val") -> str | None:
    """Return which part of the text the n-grams of `baselines` use, or None if they use all of it."""
    if split not in corpus.splits or isinstance(corpus.splits[split], TaskSplit):
        return None
    train, scored = corpus.splits["train"], corpus.splits[split]
    parts = []
    if len(train.ids) > MOST_TRAIN:
        parts.append(f"counted on the last {MOST_TRAIN:,} of {len(train.ids):,} characters")
    if scored.transitions > MOST_SCORED:
        parts.append(f"scored on the first {MOST_SCORED:,} of {scored.transitions:,}")
    return "n-grams " + ", ".join(parts) if parts else None
