"""python -m src.evaluate: the exact metrics of a run on a split. See conf/evaluate.yaml."""

from __future__ import annotations

import math
import sys
from typing import Any

from src.config.commands import load_model, run_inference
from src.config.compose import exit_with
from src.config.schema import EvaluateConfig
from src.inference.options import errors_in_inference
from src.metrics import perplexity
from src.process import complain, in_json, pipe_may_close, say


def evaluate(config: EvaluateConfig) -> None:
    """Evaluate, print the result, and write evaluation_<split>.json into the run's folder."""
    trained = load_model(config)
    from src.inference.evaluate import evaluate_run, keep

    result = evaluate_run(trained, config.split, config.data, config.implementation)
    with pipe_may_close():
        say(in_json(result, indent=2) if config.format == "json" else table(result, trained.config.data.name))
    try:
        written = keep(trained, result)
    except OSError as error:  # a folder of somebody else, a full disk: the numbers above are right all the same
        complain(f"note: evaluation_{result['split']}.json was not written ({error.strerror})")
        return
    if written and config.format == "text":
        with pipe_may_close():
            say(f"written: {written}\n")


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
        nats, beaten = bits * math.log(2), "    beaten" if bits > result["bits_per_character"] else ""
        lines.append(f"{name:12}{nats:10.6f}{bits:10.6f}{perplexity(nats):12.4f}{beaten}")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Run the command line."""
    run_inference("evaluate", EvaluateConfig, evaluate, errors_in_inference, sys.argv[1:])


if __name__ == "__main__":
    exit_with(main)
