"""How surprised a model was by each character of a text: -log2 p(character | all before it), in bits."""

from __future__ import annotations

import codecs
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from src.metrics import perplexity


@dataclass(frozen=True)
class Score:
    """The bits of every scored symbol of a text, in order.

    name: of the file, or `text`.
    given: what is read and not scored: the first symbol, or of a list of items nothing that belongs to them.
    symbols: the scored symbols, one a number in `bits`; of a bytes model they are bytes.
    bits: -log2 p of each.
    hits: how many were the model's first guess.
    """

    name: str
    given: bytes
    symbols: list[bytes]
    bits: list[float]
    hits: int

    @property
    def characters(self) -> int:
        """How many were scored: one less than the text has, as in `evaluate`; of items one more than each has."""
        return len(self.bits)

    @property
    def total(self) -> float:
        """Bits of the whole text."""
        return math.fsum(self.bits)

    @property
    def bits_per_character(self) -> float:
        """Mean bits."""
        return self.total / self.characters

    @property
    def cross_entropy(self) -> float:
        """Mean nats."""
        return self.bits_per_character * math.log(2)

    @property
    def perplexity(self) -> float:
        """2 to the mean bits."""
        return perplexity(self.cross_entropy)

    @property
    def accuracy(self) -> float:
        """Share of the symbols that were the first guess."""
        return self.hits / self.characters

    def readable(self) -> Iterator[tuple[str, float | None]]:
        """Yield the text a character a time with its bits: those of its bytes together; None where it was given."""
        decoder = codecs.getincrementaldecoder("utf-8")("replace")
        head = decoder.decode(self.given)
        if head:
            yield head, None
        bits = 0.0
        for symbol, cost in zip(self.symbols, self.bits, strict=True):
            bits += cost
            if text := decoder.decode(symbol):
                yield text, bits
                bits = 0.0
        if rest := decoder.decode(b"", final=True):
            yield rest, bits

    def summary(self) -> dict[str, Any]:
        """The numbers of the whole, in the words of `evaluation_<split>.json`; `total` in bits."""
        return {
            "name": self.name,
            "characters": self.characters,
            "total": self.total,
            "cross_entropy": self.cross_entropy,
            "bits_per_character": self.bits_per_character,
            "perplexity": self.perplexity,
            "accuracy": self.accuracy,
        }

    def to_plain(self) -> dict[str, Any]:
        """Plain data, for JSON: the summary, and `text`: pairs of a character and its bits."""
        return {**self.summary(), "bits": self.bits, "text": [list(pair) for pair in self.readable()]}
