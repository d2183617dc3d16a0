"""`from src import fit`: the run of the command, as a call; and the process around it stays as it was."""

from __future__ import annotations

import json
import logging
import os
import signal
import sys
import threading
import time
import warnings
from pathlib import Path

import hydra
import pytest
import torch
import yaml
from hydra.core.global_hydra import GlobalHydra
from hydra.version import VersionBase

from src import fit, load
from src.config.checks import errors_in_config
from src.config.compose import checked_config, compose_and_run
from src.config.schema import Config, to_plain
from src.errors import UserError
from tests.fabricated_run import VERSE
from tests.runs.commands import only_run, run

CLOCK = {"started", "finished", "seconds", "process", "git"}  # git: a commit may be made meanwhile


@pytest.fixture
def words(tmp_path, monkeypatch):
    """A small run on a text, in a folder of its own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    (tmp_path / "verse.txt").write_text(VERSE * 4)
    own = ["model=manual", "data=text", f"data.path={tmp_path / 'verse.txt'}", "callbacks=none", "logger=none"]
    return [*own, "data.seq_len=16", "data.batch_size=8", "model.hidden_size=24", "trainer.max_epochs=2"]


def without_clock(value):
    if isinstance(value, dict):
        return {key: without_clock(below) for key, below in value.items() if key not in CLOCK and "second" not in key}
    return value


def test_it_trains_what_the_command_trains_into_the_same_folder_to_the_bit(words, tmp_path):
    run(*words, cwd=tmp_path)
    theirs = only_run(tmp_path / "runs")
    made = fit(words)
    assert made.folder.parent.resolve() == theirs.parent.resolve()
    assert made.folder.resolve() != theirs.resolve()
    for name, read in (("run.json", json.loads), ("config.yaml", yaml.safe_load)):
        ours, other = (without_clock(read((folder / name).read_text())) for folder in (made.folder, theirs))
        assert ours == other
    ours, other = (
        [without_clock(json.loads(line)) for line in (folder / "metrics.jsonl").read_text().splitlines()]
        for folder in (made.folder, theirs)
    )
    assert ours == other
    assert sorted(path.name for path in made.folder.iterdir()) == sorted(path.name for path in theirs.iterdir())
    for weights, others in zip(made.model.model.parameters(), load(theirs).model.parameters(), strict=True):
        assert torch.equal(weights, others)
    assert (made.status, made.metrics["val/cross_entropy"]) == ("done", ours[-1]["val/cross_entropy"])


@pytest.mark.parametrize(
    "words",
    [
        ["experiment=tiny_shakespeare", "optimizer=sgd", "seed=3"],
        ["data=pydoc", "model=lstm", "trainer.max_time=00:01:00", "name=a, b=${c}", "experiment=null"],
        ["--config-dir", "my own", "model=mine", "data=text", "data.path=1e3"],
    ],
)
def test_the_configuration_is_that_of_the_command(words, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my own" / "model").mkdir(parents=True)
    mine = "name: mine\n_target_: mine.RNN\nhidden_size: 77\noptions: {leak: 0.5}\n"
    (tmp_path / "my own" / "model" / "mine.yaml").write_text(mine)
    composed: list[Config] = []
    compose_and_run("train", Config, composed.append, words, errors_in_config)
    assert to_plain(checked_config(words)) == to_plain(composed[0])


def test_the_process_is_afterwards_as_it_was_and_a_second_run_is_the_same_as_the_first(words, tmp_path):
    def handler(number, frame):
        """Never called."""

    before = signal.signal(signal.SIGTERM, handler)
    log = tmp_path / "own.log"
    own = logging.FileHandler(log, "w")
    logging.getLogger().addHandler(own)
    try:
        with hydra.initialize(config_path=None, version_base="1.2"):  # a notebook that uses Hydra for itself
            torch.set_num_threads(2)

            def state():
                signals = [signal.getsignal(one) for one in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)]
                python = [sys.argv[:], os.getcwd(), threading.excepthook, warnings.filters[:], warnings.showwarning]
                logs = [logging.getLogger().handlers[:], logging.getLogger().level, own.stream.closed]
                hydras = [id(GlobalHydra.instance().hydra), VersionBase.instance().version_base]
                return signals, python, logs, hydras, torch.get_num_threads(), torch.get_rng_state().tolist()

            found = state()
            one, other = fit(words), fit(words)
            assert state() == found
            assert hydra.compose(overrides=["+a=1"]).a == 1
    finally:
        signal.signal(signal.SIGTERM, before)
        logging.getLogger().removeHandler(own)
        own.close()
    assert one.metrics["val/cross_entropy"] == other.metrics["val/cross_entropy"]
    assert one.folder != other.folder


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (["model.hiden_size=64", "lr=0.1"], "model.hidden_size?\nlr: there is no such key"),
        (["seed=0,1"], "several values make a sweep"),
        (["-m", "seed=0,1"], "-m: this trains one run"),
        (["trainer.devices=2"], "fit trains in this one process"),
        (["resume=nowhere"], "nowhere: there is no such folder"),
        (["data.path=no.txt"], "no.txt: there is no such file"),
        ("model=manual data=text", "fit(['model=manual', 'data=text'])"),
    ],
)
def test_what_the_command_refuses_is_an_exception_and_nothing_is_written(words, tmp_path, wrong, said):
    given = {one.split("=")[0] for one in wrong}
    others = [one for one in words if one.split("=")[0] not in given and "resume=nowhere" not in wrong]
    with pytest.raises(UserError) as error:
        fit(wrong if isinstance(wrong, str) else [*wrong, *others])
    assert said in str(error.value)
    assert [path.name for path in tmp_path.iterdir()] == ["verse.txt"]


def test_an_interrupt_saves_the_run_ends_the_cell_and_the_run_goes_on_by_last(words, tmp_path, capsys):
    def interrupt():
        while not list(tmp_path.glob("runs/*/*/metrics.jsonl")):
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=interrupt, daemon=True)
    thread.start()
    long = [*words[:-1], "trainer.max_epochs=1000000"]
    with pytest.raises(KeyboardInterrupt):
        fit(long)
    thread.join()
    folder = only_run(tmp_path / "runs")
    record = json.loads((folder / "run.json").read_text())
    assert record["status"] == "stopped"
    epochs = record["epochs"] + 2
    made = fit(["resume=last", f"trainer.max_epochs={epochs}"])
    assert (made.folder.resolve(), made.status) == (folder.resolve(), "done")
    assert f"resume=last is {Path('runs', folder.parent.name, folder.name)}" in capsys.readouterr().err
