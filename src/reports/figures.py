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
from matplotlib import rc_context
from matplotlib.figure import Figure

from src.files import write_atomic
from src.reports.runs import Run
from src.reports.table import DEFAULTS, Metric, Report, Row, Table, label

FORMATS = ("png", "svg", "pdf")
# The x axes: the field of a line of metrics.jsonl, and its name.
X_AXES = {"step": "steps", "characters": "characters", "seconds": "seconds"}
# Six colours that people with any common colour blindness tell apart (after Okabe and Ito).
COLOURS = ("#0067a5", "#c24a00", "#007a59", "#a8467f", "#8a6a00", "#4d4d4d")
DASHES = ("-", (0, (6, 3)), (0, (2, 2)), (0, (7, 2, 2, 2)))
MOST_ROWS = len(COLOURS) * len(DASHES)  # more lines cannot be told apart
TOO_HIGH = 1e150  # its square is no float
STYLE: dict[Any, Any] = {"svg.fonttype": "none", "axes.spines.top": False, "axes.spines.right": False}


def write_figures(report: Report, folder: Path) -> str:
    """Write every figure of every table as PNG, SVG and PDF into a folder; return their names.

    Raises:
        OSError: a file cannot be written.
    """
    folder.mkdir(exist_ok=True)
    names = []
    for number, table in enumerate(report.tables, start=1):
        text = re.sub(r"[^\w.-]+", "_", table.text)[:60]
        for name, figure in draw(table, report.metric).items():
            names.append(f"{name}{f'_{number}_{text}' if text else ''}")
            for kind in FORMATS:
                write_atomic(folder / f"{names[-1]}.{kind}", encode(figure, kind))
    return f"{', '.join(names)} ({', '.join(FORMATS)})"


def draw(table: Table, metric: Metric, x_axes: Sequence[str] = tuple(X_AXES)) -> dict[str, Figure]:
    """Return the figures that have something to show, by name: `curves_by_steps`, ..., `final_values`."""
    rows = [row for row in table.rows if not row.name][:MOST_ROWS]
    known = {name for row in rows for run, _ in row.counted for name in (run.curve[-1] if run.curve else ())}
    wanted = [metric.name, f"val/{metric.tail}", *DEFAULTS]  # the metric itself, or else what was followed in training
    y = next((name for name in wanted if name in known and "/" in name), "")
    figures: dict[str, Figure] = {}
    with rc_context(STYLE):
        for x in x_axes if y else ():
            curves = {row.place: curve_of([run for run, _ in row.counted], x, y) for row in rows}
            if any(len(frame) for frame in curves.values()):
                figures[f"curves_by_{X_AXES[x]}"] = _curves(table, rows, curves, (x, y), metric)
        if rows:
            figures["final_values"] = _values(table, rows, metric)
    return figures


def not_drawn(table: Table) -> str:
    """Return how many rows are in no figure, or an empty text."""
    rows = sum(not row.name for row in table.rows)
    return f"Of {rows} rows the figures show the best {MOST_ROWS}." if rows > MOST_ROWS else ""


def encode(figure: Figure, kind: str) -> bytes:
    """Return a figure as the content of a file."""
    stream = io.BytesIO()
    with rc_context(STYLE), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a glyph that matplotlib's font lacks is drawn as a box
        figure.savefig(stream, format=kind, dpi=160, bbox_inches="tight")
    return stream.getvalue()


def curve_of(runs: Sequence[Run], x: str, y: str) -> pd.DataFrame:
    """Return the curves of runs, one column a run, on the union of their x from the last beginning to the first end.

    Between two points of a run lies the straight line. Of two lines with one x the later counts.
    """
    columns = []
    for run in runs:
        points = [(line.get(x), line.get(y)) for line in run.curve]
        finite = {a: b for a, b in points if all(isinstance(c, int | float) and abs(c) < TOO_HIGH for c in (a, b))}
        if finite:
            columns.append(pd.Series(finite, dtype=float).rename(str(run.folder)).sort_index())
    if not columns:
        return pd.DataFrame()
    return pd.concat(columns, axis=1).sort_index().interpolate(method="index", limit_area="inside").dropna()


def value_range(frames: Sequence[pd.DataFrame]) -> tuple[float, float]:
    """Return the heights that a figure shows.

    The first fifth of training may be cut off at the top: it is high for every run and would flatten what differs.
    """
    late = [frame[frame.index >= 0.8 * frame.index[0] + 0.2 * frame.index[-1]] for frame in frames]
    low, high = min(frame.to_numpy().min() for frame in frames), max(frame.to_numpy().max() for frame in late)
    margin = 0.05 * ((high - low) or abs(high) or 1.0)
    return float(low - margin), float(high + margin)


def _curves(
    table: Table, rows: Sequence[Row], curves: dict[str, pd.DataFrame], names: tuple[str, str], metric: Metric
) -> Figure:
    """Draw the mean of each row over its seeds, a band of one standard deviation, and the single seeds."""
    figure = Figure(figsize=(8, 4.5))
    axes = figure.add_subplot()
    for row in [row for row in rows if len(curves[row.place])]:
        frame = curves[row.place]
        colour, dashes = look(int(row.place))
        centre, spread = frame.mean(axis=1), frame.std(axis=1)
        marker = "o" if len(frame) == 1 else None
        axes.plot(centre.index, centre, color=colour, linestyle=dashes, marker=marker, label=_label(row, table))
        if len(frame.columns) > 1:
            axes.fill_between(frame.index, centre - spread, centre + spread, color=colour, alpha=0.15, linewidth=0)
            axes.plot(frame.index, frame, color=colour, alpha=0.4, linewidth=0.5)
        end = (centre.index[-1], centre.iloc[-1])
        axes.annotate(row.place, end, (4, 0), textcoords="offset points", va="center", fontsize="small")
    axes.set_ylim(*value_range([frame for frame in curves.values() if len(frame)]))
    axes.set(xlabel=X_AXES[names[0]], ylabel=names[1])
    if names[1].rpartition("/")[2] == metric.tail:
        _baselines(axes.axhline, axes.get_ylim(), table)
    axes.legend(loc="upper left", bbox_to_anchor=(0, -0.16), fontsize="small", frameon=False, handlelength=4)
    return figure


def _values(table: Table, rows: Sequence[Row], metric: Metric) -> Figure:
    """Draw the value of each seed, the mean and its 95 % interval, one line a row, the best at the top."""
    figure = Figure(figsize=(8, 1.2 + 0.3 * len(rows)))
    axes = figure.add_subplot()
    for height, row in enumerate(rows):
        colour, _ = look(int(row.place))
        values = [value for _, value in row.counted]
        axes.plot(values, [height] * len(values), "o", color=colour, alpha=0.5, markersize=4)
        if row.summary.low is not None and row.summary.high is not None:
            axes.plot([row.summary.low, row.summary.high], [height, height], color=colour)
        axes.plot(row.summary.mean, height, "|", color=colour, markersize=12, markeredgewidth=2)
    axes.set_yticks(range(len(rows)), [_label(row, table) for row in rows])
    axes.invert_yaxis()
    axes.set_xlabel(_plain(metric.describe()))
    _baselines(axes.axvline, axes.get_xlim(), table)
    return figure


def look(place: int) -> tuple[str, str | tuple[int, tuple[int, ...]]]:
    """Return the colour and dashes of the line at this place, which no other of MOST_ROWS has."""
    return COLOURS[(place - 1) % len(COLOURS)], DASHES[(place - 1 + (place - 1) // len(COLOURS)) % len(DASHES)]


def _baselines(line: Callable[..., object], limits: tuple[float, float], table: Table) -> None:
    """Draw the baselines that lie within the limits of an axis."""
    for row in table.rows:
        if row.name and limits[0] <= row.summary.mean <= limits[1]:
            line(
                row.summary.mean,
                color="#595959",
                linewidth=0.8,
                linestyle=":",
                label=f"{row.name} {row.summary.mean:.4f}",
            )


def _label(row: Row, table: Table) -> str:
    return _plain(f"{row.place}  {label(row.settings, table.columns) or 'all runs'} (n = {row.summary.n})")


def _plain(text: str) -> str:
    """Return a text in which no dollar sign begins a formula."""
    return text.replace("$", r"\$")
