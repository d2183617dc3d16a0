"""Files -> symbols -> ids.

A text is read in pieces, so that a file of any size needs little memory: once for its checksums and symbols (`scan`),
once to encode it. The ids are in a memory-mapped file of the cache folder, written once for a content and its options.
Texts in gzip files and zip archives are read as if they were unpacked; other files that hold no plain text are named.
"""

from __future__ import annotations

import codecs
import contextlib
import dataclasses
import glob
import gzip
import hashlib
import io
import itertools
import json
import logging
import lzma
import mmap
import os
import re
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import lru_cache, partial, reduce
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from src.config.schema import DataConfig
from src.data.vocabulary import Vocabulary, codes_of
from src.errors import UserError
from src.files import atomic_file, lock, read_json, remove_leftovers, to_json, user_path, write_json

log = logging.getLogger(__name__)
BLOCK = 1 << 20  # bytes read at once: with 8 MiB, 32 MiB as code points, reading took half as long again
REMEDIES = "data.errors=replace reads U+FFFD in its place, data.encoding=bytes reads any file as it is"
CLEANED = ("byte_order_marks", "crlf", "nul", "invalid", "leading_blanks")  # what reading removes or replaces
FORMAT = 2  # raised when the same text gives other ids: then old entries are not found
GZIP, ZIP = b"\x1f\x8b", b"PK\x03\x04"  # the first bytes of such files
METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA)  # that Python can unpack
AS_TEXT = "save or export it as plain text (.txt, UTF-8)"
KINDS = {  # first bytes of files that are no plain text -> what they are, and the way out
    b"%PDF-": ("a PDF", "take its text out: pdftotext FILE.pdf FILE.txt"),
    b"\xd0\xcf\x11\xe0": ("a document of an old Word, Excel or PowerPoint", AS_TEXT),
    b"{\\rtf": ("a document in rich text format (RTF)", AS_TEXT),
    **dict.fromkeys((b"BZh", b"\xfd7zXZ", b"7z\xbc\xaf", b"(\xb5/\xfd", b"Rar!", GZIP, ZIP), ("packed", "unpack it")),
    **dict.fromkeys((b"\x89PNG", b"\xff\xd8\xff", b"GIF8"), ("a picture", "a text is needed")),
    **dict.fromkeys((codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE), ("a text in UTF-32", "add data.codec=utf-32")),
    **dict.fromkeys((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE), ("a text in UTF-16", "add data.codec=utf-16")),
}
WEB_PAGE = re.compile(rb"(\xef\xbb\xbf)?\s*(<\?xml[^>]*>\s*)?<(!doctype html|html)\b", re.IGNORECASE)
MARK = b"unroll ids 4\n\0\0\0"  # the end of a complete file of ids
Piece = bytes | np.ndarray  # symbols: bytes if each is one symbol (ASCII, or encoding=bytes), else code points (uint32)
Facts = dict[str, Any]  # metadata of a file of ids


def rules_of(config: DataConfig) -> dict[str, Any]:
    """Return how bytes become symbols, for the key and the record of a corpus."""
    rules = {key: getattr(config, key) for key in ("encoding", "lowercase", "errors", "separator")}
    rules |= {"codec": config.codec} if config.codec else {}  # a key that earlier runs do not have
    # Drop one blank at the start of each line, as in the counts of the papers on Penn Treebank
    return rules | {"leading_blank": config.name == "ptb" and config.convention == "stripped"}


@dataclass(frozen=True)
class Source:
    """A file, or a text in memory. `sha256`: its expected checksum, if known; `address`: where it was published.

    `packed`: the path is a gzip file (`""`), or a zip archive with this file in it; its content is that of the text.
    """

    name: str
    path: Path | None = None
    content: bytes = b""
    sha256: str | None = None
    address: str | None = None
    packed: str | None = None

    def open(self) -> Any:
        if self.path is None:
            return io.BytesIO(self.content)
        if self.packed is None:
            return self.path.open("rb", buffering=0)
        return zipfile.ZipFile(self.path).open(self.packed) if self.packed else gzip.open(self.path)

    def blocks(self, raw: Callable[[bytes], None]) -> Iterator[bytes]:
        """Yield the bytes in blocks, after `raw(block)`. Raises UserError if the file cannot be read."""
        try:
            with self.open() as stream:
                while block := stream.read(BLOCK):
                    raw(block)
                    yield block
        except (OSError, EOFError, zlib.error, lzma.LZMAError, zipfile.BadZipFile) as error:
            raise UserError(f"{self.name} cannot be read: {getattr(error, 'strerror', None) or error}") from error

    def stamp(self) -> list[Any]:
        """Return path, size, times of change and inode: the content is the same as long as these are."""
        if self.path is None:
            return [self.name, hashlib.sha256(self.content).hexdigest(), 0]
        stat = self.path.stat()
        stamp = [str(self.path.resolve()), stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_ino]
        return stamp if self.packed is None else [*stamp, self.packed]


def error_in_path(path: Any, key: str = "data.path") -> str | None:
    """Return what is wrong with a path that can be no file: an address, standard input, or a list in a list."""
    if not isinstance(path, str):
        return f"{key} has {path} in it: expected a list of names"
    if re.match(r"(https?|ftp)://", path):
        return f"{key}={path} is an address, and nothing is fetched; download it: curl -L -o my.txt '{path}'"
    if path == "-":
        return f"{key}=- would be standard input, and a text is read several times; write it to a file: ... > my.txt"
    return None


def find(path: str, key: str = "path", unpack: bool = True) -> list[Source]:
    """Return a file, all files below a folder but hidden ones, or those of a glob, sorted. Raises UserError if none.

    `unpack`: a gzip file is the text in it, and a zip archive all files in it but hidden ones.
    """
    files = _find(path, key)
    return [one for file in files for one in _unpacked(file)] if unpack else files


def _unpacked(file: Source) -> list[Source]:
    """Return the texts that a file holds; itself unless it is a gzip file or a zip archive."""
    assert file.path is not None
    try:
        with file.path.open("rb") as stream:
            first = stream.read(4)
        if first.startswith(GZIP):
            return [dataclasses.replace(file, packed="")]
        if first != ZIP:
            return [file]
        with zipfile.ZipFile(file.path) as archive:
            if any(one.flag_bits & 1 for one in archive.infolist()):
                raise UserError(f"{file.name} has a password; unpack it, and give the file in it")
            if any(one.compress_type not in METHODS for one in archive.infolist()):
                raise UserError(f"{file.name} is packed in a way that Python cannot read; unpack it first")
            names = sorted(one.filename for one in archive.infolist() if not one.is_dir())
            kind = archive.read("mimetype").decode(errors="replace") if "mimetype" in names else ""
    except (OSError, zipfile.BadZipFile) as error:
        raise UserError(f"{file.name} cannot be read: {getattr(error, 'strerror', None) or error}") from error
    office = {"[Content_Types].xml": "a document of Word, Excel or PowerPoint", "mimetype": "an OpenDocument file"}
    if what := next((what for name, what in office.items() if name in names), None):
        raise UserError(f"{file.name} is {'an e-book (EPUB)' if 'epub' in kind else what}, not a plain text; {AS_TEXT}")
    hidden = re.compile(r"(^|/)(\.|__MACOSX/)")
    if not (texts := [name for name in names if not hidden.search(name)]):
        raise UserError(f"{file.name} is a zip archive without a file in it; give another")
    return [dataclasses.replace(file, name=f"{file.name}/{name}", packed=name) for name in texts]


def _find(path: str, key: str) -> list[Source]:
    place = user_path(path)
    if os.path.isfile(place):  # False if the name is too long, where Path.is_file raises
        return [Source(path, place)]
    if error := error_in_path(path, f"data.{key}"):
        raise UserError(error)
    if os.path.isdir(place):
        inside = (file for file in place.rglob("*") if file.is_file())
        files = [file for file in inside if not any(part.startswith(".") for part in file.relative_to(place).parts)]
    else:
        files = [Path(name) for name in glob.glob(str(place), recursive=True) if os.path.isfile(name)]
    if not files:
        what = "the folder has no files" if os.path.isdir(place) else "there is no such file or folder, no glob matches"
        if os.path.exists(place) and not os.path.isdir(place):
            what = "it is a pipe or a device, and a text is read several times; copy it into a file"
        raise UserError(f"data.{key}={path}: {what} (relative paths start at {Path.cwd()})")
    return [Source(str(file), file) for file in sorted(files)]


def codes_in(piece: Piece) -> np.ndarray:
    """Return the codes (length,) of a piece."""
    return np.frombuffer(piece, np.uint8) if isinstance(piece, bytes) else piece


def pieces(
    sources: list[Source],
    config: DataConfig,
    counts: Counter[str] | None = None,
    raw: Callable[[int, bytes], None] = lambda index, block: None,
) -> Iterator[Piece]:
    """Yield the symbols of all sources in order, joined by the separator.

    What was `CLEANED` is added to `counts`; `raw` is called with (index of the source, block) for all bytes read.
    """
    counts = Counter() if counts is None else counts
    for index, source in enumerate(sources):
        if index and config.separator:
            codes = codes_of(config.separator, config.encoding)
            yield codes.tobytes() if config.encoding == "bytes" else codes
        blocks = source.blocks(partial(raw, index))
        if rules_of(config)["leading_blank"]:
            blocks = _without_leading_blanks(blocks, counts)
        if config.encoding == "bytes":
            yield from (block.lower() if config.lowercase else block for block in blocks)
            continue
        if config.codec:
            blocks = _as_utf_8(blocks, config, counts, source.name)
        yield from _characters(blocks, config, counts, source.name)


def read_text(source: Source, config: DataConfig) -> str:
    """Return a text for a trained model, read by the rules of its own text, but in the case that it has.

    Files, standard input and values of the command line are all read here: as UTF-8, or if they are not that, in the
    codec of the model's own text. Of a model of bytes, invalid ones are surrogates.
    """
    config = dataclasses.replace(config, lowercase=False)
    errors = "strict" if config.codec else config.errors  # replace never fails: codec is not tried
    try:
        try:
            symbols = list(pieces([source], dataclasses.replace(config, codec=None, errors=errors)))
        except UserError:
            if not config.codec:
                raise
            symbols = list(pieces([source], config))
    except UserError as error:  # data.errors, which its advice may name, was decided when the model was trained
        what = str(error).partition("; ")[0]
        raise UserError(f"{what}; the model reads texts as in training: correct this one or give another") from error
    if config.encoding == "bytes":
        return b"".join(map(bytes, symbols)).decode("utf-8", "surrogateescape")
    return b"".join(codes_in(piece).astype("<u4").tobytes() for piece in symbols).decode("utf-32-le")


def _without_leading_blanks(blocks: Iterable[bytes], counts: Counter[str]) -> Iterator[bytes]:
    """Yield the blocks of one file without one blank at the start of each line."""
    before = b"\n"  # the last byte of the block before
    for block in blocks:
        stripped = (before + block).replace(b"\n ", b"\n")[1:]
        counts["leading_blanks"] += len(block) - len(stripped)
        before = block[-1:]
        yield stripped


def _as_utf_8(blocks: Iterable[bytes], config: DataConfig, counts: Counter[str], name: str) -> Iterator[bytes]:
    """Yield one file in `config.codec` as UTF-8."""
    codec, read = str(config.codec), 0
    decoder = codecs.getincrementaldecoder(codec)(config.errors)
    for block in itertools.chain(blocks, [b""]):
        try:
            text = decoder.decode(block, final=not block)
        except UnicodeError as error:
            where = f"it is not in data.codec={codec} ({error})"  # utf-16 without a byte order mark
            if isinstance(error, UnicodeDecodeError):
                at = read + len(block) - len(error.object) + error.start
                where = f"byte {at:,} (0x{error.object[error.start]:02x}) is not in data.codec={codec}"
            raise UserError(f"{name}: {where}; name the file's own codec, or {REMEDIES}") from None
        read += len(block)
        if config.errors == "replace":
            counts["invalid"] += text.count("\ufffd")
        yield text.encode("utf-8", "replace")


def _characters(blocks: Iterable[bytes], config: DataConfig, counts: Counter[str], name: str) -> Iterator[Piece]:
    """Yield one file as characters. The end of a block that the next block decides is held back."""
    symbols: Piece
    offset, rest = 0, b""
    for block in itertools.chain(blocks, [None]):
        piece, last, rest = rest + (block or b""), block is None, b""
        if offset == 0:
            if WEB_PAGE.match(piece):
                counts["web_pages"] += 1
            if config.errors == "strict":
                _refuse_other_kinds(piece, name)
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
        where = f"invalid UTF-8 (0x{piece[error.start]:02x}) at byte {offset + error.start:,}"
        raise UserError(f"{name}: {where}; {_likely_codec(piece, error.start)}{REMEDIES}") from None
    if config.errors == "replace":
        counts["invalid"] += text.count("\ufffd") - piece[:used].count("\ufffd".encode())
        counts["nul"] += text.count("\0")
        text = text.replace("\0", "\ufffd")
    elif (nul := piece[:used].find(0)) >= 0:
        raise UserError(f"{name}: a NUL byte at byte {offset + nul:,}; {_likely_codec(piece, nul)}{REMEDIES}")
    if b"\r" in piece:  # searching for a byte is much faster than searching for two characters
        counts["crlf"] += text.count("\r\n")
        text = text.replace("\r\n", "\n")
    codes = codes_of(text, "characters")
    return _lower()[codes] if config.lowercase else codes, used


def _refuse_other_kinds(piece: bytes, name: str) -> None:
    """Raise UserError for the beginning of a file that is no plain text: what it is, and the way out."""
    what, way = next((known for first, known in KINDS.items() if piece.startswith(first)), ("", ""))
    if piece[257:262] == b"ustar":
        what, way = "a tar archive", "unpack it: tar xf FILE"
    if what:
        raise UserError(f"{name} is {what}, not a plain text in UTF-8 ({way}); data.encoding=bytes reads it as it is")


def _likely_codec(piece: bytes, at: int) -> str:
    """Return `data.codec=cp1252 reads 'caf\xe9' there, `: the codec that a text is likely in if not UTF-8, or ''."""
    zeros = [piece[start::2].count(0) / max(1, len(piece[start::2])) for start in (0, 1)]  # of UTF-16, ASCII has half
    wide = "utf-16-be" if zeros[0] > 0.4 > zeros[1] else "utf-16-le" if zeros[1] > 0.4 > zeros[0] else None
    for codec in [wide] if wide else ["gb18030", "cp1252"] if 0 not in piece else []:
        with contextlib.suppress(UnicodeDecodeError):
            text = codecs.getincrementaldecoder(codec)().decode(piece)
            rare = [one for one in text if one > "\x7f"]
            if codec != "gb18030" or sum("\u3000" <= one < "\ua000" for one in rare) > len(rare) / 2:
                begin = len(codecs.getincrementaldecoder(codec)("replace").decode(piece[:at]))
                return f"data.codec={codec} reads {text[max(0, begin - 12) : begin + 12]!r} there, "
    return ""


@lru_cache(maxsize=1)
def _lower() -> np.ndarray:
    """Lookup table code point -> its lower case, if that is one code point, without context (as a final sigma has)."""
    lower = (chr(code).lower() for code in range(0x110000))
    return np.array([ord(one) if len(one) == 1 else code for code, one in enumerate(lower)], np.uint32)


@dataclass
class Scan:
    """The results of reading a text once."""

    digests: list[str]  # sha256 of each source
    sizes: list[int]  # bytes of each source
    length: int = 0  # in symbols
    first: dict[int, int] = field(default_factory=dict)  # code -> index of its first occurrence
    counts: Counter[str] = field(default_factory=Counter)  # what was cleaned


def scan(sources: list[Source], config: DataConfig, keep: Callable[[bytes], None] | None = None) -> Scan:
    """Read all sources once; `keep` is called with each piece of the clean text as bytes (characters: as UTF-8)."""
    found, hashes, seen = Scan([], [0] * len(sources)), [hashlib.sha256() for _ in sources], np.zeros(0x110000, bool)

    def raw(index: int, block: bytes) -> None:
        hashes[index].update(block)
        found.sizes[index] += len(block)

    for piece in pieces(sources, config, found.counts, raw):
        array = codes_in(piece)
        unseen = np.flatnonzero(~seen.take(array))
        codes, where = np.unique(array[unseen], return_index=True)
        found.first |= zip(codes.tolist(), (found.length + unseen[where]).tolist(), strict=True)
        seen[codes] = True
        found.length += len(piece)
        if keep:
            keep(piece if isinstance(piece, bytes) else piece.tobytes().decode("utf-32-le").encode())
    found.digests = [one.hexdigest() for one in hashes]
    return found


def cache_folder() -> Path:
    """Return UNROLL_CACHE, or this system's folder for caches."""
    import platformdirs

    return user_path(os.environ.get("UNROLL_CACHE") or platformdirs.user_cache_dir("unroll", appauthor=False))


def read_cached(path: Path) -> Any:
    """Return what a JSON file of the cache holds; None if there is none, or its checksum is wrong."""
    with contextlib.suppress(OSError, ValueError, TypeError):
        checksum, value = read_json(path)
        return value if checksum == hash_of(value) else None
    return None


def write_cached(path: Path, value: Any) -> None:
    """Write a JSON file of the cache, if the cache can be written."""
    with contextlib.suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_json(path, [hash_of(value), value], indent=None)


def hash_of(value: Any) -> str:
    """Return the first 32 hexadecimal digits of the sha256 of plain data."""
    return hashlib.sha256(json.dumps(value).encode()).hexdigest()[:32]


def digests_file(stamps: list[list[Any]]) -> Path:
    """Return the file of the cache with the checksums of files that have these stamps."""
    return cache_folder() / "remembered" / f"{hash_of(stamps)}.checked.json"  # earlier versions have no checksum


def ids_file(key: str) -> Path:
    """Return the file of the cache with the ids of a key."""
    return cache_folder() / "encoded" / key[:2] / f"{key}.ids"


def write_ids(stream: BinaryIO, pieces: Iterable[Piece], vocabulary: Vocabulary) -> None:
    """Write the ids of all pieces; those of characters without a symbol, which are in no split, are 0."""
    table = np.maximum(vocabulary.table, 0).astype(vocabulary.dtype)
    for piece in pieces:
        stream.write(table.take(codes_in(piece)).data)


def find_ids(key: str) -> tuple[np.ndarray, Facts] | None:
    """Return ids (length,), memory-mapped and read-only, and facts; None if the cache has no sound file of them.

    The file is ids, facts as JSON, length of the facts (8 bytes), CRC-32 of all that (4 bytes), MARK.
    """
    path, tail = ids_file(key), 12 + len(MARK)
    try:
        with path.open("rb") as stream:
            mapped = mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ)
            if not mapped[-tail:].endswith(MARK):
                return None
            crc = crc_of(stream, len(mapped) - tail + 8)  # 0.2 s for 100 MB
    except (OSError, ValueError):  # there is none, or it is empty
        return None
    size, stored = (int.from_bytes(part, "little") for part in (mapped[-tail:][:8], mapped[-tail:][8:12]))
    if crc != stored:
        log.warning("%s: this cached text is damaged (its checksum is wrong); the text is encoded again", path)
        path.unlink(missing_ok=True)
        return None
    facts: Facts = json.loads(mapped[-tail - size : -tail])
    return np.frombuffer(mapped, Vocabulary.from_plain(facts["vocabulary"]).dtype, facts["length"]), facts


def crc_of(stream: BinaryIO, size: int) -> int:
    """Return the CRC-32 of the first bytes of a file; read in blocks, since mapped pages would stay in memory."""
    stream.seek(0)
    return reduce(lambda crc, at: zlib.crc32(stream.read(min(BLOCK, size - at)), crc), range(0, size, BLOCK), 0)


def find_or_add_ids(key: str, write: Callable[[BinaryIO], None], facts: Facts) -> tuple[np.ndarray, Facts]:
    """Return the ids and facts of a key; `write(stream)` writes the ids, once, even if several processes ask."""
    path, content = ids_file(key), to_json(facts, ascii=True).encode()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with lock(path.with_name("lock"), wait=True):
            if (found := find_ids(key)) is None:
                remove_leftovers(path.parent)
                with atomic_file(path) as temporary, temporary.open("w+b") as stream:
                    write(stream)
                    stream.write(content + len(content).to_bytes(8, "little"))
                    stream.write(crc_of(stream, stream.tell()).to_bytes(4, "little") + MARK)
                found = find_ids(key)
        assert found is not None
        return found
    except OSError as error:
        what = f"the encoded text cannot be written ({error.strerror}); set UNROLL_CACHE to another folder"
        raise UserError(f"{cache_folder()}: {what}") from error
