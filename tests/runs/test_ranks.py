"""Two processes train as one: the numbers of one, one folder, and one end for both."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.runs.commands import environment, only_run, refused, run, scalars, start
from tests.runs.test_resume import final_state

pytestmark = pytest.mark.slow

TEXT = ["data=text", "data.path=text.txt", "data.seq_len=8", "data.batch_size=4"]
SMALL = [
    "model=manual",
    "model.hidden_size=8",
    "trainer.log_every_n_steps=1",
    "trainer.max_epochs=2",
    "callbacks=none",
]
WORDS = TEXT + SMALL
TWO = ["trainer.devices=2", "trainer.strategy=ddp"]


@pytest.fixture
def text(tmp_path: Path) -> Path:
    (tmp_path / "text.txt").write_text("to be or not to be, that is the question. " * 30)
    return tmp_path


def processes_of(folder: Path) -> list[int]:
    """Every process that stands in a folder."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            try:
                if Path(os.readlink(entry / "cwd")) == folder:
                    found.append(int(entry.name))
            except OSError:
                continue
    return found


def wait_until(true, seconds: float = 30) -> None:  # type: ignore[no-untyped-def]
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def test_two_processes_lose_what_one_loses(text: Path) -> None:
    curves = {}
    for name, words in (("one", []), ("ddp", TWO)):
        (text / name).mkdir()
        run(*WORDS, f"data.path={text / 'text.txt'}", *words, cwd=text / name)
        curves[name] = scalars(only_run(text / name))
    (text / "torchrun").mkdir()
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node=2", "-m", "src.train", *WORDS]
    command += [f"data.path={text / 'text.txt'}"]
    subprocess.run(command, cwd=text / "torchrun", env=environment(), check=True, timeout=120, capture_output=True)
    folder = only_run(text / "torchrun")
    curves["torchrun"] = scalars(folder)
    assert len(list(folder.glob("events*"))) == 1
    assert (folder / "train.log").read_text().count("done in") == 1
    for name in ("ddp", "torchrun"):
        for tag in ("train/loss", "val/cross_entropy", "train/grad_norm"):
            mine, truth = curves[name][tag], curves["one"][tag]
            assert [step for step, _ in mine] == [step for step, _ in truth]
            assert max(abs(a - b) for (_, a), (_, b) in zip(mine, truth, strict=True)) < 1e-5, (name, tag)


@pytest.mark.parametrize(
    "words",
    [
        ["data=lines", "loss.over_time=mean"],
        ["data=lines", "loss.over_time=sum"],
        ["data=hello", "model.readout=linear"],
    ],
    ids="-".join,
)
def test_what_the_columns_of_two_processes_hold_unequally_weighs_as_in_one(tmp_path: Path, words: list[str]) -> None:
    items = [letter * (1 + 7 * n % 23) for n, letter in enumerate("abcdefghijklmnopqrstuvwxyz")]
    (tmp_path / "list.txt").write_text("\n".join(items))
    if "data=lines" in words:
        words = [*words, f"data.path={tmp_path / 'list.txt'}", "data.seq_len=30", "data.batch_size=8"]
    curves, characters = [], []
    for name, more in (("one", []), ("two", TWO)):
        (tmp_path / name).mkdir()
        run(*words, *SMALL, *more, cwd=tmp_path / name)
        folder = only_run(tmp_path / name)
        curves.append(scalars(folder))
        characters.append(json.loads((folder / "run.json").read_text())["characters"])
    assert characters[0] == characters[1]
    one, two = ({tag: values for tag, values in of.items() if "per_second" not in tag} for of in curves)
    assert one.keys() == two.keys()
    for tag in one:
        for (_, a), (_, b) in zip(one[tag], two[tag], strict=True):
            assert a == pytest.approx(b, rel=1e-5, abs=1e-5), tag


def under_way(folder: Path, *words: str) -> subprocess.Popen[str]:
    process = start(*WORDS, *TWO, "trainer.max_epochs=5000", *words, cwd=folder)
    wait_until(lambda: list(folder.rglob("metrics.jsonl")) and len(processes_of(folder)) >= 2, 60)
    return process


def test_a_signal_to_the_first_process_stops_both_and_both_go_on_later(text: Path) -> None:
    process = under_way(text)
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=30)
    assert process.returncode == 143, err
    assert "Traceback" not in err
    wait_until(lambda: not processes_of(text))
    folder = only_run(text)
    record = json.loads((folder / "run.json").read_text())
    assert record["status"] == "stopped"
    epochs = record["epochs"] + 2
    run(f"resume={folder}", f"trainer.max_epochs={epochs}", cwd=text)
    (text / "whole").mkdir()
    words = [f"data.path={text / 'text.txt'}", f"trainer.max_epochs={epochs}"]
    run(*WORDS, *TWO, *words, cwd=text / "whole")
    whole, resumed = final_state(only_run(text / "whole")), final_state(folder)
    assert all(a.equal(b) for a, b in zip(whole.values(), resumed.values(), strict=True))
    (message,) = refused(f"resume={folder}", "trainer.max_epochs=9999", "trainer.devices=1", cwd=text)
    assert "cannot change" in message


def test_a_process_that_is_killed_ends_the_other_soon_with_one_readable_error(text: Path) -> None:
    process = under_way(text)
    (other,) = [pid for pid in processes_of(text) if pid != process.pid]
    os.kill(other, signal.SIGKILL)
    _, err = process.communicate(timeout=30)
    assert process.returncode not in (0, None)
    assert "Traceback" not in err
    assert "another process of the run has died" in err
    wait_until(lambda: not processes_of(text))


def test_a_sweep_of_several_processes_is_refused_before_it_starts(text: Path) -> None:
    (message,) = refused("-m", *WORDS, *TWO, "seed=0,1", cwd=text)
    assert "without -m" in message
    assert not (text / "runs").exists()
