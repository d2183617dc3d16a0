"""The next character: what each filter keeps, and that draws come as often as their probabilities say."""

from __future__ import annotations

import numpy as np
import pytest

from src.config.schema import SamplingConfig as S
from src.inference.generate import draw, weights_of

LOGITS = np.log(np.array([[0.4, 0.3, 0.2, 0.06, 0.04]]))


def probabilities(logits: np.ndarray, choice: S) -> np.ndarray:
    weights = weights_of(logits, choice)
    return weights / weights.sum(1, keepdims=True)


def test_a_temperature_raises_probabilities_to_its_inverse():
    np.testing.assert_allclose(probabilities(LOGITS, S())[0], [0.4, 0.3, 0.2, 0.06, 0.04])
    squares = np.array([0.4, 0.3, 0.2, 0.06, 0.04]) ** 2
    np.testing.assert_allclose(probabilities(LOGITS, S(0.5))[0], squares / squares.sum())


def test_temperature_zero_takes_the_first_of_the_likeliest():
    logits = np.array([[1.0, 3.0, 3.0], [5.0, 5.0, 0.0]])
    assert draw(weights_of(logits, S(0)), np.array([0.99, 0.99])).tolist() == [1, 0]
    assert probabilities(logits, S(0)).tolist() == [[0, 1, 0], [1, 0, 0]]


@pytest.mark.parametrize(
    ("choice", "count"),
    [(S(top_k=1), 1), (S(top_k=3), 3), (S(top_k=5), 5)]
    + [(S(top_p=p), count) for p, count in ((0.1, 1), (0.39, 1), (0.41, 2), (0.69, 2), (0.71, 3))]
    + [(S(min_p=share), count) for share, count in ((0.0, 5), (0.14, 4), (0.5, 3), (1.0, 1))]
    + [(S(top_k=2, top_p=0.5), 1)],  # of 0.4 and 0.3 the first has 0.57 of what top_k left
)
def test_a_filter_keeps_so_many_of_the_likeliest_in_their_proportions(choice, count):
    kept = np.where(np.arange(5) < count, [0.4, 0.3, 0.2, 0.06, 0.04], 0)
    np.testing.assert_allclose(probabilities(LOGITS, choice)[0], kept / kept.sum())


def test_top_k_keeps_exactly_k_of_equals():
    hot = S(temperature=1e18, top_k=1)
    assert weights_of(np.array([[1.0, 3.0, 2.0]]), hot).argmax() == 1
    assert np.count_nonzero(probabilities(np.zeros((1, 6)), S(top_k=2))) == 2


@pytest.mark.parametrize("choice", [S(), S(0.7), S(1.3, top_k=6), S(top_p=0.8), S(min_p=0.1), S(0.9, 9, 0.9, 0.01)])
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


def test_the_ends_of_the_uniform_numbers_never_draw_what_has_no_weight():
    weights = np.array([[0.0, 0.3, 0.0, 0.6, 0.0]])
    assert draw(weights, np.array([0.0])).tolist() == [1]
    assert draw(weights, np.array([1 - 2.0**-52])).tolist() == [3]
    assert draw(np.repeat(weights, 2, 0), np.array([0.0, 1 - 2.0**-52])).tolist() == [1, 3]
