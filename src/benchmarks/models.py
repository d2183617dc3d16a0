"""benchmark=models: the implementations beside one another, at each size."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch

from src.benchmarks import exactness, memory
from src.benchmarks.cases import CASES, SIZES, Size, Step, operations
from src.benchmarks.timing import product_rate, take_turns
from src.training.machine import keep_memory, threads_for, use_threads

SIZE_WORDS = ("hidden_size", "num_layers", "seq_len", "batch_size")


def sizes_of(words: dict[str, Any]) -> list[Size]:
    """Return the five sizes, or the one that is asked for: what it leaves out is that of the first of the five."""
    given = {word: words[word] for word in SIZE_WORDS if words[word] is not None}
    sizes = [SIZES[0]._replace(**given)] if given else list(SIZES)
    return [size._replace(vocab_size=words["vocab_size"]) for size in sizes]


def run(words: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield, size after size, what was measured, as plain data."""
    rates: dict[int, dict[str, float]] = {}
    keep_memory()  # as in training
    for size in sizes_of(words):
        threads = threads_for(words["threads"], size.hidden_size)
        use_threads(threads)
        if threads not in rates:
            kinds = {"float32": torch.float32, "bfloat16": torch.bfloat16}
            rates[threads] = {name: product_rate(dtype, words["rate_size"]) for name, dtype in kinds.items()}
        measured = measure(words["models"], size, words["seconds"], words["repeats"])
        if words["exactness"]:
            for name, error in exactness.gradient_errors(words["models"], size).items():
                measured[name]["gradient_error"] = error
        for name, found in measured.items():
            kind = "bfloat16" if CASES[name].bf16 else "float32"
            found["gflops"] = operations(CASES[name], size) / found["median_ms"] / 1e6
            found["share_of_rate"] = found["gflops"] * 1e9 / rates[threads][kind]
            if words["memory"]:
                found |= memory.of_step(name, size, threads)
        told = {name: round(rate / 1e9, 1) for name, rate in rates[threads].items()}
        yield {**size._asdict(), "threads": threads, "product_gflops": told, "models": measured}


def measure(names: Sequence[str], size: Size, seconds: float, rounds: int | None) -> dict[str, dict[str, Any]]:
    """Return times, characters a second and the ratio to stacked, by name."""
    times = take_turns({name: Step(name, size) for name in names}, seconds, rounds)
    found: dict[str, dict[str, Any]] = {}
    for name, taken in times.items():
        found[name] = {
            "min_ms": taken.least * 1e3,
            "median_ms": taken.median * 1e3,
            "steps": len(taken.seconds),
            "characters_per_second": size.characters / taken.median,
        }
        if "stacked" in times:
            found[name]["times_as_fast_as_stacked"] = times["stacked"].median / taken.median
    return found


def lines(found: dict[str, Any]) -> list[str]:
    """Return the table of one size."""
    size = Size(*(found[field] for field in Size._fields))
    rates = found["product_gflops"]
    title = f"{size}; {found['threads']} thread{'s' * (found['threads'] > 1)}"
    told = [
        title,
        f"  products of matrices: {rates['float32']:,.0f} GFLOP/s in float32, {rates['bfloat16']:,.0f} in bfloat16",
        f"  {'model':<12} {'min ms':>8} {'median':>8} {'char/s':>9} {'GFLOP/s':>8} {'of rate':>7} "
        f"{'x stacked':>9} {'step MB':>8} {'peak MB':>8} {'grad. error':>11}",
    ]
    for name, m in found["models"].items():
        cells = [
            f"  {name:<12} {m['min_ms']:>8.2f} {m['median_ms']:>8.2f} {m['characters_per_second']:>9,.0f}",
            f"{m['gflops']:>8.1f} {m['share_of_rate']:>7.1%}",
            f"{_or_dash(m, 'times_as_fast_as_stacked', '.2f'):>9}",
            f"{_or_dash(m, 'step_mb', ',.0f'):>8} {_or_dash(m, 'peak_mb', ',.0f'):>8}",
            f"{_or_dash(m, 'gradient_error', '.1e'):>11}",
        ]
        told.append(" ".join(cells))
    return told


NOTES = (
    "A step is forward, backward, Adam; all models take turns in one process. x stacked: the median of",
    "stacked over the model's own. GFLOP/s: what the equations need (three products of each U, W, V; the",
    "first U is looked up) in the median time; of rate: as a share of what torch reaches in a large",
    "product of that type. MB: at the peak, each model in a process of its own; step: beyond what it had",
    "before its first step. grad. error: the largest relative difference of a gradient to autograd's in",
    "float64.",
)


def _or_dash(found: dict[str, Any], key: str, form: str) -> str:
    return format(found[key], form) if key in found else "-"
