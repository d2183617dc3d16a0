"""Files: one atomic write, one lock, one JSON writer. Everything that Unroll writes goes through here.

What a file system may lack (hard links, locks, fsync) is used where available, else replaced or left out.
"""

from __future__ import annotations

import contextlib
import errno
import glob
import json
import logging
import math
import os
import re
import shutil
import socket
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

log = logging.getLogger(__name__)
NO_FOLDER = Path(os.devnull)  # of a run's process with rank > 0, which writes nothing
DEPTH = 32  # the most levels of a stored file; ours have six
TOO_DEEP = f"it is nested deeper than {DEPTH} levels"
NO_LOCKS = (errno.ENOSYS, errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP)
DISK_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)  # EFBIG: the limit of this process, ulimit -f
RECORDS = ("run.json", "config.yaml", "metrics.jsonl", "metrics.csv", "train.log")
WITHOUT_LOCKS: set[int] = set()  # file systems, each reported once
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
    file is as it was. A process that is killed leaves `.<name>.<pid>` behind, which the next one removes.
    """
    remove_leftovers(path.parent, glob.escape(path.name))
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.unlink(missing_ok=True)  # of an earlier process with this number, or a link that somebody has put there
    try:
        yield temporary
        sync(temporary)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_result(path: str, content: str | bytes) -> None:
    """Write a file that a user has named; a link, a device or a pipe is written to, not replaced. OSError.

    What a run has recorded is not written over: another name is needed.
    """
    target = user_path(path)
    recorded = target.suffix == ".ckpt" or (target.name in RECORDS and (target.parent / "run.json").exists())
    if recorded and target.is_file():
        raise OSError(errno.EEXIST, "it belongs to a run", path)
    if target.is_symlink() or (target.exists() and not target.is_file()):
        target.write_bytes(content if isinstance(content, bytes) else content.encode("utf-8", "backslashreplace"))
    else:
        write_atomic(target, content)


def write_atomic(path: Path, content: str | bytes | memoryview, keep: Path | None = None) -> None:
    """Replace the content of a file at once; of text, lone surrogates are written as escapes.

    The file that is replaced is kept as `keep`: linked before, not moved, so that there is always a file at `path`.
    """
    data = content.encode("utf-8", "backslashreplace") if isinstance(content, str) else content
    try:
        with atomic_file(path) as temporary:
            temporary.write_bytes(data)
            if keep and path.exists():
                link_or_copy(path, keep)
    except OSError as error:
        if error.errno not in DISK_FULL:
            raise
        raise _with_numbers(error, path, f"{len(data):,} bytes are needed, ") from error


def disk_full(error: BaseException | None, folder: Path) -> OSError | None:
    """Return the error of a full disk, or of a limit on it, that is this error or has caused it; None without one."""
    while error is not None and not (isinstance(error, OSError) and error.errno in DISK_FULL):
        error = error.__cause__ or error.__context__
    return error if error is None or error.filename else _with_numbers(error, folder)


def _with_numbers(error: OSError, path: Path, needed: str = "") -> OSError:
    free = f"{shutil.disk_usage(path if path.is_dir() else path.parent).free:,} are free"
    free = "ulimit -f allows less" if error.errno == errno.EFBIG else free
    return OSError(error.errno, f"{error.strerror}: {needed}{free}", str(path))


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
    """Whether this machine has a process of that number; a zombie process does not count."""
    try:
        os.kill(int(pid), 0)
        state = Path(f"/proc/{int(pid)}/stat")
        return not state.exists() or state.read_bytes().rpartition(b") ")[2][:1] != b"Z"
    except PermissionError:
        return True
    except (OSError, TypeError, ValueError, OverflowError):
        return False


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
        if (device := path.parent.stat().st_dev) not in WITHOUT_LOCKS:
            WITHOUT_LOCKS.add(device)
            log.warning("%s: no locks on this disk; do not start a second process on the same run here", path.parent)
    try:
        yield held
    finally:
        own.release()


def to_json(value: Any, indent: int | None = None, ascii: bool = False) -> str:
    """Return plain data as JSON, with null for a number that is not finite (a perplexity of e^1000, say)."""
    return json.dumps(_finite(value), indent=indent, ensure_ascii=ascii, allow_nan=False)


def write_json(path: Path, value: Any, indent: int | None = 2) -> None:
    """Replace a JSON file at once."""
    write_atomic(path, to_json(value, indent) + "\n")


def read_text(path: Path, errors: str = "strict") -> str:
    """Return the text of a stored file. OSError for a folder, a device or a pipe, which is not waited for."""
    if path.exists() and not path.is_file():
        raise OSError(errno.EINVAL, "it is a folder, a pipe or a device, not a file", str(path))
    return path.read_text(encoding="utf-8", errors=errors)


def read_json(path: Path) -> Any:
    """Return what a JSON file holds; OSError if there is none, ValueError as in `parse_json`."""
    return parse_json(read_text(path))


def read_yaml(path: Path) -> Any:
    """Return what a YAML file of ours holds; OSError if there is none, ValueError as in `parse_yaml`."""
    return parse_yaml(read_text(path))


def parse_json(text: str) -> Any:
    """Return the content of a JSON text; ValueError if it is none, or nested deeper than anything of ours."""
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError(TOO_DEEP) from None


def parse_yaml(text: str) -> Any:
    """Return the data in a YAML text of ours; ValueError for no YAML, deep nesting, or an alias (may be gigabytes)."""
    import yaml

    # libyaml is ten times as fast, but refuses the escape of a lone surrogate: a file name that is not UTF-8
    fast = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    loader = yaml.SafeLoader if re.search(r"\\u[dD][89a-fA-F]", text) else fast
    depth = 0
    try:
        for event in yaml.parse(text, Loader=loader):  # before loading, which recurses: libyaml overruns the stack
            depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
            if isinstance(event, yaml.AliasEvent):
                raise ValueError(f"it has an alias (*{event.anchor}), which files of this program never have")
            if depth > DEPTH:
                raise ValueError(TOO_DEEP)
        return yaml.load(text, Loader=loader)
    except yaml.YAMLError as error:
        raise ValueError(" ".join(str(error).split())) from error


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _finite(below) for key, below in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(below) for below in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
