"""One reading of a text: its checksum, its length in symbols, and where each distinct symbol occurs first.

The first occurrences are all that vocabularies need: a symbol belongs to the training text where its first occurrence
lies before the cut. Looking for symbols not yet seen is much faster than counting all of them.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from src.data.beside import Beside
from src.data.cache import folder, read_json, write_json
from src.data.text_files import Counts, Piece, Rules, Source, pieces

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
