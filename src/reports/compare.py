"""Is A better than B, or was it luck? A paired comparison over seeds.

Two runs are a pair if their seed and all other settings are equal. For n pairs with differences d_i = a_i - b_i:

    difference = mean d,   95 % interval = mean d +- t_{0.975, n-1} sd(d) / sqrt(n),   t = mean d sqrt(n) / sd(d)

and p is the two-sided probability of a t at least as large if only the seed made the difference. The effect size is
Cohen's d of paired values, mean d / sd(d). Pairing removes what the seed does to both runs (the same first weights, the
same order of the text), so it detects smaller differences than two intervals side by side. Of several comparisons,
Holm's adjusted p decides.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from statistics import mean

from src.errors import UserError
from src.reports import table as tables
from src.reports.runs import Run, Value, suggestion
from src.reports.statistics import Summary, effect_size, holm, paired_p, summarise
from src.reports.table import DETAILS, Metric, Row, Table, show

SIGNIFICANT = 0.05
ALL_PAIRS_UP_TO = 6  # up to this many values each is compared with each, more with the best only
# Implementations of one equation differ in the last digits of float32, perhaps always to the same side: a difference
# beyond this many digits means nothing, whatever its p.
SAME_DIGITS = 6


@dataclass
class Comparison:
    """`first` against `second` over n pairs; `at` names the other settings if there are several.

    `note` is why there is no pair, or what the mean difference hides.
    """

    first: str
    second: str
    at: str
    pairs: list[tuple[Run, float, Run, float]]
    mode: str
    note: str = ""
    p: float | None = None
    p_holm: float | None = None
    tests: int = 1

    @property
    def differences(self) -> list[float]:
        return [a - b for _, a, _, b in self.pairs]

    @property
    def summary(self) -> Summary | None:
        return summarise(self.differences) if self.pairs else None

    @property
    def effect(self) -> float | None:
        return effect_size(self.differences) if self.pairs else None

    @property
    def verdict(self) -> str:
        """Whether the difference is more than noise, in a sentence."""
        if (summary := self.summary) is None:
            return f"no pair: {self.note}"
        if all(abs(a - b) <= 10.0**-SAME_DIGITS * max(abs(a), abs(b)) for _, a, _, b in self.pairs):
            return f"the same to {SAME_DIGITS} digits in every pair"
        if summary.low is None or summary.high is None or self.p is None or self.p_holm is None:
            return "one pair cannot tell a difference from noise; run more seeds"
        better = self.first if (summary.mean < 0) == (self.mode == "min") else self.second
        verdict = f"not more than noise once all {self.tests} comparisons are allowed for"
        if self.p_holm < SIGNIFICANT:
            verdict = f"more than noise: {better} is better"
        elif self.p >= SIGNIFICANT:
            reach = (summary.high - summary.low) / 2
            verdict = f"not more than noise: {summary.n} pairs can tell a difference of about {reach:.2g} or more"
        return f"{verdict}; {self.note}" if self.note else verdict


@dataclass
class Comparisons:
    """All comparisons of one key, over all other settings and for each of them, and the runs without a partner."""

    key: str
    overall: list[Comparison]
    by_setting: list[Comparison]
    alone: list[Run]


def resolve_key(name: str, runs: Sequence[Run]) -> str:
    """Return the setting that `name` means: a dotted key, or the last part of one if only one key has it.

    Raises:
        UserError: there is no such setting, all runs have the same, or it cannot be compared.
    """
    if name == "seed":
        raise UserError("--compare seed: runs are paired by their seed; name what differs between them, such as model")
    every = [run.settings for run in runs if run.status != "unreadable"]
    known = list(dict.fromkeys(key for settings in every for key in settings))
    differ = [key for key in tables.differing(every) if tables.affects_result(key)]
    ends = [name] if name in known else [key for key in known if key.endswith(f".{name}")]
    if len(ends) != 1:
        names = dict.fromkeys([*differ, *(key for key in known if tables.affects_result(key))])
        hint = f"; it may be {' or '.join(ends)}" if ends else suggestion(name, names)
        raise UserError(f"--compare {name}: no setting of these runs has that name{hint}")
    (key,) = ends
    if len({settings.get(key) for settings in every}) < 2:
        hint = f"; what differs: {', '.join(differ[:8])}" if differ else "; nothing else differs either"
        raise UserError(f"--compare {name}: all runs have {key} = {show(every[0], key)}{hint}")
    if tables.text_of({key: ""}):
        raise UserError(f"--compare {name}: numbers of different texts are not compared; each text has its own table")
    return key


def compare(table: Table, key: str, metric: Metric) -> Comparisons:
    """Pair the counted runs of a table over the values of `key` (which the table was built to keep)."""
    names = {group.settings.get(key): show(group.settings, key) for group in table.groups}
    sides = {value: [row for row in table.groups if row.counted and row.settings.get(key) == value] for value in names}
    means = {value: mean(v for row in rows for _, v in row.counted) for value, rows in sides.items() if rows}
    ranked = sorted(means, key=lambda value: metric.sort_key(means[value]))
    couples = [(first, second) for first, second in combinations(ranked, 2)
               if first == ranked[0] or len(ranked) <= ALL_PAIRS_UP_TO]  # fmt: skip
    overall: list[Comparison] = []
    by_setting: list[Comparison] = []
    for first, second in couples:
        parts, near = _parts(sides[first], sides[second], key, metric.mode)
        pairs = [pair for part in parts for pair in part.pairs]
        whole = Comparison(names[first], names[second], "", pairs, metric.mode, "" if parts else near)
        if any(len({id(pair[side]) for pair in pairs}) < len(pairs) for side in (0, 2)):
            # A key that does not apply to one side gives one run several partners: the pairs are not independent.
            whole.pairs, whole.note = [], "a run has several partners; see each setting below"
        elif len({sum(part.differences) > 0 for part in parts}) > 1:
            whole.note = "the sign is not the same for all other settings, see below"
        overall.append(whole)
        by_setting += parts if len(parts) > 1 else []
    for value in names if ranked else ():
        if value not in means:
            note = f"no run with {names[value]} is counted"
            overall.append(Comparison(names[ranked[0]], names[value], "", [], metric.mode, note))
    for comparisons in (overall, by_setting):
        ps = [paired_p(one.differences) if one.pairs else None for one in comparisons]
        for one, p, adjusted in zip(comparisons, ps, holm(ps), strict=True):
            one.p, one.p_holm, one.tests = p, adjusted, len(ps) - ps.count(None)
    paired = {id(run) for one in overall + by_setting for a, _, b, _ in one.pairs for run in (a, b)}
    alone = [run for row in table.groups for run, _ in row.counted if id(run) not in paired]
    return Comparisons(key, overall, by_setting, alone)


def _parts(ones: Sequence[Row], others: Sequence[Row], key: str, mode: str) -> tuple[list[Comparison], str]:
    """Return a comparison for each combination of other settings that both sides were run with, and why there is none.

    What one side never has need not be equal: an lstm has no nonlinearity, sgd has no betas.
    """
    held = [{k for row in side for k, v in row.settings.items() if v is not None} for side in (ones, others)]
    skipped = {key, "experiment", *(name for name in (*DETAILS, *(held[0] ^ held[1])) if name.startswith(f"{key}."))}

    def rest(row: Row) -> frozenset[tuple[str, Value]]:
        return frozenset((k, v) for k, v in row.settings.items() if k not in skipped and v is not None)

    first_rests, other_rests = [rest(row) for row in ones], [rest(row) for row in others]
    matches = [
        ({**other.settings, **{k: v for k, v in one.settings.items() if v is not None}}, one, other)
        for one, a in zip(ones, first_rests, strict=True)
        for other, b in zip(others, other_rests, strict=True)
        if a == b
    ]
    columns, _ = tables.columns_of([settings for settings, _, _ in matches])
    names = [name for name in columns if name not in (key, "experiment")]
    parts: list[Comparison] = []
    for settings, one, other in sorted(matches, key=lambda match: [_in_order(match[0].get(name)) for name in names]):
        seeds = {run.seed: (run, value) for run, value in other.counted}
        if pairs := [(run, value, *seeds[run.seed]) for run, value in one.counted if run.seed in seeds]:
            first, second = show(one.settings, key), show(other.settings, key)
            parts.append(Comparison(first, second, tables.label(settings, names), pairs, mode))
    if matches:
        return parts, "no seed was run with both"
    near = sorted({name for name, _ in min((a ^ b for a in first_rests[:50] for b in other_rests[:50]), key=len)})
    also = ", ".join(near[:6]) + (f" and {len(near) - 6} more" if len(near) > 6 else "")
    return parts, f"no two runs are equal in all else; also different: {also} (--ignore {near[0]} lets it differ)"


def _in_order(value: Value) -> tuple[int, float, str]:
    """A key that sorts settings: null, then numbers by size, then text."""
    if value is None:
        return 0, 0.0, ""
    return (2, 0.0, value) if isinstance(value, str) else (1, value, "")
