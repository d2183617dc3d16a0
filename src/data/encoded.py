"""A text as ids in a memory-mapped file, written once for its content and options.

    ids (all splits one behind the other, smallest unsigned type) | facts as JSON | length of the JSON, 8 bytes | MARK

A file appears whole or not at all (cache.whole). Its time of change is set to a fixed one: an entry that anything else
has written to is known by that, and is encoded again instead of trusted.
"""

from __future__ import annotations

import errno
import json
import mmap
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any, BinaryIO

import numpy as np

from src.data.beside import Beside
from src.data.cache import alone, folder, whole
from src.data.text_files import Piece
from src.data.vocabulary import NO_CODE, Vocabulary

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
