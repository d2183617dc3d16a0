"""The types and checks of the commands that use a trained model, and how they open it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from src.config.checks import mistakes_in_threads
from src.config.entry import compose_and_run
from src.config.start import heavy_imports
from src.config.words import groups
from src.mistakes import Mistake, nearest
from src.models.sampling import Choice
from src.training.locate import AT, locate
from src.training.wanted import EXPORTED, PRECISIONS, Writing, mistakes_in_output

if TYPE_CHECKING:
    from src.training.trained import TrainedModel


@dataclass
class UseConfig:
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
class WhereTheTextLies:
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


def mistakes_in_sample(config: Mapping[str, Any]) -> list[str]:
    """What is wrong with a configuration of src.sample, as far as it shows without the model."""
    found = [*_which_model(config), *_choice(config, "format", ("text", "json"))]
    found += wanted(config).mistakes()
    if config["prompt"] == "":
        found.append("prompt is empty: the model needs a character to begin with; leave it out for a line break")
    if config["interactive"]:
        if config["prompt"] == "-":
            found.append("interactive=true reads its prompts from standard input; leave prompt=- out")
        if config["num_samples"] > 1 or config["format"] != "text":
            found.append("interactive=true writes one text as it comes; leave num_samples and format out")
    return found


def mistakes_in_score(config: Mapping[str, Any]) -> list[str]:
    """What is wrong with a configuration of src.score."""
    found = [*_which_model(config), *_choice(config, "format", ("text", "json", "html"))]
    if (config["text"] is None) == (config["file"] is None):
        found.append("what is to be scored? give text=... or file=..., one of them")
    elif config["text"] == "":
        found.append("text is empty: expected a text of at least two characters")
    elif config["file"] == "":
        found.append("file is empty: expected a file, a folder or a glob")
    return found


def mistakes_in_evaluate(config: Mapping[str, Any]) -> list[str]:
    """What is wrong with a configuration of src.evaluate."""
    found = [*_which_model(config), *_choice(config, "format", ("text", "json"))]
    found += _choice(config, "split", ("train", "val", "test"))
    for key in ("seq_len", "batch_size"):
        value = config["data"][key]
        if value is not None and value < 1:
            found.append(f"data.{key}={value}: expected at least 1")
    return found


def mistakes_in_export(config: Mapping[str, Any]) -> list[str]:
    """What is wrong with a configuration of src.export."""
    found = [*_which_model(config), *_choice(config, "format", tuple(EXPORTED))]
    return found + (mistakes_in_output(config["format"], config["output"]) if config["format"] in EXPORTED else [])


def run(
    name: str,
    schema: type[UseConfig],
    task: Callable[[dict[str, Any]], None],
    check: Callable[[Mapping[str, Any]], list[str]],
    words: list[str],
) -> None:
    """Compose conf/<name>.yaml with the words of a command line, and do what it says.

    Raises:
        Mistake: everything that is wrong, at once; a group of training's, which a trained model has behind it.
    """
    trained_with = [word for word in words if word.partition("=")[0] in groups().keys() - {"model"}]
    if trained_with:
        other = "another text is scored by python -m src.score file=..."
        raise Mistake(*(f"{word}: that was decided when the run was trained; {other}" for word in trained_with))
    compose_and_run(name, schema, task, words, check)


def opened(config: Mapping[str, Any]) -> TrainedModel:
    """Load the model that a configuration names, in the implementation it names; torch is imported here.

    Raises:
        Mistake: no sound checkpoint there, or weights that mean nothing in that implementation.
    """
    with heavy_imports():
        from src.training.converted import in_implementation
        from src.training.loading import load
        from src.training.machine import threads_for, use_threads
    trained = load(named(config), at=config["at"], precision=config["precision"])
    use_threads(threads_for(config["threads"], trained.config["model"]["hidden_size"]))
    return in_implementation(trained, config["model"]["name"]) if config["model"] else trained


def named(config: Mapping[str, Any]) -> str:
    """The folder or file that a checked configuration names."""
    return str(config["checkpoint"] if config["run"] is None else config["run"])


def wanted(config: Mapping[str, Any]) -> Writing:
    """What a configuration of src.sample asks for."""
    choice = Choice(config["temperature"], config["top_k"], config["top_p"], config["min_p"])
    return Writing(config["length"], choice, config["seed"], config["num_samples"], config["stop"])


def _which_model(config: Mapping[str, Any]) -> Iterator[str]:
    if (config["run"] is None) == (config["checkpoint"] is None):
        yield "which model? give run=... (the folder of a run) or checkpoint=... (a file), one of them"
        return
    yield from _choice(config, "at", AT)
    yield from _choice(config, "precision", PRECISIONS)
    yield from mistakes_in_threads("threads", config["threads"])
    try:
        locate(named(config), config["at"] if config["at"] in AT else None)
    except Mistake as mistake:
        yield from mistake.messages


def _choice(config: Mapping[str, Any], key: str, allowed: tuple[str, ...]) -> Iterator[str]:
    value = config[key]
    if value is not None and value not in allowed:
        yield f"{key}={value}: expected one of {', '.join(allowed)}{nearest(value, allowed)}"
