"""Whole commands as a user gives them: processes started, watched and killed."""

from __future__ import annotations

import atexit
import functools
import importlib
import os
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from src.errors import UserError
from tests.command_server import CommandServer, Started

ROOT = Path(__file__).resolve().parents[2]
# With data=text: the plain training that other texts have, for what its recipe would hide
PLAIN = ["budget=null", "data.offset=fixed", "optimizer=adam", "scheduler=none", "trainer.gradient_clip_val=1.0"]
SHARED_DATA = ROOT.parent / "shared" / "data"


def environment(**more: str) -> dict[str, str]:
    """One thread each: several processes with several threads stall one another."""
    return {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), **more}


def last_of_each(words: Sequence[str]) -> list[str]:
    """Return the words of a command line with the last value of each key: so tests change their shared words."""
    keyed = {word if word.startswith("file=") else word.partition("=")[0]: word for word in words}
    return list(keyed.values())


def start(*words: str, cwd: Path, module: str = "src.train", **more: str) -> Started:
    """Start a command in a folder, its output piped; the test goes on beside it."""
    return server().start(module, last_of_each(words), cwd, environment(**more))


def wait_until(holds: Callable[[], object], process: Started, seconds: float = 180) -> None:
    """Wait until something holds, while a command that was started goes on."""
    deadline = time.monotonic() + seconds
    while not holds():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline, "it took too long"
        time.sleep(0.02)


def run(*words: str, cwd: Path, module: str = "src.train", code: int = 0, timeout: float = 120, **more: str) -> str:
    """Run a command to its end, hold it to its exit code, and return what it printed on stdout."""
    ended = server().run(module, last_of_each(words), cwd, environment(**more), timeout)
    assert ended.code == code, f"exit code {ended.code}, expected {code}\n{ended.out}\n{ended.err}"
    return ended.out


def refused(*words: str, cwd: Path, module: str = "src.train", code: int = 2, **more: str) -> list[str]:
    """Run a command that must be refused, and return the lines it printed on stderr: no traceback among them."""
    ended = server().run(module, last_of_each(words), cwd, environment(**more))
    assert ended.code == code, f"exit code {ended.code}, expected {code}\n{ended.err}"
    assert "Traceback" not in ended.err
    return ended.err.splitlines()


@functools.cache
def server() -> CommandServer:
    """Return the server of this test process, which starts with the first command."""
    started = CommandServer()
    atexit.register(started.close)
    return started


def refused_here(*words: str, cwd: Path, module: str = "src.train") -> list[str]:
    """Run a command that must be refused in this process, and return the lines about it."""
    with pytest.MonkeyPatch.context() as given:
        given.chdir(cwd)
        given.setattr(sys, "argv", [module, *last_of_each(words)])
        with pytest.raises(UserError) as refusal:
            importlib.import_module(module).main()
    return list(refusal.value.messages)


def only_run(folder: Path) -> Path:
    """The one run below a folder."""
    (record,) = folder.rglob("run.json")
    return record.parent


def scalars(run_folder: Path) -> dict[str, list[tuple[int, float]]]:
    """What TensorBoard reads back: {tag: [(step, value), ...]}."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(run_folder), size_guidance={"scalars": 0})
    events.Reload()
    return {tag: [(e.step, e.value) for e in events.Scalars(tag)] for tag in events.Tags()["scalars"]}
