"""python -m src.train: compose a run, train it, leave its folder. See conf/train.yaml for what can be set."""

from __future__ import annotations

import dataclasses
import shlex
import sys
from functools import partial
from pathlib import Path

from src.config.checks import errors_in_config
from src.config.compose import compose_and_run, exit_with, stored_config, take, take_trust, with_sizes_of_source
from src.config.schema import Config
from src.errors import UserError
from src.process import heavy_imports
from src.sweeps.sweep import run_sweep
from src.training.run_record import run_before


def train(config: Config) -> None:
    """Train one new run from a checked configuration."""
    if config.sweep.dry_run:
        raise UserError("sweep.dry_run=true shows the plan of a sweep, and this is a single run: add -m")
    config = dataclasses.replace(config, name=config.run_name)
    if before := run_before(Path(config.runs) / config.run_name, sys.argv[1:]):
        return resume(before, [], config.model._target_)  # a requeued SLURM job
    with heavy_imports():
        from src.training.run import fit
    fit(config, {"command": shlex.join(["python", "-m", "src.train", *sys.argv[1:]]), "overrides": sys.argv[1:]})


def resume(folder: Path, overrides: list[str], trust: str | None) -> None:
    """Go on with a run in its folder; the overrides may extend it or move it."""
    _, changes = stored_config(folder, overrides, trust)  # reports what is wrong before anything is changed
    with heavy_imports():
        from src.training.run import resume
    resume(folder, changes, trust)


def main() -> None:
    """Run the command line. A stored run needs no composing: it has its configuration already."""
    trust, arguments = take_trust(sys.argv[1:])
    stored, rest = take(("resume", "rerun"), arguments)
    if "resume" in stored:
        resume(Path(stored["resume"]), rest, trust)
    elif "rerun" in stored:
        train(stored_config(Path(stored["rerun"]), rest, trust)[0])
    else:
        run_jobs = partial(run_sweep, command=sys.argv[1:])
        compose_and_run("train", Config, train, with_sizes_of_source(arguments, trust), errors_in_config, run_jobs)


if __name__ == "__main__":
    exit_with(main)
