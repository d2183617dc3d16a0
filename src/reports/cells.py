"""The table and the comparison as words and figures, once for the terminal, Markdown and HTML."""

from __future__ import annotations

import math
from collections import Counter

from src.reports.compare import Comparison, Comparisons
from src.reports.settings import BUNDLES, label, short_names, show
from src.reports.table import Row, Table

DASH = "-"
# A random search has no pairs at all, and its runs are in the table already.
FIRST_ALONE = 10


def figure(value: float | None) -> str:
    """Four decimals below a hundred; thousands set apart; tiny values in powers of ten; a missing one is blank."""
    if value is None:
        return ""
    if not math.isfinite(value):
        return str(value)
    size = abs(value)
    if size >= 1000:
        return f"{value:,.0f}" if size < 1e12 else f"{value:.4g}"
    if size >= 100:
        return f"{value:.2f}"
    return f"{value:.4f}" if size >= 0.00005 or size == 0 else f"{value:.1e}"


def interval(low: float | None, high: float | None) -> str:
    """`[1.5040, 1.5206]`, blank where there is none."""
    return "" if low is None or high is None else f"[{figure(low)}, {figure(high)}]"


def chance(p: float | None) -> str:
    """A p value: no digits that nobody can rely on."""
    if p is None:
        return ""
    return "< 0.0001" if p < 0.0001 else f"{p:.2g}" if p < 0.01 else f"{p:.3f}"


def headers(table: Table) -> list[str]:
    """The table's columns: place, what differs, the mean and its spread, what it cost."""
    names = short_names(table.columns)
    heads = ["#", *(names[key] for key in table.columns), "mean", "sd", "95 % interval", "n"]
    if _has_best(table):
        heads.append("best")
    return [*heads, "parameters", "seconds"]


def cells(table: Table, place: str, row: Row) -> list[str]:
    """One row under `headers`; a baseline's name stands in the first column of settings that it leaves free."""
    summary = row.summary
    first = [show(row.settings.get(key)) if row.group or key in row.settings else "" for key in table.columns]
    if row.group is None:
        free = next((i for i, text in enumerate(first) if not text), None)
        if free is None:
            place = row.name
        else:
            first[free] = row.name
    figures = [figure(summary.mean), figure(summary.sd), interval(summary.low, summary.high), _n(row)]
    if _has_best(table):
        figures.append(figure(row.best))
    parameters = "" if row.parameters is None else f"{row.parameters:,.0f}"
    return [place, *first, *figures, parameters, "" if row.seconds is None else f"{row.seconds:,.1f}"]


def _n(row: Row) -> str:
    """`3`, or `2 of 3` where runs of the same settings are in the list of those not counted."""
    if row.group is None:
        return ""
    seeds = {str(run.folder) if run.seed is None else run.seed for run in row.group.runs}
    return str(row.summary.n) if len(seeds) == row.summary.n else f"{row.summary.n} of {len(seeds)}"


def _has_best(table: Table) -> bool:
    return any(row.best is not None for row in table.rows)


def places(table: Table) -> list[str]:
    """1, 2, 3 ... for the runs; baselines stand between them without a place."""
    result, place = [], 0
    for row in table.rows:
        place += row.group is not None
        result.append(str(place) if row.group is not None else "")
    return result


def nothing_yet(table: Table) -> str:
    """A sentence where no run is finished; blank where one is."""
    return "" if any(row.group for row in table.rows) else f"no finished run has {table.metric.name} yet"


def headline(table: Table) -> str:
    """`12 runs: 10 counted, 1 failed, 1 running`: every run is in one of the numbers."""
    counted = sum(len(group.counted) for group in table.groups)
    parts = [f"{counted} counted"]
    parts += [f"{number} {reason}" for reason, number in Counter(one.reason for one in table.left_out).items()]
    return f"{table.number_of_runs} run{'' if table.number_of_runs == 1 else 's'}: {', '.join(parts)}"


def in_common(table: Table) -> str:
    """`all runs: data tiny_shakespeare, model manual`: the choices that do not differ."""
    keys = [key for key in BUNDLES if key in table.common and key not in table.columns]
    return f"all runs: {label(table.common, keys)}" if keys else ""


def brought_along(table: Table) -> list[str]:
    """`with data also change: optimizer.lr (0.1 | 0.002)`: columns that would only repeat another one."""
    lines: list[str] = []
    for leader in dict.fromkeys(table.with_others.values()):
        parts = []
        for key in (key for key, other in table.with_others.items() if other == leader):
            values = list(dict.fromkeys(show(row.settings.get(key)) for row in table.rows if row.group))
            parts.append(f"{key} ({' | '.join(values[:6])}{' | ...' if len(values) > 6 else ''})")
        lines.append(f"with {leader} also change: {', '.join(parts)}")
    return lines


def left_out_rows(table: Table) -> list[list[str]]:
    """Status, what the run was, how far it came, why, and where: a line for each run that no mean contains."""
    return [
        [one.reason, table.label_of(one.run) or DASH, figure(one.so_far), one.why, str(one.run.folder)]
        for one in table.left_out
    ]


LEFT_OUT_HEADERS = ["why not", "run", "so far", "what happened", "folder"]


BY_SETTING = "the same, for each of the other settings alone"


def comparison_grid(comparisons: Comparisons, by_setting: bool = False) -> tuple[list[str], list[list[str]]]:
    """Headers and lines of the comparisons; Holm's p only where there is more than one test to allow for."""
    part = comparisons.by_setting if by_setting else comparisons.overall
    several = max((one.tests for one in part), default=0) > 1
    heads = ["first", "second", "difference", "95 % interval", "p", "n", "is it more than noise?"]
    if several:
        heads.insert(5, "p (Holm)")
    return (["at", *heads] if by_setting else heads), [_compared(one, by_setting, several) for one in part]


def _compared(one: Comparison, by_setting: bool, several: bool) -> list[str]:
    summary = one.summary
    figures = ["", ""] if summary is None else [signed(summary.mean), interval(summary.low, summary.high)]
    holm = [chance(one.p_holm)] if several else []
    line = [one.first, one.second, *figures, chance(one.p), *holm, str(len(one.pairs)), one.verdict]
    return [one.at, *line] if by_setting else line


def signed(value: float) -> str:
    """A difference with its sign."""
    return f"+{figure(value)}" if value > 0 else figure(value)


def comparison_title(table: Table, comparisons: Comparisons) -> str:
    """What the comparison's figures are."""
    return (
        f"{comparisons.key} compared by {table.metric.describe()}: difference = first - second, "
        f"over pairs of equal seed and equal other settings (paired t)"
    )


def alone_lines(table: Table, comparisons: Comparisons) -> list[str]:
    """The counted runs that no pair contains: how many, and the first of them."""
    if not comparisons.alone:
        return []
    first = [f"  {table.label_of(run)}: {run.folder}" for run in comparisons.alone[:FIRST_ALONE]]
    more = len(comparisons.alone) - len(first)
    title = f"without a partner of equal seed and settings: {len(comparisons.alone)}"
    return [title, *first, *([f"  and {more} more"] if more else [])]
