"""A list, one item a line: drawn into splits by a seed, each item between two boundary symbols.

The boundary is the newline, which no item can contain: it starts an item, ends it, and stands between two. A model that
has read "\\n" is asked for a new item, and has finished it when it writes "\\n".
"""

from __future__ import annotations

import hashlib
from fractions import Fraction
from itertools import pairwise

import numpy as np

from src.data.errors import DataError
from src.data.text_files import Counts, Piece, Rules, Source, pieces

BOUNDARY = "\n"


def read_items(sources: list[Source], rules: Rules, counts: Counts) -> tuple[bytes, list[str], list[int]]:
    """The clean text of a list as UTF-8 (or bytes), held in memory, with checksum and size of each source."""
    hashes = [hashlib.sha256() for _ in sources]
    sizes = [0] * len(sources)

    def tee(index: int, block: bytes) -> None:
        hashes[index].update(block)
        sizes[index] += len(block)

    clean = b"".join(_utf8(piece) for piece in pieces(sources, rules, counts, tee))
    return clean, [digest.hexdigest() for digest in hashes], sizes


def _utf8(piece: Piece) -> bytes:
    return piece if isinstance(piece, bytes) else piece.tobytes().decode("utf-32-le").encode()


def spans(clean: bytes) -> tuple[np.ndarray, np.ndarray]:
    """Where each item starts and ends; empty lines are left out. `clean` is any text with or without a last newline."""
    ends = np.flatnonzero(np.frombuffer(clean, np.uint8) == ord(BOUNDARY))
    if not clean.endswith(b"\n"):
        ends = np.append(ends, len(clean))
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
    """The items of these spans, one behind the other: \\n item \\n item \\n."""
    source = np.frombuffer(clean, np.uint8)
    lengths = ends - starts + 1  # with the boundary that follows
    places = np.concatenate(([1], 1 + np.cumsum(lengths)))
    text = np.full(int(places[-1]), ord(BOUNDARY), np.uint8)
    # index of every byte: its item's start, and how far into the item it is
    step = np.arange(len(text) - 1) - np.repeat(places[:-1] - 1, lengths)
    take = np.repeat(starts, lengths) + step
    inside = step < np.repeat(lengths - 1, lengths)
    text[1:][inside] = source[take[inside]]
    return text.tobytes()


def cuts(length: int, shares: list[float]) -> list[int]:
    """Where `length` is cut by shares: floor of their exact running sum, so that 0.9 of 10 is 9."""
    sums = [sum((Fraction(str(share)) for share in shares[:count]), Fraction(0)) for count in range(len(shares) + 1)]
    return [int(length * total) for total in sums]
