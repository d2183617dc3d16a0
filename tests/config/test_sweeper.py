"""Jobs that keep no record of their own: each runs, and what went wrong is said at the end."""

from __future__ import annotations

from typing import Any

import pytest
from hydra.core.utils import JobReturn, JobStatus

from src.config.hydra_compat import Composed, Engine, mistake_in_launcher, mistakes_in_engine, run_each
from src.config.overrides import errors_in_overrides
from src.config.schema import Config
from src.errors import UserError


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
    assert run_each(jobs, engine(UserError("no such run"), None, ZeroDivisionError("by zero")), lambda cfg: None) == 1
    told = capsys.readouterr().err.splitlines()
    assert told == ["failed: a=0: no such run", "failed: a=2: ZeroDivisionError: by zero"]


def test_a_launcher_whose_parts_are_missing_is_told_with_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("src.config.hydra_compat.is_there", lambda module: False)
    assert mistake_in_launcher("basic") is None
    for name, extra in (("joblib", "joblib"), ("submitit_local", "slurm"), ("submitit_slurm", "slurm"), ("ray", "ray")):
        assert f"pip install -e '.[{extra}]'" in str(mistake_in_launcher(name))


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["hydra/launcher=joblib", "hydra.launcher.n_job=2"], "has no such word; did you mean hydra.launcher.n_jobs?"),
        (["hydra.launcher.n_jobs=2"], "is a word of hydra/launcher=joblib; give that too"),
        (["hydra.launcher.partition=long"], "is a word of hydra/launcher=submitit_slurm; give that too"),
    ],
)
def test_a_word_of_a_launcher_is_held_to_the_launcher(
    monkeypatch: pytest.MonkeyPatch, words: list[str], told: str
) -> None:
    monkeypatch.setattr("src.config.hydra_compat.is_there", lambda module: True)
    (message,) = errors_in_overrides(words, Config).values()
    assert message.endswith(told)
    good = ["hydra.launcher.partition=long", "+hydra.launcher.additional_parameters.x=2"]
    assert errors_in_overrides(["hydra/launcher=submitit_slurm", *good], Config) == {}


def test_an_engine_that_can_run_nothing_here_is_told_before_job_0(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.which", lambda program: None)
    (message,) = mistakes_in_engine("submitit_slurm", {})
    assert "hydra/launcher=submitit_local" in message
    (message,) = mistakes_in_engine("joblib", {"n_jobs": 0})
    assert message.startswith("hydra.launcher.n_jobs=0: expected")
    assert mistakes_in_engine("joblib", {"n_jobs": -1}) == []


def test_a_glob_of_options_has_no_mistake_in_it() -> None:
    assert errors_in_overrides(["model=glob(*)"], Config) == {}
