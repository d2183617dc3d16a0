"""The report for a terminal or a pipe: plain text that lines up, nothing cut, no colours."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence

from src.reports import cells
from src.reports.compare import Comparisons
from src.reports.table import Table


def render(table: Table, comparisons: Comparisons | None = None) -> str:
    """The whole report as text, a newline at its end."""
    blocks = [[cells.headline(table), table.metric.describe()]]
    if common := cells.in_common(table):
        blocks[0].append(common)
    if none := cells.nothing_yet(table):
        blocks.append([none])
    if table.rows:
        places = cells.places(table)
        body = [cells.cells(table, place, row) for place, row in zip(places, table.rows, strict=True)]
        blocks.append(columns(cells.headers(table), body))
    blocks.append(cells.brought_along(table))
    if comparisons is not None:
        blocks.append(comparison(table, comparisons))
    if table.left_out:
        body = cells.left_out_rows(table)
        blocks.append([f"not counted ({len(body)}):", *columns(cells.LEFT_OUT_HEADERS, body)])
    return "\n\n".join("\n".join(block) for block in blocks if block) + "\n"


def comparison(table: Table, comparisons: Comparisons) -> list[str]:
    """The paired comparison as lines."""
    lines = [cells.comparison_title(table, comparisons)]
    lines += columns(*cells.comparison_grid(comparisons))
    if comparisons.by_setting:
        lines += ["", f"{cells.BY_SETTING}:", *columns(*cells.comparison_grid(comparisons, by_setting=True))]
    return lines + cells.alone_lines(table, comparisons)


def columns(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Lines in which columns line up: those that hold only figures to the right, words to the left.

    Wide characters (Chinese, for one) take two places of a terminal.
    """
    printable = [[_one_line(cell) for cell in row] for row in rows]
    widths = [max(_width(cell) for cell in column) for column in zip(heads, *printable, strict=True)]
    right = [all(_is_figure(row[i]) for row in printable) for i in range(len(heads))]
    lines = []
    for row in [list(heads), *printable]:
        padded = [
            " " * (width - _width(cell)) + cell if flush else cell + " " * (width - _width(cell))
            for cell, width, flush in zip(row, widths, right, strict=True)
        ]
        lines.append("  ".join(padded).rstrip())
    return lines


def _is_figure(cell: str) -> bool:
    return not cell or (cell[0] in "0123456789+-<." and not any(char.isalpha() for char in cell.replace("e-", "")))


def _one_line(cell: str) -> str:
    """Control characters (of an error message, a file name) would break the lines or drive the terminal."""
    return "".join(char if char.isprintable() else repr(char)[1:-1] for char in cell)


def _width(text: str) -> int:
    return sum(
        0 if unicodedata.combining(char) else 2 if unicodedata.east_asian_width(char) in "WF" else 1 for char in text
    )
