"""The cache folder, and files in it that are whole or not there at all.

UNROLL_CACHE, else the user's cache folder / unroll
    corpora/      what was downloaded, and unpacked
    encoded/      texts as ids, by content and options
    remembered/   the sha256 of a file of this path, size and time of change
    baselines/    what an n-gram scores
"""

from __future__ import annotations

import contextlib
import glob
import json
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from src import paths

STALE = 3600.0  # seconds without a byte after which a piece of a file is no one's


def folder() -> Path:
    """The cache folder: UNROLL_CACHE, else the place this system has for such things."""
    if own := os.environ.get("UNROLL_CACHE"):
        return paths.given(own)
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local") / "unroll" / "Cache"
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "unroll"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "unroll"


@contextlib.contextmanager
def whole(path: Path) -> Iterator[BinaryIO]:
    """A file to write and read that stands at `path` only when the block ends well, in place of one that stood there.

    Where the system can, it has no name until then, so that not even a killed process leaves a piece behind.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    nameless = getattr(os, "O_TMPFILE", 0)
    if nameless:
        try:
            handle = os.open(path.parent, nameless | os.O_RDWR, 0o644)
        except OSError:
            nameless = 0  # some network and overlay file systems cannot
    if nameless:
        with open(handle, "w+b") as stream:
            yield stream
            stream.flush()
            _name(handle, path)
        return
    for stale in path.parent.glob(f".{glob.escape(path.name)}.*.part"):  # of a process that was killed
        with contextlib.suppress(OSError):
            if time.time() - stale.stat().st_mtime > STALE:
                stale.unlink()
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".part", dir=path.parent)
    try:
        with open(handle, "w+b") as stream:
            yield stream
        os.replace(name, path)
    finally:
        Path(name).unlink(missing_ok=True)


def _name(handle: int, path: Path) -> None:
    """Give the nameless open file its name; os.link follows the /proc entry only where a directory handle is given."""
    directory = os.open(path.parent, os.O_RDONLY)
    try:
        while True:
            try:
                os.link(f"/proc/self/fd/{handle}", path, src_dir_fd=directory, follow_symlinks=True)
                return
            except FileExistsError:
                path.unlink(missing_ok=True)
    finally:
        os.close(directory)


@contextlib.contextmanager
def alone(directory: Path) -> Iterator[None]:
    """One process at a time in this block, by a lock on the folder that ends with its process and leaves no file.

    Where there are no such locks two processes do the same work twice; `whole` keeps what they write sound.
    """
    try:
        import fcntl
    except ImportError:
        yield
        return
    handle = os.open(directory, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError):
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def read_json(path: Path) -> Any:
    """What stands in a JSON file, or None where there is none that can be read."""
    try:
        return json.loads(path.read_text("utf-8"))
    except (OSError, ValueError):
        return None


def write_json(path: Path, content: Any) -> None:
    """Write a JSON file whole; a cache that cannot be written is no error, only no help."""
    with contextlib.suppress(OSError), whole(path) as stream:
        stream.write(json.dumps(content).encode())
