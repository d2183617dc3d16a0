"""The next character: what each filter keeps, and that draws come as often as their probabilities say."""

from __future__ import annotations

import numpy as np
import pytest

from src.config.schema import SamplingConfig as S
from src.errors import UserError
from src.inference.generate import draw, weights_of

LOGITS = np.log(np.array([[0.4, 0.3, 0.2, 0.06, 0.04]]))


def probabilities(logits: np.ndarray, choice: S) -> np.ndarray:
    weights = weights_of(logits, choice)
    return weights / weights.sum(1, keepdims=True)


def kept(choice: S) -> list[int]:
    return np.flatnonzero(probabilities(LOGITS, choice)[0]).tolist()


def test_temperature_one_is_the_softmax():
    np.testing.assert_allclose(probabilities(LOGITS, S())[0], [0.4, 0.3, 0.2, 0.06, 0.04])


def test_a_lower_temperature_raises_probabilities_to_its_inverse():
    squares = np.array([0.4, 0.3, 0.2, 0.06, 0.04]) ** 2
    np.testing.assert_allclose(probabilities(LOGITS, S(0.5))[0], squares / squares.sum())


def test_temperature_zero_takes_the_first_of_the_likeliest():
    logits = np.array([[1.0, 3.0, 3.0], [5.0, 5.0, 0.0]])
    assert draw(weights_of(logits, S(0)), np.array([0.99, 0.99])).tolist() == [1, 0]
    assert probabilities(logits, S(0)).tolist() == [[0, 1, 0], [1, 0, 0]]


@pytest.mark.parametrize(("k", "ids"), [(1, [0]), (3, [0, 1, 2]), (5, [0, 1, 2, 3, 4])])
def test_top_k_keeps_the_k_likeliest(k, ids):
    assert kept(S(top_k=k)) == ids


def test_top_k_keeps_exactly_k_of_equals():
    assert np.count_nonzero(probabilities(np.zeros((1, 6)), S(top_k=2))) == 2


@pytest.mark.parametrize(("p", "ids"), [(0.1, [0]), (0.39, [0]), (0.41, [0, 1]), (0.69, [0, 1]), (0.71, [0, 1, 2])])
def test_top_p_keeps_the_one_that_crosses_it(p, ids):
    assert kept(S(top_p=p)) == ids


def test_top_p_counts_the_mass_that_top_k_left():
    # Of 0.4 and 0.3 the first has 0.57 of what is left, so 0.5 is reached by it alone
    assert kept(S(top_k=2, top_p=0.5)) == [0]
    assert kept(S(top_p=0.5)) == [0, 1]


@pytest.mark.parametrize(("share", "ids"), [(0.0, [0, 1, 2, 3, 4]), (0.14, [0, 1, 2, 3]), (0.5, [0, 1, 2]), (1.0, [0])])
def test_min_p_is_a_share_of_the_likeliest(share, ids):
    assert kept(S(min_p=share)) == ids


def test_what_is_kept_keeps_its_proportions():
    np.testing.assert_allclose(probabilities(LOGITS, S(top_k=3))[0], np.array([4, 3, 2, 0, 0]) / 9)


@pytest.mark.parametrize(
    "choice",
    [
        S(),
        S(0.7),
        S(1.3, top_k=6),
        S(top_p=0.8),
        S(min_p=0.1),
        S(0.9, 9, 0.9, 0.01),
    ],
)
def test_draws_come_as_often_as_their_probabilities_say(choice):
    generator = np.random.default_rng(5)
    logits = np.repeat(generator.normal(size=(1, 12)) * 2, 40_000, axis=0)
    expected = probabilities(logits[:1], choice)[0] * len(logits)
    counts = np.bincount(draw(weights_of(logits, choice), generator.random(len(logits))), minlength=12)
    possible = expected > 0
    assert counts[~possible].sum() == 0
    chi_square = ((counts - expected)[possible] ** 2 / expected[possible]).sum()
    # 4.5 standard deviations above its mean: once in some 100,000 for a right sampler, always for a wrong one
    freedom = possible.sum() - 1
    assert chi_square < freedom + 4.5 * np.sqrt(2 * freedom)


def test_a_row_is_drawn_alone_as_it_is_drawn_among_others():
    generator = np.random.default_rng(1)
    weights, uniform = generator.random((50, 9)), generator.random(50)
    together = draw(weights, uniform)
    assert [int(draw(weights[i : i + 1], uniform[i : i + 1])[0]) for i in range(50)] == together.tolist()


def test_the_ends_of_the_uniform_numbers_never_draw_what_has_no_weight():
    weights = np.array([[0.0, 0.3, 0.0, 0.6, 0.0]])
    assert draw(weights, np.array([0.0])).tolist() == [1]
    assert draw(weights, np.array([1 - 2.0**-52])).tolist() == [3]
    assert draw(np.repeat(weights, 2, 0), np.array([0.0, 1 - 2.0**-52])).tolist() == [1, 3]


def test_logits_that_are_not_finite_are_an_error():
    with pytest.raises(UserError, match="not finite"):
        draw(weights_of(np.array([[1.0, np.nan]]), S(0.5)), np.array([0.5]))
