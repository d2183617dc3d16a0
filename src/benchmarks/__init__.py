"""python -m src.benchmark: train steps, sampling, data, and a step through the whole framework. No torch here."""

import os
from collections.abc import Sequence

from src.config.schema import BenchmarkConfig, errors_in_values
from src.errors import nearest
from src.files import user_path

# Which keys each benchmark uses, beside `name` and `out`
BENCHMARK_KEYS = {
    "models": (
        "models", "hidden_size", "num_layers", "seq_len", "batch_size", "vocab_size", "seconds", "repeats", "threads",
        "memory",
    ),
    "data": ("size_mb", "folder", "seq_len", "batch_size"),
    "step": ("steps",),
    "sampling": ("hidden_size", "num_layers", "vocab_size", "seconds", "threads"),
}  # fmt: skip
MODELS = ("cell", "stacked", "manual", "stacked_bf16", "manual_bf16", "lstm", "gru")


def errors_in_benchmark(config: BenchmarkConfig, overrides: Sequence[str] = ()) -> list[str]:
    """Return all errors, one text each; `overrides` of src.train are for benchmark=step alone, which trains a run."""
    options, found = config.benchmark, []
    used = BENCHMARK_KEYS[options.name]
    for override in overrides if options.name != "step" else ():
        key = override.partition("=")[0].rpartition(".")[2]
        like = nearest(f"benchmark.{key}", [f"benchmark.{one}" for one in used])
        found.append(f"{override}: benchmark={options.name} takes keys of benchmark alone{like}")
    for key, value in vars(options).items():
        if value is not None and key not in ("name", "out", *used):
            keys = ", ".join((*used, "out"))
            found.append(f"benchmark.{key} is not used by benchmark={options.name}, which has {keys}")
    found += errors_in_values(config, BenchmarkConfig)
    for name in options.models or []:
        if name not in MODELS:
            found.append(f"benchmark.models: {name}: expected some of {', '.join(MODELS)}{nearest(name, MODELS)}")
    if options.models == []:
        found.append(f"benchmark.models is empty: expected some of {', '.join(MODELS)}")
    if options.vocab_size == 1:
        found.append("benchmark.vocab_size=1: expected at least 2; with one character there is nothing to learn")
    if options.out is not None:
        path = user_path(options.out)
        if path.is_dir() or not os.access(path.parent, os.W_OK):
            found.append(f"benchmark.out={options.out}: expected the name of a file in a folder that can be written")
    if options.folder is not None and not os.access(user_path(options.folder), os.W_OK):
        found.append(f"benchmark.folder={options.folder}: expected a folder that exists and can be written")
    return found
