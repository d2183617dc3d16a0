"""One job of a sweep, in whatever process a launcher runs it; and the signals that stop a sweep.

In the sweep's own process (the basic launcher), a signal makes the run save and stop, and the sweep ends with it.
Elsewhere, no further job starts when the sweep's record says `stopping`, and running jobs are asked to save and stop.
"""

from __future__ import annotations

import contextlib
import functools
import os
import shlex
import signal
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from src.config.compose import to_config
from src.config.run_key import folder_of_key, run_key
from src.config.schema import Config
from src.errors import UserError
from src.files import process_ended, this_process
from src.process import RECEIVED, STOP_SIGNALS, exit_when, heavy_imports, say_line, signal_handlers
from src.sweeps.plan import ACTIONS, TO_DO, archive, claim, is_stopping, record_of, status_of, stop_further_jobs
from src.training.run_record import Busy, Record, now, provenance


@contextlib.contextmanager
def stop_on_signal(stop_jobs: Callable[[], None] | None = None) -> Iterator[None]:
    """Handle signals, which `RECEIVED` lists: the first calls `stop_jobs`, where jobs run elsewhere; others raise."""

    def handle(number: int, frame: Any) -> None:
        RECEIVED.append(number)
        if stop_jobs is None or len(RECEIVED) > 1:
            raise KeyboardInterrupt
        stop_jobs()

    RECEIVED.clear()
    with signal_handlers(dict.fromkeys(STOP_SIGNALS, handle)):
        yield


@dataclass
class JobRunner:
    """The task of Hydra's launchers; it is pickled and sent to other processes and machines."""

    record: Path  # of the sweep
    command: list[str]  # of the sweep
    side_by_side: int  # jobs that share a machine
    cwd: Path  # the user's working directory, where relative paths start
    started_by: dict[str, Any]  # the process of the sweep itself
    jobs: dict[str, tuple[str, Path]]  # label and folder of each job by its key

    def __call__(self, cfg: DictConfig) -> None:
        """Run one job and record what it raises, SystemExit included, so that it does not end the other jobs.

        Only a signal in the sweep's own process, and the end of a SLURM job, which submitit starts again, are raised.
        """
        here = self.started_by == this_process()
        if is_stopping(self.record):
            return
        if not here:
            if not in_slurm():  # whose jobs outlive the sweep that has submitted them
                end_with(tuple(self.started_by.items()))
            signal.signal(signal.SIGINT, signal.SIG_IGN)  # between runs; a run handles it and saves
            if self.cwd.is_dir():
                os.chdir(self.cwd)  # some launchers start their workers elsewhere
        config = to_config(cfg)
        key = run_key(config)
        label, folder = self.jobs[f"{config.run_name}/{key}"]
        os.environ["UNROLL_SIDE_BY_SIDE"] = str(self.side_by_side)
        try:
            with claim(folder.parent, key) as mine, signal_handlers({}):
                folder = folder_of_key(folder.parent, key) or folder  # another sweep may have named it by now
                action = ACTIONS[status_of(folder, config)] if mine else "skip"
                if action == "wait" and os.environ.get("SLURM_RESTART_COUNT", "0") != "0":
                    action = "resume"  # SLURM has started this job again, so the process in the record is gone
                if action in TO_DO:
                    self._run(config, folder, action, {"key": key, "label": label})
            if here and RECEIVED:  # in the last step of a run, which ended as done
                raise KeyboardInterrupt
        except BaseException as error:
            if here or isinstance(error, Exception):
                raise
            if in_slurm():
                mark_stopped(folder)
                raise

    def _run(self, config: Config, folder: Path, action: str, job: dict[str, str]) -> None:
        overrides = OmegaConf.to_container(HydraConfig.get().overrides.task, resolve=False)
        command = {"command": shlex.join(self.command), "overrides": overrides, **job}
        with heavy_imports():
            from src.training.run import fit, resume
            from src.training.signals import Interrupted
        try:
            if action == "resume":
                try:
                    resume(folder, None, config.model._target_)
                    return
                except Busy:  # another process holds its lock
                    return
                except UserError as error:
                    say_line(f"{folder} cannot be resumed and starts again: {error}")
            if folder.exists():
                say_line(f"{folder}: the earlier attempt is archived in {archive(folder)}")
            config.name = config.run_name
            fit(config, command, folder)
        except BaseException as error:
            if in_slurm() and type(error).__name__ == "UncompletedJobError":  # submitit, at its last time limit
                mark_stopped(folder)
                raise
            stopped = isinstance(error, Interrupted) or bool(RECEIVED) or is_stopping(self.record)
            if not isinstance(error, Exception) and (stopped or in_slurm()):  # else the job itself raised SystemExit
                raise
            record_failure(folder, config, command, error)
            if config.sweep.on_failure == "stop":
                stop_further_jobs(self.record)


@functools.cache  # one thread a worker
def end_with(sweep: tuple[tuple[str, Any], ...]) -> None:
    """When the sweep's process on this machine has ended, save and exit within seconds: joblib's workers stay."""
    exit_when(lambda: process_ended(dict(sweep)), grace=5)


def in_slurm() -> bool:
    """Whether submitit runs this job under SLURM: it raises SystemExit at a time limit and starts the job again."""
    return os.environ.get("SUBMITIT_EXECUTOR") == "slurm"


def mark_stopped(folder: Path) -> None:
    """Let a run that SLURM ended be resumed when the job starts again; the run itself recorded a failure."""
    entries = record_of(folder)
    if entries.get("status") == "failed":
        Record(folder, entries).update(status="stopped", error=None)


def record_failure(folder: Path, config: Config, command: dict[str, Any], error: BaseException) -> None:
    """Write a failed job's traceback to its train.log and its error to its run.json, unless the run itself did."""
    from src.training.run import write_config

    entries = record_of(folder)
    described = {"type": type(error).__name__, "message": str(error)}
    if entries.get("status") == "failed" and entries.get("error") == described:
        return
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / "config.yaml").exists():
        write_config(folder, config)
    with (folder / "train.log").open("a", encoding="utf-8", errors="backslashreplace") as file:
        file.write("".join(traceback.format_exception(error)))
    known: dict[str, Any] = {"name": config.run_name, "experiment": config.experiment, "model": config.model.name}
    known |= {"data": config.data.name, "seed": config.seed, "metrics": {"final": {}, "best": None}, "seconds": 0.0}
    Record(folder, known | command | provenance() | entries).update(status="failed", finished=now(), error=described)
