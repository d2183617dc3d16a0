"""Runs -> one table a text: grouped by what differs, seeds averaged, baselines as rows, best first, the rest listed.

Two runs belong to the same row only if every key that can change a result is equal (`src.config.schema.key_table`); the
seed is what is averaged over. Only finished runs with a finite number enter a mean; every other run is in
`Report.left_out` with its reason. Numbers of different texts are never ranked together: each text has its own table.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from functools import lru_cache
from typing import NamedTuple

from pandas import DataFrame

from src.config.schema import WINDOW_KEYS, key_table
from src.errors import UserError, nearest, typed
from src.metrics import four_metrics
from src.reports.runs import COSTS, RUN_NUMBERS, Run, Settings, Value, mapping, number
from src.reports.statistics import Summary, summarise

# The default is the first that a run has. A corpus without a validation split (hello) is compared on its training text.
DEFAULTS = ("val/cross_entropy", "train/cross_entropy", "train/loss")
UNITS = {
    "cross_entropy": "nats a character", "bits_per_character": "bits a character",
    "perplexity": "equally likely characters", "accuracy": "share of characters",
    "sequences_right": "share of sequences",
}  # fmt: skip
HIGHER_IS_BETTER = ("accuracy", "sequences_right", "characters_per_second", "lag_1_percent")
# Configuration groups: what they set (an experiment's sizes, a model's options) follows from them.
CHOICES = ("experiment", "data", "model", "optimizer", "scheduler")
# Class of `model`, checksum of `data`: shown only if nothing else differs.
DETAILS = ("model._target_", "data.sha256")
# Why a run is not counted. Failures first: they need action.
REASONS = ("failed", "unreadable", "not finite", "interrupted", "stopped", "pruned", "running", "no value", "repeated")

Identity = frozenset[tuple[str, Value]]


@dataclass(frozen=True)
class Metric:
    """The number that runs are compared by: `name` as it is logged, at the end of training or `at_best` checkpoint.

    With a `split` it is read from evaluation_<split>.json. `mode` is `min` if lower is better, else `max`. If it is
    `by_default`, each text is compared by the first of DEFAULTS that one of its runs has.
    """

    name: str
    split: str | None = None
    at_best: bool = False
    mode: str = "min"
    by_default: bool = False

    @property
    def tail(self) -> str:
        return self.name.rpartition("/")[2]

    @property
    def unit(self) -> str:
        return UNITS.get(self.tail, "")

    @property
    def column(self) -> str:
        return f"evaluation/{self.name}" if self.split else f"best/{self.name}" if self.at_best else self.name

    def describe(self) -> str:
        """Return `val/cross_entropy at the end of training, nats a character, lower is better`."""
        where = "at the best checkpoint" if self.at_best else "at the end of training"
        where = f"of evaluation_{self.split}.json" if self.split else where
        unit = self.unit and f", {self.unit}"
        return f"{self.name} {where}{unit}, {'higher' if self.mode == 'max' else 'lower'} is better"

    def of(self, runs: Iterable[Run]) -> Metric:
        """Return the metric that these runs of one text are compared by."""
        known = {column for run in runs for column in run.numbers}
        name = next((name for name in DEFAULTS if name in known), self.name) if self.by_default else self.name
        return replace(self, name=name)

    def sort_key(self, value: float) -> float:
        return -value if self.mode == "max" else value


def resolve_metric(name: str | None, split: str | None, at: str | None, runs: Sequence[Run]) -> Metric:
    """Return the metric that the command line means; UserError if no run has such a number."""
    known = dict.fromkeys(column for run in runs for column in run.numbers)
    by_default = name is None and split is None
    candidates = [*DEFAULTS] if name is None else [name, f"val/{name}", f"train/{name}", f"evaluation/{name}"]
    if split is not None:
        name = f"{split}/{(name or 'cross_entropy').removeprefix(f'{split}/')}"
        candidates = [f"evaluation/{name}"]
    found = next((candidate for candidate in candidates if candidate in known), None)
    if found is None and name is not None:
        names = [one.removeprefix("evaluation/") for one in known if not split or one.startswith("evaluation/")]
        how = f" (python -m src.evaluate run=DIR split={split} writes evaluation_{split}.json)" if split else ""
        hint = nearest(name, names) or f"; known: {', '.join(names)}"
        raise UserError(f"no run has a metric {name}{hint}{how}")
    found = found or DEFAULTS[0]
    at, found = ("best", found.removeprefix("best/")) if found.startswith("best/") else (at, found)
    if found.startswith("evaluation/"):
        _, split, tail = found.split("/", 2)
        found = f"{split}/{tail}"
    monitors = {(run.settings.get("checkpoint.monitor"), run.settings.get("checkpoint.mode")) for run in runs}
    mode = "max" if {*HIGHER_IS_BETTER} & {*found.split("/")} or (found, "max") in monitors else "min"
    return Metric(found, split, at == "best" and found not in RUN_NUMBERS, mode, by_default)


def baselines(metric: Metric, run: Run) -> dict[str, float]:
    """Return the baselines in the metric's unit, by the name that a reader sees (`5-gram`).

    Measured on `val` (an evaluation's: on its split); only the uniform guess is the same on every split.
    """
    record = run.evaluations.get(metric.split, {}) if metric.split else run.record
    only_uniform = metric.name.startswith("train/") and not metric.split and "val/cross_entropy" in run.numbers
    found: dict[str, float] = {}
    known = mapping(record.get("baselines"))
    uniform_guess = "uniform guess" if "chance" in known else "uniform guess (chance)"  # a task knows chance exactly
    for name, stored in known.items():
        bits, uniform = number(stored), name == "uniform"
        if bits is not None and (uniform or not only_uniform):
            values = four_metrics("", bits * math.log(2), 2.0**-bits if uniform else math.nan)
            shown = re.sub(r"^ngram_(\d+)$", r"\1-gram", name.replace("uniform", uniform_guess))
            found[shown] = values.get(f"/{metric.tail}", math.nan)
    return {name: value for name, value in found.items() if math.isfinite(value)}


@lru_cache(maxsize=65536)
def affects_result(key: str, ignored: tuple[str, ...] = (), kept: tuple[str, ...] = ()) -> bool:
    """Whether a key is `kept`, or can change a result (if in doubt, it can) and matches no pattern of `ignored`."""
    if key in kept:
        return True
    if key == "seed" or any(fnmatchcase(key, pattern) or fnmatchcase(key, f"{pattern}.*") for pattern in ignored):
        return False
    known = next(filter(None, map(key_table().get, (key, f"{key}.name", key.partition(".")[0]))), None)
    return known is None or known.affects_result


def text_of(settings: Settings) -> Settings:
    """Return the settings that define which text the numbers are about."""
    return {k: v for k, v in settings.items() if k.split(".")[0] == "data" and k[5:] not in WINDOW_KEYS}


def differing(rows: Sequence[Settings]) -> list[str]:
    """Return the keys with several values, choices first; a key set to null equals a missing one."""
    keys = dict.fromkeys([*CHOICES, *(key for row in rows for key in row)])
    found = [key for key in keys if len({row.get(key) for row in rows}) > 1]
    return [key for key in found if key not in DETAILS] or found


def columns_of(rows: Sequence[Settings]) -> list[str]:
    """Return the keys that differ, without those that are a function of an earlier choice (its size, its options)."""
    columns: list[str] = []
    for key in differing(rows):
        choices = [choice for choice in CHOICES if choice in columns and all(row.get(choice) for row in rows)]
        pairs = [{(row[choice], row.get(key)) for row in rows} for choice in choices]
        if all(len(found) > len({value for value, _ in found}) for found in pairs):
            columns.append(key)
    return columns


def short_names(keys: Iterable[str]) -> dict[str, str]:
    """Return each key by its last part where that is unique among the keys, else whole."""
    tails = {key: key.rpartition(".")[2] for key in keys}
    return {key: tail if [*tails.values()].count(tail) == 1 else key for key, tail in tails.items()}


def printable(text: str) -> str:
    """Return a text with what would break a line of a table or a figure (newlines, lone surrogates) as escapes."""
    return "".join(char if char.isprintable() else repr(char)[1:-1] for char in text)


def show(value: Value) -> str:
    """Return a setting as text, numbers to six digits; `null` for one that is missing or set to nothing."""
    return f"{value:.6g}" if isinstance(value, float) else printable(typed(value))


def label(settings: Settings, keys: Iterable[str]) -> str:
    """Return `model manual, hidden_size 128`."""
    return ", ".join(f"{name} {show(settings[key])}" for key, name in short_names(keys).items() if key in settings)


@dataclass
class Row:
    """Runs of equal settings; or a baseline, with a `name`."""

    settings: Settings
    runs: list[Run] = field(default_factory=list)
    counted: list[tuple[Run, float]] = field(default_factory=list)  # one finished run a seed with its value
    name: str = ""
    place: str = ""  # 1, 2, 3 ... from the best on
    summary: Summary = field(default_factory=lambda: Summary(0, math.nan))
    costs: dict[str, float] = field(default_factory=dict)  # the means of COSTS, and of the `best` value


class LeftOut(NamedTuple):
    """A run that no mean contains, and why."""

    reason: str
    run: Run
    why: str
    metric: Metric


@dataclass
class Table:
    """The runs of one text: `rows` best first, with baselines; `groups` are all settings, with or without a row."""

    text: str
    columns: list[str]
    rows: list[Row]
    groups: list[Row]
    metric: Metric


@dataclass
class Report:
    """One table a text, and every run that is in none of them."""

    metric: Metric
    tables: list[Table]
    left_out: list[LeftOut]
    runs: list[Run]
    label_keys: list[str]

    def label_of(self, run: Run) -> str:
        seed = "" if run.seed is None else f"seed {run.seed}"
        return ", ".join(filter(None, [label(run.settings, self.label_keys), seed]))


def build(runs: Sequence[Run], metric: Metric, ignored: Sequence[str] = (), kept: Sequence[str] = ()) -> Report:
    """Return the tables of runs by a metric; `ignored` are patterns of settings that make no row of their own."""
    found: dict[Identity, Row] = {}
    for run in (run for run in runs if run.status != "unreadable"):
        relevant = {k: v for k, v in run.settings.items() if affects_result(k, tuple(ignored), tuple(kept))}
        found.setdefault(_identity(relevant), Row(relevant)).runs.append(run)
    groups = list(found.values())
    left = [LeftOut("unreadable", run, run.problem, metric) for run in runs if run.status == "unreadable"]
    texts: dict[Identity, list[Row]] = {}
    for group in groups:
        experiments = {run.settings.get("experiment") for run in group.runs}
        group.settings |= {"experiment": experiments.pop()} if len(experiments) == 1 else {}
        texts.setdefault(_identity(text_of(group.settings)), []).append(group)
    names = columns_of([text_of(some[0].settings) for some in texts.values()])
    tables = []
    for some in texts.values():
        own = metric.of(run for group in some for run in group.runs)
        for group in some:
            left += _count(group, own)
        tables.append(_table(some, own, label(some[0].settings, names)))
    left.sort(key=lambda one: (REASONS.index(one.reason), str(one.run.folder)))
    return Report(metric, tables, left, list(runs), columns_of([group.settings for group in groups]))


def _identity(settings: Settings) -> Identity:
    """Return what makes two configurations equal; a key of null equals a missing one."""
    return frozenset((key, value) for key, value in settings.items() if value is not None)


def _count(group: Row, metric: Metric) -> list[LeftOut]:
    """Fill `counted` with the newest finished run of each seed, and return the other runs with their reasons."""
    left: list[LeftOut] = []
    by_seed: dict[object, tuple[Run, float]] = {}
    by_age = sorted(group.runs, key=lambda run: (str(run.record.get("started") or ""), str(run.folder)))
    for run in reversed(by_age):
        value = run.numbers.get(metric.column)
        if run.status != "done":
            left.append(LeftOut(run.status, run, _why_not_done(run), metric))
        elif value is None:
            how = f"; python -m src.evaluate run=FOLDER split={metric.split} writes it" if metric.split else ""
            left.append(LeftOut("no value", run, f"has no {metric.column.removeprefix('evaluation/')}{how}", metric))
        elif not math.isfinite(value):
            left.append(LeftOut("not finite", run, f"{metric.name} is {value}", metric))
        else:
            newest, other = by_seed.setdefault(str(run.folder) if run.seed is None else run.seed, (run, value))
            if newest is not run:
                why = f"same settings and seed as {newest.folder}, which is newer and counts"
                left.append(LeftOut("repeated", run, f"{why} ({value:.6g} here, {other:.6g} there)", metric))
    group.counted = sorted(by_seed.values(), key=lambda pair: (pair[0].seed or 0, str(pair[0].folder)))
    return left


def _why_not_done(run: Run) -> str:
    if isinstance(error := run.record.get("error"), Mapping):
        return f"{error.get('type', 'error')}: {' '.join(str(error.get('message', '')).split())}"
    after = f" after {steps} steps" if (steps := run.record.get("steps")) else ""
    resume = "; python -m src.train resume=FOLDER goes on" if run.status in ("interrupted", "stopped") else ""
    what = {"interrupted": "its process is gone", "pruned": "pruned by its search", "running": "still running"}
    return f"{what.get(run.status, run.status)}{after}{resume}"


def _table(groups: list[Row], metric: Metric, text: str) -> Table:
    shown = [group for group in groups if group.counted]
    found: dict[tuple[str, float], Row] = {}
    for group in shown or groups:
        for run in [run for run, _ in group.counted] or group.runs:
            for name, value in baselines(metric, run).items():
                baseline = Row(text_of(group.settings), name=name, summary=Summary(0, value))
                found.setdefault((name, round(value, 6)), baseline)
    for group in shown:
        numbers = DataFrame([run.numbers for run, _ in group.counted], columns=[f"best/{metric.name}", *COSTS])
        means = numbers.mean(skipna=False).dropna()  # a mean over some of the seeds would be another quantity
        group.costs = {str(name).partition("/")[0]: float(value) for name, value in means.items()}
        group.summary = summarise([value for _, value in group.counted])
    rows = sorted([*shown, *found.values()], key=lambda row: (metric.sort_key(row.summary.mean), bool(row.name)))
    for place, row in enumerate([row for row in rows if not row.name], start=1):
        row.place = str(place)
    return Table(text, columns_of([group.settings for group in shown]), rows, groups, metric)


def unequal_costs(table: Table) -> list[str]:
    """Return a warning where rows differ by more than 1 % in steps or characters."""
    ends = DataFrame([row.costs for row in table.rows], columns=COSTS[1:]).agg(["min", "max"])
    ends = ends.loc[:, ends.loc["max"] > 1.01 * ends.loc["min"]]
    ranges = ", ".join(f"{name} {low:,.6g} to {high:,.6g}" for name, (low, high) in ends.items())
    warning = f"warning: these rows were not trained equally long: {ranges}"
    return [warning] if {"steps", "characters"}.intersection(ends) else []
