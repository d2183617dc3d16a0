"""The files of a run that only grow, and how they are cut back to a checkpoint.

A run that was killed has written curves and lines behind its last checkpoint. Resumed, it writes them again. So each
checkpoint remembers how long these files were, and a resume cuts them to that length: one clean curve, no line twice.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path

PATTERNS = ("metrics.jsonl", "metrics.csv", "events.out.tfevents.*")


def growing_files(folder: Path) -> Iterator[Path]:
    """Yield the append-only files of a run that exist."""
    for pattern in PATTERNS:
        yield from sorted(folder.glob(pattern))


def lengths(folder: Path) -> dict[str, int]:
    """Return the length in bytes of each append-only file of a run; what is still in a buffer does not count."""
    return {file.name: file.stat().st_size for file in growing_files(folder)}


def cut_back(folder: Path, to: Mapping[str, int]) -> None:
    """Cut each append-only file to the length it had, and remove those that came later."""
    for file in list(growing_files(folder)):
        if file.name in to:
            os.truncate(file, min(to[file.name], file.stat().st_size))
        else:
            file.unlink()
