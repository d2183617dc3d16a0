"""budget=TIME: what is not set is chosen for the time, stays in the record, and is no part of a sweep's key."""

from __future__ import annotations

import random
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import yaml

from src.config.checks import choose_by_budget
from src.config.compose import compose, to_config
from src.config.run_key import run_key
from src.config.schema import Config, duration, from_plain
from src.data.batching import LineSplit, TextSplit, Windows
from src.errors import UserError
from src.training import budget
from tests.runs.commands import only_run, refused_here, run
from tests.runs.test_resume import final_state

LETTERS = random.Random(0)
TEXT = "".join(LETTERS.choice("abcdefgh ,.\n") for _ in range(4000))


def composed(*overrides: str) -> Config:
    return to_config(compose(["data=text", "data.path=x", *overrides]))  # type: ignore[no-any-return]


def corpus(n: int, symbols: int = 65) -> SimpleNamespace:
    splits = {name: TextSplit(name, np.zeros(size + 1, np.uint8)) for name, size in (("train", n), ("val", n // 9))}
    return SimpleNamespace(splits=splits, vocabulary=range(symbols))


@pytest.fixture
def machine(monkeypatch):
    """A step takes 20 ms at 256 units, and grows with the square of the width; nothing else takes time."""
    monkeypatch.setattr(budget, "time", SimpleNamespace(perf_counter=lambda: 0.0))
    monkeypatch.setattr(budget.Speed, "timed", lambda self, width, precision: 0.02 * (width / 256) ** 2)


def test_times_are_read():
    assert [duration(text) for text in ("30s", "10min", "1.5h", "10", "soon", "-1s")] == [30, 600, 5400, 0, 0, 0]


def test_a_longer_time_makes_a_wider_network_that_ends_in_it(machine):
    n, chosen = 1_000_000, []
    for time in ("1min", "5min", "20min", "1h"):
        config, lines = budget.choose(composed(f"budget={time}"), corpus(n))
        assert 0.85 * duration(time) <= int(lines[1].split()[-2]) <= 0.94 * duration(time)
        assert f"{config.model.hidden_size} units" in lines[0]
        assert config.data.batch_size == (32 if time == "1min" else 64)
        chosen.append((config.model.hidden_size, config.trainer.max_epochs))
    assert chosen == sorted(chosen)
    assert len({width for width, _ in chosen}) == 4


def test_what_the_command_sets_stays_and_the_rest_is_chosen_around_it(machine):
    words = "budget=10min model.hidden_size=320 optimizer=sgd data.seq_len=50 trainer.gradient_clip_val=null"
    before = composed(*words.split())
    config, _ = budget.choose(before, corpus(500_000))
    assert (config.model.hidden_size, config.optimizer, config.data.seq_len) == (320, before.optimizer, 50)
    assert config.trainer.gradient_clip_val is None
    assert (config.model.name, config.model.num_layers, config.scheduler.name) == ("manual", 2, "cosine")
    fixed, _ = budget.choose(composed("budget=10min", "trainer.max_epochs=3"), corpus(500_000))
    steps, _ = budget.choose(composed("budget=10min", "trainer.max_steps=500"), corpus(500_000))
    free, _ = budget.choose(composed("budget=10min"), corpus(500_000))
    assert fixed.trainer.max_epochs == 3 < free.trainer.max_epochs
    none, _ = budget.choose(composed("budget=10min", "trainer.max_steps=0"), corpus(500_000))
    whole, _ = budget.choose(composed("budget=10min", "trainer.max_steps=-1"), corpus(500_000))
    lengths = [(one.trainer.max_steps, one.trainer.max_epochs) for one in (fixed, steps, none, whole)]
    assert lengths == [(-1, 3), (500, 3), (0, 1), (-1, free.trainer.max_epochs - 1)]  # the last would not end in time
    lstm, _ = budget.choose(composed("budget=10min", "model=lstm"), corpus(500_000))
    assert (lstm.model.name, lstm.model.init) == ("lstm", composed("model=lstm").model.init)
    preset, _ = budget.choose(composed("experiment=tiny_shakespeare", "budget=10min"), corpus(10**6))
    assert (preset.model.hidden_size, preset.optimizer.lr) == (448, 0.0027)


def test_auto_goes_by_the_size_of_the_text_and_asks_no_clock(monkeypatch):
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX2")
    monkeypatch.setattr(budget.Speed, "timed", None)
    chosen = {}
    for n in (20_000, 60_000, 1_000_000, 3_000_000, 10**9):
        config, (line,) = budget.choose(composed(), corpus(n))
        model, trainer = config.model, config.trainer
        chosen[n] = model.hidden_size, trainer.max_epochs, model.dropout > 0
        assert config.optimizer.weight_decay == (0.1 if model.dropout else 0.01)
        assert f"model.hidden_size={model.hidden_size}, model.num_layers=2, model.dropout={model.dropout}" in line
        assert (model.init, model.input_scale, model.readout_bias) == ("orthogonal", 3.0, "unigram")
        assert (budget.behind(config, 1e6), config.data.batch_size) == (None, 64 if n >= 400_000 else None)
    assert [*chosen.values()] == [(128, 40, True), (192, 40, True), (320, 9, False), (320, 3, False), (128, 1, False)]
    for n, symbols, *expected in ((60_000, 2700, 128, 10, 0.5, 0.013), (600_000, 3900, 256, 4, 0.2, 0.007)):  # Chinese
        model, trainer = (sparse := budget.choose(composed(), corpus(n, symbols))[0]).model, sparse.trainer
        assert [model.hidden_size, trainer.max_epochs, model.dropout, sparse.optimizer.lr] == expected
        assert (model.num_layers, model.dropout_mask, model.readout_bias) == (1, "window", "unigram")
    for words, p in (("model.skip=both model.dropout=.3", 0.3), ("model.dropout_mask=step model.hidden_size=16", 0.5)):
        two, _ = budget.choose(composed(*words.split()), corpus(60_000, 2700))
        assert (two.model.num_layers, two.model.dropout, two.optimizer.lr) == (2, p, 0.013)
    lstm, _ = budget.choose(composed("model=lstm"), corpus(60_000, 2700))
    assert (lstm.model.num_layers, lstm.model.readout_bias) == (2, "unigram")
    own, _ = budget.choose(composed("model.hidden_size=64", "optimizer.lr=0.1"), corpus(1_000_000))
    assert (own.model.hidden_size, own.optimizer.lr, own.trainer.max_epochs) == (64, 0.1, 9)
    few, _ = budget.choose(composed("trainer.max_steps=300"), corpus(60_000))  # 60 windows an epoch
    assert (few.trainer.max_epochs, few.model.dropout) == (5, 0.0)
    whole = composed("budget=10min")
    late = [budget.behind(whole, seconds) for seconds in (654, 655)]
    assert (late[0], late[1].split(":")[0]) == (None, "budget=10min, and it took about 661 s")


def test_a_part_of_an_epoch_will_do_and_a_time_too_short_for_it_is_refused_with_one_that_is_not(machine):
    config, lines = budget.choose(composed("budget=1min"), corpus(10**8))
    assert config.trainer.max_epochs == 1
    assert f" epochs ({config.trainer.max_steps:,} steps), adamw" in lines[0]
    assert 52 < int(lines[1].split()[-2]) <= 56
    with pytest.raises(UserError, match=r"^budget=5s: 100 steps of 32 units take about \d+ s here; give") as refused:
        budget.choose(composed("budget=5s"), corpus(10**8))
    enough = int(str(refused.value).split("about ")[1].split()[0])
    config, _ = budget.choose(composed(f"budget={enough + 1}s"), corpus(10**8))
    assert config.trainer.max_steps >= 100
    with pytest.raises(UserError, match="391,200 steps"):
        budget.choose(composed("budget=1min", "trainer.max_epochs=400"), corpus(10**6))


def test_short_texts_and_lists_have_the_windows_that_the_run_will_have(machine):
    sizes = np.random.default_rng(0).integers(2, 12, 4000)
    names = LineSplit("train", np.concatenate([[0], *(np.append(np.ones(size, np.uint8), 0) for size in sizes)]), 0)
    for split, key in ((TextSplit("train", np.zeros(900, np.uint8)), "text"), (names, "lines")):
        known = SimpleNamespace(splits={"train": split}, vocabulary=range(4))
        config, (line, *_, last) = budget.choose(composed(f"data={key}", "budget=1min"), known)
        an_epoch = len(Windows(split, *config.data.window, offset=config.data.offset))
        assert f"{config.trainer.max_steps / an_epoch:.2g} epochs ({config.trainer.max_steps:,} steps)" in line
        assert ("data.batch_size=3, not 32 x 32" in last) == (key == "text")
    assert budget.windows_of(config, names)[1] == 12  # the longest of 32, and its end


def test_weight_decay_is_chosen_for_adamw_alone():
    config, _ = budget.choose(to_config(compose(["data=time_machine", "budget=auto"])), corpus(162_000))
    assert (config.model.num_layers, config.optimizer.name, config.optimizer.weight_decay) == (2, "adam", 0.0)


def test_the_key_of_a_sweep_is_made_from_the_words_and_the_budget(machine):
    config = composed("budget=10min", "seed=3")
    one, _ = budget.choose(config, corpus(500_000))
    other, _ = budget.choose(config, corpus(5_000_000))
    assert one.model.hidden_size != other.model.hidden_size
    assert run_key(one) == run_key(other) == run_key(config)
    assert run_key(config) != run_key(composed("budget=20min", "seed=3"))
    assert run_key(config) != run_key(composed("budget=10min", "seed=3", "model.hidden_size=128"))
    auto, before = composed(), composed()
    before.chosen.remove("data.batch_size")  # as runs of before have it, in windows of 32 streams
    assert run_key(budget.choose(auto, corpus(10**6))[0]) == run_key(auto) == run_key(before)
    typed = ("data.batch_size=32", "data.batch_size=64", "model.readout_bias=null", "model.dropout_mask=step")
    assert len({run_key(one) for one in (auto, *map(composed, typed))}) == 5
    assert composed("budget=null").chosen is None
    before = composed("budget=10min", "seed=3")
    before.chosen.remove("trainer.max_steps")  # as runs of before have it, in whole epochs
    assert run_key(one) == run_key(before)
    choose_by_budget(config, {"model.hidden_size"}, {"optimizer.lr"})
    assert not {"model.hidden_size", "optimizer.lr"} & set(config.chosen or ())


@pytest.mark.slow
def test_a_run_within_a_budget_is_repeated_to_the_bit_and_what_cannot_have_one_is_refused(tmp_path):
    (tmp_path / "my.txt").write_text(TEXT)
    words = ("data=text", "data.path=my.txt", "callbacks=none", "model.hidden_size=16", "budget=20s")
    printed = run(*words, "name=first", "trainer.check_val_every_n_epoch=20", cwd=tmp_path)
    first = only_run(tmp_path)
    stored = from_plain(yaml.safe_load((first / "config.yaml").read_text()))
    assert f" epochs ({stored.trainer.max_steps:,} steps), adam" in printed
    assert {"trainer.max_epochs", "trainer.max_steps"} <= set(stored.chosen or ())
    again = run(f"rerun={first}", "runs=again", cwd=tmp_path)
    assert "budget=20s:" not in again
    ends = [final_state(folder) for folder in (first, only_run(tmp_path / "again"))]
    assert all(a.equal(b) for a, b in zip(ends[0].values(), ends[1].values(), strict=True))
    (line,) = refused_here("budget=10min", cwd=tmp_path)
    assert line.startswith("budget=10min: the rule is for texts")
    (line,) = refused_here(*words[:2], "budget=soon", cwd=tmp_path)
    assert "expected a time, as 30s, 10min or 1h" in line
