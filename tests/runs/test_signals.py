"""Signals: what was asked to stop has saved, says so, and can go on."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tests.runs.commands import environment, only_run, refused, run, server, start, wait_until
from tests.runs.test_resume import UNWATCHED as WORDS

pytestmark = pytest.mark.slow
SOAKED = pytest.param(signal.SIGHUP, 129, marks=pytest.mark.soak)


@pytest.fixture
def text(tmp_path: Path) -> Path:
    (tmp_path / "text.txt").write_text("to be or not to be, that is the question. " * 25)
    return tmp_path


def started(folder: Path, *words: str):  # type: ignore[no-untyped-def]
    """A run that is under way: it has written a line of metrics."""
    process = start(*WORDS, *words, cwd=folder)
    wait_until(lambda: list(folder.rglob("metrics.jsonl")), process)
    return process


def status(folder: Path) -> str:
    return str(json.loads((only_run(folder) / "run.json").read_text())["status"])


@pytest.mark.parametrize(("signum", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130), SOAKED])
def test_a_run_that_is_told_to_stop_saves_and_goes_on_later(text: Path, signum: int, code: int) -> None:
    process = started(text, "trainer.max_epochs=100")
    process.send_signal(signum)
    out, err = process.communicate(timeout=60)
    assert process.returncode == code, err
    assert "Traceback" not in err
    assert f"resume={only_run(text).relative_to(text)}" in out
    assert status(text) == "stopped"
    step = json.loads((only_run(text) / "run.json").read_text())["steps"]
    assert step > 0
    if signum == signal.SIGTERM:
        assert f"at step {step}" in run(f"resume={only_run(text)}", "trainer.max_time=00:00:01", cwd=text)
        assert status(text) == "done"  # by the time given


def test_ctrl_c_while_the_program_is_imported_prints_no_traceback(tmp_path: Path) -> None:
    command = [sys.executable, "-X", "importtime", "-m", "src.train"]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stderr=pipe, text=True, cwd=tmp_path, env=environment()) as process:
        assert process.stderr is not None
        assert any("src.errors" in line for line in process.stderr)  # a line is printed as it is imported
        process.send_signal(signal.SIGINT)
        assert "Traceback" not in process.stderr.read()
    assert process.returncode == -signal.SIGINT


def test_a_preempted_run_saves_and_goes_on_and_no_second_process_may_have_its_folder(text: Path) -> None:
    process = started(text, "trainer.max_epochs=5000", "checkpoint.every_n_steps=null")
    (message,) = refused(f"resume={only_run(text)}", cwd=text)
    assert "another process" in message
    last = only_run(text) / "checkpoints" / "last.ckpt"
    before = last.stat().st_mtime_ns if last.exists() else 0
    process.send_signal(signal.SIGUSR1)
    wait_until(lambda: last.exists() and last.stat().st_mtime_ns != before, process)
    assert process.poll() is None
    assert status(text) == "running"
    process.kill()
    process.communicate()


def test_a_torn_checkpoint_is_told_and_the_one_before_it_is_used(text: Path) -> None:
    run(*WORDS, "trainer.max_epochs=1", cwd=text)
    folder = only_run(text)
    last = folder / "checkpoints" / "last.ckpt"
    whole = last.read_bytes()
    record = json.loads((folder / "run.json").read_text())
    for torn in (whole[: len(whole) // 2], bytes([*whole[:5000], whole[5000] ^ 1, *whole[5001:]])):
        (folder / "run.json").write_text(json.dumps(record | {"status": "running"}))
        last.write_bytes(torn)
        ended = server().run("src.train", [f"resume={folder}"], text, environment(), 60)
        assert ended.code == 0, ended.err
        assert "last.ckpt" in ended.err
        assert "going on from previous.ckpt" in ended.out
        assert (folder / "checkpoints" / "damaged.ckpt").read_bytes() == torn, "set aside, not lost, not kept as sound"


def test_validating_more_often_leaves_the_trained_weights_bit_identical(text: Path) -> None:
    weights = []
    for interval in ("1.0", "0.25"):
        folder = text / interval
        folder.mkdir()
        path = f"data.path={text / 'text.txt'}"
        run(*WORDS, path, "model=lstm", "trainer.max_epochs=1", f"trainer.val_check_interval={interval}", cwd=folder)
        last = only_run(folder) / "checkpoints" / "last.ckpt"
        weights.append(torch.load(last, weights_only=True)["state_dict"])
    assert all(torch.equal(a, b) for a, b in zip(weights[0].values(), weights[1].values(), strict=True))
