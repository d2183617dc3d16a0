"""A report as text for the terminal, Markdown, LaTeX, CSV and HTML.

`sections` makes the content once, as lines and grids of text; each format only lays it out.
"""

from __future__ import annotations

import base64
import math
import re
import unicodedata
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from src.reports.compare import Comparison, Comparisons
from src.reports.runs import COSTS
from src.reports.table import CHOICES, Report, Row, Table, label, short_names, show, unequal_costs

ALONE_AT_MOST = 10  # a random search has no pairs at all, and its runs are in the table already


@dataclass
class Section:
    """Some lines, a grid below them (its first `words` columns hold text, the others numbers), and lines below that.

    `heading` is shown where there is room for one (HTML); `in_paper`: whether the grid belongs into a paper (LaTeX);
    `table` is the table whose figures come before the grid.
    """

    lines: list[str] = field(default_factory=list)
    heads: list[str] = field(default_factory=list)
    rows: list[list[str]] = field(default_factory=list)
    after: list[str] = field(default_factory=list)
    words: int = 99
    heading: str = ""
    in_paper: bool = True
    table: Table | None = None


# -- content ----------------------------------------------------------------------------------------------------------


def sections(report: Report, comparisons: Sequence[Comparisons] = ()) -> list[Section]:
    """Return the report's content; `comparisons` has one item a table, or none."""
    made = [Section([line for line in (headline(report), report.metric.describe(), _in_common(report)) if line])]
    for index, table in enumerate(report.tables):
        section = Section(table=table, heading="Runs, best first")
        if len(report.tables) > 1:
            section.lines.append(f"{table.text}:")
        if not any(row.group for row in table.rows):
            section.lines.append(f"no finished run has {report.metric.name} yet")
        if table.rows:
            section.heads, section.rows = headers(table), _numbered(table)
            section.words = 1 + len(table.columns)
        made += [section, Section([*_followers(table), *unequal_costs(table)])]
        if comparisons:
            made += _comparison(report, comparisons[index])
    if report.left_out:
        rows = [
            [one.reason, report.label_of(one.run) or "-", figure(one.so_far), one.why, str(one.run.folder)]
            for one in report.left_out
        ]
        heads = ["why not", "run", "so far", "what happened", "folder"]
        made.append(Section([f"not counted ({len(rows)}):"], heads, rows, heading="Not counted", in_paper=False))
    return [section for section in made if section.lines or section.rows]


def figure(value: float | None) -> str:
    """Four decimals below a hundred; thousands set apart; tiny values in powers of ten; a missing one is blank."""
    if value is None:
        return ""
    size = abs(value)
    if not math.isfinite(value) or size >= 1e12:
        return f"{value:.4g}"
    if size >= 100:
        return f"{value:,.0f}" if size >= 1000 else f"{value:.2f}"
    return f"{value:.4f}" if size >= 0.00005 or size == 0 else f"{value:.1e}"


def interval(low: float | None, high: float | None) -> str:
    """`[1.5040, 1.5206]`, blank where there is none."""
    return "" if low is None or high is None else f"[{figure(low)}, {figure(high)}]"


def p_value(p: float | None) -> str:
    """A p value with the digits that can be relied on."""
    if p is None:
        return ""
    return "< 0.0001" if p < 0.0001 else f"{p:.2g}" if p < 0.01 else f"{p:.3f}"


def headline(report: Report) -> str:
    """`12 runs: 10 counted, 1 failed, 1 running`: every run is in one of the numbers."""
    counted = sum(len(group.counted) for table in report.tables for group in table.groups)
    reasons = Counter(one.reason for one in report.left_out)
    parts = [f"{counted} counted", *(f"{number} {reason}" for reason, number in reasons.items())]
    return f"{len(report.runs)} run{'' if len(report.runs) == 1 else 's'}: {', '.join(parts)}"


def _in_common(report: Report) -> str:
    """`all runs: data tiny_shakespeare, model manual`: the choices that do not differ."""
    text = label(report.common, [key for key in CHOICES if report.common.get(key) is not None])
    return f"all runs: {text}" if text else ""


def headers(table: Table) -> list[str]:
    """The columns: place, what differs, the mean and its spread, what it cost."""
    names = short_names(table.columns)
    best = ["best"] if any("best" in row.costs for row in table.rows) else []
    return ["#", *(names[key] for key in table.columns), "mean", "sd", "95 % interval", "n", *best, *COSTS]


def places(table: Table) -> list[str]:
    """1, 2, 3 ... for the runs; baselines between them have no place."""
    groups = [row.group is not None for row in table.rows]
    return [str(sum(groups[: i + 1])) if is_group else "" for i, is_group in enumerate(groups)]


def _numbered(table: Table) -> list[list[str]]:
    return [_cells(table, place, row) for place, row in zip(places(table), table.rows, strict=True)]


def _cells(table: Table, place: str, row: Row) -> list[str]:
    """Return one row under `headers`; the name of a baseline is in the first column of settings, if there is one."""
    summary, costs = row.summary, row.costs
    first = [show(row.settings, key) if row.group else "" for key in table.columns]
    if row.group is None and first:
        first[0] = row.name
    elif row.group is None:
        place = row.name
    best = [figure(costs.get("best"))] if "best" in headers(table) else []
    spent = [f"{costs[name]:,.{int(name == 'seconds')}f}" if name in costs else "" for name in COSTS]
    return [place, *first, figure(summary.mean), figure(summary.sd), interval(summary.low, summary.high), _n(row),
            *best, *spent]  # fmt: skip


def _n(row: Row) -> str:
    """`3`, or `2 of 3` where runs of the same settings are not counted."""
    if row.group is None:
        return ""
    seeds = {str(run.folder) if run.seed is None else run.seed for run in row.group.runs}
    return str(row.summary.n) if len(seeds) == row.summary.n else f"{row.summary.n} of {len(seeds)}"


def _followers(table: Table) -> list[str]:
    """`with data also change: optimizer.lr (0.1 | 0.002)`: columns that would only repeat another one."""
    lines: list[str] = []
    for leader in dict.fromkeys(table.followers.values()):
        parts = []
        for key in (key for key, other in table.followers.items() if other == leader):
            values = list(dict.fromkeys(show(row.settings, key) for row in table.rows if row.group))
            parts.append(f"{key} ({' | '.join(values[:6])}{' | ...' if len(values) > 6 else ''})")
        lines.append(f"with {leader} also change: {', '.join(parts)}")
    return lines


def _comparison(report: Report, comparisons: Comparisons) -> list[Section]:
    title = (
        f"{comparisons.key} compared by {report.metric.describe()}: difference = first - second, "
        f"over pairs of equal seed and equal other settings (paired t; d = mean / sd of the differences)"
    )
    made = [Section([title], *_compared(comparisons.overall, at=False), words=2, heading="More than noise?")]
    if comparisons.by_setting:
        title = "the same, for each of the other settings alone:"
        made.append(Section([title], *_compared(comparisons.by_setting, at=True), words=3))
    if alone := comparisons.alone:
        made[-1].after = [f"without a partner of equal seed and settings: {len(alone)}"]
        made[-1].after += [f"  {report.label_of(run)}: {run.folder}" for run in alone[:ALONE_AT_MOST]]
        made[-1].after += [f"  and {len(alone) - ALONE_AT_MOST} more"] if len(alone) > ALONE_AT_MOST else []
    return made


def _compared(part: Sequence[Comparison], at: bool) -> tuple[list[str], list[list[str]]]:
    """Return headers and rows; Holm's p only where there is more than one test to allow for."""
    several = max((one.tests for one in part), default=0) > 1
    heads = [*(["at"] if at else []), "first", "second", "difference", "95 % interval", "p"]
    heads += [*(["p (Holm)"] if several else []), "d", "n", "is it more than noise?"]
    rows = []
    for one in part:
        summary, effect = one.summary, one.effect
        difference = ["", ""]
        if summary is not None:
            sign = "+" if summary.mean > 0 else ""
            difference = [f"{sign}{figure(summary.mean)}", interval(summary.low, summary.high)]
        chances = [p_value(one.p), *([p_value(one.p_holm)] if several else [])]
        size = "" if effect is None else f"{effect:.2f}"
        first = [*([one.at] if at else []), one.first, one.second]
        rows.append([*first, *difference, *chances, size, str(len(one.pairs)), one.verdict])
    return heads, rows


# -- formats ----------------------------------------------------------------------------------------------------------


def to_text(content: Sequence[Section]) -> str:
    """Return plain text that lines up, nothing cut, no colours."""
    blocks = []
    for section in content:
        grid = _columns(section.heads, section.rows) if section.heads else []
        blocks.append("\n".join([*section.lines, *grid, *section.after]))
    return "\n\n".join(blocks) + "\n"


def _columns(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Return lines whose columns line up: columns of numbers to the right, of text to the left."""
    printable = [[_printable(cell) for cell in row] for row in rows]
    widths = [max(map(_width, column)) for column in zip(heads, *printable, strict=True)]
    right = [all(_is_number(row[i]) for row in printable) for i in range(len(heads))]
    lines = []
    for row in [list(heads), *printable]:
        blanks = [" " * (width - _width(cell)) for cell, width in zip(row, widths, strict=True)]
        padded = [b + cell if flush else cell + b for cell, b, flush in zip(row, blanks, right, strict=True)]
        lines.append("  ".join(padded).rstrip())
    return lines


def _is_number(cell: str) -> bool:
    return not cell or (cell[0] in "0123456789+-<." and not any(char.isalpha() for char in cell.replace("e-", "")))


def _printable(cell: str) -> str:
    """Control characters (of an error message, a file name) would break the lines or drive the terminal."""
    return "".join(char if char.isprintable() else repr(char)[1:-1] for char in cell)


def _width(text: str) -> int:
    """Return the width on a terminal, where Chinese characters are two wide."""
    return sum(0 if unicodedata.combining(c) else 2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in text)


# An underscore inside a name is just that: tiny_shakespeare stays readable in the source too.
MARKUP = re.compile(r"[\\|*`<>#$]|(?<!\w)_|_(?!\w)|\](?=[(\[:])")


def to_markdown(content: Sequence[Section]) -> str:
    """Return GitHub's Markdown; no column, emphasis, link or tag is made of the text of a cell."""
    from tabulate import tabulate

    def escape(text: str) -> str:
        return MARKUP.sub(lambda match: f"\\{match[0]}", " ".join(text.split()))

    blocks = []
    for section in content:
        blocks += [escape(line) for line in section.lines]
        if section.heads:
            grid = [[escape(cell) for cell in row] for row in section.rows]
            heads = [escape(head) for head in section.heads]
            blocks.append(tabulate(grid, heads, "pipe", disable_numparse=True, colalign=_align(section)))
        blocks += ["\n".join(f"- {escape(line)}" for line in section.after)] if section.after else []
    return "\n\n".join(blocks) + "\n"


def to_latex(content: Sequence[Section], command: str) -> str:
    """Return the tables and comparisons as tabular environments (package booktabs), the lines around them as comments."""
    from tabulate import tabulate

    lines = [f"% {command}"]
    for section in content:
        lines += [f"% {_printable(line)}" for line in section.lines]
        if section.heads and section.in_paper:
            grid = [[_printable(cell) for cell in row] for row in section.rows]
            lines.append(
                tabulate(grid, section.heads, "latex_booktabs", disable_numparse=True, colalign=_align(section))
            )
        lines += [f"% {_printable(line)}" for line in section.after]
    return "\n".join(lines) + "\n"


def _align(section: Section) -> list[str]:
    return ["right" if i >= section.words and head[:5] != "is it" else "left" for i, head in enumerate(section.heads)]


def to_csv(report: Report) -> str:
    """Return comma-separated values: full precision, every setting that differs, every run accounted for.

    `kind` is what a line holds: `runs` (a group), `baseline`, or `not counted` (a single run; then `status`, `why` and
    `folder` are filled, and `so_far` is its latest value).
    """
    from pandas import DataFrame

    lines: list[dict[str, object]] = []
    told = [key for table in report.tables for key in (*table.columns, *table.followers)]
    keys = list(dict.fromkeys([*told, *report.label_keys]))
    for table in report.tables:
        for place, row in zip(places(table), table.rows, strict=True):
            s, settings = row.summary, {key: row.settings[key] for key in keys if key in row.settings}
            line = {"mean": s.mean, "sd": s.sd, "low": s.low, "high": s.high, **row.costs, **settings}
            if row.group is None:
                line |= {"kind": "baseline", "name": row.name}
            else:
                seeds = " ".join(str(run.seed) for run, _ in row.group.counted if run.seed is not None)
                line |= {"kind": "runs", "place": place, "n": s.n, "seeds": seeds}
            lines.append({**line, "metric": report.metric.name})
    for one in report.left_out:
        settings = {key: one.run.settings[key] for key in keys if key in one.run.settings}
        about = {"kind": "not counted", "metric": report.metric.name, "seeds": one.run.seed, "status": one.reason}
        lines.append({**about, "so_far": one.so_far, "why": one.why, "folder": str(one.run.folder), **settings})
    numbers = ["metric", "mean", "sd", "n", "low", "high", "best", *COSTS]
    heads = ["place", "kind", "name", *keys, *numbers, "seeds", "status", "so_far", "why", "folder"]
    return str(DataFrame(lines, columns=heads, dtype=object).to_csv(index=False, lineterminator="\n"))


def to_html(report: Report, content: Sequence[Section], command: str) -> str:
    """Return one page without scripts or pictures from elsewhere; `command` is shown as the way to make it again."""
    from jinja2 import Environment, FileSystemLoader

    from src.reports import figures

    pictures: list[list[tuple[str, str]]] = []
    for section in content:
        drawn = figures.drawn(section.table, report.metric, x_axes=("step",)) if section.table else {}
        encoded = [(name, base64.b64encode(figures.encode(one, "svg")).decode()) for name, one in drawn.items()]
        pictures.append([(name.replace("_", " "), svg) for name, svg in encoded])
    environment = Environment(loader=FileSystemLoader(Path(__file__).parent), autoescape=True, trim_blocks=True)
    page = environment.get_template("page.html.jinja")
    return page.render(report=report, content=content, pictures=pictures, command=command, not_drawn=figures.not_drawn)
