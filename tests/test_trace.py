"""How far a reader has to go: a training run enters at most 25 files of src/ after its configuration is composed.

23 with model=cell, whose backpropagation is torch's. Without callbacks it imports no library that it does not use.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.runs.commands import ROOT, environment

TRACED = """
import sys
import threading
from src import train

source, entered, compose_and_run = sys.argv.pop(1), {}, train.compose_and_run


def imports(frame):
    while frame.f_back and not (frame.f_code.co_name == "<module>" and "importlib" in frame.f_back.f_code.co_filename):
        frame = frame.f_back
    return frame.f_back is not None


def profile(frame, event, argument):
    file = frame.f_code.co_filename
    if event == "call" and file.startswith(source) and file not in entered and not imports(frame):
        entered[file] = None


def traced(name, schema, task, *rest):
    def run(config):
        threading.setprofile(profile)
        sys.setprofile(profile)
        task(config)
        sys.setprofile(None)

    compose_and_run(name, schema, run, *rest)


train.compose_and_run = traced
train.main()
print("IMPORTED", *(name for name in ("torch", "matplotlib", "scipy", "pandas") if name in sys.modules))
print("ENTERED", *(file.removeprefix(source) for file in entered), sep="\\n")
"""


@pytest.mark.slow
def test_a_run_enters_at_most_25_files(tmp_path: Path) -> None:
    (tmp_path / "x").write_text("the cat sat on a mat\n" * 40)
    small = ["model.hidden_size=4", "trainer.max_epochs=1", "data.batch_size=2", "callbacks=none"]
    arguments = [f"{ROOT}/src{os.sep}", "data=text", "data.path=x", *small]
    done = subprocess.run(
        [sys.executable, "-c", TRACED, *arguments], cwd=tmp_path, env=environment(), capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert "\nIMPORTED torch\n" in done.stdout
    files = done.stdout.partition("ENTERED\n")[2].split()
    print(len(files), *files, sep="\n")
    assert 10 < len(files) <= 25
