"""What only the texts, the machine and other runs can say about a sweep, before its first job.

torch is imported only where a job asks for more than a CPU, or starts from weights.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from hydra.core.utils import JobStatus

from src.config.checks import check_validations, windows_an_epoch
from src.config.hydra_compat import Composed, Engine, mistakes_in_engine
from src.config.schema import Config, to_plain
from src.data.corpus import Corpus, open_corpus
from src.data.splits import plan
from src.errors import UserError
from src.process import heavy_imports
from src.sweeps.job import Caught, JobRunner, kept_from_children, taken
from src.sweeps.plan import Plan, SweepRecord, make_plan
from src.sweeps.state import record_of
from src.sweeps.table import Watch, final_status, summary, table, watching
from src.training.console import say
from src.training.machine import check_monitor, check_prompt, check_size

NOT_THE_TEXT = ("seq_len", "batch_size", "offset", "reset", "evaluation_streams")


def mistakes_in_texts(configs: Iterable[Config]) -> list[str]:
    """Return what is wrong with the texts of jobs: missing, too short for the windows, without the samples' prompt."""
    texts: dict[str, Corpus | None] = {}
    looked: set[str] = set()
    wrong: dict[str, None] = {}
    for config in configs:
        data = config.data
        groups = ("data", "model", "trainer", "checkpoint", "early_stopping", "scheduler")
        asked = [config.callbacks.text_samples, *(config[group] for group in groups)]
        if (whole := json.dumps([to_plain(one) for one in asked], sort_keys=True)) in looked:
            continue
        looked.add(whole)
        text = {key: value for key, value in to_plain(data).items() if key not in NOT_THE_TEXT}
        name = json.dumps(text, sort_keys=True)
        try:
            if name not in texts:
                texts[name] = None
                texts[name] = open_corpus(data)
            corpus = texts[name]
            if corpus is not None:
                if config.init_from is None:  # else the vocabulary is the older run's, with the text's behind it
                    check_prompt(config.callbacks.text_samples, corpus.vocabulary)
                check_monitor(config, corpus.splits)
                windows = plan(corpus.splits["train"], data.seq_len, data.batch_size, data.offset, 0)
                check_validations(config.trainer, windows_an_epoch(config.trainer, windows.count))
                check_size(config.model, len(corpus.vocabulary))
        except UserError as mistake:
            wrong |= dict.fromkeys(mistake.messages)
    return list(wrong)


def mistakes_in_machine(configs: Iterable[Config]) -> list[str]:
    """Return what jobs ask for that this machine lacks; each way of training once."""
    trainers = [config.trainer for config in configs if config.trainer.accelerator != "cpu"]
    if not trainers:
        return []  # a CPU is what every machine has
    with heavy_imports():
        from src.training.machine import check_machine
    return _told(check_machine, {json.dumps(trainer, sort_keys=True): trainer for trainer in trainers}.values())


def mistakes_in_weights(configs: Iterable[Config]) -> list[str]:
    """Return which weights jobs cannot start from: none there, or of other sizes; each model once."""
    starts = [config for config in configs if config.init_from is not None]
    if not starts:
        return []
    with heavy_imports():
        from src.training.run import source_of
    return _told(source_of, {json.dumps([one["init_from"], one["model"]]): one for one in starts}.values())


def _told(check: Callable[[Any], object], configs: Iterable[Any]) -> list[str]:
    """Return what a check says of any of the configurations, each text once."""
    wrong: dict[str, None] = {}
    for config in configs:
        try:
            check(config)
        except UserError as mistake:
            wrong |= dict.fromkeys(mistake.messages)
    return list(wrong)


def mistakes_here(configs: Sequence[Config]) -> list[str]:
    """Return everything above that is wrong with jobs that run here, where their texts lie."""
    return [*mistakes_in_texts(configs), *mistakes_in_machine(configs), *mistakes_in_weights(configs)]


def side_by_side(engine: Engine, jobs: int) -> int:
    """Return how many jobs share a machine: what `trainer.threads=auto` divides its cores by."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else (os.cpu_count() or 1)
    if engine.name == "joblib":
        wanted = int(engine.settings.get("n_jobs") or 1)
        return max(1, min(jobs, wanted if wanted > 0 else cores + 1 + wanted))
    if engine.name == "submitit_local":
        return max(1, jobs)  # it starts all of them at once
    if engine.name == "ray":
        return cores  # a job is given one core unless it asks for more
    return 1


# ---- A sweep that can be started again: look what is there, run what is missing, tell how every job ended.

HERE = ("basic",)  # engines that run the jobs in the sweep's own process, one after another: warm for tiny ones
ELSEWHERE = ("submitit_slurm", "ray")  # engines whose jobs may run on other machines, with other files


def run_sweep(jobs: list[Composed], engine: Engine, command: list[str]) -> int:
    """Run what is missing of a sweep, and return its exit code: 0 only if all its jobs are done.

    Args:
        jobs: every combination of the sweep's values, checked.
        engine: Hydra's launcher.
        command: the words that the user typed.

    Raises:
        UserError: before job 0, what a job needs and is missing: a text, a GPU, weights, the engine's scheduler.
    """
    plan = make_plan(jobs)
    if jobs[0].config.sweep.dry_run:
        say("\n".join(plan.lines()))
        return 0
    wrong = mistakes_in_engine(engine.name, engine.settings)
    if engine.name not in ELSEWHERE:
        wrong += mistakes_here([job.config for job in plan.to_do])
    if wrong:
        raise UserError(*wrong)
    say(plan.in_words())
    command = ["python", "-m", "src.train", *command]
    record = SweepRecord(Path(jobs[0].config.runs) / "sweeps", command, plan)
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
