"""Run a sweep: plan it, check what all its jobs need, launch what is missing, report how every job ended."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import shutil
import signal
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

from src.config.hydra_compat import ComposedJob, Launcher, failure_of
from src.config.run_key import folder_of_key
from src.config.schema import WINDOW_KEYS, Config, to_plain
from src.data.batching import fitted
from src.data.batching import plan as plan_windows
from src.data.corpus import Corpus, open_corpus
from src.errors import UserError, counted, first_line
from src.files import this_process
from src.metrics import bits_per_character
from src.process import RECEIVED, available_cores, complain, heavy_imports, say_line
from src.sweeps.job import JobRunner, stop_on_signal
from src.sweeps.plan import TO_DO, Job, Plan, SweepRecord, ended_status, make_plan, record_of
from src.training.machine import check_machine, check_monitor, check_prompt, check_validation_comes
from src.training.run_record import now

OTHER_MACHINES = ("submitit_slurm", "ray")  # launchers whose jobs may run on machines with other files
ENDED = ("done", "failed", "stopped")
HEADER = ("status", "job", "best", "seconds", "folder")
TABLE_ORDER = ("done", "running", "stopped", "interrupted", "not run", "failed")


def run_sweep(jobs: list[ComposedJob], launcher: Launcher, command: list[str], entry: str, *splits: str) -> int:
    """Run what is missing of a sweep of `entry`, on texts with `splits`; return 0 if all is done, 1 or 128 + signal."""
    plan = make_plan(jobs)
    if jobs[0].config.sweep.dry_run:
        say_line("\n".join(plan.lines()))
        return 0
    errors: list[str] = []
    if any(job.config.trainer.processes != 1 for job in jobs):
        # Lightning would start the whole sweep again in each other process
        errors.append("trainer.devices: a sweep job is one process; start a multi-process run without -m")
    if launcher.name == "submitit_slurm" and shutil.which("srun") is None:
        errors.append(f"hydra/launcher={launcher.name}: this machine has no SLURM (no srun); use submitit_local")
    if launcher.name not in OTHER_MACHINES:
        errors += errors_here([job.config for job in plan.to_do], splits)
    if errors:
        raise UserError(*errors)
    say_line("\n".join(filter(None, (plan.summary(), plan.earlier_meaning()))))
    command = ["python", "-m", entry, *command]
    record = SweepRecord(Path(jobs[0].config.runs) / "sweeps", command, plan)
    progress = Progress(plan.to_do, stop_at_failure=jobs[0].config.sweep.on_failure == "stop")
    stopped_by = _launch(plan, launcher, record, command, progress) if plan.to_do else None
    # a sweep of other keys, run beside this one, may have given a shared job another folder
    folders = [folder_of_key(job.folder.parent, job.key) or job.folder for job in plan.jobs]
    ended = [dataclasses.replace(job, folder=folder) for job, folder in zip(plan.jobs, folders, strict=True)]
    records = [record_of(folder) for folder in folders]
    statuses = [
        "not run" if job.action in TO_DO and not progress.has_begun(job) else ended_status(entries, job.folder)
        for job, entries in zip(ended, records, strict=True)
    ]
    all_done = all(status == "done" for status in statuses)
    status = "done" if all_done else "incomplete" if stopped_by is None else "stopped"
    not_run = [job.label for job, ended in zip(plan.jobs, statuses, strict=True) if ended == "not run"]
    record.update(statuses, status=status, not_run=not_run, finished=now())
    say_line("\n".join(["", *table(ended, records, statuses), summary(statuses)]))
    if not_run and "failed" in statuses and progress.stop_at_failure:
        say_line("stopped at the first failure (sweep.on_failure=stop)")
    if not all_done:
        say_line(f"the same command runs what is missing; this sweep's record: {record.path}")
    return 128 + stopped_by if stopped_by is not None else 0 if all_done else 1


def errors_here(configs: Sequence[Config], splits: Sequence[str] = ()) -> list[str]:
    """Return the errors of jobs with their texts, this machine and stored weights; torch is imported if needed."""
    errors: dict[str, None] = {}
    made: dict[str, Any] = {}

    def attempt(of: object, make: Callable[[], Any]) -> Any:
        """Return make(), called once per `of`; after an error, which is recorded, None."""
        if (key := str(of)) not in made:
            made[key] = None
            try:
                made[key] = make()
            except UserError as error:
                errors.update(dict.fromkeys(error.messages))
        return made[key]

    for config in configs:
        source, data = None, config.data
        if config.init_from:
            with heavy_imports():
                from src.training.run import source_of
            source = attempt([config.init_from, config.model], partial(source_of, config))
        if source or not config.init_from:  # else the vocabulary of the text is not known
            text = {key: value for key, value in to_plain(data).items() if key not in WINDOW_KEYS}
            if corpus := attempt([config.init_from, text], partial(open_corpus, data, source and source.vocabulary)):
                attempt(config, partial(_check_text, config, corpus, splits))
        if config.trainer.accelerator != "cpu":
            attempt(config.trainer, partial(check_machine, config.trainer))
    return list(errors)


def _check_text(config: Config, corpus: Corpus, splits: Sequence[str]) -> None:
    """Check that a text is long enough for the windows, and has the samples' prompt and the splits that are read."""
    if missing := [split for split in splits if split not in corpus.splits]:
        raise UserError(f"evaluate: [{missing[0]}]: data={config.data.name} has {', '.join(corpus.splits)}")
    check_prompt(config.callbacks.text_samples, corpus.vocabulary)
    check_monitor(config, corpus.splits)
    data, _ = fitted(config.data, corpus.splits["train"])
    windows = plan_windows(corpus.splits["train"], *data.window, data.offset, 0)
    check_validation_comes(config, config.trainer.windows_an_epoch(windows.count))


def jobs_per_machine(launcher: Launcher, jobs: int) -> int:
    """Return how many jobs share a machine: `trainer.threads=auto` divides its cores by that."""
    cores = available_cores()
    if launcher.name == "joblib":
        workers = int(launcher.settings.get("n_jobs") or 1)
        return max(1, min(jobs, workers if workers > 0 else cores + 1 + workers))
    if launcher.name == "submitit_local":
        return max(1, jobs)  # it starts all of them at once
    return cores if launcher.name == "ray" else 1  # ray gives each job one core


def _launch(plan: Plan, launcher: Launcher, record: SweepRecord, command: list[str], progress: Progress) -> int | None:
    """Have the launcher run the jobs; return the signal that stopped it, or None."""
    known = {f"{job.config.run_name}/{job.key}": (job.label, job.folder) for job in plan.to_do}
    share = jobs_per_machine(launcher, len(plan.to_do))
    runner = JobRunner(record.path, command, share, Path.cwd(), this_process(), known)

    def stop_jobs() -> None:
        progress.stopping = True
        record.update(status="stopping")
        with contextlib.suppress(OSError):  # the terminal may be closed
            complain("stopping: running jobs save first; press Ctrl-C again to stop at once")

    try:
        stopping = stop_on_signal(None if launcher.name == "basic" else stop_jobs)
        with stopping, progress.shown(), contextlib.ExitStack() as after:
            if launcher.name == "submitit_local":  # its processes inherit the mask; our progress thread hears Ctrl-C
                before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
                after.callback(signal.pthread_sigmask, signal.SIG_SETMASK, before)
            outcomes = launcher.launch([job.overrides for job in plan.to_do], runner)
        for job, outcome in zip(plan.to_do, outcomes, strict=False):
            if error := failure_of(outcome):  # the job could not even write a record: no disk, no permission
                complain(f"{job.label}: {type(error).__name__}: {error}")
    except Exception as error:
        if not RECEIVED:  # a worker was killed, a machine is gone
            complain(f"{launcher.name} failed: {type(error).__name__}: {first_line(error)}")
    except BaseException as error:
        if not RECEIVED and not isinstance(error, SystemExit):
            raise
        return RECEIVED[0] if RECEIVED else signal.SIGTERM  # some launchers turn the signal into a SystemExit
    return RECEIVED[0] if RECEIVED else None


class Progress:
    """The progress line and each failure, read from the jobs' records with any launcher."""

    def __init__(self, jobs: Sequence[Job], stop_at_failure: bool = False) -> None:
        self.jobs, self.began, self.last, self.stop_at_failure = jobs, time.time(), "", stop_at_failure
        self.ended: dict[Path, str] = {}
        self.before = {job.folder: _modified(job) for job in jobs}  # records of earlier attempts do not count
        self.stopping = False  # ask running jobs to stop

    def has_begun(self, job: Job) -> bool:
        """Whether the job's record has changed since the sweep began."""
        return _modified(job) != self.before.get(job.folder)

    def update(self) -> None:
        """Read the records that have changed, report each failure, and print a line if the counts have changed."""
        running = []
        for job in self.jobs:
            if job.folder not in self.ended and self.has_begun(job):
                record = record_of(job.folder)
                if record.get("status") in ENDED:
                    self.ended[job.folder] = record["status"]
                    if record["status"] == "failed":
                        say_line("\n".join(failure(job, record)))
                        self.stopping |= self.stop_at_failure
                elif record.get("status") == "running":
                    running.append(record.get("process") or {})
        for process in running if self.stopping else ():
            pid, here = process.get("pid"), process.get("host") == socket.gethostname()
            if here and isinstance(pid, int) and pid not in (0, -1, os.getpid()):
                with contextlib.suppress(OSError, OverflowError):
                    os.kill(pid, signal.SIGTERM)  # it saves and stops
        count = Counter(self.ended.values())
        line = f"sweep: {count['done']} of {len(self.jobs)} done"
        line += "".join(f", {count[status]} {status}" for status in ENDED[1:] if count[status])
        line += f", {len(running)} running" if running else ""
        if line == self.last:
            return
        self.last = line
        left = len(self.jobs) - len(self.ended)
        if self.ended and left:
            seconds = (time.time() - self.began) / len(self.ended) * left
            line += f", about {timedelta(seconds=round(seconds))} left"
        say_line(line)

    @contextlib.contextmanager
    def shown(self) -> Iterator[None]:
        """Update every two seconds, in a thread, while the jobs run."""
        over = threading.Event()

        def loop() -> None:
            while not over.wait(2.0):
                self.update()

        thread = threading.Thread(target=loop, daemon=True)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()


def _modified(job: Job) -> int | None:
    with contextlib.suppress(OSError):
        return (job.folder / "run.json").stat().st_mtime_ns
    return None


def best_result(record: Mapping[str, Any]) -> str:
    """Return the best value of the monitored metric, with bits per character for nats on `val`."""
    best = (record.get("metrics") or {}).get("best")
    if not isinstance(best, dict) or not isinstance(best.get("value"), int | float):
        return "-"
    bits = f" = {bits_per_character(best['value']):.4f} bits" if best.get("monitor") == "val/cross_entropy" else ""
    return f"{best.get('monitor')} {best['value']:.4f}{bits}"


def table(jobs: Sequence[Job], records: Sequence[Mapping[str, Any]], statuses: Sequence[str]) -> list[str]:
    """Return the lines: status, job, result, seconds and folder of each, failures last; then each failure's error."""
    from tabulate import tabulate  # type: ignore[import-untyped]

    rows, failures = [], []
    ordered = sorted(zip(jobs, records, statuses, strict=True), key=lambda row: TABLE_ORDER.index(row[2]))
    for job, record, status in ordered:
        if status == "not run":  # the record is that of an earlier attempt
            record = {}
        seconds = f"{record['seconds']:.1f}" if record.get("seconds") is not None else "-"
        rows.append((status, job.label, best_result(record), seconds, str(job.folder)))
        if status == "failed":
            failures += failure(job, record)
    return [*tabulate(rows, HEADER, "plain", disable_numparse=True).splitlines(), *failures]


def failure(job: Job, record: Mapping[str, Any]) -> list[str]:
    """Return two lines on a failed job: its error, and where its traceback is."""
    error = record.get("error") or {}
    message = first_line(error.get("message", "")).encode(errors="backslashreplace").decode()
    where = f"        its traceback: {job.folder / 'train.log'}"
    return [f"failed: {job.label}: {error.get('type', 'unknown')}: {message}", where]


def summary(statuses: Sequence[str]) -> str:
    """Return one line: `10 of 12 jobs done, 2 failed`."""
    count = Counter(statuses)
    parts = [f"{count['done']} of {counted(len(statuses), 'jobs')} done"]
    parts += [f"{count[status]} {status}" for status in reversed(TABLE_ORDER[1:]) if count[status]]
    return ", ".join(parts)
