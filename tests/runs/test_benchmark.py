"""python -m src.benchmark: what it counts is right, what it prints is what it measured, and it runs at small sizes."""

from __future__ import annotations

import json
import math
import os
import time
from importlib.util import find_spec

import pytest
import torch

from src.benchmark import MODELS, PEERS, errors_in_benchmark
from src.benchmarks import measuring, peers
from src.benchmarks.models import SIZES, Size, Step, operations
from src.config.schema import CLASSES, BenchmarkConfig, BenchmarkOptions
from tests.runs.commands import SHARED_DATA, refused, run

SMALL = Size(8, 2, 5, 3, 11)


def test_the_schema_knows_every_case_and_the_sizes_are_those_on_record():
    assert {name.removesuffix("_bf16") for name in MODELS} == set(CLASSES)
    assert [size[:4] for size in SIZES] == [
        (128, 1, 64, 32), (128, 2, 50, 50), (256, 1, 100, 64), (512, 2, 100, 64), (1024, 2, 128, 64)
    ]  # fmt: skip


def test_all_train_and_the_three_start_from_the_same_weights():
    losses = {}
    for name in MODELS:
        step = Step(name, SMALL)
        losses[name] = float(torch.logsumexp(step.model(step.inputs)[0].detach().double(), -1).sum())
        trained = [p for p in step.model.parameters() if p.requires_grad]  # b_hh is frozen: one bias in all three
        before = [p.detach().clone() for p in trained]
        step()
        step()
        assert all((p != q).any() for p, q in zip(trained, before, strict=True))
        assert not (step.state[0] if name == "lstm" else step.state).requires_grad
    assert losses["cell"] == pytest.approx(losses["stacked"], rel=1e-5) == losses["manual"]


def test_all_take_turns_as_often_as_asked_and_the_order_changes():
    order: list[str] = []
    calls = {name: lambda name=name: order.append(name) or time.sleep(0.06) for name in "ab"}
    times = measuring.take_turns(calls, seconds=0, rounds=3)
    assert order == ["a", "a", "b", "b", *"ab", *"ba", *"ab"]  # twice before, then three rounds
    assert {name: len(seconds) for name, seconds in times.items()} == {"a": 3, "b": 3}
    assert min(times["a"]) >= 0.06


def test_all_errors_are_reported_at_once():
    wrong = BenchmarkOptions("models", out="no/a.json", models=["manual", "staked"], size_mb=3, threads="two")
    found = errors_in_benchmark(BenchmarkConfig(wrong), ["hidden_size=3"])
    assert found[0].startswith("benchmark.size_mb: benchmark=models takes benchmark.KEY, where KEY is one of out, mod")
    assert found[1].startswith("hidden_size=3: benchmark=models takes benchmark.KEY, where KEY is one of out, models")
    assert found[2].startswith("benchmark.threads=two: expected auto or ")
    assert found[3].endswith("did you mean stacked?")
    assert found[4].startswith("benchmark.out=no/a.json: expected the name of a file in a folder")
    wrong = BenchmarkOptions("models", out=".", seconds=math.inf, repeats=0)
    found = errors_in_benchmark(BenchmarkConfig(wrong))
    assert [text.partition("=")[0].partition(" ")[0] for text in found] == [
        f"benchmark.{key}" for key in ("seconds", "repeats", "out")
    ]
    assert errors_in_benchmark(BenchmarkConfig(BenchmarkOptions("step", steps=3)), ["model=cell"]) == []


@pytest.mark.slow
@pytest.mark.parametrize("memory", [False, pytest.param(True, marks=pytest.mark.soak)])  # a process for each model
def test_the_table_of_models_has_the_numbers_of_the_json(tmp_path, memory):
    words = ("benchmark.hidden_size=8", "benchmark.seq_len=4", "benchmark.batch_size=2", "benchmark.repeats=2")
    words += ("benchmark.rate_size=64", f"benchmark.memory={memory}")
    models = "benchmark.models=[stacked,manual_bf16]"
    text = run(*words, models, "benchmark.out=b.json", cwd=tmp_path, module="src.benchmark")
    assert max(map(len, text.splitlines())) <= 100
    written = json.loads((tmp_path / "b.json").read_text())
    assert (written["format"], written["benchmark"]) == (1, "models")
    (result,) = written["results"]
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
        assert row[7] == (f"{found['peak_mb']:,.0f}" if memory else "-")
        assert not memory or found["peak_mb"] > 100
        rates = result["rates"]["bf16" if name.endswith("bf16") else "float32"]
        assert found["share_of_rate"] == pytest.approx(found["gflops"] / max(rates.values()))
        assert float(row[8]) == pytest.approx(found["gradient_error"], rel=0.1)
        assert found["gradient_error"] < (0.1 if name.endswith("bf16") else 1e-5)
    assert {"torch", "numpy"} <= result["rates"]["float32"].keys()
    assert f"torch {result['rates']['float32']['torch']:,.0f}" in text
    assert [path.name for path in tmp_path.iterdir()] == ["b.json"]


@pytest.mark.slow
def test_each_job_of_a_sweep_writes_a_file_of_its_own(tmp_path):
    words = ("benchmark.seq_len=2", "benchmark.repeats=1", "benchmark.models=[manual]")
    words += ("benchmark.memory=false", "benchmark.batch_size=2", "benchmark.rate_size=64", "benchmark.out=b.json")
    run("-m", "benchmark.hidden_size=3,4", *words, cwd=tmp_path, module="src.benchmark")
    sizes = {path.name: json.loads(path.read_text())["results"][0]["hidden_size"] for path in tmp_path.iterdir()}
    assert sizes == {"b_0.json": 3, "b_1.json": 4}


@pytest.mark.soak
def test_a_generated_text_is_encoded_opened_again_and_read(tmp_path):
    (tmp_path / "place").mkdir()
    words = ("benchmark=data", "benchmark.size_mb=1", "benchmark.folder=place", "benchmark.out=b.json")
    text = run(*words, cwd=tmp_path, module="src.benchmark")
    (found,) = json.loads((tmp_path / "b.json").read_text())["results"]
    assert found["bytes"] == 1_000_000
    assert all(m["mb_per_second"] == pytest.approx(1 / m["seconds"]) for m in found["encode"].values())
    assert found["loader"]["characters_per_second"] > 1e5
    assert f"windows of 64 x 32; peak {found['loader']['peak_mb']:,.0f} MB" in text
    assert list((tmp_path / "place").iterdir()) == []


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
    assert f"{found['min_ratio']:.3f}" in text.splitlines()[-2]
    assert not (tmp_path / "runs").exists()
    (told,) = refused(*words, "trainer.precision=64-true", cwd=tmp_path, module="src.benchmark")
    assert told == "benchmark=step: the bare loop runs on a CPU, with trainer.precision=32-true or bf16-mixed"


@pytest.mark.slow
def test_sampling_measures_one_stream_and_many_and_a_late_character(tmp_path):
    words = ("benchmark=sampling", "benchmark.hidden_size=16", "benchmark.seconds=0.2", "benchmark.out=b.json")
    text = run(*words, cwd=tmp_path, module="src.benchmark")
    (found,) = json.loads((tmp_path / "b.json").read_text())["results"]
    alone, many = found["characters_per_second"]["1"], found["characters_per_second"]["64"]
    assert f"{alone:,.0f}" in text
    assert f"{many:,.0f}" in text
    assert min(alone, many, found["microseconds"]["10"], found["microseconds"]["10000"]) > 0


@pytest.mark.parametrize("name", PEERS)
def test_a_peer_trains_as_torch_does_from_the_same_weights(name, monkeypatch):
    if not all(map(find_spec, peers.NEEDED.get(name, ()))):
        pytest.skip("the extra `peers` is not installed")
    for variable in ("NPROC", "JAX_PLATFORMS", "KERAS_BACKEND"):  # which the peer sets
        monkeypatch.setenv(variable, os.environ.get(variable, ""))
    peers.prepare(name, 1)
    problem = peers.problem_of(SMALL)
    stacked, losses = (peers.start(one, problem)["losses"] for one in ("stacked", name))
    assert losses == pytest.approx(stacked, abs=1e-5)
    assert len(set(losses)) == peers.STEPS == 5
    assert abs(stacked[-1] - stacked[0]) > 1e-3


@pytest.mark.soak
def test_peers_take_turns_in_processes_of_their_own_and_a_missing_one_is_named(monkeypatch, capsys):
    monkeypatch.setattr(peers, "NEEDED", {**peers.NEEDED, "jax": ("no_such_library",)})
    options = BenchmarkOptions("peers", models=["jax", "numpy"], repeats=2, threads="1")
    (found,) = peers.run_peers(options, [SMALL])
    assert capsys.readouterr().err == "jax: not installed, so not measured; to install: pip install -e '.[peers]'\n"
    assert (found["missing"], list(found["peers"])) == (["jax"], ["manual", "numpy"])
    numpy = found["peers"]["numpy"]
    assert numpy["difference"] < 1e-5
    assert numpy["ratio"] == numpy["median_ms"] / found["peers"]["manual"]["median_ms"]
    (row,) = [line.split() for line in peers.peers_table(found) if line.startswith("  numpy")]
    assert (row[2], row[3]) == (f"{numpy['median_ms']:.2f}", f"{numpy['ratio']:.2f}")


def test_the_table_names_what_is_faster_and_does_not_time_unequal_losses():
    same = {"versions": {}, "difference": 0.0, "min_ms": 1.0, "compile_s": None}
    one = {"manual": {**same, "median_ms": 2.0, "ratio": 1.0}, "jax": {**same, "median_ms": 1.0, "ratio": 0.5}}
    one["keras"] = {"versions": {}, "difference": 2e-4, "compile_s": 1.0}
    *_, unequal, faster = peers.peers_table({**SMALL._asdict(), "threads": 1, "peers": one})
    assert unequal == "  keras: its losses differ by more than 0.0001, so it was not timed"
    assert faster == "  faster than manual: jax (0.50)"
    by_hand = [6 * (gates * 3 * 8 * 8 + 8 * 11) * 5 * 3 for gates in (1, 4, 3)]  # W twice, U of layer 1; V
    assert [operations(name, SMALL) for name in ("manual", "lstm", "gru")] == by_hand
