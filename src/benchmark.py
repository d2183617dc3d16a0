"""python -m src.benchmark: the speed table of this machine. See conf/benchmark.yaml and conf/benchmark/."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig

from src.benchmarks import errors_in_benchmark
from src.config.compose import compose_and_run, exit_with, in_a_sweep
from src.config.schema import BenchmarkConfig, BenchmarkOptions, to_plain
from src.files import to_json
from src.process import heavy_imports, pipe_may_close, say, write_file


def benchmark(config: BenchmarkConfig, overrides: Sequence[str]) -> None:
    """Measure, print each result, and write all of them to `benchmark.out`; the overrides are for benchmark=step."""
    options = config.benchmark
    with heavy_imports():
        import torch

        from src.training.run_record import now, processor
    machine = {"processor": processor(), "torch": torch.__version__}
    results = []
    with pipe_may_close():
        say(f"{machine['processor']}, torch {torch.__version__}\n")
        for found, lines in measured(options, overrides):
            results.append(found)
            say("\n" + "\n".join(lines) + "\n")
    if options.out:
        about = {"format": 1, "benchmark": options.name, "when": now(), "machine": machine, "words": to_plain(options)}
        named = Path(options.out)
        if in_a_sweep():  # one file a job: NAME_0.json, NAME_1.json
            named = named.with_stem(f"{named.stem}_{HydraConfig.get().job.num}")
        write_file(str(named), to_json({**about, "results": results}, indent=2) + "\n", "benchmark.out")


def measured(options: BenchmarkOptions, overrides: Sequence[str]) -> Iterator[tuple[dict[str, Any], list[str]]]:
    """Yield each result, as plain data and as the lines of a table."""
    from src.benchmarks import data, models, training_step

    if options.name == "models":
        yield from ((found, models.models_table(found)) for found in models.run_models(options))
    elif options.name == "sampling":
        yield (found := models.run_sampling(options)), models.sampling_table(found)
    elif options.name == "data":
        yield (found := data.run(options)), data.table(found)
    else:
        yield (found := training_step.run(overrides, options.steps or 0)), training_step.table(found)


def main() -> None:
    """Run the command line: `benchmark...` and flags are for this command, all else for the run of benchmark=step."""
    ours: list[str] = []
    overrides: list[str] = []
    is_value = False
    for argument in sys.argv[1:]:
        key = argument.partition("=")[0].split(".")[0]
        (ours if is_value or argument.startswith("-") or key in ("benchmark", "hydra") else overrides).append(argument)
        is_value = argument in ("--config-dir", "-cd", "--cfg", "-c", "--info", "-i", "--package", "-p")

    def check(config: BenchmarkConfig) -> list[str]:
        return errors_in_benchmark(config, overrides)

    compose_and_run("benchmark", BenchmarkConfig, lambda config: benchmark(config, overrides), ours, check)


if __name__ == "__main__":
    exit_with(main)
