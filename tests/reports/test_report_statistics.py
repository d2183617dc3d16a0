"""The numbers of a report against hand computation, printed tables of Student's t, and scipy's own tests."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from src.reports.statistics import Summary, holm, summarise

PAIR = st.tuples(st.integers(0, 900), st.integers(0, 900))


@given(st.lists(PAIR, min_size=2, max_size=9, unique_by=lambda ab: ab[0] - ab[1]))
def test_interval_and_p_are_those_of_scipy(pairs):
    first, second = zip(*pairs, strict=True)
    differences = [a - b for a, b in pairs]
    summary, test = summarise(differences), stats.ttest_rel(first, second)
    assert summary.p == pytest.approx(test.pvalue, abs=1e-12)
    assert (summary.low, summary.high) == pytest.approx(tuple(test.confidence_interval(0.95)), rel=1e-9, abs=1e-9)


def test_one_value_has_a_mean_alone_and_differences_without_spread_have_an_answer():
    assert summarise([1.5]) == Summary(1, 1.5, None, None, None)
    assert summarise([0.0, 0.0, 0.0]).p == 1.0
    assert summarise([0.1, 0.1, 0.1]).p == 0.0
    assert summarise([0.5]).p is None
    assert summarise([0.1, 0.1, 0.1]).effect is None


def test_holm_by_hand():
    # sorted .01 .02 .04: times 3, 2, 1 = .03, .04, .04
    assert holm([0.02, 0.04, 0.01]) == pytest.approx([0.04, 0.04, 0.03])
    assert holm([0.6, 0.7]) == [1.0, 1.0]
