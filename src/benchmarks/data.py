"""benchmark=data: a large text made for the purpose, encoded, opened again and handed out.

Each measurement is a process of its own with a cache of its own: python -m src.benchmarks.data JOB FILE ENCODING ...
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

from src.benchmarks.memory import MB, in_own_process, resident

LETTERS = "etaoinshrdlucmfwypvbgkjqxzETAOINSH0123456789äéßœ—"
BLOCK = 1_000_000  # bytes of text that are made anew; the file is made of a few of these in random order
BLOCKS = 16


def make_text(path: Path, size_mb: int, seed: int = 0) -> None:
    """Write `size_mb` million bytes of lines of words: 51 characters, a few of them of two and three bytes in UTF-8."""
    random = np.random.default_rng(seed)
    weights = 1.0 / np.arange(1, len(LETTERS) + 1)
    codes, shares = np.array([ord(letter) for letter in LETTERS]), np.cumsum(weights / weights.sum())
    shares[-1] = 1.0
    blocks = []
    for _ in range(min(BLOCKS, size_mb)):
        letters = codes[np.searchsorted(shares, random.random(BLOCK))]
        letters[random.random(BLOCK) < 0.18] = ord(" ")
        letters[random.random(BLOCK) < 0.02] = ord("\n")
        block = letters.astype("<u4").tobytes().decode("utf-32-le").encode()[:BLOCK]
        blocks.append(block.decode("utf-8", "ignore").encode().ljust(BLOCK))  # the cut may go through a character
    with path.open("wb") as file:
        for _ in range(size_mb):
            file.write(blocks[random.integers(len(blocks))])


def run(words: dict[str, Any]) -> dict[str, Any]:
    """Make the text, measure, remove everything, and return seconds, rates and megabytes, as plain data."""
    with tempfile.TemporaryDirectory(prefix="unroll-benchmark-", dir=words["folder"]) as name:
        folder = Path(name)
        text, tiny = folder / "text.txt", folder / "tiny.txt"
        make_text(text, words["size_mb"])
        tiny.write_bytes(_head(text, 100_000))
        old = time.time() - 60  # a file this young might still change, and its checksum is not remembered
        for file in (text, tiny):
            os.utime(file, (old, old))
        cache = {"UNROLL_CACHE": str(folder / "cache"), "OMP_NUM_THREADS": "1"}
        shape = (str(words["seq_len"]), str(words["batch_size"]))
        job = "src.benchmarks.data"
        found: dict[str, Any] = {"bytes": text.stat().st_size, "encode": {}}
        for encoding in ("characters", "bytes"):
            found["encode"][encoding] = in_own_process(job, "encode", str(text), encoding, *shape, **cache)
        in_own_process(job, "encode", str(tiny), "characters", *shape, **cache)
        starts = {}
        for corpus in (tiny, text):
            started = time.perf_counter()
            starts[corpus.stem] = in_own_process(job, "start", str(corpus), "characters", *shape, **cache)
            starts[corpus.stem]["process_seconds"] = time.perf_counter() - started
        found["second_start"] = starts
        found["loader"] = in_own_process(job, "load", str(text), "characters", *shape, **cache)
    for encode in found["encode"].values():
        encode["mb_per_second"] = found["bytes"] / encode["seconds"] / MB
    later = starts["text"]["process_seconds"] - starts["tiny"]["process_seconds"]
    return {**found, "seconds_more_than_tiny": later, "window": [words["seq_len"], words["batch_size"]]}


def lines(found: dict[str, Any]) -> list[str]:
    """Return the table."""
    told = [f"a text of {found['bytes'] / MB:,.0f} MB, made for the purpose; each row is a process of its own"]
    told.append(f"  {'':<39} {'seconds':>8} {'MB/s':>8} {'peak MB':>8}")
    for encoding, m in found["encode"].items():
        what = f"encoded in {encoding}, the first start"
        told.append(f"  {what:<39} {m['seconds']:>8.2f} {m['mb_per_second']:>8.0f} {m['peak_mb']:>8,.0f}")
    for corpus, m in found["second_start"].items():
        what = f"first batch of a second start, {corpus}"
        told.append(f"  {what:<39} {m['seconds']:>8.2f} {'':>8} {m['peak_mb']:>8,.0f}")
    more, (time_, batch), loader = found["seconds_more_than_tiny"], found["window"], found["loader"]
    told.append(f"  a second start of this text takes {more:.2f} s more than one of a tiny text, whole process")
    rate = loader["characters_per_second"] / 1e6
    windows = f"windows of {time_} x {batch}; peak {loader['peak_mb']:,.0f} MB"
    told.append(f"  the loader alone hands out {rate:,.0f} million characters/s, in {windows}")
    told.append("  (the mapped text among it, which the system takes back as soon as it needs the memory)")
    return told


def _head(path: Path, size: int) -> bytes:
    with path.open("rb") as file:
        return file.read(size).decode("utf-8", "ignore").encode()


def main(job: str, file: str, encoding: str, seq_len: str, batch_size: str) -> None:
    """Do one job in this process and print what it took as JSON."""
    from src.config.schema import DataConfig
    from src.data.corpus import open_corpus

    started = time.perf_counter()
    corpus = open_corpus(DataConfig("text", path=file, encoding=encoding))
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
