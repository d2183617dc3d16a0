"""What a keyed folder holds decides what a sweep does with its job."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import yaml

from src.config.hydra_compat import ComposedJob
from src.config.run_key import readable, run_key, sweep_folder
from src.config.schema import Config, from_plain, set_value, to_plain
from src.files import lock, this_process
from src.sweeps.job import mark_stopped, record_failure
from src.sweeps.plan import SILENT, archive, claim, make_plan, status_of


def config(folder: Path, **changes: Any) -> Config:
    """A configuration whose runs lie in `folder`; changes as `data__root=...`."""
    stored = {"runs": str(folder), "data": {"name": "hello"}, "model": {"name": "cell"}, "optimizer": {"name": "adam"}}
    whole = from_plain(stored)
    for key, value in changes.items():
        set_value(whole, key.replace("__", "."), value)
    return whole


def leave(folder: Path, status: str, stored: Config, overrides: list[str] | None = None, **process: Any) -> Path:
    """A run folder as a run leaves it."""
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text(yaml.safe_dump(to_plain(stored)))
    (folder / "run.json").write_text(
        json.dumps({"status": status, "process": this_process() | process, "overrides": overrides or []})
    )
    return folder


def dead_pid() -> int:
    """The number of a process that was there and is no more."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


@pytest.mark.parametrize(
    ("status", "process", "action"),
    [("done", {}, "skip"), ("failed", {}, "retry"), ("stopped", {}, "resume"), ("running", {}, "wait")]
    # Its process is gone: it was interrupted
    + [("running", {"pid": pid}, "resume") for pid in (dead_pid(), 10**20, "text")]
    + [("running", {"boot": "another start of this machine"}, "resume")],
)
def test_the_status_and_the_process_of_a_run_with_the_same_configuration_decide(
    tmp_path: Path, status: str, process: dict[str, Any], action: str
) -> None:
    mine = config(tmp_path)
    leave(sweep_folder(mine), status, mine, **process)
    (job,) = make_plan([ComposedJob([], mine)]).jobs
    assert job.action == action


def test_runs_of_words_that_meant_another_configuration_are_reported_once(tmp_path: Path) -> None:
    before, now = config(tmp_path, optimizer__lr=0.1), config(tmp_path)
    plan = make_plan([ComposedJob(["optimizer=adam"], now)])
    assert plan.earlier_meaning() is None
    folder = leave(sweep_folder(before), "done", before, overrides=["optimizer=adam"])
    assert "another configuration" in str(plan.earlier_meaning())
    assert str(folder) in str(plan.earlier_meaning())
    leave(sweep_folder(now), "done", now, overrides=["optimizer=adam"])
    assert make_plan([ComposedJob(["optimizer=adam"], now)]).earlier_meaning() is None


def test_a_run_is_taken_for_done_only_with_the_configuration_of_the_job(tmp_path: Path) -> None:
    mine, drawn = config(tmp_path), config(tmp_path, seed=None)
    leave(sweep_folder(mine), "done", config(tmp_path, trainer__max_epochs=2))  # somebody has edited it
    assert status_of(sweep_folder(mine), mine) == "other"
    assert status_of(leave(sweep_folder(drawn), "done", config(tmp_path, seed=12345)), drawn) == "done"
    fitted, chosen = (config(tmp_path, data__name="text", data__seq_len=length) for length in (None, 7))
    assert run_key(fitted) == run_key(config(tmp_path, data__name="text", data__seq_len=32))
    assert status_of(leave(sweep_folder(fitted), "done", chosen), fitted) == "done"  # the run chose what fits its text
    accented = config(tmp_path, data__path="/caf\udce9.txt")  # a name that is not UTF-8
    assert status_of(leave(sweep_folder(accented), "done", accented), accented) == "done"


def test_what_cannot_change_the_result_is_not_compared(tmp_path: Path) -> None:
    mine = config(tmp_path)
    folder = leave(sweep_folder(mine), "done", mine)
    moved = config(tmp_path, data__root="elsewhere", sweep__dry_run=True)
    assert run_key(moved) == run_key(mine)
    assert status_of(folder, moved) == "done"


def test_a_run_made_before_a_key_was_there_is_the_run_of_a_job_that_leaves_the_key_out(tmp_path: Path) -> None:
    mine = config(tmp_path)
    folder = leave(sweep_folder(mine), "done", mine)
    stored = to_plain(mine)
    del stored["model"]["interlayer_scale"]
    (folder / "config.yaml").write_text(yaml.safe_dump(stored))
    assert status_of(folder, mine) == "done"
    louder = config(tmp_path, model__interlayer_scale=1.7)
    assert sweep_folder(louder) != folder
    assert status_of(folder, louder) == "other"


@pytest.mark.parametrize("process", [{}, {"host": "a container that is no more", "pid": 1}])
def test_on_this_machine_the_lock_decides_whatever_the_process_number(tmp_path: Path, process: dict[str, Any]) -> None:
    mine = config(tmp_path)
    folder = leave(sweep_folder(mine), "running", mine, **process)  # {}: this test's own, and it trains nothing
    with lock(folder / ".lock"):
        assert status_of(folder, mine) == "running"
    assert status_of(folder, mine) == "interrupted"


def test_a_run_of_another_machine_is_believed_until_it_has_been_silent_for_a_quarter_of_an_hour(tmp_path: Path) -> None:
    mine = config(tmp_path)
    folder = leave(sweep_folder(mine), "running", mine, host="another machine", boot="its own", pid=1)
    (folder / ".lock").touch()
    assert status_of(folder, mine) == "running"
    long_ago = time.time() - SILENT - 1
    for path in folder.iterdir():
        os.utime(path, (long_ago, long_ago))
    assert status_of(folder, mine) == "interrupted"


@pytest.mark.parametrize("torn", ["", "{", "[]", "[" * 100_000])
def test_a_folder_whose_record_is_torn_is_not_taken_for_a_run(tmp_path: Path, torn: str) -> None:
    mine = config(tmp_path)
    folder = leave(sweep_folder(mine), "done", mine)
    (folder / "run.json").write_text(torn)
    assert status_of(folder, mine) == "other"


def test_a_new_folder_says_what_differs_and_a_job_is_found_by_its_key_under_any_name(tmp_path: Path) -> None:
    words = [["model=manual", "model.init=identity", f"trainer.gradient_clip_val={clip}", "a=b"] for clip in (0.5, 2)]
    composed = [ComposedJob(w, config(tmp_path, trainer__gradient_clip_val=float(w[2][-1]))) for w in words]
    first, second = make_plan(composed).jobs
    assert first.folder.name == f"clip-0.5-{first.key}"
    whole = ["model=manual", "+model.options.text='a b=c/d e'", "optimizer.betas=[0.9,0.99]", "scheduler=none"]
    assert readable(whole) == "manual_text-d-e_betas-0.9-0.99_scheduler-none"
    assert readable([f"data.path={'x' * 300}"]) == f"path-{'x' * 115}"
    leave(first.folder, "done", first.config)
    leave(second.folder.with_name(second.key), "done", second.config)  # as all folders were called before
    (tmp_path / "sweeps" / "hello_cell" / f"of-no-job{first.key}").mkdir()
    plan = make_plan(composed[::-1])
    assert [(job.folder.name, job.action) for job in plan.jobs] == [(second.key, "skip"), (first.folder.name, "skip")]


def test_the_same_configuration_twice_is_one_job_and_one_duplicate(tmp_path: Path) -> None:
    words = (["seed=0", "a=b"], ["seed=1", "a=b"], ["seed=0", "a=b"])
    plan = make_plan([ComposedJob(w, config(tmp_path, seed=int(w[0][-1]))) for w in words])
    assert not (tmp_path / "sweeps").exists()
    assert [job.label for job in plan.jobs] == ["seed=0", "seed=1"]  # the word that all share tells nothing
    assert plan.duplicates == ["seed=0"]
    assert plan.summary() == "3 jobs: 0 done, 2 to do (2 to run), 1 duplicate"


def test_moving_aside_keeps_everything_and_frees_the_folder(tmp_path: Path) -> None:
    folder = tmp_path / "hello" / "0123456789ab"
    for content in ("first", "second"):
        (folder / "checkpoints").mkdir(parents=True)
        (folder / "checkpoints" / "last.ckpt").write_text(content)
        archive(folder)
        assert not folder.exists()
    kept = [path.read_text() for path in (tmp_path / "hello" / ".earlier" / folder.name).rglob("last.ckpt")]
    assert sorted(kept) == ["first", "second"]


def test_a_job_is_held_by_one_process_at_a_time(tmp_path: Path) -> None:
    parent, key = tmp_path / "hello", "0123456789ab"
    with claim(parent, key) as mine:
        with claim(parent, key) as another:
            assert (mine, another) == (True, False)
        with claim(parent, "ba9876543210") as other_job:
            assert other_job
    with claim(parent, key) as again:
        assert again


def test_a_run_that_its_engine_put_back_into_the_queue_goes_on_and_does_not_count_as_failed(tmp_path: Path) -> None:
    mine = config(tmp_path)
    folder = leave(sweep_folder(mine), "failed", mine)
    mark_stopped(folder)
    assert status_of(folder, mine) == "stopped"


def test_a_job_that_raised_before_it_had_a_folder_has_its_record_and_its_traceback(tmp_path: Path) -> None:
    mine = config(tmp_path)
    folder = sweep_folder(mine)
    try:
        raise ValueError("no such layer")
    except ValueError as error:
        record_failure(folder, mine, {"command": "python -m src.train", "overrides": [], "key": "k"}, error)
    record = json.loads((folder / "run.json").read_text())
    assert (record["status"], record["error"]) == ("failed", {"type": "ValueError", "message": "no such layer"})
    assert (folder / "train.log").read_text().endswith("ValueError: no such layer\n")
    assert status_of(folder, mine) == "failed"  # its configuration is stored too
