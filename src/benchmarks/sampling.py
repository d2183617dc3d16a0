"""benchmark=sampling: how fast a model writes, alone and in many streams, and whether a late character costs more."""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator
from itertools import islice
from typing import Any

import numpy as np
import torch

from src.config.schema import SamplingConfig
from src.data.vocabulary import Vocabulary
from src.inference.generate import decoded, generate_ids
from src.models.language_model import LanguageModel, build_model
from src.training.machine import threads_for, use_threads

STREAMS = (1, 64)
EARLY, LATE = 10, 10_000  # the characters whose time is compared, each the median of those that follow it
AROUND = 100
MANUAL = {"_target_": "src.models.manual.ManualRNN", "readout": "linear"}  # cell and stacked write by the same steps


def run(words: dict[str, Any]) -> dict[str, Any]:
    """Return what was measured, as plain data: characters a second, and microseconds of single characters."""
    size = {key: words[key] for key in ("num_layers", "hidden_size", "vocab_size")}
    threads = threads_for(words["threads"], size["hidden_size"])
    use_threads(threads)
    torch.manual_seed(0)
    model = build_model({**MANUAL, **size}, size["vocab_size"]).eval().requires_grad_(False)
    rates = {str(streams): rate(model, size["vocab_size"], streams, words["seconds"]) for streams in STREAMS}
    return {**size, "threads": threads, "characters_per_second": rates, "microseconds": early_and_late(model)}


def rate(model: LanguageModel, vocab_size: int, streams: int, seconds: float) -> float:
    """Return how many characters a second all streams write together, as text, over `seconds`."""
    vocabulary = Vocabulary(tuple(range(vocab_size)))
    written = decoded(writing(model, streams), vocabulary, SamplingConfig(length=10**12, num_samples=streams))
    for _ in islice(written, EARLY):
        pass  # what is loaded and made at first belongs to no character
    steps, begun = 0, time.perf_counter()
    while (taken := time.perf_counter() - begun) < seconds or not steps:
        steps += sum(1 for _ in islice(written, 10))
    return steps * streams / taken


def early_and_late(model: LanguageModel) -> dict[str, float]:
    """Return microseconds of the 10th and the 10,000th character of one stream."""
    written, taken = writing(model, 1), []
    for _ in range(LATE + AROUND):
        begun = time.perf_counter()
        next(written)
        taken.append(time.perf_counter() - begun)
    return {str(place): statistics.median(taken[place : place + AROUND]) * 1e6 for place in (EARLY, LATE)}


def writing(model: LanguageModel, streams: int) -> Iterator[np.ndarray]:
    """What writes without end, from the first character of the vocabulary, at temperature 1."""
    return generate_ids(model, np.zeros(1, np.uint8), SamplingConfig(), range(streams))


def lines(found: dict[str, Any]) -> list[str]:
    """Return the table."""
    what = f"model=manual, {found['num_layers']} x {found['hidden_size']} units, {found['vocab_size']} characters"
    told = [f"{what}; {found['threads']} thread{'s' * (found['threads'] > 1)}"]
    told.append(f"  {'streams':<8} {'characters/s':>14}")
    told += [f"  {streams:<8} {rate:>14,.0f}" for streams, rate in found["characters_per_second"].items()]
    early, late = found["microseconds"].values()
    return [*told, f"  the {EARLY}th character took {early:.0f} us, the {LATE:,}th {late:.0f} us (one stream)"]
