"""A file from an address: downloaded, checked, whole; and one file out of a zip, wherever the zip wants it to go."""

from __future__ import annotations

import hashlib
import http.client
import socket
import ssl
import sys
import time
import urllib.error
import urllib.request
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

from src.data.cache import whole
from src.data.errors import DataError

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
