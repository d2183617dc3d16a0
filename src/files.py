"""Files: one atomic write, one lock, one JSON writer. Everything that Unroll writes goes through here.

What a file system may lack (hard links, locks, fsync) is used where it is there and replaced or left out where not.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import glob
import json
import logging
import math
import os
import shutil
import socket
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

log = logging.getLogger(__name__)
NO_LOCKS = (errno.ENOSYS, errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP)
LACKING = (errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EPERM, errno.EXDEV)


def user_path(path: str | Path) -> Path:
    """Return a path as a user writes it: `~` is the home folder; `~nobody`, where there is no such user, is a name."""
    return Path(os.path.expanduser(path))  # Path.expanduser raises RuntimeError for ~nobody


def absolute_path(path: str) -> str:
    """Return an absolute path; a glob stays one, whatever characters the working directory has in its name."""
    given = str(user_path(path))
    is_glob = glob.has_magic(given) and not os.path.exists(given)
    return os.path.normpath(os.path.join(glob.escape(os.getcwd()) if is_glob else os.getcwd(), given))


@contextlib.contextmanager
def atomic_file(path: Path) -> Iterator[Path]:
    """Yield a temporary path to write to; at the end of the block it replaces `path` at once.

    A reader sees the old file or the new one, never a part. After an error the temporary file is removed and the old
    file is as it was. A process that is killed leaves `.<name>.<pid>` behind, which `remove_leftovers` finds.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        yield temporary
        sync(temporary)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_atomic(path: Path, content: str | bytes) -> None:
    """Replace the content of a file at once; of text, lone surrogates are written as escapes."""
    data = content if isinstance(content, bytes) else content.encode("utf-8", "backslashreplace")
    with atomic_file(path) as temporary:
        temporary.write_bytes(data)


def sync(path: Path) -> None:
    """Wait until a file is on the disk, where the file system can say so."""
    with path.open("rb") as file:
        try:
            os.fsync(file.fileno())
        except OSError as error:
            if error.errno not in LACKING:
                raise


def link_or_copy(source: Path, target: Path) -> None:
    """Give a file a second name in place of `target`, at once; a copy where there are no hard links."""
    with atomic_file(target) as temporary:
        try:
            os.link(source, temporary)
        except OSError as error:
            if error.errno not in LACKING:
                raise
            shutil.copyfile(source, temporary)


def remove_leftovers(folder: Path, names: str = "*") -> None:
    """Delete the temporary files of processes that are gone: `.<name>.<pid>` for names that match the pattern."""
    for file in folder.glob(f".{names}.*"):
        pid = file.name.rpartition(".")[2]
        if pid.isdecimal() and not is_alive(int(pid)):
            file.unlink(missing_ok=True)


def is_alive(pid: Any) -> bool:
    """Whether this machine has a process of that number."""
    try:
        os.kill(int(pid), 0)
    except PermissionError:
        return True
    except (OSError, TypeError, ValueError, OverflowError):
        return False
    return True


def boot_id() -> str:
    """Return what identifies this start of the machine: a process id means nothing after a reboot."""
    path = Path("/proc/sys/kernel/random/boot_id")
    return path.read_text().strip() if path.exists() else ""


def this_process() -> dict[str, Any]:
    """Return what identifies this process."""
    return {"pid": os.getpid(), "boot": boot_id(), "host": socket.gethostname()}


def process_ended(process: Mapping[str, Any]) -> bool:
    """Whether a process of this machine has ended; one of another machine cannot be seen and counts as running."""
    here = process.get("host") == socket.gethostname()
    return here and (process.get("boot") not in (boot_id(), None) or not is_alive(process.get("pid")))


@contextlib.contextmanager
def lock(path: Path, *, wait: bool = False) -> Iterator[bool]:
    """Hold a lock file for this process; yield False if another process holds it and `wait` is false.

    The system releases it when the process ends, however it ends. A file system without locks is reported once, and
    then nobody holds any: a marker file in its place would outlive a killed process.
    """
    import filelock

    own = filelock.FileLock(path, timeout=-1 if wait else 0, fallback_to_soft=False)
    held = True
    try:
        own.acquire()
    except filelock.Timeout:
        held = False
    except OSError as error:
        if error.errno not in NO_LOCKS:
            raise
        _report_no_locks(path.parent)
    try:
        yield held
    finally:
        own.release()


@functools.cache
def _report_no_locks(folder: Path) -> None:
    log.warning("%s: this file system has no locks; do not start a second process on the same run here", folder)


def to_json(value: Any, indent: int | None = None, ascii: bool = False) -> str:
    """Return plain data as JSON, with null for a number that is not finite (a perplexity of e^1000, say)."""
    return json.dumps(_finite(value), indent=indent, ensure_ascii=ascii, allow_nan=False)


def write_json(path: Path, value: Any, indent: int | None = 2) -> None:
    """Replace a JSON file at once."""
    write_atomic(path, to_json(value, indent) + "\n")


def read_json(path: Path) -> Any:
    """Return what a JSON file holds.

    Raises:
        OSError, ValueError: there is none, or it is not JSON.
    """
    return json.loads(path.read_text(encoding="utf-8"))


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _finite(below) for key, below in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(below) for below in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
