"""Validation curves of a group, folded over its seeds: mean and one standard deviation at each step."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass

from src.reports.metric import DEFAULTS, Metric
from src.reports.runs import Run
from src.reports.statistics import summarise

# A chart is about a thousand pixels wide; more points than this cannot be told apart.
MOST_POINTS = 250
TOO_HIGH = 1e150  # no axis reaches there, and its square is no float

Points = list[tuple[float, float]]


@dataclass(frozen=True)
class Curve:
    """`steps`, `mean` and `sd` of `n` runs, all of one length; `sd` is zero where n = 1."""

    steps: list[float]
    mean: list[float]
    sd: list[float]
    n: int


def name_of_curve(metric: Metric, runs: Sequence[Run]) -> str | None:
    """What to draw: the metric itself where metrics.jsonl follows it, else its `val/`, else a default."""
    known: set[str] = set()
    for run in runs:
        known.update(run.curve[-1] if run.curve else ())
    wanted = [metric.name, f"val/{metric.word}", *DEFAULTS]
    return next((name for name in wanted if name in known and name not in ("seconds", "steps", "characters")), None)


def curve_of(runs: Sequence[Run], name: str) -> Curve | None:
    """The mean curve over those of `runs` that have points, or None where none has."""
    all_points = [points for run in runs if (points := _points(run, name))]
    if not all_points:
        return None
    grid = _grid(all_points)
    summaries = [summarise([_at(points, step) for points in all_points]) for step in grid]
    return Curve(grid, [s.mean for s in summaries], [s.sd or 0.0 for s in summaries], len(all_points))


def _points(run: Run, name: str) -> Points:
    """(step, value), steps rising, values that can be drawn only; of two lines for one step the later counts."""
    found: dict[float, float] = {}
    for line in run.curve:
        value = line.get(name)
        if isinstance(value, (int, float)) and abs(value) < TOO_HIGH:
            found[float(line["step"])] = float(value)
    return sorted(found.items())


def _grid(all_points: Sequence[Points]) -> list[float]:
    """Every step at which some run has a point and no run has ended or not begun.

    Runs of one group mostly share their steps. Where one stopped early the mean ends with it: a mean over fewer and
    fewer runs would jump for no other reason.
    """
    first = max(points[0][0] for points in all_points)
    last = min(points[-1][0] for points in all_points)
    steps = sorted({step for points in all_points for step, _ in points if first <= step <= last})
    if not steps:
        return [first]
    stride = math.ceil(len(steps) / MOST_POINTS)
    kept = steps[::stride]
    return kept if kept[-1] == steps[-1] else [*kept, steps[-1]]


def _at(points: Points, step: float) -> float:
    """The value at `step`, on the straight line between its two neighbours; beyond an end, the end."""
    right = bisect_right(points, (step, math.inf))
    if right == 0:
        return points[0][1]
    (x0, y0) = points[right - 1]
    if x0 == step or right == len(points):
        return y0
    (x1, y1) = points[right]
    return y0 + (y1 - y0) * (step - x0) / (x1 - x0)
