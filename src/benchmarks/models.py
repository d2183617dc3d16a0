"""benchmark=models: a train step (forward, backward, Adam) of each implementation; benchmark=sampling: characters."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator
from functools import cache
from itertools import islice
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from src.benchmarks.measuring import MB, Size, in_own_process, peak_memory, table_lines, take_turns, timed
from src.config.schema import CLASSES, BenchmarkOptions, ModelConfig, OptimizerConfig, SamplingConfig
from src.data.vocabulary import Vocabulary
from src.errors import counted
from src.inference.generate import decoded, generate_ids
from src.inference.incremental import parts_of
from src.models.cuda import WARM_UP, capture, cudnn_algorithm, layer_plan, side_stream
from src.models.kernels import Affine
from src.models.language_model import LanguageModel, State, build_model, change_parts, detached
from src.process import threads_for, use_threads
from src.training.machine import keep_memory
from src.training.module import build_optimizer
from src.training.step_graph import capturable

SIZES = [Size(128, 1, 64, 32), Size(128, 2, 50, 50), Size(256, 1, 100, 64), Size(512, 2, 100, 64)]
SIZES += [Size(1024, 2, 128, 64)]
HALF = {"bf16": torch.bfloat16, "fp16": torch.float16}
GRAPH = "+graph"


def build(name: str, size: Size) -> LanguageModel:
    """Return a new model, always from the same seed."""
    torch.manual_seed(0)
    config = ModelConfig(_target_=CLASSES[name], hidden_size=size.hidden_size, num_layers=size.num_layers)
    config.single_bias = name in ("cell", "stacked")  # as on a text: one bias, as manual has
    return build_model(config, size.vocab_size)


def operations(name: str, size: Size) -> float:
    """Return the multiplications and additions in the matrix products of a train step, 2 for each pair.

    Three products (forward, deltas, weights) of each U, W and V, but the first layer's U, of which x picks a column.
    """
    gates = {"lstm": 4, "gru": 3}.get(name.removesuffix(GRAPH).partition("_")[0], 1)
    weights = gates * size.hidden_size**2 * (2 * size.num_layers - 1) + size.hidden_size * size.vocab_size
    return 6.0 * weights * size.seq_len * size.batch_size


@cache
def product_rates(precision: str, size: int, threads: int, device: str = "cpu") -> dict[str, float]:
    """Return GFLOP/s in a product (size, size) by torch, and in float32 on a CPU by oneDNN and numpy as well."""
    use_tf32(device, precision)
    A, B = torch.randn(2, size, size, device=device).to(HALF.get(precision, torch.float32))
    out = torch.mm(A, B)

    def multiply() -> None:
        torch.mm(A, B, out=out)
        wait_for(device)

    calls: dict[str, Callable[[], object]] = {"torch": multiply}
    if device == "cpu" and A.dtype is torch.float32:
        affine = Affine(B, rows=size, steps=size)
        if affine.packed:
            calls["oneDNN"] = lambda: affine(out, A, out)
        calls["numpy"] = lambda: np.matmul(A.numpy(), B.numpy(), out.numpy())
    return {library: 2e-9 * size**3 / min(timed(call) for _ in range(4)) for library, call in calls.items()}


def use_tf32(device: str, precision: str) -> None:
    """Let a GPU multiply float32 numbers in TF32, or not."""
    if device == "cuda":
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = precision == "tf32"


def wait_for(device: str) -> None:
    """Wait until a GPU has done what was launched."""
    if device == "cuda":
        torch.cuda.synchronize()


class Step:
    """A train step on random characters, the state carried on; named MODEL, or MODEL_bf16, _fp16, _tf32, or +graph."""

    def __init__(self, name: str, size: Size, device: str = "cpu") -> None:
        name, self.captured, self.device = name.removesuffix(GRAPH), name.endswith(GRAPH), device
        name, _, self.precision = name.partition("_")
        self.model = build(name, size).to(device)
        self.optimizer = build_optimizer(self.model, OptimizerConfig("adam"))
        self.scaler = torch.amp.GradScaler(device, enabled=self.precision == "fp16")
        generator = torch.Generator().manual_seed(1)
        shape = (2, size.seq_len, size.batch_size)
        self.inputs, self.targets = torch.randint(size.vocab_size, shape, generator=generator).to(device)
        self.state: State = None
        self.loss = torch.zeros(())  # of the last step
        self.launch: Callable[[], object] = self.step
        if self.captured:
            with side_stream(torch.device(device)):
                for _ in range(WARM_UP):
                    self.step()
            self.state = change_parts(self.state, Tensor.clone)
            self.optimizer.zero_grad()
            with capturable(self.optimizer):
                self.launch = capture(self.step_in_place, torch.device(device))

    def gradients(self) -> list[Tensor]:
        """Compute the gradients, unscaled, and set the state to the one after the window."""
        use_tf32(self.device, self.precision)
        half = HALF.get(self.precision)
        with torch.autocast(self.device, half, enabled=half is not None, cache_enabled=False):
            logits, state = self.model(self.inputs, self.state)
            loss = F.cross_entropy(logits.flatten(0, 1), self.targets.flatten())
        self.state, self.loss = detached(state), loss.detach()
        self.optimizer.zero_grad()
        self.scaler.scale(loss).backward()
        self.scaler.unscale_(self.optimizer)
        return [p.grad for p in self.model.parameters() if p.grad is not None]

    def step(self) -> None:
        self.gradients()
        self.scaler.step(self.optimizer)
        self.scaler.update()

    def step_in_place(self) -> None:
        """Make a step that leaves the state where a graph finds it again."""
        before = self.state
        self.step()
        for own, new in zip(parts_of(before), parts_of(self.state), strict=True):
            own.copy_(new)
        self.state = before

    def __call__(self) -> None:
        self.launch()
        wait_for(self.device)


def cudnn_of(name: str, size: Size, device: str) -> str | None:
    """Return which algorithm cuDNN is asked for in the layers above the first, forward and backward."""
    name, _, precision = name.removesuffix(GRAPH).partition("_")
    kinds = {"stacked": "rnn", "lstm": "lstm", "gru": "gru"}
    if device != "cuda" or name not in kinds:
        return None
    dtype, sizes, gpu = HALF.get(precision, torch.float32), size[:2], torch.cuda.get_device_properties(device)
    apart, padded = layer_plan(kinds[name], dtype, sizes[0], size.vocab_size, size.batch_size, sizes[1],
                               autocast=precision in HALF, dropout=False)  # fmt: skip
    layers, entry = (1, sizes[0] if sizes[1] > 1 else padded) if apart else (sizes[1], size.vocab_size)
    both = [cudnn_algorithm(kinds[name], dtype, sizes[0], entry, size.batch_size, layers, forward,
                            (gpu.major, gpu.minor), gpu.multi_processor_count)
            for forward in (True, False)]  # fmt: skip
    return " ".join(dict.fromkeys(algorithm.removeprefix("PERSIST_STATIC_") for algorithm in both))


def gradient_error(name: str, size: Size, device: str = "cpu") -> float:
    """Return the maximum over parameters of max |g - g_64| / max |g_64|, g_64 in float64, from a carried state."""
    name = name.removesuffix(GRAPH)
    step, exact = Step(name, size, device), Step(name.partition("_")[0], size, device)
    exact.model.double()
    step.gradients(), exact.gradients()  # so that the state is not zero
    pairs = zip(step.gradients(), exact.gradients(), strict=True)
    errors = [(g.double() - exact_g).abs().max() / exact_g.abs().max() for g, exact_g in pairs]
    return float(torch.stack(errors).max())  # torch's max returns a NaN, Python's may not


def sizes_of(options: BenchmarkOptions) -> list[Size]:
    """Return the five sizes, or the given one; missing keys are those of the first size."""
    values = {key: getattr(options, key) for key in ("hidden_size", "num_layers", "seq_len", "batch_size")}
    given = {key: value for key, value in values.items() if value is not None}
    sizes = [SIZES[0]._replace(**given)] if given else SIZES
    return [size._replace(vocab_size=options.vocab_size or size.vocab_size) for size in sizes]


def run_models(options: BenchmarkOptions) -> Iterator[dict[str, Any]]:
    """Yield the results of each size, as plain data."""
    keep_memory()  # as in training
    device = "cuda" if options.accelerator == "gpu" else "cpu"
    graphs = (False, True) if device == "cuda" else (False,)
    names = [f"{name}{GRAPH if graph else ''}" for name in options.models or [] for graph in graphs]
    for size in sizes_of(options):
        use_threads(threads := threads_for(options.threads or "auto", size.hidden_size))
        steps = {name: Step(name, size, device) for name in names}
        times = take_turns(steps, options.seconds or 0, options.repeats)
        medians = {name: statistics.median(seconds) for name, seconds in times.items()}
        models: dict[str, dict[str, Any]] = {}
        rates: dict[str, dict[str, float]] = {}
        for name, median in medians.items():
            found: dict[str, Any] = {"min_ms": min(times[name]) * 1e3, "median_ms": median * 1e3}
            found |= {"steps": len(times[name]), "characters_per_second": size.seq_len * size.batch_size / median}
            if "stacked" in medians:
                found["times_as_fast_as_stacked"] = medians["stacked"] / median
            found["gflops"] = operations(name, size) / median / 1e9
            precision = steps[name].precision or "float32"
            rates[precision] = product_rates(precision, options.rate_size or 1, threads, device)
            found["share_of_rate"] = found["gflops"] / max(rates[precision].values())
            if algorithm := cudnn_of(name, size, device):
                found["cudnn"] = algorithm
            if options.exactness:
                found["gradient_error"] = gradient_error(name, size, device)
            if options.memory and device == "cpu":  # on a GPU the models share it with what torch has loaded
                found |= in_own_process(measure_memory, name, size, threads)
            models[name] = found
        yield {**size._asdict(), "threads": threads, "models": models, "rates": rates}


def measure_memory(name: str, size: Size, threads: int) -> dict[str, float]:
    """Return megabytes: `peak_mb` of this whole process, `step_mb` what three steps added to it."""
    use_threads(threads)
    keep_memory()
    Step(name, Size(8, 1, 2, 2, 4))()  # what torch loads at its first step does not belong to the model
    step = Step(name, size)
    before = peak_memory()
    for _ in range(3):
        step()
    return {"step_mb": round((peak_memory() - before) / MB, 1), "peak_mb": round(peak_memory() / MB, 1)}


def models_table(found: dict[str, Any]) -> list[str]:
    """Return the table of one size."""
    size = Size(*(found[field] for field in Size._fields))
    columns = {
        "min_ms": ("min ms", ".2f"), "median_ms": ("median", ".2f"), "characters_per_second": ("char/s", ",.0f"),
        "gflops": ("GFLOP/s", ".1f"), "share_of_rate": ("of rate", ".1%"),
        "times_as_fast_as_stacked": ("x stacked", ".2f"), "step_mb": ("step MB", ",.0f"),
        "peak_mb": ("peak MB", ",.0f"), "gradient_error": ("grad. error", ".1e"), "cudnn": ("cuDNN", ""),
    }  # fmt: skip
    if not any("cudnn" in measured for measured in found["models"].values()):
        del columns["cudnn"]
    rows = [[name, *map(measured.get, columns)] for name, measured in found["models"].items()]
    lines = table_lines({"model": "", **dict(columns.values())}, rows)
    for precision, rates in found["rates"].items():
        each = ", ".join(f"{library} {rate:,.0f}" for library, rate in rates.items())
        lines.append(f"  rate in {precision} products: {each} GFLOP/s")
    return [f"{size}; {counted(found['threads'], 'threads')}", *lines]


# benchmark=sampling: cell and stacked generate by the same steps as manual
STREAMS = (1, 64)
EARLY, LATE = 10, 10_000  # the characters whose time is compared
AROUND = 100  # each is the median of this many


def run_sampling(options: BenchmarkOptions) -> dict[str, Any]:
    """Return characters a second, and microseconds of single characters, as plain data."""
    size = sizes_of(options)[0]
    use_threads(threads := threads_for(options.threads or "auto", size.hidden_size))
    model = build("manual", size).eval().requires_grad_(False)
    rates = {str(streams): sampling_rate(model, size.vocab_size, streams, options.seconds or 0) for streams in STREAMS}
    ids = generate_ids(model, np.zeros(1, np.uint8), SamplingConfig(), range(1))
    seconds = [timed(lambda: next(ids)) for _ in range(LATE + AROUND)]
    times = {str(first): statistics.median(seconds[first : first + AROUND]) * 1e6 for first in (EARLY, LATE)}
    found = {key: getattr(size, key) for key in ("num_layers", "hidden_size", "vocab_size")}
    return {**found, "threads": threads, "characters_per_second": rates, "microseconds": times}


def sampling_rate(model: LanguageModel, vocab_size: int, streams: int, seconds: float) -> float:
    """Return how many characters a second all streams generate together, as text, over `seconds`."""
    vocabulary = Vocabulary(tuple(range(vocab_size)))
    ids = generate_ids(model, np.zeros(1, np.uint8), SamplingConfig(), range(streams))
    texts = decoded(ids, vocabulary, SamplingConfig(length=10**12, num_samples=streams))
    list(islice(texts, EARLY))  # without what is loaded and allocated at first
    steps, started = 0, time.perf_counter()
    while (taken := time.perf_counter() - started) < seconds or not steps:
        steps += len(list(islice(texts, 10)))
    return steps * streams / taken


def sampling_table(found: dict[str, Any]) -> list[str]:
    """Return the table."""
    what = f"model=manual, {found['num_layers']} x {found['hidden_size']} units, {found['vocab_size']} characters"
    early, late = found["microseconds"].values()
    return [
        f"{what}; {counted(found['threads'], 'threads')}",
        *table_lines({"streams": "", "characters/s": ",.0f"}, list(found["characters_per_second"].items())),
        f"  the {EARLY}th character took {early:.0f} us, the {LATE:,}th {late:.0f} us (one stream)",
    ]
