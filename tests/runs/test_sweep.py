"""Sweeps as whole commands: killed, stopped, with jobs that raise; what was done is never done again."""

from __future__ import annotations

import importlib.util
import json
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from src.files import is_alive
from tests.runs.commands import refused_here, run, start

HAS_JOBLIB = importlib.util.find_spec("joblib") is not None and bool(
    importlib.util.find_spec("hydra_plugins") and importlib.util.find_spec("hydra_plugins.hydra_joblib_launcher")
)
HAS_SUBMITIT = importlib.util.find_spec("submitit") is not None
needs_joblib = pytest.mark.skipif(not HAS_JOBLIB, reason="the extra joblib is not installed")
ENGINES = ["basic", pytest.param("joblib", marks=[needs_joblib, pytest.mark.soak])]
QUIET = ("callbacks=none", "logger=none")
TROUBLE = (*QUIET, "model._target_=tests.runs.troublesome.Troublesome")

pytestmark = pytest.mark.slow


def records(folder: Path) -> dict[Path, dict[str, Any]]:
    """Every job's run.json, by folder; earlier attempts lie in folders that begin with a dot."""
    paths = [path for path in folder.glob("runs/sweeps/*/*/run.json") if not path.parent.parent.name.startswith(".")]
    return {path.parent: json.loads(path.read_text()) for path in paths}


def statuses(folder: Path) -> list[str]:
    return sorted(record["status"] for record in records(folder).values())


def sweep_record(folder: Path) -> dict[str, Any]:
    """The newest sweep's own record."""
    paths = sorted(folder.glob("runs/sweeps/*.json"), key=lambda path: path.stat().st_mtime_ns)
    return json.loads(paths[-1].read_text())  # type: ignore[no-any-return]


def wait_for(folder: Path, done: int, process: Any, lines: int = 2) -> Path:
    """Wait until `done` jobs are done and another has written some lines of its curve; return that one's folder."""
    deadline = time.monotonic() + 180
    while time.monotonic() < deadline:
        assert process.poll() is None, process.communicate()
        now = records(folder)
        running = [path for path, record in now.items() if record["status"] == "running"]
        if len(now) - len(running) >= done and running:
            curve = running[0] / "metrics.jsonl"
            if curve.exists() and curve.read_text().count("\n") >= lines:
                return running[0]
        time.sleep(0.02)
    raise AssertionError("the sweep did not get there in three minutes")


def test_two_jobs_of_eight_raise_the_others_finish_and_when_mended_only_those_two_run_again(tmp_path: Path) -> None:
    numbers = "+model.options.number=range(0,8)"
    words = ("-m", *TROUBLE, "trainer.max_epochs=2", numbers, "+model.options.raises=mended")
    out = run(*words, cwd=tmp_path, code=1)
    assert statuses(tmp_path) == ["done"] * 6 + ["failed"] * 2
    assert "6 of 8 jobs done, 2 failed" in out
    table = out[out.index("status  ") :].splitlines()
    assert [line.split()[0] for line in table[1:9]] == ["done"] * 6 + ["failed"] * 2
    for number in (3, 7):
        assert f"failed: +model.options.number={number}: RuntimeError: cell {number} is broken" in out
    done = []
    for path, record in records(tmp_path).items():
        if record["status"] == "failed":
            number = next(word for word in record["overrides"] if "number" in word).rpartition("=")[2]
            assert record["error"] == {"type": "RuntimeError", "message": f"cell {number} is broken\nin two lines"}
            log = (path / "train.log").read_text()
            assert log.count("Traceback") == 1
            assert f"cell {number} is broken" in log
        else:
            done.append(path / "run.json")
    before = [(path.read_bytes(), path.stat().st_mtime_ns) for path in done]
    (tmp_path / "mended").touch()
    out = run(*words, cwd=tmp_path)
    assert out.startswith("8 jobs: 6 done, 2 to do (2 to retry), 0 duplicates")
    assert statuses(tmp_path) == ["done"] * 8
    assert [(path.read_bytes(), path.stat().st_mtime_ns) for path in done] == before
    earlier = list(tmp_path.glob("runs/sweeps/*/.earlier/*/*/run.json"))
    assert [json.loads(path.read_text())["status"] for path in earlier] == ["failed"] * 2  # nothing of them is lost


@pytest.mark.parametrize("engine", ENGINES)
def test_a_sweep_stops_at_the_first_failure_if_asked_and_the_same_command_goes_on(tmp_path: Path, engine: str) -> None:
    words = ("-m", *TROUBLE, "trainer.max_epochs=12", "+model.options.number=3,4,5", "+model.options.raises=mended")
    words += (f"hydra/launcher={engine}", "sweep.on_failure=stop")
    words += ("hydra.launcher.n_jobs=2", "+model.options.seconds=0.3") if engine == "joblib" else ()
    out = run(*words, cwd=tmp_path, code=1)
    assert "stopped at the first failure (sweep.on_failure=stop)" in out
    assert sweep_record(tmp_path)["status"] == "incomplete"
    assert statuses(tmp_path) == ["failed", *["stopped"] * (engine == "joblib")]  # what ran beside it has saved
    assert "number-3" in next(path for path, record in records(tmp_path).items() if record["status"] == "failed").name
    if engine == "basic":
        (tmp_path / "mended").touch()
        run(*words, cwd=tmp_path)
        assert statuses(tmp_path) == ["done"] * 3


@pytest.mark.parametrize("engine", ENGINES)
def test_a_job_that_leaves_python_takes_no_other_along_and_its_failure_is_kept(tmp_path: Path, engine: str) -> None:
    leaves = "+model.options.leaves=exit0,exit3,keyboard,generator,surrogate,not_at_all"
    words = ("-m", *TROUBLE, "trainer.max_epochs=5", f"hydra/launcher={engine}")
    words += ("hydra.launcher.n_jobs=2",) if engine == "joblib" else ()
    out = run(*words, leaves, cwd=tmp_path, code=1)
    assert "1 of 6 jobs done, 5 failed" in out
    for folder, record in records(tmp_path).items():
        how = record["overrides"][-1].rpartition("=")[2]
        assert record["status"] == ("done" if how == "not_at_all" else "failed")
        assert ("Traceback" in (folder / "train.log").read_text()) == (how != "not_at_all")
    assert "half a pair: \\ud800" in out
    assert sweep_record(tmp_path)["status"] == "incomplete"


def test_a_sweep_that_is_killed_goes_on_where_it_was_and_leaves_alone_what_was_done(tmp_path: Path) -> None:
    words = ("-m", *TROUBLE, "trainer.max_epochs=8", "+model.options.seconds=0.1", "seed=0,1,2")
    process = start(*words, cwd=tmp_path)
    interrupted = wait_for(tmp_path, 1, process, lines=3)
    process.kill()
    process.communicate(timeout=30)
    assert statuses(tmp_path) == ["done", "running"]  # a killed process has no last word
    (done,) = (path for path, record in records(tmp_path).items() if record["status"] == "done")
    before = (done / "run.json").read_bytes()
    plan = run(*words, "sweep.dry_run=true", cwd=tmp_path).splitlines()
    assert plan[0] == "3 jobs: 1 done, 2 to do (1 to run, 1 to resume), 0 duplicates"
    assert sorted(line.split()[0] for line in plan[1:]) == ["done", "resume", "run"]
    run(*words, cwd=tmp_path)
    assert statuses(tmp_path) == ["done"] * 3
    assert (done / "run.json").read_bytes() == before
    for path in records(tmp_path):
        epochs = [json.loads(line)["epoch"] for line in (path / "metrics.jsonl").read_text().splitlines()]
        assert epochs == list(range(8)), path  # each once: the interrupted one went on, it did not begin again
    alone = tmp_path / "alone"
    alone.mkdir()
    seed = records(tmp_path)[interrupted]["seed"]
    run(*(word for word in words if not word.startswith(("-m", "seed"))), f"seed={seed}", cwd=alone)
    (straight,) = alone.glob("runs/*/*/metrics.jsonl")
    assert curve(interrupted / "metrics.jsonl") == curve(straight)


def curve(path: Path) -> list[dict[str, float]]:
    """The lines of a curve without the seconds."""
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    return [{key: value for key, value in line.items() if key != "seconds"} for line in lines]


@pytest.mark.parametrize(
    ("signum", "code"), [(signal.SIGINT, 130), pytest.param(signal.SIGTERM, 143, marks=pytest.mark.soak)]
)
def test_a_signal_stops_a_sweep_and_its_record_says_what_was_not_run(tmp_path: Path, signum: int, code: int) -> None:
    process = start("-m", *TROUBLE, "trainer.max_epochs=20", "+model.options.seconds=0.1", "seed=0,1,2", cwd=tmp_path)
    wait_for(tmp_path, 0, process)
    process.send_signal(signum)
    out, err = process.communicate(timeout=180)
    assert process.returncode == code, err
    assert "Traceback" not in err
    assert "0 of 3 jobs done, 2 not run, 1 stopped" in out
    record = sweep_record(tmp_path)
    assert record["status"] == "stopped"
    assert record["not_run"] == ["seed=1", "seed=2"]
    assert [job["status"] for job in record["jobs"]] == ["stopped", "not run", "not run"]


@needs_joblib
def test_a_killed_worker_ends_the_batch_with_the_whole_table_and_the_same_command_runs_what_is_missing(
    tmp_path: Path,
) -> None:
    words = ("-m", *TROUBLE, "trainer.max_epochs=6", "+model.options.number=0,1,2,4", "+model.options.kills=mended")
    out = run("hydra/launcher=joblib", "hydra.launcher.n_jobs=2", *words, cwd=tmp_path, code=1)
    table = out[out.index("status  ") :]
    assert all(f"+model.options.number={number} " in table for number in (0, 1, 2, 4))
    assert "the same command runs what is missing" in out
    (tmp_path / "mended").touch()
    run(*words, cwd=tmp_path)
    assert statuses(tmp_path) == ["done"] * 4


@needs_joblib
@pytest.mark.soak
@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGKILL])
def test_workers_in_other_processes_save_and_end_with_the_sweep(tmp_path: Path, sent: signal.Signals) -> None:
    words = ("-m", "hydra/launcher=joblib", "hydra.launcher.n_jobs=2", *TROUBLE, "+model.options.seconds=0.1")
    process = start(*words, "trainer.max_epochs=300", "seed=0,1,2,3", cwd=tmp_path)
    wait_for(tmp_path, 0, process)
    process.send_signal(sent)
    out, err = process.communicate(timeout=180)  # the pipes close when the last worker has ended
    workers = [record for record in records(tmp_path).values() if record["steps"]]
    assert {record["status"] for record in workers} == {"stopped"}  # they saved: none was killed while it ran
    assert not any(is_alive(record["process"]["pid"]) for record in workers)
    if sent == signal.SIGINT:
        assert (process.returncode, set(statuses(tmp_path))) == (130, {"stopped"}), err
        assert len(sweep_record(tmp_path)["not_run"]) == 4 - len(records(tmp_path))
        assert "not run" in out


@pytest.mark.soak
@pytest.mark.skipif(not HAS_SUBMITIT, reason="the extra slurm is not installed")
def test_submitit_on_this_machine_runs_the_same_sweep_to_the_same_numbers(tmp_path: Path) -> None:
    words = ("-m", *QUIET, "model=cell,stacked", "trainer.max_epochs=3")
    run(*words, "hydra/launcher=submitit_local", cwd=tmp_path)
    there = {path.name: curve(path / "metrics.jsonl") for path in records(tmp_path)}
    here = tmp_path / "here"
    here.mkdir()
    run(*words, cwd=here)
    assert there == {path.name: curve(path / "metrics.jsonl") for path in records(here)}
    assert len(there) == 2


def test_a_disk_without_links_locks_and_fsync_is_good_enough(tmp_path: Path) -> None:
    words = ("-m", *QUIET, "seed=0,1", "trainer.max_epochs=1")
    for expected in ("2 to do (2 to run)", "2 done, 0 to do"):
        assert expected in run("src.train", *words, cwd=tmp_path, module="tests.runs.poor_disk")


def test_a_dry_run_and_what_is_refused_before_the_first_job_make_nothing(tmp_path: Path) -> None:
    lines = run("-m", "seed=0,1,1", "model=cell,manual", "sweep.dry_run=true", cwd=tmp_path).splitlines()
    assert lines[0] == "6 jobs: 0 done, 4 to do (4 to run), 2 duplicates"
    assert [line.split()[0] for line in lines[1:]] == ["run"] * 4 + ["twice"] * 2
    assert run("-m", "model=glob(*)", "sweep.dry_run=true", cwd=tmp_path).startswith("5 jobs: 0 done, 5 to do")
    (line,) = refused_here("seed=0,1", cwd=tmp_path)
    assert line.startswith("seed=0,1: several values make a sweep: add -m")
    (tmp_path / "text.txt").write_text("to be or not to be " * 20)
    (line,) = refused_here("-m", "data=text", "data.path=text.txt", "data.batch_size=2,1000", cwd=tmp_path)
    assert "batch_size=1000" in line
    assert [path.name for path in tmp_path.iterdir()] == ["text.txt"]
