"""python -m src.explain: backpropagation through time on "hello", as numbers. See conf/explain.yaml."""

from __future__ import annotations

import sys

from src.config.commands import ExplainConfig, errors_in_explain, symbols_of
from src.config.compose import compose_and_run, exit_with
from src.process import heavy_imports, pipe_may_close, say


def explain(config: ExplainConfig) -> None:
    """Print the page that a checked configuration describes."""
    with heavy_imports():
        from src.worked_example.bptt_example import build_problem, compute, differences
        from src.worked_example.document import as_markdown, as_text, page
    options = config.explain
    symbols = symbols_of(options.input, options.target)
    ids, targets = ([symbols.index(letter) for letter in text] for text in (options.input, options.target))
    problem, model = build_problem(ids, targets, len(symbols), options)
    numbers = compute(problem)
    found = differences(problem, model, numbers)
    blocks = page(options.input, options.target, symbols, options.seed, problem, numbers, found)
    with pipe_may_close():
        say(as_markdown(blocks) if options.format == "markdown" else as_text(blocks))


def main() -> None:
    """Run the command line."""
    compose_and_run("explain", ExplainConfig, explain, sys.argv[1:], errors_in_explain)


if __name__ == "__main__":
    exit_with(main)
