"""From logits to the next character: a distribution, its filters, a draw.

    p = softmax(o / temperature)           temperature 0: the first of the likeliest, always (greedy)
    top_k   only the k likeliest           of equals the one with the lower id
    top_p   only the likeliest that together reach top_p, the one that crosses it included
    min_p   only those with p >= min_p * max p

The filters apply in this order, each to what the one before it left, and what is left is scaled to sum to 1. A draw
inverts the cumulative sum at a uniform number, so that one number decides one character and equal numbers give equal
texts. numpy throughout: at one row an operation of its costs a third of torch's.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from numbers import Integral, Real

import numpy as np

Number = int | float  # told apart where the tests check types: temperature=0 is as good as 0.0
Draw = Callable[[np.ndarray, np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Choice:
    """How the next character is chosen; None switches a filter off."""

    temperature: Number = 1.0
    top_k: int | None = None
    top_p: Number | None = None
    min_p: Number | None = None

    def mistakes(self, vocab_size: int | None = None) -> list[str]:
        """What is wrong with it, one text a mistake; `vocab_size`, where it is known, bounds top_k."""
        found = []
        kinds = {"temperature": Real, "top_k": Integral, "top_p": Real, "min_p": Real}
        for name, kind in kinds.items():
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, kind if name == "temperature" else kind | None):
                found.append(f"{name}={value!r}: expected a {'whole ' if kind is Integral else ''}number")
        if found:
            return found
        if not 0 <= self.temperature < float("inf"):
            found.append(f"temperature={self.temperature}: expected 0 (always the likeliest) or a number above it")
        if self.top_k is not None and self.top_k < 1:
            found.append(f"top_k={self.top_k}: expected at least 1; leave it out to keep every character")
        if self.top_k is not None and vocab_size is not None and self.top_k > vocab_size:
            found.append(
                f"top_k={self.top_k}: the vocabulary has {vocab_size} characters; at most that many can be kept"
            )
        if self.top_p is not None and not 0 < self.top_p <= 1:
            found.append(f"top_p={self.top_p}: expected a share of the probability, 0 < top_p <= 1")
        if self.min_p is not None and not 0 <= self.min_p <= 1:
            found.append(f"min_p={self.min_p}: expected a share of the likeliest one's probability, 0 <= min_p <= 1")
        return found

    def probabilities(self, logits: np.ndarray) -> np.ndarray:
        """logits (batch, vocab) -> the distribution that is drawn from, (batch, vocab) float64, rows sum to 1."""
        if self.temperature == 0:
            return np.eye(logits.shape[1])[logits.argmax(1)]
        scaled = logits.astype(np.float64)
        scaled -= scaled.max(1, keepdims=True)  # first: o / temperature may be too large for a number
        with np.errstate(over="ignore"):
            kept = self.filtered(np.exp(scaled / self.temperature))
        return kept / kept.sum(1, keepdims=True)

    def filtered(self, weights: np.ndarray) -> np.ndarray:
        """weights (batch, vocab), proportional to p -> the same with 0 where a filter drops a character."""
        if self.top_k is not None or self.top_p is not None:
            order = np.argsort(-weights, axis=1, kind="stable")
            ranked = np.take_along_axis(weights, order, 1)
            if self.top_k is not None:
                ranked[:, self.top_k :] = 0
            if self.top_p is not None:
                before = np.cumsum(ranked, 1) - ranked  # the mass of those likelier; the first has none before it
                ranked[before >= self.top_p * ranked.sum(1, keepdims=True)] = 0
            weights = np.empty_like(weights)
            np.put_along_axis(weights, order, ranked, 1)
        if self.min_p is not None:
            weights = np.where(weights >= self.min_p * weights.max(1, keepdims=True), weights, 0)
        return weights

    def drawer(self) -> Draw:
        """The function (logits (batch, vocab), uniform (batch,)) -> ids (batch,): `draw(probabilities(logits), u)`.

        What need not be done is left out: a sum of 1 is not needed to invert a cumulative sum.
        """
        if self.temperature == 0:
            return lambda logits, uniform: logits.argmax(1)
        filters = any(word is not None for word in (self.top_k, self.top_p, self.min_p))
        temperature = self.temperature

        def draw_one_each(logits: np.ndarray, uniform: np.ndarray) -> np.ndarray:
            scaled = logits.astype(np.float64)
            scaled -= scaled.max(1, keepdims=True)
            if temperature != 1:
                with np.errstate(over="ignore"):  # -inf, of which exp makes the 0 that is meant
                    scaled /= temperature
            np.exp(scaled, out=scaled)
            return draw(self.filtered(scaled) if filters else scaled, uniform)

        return draw_one_each


def draw(weights: np.ndarray, uniform: np.ndarray) -> np.ndarray:
    """The ids (batch,) whose share of `weights` (batch, vocab) holds `uniform` (batch,), numbers in [0, 1).

    id = the first with w_0 + ... + w_id > u * sum(w), so a character of weight 0 is never drawn.
    """
    total = np.cumsum(weights, 1)
    if len(total) == 1:  # a binary search by its own is faster than one comparison a character
        return np.array([total[0].searchsorted(uniform[0] * total[0, -1], "right")])
    return (total <= (uniform * total[:, -1])[:, None]).sum(1)
