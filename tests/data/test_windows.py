import json
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from src.config.schema import DataConfig
from src.data.batching import LineSplit, PairSplit, TextSplit, Windows, evaluation_windows, fitted
from src.data.corpus import open_corpus
from src.errors import UserError

sizes = st.integers(2, 200)
steps = st.integers(1, 30)
streams = st.integers(1, 9)
offsets = st.sampled_from(["fixed", "random"])
ITEMS = LineSplit("train", np.array([0, *(code for n in range(40) for code in [*range(1, 2 + n % 9), 0])]), 0)


def text(length):
    """A text whose every character is its own place, so that nothing can be mixed up unseen."""
    return TextSplit("train", np.arange(length, dtype=np.uint16))


def fits(length, seq_len, batch_size):
    return length - 1 >= max(seq_len, batch_size)


@given(sizes, steps, streams, offsets, st.integers(0, 3))
def test_windows_cover_every_transition_once_up_to_the_stated_remainder(length, seq_len, batch_size, offset, epoch):
    if not fits(length, seq_len, batch_size):
        return
    windows = Windows(text(length), seq_len, batch_size, offset=offset, seed=7)
    for _ in range(epoch):
        list(windows)
    found = list(windows)
    assert len(found) == len(windows)
    pairs = [one for w in found for one in zip(w.inputs.flatten().tolist(), w.targets.flatten().tolist(), strict=True)]
    assert all(after == before + 1 for before, after in pairs)  # never the wrapped-around first character
    assert windows.dropped < batch_size
    assert len(pairs) == length - 1 - windows.dropped
    assert sorted(before for before, _ in pairs) == list(range(length - 1 - windows.dropped))


@given(sizes, steps, streams, offsets)
def test_each_column_continues_where_the_window_before_it_ended(length, seq_len, batch_size, offset):
    if not fits(length, seq_len, batch_size):
        return
    found = list(Windows(text(length), seq_len, batch_size, offset=offset, seed=3))
    for before, after in pairwise(found):
        assert torch.equal(before.targets[-1], after.inputs[0])
    assert [w.starts for w in found] == [True] + [False] * (len(found) - 1)
    for w in found:
        assert w.inputs.shape == w.targets.shape
        assert 1 <= w.inputs.shape[0] <= seq_len
        assert w.inputs.shape[1] == batch_size
        assert w.inputs.dtype == w.targets.dtype == torch.int64
        assert w.inputs.is_contiguous()
        assert w.targets.is_contiguous()


@given(sizes, steps, st.integers(1, 4), st.integers(1, 3), offsets)
def test_the_shards_of_all_ranks_side_by_side_are_what_one_process_sees(length, seq_len, share, world_size, offset):
    batch_size = share * world_size
    split = text(length) if fits(length, seq_len, batch_size) else ITEMS
    one = Windows(split, seq_len, batch_size, offset=offset, seed=5)
    ranks = [
        Windows(split, seq_len, batch_size, offset=offset, seed=5, rank=rank, world_size=world_size)
        for rank in range(world_size)
    ]
    for _ in range(2):
        for whole, *shards in zip(one, *ranks, strict=True):
            assert torch.equal(whole.inputs, torch.cat([shard.inputs for shard in shards], dim=1))
            assert torch.equal(whole.targets, torch.cat([shard.targets for shard in shards], dim=1))
            assert {shard.starts for shard in shards} == {whole.starts}


def plain(window):
    return (window.inputs.tolist(), window.targets.tolist(), window.starts)


def endless(windows, count):
    """The next `count` windows, over epoch borders."""
    found = []
    while len(found) < count:
        for window in windows:
            found.append(plain(window))
            if len(found) == count:
                break
    return found


@pytest.mark.parametrize("reset", ["never", "epoch"])
@pytest.mark.parametrize("offset", ["fixed", "random"])
@pytest.mark.parametrize(("limit", "kind"), [(None, "text"), (3, "text"), (None, "list")])
def test_a_loader_goes_on_exactly_wherever_its_state_was_taken(reset, offset, limit, kind):
    def new():
        return Windows(text(120) if kind == "text" else ITEMS, 5, 4, offset=offset, reset=reset, seed=1, limit=limit)

    epoch = len(new())
    expected = endless(new(), 4 * epoch)
    for taken in range(2 * epoch + 1):  # within an epoch, at its very end, and before anything
        first = new()
        endless(first, taken)
        state = json.loads(json.dumps(first.state_dict()))
        second = new()
        second.load_state_dict(state)
        rest = epoch - taken % epoch
        assert endless(second, rest + epoch) == expected[taken : taken + rest + epoch]


def test_an_epoch_left_early_is_followed_by_the_next_one_from_its_start():
    windows = Windows(text(100), 5, 4, reset="epoch")
    next(iter(windows))
    again = next(iter(windows))
    assert again.starts
    assert again.inputs[0].tolist() == [0, 24, 48, 72]
    assert windows.state_dict()["epoch"] == 1


def test_the_state_starts_from_zero_once_or_in_each_epoch():
    for reset, expected in (("never", [True, False]), ("epoch", [True, True])):
        windows = Windows(text(50), 5, 2, reset=reset)
        assert [next(iter(list(windows))).starts for _ in range(2)] == expected


def test_random_offsets_move_from_epoch_to_epoch_and_are_the_seeds():
    def firsts(seed):
        windows = Windows(text(500), 16, 3, offset="random", seed=seed)
        return [len(next(iter(windows)).inputs) for _ in range(20)], len(windows)

    assert firsts(0) == firsts(0)
    assert firsts(0) != firsts(1)
    assert len(set(firsts(0)[0])) > 5


def test_nothing_is_drawn_from_torchs_generator():
    before = torch.get_rng_state()
    list(Windows(text(100), 7, 3, offset="random"))
    assert torch.equal(before, torch.get_rng_state())


def test_a_state_taken_inside_an_epoch_of_other_windows_is_refused():
    windows = Windows(text(100), 5, 4)
    next(iter(windows))
    with pytest.raises(UserError, match=r"other windows \(seq_len 5 -> 10, windows an epoch 5 -> 3\)"):
        Windows(text(100), 10, 4).load_state_dict(windows.state_dict())
    list(windows)
    Windows(text(100), 10, 4).load_state_dict(windows.state_dict())  # between two epochs anything may change


def test_too_short_a_text_is_refused_with_the_arithmetic():
    with pytest.raises(UserError, match="a text of 4 characters has 3 transitions to predict, fewer than batch_size=8"):
        Windows(text(4), 2, 8)
    with pytest.raises(UserError, match="a text of 9 characters has 8 transitions to predict, fewer than seq_len=64"):
        Windows(text(9), 64, 2)
    with pytest.raises(UserError, match="batch_size=5 does not divide among 2 processes"):
        Windows(text(100), 5, 5, rank=0, world_size=2)


@given(sizes, steps, st.integers(1, 40))
def test_an_evaluation_drops_less_than_its_streams_and_in_one_stream_nothing(length, seq_len, streams):
    windows = evaluation_windows(text(length), seq_len, streams)
    assert sum(window.targets.numel() for window in windows) + windows.dropped == length - 1
    assert windows.dropped < max(streams, 1)
    assert evaluation_windows(text(length), seq_len, 1).dropped == 0
    assert [w.starts for w in windows] == [True] + [False] * (len(windows) - 1)


@given(sizes, steps, st.integers(1, 40), st.integers(0, 30))
def test_with_a_warm_up_each_transition_is_scored_once_after_that_many_or_the_start(length, seq_len, streams, warmup):
    windows = evaluation_windows(text(length), seq_len, streams, warmup)
    found = list(windows)
    assert len(found) == len(windows)
    assert [w.starts for w in found] == [True] + [False] * (len(found) - 1)
    inputs, targets = (torch.cat([w[part] for w in found]) for part in (0, 1))
    scored = targets >= 0
    assert sorted(inputs[scored].tolist()) == list(range(length - 1))
    assert torch.equal(targets[scored], inputs[scored] + 1)
    for column, own in zip(inputs.T, scored.T, strict=True):
        assert torch.equal(column, torch.arange(len(column)) + column[0])
        assert own.nonzero()[0] >= min(warmup, column[own][0])
    assert (windows.dropped, windows.scored, windows.streams) == (0, length - 1, inputs.shape[1])


def sized(**sizes):
    return DataConfig("text", evaluation_warmup=256, **sizes)


@pytest.mark.parametrize(
    ("length", "given", "expected"),
    [
        (90, {}, (32, 1)),  # 89 characters to predict
        (20, {}, (19, 1)),
        (1_000, {}, (32, 3)),
        (1_025, {}, (32, 32)),
        (90, {"seq_len": 4}, (4, 2)),
        (90, {"batch_size": 4}, (22, 4)),
        (90, {"seq_len": 22, "batch_size": 4}, (22, 4)),
    ],
)
def test_sizes_of_a_window_that_were_left_open_fit_a_short_text(length, given, expected):
    config, notes = fitted(sized(**{"seq_len": None, "batch_size": None} | given), text(length))
    assert (config.seq_len, config.batch_size) == config.window == expected
    assert len(Windows(text(length), *config.window)) >= 1
    assert len(notes) == (length < 1_025 and len(given) < 2)


@pytest.mark.parametrize(
    ("given", "largest"),
    [
        ({"seq_len": 64, "batch_size": 4}, "largest that fits: data.seq_len=22 or data.batch_size=1"),
        ({"seq_len": 90, "batch_size": 4}, "largest that fits: data.seq_len=22"),
        ({"seq_len": 90, "batch_size": None}, "largest that fits: data.seq_len=89"),
        ({"seq_len": None, "batch_size": 90}, "largest that fits: data.batch_size=89"),
    ],
)
def test_sizes_of_a_window_that_were_given_are_refused_where_the_text_is_shorter(given, largest):
    with pytest.raises(UserError, match=f"89 characters to predict, too few for one window; the {largest}$"):
        fitted(sized(**given), text(90))
    items = LineSplit("train", np.zeros(90, np.uint8), 1)
    as_before = DataConfig("text", seq_len=64, batch_size=4)  # stored by a run made before evaluation_warmup
    for config, split in ((sized(**given), items), (as_before, text(90))):
        assert fitted(config, split)[0].window == config.window


def test_a_pair_is_one_window_from_a_zero_state_in_each_epoch():
    split = open_corpus(DataConfig("hello")).splits["train"]
    assert isinstance(split, PairSplit)
    for reset in ("never", "epoch"):
        windows = Windows(split, 64, 32, reset=reset, offset="random")
        for _ in range(3):
            (window,) = windows
            assert window.inputs.tolist() == [[1], [0], [2], [2], [3]]
            assert window.targets.tolist() == [[3], [1], [2], [3], [2]]
            assert window.starts
    assert len(windows) == 1
    assert windows.state_dict()["position"] == 0


def test_noise_replaces_a_share_of_the_inputs_as_often_as_the_text_has_them_and_no_target():
    split = TextSplit("train", np.repeat(np.arange(3, dtype=np.uint8), (6000, 3000, 1001)))
    plain, noisy, other = (Windows(split, 25, 8, offset="random", seed=5, noise=noise) for noise in (0.0, 0.25, 0.25))
    epochs = [[list(windows) for _ in range(2)] for windows in (plain, noisy)]
    for clean, made in zip(epochs[0][0], epochs[1][0], strict=True):
        assert torch.equal(clean.targets, made.targets)
    clean, made = (torch.cat([window.inputs.flatten() for window in epoch[0]]) for epoch in epochs)
    rest = torch.tensor([0.4, 0.7, 0.9])[clean]  # of the replaced ones that differ: 1 - p of what was there
    assert float((clean != made).sum() / rest.sum()) == pytest.approx(0.25, abs=0.02)
    changed = made[(clean == 2) & (made != 2)].bincount()
    assert float(changed[0] / changed.sum()) == pytest.approx(2 / 3, abs=0.08)
    assert not torch.equal(*(epoch[3].inputs for epoch in epochs[1]))
    other.load_state_dict({**noisy.state_dict(), "epoch": 1, "position": 7})  # as a resumed run goes on
    assert torch.equal(next(iter(other)).inputs, epochs[1][1][7].inputs)
    halves = [Windows(split, 25, 8, offset="random", seed=5, noise=0.25, rank=rank, world_size=2) for rank in (0, 1)]
    assert torch.equal(torch.cat([half.window(1, 7).inputs for half in halves], dim=1), epochs[1][1][7].inputs)
