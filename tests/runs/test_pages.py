"""Every command and code block of README.md and docs/tutorial.md runs, with its training shortened by debug=fast."""

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

from tests.runs.commands import ROOT, SHARED_DATA, environment, refused, run

pytestmark = pytest.mark.slow

README = (ROOT / "README.md").read_text(encoding="utf-8")
PAGES = README + (ROOT / "docs" / "tutorial.md").read_text(encoding="utf-8")  # the other pages have tests of their own
COMMAND = re.compile(r"^ *(\$ )?python -m (src\.\w+) (.*?)(?: +# .*)?$", re.MULTILINE)  # `$`: output follows
OWN_TESTS = ("src.search", "src.benchmark", "src.export", "src.study")  # they need extras, or other tests run them
COMMANDS = sorted({match.groups("") for match in COMMAND.finditer(PAGES) if match[2] not in OWN_TESTS})
SWEPT = ("model=manual", "model.init=torch,orthogonal", "trainer.gradient_clip_val=1,null", "seed=0,1")
TEXT = "To: It was the best of times, it was the worst of times ROMEO: to be, or not to be. def leaf(self): pass\n" * 40


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with two sweeps and a small run on a text; each command gets a copy of it."""
    folder = tmp_path_factory.mktemp("trained")
    for name in ("my.txt", "letter.txt", "other.txt"):
        (folder / name).write_text(TEXT)
    (folder / "docs/pictures").mkdir(parents=True)
    small = ("data=text", "data.path=my.txt", "model.hidden_size=8", "trainer.max_epochs=1", "callbacks=none")
    run("-m", "name=init_clip", *small, *SWEPT, cwd=folder)
    run("-m", "name=three", *small, "model=cell,stacked,manual", cwd=folder)
    run(*small, "model=manual", cwd=folder)
    return folder


@pytest.fixture
def folder(trained: Path, tmp_path: Path) -> Path:
    return shutil.copytree(trained, tmp_path, dirs_exist_ok=True)


@pytest.mark.parametrize(("prompt", "module", "rest"), COMMANDS, ids=[command[2][:60] for command in COMMANDS])
def test_a_command_of_a_page_runs(prompt: str, module: str, rest: str, folder: Path) -> None:
    arguments = shlex.split(rest)
    if prompt:
        printed = README.partition(f"$ python -m {module} {rest}\n")[2].partition("\n\n")[0]
        assert refused(*arguments, cwd=folder, module=module) == [line.strip() for line in printed.splitlines()]
        return
    if module == "src.train" and not arguments[0].startswith(("resume=", "rerun=")):
        one_figure = ["callbacks.confusions.enabled=true"] * ("callbacks.save_figures=true" in arguments)
        arguments = [*arguments, "debug=fast", "callbacks=none", *one_figure]  # all figures take seconds of each run
        for long, short in (("budget=30s", "budget=20s"), ("=16,64", "=16"), ("seed=0,1,2", "seed=0")):
            arguments = [argument.replace(long, short) for argument in arguments]
    if "tiny_shakespeare" in rest or "data=time_machine" in rest:
        if not SHARED_DATA.exists():
            pytest.skip("the corpora are not beside this checkout (../shared/data)")
        arguments += [f"data.root={SHARED_DATA}", "model.hidden_size=8"]
    one = next(folder.glob("runs/text_manual/*")).relative_to(folder)
    arguments = [argument.replace("runs/...", str(one)) for argument in arguments]
    if "trainer.accelerator=gpu" in arguments and not torch.cuda.is_available():
        assert "gpu" in refused(*arguments, cwd=folder, module=module)[0]
    else:
        run(*arguments, cwd=folder, module=module, timeout=300)


def test_the_readme_shows_what_make_train_prints(tmp_path: Path) -> None:
    printed = run("seed=2", cwd=tmp_path)
    (shown,) = re.findall(r"^    cell on hello.*?\n\n", README, re.MULTILINE | re.DOTALL)
    for line in shown.replace("...\n", "").splitlines():
        pattern = re.escape(line.strip()).replace("<date>_<time>_<id>", r"[\w-]+")
        assert re.search(f"^{pattern}$", printed, re.MULTILINE), line


def test_the_python_lines_of_the_readme_run(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (block,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    block = block.replace("runs/...", str(next(folder.glob("runs/text_manual/*"))))
    block = block.replace('"data.path=my.txt"', '"data.path=my.txt", "trainer.max_epochs=1", "callbacks=none"')
    monkeypatch.chdir(folder)
    exec(block, {})  # noqa: S102  # our own page
    out = capsys.readouterr().out
    assert "ROMEO:" in out
    bits, nats = map(float, re.findall(r"^\d+\.\d+$", out, re.MULTILINE))
    assert 0 < nats < bits < 12
    assert re.search(r"^manual +\d", out, re.MULTILINE)  # a row of the runs


@pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")
def test_make_tensorboard_prints_its_address_and_stops_after_ctrl_c(folder: Path) -> None:
    for name in ("Makefile", "requirements.lock"):
        shutil.copy(ROOT / name, folder)
    (folder / ".venv" / "bin").mkdir(parents=True)
    (folder / ".venv" / "bin" / "python").write_text(f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')
    (folder / ".venv" / "bin" / "python").chmod(0o755)
    for stamp in ("bin/pip", ".installed-run"):
        (folder / ".venv" / stamp).touch()  # newer than the lock: nothing has to be installed
    process = subprocess.Popen(
        ["make", "tensorboard", "ARGS=--port=0"], cwd=folder, text=True, start_new_session=True,
        env={key: value for key, value in environment().items() if not key.startswith(("MAKE", "MFLAGS"))},
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    watchdog = threading.Timer(90, os.killpg, (process.pid, signal.SIGKILL))
    watchdog.start()
    try:
        found = (re.search(r"http://localhost:\d+/", line) for line in process.stdout or ())
        address = next((match[0] for match in found if match), None)
        assert address, "TensorBoard ended without printing an address"
        with urllib.request.urlopen(f"{address}data/runs", timeout=30) as answer:
            assert answer.status == 200
        os.killpg(process.pid, signal.SIGINT)  # as a terminal does: to make and to its child
        process.communicate()
    finally:
        watchdog.cancel()
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
    with pytest.raises(OSError, match="refused"):
        urllib.request.urlopen(address, timeout=5)
