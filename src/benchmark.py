"""python -m src.benchmark: the speed table of this machine. See conf/benchmark.yaml and conf/benchmark/."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig

from src.config.commands import BenchmarkConfig, mistakes_in_benchmark, mistakes_in_others
from src.config.compose import compose_and_run, exit_with, in_a_sweep
from src.files import to_json
from src.process import heavy_imports, pipe_may_close, say


def benchmark(config: BenchmarkConfig, words: Sequence[str]) -> None:
    """Measure what a checked configuration says, print it as it comes, and write it to a file where one is named.

    Args:
        config: conf/benchmark.yaml, composed.
        words: those of src.train that the user has added.
    """
    asked = config.benchmark
    with heavy_imports():
        import torch

        from src.training.run_record import now, processor
    with pipe_may_close():
        say(f"{processor()}, torch {torch.__version__}\n")
        results = []
        for found, lines in measured(asked, words):
            results.append(found)
            say("\n" + "\n".join(lines) + "\n")
        if asked["name"] == "models":
            from src.benchmarks.implementations import NOTES

            say("\n" + "\n".join(NOTES) + "\n")
    if asked["out"]:
        from src.process import write_file

        machine = {"processor": processor(), "torch": torch.__version__}
        told = {"format": 1, "benchmark": asked["name"], "when": now(), "machine": machine, "words": asked}
        text = to_json({**told, "results": results}, indent=2)
        write_file(file_of(asked["out"]), text + "\n", "benchmark.out")


def measured(asked: dict[str, Any], words: Sequence[str]) -> Iterator[tuple[dict[str, Any], list[str]]]:
    """Yield what was measured, as plain data and as lines, piece by piece."""
    if asked["name"] == "models":
        from src.benchmarks import implementations as models

        for found in models.run(asked):
            yield found, models.lines(found)
    elif asked["name"] == "data":
        from src.benchmarks import data

        found = data.run(asked)
        yield found, data.lines(found)
    elif asked["name"] == "sampling":
        from src.benchmarks import sampling

        found = sampling.run(asked)
        yield found, sampling.lines(found)
    else:
        from src.benchmarks import training_step as step

        found = step.run(words, asked["steps"])
        yield found, step.lines(found)


def file_of(out: str) -> str:
    """Return the file that was named; of a sweep one a job, NAME_0.json, NAME_1.json, lest one overwrite the other."""
    named = Path(out)
    return str(named.with_stem(f"{named.stem}_{HydraConfig.get().job.num}")) if in_a_sweep() else out


def main() -> None:
    """Answer the command line: `benchmark...` is ours, every other word is one of src.train for the run it makes."""
    ours: list[str] = []
    words: list[str] = []
    value = False
    for given in sys.argv[1:]:
        mine = value or given.startswith("-") or given.partition("=")[0].split(".")[0] in ("benchmark", "hydra")
        (ours if mine else words).append(given)
        value = given in ("--config-dir", "-cd", "--cfg", "-c", "--info", "-i", "--package", "-p")

    def check(config: BenchmarkConfig) -> list[str]:
        return [*mistakes_in_others(config, words), *mistakes_in_benchmark(config)]

    compose_and_run("benchmark", BenchmarkConfig, lambda config: benchmark(config, words), ours, check)


if __name__ == "__main__":
    exit_with(main)
