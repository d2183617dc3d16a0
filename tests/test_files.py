"""Files: a lock says who holds it, and a file system without locks is not mistaken for one that refuses."""

from __future__ import annotations

import errno

import pytest

from src import files


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
