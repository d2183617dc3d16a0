import gzip
import hashlib
import math
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from src.config.schema import DataConfig
from src.data.corpus import REGISTRY, File, open_corpus
from src.data.vocabulary import Vocabulary
from src.errors import UnknownCharacter, UserError


def text_of(corpus, split):
    return corpus.vocabulary.decode(corpus.splits[split].ids)


def write(folder, name, content):
    place = folder / name
    place.write_bytes(content if isinstance(content, bytes) else content.encode())
    return str(place)


def test_tiny_shakespeare_has_65_characters_in_1003854_and_111540(shared):
    corpus = open_corpus(DataConfig("tiny_shakespeare", root=shared, unknown="error"))
    assert len(corpus.vocabulary) == 65
    assert {name: split.transitions for name, split in corpus.splits.items()} == {"train": 1_003_853, "val": 111_539}
    assert corpus.provenance["sha256"].startswith("86c4e6aa")
    text = (Path(shared) / "tinyshakespeare" / "input.txt").read_text()
    assert text_of(corpus, "train") + text_of(corpus, "val") == text


def test_war_and_peace_in_bytes_has_87_values_and_3258246_of_them(shared):
    corpus = open_corpus(DataConfig("war_and_peace", root=shared, encoding="bytes"))
    assert len(corpus.vocabulary) == 87
    assert [len(split) for split in corpus.splits.values()] == [2_606_596, 325_825, 325_825]
    whole = b"".join(corpus.vocabulary.decode_bytes(split.ids) for split in corpus.splits.values())
    assert hashlib.sha256(whole).hexdigest() == REGISTRY["war_and_peace/input.txt"].sha256


def test_names_are_32033_items_of_26_letters_and_the_newline(shared):
    corpus = open_corpus(DataConfig("names", root=shared, unknown="error"))
    assert len(corpus.vocabulary) == 27
    assert sum(corpus.provenance["items"].values()) == 32_033
    assert sum(len(split) for split in corpus.splits.values()) == 228_145 - 32_033 + 1  # no newline ends the file
    assert sum(split.transitions for split in corpus.splits.values()) == 228_145 + 1


def test_the_penn_treebank_convention_drops_a_leading_blank_and_counts_one_end_of_line(tmp_path, monkeypatch):
    made_up = {"train": " the cat sat on <unk> mat \n it slept \n" * 40, "valid": " the cat slept \n"}
    made_up["test"] = " it sat on the cat \n <unk> \n"
    (tmp_path / "ptb").mkdir()
    for part, text in made_up.items():
        path, sha256 = f"ptb/ptb.{part}.txt", hashlib.sha256(text.encode()).hexdigest()
        monkeypatch.setitem(REGISTRY, path, File(path, sha256, "http://nowhere.invalid"))
        write(tmp_path / "ptb", f"ptb.{part}.txt", text)
    corpus = open_corpus(DataConfig("ptb", root=str(tmp_path), unknown="error"))
    for split, text in zip(("train", "val", "test"), made_up.values(), strict=True):
        assert len(corpus.splits[split]) == len(text) - text.count("\n")  # each line without its leading blank
    assert text_of(corpus, "test") == "it sat on the cat \n<unk> \n"
    assert (corpus.provenance["convention"], corpus.provenance["cleaned"]["leading_blanks"]) == ("stripped", 83)
    in_bytes = open_corpus(DataConfig("ptb", root=str(tmp_path), encoding="bytes"))
    assert text_of(in_bytes, "test") == text_of(corpus, "test")
    raw = open_corpus(DataConfig("ptb", root=str(tmp_path), unknown="error", convention="raw"))
    assert (text_of(raw, "test"), raw.provenance["convention"]) == (made_up["test"], "raw")


def test_hello_is_one_pair_in_the_order_of_the_page():
    corpus = open_corpus(DataConfig("hello"))
    assert corpus.vocabulary.symbols == ("e", "h", "l", "o")
    pair = corpus.splits["train"]
    assert (pair.ids.tolist(), pair.targets.tolist()) == ([1, 0, 2, 2, 3], [3, 1, 2, 3, 2])
    misprint = open_corpus(DataConfig("hello", input="hlllo"))
    assert misprint.splits["train"].ids.tolist() == [1, 2, 2, 2, 3]
    assert corpus.key != misprint.key
    with pytest.raises(UserError, match="no split 'val'; it has train"):
        corpus.splits["val"]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=40)
@given(
    st.text(st.sampled_from("abc\u00e9\u4f60\n"), min_size=20, max_size=80),
    st.sampled_from([None, [0.5, 0.5], [0.8, 0.1, 0.1], [0.1, 0.2, 0.3], [1.0]]),
)
def test_splits_are_contiguous_in_order_and_cut_at_the_floor_of_the_shares(tmp_path, text, shares):
    corpus = open_corpus(DataConfig("text", path=write(tmp_path, "t.txt", text), split=shares, unknown="map"))
    edges = [math.floor(round(sum((shares or [0.9, 0.1])[:k]), 9) * len(text)) for k in range(1, 4)]
    expected = {"train": text[: edges[0]], "val": text[edges[0] : edges[1]], "test": text[edges[1] : edges[2]]}
    known = set(expected["train"])
    for name, split in corpus.splits.items():
        assert text_of(corpus, name) == "".join(c if c in known else "\ufffd" for c in expected[name])
        assert len(split) == len(expected[name])
    assert set(corpus.vocabulary.symbols) == known | {"<unknown>"}
    assert corpus.provenance["unused"] == len(text) - edges[len(shares or "ab") - 1]


def test_held_out_texts_of_their_own_leave_the_whole_text_for_training(tmp_path):
    train, val, test = (write(tmp_path, f"{name}.txt", f"abc {name}") for name in ("train", "val", "test"))
    corpus = open_corpus(DataConfig("text", path=train, val_path=val, test_path=test))
    assert text_of(corpus, "train") == "abc train"
    assert text_of(corpus, "test") == "abc t\ufffd\ufffdt"
    assert [file["path"] for file in corpus.provenance["files"]] == [train, val, test]
    assert not any("held out" in note for note in corpus.notes)
    assert "is also held out" in open_corpus(DataConfig("text", path=train, val_path=train)).notes[-1]


def test_several_texts_are_read_as_one_in_the_order_of_the_list(tmp_path):
    paths = [write(tmp_path, "b.txt", "baa"), write(tmp_path, "a.txt", "abb")]
    corpus = open_corpus(DataConfig("text", paths=paths, split=[1.0]))
    assert text_of(corpus, "train") == "baa\nabb"
    assert [file["path"] for file in corpus.provenance["files"]] == paths
    with pytest.raises(UserError, match=r"data\.paths=nowhere: "):
        open_corpus(DataConfig("text", paths=["nowhere"]))


def test_a_text_of_ones_own_may_have_a_name_and_a_codec_and_be_packed(tmp_path):
    texts = [tmp_path / name for name in ("plain.txt", "packed.txt.gz", "windows.txt")]
    for path, content in zip(texts, (b"caf\xc3\xa9", gzip.compress(b"caf\xc3\xa9"), b"caf\xe9"), strict=True):
        path.write_bytes(content * 20)
    plain, packed = (open_corpus(DataConfig("my_book", path=str(path))) for path in texts[:2])
    assert plain.name == "my_book"
    assert text_of(plain, "train") == text_of(packed, "train") == "caf\u00e9" * 18
    assert packed.provenance["sha256"] == plain.provenance["sha256"], "it is that of the text"
    windows = open_corpus(DataConfig("text", path=str(texts[2]), codec="cp1252"))
    assert text_of(windows, "val") == text_of(plain, "val")
    assert windows.provenance["rules"]["codec"] == "cp1252"
    assert "codec" not in plain.provenance["rules"]
    for start in ("<!DOCTYPE html>", "\ufeff<html>", '<?xml version="1.0"?>\n<!doctype html>'):
        page = write(tmp_path, "page.html", f"{start}<p>caf</p>" * 3)
        assert any("web page" in note for note in open_corpus(DataConfig("text", path=page)).notes)


@pytest.mark.parametrize("name", ["text", "lines"])
def test_a_test_text_alone_leaves_val_a_share_of_the_text(tmp_path, name):
    path, test = write(tmp_path, "t.txt", "ab\nba\n" * 30), write(tmp_path, "test.txt", "ba\nab\n")
    corpus = open_corpus(DataConfig(name, path=path, test_path=test))
    assert list(corpus.splits) == ["train", "val", "test"]
    assert corpus.provenance["split"] == [[0.9, 0.1], [1.0]]
    halves = open_corpus(DataConfig(name, path=path, test_path=test, split=[0.5, 0.5]))
    assert abs(len(halves.splits["train"]) - len(halves.splits["val"])) < 2
    assert list(open_corpus(DataConfig(name, path=path, test_path=test, split=[1.0])).splits) == ["train", "test"]


def test_the_vocabulary_is_that_of_the_training_split_alone(tmp_path):
    path = write(tmp_path, "t.txt", "ab" * 45 + "abcdccabab")
    corpus = open_corpus(DataConfig("text", path=path))
    assert corpus.vocabulary.symbols == ("a", "b", "<unknown>")
    assert corpus.provenance["mapped"] == {"val": 4}
    assert corpus.notes == (
        "val: 4 characters (2 distinct) not in the vocabulary; "
        "one unknown symbol represents them, and the uniform guess counts it",
    )
    with pytest.raises(UnknownCharacter, match=r"val has 4 occurrences of 2 .*'c'.*'d'.* offset 2; data.unknown=map"):
        open_corpus(DataConfig("text", path=path, unknown="error"))
    with pytest.raises(UserError, match=r"data.unknown=extend .* init_from=RUN.*use data.unknown=map or error"):
        open_corpus(DataConfig("text", path=path, unknown="extend"))
    assert open_corpus(DataConfig("text", path=write(tmp_path, "u.txt", "ab" * 50))).vocabulary.symbols == ("a", "b")


def test_a_runs_own_vocabulary_reads_another_text(tmp_path):
    own = Vocabulary.of("ba")
    path = write(tmp_path, "t.txt", "abab" * 10 + "cd")
    with pytest.raises(UnknownCharacter, match=r"val has 2 .*data.unknown=extend"):
        open_corpus(DataConfig("text", path=path), own)
    extended = open_corpus(DataConfig("text", path=path, unknown="extend"), own)
    assert extended.vocabulary.symbols == ("b", "a", "c", "d")
    assert "2 characters added to the 2 it had" in extended.notes[0]
    mapped = open_corpus(DataConfig("text", path=path), own.with_unknown())
    assert text_of(mapped, "val").endswith("\ufffd\ufffd")
    with pytest.raises(UserError, match=r"data.encoding=characters: the vocabulary is of bytes"):
        open_corpus(DataConfig("text", path=path), Vocabulary((97, 98), "bytes"))


def test_a_text_too_short_for_its_splits_is_refused_with_the_arithmetic(tmp_path):
    with pytest.raises(UserError, match="of its 10 characters the split val gets 1, and it needs one to read and one"):
        open_corpus(DataConfig("text", path=write(tmp_path, "t.txt", "0123456789")))
    with pytest.raises(UserError, match="of its 0 characters the split train gets 0"):
        open_corpus(DataConfig("text", path=write(tmp_path, "empty.txt", "")))


def test_the_same_content_under_another_name_has_the_same_key(tmp_path):
    keys = {open_corpus(DataConfig("text", path=write(tmp_path, name, "abc" * 20))).key for name in ("a", "b")}
    other = open_corpus(DataConfig("text", path=write(tmp_path, "c", "abc" * 20), lowercase=True)).key
    assert len(keys) == 1
    assert other not in keys
