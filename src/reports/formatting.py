"""A report as text for the terminal, Markdown, LaTeX, CSV and HTML.

`sections` makes the content once, as lines and grids of text; each format only lays it out.
"""

from __future__ import annotations

import base64
import re
import unicodedata
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from src.reports.compare import Comparison, Comparisons
from src.reports.runs import COSTS
from src.reports.statistics import Summary
from src.reports.table import CHOICES, Report, Row, Table, label, short_names, show, unequal_costs

ALONE_AT_MOST = 10  # a random search has no pairs at all, and its runs are in the table already


@dataclass
class Section:
    """Some lines, a grid below them, and lines below that; `heading` is shown in HTML, `table` has figures there."""

    lines: list[str] = field(default_factory=list)
    heads: list[str] = field(default_factory=list)
    rows: list[list[str]] = field(default_factory=list)
    after: list[str] = field(default_factory=list)
    heading: str = ""
    table: Table | None = None

    @cached_property
    def right(self) -> list[bool]:
        """Which columns hold numbers, and so are aligned to the right."""
        return [all(_is_number(row[i]) for row in self.rows) for i in range(len(self.heads))]


def sections(report: Report, comparisons: Sequence[Comparisons] = ()) -> list[Section]:
    """Return the report's content; `comparisons` has one item a table, or none."""
    every = [group.settings for table in report.tables for group in table.groups]
    common = [key for key in CHOICES if every and every[0].get(key) and len({one.get(key) for one in every}) == 1]
    made = [Section([headline(report), report.metric.describe()])]
    made[0].lines += [f"all runs: {label(every[0], common)}"] if common else []
    for index, table in enumerate(report.tables):
        section = Section(table=table, heading="Runs, best first", after=[*_followers(table), *unequal_costs(table)])
        section.lines += [f"{table.text}:"] if len(report.tables) > 1 else []
        if all(row.name for row in table.rows):
            section.lines.append(f"no finished run has {report.metric.name} yet")
        if table.rows:
            section.heads, section.rows = headers(table), [_cells(table, row) for row in table.rows]
        made += [section, *(_comparison(report, comparisons[index]) if comparisons else [])]
    if report.left_out:
        rows = [
            [one.reason, report.label_of(one.run) or "-", figure(one.so_far), one.why, str(one.run.folder)]
            for one in report.left_out
        ]
        heads = ["why not", "run", "so far", "what happened", "folder"]
        made.append(Section([f"not counted ({len(rows)}):"], heads, rows, heading="Not counted"))
    return made


def figure(value: float | None) -> str:
    """Four decimals below a hundred; thousands set apart; tiny values in powers of ten; a missing one is blank."""
    if value is None:
        return ""
    size = abs(value)
    kind = ".4g" if not size < 1e12 else ",.0f" if size >= 1000 else ".2f" if size >= 100 else ".4f"
    return f"{value:{'.1e' if 0 < size < 0.00005 else kind}}"


def interval(summary: Summary | None) -> str:
    """`[1.5040, 1.5206]`, blank where there is none."""
    return f"[{figure(summary.low)}, {figure(summary.high)}]" if summary and summary.low is not None else ""


def p_value(p: float | None) -> str:
    """A p value with the digits that can be relied on."""
    return "" if p is None else "< 0.0001" if p < 0.0001 else f"{p:.2g}" if p < 0.01 else f"{p:.3f}"


def headline(report: Report) -> str:
    """`12 runs: 10 counted, 1 failed, 1 running`: every run is in one of the numbers."""
    counted = sum(len(group.counted) for table in report.tables for group in table.groups)
    reasons = Counter(one.reason for one in report.left_out)
    parts = [f"{counted} counted", *(f"{number} {reason}" for reason, number in reasons.items())]
    return f"{len(report.runs)} run{'' if len(report.runs) == 1 else 's'}: {', '.join(parts)}"


def headers(table: Table) -> list[str]:
    """The columns: place, what differs, the mean and its spread, what it cost."""
    best = ["best"] if any("best" in row.costs for row in table.rows) else []
    names = short_names(table.columns).values()
    return ["#", *names, "mean", "sd", "95 % interval", "n", *best, *COSTS]


def _cells(table: Table, row: Row) -> list[str]:
    """Return one row under `headers`; the name of a baseline is in the first column of settings, if there is one."""
    summary, costs = row.summary, row.costs
    settings = ["" if row.name else show(row.settings, key) for key in table.columns]
    first = [row.place, *settings]
    if row.name:
        first[min(1, len(settings))] = row.name
    seeds = {str(run.folder) if run.seed is None else run.seed for run in row.runs}
    n = f"{summary.n}{'' if len(seeds) == summary.n else f' of {len(seeds)}'}" if seeds else ""
    best = [figure(costs.get("best"))] if "best" in headers(table) else []
    spent = [f"{costs[name]:,.{int(name == 'seconds')}f}" if name in costs else "" for name in COSTS]
    return [*first, figure(summary.mean), figure(summary.sd), interval(summary), n, *best, *spent]


def _followers(table: Table) -> list[str]:
    """`with model also change: optimizer.lr (0.1 | 0.002)`: columns that would only repeat another one."""
    lines: list[str] = []
    for leader in dict.fromkeys(table.followers.values()):
        parts = []
        for key in (key for key, other in table.followers.items() if other == leader):
            values = list(dict.fromkeys(show(row.settings, key) for row in table.rows if not row.name))
            parts.append(f"{key} ({' | '.join(values[:6])}{' | ...' if len(values) > 6 else ''})")
        lines.append(f"with {leader} also change: {', '.join(parts)}")
    return lines


def _comparison(report: Report, comparisons: Comparisons) -> list[Section]:
    title = (
        f"{comparisons.key} compared by {report.metric.describe()}: difference = first - second, "
        f"over pairs of equal seed and equal other settings (paired t; d = mean / sd of the differences)"
    )
    made = [Section([title], *_compared(comparisons.overall, at=False), heading="More than noise?")]
    if comparisons.by_setting:
        title = "the same, for each of the other settings alone:"
        made.append(Section([title], *_compared(comparisons.by_setting, at=True)))
    if alone := comparisons.alone:
        made[-1].after = [f"without a partner of equal seed and settings: {len(alone)}"]
        made[-1].after += [f"  {report.label_of(run)}: {run.folder}" for run in alone[:ALONE_AT_MOST]]
        made[-1].after += [f"  and {len(alone) - ALONE_AT_MOST} more"] if len(alone) > ALONE_AT_MOST else []
    return made


def _compared(part: Sequence[Comparison], at: bool) -> tuple[list[str], list[list[str]]]:
    """Return headers and rows; `at` and Holm's p only where there is something to say."""
    rows = []
    for one in part:
        sign = "+" if one.summary and one.summary.mean > 0 else ""
        rows.append({
            "at": one.at, "first": one.first, "second": one.second,
            "difference": f"{sign}{figure(one.summary.mean)}" if one.summary else "",
            "95 % interval": interval(one.summary),
            "p": p_value(one.p), "p (Holm)": p_value(one.p_holm),
            "d": "" if one.effect is None else f"{one.effect:.3g}",
            "n": str(len(one.pairs)), "is it more than noise?": one.verdict,
        })  # fmt: skip
    several = max((one.tests for one in part), default=0) > 1
    heads = [head for head in (rows[0] if rows else ()) if (head != "at" or at) and (head != "p (Holm)" or several)]
    return heads, [[row[head] for head in heads] for row in rows]


def to_text(content: Sequence[Section]) -> str:
    """Return plain text that lines up, nothing cut, no colours."""
    blocks = []
    for section in content:
        blank = [""] if section.table and section.after else []
        blocks.append("\n".join([*section.lines, *_columns(section), *blank, *section.after]))
    return "\n\n".join(blocks) + "\n"


def _columns(section: Section) -> list[str]:
    """Return lines whose columns line up: those of numbers to the right, of text to the left."""
    rows = [[_printable(cell) for cell in row] for row in ([section.heads, *section.rows] if section.heads else [])]
    widths = [max(map(_width, column)) for column in zip(*rows, strict=True)]
    lines = []
    for row in rows:
        blanks = [" " * (width - _width(cell)) for cell, width in zip(row, widths, strict=True)]
        padded = [b + cell if right else cell + b for cell, b, right in zip(row, blanks, section.right, strict=True)]
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
    blocks = []
    for section in content:
        blocks += [*map(_escape, section.lines), _tabulate(section, "pipe")]
        blocks.append("\n".join(f"- {_escape(line)}" for line in section.after))
    return "\n\n".join(filter(None, blocks)) + "\n"


def _escape(text: str) -> str:
    return MARKUP.sub(lambda match: f"\\{match[0]}", " ".join(text.split()))


def to_latex(content: Sequence[Section], command: str) -> str:
    """Return the grids as tabular environments (package booktabs), the lines around them as comments."""
    lines = [f"% {command}"]
    for section in content:
        lines += [f"% {_printable(line)}" for line in section.lines]
        lines += [_tabulate(section, "latex_booktabs")]
        lines += [f"% {_printable(line)}" for line in section.after]
    return "\n".join(filter(None, lines)) + "\n"


def _tabulate(section: Section, kind: str) -> str:
    from tabulate import tabulate  # type: ignore[import-untyped]

    if not section.heads:
        return ""
    clean = _escape if kind == "pipe" else _printable  # tabulate itself escapes for LaTeX
    heads, *rows = [[clean(cell) for cell in row] for row in (section.heads, *section.rows)]
    align = ["right" if right else "left" for right in section.right]
    return str(tabulate(rows, heads, kind, disable_numparse=True, colalign=align))


def to_csv(report: Report) -> str:
    """Return comma-separated values: full precision, every setting that differs, every run accounted for.

    `kind` is what a line holds: `runs` (a group), `baseline`, or `not counted` (a single run; then `status`, `why` and
    `folder` are filled, and `so_far` is its latest value).
    """
    from pandas import DataFrame

    lines: list[dict[str, object]] = []
    for row in (row for table in report.tables for row in table.rows):
        seeds = " ".join(str(run.seed) for run, _ in row.counted if run.seed is not None)
        about = {"place": row.place, "kind": "baseline" if row.name else "runs", "name": row.name, "seeds": seeds}
        lines.append({**row.settings, **about, **vars(row.summary), "n": row.summary.n or None, **row.costs})
    for one in report.left_out:
        why = {"seeds": one.run.seed, "status": one.reason, "so_far": one.so_far, "why": one.why}
        lines.append({**one.run.settings, "kind": "not counted", **why, "folder": str(one.run.folder)})
    keys = [key for table in report.tables for key in (*table.columns, *table.followers)] + report.label_keys
    heads = ["place", "kind", "name", *dict.fromkeys(keys), "metric", "mean", "sd", "n", "low", "high", "best", *COSTS]
    frame = DataFrame(lines, columns=[*heads, "seeds", "status", "so_far", "why", "folder"], dtype=object)
    return str(frame.assign(metric=report.metric.name).to_csv(index=False, lineterminator="\n"))


def to_html(report: Report, content: Sequence[Section], command: str) -> str:
    """Return one page that needs no other file; `command` is shown as the way to make it again."""
    from jinja2 import Environment, FileSystemLoader

    from src.reports import figures

    pictures = []
    for section in content:
        drawn = figures.draw(section.table, report.metric, x_axes=("step",)) if section.table else {}
        pictures.append([(n, base64.b64encode(figures.encode(one, "svg")).decode()) for n, one in drawn.items()])
    environment = Environment(loader=FileSystemLoader(Path(__file__).parent), autoescape=True, trim_blocks=True)
    page = environment.get_template("page.html.jinja")
    return page.render(report=report, content=content, pictures=pictures, command=command, not_drawn=figures.not_drawn)
