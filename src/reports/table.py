"""Runs -> one table a text: grouped by what differs, seeds averaged, baselines as rows, best first, the rest listed.

Two runs belong to the same row only if every key that can change a result is equal (`src.config.schema.key_table`); the
seed is what is averaged over. Only finished runs with a finite number enter a mean; every other run is in
`Report.left_out` with its reason. Numbers of different texts are never ranked together: each text has its own table.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from functools import lru_cache
from statistics import mean

from src.config.schema import key_table
from src.errors import UserError
from src.metrics import perplexity
from src.reports.runs import COSTS, RUN_NUMBERS, Run, Settings, Value, mapping, number, suggestion
from src.reports.statistics import Summary, summarise

# The default is the first that a run has. A corpus without a validation split (hello) is compared on its training text.
DEFAULTS = ("val/cross_entropy", "train/cross_entropy", "train/loss")
UNITS = {
    "cross_entropy": "nats a character",
    "bits_per_character": "bits a character",
    "perplexity": "equally likely characters",
    "accuracy": "share of characters",
}
HIGHER_IS_BETTER = ("accuracy", "characters_per_second")
# Names of whole choices: what they bring along (an experiment's sizes, a model's options) follows from them.
CHOICES = ("experiment", "data", "model", "optimizer", "scheduler")
# How a text is cut into windows. All other keys of `data` define the text itself.
WINDOWS = ("data.seq_len", "data.batch_size", "data.offset", "data.reset", "data.evaluation_streams")
# What `model` and `data` stand for; shown only where nothing else differs.
DETAILS = ("model._target_", "data.sha256")
# Why a run is in no mean. Failures first: somebody has to act on them.
REASONS = ("failed", "unreadable", "not finite", "interrupted", "stopped", "pruned", "running", "no value", "repeated")


@dataclass(frozen=True)
class Metric:
    """The number that runs are compared by: `name` as it is logged, at the end of training or `at_best` checkpoint.

    With a `split` it is read from evaluation_<split>.json. `mode` is `min` if lower is better, else `max`.
    """

    name: str
    split: str | None = None
    at_best: bool = False
    mode: str = "min"

    @property
    def tail(self) -> str:
        """The name without its split: `cross_entropy`."""
        return self.name.rpartition("/")[2]

    @property
    def column(self) -> str:
        """Its column in `runs`."""
        return f"evaluation/{self.name}" if self.split else f"best/{self.name}" if self.at_best else self.name

    def why_missing(self, run: Run) -> str:
        """Return why a finished run has no such number."""
        if self.split is None:
            return f"has no {self.name}{' at its best step' if self.at_best else ''}"
        problem = f"has no {self.tail} or cannot be read" if self.split in run.evaluations else "does not exist"
        return f"evaluation_{self.split}.json {problem}; python -m src.evaluate run=FOLDER split={self.split} writes it"

    def describe(self) -> str:
        """Return `val/cross_entropy at the end of training, nats a character, lower is better`."""
        where = " at the best checkpoint" if self.at_best else " at the end of training"
        if self.split is not None or self.name in RUN_NUMBERS:
            where = "" if self.split is None else f" of evaluation_{self.split}.json"
        unit = f", {UNITS[self.tail]}" if self.tail in UNITS else ""
        return f"{self.name}{where}{unit}, {'higher' if self.mode == 'max' else 'lower'} is better"

    def sort_key(self, value: float) -> float:
        return -value if self.mode == "max" else value


def resolve_metric(name: str | None, split: str | None, at: str | None, runs: Sequence[Run]) -> Metric:
    """Return the metric that the command line means.

    `test/cross_entropy`, and `cross_entropy` with `--split test`, are read from evaluation_test.json; a bare
    `bits_per_character` is `val/bits_per_character`. UserError if no run has such a number.
    """
    finished = [run for run in runs if run.status == "done"]
    known = dict.fromkeys(column for run in finished or runs for column in run.numbers)
    final = [column for column in known if not column.startswith(("best/", "evaluation/"))]
    if split is None and name not in known and f"evaluation/{name}" in known:
        split = str(name).partition("/")[0]
    if split is not None:
        tail, prefix = (name or "cross_entropy").removeprefix(f"{split}/"), f"evaluation/{split}/"
        stored = [column.removeprefix(prefix) for column in known if column.startswith(prefix)]
        if at is not None:
            raise UserError("--at does not go with --split: an evaluation belongs to the checkpoint that it names")
        if not any(split in run.evaluations for run in finished or runs):
            how = f"python -m src.evaluate run=DIR split={split} writes a run's"
            raise UserError(f"no run has an evaluation_{split}.json; {how}")
        if tail not in stored:
            raise UserError(f"no evaluation_{split}.json has a metric {tail}{suggestion(tail, stored)}")
        return Metric(f"{split}/{tail}", split, mode="max" if tail in HIGHER_IS_BETTER else "min")
    candidates = DEFAULTS if name is None else (name, f"val/{name}", f"train/{name}")
    found = next((candidate for candidate in candidates if candidate in final), None)
    if found is None and name is not None:
        raise UserError(f"no run has a metric {name}{suggestion(name, final)}")
    if found is None and finished and final:
        raise UserError(f"no run has any of {', '.join(DEFAULTS)}; name one with --metric: {', '.join(final)}")
    found = found or DEFAULTS[0]
    mode = "max" if found.rpartition("/")[2] in HIGHER_IS_BETTER else "min"
    if any(
        (run.settings.get("checkpoint.monitor"), run.settings.get("checkpoint.mode")) == (found, "max") for run in runs
    ):
        mode = "max"
    return Metric(found, None, at == "best" and found not in RUN_NUMBERS, mode)


def baselines(metric: Metric, run: Run) -> dict[str, float]:
    """Return what to beat in the metric's unit, by the name that a reader sees (`5-gram`).

    Stored in bits per character, measured on `val` (an evaluation's: on its split); only the uniform guess is the same
    on every split. A uniform guess is right once in 2^bits characters; no n-gram's accuracy is known.
    """
    record = run.record if metric.split is None else run.evaluations.get(metric.split, {})
    other_split = metric.name.startswith("train/") and metric.split is None and "val/cross_entropy" in run.numbers
    found: dict[str, float] = {}
    for name, stored in mapping(record.get("baselines")).items():
        bits = number(mapping(stored).get("bits_per_character", stored))
        if bits is None or not math.isfinite(bits) or (other_split and name != "uniform"):
            continue
        shown = "uniform guess (chance)" if name == "uniform" else name
        shown = f"{name.removeprefix('ngram_')}-gram" if name.startswith("ngram_") else shown
        nats = bits * math.log(2)
        values = {"bits_per_character": bits, "cross_entropy": nats, "perplexity": perplexity(nats)}
        values |= {"accuracy": 2.0**-bits} if name == "uniform" else {}
        found |= {shown: values[metric.tail]} if metric.tail in values else {}
    return found


@lru_cache(maxsize=65536)
def affects_result(key: str, ignored: tuple[str, ...] = (), kept: str | None = None) -> bool:
    """Whether a key can change a result (if in doubt, it can) and matches none of the patterns `ignored`.

    `kept` is a key that was asked for: it counts in any case.
    """
    if key == kept:
        return True
    if key == "seed" or any(fnmatchcase(key, pattern) or fnmatchcase(key, f"{pattern}.*") for pattern in ignored):
        return False
    known = key_table().get(key) or key_table().get(f"{key}.name")
    return known is None or known.affects_result


def text_of(settings: Settings) -> Settings:
    """Return the settings that define which text the numbers are about."""
    return {k: v for k, v in settings.items() if (k == "data" or k.startswith("data.")) and k not in WINDOWS}


def differing(rows: Sequence[Settings]) -> list[str]:
    """Return the keys with several values, choices first; a key set to null equals a missing one."""
    keys = dict.fromkeys([*CHOICES, *(key for row in rows for key in row)])
    found = [key for key in keys if len({row.get(key) for row in rows}) > 1]
    return [key for key in found if key not in DETAILS] or found


def columns_of(rows: Sequence[Settings], many: int = 5) -> tuple[list[str], dict[str, str]]:
    """Return the keys that tell these rows apart, and those that only follow from a choice: key -> choice.

    An lstm has no nonlinearity: that is no second difference. An experiment may change a dozen sizes and rates; with
    more than `many` differing keys, those that add nothing follow too.
    """
    keys = differing(rows)
    following: dict[str, str] = {}
    missing = {key for key in keys if any(row.get(key) is None for row in rows)}
    leaders = [key for key in CHOICES if key in keys and key not in missing]
    for position, leader in enumerate(leaders):
        for key in keys if leader not in following else ():
            if (len(keys) > many or (key.startswith(f"{leader}.") and key in missing)) and (
                key not in leaders[: position + 1]
                and len({(row.get(leader), row.get(key)) for row in rows}) == len({row.get(leader) for row in rows})
            ):
                following.setdefault(key, leader)
    return [key for key in keys if key not in following], following


def short_names(keys: Iterable[str]) -> dict[str, str]:
    """Return each key by its last part where that is unique among the keys, else whole."""
    tails = {key: key.rpartition(".")[2] for key in keys}
    return {key: tail if [*tails.values()].count(tail) == 1 else key for key, tail in tails.items()}


def show(settings: Settings, key: str) -> str:
    """Return a setting as text, numbers to six digits; `null` for one set to nothing, `-` for a missing one."""
    value = settings.get(key)
    if value is None:
        return "null" if key in settings else "-"
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def label(settings: Settings, keys: Iterable[str]) -> str:
    """Return `model manual, hidden_size 128`."""
    return ", ".join(f"{name} {show(settings, key)}" for key, name in short_names(keys).items() if key in settings)


@dataclass
class Row:
    """Runs of equal settings, with one finished run a seed and its value in `counted`; or a baseline, with a `name`.

    `place` is 1, 2, 3 ... from the best on; `costs` has the means of COSTS, and of the `best` value.
    """

    settings: Settings
    runs: list[Run] = field(default_factory=list)
    counted: list[tuple[Run, float]] = field(default_factory=list)
    name: str = ""
    place: str = ""
    summary: Summary = field(default_factory=lambda: Summary(0, math.nan))
    costs: dict[str, float] = field(default_factory=dict)


@dataclass
class LeftOut:
    """A run that no mean contains, why, and its latest value."""

    reason: str
    run: Run
    why: str
    so_far: float | None = None


@dataclass
class Table:
    """The runs of one text: `rows` best first with the baselines, `groups` with the rows of which no run counts.

    `columns` are the settings that differ, `followers` those that only follow from one of them (key -> column).
    """

    text: str
    columns: list[str]
    followers: dict[str, str]
    rows: list[Row]
    groups: list[Row]


@dataclass
class Report:
    """One table a text, and every run that is in none of them."""

    metric: Metric
    tables: list[Table]
    left_out: list[LeftOut]
    runs: list[Run]
    label_keys: list[str]

    def label_of(self, run: Run) -> str:
        parts = [label(run.settings, self.label_keys), "" if run.seed is None else f"seed {run.seed}"]
        return ", ".join(part for part in parts if part)


def build(runs: Sequence[Run], metric: Metric, ignored: Sequence[str] = (), kept: str | None = None) -> Report:
    """Return the tables of runs by a metric; `ignored` are patterns of settings that make no row of their own."""
    found: dict[frozenset[tuple[str, Value]], Row] = {}
    for run in runs:
        if run.status != "unreadable":
            relevant = {k: v for k, v in run.settings.items() if affects_result(k, tuple(ignored), kept)}
            found.setdefault(_identity(relevant), Row(relevant)).runs.append(run)
    groups = list(found.values())
    left = [LeftOut("unreadable", run, run.problem) for run in runs if run.status == "unreadable"]
    texts: dict[frozenset[tuple[str, Value]], list[Row]] = {}
    for group in groups:
        left += _count(group, metric)
        experiments = {run.settings.get("experiment") for run in group.runs}
        group.settings |= {"experiment": experiments.pop()} if len(experiments) == 1 else {}
        texts.setdefault(_identity(text_of(group.settings)), []).append(group)
    left.sort(key=lambda one: (REASONS.index(one.reason), str(one.run.folder)))
    names, _ = columns_of([text_of(some[0].settings) for some in texts.values()])
    tables = [_table(some, metric, label(some[0].settings, names)) for some in texts.values()]
    return Report(metric, tables, left, list(runs), columns_of([group.settings for group in groups])[0])


def _identity(settings: Settings) -> frozenset[tuple[str, Value]]:
    """Return what makes two configurations equal; a key of null, or without entries, equals a missing one."""
    return frozenset((key, value) for key, value in settings.items() if value not in (None, "{}"))


def _count(group: Row, metric: Metric) -> list[LeftOut]:
    """Fill `counted` and return the other runs with their reasons.

    The same settings and seed twice are one result: the newest finished run counts, so that a repeated run cannot make
    the spread look smaller than it is.
    """
    left: list[LeftOut] = []
    by_seed: dict[object, tuple[Run, float]] = {}
    by_age = sorted(group.runs, key=lambda run: (str(run.record.get("started") or ""), str(run.folder)))
    for run in reversed(by_age):
        value = run.numbers.get(metric.column)
        if run.status != "done":
            left.append(LeftOut(run.status, run, _why_not_done(run), run.numbers.get(metric.name)))
        elif value is None:
            left.append(LeftOut("no value", run, metric.why_missing(run)))
        elif not math.isfinite(value):
            left.append(LeftOut("not finite", run, f"{metric.name} is {value}", value))
        else:
            newest, other = by_seed.setdefault(str(run.folder) if run.seed is None else run.seed, (run, value))
            if newest is not run:
                same = "the same value" if value == other else f"{value:.6g} here, {other:.6g} there"
                why = f"same settings and seed as {newest.folder}, which is newer and counts ({same})"
                left.append(LeftOut("repeated", run, why, value))
    group.counted = sorted(by_seed.values(), key=lambda pair: (pair[0].seed or 0, str(pair[0].folder)))
    return left


def _why_not_done(run: Run) -> str:
    error = run.record.get("error")
    if isinstance(error, Mapping):
        message = " ".join(str(error.get("message", "")).split())
        return f"{error.get('type', 'error')}{': ' if message else ''}{message}"
    after = f" after {steps} steps" if (steps := run.record.get("steps")) else ""
    return {
        "interrupted": f"its process is gone{after}; python -m src.train resume=FOLDER goes on",
        "stopped": f"stopped{after}; python -m src.train resume=FOLDER goes on",
        "pruned": f"pruned by its search{after}",
        "running": f"still running{after}",
    }.get(run.status, f"no reason recorded{after}")


def _table(groups: list[Row], metric: Metric, text: str) -> Table:
    shown = [group for group in groups if group.counted]
    costs = COSTS if metric.split or metric.at_best or metric.name in RUN_NUMBERS else (f"best/{metric.name}", *COSTS)
    found: dict[tuple[str, float], float] = {}
    for group in shown or groups:
        for run in [run for run, _ in group.counted] or group.runs:
            found |= {(name, round(value, 6)): value for name, value in baselines(metric, run).items()}
        if group.counted:
            group.summary = summarise([value for _, value in group.counted])
        for name in costs if group.counted else ():
            values = [run.numbers.get(name, math.nan) for run, _ in group.counted]
            if all(map(math.isfinite, values)):  # a mean over some of the seeds would be another quantity
                group.costs[name.partition("/")[0]] = mean(values)
    rows = [*shown, *(Row(text_of(groups[0].settings), name=n, summary=Summary(0, v)) for (n, _), v in found.items())]
    rows.sort(key=lambda row: (metric.sort_key(row.summary.mean), bool(row.name)))
    for place, row in enumerate([row for row in rows if not row.name], start=1):
        row.place = str(place)
    return Table(text, *columns_of([group.settings for group in shown]), rows, groups)


def unequal_costs(table: Table) -> list[str]:
    """Return a warning where rows differ by more than 1 % in steps or characters: `steps 158 to 630`; else nothing.

    Seconds differ between any two models; they are named beside the other two, not warned of alone.
    """
    ranges = {}
    for name in ("steps", "characters", "seconds"):
        values = [row.costs[name] for row in table.rows if name in row.costs]
        if values and max(values) > 1.01 * min(values):
            ranges[name] = f"{name} {min(values):,.6g} to {max(values):,.6g}"
    if not {"steps", "characters"} & ranges.keys():
        return []
    return [f"warning: these rows were not trained equally long: {', '.join(ranges.values())}"]
