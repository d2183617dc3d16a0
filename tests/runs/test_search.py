"""A search as whole commands: killed, gone on, two processes at once; its best is an experiment that runs."""

from __future__ import annotations

import csv
import importlib.util
import json
import math
import random
import time
from pathlib import Path
from typing import Any

import pytest
import yaml

from src.config.run_key import what_matters
from src.config.schema import from_plain
from tests.runs.commands import refused_here, run, start, wait_until

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(importlib.util.find_spec("optuna") is None, reason="the extra search is not installed"),
]
WORDS = ("search=small_text", "data.path=text.txt", "logger=none", "search.trials=10")
WORDS += ("search.sampler.startup_trials=3", "search.pruner.startup_trials=2")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    words, draw = ["the", "cat", "sat", "on", "a", "mat", "and", "then", "a", "dog", "ran"], random.Random(0)
    (tmp_path / "text.txt").write_text(" ".join(draw.choice(words) for _ in range(300)))
    return tmp_path


def finished(folder: Path) -> int:
    """Trials whose run has ended, whatever the study says."""
    found = [json.loads(path.read_text())["status"] for path in folder.glob("runs/search/*/trials/*/run.json")]
    return sum(status in ("done", "stopped") for status in found)


def kill_after(folder: Path, trials: int) -> None:
    """Start the search and kill it in the middle of a trial, when so many have ended."""
    process = start(*WORDS, cwd=folder, module="src.search")
    wait_until(lambda: finished(folder) >= trials, process)
    time.sleep(0.1)
    process.kill()
    process.communicate(timeout=30)


def trials(folder: Path) -> list[dict[str, Any]]:
    with (folder / "runs/search/small_text/trials.csv").open() as file:
        return list(csv.DictReader(file))


def test_ten_trials_survive_a_kill_and_are_finished_by_two_processes(folder: Path) -> None:
    kill_after(folder, 2)
    two = [start(*WORDS, cwd=folder, module="src.search") for _ in range(2)]
    printed = []
    for process in two:
        out, err = process.communicate(timeout=300)
        assert process.returncode == 0, err
        printed.append(out)
    (out, *_) = [out for out in printed if "10 of 10 trials finished" in out]  # by the one that ended last

    told = trials(folder)
    states = [trial["state"] for trial in told]
    assert states.count("complete") + states.count("pruned") == 10
    assert states.count("pruned") > 0
    assert set(states) <= {"complete", "pruned", "fail"}
    assert [trial["note"] for trial in told if trial["state"] == "fail"] == ["its process died"] * states.count("fail")
    assert [trial for trial in told if trial["model.dropout"] and trial["model.num_layers"] != "2"] == []
    values = [float(trial["value"]) for trial in told if trial["state"] == "complete"]

    best = yaml.safe_load((folder / "runs/search/small_text/conf/experiment/small_text_best.yaml").read_text())
    run("--config-dir", "runs/search/small_text/conf", "experiment=small_text_best", "callbacks=none", cwd=folder)
    (path,) = folder.glob("runs/small_text_best/*/run.json")
    assert json.loads(path.read_text())["metrics"]["best"]["value"] == min(values)  # the trial itself, to the bit
    assert yaml.safe_load((path.parent / "config.yaml").read_text())["optimizer"]["lr"] == best["optimizer"]["lr"]
    number = min((t for t in told if t["state"] == "complete"), key=lambda t: float(t["value"]))["number"]
    config = folder / f"runs/search/small_text/trials/{int(number):04d}/config.yaml"
    stored = from_plain(yaml.safe_load(config.read_text()))
    assert what_matters(from_plain(yaml.safe_load((path.parent / "config.yaml").read_text()))) == what_matters(stored)

    shares = [line for line in out.splitlines() if "of what makes a trial good" in line]
    assert (len(shares) >= 3) == (len(values) > 3)  # of fewer values nothing is said
    plots = sorted(path.name for path in (folder / "runs/search/small_text/plots").iterdir())
    assert plots == ["curves.png", "history.png", "parallel.png", "slices.png", "timeline.png"]
    assert all(math.isfinite(value) for value in values)


def test_the_way_to_a_search_is_told(folder: Path) -> None:
    (line,) = refused_here(cwd=folder, module="src.search")
    assert "small_text, tiny_shakespeare" in line
    assert "small_text" in refused_here("--config-dir", ".", cwd=folder, module="src.search")[0]
    (line,) = refused_here("search=smalltext", cwd=folder, module="src.search")
    assert line.endswith("did you mean small_text?")
    lines = refused_here(*WORDS, "optimizer.lrr=1", "model.hidden_size=0", cwd=folder, module="src.search")
    assert "this search varies model.hidden_size" in lines[0]
    assert "did you mean optimizer.lr?" in lines[1]
    (line,) = refused_here(*WORDS, "trainer.devices=2", cwd=folder, module="src.search")
    assert line == "trainer.devices: a trial of a search is one process; leave it out"
    (line,) = refused_here(*WORDS, "-m", cwd=folder, module="src.search")
    assert line.endswith("leave -m out")
    assert not (folder / "runs").exists()
