"""python -m src.train: compose a run, train it, leave its folder. See conf/train.yaml for what can be set."""

from __future__ import annotations

import sys
from typing import Any

from src.config.checks import mistakes_in_config
from src.config.entry import compose_and_run, exit_with, in_a_sweep
from src.config.key import run_name, sweep_folder
from src.config.schema import Config


def train(config: dict[str, Any]) -> None:
    """Train one run from a checked configuration."""
    from src.config.start import heavy_imports

    folder = sweep_folder(config) if in_a_sweep() else None
    config["name"] = run_name(config)
    with heavy_imports():  # torch and lightning, from here on and not before
        from src.training.fit import fit
    fit(config, {"command": "python -m src.train " + " ".join(sys.argv[1:]), "overrides": sys.argv[1:]}, folder)


def main() -> None:
    """Answer the command line."""
    exit_with(lambda: compose_and_run("train", Config, train, sys.argv[1:], mistakes_in_config))


if __name__ == "__main__":
    main()
