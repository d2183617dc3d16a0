"""Many commands, one import of torch: `python -m src.X words...` run one by one in forks of a process that has it.

Each command is a process of its own, with its own arguments and exit code; only the libraries are loaded before.
"""

from __future__ import annotations

import atexit
import gc
import json
import os
import runpy
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


class Commands:
    """The process that forks; `run` gives it a command and waits for its end.

    Args:
        folder: where the commands run, and where texts fetched or encoded are kept.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        more = {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), "UNROLL_CACHE": str(folder / "cache")}
        self.process = subprocess.Popen(
            [sys.executable, __file__],
            env={**os.environ, **more},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def run(self, module: str, *words: str, code: int = 0) -> str:
        """Run a command to its end, hold it to its exit code, and return what it printed on stdout."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps([str(self.folder), module, *words]) + "\n")
        self.process.stdin.flush()
        found = json.loads(self.process.stdout.readline())
        out, err = ((self.folder / f".{name}").read_text() for name in ("out", "err"))
        assert found == code, f"{module} {' '.join(words)}: exit code {found}, expected {code}\n{out}\n{err}"
        return out

    def close(self) -> None:
        """End the process."""
        self.process.communicate(timeout=10)


def serve() -> None:
    """Read commands, a line each, and fork for each of them; answer its exit code when it has ended."""
    gc.disable()
    import hydra
    import lightning.pytorch
    import tensorboard.compat.proto.event_pb2
    import torch.utils.tensorboard
    import torchmetrics
    import yaml

    del hydra, lightning, tensorboard, torch, torchmetrics, yaml
    gc.enable()
    gc.freeze()  # the collector need not look at millions of objects that stay, in any command or at its end
    atexit.register(gc.freeze)
    for line in sys.stdin:
        folder, module, *words = json.loads(line)
        child = os.fork()
        if child == 0:
            os.chdir(folder)
            for descriptor, name, how in ((0, os.devnull, os.O_RDONLY), (1, ".out", 0), (2, ".err", 0)):
                file = os.open(name, how or os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
                os.dup2(file, descriptor)
            sys.stdin = open(0, closefd=False)  # noqa: SIM115  # what the parent has read ahead is not the command's
            sys.argv = [module, *words]
            sys.path[0] = folder
            runpy.run_module(module, run_name="__main__", alter_sys=True)
            return
        _, status = os.waitpid(child, 0)
        print(os.waitstatus_to_exitcode(status), flush=True)


if __name__ == "__main__":
    serve()
