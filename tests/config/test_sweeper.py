"""Jobs that keep no record of their own: each runs, and what went wrong is said at the end."""

from __future__ import annotations

from typing import Any

import pytest
from hydra.core.utils import JobReturn, JobStatus

from src.config.launchers import mistake_in_launcher
from src.config.sweeper import Composed, Engine, run_each
from src.mistakes import Mistake


def engine(*outcomes: Any) -> Engine:
    """An engine whose jobs end as told: with a value, or with an exception."""

    def launch(jobs: Any, task: Any) -> list[JobReturn]:
        ended = []
        for outcome in outcomes:
            job = JobReturn()
            job.status = JobStatus.FAILED if isinstance(outcome, Exception) else JobStatus.COMPLETED
            job.return_value = outcome
            ended.append(job)
        return ended

    return Engine("basic", {}, launch)


def test_jobs_that_all_end_well_make_exit_code_0(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_each([Composed(["a=1"], {}), Composed(["a=2"], {})], engine(None, 3), lambda cfg: None) == 0
    assert capsys.readouterr().err == ""


def test_jobs_that_raise_are_named_and_make_exit_code_1(capsys: pytest.CaptureFixture[str]) -> None:
    jobs = [Composed([f"a={i}"], {}) for i in range(3)]
    assert run_each(jobs, engine(Mistake("no such run"), None, ZeroDivisionError("by zero")), lambda cfg: None) == 1
    told = capsys.readouterr().err.splitlines()
    assert told == ["failed: a=0: no such run", "failed: a=2: ZeroDivisionError: by zero"]


def test_a_launcher_whose_parts_are_missing_is_told_with_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("src.config.launchers.is_there", lambda module: False)
    assert mistake_in_launcher("basic") is None
    for name, extra in (("joblib", "joblib"), ("submitit_local", "slurm"), ("submitit_slurm", "slurm"), ("ray", "ray")):
        assert f"pip install -e '.[{extra}]'" in str(mistake_in_launcher(name))
