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
from src.reports.runs import COSTS, RUN_NUMBERS, SPLITS, Run, Settings, Value, mapping, metric_names, number, suggestion
from src.reports.statistics import Summary, summarise

# -- the metric -------------------------------------------------------------------------------------------------------

# The default is the first that a run has. A corpus without a validation split (hello) is compared on its training text.
DEFAULTS = ("val/cross_entropy", "train/cross_entropy", "train/loss")
UNITS = {
    "cross_entropy": "nats a character",
    "bits_per_character": "bits a character",
    "perplexity": "equally likely characters",
    "accuracy": "share of characters",
    "seconds": "seconds",
}
HIGHER_IS_BETTER = ("accuracy", "characters_per_second")


@dataclass(frozen=True)
class Metric:
    """The number that runs are compared by.

    Args:
        name: as it is logged, `val/cross_entropy`.
        split: whose evaluation_<split>.json it is read from, or None.
        at_best: whether it is the value at the best checkpoint, not the one at the end of training.
        mode: `min` if lower is better, else `max`.
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
        if self.split is not None:
            return f"evaluation/{self.split}/{self.tail}"
        return f"best/{self.name}" if self.at_best else self.name

    def why_missing(self, run: Run) -> str:
        """Why a finished run has no such number."""
        if self.split is None:
            return f"has no {self.name}{' at its best step' if self.at_best else ''}"
        if self.split in run.evaluations:
            return f"evaluation_{self.split}.json has no {self.tail} or cannot be read"
        return f"not evaluated; python -m src.evaluate run=FOLDER split={self.split} does it"

    def describe(self) -> str:
        """`val/cross_entropy at the end of training, nats a character, lower is better`."""
        where = " at the best checkpoint" if self.at_best else " at the end of training"
        if self.split is not None or self.name in RUN_NUMBERS:
            where = "" if self.split is None else f" of evaluation_{self.split}.json"
        unit = UNITS.get(self.tail, "")
        better = "higher is better" if self.mode == "max" else "lower is better"
        return ", ".join([f"{self.name}{where}", *([unit] if unit and unit != self.name else []), better])

    def sort_key(self, value: float) -> float:
        """The value, negated where higher is better: smaller is better."""
        return -value if self.mode == "max" else value


def resolve_metric(name: str | None, split: str | None, at: str | None, runs: Sequence[Run]) -> Metric:
    """Return the metric that the command line means.

    `test/cross_entropy`, and `cross_entropy` with `--split test`, are read from evaluation_test.json; a bare
    `bits_per_character` is `val/bits_per_character`.

    Raises:
        UserError: no run has such a number.
    """
    finished = [run for run in runs if run.status == "done"] or list(runs)
    known = metric_names(finished)
    if name is not None and split is None and name not in known:
        head, _, tail = name.partition("/")
        if head in SPLITS and any(f"evaluation/{head}/{tail}" in run.numbers for run in finished):
            name, split = tail, head
    if split is not None:
        return _resolve_evaluation(name, split, at, finished)
    if name is None:
        name = next((default for default in DEFAULTS if default in known), DEFAULTS[0])
        if known and name not in known and any(run.status == "done" for run in runs):
            raise UserError(f"no run has any of {', '.join(DEFAULTS)}; name one with --metric: {', '.join(known)}")
    elif name not in known:
        full = next((f"{head}/{name}" for head in ("val", "train") if f"{head}/{name}" in known), None)
        if full is None:
            raise UserError(f"no run has a metric {name}{suggestion(name, known)}")
        name = full
    mode = "max" if name.rpartition("/")[2] in HIGHER_IS_BETTER else "min"
    for run in finished:
        best = mapping(mapping(run.record.get("metrics")).get("best"))
        if best.get("monitor") == name and best.get("mode") in ("min", "max"):
            mode = best["mode"]
            break
    return Metric(name, None, at == "best" and name not in RUN_NUMBERS, mode)


def _resolve_evaluation(name: str | None, split: str, at: str | None, runs: Sequence[Run]) -> Metric:
    if at is not None:
        raise UserError("--at does not go with --split: an evaluation belongs to the checkpoint that it names")
    if not any(split in run.evaluations for run in runs):
        raise UserError(
            f"no run has an evaluation_{split}.json; python -m src.evaluate run=DIR split={split} writes a run's"
        )
    tail, prefix = (name or "cross_entropy").removeprefix(f"{split}/"), f"evaluation/{split}/"
    known = dict.fromkeys(key.removeprefix(prefix) for run in runs for key in run.numbers if key.startswith(prefix))
    if tail not in known:
        raise UserError(f"no evaluation_{split}.json has a metric {tail}{suggestion(tail, known)}")
    return Metric(f"{split}/{tail}", split, mode="max" if tail in HIGHER_IS_BETTER else "min")


def baselines(metric: Metric, run: Run) -> dict[str, float]:
    """Return what to beat in the metric's unit, by the name that a reader sees (`5-gram`).

    Stored in bits per character, measured on `val` (an evaluation's: on its split); only the uniform guess is the same
    on every split. A uniform guess is right once in 2^bits characters; no n-gram's accuracy is known.
    """
    record = run.record if metric.split is None else run.evaluations.get(metric.split, {})
    on_train = (
        metric.split is None and metric.name.startswith("train/") and any(n.startswith("val/") for n in run.numbers)
    )
    found: dict[str, float] = {}
    for name, stored in mapping(record.get("baselines")).items():
        bits = number(mapping(stored).get("bits_per_character", stored))
        if bits is None or not math.isfinite(bits) or (on_train and name != "uniform"):
            continue
        shown = f"{name.removeprefix('ngram_')}-gram" if name.startswith("ngram_") else name
        shown = "uniform guess (chance)" if name == "uniform" else shown
        if metric.tail == "bits_per_character":
            found[shown] = bits
        elif metric.tail in ("cross_entropy", "perplexity"):
            nats = bits * math.log(2)
            found[shown] = nats if metric.tail == "cross_entropy" else perplexity(nats)
        elif metric.tail == "accuracy" and name == "uniform":
            found[shown] = 2.0**-bits
    return found


# -- the settings -----------------------------------------------------------------------------------------------------

# Names of whole choices: what they bring along (an experiment's sizes, a corpus' learning rate) follows from them.
CHOICES = ("experiment", "data", "model", "optimizer", "scheduler")
# How a text is cut into windows. All other keys of `data` say which text it is.
WINDOWS = ("data.seq_len", "data.batch_size", "data.offset", "data.reset", "data.evaluation_streams")
# Identify what `model` and `data` name; shown only where the name alone does not tell two runs apart.
BEHIND_A_NAME = {"model._target_": "model", "data.sha256": "data"}


@lru_cache(maxsize=65536)
def affects_result(key: str, ignored: tuple[str, ...] = (), kept: str | None = None) -> bool:
    """Whether a key can change a result and is not ignored; of a key that is not in the table, its section decides.

    `kept` is a key that was asked for: it counts in any case.
    """
    if key == kept:
        return True
    if key == "seed" or any(fnmatchcase(key, pattern) or fnmatchcase(key, f"{pattern}.*") for pattern in ignored):
        return False
    table = key_table()
    known = table.get(key) or table.get(f"{key}.name")
    section = [about for other, about in table.items() if other.partition(".")[0] == key.partition(".")[0]]
    return known.affects_result if known else any(about.affects_result for about in section) or not section


def text_of(settings: Settings) -> Settings:
    """Return the settings that say which text the numbers are about."""
    return {k: v for k, v in settings.items() if (k == "data" or k.startswith("data.")) and k not in WINDOWS}


def differing(rows: Sequence[Mapping[str, Value]]) -> list[str]:
    """Return the keys with several values, choices first; a key set to null equals a key that is missing."""
    keys = dict.fromkeys(key for row in rows for key in row)
    found = [key for key in keys if len({row.get(key) for row in rows}) > 1]
    for key, name in BEHIND_A_NAME.items():
        if key in found and len({(row.get(name), row.get("data.path"), row.get(key)) for row in rows}) == len(
            {(row.get(name), row.get("data.path")) for row in rows}
        ):
            found.remove(key)
    first = [key for key in CHOICES if key in found]
    return first + [key for key in found if key not in first]


def columns_of(rows: Sequence[Mapping[str, Value]], many: int = 5) -> tuple[list[str], dict[str, str]]:
    """Return the keys that tell these rows apart, and those that only follow from a choice: key -> choice.

    An lstm has no nonlinearity: that is no second difference. An experiment may change a dozen sizes and rates; with
    more than `many` differing keys, those that say nothing new follow too.
    """
    keys = differing(rows)
    following: dict[str, str] = {}
    missing = {key for key in keys if any(row.get(key) is None for row in rows)}
    leaders = [key for key in CHOICES if key in keys and key not in missing]
    for position, leader in enumerate(leaders):
        for key in keys:
            if leader in following or key in following or key in leaders[: position + 1]:
                continue
            if len(keys) > many or (key.startswith(f"{leader}.") and key in missing):
                pairs = {(row.get(leader), row.get(key)) for row in rows}
                if len(pairs) == len({row.get(leader) for row in rows}):
                    following[key] = leader
    return [key for key in keys if key not in following], following


def short_names(keys: Iterable[str]) -> dict[str, str]:
    """Return each key by its last part where that is unique among the keys, else whole."""
    names = list(keys)
    tails = [name.rpartition(".")[2] for name in names]
    return {name: tail if tails.count(tail) == 1 else name for name, tail in zip(names, tails, strict=True)}


def show(settings: Mapping[str, Value], key: str) -> str:
    """Return a setting as text, numbers to six digits; `null` for one set to nothing, `-` for a missing one."""
    value = settings.get(key)
    if value is None:
        return "null" if key in settings else "-"
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def label(settings: Mapping[str, Value], keys: Iterable[str]) -> str:
    """Return `model manual, hidden_size 128`."""
    return ", ".join(f"{name} {show(settings, key)}" for key, name in short_names(keys).items() if key in settings)


# -- the tables -------------------------------------------------------------------------------------------------------

# Failures first: somebody has to act on them.
REASONS = ("failed", "unreadable", "not finite", "interrupted", "stopped", "pruned", "running", "no value", "repeated")


@dataclass
class Group:
    """Runs of equal settings; `counted` holds one finished run a seed, with its value."""

    settings: Settings
    runs: list[Run] = field(default_factory=list)
    counted: list[tuple[Run, float]] = field(default_factory=list)


@dataclass
class Row:
    """One line of a table: a group of runs, or a baseline (`group` is None); `costs` has means of COSTS and `best`."""

    name: str
    settings: Mapping[str, Value]
    summary: Summary
    costs: dict[str, float] = field(default_factory=dict)
    group: Group | None = None


@dataclass
class LeftOut:
    """A run that no mean contains, why, and its latest value."""

    reason: str
    run: Run
    why: str
    so_far: float | None = None


@dataclass
class Table:
    """The runs of one text, best first.

    `columns` are the settings that differ, `followers` those that only follow from one of them (key -> column).
    """

    text: str
    columns: list[str]
    followers: dict[str, str]
    rows: list[Row]
    groups: list[Group]


@dataclass
class Report:
    """One table a text, and every run that is in none of them."""

    metric: Metric
    tables: list[Table]
    left_out: list[LeftOut]
    runs: list[Run]
    label_keys: list[str]
    common: Settings

    def label_of(self, run: Run) -> str:
        """What tells this run from the others, its seed last."""
        parts = [label(run.settings, self.label_keys), "" if run.seed is None else f"seed {run.seed}"]
        return ", ".join(part for part in parts if part)


def build(runs: Sequence[Run], metric: Metric, ignored: Sequence[str] = (), kept: str | None = None) -> Report:
    """Return the tables of runs by a metric; `ignored` are patterns of settings that make no row of their own."""
    groups = make_groups(runs, tuple(ignored), kept)
    left = [LeftOut("unreadable", run, run.problem) for run in runs if run.status == "unreadable"]
    for group in groups:
        left += count(group, metric)
    left.sort(key=lambda one: (REASONS.index(one.reason), str(one.run.folder)))
    texts: dict[frozenset[tuple[str, Value]], list[Group]] = {}
    for group in groups:
        texts.setdefault(_identity(text_of(group.settings)), []).append(group)
    names, _ = columns_of([text_of(some[0].settings) for some in texts.values()])
    tables = [_table(some, metric, label(some[0].settings, names)) for some in texts.values()]
    every = [group.settings for group in groups]
    common = {k: v for k, v in (every[0] if every else {}).items() if all(one.get(k) == v for one in every)}
    return Report(metric, tables, left, list(runs), columns_of(every)[0], common)


def make_groups(runs: Sequence[Run], ignored: tuple[str, ...] = (), kept: str | None = None) -> list[Group]:
    """Return readable runs by the settings that can change the result."""
    groups: dict[frozenset[tuple[str, Value]], Group] = {}
    for run in runs:
        if run.status != "unreadable":
            relevant = {k: v for k, v in run.settings.items() if affects_result(k, ignored, kept)}
            groups.setdefault(_identity(relevant), Group(relevant)).runs.append(run)
    for group in groups.values():
        experiments = {run.settings.get("experiment") for run in group.runs}
        if experiments != {None} and len(experiments) == 1:
            group.settings["experiment"] = experiments.pop()
    return list(groups.values())


def _identity(settings: Mapping[str, Value]) -> frozenset[tuple[str, Value]]:
    """What makes two configurations equal; a key of null, or without entries, equals one that is missing."""
    return frozenset((key, value) for key, value in settings.items() if value not in (None, "{}"))


def count(group: Group, metric: Metric) -> list[LeftOut]:
    """Fill `group.counted` and return the group's other runs with their reasons.

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
        return f"{error.get('type', 'error')}: {message}" if message else str(error.get("type", "error"))
    steps = run.record.get("steps")
    after = f" after {steps} steps" if isinstance(steps, int) and steps else ""
    return {
        "interrupted": f"its process is gone{after}; python -m src.train resume=FOLDER goes on",
        "stopped": f"stopped{after}; python -m src.train resume=FOLDER goes on",
        "pruned": f"pruned by its search{after}",
        "running": f"still running{after}",
    }.get(run.status, f"no reason recorded{after}")


def _table(groups: list[Group], metric: Metric, text: str) -> Table:
    shown = [group for group in groups if group.counted]
    rows = [_row(group, metric) for group in shown]
    found: dict[tuple[str, float], float] = {}
    for group in shown or groups:
        for run in [run for run, _ in group.counted] or group.runs:
            for name, value in baselines(metric, run).items():
                found.setdefault((name, round(value, 6)), value)
    rows += [Row(name, text_of(groups[0].settings), Summary(0, value)) for (name, _), value in found.items()]
    rows.sort(key=lambda row: (metric.sort_key(row.summary.mean), row.group is None))
    return Table(text, *columns_of([group.settings for group in shown]), rows, groups)


def _row(group: Group, metric: Metric) -> Row:
    """Average over the seeds; a cost that a run lacks is left out, as a mean over some of the seeds is another number."""
    costs = {}
    final = metric.split is None and not metric.at_best and metric.name not in RUN_NUMBERS
    for name in (f"best/{metric.name}", *COSTS) if final else COSTS:
        values = [run.numbers.get(name, math.nan) for run, _ in group.counted]
        if all(map(math.isfinite, values)):
            costs[name.partition("/")[0]] = mean(values)
    return Row("", group.settings, summarise([value for _, value in group.counted]), costs, group)


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
