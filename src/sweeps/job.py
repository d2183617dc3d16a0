"""Ctrl-C and SIGTERM while a sweep runs: every signal is noted, and the sweep stops where nothing is lost.

Jobs in the sweep's own process (basic launcher): the run saves and raises, or the signal raises here between two runs.
Jobs in other processes: the sweep's record says `stopping`, no further job starts, and the running ones are asked to
save and stop; a second signal waits for nothing.
"""

from __future__ import annotations

import contextlib
import os
import shlex
import signal
import socket
import threading
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from src.config.run_key import run_key, run_name, sweep_folder
from src.config.schema import Config, to_plain
from src.errors import UserError
from src.files import write_atomic
from src.process import heavy_imports
from src.sweeps.plan import ACTIONS, is_stopping
from src.sweeps.state import claimed, move_aside, record_of, state_of
from src.training.console import say
from src.training.run_record import Record, now, provenance

TAKEN = (signal.SIGINT, signal.SIGTERM)


class Caught:
    """The signals that this process has had, whoever handled them: a run that ends with one may have answered it.

    The system's wake-up socket gets a byte for each, beneath Python's handlers. In another process it knows of none.
    """

    def __init__(self) -> None:
        self.first: int | None = None
        self.reader: socket.socket | None = None

    def look(self) -> int | None:
        """Return the first of TAKEN that came, or None."""
        if self.reader is not None and self.first is None:
            with contextlib.suppress(BlockingIOError):
                numbers = self.reader.recv(4096)
                self.first = next((number for number in numbers if number in TAKEN), None)
        return self.first

    def raise_if_any(self, here: bool) -> None:
        """In the sweep's own process, stop if a signal has come."""
        if here and self.look() is not None:
            raise KeyboardInterrupt

    def __getstate__(self) -> dict[str, Any]:
        """Travel without the socket."""
        return {"first": None, "reader": None}


@contextlib.contextmanager
def given_back() -> Iterator[None]:
    """Whatever a run that raised has left of its own handlers, have those from before it afterwards.

    Lightning calls no teardown then, and after a KeyboardInterrupt leaves Ctrl-C ignored.
    """
    if threading.current_thread() is not threading.main_thread():
        yield  # only the main thread may
        return
    before = {number: signal.getsignal(number) for number in (*TAKEN, signal.SIGUSR1)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def leave_ctrl_c_to_the_sweep() -> None:
    """In a worker: between runs, Ctrl-C is the sweep's own to answer; a run takes it for itself, saves and stops."""
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGINT, signal.SIG_IGN)


@contextlib.contextmanager
def kept_from_children() -> Iterator[None]:
    """Start processes that never see Ctrl-C, which a terminal sends to all of them: this one answers for them.

    It still has it itself, as long as another of its threads was started before.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})  # a mask is handed down, a handler is not
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextlib.contextmanager
def taken(caught: Caught, elsewhere: Callable[[], None] | None) -> Iterator[None]:
    """Take the signals while a sweep runs.

    Args:
        caught: is told of every signal.
        elsewhere: where the jobs run in other processes, what asks them to stop; None where they run in this one.
    """
    if threading.current_thread() is not threading.main_thread():
        yield  # only the main thread may
        return
    reader, writer = socket.socketpair()
    reader.setblocking(False)
    writer.setblocking(False)
    caught.reader = reader
    seen = 0

    def handle(number: int, frame: Any) -> None:
        nonlocal seen
        seen += 1
        if elsewhere is None or seen > 1:
            raise KeyboardInterrupt
        elsewhere()

    before = {number: signal.signal(number, handle) for number in TAKEN}
    old = signal.set_wakeup_fd(writer.fileno(), warn_on_full_buffer=False)
    try:
        yield
    finally:
        signal.set_wakeup_fd(old)
        for number, handler in before.items():
            signal.signal(number, handler)
        caught.look()
        caught.reader = None
        reader.close()
        writer.close()


# ---- One job of a sweep, in whatever process a launcher runs it: look, act, and leave a record whatever happens.

ENGINES = ("submitit", "ray")  # what their handlers of signals raise ends a job that will come again


@dataclass
class JobRunner:
    """The task that Hydra's launchers are given; it travels to other processes and machines.

    Args:
        record: the sweep's record, which says whether the sweep is being stopped.
        command: the sweep's command line.
        side_by_side: how many jobs share a machine.
        where: the folder in which the user stands; relative paths begin there.
        started_by: process and machine of the sweep itself.
        caught: the signals that the sweep's own process has had.
        labels: by folder, what tells a job from the others of its sweep.
    """

    record: Path
    command: list[str]
    side_by_side: int
    where: Path
    started_by: tuple[int, str]
    caught: Caught
    labels: dict[str, str]

    def __call__(self, cfg: DictConfig) -> dict[str, str]:
        """Run one job; return its words, its folder and what became of it.

        A job that raises, be it SystemExit, is recorded and does not raise here: it must not take the others along.
        In the sweep's own process a signal does; so does what an engine raises to put the job back into its queue.
        """
        from src.config.compose import to_config

        here = (os.getpid(), socket.gethostname()) == self.started_by
        if not here:
            leave_ctrl_c_to_the_sweep()
            if self.where.is_dir():
                os.chdir(self.where)  # some engines start their workers elsewhere
        config = to_config(cfg)
        folder = sweep_folder(config)
        outcome = {"folder": str(folder), "status": "not run"}
        if not here and is_stopping(self.record):
            return outcome
        os.environ["UNROLL_SIDE_BY_SIDE"] = str(self.side_by_side)
        try:
            with claimed(folder) as mine, given_back():
                if mine:
                    self._act(config, folder)
            self.caught.raise_if_any(here)  # one that came in a run's last step, which ended it as done
        except BaseException as error:  # an end; what a run raises by itself is recorded and does not come here
            if comes_from_an_engine(error):
                hand_back(folder)
                raise
            if here or isinstance(error, Exception) or "SLURM_JOB_ID" in os.environ:
                raise
        return outcome | {"status": str(record_of(folder).get("status", "not run"))}

    def _act(self, config: Config, folder: Path) -> None:
        action = ACTIONS[state_of(folder, config).status]
        if action == "wait" and comes_again():
            action = "resume"
        if action in ("skip", "wait"):
            return
        command = {
            "command": shlex.join(self.command),
            "overrides": OmegaConf.to_container(HydraConfig.get().overrides.task, resolve=False),
            "key": run_key(config),
            "label": self.labels.get(str(folder)),
        }
        try:
            if action == "resume" and self._resumed(folder):
                return
            if folder.exists():
                say(f"{folder}: the earlier attempt lies in {move_aside(folder)} now")
            config.name = run_name(config)
            with heavy_imports():
                from src.training.run import fit
            fit(config, command, folder)
        except BaseException as error:
            if self._is_an_end(error):
                raise
            leave_record(folder, config, command, error)

    def _is_an_end(self, error: BaseException) -> bool:
        """Whether a signal that has really come, or the engine, ends the job; all else is a failure of its own."""
        if comes_from_an_engine(error):
            return True
        if isinstance(error, Exception):
            return False
        from src.training.signals import Interrupted

        return isinstance(error, Interrupted) or self.caught.look() is not None or is_stopping(self.record)

    def _resumed(self, folder: Path) -> bool:
        """Go on with an interrupted run; False where it cannot go on and must start again."""
        with heavy_imports():
            from src.training.resume import resume
        try:
            resume(folder, None)
        except UserError as mistake:
            say(f"{folder} cannot go on and starts again: {mistake}")
            return False
        return True


def comes_from_an_engine(error: BaseException) -> bool:
    """Whether an engine's own code raised it, in the middle of a run: its time is up, or its place is wanted."""
    frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
    return bool(frames) and str(frames[-1].f_globals.get("__name__")).partition(".")[0] in ENGINES


def hand_back(folder: Path) -> None:
    """Let a run that its engine has ended go on when its job comes again: the run took that for a failure."""
    entries = record_of(folder)
    if entries.get("status") == "failed":
        Record(folder, entries).update(status="stopped", error=None)


def comes_again() -> bool:
    """Whether SLURM has started this job before: then nobody else trains what its record says is running."""
    return os.environ.get("SLURM_RESTART_COUNT", "0") != "0"


def leave_record(folder: Path, config: Config, command: dict[str, Any], error: BaseException) -> None:
    """See to it that a failed job has its traceback in its own train.log and its error in its run.json."""
    entries = record_of(folder)
    told = {"type": type(error).__name__, "message": str(error)}
    first = next(iter(told["message"].strip().splitlines()), "")
    say(f"failed: {folder}: {told['type']}: {first.encode(errors='backslashreplace').decode()}")
    if entries.get("status") == "failed" and entries.get("error") == told:
        return  # the run itself has seen to it
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / "config.yaml").exists():
        write_atomic(folder / "config.yaml", yaml.safe_dump(to_plain(config), sort_keys=False, allow_unicode=True))
    with (folder / "train.log").open("a", encoding="utf-8", errors="backslashreplace") as file:
        file.write("".join(traceback.format_exception(error)))
    known = {
        "name": run_name(config),
        "experiment": config.experiment,
        "model": config.model.name,
        "data": config.data.name,
        "seed": config.seed,
        "metrics": {"final": {}, "best": None},
        "seconds": 0.0,
    }
    known |= command | provenance() | entries
    Record(folder, known).update(status="failed", finished=now(), error=told)
