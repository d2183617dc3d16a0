"""src.train that dies at a write: `UNROLL_KILL=7 before` ends the process at once before its seventh write.

A write is a call of os.replace, os.link, os.fsync or shutil.copyfile. `0 before` kills nothing and prints their number.
"""

from __future__ import annotations

import atexit
import os
import runpy
import shutil
import sys
from collections.abc import Callable
from typing import Any

number, when = os.environ["UNROLL_KILL"].split()
calls = 0


def counted(write: Callable[..., Any]) -> Callable[..., Any]:
    def call(*arguments: Any, **options: Any) -> Any:
        global calls
        calls += 1
        mine = calls == int(number)
        if mine and when == "before":
            os._exit(137)  # as SIGKILL: no buffer is written, no block left in order
        result = write(*arguments, **options)
        if mine:
            os._exit(137)
        return result

    return call


for module, name in ((os, "replace"), (os, "link"), (os, "fsync"), (shutil, "copyfile")):
    setattr(module, name, counted(getattr(module, name)))
sys.argv[0] = "src.train"
atexit.register(lambda: print("writes:", calls))
runpy.run_module("src.train", run_name="__main__")
