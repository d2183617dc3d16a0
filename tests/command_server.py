"""Many commands, one import of torch: `python -m src.X ...` runs in forks of a process that has the libraries loaded.

Each command is a process of its own, with its own folder, environment, arguments and exit code. It is waited for
(`run`), or it goes on beside the test, which may stop or kill it (`start`).
"""

from __future__ import annotations

import atexit
import contextlib
import gc
import importlib
import json
import os
import runpy
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).resolve().parents[1]
# What commands import, but for the entries themselves; tests of what is not imported start a Python of their own
PRELOADED = ("src.training.run", "src.sweeps.sweep", "src.inference.evaluate", "src.inference.export",
             "src.diagnostics.text", "src.diagnostics.recurrence", "src.diagnostics.gradient_flow",
             "matplotlib.backends.backend_agg", "matplotlib.figure", "torch.utils.tensorboard",
             "tensorboard.compat.proto.event_pb2")  # fmt: skip


class Ended(NamedTuple):
    """How a command ended: its exit code, and what it printed."""

    code: int
    out: str
    err: str


class Started:
    """A command under way, used like a `subprocess.Popen`."""

    def __init__(self, server: CommandServer, pid: int, pipes: Sequence[str]) -> None:
        self.server, self.pid, self.args = server, pid, pid
        self.returncode: int | None = None
        self.printed = ["", ""]
        self.readers = [threading.Thread(target=self._read, args=each, daemon=True) for each in enumerate(pipes)]
        for reader in self.readers:
            reader.start()

    def _read(self, number: int, pipe: str) -> None:
        with open(pipe, errors="backslashreplace") as end:
            self.printed[number] = end.read()

    def poll(self) -> int | None:
        """Return the exit code, None while it runs."""
        if self.returncode is None:
            self.returncode = self.server.ask("ended", self.pid)
        return self.returncode

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def communicate(self, timeout: float = 120) -> tuple[str, str]:
        """Wait until nobody can write to its pipes any more; return what it printed.

        Raises:
            subprocess.TimeoutExpired: it took longer.
        """
        ends = time.monotonic() + timeout
        for reader in self.readers:
            reader.join(max(0.0, ends - time.monotonic()))
        while self.poll() is None and time.monotonic() < ends:
            time.sleep(0.01)
        if self.returncode is None or any(reader.is_alive() for reader in self.readers):
            raise subprocess.TimeoutExpired(str(self.pid), timeout)
        return self.printed[0], self.printed[1]


class CommandServer:
    """The process that forks."""

    def __init__(self) -> None:
        self.scratch, self.started = tempfile.TemporaryDirectory(), 0
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
        self.process = subprocess.Popen(
            [sys.executable, __file__], env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def run(
        self, module: str, arguments: Sequence[str], folder: Path, environment: dict[str, str], timeout: float = 120
    ) -> Ended:
        """Run a command to its end.

        Raises:
            TimeoutError: it took longer, and was killed.
        """
        pipes = [f"{self.scratch.name}/{name}" for name in ("out", "err")]
        code = self.ask("run", *pipes, str(folder), environment, timeout, module, *arguments)
        out, err = (Path(pipe).read_text(errors="backslashreplace") for pipe in pipes)
        if code == -signal.SIGKILL:
            raise TimeoutError(f"{module} {' '.join(arguments)}: killed after {timeout} s\n{out}\n{err}")
        return Ended(code, out, err)

    def start(self, module: str, arguments: Sequence[str], folder: Path, environment: dict[str, str]) -> Started:
        """Start a command, and return it while it runs."""
        self.started += 1
        pipes = [f"{self.scratch.name}/{name}{self.started}" for name in ("out", "err")]
        for pipe in pipes:
            os.mkfifo(pipe)
        return Started(self, self.ask("start", *pipes, str(folder), environment, 0, module, *arguments), pipes)

    def ask(self, *request: object) -> Any:
        """Return the server's answer to a request."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps(request) + "\n")
        self.process.stdin.flush()
        return json.loads(self.process.stdout.readline())

    def close(self) -> None:
        """End the process."""
        self.process.communicate(timeout=10)
        self.scratch.cleanup()


def serve() -> None:
    """Read requests, a line each, and answer them: `run` with the exit code, `start` with the process's number."""
    gc.disable()
    sys.path.insert(1, str(ROOT))
    from src.process import heavy_imports

    with heavy_imports():
        for module in PRELOADED:
            importlib.import_module(module)
    from src.config.compose import compose

    compose([])  # Hydra looks for its plugins, and remembers its grammar
    gc.enable()
    gc.set_threshold(100_000)  # as a command starts
    gc.freeze()  # the collector need not look at millions of objects that stay
    for line in sys.stdin:
        what, *request = json.loads(line)
        if what == "ended":
            done, status = os.waitpid(request[0], os.WNOHANG)
            print(json.dumps(os.waitstatus_to_exitcode(status) if done else None), flush=True)
            continue
        out, err, folder, environment, timeout, module, *arguments = request
        if child := os.fork():
            print(child if what == "start" else wait_for(child, timeout), flush=True)
            continue
        os.chdir(folder)
        os.environ.clear()
        os.environ.update(environment)
        os.setpgid(0, 0)
        for descriptor, file, how in (
            (0, os.devnull, os.O_RDONLY),
            (1, out, os.O_WRONLY | os.O_CREAT | os.O_TRUNC),
            (2, err, os.O_WRONLY | os.O_CREAT | os.O_TRUNC),
        ):
            os.dup2(os.open(file, how), descriptor)
        sys.stdin = open(0, closefd=False)  # noqa: SIM115  # what the parent has read ahead is not the command's
        sys.argv = [module, *arguments]
        sys.path[0] = folder
        code: Any = 0
        try:
            runpy.run_module(module, run_name="__main__", alter_sys=True)
        except SystemExit as end:
            code = end.code
        threading._shutdown()  # type: ignore[attr-defined]
        atexit._run_exitfuncs()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code or 0)  # as Python ends, but a million objects are not freed one by one: that takes half a second


def wait_for(child: int, timeout: float) -> int:
    """Return the exit code of a child; one that takes too long is killed with its process group."""
    ends, pause = time.monotonic() + timeout, 0.001
    while True:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        if time.monotonic() > ends:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(child, signal.SIGKILL)
        time.sleep(pause)
        pause = min(2 * pause, 0.02)


if __name__ == "__main__":
    serve()
