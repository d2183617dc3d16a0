"""docs/from_equations_to_a_model.md: every command and every line of Python on that page runs as printed."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.runs.commands import ROOT, environment

PAGE = (ROOT / "docs" / "from_equations_to_a_model.md").read_text(encoding="utf-8")


def code(language: str) -> str:
    """Return all code blocks of a language, joined."""
    return "\n".join(re.findall(rf"^```{language}\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL))


@pytest.mark.slow
def test_every_code_block_of_the_page_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    commands = code("bash").replace("python -m src.train", "python -m src.train debug=fast trainer.threads=1")
    script = f'set -euo pipefail\npython() {{ "{sys.executable}" "$@"; }}\n{commands}'
    done = subprocess.run(
        ["bash", "-c", script], cwd=tmp_path, env=environment(), capture_output=True, text=True, timeout=500
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    for expected in ("loss=", "ngram_5", '"continuation"', "step.pt2"):
        assert expected in done.stdout + done.stderr, expected
    assert (tmp_path / "page.html").is_file()

    monkeypatch.chdir(tmp_path)
    exec(code("python"), {})  # noqa: S102  # our own page
    printed = capsys.readouterr().out
    for expected in ("largest difference:", "agree", "The for statement", "perplexity"):
        assert expected in printed


def test_the_page_uses_each_of_the_commands_for_a_model() -> None:
    for entry in ("train", "evaluate", "score", "sample", "export"):
        assert f"python -m src.{entry} " in code("bash")
