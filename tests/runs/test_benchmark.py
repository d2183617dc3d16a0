"""python -m src.benchmark: what it counts is right, what it prints is what it measured, and it runs at small sizes."""

from __future__ import annotations

import json
import math
import mmap
import re
import time
from pathlib import Path

import pytest
import torch

from src.files import to_json
from src.benchmarks import data, measuring, models
from src.benchmarks.models import CASES, SIZES, Size, Step, build, operations
from src.config.commands import MODELS
from tests.runs.commands import ROOT, SHARED_DATA, refused, run

SMALL = Size(8, 2, 5, 3, 11)


def test_the_schema_knows_every_case_and_the_sizes_are_those_on_record():
    assert tuple(CASES) == MODELS
    assert [size[:4] for size in SIZES] == [
        (128, 1, 64, 32), (128, 2, 50, 50), (256, 1, 100, 64), (512, 2, 100, 64), (1024, 2, 128, 64)
    ]  # fmt: skip


def test_operations_are_counted_as_by_hand():
    # a character, one layer of 2 units, 3 characters: W is 2 x 2, V is 3 x 2, each in three products, 2 for a pair
    one = Size(2, 1, 1, 1, 3)
    assert operations(CASES["manual"], one) == 3 * 2 * (4 + 6)
    assert operations(CASES["stacked"], one) == operations(CASES["manual_bf16"], one) == operations(CASES["cell"], one)
    assert operations(CASES["lstm"], one) == 3 * 2 * (4 * 4 + 6)
    two = Size(2, 2, 5, 7, 3)  # the second layer has its U in products too
    assert operations(CASES["gru"], two) == 3 * 2 * (3 * 3 * 4 + 6) * 35


def test_gradients_are_held_to_float64():
    errors = models.gradient_errors(list(CASES), SMALL)
    exact = {name: error for name, error in errors.items() if not CASES[name].bf16}
    assert all(0 < error < 1e-5 for error in exact.values()), exact
    assert all(1e-5 < errors[name] < 0.1 for name in errors.keys() - exact.keys()), errors


def test_a_wrong_gradient_is_seen(monkeypatch):
    backward = models.gradients

    def wrong(model, size, bf16):
        found = backward(model, size, bf16)
        if next(model.parameters()).dtype is torch.float32:
            found[2] = 2 * found[2]  # db counted twice
        return found

    monkeypatch.setattr(models, "gradients", wrong)
    errors = models.gradient_errors(["cell", "manual", "lstm"], SMALL)
    assert all(abs(error - 1) < 1e-3 for error in errors.values()), errors


def test_a_gradient_that_is_none_is_seen_and_null_in_json(monkeypatch):
    backward = models.gradients

    def wrong(model, size, bf16):
        found = backward(model, size, bf16)
        if next(model.parameters()).dtype is torch.float32:
            found[1][0, 0] = math.nan
        return found

    monkeypatch.setattr(models, "gradients", wrong)
    errors = models.gradient_errors(["cell", "manual"], SMALL)
    assert all(math.isnan(error) for error in errors.values()), errors
    told = json.loads(dumps({"models": [errors, 1.5, "nan"]}))
    assert told == {"models": [{"cell": None, "manual": None}, 1.5, "nan"]}


def test_the_three_start_from_the_same_weights_and_train():
    losses = {}
    for name in ("cell", "stacked", "manual"):
        step = Step(name, SMALL)
        before = [p.detach().clone() for p in step.model.parameters()]
        step()
        step()
        assert all((p != q).any() for p, q in zip(step.model.parameters(), before, strict=True))
        assert step.state.shape == (2, 3, 8)
        assert not step.state.requires_grad
        model = build(CASES[name], SMALL)
        losses[name] = float(torch.logsumexp(model(step.inputs)[0].detach().double(), -1).sum())
    assert max(losses.values()) - min(losses.values()) < 1e-3


def test_all_take_turns_as_often_as_asked_and_the_order_changes():
    order: list[str] = []
    calls = {name: lambda name=name: order.append(name) or time.sleep(0.06) for name in "ab"}
    times = measuring.take_turns(calls, seconds=0, rounds=3)
    assert order == ["a", "a", "b", "b", *"ab", *"ba", *"ab"]  # twice before, then three rounds
    assert {name: len(taken.seconds) for name, taken in times.items()} == {"a": 3, "b": 3}
    assert 0.06 <= times["a"].least <= times["a"].median


def test_memory_is_that_of_a_process_of_its_own():
    if not Path("/proc/self/clear_refs").exists():
        pytest.skip("only Linux tells the peak of a part of a process")
    measuring.reset_peak()
    before, _ = measuring.resident()
    with mmap.mmap(-1, 50_000_000) as block:  # straight from the system, and straight back
        for page in range(0, len(block), mmap.PAGESIZE):
            block[page] = 1
    after, peak = measuring.resident()
    assert peak - before > 45e6
    assert peak - after > 25e6


def test_mistakes_are_told_all_at_once(tmp_path):
    wrong = ("benchmark.models=[manual,staked]", "benchmark.size_mb=3", "benchmark.threads=two")
    told = refused(*wrong, "benchmark.out=no/a.json", cwd=tmp_path, module="src.benchmark")
    assert len(told) == 4
    assert told[0].startswith("benchmark.size_mb means nothing for benchmark=models, which has models, hidden_size")
    assert told[1].endswith("did you mean stacked?")
    assert told[2] == "benchmark.threads=two: expected auto or a number from 1 to 1024"
    assert told[3] == "benchmark.out=no/a.json: there is no folder no"
    assert refused("hidden_size=3", cwd=tmp_path, module="src.benchmark") == [
        "hidden_size=3: benchmark=models takes words of its own alone; did you mean benchmark.hidden_size?"
    ]
    wrong = ("hidden_size=3", "benchmark.hiden_size=4", "benchmark.models=manual", "benchmark.seconds=inf")
    told = refused(*wrong, "benchmark.vocab_size=1", "benchmark.out=.", cwd=tmp_path, module="src.benchmark")
    assert sorted(line.partition(":")[0].partition("=")[0] for line in told) == [
        "benchmark.hiden_size", "benchmark.models", "benchmark.out", "benchmark.seconds", "benchmark.vocab_size",
        "hidden_size",
    ]  # fmt: skip
    assert "benchmark.models='manual': expected a list of names or null; did you mean benchmark.models=[manual]?" in told
    assert "benchmark.out=. is a folder; name a file in it" in told


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="no folder here that even root cannot write in")
def test_a_folder_where_nothing_can_be_written_is_told_before_the_measuring():
    config = {"benchmark": vars(BenchmarkWords(name="models", out="/proc/b.json"))}
    assert [text.partition(": ")[0] for text in mistakes_in_benchmark(config)] == ["benchmark.out=/proc/b.json"]
    config["benchmark"]["seconds"] = math.nan
    assert mistakes_in_benchmark(config)[0].startswith("benchmark.seconds=nan: expected a number above 0")


@pytest.mark.slow
def test_the_table_of_models_says_what_the_json_says(tmp_path):
    words = ("benchmark.hidden_size=8", "benchmark.seq_len=4", "benchmark.batch_size=2", "benchmark.repeats=2")
    models = "benchmark.models=[stacked,manual_bf16]"
    text = run(*words, models, "benchmark.rate_size=64", "benchmark.out=b.json", cwd=tmp_path, module="src.benchmark")
    assert max(map(len, text.splitlines())) <= 100
    told = json.loads((tmp_path / "b.json").read_text())
    assert (told["format"], told["benchmark"]) == (1, "models")
    (result,) = told["results"]
    assert (result["hidden_size"], result["num_layers"], result["seq_len"], result["threads"]) == (8, 1, 4, 1)
    cells = [line.split() for line in text.splitlines() if line.startswith(("  stacked", "  manual"))]
    rows = {name: row for name, *row in cells}
    assert list(rows) == list(result["models"]) == ["stacked", "manual_bf16"]
    for name, row in rows.items():
        found = result["models"][name]
        assert float(row[0]) == round(found["min_ms"], 2) <= float(row[1]) == round(found["median_ms"], 2)
        assert found["characters_per_second"] == pytest.approx(8e3 / found["median_ms"])
        ratio = result["models"]["stacked"]["median_ms"] / found["median_ms"]
        assert float(row[5]) == pytest.approx(ratio, abs=0.006)
        kind = "bfloat16" if name.endswith("bf16") else "float32"
        assert found["gflops"] == pytest.approx(operations(CASES[name], Size(8, 1, 4, 2)) / found["median_ms"] / 1e6)
        share = found["gflops"] / result["product_gflops"][kind]
        assert found["share_of_rate"] == pytest.approx(share, rel=0.1)
        assert found["peak_mb"] > 100
        assert re.fullmatch(r"\d\.\de-\d\d", row[8])
    assert [path.name for path in tmp_path.iterdir()] == ["b.json"]


@pytest.mark.slow
def test_each_job_of_a_sweep_writes_a_file_of_its_own(tmp_path):
    words = ("benchmark.seq_len=2", "benchmark.repeats=1", "benchmark.models=[manual]", "benchmark.rate_size=64")
    words += ("benchmark.memory=false", "benchmark.batch_size=2", "benchmark.out=b.json")
    run("-m", "benchmark.hidden_size=3,4", *words, cwd=tmp_path, module="src.benchmark")
    sizes = {path.name: json.loads(path.read_text())["results"][0]["hidden_size"] for path in tmp_path.iterdir()}
    assert sizes == {"b_0.json": 3, "b_1.json": 4}


@pytest.mark.slow
def test_a_made_text_is_encoded_opened_again_and_handed_out(tmp_path):
    (tmp_path / "room").mkdir()
    words = ("benchmark=data", "benchmark.size_mb=1", "benchmark.folder=room", "benchmark.out=b.json")
    text = run(*words, cwd=tmp_path, module="src.benchmark")
    (found,) = json.loads((tmp_path / "b.json").read_text())["results"]
    assert found["bytes"] == 1_000_000
    assert all(m["mb_per_second"] == pytest.approx(1 / m["seconds"]) for m in found["encode"].values())
    assert found["loader"]["characters_per_second"] > 1e5
    assert f"in windows of 64 x 32; peak {found['loader']['peak_mb']:,.0f} MB" in text
    assert list((tmp_path / "room").iterdir()) == []


def test_the_made_text_has_letters_of_one_two_and_three_bytes(tmp_path):
    data.make_text(tmp_path / "a.txt", 2)
    text = (tmp_path / "a.txt").read_bytes().decode()
    assert {len(letter.encode()) for letter in set(text)} == {1, 2, 3}
    assert len(text.encode()) == 2_000_000
    data.make_text(tmp_path / "b.txt", 2)
    assert (tmp_path / "b.txt").read_text() == text


@pytest.mark.slow
@pytest.mark.skipif(not SHARED_DATA.exists(), reason="the shared corpora are not beside this checkout")
def test_a_step_through_the_framework_and_a_bare_one_are_timed_in_turns(tmp_path):
    words = ("benchmark=step", "benchmark.steps=40", f"data.root={SHARED_DATA}", "model.hidden_size=8")
    words += ("data.seq_len=8", "trainer.limit_train_batches=90", "callbacks=none", "benchmark.out=b.json")
    text = run(*words, cwd=tmp_path, module="src.benchmark")
    (found,) = json.loads((tmp_path / "b.json").read_text())["results"]
    assert found["steps"]["framework"] >= 40
    assert found["steps"]["bare loop"] >= 40
    assert found["median_ratio"] == found["median_ms"]["framework"] / found["median_ms"]["bare loop"]
    assert f"{found['min_ratio']:.3f}" in text.splitlines()[-1]
    assert not (tmp_path / "runs").exists()


@pytest.mark.slow
def test_sampling_tells_the_speed_of_one_and_of_many_streams_and_what_a_late_character_costs(tmp_path):
    words = ("benchmark=sampling", "benchmark.hidden_size=16", "benchmark.seconds=0.2", "benchmark.out=b.json")
    text = run(*words, cwd=tmp_path, module="src.benchmark")
    (found,) = json.loads((tmp_path / "b.json").read_text())["results"]
    alone, many = found["characters_per_second"]["1"], found["characters_per_second"]["64"]
    assert f"{alone:,.0f}" in text
    assert f"{many:,.0f}" in text
    assert min(alone, many, found["microseconds"]["10"], found["microseconds"]["10000"]) > 0
    (said,) = refused("benchmark=sampling", "benchmark.models=[cell]", cwd=tmp_path, module="src.benchmark")
    assert said.endswith("benchmark=sampling, which has hidden_size, num_layers, vocab_size, seconds, threads, out")
