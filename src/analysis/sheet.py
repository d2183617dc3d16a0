"""A page of headings, prose, equations and tables of numbers, as text for a terminal or as markdown."""

from __future__ import annotations

import re
import textwrap
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


class Table(NamedTuple):
    """Cells of text; an empty row is a gap. Where it is too wide, it goes on below with its first column repeated."""

    header: Sequence[str]
    rows: Sequence[Sequence[str]]


Block = Heading | Prose | Equation | Table


def as_text(blocks: Iterable[Block], width: int = WIDTH) -> str:
    """Return the page for a terminal, no line longer than `width` (but for a single cell that is)."""
    return "\n\n".join("\n".join(line.rstrip() for line in _text(block, width)) for block in blocks) + "\n"


def as_markdown(blocks: Iterable[Block]) -> str:
    """Return the page in GitHub's markdown, its equations between dollars."""
    return "\n\n".join("\n".join(_markdown(block)) for block in blocks) + "\n"


def _text(block: Block, width: int) -> list[str]:
    if isinstance(block, Heading):
        return [block.text, ("=" if block.level == 1 else "-") * len(block.text)]
    if isinstance(block, Prose):
        return textwrap.wrap(block.text, width, break_long_words=False)
    if isinstance(block, Equation):
        return [f"    {line}" for line in block.plain.splitlines()]
    lines: list[str] = []
    for columns in _fitting(block, width):
        lines += [""] * bool(lines) + _grid(block, columns)
    return lines


def _widths(table: Table) -> list[int]:
    return [max(len(cell) for cell in column) for column in zip(table.header, *filter(None, table.rows), strict=True)]


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


def _grid(table: Table, columns: list[int]) -> list[str]:
    widths = _widths(table)
    rows = [table.header, ["-" * width for width in widths], *table.rows]
    return [INDENT + GAP.join(row[c].ljust(widths[c]) for c in columns) if row else "" for row in rows]


def _markdown(block: Block) -> list[str]:
    if isinstance(block, Heading):
        return [f"{'#' * block.level} {block.text}"]
    if isinstance(block, Prose):
        return [block.text]
    if isinstance(block, Equation):
        return ["$$", block.latex, "$$"]
    header = [re.sub(r"\s+", " ", cell).replace("|", "\\|") for cell in block.header]
    lines = [f"| {' | '.join(header)} |", f"|{'---|' * len(block.header)}"]
    for row in filter(None, block.rows):
        cells = [re.sub(r"\s+", " ", cell.strip()).replace("|", "\\|") for cell in row]
        lines.append(f"| {' | '.join(f'`{cell}`' if cell else '' for cell in cells)} |")
    return lines
