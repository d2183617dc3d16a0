"""What is timed: one train step (forward, backward, Adam) of one implementation at one size."""

from __future__ import annotations

import copy
import gc
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from src.benchmarks import memory
from src.models.convert import convert_, read_layers
from src.models.language_model import LanguageModel, State, build_model, detached
from src.training.machine import keep_memory, threads_for, use_threads
from src.training.optimizers import build_optimizer


class Size(NamedTuple):
    """A network and its windows."""

    hidden_size: int
    num_layers: int
    seq_len: int
    batch_size: int
    vocab_size: int = 65  # Tiny Shakespeare's

    @property
    def characters(self) -> int:
        """Characters of a window."""
        return self.seq_len * self.batch_size

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
    """Return the multiplications and additions of a train step that lie in matrix products, 2 for each pair.

    What the equations need, whatever an implementation does: three products (forward, for the deltas, for the weights)
    of each U, W and V, but for the first layer's U, of which a one-hot input picks a column.
    """
    H = size.hidden_size
    weights = case.gates * H * H * (2 * size.num_layers - 1) + H * size.vocab_size
    return 3 * 2.0 * weights * size.characters


def build(case: Case, size: Size, seed: int = 0) -> LanguageModel:
    """Return a fresh model."""
    torch.manual_seed(seed)
    words = {"hidden_size": size.hidden_size, "num_layers": size.num_layers, "readout": "linear"}
    return build_model({"_target_": case.target, **words}, size.vocab_size)


def window(size: Size, seed: int = 1) -> tuple[torch.Tensor, torch.Tensor]:
    """Return random ids and targets, (time, batch)."""
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(size.vocab_size, (2, size.seq_len, size.batch_size), generator=generator)
    return ids[0], ids[1]


def loss_of(
    model: LanguageModel, inputs: torch.Tensor, targets: torch.Tensor, state: State, bf16: bool
) -> tuple[torch.Tensor, State]:
    """Run a window forward: the mean cross-entropy of its characters, and the state."""
    with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
        logits, state = model(inputs, state)
        return F.cross_entropy(logits.flatten(0, 1), targets.flatten()), state


class Step:
    """One train step after another; the state is carried, detached, as in training."""

    def __init__(self, name: str, size: Size) -> None:
        self.bf16 = CASES[name].bf16
        self.model = build(CASES[name], size)
        self.optimizer = build_optimizer(self.model.parameters(), {"name": "adam", "lr": 1e-3})  # as in training
        self.inputs, self.targets = window(size)
        self.state: State = None

    def __call__(self) -> None:
        loss, state = loss_of(self.model, self.inputs, self.targets, self.state, self.bf16)
        self.state = detached(state)
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()


# ---- How exact the gradients of an implementation are: against autograd through torch's own modules in float64.


def gradient_errors(names: list[str], size: Size) -> dict[str, float]:
    """Return, for each case, the largest relative difference of a gradient to the one that float64 autograd finds.

        max over U, W, b, V, c of   max |g - g_64| / max |g_64|

    The same weights, window and random state for all; the truth of cell, stacked and manual is `torch.nn.RNN`, that of
    a gated model the same module in float64.
    """
    truths: dict[str, list[Tensor]] = {}
    errors = {}
    for name in names:
        case = CASES[name]
        model = build(case, size)
        kind = case.target if case.gates > 1 else CASES["stacked"].target
        if kind not in truths:
            exact = build(next(c for c in CASES.values() if c.target == kind), size).double()
            if case.gates == 1:
                convert_(exact, model)
            else:
                exact.load_state_dict(model.state_dict())
            truths[kind] = gradients(exact, size, False)
        pairs = zip(gradients(model, size, case.bf16), truths[kind], strict=True)
        found = [(g.double() - truth).abs().max() / truth.abs().max() for g, truth in pairs]
        errors[name] = float(torch.stack(found).max())  # torch's max, which a NaN does not escape as it does Python's
    return errors


def gradients(model: LanguageModel, size: Size, bf16: bool) -> list[Tensor]:
    """Return dU, dW, db of each layer, dV and dc; of a gated model the gradients of its parameters."""
    loss, _ = loss_of(model, *window(size), start(model, size), bf16)
    loss.backward()
    readout = [p.grad for p in model.readout.parameters() if p.grad is not None]
    if isinstance(model.recurrence.rnn if hasattr(model.recurrence, "rnn") else None, nn.LSTM | nn.GRU):
        return [p.grad for p in model.recurrence.parameters() if p.grad is not None] + readout
    shell = copy.deepcopy(model.recurrence)  # read as (U, W, b), whichever implementation it is
    for (name, p), source in zip(shell.named_parameters(), model.recurrence.parameters(), strict=True):
        # both of torch's biases have the gradient of b = b_ih + b_hh, and read_layers adds the two
        p.data = torch.zeros_like(p) if "bias_hh" in name or source.grad is None else source.grad
    return [tensor for layer in read_layers(shell) for tensor in layer] + readout


def start(model: LanguageModel, size: Size) -> State:
    """Return a random state, one that a backward pass cannot overlook."""
    generator = torch.Generator().manual_seed(2)
    dtype = next(model.parameters()).dtype
    shape = (size.num_layers, size.batch_size, size.hidden_size)
    h, c = (torch.rand(shape, generator=generator).sub(0.5).to(dtype) for _ in range(2))
    return (h, c) if isinstance(getattr(model.recurrence, "rnn", None), nn.LSTM) else h


# ---- Several things timed fairly in one process: they take turns, so that whatever else the machine does meets all.

TURN = 0.05  # seconds that a turn of something quick lasts, so that it has its caches warm
AT_LEAST = 5  # rounds, however long they take


@dataclass
class Times:
    """Seconds of each call."""

    seconds: list[float] = field(default_factory=list)

    @property
    def least(self) -> float:
        """The quickest: what the work costs when nothing disturbs it."""
        return min(self.seconds)

    @property
    def median(self) -> float:
        """What it usually takes."""
        return statistics.median(self.seconds)


def take_turns(
    calls: Mapping[str, Callable[[], object]], seconds: float, rounds: int | None = None
) -> dict[str, Times]:
    """Time `calls` round-robin, every second round backwards.

    Args:
        calls: what is timed, by name. Each is called twice before.
        seconds: how long all of it may take; at least AT_LEAST rounds are made.
        rounds: so many rounds instead.
    """
    times = {name: Times() for name in calls}
    turns = {}
    for name, call in calls.items():
        call()
        turns[name] = max(1, min(10, int(TURN / _timed(call))))
    started = time.perf_counter()
    gc.disable()
    try:
        done = 0
        while done < (rounds or AT_LEAST) or (rounds is None and time.perf_counter() - started < seconds):
            for name, call in list(calls.items())[:: -1 if done % 2 else 1]:
                if turns[name] > 1:
                    call()  # brings back what the others have driven out of the caches
                times[name].seconds += [_timed(call) for _ in range(turns[name])]
            done += 1
            gc.collect()
    finally:
        gc.enable()
    return times


def _timed(call: Callable[[], object]) -> float:
    started = time.perf_counter()
    call()
    return max(time.perf_counter() - started, 1e-9)


def product_rate(dtype: torch.dtype, size: int) -> float:
    """Return how many operations a second torch reaches in the product of two matrices (size, size), at its best."""
    A, B = (torch.randn(size, size).to(dtype) for _ in range(2))
    out = torch.empty_like(A)
    torch.mm(A, B, out=out)
    return 2.0 * size**3 / min(_timed(lambda: torch.mm(A, B, out=out)) for _ in range(4))


# ---- benchmark=models: the implementations beside one another, at each size.

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
            for name, error in gradient_errors(words["models"], size).items():
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
