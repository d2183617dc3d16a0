"""python -m src.benchmark: the speed table of this machine. See conf/benchmark.yaml and conf/benchmark/."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from typing import Any

from src.config.benchmark import TRAINING, BenchmarkConfig, mistakes_in_benchmark
from src.config.entry import compose_and_run, exit_with
from src.config.start import heavy_imports
from src.config.stdout import pipe_may_close, say
from src.mistakes import Mistake, nearest


def benchmark(config: dict[str, Any], words: Sequence[str]) -> None:
    """Measure what a checked configuration says, print it as it comes, and write it to a file where one is named.

    Args:
        config: conf/benchmark.yaml, composed.
        words: those of src.train that the user has added.
    """
    asked = config["benchmark"]
    if words and asked["name"] not in TRAINING:
        known, why = [f"benchmark.{key}" for key in asked], f"benchmark={asked['name']} takes words of its own alone"
        raise Mistake(*(f"{word}: {why}{nearest_key(word, known)}" for word in words))
    with heavy_imports():
        import torch

        from src.training.run import now, processor
    with pipe_may_close():
        say(f"{processor()}, torch {torch.__version__}\n")
        results = []
        for found, lines in measured(asked, words):
            results.append(found)
            say("\n" + "\n".join(lines) + "\n")
        if asked["name"] == "models":
            from src.benchmarks.models import NOTES

            say("\n" + "\n".join(NOTES) + "\n")
    if asked["out"]:
        from src.config.stdout import write_file

        machine = {"processor": processor(), "torch": torch.__version__}
        told = {"format": 1, "benchmark": asked["name"], "when": now(), "machine": machine, "words": asked}
        write_file(asked["out"], json.dumps({**told, "results": results}, indent=2) + "\n")


def measured(asked: dict[str, Any], words: Sequence[str]) -> Iterator[tuple[dict[str, Any], list[str]]]:
    """Yield what was measured, as plain data and as lines, piece by piece."""
    if asked["name"] == "models":
        from src.benchmarks import models

        for found in models.run(asked):
            yield found, models.lines(found)
    elif asked["name"] == "data":
        from src.benchmarks import data

        found = data.run(asked)
        yield found, data.lines(found)
    elif asked["name"] == "callbacks":
        from src.benchmarks import callbacks

        found = callbacks.run(words)
        yield found, callbacks.lines(found)
    else:
        from src.benchmarks import step

        found = step.run(words, asked["steps"])
        yield found, step.lines(found)


def nearest_key(word: str, known: Sequence[str]) -> str:
    """Return which key of this benchmark a word may have meant."""
    return nearest(f"benchmark.{word.partition('=')[0].rpartition('.')[2]}", known)


def main() -> None:
    """Answer the command line: `benchmark...` is ours, every other word is one of src.train for the run it makes."""
    ours: list[str] = []
    words: list[str] = []
    value = False
    for given in sys.argv[1:]:
        mine = value or given.startswith("-") or given.partition("=")[0].split(".")[0] in ("benchmark", "hydra")
        (ours if mine else words).append(given)
        value = given in ("--config-dir", "-cd", "--cfg", "-c", "--info", "-i", "--package", "-p")
    compose_and_run(
        "benchmark", BenchmarkConfig, lambda config: benchmark(config, words), ours, mistakes_in_benchmark
    )


if __name__ == "__main__":
    exit_with(main)
