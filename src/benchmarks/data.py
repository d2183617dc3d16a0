"""benchmark=data: a large generated text, encoded, opened again and read in windows, with a new cache."""

from __future__ import annotations

import os
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from src.benchmarks.measuring import MB, in_own_process, peak_memory, table_lines
from src.config.schema import BenchmarkOptions, DataConfig

LETTERS = " etaoinshrd\nlucmfwypvbgkjqxzETAOINSH0123456789äéßœ—"  # the most frequent first; of 1 to 3 bytes each
BLOCK = 1_000_000  # bytes; the file repeats one generated block


def run(options: BenchmarkOptions) -> dict[str, Any]:
    """Make the text, measure, remove everything, and return seconds, rates and megabytes, as plain data."""
    window = [options.seq_len, options.batch_size]
    shares = 1.0 / np.arange(1, len(LETTERS) + 1)
    letters = "".join(np.random.default_rng(0).choice(list(LETTERS), BLOCK, p=shares / shares.sum()))
    block = letters.encode()[:BLOCK].decode(errors="ignore").encode().ljust(BLOCK)
    with tempfile.TemporaryDirectory(prefix="unroll-benchmark-", dir=options.folder) as name:
        folder = Path(name)
        text = folder / "text.txt"
        with text.open("wb") as file:
            file.writelines([block] * (options.size_mb or 1))
        os.utime(text, (time.time() - 60,) * 2)  # the checksum of a file that has just changed is not cached

        def job(what: str, encoding: str = "characters") -> dict[str, Any]:
            return dict(in_own_process(measure, what, text, encoding, *window, folder / "cache"))

        encode = {encoding: job("encode", encoding) for encoding in ("characters", "bytes")}
        start, loader, size = job("start"), job("load"), text.stat().st_size
    for found in encode.values():
        found["mb_per_second"] = size / found["seconds"] / MB
    return {"bytes": size, "encode": encode, "second_start": start, "loader": loader, "window": window}


def measure(job: str, path: Path, encoding: str, seq_len: int, batch_size: int, cache: Path) -> dict[str, Any]:
    """Do one job in this process (encode, start: up to the first window, load: all) and return seconds and memory."""
    os.environ["UNROLL_CACHE"] = str(cache)
    from src.data.corpus import open_corpus

    started = time.perf_counter()
    corpus = open_corpus(DataConfig(name="text", path=str(path), encoding=encoding))
    found: dict[str, Any] = {}
    if job != "encode":
        from src.data.batching import Windows  # torch, which encoding does without

        windows = Windows(corpus.splits["train"], seq_len, batch_size)
        next(iter(windows))
    found["seconds"] = time.perf_counter() - started
    if job == "load":
        started, characters = time.perf_counter(), 0
        for window in windows:
            characters += window.targets.numel()
            if time.perf_counter() - started > 10:
                break
        found["characters_per_second"] = characters / (time.perf_counter() - started)
    return {**found, "peak_mb": round(peak_memory() / MB, 1)}


def table(found: dict[str, Any]) -> list[str]:
    """Return the table."""
    measured = {f"encoded in {encoding}, the first start": m for encoding, m in found["encode"].items()}
    measured["first batch of a second start"] = found["second_start"]
    rows = [[what, m["seconds"], m.get("mb_per_second"), m["peak_mb"]] for what, m in measured.items()]
    (seq_len, batch_size), loader = found["window"], found["loader"]
    return [
        f"a generated text of {found['bytes'] / MB:,.0f} MB; each row is a process of its own",
        *table_lines({"": "", "seconds": ".2f", "MB/s": ".0f", "peak MB": ",.0f"}, rows),
        f"  the loader alone yields {loader['characters_per_second'] / 1e6:,.0f} million characters/s, in windows of "
        f"{seq_len} x {batch_size}; peak {loader['peak_mb']:,.0f} MB",
        "  (with the mapped text, whose memory the system takes back when it is needed)",
    ]
