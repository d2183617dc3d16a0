"""The numbers of a report against hand computation, printed tables of Student's t, and scipy's own tests."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from src.reports.statistics import holm, summarise


@pytest.mark.parametrize(
    ("degrees", "quantile"),  # two-sided 95 %, as any printed table has them
    [(1, 12.7062047), (2, 4.3026527), (3, 3.1824463), (9, 2.2621572), (30, 2.0422725), (100, 1.9839715)],
)  # fmt: skip
def test_the_interval_has_the_quantile_of_the_printed_table(degrees, quantile):
    n = degrees + 1
    summary = summarise([float(i % 2) for i in range(n)])
    assert (summary.high - summary.mean) * math.sqrt(n) / summary.sd == pytest.approx(quantile, abs=6e-8)


def test_three_values_by_hand():
    summary = summarise([1.0, 1.2, 1.4])
    assert (summary.n, summary.mean, summary.sd) == (3, pytest.approx(1.2), pytest.approx(0.2))  # divided by n - 1
    t = 0.95 * math.sqrt(2 / (1 - 0.95**2))  # the quantile of two degrees of freedom, solved by hand: 4.3026...
    half = t * 0.2 / math.sqrt(3)
    assert (summary.low, summary.high) == (pytest.approx(1.2 - half, abs=1e-12), pytest.approx(1.2 + half, abs=1e-12))


def test_one_value_has_a_mean_and_no_spread():
    summary = summarise([1.5])
    assert (summary.n, summary.mean, summary.sd, summary.low, summary.high) == (1, 1.5, None, None, None)


def test_the_paired_p_and_the_effect_size_by_hand():
    # mean -0.2, sd 0.1: t = 0.2 / (0.1 / sqrt 3) = 2 sqrt 3; two degrees of freedom: p = 1 - t / sqrt(2 + t^2)
    assert summarise([-0.1, -0.2, -0.3]).p == pytest.approx(1 - math.sqrt(12 / 14), abs=1e-12)
    assert summarise([-0.1, -0.2, -0.3]).effect == pytest.approx(-2.0)


@given(
    st.lists(
        st.tuples(st.integers(0, 900), st.integers(0, 900)), min_size=2, max_size=9, unique_by=lambda ab: ab[0] - ab[1]
    )
)
def test_interval_and_p_are_those_of_scipy(pairs):
    first, second = zip(*pairs, strict=True)
    differences = [a - b for a, b in pairs]
    summary, test = summarise(differences), stats.ttest_rel(first, second)
    assert summary.p == pytest.approx(test.pvalue, abs=1e-12)
    assert (summary.low, summary.high) == pytest.approx(tuple(test.confidence_interval(0.95)), rel=1e-9, abs=1e-9)


def test_differences_without_spread_have_an_answer():
    assert summarise([0.0, 0.0, 0.0]).p == 1.0
    assert summarise([0.1, 0.1, 0.1]).p == 0.0
    assert summarise([0.5]).p is None
    assert summarise([0.1, 0.1, 0.1]).effect is None


def test_holm_by_hand():
    # sorted .01 .02 .04: times 3, 2, 1 = .03, .04, .04
    assert holm([0.02, 0.04, 0.01]) == pytest.approx([0.04, 0.04, 0.03])
    assert holm([0.6, 0.7]) == [1.0, 1.0]
