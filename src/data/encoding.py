"""The cache folder, and a text as ids in a memory-mapped file there, written once for its content and options."""

from __future__ import annotations

import contextlib
import hashlib
import json
import mmap
import os
import time
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any, BinaryIO

import numpy as np

from src.config.schema import DataConfig
from src.data.text_reader import Piece, Source, pieces
from src.data.vocabulary import Vocabulary
from src.errors import DataError
from src.files import atomic_file, lock, read_json, remove_leftovers, user_path, write_json

FORMAT = 2  # raised when the same text gives other ids: then old entries are not found
MARK = b"unroll ids 1\n\0\0\0"  # the end of a complete file
SETTLED_NS = 2_000_000_000  # a file changed this recently may change again within the clock's resolution
Facts = dict[str, Any]  # what a file of ids says of itself


def cache_folder() -> Path:
    """Return the cache folder: UNROLL_CACHE, or this system's folder for caches."""
    import platformdirs

    own = os.environ.get("UNROLL_CACHE")
    return user_path(own or platformdirs.user_cache_dir("unroll", appauthor=False))


def read_cached(path: Path) -> Any:
    """Return what a JSON file of the cache holds, or None if there is none that can be read."""
    try:
        return read_json(path)
    except (OSError, ValueError):
        return None


def write_cached(path: Path, value: Any) -> None:
    """Write a JSON file of the cache, if the cache can be written."""
    with contextlib.suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_json(path, value, indent=None)


# -- first reading: checksums, length and symbols ---------------------------------------------------------------------


@dataclass
class Scan:
    """What one reading of a text has found.

    digests, sizes  of each source: sha256, bytes
    length          in symbols
    first           code -> index of its first occurrence
    counts          what was cleaned
    """

    digests: list[str]
    sizes: list[int]
    length: int = 0
    first: dict[int, int] = field(default_factory=dict)
    counts: Counter[str] = field(default_factory=Counter)


def scan(sources: list[Source], config: DataConfig, keep: Callable[[bytes], None] | None = None) -> Scan:
    """Read all sources once; `keep` is called with each piece of the clean text as bytes (characters: as UTF-8)."""
    found = Scan([], [0] * len(sources))
    hashes = [hashlib.sha256() for _ in sources]
    seen, seen_bytes = np.zeros(0x110000, bool), b""

    def raw(index: int, block: bytes) -> None:
        hashes[index].update(block)
        found.sizes[index] += len(block)

    for piece in pieces(sources, config, found.counts, raw):
        if new := _new_codes(piece, seen, seen_bytes):
            found.first |= {code: found.length + at for code, at in new.items()}
            seen[list(new)] = True
            seen_bytes = bytes(code for code in found.first if code < 256)
        found.length += len(piece)
        if keep:
            keep(piece if isinstance(piece, bytes) else piece.tobytes().decode("utf-32-le").encode())
    found.digests = [one.hexdigest() for one in hashes]
    return found


def _new_codes(piece: Piece, seen: np.ndarray, seen_bytes: bytes) -> dict[int, int]:
    """Return the codes of a piece that are not in `seen` (it may change), and the index of the first occurrence."""
    if isinstance(piece, bytes):  # bytes.translate is a C loop at a gigabyte a second
        return {code: piece.index(code) for code in set(piece.translate(None, seen_bytes))}
    new: dict[int, int] = {}
    unseen = np.flatnonzero(~seen[piece])
    while len(unseen):  # the first few have most of the distinct codes
        codes, where = np.unique(piece[unseen[:4096]], return_index=True)
        new |= dict(zip(codes.tolist(), unseen[where].tolist(), strict=True))
        seen[codes] = True
        unseen = unseen[~seen[piece[unseen]]]
    return new


# -- checksums of files that have not changed since they were read ----------------------------------------------------


def _note(stamps: list[list[Any]]) -> Path:
    return cache_folder() / "remembered" / f"{hashlib.sha256(json.dumps(stamps).encode()).hexdigest()[:32]}.json"


def remembered_digests(sources: list[Source]) -> list[str] | None:
    """Return the checksums of files that have not changed since `remember_digests`, or None."""
    digests = read_cached(_note([source.stamp() for source in sources]))
    sound = isinstance(digests, list) and len(digests) == len(sources) and all(isinstance(one, str) for one in digests)
    return digests if sound else None


def remember_digests(stamps: list[list[Any]], digests: list[str]) -> None:
    """Store the checksums of files by their stamps before they were read, if none was changed just now."""
    if all(time.time_ns() - int(stamp[2]) > SETTLED_NS for stamp in stamps):
        write_cached(_note(stamps), digests)


# -- second reading: ids ----------------------------------------------------------------------------------------------


def write_ids(stream: BinaryIO, pieces: Iterable[Piece], vocabulary: Vocabulary) -> None:
    """Write the ids of all pieces; those of characters without a symbol, which are in no split, are 0."""
    table = np.maximum(vocabulary.table, 0).astype(vocabulary.dtype)
    byte_table = table[:256].tobytes() if table.dtype == np.uint8 else b""
    for piece in pieces:
        if isinstance(piece, bytes) and byte_table:
            stream.write(piece.translate(byte_table))
        else:
            stream.write(table[np.frombuffer(piece, np.uint8) if isinstance(piece, bytes) else piece].data)


def write_facts(stream: BinaryIO, facts: Facts) -> None:
    """Write the end of a file of ids: what they are."""
    content = json.dumps(facts).encode()
    stream.write(content + len(content).to_bytes(8, "little") + MARK)
    stream.flush()


def read_ids(stream: BinaryIO) -> tuple[np.ndarray, Facts]:
    """Return ids (length,), memory-mapped and read-only, and facts. Raises ValueError if the file is not complete."""
    size = stream.seek(0, os.SEEK_END)
    tail = len(MARK) + 8
    stream.seek(max(0, size - tail))
    end = stream.read(tail)
    if len(end) < tail or end[8:] != MARK:
        raise ValueError("not a complete file of ids")
    length = int.from_bytes(end[:8], "little")
    stream.seek(size - tail - length)
    facts: Facts = json.loads(stream.read(length))
    dtype = np.dtype(Vocabulary.from_plain(facts["vocabulary"]).dtype)
    if facts["length"] * dtype.itemsize != size - tail - length:
        raise ValueError("not as many ids as it says")
    mapped = mmap.mmap(stream.fileno(), size, access=mmap.ACCESS_READ)
    return np.frombuffer(mapped, dtype, facts["length"]), facts


def entry(key: str) -> Path:
    """Return the path of the ids of a key."""
    return cache_folder() / "encoded" / key[:2] / f"{key}.ids"


def find_ids(key: str) -> tuple[np.ndarray, Facts] | None:
    """Return the ids and facts of a key, or None if the cache has no complete file of them."""
    try:
        with entry(key).open("rb") as stream:
            return read_ids(stream)
    except (OSError, ValueError, KeyError, TypeError):
        return None


def find_or_write_ids(key: str, write: Callable[[BinaryIO], Facts]) -> tuple[np.ndarray, Facts]:
    """Return the ids and facts of a key; `write(stream)` writes the ids, once, even if several processes ask.

    If the cache folder cannot be written, the ids are in a temporary file of this process, and the fact `unkept` has
    the folder.

    Raises:
        DataError: the disk is full, say.
    """
    path = entry(key)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        writable = os.access(path.parent, os.W_OK)
    except OSError:
        writable = False
    try:
        if not writable:
            with TemporaryFile() as stream:
                write_facts(stream, write(stream) | {"unkept": str(cache_folder())})
                return read_ids(stream)
        with lock(path.with_name("lock"), wait=True):
            if (found := find_ids(key)) is None:
                remove_leftovers(path.parent)
                with atomic_file(path) as temporary, temporary.open("w+b") as stream:
                    write_facts(stream, write(stream))
                    found = read_ids(stream)
        return found
    except OSError as error:
        folder = cache_folder()
        raise DataError(
            f"{folder}: the encoded text cannot be written ({error.strerror}); set UNROLL_CACHE to another folder"
        ) from error
