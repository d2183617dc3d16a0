"""Figures of a table: validation curves by steps, characters and seconds, and final values. Drawn by matplotlib.

A line has a colour, a dash pattern and the number of its row at its end, so that it can be recognised without colours.
"""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from cycler import cycler
from matplotlib import rc_context
from matplotlib.figure import Figure
from matplotlib.ticker import LogFormatter

from src.files import write_atomic
from src.reports.runs import Run, number
from src.reports.table import DEFAULTS, Metric, Report, Row, Table, label

FORMATS = ("png", "svg", "pdf")
X_AXES = {"step": "steps", "characters": "characters", "seconds": "seconds"}  # {field of metrics.jsonl: axis name}
# Six colours that people with any common colour blindness tell apart (after Okabe and Ito), each with four dashes.
COLOURS = ("#0067a5", "#c24a00", "#007a59", "#a8467f", "#8a6a00", "#4d4d4d")
DASHES: list[Any] = ["-", (0, (6, 3)), (0, (2, 2)), (0, (7, 2, 2, 2))]
LINES = cycler(linestyle=DASHES) * cycler(color=COLOURS)
TOO_HIGH = 1e150  # its square is no float
# Fonts of a PDF as TrueType (42): journals refuse matplotlib's default, Type 3
STYLE: dict[Any, Any] = {"svg.fonttype": "none", "pdf.fonttype": 42, "axes.prop_cycle": LINES, "text.parse_math": False}


class PlainLog(LogFormatter):
    """Label the ticks of a logarithmic axis that LogFormatter labels (some between powers of ten), plainly: 0.02."""

    def __call__(self, x: float, pos: int | None = None) -> str:
        return f"{x:g}" if super().__call__(x, pos) else ""


def write_figures(report: Report, folder: Path) -> str:
    """Write every figure of every table as PNG, SVG and PDF into a folder; return their names."""
    folder.mkdir(exist_ok=True)
    names = []
    for place, table in enumerate(report.tables, start=1):
        text = re.sub(r"[^\w.-]+", "_", table.text)[:60]
        for name, figure in draw(table, table.metric).items():
            names.append(f"{name}_{place}_{text}" if text else name)
            for kind in FORMATS:
                write_atomic(folder / f"{names[-1]}.{kind}", encode(figure, kind))
    return f"{', '.join(names)} ({', '.join(FORMATS)})"


def draw(table: Table, metric: Metric, x_axes: Sequence[str] = tuple(X_AXES)) -> dict[str, Figure]:
    """Return the figures that have something to show, by name: `curves_by_steps`, ..., `final_values`."""
    every = [row for row in table.rows if not row.name]
    rows = every[: len(LINES)]
    known = {name for row in rows for run, _ in row.counted for name in (run.curve[-1] if run.curve else ())}
    wanted = [metric.name, f"val/{metric.tail}", *DEFAULTS]  # the metric itself, or else what was followed in training
    y = next((name for name in wanted if name in known and "/" in name), "")
    figures: dict[str, Figure] = {}
    with rc_context(STYLE):
        for x in x_axes if y else ():
            curves = [(row, curve_of([run for run, _ in row.counted], x, y)) for row in rows]
            if curves := [(row, curve) for row, curve in curves if len(curve)]:
                figures[f"curves_by_{X_AXES[x]}"] = _curves(table, curves, X_AXES[x], y, metric)
        if rows:
            figures["final_values"] = _values(table, rows, metric)
        for figure in figures.values() if len(rows) < len(every) else ():
            left = f"{len(rows) + 1} to {len(every)}" if len(every) > len(rows) + 1 else str(len(every))
            figure.suptitle(f"the best {len(rows)} of {len(every)} rows, without {left}", fontsize="small")
    return figures


def encode(figure: Figure, kind: str) -> bytes:
    """Return a figure as the content of a file."""
    stream = io.BytesIO()
    with rc_context(STYLE), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a glyph that matplotlib's font lacks is drawn as a box
        figure.savefig(stream, format=kind, dpi=160, bbox_inches="tight")
    return stream.getvalue()


def curve_of(runs: Sequence[Run], x: str, y: str) -> pd.DataFrame:
    """Return the curves of runs, one column a run, interpolated on the union of their x where all of them have y."""
    columns = {}
    for run in runs:
        points = [(number(line.get(x)), number(line.get(y))) for line in run.curve]
        found = {a: b for a, b in points if a is not None and b is not None and abs(b) < TOO_HIGH}
        columns[str(run.folder)] = pd.Series(found)
    frame = pd.DataFrame({name: curve for name, curve in columns.items() if len(curve)}, dtype=float).sort_index()
    return frame.interpolate(method="index", limit_area="inside").dropna() if len(frame) else frame


def _curves(table: Table, curves: Sequence[tuple[Row, pd.DataFrame]], x: str, y: str, metric: Metric) -> Figure:
    """Draw the mean of each row over its seeds, a band of one standard deviation, and the single seeds."""
    figure = Figure(figsize=(8, 4.5))
    axes = figure.add_subplot()
    for row, frame in curves:
        centre, spread = frame.mean(axis=1), frame.std(axis=1)
        (line,) = axes.plot(centre.index, centre, marker="o" if len(frame) == 1 else None, label=_label(row, table))
        if len(frame.columns) > 1:
            colour = line.get_color()
            axes.fill_between(frame.index, centre - spread, centre + spread, color=colour, alpha=0.15, linewidth=0)
            axes.plot(frame.index, frame, color=colour, linestyle="-", alpha=0.4, linewidth=0.5)
        end = (centre.index[-1], centre.iloc[-1])
        axes.annotate(row.place, end, (4, 0), textcoords="offset points", va="center", fontsize="small")
    low = min(frame.to_numpy().min() for _, frame in curves)
    # The first fifth is high for every run and would flatten what differs
    high = max(frame.iloc[len(frame) // 5 :].to_numpy().max() for _, frame in curves)
    margin = 0.05 * ((high - low) or abs(high) or 1.0)
    axes.set(xlabel=x, ylabel=y, ylim=(low - margin, high + margin))
    if y == metric.name:
        _baselines(axes.axhline, axes.get_ylim(), table)
    axes.legend(loc="upper left", bbox_to_anchor=(0, -0.16), fontsize="small", handlelength=4)
    return figure


def _values(table: Table, rows: Sequence[Row], metric: Metric) -> Figure:
    """Draw the value of each seed, the mean and its 95 % interval, one line a row, the best at the top."""
    figure = Figure(figsize=(8, 1.2 + 0.3 * len(rows)))
    axes = figure.add_subplot()
    for height, row in enumerate(rows):
        summary, values = row.summary, [value for _, value in row.counted]
        error = None if summary.high is None else summary.high - summary.mean
        axes.plot(values, [height] * len(values), "o", color=COLOURS[0], alpha=0.5, markersize=4)
        axes.errorbar(summary.mean, height, xerr=error, fmt="|", color=COLOURS[0], markersize=12, markeredgewidth=2)
    axes.set_yticks(range(len(rows)), [_label(row, table) for row in rows])
    axes.invert_yaxis()
    axes.set_xlabel(metric.describe())
    _baselines(axes.axvline, axes.get_xlim(), table)
    return figure


def _baselines(line: Callable[..., object], limits: tuple[float, float], table: Table) -> None:
    for row in table.rows:
        value = row.summary.mean
        if row.name and limits[0] <= value <= limits[1]:
            line(value, color="#595959", linewidth=0.8, linestyle=":", label=f"{row.name} {value:.4f}")


def _label(row: Row, table: Table) -> str:
    return f"{row.place}  {label(row.settings, table.columns) or 'all runs'} (n = {row.summary.n})"
