"""Files: a lock says who holds it, a file system without locks is not taken for one that refuses, JSON is JSON."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import time
from math import inf, nan
from pathlib import Path

import pytest

from src import files
from src.process import in_json
from src.training.run_record import Record


def refuse(monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    def flock(descriptor: int, operation: int) -> None:
        raise OSError(code, "refused")

    monkeypatch.setattr("fcntl.flock", flock)


def test_one_lock_is_held_once_and_is_free_again_afterwards(tmp_path):
    for _ in range(2):
        with files.lock(tmp_path / ".lock") as first, files.lock(tmp_path / ".lock") as second:
            assert (first, second) == (True, False)


@pytest.mark.parametrize("code", [errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP])
def test_a_file_system_without_locks_is_reported_once_and_nothing_looks_held(tmp_path, monkeypatch, caplog, code):
    refuse(monkeypatch, code)
    monkeypatch.setattr(files, "WITHOUT_LOCKS", set())
    for _ in range(2):  # as after a killed process: what the first left must not lock the second out
        with files.lock(tmp_path / ".lock") as first, files.lock(tmp_path / ".lock") as second:
            assert (first, second) == (True, True)
    assert [record.message.partition(":")[0] for record in caplog.records] == [str(tmp_path)]


def test_a_lock_that_fails_for_another_reason_is_an_error(tmp_path, monkeypatch):
    refuse(monkeypatch, errno.EIO)
    with pytest.raises(OSError, match="refused"), files.lock(tmp_path / ".lock"):
        pass


def test_what_a_command_prints_and_what_it_writes_has_null_for_a_number_that_json_lacks(tmp_path):
    files.write_json(tmp_path / "a.json", {"perplexity": inf, "bits": [nan, 1.5]})
    assert files.read_json(tmp_path / "a.json") == {"perplexity": None, "bits": [None, 1.5]}
    assert in_json({"perplexity": inf, "text": "中"}) == '{"perplexity": null, "text": "中"}\n'


def test_a_result_is_written_through_a_link_and_over_no_record_of_a_run(tmp_path):
    (tmp_path / "link").symlink_to("run.json")
    files.write_result(str(tmp_path / "link"), "new")
    assert (tmp_path / "run.json").read_text() == "new"
    with pytest.raises(OSError, match="it belongs to a run"):
        files.write_result(str(tmp_path / "run.json"), "")


def test_a_full_disk_is_told_with_numbers_and_leaves_the_old_file_and_the_record_says_failed(tmp_path, monkeypatch):
    record = Record(tmp_path, {"status": "running", "text": "x" * 99})
    record.update()

    def write_bytes(path, data):
        with path.open("wb") as file:
            file.write(data[:3])
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", write_bytes)
    with pytest.raises(OSError, match=r"No space left on device: 9 bytes are needed, [\d,]+ are free: '.*/a'"):
        files.write_atomic(tmp_path / "a", "123456789")
    record.update(status="failed")  # in place
    assert files.read_json(tmp_path / "run.json")["status"] == "failed"
    assert [path.name for path in tmp_path.iterdir()] == ["run.json"]


def test_the_next_write_removes_what_dead_processes_have_left(tmp_path):
    with subprocess.Popen([sys.executable, "-c", ""]) as gone:  # dead, too, while nobody has asked for its exit code
        while files.is_alive(gone.pid):
            time.sleep(0.01)
    left = [tmp_path / f".a[1].json.{gone.pid}", tmp_path / f".a[1].json.{os.getppid()}", tmp_path / f".b.{gone.pid}"]
    for path in left:
        path.touch()
    files.write_json(tmp_path / "a[1].json", {})
    # The second process is alive, the third file another
    assert [path.exists() for path in left] == [False, True, True]
