import math
import time
from collections import Counter, defaultdict

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from src import baselines as ngram
from src.baselines import baselines, basis, witten_bell
from src.config.schema import DataConfig
from src.data.corpus import open_corpus
from tests.runs.commands import SHARED_DATA

ids = st.lists(st.integers(0, 3), min_size=2, max_size=40)


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("UNROLL_CACHE", str(tmp_path / "cache"))


def slow(train, held_out, vocab_size, order, boundary=None):
    """The recursion as it is written, with dictionaries, one character at a time."""
    follow = defaultdict(Counter)

    def contexts(text, at):
        for length in range(order):
            context = tuple(text[at - length : at]) if at >= length else None
            if context is None or (boundary is not None and boundary in context[1:]):
                return
            yield context

    for at, character in enumerate(train):
        for context in contexts(train, at):
            follow[context][character] += 1
    nats = []
    for at in range(1, len(held_out)):
        p = 1 / vocab_size
        for context in contexts(held_out, at):
            if seen := follow[context]:
                p = (seen[held_out[at]] + len(seen) * p) / (seen.total() + len(seen))
        nats.append(-math.log(p))
    return sum(nats) / len(nats)


@given(ids, ids, st.sampled_from([None, 0]))
def test_sorting_gives_what_the_recursion_gives(train, held_out, boundary):
    fast = witten_bell(np.array(train, np.uint8), np.array(held_out, np.uint8), 4, 4, boundary)
    expected = [slow(train, held_out, 4, order, boundary) for order in range(1, 5)]
    np.testing.assert_allclose(fast, expected, rtol=1e-12)


@pytest.mark.skipif(not SHARED_DATA.exists(), reason="the shared corpora are not beside this checkout")
def test_tiny_shakespeares_validation_costs_what_it_is_known_to_cost():
    tiny_shakespeare = open_corpus(DataConfig("tiny_shakespeare", root=str(SHARED_DATA)))
    floors = baselines(tiny_shakespeare)
    names = ["unigram", *(f"ngram_{order}" for order in range(2, 8))]
    nats = [floors[name] * math.log(2) for name in names]
    np.testing.assert_allclose(nats, [3.347, 2.486, 2.049, 1.774, 1.669, 1.698, 1.779], atol=0.005)
    assert floors["uniform"] == math.log2(65)
    assert basis(tiny_shakespeare) is None
    before = time.perf_counter()
    assert baselines(tiny_shakespeare) == floors  # out of the cache
    assert time.perf_counter() - before < 0.1


def test_a_damaged_result_in_the_cache_is_counted_again(tmp_path):
    (tmp_path / "t.txt").write_text("abcab" * 20)
    corpus = open_corpus(DataConfig("text", path=str(tmp_path / "t.txt")))
    counted = baselines(corpus)
    (kept,) = (tmp_path / "cache" / "baselines").iterdir()
    kept.write_text("[")
    assert baselines(corpus) == counted


def test_the_unknown_symbol_is_counted_by_the_uniform_guess(tmp_path):
    (tmp_path / "t.txt").write_text("ab" * 45 + "abcdccabab")
    corpus = open_corpus(DataConfig("text", path=str(tmp_path / "t.txt")))
    assert baselines(corpus)["uniform"] == math.log2(3)


def test_a_pair_has_the_uniform_guess_alone():
    assert baselines(open_corpus(DataConfig("hello")), "train") == {"uniform": 2.0}


def test_items_are_counted_one_by_one(tmp_path):
    (tmp_path / "t.txt").write_text("ab\nab\nba\nab\nab\nba\nab\nab\nab\nab\n")
    corpus = open_corpus(DataConfig("lines", path=str(tmp_path / "t.txt"), split=[0.5, 0.5]))
    train, val = (corpus.splits[name].ids.tolist() for name in ("train", "val"))
    expected = slow(train, val, 3, 3, boundary=corpus.splits["train"].boundary)
    assert baselines(corpus)["ngram_3"] == pytest.approx(expected / math.log(2), rel=1e-12)


def test_of_a_very_long_text_a_part_is_counted_and_said_so(tmp_path, monkeypatch):
    (tmp_path / "t.txt").write_text("abcab" * 200)
    corpus = open_corpus(DataConfig("text", path=str(tmp_path / "t.txt")))
    whole = baselines(corpus)
    monkeypatch.setattr(ngram, "MOST_TRAIN", 20)
    monkeypatch.setattr(ngram, "MOST_SCORED", 10)
    part = baselines(corpus)
    assert part["ngram_5"] > whole["ngram_5"]
    assert basis(corpus) == "n-grams counted on the last 20 of 900 characters, scored on the first 10 of 99"
