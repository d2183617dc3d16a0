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
        "memory", "exactness", "rate_size",
    ),
    "data": ("size_mb", "folder", "seq_len", "batch_size"),
    "step": ("steps",),
    "sampling": ("hidden_size", "num_layers", "vocab_size", "seconds", "threads"),
}  # fmt: skip
MODELS = ("cell", "stacked", "manual", "stacked_bf16", "manual_bf16", "lstm", "gru")


def errors_in_benchmark(config: BenchmarkConfig, overrides: Sequence[str] = ()) -> list[str]:
    """Return all errors, one text each; `overrides` of src.train are for benchmark=step alone, which trains a run."""
    options, used = config.benchmark, ("out", *BENCHMARK_KEYS[config.benchmark.name])
    keys = f"benchmark={options.name} takes benchmark.KEY, where KEY is one of {', '.join(used)}"
    given = [f"benchmark.{key}" for key, value in vars(options).items() if value is not None and key != "name"]
    given += overrides if options.name != "step" else []
    found = [f"{one}: {keys}" for one in given if one.removeprefix("benchmark.") not in used]
    found += errors_in_values(config, BenchmarkConfig)
    for name in sorted(set(options.models or []) - set(MODELS)):
        found.append(f"benchmark.models: {name}: expected some of {', '.join(MODELS)}{nearest(name, MODELS)}")
    if options.out is not None:
        path = user_path(options.out)
        if path.is_dir() or not os.access(path.parent, os.W_OK):
            found.append(f"benchmark.out={options.out}: expected the name of a file in a folder that can be written")
    if options.folder is not None and not os.access(user_path(options.folder), os.W_OK):
        found.append(f"benchmark.folder={options.folder}: expected a folder that exists and can be written")
    return found
