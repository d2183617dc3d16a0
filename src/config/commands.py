"""What the commands on a trained model share: sample, score, evaluate, export."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

from src.config.compose import compose_and_run
from src.config.overrides import groups
from src.config.schema import InferenceConfig
from src.errors import UserError
from src.inference.options import with_named_runs
from src.process import heavy_imports, threads_for, use_threads

if TYPE_CHECKING:
    from src.inference.load import TrainedModel

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
    compose_and_run(name, schema, task, with_named_runs(arguments), check)


def load_model(config: InferenceConfig, as_trained: bool = False) -> TrainedModel:
    """Load the model of a checked configuration, in the implementation that `model=` names unless `as_trained`.

    torch is imported here, and uses `threads` threads.

    Raises:
        UserError: no checkpoint that can be read, or weights that do not fit that implementation.
    """
    with heavy_imports():
        from src.inference.load import load
    trained = load(config.path or "", at=config.at, precision=config.precision, trust=config.trusted)
    use_threads(threads_for(config.threads, trained.config.model.hidden_size))
    return trained if as_trained or not config.implementation else trained.in_implementation(config.implementation)
