"""Every command and snippet of the pages that a newcomer reads runs, its training shrunk by debug=fast."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import threading
import urllib.request
from pathlib import Path

import pytest
import torch

from tests.runs.commands import ROOT, SHARED_DATA, environment, only_run, run

pytestmark = pytest.mark.slow

PAGES = [ROOT / "README.md", ROOT / "docs" / "tutorial.md"]  # the other pages of docs/ have tests of their own
TEXT = "To: It was the best of times, it was the worst of times, ROMEO: to be, or not to be. def leaf(self): pass\n" * 40


def commands_of(page: Path) -> list[str]:
    """The lines of a page that are commands of ours; a `$` before one is a prompt, whose answer is told below it."""
    lines = re.findall(r"^(?:    |\$ |    \$ )?(python -m src\.\w+.*)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return list(dict.fromkeys(line.strip() for line in lines))


COMMANDS = [(page, line) for page in PAGES for line in commands_of(page)]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small run on a text, made once; each command gets a copy of its folder."""
    folder = tmp_path_factory.mktemp("trained")
    (folder / "my.txt").write_text(TEXT)
    run("data=text", "data.path=my.txt", "model.hidden_size=8", "trainer.max_epochs=1", "model=manual", cwd=folder)
    return folder


@pytest.fixture
def here(trained: Path, tmp_path: Path) -> Path:
    shutil.copytree(trained / "runs", tmp_path / "runs")
    for name in ("my.txt", "letter.txt", "other.txt"):
        (tmp_path / name).write_text(TEXT)
    return tmp_path


def shrunk(line: str, here: Path) -> list[str]:
    """The words of a command, its placeholders filled in and its training made small."""
    words = shlex.split(line, comments=True)
    folder = str(only_run(here).relative_to(here))
    words = [word.replace("runs/...", folder) for word in words]
    stored = any(word.startswith(("resume=", "rerun=")) for word in words)
    if words[2] == "src.train" and not stored:
        words.append("debug=fast")
    if any("tiny_shakespeare" in word for word in words):
        if not SHARED_DATA.exists():
            pytest.skip("Tiny Shakespeare is not beside this checkout (../shared/data)")
        words.append(f"data.root={SHARED_DATA}")
    return words


@pytest.mark.parametrize(("page", "line"), COMMANDS, ids=[f"{page.name}: {line[:60]}" for page, line in COMMANDS])
def test_a_command_of_a_page_runs(page: Path, line: str, here: Path) -> None:
    words = shrunk(line, here)
    if words[2] in ("src.search", "src.benchmark", "src.export"):
        pytest.skip(f"{words[2]} has tests of its own, with its extras and its sizes")
    answer = page.read_text(encoding="utf-8").partition(f"$ {line}\n")[2]
    wrong = bool(answer) and "did you mean" in answer.partition("\n\n")[0]
    no_gpu = any(word.endswith("=gpu") for word in words) and not torch.cuda.is_available()
    done = subprocess.run(
        [sys.executable, *words[1:]], cwd=here, env=environment(), capture_output=True, text=True, timeout=300
    )
    assert done.returncode == (2 if wrong or no_gpu else 0), f"{done.stdout}\n{done.stderr}"
    assert "Traceback" not in done.stderr
    if wrong:
        told = [text.strip() for text in answer.partition("\n\n")[0].splitlines()]
        assert done.stderr.splitlines() == told


def test_the_python_lines_of_the_readme_run(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (block,) = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), re.DOTALL)
    code = block.replace("runs/...", str(only_run(here)))
    done = subprocess.run([sys.executable, "-c", code], cwd=here, env=environment(), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    *sampled, bits = done.stdout.splitlines()
    assert "ROMEO:" in "\n".join(sampled)
    assert 0 < float(bits) < 12


@pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")
def test_make_tensorboard_serves_the_runs_says_where_and_ends_with_ctrl_c(here: Path) -> None:
    for name in ("Makefile", "requirements.lock"):
        shutil.copy(ROOT / name, here)
    (here / ".venv" / "bin").mkdir(parents=True)
    (here / ".venv" / "bin" / "python").write_text(f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')
    (here / ".venv" / "bin" / "python").chmod(0o755)
    for stamp in ("bin/pip", ".installed-run"):
        (here / ".venv" / stamp).touch()  # newer than the lock: nothing is to be installed
    plain = {key: value for key, value in environment().items() if not key.startswith(("MAKE", "MFLAGS"))}
    process = subprocess.Popen(
        ["make", "tensorboard", "ARGS=--port=0"],
        cwd=here,
        env=plain,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    watchdog = threading.Timer(90, os.killpg, (process.pid, signal.SIGKILL))
    watchdog.start()
    try:
        found = (re.search(r"http://localhost:\d+/", line) for line in process.stdout or ())
        address = next((match[0] for match in found if match), None)
        assert address, "TensorBoard ended without an address"
        with urllib.request.urlopen(f"{address}data/runs", timeout=30) as answer:
            assert answer.status == 200
        os.killpg(process.pid, signal.SIGINT)  # as a terminal does: make and what it has started
        process.communicate()
    finally:
        watchdog.cancel()
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
    with pytest.raises(OSError, match="refused"):
        urllib.request.urlopen(address, timeout=5)
