"""What a study is told of a trial: its best point, the worst value for a NaN, and nothing lost when a process dies."""

from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

optuna = pytest.importorskip("optuna", reason="the extra search is not installed")

from src.config.compose import compose, to_config  # noqa: E402
from src.config.schema import Parameter, SamplerConfig, SearchConfig  # noqa: E402
from src.errors import UserError  # noqa: E402
from src.files import lock  # noqa: E402
from src.sweeps.search.space import settings_of  # noqa: E402
from src.sweeps.search.study import conclude, describe, is_dead, next_trial, open_study, release, run_trial  # noqa: E402

SEARCH = SearchConfig(trials=3, sampler=SamplerConfig("random", startup_trials=2))
RATE = Parameter("log_uniform", low=0.01, high=0.02)
QUICK = ["callbacks=none", "logger=none", "trainer.threads=1"]


def study_in(folder: Path) -> Any:
    return open_study(folder, "study", "min", {"space": {"optimizer.lr": "a range"}})


def test_a_trial_is_told_the_best_point_of_its_curve_and_its_run_lies_in_the_study(tmp_path: Path) -> None:
    study = study_in(tmp_path)
    words = [*QUICK, "trainer.max_epochs=3"]
    trial = run_trial(study, next_trial(study, tmp_path, SEARCH), tmp_path, words, {"optimizer.lr": RATE}, {})
    lines = [json.loads(line) for line in (tmp_path / "trials/0000/metrics.jsonl").read_text().splitlines()]
    losses = [line["train/loss"] for line in lines]
    assert trial.value == min(losses)
    assert list(trial.intermediate_values.values()) == losses
    assert json.loads((tmp_path / "trials/0000/run.json").read_text())["trial"] == {"study": "study", "number": 0}


def test_a_nan_is_told_as_the_worst_value_with_a_note_and_is_never_the_best(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    study = study_in(tmp_path)
    words, wild = [*QUICK, "optimizer=sgd", "model.readout=linear"], Parameter("log_uniform", low=1e37, high=1e38)
    trial = run_trial(study, next_trial(study, tmp_path, SEARCH), tmp_path, words, {"optimizer.lr": wild}, {})
    assert (trial.state.name, trial.value) == ("COMPLETE", math.inf)
    assert describe(trial).startswith("trial 0: inf (counted as the worst value: ")
    conclude(study, tmp_path, 1)
    assert "no trial has a finite value yet" in capfd.readouterr().out
    assert not (tmp_path / "conf").exists()


def test_a_trial_whose_process_died_is_marked_failed_and_its_values_are_queued_again(tmp_path: Path) -> None:
    study = study_in(tmp_path)
    trial = next_trial(study, tmp_path, SEARCH)
    rate = trial.suggest_float("optimizer.lr", 0.01, 0.02, log=True)
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    trial.set_user_attr("process", trial.user_attrs["process"] | {"pid": gone.pid})
    again = next_trial(study, tmp_path, SEARCH)
    assert again.number == 1
    assert again.suggest_float("optimizer.lr", 0.01, 0.02, log=True) == rate
    assert [trial.state.name for trial in study.trials] == ["FAIL", "RUNNING"]
    conclude(study, tmp_path, 3)
    first, second = (tmp_path / "trials.csv").read_text().splitlines()[1:]
    assert first.startswith("0,fail,,its process died,")
    assert second.startswith("1,running,,,")


def test_what_a_process_was_at_when_a_signal_came_is_queued_again(tmp_path: Path) -> None:
    study = study_in(tmp_path)
    other, own = next_trial(study, tmp_path, SEARCH), next_trial(study, tmp_path, SEARCH)
    other.set_user_attr("process", other.user_attrs["process"] | {"host": "another machine"})
    rate = own.suggest_float("optimizer.lr", 0.01, 0.02, log=True)
    release(study, tmp_path)
    assert [trial.state.name for trial in study.trials] == ["RUNNING", "FAIL", "WAITING"]
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / ".lock").touch()
    other.set_user_attr("folder", str(tmp_path / "run"))  # of a container that was started again: the lock decides
    with lock(tmp_path / "run" / ".lock"):
        assert not is_dead(study.trials[0])
    assert is_dead(study.trials[0])
    assert next_trial(study, tmp_path, SEARCH).suggest_float("optimizer.lr", 0.01, 0.02, log=True) == rate


def test_a_study_that_is_opened_again_proposes_other_values_and_no_more_trials_than_asked_for(tmp_path: Path) -> None:
    rates = []
    for _ in range(3):  # each time as another process would open it
        study = study_in(tmp_path)
        rates.append(next_trial(study, tmp_path, SEARCH).suggest_float("optimizer.lr", 0.01, 0.02, log=True))
    assert len(set(rates)) == 3
    assert next_trial(study, tmp_path, SEARCH) is None  # those that run are left alone and count


def test_a_study_is_opened_with_its_own_space_and_settings_however_they_are_worded(tmp_path: Path) -> None:
    def begin(*words: str, space: str = "a range") -> None:
        settings = settings_of(to_config(compose(words)))
        open_study(tmp_path, "study", "min", {"space": space, "monitor": "train/loss", "settings": settings})

    begin("model=cell", "model.hidden_size=8", "callbacks=none")
    begin("logger=none", "model.hidden_size=8", "trainer.threads=1")
    with pytest.raises(UserError, match=r"begun with another model.hidden_size: its"):
        begin("model.hidden_size=16")
    with pytest.raises(UserError, match=r"another space.*search.study=NAME"):
        begin("model.hidden_size=8", space="another range")


def test_a_process_killed_while_it_appends_to_the_journal_does_not_lock_the_study_for_good(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    folder = Path("study")  # relative, as a user's folder is
    if (pid := os.fork()) == 0:
        study = study_in(folder)
        monkeypatch.setattr("os.fsync", lambda file: os.kill(os.getpid(), signal.SIGKILL))
        study.ask()
        os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -signal.SIGKILL
    study = study_in(folder)
    study.ask()
    assert len(study.trials) == 2  # what was written is not lost


def test_a_journal_whose_last_line_is_torn_is_cut_back_and_another_damage_is_refused(tmp_path: Path) -> None:
    next_trial(study_in(tmp_path), tmp_path, SEARCH)
    journal = tmp_path / "journal.log"
    whole = journal.read_bytes()
    journal.write_bytes(whole + b'{"op_code": 4, "wor')
    assert len(study_in(tmp_path).trials) == 1
    assert [json.loads(line)["op_code"] for line in journal.read_bytes().splitlines()]
    lines = whole.splitlines(keepends=True)
    without_code = lines[1].replace(b'"op_code":', b'"op":').strip()
    for damage in (b"\0" * 20, b"{}", b"[]", b"7", b'{"op_code": "x"}', without_code):
        journal.write_bytes(b"".join([lines[0], damage + b"\n", *lines[2:]]))
        with pytest.raises(UserError, match=r"journal\.log is damaged"):
            study_in(tmp_path)


def test_a_study_whose_folder_was_renamed_goes_on(tmp_path: Path) -> None:
    next_trial(study_in(tmp_path / "study"), tmp_path / "study", SEARCH)
    (tmp_path / "study").rename(tmp_path / "renamed")
    assert len(open_study(tmp_path / "renamed", "renamed", "min", {"space": {"optimizer.lr": "a range"}}).trials) == 1


def test_a_trial_that_a_full_disk_has_ended_is_failed_and_not_the_worst(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def save_checkpoint(*arguments: Any, **options: Any) -> None:
        raise OSError(28, "No space left on device: 9 bytes are needed, 3 are free", "last.ckpt")

    monkeypatch.setattr("src.training.checkpoint.AtomicCheckpointIO.save_checkpoint", save_checkpoint)
    study = study_in(tmp_path)
    trial = run_trial(study, next_trial(study, tmp_path, SEARCH), tmp_path, QUICK, {"optimizer.lr": RATE}, {})
    assert trial.state.name == "FAIL"
    expected = "last.ckpt: No space left on device: 9 bytes are needed, 3 are free; free some space, then go on: "
    assert f"RunFailure: {expected}" in trial.user_attrs["note"]
    record = json.loads((tmp_path / "trials/0000/run.json").read_text())
    assert (record["status"], record["error"]["type"]) == ("failed", "OSError")
