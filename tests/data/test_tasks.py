"""Generated tasks: the words are those of the grammar, chance and optimum are exact, and only targets are counted."""

from __future__ import annotations

import dataclasses
import itertools
import json
import math
import re
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from src.config.compose import compose, to_config
from src.config.schema import DataConfig, EvaluationDataConfig
from src.data.batching import IGNORED, Windows, plan
from src.data.corpus import open_corpus
from src.data.tasks import task_of
from src.errors import UserError
from src.inference.evaluate import evaluate, evaluate_run, keep
from src.inference.load import load
from src.training.run import fit, resume

TASKS: dict[str, dict[str, Any]] = {
    "copy": {"kinds": 3, "recall": 4, "length": [2, 5]},
    "temporal_order": {"length": [10, 23]},
    "brackets": {"kinds": 2, "depth": 2, "length": [2, 7]},
    "anbn": {"length": [2, 5]},
    "reber": {"length": [9, 13]},
}


def options(name: str, **more: Any) -> DataConfig:
    keys: dict[str, Any] = {"seq_len": None, "batch_size": 4, "sequences": 10, "held_out": 30, "offset": "random"}
    return DataConfig(name, **keys | TASKS[name] | more)


def drawn(name: str, count: int = 400, seed: int = 0) -> tuple[list[str], Any, tuple[str, ...]]:
    """Sequences as text, without the boundaries; what was drawn; the symbols by id."""
    symbols = open_corpus(options(name)).vocabulary.symbols
    found = task_of(options(name)).draw(np.random.default_rng(seed), count)
    return ["".join(symbols[i] for i in column).strip("\n") for column in found.ids.T], found, symbols


def words_of(name: str) -> dict[str, float]:
    """Every word of a small grammar, found without any automaton, with its probability."""
    low, high = TASKS[name]["length"]
    if name == "anbn":
        return {"a" * n + "b" * n: 1 / (high - low + 1) for n in range(low, high + 1)}
    if name == "brackets":
        by_length = {n: [w for w in map("".join, itertools.product("([)]", repeat=n)) if nested(w, 2)]
                     for n in (2, 4, 6)}  # fmt: skip
        return {word: 1 / 3 / len(some) for some in by_length.values() for word in some}
    found = {}
    for inner, p in reber("B", 1.0, high - 4):
        for symbol in "TP":
            found[f"B{symbol}{inner}{symbol}E"] = p / 2
    total = sum(found.values())
    return {word: p / total for word, p in found.items()}


def nested(word: str, depth: int) -> bool:
    """Whether brackets are balanced and at most so deep."""
    stack: list[str] = []
    for symbol in word:
        if symbol in "([":
            stack.append(symbol)
        elif not stack or stack.pop() + symbol not in ("()", "[]"):
            return False
        if len(stack) > depth:
            return False
    return not stack


def reber(word: str, p: float, most: int, state: int = 1) -> list[tuple[str, float]]:
    """Words of the plain grammar, as drawn on paper by Reber (1967), up to a length."""
    arcs = {1: "T2P3", 2: "S2X4", 3: "T3V5", 4: "X3S6", 5: "P4V6"}
    if len(word) > most:
        return []
    if state == 6:
        return [(word + "E", p)] if len(word) < most else []
    either = arcs[state]
    return [end for at in (0, 2) for end in reber(word + either[at], p / 2, most, int(either[at + 1]))]


@pytest.mark.parametrize("name", ["brackets", "anbn", "reber"])
def test_chance_and_optimum_are_those_of_all_words_written_out(name: str) -> None:
    words = words_of(name)
    targets = sum(p * (len(word) + 1) for word, p in words.items())  # its symbols and its end
    shares: Counter[str] = Counter()
    for word, p in words.items():
        for symbol in f"{word}\n":
            shares[symbol] += p / targets
    chance = -sum(q * math.log(q) for q in shares.values())
    optimum = -sum(p * math.log(p) for p in words.values()) / targets  # chain rule: what all symbols of a word cost
    task = task_of(options(name))
    assert task.targets == pytest.approx(targets, rel=1e-12)
    assert task.levels == {"chance": pytest.approx(chance, rel=1e-12), "optimum": pytest.approx(optimum, rel=1e-12)}


@pytest.mark.parametrize("name", ["brackets", "anbn", "reber"])
def test_words_are_drawn_as_often_as_they_should_be_and_the_allowed_symbols_are_those_that_some_word_has(
    name: str,
) -> None:
    words, count = words_of(name), 40_000
    texts, found, symbols = drawn(name, count)
    times = Counter(texts)
    assert times.keys() <= words.keys()
    deviation = [abs(times[word] - p * count) / math.sqrt(p * count) for word, p in words.items()]
    assert max(deviation) < 5
    for column, text in enumerate(texts[:300]):
        for t in range(len(text) + 1):
            after = {f"{word}\n"[t] for word in words if word.startswith(text[:t])}
            bits = int(found.allowed[t, column])
            assert {symbols[i] for i in range(len(symbols)) if bits >> i & 1} == after
        assert not found.allowed[len(text) + 1 :, column].any()


def test_copy_recalls_its_characters_after_the_delay_and_nothing_else_is_a_target() -> None:
    texts, found, _ = drawn("copy")
    delays = set()
    for column, text in enumerate(texts):
        whole = re.fullmatch(r"([abc]{4})(-{2,5})>([abc]{4})", text)
        assert whole
        assert whole[1] == whole[3]
        assert np.flatnonzero(found.allowed[:, column]).tolist() == list(range(len(text) - 4, len(text)))
        delays.add(len(whole[2]))
    assert delays == {2, 3, 4, 5}


def test_temporal_order_names_the_class_of_its_two_symbols_at_the_places_of_the_papers() -> None:
    texts, found, _ = drawn("temporal_order")
    for text, target in zip(texts, found.allowed.T, strict=True):
        T = len(text) - 1
        (first, a), (second, b) = [(t, c) for t, c in enumerate(text[:T]) if c in "XY"]
        assert T // 10 <= first <= 2 * T // 10
        assert 4 * T // 10 <= second <= 5 * T // 10
        assert text[T] == {"XX": "Q", "XY": "R", "YX": "S", "YY": "U"}[a + b]
        assert np.flatnonzero(target).tolist() == [T]


@pytest.mark.parametrize("name", TASKS)
def test_epochs_have_fresh_sequences_held_out_ones_stay_and_processes_share_the_columns(name: str) -> None:
    split = open_corpus(options(name)).splits["train"]

    def windows(**given: Any) -> list[torch.Tensor]:
        made = Windows(split, 64, 4, **{"offset": "random", "seed": 3, **given})
        return [window.inputs for _ in range(2) for window in made]

    whole, again, fixed = windows(), windows(), windows(offset="fixed")
    assert len(whole) == 6
    assert all(map(torch.equal, whole, again))
    assert not all(map(torch.equal, whole[:3], whole[3:]))
    assert all(map(torch.equal, fixed[:3], fixed[3:]))
    parts = (windows(rank=rank, world_size=2) for rank in (0, 1))
    halves = [torch.cat(pair, 1) for pair in zip(*parts, strict=True)]
    assert all(map(torch.equal, whole, halves))
    one, other = (open_corpus(options(name)).splits["val"] for _ in range(2))
    for seed in range(7):  # no run trains on what is held out
        first = plan(dataclasses.replace(split, count=len(one)), 64, 4, "fixed", seed).sequences(0)
        assert not np.array_equal(first.ids, one.fixed.ids)
    assert np.array_equal(one.fixed.ids, other.fixed.ids)
    assert not np.array_equal(one.fixed.ids[:, :9], open_corpus(options(name)).splits["test"].fixed.ids[:, :9])


SMALL = ["model=manual", "model.hidden_size=8", "data.sequences=40", "data.held_out=20", "data.batch_size=8", "name=t",
         "logger=none", "data.evaluation_streams=7", "trainer.max_epochs=2", "seed=3"]  # fmt: skip
SHORT = {"copy": "[3]", "temporal_order": "[10,12]", "brackets": "[2,8]", "anbn": "[1,4]", "reber": "[9,14]"}


def trained(folder: Path, name: str, *words: str) -> Path:
    keyed = {word.partition("=")[0]: word for word in [f"data={name}", f"data.length={SHORT[name]}", *SMALL, *words]}
    return fit(to_config(compose([*keyed.values(), f"runs={folder}"])), {"command": "", "overrides": []})


def lines(folder: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("name", TASKS)
def test_every_task_trains_is_evaluated_on_its_targets_scored_and_sampled(name: str, tmp_path: Path) -> None:
    drawn = ["callbacks.save_figures=true", "trainer.max_epochs=1"] if name == "copy" else []
    folder = trained(tmp_path, name, *drawn)
    last, record = lines(folder)[-1], json.loads((folder / "run.json").read_text())
    assert {"chance", "optimum"} <= record["baselines"].keys()
    assert 0 <= last["val/sequences_right"] <= 1
    assert {"window/cross_entropy_fresh", "gradient/lag_1_percent/layer_0"} <= last.keys()
    model = load(folder, at="last")
    result = evaluate_run(model, "val")
    for metric in ("cross_entropy", "accuracy", "sequences_right"):
        assert result[metric] == pytest.approx(last[f"val/{metric}"], rel=1e-5)  # one path and the other
    window = next(iter(Windows(open_corpus(model.config.data).splits["val"], 64, 20)))
    real = window.targets != IGNORED
    assert result["characters"] == int(real.sum())
    assert [mean is None for mean in result["loss_by_position"]] == (~real.any(1)).tolist()
    longer = evaluate_run(model, "test", EvaluationDataConfig(test_length=[20]))
    assert (keep(model, result), keep(model, longer)) == (folder / "evaluation_val.json", None)  # not the run's own
    own = Windows(open_corpus(model.config.data).splits["train"], 64, 20, reset="epoch", seed=model.config.seed or 0)
    found = evaluate_run(model, "train")["cross_entropy"]
    assert found == pytest.approx(evaluate(model.model, own)["cross_entropy"])  # of those it was trained on
    assert len(longer["loss_by_position"]) > len(result["loss_by_position"]) - (name == "anbn")
    item = "".join(model.vocabulary.symbols[i] for i in open_corpus(model.config.data).splits["val"].fixed.ids[1:, 0])
    score = model.score(item.strip("\n"))
    assert score.characters == int(real[:, 0].sum())
    assert score.total == pytest.approx(sum(bits for bits in score.bits if bits is not None))
    assert "".join(text for text, _ in score.readable()).strip("\n") == item.strip("\n")
    assert len(model.sample("\n" if name != "copy" else "\nabca--->", length=5)) > 5


def test_a_run_that_ends_within_an_epoch_and_goes_on_equals_one_that_never_stopped(tmp_path: Path) -> None:
    straight = trained(tmp_path / "a", "brackets", "trainer.max_steps=8", "callbacks=none")
    stopped = trained(tmp_path / "b", "brackets", "trainer.max_steps=3", "callbacks=none")
    resume(stopped, {"trainer.max_steps": 8})
    one, other = (
        torch.load(at / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"] for at in (straight, stopped)
    )
    assert all(torch.equal(one[key], other[key]) for key in one)
    first, second = ([line["val/cross_entropy"] for line in lines(at)] for at in (straight, stopped))
    assert first == second


def test_the_loss_of_a_window_is_a_mean_over_its_targets_alone(tmp_path: Path) -> None:
    untrained = trained(tmp_path, "temporal_order", "optimizer.lr=1e-12", "trainer.max_steps=1", "callbacks=none")
    (line,) = lines(untrained)
    assert line["characters"] == 8  # one target a sequence
    assert line["train/cross_entropy"] == pytest.approx(math.log(11), abs=0.5)  # not a twelfth of it


@pytest.mark.parametrize(
    ("name", "more", "message"),
    [
        ("copy", {"kinds": 30}, "data.kinds=30: expected 1 to 26 for data=copy"),
        ("anbn", {"length": [5, 2]}, "data.length=[5, 2]: expected one length or two, the least and the largest"),
        ("brackets", {"length": [7]}, "data.length=[7]: data=brackets has no word of such a length"),
        ("anbn", {"depth": 3}, "data.depth is not used by data=anbn, only by brackets; leave it out"),
        ("copy", {"seq_len": 32}, "data.seq_len=32: a window of data=copy is a batch of whole"),
    ],
)
def test_wrong_keys_of_a_task_are_refused(name: str, more: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError) as refused:
        open_corpus(options(name, **more))
    assert refused.value.messages[0].startswith(message)
