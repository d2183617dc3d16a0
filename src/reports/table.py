"""Runs -> one table: grouped by what differs, seeds folded, baselines as rows, best first, the rest listed.

Only finished runs with a finite number enter a mean. Every other run is in `Table.left_out` with its reason.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from src.reports import metric as metrics
from src.reports.metric import Metric
from src.reports.runs import Run
from src.reports.settings import BUNDLES, Settings, Value, label, relevant, telling
from src.reports.statistics import Summary, mean_of, summarise

# Failures first: they are what somebody has to act on.
REASONS = ("failed", "unreadable", "not finite", "interrupted", "stopped", "pruned", "running", "no value", "repeated")


@dataclass
class Group:
    """Runs whose settings are equal in all that matters; `counted` holds one run a seed, newest first met."""

    settings: Settings
    runs: list[Run] = field(default_factory=list)
    counted: list[tuple[Run, float]] = field(default_factory=list)


@dataclass
class Row:
    """One line of the table: a group of runs, or a baseline (then `group` is None and there is no spread)."""

    name: str
    settings: Mapping[str, Value]
    summary: Summary
    best: float | None = None
    parameters: float | None = None
    seconds: float | None = None
    group: Group | None = None


@dataclass
class LeftOut:
    """A run that no mean contains, why, and how far it came."""

    reason: str
    run: Run
    why: str
    so_far: float | None = None


@dataclass
class Table:
    """The rows, best first; `columns` are the settings that differ, `with_others` those told below the table."""

    metric: Metric
    columns: list[str]
    with_others: dict[str, str]
    rows: list[Row]
    left_out: list[LeftOut]
    groups: list[Group]
    number_of_runs: int
    common: Settings
    label_keys: list[str]

    def label_of(self, run: Run) -> str:
        """What tells this run from the others, its seed last."""
        parts = [label(run.settings, self.label_keys), "" if run.seed is None else f"seed {run.seed}"]
        return ", ".join(part for part in parts if part)


def make_groups(runs: Sequence[Run], ignored: Sequence[str] = (), kept: str | None = None) -> list[Group]:
    """Readable runs by their relevant settings (`ignored` patterns left out, `kept` counted in any case)."""
    groups: dict[tuple[tuple[str, Value], ...], Group] = {}
    for run in runs:
        if run.status == "unreadable":
            continue
        identity = relevant(run.settings, run.seed, ignored, kept)
        group = groups.setdefault(identity, Group(dict(identity)))
        group.runs.append(run)
    for group in groups.values():
        experiments = {run.settings.get("experiment") for run in group.runs}
        if len(experiments) == 1 and (experiment := experiments.pop()) is not None:
            group.settings["experiment"] = experiment
    return list(groups.values())


def count(group: Group, metric: Metric) -> list[LeftOut]:
    """Fill `group.counted` and return the group's other runs with their reasons.

    The same settings and seed twice are one result, not two: the newest finished run counts, so that a repeated run
    cannot make the spread look smaller than it is.
    """
    left: list[LeftOut] = []
    by_seed: dict[object, tuple[Run, float]] = {}
    newest_first = sorted(
        group.runs, key=lambda run: (str(run.record.get("started") or ""), str(run.folder)), reverse=True
    )
    for run in newest_first:
        if run.status != "done":
            left.append(LeftOut(run.status, run, _story(run), metrics.latest_value(run, metric.name)))
            continue
        value = metric.value(run)
        if value is None:
            left.append(LeftOut("no value", run, metric.why_missing(run)))
        elif not math.isfinite(value):
            left.append(LeftOut("not finite", run, f"{metric.name} is {value}", value))
        else:
            seed: object = str(run.folder) if run.seed is None else run.seed
            first = by_seed.setdefault(seed, (run, value))
            if first[0] is not run:
                left.append(LeftOut("repeated", run, _repetition(first, value), value))
    group.counted = sorted(by_seed.values(), key=lambda pair: (pair[0].seed or 0, str(pair[0].folder)))
    return left


def _repetition(first: tuple[Run, float], value: float) -> str:
    same = "the same value" if value == first[1] else f"{value:.6g} here, {first[1]:.6g} there"
    return f"same settings and seed as {first[0].folder}, which is newer and counts ({same})"


def _story(run: Run) -> str:
    """Why a run that is not done is not done, in one line."""
    error = run.record.get("error")
    if isinstance(error, Mapping):
        message = " ".join(str(error.get("message", "")).split())
        return f"{error.get('type', 'error')}: {message}" if message else str(error.get("type", "error"))
    steps = run.record.get("steps")
    after = f" after {steps} steps" if isinstance(steps, int) and steps else ""
    if run.status == "interrupted":
        return f"its process is gone{after}; python -m src.train resume=FOLDER goes on"
    if run.status == "stopped":
        return f"stopped{after}; python -m src.train resume=FOLDER goes on"
    if run.status == "pruned":
        return f"pruned by its study{after}"
    return f"still running{after}" if run.status == "running" else f"no reason recorded{after}"


def build(runs: Sequence[Run], metric: Metric, ignored: Sequence[str] = (), kept: str | None = None) -> Table:
    """The table of `runs` by `metric`; `ignored` are patterns of settings that shall not make a row of their own."""
    groups = make_groups(runs, ignored, kept)
    left = [LeftOut("unreadable", run, run.problem) for run in runs if run.status == "unreadable"]
    for group in groups:
        left += count(group, metric)
    shown = [group for group in groups if group.counted]
    columns, with_others = telling([group.settings for group in shown])
    rows = [_row(group, metric) for group in shown] + _baseline_rows(shown or groups, metric)
    rows.sort(key=lambda row: (metric.sort_key(row.summary.mean), row.group is None))
    left.sort(key=lambda one: (REASONS.index(one.reason), str(one.run.folder)))
    return Table(
        metric,
        columns,
        with_others,
        rows,
        left,
        groups,
        len(runs),
        _common([group.settings for group in groups], BUNDLES),
        telling([group.settings for group in groups])[0],
    )


def _row(group: Group, metric: Metric) -> Row:
    runs = [run for run, _ in group.counted]
    best = [metrics.best_value(run, metric.name) for run in runs] if metric.split is None and not metric.at_best else []
    return Row(
        name="",
        settings=group.settings,
        summary=summarise([value for _, value in group.counted]),
        best=_mean_of_all(best),
        parameters=_mean_of_all([metrics.final_value(run, "parameters") for run in runs]),
        seconds=_mean_of_all([metrics.final_value(run, "seconds") for run in runs]),
        group=group,
    )


def _mean_of_all(values: Sequence[float | None]) -> float | None:
    """The mean, or None unless every run has a finite value: a mean over some of the seeds is another quantity."""
    known = [value for value in values if value is not None and math.isfinite(value)]
    return mean_of(known) if known and len(known) == len(values) else None


def _baseline_rows(groups: Sequence[Group], metric: Metric) -> list[Row]:
    """One row for each value a baseline takes, with what the runs measured against it share about their text."""
    met: dict[tuple[str, float], list[Settings]] = {}
    exact: dict[tuple[str, float], float] = {}
    for group in groups:
        for run in [run for run, _ in group.counted] or group.runs:
            for name, value in metrics.baselines(metric, run).items():
                key = (name, round(value, 6))
                exact.setdefault(key, value)
                if group.settings not in met.setdefault(key, [])[-1:]:
                    met[key].append(group.settings)
    return [
        Row(
            metrics.baseline_name(name),
            {key: value for key, value in _common(settings).items() if key == "data" or key.startswith("data.")},
            Summary(0, exact[name, rounded], None, None, None),
        )
        for (name, rounded), settings in met.items()
    ]


def _common(many: Sequence[Settings], keys: Sequence[str] | None = None) -> Settings:
    """The settings (of `keys`, or of any) that all of `many` share."""
    if not many:
        return {}
    first = many[0]
    return {
        key: first[key] for key in (first if keys is None else keys)
        if key in first and all(settings.get(key) == first[key] for settings in many)
    }  # fmt: skip
