"""Is A better than B, or was it luck? A paired comparison over seeds: a t test of the differences d_i = a_i - b_i.

Two runs are a pair if their seed and all other settings are equal. Pairing removes what the seed does to both runs (the
same first weights, the same order of the text), so it detects smaller differences than two intervals side by side.
Pairs that share a seed are not independent of each other: d_i is the mean over the pairs of seed i, and n counts seeds.
The effect size is Cohen's d of paired values, mean d / sd(d). Of several comparisons, Holm's adjusted p decides.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import reduce
from itertools import combinations, product
from typing import Any

import pandas as pd

from src.errors import UserError, nearest
from src.reports.runs import Run
from src.reports.statistics import Summary, figure, holm, p_value, summarise
from src.reports.table import DETAILS, Metric, Table, affects_result, differing, label, short_names, show, text_of

SIGNIFICANT = 0.05
NAMED_AT_MOST = 6  # settings at which a difference has the other sign; of more their number
INTERACTIONS_UP_TO = 6  # of more values, only pairs with the first one enter the interactions
# Implementations of one equation differ in the last digits of float32, perhaps always to the same side: a difference
# beyond this many digits means nothing, whatever its p.
SAME_DIGITS = 6


@dataclass
class Comparison:
    """`first` against `second`; `p_holm` allows for `tests` comparisons, `note` says why there is no pair.

    `opposite` are the other settings at which the mean difference has the other sign: the mean over all hides them.
    """

    first: str
    second: str
    difference: Summary | None = None
    p_holm: float = 1.0
    tests: int = 1
    same: bool = False
    note: str = ""
    depends_on: str = ""  # of an interaction: the key that a difference may depend on
    opposite: tuple[str, ...] = ()
    steps: tuple[float, float] | None = None  # the mean of each side, where a pair differs by more than 1 %

    def verdict(self, mode: str) -> str:
        """Return whether the difference is more than noise, in a sentence."""
        found = self.difference
        if found is None:
            return f"no pair: {self.note}"
        if self.same:
            return f"the same to {SAME_DIGITS} digits in every pair"
        if found.p is None or found.high is None:
            return "one seed cannot tell a difference from noise; run more seeds"
        verdict = f"not more than noise once all {self.tests} comparisons are allowed for"
        better, other = (self.first, self.second)[:: 1 if (found.mean < 0) == (mode == "min") else -1]
        places = " and at ".join(self.opposite)
        where = f"; {'the other way' if self.depends_on else f'{other} is better'} at {places}" if places else ""
        if self.p_holm < SIGNIFICANT:
            what = f"{better} is better{' on average' if where else ''}"
            verdict = f"more than noise: {f'the difference depends on {self.depends_on}' if self.depends_on else what}"
        elif found.p >= SIGNIFICANT:
            reach = found.high - found.mean
            verdict = f"not more than noise: {found.n} seeds can tell a difference of about {reach:.2g} or more"
        return f"{verdict}{where}{self._steps(f'; but {self.first} was trained for')}"

    def _steps(self, before: str) -> str:
        """Return the steps of both sides after these words, if they are not the same."""
        return f"{before} {self.steps[0]:,.6g} steps, the other for {self.steps[1]:,.6g}" if self.steps else ""

    def sentence(self, metric: Metric) -> str:
        """Return the difference for a paper: size, interval, test, p and effect size; "" where there is no spread."""
        found = self.difference
        if found is None or found.effect is None or self.same:
            return ""
        unit = metric.unit and f" {metric.unit}"
        p, p_holm = (f"p {'' if x.startswith('<') else '= '}{x}" for x in (p_value(found.p), p_value(self.p_holm)))
        adjusted = f", {p_holm} after Holm's adjustment for {self.tests} tests" if self.tests > 1 else ""
        size = f"{figure(abs(found.mean))}{unit} {'lower' if found.mean < 0 else 'higher'}"
        test = f"paired t test, n = {found.n} seeds, {p}{adjusted}; d = {found.effect:.2f}"
        interval = f"95 % interval of the difference {figure(found.low)} to {figure(found.high)}"
        steps = self._steps(", trained for")
        return f"{metric.name} of {self.first} was {size} than of {self.second} ({interval}; {test}){steps}."


def resolve_key(name: str, runs: Sequence[Run]) -> str:
    """Return the setting that `name` means, a dotted key or its last part; UserError if it cannot be compared."""
    if name == "seed":
        raise UserError("--compare seed: runs are paired by their seed; name what differs between them, such as model")
    every = [run.settings for run in runs if run.status != "unreadable"]
    differ, known = differing(every), dict.fromkeys(key for settings in every for key in settings)
    ends = [name] if name in known else [key for key in known if key.endswith(f".{name}")]
    ends = [key for key in ends if key in differ] or ends
    if len(ends) != 1:
        hint = f"; it may be {' or '.join(ends)}" if ends else nearest(name, known) or f"; known: {', '.join(known)}"
        raise UserError(f"--compare {name}: no setting of these runs has that name{hint}")
    (key,) = ends
    if key not in differ:
        hint = f"what differs: {', '.join(key for key in differ if affects_result(key)) or 'nothing'}"
        raise UserError(f"--compare {name}: all runs have {key} = {show(every[0].get(key))}; {hint}")
    if text_of({key: ""}):
        raise UserError(f"--compare {name}: numbers of different texts are not compared; each text has its own table")
    return key


def compare(table: Table, key: str, metric: Metric) -> tuple[list[Comparison], list[Run]]:
    """Pair the counted runs of a table over the values of `key`, best first; return also the runs without a partner."""
    frame, others = _frame_of(table, [key])
    sides = dict(iter(frame.groupby(key, dropna=False, sort=False)))
    ranked = sorted(sides, key=lambda value: metric.sort_key(float(sides[value]["#"].mean())))
    items: list[Comparison] = []
    paired: set[str] = set()
    for first, second in combinations(ranked, 2):
        one, two = sides[first], sides[second]
        items.append(Comparison(show(one[key].iloc[0]), show(two[key].iloc[0])))
        paired |= _compare(items[-1], [one, two], [key], others)
    _adjust(items)
    return items, [run for row in table.groups for run, _ in row.counted if str(run.folder) not in paired]


def compare_two(table: Table, keys: Sequence[str], metric: Metric) -> tuple[list[Comparison], list[Run]]:
    """Compare two keys, each at each value of the other, and their interaction: (a1 - a2 at b1) - (a1 - a2 at b2)."""
    items: list[Comparison] = []
    alone: list[list[Run]] = [[], []]
    names = short_names(keys)
    for (key, other), without in zip((keys, keys[::-1]), alone, strict=True):
        for value in dict.fromkeys(group.settings.get(other) for group in table.groups if group.counted):
            part = replace(table, groups=[group for group in table.groups if group.settings.get(other) == value])
            found, runs = compare(part, key, metric)
            without += runs
            at = f"at {names[other]} {show(value)}"
            for one in found:
                one.first, one.second = (f"{names[key]} {side} {at}" for side in (one.first, one.second))
            items += found
    frame, others = _frame_of(table, keys)
    shown = [frame[key].map(show) for key in keys]
    cells = dict(iter(frame.groupby(shown, sort=False)))
    for (a1, a2), (b1, b2) in product(*(_pairs([*values.unique()]) for values in shown)):
        if {*(four := [(a1, b1), (a2, b1), (a1, b2), (a2, b2)])} <= cells.keys():
            first, second = (f"{names[keys[0]]} {a1} - {a2} at {names[keys[1]]} {value}" for value in (b1, b2))
            items.append(Comparison(first, second, depends_on=names[keys[1]]))
            _compare(items[-1], [cells[cell] for cell in four], keys, others)
    _adjust(items)
    return items, [run for run in alone[0] if any(run is one for one in alone[1])]


def _frame_of(table: Table, keys: Sequence[str]) -> tuple[pd.DataFrame, list[str]]:
    """Return the counted runs with these keys and all others that differ, and the names of the others."""
    others = [name for name in differing([row.settings for row in table.groups]) if name not in (*keys, "experiment")]
    names = [*keys, *others]
    rows = [[*map(row.settings.get, names), value, str(run.folder), run.seed, run.numbers.get("steps")]
            for row in table.groups for run, value in row.counted]  # fmt: skip
    return pd.DataFrame(rows, columns=[*names, "#", "run", "seed", "steps"], dtype=object), others


def _opposite(means: pd.Series[float], keys: Sequence[str], mean: float) -> tuple[str, ...]:
    """Return the settings, by those of the keys that differ, at which a difference has the other sign than its mean."""
    rows = [dict(zip(keys, row if isinstance(row, tuple) else (row,), strict=True)) for row in means.index]
    varied = [key for key in keys if len({row[key] for row in rows}) > 1]
    found = [label(row, varied) for row, one in zip(rows, means, strict=True) if varied and one * mean < 0]
    return tuple(found if len(found) <= NAMED_AT_MOST else [f"{len(found)} of {len(rows)} other settings"])


def _pairs(values: Sequence[Any]) -> list[tuple[Any, Any]]:
    """Return each value with each, of many only the first with each: in no order that depends on the results."""
    return [pair for pair in combinations(values, 2) if len(values) <= INTERACTIONS_UP_TO or pair[0] is values[0]]


def _adjust(items: Sequence[Comparison]) -> None:
    """Set Holm's p over all of these comparisons."""
    tested = [(one, one.difference.p) for one in items if one.difference and one.difference.p is not None]
    for (one, _), adjusted in zip(tested, holm([p for _, p in tested]), strict=True):
        one.p_holm, one.tests = adjusted, len(tested)


def _compare(made: Comparison, sides: Sequence[pd.DataFrame], keys: Sequence[str], others: list[str]) -> set[str]:
    """Fill in a comparison of two sides, or of the four of an interaction; return which runs have a partner."""
    own: set[str] = set()  # an lstm has no nonlinearity: need not be equal
    for key in keys:
        lacks = pd.concat(sides).isna().groupby(pd.concat(sides)[key], dropna=False).all().any()
        own |= {name for name in others if name.startswith(f"{key}.") and (name in DETAILS or lacks[name])}
    equal = [name for name in others if name not in own]
    numbers = (side[["#", "run", "steps"]].add_suffix(f" {i}") for i, side in enumerate(sides))
    numbered = [side[["seed", *equal]].join(its) for side, its in zip(sides, numbers, strict=True)]
    pairs = reduce(lambda one, two: one.merge(two, on=["seed", *equal]), numbered)
    values, runs, steps = (pairs[[f"{name} {i}" for i in range(len(sides))]] for name in ("#", "run", "steps"))
    if pairs.empty:
        near = [name for name in equal if not set.intersection(*(set(side[name]) for side in sides))]
        ignore = f"; also different: {', '.join(near)} (--ignore {near[0]} lets it differ)" if near else ""
        which = "no seed has all four" if len(sides) > 2 else "no two runs have an equal seed and are equal in all else"
        made.note = f"{which}{ignore}"
    elif any(runs[side].duplicated().any() for side in runs):
        # A key that does not apply to one side gives one run several partners: the pairs are not independent.
        made.note = f"a run has several partners; report one {' and '.join(own - {*DETAILS}) or 'setting'} at a time"
    else:
        d = values.astype(float).mul([1, -1, -1, 1][: len(sides)]).sum(axis=1)
        made.difference = summarise(d.groupby(pairs["seed"], dropna=False).mean().tolist())
        made.same = bool((d.abs() <= 10.0**-SAME_DIGITS * values.astype(float).abs().max(axis=1)).all())
        steps = steps.astype(float)
        if len(sides) == 2 and (steps.max(axis=1) > 1.01 * steps.min(axis=1)).any():
            made.steps = (float(steps.iloc[:, 0].mean()), float(steps.iloc[:, 1].mean()))
        if equal and not made.same:
            by = [pairs[name].map(show) for name in equal]
            made.opposite = _opposite(d.groupby(by).mean(), equal, made.difference.mean)
    return {*runs.to_numpy().ravel()}
