"""The types and checks of `python -m src.benchmark`."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from math import inf
from pathlib import Path
from typing import TYPE_CHECKING, Any

from src.config.compose import compose_and_run
from src.config.overrides import groups
from src.config.schema import MISSING, THREADS, Transitional, within
from src.errors import UserError, nearest
from src.files import user_path
from src.inference.locate import AT, locate
from src.inference.options import EXPORTED, PRECISIONS, Choice, Writing, mistakes_in_output
from src.process import heavy_imports

if TYPE_CHECKING:
    from src.inference.trained_model import TrainedModel


def errors_in_threads(key: str, threads: object) -> Iterator[str]:
    """Yield what is wrong with a number of threads, or `auto`."""
    if not within(threads, THREADS):
        yield f"{key}={threads}: expected {THREADS}"


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
class BenchmarkWords(Transitional):
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
class BenchmarkConfig(Transitional):
    """The whole of conf/benchmark.yaml."""

    benchmark: BenchmarkWords = field(default_factory=BenchmarkWords)


def mistakes_in_benchmark(config: BenchmarkConfig) -> list[str]:
    """Return everything that is wrong, one text a mistake."""
    words, found = config.benchmark, []
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
        found += errors_in_threads("benchmark.threads", words["threads"])
    for key in ("out", "folder"):
        if words[key] is not None:
            found += _mistakes_in_place(f"benchmark.{key}={words[key]}", user_path(words[key]), key == "out")
    return found


def mistakes_in_others(config: BenchmarkConfig, others: Sequence[str]) -> Iterator[str]:
    """Yield what is wrong with words of src.train beside a benchmark that trains no run."""
    words = config.benchmark
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


# ---- The types and checks of `python -m src.explain`.

CHOICES = {"nonlinearity": ("tanh", "relu"), "format": ("text", "markdown")}
# More does not fit beside one another in 100 columns, and nobody reads it
RANGES = {"num_layers": (1, 6), "hidden_size": (1, 8)}
MOST_STEPS = 12
MOST_SYMBOLS = 8


@dataclass
class ExplainWords(Transitional):
    """What is explained, and how it is shown."""

    input: str = MISSING
    target: str = MISSING
    hidden_size: int = MISSING
    num_layers: int = MISSING
    nonlinearity: str = MISSING
    seed: int = MISSING
    format: str = MISSING


@dataclass
class ExplainConfig(Transitional):
    """The whole of conf/explain.yaml."""

    explain: ExplainWords = field(default_factory=ExplainWords)


def symbols_of(word: str, target: str) -> str:
    """Return the vocabulary in the order of its ids: the page's own, e h l o, where that is enough."""
    letters = set(word + target)
    return "ehlo" if letters <= set("ehlo") else "".join(sorted(letters))


def mistakes_in_explain(config: ExplainConfig) -> list[str]:
    """Return everything that is wrong, one text a mistake."""
    words, found = config.explain, []
    for key, allowed in CHOICES.items():
        value = words[key]
        if value not in allowed:
            found.append(f"explain.{key}={value}: expected one of {', '.join(allowed)}{nearest(value, allowed)}")
    for key, (least, most) in RANGES.items():
        if not least <= words[key] <= most:
            found.append(f"explain.{key}={words[key]}: expected {least} to {most}, so that its numbers fit on a line")
    if not 0 <= words["seed"] < 2**63:
        found.append(f"explain.seed={words['seed']}: expected 0 to {2**63 - 1}")
    word, target = words["input"], words["target"]
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


# ---- The types and checks of the commands that use a trained model, and how they open it.


@dataclass
class UseConfig(Transitional):
    """Which model, and how it is run. `model` is a group: an implementation that its weights move to."""

    run: str | None = None
    checkpoint: str | None = None
    at: str | None = None
    precision: str | None = None
    threads: str = "auto"
    model: dict[str, Any] = field(default_factory=dict)


@dataclass
class SampleConfig(UseConfig):
    """python -m src.sample"""

    prompt: str | None = None
    length: int = 500
    temperature: float = 1.0
    top_k: int | None = None
    top_p: float | None = None
    min_p: float | None = None
    num_samples: int = 1
    seed: int | None = 0
    stop: str | None = None
    format: str = "text"
    interactive: bool = False


@dataclass
class ScoreConfig(UseConfig):
    """python -m src.score"""

    text: str | None = None
    file: str | None = None
    format: str = "text"
    output: str | None = None


@dataclass
class WhereTheTextLies(Transitional):
    """The words of the `data` group that may change between training and evaluation."""

    path: str | None = None
    val_path: str | None = None
    test_path: str | None = None
    root: str | None = None
    seq_len: int | None = None
    batch_size: int | None = None


@dataclass
class EvaluateConfig(UseConfig):
    """python -m src.evaluate"""

    split: str | None = None
    format: str = "text"
    data: WhereTheTextLies = field(default_factory=WhereTheTextLies)


@dataclass
class ExportConfig(UseConfig):
    """python -m src.export"""

    format: str = "onnx"
    output: str | None = None


def mistakes_in_sample(config: SampleConfig) -> list[str]:
    """What is wrong with a configuration of src.sample, as far as it shows without the model."""
    found = [*_which_model(config), *_choice(config, "format", ("text", "json"))]
    found += wanted(config).mistakes()
    if config.prompt == "":
        found.append("prompt is empty: the model needs a character to begin with; leave it out for a line break")
    if config.interactive:
        if config.prompt == "-":
            found.append("interactive=true reads its prompts from standard input; leave prompt=- out")
        if config.num_samples > 1 or config.format != "text":
            found.append("interactive=true writes one text as it comes; leave num_samples and format out")
    return found


def mistakes_in_score(config: ScoreConfig) -> list[str]:
    """What is wrong with a configuration of src.score."""
    found = [*_which_model(config), *_choice(config, "format", ("text", "json", "html"))]
    if (config.text is None) == (config.file is None):
        found.append("what is to be scored? give text=... or file=..., one of them")
    elif config.text == "":
        found.append("text is empty: expected a text of at least two characters")
    elif config.file == "":
        found.append("file is empty: expected a file, a folder or a glob")
    return found


def mistakes_in_evaluate(config: EvaluateConfig) -> list[str]:
    """What is wrong with a configuration of src.evaluate."""
    found = [*_which_model(config), *_choice(config, "format", ("text", "json"))]
    found += _choice(config, "split", ("train", "val", "test"))
    for key in ("seq_len", "batch_size"):
        value = config.data[key]
        if value is not None and value < 1:
            found.append(f"data.{key}={value}: expected at least 1")
    return found


def mistakes_in_export(config: ExportConfig) -> list[str]:
    """What is wrong with a configuration of src.export."""
    found = [*_which_model(config), *_choice(config, "format", tuple(EXPORTED))]
    return found + (mistakes_in_output(config.format, config.output) if config.format in EXPORTED else [])


def run(
    name: str,
    schema: type[UseConfig],
    task: Callable[[dict[str, Any]], None],
    check: Callable[[Mapping[str, Any]], list[str]],
    words: list[str],
) -> None:
    """Compose conf/<name>.yaml with the words of a command line, and do what it says.

    Raises:
        UserError: everything that is wrong, at once; a group of training's, which a trained model has behind it.
    """
    trained_with = [word for word in words if word.partition("=")[0] in groups().keys() - {"model"}]
    if trained_with:
        other = "another text is scored by python -m src.score file=..."
        raise UserError(*(f"{word}: that was decided when the run was trained; {other}" for word in trained_with))
    compose_and_run(name, schema, task, words, check)


def opened(config: UseConfig) -> TrainedModel:
    """Load the model that a configuration names, in the implementation it names; torch is imported here.

    Raises:
        UserError: no sound checkpoint there, or weights that mean nothing in that implementation.
    """
    with heavy_imports():
        from src.inference.load import load
        from src.inference.trained_model import in_implementation
        from src.training.machine import threads_for, use_threads
    trained = load(named(config), at=config.at, precision=config.precision)
    use_threads(threads_for(config.threads, trained.config.model.hidden_size))
    return in_implementation(trained, config.model.name) if config.model else trained


def named(config: UseConfig) -> str:
    """The folder or file that a checked configuration names."""
    return str(config.checkpoint if config.run is None else config.run)


def wanted(config: SampleConfig) -> Writing:
    """What a configuration of src.sample asks for."""
    choice = Choice(config.temperature, config.top_k, config.top_p, config.min_p)
    return Writing(config.length, choice, config.seed, config.num_samples, config.stop)


def _which_model(config: UseConfig) -> Iterator[str]:
    if (config.run is None) == (config.checkpoint is None):
        yield "which model? give run=... (the folder of a run) or checkpoint=... (a file), one of them"
        return
    yield from _choice(config, "at", AT)
    yield from _choice(config, "precision", PRECISIONS)
    yield from errors_in_threads("threads", config.threads)
    try:
        locate(named(config), config.at if config.at in AT else None)
    except UserError as mistake:
        yield from mistake.messages


def _choice(config: UseConfig, key: str, allowed: tuple[str, ...]) -> Iterator[str]:
    value = config[key]
    if value is not None and value not in allowed:
        yield f"{key}={value}: expected one of {', '.join(allowed)}{nearest(value, allowed)}"
