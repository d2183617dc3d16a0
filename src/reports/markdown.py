"""The report as GitHub's Markdown, for a README or an experiment's page."""

from __future__ import annotations

import re
from collections.abc import Sequence

from src.reports import cells
from src.reports.compare import Comparisons
from src.reports.table import Table


def render(table: Table, comparisons: Comparisons | None = None) -> str:
    """The whole report as Markdown, a newline at its end."""
    lead = [cells.headline(table), table.metric.describe()]
    blocks = [". ".join(_escape(part) for part in [*lead, cells.in_common(table)] if part) + "."]
    if none := cells.nothing_yet(table):
        blocks.append(_escape(none) + ".")
    if table.rows:
        places = cells.places(table)
        body = [cells.cells(table, place, row) for place, row in zip(places, table.rows, strict=True)]
        blocks.append(grid(cells.headers(table), body, figures_from=1 + len(table.columns)))
    blocks += [f"- {_escape(line)}" for line in cells.brought_along(table)]
    if comparisons is not None:
        blocks.append(_escape(cells.comparison_title(table, comparisons)) + ":")
        blocks.append(grid(*cells.comparison_grid(comparisons)))
        if comparisons.by_setting:
            blocks += [f"{cells.BY_SETTING}:", grid(*cells.comparison_grid(comparisons, by_setting=True))]
        if alone := cells.alone_lines(table, comparisons):
            blocks.append("\n".join(f"- {_escape(line)}" for line in alone))
    if table.left_out:
        body = cells.left_out_rows(table)
        blocks.append(f"Not counted ({len(body)}):")
        blocks.append(grid(cells.LEFT_OUT_HEADERS, body))
    return "\n\n".join(blocks) + "\n"


def grid(heads: Sequence[str], rows: Sequence[Sequence[str]], figures_from: int | None = None) -> str:
    """A Markdown table; the columns from `figures_from` on are flush right."""
    words = len(heads) if figures_from is None else figures_from
    rule = ["---" if i < words else "---:" for i in range(len(heads))]
    lines = [[_escape(head) for head in heads], rule, *([_escape(cell) for cell in row] for row in rows)]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


# An underscore inside a word is just that: tiny_shakespeare stays readable in the source too.
_MARKUP = re.compile(r"[\\|*`<>#]|(?<!\w)_|_(?!\w)|\](?=[(\[:])")


def _escape(text: str) -> str:
    """Shown as it is: no column, emphasis, link or tag made of somebody's file name; one line."""
    return _MARKUP.sub(lambda match: f"\\{match[0]}", " ".join(text.split()))
