"""The types and checks of `python -m src.benchmark`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from omegaconf import MISSING

from src.mistakes import nearest

# Which of the words each benchmark has, beside `name` and `out`.
WORDS = {
    "models": (
        "models", "hidden_size", "num_layers", "seq_len", "batch_size", "vocab_size", "seconds", "repeats", "threads",
        "memory", "exactness", "rate_size",
    ),
    "data": ("size_mb", "folder", "seq_len", "batch_size"),
    "callbacks": (),
    "step": ("steps",),
}  # fmt: skip
TRAINING = ("callbacks", "step")  # those that train a run, and so take words of src.train
MODELS = ("cell", "stacked", "manual", "stacked_bf16", "manual_bf16", "lstm", "gru")


@dataclass
class BenchmarkWords:
    """What is measured, and how; None where a word is not given or means nothing."""

    name: str = MISSING
    out: str | None = None
    models: list[str] | None = None
    hidden_size: int | None = None
    num_layers: int | None = None
    seq_len: int | None = None
    batch_size: int | None = None
    vocab_size: int | None = None
    seconds: float | None = None
    repeats: int | None = None
    threads: str | None = None
    memory: bool | None = None
    exactness: bool | None = None
    rate_size: int | None = None
    size_mb: int | None = None
    folder: str | None = None
    steps: int | None = None


@dataclass
class BenchmarkConfig:
    """The whole of conf/benchmark.yaml."""

    benchmark: BenchmarkWords = field(default_factory=BenchmarkWords)


def mistakes_in_benchmark(config: Mapping[str, Any]) -> list[str]:
    """Return everything that is wrong, one text a mistake."""
    words, found = config["benchmark"], []
    has = WORDS[words["name"]]
    for key, value in words.items():
        if value is None or key in ("name", "out"):
            continue
        if key not in has:
            those = ", ".join((*has, "out"))
            found.append(f"benchmark.{key} means nothing for benchmark={words['name']}, which has {those}")
        elif isinstance(value, int | float) and not isinstance(value, bool) and value <= 0:
            found.append(f"benchmark.{key}={value}: expected a number above 0")
    for name in words["models"] or []:
        if name not in MODELS:
            found.append(f"benchmark.models: {name}: expected some of {', '.join(MODELS)}{nearest(name, MODELS)}")
    if words["models"] == [] and words["name"] == "models":
        found.append(f"benchmark.models is empty: expected some of {', '.join(MODELS)}")
    threads = words["threads"]
    if threads not in (None, "auto") and not (threads.isdecimal() and int(threads) > 0):
        found.append(f"benchmark.threads={threads}: expected auto or a number of at least 1")
    for key in ("out", "folder"):
        if words[key] is not None:
            place = Path(words[key]).expanduser()
            place = place.parent if key == "out" else place
            if not place.is_dir():
                found.append(f"benchmark.{key}={words[key]}: there is no folder {place}")
    return found
