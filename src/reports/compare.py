"""Is A better than B, or was it luck? A paired comparison over seeds.

Two runs are a pair where their seed and all other settings are equal. For n pairs with differences d_i = a_i - b_i:

    difference = mean d,   95 % interval = mean d +- t_{0.975, n-1} sd(d) / sqrt(n),   t = mean d sqrt(n) / sd(d)

and p is the two-sided probability of a t at least as large if seeds were all there is. Pairing takes out what the
seed does to both (the same first weights, the same order of the text), which is why it sees smaller differences than
two intervals side by side. Several comparisons at once: Holm's adjustment of p decides the words.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

from src.reports.metric import Metric
from src.reports.mistake import UserError, suggestion
from src.reports.runs import Run
from src.reports.settings import Value, can_matter, differing, in_order, label, show, telling
from src.reports.statistics import Summary, holm, mean_of, paired_p, summarise
from src.reports.table import Group, Table

SIGNIFICANT = 0.05
# Up to this many values each is compared with each; more are compared with the best only.
ALL_PAIRS_UP_TO = 6
# Implementations of one equation differ in the last digits of float32, and may do so always to one side: a difference
# beyond this many digits means nothing, whatever its p.
SAME_DIGITS = 6


@dataclass
class Comparison:
    """`first` against `second` over n pairs; `at` names the other settings where the pairs have several."""

    first: str
    second: str
    at: str
    pairs: list[tuple[Run, float, Run, float]]
    mode: str
    why_none: str = ""
    p: float | None = None
    p_holm: float | None = None
    tests: int = 1

    @property
    def summary(self) -> Summary | None:
        """Of the differences first - second."""
        return summarise([a - b for _, a, _, b in self.pairs]) if self.pairs else None

    @property
    def verdict(self) -> str:
        """In words: whether the difference is more than noise."""
        summary = self.summary
        if summary is None:
            return f"no pair: {self.why_none}"
        if all(abs(a - b) <= 10.0**-SAME_DIGITS * max(abs(a), abs(b)) for _, a, _, b in self.pairs):
            return f"the same to {SAME_DIGITS} digits in every pair"
        if summary.low is None or summary.high is None or self.p_holm is None:
            return "one pair cannot tell a difference from noise; run more seeds"
        better = self.first if (summary.mean < 0) == (self.mode == "min") else self.second
        if self.p_holm < SIGNIFICANT:
            return f"more than noise: {better} is better"
        reach = (summary.high - summary.low) / 2
        if self.p is not None and self.p < SIGNIFICANT:
            return f"not more than noise once all {self.tests} comparisons are allowed for"
        return f"not more than noise: {summary.n} pairs can tell a difference of about {reach:.2g} or more"


@dataclass
class Comparisons:
    """All comparisons of one key, and the finished runs that found no partner."""

    key: str
    overall: list[Comparison]
    by_setting: list[Comparison]
    alone: list[Run]

    @property
    def number(self) -> int:
        """How many tests were made, which Holm's adjustment allows for."""
        return sum(one.p is not None for one in self.overall)


def resolve_key(word: str, runs: Sequence[Run]) -> str:
    """The setting that `word` means: a dotted key or an unmistakable last part of one; UserError otherwise."""
    if word == "seed":
        raise UserError("--compare seed: runs are paired by their seed; name what differs between them, such as model")
    readable = [run for run in runs if run.status != "unreadable"]
    known: dict[str, None] = {}
    for run in readable:
        known.update(dict.fromkeys(run.settings))
    if word in known:
        key = word
    else:
        ends = [key for key in known if key.endswith(f".{word}")]
        if len(ends) != 1:
            choice = f"; it may be {' or '.join(ends)}" if ends else suggestion(word, _worth_naming(known, readable))
            raise UserError(f"--compare {word}: no setting of these runs has that name{choice}")
        key = ends[0]
    values = {run.settings.get(key) for run in readable}
    if len(values) < 2:
        others = [other for other in differing([run.settings for run in readable]) if can_matter(other)]
        hint = f"; what differs: {', '.join(others[:8])}" if others else "; nothing else differs either"
        raise UserError(f"--compare {word}: all runs have {key} = {show(values.pop())}{hint}")
    return key


def _worth_naming(known: dict[str, None], runs: Sequence[Run]) -> list[str]:
    """The settings that differ, or all of them where a misspelled one should still be recognised."""
    differ = [key for key in differing([run.settings for run in runs]) if can_matter(key)]
    return differ + [key for key in known if key not in differ and can_matter(key)]


def compare(table: Table, key: str) -> Comparisons:
    """Pair the counted runs of a table over the values of `key` (the table must have been built with it kept)."""
    by_value: dict[Value | None, list[Group]] = {}
    for group in table.groups:
        if group.counted:
            by_value.setdefault(group.settings.get(key), []).append(group)
    means = {value: mean_of([v for group in groups for _, v in group.counted]) for value, groups in by_value.items()}
    ranked = sorted(by_value, key=lambda value: table.metric.sort_key(means[value]))
    if len(ranked) <= ALL_PAIRS_UP_TO:
        couples = list(combinations(ranked, 2))
    else:
        couples = [(ranked[0], other) for other in ranked[1:]]
    overall: list[Comparison] = []
    by_setting: list[Comparison] = []
    paired: set[int] = set()
    for first, second in couples:
        parts = _parts(first, second, by_value, key, table.metric)
        pairs = [pair for part in parts for pair in part.pairs]
        whole = Comparison(show(first), show(second), "", pairs, table.metric.mode)
        if not pairs:
            whole.why_none = _why_none(by_value[first], by_value[second], key)
        elif any(len({id(pair[side]) for pair in pairs}) < len(pairs) for side in (0, 2)):
            # A setting that has no meaning for one side gives one run several partners: no independent pairs together.
            whole.pairs, whole.why_none = [], "a run has several partners; see each setting below"
        paired.update(id(run) for a, _, b, _ in pairs for run in (a, b))
        overall.append(whole)
        by_setting += parts if len(parts) > 1 else []
    for value in dict.fromkeys(group.settings.get(key) for group in table.groups if ranked):
        if value not in by_value:
            why = f"no run with {show(value)} is counted"
            overall.append(Comparison(show(ranked[0]), show(value), "", [], table.metric.mode, why))
    for comparisons in (overall, by_setting):
        _test(comparisons)
    alone = [run for group in table.groups for run, _ in group.counted if id(run) not in paired]
    return Comparisons(key, overall, by_setting, alone)


def _test(comparisons: list[Comparison]) -> None:
    for one in comparisons:
        one.p = paired_p([a - b for _, a, _, b in one.pairs]) if one.pairs else None
    tests = sum(one.p is not None for one in comparisons)
    for one, adjusted in zip(comparisons, holm([one.p for one in comparisons]), strict=True):
        one.p_holm, one.tests = adjusted, tests


def _parts(
    first: Value | None, second: Value | None, by_value: dict[Value | None, list[Group]], key: str, metric: Metric
) -> list[Comparison]:
    """One comparison for each combination of other settings that both values were run with."""
    ones, others = by_value[first], by_value[second]
    without_meaning = _without_meaning(ones, others, key)
    partners: dict[frozenset[tuple[str, Value]], list[Group]] = {}
    for group in others:
        partners.setdefault(_rest(group, key, without_meaning), []).append(group)
    matches = [(one, other) for one in ones for other in partners.get(_rest(one, key, without_meaning), [])]
    both = [({**other.settings, **one.settings}, one, other) for one, other in matches]
    names = [name for name in telling([settings for settings, _, _ in both])[0] if name not in (key, "experiment")]
    parts: list[Comparison] = []
    for settings, one, other in sorted(both, key=lambda match: [in_order(match[0].get(name)) for name in names]):
        seeds = {run.seed: (run, value) for run, value in other.counted}
        pairs = [(run, value, *seeds[run.seed]) for run, value in one.counted if run.seed in seeds]
        if pairs:
            parts.append(Comparison(show(first), show(second), label(settings, names), pairs, metric.mode))
    return parts


def _without_meaning(ones: Sequence[Group], others: Sequence[Group], key: str) -> set[str]:
    """Settings below `key` that one side never has: an lstm has no nonlinearity, sgd has no betas."""
    below = f"{key}."
    sides = [{name for group in side for name in group.settings if name.startswith(below)} for side in (ones, others)]
    return sides[0] ^ sides[1]


def _rest(group: Group, key: str, without_meaning: set[str]) -> frozenset[tuple[str, Value]]:
    """All that must be equal in a pair, besides the seed."""
    skipped = {key, "experiment", *without_meaning}
    return frozenset(item for item in group.settings.items() if item[0] not in skipped)


def _why_none(ones: Sequence[Group], others: Sequence[Group], key: str) -> str:
    """What keeps the two nearest groups apart: other settings, or no seed in common."""
    without_meaning = _without_meaning(ones, others, key)
    nearest: set[str] | None = None
    for one in ones[:50]:
        for other in others[:50]:
            apart = {name for name, _ in _rest(one, key, without_meaning) ^ _rest(other, key, without_meaning)}
            if nearest is None or len(apart) < len(nearest):
                nearest = apart
    if not nearest:
        return "no seed was run with both"
    names = sorted(nearest)
    also = ", ".join(names[:6]) + (f" and {len(names) - 6} more" if len(names) > 6 else "")
    return f"no two runs are equal in all else; also different: {also} (--ignore {names[0]} lets it differ)"
