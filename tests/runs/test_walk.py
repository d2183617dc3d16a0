"""docs/from_equations_to_a_model.md: every command and every line of Python on that page runs as it stands."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.runs.commands import ROOT, environment

PAGE = ROOT / "docs" / "from_equations_to_a_model.md"
BOX = re.compile(r"^```(\w+)\n(.*?)^```", re.MULTILINE | re.DOTALL)


def boxes(language: str) -> list[str]:
    return [code for kind, code in BOX.findall(PAGE.read_text(encoding="utf-8")) if kind == language]


def shrunk(commands: str) -> str:
    """The same commands, training for one window only."""
    return commands.replace("python -m src.train", "python -m src.train debug=fast trainer.threads=1")


@pytest.mark.slow
def test_every_box_of_the_page_runs(tmp_path: Path) -> None:
    bash = "set -euo pipefail\n" + shrunk("\n".join(boxes("bash")))
    python = f'python() {{ "{sys.executable}" "$@"; }}\n'
    done = subprocess.run(
        ["bash", "-c", python + bash], cwd=tmp_path, env=environment(), capture_output=True, text=True, timeout=500
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    for promised in ("loss=", "ngram_5", "the same weights as stacked", "bits a character", '"continuation"', "step.pt2"):
        assert promised in done.stdout + done.stderr, promised
    assert (tmp_path / "page.html").is_file()

    program = "\n".join(boxes("python"))
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, env=environment(), capture_output=True, text=True, timeout=200
    )
    assert done.returncode == 0, done.stderr
    for promised in ("largest difference:", "agree", "The for statement", "perplexity"):
        assert promised in done.stdout


def test_the_page_has_a_box_for_each_of_the_commands_that_use_a_model() -> None:
    commands = "\n".join(boxes("bash"))
    for entry in ("train", "evaluate", "score", "sample", "export"):
        assert f"python -m src.{entry} " in commands
