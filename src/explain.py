"""python -m src.explain: backpropagation through time on "hello", as numbers. See conf/explain.yaml."""

from __future__ import annotations

import sys

from src.config.compose import compose_and_run, exit_with
from src.config.schema import ExplainConfig
from src.process import heavy_imports, pipe_may_close, say
from src.worked_example import errors_in_explain, symbols_of


def explain(config: ExplainConfig) -> None:
    """Print the page that a checked configuration describes."""
    with heavy_imports():
        from src.worked_example.bptt_example import build_problem, compute, differences
        from src.worked_example.document import as_markdown, as_text, page
    options = config.explain
    symbols = symbols_of(options.input, options.target)
    problem = build_problem(options, symbols)
    numbers = compute(problem)
    blocks = page(options, symbols, problem, numbers, differences(problem, numbers))
    with pipe_may_close():
        say(as_markdown(blocks) if options.format == "markdown" else as_text(blocks))


def main() -> None:
    """Run the command line."""
    compose_and_run("explain", ExplainConfig, explain, sys.argv[1:], errors_in_explain)


if __name__ == "__main__":
    exit_with(main)
