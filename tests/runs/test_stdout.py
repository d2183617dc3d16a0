"""What a run makes of a console that takes no more lines, and of two threads that write to it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from src import process as entry
from tests.runs.commands import environment, only_run, server

SHORT = ("src.train", "callbacks=none", "logger=none", "trainer.max_epochs=2")


@pytest.mark.slow
@pytest.mark.parametrize(("to", "code"), [("| head -n 1", 0), ("> /dev/full", 1)])
def test_without_a_console_a_run_trains_to_its_end_and_a_command_ends_in_one_line_at_most(
    to: str, code: int, tmp_path: Path
) -> None:
    pipe, errors = tmp_path / "pipe", tmp_path / "errors"
    os.mkfifo(pipe)
    with subprocess.Popen(["head", "-n", "1", pipe] if code == 0 else ["true"], stdout=subprocess.DEVNULL):
        out = str(pipe) if code == 0 else "/dev/full"
        ended = server().ask("run", out, str(errors), str(tmp_path), environment(), 120, *SHORT)
    told = errors.read_text()
    assert ended == 0, told
    assert json.loads((only_run(tmp_path) / "run.json").read_text())["status"] == "done"
    assert len(told.splitlines()) == code
    assert not told or "standard output takes no more lines" in told
    # How Python itself ends is seen in a process of its own
    command = ["bash", "-c", f"set -o pipefail; {sys.executable} -u -m src.train --cfg job {to}"]
    done = subprocess.run(command, cwd=tmp_path, env=environment(), capture_output=True, text=True, timeout=120)
    assert done.returncode == code
    assert len(done.stderr.splitlines()) == code


def test_a_broken_pipe_that_is_not_standard_output_s_is_no_success(capfd: pytest.CaptureFixture[str]) -> None:
    def another_pipe() -> None:
        raise BrokenPipeError(32, "Broken pipe")

    with pytest.raises(SystemExit) as ended:
        entry.exit_with(another_pipe)
    assert ended.value.code == 1
    assert capfd.readouterr().err == "BrokenPipeError: [Errno 32] Broken pipe\n"
