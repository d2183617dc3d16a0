"""Mean, spread, Student's t: what a handful of seeds can and cannot say.

    mean = sum x / n,   sd = sqrt(sum (x - mean)^2 / (n - 1)),   95 % interval = mean +- t_{0.975, n-1} sd / sqrt(n)

Student's distribution with a whole number nu of degrees of freedom has a finite closed form (Abramowitz & Stegun,
26.7.3 and 26.7.4), so nothing is approximated but floating point. With theta = arctan(t / sqrt(nu)), c = cos^2 theta:

    nu odd:   P(|T| <= t) = 2/pi (theta + sin theta cos theta (1 + 2/3 c + (2 4)/(3 5) c^2 + ... to c^((nu-3)/2)))
    nu even:  P(|T| <= t) = sin theta (1 + 1/2 c + (1 3)/(2 4) c^2 + ... to c^((nu-2)/2))
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache


def student_within(t: float, degrees: int) -> float:
    """P(|T| <= t) for Student's T with `degrees` >= 1 degrees of freedom; t >= 0, may be infinite."""
    if degrees < 1:
        raise ValueError(f"Student's t needs at least 1 degree of freedom, got {degrees}: two values or more")
    theta = math.atan2(t, math.sqrt(degrees))
    sine, cosine = math.sin(theta), math.cos(theta)
    odd = degrees % 2
    term, total = 1.0, 0.0
    for i in range((degrees - 1) // 2 if odd else degrees // 2):
        total += term
        k = 2 * i + 1 + odd
        term *= k / (k + 1) * cosine * cosine
    if odd:
        return 2 / math.pi * (theta + sine * cosine * total)
    return sine * total


@lru_cache(maxsize=1024)
def student_quantile(confidence: float, degrees: int) -> float:
    """The t with P(|T| <= t) = confidence, by bisection to the last digit (0.95, 2 -> 4.302652...)."""
    if not 0 < confidence < 1:
        raise ValueError(f"a confidence lies between 0 and 1, got {confidence}")
    high = 1.0
    while student_within(high, degrees) < confidence:
        high *= 2
    low = 0.0
    while low < (middle := (low + high) / 2) < high:
        if student_within(middle, degrees) < confidence:
            low = middle
        else:
            high = middle
    return high


@dataclass(frozen=True)
class Summary:
    """n values in four numbers; `sd`, `low`, `high` (95 % interval of the mean) are None where n < 2."""

    n: int
    mean: float
    sd: float | None
    low: float | None
    high: float | None


def mean_of(values: Sequence[float]) -> float:
    """The mean, rounded once (math.fsum); ValueError without a value."""
    if not values:
        raise ValueError("the mean of no values is not defined")
    try:
        return math.fsum(values) / len(values)
    except OverflowError:  # the sum is too large for a float, the mean is not
        return math.fsum(value / len(values) for value in values)


def summarise(values: Sequence[float], confidence: float = 0.95) -> Summary:
    """Mean, standard deviation (n - 1) and t interval of at least one value."""
    n, mean = len(values), mean_of(values)
    if n < 2:
        return Summary(n, mean, None, None, None)
    sd = math.hypot(*(x - mean for x in values)) / math.sqrt(n - 1)  # a square may be too large where a root is not
    half = student_quantile(confidence, n - 1) * sd / math.sqrt(n)
    return Summary(n, mean, sd, mean - half, mean + half)


def paired_p(differences: Sequence[float]) -> float | None:
    """Two-sided p of the paired t test that the mean difference is zero; None with fewer than two pairs.

    Without any spread the test has no scale: 1 where every difference is zero, else 0.
    """
    summary = summarise(differences)
    if summary.sd is None:
        return None
    if not math.isfinite(summary.sd):
        return 1.0  # differences beyond every float tell nothing
    if summary.sd == 0:
        return 1.0 if summary.mean == 0 else 0.0
    t = abs(summary.mean) / (summary.sd / math.sqrt(summary.n))
    return max(0.0, 1.0 - student_within(t, summary.n - 1))


def holm(p_values: Sequence[float | None]) -> list[float | None]:
    """Holm's step-down adjustment: p values that allow for having looked len(p_values) times; None stays None.

    Sorted upwards, the i-th smallest of m (i from 0) is multiplied by m - i; it never falls below the one before it,
    nor rises above 1.
    """
    order = sorted((p, i) for i, p in enumerate(p_values) if p is not None)
    adjusted: list[float | None] = [None] * len(p_values)
    floor = 0.0
    for rank, (p, i) in enumerate(order):
        floor = max(floor, min(1.0, p * (len(order) - rank)))
        adjusted[i] = floor
    return adjusted
