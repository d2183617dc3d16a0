"""Mean, spread, Student's t: what a handful of seeds can and cannot show.

mean = sum x / n,   sd = sqrt(sum (x - mean)^2 / (n - 1)),   95 % interval = mean +- t_{0.975, n-1} sd / sqrt(n)
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import mean as exact_mean  # rounded once: equal values have no spread

from scipy import stats  # type: ignore[import-untyped]


@dataclass(frozen=True)
class Summary:
    """n values; `sd` and the 95 % interval of the mean, `low` to `high`, are None where n < 2."""

    n: int
    mean: float
    sd: float | None = None
    low: float | None = None
    high: float | None = None


def summarise(values: Sequence[float], confidence: float = 0.95) -> Summary:
    """Return mean, standard deviation (divided by n - 1) and t interval of at least one value."""
    n, mean = len(values), exact_mean(values)
    if n < 2:
        return Summary(n, mean)
    sd = math.hypot(*(x - mean for x in values)) / math.sqrt(n - 1)  # a square may overflow where its root does not
    half = float(stats.t.ppf((1 + confidence) / 2, n - 1)) * sd / math.sqrt(n)
    return Summary(n, mean, sd, mean - half, mean + half)


def paired_p(differences: Sequence[float]) -> float | None:
    """Return the two-sided p of the paired t test that the mean difference is zero; None with fewer than two pairs.

    Equals scipy.stats.ttest_rel. Without any spread the test has no scale: 1 if every difference is zero, else 0.
    """
    summary = summarise(differences)
    if summary.sd is None:
        return None
    if summary.sd == 0 or not math.isfinite(summary.sd):
        return 0.0 if summary.sd == 0 and summary.mean else 1.0
    t = abs(summary.mean) / (summary.sd / math.sqrt(summary.n))
    return float(2 * stats.t.sf(t, summary.n - 1))


def effect_size(differences: Sequence[float]) -> float | None:
    """Return Cohen's d of paired values, mean / sd of their differences; None where there is no spread."""
    summary = summarise(differences)
    return summary.mean / summary.sd if summary.sd else None


def holm(p_values: Sequence[float | None]) -> list[float | None]:
    """Return Holm's step-down adjustment of p values for their number; None stays None.

    Sorted upwards, the i-th smallest of m (i from 0) is multiplied by m - i; it is never below the one before it, nor
    above 1.
    """
    order = sorted((p, i) for i, p in enumerate(p_values) if p is not None)
    adjusted: list[float | None] = [None] * len(p_values)
    floor = 0.0
    for rank, (p, i) in enumerate(order):
        floor = max(floor, min(1.0, p * (len(order) - rank)))
        adjusted[i] = floor
    return adjusted
