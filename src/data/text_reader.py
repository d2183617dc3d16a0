"""Ids as they come -> text as soon as it is certain: whole characters, and nothing behind a stop text."""

from __future__ import annotations

import codecs
import glob
import hashlib
import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from fractions import Fraction
from functools import lru_cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from src.data.vocabulary import Vocabulary, codes_of
from src.errors import DataError
from src.files import user_path


class TextStream:
    """What a vocabulary's ids read as, piece by piece; joined, the pieces are `vocabulary.decode` of all ids.

    Of kind `bytes`, the bytes of a character are held back until it is whole, and what is no UTF-8 reads as U+FFFD.
    With a `stop` text, what may be its beginning is held back too; once it is complete, it and all behind it are left
    out, and `stopped` is true. The work a character does not grow with the text.
    """

    def __init__(self, vocabulary: Vocabulary, stop: str | None = None) -> None:
        self.vocabulary = vocabulary
        self.stop = stop
        self.stopped = False
        self._bytes = codecs.getincrementaldecoder("utf-8")("replace") if vocabulary.kind == "bytes" else None
        self._pieces = [vocabulary.decode_bytes([id]) for id in range(len(vocabulary))]
        self._symbols = [vocabulary.decode([id]) for id in range(len(vocabulary))]
        self._held = ""

    def feed(self, id: int) -> str:
        """Return what has become certain with this id; often one character, sometimes nothing."""
        return self._certain(self._symbols[id] if self._bytes is None else self._bytes.decode(self._pieces[id]))

    def pause(self) -> str:
        """Return what was held back for `stop`: more ids may come later. Bytes of a character go on waiting for it."""
        rest, self._held = self._held, ""
        return rest

    def finish(self) -> str:
        """Return what was held back: no more ids come."""
        rest = "" if self._bytes is None else self._bytes.decode(b"", final=True)
        rest = self._certain(rest) + ("" if self.stopped else self._held)
        self._held = ""
        return rest

    def _certain(self, text: str) -> str:
        if not self.stop:
            return text
        if self.stopped:
            return ""
        text = self._held + text
        place = text.find(self.stop)
        if place >= 0:
            self.stopped, self._held = True, ""
            return text[:place]
        # The longest end of the text that the stop text begins with
        held = next(
            n for n in range(min(len(text), len(self.stop) - 1), -1, -1) if self.stop.startswith(text[len(text) - n :])
        )
        self._held = text[len(text) - held :]
        return text[: len(text) - held]


# ---- Files -> a stream of symbols, piece by piece, by stated rules.

BLOCK = 1 << 20  # bytes read at once: long enough for numpy; with 8 MiB (32 as code points) it took half as long again
Piece = bytes | np.ndarray  # symbols: bytes where each is a symbol (ASCII, or of kind bytes), else code points (uint32)


@dataclass(frozen=True)
class Source:
    """A file, or a text in memory; `sha256` is the checksum it must have, where one is known."""

    name: str
    path: Path | None = None
    content: bytes = b""
    sha256: str | None = None
    address: str | None = None

    def blocks(self) -> Iterator[bytes]:
        """The bytes, piece by piece."""
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
        """Path, size, times of change and inode: while they are the same, so is the content.

        The time a program may set (mtime) is not enough: a file put in another's place with that time restored shows
        in its ctime and its inode.
        """
        if self.path is None:
            return [self.name, hashlib.sha256(self.content).hexdigest(), 0]
        stat = self.path.stat()
        return [str(self.path.resolve()), stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_ino]


@dataclass(frozen=True)
class Rules:
    """How bytes become symbols. `leading_blank`: drop one blank at the start of each line (Penn Treebank)."""

    encoding: str = "characters"
    lowercase: bool = False
    errors: str = "strict"
    separator: str = "\n"
    leading_blank: bool = False

    def plain(self) -> dict[str, Any]:
        """As a dict, for a key and for the record."""
        return asdict(self)


@dataclass
class Counts:
    """What the rules have met."""

    byte_order_marks: int = 0
    crlf: int = 0
    nul: int = 0
    invalid: int = 0
    leading_blanks: int = 0


def find(path: str, key: str = "path") -> list[Source]:
    """The files of a path: itself, those of a folder (all levels, none hidden) or a glob, in order of their paths."""
    place = user_path(path)
    if os.path.isfile(place):  # False of a name too long, where Path.is_file raises
        return [Source(path, place)]
    if os.path.isdir(place):
        inside = (file for file in place.rglob("*") if file.is_file())
        files = [file for file in inside if not any(part.startswith(".") for part in file.relative_to(place).parts)]
    else:
        files = [Path(name) for name in glob.glob(str(place), recursive=True) if os.path.isfile(name)]
    if not files:
        what = "the folder has no files" if os.path.isdir(place) else "there is no such file or folder, no glob matches"
        moved = "" if key == "file" else f"; give data.{key}=... where it lies now"
        where = moved if place.is_absolute() else f" (relative paths start at {Path.cwd()})"
        raise DataError(f"data.{key}={path}: {what}{where}")
    return [Source(str(file), file) for file in sorted(files)]


def pieces(sources: list[Source], rules: Rules, counts: Counts, tee: Callable[[int, bytes], None]) -> Iterator[Piece]:
    """The symbols of all sources in order; `tee(i, block)` sees every raw block of source i."""

    def seen(index: int, source: Source) -> Iterator[bytes]:
        for block in source.blocks():
            tee(index, block)
            yield block

    for index, source in enumerate(sources):
        if index and rules.separator:
            yield _as_piece(rules.separator, rules)
        if rules.encoding == "bytes":
            blocks = seen(index, source)
            if rules.leading_blank:
                blocks = _without_leading_blanks(blocks, counts)
            yield from (block.lower() if rules.lowercase else block for block in blocks)
        else:
            yield from _characters(seen(index, source), rules, counts, source.name)


def _as_piece(text: str, rules: Rules) -> Piece:
    if rules.encoding == "bytes":
        return codes_of(text, "bytes").tobytes()
    return text.encode() if text.isascii() else codes_of(text, "characters")


def _characters(blocks: Iterable[bytes], rules: Rules, counts: Counts, name: str) -> Iterator[Piece]:
    """Decoded, cleaned pieces of one file. What a block ends with and the next decides is held back."""
    offset, rest, line_start = 0, b"", True
    for block, last in _marked(blocks):
        piece = rest + block if rest else block
        rest = b""
        if offset == 0 and piece.startswith(codecs.BOM_UTF8):
            piece, offset = piece[3:], 3
            counts.byte_order_marks += 1
        if not last and (held := _held_back(piece)):
            piece, rest = piece[:-held], piece[-held:]
        start, offset = offset, offset + len(piece)
        if rules.leading_blank and piece:
            # Penn Treebank is plain text of lines that begin with a blank; offsets in messages count without it
            piece, line_start = _without_leading_blank(piece, line_start, counts)
        if piece:
            yield _decoded(piece, start, rules, counts, name)


def _without_leading_blanks(blocks: Iterable[bytes], counts: Counts) -> Iterator[bytes]:
    """The blocks of one file without one blank at the start of each line."""
    line_start = True
    for block in blocks:
        piece, line_start = _without_leading_blank(block, line_start, counts)
        yield piece


def _without_leading_blank(piece: bytes, line_start: bool, counts: Counts) -> tuple[bytes, bool]:
    """A piece that stands at the start of a line or not, and whether the next one does."""
    before, line_end = len(piece), piece.endswith(b"\n")
    piece = (piece[1:] if line_start and piece.startswith(b" ") else piece).replace(b"\n ", b"\n")
    counts.leading_blanks += before - len(piece)
    return piece, line_end


def _marked(blocks: Iterable[bytes]) -> Iterator[tuple[bytes, bool]]:
    """Each block and whether it is the last."""
    before: bytes | None = None
    for block in blocks:
        if before is not None:
            yield before, False
        before = block
    if before is not None:
        yield before, True


def _held_back(piece: bytes) -> int:
    """How many last bytes belong with the next block: an unfinished UTF-8 sequence, a CR that may precede a LF."""
    if piece.endswith(b"\r"):
        return 1
    for back in range(1, min(3, len(piece)) + 1):
        byte = piece[-back]
        if byte >= 0xC0:
            return back if back < (2 if byte < 0xE0 else 3 if byte < 0xF0 else 4) else 0
        if byte < 0x80:
            return 0
    return 0


def _decoded(piece: bytes, offset: int, rules: Rules, counts: Counts, name: str) -> Piece:
    """One piece, whole in UTF-8, as symbols."""
    strict = rules.errors == "strict"
    nul = piece.find(0)
    if nul >= 0 and strict:
        kind = "UTF-16 text" if offset + nul < 4 else "a NUL byte"
        raise DataError(f"{name}: {kind} at byte {offset + nul:,}; {_ways_out}")
    if nul < 0 and piece.isascii():
        if b"\r" in piece:
            counts.crlf += piece.count(b"\r\n")
            piece = piece.replace(b"\r\n", b"\n")
        return piece.lower() if rules.lowercase else piece
    try:
        text = piece.decode("utf-8")
    except UnicodeDecodeError as error:
        if strict:
            what = _invalid(piece, error.start, offset)
            raise DataError(f"{name}: {what} at byte {offset + error.start:,}; {_ways_out}") from None
        text = piece.decode("utf-8", "replace")
        counts.invalid += text.count("�") - piece.count("�".encode())
    if nul >= 0:
        counts.nul += text.count("\0")
        text = text.replace("\0", "�")
    if b"\r" in piece:  # a byte is looked for much faster than a pair of characters
        counts.crlf += text.count("\r\n")
        text = text.replace("\r\n", "\n")
    codes = codes_of(text, "characters")
    return _lower()[codes] if rules.lowercase else codes


_ways_out = "data.errors=replace puts U+FFFD in its place, data.encoding=bytes takes every file as it is"


def _invalid(piece: bytes, at: int, offset: int) -> str:
    if offset + at == 0 and piece[:2] in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE):
        return "UTF-16 text (its byte-order mark)"
    lone = piece[at] == 0xED and len(piece) > at + 1 and 0xA0 <= piece[at + 1] <= 0xBF
    return "a lone surrogate, which is not UTF-8," if lone else f"invalid UTF-8 (0x{piece[at]:02x})"


@lru_cache(maxsize=1)
def _lower() -> np.ndarray:
    """code point -> code point of its lower case, by itself: context (a final sigma) does not count."""
    table = np.arange(0x110000, dtype=np.uint32)
    for code in range(0x110000):
        if len(lower := chr(code).lower()) == 1:
            table[code] = ord(lower)
    return table


# ---- A list, one item a line: drawn into splits by a seed, each item between two boundary symbols.

BOUNDARY = "\n"
SLICE = 1 << 20  # bytes


def read_items(sources: list[Source], rules: Rules, counts: Counts) -> tuple[bytes, list[str], list[int]]:
    """The clean text of a list as UTF-8 (or bytes), held in memory, with checksum and size of each source.

    A boundary is added at the end, where the last line may have none; one too many is an empty line.
    """
    hashes = [hashlib.sha256() for _ in sources]
    sizes = [0] * len(sources)

    def tee(index: int, block: bytes) -> None:
        hashes[index].update(block)
        sizes[index] += len(block)

    symbols = pieces(sources, rules, counts, tee)
    clean = b"".join((*map(_utf8, symbols), BOUNDARY.encode()))
    return clean, [digest.hexdigest() for digest in hashes], sizes


def _utf8(piece: Piece) -> bytes:
    return piece if isinstance(piece, bytes) else piece.tobytes().decode("utf-32-le").encode()


def spans(clean: bytes) -> tuple[np.ndarray, np.ndarray]:
    """Where each item starts and ends; empty lines are left out. `clean` ends with a boundary."""
    ends = np.flatnonzero(np.frombuffer(clean, np.uint8) == ord(BOUNDARY))
    starts = np.concatenate(([0], ends[:-1] + 1)).astype(np.int64)
    full = ends > starts
    return starts[full], ends[full]


def draw(clean: bytes, shares: list[float], seed: int, name: str) -> list[bytes]:
    """Each share of the items, in drawn order, as one text between boundaries. Raises DataError where one is empty."""
    starts, ends = spans(clean)
    order = np.random.default_rng(seed).permutation(len(starts))
    edges = cuts(len(starts), shares)
    if any(low == high for low, high in pairwise(edges)):
        raise DataError(
            f"{name} has {len(starts):,} items, and data.split={shares} leaves a part without any; "
            "use a longer list or fewer parts"
        )
    return [between_boundaries(clean, starts[order[low:high]], ends[order[low:high]]) for low, high in pairwise(edges)]


def between_boundaries(clean: bytes, starts: np.ndarray, ends: np.ndarray) -> bytes:
    """The items of these spans, each ended by a boundary in `clean`, one behind the other: \\n item \\n item \\n."""
    source = np.frombuffer(clean, np.uint8)
    lengths = ends - starts + 1  # with the boundary that follows
    places = np.concatenate(([1], 1 + np.cumsum(lengths)))
    text = bytearray(BOUNDARY.encode() * int(places[-1]))
    written = np.frombuffer(text, np.uint8)
    # The index of a byte takes eight, so there are indices for a slice at a time; the item that fills a slice is alone
    full = np.searchsorted(places, np.arange(1, len(text) + SLICE, SLICE))
    edges = np.unique(np.concatenate((full, full - 1)).clip(0, len(starts))).tolist()
    for low, high in pairwise(edges):
        first, last = int(places[low]), int(places[high])
        if high - low == 1:
            written[first:last] = source[starts[low] : ends[low] + 1]
        else:
            shift = np.repeat(starts[low:high] - places[low:high], lengths[low:high])
            written[first:last] = source[np.arange(first, last) + shift]
    return bytes(text)


def cuts(length: int, shares: list[float]) -> list[int]:
    """Where `length` is cut by shares: floor of their exact running sum, so that 0.9 of 10 is 9."""
    sums = [sum((Fraction(str(share)) for share in shares[:count]), Fraction(0)) for count in range(len(shares) + 1)]
    return [int(length * total) for total in sums]
