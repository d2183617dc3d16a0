"""A page of headings, prose, equations and tables of numbers, as text for a terminal or as markdown."""

from __future__ import annotations

import re
import shlex
import unicodedata
from collections.abc import Iterable, Sequence
from typing import NamedTuple

WIDTH = 100  # columns of a terminal
INDENT, GAP = " ", "   "  # before a table, and between its columns


class Heading(NamedTuple):
    """What comes next."""

    text: str
    level: int = 2


class Prose(NamedTuple):
    """Sentences."""

    text: str


class Equation(NamedTuple):
    """The same equation twice: as a terminal shows it, and in LaTeX."""

    plain: str
    latex: str


class Command(NamedTuple):
    """A command of a shell, word by word, not yet quoted."""

    words: Sequence[str]


class Table(NamedTuple):
    """Cells of text; an empty row is a gap. Where it is too wide, it goes on below with its first column repeated."""

    header: Sequence[str]
    rows: Sequence[Sequence[str]]


Block = Heading | Prose | Equation | Command | Table


def as_text(blocks: Iterable[Block], width: int = WIDTH) -> str:
    """Return the page for a terminal, no line longer than `width` (but for a single cell that is)."""
    return "\n\n".join("\n".join(line.rstrip() for line in _text(block, width)) for block in blocks) + "\n"


def as_markdown(blocks: Iterable[Block]) -> str:
    """Return the page in GitHub's markdown, its equations between dollars."""
    return "\n\n".join("\n".join(_markdown(block)) for block in blocks) + "\n"


def columns(text: str) -> int:
    """Return how many columns of a terminal a text takes: two for each Chinese character, say, none for an accent."""
    wide = sum(unicodedata.east_asian_width(letter) in "WF" for letter in text)
    return len(text) + wide - sum(unicodedata.combining(letter) > 0 for letter in text)


def visible(text: str) -> str:
    """Return a text whose blanks are seen, one by one, in cells."""
    return text.replace(" ", "␣")


def wrapped(words: Iterable[str], width: int) -> list[str]:
    """Return lines of at most `width` columns, a blank between two words; a word that is wider has a line alone."""
    lines: list[str] = []
    for word in words:
        if lines and columns(lines[-1]) + 1 + columns(word) <= width:
            lines[-1] += f" {word}"
        else:
            lines.append(word)
    return lines


def _text(block: Block, width: int) -> list[str]:
    if isinstance(block, Heading):
        return [block.text, ("=" if block.level == 1 else "-") * columns(block.text)]
    if isinstance(block, Prose):
        return wrapped(block.text.split(" "), width)
    if isinstance(block, Command):
        first, *more = wrapped(map(shlex.quote, block.words), width - 10)
        return " \\\n        ".join([f"    {first}", *more]).splitlines()
    if isinstance(block, Equation):
        return [f"    {line}" for line in block.plain.splitlines()]
    lines: list[str] = []
    for group in _fitting(block, width):
        lines += [""] * bool(lines) + _grid(block, group)
    return lines


def _widths(table: Table) -> list[int]:
    return [max(map(columns, column)) for column in zip(table.header, *filter(None, table.rows), strict=True)]


def _fitting(table: Table, width: int) -> list[list[int]]:
    """Which columns stand side by side; a narrow first one, which tells the rows apart, leads each group."""
    widths = _widths(table)
    lead = [0] if widths[0] <= 10 else []
    groups = [[0]]
    for column in range(1, len(widths)):
        beside = [*groups[-1], column]
        if len(INDENT) + sum(widths[c] for c in beside) + len(GAP) * (len(beside) - 1) <= width:
            groups[-1] = beside
        else:
            groups.append([*lead, column])
    return groups


def _grid(table: Table, shown: list[int]) -> list[str]:
    widths = _widths(table)
    rows = [table.header, ["-" * width for width in widths], *table.rows]
    padded = [[row[c] + " " * (widths[c] - columns(row[c])) for c in shown] if row else [] for row in rows]
    return [INDENT + GAP.join(cells) if cells else "" for cells in padded]


def _markdown(block: Block) -> list[str]:
    if isinstance(block, Heading):
        return [f"{'#' * block.level} {_literal(block.text)}"]
    if isinstance(block, Prose):
        return [_literal(block.text)]
    if isinstance(block, Command):
        return ["```sh", shlex.join(block.words), "```"]
    if isinstance(block, Equation):
        return ["$$", block.latex, "$$"]
    header = [_literal(re.sub(r"\s+", " ", cell)).replace("|", "\\|") for cell in block.header]
    lines = [f"| {' | '.join(header)} |", f"|{'---|' * len(block.header)}"]
    for row in filter(None, block.rows):
        cells = [re.sub(r"\s+", " ", cell.strip()).replace("|", "\\|") for cell in row]
        lines.append(f"| {' | '.join(map(_span, cells))} |")
    return lines


def _literal(text: str) -> str:
    """Text whose backticks open no code."""
    return text.replace("`", r"\`")


def _span(cell: str) -> str:
    """A cell as code; one that has a backtick of its own stands between two."""
    return f"`` {cell} ``" if "`" in cell else f"`{cell}`" if cell else ""
