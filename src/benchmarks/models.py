"""benchmark=models: a train step (forward, backward, Adam) of each implementation; benchmark=sampling: characters.

python -m src.benchmarks.models NAME SIZE THREADS measures the memory of one implementation and prints JSON.
"""

from __future__ import annotations

import copy
import json
import statistics
import sys
import time
from collections.abc import Iterator
from itertools import islice
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from src.benchmarks.measuring import MB, in_own_process, reset_peak, resident, take_turns, timed
from src.config.commands import BenchmarkOptions
from src.config.schema import ModelConfig, OptimizerConfig, SamplingConfig
from src.data.vocabulary import Vocabulary
from src.inference.generate import decoded, generate_ids
from src.models.gated import LSTM
from src.models.language_model import LanguageModel, State, build_model, detached
from src.process import threads_for, use_threads
from src.training.machine import keep_memory
from src.training.module import build_optimizer


class Size(NamedTuple):
    """A network and its windows."""

    hidden_size: int
    num_layers: int
    seq_len: int
    batch_size: int
    vocab_size: int = 65  # Tiny Shakespeare's

    def __str__(self) -> str:
        layers = f"{self.num_layers} layer{'s' * (self.num_layers > 1)} of {self.hidden_size} units"
        return f"{layers}, windows of {self.seq_len} steps x {self.batch_size} streams, {self.vocab_size} characters"


SIZES = (
    Size(128, 1, 64, 32),
    Size(128, 2, 50, 50),
    Size(256, 1, 100, 64),
    Size(512, 2, 100, 64),
    Size(1024, 2, 128, 64),
)


class Case(NamedTuple):
    """An implementation: its class, how many gates of U and W it has, and whether it runs under bf16 autocast."""

    target: str
    gates: int = 1
    bf16: bool = False


CASES = {
    "cell": Case("src.models.cell.CellRNN"),
    "stacked": Case("src.models.stacked.StackedRNN"),
    "manual": Case("src.models.manual.ManualRNN"),
    "stacked_bf16": Case("src.models.stacked.StackedRNN", bf16=True),
    "manual_bf16": Case("src.models.manual.ManualRNN", bf16=True),
    "lstm": Case("src.models.gated.LSTM", gates=4),
    "gru": Case("src.models.gated.GRU", gates=3),
}


def operations(case: Case, size: Size) -> float:
    """Return the multiplications and additions of a train step that are in matrix products, 2 for each pair.

    What the equations need in any implementation: three products (forward, deltas, weights) of each U, W and V, except
    the first layer's U, of which a one-hot input picks a column.
    """
    H = size.hidden_size
    weights = case.gates * H * H * (2 * size.num_layers - 1) + H * size.vocab_size
    return 3 * 2.0 * weights * size.seq_len * size.batch_size


def build(case: Case, size: Size) -> LanguageModel:
    """Return a new model, always from the same seed."""
    torch.manual_seed(0)
    config = ModelConfig(_target_=case.target, hidden_size=size.hidden_size, num_layers=size.num_layers)
    return build_model(config, size.vocab_size)


def window(size: Size) -> tuple[Tensor, Tensor]:
    """Return random ids and targets, (time, batch)."""
    generator = torch.Generator().manual_seed(1)
    ids = torch.randint(size.vocab_size, (2, size.seq_len, size.batch_size), generator=generator)
    return ids[0], ids[1]


def loss_of(model: LanguageModel, inputs: Tensor, targets: Tensor, state: State, bf16: bool) -> tuple[Tensor, State]:
    """Run a window forward: the mean cross-entropy of its characters, and the state."""
    with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
        logits, state = model(inputs, state)
        return F.cross_entropy(logits.flatten(0, 1), targets.flatten()), state


class Step:
    """A train step; the state is carried from call to call, detached, as in training."""

    def __init__(self, name: str, size: Size) -> None:
        self.bf16 = CASES[name].bf16
        self.model = build(CASES[name], size)
        self.optimizer = build_optimizer(self.model.parameters(), OptimizerConfig("adam"))
        self.inputs, self.targets = window(size)
        self.state: State = None

    def __call__(self) -> None:
        loss, state = loss_of(self.model, self.inputs, self.targets, self.state, self.bf16)
        self.state = detached(state)
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()


def gradient_errors(names: list[str], size: Size) -> dict[str, float]:
    """Return, for each case, the largest relative difference of a gradient from that of the same model in float64.

        max over the parameters of   max |g - g_64| / max |g_64|

    In float64 the gradients of cell, stacked and manual agree with autograd's to 1e-10 (tests/parity).
    """
    errors = {}
    for name in names:
        model = build(CASES[name], size)
        exact = gradients(copy.deepcopy(model).double(), size, False)
        pairs = zip(gradients(model, size, CASES[name].bf16), exact, strict=True)
        found = [(g.double() - exact_g).abs().max() / exact_g.abs().max() for g, exact_g in pairs]
        errors[name] = float(torch.stack(found).max())  # torch's max returns a NaN, Python's may not
    return errors


def gradients(model: LanguageModel, size: Size, bf16: bool) -> list[Tensor]:
    """Return the gradient of every parameter, after a window from a random state."""
    generator = torch.Generator().manual_seed(2)
    shape, dtype = (size.num_layers, size.batch_size, size.hidden_size), next(model.parameters()).dtype
    h, c = (torch.rand(shape, generator=generator).sub(0.5).to(dtype) for _ in range(2))
    loss, _ = loss_of(model, *window(size), (h, c) if isinstance(model.recurrence, LSTM) else h, bf16)
    loss.backward()
    return [p.grad for p in model.parameters() if p.grad is not None]


# -- benchmark=models -------------------------------------------------------------------------------------------------


def sizes_of(options: BenchmarkOptions) -> list[Size]:
    """Return the five sizes, or the one that is asked for; keys that are not given are those of the first size."""
    values = {key: getattr(options, key) for key in ("hidden_size", "num_layers", "seq_len", "batch_size")}
    given = {key: value for key, value in values.items() if value is not None}
    sizes = [SIZES[0]._replace(**given)] if given else list(SIZES)
    return [size._replace(vocab_size=options.vocab_size or size.vocab_size) for size in sizes]


def run_models(options: BenchmarkOptions) -> Iterator[dict[str, Any]]:
    """Yield the results of each size, as plain data."""
    rates: dict[int, dict[str, float]] = {}
    names = options.models or []
    keep_memory()  # as in training
    for size in sizes_of(options):
        threads = threads_for(options.threads or "auto", size.hidden_size)
        use_threads(threads)
        if threads not in rates:
            kinds = {"float32": torch.float32, "bfloat16": torch.bfloat16}
            rates[threads] = {kind: product_rate(dtype, options.rate_size or 1) for kind, dtype in kinds.items()}
        times = take_turns({name: Step(name, size) for name in names}, options.seconds or 0, options.repeats)
        errors = gradient_errors(names, size) if options.exactness else {}
        models: dict[str, dict[str, Any]] = {}
        for name, seconds in times.items():
            median = statistics.median(seconds)
            found: dict[str, Any] = {"min_ms": min(seconds) * 1e3, "median_ms": median * 1e3, "steps": len(seconds)}
            found["characters_per_second"] = size.seq_len * size.batch_size / median
            if "stacked" in times:
                found["times_as_fast_as_stacked"] = statistics.median(times["stacked"]) / median
            if name in errors:
                found["gradient_error"] = errors[name]
            found["gflops"] = operations(CASES[name], size) / median / 1e9
            found["share_of_rate"] = found["gflops"] / rates[threads]["bfloat16" if CASES[name].bf16 else "float32"]
            if options.memory:
                found |= in_own_process("src.benchmarks.models", name, json.dumps(size), str(threads))
            models[name] = found
        rounded = {kind: round(rate, 1) for kind, rate in rates[threads].items()}
        yield {**size._asdict(), "threads": threads, "product_gflops": rounded, "models": models}


def product_rate(dtype: torch.dtype, size: int) -> float:
    """Return the GFLOP/s of torch in the product of two matrices (size, size), at its best."""
    A, B = (torch.randn(size, size).to(dtype) for _ in range(2))
    out = torch.empty_like(A)
    torch.mm(A, B, out=out)
    return 2e-9 * size**3 / min(timed(lambda: torch.mm(A, B, out=out)) for _ in range(4))


def measure_memory(name: str, size: Size, threads: int) -> dict[str, float]:
    """Return megabytes: `peak_mb` of this whole process, `step_mb` what three steps took in addition to the start."""
    use_threads(threads)
    keep_memory()
    Step(name, Size(8, 1, 2, 2, 4))()  # what torch loads at its first step does not belong to the model
    step = Step(name, size)
    reset_peak()
    before, _ = resident()
    for _ in range(3):
        step()
    _, peak = resident()
    return {"step_mb": round((peak - before) / MB, 1), "peak_mb": round(peak / MB, 1)}


def models_table(found: dict[str, Any]) -> list[str]:
    """Return the table of one size."""
    size = Size(*(found[field] for field in Size._fields))
    rates = found["product_gflops"]
    lines = [
        f"{size}; {found['threads']} thread{'s' * (found['threads'] > 1)}",
        f"  products of matrices: {rates['float32']:,.0f} GFLOP/s in float32, {rates['bfloat16']:,.0f} in bfloat16",
        f"  {'model':<12} {'min ms':>8} {'median':>8} {'char/s':>9} {'GFLOP/s':>8} {'of rate':>7} "
        f"{'x stacked':>9} {'step MB':>8} {'peak MB':>8} {'grad. error':>11}",
    ]
    columns = {
        "min_ms": (8, ".2f"), "median_ms": (8, ".2f"), "characters_per_second": (9, ",.0f"), "gflops": (8, ".1f"),
        "share_of_rate": (7, ".1%"), "times_as_fast_as_stacked": (9, ".2f"), "step_mb": (8, ",.0f"),
        "peak_mb": (8, ",.0f"), "gradient_error": (11, ".1e"),
    }  # fmt: skip
    for name, m in found["models"].items():
        cells = [f"{format(m[key], form) if key in m else '-':>{width}}" for key, (width, form) in columns.items()]
        lines.append(f"  {name:<12} {' '.join(cells)}")
    return lines


NOTES = (
    "A step is forward, backward, Adam; all models take turns in one process. x stacked: the median of",
    "stacked over the model's own. GFLOP/s: what the equations need (three products of each U, W, V; the",
    "first U is looked up) in the median time; of rate: as a share of what torch reaches in a large",
    "product of that type. MB: at the peak, each model in a process of its own; step: beyond what it had",
    "before its first step. grad. error: the largest relative difference of a gradient from that of the",
    "same model in float64.",
)

# -- benchmark=sampling: cell and stacked generate by the same steps as manual ----------------------------------------

STREAMS = (1, 64)
EARLY, LATE = 10, 10_000  # the characters whose time is compared
AROUND = 100  # each is the median of this many


def run_sampling(options: BenchmarkOptions) -> dict[str, Any]:
    """Return characters a second, and microseconds of single characters, as plain data."""
    size = sizes_of(options)[0]
    threads = threads_for(options.threads or "auto", size.hidden_size)
    use_threads(threads)
    model = build(CASES["manual"], size).eval().requires_grad_(False)
    rates = {str(streams): sampling_rate(model, size.vocab_size, streams, options.seconds or 0) for streams in STREAMS}
    ids, seconds = generated(model, 1), []
    for _ in range(LATE + AROUND):
        seconds.append(timed(lambda: next(ids)))
    times = {str(first): statistics.median(seconds[first : first + AROUND]) * 1e6 for first in (EARLY, LATE)}
    found = {key: getattr(size, key) for key in ("num_layers", "hidden_size", "vocab_size")}
    return {**found, "threads": threads, "characters_per_second": rates, "microseconds": times}


def sampling_rate(model: LanguageModel, vocab_size: int, streams: int, seconds: float) -> float:
    """Return how many characters a second all streams generate together, as text, over `seconds`."""
    vocabulary = Vocabulary(tuple(range(vocab_size)))
    texts = decoded(generated(model, streams), vocabulary, SamplingConfig(length=10**12, num_samples=streams))
    for _ in islice(texts, EARLY):
        pass  # without what is loaded and allocated at first
    steps, started = 0, time.perf_counter()
    while (taken := time.perf_counter() - started) < seconds or not steps:
        steps += sum(1 for _ in islice(texts, 10))
    return steps * streams / taken


def generated(model: LanguageModel, streams: int) -> Iterator[np.ndarray]:
    """Yield ids (streams,) without end, after the first character of the vocabulary, at temperature 1."""
    return generate_ids(model, np.zeros(1, np.uint8), SamplingConfig(), range(streams))


def sampling_table(found: dict[str, Any]) -> list[str]:
    """Return the table."""
    what = f"model=manual, {found['num_layers']} x {found['hidden_size']} units, {found['vocab_size']} characters"
    early, late = found["microseconds"].values()
    return [
        f"{what}; {found['threads']} thread{'s' * (found['threads'] > 1)}",
        f"  {'streams':<8} {'characters/s':>14}",
        *(f"  {streams:<8} {rate:>14,.0f}" for streams, rate in found["characters_per_second"].items()),
        f"  the {EARLY}th character took {early:.0f} us, the {LATE:,}th {late:.0f} us (one stream)",
    ]


if __name__ == "__main__":
    print(json.dumps(measure_memory(sys.argv[1], Size(*json.loads(sys.argv[2])), int(sys.argv[3]))))
