"""Files -> symbols, in pieces, so that a file of any size needs little memory: UTF-8, line ends, lower case."""

from __future__ import annotations

import codecs
import glob
import hashlib
import itertools
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from src.config.schema import DataConfig
from src.data.vocabulary import codes_of
from src.errors import DataError
from src.files import user_path

BLOCK = 1 << 20  # bytes read at once: with 8 MiB, 32 MiB as code points, reading took half as long again
REMEDIES = "data.errors=replace reads U+FFFD in its place, data.encoding=bytes reads any file as it is"
CLEANED = ("byte_order_marks", "crlf", "nul", "invalid", "leading_blanks")  # what reading removes or replaces
Piece = bytes | np.ndarray  # symbols: bytes if each is one symbol (ASCII, or encoding=bytes), else code points (uint32)


def rules_of(config: DataConfig) -> dict[str, Any]:
    """Return how bytes become symbols, for the key and the record of a corpus.

    `leading_blank`: drop one blank at the start of each line, as in the counts of the papers on Penn Treebank.
    """
    rules = {key: getattr(config, key) for key in ("encoding", "lowercase", "errors", "separator")}
    return rules | {"leading_blank": config.name == "ptb" and config.convention == "stripped"}


@dataclass(frozen=True)
class Source:
    """A file, or a text in memory. `sha256`: its expected checksum, if known; `address`: where it was published."""

    name: str
    path: Path | None = None
    content: bytes = b""
    sha256: str | None = None
    address: str | None = None

    def blocks(self) -> Iterator[bytes]:
        """Yield the bytes in blocks. Raises DataError if the file cannot be read."""
        if self.path is None:
            yield from (self.content[start : start + BLOCK] for start in range(0, len(self.content), BLOCK))
            return
        try:
            with self.path.open("rb", buffering=0) as stream:
                while block := stream.read(BLOCK):
                    yield block
        except OSError as error:
            raise DataError(f"{self.name} cannot be read: {error.strerror}") from error

    def stamp(self) -> list[Any]:
        """Return path, size, times of change and inode: the content is the same as long as these are."""
        if self.path is None:
            return [self.name, hashlib.sha256(self.content).hexdigest(), 0]
        stat = self.path.stat()
        return [str(self.path.resolve()), stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_ino]


def find(path: str, key: str = "path") -> list[Source]:
    """Return the files of a path: a file, all files below a folder but hidden ones, or a glob; sorted by path.

    Raises:
        DataError: there is none; the message names the key.
    """
    place = user_path(path)
    if os.path.isfile(place):  # False if the name is too long, where Path.is_file raises
        return [Source(path, place)]
    if os.path.isdir(place):
        inside = (file for file in place.rglob("*") if file.is_file())
        files = [file for file in inside if not any(part.startswith(".") for part in file.relative_to(place).parts)]
    else:
        files = [Path(name) for name in glob.glob(str(place), recursive=True) if os.path.isfile(name)]
    if not files:
        what = "the folder has no files" if os.path.isdir(place) else "there is no such file or folder, no glob matches"
        raise DataError(f"data.{key}={path}: {what} (relative paths start at {Path.cwd()})")
    return [Source(str(file), file) for file in sorted(files)]


def pieces(
    sources: list[Source],
    config: DataConfig,
    counts: Counter[str] | None = None,
    raw: Callable[[int, bytes], None] = lambda index, block: None,
) -> Iterator[Piece]:
    """Yield the symbols of all sources in order, joined by the separator.

    Args:
        sources, config: what is read, and how.
        counts: how often each of `CLEANED` was met is added to it.
        raw: called with (index of the source, block) for every block of bytes as it is read.

    Raises:
        DataError: bytes that are not text, with errors=strict.
    """
    counts = Counter() if counts is None else counts

    def blocks_of(index: int, source: Source) -> Iterator[bytes]:
        for block in source.blocks():
            raw(index, block)
            yield block

    for index, source in enumerate(sources):
        if index and config.separator:
            codes = codes_of(config.separator, config.encoding)
            yield codes.tobytes() if config.encoding == "bytes" else codes
        blocks = blocks_of(index, source)
        if rules_of(config)["leading_blank"]:
            blocks = _without_leading_blanks(blocks, counts)
        if config.encoding == "bytes":
            yield from (block.lower() if config.lowercase else block for block in blocks)
        else:
            yield from _characters(blocks, config, counts, source.name)


def _without_leading_blanks(blocks: Iterable[bytes], counts: Counter[str]) -> Iterator[bytes]:
    """Yield the blocks of one file without one blank at the start of each line."""
    line_start = True
    for block in blocks:
        stripped = (block[1:] if line_start and block.startswith(b" ") else block).replace(b"\n ", b"\n")
        counts["leading_blanks"] += len(block) - len(stripped)
        line_start = block.endswith(b"\n")
        yield stripped


def _characters(blocks: Iterable[bytes], config: DataConfig, counts: Counter[str], name: str) -> Iterator[Piece]:
    """Yield one file as characters. The end of a block that the next block decides is held back."""
    symbols: Piece
    offset, rest = 0, b""
    for block in itertools.chain(blocks, [None]):
        piece, last, rest = rest + (block or b""), block is None, b""
        if offset == 0 and piece.startswith(codecs.BOM_UTF8):
            piece, offset = piece[3:], 3
            counts["byte_order_marks"] += 1
        if piece.endswith(b"\r") and not last:  # a line feed may follow
            piece, rest = piece[:-1], b"\r"
        if piece.isascii() and b"\0" not in piece:
            counts["crlf"] += piece.count(b"\r\n")
            clean = piece.replace(b"\r\n", b"\n")
            symbols, used = clean.lower() if config.lowercase else clean, len(piece)
        else:
            symbols, used = _decode(piece, offset, last, config, counts, name)
        offset, rest = offset + used, piece[used:] + rest
        if len(symbols):
            yield symbols


def _decode(
    piece: bytes, offset: int, last: bool, config: DataConfig, counts: Counter[str], name: str
) -> tuple[np.ndarray, int]:
    """Return the code points of a piece, and how many bytes they are: all but an incomplete character at the end."""
    try:
        text, used = codecs.utf_8_decode(piece, config.errors, last)
    except UnicodeDecodeError as error:
        start = offset + error.start
        utf_16 = start == 0 and piece[:2] in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
        what = "UTF-16 text (its byte order mark)" if utf_16 else f"invalid UTF-8 (0x{piece[error.start]:02x})"
        raise DataError(f"{name}: {what} at byte {start:,}; {REMEDIES}") from None
    if config.errors == "replace":
        counts["invalid"] += text.count("\ufffd") - piece[:used].count("\ufffd".encode())
        counts["nul"] += text.count("\0")
        text = text.replace("\0", "\ufffd")
    elif (nul := piece[:used].find(0)) >= 0:
        what = "UTF-16 text" if offset + nul < 4 else "a NUL byte"
        raise DataError(f"{name}: {what} at byte {offset + nul:,}; {REMEDIES}")
    if b"\r" in piece:  # searching for a byte is much faster than searching for two characters
        counts["crlf"] += text.count("\r\n")
        text = text.replace("\r\n", "\n")
    codes = codes_of(text, "characters")
    return _lower()[codes] if config.lowercase else codes, used


@lru_cache(maxsize=1)
def _lower() -> np.ndarray:
    """Lookup table code point -> its lower case, if that is one code point, without context (as a final sigma has)."""
    lower = (chr(code).lower() for code in range(0x110000))
    return np.array([ord(one) if len(one) == 1 else code for code, one in enumerate(lower)], np.uint32)
