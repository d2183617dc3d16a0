"""Moving an old attempt out of a job's keyed folder, and holding a job for one process at a time."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

from src.training.run import new_folder


def move_aside(folder: Path) -> Path:
    """Move a folder to `.earlier/<its key>/<date>_<time>_<id>` beside it, whole, and return where it lies now.

    The name begins with a dot, so that neither a report nor the next sweep takes it for a run of the sweep.
    """
    place = new_folder(folder.parent / ".earlier" / folder.name)
    os.replace(folder, place)  # onto an empty folder: one step, nothing is copied, nothing can be half there
    return place


@contextlib.contextmanager
def claimed(folder: Path) -> Iterator[bool]:
    """Hold a job for this process; yield False where another process holds it.

    The system lets go when the process ends, however it ends. Where the file system knows no locks, nobody holds any.
    """
    locks = folder.parent / ".locks"
    locks.mkdir(parents=True, exist_ok=True)
    with (locks / folder.name).open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            yield error.errno not in (errno.EWOULDBLOCK, errno.EACCES)
        else:
            yield True
