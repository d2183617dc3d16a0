"""python -m src.train: compose a run, train it, leave its folder. See conf/train.yaml for what can be set."""

from __future__ import annotations

import shlex
import sys
from functools import partial
from pathlib import Path

from src.config.checks import errors_in_config
from src.config.compose import changes_in, compose_and_run, exit_with, stored_config, take, with_sizes_of_source
from src.config.run_key import run_name
from src.config.schema import Config
from src.errors import UserError
from src.process import heavy_imports
from src.sweeps.sweep import run_sweep
from src.training.run_record import run_before


def train(config: Config) -> None:
    """Train one new run from a checked configuration."""
    if config.sweep.dry_run:
        raise UserError("sweep.dry_run=true shows the plan of a sweep, and this is a single run: add -m")
    config.name = run_name(config)
    before = run_before(Path(config.runs) / config.name, sys.argv[1:])
    if before is not None:
        return go_on(before, [])
    with heavy_imports():
        from src.training.run import fit
    fit(config, {"command": shlex.join(["python", "-m", "src.train", *sys.argv[1:]]), "overrides": sys.argv[1:]})


def go_on(folder: Path, words: list[str]) -> None:
    """Go on with a run in its folder; the words may extend it or move it, and no more."""
    stored_config(folder, words)  # whatever is wrong with it or with the words is told before anything is touched
    changes = changes_in(words)
    with heavy_imports():
        from src.training.resume import resume
    resume(folder, changes)


def main() -> None:
    """Answer the command line. A stored run is taken up before Hydra starts: it has its configuration already."""
    words = sys.argv[1:]
    old, rest = take(("resume", "rerun"), words)
    if "resume" in old:
        go_on(Path(old["resume"]), rest)
    elif "rerun" in old:
        train(stored_config(Path(old["rerun"]), rest))
    else:
        new = with_sizes_of_source(words)
        compose_and_run("train", Config, train, new, errors_in_config, partial(run_sweep, command=words))


if __name__ == "__main__":
    exit_with(main)
