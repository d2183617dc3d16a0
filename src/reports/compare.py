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

import pandas as pd

from src.errors import UserError
from src.reports.runs import Run, Value, suggestion
from src.reports.statistics import Summary, effect_size, holm, paired_p, summarise
from src.reports.table import DETAILS, Metric, Table, affects_result, differing, show, text_of

SIGNIFICANT = 0.05
ALL_PAIRS_UP_TO = 6  # up to this many values each is compared with each, more with the best only
# Implementations of one equation differ in the last digits of float32, perhaps always to the same side: a difference
# beyond this many digits means nothing, whatever its p.
SAME_DIGITS = 6


@dataclass
class Comparison:
    """`first` against `second` over n pairs, of which `note` says why there is none or what their mean hides.

    `tests` is the number of comparisons that `p_holm` allows for.
    """

    first: str
    second: str
    n: int = 0
    difference: Summary | None = None
    effect: float | None = None
    p: float | None = None
    p_holm: float | None = None
    tests: int = 1
    same: bool = False
    note: str = ""

    def verdict(self, mode: str) -> str:
        """Return whether the difference is more than noise, in a sentence."""
        if self.difference is None:
            return f"no pair: {self.note}"
        if self.same:
            return f"the same to {SAME_DIGITS} digits in every pair"
        if self.p is None or self.p_holm is None:
            return "one pair cannot tell a difference from noise; run more seeds"
        better = self.first if (self.difference.mean < 0) == (mode == "min") else self.second
        verdict = f"not more than noise once all {self.tests} comparisons are allowed for"
        if self.p_holm < SIGNIFICANT:
            verdict = f"more than noise: {better} is better"
        elif self.p >= SIGNIFICANT and self.difference.high is not None:
            reach = self.difference.high - self.difference.mean
            verdict = f"not more than noise: {self.n} pairs can tell a difference of about {reach:.2g} or more"
        return f"{verdict}; {self.note}" if self.note else verdict


@dataclass
class Comparisons:
    """The comparisons of one key, best values first, and the runs without a partner."""

    key: str
    items: list[Comparison]
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
    differ = [key for key in differing(every) if affects_result(key)]
    ends = [name] if name in known else [key for key in known if key.endswith(f".{name}")]
    if len(ends) != 1:
        hint = f"; it may be {' or '.join(ends)}" if ends else suggestion(name, dict.fromkeys([*differ, *known]))
        raise UserError(f"--compare {name}: no setting of these runs has that name{hint}")
    (key,) = ends
    if len({settings.get(key) for settings in every}) < 2:
        hint = f"what differs: {', '.join(differ[:8]) or 'nothing'}"
        raise UserError(f"--compare {name}: all runs have {key} = {show(every[0].get(key))}; {hint}")
    if text_of({key: ""}):
        raise UserError(f"--compare {name}: numbers of different texts are not compared; each text has its own table")
    return key


def compare(table: Table, key: str, metric: Metric) -> Comparisons:
    """Pair the counted runs of a table over the values of `key` (which the table was built to keep)."""
    others = [name for name in differing([row.settings for row in table.groups]) if name not in (key, "experiment")]
    counted = [(row.settings, run, value) for row in table.groups for run, value in row.counted]
    frame = pd.DataFrame(
        [{name: one.get(name) for name in (key, *others)} | {"#": value, "run": i, "seed": run.seed}
         for i, (one, run, value) in enumerate(counted)], dtype=object,
    )  # fmt: skip
    sides = {value: frame[frame[key].isna() if value is None else frame[key] == value] for value in frame.get(key, [])}
    ranked = sorted(sides, key=lambda value: metric.sort_key(float(sides[value]["#"].mean())))
    items, paired = [], set()
    for first, second in combinations(ranked, 2):
        if first == ranked[0] or len(ranked) <= ALL_PAIRS_UP_TO:
            one, runs = _compare(sides[first], sides[second], key, others)
            items.append(one)
            paired |= runs
    values = dict.fromkeys(row.settings.get(key) for row in table.groups)
    items += [Comparison(show(ranked[0]), show(value), note=f"no run with {show(value)} is counted")
              for value in values if ranked and value not in sides]  # fmt: skip
    tested = [one for one in items if one.p is not None]
    for one, adjusted in zip(tested, holm([one.p for one in tested if one.p is not None]), strict=True):
        one.p_holm, one.tests = adjusted, len(tested)
    return Comparisons(key, items, [run for i, (_, run, _) in enumerate(counted) if i not in paired])


def _compare(ones: pd.DataFrame, twos: pd.DataFrame, key: str, others: list[str]) -> tuple[Comparison, set[int]]:
    """Compare two values of a key; return also which runs have a partner.

    What one side never has need not be equal: an lstm has no nonlinearity.
    """
    made = Comparison(show(ones[key].iloc[0]), show(twos[key].iloc[0]))
    equal = [name for name in others if not name.startswith(f"{key}.")
             or not (name in DETAILS or ones[name].isna().all() or twos[name].isna().all())]  # fmt: skip
    pairs = ones.merge(twos, on=["seed", *equal])
    if pairs.empty:
        near = [name for name in equal if not set(ones[name]) & set(twos[name])]
        ignore = f"; also different: {', '.join(near)} (--ignore {near[0]} lets it differ)" if near else ""
        made.note = f"no two runs have an equal seed and are equal in all else{ignore}"
    elif pairs["run_x"].duplicated().any() or pairs["run_y"].duplicated().any():
        # A key that does not apply to one side gives one run several partners: the pairs are not independent.
        made.note = "a run has several partners; report the folders of one setting at a time"
    else:
        first, second = pairs["#_x"].astype(float), pairs["#_y"].astype(float)
        pairs["d"] = first - second
        made.n, made.difference = len(pairs), summarise(pairs["d"].tolist())
        made.p, made.effect = paired_p(made.difference), effect_size(made.difference)
        largest = pd.concat([first.abs(), second.abs()], axis=1).max(axis=1)
        made.same = bool((pairs["d"].abs() <= 10.0**-SAME_DIGITS * largest).all())
        if equal and pairs.groupby(equal, dropna=False)["d"].sum().gt(0).nunique() > 1:
            made.note = "the sign is not the same for all other settings"
    return made, {*pairs["run_x"], *pairs["run_y"]}
