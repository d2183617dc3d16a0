"""What is told at the end of a sweep, and what is told on the way."""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path
from typing import Any

import pytest

from src.config.compose import compose, to_config
from src.config.hydra_compat import Launcher
from src.config.schema import Config
from src.process import available_cores, threads_for
from src.sweeps.plan import Job
from src.sweeps.sweep import Progress, errors_here, jobs_per_machine, summary, table


def job(folder: Path, label: str, action: str = "run") -> Job:
    return Job([label], label, Config(), "0123456789ab", folder / label, action)


def best(value: float) -> dict[str, Any]:
    return {"metrics": {"best": {"monitor": "val/cross_entropy", "value": value}}, "seconds": 1.25}


def test_failures_stand_last_and_are_named_with_their_first_line_and_their_log(tmp_path: Path) -> None:
    jobs = [job(tmp_path, label) for label in ("a", "b", "c")]
    failed = {"error": {"type": "ValueError", "message": "no such thing\nand more"}, "seconds": 0.0}
    lines = table(jobs, [failed, best(math.log(2)), best(1.0)], ["failed", "done", "not run"])
    assert [line.split()[0] for line in lines[:4]] == ["status", "done", "not", "failed"]
    assert "val/cross_entropy 0.6931 = 1.0000 bits" in lines[1]
    assert "val/cross_entropy" not in lines[2]  # nothing of an earlier attempt
    assert lines[4] == "failed: a: ValueError: no such thing"
    assert lines[5].endswith(str(tmp_path / "a" / "train.log"))
    assert summary(["failed", "done", "not run"]) == "1 of 3 jobs done, 1 failed, 1 not run"


def test_the_progress_line_counts_new_records_and_not_those_of_earlier_attempts(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    jobs = [job(tmp_path, label) for label in ("a", "b")]
    for one in jobs:
        one.folder.mkdir()
    (jobs[0].folder / "run.json").write_text('{"status": "failed"}')
    progress = Progress(jobs)
    progress.update()
    assert capsys.readouterr().out == "sweep: 0 of 2 done\n"
    (jobs[1].folder / "run.json").write_text('{"status": "done"}')
    progress.update()
    assert capsys.readouterr().out.startswith("sweep: 1 of 2 done, about ")


@pytest.mark.parametrize("stops", [True, False])
def test_a_failure_is_reported_when_it_is_seen_and_ends_the_sweep_if_that_was_asked_for(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], stops: bool
) -> None:
    failed, running = (job(tmp_path, label) for label in ("a", "b"))
    progress = Progress([failed, running], stop_at_failure=stops)
    error = {"status": "failed", "error": {"type": "ValueError", "message": "no"}}
    for one, record in ((failed, error), (running, {})):
        one.folder.mkdir()
        (one.folder / "run.json").write_text(json.dumps({"status": "running"} | record))
    for _ in range(2):  # once
        progress.update()
    first, second, third = capsys.readouterr().out.splitlines()
    assert first == "failed: a: ValueError: no"
    assert second.endswith("a/train.log")
    assert third.startswith("sweep: 0 of 2 done, 1 failed, 1 running")
    assert progress.stopping == stops


@pytest.mark.parametrize(
    ("name", "settings", "jobs", "share"),
    [
        ("basic", {}, 9, 1),
        ("joblib", {"n_jobs": 2}, 9, 2),
        ("joblib", {"n_jobs": 8}, 3, 3),
        ("joblib", {"n_jobs": -1}, 99, available_cores()),
        ("submitit_slurm", {}, 9, 1),
    ],
)
def test_the_cores_are_divided_among_the_jobs_that_run_at_once(
    name: str, settings: dict[str, Any], jobs: int, share: int
) -> None:
    assert jobs_per_machine(Launcher(name, settings, lambda overrides, task: []), jobs) == share


def test_what_this_machine_lacks_is_told_once_and_before_job_0(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("src.training.machine.available_accelerators", lambda: {"cpu": 2})
    here, gpu = to_config(compose([])), to_config(compose(["trainer.accelerator=gpu"]))
    (message,) = errors_here([here, gpu, dataclasses.replace(gpu, seed=1)])
    assert message.startswith("trainer.accelerator=gpu, but torch sees none on this machine")
    no_text = to_config(compose(["trainer.accelerator=gpu", "data=text", "data.path=no.txt"]))
    assert ["no.txt" in error for error in errors_here([no_text])] == [True, False]  # one job, both of its errors


def test_auto_threads_take_the_share_that_the_sweep_has_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("src.process.available_cores", lambda: 8)
    monkeypatch.setenv("UNROLL_SIDE_BY_SIDE", "4")
    assert threads_for("auto", 512) == 2
    assert threads_for("auto", 512, share=2) == 1  # two processes of one of four jobs
    assert threads_for("3", 512) == 3  # a number is a number
    monkeypatch.delenv("UNROLL_SIDE_BY_SIDE")
    assert threads_for("auto", 512) == 8
    assert threads_for("auto", 512, share=2) == 4
