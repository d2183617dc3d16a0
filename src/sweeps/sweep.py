"""Run a sweep: plan it, check what all its jobs need, launch what is missing, report how every job ended."""

from __future__ import annotations

import contextlib
import json
import math
import os
import signal
import socket
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from src.config.hydra_compat import ComposedJob, Launcher, errors_in_launcher_settings, failure_of
from src.config.schema import Config, to_plain
from src.data.batching import plan as plan_windows
from src.data.corpus import Corpus, open_corpus
from src.errors import UserError, counted
from src.metrics import bits_per_character
from src.process import heavy_imports
from src.sweeps.job import JobRunner, StopSignals, children_without_ctrl_c, first_line
from src.sweeps.plan import Job, Plan, SweepRecord, make_plan
from src.sweeps.state import ended_status, record_of, this_process
from src.training.console import say
from src.training.machine import check_monitor, check_prompt

WINDOW_KEYS = ("seq_len", "batch_size", "offset", "reset", "evaluation_streams")  # of the data group; not of the text
OTHER_MACHINES = ("submitit_slurm", "ray")  # launchers whose jobs may run on machines with other files
ENDED = ("done", "failed", "stopped")
TABLE_ORDER = ("done", "running", "stopped", "interrupted", "not run", "failed")


def run_sweep(jobs: list[ComposedJob], launcher: Launcher, command: list[str]) -> int:
    """Run what is missing of a sweep; return its exit code: 0 if all jobs are done, 1, or 128 + the signal.

    Args:
        jobs: every combination of the sweep's values, checked.
        launcher: Hydra's launcher.
        command: the command line.

    Raises:
        UserError: before job 0, what a job needs and is missing: a text, a GPU, weights, the launcher's scheduler.
    """
    plan = make_plan(jobs)
    if jobs[0].config.sweep.dry_run:
        say("\n".join(plan.lines()))
        return 0
    errors = errors_in_launcher_settings(launcher)
    if launcher.name not in OTHER_MACHINES:
        errors += errors_here([job.config for job in plan.to_do])
    if errors:
        raise UserError(*errors)
    say(plan.summary())
    command = ["python", "-m", "src.train", *command]
    record = SweepRecord(Path(jobs[0].config.runs) / "sweeps", command, plan)
    progress = Progress(plan.to_do, every=2.0 if sys.stdout.isatty() else 10.0)
    number = _launch(plan, launcher, record, command, progress) if plan.to_do else None
    return _conclude(plan, record, progress, number)


def errors_here(configs: Sequence[Config]) -> list[str]:
    """Return what the texts, this machine and stored weights say against jobs; torch is imported only where needed."""
    errors = _errors_in_texts(configs)
    if trainers := [config.trainer for config in configs if config.trainer.accelerator != "cpu"]:
        with heavy_imports():
            from src.training.machine import check_machine
        errors |= _errors_of(check_machine, trainers)
    if started := {json.dumps([one.init_from, to_plain(one.model)]): one for one in configs if one.init_from}:
        with heavy_imports():
            from src.training.run import source_of
        errors |= _errors_of(source_of, started.values())
    return list(errors)


def _errors_in_texts(configs: Iterable[Config]) -> dict[str, None]:
    """Check each job's text: is it there, long enough for the windows, and does it have the samples' prompt?"""
    texts: dict[str, Corpus | UserError] = {}

    def check(config: Config) -> None:
        data = config.data
        options = {key: value for key, value in to_plain(data).items() if key not in WINDOW_KEYS}
        if (name := json.dumps(options)) not in texts:
            try:
                texts[name] = open_corpus(data)
            except UserError as error:
                texts[name] = error
        if isinstance(corpus := texts[name], UserError):
            raise corpus
        if config.init_from is None:  # else the vocabulary is that of the older run, extended
            check_prompt(config.callbacks.text_samples, corpus.vocabulary)
        check_monitor(config, corpus.splits)
        windows = plan_windows(corpus.splits["train"], data.seq_len, data.batch_size, data.offset, 0)
        config.trainer.windows_an_epoch(windows.count)

    return _errors_of(check, configs)


def _errors_of(check: Callable[[Any], object], values: Iterable[Any]) -> dict[str, None]:
    """Return the messages of the UserErrors that a check raises for any of the values, each once, in order."""
    errors: dict[str, None] = {}
    for value in values:
        try:
            check(value)
        except UserError as error:
            errors |= dict.fromkeys(error.messages)
    return errors


def jobs_per_machine(launcher: Launcher, jobs: int) -> int:
    """Return how many jobs share a machine: `trainer.threads=auto` divides its cores by that."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else (os.cpu_count() or 1)
    if launcher.name == "joblib":
        workers = int(launcher.settings.get("n_jobs") or 1)
        return max(1, min(jobs, workers if workers > 0 else cores + 1 + workers))
    if launcher.name == "submitit_local":
        return max(1, jobs)  # it starts all of them at once
    return cores if launcher.name == "ray" else 1  # ray gives each job one core


def _launch(plan: Plan, launcher: Launcher, record: SweepRecord, command: list[str], progress: Progress) -> int | None:
    """Have the launcher run the jobs; return the signal that stopped it, or None."""
    signals = StopSignals()
    labels = {str(job.folder): job.label for job in plan.to_do}
    share, here = jobs_per_machine(launcher, len(plan.to_do)), this_process()
    runner = JobRunner(record.path, command, share, Path.cwd(), here, signals, labels)

    def stop_jobs() -> None:
        progress.stopping = True
        record.write("stopping")
        print("stopping: running jobs save first; press Ctrl-C again to stop at once", file=sys.stderr, flush=True)

    children = children_without_ctrl_c() if launcher.name == "submitit_local" else contextlib.nullcontext()
    try:
        with signals.handled(None if launcher.name == "basic" else stop_jobs), progress.shown(), children:
            outcomes = launcher.launch([job.overrides for job in plan.to_do], runner)
        for job, outcome in zip(plan.to_do, outcomes, strict=False):
            if error := failure_of(outcome):  # the job could not even write a record: no disk, no permission
                print(f"{job.label}: {type(error).__name__}: {error}", file=sys.stderr)
    except Exception as error:
        if signals.first is None:  # a worker was killed, a machine is gone
            print(f"{launcher.name} failed: {type(error).__name__}: {first_line(error)}", file=sys.stderr)
    except BaseException as error:
        if signals.first is None and not isinstance(error, SystemExit):
            raise
        return signals.first or signal.SIGTERM  # some launchers turn the signal into a SystemExit
    return signals.first


def _conclude(plan: Plan, record: SweepRecord, progress: Progress, number: int | None) -> int:
    """Print the table, write the sweep's record, return the exit code."""
    records = [record_of(job.folder) for job in plan.jobs]
    statuses = [
        "not run" if job.to_do and not progress.has_begun(job) else ended_status(entries, job.folder)
        for job, entries in zip(plan.jobs, records, strict=True)
    ]
    all_done = all(status == "done" for status in statuses)
    record.finish("done" if all_done else "incomplete" if number is None else "stopped", statuses)
    say("\n".join(["", *table(plan.jobs, records, statuses), summary(statuses)]))
    if not all_done:
        say(f"the same command runs what is missing; this sweep's record: {record.path}")
    return 128 + number if number is not None else 0 if all_done else 1


class Progress:
    """The progress line of a sweep, read from the jobs' records, so that it is the same for every launcher.

    Args:
        jobs: those that the sweep starts.
        every: seconds between two lines, at least.
    """

    def __init__(self, jobs: Sequence[Job], every: float) -> None:
        self.jobs, self.every = jobs, every
        self.began, self.shown_at, self.last = time.time(), 0.0, ""
        self.ended: dict[Path, str] = {}
        self.before = {job.folder: _modified(job) for job in jobs}  # records of earlier attempts do not count
        self.stopping = False  # ask running jobs to stop
        self.asked = {os.getpid()}

    def has_begun(self, job: Job) -> bool:
        """Whether the job's record has changed since the sweep began."""
        return _modified(job) != self.before[job.folder]

    def update(self) -> None:
        """Read the records that may have changed, and print a line if the counts have."""
        running = 0
        for job in self.jobs:
            if job.folder in self.ended or not self.has_begun(job):
                continue
            record = record_of(job.folder)
            if (status := record.get("status")) in ENDED:
                self.ended[job.folder] = str(status)
            elif status == "running":
                running += 1
                if self.stopping:
                    self._stop(record.get("process") or {})
        count = Counter(self.ended.values())
        line = f"sweep: {count['done']} of {len(self.jobs)} done"
        line += "".join(f", {count[status]} {status}" for status in ENDED[1:] if count[status])
        line += f", {running} running" if running else ""
        if line == self.last or time.time() - self.shown_at < self.every:
            return
        self.last, self.shown_at = line, time.time()
        left = len(self.jobs) - len(self.ended)
        if self.ended and left:
            seconds = (time.time() - self.began) / len(self.ended) * left
            line += f", about {seconds / 60:.0f} min left" if seconds > 120 else f", about {seconds:.0f} s left"
        say(line)

    def _stop(self, process: Mapping[str, Any]) -> None:
        """Send a run of this machine SIGTERM, once: it saves and stops."""
        pid = process.get("pid")
        if process.get("host") == socket.gethostname() and isinstance(pid, int) and pid not in self.asked:
            self.asked.add(pid)
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGTERM)

    @contextlib.contextmanager
    def shown(self) -> Iterator[None]:
        """Update every second, in a thread, while the jobs run."""
        over = threading.Event()

        def loop() -> None:
            while not over.wait(1.0):
                self.update()

        thread = threading.Thread(target=loop, name="sweep progress", daemon=True)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()


def _modified(job: Job) -> tuple[int, int] | None:
    try:
        stat = (job.folder / "run.json").stat()
    except OSError:
        return None
    return stat.st_ino, stat.st_mtime_ns


def best_result(record: Mapping[str, Any]) -> str:
    """Return the best value of the monitored metric, with bits per character for nats on `val`."""
    best = (record.get("metrics") or {}).get("best")
    if not best:
        return "-"
    monitor, value = best["monitor"], best["value"]
    if not math.isfinite(value):
        return f"{monitor} {value}"
    bits = f" = {bits_per_character(value):.4f} bits" if monitor == "val/cross_entropy" else ""
    return f"{monitor} {value:.4f}{bits}"


def table(jobs: Sequence[Job], records: Sequence[Mapping[str, Any]], statuses: Sequence[str]) -> list[str]:
    """Return the lines: status, job, result, seconds and folder of each, failures last; then each failure's error."""
    rank = {status: TABLE_ORDER.index(status) for status in statuses if status in TABLE_ORDER}
    rows, failures = [("status", "job", "best", "seconds", "folder")], []
    for job, record, status in sorted(zip(jobs, records, statuses, strict=True), key=lambda row: rank.get(row[2], 4)):
        best, seconds = best_result(record), record.get("seconds")
        shown = f"{seconds:.1f}" if isinstance(seconds, int | float) else "-"
        if status == "not run":  # the record is that of an earlier attempt
            best = shown = "-"
        rows.append((status, job.label, best, shown, str(job.folder)))
        if status == "failed":
            error = record.get("error") or {}
            message = first_line(error.get("message", ""))
            failures.append(f"failed: {job.label}: {error.get('type', 'unknown')}: {message}")
            failures.append(f"        its traceback: {job.folder / 'train.log'}")
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(map(str.ljust, row, widths)).rstrip() for row in rows] + failures


def summary(statuses: Sequence[str]) -> str:
    """Return one line: `10 of 12 jobs done, 2 failed`."""
    count = Counter(statuses)
    parts = [f"{count['done']} of {counted(len(statuses), 'jobs')} done"]
    parts += [f"{count[status]} {status}" for status in reversed(TABLE_ORDER[1:]) if count[status]]
    return ", ".join(parts)
