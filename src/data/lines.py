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
