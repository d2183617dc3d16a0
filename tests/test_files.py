"""Files: a lock says who holds it, a file system without locks is not taken for one that refuses, JSON is JSON."""

from __future__ import annotations

import errno
from math import inf, nan

import pytest

from src import files
from src.process import in_json


def refuse(monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    def flock(descriptor: int, operation: int) -> None:
        raise OSError(code, "refused")

    monkeypatch.setattr("fcntl.flock", flock)


def test_one_lock_is_held_once_and_is_free_again_afterwards(tmp_path):
    for _ in range(2):
        with files.lock(tmp_path / ".lock") as first, files.lock(tmp_path / ".lock") as second:
            assert (first, second) == (True, False)


@pytest.mark.parametrize("code", [errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP])
def test_a_file_system_without_locks_is_reported_once_and_leaves_no_marker_that_looks_held(
    tmp_path, monkeypatch, caplog, code
):
    refuse(monkeypatch, code)
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
