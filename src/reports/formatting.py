"""A report as text, Markdown, LaTeX, CSV and HTML: `sections` makes the content, each format lays it out."""

from __future__ import annotations

import base64
import math
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from pandas import DataFrame
from tabulate import tabulate  # type: ignore[import-untyped]

from src import files
from src.reports.compare import SIGNIFICANT, Comparison, compare, compare_two
from src.reports.runs import COSTS
from src.reports.statistics import Summary, figure, p_value
from src.reports.table import CHOICES, Report, Row, Table, differing, label, printable, short_names, show, unequal_costs

ALONE_AT_MOST = 10  # a random search has no pairs at all, and its runs are in the table already
NUMBERS = ("mean", "sd", "95 % interval", "n", "best", *COSTS, "so far", "difference", "p", "p (Holm)", "d")
# An underscore inside a name is just that: tiny_shakespeare stays readable in the source of Markdown too.
MARKUP = re.compile(r"[\\|*`<>#$]|(?<!\w)_|_(?!\w)|\](?=[(\[:])")


@dataclass
class Section:
    """Some lines, a grid of text without empty columns, and lines below; in HTML a heading, and figures of `table`."""

    lines: list[str]
    grid: DataFrame = field(default_factory=DataFrame)
    after: list[str] = field(default_factory=list)
    heading: str = ""
    table: Table | None = None
    compared: list[Comparison] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.grid = self.grid.map(printable).loc[:, (self.grid != "").any()]
        self.lines, self.after = [*map(printable, self.lines)], [*map(printable, self.after)]

    def folded(self, width: float) -> list[str]:
        """Return the grid as text, in several parts if it is wider than `width`; each repeats the first column."""
        if self.grid.empty:
            return []
        parts: list[list[int]] = [[0]]
        sizes = [max(map(len, [head, *self.grid[head]])) + 2 for head in self.grid]
        for column in range(1, len(sizes)):
            if len(parts[-1]) > 1 and sum(sizes[i] for i in [*parts[-1], column]) - 2 > width:
                parts.append([0])
            parts[-1].append(column)
        grids = [self.grid.iloc[:, part] for part in parts]
        return "\n\n".join(self.tabulate("plain", grid[(grid != "").any(axis=1)]) for grid in grids).split("\n")

    def tabulate(self, kind: str, grid: DataFrame | None = None) -> str:
        grid = self.grid if grid is None else grid
        if grid.empty:
            return ""
        align = ["right" if head in NUMBERS else "left" for head in grid]
        rows, heads = [[*grid], *grid.to_numpy().tolist()], () if kind == "plain" else "firstrow"
        return str(tabulate(rows, heads, kind, disable_numparse=True, colalign=align))


def sections(report: Report, keys: Sequence[str] = ()) -> list[Section]:
    """Return the report's content, with a comparison over the values of a key, or of two."""
    every = [group.settings for table in report.tables for group in table.groups]
    several = differing(every)
    common = [choice for choice in CHOICES if every and every[0].get(choice) and choice not in several]
    counted = sum(len(group.counted) for table in report.tables for group in table.groups)
    reasons = [f"{number} {reason}" for reason, number in Counter(one.reason for one in report.left_out).items()]
    runs = f"{len(report.runs)} run{'' if len(report.runs) == 1 else 's'}"
    metrics = {table.metric: None for table in report.tables} or {report.metric: None}
    lines = [f"{runs}: {', '.join([f'{counted} counted', *reasons])}"]
    lines += [metric.describe() for metric in metrics] if len(metrics) == 1 else []
    made = [Section([*lines, f"all runs: {label(every[0], common)}"] if common else lines)]
    for table in report.tables:
        about = f" {table.metric.describe()}" if len(metrics) > 1 else ""
        lines = [f"{table.text}:{about}"] if len(report.tables) > 1 else []
        lines += [f"no finished run has {table.metric.name} yet"] if all(row.name for row in table.rows) else []
        differ = differing([row.settings for row in table.rows if row.runs])
        others = ", ".join(key for key in differ if key not in table.columns)
        after = [f"also different, each with a setting above: {others}"] if others else []
        grid = DataFrame([_cells(table, row) for row in table.rows]).fillna("")
        made.append(Section(lines, grid, [*after, *unequal_costs(table)], "Runs, best first", table))
        made += [_comparison(table, keys)] if keys else []
    if report.left_out:
        heads = ["why not", "run", "so far", "what happened", "folder"]
        rows = [[reason, report.label_of(run) or "-", figure(run.numbers.get(metric.name)), why, str(run.folder)]
                for reason, run, why, metric in report.left_out]  # fmt: skip
        made.append(Section([f"not counted ({len(rows)}):"], DataFrame(rows, columns=heads), heading="Not counted"))
    return made


def interval(summary: Summary) -> str:
    """Return `[1.5040, 1.5206]`, blank where there is none."""
    return "" if summary.low is None else f"[{figure(summary.low)}, {figure(summary.high)}]"


def _cells(table: Table, row: Row) -> dict[str, str]:
    """Return one row by column; the name of a baseline is in the first column of settings, if there is one."""
    names = short_names(table.columns)
    cells = {"#": row.place} | {name: show(row.settings.get(key)) if row.runs else "" for key, name in names.items()}
    if row.name:
        cells[[*cells][min(1, len(names))]] = row.name
    seeds = {str(run.folder) if run.seed is None else run.seed for run in row.runs}
    n = f"{row.summary.n}{'' if len(seeds) == row.summary.n else f' of {len(seeds)}'}" if seeds else ""
    cells |= {"mean": figure(row.summary.mean), "sd": figure(row.summary.sd), "95 % interval": interval(row.summary)}
    spent = {name: f"{row.costs[name]:,.{int(name == 'seconds')}f}" for name in COSTS if name in row.costs}
    return {**cells, "n": n, "best": figure(row.costs.get("best")), **dict.fromkeys(COSTS, ""), **spent}


def _comparison(table: Table, keys: Sequence[str]) -> Section:
    items, alone = compare_two(table, keys, table.metric) if len(keys) > 1 else compare(table, keys[0], table.metric)
    how = "over pairs of equal seed and settings, averaged for each seed (paired t over n seeds; d = mean / sd)"
    title = f"{' and '.join(keys)} compared by {table.metric.describe()}: difference = first - second, {how}"
    heads = ("first", "second", "difference", "95 % interval", "p", "p (Holm)", "d", "n", "is it more than noise?")
    rows = []
    for one in items:
        numbers = [""] * 6
        if found := one.difference:
            d = "" if found.effect is None else f"{found.effect:.3g}"
            p_holm = p_value(one.p_holm if one.tests > 1 else None)
            numbers = [f"{found.mean:+,.4f}", interval(found), p_value(found.p), p_holm, d, str(found.n)]
        rows.append([one.first, one.second, *numbers, one.verdict(table.metric.mode)])
    folders = ", ".join(str(run.folder) for run in alone[:ALONE_AT_MOST])
    more = f" and {len(alone) - ALONE_AT_MOST} more" if len(alone) > ALONE_AT_MOST else ""
    after = [f"without a partner of equal seed and settings: {len(alone)} ({folders}{more})"] if alone else []
    told = [one for one in items if len(items) <= ALONE_AT_MOST or one.p_holm < SIGNIFICANT]
    named = [one if len(keys) > 1 else replace(one, first=f"{name} {one.first}", second=f"{name} {one.second}")
             for one in told for name in [keys[0].rpartition(".")[2]]]  # fmt: skip
    after += [f"in a sentence: {said}" for one in named if (said := one.sentence(table.metric))]
    return Section([title], DataFrame(rows, columns=heads), after, "More than noise?", compared=items)


def to_text(content: Sequence[Section], width: float = math.inf) -> str:
    """Return plain text that lines up, nothing cut, no colours; a grid wider than `width` is folded."""
    blocks = [[*one.lines, *one.folded(width), *([""] if one.table and one.after else []), *one.after]
              for one in content]  # fmt: skip
    return "\n\n".join("\n".join(block).strip("\n") for block in blocks) + "\n"


def to_markdown(_: Report, content: Sequence[Section], command: str) -> str:
    """Return GitHub's Markdown; no column, emphasis, link or tag is made of the text of a cell."""
    escape, blocks = partial(MARKUP.sub, r"\\\g<0>"), []
    for one in content:
        escaped = Section([], one.grid.map(escape).rename(columns=escape))
        blocks += [*map(escape, one.lines), escaped.tabulate("pipe")]
        blocks.append("\n".join(f"- {escape(line)}" for line in one.after))
    return "\n\n".join(filter(None, blocks)) + "\n"


def to_latex(_: Report, content: Sequence[Section], command: str) -> str:
    """Return the grids as tabular environments (package booktabs), the lines around them as comments."""
    lines = [f"% {command}"]
    for one in content:
        lines += [*(f"% {line}" for line in one.lines), one.tabulate("latex_booktabs")]
        lines += [f"% {line}" for line in one.after]
    return "\n".join(filter(None, lines)) + "\n"


def to_csv(report: Report, content: Sequence[Section], command: str) -> str:
    """Return comma-separated values, all digits: a line a group of runs, a baseline, or a run that is not counted."""
    lines: list[dict[str, object]] = []
    for metric, row in ((table.metric, row) for table in report.tables for row in table.rows):
        seeds = " ".join(str(run.seed) for run, _ in row.counted if run.seed is not None)
        kind, n = "baseline" if row.name else "runs", row.summary.n or None
        about = {"metric": metric.name, "place": row.place, "kind": kind, "name": row.name, "seeds": seeds}
        lines.append({**row.settings, **vars(row.summary), **about, "n": n, **row.costs})
    for reason, run, why, metric in report.left_out:
        lines.append({**run.settings, "metric": metric.name, "kind": "not counted", "seeds": run.seed, "status": reason,
                      "so_far": run.numbers.get(metric.name), "why": why, "folder": run.folder})  # fmt: skip
    keys = differing([group.settings for table in report.tables for group in table.groups])
    heads = ["place", "kind", "name", *keys, "metric", "mean", "sd", "n", "low", "high", "best", *COSTS]
    frame = DataFrame(lines, columns=[*heads, "seeds", "status", "so_far", "why", "folder"], dtype=object)
    return str(frame.to_csv(index=False, lineterminator="\n"))


def to_json(report: Report, content: Sequence[Section], command: str) -> str:
    """Return the tables and comparisons as JSON, all digits, each row with the folder, seed and value of its runs."""
    tables: list[dict[str, Any]] = []
    for section in content:
        if table := section.table:
            rows = [{**vars(row.summary), **row.costs, "place": row.place, "name": row.name, "settings": row.settings,
                     "runs": [{"folder": str(run.folder), "seed": run.seed, "value": x} for run, x in row.counted]}
                    for row in table.rows]  # fmt: skip
            tables.append({"text": table.text, "metric": asdict(table.metric), "rows": rows, "compared": []})
        for one in section.compared:
            difference = {**vars(found), "p": found.p, "d": found.effect} if (found := one.difference) else None
            tables[-1]["compared"].append({**vars(one), "difference": difference})
    left = [{"folder": str(one.run.folder), "reason": one.reason, "why": one.why} for one in report.left_out]
    return files.to_json({"format": 1, "command": command, "tables": tables, "not_counted": left}, indent=2) + "\n"


def to_html(report: Report, content: Sequence[Section], command: str) -> str:
    """Return one page that needs no other file; `command` is shown as the way to make it again."""
    from jinja2 import Environment, FileSystemLoader

    from src.reports.figures import draw, encode

    pictures = []
    for section in content:
        drawn = draw(section.table, section.table.metric, x_axes=("step",)) if section.table else {}
        pictures.append([(name, base64.b64encode(encode(one, "svg")).decode()) for name, one in drawn.items()])
    environment = Environment(loader=FileSystemLoader(Path(__file__).parent), autoescape=True, trim_blocks=True)
    page = environment.get_template("page.html.jinja")
    return page.render(report=report, content=content, pictures=pictures, command=command, numbers=NUMBERS)
