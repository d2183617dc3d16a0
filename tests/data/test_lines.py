import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from src.config.schema import DataConfig
from src.data.batching import IGNORED, Windows
from src.data.corpus import edges_of, open_corpus
from src.errors import UserError

items = st.lists(st.text(st.sampled_from("abc\u00e9\u4f60"), min_size=1, max_size=12), min_size=10, max_size=40)


def corpus_of(folder, lines, **options):
    place = folder / "list.txt"
    place.write_text("\n".join(lines), encoding="utf-8")
    return open_corpus(DataConfig("my_list", items=True, path=str(place), unknown="map", **options))


def read_back(corpus, windows):
    """The items that windows hold, each column followed from its start; and the number of real targets."""
    found, columns, scored = [], {}, 0
    for window in windows:
        if window.starts:
            found += columns.values()
            columns = {}
        for column in range(window.inputs.shape[1]):
            real = window.targets[:, column] != IGNORED
            scored += int(real.sum())
            if real.any():
                assert bool(real[: int(real.sum())].all())  # padding only behind the item
                text = corpus.vocabulary.decode(window.targets[real, column])
                read = corpus.vocabulary.decode(window.inputs[real, column])
                if column not in columns:
                    assert read[0] == "\n"
                assert read[1:] == text[:-1]
                columns[column] = columns.get(column, "") + text
    return found + list(columns.values()), scored


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=20)
@given(items, st.integers(1, 15), st.integers(1, 7), st.sampled_from(["fixed", "random"]))
def test_each_item_comes_once_with_its_end_and_no_loss_on_padding(tmp_path, lines, seq_len, batch_size, offset):
    corpus = corpus_of(tmp_path, lines, split=[0.8, 0.2])
    seen = []
    for split in corpus.splits.values():
        windows = Windows(split, seq_len, batch_size, offset=offset)
        for _ in range(2):  # the second epoch is another order and as many windows
            found = list(windows)
            assert len(found) == len(windows)
            texts, scored = read_back(corpus, found)
            assert all(text.endswith("\n") and text.count("\n") == 1 for text in texts)
            assert scored == split.transitions == sum(len(text) for text in texts)
        seen += [text[:-1] for text in texts]
    known = set("".join(corpus.vocabulary.symbols))
    assert sorted(seen) == sorted("".join(c if c in known else "\ufffd" for c in line) for line in lines)


def test_the_split_is_drawn_by_its_own_seed_and_stays_the_same(tmp_path):
    lines = [f"{letter}{number}" for number in range(10) for letter in "abcdefghij"]
    first = corpus_of(tmp_path, lines).splits["val"].ids.tolist()
    assert corpus_of(tmp_path, lines).splits["val"].ids.tolist() == first
    assert corpus_of(tmp_path, lines, split_seed=1).splits["val"].ids.tolist() != first


def test_empty_lines_are_left_out_and_a_list_too_short_for_its_splits_is_refused(tmp_path):
    corpus = corpus_of(tmp_path, ["", " a ", "", "b\r", "c", ""], split=[1.0])
    text = corpus.vocabulary.decode(corpus.splits["train"].ids)
    assert sorted(text.strip("\n").split("\n")) == [" a ", "b", "c"]
    with pytest.raises(UserError, match=r"2 items, and with data.split=\[0.8, 0.1, 0.1\] one split has none"):
        corpus_of(tmp_path, ["a", "b"], split=[0.8, 0.1, 0.1])


def test_a_fixed_order_is_always_the_same_and_a_random_one_is_drawn_anew_each_epoch(tmp_path):
    split = corpus_of(tmp_path, [f"{n:03}" for n in range(40)], split=[1.0]).splits["train"]

    def epochs(offset, seed):
        windows = Windows(split, 5, 8, offset=offset, seed=seed)
        return [torch.cat([window.inputs[1:] for window in windows], dim=1).T.flatten().tolist() for _ in range(2)]

    as_written = [id for id in split.ids.tolist() if id != split.boundary]
    assert epochs("fixed", 0) == epochs("fixed", 1) == [as_written, as_written]
    first, second = epochs("random", 0)
    assert first != second
    assert epochs("random", 0) == [first, second]
    assert epochs("random", 1)[0] != first


def test_cuts_are_exact_where_floating_point_is_not():
    assert edges_of(100, [0.29]) == [0, 29]  # 0.29 * 100 is 28.999999999999996
    assert edges_of(10, [0.7, 0.1, 0.2]) == [0, 7, 8, 10]  # 0.7 + 0.1 is 0.7999999999999999
    assert edges_of(1_115_394, [0.9, 0.1]) == [0, 1_003_854, 1_115_394]


def test_the_padding_of_a_batch_is_no_longer_than_its_longest_item(tmp_path):
    split = corpus_of(tmp_path, ["a"] * 30 + ["a" * 40], split=[1.0]).splits["train"]
    lengths = sorted(len(window.inputs) for window in Windows(split, 16, 10))
    assert lengths == [2, 2, 2, 9, 16, 16]  # thirty of 1 + 1, one of 40 + 1 in three windows
