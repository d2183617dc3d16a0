"""docs/from_equations_to_a_model.md: every command and every line of Python on that page runs as printed."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from tests.runs.commands import ROOT, environment, run

PAGE = (ROOT / "docs" / "from_equations_to_a_model.md").read_text(encoding="utf-8")


def code(language: str) -> str:
    """Return all code blocks of a language, joined."""
    return "\n".join(re.findall(rf"^```{language}\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL))


@pytest.mark.slow
def test_every_code_block_of_the_page_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    printed, run_folder = "", ""
    for line in code("bash").splitlines():
        if line.startswith("python -m "):
            module, *arguments = shlex.split(line.replace("$RUN", run_folder))[2:]
            if module == "src.train":
                arguments = [argument for argument in arguments if not argument.startswith("trainer.max_epochs=")]
                arguments += ["debug=fast", "trainer.threads=1", "callbacks=none"]
            printed += run(*arguments, module=module, cwd=tmp_path, timeout=500)
        else:  # it sets RUN, writes a file or pipes
            set_up = f'set -euo pipefail; python() {{ "{sys.executable}" "$@"; }}; RUN={run_folder}'
            script = f'{set_up}\n{line}\necho "$RUN"'
            answer = subprocess.check_output(["bash", "-c", script], cwd=tmp_path, env=environment(), text=True)
            run_folder = answer.splitlines()[-1]
    for expected in ("ngram_5", '"continuation"', "step.pt2"):
        assert expected in printed, expected
    assert (tmp_path / "page.html").is_file()

    monkeypatch.chdir(tmp_path)
    exec(code("python"), {})  # noqa: S102  # our own page
    printed = capsys.readouterr().out
    for expected in ("largest difference:", "agree", "The for statement", "perplexity"):
        assert expected in printed
