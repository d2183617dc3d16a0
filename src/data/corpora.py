"""The named corpora: their files, splits and symbols; downloads; keys of the `data` group that do not go together.

A file is searched below data.root, then in the cache folder, then downloaded with pooch, which checks its sha256. The
texts themselves are not part of this repository; registry.txt has their addresses.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import sys
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from math import isfinite
from pathlib import Path

from src.config.schema import DataConfig
from src.data.encoding import cache_folder
from src.data.text_reader import Source
from src.errors import DataError, nearest
from src.files import atomic_file, user_path

RETRIES = 2  # of a download that fails; pooch waits 1 s, then 2 s


@dataclass(frozen=True)
class Named:
    """A corpus: one file and its standard split, or (split None) one file for each of train, val and test.

    `files` are paths in registry.txt; of a zip the file of its name is read. `is_list`: items, one per line.
    `alphabet`: the published symbols (bytes), if the training split has fewer.
    """

    files: tuple[str, ...]
    split: tuple[float, ...] | None
    is_list: bool = False
    alphabet: bytes | None = None


# Karpathy, Johnson and Fei-Fei took the symbols of the whole book: `/` and `=` do not occur in its first 80 %.
WAR_AND_PEACE = (
    b"\n\r !\"'()*,-./0123456789:;=?ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
    b"\xa0\xa4\xa9\xaa\xbb\xbf\xc3\xef"
)
CORPORA: dict[str, Named] = {
    "tiny_shakespeare": Named(("tinyshakespeare/input.txt",), (0.9, 0.1)),
    "time_machine": Named(("timemachine/timemachine.txt",), (0.9, 0.1)),
    "war_and_peace": Named(("war_and_peace/input.txt",), (0.8, 0.1, 0.1), alphabet=WAR_AND_PEACE),
    "names": Named(("names/names.txt",), (0.8, 0.1, 0.1), is_list=True),
    "ptb": Named(("ptb/ptb.train.txt", "ptb/ptb.valid.txt", "ptb/ptb.test.txt"), None),
    "text8": Named(("text8/text8.zip",), (0.9, 0.05, 0.05)),  # 10^8 characters: 90M / 5M / 5M
    "enwik8": Named(("enwik8/enwik8.zip",), (0.9, 0.05, 0.05)),
}
OWN_TEXT = ("text", "lines")
NAMES = ("hello", *OWN_TEXT, "pydoc", *CORPORA)
USED_BY = {  # key -> the corpora that use it
    "path": OWN_TEXT,
    "val_path": OWN_TEXT,
    "test_path": OWN_TEXT,
    "root": tuple(CORPORA),
    "split": tuple(name for name in NAMES if name not in ("hello", "ptb")),
    "input": ("hello",),
    "target": ("hello",),
    "symbols": ("hello",),
}
EXTEND = "data.unknown=extend adds to the vocabulary of init_from=RUN; without it use data.unknown=map or error"
HELLO = ("hello", "ohlol", "ehlo")  # input, target and symbols of data=hello where none are given


@dataclass(frozen=True)
class File:
    """A line of registry.txt: path below data.root or the cache, checksum, address."""

    path: str
    sha256: str
    address: str

    def places(self, root: str | None) -> list[Path]:
        """Return where the file may be, in order of search; it is downloaded to the last one."""
        cached = cache_folder() / "corpora" / self.path
        return [user_path(root) / self.path, cached] if root else [cached]

    def found(self, root: str | None) -> Path | None:
        """Return where the file is, or None."""
        return next((place for place in self.places(root) if os.path.isfile(place)), None)


def read_registry() -> dict[str, File]:
    """Return the lines of registry.txt by path."""
    lines = Path(__file__).with_name("registry.txt").read_text("utf-8").splitlines()
    return {(file := File(*line.split())).path: file for line in lines if not line.startswith("#")}


REGISTRY = read_registry()


def is_list(config: DataConfig) -> bool:
    """Whether the corpus is a list of items, one per line."""
    return config.name == "lines" or (config.name in CORPORA and CORPORA[config.name].is_list)


# -- files ------------------------------------------------------------------------------------------------------------


def sources(name: str, root: str | None) -> list[Source]:
    """Return the files of a named corpus, downloaded if necessary; a plain file's checksum is left to its reader.

    Raises:
        DataError: no network, or another checksum; with address and place of each file to download by hand.
    """
    files = [REGISTRY[path] for path in CORPORA[name].files]
    try:
        return [_source(file, root) for file in files]
    except DataError:
        raise
    except (OSError, ValueError) as error:  # of requests or the disk; of pooch: another checksum
        by_hand = [
            f"download {file.address} (sha256 {file.sha256}) by hand and put it at {file.places(root)[0]}"
            for file in files
            if not file.found(root)
        ]
        reason = "no connection" if type(error).__name__ in ("ConnectionError", "ConnectTimeout") else error
        raise DataError("\n".join([f"data={name} cannot be downloaded ({reason})", *by_hand])) from error


def _source(file: File, root: str | None) -> Source:
    path, cached = file.found(root), file.places(root)[-1]
    if not file.path.endswith(".zip"):
        path = path or _download(file)
        return Source(str(path), path, sha256=file.sha256, address=file.address)
    unpacked = cached.parent / file.sha256[:16] / cached.stem
    if not unpacked.is_file():
        _unpack(path or _download(file), file.sha256, unpacked)
    return Source(str(unpacked), unpacked, address=file.address)


def _download(file: File) -> Path:
    """Download a file into the cache folder, where it appears only if it is complete and has its checksum."""
    import pooch  # type: ignore[import-untyped]  # here, because its import takes 0.3 s

    folder, known, urls = cache_folder() / "corpora", {file.path: file.sha256}, {file.path: file.address}
    cache = pooch.create(folder, base_url="", registry=known, urls=urls, retry_if_failed=RETRIES)
    return Path(cache.fetch(file.path, progressbar=sys.stderr.isatty()))


def _unpack(archive: Path, sha256: str, target: Path) -> None:
    """Write the file of a zip that has the name of `target` to it; zipfile checks its CRC. Raises DataError."""
    with archive.open("rb") as stream:
        check(Source(str(archive), sha256=sha256), hashlib.file_digest(stream, "sha256").hexdigest())
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        with (
            zipfile.ZipFile(archive) as opened,
            opened.open(target.name) as packed,
            atomic_file(target) as temporary,
            temporary.open("wb") as output,
        ):
            shutil.copyfileobj(packed, output, 1 << 20)
    except (zipfile.BadZipFile, zlib.error, KeyError) as error:  # KeyError: no such file in it
        raise DataError(f"{archive} cannot be unpacked: {error}; delete it, and it is downloaded again") from error


def check(source: Source, digest: str) -> None:
    """Raise DataError if a file does not have the checksum that it is known to have."""
    if source.sha256 and digest != source.sha256:
        raise DataError(
            f"{source.name} has sha256 {digest}, expected {source.sha256}: another file, or a damaged one; "
            "delete it, and it is downloaded again"
        )


# -- options ----------------------------------------------------------------------------------------------------------


def errors_in_data(config: DataConfig) -> list[str]:
    """Return which keys of the `data` group do not go together, one text an error; no file is opened."""
    if config.name not in NAMES:
        hint = nearest(config.name, NAMES)
        return [f"data={config.name}: there is no such corpus; expected one of {', '.join(NAMES)}{hint}"]
    return list(_errors(config))


def _errors(config: DataConfig) -> Iterator[str]:
    name = config.name
    for key, names in USED_BY.items():
        if getattr(config, key) and name not in names:
            yield f"data.{key} is not used by data={name}, only by {', '.join(names)}; leave it out"
    if name in OWN_TEXT and not config.path:
        yield f"data={name} needs a text: set data.path to a file, a folder or a glob"
    if config.encoding != "bytes" and any("\ud800" <= character <= "\udfff" for character in config.separator):
        yield f"data.separator={config.separator!r} is not text; data.encoding=bytes accepts any byte"
    if config.split is not None and name in USED_BY["split"]:
        shares = [Fraction(str(share)) if isfinite(share) else Fraction(0) for share in config.split]
        if not 1 <= len(shares) <= 3 or min(shares) <= 0 or sum(shares) > 1:
            yield (
                f"data.split={config.split}: expected one to three shares (train, val, test) above 0 with a sum of at "
                "most 1, such as [0.9,0.1] or [0.8,0.1,0.1]"
            )
        if config.val_path:
            yield f"data.split={config.split}: with data.val_path all of data.path is for training; leave one out"
        elif config.test_path and len(shares) == 3:
            yield f"data.split={config.split}: with data.test_path the third share is not used; give two shares"
    if name == "hello":
        inputs, target, symbols = pair_of(config)
        if len(inputs) != len(target):
            yield (
                f"data.input={inputs} has {len(inputs)} characters and data.target={target} has {len(target)}; "
                "each step needs one target"
            )
        if len(set(symbols)) != len(symbols):
            yield f"data.symbols={symbols}: each symbol may occur only once"
        if missing := sorted(set(inputs + target) - set(symbols)):
            yield f"data.symbols={symbols} lacks {', '.join(missing)} of data.input and data.target; add it"


def pair_of(config: DataConfig) -> tuple[str, str, str]:
    """Return input, target and symbols of data=hello; the defaults are the tutorial's."""
    inputs, target, symbols = HELLO
    return config.input or inputs, config.target or target, config.symbols or symbols
