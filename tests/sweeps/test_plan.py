"""What a keyed folder holds decides what a sweep does with its job."""

from __future__ import annotations

import fcntl
import json
import os
import socket
import subprocess
import sys
import time
import types
from pathlib import Path
from typing import Any

import pytest
import yaml

from src.config.hydra_compat import Composed
from src.config.run_key import run_key, sweep_folder
from src.sweeps.job import comes_from_an_engine, hand_back, leave_record
from src.sweeps.plan import make_plan
from src.sweeps.state import SILENT, claimed, move_aside, state_of
from src.training.run_record import boot_id


def config(folder: Path, **more: Any) -> dict[str, Any]:
    whole: dict[str, Any] = {
        "name": None,
        "experiment": None,
        "seed": 0,
        "runs": str(folder),
        "data": {"name": "hello", "root": None},
        "model": {"name": "cell"},
        "trainer": {"max_epochs": 3},
        "sweep": {"dry_run": False},
    }
    return whole | more


def leave(folder: Path, status: str, stored: dict[str, Any], **process: Any) -> Path:
    """A run folder as a run leaves it."""
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text(yaml.safe_dump(stored))
    here = {"pid": os.getpid(), "boot": boot_id(), "host": socket.gethostname()}
    (folder / "run.json").write_text(json.dumps({"status": status, "process": here | process}))
    return folder


def dead_pid() -> int:
    """The number of a process that was there and is no more."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


@pytest.mark.parametrize(
    ("status", "action"), [("done", "skip"), ("failed", "retry"), ("stopped", "resume"), ("running", "wait")]
)
def test_the_status_of_a_run_with_the_same_configuration_decides(tmp_path: Path, status: str, action: str) -> None:
    mine = config(tmp_path)
    leave(sweep_folder(mine), status, mine)
    (job,) = make_plan([Composed([], mine)]).jobs
    assert job.action == action


def test_where_nothing_lies_the_job_runs(tmp_path: Path) -> None:
    (job,) = make_plan([Composed(["seed=0"], config(tmp_path))]).jobs
    assert (job.action, job.folder.exists()) == ("run", False)


def test_a_run_is_taken_for_done_only_with_the_configuration_of_the_job(tmp_path: Path) -> None:
    mine = config(tmp_path)
    leave(sweep_folder(mine), "done", mine | {"trainer": {"max_epochs": 2}})  # somebody has edited it
    assert state_of(sweep_folder(mine), mine).status == "other"


def test_what_cannot_change_the_result_is_not_compared(tmp_path: Path) -> None:
    mine = config(tmp_path)
    folder = leave(sweep_folder(mine), "done", mine)
    moved = config(tmp_path, data={"name": "hello", "root": "elsewhere"}, sweep={"dry_run": True})
    assert run_key(moved) == run_key(mine)
    assert state_of(folder, moved).status == "done"


def test_a_run_made_before_a_word_was_there_is_the_run_of_a_job_that_leaves_the_word_out(tmp_path: Path) -> None:
    before = config(tmp_path)
    now = config(tmp_path, model={"name": "cell", "interlayer_scale": None})
    folder = leave(sweep_folder(before), "done", before)
    assert sweep_folder(now) == folder
    assert state_of(folder, now).status == "done"
    louder = config(tmp_path, model={"name": "cell", "interlayer_scale": 1.7})
    assert sweep_folder(louder) != folder
    assert state_of(folder, louder).status == "other"


def test_a_drawn_seed_is_still_the_run_of_a_job_that_left_it_open(tmp_path: Path) -> None:
    mine = config(tmp_path, seed=None)
    assert state_of(leave(sweep_folder(mine), "done", mine | {"seed": 12345}), mine).status == "done"


@pytest.mark.parametrize("gone", [{"pid": dead_pid()}, {"boot": "another start of this machine"}])
def test_a_run_whose_process_is_gone_was_interrupted(tmp_path: Path, gone: dict[str, Any]) -> None:
    mine = config(tmp_path)
    leave(sweep_folder(mine), "running", mine, **gone)
    (job,) = make_plan([Composed([], mine)]).jobs
    assert job.action == "resume"


def test_a_process_number_that_was_given_to_another_does_not_keep_a_run_alive(tmp_path: Path) -> None:
    mine = config(tmp_path)
    folder = leave(sweep_folder(mine), "running", mine)  # this test's own number, and it trains nothing
    with (folder / ".lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        assert state_of(folder, mine).status == "running"
    assert state_of(folder, mine).status == "interrupted"


def test_under_another_name_of_this_machine_the_lock_decides_whatever_the_process_number(tmp_path: Path) -> None:
    mine = config(tmp_path)
    folder = leave(sweep_folder(mine), "running", mine, host="a container that is no more", pid=1)
    with (folder / ".lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        assert state_of(folder, mine).status == "running"
    assert state_of(folder, mine).status == "interrupted"


def test_a_run_of_another_machine_is_believed_until_it_has_been_silent_for_a_quarter_of_an_hour(tmp_path: Path) -> None:
    mine = config(tmp_path)
    folder = leave(sweep_folder(mine), "running", mine, host="another machine", boot="its own", pid=1)
    (folder / ".lock").touch()
    assert state_of(folder, mine).status == "running"
    long_ago = time.time() - SILENT - 1
    for path in folder.iterdir():
        os.utime(path, (long_ago, long_ago))
    assert state_of(folder, mine).status == "interrupted"


@pytest.mark.parametrize("torn", ["", "{", "[]", '{"status": "new"}'])
def test_a_folder_whose_record_is_torn_is_not_taken_for_a_run(tmp_path: Path, torn: str) -> None:
    mine = config(tmp_path)
    folder = leave(sweep_folder(mine), "done", mine)
    (folder / "run.json").write_text(torn)
    assert state_of(folder, mine).status == "other"


def test_the_same_configuration_twice_is_one_job_and_one_duplicate(tmp_path: Path) -> None:
    words = (["seed=0", "a=b"], ["seed=1", "a=b"], ["seed=0", "a=b"])
    plan = make_plan([Composed(w, config(tmp_path, seed=int(w[0][-1]))) for w in words])
    assert [job.label for job in plan.jobs] == ["seed=0", "seed=1"]  # the word that all share tells nothing
    assert plan.duplicates == ["seed=0"]
    assert plan.in_words() == "3 jobs: 0 done, 2 to do (2 to run), 1 duplicate"


def test_moving_aside_keeps_everything_and_frees_the_folder(tmp_path: Path) -> None:
    folder = tmp_path / "hello" / "0123456789ab"
    for content in ("first", "second"):
        (folder / "checkpoints").mkdir(parents=True)
        (folder / "checkpoints" / "last.ckpt").write_text(content)
        move_aside(folder)
        assert not folder.exists()
    kept = [path.read_text() for path in (tmp_path / "hello" / ".earlier" / folder.name).rglob("last.ckpt")]
    assert sorted(kept) == ["first", "second"]


def test_a_job_is_held_by_one_process_at_a_time(tmp_path: Path) -> None:
    folder = tmp_path / "hello" / "0123456789ab"
    with claimed(folder) as mine:
        with claimed(folder) as another:
            assert (mine, another) == (True, False)
        with claimed(folder.with_name("ba9876543210")) as other_job:
            assert other_job
    with claimed(folder) as again:
        assert again


def test_a_run_that_its_engine_put_back_into_the_queue_goes_on_and_does_not_count_as_failed(tmp_path: Path) -> None:
    mine = config(tmp_path)
    folder = leave(sweep_folder(mine), "failed", mine)
    hand_back(folder)
    assert state_of(folder, mine).status == "stopped"


def test_what_an_engine_raises_in_the_middle_of_a_job_is_told_from_a_job_that_ends_itself() -> None:
    handler = types.FunctionType((lambda: sys.exit(-1)).__code__, {"__name__": "submitit.core.job", "sys": sys})
    for leaves, found in ((handler, True), (sys.exit, False)):
        with pytest.raises(SystemExit) as caught:
            leaves()
        assert comes_from_an_engine(caught.value) is found


def test_a_job_that_raised_before_it_had_a_folder_has_its_record_and_its_traceback(tmp_path: Path) -> None:
    mine = config(tmp_path)
    folder = sweep_folder(mine)
    try:
        raise ValueError("no such layer")
    except ValueError as error:
        leave_record(folder, mine, {"command": "python -m src.train", "overrides": [], "key": "k"}, error)
    record = json.loads((folder / "run.json").read_text())
    assert (record["status"], record["error"]) == ("failed", {"type": "ValueError", "message": "no such layer"})
    assert (folder / "train.log").read_text().endswith("ValueError: no such layer\n")
    assert state_of(folder, mine).status == "failed"  # its configuration is stored too
