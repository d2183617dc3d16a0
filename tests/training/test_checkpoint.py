"""A checkpoint is plain data and a model by itself; whatever else lies in its place is told, and never executed."""

from __future__ import annotations

import io
import pickle
import zipfile
from pathlib import Path

import pytest
import torch

from src.errors import UserError
from src.inference.load import FORMAT, newest_sound, read_checkpoint
from src.training.checkpoint import AtomicCheckpointIO, Checkpoint, restore_files, truncate_logs, with_state_keys
from src.training.run_record import locked, new_folder

SOUND = {"state_dict": {"w": torch.arange(3.0)}, "unroll": {"format": FORMAT, "config": {}}}


def write(path: Path, content: object) -> Path:
    torch.save(content, path)
    return path


def test_what_was_written_is_read_back(tmp_path: Path) -> None:
    io_plugin = AtomicCheckpointIO()
    path = tmp_path / "checkpoints" / "last.ckpt"
    for round_ in range(3):
        io_plugin.save_checkpoint(SOUND | {"round": round_}, path)
    assert read_checkpoint(path)["round"] == 2
    assert read_checkpoint(path.with_name("previous.ckpt"))["round"] == 1
    assert sorted(p.name for p in path.parent.iterdir()) == ["last.ckpt", "previous.ckpt"], "nothing half-made is left"


def test_callback_states_of_earlier_versions_get_the_keys_of_today() -> None:
    parts = {"HParams": {"a": 1}, "LossByPosition": {"b": 2}}
    old = {"Keeper": 1, "History{'x': 1}": 2, "StopEarly": 3, "Curves": 4, "Watching": parts}
    new = {"checkpoint": 1, "metrics": 2, "early_stopping": 3, "scalars": 4}
    new["diagnostics"] = {"hparams": {"a": 1}, "loss_by_position": {"b": 2}}  # type: ignore[assignment]
    assert with_state_keys({"callbacks": old})["callbacks"] == new
    assert with_state_keys({"callbacks": new})["callbacks"] == new


def test_a_damaged_best_checkpoint_is_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (folder := tmp_path / "checkpoints").mkdir()
    write(folder / "last.ckpt", SOUND)
    (folder / "best.ckpt").write_bytes(b"torn")
    restore_files(tmp_path, Checkpoint(folder / "last.ckpt", SOUND | {"callbacks": {"metrics": {"best": {"step": 2}}}}))
    assert "best.ckpt is missing or not of the best step, 2" in caplog.text


def test_logs_that_are_shorter_than_a_checkpoint_remembers_are_cut_to_whole_lines_and_that_is_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "metrics.jsonl").write_text('{"step": 1}\n{"st')
    truncate_logs(tmp_path, {"metrics.jsonl": 24, "metrics.csv": 9})
    assert (tmp_path / "metrics.jsonl").read_text() == '{"step": 1}\n'
    said = [record.getMessage().partition("is cut short: ")[2] for record in caplog.records]
    assert said == [
        f"the last {n} of {n if n == 9 else 24} bytes are missing; the run goes on without them" for n in (12, 9)
    ]


def test_a_crafted_pickle_is_refused_without_running_it(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self):  # type: ignore[no-untyped-def]
            return Path.touch, (tmp_path / "sprung",)

    in_a_zip = write(tmp_path / "zip.ckpt", {"unroll": {"format": FORMAT}, "state_dict": Evil()})
    bare = tmp_path / "bare.ckpt"
    bare.write_bytes(pickle.dumps(Evil()))
    for path in (in_a_zip, bare):
        with pytest.raises(UserError, match=path.name):
            read_checkpoint(path)
    assert not (tmp_path / "sprung").exists()


def test_torn_altered_foreign_and_newer_files_are_told_apart(tmp_path: Path) -> None:
    whole = write(tmp_path / "whole.ckpt", SOUND).read_bytes()
    torn, altered = tmp_path / "torn.ckpt", tmp_path / "altered.ckpt"
    torn.write_bytes(whole[:-200])
    with zipfile.ZipFile(io.BytesIO(whole)) as archive:
        info = next(info for info in archive.infolist() if info.filename.endswith("data/0"))
    at = info.header_offset + 30 + len(info.filename) + 64
    altered.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
    cases = {
        torn: "only a part",
        altered: "damaged",
        write(tmp_path / "foreign.ckpt", {"model": torch.zeros(2)}): "not written by this program",
        write(tmp_path / "newer.ckpt", {"unroll": {"format": FORMAT + 1}}): f"format {FORMAT + 1}",
        tmp_path / "absent.ckpt": "no such checkpoint",
    }
    for path, words in cases.items():
        with pytest.raises(UserError, match=words):
            read_checkpoint(path)


def test_where_no_checkpoint_is_sound_it_is_said_what_is_wrong_with_each(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no last\.ckpt"):
        newest_sound(tmp_path)
    for name in ("last", "previous"):
        (tmp_path / f"{name}.ckpt").write_bytes(b"half a file")
    with pytest.raises(UserError) as told:
        newest_sound(tmp_path)
    assert len(told.value.messages) == 2


def test_a_thousand_runs_that_start_in_one_second_have_a_thousand_folders(tmp_path: Path) -> None:
    assert len({new_folder(tmp_path / "runs") for _ in range(1000)}) == 1000


@pytest.mark.parametrize("name", [".lock", "metrics.jsonl", "train.log", "figures"])
def test_a_folder_with_a_symbolic_link_is_not_written_into(tmp_path: Path, name: str) -> None:
    run, thesis = tmp_path / "run", tmp_path / "thesis"
    run.mkdir()
    thesis.write_text("years of work")
    (run / name).symlink_to(thesis)
    with pytest.raises(UserError, match=f"{name} is a symbolic link"), locked(run):
        raise AssertionError("it was opened")
    assert thesis.read_text() == "years of work"
