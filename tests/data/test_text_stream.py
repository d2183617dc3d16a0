"""Text as it comes: joined it is what decode gives, and nothing is shown that may still be taken back."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from src.data.text_reader import TextStream
from src.data.vocabulary import Vocabulary

EVERY_BYTE = Vocabulary(tuple(range(256)), "bytes")


def read(stream: TextStream, ids: list[int]) -> list[str]:
    return [*(stream.feed(id) for id in ids), stream.finish()]


@given(st.lists(st.integers(0, 255), max_size=60))
def test_bytes_joined_are_what_decode_gives(ids):
    assert "".join(read(TextStream(EVERY_BYTE), ids)) == EVERY_BYTE.decode(ids)


def test_a_character_of_several_bytes_comes_when_it_is_whole():
    assert read(TextStream(EVERY_BYTE), list("a€b".encode())) == ["a", "", "", "€", "b", ""]


def test_half_a_character_at_the_end_reads_as_the_replacement_character():
    assert read(TextStream(EVERY_BYTE), list("€".encode()[:2])) == ["", "", "�"]


@given(st.text("ab", max_size=30), st.text("ab", min_size=1, max_size=4))
def test_a_stop_text_ends_the_text_wherever_it_stands(text, stop):
    vocabulary = Vocabulary.of("ab")
    stream = TextStream(vocabulary, stop)
    pieces = read(stream, vocabulary.encode(text).tolist())
    assert "".join(pieces) == text.partition(stop)[0]
    assert stream.stopped == (stop in text)


def test_what_may_begin_a_stop_text_is_held_back_and_no_more():
    vocabulary = Vocabulary.of("abc")
    stream = TextStream(vocabulary, "aab")
    assert read(stream, vocabulary.encode("caaab").tolist()) == ["c", "", "", "a", "", ""]
    assert stream.stopped


@pytest.mark.parametrize("kind", ["characters", "bytes"])
def test_a_stop_text_of_several_bytes_is_found_among_bytes(kind):
    vocabulary = Vocabulary.from_text("né", kind)
    stream = TextStream(vocabulary, "é")
    assert "".join(read(stream, vocabulary.encode("nnén").tolist())) == "nn"
