"""When a signal is heard."""

from __future__ import annotations

import signal
from types import SimpleNamespace

import pytest

from src.training.callbacks import signals
from src.training.callbacks.signals import Interrupted, StopOnSignal


def test_a_signal_that_comes_while_the_processes_agree_stops_them_at_the_next_batch(monkeypatch):
    """Agreeing takes most of a small step: what came meanwhile was overwritten by what had been agreed on before it."""
    stopper, trainer = StopOnSignal(keeper=None), SimpleNamespace(global_step=1)

    def agree(_, *flags):
        stopper._handle(signal.SIGTERM, None)
        return flags

    monkeypatch.setattr(signals, "agree", agree)
    stopper.on_train_batch_end(trainer)
    stopper.on_train_batch_start(trainer, None)  # not agreed on yet: the others know nothing of it
    stopper.on_train_batch_end(trainer)
    with pytest.raises(Interrupted) as end:
        stopper.on_train_batch_start(trainer, None)
    assert end.value.code == 143


def test_a_preemption_is_heard_once(monkeypatch):
    stopper, trainer = StopOnSignal(keeper=None), SimpleNamespace(global_step=1)
    monkeypatch.setattr(signals, "agree", lambda _, *flags: flags)
    monkeypatch.setattr(signals, "requeue", lambda: False)
    stopper._handle(signal.SIGUSR1, None)
    stopper.on_train_batch_end(trainer)
    assert stopper.preempted
    stopper.on_train_batch_start(trainer, None)
    stopper.on_train_batch_end(trainer)
    assert not stopper.preempted
