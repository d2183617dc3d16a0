"""Figures of a table: validation curves by steps, characters and seconds, and final values. Drawn by matplotlib.

A curve is the mean over seeds with a band of one standard deviation to each side; the single seeds are thin lines. A line
has a colour, a dash pattern and the number of its row, so that it can be told apart without colours.
"""

from __future__ import annotations

import io
import math
import re
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path

import pandas as pd
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from src.errors import UserError
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
MOST_POINTS = 250  # of a curve; more cannot be told apart either
TOO_HIGH = 1e150  # its square is no float
STYLE = {"svg.fonttype": "none", "svg.hashsalt": "unroll", "axes.spines.top": False, "axes.spines.right": False}


def write_figures(report: Report, folder: Path) -> list[Path]:
    """Write every figure of every table as PNG, SVG and PDF into a folder, which is made; return the files.

    Raises:
        UserError: a file cannot be written.
    """
    written = []
    for number, table in enumerate(report.tables, start=1):
        text = re.sub(r"[^\w.-]+", "_", table.text)[:60]
        suffix = f"_{number}_{text}" if len(report.tables) > 1 else ""
        for name, figure in drawn(table, report.metric).items():
            for kind in FORMATS:
                target = folder / f"{name}{suffix}.{kind}"
                try:
                    folder.mkdir(exist_ok=True)
                    write_atomic(target, encode(figure, kind))
                except OSError as error:
                    raise UserError(f"{target} cannot be written: {error.strerror}") from error
                written.append(target)
    return written


def drawn(table: Table, metric: Metric, x_axes: Sequence[str] = tuple(X_AXES)) -> dict[str, Figure]:
    """Return the figures of a table by name: `curves_by_steps`, ..., `final_values`; those with nothing to show lack."""
    rows = [row for row in table.rows if row.group is not None][:MOST_ROWS]
    name = curve_name(metric, [run for row in rows if row.group for run, _ in row.group.counted])
    figures = {f"curves_by_{X_AXES[x]}": _curves(table, rows, metric, name, x) for x in x_axes if name}
    figures["final_values"] = _values(table, rows, metric) if rows else None
    return {key: figure for key, figure in figures.items() if figure is not None}


def not_drawn(table: Table) -> str:
    """Return which rows are in no figure, or an empty text."""
    rows = sum(row.group is not None for row in table.rows)
    return f"Of {rows} rows the figures show the best {MOST_ROWS}." if rows > MOST_ROWS else ""


def encode(figure: Figure, kind: str) -> bytes:
    """Return a figure as a file: the same bytes every time."""
    stream = io.BytesIO()
    dates = {"svg": {"Date": None}, "pdf": {"CreationDate": None}}
    with rc_context(STYLE), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a glyph that matplotlib's font lacks is drawn as a box
        figure.savefig(stream, format=kind, dpi=160, metadata=dates.get(kind), bbox_inches="tight")
    return stream.getvalue()


def curve_name(metric: Metric, runs: Sequence[Run]) -> str | None:
    """Return what to draw: the metric itself if metrics.jsonl has it, else its `val/`, else a default."""
    known = {name for run in runs for name in (run.curve[-1] if run.curve else ())}
    return next(
        (name for name in (metric.name, f"val/{metric.tail}", *DEFAULTS) if name in known and "/" in name), None
    )


def curve_of(runs: Sequence[Run], x: str, y: str) -> pd.DataFrame:
    """Return the curves of runs, one column a run, on the union of their x where every run has begun and none has ended.

    Between two points of a run lies the straight line. Of two lines with one x the later counts.
    """
    columns = []
    for run in runs:
        points = {line[x]: line[y] for line in run.curve if _drawable(line.get(x)) and _drawable(line.get(y))}
        if points:
            columns.append(pd.Series(points, dtype=float).rename(str(run.folder)).sort_index())
    if not columns:
        return pd.DataFrame()
    frame = pd.concat(columns, axis=1).sort_index().interpolate(method="index", limit_area="inside").dropna()
    stride = math.ceil(len(frame) / MOST_POINTS) or 1
    return frame if stride == 1 else pd.concat([frame.iloc[:-1:stride], frame.iloc[-1:]])


def _drawable(value: object) -> bool:
    return isinstance(value, int | float) and abs(value) < TOO_HIGH


def _curves(table: Table, rows: Sequence[Row], metric: Metric, name: str | None, x: str) -> Figure | None:
    found = [(place, row, curve_of([run for run, _ in row.group.counted], x, str(name)))
             for place, row in enumerate(rows, start=1) if row.group]  # fmt: skip
    found = [(place, row, frame) for place, row, frame in found if len(frame)]
    if not found:
        return None
    with rc_context(STYLE):
        figure = Figure(figsize=(8, 4.5))
        axes = figure.add_subplot()
        for place, row, frame in found:
            colour, dashes = look(place)
            centre, spread = frame.mean(axis=1), frame.std(axis=1).fillna(0.0)
            style = {"color": colour, "marker": "o" if len(frame) == 1 else None}
            axes.plot(centre.index, centre, linestyle=dashes, linewidth=1.8, label=_label(place, row, table), **style)
            if len(frame.columns) > 1:
                axes.fill_between(frame.index, centre - spread, centre + spread, color=colour, alpha=0.15, linewidth=0)
                axes.plot(frame.index, frame, color=colour, alpha=0.4, linewidth=0.5)
            axes.annotate(
                str(place), (centre.index[-1], centre.iloc[-1]), (4, 0), textcoords="offset points", va="center"
            )
        same_unit = str(name).rpartition("/")[2] == metric.tail
        axes.set_ylim(*value_range([frame for _, _, frame in found]))
        _baselines(axes.axhline, axes.get_ylim(), table if same_unit else None)
        axes.set(xlabel=X_AXES[x], ylabel=name)
        _legend(figure, axes)
    return figure


def value_range(frames: Sequence[pd.DataFrame]) -> tuple[float, float]:
    """Return the heights that a figure shows.

    The first fifth of training may be cut off at the top: it is high for every run and would flatten what differs.
    """
    late = [frame[frame.index >= frame.index[0] + 0.2 * (frame.index[-1] - frame.index[0])] for frame in frames]
    low, high = min(frame.min(axis=None) for frame in frames), max(frame.max(axis=None) for frame in late)
    margin = 0.05 * ((high - low) or abs(high) or 1.0)
    return low - margin, high + margin


def _values(table: Table, rows: Sequence[Row], metric: Metric) -> Figure:
    """Draw the value of each seed, the mean and its 95 % interval, one line a row, the best at the top."""
    with rc_context(STYLE):
        figure = Figure(figsize=(8, 1.2 + 0.3 * len(rows)))
        axes = figure.add_subplot()
        for place, row in enumerate(rows, start=1):
            colour, _ = look(place)
            values = [value for _, value in row.group.counted] if row.group else []
            axes.plot(values, [place] * len(values), "o", color=colour, alpha=0.5, markersize=4)
            if row.summary.low is not None and row.summary.high is not None:
                axes.plot([row.summary.low, row.summary.high], [place, place], color=colour, linewidth=1.2)
            axes.plot(row.summary.mean, place, "|", color=colour, markersize=12, markeredgewidth=2)
        axes.set_yticks(range(1, len(rows) + 1), [_label(i, row, table) for i, row in enumerate(rows, start=1)])
        axes.set_ylim(len(rows) + 0.7, 0.3)
        axes.set_xlabel(_plain(metric.describe()))
        _baselines(axes.axvline, axes.get_xlim(), table)
        if axes.get_legend_handles_labels()[0]:
            _legend(figure, axes)
    return figure


def look(place: int) -> tuple[str, str | tuple[int, tuple[int, ...]]]:
    """Return the colour and dashes of the line at this place, which no other of MOST_ROWS has."""
    return COLOURS[(place - 1) % len(COLOURS)], DASHES[(place - 1 + (place - 1) // len(COLOURS)) % len(DASHES)]


def _baselines(draw: Callable[..., object], limits: tuple[float, float], table: Table | None) -> None:
    """Draw the baselines that lie within the limits of an axis."""
    for row in table.rows if table else ():
        if row.group is None and limits[0] <= row.summary.mean <= limits[1]:
            draw(
                row.summary.mean,
                color="#595959",
                linewidth=0.8,
                linestyle=":",
                label=f"{row.name} {row.summary.mean:.4f}",
            )


def _label(place: int, row: Row, table: Table) -> str:
    return _plain(f"{place}  {label(row.settings, table.columns) or 'all runs'} (n = {row.summary.n})")


def _plain(text: str) -> str:
    """A dollar sign would begin a formula."""
    return text.replace("$", r"\$")


def _legend(figure: Figure, axes: Axes) -> None:
    axes.legend(loc="upper left", bbox_to_anchor=(0, -0.16), fontsize="small", frameon=False, handlelength=4)
