"""What a run makes of a console that takes no more lines, and of two threads that write to it."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from pathlib import Path

import pytest

from src.config import compose as entry
from src.training import console as logs
from tests.runs.commands import environment, only_run

TRAIN = f"{sys.executable} -m src.train"


def shell(command: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    whole = ["bash", "-c", f"set -o pipefail; {command}"]
    return subprocess.run(whole, cwd=cwd, env=environment(), capture_output=True, text=True, timeout=120, check=False)


@pytest.mark.slow
@pytest.mark.parametrize(("to", "said"), [("| head -n 2", ""), ("> /dev/full", "standard output takes no more lines")])
def test_a_run_whose_console_is_gone_trains_to_its_end(to: str, said: str, tmp_path: Path) -> None:
    done = shell(f"{TRAIN} {to}", tmp_path)
    assert done.returncode == 0, done.stderr
    assert json.loads((only_run(tmp_path) / "run.json").read_text())["status"] == "done"
    assert len(done.stderr.splitlines()) == (1 if said else 0)
    assert said in done.stderr


@pytest.mark.slow
@pytest.mark.parametrize(("to", "code"), [("| head -n 1", 0), ("> /dev/full", 1)])
def test_a_command_whose_console_is_gone_ends_in_one_line_at_most(to: str, code: int, tmp_path: Path) -> None:
    done = shell(f"{sys.executable} -u -m src.train --cfg job {to}", tmp_path)
    assert done.returncode == code
    assert len(done.stderr.splitlines()) == code


def test_a_broken_pipe_that_is_not_standard_output_s_is_no_success(capfd: pytest.CaptureFixture[str]) -> None:
    def another_pipe() -> None:
        raise BrokenPipeError(32, "Broken pipe")

    with pytest.raises(SystemExit) as ended:
        entry.exit_with(another_pipe)
    assert ended.value.code == 1
    assert capfd.readouterr().err == "BrokenPipeError: [Errno 32] Broken pipe\n"


def test_a_line_is_written_in_one_piece(monkeypatch: pytest.MonkeyPatch) -> None:
    class Pieces(io.StringIO):
        pieces: list[str] = []

        def write(self, text: str) -> int:
            self.pieces.append(text)
            return len(text)

    monkeypatch.setattr(sys, "stdout", Pieces())
    logs.say("sweep: 1 of 2 done")
    assert Pieces.pieces == ["sweep: 1 of 2 done\n"]
