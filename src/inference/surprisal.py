"""How surprised a model was by each character of a text: -log2 p(character | all before it), in bits."""

from __future__ import annotations

import codecs
import html
import math
from collections.abc import Iterator, Sequence
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


# ---- A text coloured by surprisal, as one HTML page that opens from disk: the darker a character, the less expected.

LEVELS = 16
BITS_A_LEVEL = 0.75  # so that the darkest begins at 11.25 bits, one in 2,400

STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; margin: 2em auto; max-width: 60em; padding: 0 1em }
body { color: #111; background: #fff }
pre { font: 15px/1.7 ui-monospace, monospace; white-space: pre-wrap; overflow-wrap: anywhere }
table { border-collapse: collapse } td, th { padding: .2em .8em; text-align: right }
td:first-child, th:first-child { text-align: left }
.given { outline: 1px dotted #888 }
"""


def render(scores: Sequence[Score], model: str) -> str:
    """Return the page: a table where there are several texts, then each text; a character's bits are its title."""
    colours = "\n".join(f".b{level} {{ background: {colour(level)} }}" for level in range(LEVELS))
    legend = " ".join(f'<span class="b{level}">{level * BITS_A_LEVEL:g}</span>' for level in range(0, LEVELS, 2))
    table = _table(scores) if len(scores) > 1 else ""
    bodies = "\n".join(_body(score) for score in scores)
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>Surprisal</title>'
        f"<style>{STYLE}{colours}</style></head>\n<body><h1>Surprisal, character by character</h1>\n"
        f"<p>Scored by {html.escape(model)}. Bits: {legend}</p>\n{table}{bodies}</body></html>\n"
    )


def colour(level: int) -> str:
    """White for what was expected, to orange for what was not; dark enough text stays readable on each."""
    share = level / (LEVELS - 1)
    red, green, blue = 255, round(255 - 125 * share), round(255 - 215 * share)
    return f"rgb({red},{green},{blue})"


def level_of(bits: float) -> int:
    """The level of colour of a character that cost so many bits."""
    return min(LEVELS - 1, int(bits / BITS_A_LEVEL))


def _table(scores: Sequence[Score]) -> str:
    rows = "".join(
        f"<tr><td>{html.escape(score.name)}</td><td>{score.characters:,}</td><td>{score.bits_per_character:.4f}</td>"
        f"<td>{score.perplexity:.3f}</td></tr>"
        for score in scores
    )
    head = "<tr><th>text</th><th>characters</th><th>bits a character</th><th>perplexity</th></tr>"
    return f"<table>{head}{rows}</table>\n"


def _body(score: Score) -> str:
    spans = "".join(_span(text, bits) for text, bits in score.readable())
    return (
        f"<h2>{html.escape(score.name)}</h2>\n<p>{score.characters:,} characters, {score.total:.2f} bits, "
        f"{score.bits_per_character:.4f} bits a character, perplexity {score.perplexity:.3f}</p>\n<pre>{spans}</pre>\n"
    )


def _span(text: str, bits: float | None) -> str:
    shown = html.escape(text).replace("\n", "↵\n")  # a line break's own colour needs something to stand on
    if bits is None:
        return f'<span class="given" title="given">{shown}</span>'
    return f'<span class="b{level_of(bits)}" title="{bits:.2f} bits">{shown}</span>'
