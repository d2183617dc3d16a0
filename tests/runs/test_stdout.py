"""What a run makes of a console that takes no more lines, and of two threads that write to it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from src import process as entry
from tests.runs.commands import environment, only_run

TRAIN = f"{sys.executable} -u -m src.train"
SHORT = "callbacks=none logger=none trainer.max_epochs=2"


def shell(command: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    whole = ["bash", "-c", f"set -o pipefail; {command}"]
    return subprocess.run(whole, cwd=cwd, env=environment(), capture_output=True, text=True, timeout=120, check=False)


@pytest.mark.slow
@pytest.mark.parametrize(("to", "code"), [("| head -n 1", 0), ("> /dev/full", 1)])
def test_without_a_console_a_run_trains_to_its_end_and_a_command_ends_in_one_line_at_most(
    to: str, code: int, tmp_path: Path
) -> None:
    done = shell(f"{TRAIN} {SHORT} {to}", tmp_path)
    assert done.returncode == 0, done.stderr
    assert json.loads((only_run(tmp_path) / "run.json").read_text())["status"] == "done"
    assert len(done.stderr.splitlines()) == code
    assert not done.stderr or "standard output takes no more lines" in done.stderr
    done = shell(f"{TRAIN} --cfg job {to}", tmp_path)
    assert done.returncode == code
    assert len(done.stderr.splitlines()) == code


def test_a_broken_pipe_that_is_not_standard_output_s_is_no_success(capfd: pytest.CaptureFixture[str]) -> None:
    def another_pipe() -> None:
        raise BrokenPipeError(32, "Broken pipe")

    with pytest.raises(SystemExit) as ended:
        entry.exit_with(another_pipe)
    assert ended.value.code == 1
    assert capfd.readouterr().err == "BrokenPipeError: [Errno 32] Broken pipe\n"
