"""A module of src on a file system without hard links, locks and fsync, as some mounted and network drives are."""

from __future__ import annotations

import errno
import fcntl
import os
import runpy
import sys
from typing import Any


def lacking(code: int) -> Any:
    def call(*arguments: Any, **options: Any) -> None:
        raise OSError(code, os.strerror(code))

    return call


os.link, os.fsync, fcntl.flock = lacking(errno.EOPNOTSUPP), lacking(errno.EINVAL), lacking(errno.ENOLCK)
sys.argv[:2] = sys.argv[1:2]
runpy.run_module(sys.argv[0], run_name="__main__")
