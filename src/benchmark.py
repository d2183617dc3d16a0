"""python -m src.benchmark: the speed table of this machine. See conf/benchmark.yaml and conf/benchmark/."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig

from src.benchmarks import errors_in_benchmark
from src.config.compose import compose_and_run, exit_with, in_a_sweep
from src.config.overrides import flags_and_overrides
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
    flags, given = flags_and_overrides(sys.argv[1:])
    ours = [word for word in given if word.partition("=")[0].split(".")[0] in ("benchmark", "hydra")]
    overrides = [word for word in given if word not in ours]
    check = partial(errors_in_benchmark, overrides=overrides)
    compose_and_run("benchmark", BenchmarkConfig, partial(benchmark, overrides=overrides), flags + ours, check)


if __name__ == "__main__":
    exit_with(main)
