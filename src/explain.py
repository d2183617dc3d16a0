"""python -m src.explain: backpropagation through time on "hello", as numbers. See conf/explain.yaml."""

from __future__ import annotations

import sys

from src.config.commands import ExplainConfig, mistakes_in_explain, symbols_of
from src.config.compose import compose_and_run, exit_with
from src.process import heavy_imports, pipe_may_close, say


def explain(config: ExplainConfig) -> None:
    """Print the page that a checked configuration describes."""
    words = config.explain
    with heavy_imports():
        from src.worked_example import bptt_example as written_out
        from src.worked_example import document as sheet
        from src.worked_example.document import page
    word, target = words["input"], words["target"]
    symbols = symbols_of(word, target)
    ids, targets = ([symbols.index(letter) for letter in text] for text in (word, target))
    sizes = {key: words[key] for key in ("hidden_size", "num_layers", "nonlinearity", "seed")}
    problem, model = written_out.problem(ids, targets, len(symbols), **sizes)
    found = written_out.write_out(problem)
    held = written_out.differences(problem, model, found)
    blocks = page(word, target, symbols, words["seed"], problem, found, held)
    with pipe_may_close():
        say(sheet.as_markdown(blocks) if words["format"] == "markdown" else sheet.as_text(blocks))


def main() -> None:
    """Answer the command line."""
    compose_and_run("explain", ExplainConfig, explain, sys.argv[1:], mistakes_in_explain)


if __name__ == "__main__":
    exit_with(main)
