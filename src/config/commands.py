"""The types and checks of `python -m src.benchmark`."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeVar

from src.config.compose import compose_and_run
from src.config.overrides import groups
from src.config.schema import (
    COUNT,
    MISSING,
    POSITIVE,
    THREADS,
    InferenceConfig,
    about,
    errors_in_values,
    within,
)
from src.errors import UserError, nearest
from src.files import user_path
from src.process import heavy_imports, threads_for, use_threads

if TYPE_CHECKING:
    from src.inference.trained_model import TrainedModel


def errors_in_threads(key: str, threads: object) -> Iterator[str]:
    """Yield what is wrong with a number of threads, or `auto`."""
    if not within(threads, THREADS):
        yield f"{key}={threads}: expected {THREADS}"


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


@dataclass
class BenchmarkOptions:
    """What is measured, and how; None where a key is not given or not used."""

    name: str = MISSING
    out: str | None = field(default=None, metadata=about(literal=True))
    models: list[str] | None = None
    hidden_size: int | None = field(default=None, metadata=about(range=COUNT))
    num_layers: int | None = field(default=None, metadata=about(range=COUNT))
    seq_len: int | None = field(default=None, metadata=about(range=COUNT))
    batch_size: int | None = field(default=None, metadata=about(range=COUNT))
    vocab_size: int | None = field(default=None, metadata=about(range=COUNT))
    seconds: float | None = field(default=None, metadata=about(range=POSITIVE))
    repeats: int | None = field(default=None, metadata=about(range=COUNT))
    threads: str | None = field(default=None, metadata=about(range=THREADS))
    memory: bool | None = None
    exactness: bool | None = None
    rate_size: int | None = field(default=None, metadata=about(range=COUNT))
    size_mb: int | None = field(default=None, metadata=about(range=COUNT))
    folder: str | None = field(default=None, metadata=about(literal=True))
    steps: int | None = field(default=None, metadata=about(range=COUNT))


@dataclass
class BenchmarkConfig:
    """The whole of conf/benchmark.yaml."""

    benchmark: BenchmarkOptions = field(default_factory=BenchmarkOptions)


def errors_in_benchmark(config: BenchmarkConfig, overrides: Sequence[str] = ()) -> list[str]:
    """Return all errors, one text each.

    Args:
        config: the composed configuration.
        overrides: those of src.train; only benchmark=step, which trains a run, takes any.
    """
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
    for key, named in (("out", options.out), ("folder", options.folder)):
        if named is None:
            continue
        path = user_path(named)
        folder = path.parent if key == "out" else path
        if not folder.is_dir():
            found.append(f"benchmark.{key}={named}: there is no folder {folder}")
        elif key == "out" and path.is_dir():
            found.append(f"benchmark.{key}={named} is a folder; name a file in it")
        elif not os.access(folder, os.W_OK):
            found.append(f"benchmark.{key}={named}: cannot write in {folder}; name another folder")
    return found


# -- python -m src.explain --------------------------------------------------------------------------------------------

MOST_STEPS, MOST_SYMBOLS = 12, 8
# More does not fit side by side in 100 columns
EXPLAIN_RANGES = {"num_layers": (1, 6), "hidden_size": (1, 8), "seed": (0, 2**63 - 1)}


@dataclass
class ExplainOptions:
    """The example, and how it is shown."""

    input: str = field(default=MISSING, metadata=about(literal=True))
    target: str = field(default=MISSING, metadata=about(literal=True))
    hidden_size: int = MISSING
    num_layers: int = MISSING
    nonlinearity: str = field(default=MISSING, metadata=about(choices=("tanh", "relu")))
    seed: int = MISSING
    format: str = field(default=MISSING, metadata=about(choices=("text", "markdown")))


@dataclass
class ExplainConfig:
    """The whole of conf/explain.yaml."""

    explain: ExplainOptions = field(default_factory=ExplainOptions)


def symbols_of(word: str, target: str) -> str:
    """Return the vocabulary in the order of its ids: the tutorial's own, e h l o, where that is enough."""
    letters = set(word + target)
    return "ehlo" if letters <= set("ehlo") else "".join(sorted(letters))


def errors_in_explain(config: ExplainConfig) -> list[str]:
    """Return all errors, one text each."""
    word, target = config.explain.input, config.explain.target
    found = list(errors_in_values(config, ExplainConfig))
    for key, (least, most) in EXPLAIN_RANGES.items():
        value = getattr(config.explain, key)
        if not least <= value <= most:
            found.append(f"explain.{key}={value}: expected {least} to {most}")
    if len(word) != len(target):
        found.append(
            f"explain.input={word} has {len(word)} characters and explain.target={target} has {len(target)}; each step "
            "needs one target"
        )
    if not 1 <= len(word) <= MOST_STEPS:
        found.append(f"explain.input={word} has {len(word)} characters: expected 1 to {MOST_STEPS}")
    if len(symbols_of(word, target)) > MOST_SYMBOLS:
        found.append(f"explain.input and explain.target have over {MOST_SYMBOLS} different characters; use fewer")
    if not (word + target).isprintable():
        found.append("explain.input and explain.target: expected characters that can be printed")
    return found


# -- the commands on a trained model: sample, score, evaluate, export --------------------------------------------------

T = TypeVar("T", bound=InferenceConfig)


def run_inference(
    name: str, schema: type[T], task: Callable[[T], None], check: Callable[[T], list[str]], arguments: list[str]
) -> None:
    """Compose conf/<name>.yaml with a command line, check it, and run the task.

    Raises:
        UserError: everything that is wrong, at once; a group that was decided when the model was trained.
    """
    decided = [word for word in arguments if word.partition("=")[0] in groups().keys() - {"model"}]
    if decided:
        other = "another text is scored by python -m src.score file=..."
        raise UserError(*(f"{word}: that was decided when the run was trained; {other}" for word in decided))
    compose_and_run(name, schema, task, arguments, check)


def load_model(config: InferenceConfig) -> TrainedModel:
    """Load the model that a checked configuration names; torch is imported here, and uses `threads` threads.

    Raises:
        UserError: no checkpoint that can be read.
    """
    with heavy_imports():
        from src.inference.load import load
    trained = load(config.path or "", at=config.at, precision=config.precision)
    use_threads(threads_for(config.threads, trained.config.model.hidden_size))
    return trained


def load_in_implementation(config: InferenceConfig) -> TrainedModel:
    """As `load_model`, with the weights in the implementation that `model=` names.

    Raises:
        UserError: no checkpoint that can be read, or weights that do not fit that implementation.
    """
    trained = load_model(config)
    from src.inference.trained_model import in_implementation

    return in_implementation(trained, config.implementation or trained.config.model.name)
