"""python -m src.explain: backpropagation through time of a few characters, as numbers. See conf/explain.yaml."""

from __future__ import annotations

import sys

from src.config.compose import compose_and_run
from src.config.schema import ExplainConfig, errors_in_values
from src.errors import UserError
from src.inference.options import errors_in_inference, with_named_runs
from src.process import exit_with, heavy_imports, write_file

OF_A_RUN = ("hidden_size", "num_layers", "nonlinearity", "seed")  # what a trained network has already


def errors_in_explain(config: ExplainConfig) -> list[str]:
    """Return all errors, one text each."""
    word, target = config.explain.input, config.explain.target
    found = errors_in_inference(config) if config.path is not None else list(errors_in_values(config, ExplainConfig))
    if word == "":
        found.append("explain.input is empty: expected the characters that are read; leave it out for hello")
    elif target is None and word is not None and len(word) < 2:
        found.append(f"explain.input={word} has no next character to predict; give two or more, or explain.target=...")
    elif target is not None and config.path is None and len(word or "hello") != len(target):
        lengths = f"explain.input={word or 'hello'} has {len(word or 'hello')} characters and explain.target={target}"
        found.append(f"{lengths} has {len(target)}; each step needs one target")
    return found


def explain(config: ExplainConfig) -> None:
    """Print or write the page that a checked configuration describes."""
    with heavy_imports():
        from src.worked_example.lesson import lesson_of, render
    write_file(config.output, render(lesson_of(config), config.explain))


def main() -> None:
    """Run the command line."""
    arguments = with_named_runs(sys.argv[1:])
    decided = [word for word in arguments if word.startswith(tuple(f"explain.{key}=" for key in OF_A_RUN))]
    if decided and any(word.startswith(("run=", "checkpoint=")) for word in arguments):
        raise UserError(*(f"{word}: a trained network has its own; leave one of the two out" for word in decided))
    compose_and_run("explain", ExplainConfig, explain, arguments, errors_in_explain)


if __name__ == "__main__":
    exit_with(main)
