"""The results of a study: results.csv, one row a run; the table of README.md, made of it alone; and the figure.

A cell is the mean over seeds +- their standard deviation (n - 1); runs that did not finish are counted and named.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke
from tabulate import tabulate  # type: ignore[import-untyped]

from src.config.schema import Study
from src.errors import UserError, counted, nearest
from src.files import write_atomic
from src.reports.figures import COLOURS, DASHES, FORMATS, STYLE, X_AXES, PlainLog, curve_of, encode
from src.reports.runs import COSTS, Run, mapping, read_run
from src.reports.statistics import summarise
from src.reports.table import Metric, affects_result, baselines, differing, short_names, show

BEGIN, END = "<!-- results: made by python -m src.study {} -->", "<!-- end of results -->"
MARKERS, GREY = "osD^vPX*", "#595959"
HOW_TO_READ = (
    "Means over the seeds, with their range (bars, bands); a curve ends where the first of its seeds does.\n"
    "Grey lines: published values, and baselines where they lie within a panel."
)


def write(study: Study, folder: Path, size: str, folders: Sequence[Path]) -> str:
    """Write results.csv, the figure and the table of README.md into a folder; return what was written, in words."""
    runs = [read_run(path) for path in folders]
    known = {name for run in runs if run.status == "done" for name in run.numbers}
    if missing := [name for name in (*study.metric, *study.figure.y) if known and name not in known]:
        raise UserError(*(f"metric {name}: no run has it{nearest(name, known)}" for name in missing))
    folder.mkdir(parents=True, exist_ok=True)
    write_atomic(folder / "results.csv", csv_of(study, size, runs))
    frame, files = frame_in(folder), "results.csv, README.md"
    if study.figure.x and (frame.status == "done").any():
        figure = draw(study, frame, runs)
        for kind in FORMATS:
            write_atomic(folder / f"figure.{kind}", encode(figure, kind))
        files += f", figure ({', '.join(FORMATS)})"
    check(study, folder, rewrite=True)
    return f"{files} in {folder}"


def check(study: Study, folder: Path, rewrite: bool = False) -> None:
    """Raise UserError if README.md does not show what results.csv holds; `rewrite` makes it so, also in a new page."""
    content, path, name = block(study, folder, frame_in(folder)), folder / "README.md", folder.resolve().name
    page = path.read_text(encoding="utf-8") if path.exists() else f"# {name}\n\n{study.question}\n"
    if content in page:
        return
    if not rewrite:
        raise UserError(f"{path} does not show what results.csv holds; python -m src.study {name} table=true mends it")
    marked = re.compile(f"{re.escape(BEGIN.format(name))}.*?{re.escape(END)}", re.DOTALL)
    page = page if marked.search(page) else f"{page}\n{BEGIN.format(name)}{END}\n"
    write_atomic(path, marked.sub(lambda _: content, page, count=1))


def frame_in(folder: Path) -> pd.DataFrame:
    """Return results.csv as text, empty without one."""
    path = folder / "results.csv"
    return pd.read_csv(path, dtype=str, keep_default_na=False) if path.exists() else pd.DataFrame()


def csv_of(study: Study, size: str, runs: Sequence[Run]) -> str:
    """Return one line a run: settings (named, or that differ), seed, status, metrics, costs, baselines, provenance."""
    figure, first = study.figure, study.metric[0].removeprefix("best/")
    split = first.split("/")[1] if first.startswith("evaluation/") else None
    metric = Metric(first.removeprefix("evaluation/"), split)
    named = [*study.rows, study.columns, *figure.lines, figure.panels, *(x for x in figure.x if x not in X_AXES)]
    differ = [key for key in differing([run.settings for run in runs]) if affects_result(key)]
    rows = []
    for run in runs:
        machine, before = mapping(run.record.get("machine")), [one["before"] for one in run.record.get("resumed", [])]
        gits = [mapping(record.get("git")) for record in (*before, run.record)]  # of each start
        commits = [f"{str(git.get('commit'))[:10]}{' with changes' * bool(git.get('dirty'))}" for git in gits]
        row: dict[str, Any] = {"size": size}
        row |= {key: show(run.settings.get(key)) for key in dict.fromkeys([*named, *differ]) if key}
        row |= {"seed": run.seed, "status": run.status}
        row |= {name: run.numbers.get(name) for name in dict.fromkeys([*study.metric, *figure.y, *COSTS])}
        row |= {f"baseline {name}": value for name, value in baselines(metric, run).items()}
        row |= {"started": run.record.get("started"), **mapping(run.record.get("versions"))}
        row |= {"commit": " + ".join(dict.fromkeys(commits))}
        row |= {"processor": machine.get("processor"), "cores": machine.get("cores"), "key": run.record.get("key")}
        rows.append({name: _rounded(value) if isinstance(value, float) else value for name, value in row.items()})
    return str(pd.DataFrame(rows, dtype=object).to_csv(index=False, lineterminator="\n"))


def _rounded(value: float) -> float | int | None:
    if not math.isfinite(value):
        return None
    return int(value) if value.is_integer() and abs(value) < 1e15 else float(f"{value:.7g}")


def block(study: Study, folder: Path, frame: pd.DataFrame) -> str:
    """Return what README.md shows between its marks, made of results.csv alone."""
    name = folder.resolve().name
    if not len(frame):
        return f"{BEGIN.format(name)}\n\nNot run yet: `python -m src.study {name}` fills this in.\n\n{END}"
    seconds, done = float(pd.to_numeric(frame.seconds).sum()), int((frame.status == "done").sum())
    spent = f"{seconds / 3600:.1f} hours" if seconds >= 5400 else f"{seconds / 60:.1f} minutes"
    machines = frame.astype(str).groupby(["processor", "cores", "torch", "python"], sort=False)
    made = [
        f"{on} ({cores} cores), torch {torch}, Python {python}, commit {', '.join(dict.fromkeys(part.commit))}"
        for (on, cores, torch, python), part in machines
    ]
    counts = f"{counted(len(frame), 'runs')}, {done} done, {counted(frame.seed.nunique(), 'seeds')}"
    mean = "mean ± standard deviation over seeds"
    cell = f"seeds with {study.metric[0]} ≥ {study.success:g}, of all" if study.success is not None else mean
    parts = [
        f"`python -m src.study {name} size={frame['size'].iloc[0]}`: {counts}, {spent} of training in all.\n"
        f"Every run is in [results.csv](results.csv). {'; '.join(made)}. Cells: {cell}.",
        table(study, frame),
    ]
    beaten = []
    for head in (head for head in frame if str(head).startswith("baseline ")):
        values = pd.to_numeric(frame[head]).dropna()
        ends = dict.fromkeys(f"{value:.{study.digits}f}" for value in (values.min(), values.max()))
        beaten += [f"{str(head).removeprefix('baseline ')} {' to '.join(ends)}"] if len(values) else []
    parts += [f"To compare: {', '.join(beaten)}."] * bool(beaten)
    parts += [f"Published: {one.name} **{one.value:g}** ({one.source})." for one in study.published]
    parts += [f"![{study.question}](figure.png)\n\n{HOW_TO_READ}"] * bool(study.figure.x and done)
    return "\n\n".join([BEGIN.format(name), *parts, END])


def table(study: Study, frame: pd.DataFrame) -> str:
    """Return the table as Markdown: a row for each value of the row keys, columns for those of `columns` x metric."""
    names, tails, key = short_names(study.rows), short_names(study.metric), study.columns
    rows = []
    for values, own in frame.groupby(list(study.rows), sort=False) if study.rows else [((), frame)]:
        cells = dict(zip(names.values(), values, strict=True))
        for column in frame[key].unique() if key else [None]:
            for metric in study.metric:
                head = [f"{key.rpartition('.')[2]} {column}"] if key else []
                head += [tails[metric]] if not key or len(study.metric) > 1 else []
                cells[", ".join(head)] = _cell(own[own[key] == column] if key else own, metric, study)
        rows.append(cells)
    return str(tabulate(rows, "keys", "pipe", disable_numparse=True))


def _values(some: pd.DataFrame, metric: str) -> list[float]:
    return [float(value) for value in pd.to_numeric(some.loc[some.status == "done", metric]).dropna()]


def _cell(some: pd.DataFrame, metric: str, study: Study) -> str:
    values, n = _values(some, metric), len(some)
    if study.success is not None and metric == study.metric[0]:
        return f"{sum(value >= study.success for value in values)}/{n}" if n else ""
    if not values:
        return ", ".join(status for status in some.status.unique() if status != "done")
    found, digits = summarise(values), 0 if metric in COSTS else study.digits
    spread = "" if found.sd is None or (metric == "parameters" and not found.sd) else f" ± {found.sd:,.{digits}f}"
    return f"{found.mean:,.{digits}f}{spread}{'' if len(values) == n else f' ({len(values)} of {n} runs)'}"


def draw(study: Study, frame: pd.DataFrame, runs: Sequence[Run]) -> Figure:
    """Return the figure of finished runs; lines differ in colour, dashes and markers, and can be told apart in grey."""
    spec, ys = study.figure, study.figure.y or study.metric[:1]
    places = [(x, value) for x in spec.x for value in (frame[spec.panels].unique() if spec.panels else [None])]
    order = [*frame[spec.lines].drop_duplicates().itertuples(index=False, name=None)] if spec.lines else [()]
    with rc_context(STYLE | {"font.size": 9}):
        down, across = -(-len(places) // 4), min(4, len(places))  # panels of a y
        figure = Figure(figsize=(8, 0.8 + 3.0 * len(ys) * down + 0.08 * len(order)), layout="constrained")
        grid = figure.subplots(len(ys) * down, across, squeeze=False, sharey="row")
        for y, rows in zip(ys, grid.reshape(len(ys), down, across), strict=True):
            for axes in rows.flat[len(places) :]:
                axes.set_axis_off()
            shown: list[str] = []
            for i, ((x, value), axes) in enumerate(zip(places, rows.flat, strict=False)):
                at = {} if x in X_AXES else _places(frame[x])
                own = frame[frame[spec.panels] == value] if spec.panels else frame
                shown.append(_panel(axes, study, own.assign(at=own[x].map(at)) if at else own, runs, x, y, order))
                axes.set_title(f"{spec.panels} {value}" if spec.panels else "", fontsize="medium")
                axes.set(xlabel=X_AXES.get(x, x), ylabel=shown[-1] if i % across == 0 or shown[-1] != shown[-2] else "")
                for axis in spec.log or "":
                    axes.set(**{f"{axis}scale": "log"})
                    getattr(axes, f"{axis}axis").set(major_formatter=PlainLog(), minor_formatter=PlainLog())
                if at and len(axes.lines):
                    slant = 45 if max(map(len, at)) * len(at) * across > 130 else 0  # else they would overlap
                    axes.set_xticks([*at.values()], [value.strip("[]") for value in at], rotation=slant)
                    axes.xaxis.minorticks_off()
        handles = [axes.get_legend_handles_labels() for axes in grid.flat]
        if found := {label: line for some, labels in handles for line, label in zip(some, labels, strict=True)}:
            look = {"ncols": 3 if max(map(len, found)) < 40 else 2, "frameon": False, "handlelength": 4}
            figure.legend(found.values(), found, loc="outside lower left", **look)
    return figure


def _panel(axes: Axes, study: Study, own: pd.DataFrame, runs: Sequence[Run], x: str, y: str, order: list[Any]) -> str:
    """Draw curves over training or points over a key, with their range over seeds; return what y is."""
    keys, share = study.figure.lines, study.success is not None and y == study.metric[0] and x not in X_AXES
    for values, some in own.groupby(keys, sort=False) if keys else [((), own)]:
        place = order.index(values)
        look: dict[str, Any] = {"color": COLOURS[place % len(COLOURS)], "linestyle": DASHES[place % len(DASHES)]}
        look |= {"marker": MARKERS[place % len(MARKERS)], "markersize": 4}
        label = ", ".join(f"{name} {value}" for name, value in zip(short_names(keys).values(), values, strict=True))
        if x in X_AXES:
            curve = curve_of([runs[i] for i in some.index if runs[i].status == "done"], x, y)
            if len(curve):
                axes.plot(curve.index, curve.mean(axis=1), label=label, markevery=-(-len(curve) // 8), **look)
                ends = curve.min(axis=1), curve.max(axis=1)
                axes.fill_between(curve.index, *ends, color=look["color"], alpha=0.15, lw=0)
            continue
        points = []
        for value, at in some.groupby("at"):
            if share:
                points.append((value, sum(one >= (study.success or 0) for one in _values(at, y)) / len(at), 0.0, 0.0))
            elif found := _values(at, y):
                mean = summarise(found).mean
                points.append((value, mean, mean - min(found), max(found) - mean))
        if points:
            at_x, means, *reach = zip(*points, strict=True)
            axes.errorbar(at_x, means, reach, label=label, capsize=2, **look)
    same, (low, high) = y.split("/")[-2:] == study.metric[0].split("/")[-2:] and not share, axes.get_ylim()
    marks = [(one.name, one.value, "--") for one in study.published if same]
    for head in (head for head in own if same and str(head).startswith("baseline ")):
        levels = {float(value) for value in own[head] if value}
        if len(levels) == 1 and low <= (level := levels.pop()) <= high:
            marks.append((str(head).removeprefix("baseline "), level, ":"))
    marks.sort(key=lambda mark: mark[1])
    for i, (name, level, dashes) in enumerate(marks):  # labels of near lines alternate between two places
        axes.axhline(level, color=GREY, linewidth=1, linestyle=dashes, zorder=1)
        axes.annotate(f"{name} {level:.5g}", (0.02 + 0.45 * (i % 2), level), xycoords=("axes fraction", "data"),
                      color=GREY, xytext=(0, 2), textcoords="offset points", fontsize="small", zorder=1,
                      path_effects=[withStroke(linewidth=2, foreground="white")])  # fmt: skip
    return f"share of seeds, {y} ≥ {study.success:g}" if share else y


def _places(values: pd.Series[str]) -> dict[str, float]:
    """Return each value's place on x: `[10, 200]` at 200; 1, 2, 3, ... if one is no number or two share a place."""
    last = {value: re.sub(r"^\[(?:.*, ?)?(.*)\]$", r"\1", value) for value in values}
    numbers = {value: float(text) for value, text in last.items() if re.fullmatch(r"-?[\d.]+(e[-+]?\d+)?", text)}
    if len({*numbers.values()}) == len(last):
        return numbers
    order = sorted(numbers, key=numbers.__getitem__) if len(numbers) == len(last) else last
    return {value: float(place) for place, value in enumerate(order, start=1)}
