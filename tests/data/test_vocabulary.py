import json
import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from src.data.vocabulary import TextStream, Vocabulary, codes_of
from src.errors import UnknownCharacter

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=60)


def of_text(text):
    """The sorted symbols of a text, as a corpus has them."""
    symbols = sorted(set(text))
    return Vocabulary(tuple(symbols), "bytes") if isinstance(text, bytes) else Vocabulary.of(symbols)


@given(texts)
def test_decoding_what_was_encoded_gives_the_text_back(text):
    vocabulary = of_text(text)
    assert vocabulary.decode(vocabulary.encode(text)) == text


@given(st.binary(max_size=60))
def test_bytes_come_back_as_they_were(content):
    vocabulary = of_text(content)
    assert vocabulary.decode_bytes(vocabulary.encode(content)) == content


@given(texts, texts)
def test_an_unknown_character_never_becomes_another_one_silently(text, other):
    vocabulary = of_text(text)
    unknown = [at for at, character in enumerate(other) if character not in set(text)]
    if not unknown:
        assert vocabulary.decode(vocabulary.encode(other)) == other
        return
    with pytest.raises(UnknownCharacter) as caught:
        vocabulary.encode(other)
    distinct = len({other[at] for at in unknown})
    kinds = f"{distinct:,} character{'s' * (distinct > 1)}"
    count = kinds if distinct == len(unknown) else f"{len(unknown):,} occurrences of {kinds}"
    assert f" has {count} that the vocabulary" in caught.value.what
    assert caught.value.what.endswith(f"the first at offset {unknown[0]:,}")
    mapped = vocabulary.with_unknown()
    ids = {symbol: id for id, symbol in enumerate(vocabulary.symbols)}
    expected = [ids.get(character, mapped.unknown_id) for character in other]
    assert mapped.encode(other).tolist() == expected


@given(texts, texts)
def test_extending_keeps_every_id_that_was(text, more):
    vocabulary = of_text(text)
    extended = vocabulary.extend(more)
    assert extended.symbols[: len(vocabulary)] == vocabulary.symbols
    assert extended.decode(extended.encode(text + more)) == text + more


def test_symbols_stand_in_order_of_their_code_points_whatever_the_order_of_the_text():
    assert of_text("b\nüa你b").symbols == ("\n", "a", "b", "ü", "你")
    assert Vocabulary.of("ehlo").symbols == ("e", "h", "l", "o")
    assert Vocabulary.of("ehlo").encode("hello").tolist() == [1, 0, 2, 2, 3]


@pytest.mark.parametrize(
    "vocabulary", [Vocabulary.of("ehlo"), of_text(b"\x00\xff\r\n"), of_text("naïve").with_unknown().extend("x")]
)
def test_a_vocabulary_survives_plain_json_and_other_processes(vocabulary):
    assert Vocabulary.from_plain(json.loads(json.dumps(vocabulary.to_plain()))) == vocabulary
    assert pickle.loads(pickle.dumps(vocabulary)) == vocabulary


def test_the_unknown_symbol_keeps_its_place_when_the_vocabulary_grows():
    vocabulary = Vocabulary.of("ab").with_unknown()
    grown = vocabulary.extend("c")
    assert (vocabulary.unknown_id, grown.unknown_id, len(grown)) == (2, 2, 4)
    assert grown.encode("caz").tolist() == [3, 0, 2]
    assert grown.decode([3, 0, 2]) == "ca\N{REPLACEMENT CHARACTER}"


EVERY_BYTE = Vocabulary(tuple(range(256)), "bytes")


def read(stream, ids):
    return [*(stream.feed(id) for id in ids), stream.finish()]


@given(st.lists(st.integers(0, 255), max_size=60))
def test_bytes_joined_are_what_decode_gives(ids):
    assert "".join(read(TextStream(EVERY_BYTE), ids)) == EVERY_BYTE.decode(ids)


@given(st.text("ab", max_size=30), st.text("ab", min_size=1, max_size=4))
def test_a_stop_text_ends_the_text_wherever_it_stands(text, stop):
    vocabulary = Vocabulary.of("ab")
    stream = TextStream(vocabulary, stop)
    pieces = read(stream, vocabulary.encode(text).tolist())
    assert "".join(pieces) == text.partition(stop)[0]
    assert stream.stopped == (stop in text)


@pytest.mark.parametrize("kind", ["characters", "bytes"])
def test_a_stop_text_of_several_bytes_is_found_among_bytes(kind):
    vocabulary = Vocabulary(tuple(sorted(set(codes_of("né", kind).tolist()))), kind)
    stream = TextStream(vocabulary, "é")
    assert "".join(read(stream, vocabulary.encode("nnén").tolist())) == "nn"
