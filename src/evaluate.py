"""python -m src.evaluate: the exact metrics of a run, or of all runs below a folder. See conf/evaluate.yaml."""

from __future__ import annotations

import dataclasses
import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from src.config.compose import load_model, run_inference
from src.config.schema import EvaluateConfig
from src.errors import UserError
from src.inference.options import errors_in_inference, evaluated_before, locate, runs_of
from src.metrics import perplexity
from src.process import complain, exit_with, in_json, say


def evaluate(config: EvaluateConfig) -> None:
    """Evaluate, print the result, and write evaluation_<split>.json into the run's folder."""
    if folders := runs_of(config):
        return evaluate_all(config, folders)
    trained = load_model(config, as_trained=True)
    from src.inference.evaluate import evaluate_run, keep

    result = evaluate_run(trained, config.split, config.data, config.implementation)
    written = keep(trained, result)
    say(in_json(result, indent=2) if config.format == "json" else table(result, trained.config.data.name))
    if written and config.format == "text":
        say(f"written: {written}\n")


def evaluate_all(config: EvaluateConfig, folders: Sequence[Path]) -> None:
    """Evaluate all runs of a folder, one line each, or read what is there; exit code 1 if one fails."""
    asks_more = config.implementation or config.precision or any(one is not None for one in vars(config.data).values())
    heads = ("nats", "bits", "perplexity", "accuracy")
    say("{:>10}{:>10}{:>12}{:>10}  split  checkpoint\n".format(*heads) if config.format == "text" else "")
    results, failed = [], False
    for folder in folders:
        try:
            checkpoint = locate(folder, config.at)
        except UserError as error:
            complain(f"note: {error}")
            continue
        result = None if asks_more else evaluated_before(folder, config.split, checkpoint)
        how = "" if result is None else "  (evaluated before)"
        try:
            if result is None:
                trained = load_model(dataclasses.replace(config, run=str(folder)), as_trained=True)
                from src.inference.evaluate import evaluate_run, keep

                result = evaluate_run(trained, config.split, config.data, config.implementation)
                keep(trained, result)
        except UserError as error:
            failed = True
            complain(f"{folder}: {error}")
        if result is not None:
            results.append({"run": str(folder), **result})
            numbers = (result["cross_entropy"], result["bits_per_character"], result["perplexity"], result["accuracy"])
            line = "{:10.6f}{:10.6f}{:12.4f}{:10.4f}".format(*numbers)
            say(f"{line}  {result['split']:5}  {checkpoint}{how}\n" if config.format == "text" else "")
    say(in_json(results, indent=2) if config.format == "json" else "")
    if failed:
        sys.exit(1)


def table(result: dict[str, Any], data: str) -> str:
    """Return the four metrics of the model as a table, the baselines below them."""
    what = f"{data}, {result['split']}: {result['characters']:,} characters scored once each, the state carried"
    lines = [f"{what} ({result['checkpoint']} checkpoint, step {result['step']})"]
    if result["text"]["changed"]:
        lines.append("note: this is not the text that the run was trained on: its checksum differs")
    lines += [f"note: {note}" for note in result["notes"]]
    lines.append(f"{'':12}{'nats':>10}{'bits':>10}{'perplexity':>12}{'accuracy':>10}")
    for row in (result, *result["also"]):
        numbers = (row["cross_entropy"], row["bits_per_character"], row["perplexity"], row["accuracy"])
        lines.append("{:12}{:10.6f}{:10.6f}{:12.4f}{:10.4f}".format(row["model"], *numbers))
    lines += [f"the same weights as {row['model']}: {row['difference']:+.2e} nats" for row in result["also"]]
    for name, bits in result["baselines"].items():
        beaten = "    beaten" if bits > result["bits_per_character"] and name != "optimum" else ""  # that is a mean
        nats = bits * math.log(2)
        lines.append(f"{name:12}{nats:10.6f}{bits:10.6f}{perplexity(nats):12.4f}{beaten}")
    if "sequences_right" in result:  # of a task
        symbols = ", ".join(f"{symbol!r} {share:.3f}" for symbol, share in result["by_symbol"].items())
        lines.append(f"sequences right: {result['sequences_right']:.4f}; accuracy by symbol: {symbols}")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Run the command line."""
    run_inference("evaluate", EvaluateConfig, evaluate, errors_in_inference, sys.argv[1:])


if __name__ == "__main__":
    exit_with(main)
