"""A run that is killed at any moment and resumed ends as one that was never interrupted, to the bit."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import pty
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.runs.commands import environment, only_run, refused_here, run, scalars, start

# Everything that a resume could get wrong: dropout, masks of W, noise, random offsets, a schedule, validations in
# mid-epoch, a carried state, checkpoints between two steps of an epoch.
WORDS = ["data=text", "data.path=text.txt", "data.seq_len=7", "data.batch_size=3"]
WORDS += ["data.offset=random", "data.reset=never", "trainer.val_check_interval=0.4"]
WORDS += ["model=stacked", "model.num_layers=2", "model.hidden_size=8", "model.dropout=0.3"]
WORDS += ["model.weight_drop=0.2", "data.noise=0.1", "model.skip=output", "optimizer.average=0.9"]
WORDS += ["optimizer.recurrent_lr=0.0005"]
WORDS += ["scheduler=cosine", "scheduler.warmup_steps=5", "checkpoint.every_n_steps=5"]
WORDS += ["trainer.max_epochs=3", "trainer.log_every_n_steps=1"]
UNWATCHED = [*WORDS, "callbacks=none"]  # a figure takes a second to draw, and most kills would fall into it
# make soak: 200
KILLS = int(os.environ.get("UNROLL_KILLS", "3"))
SOAK = KILLS > 100


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the text and the run that nothing disturbed."""
    folder = tmp_path_factory.mktemp("uninterrupted")
    letters = random.Random(0)
    (folder / "text.txt").write_text("".join(letters.choice("abcdefgh ,.\n") for _ in range(2200)))
    run(*(word.replace("text.txt", str(folder / "text.txt")) for word in UNWATCHED), cwd=folder)
    return folder


def final_state(run_folder: Path) -> dict[str, torch.Tensor]:
    return torch.load(run_folder / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]


CLOCK = {"seconds", "lengths"}  # the numbers in metrics.jsonl have more or fewer digits
OF_A_PROCESS = {"started", "finished", "seconds", "process", "resumed", "command", "overrides", "git"}


def plain(value: Any) -> Any:
    """What must be equal: without clock fields, tensors as lists of their bits, floats as hexadecimal text."""
    if isinstance(value, dict):
        return {key: plain(below) for key, below in value.items() if key not in CLOCK and "per_second" not in str(key)}
    if isinstance(value, list | tuple):
        return [plain(below) for below in value]
    if isinstance(value, torch.Tensor):
        return [str(value.dtype), list(value.shape), value.numpy().tobytes()]
    return value.hex() if isinstance(value, float) else value


def same_end(one: Path, other: Path, files: bool = True) -> None:
    """The same files; checkpoints, curves, lines and results equal to the bit but for clock fields.

    Without `files` the runs have checkpoints of other steps: curves, lines and last.ckpt, but for its configuration.
    """
    results, names = [], []
    for folder in (one, other):
        paths = sorted(path.relative_to(folder) for path in folder.rglob("*") if path.is_file())
        names.append({str(path).partition(".tfevents")[0] for path in paths})  # each process has an event file
        # In order of steps: of two event files of one process and second, TensorBoard reads number 10 before 9
        results.append({"scalars": plain({tag: sorted(points) for tag, points in scalars(folder).items()})})
        for path in paths if files else [Path("checkpoints/last.ckpt"), Path("metrics.jsonl")]:
            if path.suffix == ".ckpt":
                content = torch.load(folder / path, weights_only=True)
                if not files:  # an extended run keeps its schedule
                    del content["unroll"]["config"], content["unroll"]["progress"]["schedule"]
                results[-1][str(path)] = plain(content)
            if path.name == "metrics.jsonl":
                results[-1][path.name] = [plain(json.loads(line)) for line in (folder / path).read_text().splitlines()]
            if path.name == "run.json":
                entries = json.loads((folder / path).read_text())
                results[-1][path.name] = plain({key: entries[key] for key in entries.keys() - OF_A_PROCESS})
    assert not files or names[0] == names[1]
    for name in results[0]:
        assert results[0][name] == results[1][name], name


@pytest.mark.slow
@pytest.mark.parametrize(
    "words", [pytest.param(["trainer.max_epochs=2"], marks=pytest.mark.soak), [*UNWATCHED, "trainer.max_epochs=1"]]
)
def test_killed_before_or_after_any_write_and_resumed_a_run_leaves_the_same_files(
    uninterrupted: Path, tmp_path: Path, words: list[str]
) -> None:
    words = ["callbacks=none", "trainer.threads=1", *words]
    shutil.copy(uninterrupted / "text.txt", tmp_path)
    straight = tmp_path / "straight"
    straight.mkdir()
    text = [f"data.path={tmp_path / 'text.txt'}"] * ("data=text" in words)
    writes = int(run(*words, *text, cwd=straight, module="tests.runs.killed", UNROLL_KILL="0 before").split()[-1])
    kills = [(number, when) for number in range(1, writes + 1) for when in ("before", "after")]
    for number, when in kills if SOAK else kills[7 :: len(kills) // 3]:
        folder = tmp_path / f"{number}_{when}"
        folder.mkdir()
        kill = f"{number} {when}"
        run(*words, *text, cwd=folder, module="tests.runs.killed", UNROLL_KILL=kill, code=137)
        if list(folder.rglob("run.json")):  # else it was no run yet
            run(f"resume={only_run(folder)}", cwd=folder)
            same_end(only_run(straight), only_run(folder))


@pytest.mark.slow
def test_killed_at_random_moments_and_resumed_a_run_ends_as_if_undisturbed(uninterrupted: Path, tmp_path: Path) -> None:
    moments = random.Random(1)
    words = [word.replace("text.txt", str(uninterrupted / "text.txt")) for word in UNWATCHED]
    kills = 0
    for number in itertools.count():
        if kills == KILLS:
            break
        folder = tmp_path / f"run_{number}"  # one that is done before its kill comes adds no kill
        folder.mkdir()
        # Every other run saves at the ends of its epochs alone, so that it is taken up there
        process = start(*words, *(["checkpoint.every_n_steps=1000"] if number % 2 else []), cwd=folder)
        while True:
            wait_for_training(process, folder)
            if kills < KILLS:
                time.sleep(moments.uniform(0.0, 1.0))
                process.send_signal(signal.SIGKILL)
            _, err = process.communicate()
            assert process.returncode in (0, -signal.SIGKILL), err
            kills += process.returncode == -signal.SIGKILL
            record = only_run(folder)
            if json.loads((record / "run.json").read_text())["status"] == "done":
                break
            process = start(f"resume={record}", cwd=folder)
        same_end(only_run(uninterrupted), only_run(folder), files=number % 2 == 0)


def wait_for_training(process, folder: Path) -> None:  # type: ignore[no-untyped-def]
    """Until this process writes its record: what is killed before is no run yet."""
    while process.poll() is None:
        for record in folder.rglob("run.json"):
            if json.loads(record.read_text())["process"]["pid"] == process.pid:
                return
        time.sleep(0.02)


def read_all(terminal: int, into: list[bytes]) -> None:
    """Read what is written to a terminal until its last writer closes it, which is an error on Linux."""
    with contextlib.suppress(OSError):
        while part := os.read(terminal, 10_000):
            into.append(part)


@pytest.mark.slow
def test_killed_behind_its_last_checkpoint_a_run_still_gets_its_end(uninterrupted: Path, tmp_path: Path) -> None:
    """The last checkpoint is that of the last epoch's end: no step is left, but last points and the row of HParams."""
    shutil.copytree(only_run(uninterrupted), tmp_path / "run")
    record = tmp_path / "run" / "run.json"
    entries = json.loads(record.read_text())
    record.write_text(json.dumps(entries | {"status": "running", "metrics": {}}))
    ours, terminal = pty.openpty()  # where a progress bar, too, must bear an end without a beginning
    words = [f"resume={tmp_path / 'run'}", f"data.path={uninterrupted / 'text.txt'}"]
    command = [sys.executable, "-m", "src.train", *words]
    process = subprocess.Popen(command, cwd=tmp_path, env=environment(), stdout=terminal, stderr=subprocess.PIPE)
    os.close(terminal)
    threading.Thread(target=read_all, args=(ours, []), daemon=True).start()  # one that nobody reads fills up
    _, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    same_end(only_run(uninterrupted), tmp_path / "run")
    metrics = json.loads(record.read_text())["metrics"]
    assert metrics["best"] == entries["metrics"]["best"]
    assert metrics["final"].keys() == entries["metrics"]["final"].keys()


@pytest.mark.slow
def test_a_word_that_is_wrong_for_a_stored_run_changes_nothing_of_it(uninterrupted: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    shutil.copytree(only_run(uninterrupted), folder)
    before = {file: (folder / file).read_bytes() for file in ("run.json", "config.yaml", "metrics.jsonl")}
    for word, right in (
        ("trainer.max_epochs=0", "at least 1"),
        ("trainer.max_epochs=2", "3 or more"),
        ("trainer.max_time=soon", "HH:MM:SS"),
        ("logger.name=tensorbord", "tensorboard"),
        ("seed=1", "seed cannot change"),
        ("data.encoding=bytes", "data.encoding cannot change"),
    ):
        (message,) = refused_here(f"resume={folder}", word, f"data.path={uninterrupted / 'text.txt'}", cwd=tmp_path)
        assert right in message
    for name in ("last.ckpt", "previous.ckpt"):
        (folder / "checkpoints" / name).unlink()
    words = ("trainer.max_epochs=9", f"data.path={uninterrupted / 'text.txt'}")
    (message,) = refused_here(f"resume={folder}", *words, cwd=tmp_path)
    assert "is done and has no last.ckpt" in message
    assert (folder / "checkpoints" / "best.ckpt").exists()
    assert {file: (folder / file).read_bytes() for file in before} == before


@pytest.mark.slow
def test_a_finished_run_is_left_as_it_is_unless_a_step_is_asked_for_and_an_ended_schedule_is_told(
    uninterrupted: Path, tmp_path: Path
) -> None:
    folder, text = tmp_path / "run", f"data.path={uninterrupted / 'text.txt'}"
    shutil.copytree(only_run(uninterrupted), folder)
    kept = [file for file in sorted(folder.rglob("*")) if file.is_file() and file.name != "train.log"]
    before = [(file, file.read_bytes()) for file in kept]
    assert "is done and left as it is" in run(f"resume={folder}", text, "runs=elsewhere", cwd=tmp_path)
    assert [(file, file.read_bytes()) for file in kept] == before
    printed = run(f"resume={folder}", text, "trainer.max_epochs=4", cwd=tmp_path)
    assert "the schedule ends at step" in printed
    assert "its last rate is 0" in printed
