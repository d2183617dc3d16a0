"""A sweep in an experiment file: a grid, pairs of keys, both; checked as a whole, and resumed as a sweep is."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from src import train
from src.config.overrides import in_file
from src.config.schema import Config
from src.errors import UserError


def test_each_job_is_crossed_with_the_grid_and_nearer_values_come_first() -> None:
    settings = {"params": {"seed": "0,1", "model": ["cell", "manual"], "data.split": [0.8, 0.2], "optimizer.lr": 0.1}}
    grid = ["seed=0,1", "model=cell,manual", "data.split=[0.8,0.2]", "optimizer.lr=0.1", "name='x'"]
    assert in_file(settings, ["name='x'"], Config) == [grid]
    assert in_file(settings, ["seed=7"], Config) == [["seed=7", *grid[1:4]]]
    settings["jobs"] = [{"model.hidden_size": 64, "optimizer.lr": 0.002}, {"data.path": "a,b.txt", "init_from": None}]
    assert in_file(settings, [], Config) == [
        [*grid[:3], "optimizer.lr=0.002", "model.hidden_size=64"],
        [*grid[:4], "data.path='a,b.txt'", "init_from=null"],
    ]
    assert in_file({"params": {"data.length": [[1], [2, 3]]}}, [], Config) == [["data.length=[1],[2,3]"]]
    texts = {"data.path": ["a.txt", "b, c's.txt"], "init_from": [None, "runs/a"]}  # of free text: a grid too
    assert in_file({"params": texts}, [], Config) == [[r"data.path='a.txt','b, c\'s.txt'", "init_from=null,'runs/a'"]]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"params": {"model.hiden_size": 3}}, "hydra.sweeper.params: model.hiden_size: there is no such key; did you"),
        ({"jobs": [{"optimizer.lr": "fast"}]}, "hydra.sweeper.jobs: optimizer.lr='fast': expected a number"),
        ({"jobs": {"seed": 1}}, "hydra.sweeper.jobs: expected a list of {KEY: VALUE, KEY: VALUE}"),
        ({"params": ["seed=1"]}, "hydra.sweeper.params: expected KEY: VALUES, as seed: 0,1,2"),
    ],
)
def test_what_is_wrong_in_the_file_is_named(settings: Any, message: str) -> None:
    with pytest.raises(UserError) as refused:
        in_file(settings, [], Config)
    assert refused.value.messages[0].startswith(message)


FILE = """# @package _global_
trainer: {max_epochs: 2}
hydra:
  mode: MULTIRUN
  sweeper:
    params:
      seed: 0,1
    jobs:
      - {model: stacked, optimizer.lr: 0.05}
      - {model: manual, optimizer.lr: 0.1}
"""


def test_an_experiment_file_is_a_sweep_without_m_and_what_is_done_is_not_run_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "experiment").mkdir()
    (tmp_path / "experiment" / "pairs.yaml").write_text(FILE)
    monkeypatch.chdir(tmp_path)

    def command(*words: str, file: str = "pairs") -> str:
        given = ["train", "--config-dir", str(tmp_path), f"experiment={file}", "callbacks=none", "logger=none", *words]
        monkeypatch.setattr(sys, "argv", given)
        train.main()
        return capsys.readouterr().out

    assert command().startswith("4 jobs: 0 done, 4 to do (4 to run)")
    records = [json.loads(path.read_text()) for path in tmp_path.glob("runs/sweeps/pairs/*/run.json")]
    assert sorted((one["model"], one["seed"]) for one in records) == [
        ("manual", 0), ("manual", 1), ("stacked", 0), ("stacked", 1)
    ]  # fmt: skip
    assert {one["experiment"] for one in records} == {"pairs"}
    assert command().startswith("4 jobs: 4 done, 0 to do")
    assert command("seed=1,2").startswith("4 jobs: 2 done, 2 to do")  # the command replaces the file's values
    with pytest.raises(UserError, match=r"optimizer\.lr=-1"):
        command("optimizer.lr=-1")
    with pytest.raises(UserError, match=r"^experiment=pairs: this file defines a sweep too"):
        command("-m", file="pairs,tutorial")
    no_mode, typed = FILE.replace("  mode: MULTIRUN\n", ""), FILE.replace("2}", "x}")
    wrong = {"a:\n\t- 1": "YAML: .*line 2", "seed: 1": "its first line", no_mode: "mode: MULT", typed: "trainer.max"}
    for content, message in wrong.items():
        (tmp_path / "experiment" / "wrong.yaml").write_text(content)
        with pytest.raises(UserError, match=message):
            command(file="wrong")
    assert len(list(tmp_path.glob("runs/sweeps/pairs/*/run.json"))) == 6
