"""Many commands, one import of torch: `python -m src.X ...` runs in forks of a process that has the libraries loaded.

Each command is a process of its own, with its own folder, environment, arguments and exit code. Commands that are
killed, or that start processes of their own, are started by `subprocess` instead (tests/runs/commands.py).
"""

from __future__ import annotations

import contextlib
import gc
import json
import os
import runpy
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[1]


class Ended(NamedTuple):
    """How a command ended: its exit code, and what it printed."""

    code: int
    out: str
    err: str


class CommandServer:
    """The process that forks. It runs one command at a time."""

    def __init__(self) -> None:
        self.scratch = tempfile.TemporaryDirectory()
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
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        request = [self.scratch.name, str(folder), environment, timeout, module, *arguments]
        self.process.stdin.write(json.dumps(request) + "\n")
        self.process.stdin.flush()
        code = json.loads(self.process.stdout.readline())
        out, err = ((Path(self.scratch.name) / name).read_text(errors="backslashreplace") for name in ("out", "err"))
        if code == -signal.SIGKILL:
            raise TimeoutError(f"{module} {' '.join(arguments)}: killed after {timeout} s\n{out}\n{err}")
        return Ended(code, out, err)

    def close(self) -> None:
        """End the process."""
        self.process.communicate(timeout=10)
        self.scratch.cleanup()


def serve() -> None:
    """Read commands, a line each, fork for each of them, and answer with its exit code when it has ended."""
    gc.disable()
    import hydra
    import lightning.pytorch
    import tensorboard.compat.proto.event_pb2
    import torch.utils.tensorboard
    import torchmetrics
    import yaml

    del hydra, lightning, tensorboard, torch, torchmetrics, yaml
    gc.enable()
    gc.freeze()  # the collector need not look at millions of objects that stay
    for line in sys.stdin:
        scratch, folder, environment, timeout, module, *arguments = json.loads(line)
        if child := os.fork():
            print(wait_for(child, timeout), flush=True)
            continue
        os.chdir(folder)
        os.environ.clear()
        os.environ.update(environment)
        os.setpgid(0, 0)
        for descriptor, file, how in (
            (0, os.devnull, os.O_RDONLY),
            (1, f"{scratch}/out", os.O_WRONLY | os.O_CREAT | os.O_TRUNC),
            (2, f"{scratch}/err", os.O_WRONLY | os.O_CREAT | os.O_TRUNC),
        ):
            os.dup2(os.open(file, how), descriptor)
        sys.stdin = open(0, closefd=False)  # noqa: SIM115  # what the parent has read ahead is not the command's
        sys.argv = [module, *arguments]
        sys.path[0] = folder
        runpy.run_module(module, run_name="__main__", alter_sys=True)
        return


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
