"""Mean, spread, Student's t: what a handful of seeds can and cannot show.

mean = sum x / n,   sd = sqrt(sum (x - mean)^2 / (n - 1)),   95 % interval = mean +- t_{0.975, n-1} sd / sqrt(n)
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import mean as exact_mean  # rounded once: equal values have no spread

from scipy.special import stdtr, stdtrit  # type: ignore[import-untyped]  # Student's t; scipy.stats takes 2 s to import


@dataclass(frozen=True)
class Summary:
    """n values; `sd` and the 95 % interval of the mean, `low` to `high`, are None where n < 2."""

    n: int
    mean: float
    sd: float | None = None
    low: float | None = None
    high: float | None = None

    @property
    def effect(self) -> float | None:
        """Cohen's d of paired values, mean / sd of their differences; None where there is no spread."""
        return self.mean / self.sd if self.sd else None

    @property
    def p(self) -> float | None:
        """The two-sided p of the t test that the mean is zero; None for one value, 0 or 1 where there is no spread."""
        if self.sd is None:
            return None
        if self.sd == 0:
            return 0.0 if self.mean else 1.0
        return float(2 * stdtr(self.n - 1, -abs(self.mean) / self.sd * math.sqrt(self.n)))


def summarise(values: Sequence[float], confidence: float = 0.95) -> Summary:
    """Return mean, standard deviation (divided by n - 1) and t interval of at least one value."""
    n, mean = len(values), exact_mean(values)
    if n < 2:
        return Summary(n, mean)
    sd = math.hypot(*(x - mean for x in values)) / math.sqrt(n - 1)  # a square may overflow where its root does not
    half = float(stdtrit(n - 1, (1 + confidence) / 2)) * sd / math.sqrt(n)
    return Summary(n, mean, sd, mean - half, mean + half)


def holm(p_values: Sequence[float]) -> list[float]:
    """Return Holm's step-down adjustment: the i-th smallest of m (i from 0) times m - i, ascending, at most 1."""
    adjusted, floor = dict.fromkeys(range(len(p_values)), 0.0), 0.0
    for rank, i in enumerate(sorted(adjusted, key=p_values.__getitem__)):
        floor = max(floor, min(1.0, p_values[i] * (len(p_values) - rank)))
        adjusted[i] = floor
    return [*adjusted.values()]


def figure(value: float | None) -> str:
    """Four decimals; tiny and huge values in powers of ten; a missing one is blank."""
    if value is None:
        return ""
    return f"{value:,.4f}" if value == 0 or 0.00005 <= abs(value) < 1e6 else f"{value:.4g}"


def p_value(p: float | None) -> str:
    """Return two digits of a p value, blank where there is none."""
    return "" if p is None else "< 0.0001" if p < 0.0001 else f"{p:.2g}"
