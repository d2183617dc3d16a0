"""The honest floor: an interpolated Witten-Bell n-gram over characters (Witten and Bell 1991; Chen and Goodman 1999).

    P_n(c | h) = (count(h c) + T(h) P_{n-1}(c | h')) / (count(h) + T(h)),      P_0 = 1 / vocabulary

h: the n - 1 characters before c, h' the same without its first; count(h): how often h was followed by anything,
T(h): by how many different characters. After a context that was never seen, P_n = P_{n-1}.

All n-grams of one order are counted by sorting one array of integers: a context is known by its rank among the
contexts of its length, so that rank * vocabulary + character names an n-gram of any order in 64 bits.
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass

import numpy as np

from src.data.corpus import Corpus
from src.data.encoding import folder, read_json, write_json
from src.data.splits import LineSplit, PairSplit

MAX_ORDER = 7
MOST_TRAIN = 6_000_000  # characters counted of a longer training text (its last ones): seconds, and 450 MB
MOST_SCORED = 1_000_000  # characters scored of a longer held-out text: its first ones


@dataclass(frozen=True)
class Counts:
    """Counts of one order. `grams`: rank(context) * vocabulary + character, sorted; the others go with them."""

    grams: np.ndarray
    counts: np.ndarray  # how often each n-gram occurs
    context_counts: np.ndarray  # count(h), by rank of h
    context_kinds: np.ndarray  # T(h), by rank of h


def witten_bell(
    train_ids: np.ndarray,
    held_out_ids: np.ndarray,
    vocab_size: int,
    max_order: int = MAX_ORDER,
    boundary: int | None = None,
) -> list[float]:
    """Nats a character of the held-out text under the n-gram of each order 1..max_order, counted on the training text.

    Every character of the held-out text but the first is scored, the early ones after as much context as there is.
    `boundary`: an id that starts a new item; contexts do not reach past it.
    """
    train, held_out = (np.asarray(ids, np.int64) for ids in (train_ids, held_out_ids))
    if len(train) < 1 or len(held_out) < 2:
        raise ValueError(f"{len(train)} characters to count and {len(held_out)} to score: it takes 1 and 2 at least")
    reach = _context_length(train, boundary, max_order)
    # Rank of the context that ends before each character; order 1 has one context, the empty one
    context, scored_context = np.zeros(len(train), np.int64), np.zeros(len(held_out), np.int64)
    ranks = 1
    probability = np.full(len(held_out), 1.0 / vocab_size)
    nats = []
    for order in range(1, max_order + 1):
        grams = np.where(reach >= order - 1, context * vocab_size + train, -1)
        found = _count(grams, vocab_size, ranks)
        scored = np.where(scored_context >= 0, scored_context * vocab_size + held_out, -1)
        place = _place(found.grams, scored)
        seen = scored >= 0
        # A context that ends the training text, or an item, was followed by nothing: the shorter one stands
        seen[seen] = found.context_counts[scored_context[seen]] > 0
        h = scored_context[seen]
        count = np.where(place[seen] >= 0, found.counts[place[seen]], 0)
        kinds = found.context_kinds[h]
        probability[seen] = (count + kinds * probability[seen]) / (found.context_counts[h] + kinds)
        nats.append(float(-np.log(probability[1:]).mean()))
        # An n-gram of this order, one character on, is a context of the next
        context[1:], context[0] = _place(found.grams, grams)[:-1], -1
        scored_context[1:], scored_context[0] = place[:-1], -1
        ranks = len(found.grams)
    return nats


def _context_length(ids: np.ndarray, boundary: int | None, most: int) -> np.ndarray:
    """How many characters of context each character has (its item's, where there are items), at most `most`."""
    places = np.arange(len(ids))
    if boundary is None:
        return np.minimum(places, most)
    starts = np.maximum.accumulate(np.where(ids == boundary, places, 0))
    return np.minimum(places - np.concatenate(([0], starts[:-1])), most)


def _count(grams: np.ndarray, vocab_size: int, ranks: int) -> Counts:
    names, counts = np.unique(grams[grams >= 0], return_counts=True)
    context = names // vocab_size
    context_counts = np.bincount(context, weights=counts, minlength=ranks)
    return Counts(names, counts, context_counts, np.bincount(context, minlength=ranks))


def _place(names: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """Where each wanted number stands in the sorted `names`, -1 where it does not."""
    if not len(names):
        return np.full(len(wanted), -1)
    place = np.minimum(np.searchsorted(names, wanted), len(names) - 1)
    return np.where(names[place] == wanted, place, -1)


def baselines(corpus: Corpus, split: str = "val") -> dict[str, float]:
    """What to beat, in bits a character: `uniform` (every symbol alike), `unigram`, `ngram_2` to `ngram_7`.

    Counted on `train`, scored on `split`; kept in the cache by the corpus's key. Of a text longer than `MOST_TRAIN` or
    `MOST_SCORED` only so much is used, which `basis` tells. A pair, or a split of one character, has `uniform` alone.
    """
    train, scored = corpus.splits["train"], corpus.splits[split]
    size = len(corpus.vocabulary)
    floor = {"uniform": math.log2(size)}
    if isinstance(scored, PairSplit) or scored.transitions < 1:
        return floor
    boundary = train.boundary if isinstance(train, LineSplit) else None
    limits = (MAX_ORDER, MOST_TRAIN, MOST_SCORED)
    name = hashlib.sha256(f"{corpus.key} {split} {limits}".encode()).hexdigest()[:32]
    place = folder() / "baselines" / f"{name}.json"
    kept = read_json(place)
    sound = isinstance(kept, list) and len(kept) == MAX_ORDER and all(isinstance(nats, float) for nats in kept)
    if not sound:
        kept = witten_bell(train.ids[-MOST_TRAIN:], scored.ids[: MOST_SCORED + 1], size, MAX_ORDER, boundary)
        write_json(place, kept)
    names = ["unigram", *(f"ngram_{order}" for order in range(2, MAX_ORDER + 1))]
    return floor | {name: nats / math.log(2) for name, nats in zip(names, kept, strict=True)}


def basis(corpus: Corpus, split: str = "val") -> str | None:
    """What the n-grams of `baselines` rest on, where there are any and that is less than the whole text."""
    if split not in corpus.splits:
        return None
    train, scored = corpus.splits["train"], corpus.splits[split]
    parts = []
    if len(train.ids) > MOST_TRAIN:
        parts.append(f"counted on the last {MOST_TRAIN:,} of {len(train.ids):,} characters")
    if scored.transitions > MOST_SCORED:
        parts.append(f"scored on the first {MOST_SCORED:,} of {scored.transitions:,}")
    return "n-grams " + ", ".join(parts) if parts else None
