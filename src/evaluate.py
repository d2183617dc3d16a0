"""python -m src.evaluate: what a run is worth on a split, every transition scored once. See conf/evaluate.yaml."""

from __future__ import annotations

import dataclasses
import math
import sys
from typing import Any

from src.config.commands import EvaluateConfig, mistakes_in_evaluate, opened, run
from src.config.compose import exit_with
from src.metrics import perplexity
from src.process import in_json, pipe_may_close, say


def evaluate(config: EvaluateConfig) -> None:
    """Evaluate as a checked configuration says, print, and leave evaluation_<split>.json in the run's folder."""
    other = config.model.get("name")
    trained = opened(dataclasses.replace(config, model={}))
    from src.inference.evaluate import evaluate_run, keep

    result = evaluate_run(trained, config.split, config.data, other)
    with pipe_may_close():
        if config.format == "json":
            say(in_json(result, indent=2))
        else:
            say("\n".join(table(result, trained.config.data.name)) + "\n")
    written = keep(trained, result)  # last: where the folder cannot be written to, the numbers are told all the same
    if written and config.format == "text":
        with pipe_may_close():
            say(f"written: {written}\n")


def table(result: dict[str, Any], data: str) -> list[str]:
    """The lines that a reader sees: the model's four numbers, what to beat below them."""
    where = f"{data}, {result['split']}: {result['characters']:,} characters scored once each, the state carried"
    lines = [f"{where} ({result['checkpoint']} checkpoint, step {result['step']})"]
    if result["text"]["changed"]:
        lines.append("note: this is not the text that the run was trained on: its checksum is another")
    lines += [f"note: {note}" for note in result["notes"]]
    lines.append(f"{'':12}{'nats':>10}{'bits':>10}{'perplexity':>12}{'accuracy':>10}")
    for row in (result, *result["also"]):
        numbers = (row["cross_entropy"], row["bits_per_character"], row["perplexity"])
        lines.append("{:12}{:10.6f}{:10.6f}{:12.4f}{:10.4f}".format(row["model"], *numbers, row["accuracy"]))
    for row in result["also"]:
        lines.append(f"the same weights as {row['model']}: {row['difference']:+.2e} nats")
    for name, bits in result["baselines"].items():
        nats = bits * math.log(2)
        line = f"{name:12}{nats:10.6f}{bits:10.6f}{perplexity(nats):12.4f}"
        lines.append(f"{line}    beaten" if bits > result["bits_per_character"] else line)
    return lines


def main() -> None:
    """Answer the command line."""
    run("evaluate", EvaluateConfig, evaluate, mistakes_in_evaluate, sys.argv[1:])


if __name__ == "__main__":
    exit_with(main)
