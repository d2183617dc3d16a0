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
from src.reports.runs import Run, Value, suggestion
from src.reports.statistics import Summary, effect_size, holm, paired_p, summarise
from src.reports.table import (
    DETAILS,
    Metric,
    Row,
    Table,
    affects_result,
    columns_of,
    differing,
    label,
    show,
    text_of,
)

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
        """First - second of each pair."""
        return [a - b for _, a, _, b in self.pairs]

    @property
    def summary(self) -> Summary | None:
        """Of the differences."""
        return summarise(self.differences) if self.pairs else None

    @property
    def effect(self) -> float | None:
        """The effect size."""
        return effect_size(self.differences) if self.pairs else None

    @property
    def verdict(self) -> str:
        """Whether the difference is more than noise, in a sentence."""
        summary = self.summary
        if summary is None:
            return f"no pair: {self.note}"
        if all(abs(a - b) <= 10.0**-SAME_DIGITS * max(abs(a), abs(b)) for _, a, _, b in self.pairs):
            return f"the same to {SAME_DIGITS} digits in every pair"
        if summary.low is None or summary.high is None or self.p is None or self.p_holm is None:
            return "one pair cannot tell a difference from noise; run more seeds"
        note = f"; {self.note}" if self.note else ""
        better = self.first if (summary.mean < 0) == (self.mode == "min") else self.second
        if self.p_holm < SIGNIFICANT:
            return f"more than noise: {better} is better{note}"
        if self.p < SIGNIFICANT:
            return f"not more than noise once all {self.tests} comparisons are allowed for{note}"
        reach = (summary.high - summary.low) / 2
        return f"not more than noise: {summary.n} pairs can tell a difference of about {reach:.2g} or more{note}"


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
    all_settings = [run.settings for run in runs if run.status != "unreadable"]
    known = list(dict.fromkeys(key for settings in all_settings for key in settings))
    differ = [key for key in differing(all_settings) if affects_result(key)]
    ends = [name] if name in known else [key for key in known if key.endswith(f".{name}")]
    if len(ends) != 1:
        names = differ + [key for key in known if key not in differ and affects_result(key)]
        hint = f"; it may be {' or '.join(ends)}" if ends else suggestion(name, names)
        raise UserError(f"--compare {name}: no setting of these runs has that name{hint}")
    (key,) = ends
    if len({settings.get(key) for settings in all_settings}) < 2:
        hint = f"; what differs: {', '.join(differ[:8])}" if differ else "; nothing else differs either"
        raise UserError(f"--compare {name}: all runs have {key} = {show(all_settings[0], key)}{hint}")
    if text_of({key: ""}):
        raise UserError(
            f"--compare {name}: numbers of different texts are not compared; each text has a table of its own"
        )
    return key


def compare(table: Table, key: str, metric: Metric) -> Comparisons:
    """Pair the counted runs of a table over the values of `key` (which the table was built to keep)."""
    by_value: dict[Value, list[Row]] = {}
    names = {group.settings.get(key): show(group.settings, key) for group in table.groups}
    for group in table.groups:
        if group.counted:
            by_value.setdefault(group.settings.get(key), []).append(group)
    means = {value: mean(v for group in groups for _, v in group.counted) for value, groups in by_value.items()}
    ranked = sorted(by_value, key=lambda value: metric.sort_key(means[value]))
    couples = (
        combinations(ranked, 2) if len(ranked) <= ALL_PAIRS_UP_TO else ((ranked[0], other) for other in ranked[1:])
    )
    overall: list[Comparison] = []
    by_setting: list[Comparison] = []
    for first, second in couples:
        ones, others = by_value[first], by_value[second]
        parts = _parts(ones, others, key, metric.mode)
        whole = Comparison(
            names[first], names[second], "", [pair for part in parts for pair in part.pairs], metric.mode
        )
        if not parts:
            whole.note = _why_none(ones, others, key)
        elif any(len({id(pair[side]) for pair in whole.pairs}) < len(whole.pairs) for side in (0, 2)):
            # A key that does not apply to one side gives one run several partners: the pairs are not independent.
            whole.pairs, whole.note = [], "a run has several partners; see each setting below"
        elif len({sum(part.differences) > 0 for part in parts}) > 1:
            whole.note = "the sign is not the same for all other settings, see below"
        overall.append(whole)
        by_setting += parts if len(parts) > 1 else []
    for value in names if ranked else ():
        if value not in by_value:
            note = f"no run with {names[value]} is counted"
            overall.append(Comparison(names[ranked[0]], names[value], "", [], metric.mode, note))
    for comparisons in (overall, by_setting):
        _test(comparisons)
    paired = {id(run) for one in overall + by_setting for a, _, b, _ in one.pairs for run in (a, b)}
    alone = [run for group in table.groups for run, _ in group.counted if id(run) not in paired]
    return Comparisons(key, overall, by_setting, alone)


def _test(comparisons: list[Comparison]) -> None:
    for one in comparisons:
        one.p = paired_p(one.differences) if one.pairs else None
    tests = sum(one.p is not None for one in comparisons)
    for one, adjusted in zip(comparisons, holm([one.p for one in comparisons]), strict=True):
        one.p_holm, one.tests = adjusted, tests


def _parts(ones: Sequence[Row], others: Sequence[Row], key: str, mode: str) -> list[Comparison]:
    """Return one comparison for each combination of other settings that both sides were run with."""
    skipped = _not_held(ones, others, key)
    partners: dict[frozenset[tuple[str, Value]], list[Row]] = {}
    for group in others:
        partners.setdefault(_rest(group, skipped), []).append(group)
    matches = [(one, other) for one in ones for other in partners.get(_rest(one, skipped), [])]
    both = [({**other.settings, **_set(one)}, one, other) for one, other in matches]
    names = [name for name in columns_of([settings for settings, _, _ in both])[0] if name not in (key, "experiment")]
    parts: list[Comparison] = []
    for settings, one, other in sorted(both, key=lambda match: [_in_order(match[0].get(name)) for name in names]):
        seeds = {run.seed: (run, value) for run, value in other.counted}
        pairs = [(run, value, *seeds[run.seed]) for run, value in one.counted if run.seed in seeds]
        if pairs:
            first, second = show(one.settings, key), show(other.settings, key)
            parts.append(Comparison(first, second, label(settings, names), pairs, mode))
    return parts


def _not_held(ones: Sequence[Row], others: Sequence[Row], key: str) -> set[str]:
    """Return what need not be equal in a pair: what one side never has (an lstm has no nonlinearity, sgd no betas)."""
    sides = [{k for group in side for k in _set(group) if k.startswith(f"{key}.")} for side in (ones, others)]
    return {
        key,
        "experiment",
        *(detail for detail in DETAILS if detail.startswith(f"{key}.")),
        *(sides[0] ^ sides[1]),
    }


def _set(group: Row) -> dict[str, Value]:
    """Return the settings that are not null."""
    return {key: value for key, value in group.settings.items() if value is not None}


def _rest(group: Row, skipped: set[str]) -> frozenset[tuple[str, Value]]:
    """Return all that must be equal in a pair, besides the seed."""
    return frozenset(item for item in _set(group).items() if item[0] not in skipped)


def _in_order(value: Value) -> tuple[int, float, str]:
    """A key that sorts settings: null, then numbers by size, then text."""
    if value is None:
        return 0, 0.0, ""
    return (2, 0.0, value) if isinstance(value, str) else (1, value, "")


def _why_none(ones: Sequence[Row], others: Sequence[Row], key: str) -> str:
    """Return what keeps the two most similar groups apart: other settings, or no seed in common."""
    skipped = _not_held(ones, others, key)
    apart = [{name for name, _ in _rest(a, skipped) ^ _rest(b, skipped)} for a in ones[:50] for b in others[:50]]
    names = sorted(min(apart, key=len))
    if not names:
        return "no seed was run with both"
    also = ", ".join(names[:6]) + (f" and {len(names) - 6} more" if len(names) > 6 else "")
    return f"no two runs are equal in all else; also different: {also} (--ignore {names[0]} lets it differ)"
