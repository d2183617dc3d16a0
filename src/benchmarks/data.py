"""benchmark=data: a large generated text, encoded, opened again and read in windows.

Each measurement is a process of its own, with its own cache: python -m src.benchmarks.data JOB FILE ENCODING ...
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from src.benchmarks.measuring import MB, in_own_process, resident
from src.config.commands import BenchmarkOptions

LETTERS = " etaoinshrd\nlucmfwypvbgkjqxzETAOINSH0123456789äéßœ—"  # the most frequent first
BLOCK = 1_000_000  # bytes that are generated; the file is made of a few such blocks in random order
BLOCKS = 16


def make_text(path: Path, size_mb: int, seed: int = 0) -> None:
    """Write `size_mb` million bytes of text: 51 characters, some of them of two and three bytes in UTF-8."""
    random = np.random.default_rng(seed)
    letters = np.array(list(LETTERS))
    shares = 1.0 / np.arange(1, len(letters) + 1)
    drawn = (random.choice(letters, BLOCK, p=shares / shares.sum()) for _ in range(min(BLOCKS, size_mb)))
    blocks = [_whole_characters("".join(block).encode(), BLOCK).ljust(BLOCK) for block in drawn]
    with path.open("wb") as file:
        for _ in range(size_mb):
            file.write(blocks[random.integers(len(blocks))])


def _whole_characters(data: bytes, size: int) -> bytes:
    """Return at most `size` bytes, without a part of a character at the end."""
    return data[:size].decode("utf-8", "ignore").encode()


def run(options: BenchmarkOptions) -> dict[str, Any]:
    """Make the text, measure, remove everything, and return seconds, rates and megabytes, as plain data."""
    with tempfile.TemporaryDirectory(prefix="unroll-benchmark-", dir=options.folder) as name:
        folder = Path(name)
        text, tiny = folder / "text.txt", folder / "tiny.txt"
        make_text(text, options.size_mb or 1)
        with text.open("rb") as file:
            tiny.write_bytes(_whole_characters(file.read(100_000), 100_000))
        old = time.time() - 60  # the checksum of a file that has just changed is not cached
        for path in (text, tiny):
            os.utime(path, (old, old))
        environment = {"UNROLL_CACHE": str(folder / "cache"), "OMP_NUM_THREADS": "1"}

        def job(what: str, path: Path, encoding: str = "characters") -> dict[str, Any]:
            window = (str(options.seq_len), str(options.batch_size))
            return in_own_process("src.benchmarks.data", what, str(path), encoding, *window, **environment)

        encode = {encoding: job("encode", text, encoding) for encoding in ("characters", "bytes")}
        job("encode", tiny)
        starts = {}
        for path in (tiny, text):
            started = time.perf_counter()
            starts[path.stem] = job("start", path)
            starts[path.stem]["process_seconds"] = time.perf_counter() - started
        loader, size = job("load", text), text.stat().st_size
    for found in encode.values():
        found["mb_per_second"] = size / found["seconds"] / MB
    later = starts["text"]["process_seconds"] - starts["tiny"]["process_seconds"]
    window = [options.seq_len, options.batch_size]
    results = {"bytes": size, "encode": encode, "second_start": starts, "loader": loader}
    return {**results, "seconds_more_than_tiny": later, "window": window}


def table(found: dict[str, Any]) -> list[str]:
    """Return the table."""
    lines = [f"a generated text of {found['bytes'] / MB:,.0f} MB; each row is a process of its own"]
    lines.append(f"  {'':<39} {'seconds':>8} {'MB/s':>8} {'peak MB':>8}")
    for encoding, m in found["encode"].items():
        what = f"encoded in {encoding}, the first start"
        lines.append(f"  {what:<39} {m['seconds']:>8.2f} {m['mb_per_second']:>8.0f} {m['peak_mb']:>8,.0f}")
    for corpus, m in found["second_start"].items():
        what = f"first batch of a second start, {corpus}"
        lines.append(f"  {what:<39} {m['seconds']:>8.2f} {'':>8} {m['peak_mb']:>8,.0f}")
    more, (seq_len, batch_size), loader = found["seconds_more_than_tiny"], found["window"], found["loader"]
    rate = loader["characters_per_second"] / 1e6
    return [
        *lines,
        f"  a second start of this text takes {more:.2f} s more than one of a tiny text, whole process",
        f"  the loader alone yields {rate:,.0f} million characters/s, in windows of {seq_len} x {batch_size}; "
        f"peak {loader['peak_mb']:,.0f} MB",
        "  (with the mapped text, whose memory the system takes back when it is needed)",
    ]


def main(job: str, file: str, encoding: str, seq_len: str, batch_size: str) -> None:
    """Do one job in this process and print its seconds and memory as JSON."""
    from src.config.schema import DataConfig
    from src.data.corpus import open_corpus

    started = time.perf_counter()
    corpus = open_corpus(DataConfig(name="text", path=file, encoding=encoding))
    found: dict[str, Any] = {}
    if job != "encode":
        from src.data.batching import Windows

        windows = Windows(corpus.splits["train"], int(seq_len), int(batch_size))
        next(iter(windows))
    found["seconds"] = time.perf_counter() - started
    if job == "load":
        windows = Windows(corpus.splits["train"], int(seq_len), int(batch_size))
        started, characters = time.perf_counter(), 0
        for window in windows:
            characters += window.targets.numel()
            if time.perf_counter() - started > 10:
                break
        found["characters_per_second"] = characters / (time.perf_counter() - started)
    found["peak_mb"] = round(resident()[1] / MB, 1)
    print(json.dumps(found))


if __name__ == "__main__":
    main(*sys.argv[1:])
