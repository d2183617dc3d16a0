"""Work done in order in a second thread while the first goes on: hashing and writing let go of the interpreter."""

from __future__ import annotations

import contextlib
import errno
import glob
import hashlib
import json
import mmap
import os
import sys
import tempfile
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any, BinaryIO

import numpy as np

from src.data.text_reader import Counts, Piece, Rules, Source, pieces
from src.data.vocabulary import NO_CODE, Vocabulary
from src.files import user_path

AHEAD = 2  # calls that may wait; more did not help, and what waits long is no longer in the processor's cache


class Beside:
    """`call(f, *arguments)` runs f in the second thread, after all calls before it; leaving the block waits for them.

    At most `AHEAD` calls wait, so memory stays bounded. What a call raises is raised by a later one, or on leaving.
    """

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(1)
        self._pending: deque[Future[Any]] = deque()

    def call(self, function: Callable[..., Any], *arguments: Any) -> None:
        """Hand over one call."""
        if len(self._pending) >= AHEAD:
            self._pending.popleft().result()
        self._pending.append(self._pool.submit(function, *arguments))

    def __enter__(self) -> Beside:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._pool.shutdown(wait=True, cancel_futures=kind is not None)
        if kind is None:
            for future in self._pending:
                future.result()


# ---- The cache folder, and files in it that are whole or not there at all.

STALE = 3600.0  # seconds without a byte after which a piece of a file is no one's


def folder() -> Path:
    """The cache folder: UNROLL_CACHE, else the place this system has for such things."""
    if own := os.environ.get("UNROLL_CACHE"):
        return user_path(own)
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


# ---- One reading of a text: its checksum, its length in symbols, and where each distinct symbol occurs first.

SETTLED_NS = 2_000_000_000  # a file changed this recently may change again within the clock's grain: not remembered


@dataclass
class Scan:
    """What one reading found; `first` maps a code to the place of its first occurrence."""

    digests: list[str] = field(default_factory=list)
    sizes: list[int] = field(default_factory=list)
    characters: int = 0
    first: dict[int, int] = field(default_factory=dict)
    counts: Counts = field(default_factory=Counts)


class FirstOccurrences:
    """Where each code stands first, piece by piece."""

    def __init__(self) -> None:
        self.first: dict[int, int] = {}
        self.place = 0
        self._bytes = b""  # the seen codes below 256, for bytes.translate: a C loop at a gigabyte a second
        self._seen = np.zeros(0x110000, bool)

    def add(self, piece: Piece) -> None:
        """Go on with the next piece."""
        if isinstance(piece, bytes):
            novel: dict[int, int] = {code: piece.index(code) for code in set(piece.translate(None, self._bytes))}
        else:
            novel, places = {}, np.flatnonzero(~self._seen[piece])
            while len(places):  # the first few name most of the rest
                codes, where = np.unique(piece[places[:4096]], return_index=True)
                novel |= dict(zip(codes.tolist(), places[where].tolist(), strict=True))
                self._seen[codes] = True
                places = places[~self._seen[piece[places]]]
        if novel:
            self.first.update({code: self.place + at for code, at in novel.items()})
            self._seen[list(novel)] = True
            self._bytes = bytes(code for code in self.first if code < 256)
        self.place += len(piece)


def scan(sources: list[Source], rules: Rules) -> Scan:
    """Read all sources once; the checksums are computed in a second thread."""
    found, seen = Scan(), FirstOccurrences()
    hashes = [hashlib.sha256() for _ in sources]
    found.sizes = [0] * len(sources)
    with Beside() as beside:

        def tee(index: int, block: bytes) -> None:
            beside.call(hashes[index].update, block)
            found.sizes[index] += len(block)

        for piece in pieces(sources, rules, found.counts, tee):
            seen.add(piece)
    found.digests = [digest.hexdigest() for digest in hashes]
    found.characters, found.first = seen.place, seen.first
    return found


def _memory(sources: list[Source]) -> Path:
    name = hashlib.sha256("\n".join(str(source.stamp()[0]) for source in sources).encode("utf-8", "surrogateescape"))
    return folder() / "remembered" / f"{name.hexdigest()[:32]}.json"


def remembered(sources: list[Source]) -> list[str] | None:
    """The checksums of files that have not changed since they were last read, or None."""
    note = read_json(_memory(sources))
    stamps = [source.stamp() for source in sources]
    digests = note.get("digests") if isinstance(note, dict) and note.get("stamps") == stamps else None
    sound = isinstance(digests, list) and len(digests) == len(sources) and all(isinstance(one, str) for one in digests)
    return digests if sound else None


def remember(sources: list[Source], stamps: list[list[object]], digests: list[str], now_ns: int) -> None:
    """Note the checksums of files read while they had these `stamps`; not of files that are still being written."""
    if all(now_ns - int(str(stamp[2])) > SETTLED_NS for stamp in stamps):
        write_json(_memory(sources), {"stamps": stamps, "digests": digests})


# ---- A text as ids in a memory-mapped file, written once for its content and options.

FORMAT = 2  # raised when the same text gives other ids: then old entries are not found
MARK = b"unroll ids 1\n\0\0\0"
WRITTEN_NS = 978_307_200_000_000_000  # 2001-01-01: no one writes a file then
Facts = dict[str, Any]
Writer = Callable[[BinaryIO], Facts]


def translation(vocabulary: Vocabulary) -> np.ndarray:
    """code -> id for every code point or byte value, in the vocabulary's type; codes it lacks: the unknown id, or 0.

    The 0 is never read: without an unknown id only characters that lie in no split are lacking (build), and the ids of
    a text that has changed since that was found are not kept (build.Text.write).
    """
    table = np.zeros(256 if vocabulary.kind == "bytes" else 0x110000, vocabulary.dtype)
    if vocabulary.unknown_id is not None:
        table[:] = vocabulary.unknown_id
    known = np.array([code for code in vocabulary.codes if code != NO_CODE], np.int64)
    table[known] = [index for index, code in enumerate(vocabulary.codes) if code != NO_CODE]
    return table


def write_ids(stream: BinaryIO, pieces: Iterator[Piece], vocabulary: Vocabulary) -> int:
    """Write the ids of all pieces; returns how many. Writing runs in a second thread beside encoding."""
    table = translation(vocabulary)
    bytewise = table[:256].tobytes() if table.dtype == np.uint8 else b""
    written = 0
    with Beside() as beside:
        for piece in pieces:
            if isinstance(piece, bytes) and bytewise:
                ids: bytes | memoryview = piece.translate(bytewise)
            else:
                ids = table[np.frombuffer(piece, np.uint8) if isinstance(piece, bytes) else piece].data.cast("B")
            beside.call(stream.write, ids)
            written += len(piece)
    return written


def write_facts(stream: BinaryIO, facts: Facts) -> None:
    """The end of the file: what the ids are."""
    plain = json.dumps(facts).encode()
    stream.write(plain + len(plain).to_bytes(8, "little") + MARK)
    stream.flush()


def read(stream: BinaryIO) -> tuple[np.ndarray, Facts]:
    """Ids (mapped, read-only) and facts of an open file. Raises ValueError where it is not what `write_facts` ended."""
    size = stream.seek(0, os.SEEK_END)
    tail = len(MARK) + 8
    stream.seek(max(0, size - tail))
    end = stream.read(tail)
    if len(end) < tail or end[8:] != MARK:
        raise ValueError("not an encoded text, or the start of one")
    length = int.from_bytes(end[:8], "little")
    stream.seek(size - tail - length)
    facts: Facts = json.loads(stream.read(length))
    dtype = Vocabulary.from_plain(facts["vocabulary"]).dtype
    count = facts["length"]
    if count * np.dtype(dtype).itemsize != size - tail - length:
        raise ValueError("an encoded text of another length than it says")
    mapped = mmap.mmap(stream.fileno(), size, access=mmap.ACCESS_READ)
    return np.frombuffer(mapped, dtype, count), facts


def find(key: str) -> tuple[np.ndarray, Facts] | None:
    """The entry of a key, or None where there is none that can be trusted."""
    path = place(key)
    try:
        with path.open("rb") as stream:
            if os.fstat(stream.fileno()).st_mtime_ns != WRITTEN_NS:
                return None
            return read(stream)
    except (OSError, ValueError, KeyError, TypeError):
        return None


def place(key: str) -> Path:
    """Where the entry of a key stands; 256 folders, so that texts seldom wait for one another's lock."""
    return folder() / "encoded" / key[:2] / f"{key}.ids"


def find_or_write(key: str, write: Writer) -> tuple[np.ndarray, Facts]:
    """The entry of a key; `write(stream)` makes it, once, however many processes ask at the same time.

    Where the cache folder cannot be written the text is encoded into a nameless temporary file, for this process alone.
    """
    path = place(key)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        writable = os.access(path.parent, os.W_OK)
    except OSError:
        writable = False
    try:
        if not writable:
            with TemporaryFile() as stream:
                write_facts(stream, write(stream) | {"unkept": str(folder())})
                return read(stream)
        with alone(path.parent):
            if (found := find(key)) is None:
                with whole(path) as stream:
                    write_facts(stream, write(stream))
                    found = read(stream)
                    if os.utime in os.supports_fd:  # before the file has its name: no moment of doubt
                        os.utime(stream.fileno(), ns=(WRITTEN_NS, WRITTEN_NS))
                if os.utime not in os.supports_fd:
                    os.utime(path, ns=(WRITTEN_NS, WRITTEN_NS))
        return found
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        room = f"no room for the encoded text in {folder()}; set UNROLL_CACHE to a folder on a larger disk"
        raise OSError(error.errno, room) from error
