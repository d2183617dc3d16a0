"""python -m src.explain: backpropagation through time on "hello", as numbers. See conf/explain.yaml."""

from __future__ import annotations

import sys

from src.config.compose import compose_and_run, exit_with
from src.config.schema import ExplainConfig, errors_in_values
from src.process import heavy_imports, pipe_may_close, say

MOST_STEPS, MOST_SYMBOLS = 12, 8  # more do not fit side by side in 100 columns


def symbols_of(word: str, target: str) -> str:
    """Return the vocabulary in the order of its ids: the tutorial's own, e h l o, where that is enough."""
    letters = set(word + target)
    return "ehlo" if letters <= set("ehlo") else "".join(sorted(letters))


def errors_in_explain(config: ExplainConfig) -> list[str]:
    """Return all errors, one text each."""
    word, target = config.explain.input, config.explain.target
    found = list(errors_in_values(config, ExplainConfig))
    if len(word) != len(target):
        lengths = f"explain.input={word} has {len(word)} characters and explain.target={target} has {len(target)}"
        found.append(f"{lengths}; each step needs one target")
    if not 1 <= len(word) <= MOST_STEPS:
        found.append(f"explain.input={word} has {len(word)} characters: expected 1 to {MOST_STEPS}")
    if len(symbols_of(word, target)) > MOST_SYMBOLS:
        found.append(f"explain.input and explain.target have over {MOST_SYMBOLS} different characters; use fewer")
    return found


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
