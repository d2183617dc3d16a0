"""A sweep that can be started again: look what is there, run what is missing, tell how every job ended."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import sys
from pathlib import Path

from hydra.core.utils import JobStatus

from src.config.launchers import mistakes_in_engine
from src.config.sweeper import Composed, Engine
from src.mistakes import Mistake
from src.sweeps.job import JobRunner
from src.sweeps.plan import Plan, make_plan
from src.sweeps.preflight import mistakes_here, side_by_side
from src.sweeps.progress import Watch, watching
from src.sweeps.record import SweepRecord
from src.sweeps.signals import Caught, kept_from_children, taken
from src.sweeps.state import record_of
from src.sweeps.table import final_status, summary, table
from src.training.logs import say

HERE = ("basic",)  # engines that run the jobs in the sweep's own process, one after another: warm for tiny ones
ELSEWHERE = ("submitit_slurm", "ray")  # engines whose jobs may run on other machines, with other files


def run_sweep(jobs: list[Composed], engine: Engine, command: list[str]) -> int:
    """Run what is missing of a sweep, and return its exit code: 0 only if all its jobs are done.

    Args:
        jobs: every combination of the sweep's values, checked.
        engine: Hydra's launcher.
        command: the words that the user typed.

    Raises:
        Mistake: before job 0, what a job needs and this machine lacks: a text, a GPU, weights, the engine's scheduler.
    """
    plan = make_plan(jobs)
    if jobs[0].config["sweep"]["dry_run"]:
        say("\n".join(plan.lines()))
        return 0
    wrong = mistakes_in_engine(engine.name, engine.settings)
    if engine.name not in ELSEWHERE:
        wrong += mistakes_here([job.config for job in plan.to_do])
    if wrong:
        raise Mistake(*wrong)
    say(plan.in_words())
    command = ["python", "-m", "src.train", *command]
    record = SweepRecord(Path(jobs[0].config["runs"]) / "sweeps", command, plan)
    watch = Watch(plan.to_do, say, every=2.0 if sys.stdout.isatty() else 10.0)
    number = _launch(plan, engine, record, command, watch) if plan.to_do else None
    return _conclude(plan, record, watch, number)


def _launch(plan: Plan, engine: Engine, record: SweepRecord, command: list[str], watch: Watch) -> int | None:
    """Have the engine run the jobs; return the signal that stopped it, or None."""
    caught = Caught()
    here = (os.getpid(), socket.gethostname())
    labels = {str(job.folder): job.label for job in plan.to_do}
    runner = JobRunner(record.path, command, side_by_side(engine, len(plan.to_do)), Path.cwd(), here, caught, labels)

    def stop_elsewhere() -> None:
        watch.stopping = True
        record.write("stopping")
        print("stopping: running jobs save first; once more to wait for nothing", file=sys.stderr, flush=True)

    try:
        alone = kept_from_children() if engine.name == "submitit_local" else contextlib.nullcontext()
        with taken(caught, None if engine.name in HERE else stop_elsewhere), watching(watch), alone:
            outcomes = engine.launch([job.words for job in plan.to_do], runner)
        for job, outcome in zip(plan.to_do, outcomes, strict=False):
            if outcome.status == JobStatus.FAILED:  # not even a record could be left: no place, no permission
                error = outcome._return_value
                print(f"{job.label}: {type(error).__name__}: {error}", file=sys.stderr)
    except Exception as error:
        if caught.first is None:  # the engine cannot go on: a worker was killed, a machine is gone
            lines = [line.strip() for line in str(error).splitlines() if line.strip()]
            print(f"{engine.name} gave up: {type(error).__name__}: {lines[0] if lines else ''}", file=sys.stderr)
    except BaseException as error:
        if caught.first is None and not isinstance(error, SystemExit):
            raise
        return caught.first or signal.SIGTERM  # some engines turn the signal into a SystemExit
    return caught.first


def _conclude(plan: Plan, record: SweepRecord, watch: Watch, number: int | None) -> int:
    """Print the table, write the sweep's record, and return the exit code: 0, 1, or 128 + the signal."""
    records = [record_of(job.folder) for job in plan.jobs]
    statuses = [
        "not run" if job.to_do and not watch.has_begun(job) else final_status(job, entries)
        for job, entries in zip(plan.jobs, records, strict=True)
    ]
    all_done = all(status == "done" for status in statuses)
    record.finish("done" if all_done else "incomplete" if number is None else "stopped", statuses)
    say("\n".join(["", *table(plan.jobs, records, statuses), summary(statuses)]))
    if not all_done:
        say(f"the same command runs what is missing; this sweep's record: {record.path}")
    if number is not None:
        return 128 + number
    return 0 if all_done else 1
