"""The figures of a report against hand computation, printed tables of Student's t, and the density integrated."""

import math
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from src.reports.statistics import holm, mean_of, paired_p, student_quantile, student_within, summarise


@pytest.mark.parametrize(
    ("degrees", "quantile"),  # two-sided 95 %, as any printed table has them
    [(1, 12.7062047), (2, 4.3026527), (3, 3.1824463), (4, 2.7764451), (5, 2.5705818), (9, 2.2621572), (10, 2.2281389),
     (29, 2.0452296), (30, 2.0422725), (100, 1.9839715), (1000, 1.9623391)],
)  # fmt: skip
def test_the_quantiles_are_those_of_the_printed_table(degrees, quantile):
    assert student_quantile(0.95, degrees) == pytest.approx(quantile, abs=6e-8)


@pytest.mark.parametrize("degrees", [1, 2, 3, 4, 7, 8, 19, 50, 151])
@pytest.mark.parametrize("t", [0.01, 0.7, 2.0, 5.5])
def test_the_closed_form_is_the_integral_of_the_density(degrees, t):
    scale = math.exp(math.lgamma((degrees + 1) / 2) - math.lgamma(degrees / 2)) / math.sqrt(degrees * math.pi)
    steps = 2000  # Simpson's rule from 0 to t, then both sides
    heights = [scale * (1 + (t * i / steps) ** 2 / degrees) ** (-(degrees + 1) / 2) for i in range(steps + 1)]
    integral = t / steps / 3 * (heights[0] + 4 * sum(heights[1:-1:2]) + 2 * sum(heights[2:-1:2]) + heights[-1])
    assert student_within(t, degrees) == pytest.approx(2 * integral, abs=1e-11)


def test_two_degrees_of_freedom_have_a_form_one_can_write_down():
    for t in (0.0, 0.5, 3.4641, 1e6):
        assert student_within(t, 2) == pytest.approx(t / math.sqrt(2 + t * t), rel=1e-14)
    assert student_within(math.inf, 5) == pytest.approx(1.0, abs=1e-15)


@given(st.integers(1, 300), st.floats(0.01, 0.999))
def test_the_quantile_undoes_the_probability(degrees, confidence):
    assert student_within(student_quantile(confidence, degrees), degrees) == pytest.approx(confidence, abs=1e-12)


def test_three_values_by_hand():
    summary = summarise([1.0, 1.2, 1.4])
    assert summary.n == 3
    assert summary.mean == pytest.approx(1.2, abs=1e-15)
    assert summary.sd == pytest.approx(0.2, abs=1e-15)  # (0.04 + 0 + 0.04) / 2 = 0.04: divided by n - 1, not n
    t = 0.95 * math.sqrt(2 / (1 - 0.95**2))  # the quantile of two degrees of freedom, solved by hand: 4.3026...
    half = t * 0.2 / math.sqrt(3)
    assert (summary.low, summary.high) == (pytest.approx(1.2 - half, abs=1e-12), pytest.approx(1.2 + half, abs=1e-12))


def test_one_value_has_a_mean_and_no_spread():
    summary = summarise([1.5])
    assert (summary.n, summary.mean, summary.sd, summary.low, summary.high) == (1, 1.5, None, None, None)


def test_a_mean_of_nothing_is_refused():
    with pytest.raises(ValueError, match="no values"):
        summarise([])
    with pytest.raises(ValueError, match="degree"):
        student_within(1.0, 0)
    with pytest.raises(ValueError, match="between 0 and 1"):
        student_quantile(1.0, 3)


def test_the_paired_p_by_hand():
    # mean -0.2, sd 0.1: t = 0.2 / (0.1 / sqrt 3) = 2 sqrt 3; two degrees of freedom: p = 1 - t / sqrt(2 + t^2)
    assert paired_p([-0.1, -0.2, -0.3]) == pytest.approx(1 - math.sqrt(12 / 14), abs=1e-12)


def test_differences_without_spread_have_an_answer():
    assert paired_p([0.0, 0.0, 0.0]) == 1.0
    assert paired_p([0.5, 0.5]) == 0.0
    assert paired_p([0.5]) is None


def test_holm_by_hand():
    # sorted .01 .02 .04: times 3, 2, 1 = .03, .04, .04
    assert holm([0.02, 0.04, None, 0.01]) == [pytest.approx(0.04), pytest.approx(0.04), None, pytest.approx(0.03)]
    assert holm([0.6, 0.7]) == [1.0, 1.0]


@given(st.lists(st.floats(0, 1), min_size=1, max_size=8))
def test_holm_never_lowers_a_p_and_keeps_the_order(values):
    adjusted = holm(values)
    assert all(after >= before and after <= 1 for before, after in zip(values, adjusted, strict=True))
    in_order = [after for _, after in sorted(zip(values, adjusted, strict=True))]
    assert all(a <= b for a, b in pairwise(in_order))


def test_values_whose_squares_or_sum_are_too_large_for_a_float_still_have_a_mean_and_a_spread():
    summary = summarise([1e200, 2e200])
    assert summary.mean == 1.5e200
    assert summary.sd == pytest.approx(1e200 / math.sqrt(2), rel=1e-15)
    assert mean_of([1.7e308, 1.7e308]) == 1.7e308
