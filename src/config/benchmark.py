"""The types and checks of `python -m src.benchmark`."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from math import inf
from pathlib import Path
from typing import Any

from omegaconf import MISSING

from src import paths
from src.config.checks import mistakes_in_threads
from src.mistakes import nearest

# Which of the words each benchmark has, beside `name` and `out`.
WORDS = {
    "models": (
        "models", "hidden_size", "num_layers", "seq_len", "batch_size", "vocab_size", "seconds", "repeats", "threads",
        "memory", "exactness", "rate_size",
    ),
    "data": ("size_mb", "folder", "seq_len", "batch_size"),
    "step": ("steps",),
    "sampling": ("hidden_size", "num_layers", "vocab_size", "seconds", "threads"),
}  # fmt: skip
TRAINING = ("step",)  # those that train a run, and so take words of src.train
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
        elif isinstance(value, int | float) and not isinstance(value, bool) and not 0 < value < inf:
            found.append(f"benchmark.{key}={value}: expected a number above 0, and not an infinite one")
    for name in words["models"] or []:
        if name not in MODELS:
            found.append(f"benchmark.models: {name}: expected some of {', '.join(MODELS)}{nearest(name, MODELS)}")
    if words["models"] == [] and words["name"] == "models":
        found.append(f"benchmark.models is empty: expected some of {', '.join(MODELS)}")
    if words["vocab_size"] == 1:
        found.append("benchmark.vocab_size=1: expected at least 2; of one character there is nothing to learn")
    if words["threads"] is not None:
        found += mistakes_in_threads("benchmark.threads", words["threads"])
    for key in ("out", "folder"):
        if words[key] is not None:
            found += _mistakes_in_place(f"benchmark.{key}={words[key]}", paths.given(words[key]), key == "out")
    return found


def mistakes_in_others(config: Mapping[str, Any], others: Sequence[str]) -> Iterator[str]:
    """Yield what is wrong with words of src.train beside a benchmark that trains no run."""
    words = config["benchmark"]
    if words["name"] not in TRAINING:
        known = [f"benchmark.{key}" for key in words]
        for word in others:
            like = nearest(f"benchmark.{word.partition('=')[0].rpartition('.')[2]}", known)
            yield f"{word}: benchmark={words['name']} takes words of its own alone{like}"


def _mistakes_in_place(word: str, place: Path, a_file: bool) -> Iterator[str]:
    """Yield why nothing can be written there: told before the measuring, not after it."""
    folder = place.parent if a_file else place
    if not folder.is_dir():
        yield f"{word}: there is no folder {folder}"
    elif a_file and place.is_dir():
        yield f"{word} is a folder; name a file in it"
    else:
        try:
            tempfile.TemporaryFile(dir=folder).close()
        except OSError as error:
            yield f"{word}: nothing can be written in {folder}: {error.strerror}"
