"""python -m src.benchmark: the speed table of this machine. See conf/benchmark.yaml and conf/benchmark/."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig

from src.config.compose import compose_and_run, in_a_sweep
from src.config.hydra_compat import CONF
from src.config.overrides import flags_and_overrides
from src.config.schema import BenchmarkConfig, BenchmarkOptions, errors_in_values, to_plain
from src.errors import UserError, nearest
from src.files import read_yaml, to_json, user_path
from src.process import exit_with, heavy_imports, say, write_file

MODELS = ("cell", "stacked", "manual", "stacked_bf16", "manual_bf16", "lstm", "gru")
PEERS = ("manual", "stacked", "cell", "jax", "keras", "numpy")
ON_A_GPU = tuple(f"{model}_{kind}" for model in MODELS if "_" not in model for kind in ("tf32", "bf16", "fp16"))


def errors_in_benchmark(config: BenchmarkConfig, overrides: Sequence[str] = ()) -> list[str]:
    """Return all errors, one text each; `overrides` of src.train are for benchmark=step alone, which trains a run."""
    options = config.benchmark
    used = [key for key in read_yaml(CONF / "benchmark" / f"{options.name}.yaml") if key != "name"]
    keys = f"benchmark={options.name} takes benchmark.KEY, where KEY is one of {', '.join(used)}"
    given = [f"benchmark.{key}" for key, value in vars(options).items() if value is not None and key != "name"]
    given += overrides if options.name != "step" else []
    found = [f"{one}: {keys}" for one in given if one.removeprefix("benchmark.") not in used]
    found += errors_in_values(config, BenchmarkConfig)
    known = PEERS if options.name == "peers" else (*MODELS, *(ON_A_GPU if options.accelerator == "gpu" else ()))
    for name in sorted(set(options.models or []) - set(known)):
        found.append(f"benchmark.models: {name}: expected some of {', '.join(known)}{nearest(name, known)}")
    if options.out is not None:
        path = user_path(options.out)
        if path.is_dir() or not os.access(path.parent, os.W_OK):
            found.append(f"benchmark.out={options.out}: expected the name of a file in a folder that can be written")
    if options.folder is not None and not os.access(user_path(options.folder), os.W_OK):
        found.append(f"benchmark.folder={options.folder}: expected a folder that exists and can be written")
    return found


def benchmark(config: BenchmarkConfig, overrides: Sequence[str]) -> None:
    """Measure, print each result, and write all of them to `benchmark.out`; the overrides are for benchmark=step."""
    options = config.benchmark
    with heavy_imports():
        import torch

        from src.training.machine import gpu_description
        from src.training.run_record import now, processor
    machine: dict[str, Any] = {"processor": processor(), "torch": torch.__version__}
    if options.accelerator == "gpu":
        if not torch.cuda.is_available():
            raise UserError("benchmark.accelerator=gpu, but torch sees none on this machine; leave it out")
        torch.cuda.init()
        machine["gpu"] = gpu_description()
    results = []
    say(f"{(machine.get('gpu') or {'name': machine['processor']})['name']}, torch {torch.__version__}\n")
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
    from src.benchmarks import data, models, peers, training_step

    if options.name == "models":
        yield from ((found, models.models_table(found)) for found in models.run_models(options))
    elif options.name == "peers":
        yield from ((found, peers.peers_table(found)) for found in peers.run_peers(options, models.sizes_of(options)))
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
