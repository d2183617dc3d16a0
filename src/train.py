"""python -m src.train, and `fit` in Python: compose a run, train it, leave its folder. Its keys: conf/train.yaml."""

from __future__ import annotations

import contextlib
import dataclasses
import shlex
import signal
import sys
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING

from src.config.checks import errors_in_config
from src.config.compose import checked_config, compose_and_run, stored_config, take, take_trust, with_sizes_of_source
from src.config.schema import Config
from src.errors import UserError
from src.files import read_json, read_yaml, user_path
from src.inference.options import with_named_runs
from src.process import exit_with, heavy_imports
from src.training.run_record import run_before

if TYPE_CHECKING:
    from src.config.hydra_compat import ComposedJob, Launcher
    from src.inference.load import TrainedModel


def train(config: Config, arguments: Sequence[str]) -> Path:
    """Train one new run from a checked configuration, which these arguments have made; return its folder."""
    if config.sweep.dry_run:
        raise UserError("sweep.dry_run=true shows the plan of a sweep, and this is a single run: add -m")
    config = dataclasses.replace(config, name=config.run_name)
    if before := run_before(Path(config.runs) / config.run_name, arguments):
        return resume(before, [], config.model._target_)  # a requeued SLURM job
    with heavy_imports():
        from src.training import run
    command = shlex.join(["python", "-m", "src.train", *arguments])
    return run.fit(config, {"command": command, "overrides": list(arguments)})


def resume(folder: Path, overrides: list[str], trust: str | None) -> Path:
    """Go on with a run in its folder, and return it; the overrides may extend the run or move it."""
    _, changes = stored_config(folder, overrides, trust)  # reports what is wrong before anything is changed
    with heavy_imports():
        from src.training import run
    return run.resume(folder, changes, trust)


def train_stored(arguments: Sequence[str]) -> Path | None:
    """Train what `resume=` or `rerun=` names, which has its configuration already; None without one of them."""
    trust, rest = take_trust(arguments)
    stored, rest = take(("resume", "rerun"), rest)
    if "resume" in stored:
        return resume(user_path(stored["resume"]), rest, trust)
    if "rerun" in stored:
        return train(stored_config(user_path(stored["rerun"]), rest, trust)[0], arguments)
    return None


def main() -> None:
    """Run the command line."""
    sys.argv[1:] = arguments = with_named_runs(sys.argv[1:])  # also for the processes that Lightning starts
    if train_stored(arguments) is None:
        trust, rest = take_trust(arguments)

        def run_jobs(jobs: list[ComposedJob], launcher: Launcher) -> int:
            from src.sweeps.sweep import run_sweep

            return run_sweep(jobs, launcher, arguments, "src.train")

        task = partial(train, arguments=arguments)
        compose_and_run("train", Config, task, with_sizes_of_source(rest, trust), errors_in_config, run_jobs)


@dataclass(frozen=True)
class Run:
    """A run that `fit` has trained. Everything else about it is read from its folder."""

    folder: Path
    status: str  # done
    metrics: dict[str, float] = field(repr=False)  # of the last weights, by name: `val/cross_entropy`, ...

    @cached_property
    def model(self) -> TrainedModel:
        """The model at its best checkpoint, or at its last without a val split: what `load(folder)` returns."""
        from src.inference.load import load

        return load(self.folder, trust=read_yaml(self.folder / "config.yaml")["model"]["_target_"])


def fit(overrides: Sequence[str]) -> Run:
    """Train a run as `python -m src.train OVERRIDES...` does, into the same folder, and return it.

    run = fit(["model=manual", "data=text", "data.path=my.txt"])

    What the command prints is printed; in a notebook a progress bar stands below it. `resume=` and `rerun=` work too.
    Signal handlers, the state of Hydra, torch's random numbers and number of threads are afterwards as they were.

    Raises:
        UserError: bad input, as one exception with all errors; nothing was written.
        RunFailure: the run cannot go on, for a reason outside of it, such as a full disk.
        KeyboardInterrupt: Ctrl-C, or the kernel's interrupt; the run is saved, and `fit(["resume=last"])` goes on.
    """
    if isinstance(overrides, str):
        raise UserError(f"fit takes a list of overrides: fit({shlex.split(overrides)!r})")
    arguments = with_named_runs(overrides)
    with _process_as_before():
        try:
            folder = train_stored(arguments)
            if folder is None:
                trust, rest = take_trust(arguments)
                config = checked_config(with_sizes_of_source(rest, trust))
                if config.trainer.processes != 1:
                    raise UserError("trainer.devices: fit trains in this one process; use python -m src.train")
                folder = train(config, arguments)
        except SystemExit as stopped:
            if stopped.code == 128 + signal.SIGINT:
                raise KeyboardInterrupt from stopped  # a cell or a script must not go on as if it had ended
            raise
    record = read_json(folder / "run.json")
    return Run(folder, record["status"], record["metrics"]["final"])


@contextlib.contextmanager
def _process_as_before() -> Iterator[None]:
    """Restore what a run changes in its process; its signal handlers and its log it restores itself."""
    with heavy_imports():
        import torch
    from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

    threads = torch.get_num_threads()
    # No limits: it only remembers those of numpy. No devices: a GPU is not touched before the run asks for it
    with threadpool_limits(None), torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        try:
            yield
        finally:
            torch.set_num_threads(threads)


if __name__ == "__main__":
    exit_with(main)
