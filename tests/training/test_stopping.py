"""What ends a run before its last epoch: when a signal is heard, and what early stopping sees."""

from __future__ import annotations

import json
import signal
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from src import train
from src.config.schema import EarlyStoppingConfig
from src.process import signal_handlers
from src.training import signals
from src.training.metrics_log import EarlyStopping
from src.training.signals import Interrupted, StopOnSignal
from tests.runs.commands import only_run


def test_a_signal_that_comes_while_the_processes_agree_stops_them_at_the_next_batch(monkeypatch):
    """Agreeing takes most of a small step: what came meanwhile was overwritten by what had been agreed on before it."""
    stopper, trainer = StopOnSignal(checkpoints=None), SimpleNamespace(global_step=1, is_global_zero=True)

    def reduced(trainer, how, *flags):
        stopper._handle(signal.SIGTERM, None)
        return flags

    monkeypatch.setattr(signals, "reduced", reduced)
    stopper.on_train_batch_end(trainer)
    stopper.on_train_batch_start(trainer, None)  # not agreed on yet: the others know nothing of it
    stopper.on_train_batch_end(trainer)
    with pytest.raises(Interrupted) as end:
        stopper.on_train_batch_start(trainer, None)
    assert end.value.code == 143


def test_a_preemption_is_heard_once(monkeypatch):
    stopper, trainer = StopOnSignal(checkpoints=None), SimpleNamespace(global_step=1, is_global_zero=True)
    monkeypatch.setattr(signals, "reduced", lambda trainer, how, *flags: flags)
    monkeypatch.setattr(signals, "requeue", lambda: False)
    stopper._handle(signal.SIGUSR1, None)
    stopper.on_train_batch_end(trainer)
    assert stopper.preempted
    stopper.on_train_batch_start(trainer, None)
    stopper.on_train_batch_end(trainer)
    assert not stopper.preempted


def test_a_job_that_cannot_be_put_back_into_the_queue_stops_all_the_same(monkeypatch, caplog):
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    monkeypatch.setenv("PATH", "")
    assert signals.requeue()
    assert "not put back into the queue: scontrol requeue 7: [Errno 2]" in caplog.text


@pytest.mark.parametrize(("monitor", "split"), [("train/loss", "[0.5,0.5]"), ("train/cross_entropy", "[1.0]")])
def test_best_plateau_and_early_stopping_see_a_metric_of_training(
    monitor: str, split: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a val split Lightning's stopper did not know it; without one nothing stopped or lowered the rate."""
    (tmp_path / "text.txt").write_text("hello world " * 20)
    words = f"data=text data.path={tmp_path}/text.txt data.split={split} data.batch_size=2 data.seq_len=16"
    words += " model.hidden_size=4 callbacks=none logger=none scheduler=plateau scheduler.patience=0"
    words += f" early_stopping.enabled=true early_stopping.patience=2 early_stopping.min_delta=100 runs={tmp_path}"
    words += f" checkpoint.monitor={monitor} trainer.max_epochs=9"
    monkeypatch.setattr(sys, "argv", ["train", *words.split()])
    train.main()
    folder = only_run(tmp_path)
    record = json.loads((folder / "run.json").read_text())
    assert (record["epochs"], record["status"]) == (3, "done")  # the best, and two epochs that are not 100 better
    assert record["metrics"]["best"]["monitor"] == monitor
    assert (folder / "checkpoints" / "best.ckpt").exists()
    progress = torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)["unroll"]["progress"]
    assert progress["schedule"]["best"] == pytest.approx(record["metrics"]["best"]["value"])


def test_a_run_that_may_not_stop_yet_and_recovers_goes_on():
    stopper, trainer = EarlyStopping(EarlyStoppingConfig(patience=2), "val/cross_entropy"), SimpleNamespace()
    asked = []
    for value in (2.0, 2.1, 2.2, 1.9):
        stopper.after_line(trainer, value)
        asked.append(trainer.should_stop)
    assert asked == [False, False, True, False]


def test_signals_are_heard_before_training_begins_a_second_ctrl_c_leaves_at_once_and_all_are_given_back():
    """Between its record and its first step a run died of SIGTERM, with status running; Lightning made 1 of a 130."""
    before = [signal.getsignal(number) for number in signals.SIGNALS]
    stopper = StopOnSignal(checkpoints=None)
    with signal_handlers(stopper.handlers):
        signal.raise_signal(signal.SIGUSR1)
        signal.raise_signal(signal.SIGINT)
        assert (stopper.preempting, stopper.received) == (True, signal.SIGINT)
        with pytest.raises(Interrupted) as end:
            signal.raise_signal(signal.SIGINT)
        assert end.value.code == 130
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # as Lightning does after a KeyboardInterrupt
    assert [signal.getsignal(number) for number in signals.SIGNALS] == before
