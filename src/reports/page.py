"""The report as one HTML page: table, curves, comparison and what was not counted. Opens from disk, asks no network."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape

from src.reports import cells, chart
from src.reports.assets import SCRIPT, STYLE
from src.reports.compare import Comparisons
from src.reports.curves import Curve, curve_of, name_of_curve
from src.reports.table import Row, Table

# Lines beyond these could not be told apart; the others' figures are in the table.
MOST_CURVES = chart.COLOURS * len(chart.DASHES)
CURVES_AT_FIRST = 6
# A cell up to this length stays on one line.
SHORT = 28


def render(table: Table, comparisons: Comparisons | None = None, command: str = "") -> str:
    """The page as text; `command` is told as the way to make it again."""
    curves, y_name = _curves(table)
    sections = [
        '<button id="theme" type="button" hidden>light / dark</button>',
        f"<h1>{escape(table.metric.describe())}</h1>",
        f"<p>{escape(cells.headline(table))}</p>",
    ]
    if common := cells.in_common(table):
        sections.append(f"<p>{escape(common)}</p>")
    sections.append(_chart(table, curves, y_name) if curves else '<p class="dim">No run has a curve to draw.</p>')
    sections.append("<h2>Runs, best first</h2>")
    if none := cells.nothing_yet(table):
        sections.append(f"<p>{escape(none)}</p>")
    if table.rows:
        sections.append(_runs(table, curves))
    sections += [f'<p class="dim">{escape(line)}</p>' for line in cells.brought_along(table)]
    if comparisons is not None:
        sections.append(_comparison(table, comparisons))
    if table.left_out:
        rows = cells.left_out_rows(table)
        sections.append(f"<h2>Not counted ({len(rows)})</h2>" + _grid(cells.LEFT_OUT_HEADERS, rows, status=True))
    sections.append(_legend(command))
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        # Whatever a run is called, this page loads nothing and sends nothing.
        '<meta http-equiv="Content-Security-Policy" '
        "content=\"default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'\">\n"
        f"<title>{escape(table.metric.name)}: {table.number_of_runs} runs</title>\n<style>{STYLE}</style>\n</head>\n"
        "<body>\n" + "\n".join(sections) + f"\n<script>{SCRIPT}</script>\n</body>\n</html>\n"
    )


def _curves(table: Table) -> tuple[dict[int, tuple[int, Curve]], str]:
    """Row index -> (place, curve) of the best rows that have one, and what the curves show."""
    groups = [row.group for row in table.rows if row.group is not None][:MOST_CURVES]
    name = name_of_curve(table.metric, [run for group in groups for run, _ in group.counted])
    found: dict[int, tuple[int, Curve]] = {}
    if name is None:
        return found, ""
    for index, (place, row) in enumerate(zip(cells.places(table), table.rows, strict=True)):
        if row.group is None or len(found) == MOST_CURVES or int(place) > MOST_CURVES:
            continue
        if (curve := curve_of([run for run, _ in row.group.counted], name)) is not None:
            found[index] = (int(place), curve)
    return found, name


def _chart(table: Table, curves: dict[int, tuple[int, Curve]], y_name: str) -> str:
    same_unit = y_name.rpartition("/")[2] == table.metric.word
    lines = {row.name: row.summary.mean for row in table.rows if row.group is None} if same_unit else {}
    groups = sum(row.group is not None for row in table.rows)
    more = f" Of {groups} rows the best {len(curves)} have a curve here." if groups > len(curves) else ""
    return (
        f"<h2>{escape(y_name)} during training</h2>\n"
        f'<div class="wide">{chart.draw(curves, lines, y_name, CURVES_AT_FIRST)}</div>\n'
        '<p class="dim">Lines are means over seeds, bands one standard deviation to each side; the number at a line\'s '
        "end is its place in the table, whose boxes show and hide lines. A steep beginning leaves the picture at its "
        f"top.{more}</p>"
    )


def _runs(table: Table, curves: dict[int, tuple[int, Curve]]) -> str:
    heads = cells.headers(table)
    first_figure = 1 + len(table.columns)
    kinds = ["figure" if i == 0 or i >= first_figure else "setting" for i in range(len(heads))]
    full = ["place", *table.columns, *heads[first_figure:]]
    top = "".join(
        f'<th class="{kind}" title="{escape(name)}"><button type="button">{escape(head)}</button></th>'
        for head, kind, name in zip(heads, kinds, full, strict=True)
    )
    shown = list(curves)[:CURVES_AT_FIRST]
    lines = []
    for index, (place, row) in enumerate(zip(cells.places(table), table.rows, strict=True)):
        values = _sort_values(table, place, row)
        tds = []
        for text, kind, value in zip(cells.cells(table, place, row), kinds, values, strict=True):
            key = "" if value is None else f' data-value="{escape(value)}"'
            tds.append(f'<td class="{kind}"{key}>{escape(text)}</td>')
        if index in curves:
            checked = " checked" if index in shown else ""
            box = f'<input type="checkbox"{checked} aria-label="show curve {place}">'
            line = f"{box} {chart.swatch(int(place))} <span>{place}</span>"
            tds[0] = f'<td class="figure" data-value="{place}"><label>{line}</label></td>'
        kind = "baseline" if row.group is None else "runs"
        lines.append(f'<tr class="{kind}" data-row="{index}">{"".join(tds)}</tr>')
    body = "\n".join(lines)
    return f'<div class="wide"><table id="runs"><thead><tr>{top}</tr></thead>\n<tbody>\n{body}\n</tbody></table></div>'


def _sort_values(table: Table, place: str, row: Row) -> list[str | None]:
    """What each cell sorts by, where that is not its text: full precision, and nothing sorts last."""
    summary = row.summary
    half = None if summary.low is None or summary.high is None else summary.high - summary.low
    figures = [summary.mean, summary.sd, half, float(summary.n) if row.group else None]
    if "best" in cells.headers(table):
        figures.append(row.best)
    figures += [row.parameters, row.seconds]
    numbers = ["" if value is None or not math.isfinite(value) else repr(value) for value in figures]
    return [place, *(None for _ in table.columns), *numbers]


def _comparison(table: Table, comparisons: Comparisons) -> str:
    parts = [f"<h2>More than noise?</h2><p>{escape(cells.comparison_title(table, comparisons))}</p>"]
    parts.append(_grid(*cells.comparison_grid(comparisons)))
    if comparisons.by_setting:
        parts += [f"<p>{cells.BY_SETTING}:</p>", _grid(*cells.comparison_grid(comparisons, by_setting=True))]
    parts += [f'<p class="dim">{escape(line)}</p>' for line in cells.alone_lines(table, comparisons)]
    return "\n".join(parts)


def _grid(heads: Sequence[str], rows: Sequence[Sequence[str]], status: bool = False) -> str:
    top = "".join(f"<th>{escape(head)}</th>" for head in heads)
    lines = []
    for row in rows:
        kinds = ["short" if len(cell) <= SHORT else "long" for cell in row]
        if status:
            kinds[0] = row[0].replace(" ", "-")
        tds = [f'<td class="{escape(kind)}">{escape(cell)}</td>' for kind, cell in zip(kinds, row, strict=True)]
        lines.append(f"<tr>{''.join(tds)}</tr>")
    body = "\n".join(lines)
    return f'<div class="wide"><table><thead><tr>{top}</tr></thead>\n<tbody>\n{body}\n</tbody></table></div>'


def _legend(command: str) -> str:
    made = f"<p>Made by <code>{escape(command)}</code>.</p>" if command else ""
    return (
        '<h2>How to read this</h2>\n<div class="dim"><p>A row is a group of runs whose settings are equal in all that '
        "can change a result; their seeds are folded into mean, sd (standard deviation with n - 1) and n. The 95 % "
        "interval is Student's t interval of the mean: where two of them do not overlap, seeds alone hardly explain "
        "the difference; a paired comparison (<code>--compare</code>) sees smaller ones. Baselines, in italics, know "
        "only frequencies: what is no better than the uniform guess has learnt nothing, and what does not beat the "
        "5-gram, which sees four characters, has yet to show that it remembers more.</p>"
        f"{made}</div>"
    )
