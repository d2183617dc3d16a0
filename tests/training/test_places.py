"""A run holds wherever it is looked at from: its paths are stored whole, and its threads are those it was given."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
import yaml
from threadpoolctl import threadpool_info

from src.config.run_key import run_key
from src.data.text_reader import find
from src.files import absolute_path
from src.process import use_threads
from tests.fabricated_run import VERSE, configuration
from tests.runs.commands import only_run, refused_here, run


def test_a_path_is_stored_from_the_root_on_and_a_glob_stays_one(tmp_path, monkeypatch):
    here = tmp_path / "odd [1] *"
    here.mkdir()
    for name in ("a.txt", "b.txt", "c [2].txt"):
        (here / name).write_text("some text")
    monkeypatch.chdir(here)
    stored = {typed: absolute_path(typed) for typed in ("a.txt", "./a.txt", "[ab].txt", "c [2].txt", "*.txt", ".")}
    found = {typed: [source.path.name for source in find(typed)] for typed in stored}
    monkeypatch.chdir(tmp_path)
    assert {typed: [source.path.name for source in find(path)] for typed, path in stored.items()} == found
    assert stored["a.txt"] == stored["./a.txt"] == str(here / "a.txt")
    assert absolute_path(stored["[ab].txt"]) == stored["[ab].txt"]


def test_the_key_of_a_sweep_knows_a_text_by_where_it_lies_and_not_by_how_it_was_typed(tmp_path, monkeypatch):
    config = configuration("cell", **{"data.path": "my.txt"})
    monkeypatch.chdir(tmp_path)
    mine = run_key(config)
    assert run_key(config.with_absolute_paths()) == mine
    monkeypatch.chdir("/")
    assert run_key(config) != mine  # another file of the same name
    assert run_key(configuration("cell", **{"data.path": str(tmp_path / "my.txt")})) == mine


def test_numpy_s_products_take_no_more_threads_than_they_are_given():
    before = torch.get_num_threads()
    np.ones((2, 2)) @ np.ones((2, 2))
    try:
        use_threads(1)
        assert {pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"} == {1}
    finally:
        use_threads(before)


@pytest.mark.slow
def test_a_run_on_a_relative_path_is_evaluated_resumed_and_repeated_from_elsewhere(tmp_path):
    here, there = tmp_path / "here", tmp_path / "there"
    here.mkdir()
    there.mkdir()
    (here / "verse.txt").write_text(VERSE * 3)
    (there / "verse.txt").write_text("quite another text\n" * 200)
    words = ["data=text", "data.path=verse.txt", "model.hidden_size=8", "trainer.max_epochs=1", "data.seq_len=16"]
    run(*words, "callbacks=none", "name=first", cwd=here)
    folder = only_run(here)
    assert yaml.safe_load((folder / "config.yaml").read_text())["data"]["path"] == str(here / "verse.txt")
    own = run(f"run={folder}", "format=json", cwd=here, module="src.evaluate")
    assert run(f"run={folder}", "format=json", cwd=there, module="src.evaluate") == own
    assert json.loads(own)["text"]["changed"] is False
    run(f"rerun={folder}", cwd=there)
    again = json.loads((only_run(there) / "run.json").read_text())
    first = json.loads((folder / "run.json").read_text())
    assert again["metrics"]["final"]["val/cross_entropy"] == first["metrics"]["final"]["val/cross_entropy"]
    moved = (here / "verse.txt").rename(tmp_path / "moved.txt")
    for module, words in (("src.evaluate", ["run="]), ("src.train", ["resume=", "trainer.max_epochs=2"])):
        (said,) = refused_here(f"{words[0]}{folder}", *words[1:], cwd=there, module=module)
        assert f"data.path={here / 'verse.txt'}: there is no such file" in said
    run(f"resume={folder}", "trainer.max_epochs=2", f"data.path=../{moved.name}", cwd=there)
    assert json.loads((folder / "run.json").read_text())["epochs"] == 2
