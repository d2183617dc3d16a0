"""A text coloured by surprisal, as one HTML page that opens from disk: the darker a character, the less expected."""

from __future__ import annotations

import html
from collections.abc import Sequence

from src.analysis.surprisal import Score

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
