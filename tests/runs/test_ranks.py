"""Two processes train as one: the numbers of one, one folder, and one end for both."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from tests.command_server import Started
from tests.runs.commands import PLAIN, environment, last_of_each, only_run, refused, refused_here, run, scalars, start
from tests.runs.test_resume import final_state

pytestmark = pytest.mark.slow

TEXT = ["data=text", "data.path=text.txt", "data.seq_len=8", "data.batch_size=4"]
SMALL = ["model=manual", "model.hidden_size=8", "trainer.log_every_n_steps=1", "trainer.max_epochs=2", "callbacks=none"]
WORDS = [*TEXT, *PLAIN, "optimizer.lr=0.002", *SMALL]
TWO = ["trainer.devices=2", "trainer.strategy=ddp"]


@pytest.fixture
def text(tmp_path: Path) -> Path:
    (tmp_path / "text.txt").write_text("to be or not to be, that is the question. " * 30)
    return tmp_path


def processes_of(folder: Path) -> list[int]:
    """Every process whose working folder this is."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if (entry / "cwd").readlink() == folder:
                found.append(int(entry.name))
    return found


def others_of(first: int, folder: Path) -> list[int]:
    """The ranks that the first one has started in a folder; it starts git there too, which soon ends."""
    others = [pid for pid in processes_of(folder) if pid != first]
    return [pid for pid in others if b"src.train" in Path(f"/proc/{pid}/cmdline").read_bytes()]


def wait_until(true, seconds: float = 60) -> None:  # type: ignore[no-untyped-def]
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.1)


@pytest.mark.parametrize(
    "words",
    [
        ["data=lines", "loss.over_time=sum", "trainer.gradient_clip_val=null"],
        pytest.param(["data=hello", "model.readout=linear"], marks=pytest.mark.soak),
    ],
    ids="-".join,
)
def test_two_processes_lose_what_one_loses_however_unequal_their_columns(tmp_path: Path, words: list[str]) -> None:
    items = [letter * (1 + 7 * n % 23) for n, letter in enumerate("abcdefghijklmnopqrstuvwxyz")]
    (tmp_path / "list.txt").write_text("\n".join(items))
    if "data=lines" in words:
        words = [*words, f"data.path={tmp_path / 'list.txt'}", "data.seq_len=30", "data.batch_size=8"]
    curves, characters = [], []
    for name in ("one", "torchrun"):
        (place := tmp_path / name).mkdir()
        run(*words, *SMALL, cwd=place) if name == "one" else torchrun(*words, *SMALL, cwd=place, code=0)
        folder = only_run(place)
        assert len(list(folder.glob("events*"))) == 1
        assert (folder / "train.log").read_text().count("done in") == 1
        curves.append(scalars(folder))
        characters.append(json.loads((folder / "run.json").read_text())["characters"])
    assert characters[0] == characters[1]
    one, two = ({tag: values for tag, values in of.items() if "per_second" not in tag} for of in curves)
    assert one.keys() == two.keys()
    for tag in one:
        for (_, a), (_, b) in zip(one[tag], two[tag], strict=True):
            assert a == pytest.approx(b, rel=1e-5, abs=1e-5), tag


def under_way(folder: Path, *words: str) -> Started:
    process = start(*WORDS, *TWO, "trainer.max_epochs=5000", *words, cwd=folder)
    wait_until(lambda: list(folder.rglob("metrics.jsonl")) and len(processes_of(folder)) >= 2, 120)
    return process


def test_a_signal_to_the_first_process_stops_both_and_both_go_on_later(text: Path) -> None:
    process = under_way(text)
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=90)
    assert process.returncode == 143, err
    assert "Traceback" not in err
    wait_until(lambda: not processes_of(text))
    folder = only_run(text)
    record = json.loads((folder / "run.json").read_text())
    assert record["status"] == "stopped"
    run(f"resume={folder}", f"trainer.max_epochs={record['epochs'] + 2}", cwd=text)
    assert json.loads((folder / "run.json").read_text())["epochs"] == record["epochs"] + 2
    assert "cannot change" in refused(f"resume={folder}", "trainer.max_epochs=9999", "trainer.devices=1", cwd=text)[0]


def test_a_process_that_is_killed_ends_the_other_soon_with_one_readable_error(text: Path) -> None:
    process = under_way(text)
    (other,) = [pid for pid in processes_of(text) if pid != process.pid]
    os.kill(other, signal.SIGKILL)
    _, err = process.communicate(timeout=90)
    assert process.returncode not in (0, None)
    assert "Traceback" not in err
    # Process 0 says so at its next step, unless Lightning, which looks every five seconds, has killed it before
    assert "another process of the run has died" in err or process.returncode == -signal.SIGKILL
    wait_until(lambda: not processes_of(text))


def torchrun(*words: str, cwd: Path, code: int) -> str:
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node=2", "-m", "src.train"]
    command += last_of_each(words)
    done = subprocess.run(command, cwd=cwd, env=environment(), timeout=120, capture_output=True, text=True)
    assert (done.returncode == 0) == (code == 0), done.stderr
    return done.stderr


@pytest.mark.soak
def test_a_finished_run_is_left_as_it_is_under_torchrun(text: Path) -> None:
    torchrun(*WORDS, cwd=text, code=0)
    before = (only_run(text) / "run.json").read_bytes()
    torchrun(f"resume={only_run(text)}", cwd=text, code=0)
    assert (only_run(text) / "run.json").read_bytes() == before


@pytest.mark.soak
@pytest.mark.parametrize("first", [True, False], ids=["the first", "the other"])
def test_one_that_dies_before_they_have_met_takes_the_other_along(text: Path, first: bool) -> None:
    process = start(*WORDS, *TWO, "trainer.max_epochs=5000", cwd=text)
    wait_until(lambda: others_of(process.pid, text))
    (other,) = others_of(process.pid, text)
    os.kill(process.pid if first else other, signal.SIGKILL)
    _, err = process.communicate(timeout=90)
    wait_until(lambda: not processes_of(text))
    assert "Traceback" not in err
    assert process.returncode not in (0, None)


@pytest.mark.soak
def test_a_signal_to_the_other_process_stops_both_and_resumed_they_end_as_if_undisturbed(text: Path) -> None:
    process = under_way(text)
    (other,) = [pid for pid in processes_of(text) if pid != process.pid]
    os.kill(other, signal.SIGTERM)
    _, err = process.communicate(timeout=90)
    assert process.returncode == 143, err
    record = json.loads(((folder := only_run(text)) / "run.json").read_text())
    assert record["status"] == "stopped"
    epochs = f"trainer.max_epochs={record['epochs'] + 2}"
    run(f"resume={folder}", epochs, cwd=text)
    (text / "whole").mkdir()
    run(*WORDS, *TWO, f"data.path={text / 'text.txt'}", epochs, cwd=text / "whole")
    whole, resumed = final_state(only_run(text / "whole")), final_state(folder)
    assert all(a.equal(b) for a, b in zip(whole.values(), resumed.values(), strict=True))


@pytest.mark.soak
def test_a_loss_that_is_no_number_in_the_other_process_fails_the_run_with_one_message(tmp_path: Path) -> None:
    # A model that holds "x" and "y" to be impossible, which only the second process reads.
    (tmp_path / "text.txt").write_text("ab" * 200 + "xy" * 200)
    run(*WORDS, "trainer.max_steps=0", "data.split=[1.0]", "runs=source", cwd=tmp_path)
    source = only_run(tmp_path) / "checkpoints" / "last.ckpt"
    content = torch.load(source, weights_only=True)
    content["state_dict"]["model.readout.bias"][2:] = -3e38
    torch.save(content, source)
    process = start(*WORDS, *TWO, "data.split=[1.0]", f"init_from={source}", cwd=tmp_path)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 1, err
    assert err.count("the loss is inf at step 0") == 1
    assert "another process" not in err
    (record,) = (tmp_path / "runs").rglob("run.json")
    assert json.loads(record.read_text())["status"] == "failed"


def test_what_several_processes_cannot_do_is_refused_in_words_and_leaves_no_folder(
    text: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (message,) = refused_here(*WORDS, "trainer.devices=2", "data.batch_size=3", cwd=text)
    assert "batch_size=3 does not divide among 2 processes" in message
    (message,) = refused_here("-m", *WORDS, *TWO, "seed=0,1", cwd=text)
    assert "without -m" in message
    variables = {"TORCHELASTIC_RUN_ID": "x", "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "RANK": "0", "LOCAL_RANK": "0"}
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert "torchrun starts one run: leave -m out" in refused_here("-m", *WORDS, "seed=0,1", cwd=text)[0]
    assert "give a number" in refused(*WORDS, "seed=null", cwd=text, **variables)[0]
    assert not (text / "runs").exists()


def test_a_job_that_slurm_puts_back_into_the_queue_goes_on_with_its_run(text: Path) -> None:
    scontrol = text / "bin" / "scontrol"
    scontrol.parent.mkdir()
    scontrol.write_text(f'#!/bin/sh\necho "$@" >> {text}/calls\n')
    scontrol.chmod(0o755)
    slurm = {"SLURM_ARRAY_JOB_ID": "77", "SLURM_ARRAY_TASK_ID": "3", "SLURM_JOB_ID": "80"}
    slurm["PATH"] = f"{scontrol.parent}:{os.environ['PATH']}"
    process = start(*WORDS, "trainer.max_steps=400", "trainer.max_epochs=100", cwd=text, **slurm)
    wait_until(lambda: list(text.rglob("metrics.jsonl")), 120)
    process.send_signal(signal.SIGUSR1)
    _, err = process.communicate(timeout=60)
    assert (text / "calls").read_text() == "requeue 77_3\n", err
    assert json.loads((only_run(text) / "run.json").read_text())["status"] == "stopped"
    run(*WORDS, "trainer.max_steps=400", "trainer.max_epochs=100", cwd=text, SLURM_RESTART_COUNT="1", **slurm)
    record = json.loads((only_run(text) / "run.json").read_text())
    assert (record["status"], record["steps"]) == ("done", 400)
    assert record["resumed"][0]["from_step"] > 0
