"""Cutting a trial by its validation curve."""

from __future__ import annotations

import math
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import optuna
from lightning.pytorch.callbacks import Callback
from optuna.trial import TrialState

from src.errors import RunFailure
from src.sweeps.search.space import config_of, known_of, suggest, word
from src.sweeps.search.study import locked
from src.sweeps.state import record_of
from src.training.metrics_log import MetricsLog
from src.training.run import fit
from src.training.run_record import Record
from src.training.signals import Interrupted


class Pruning(Callback):
    """Report each point of the curve to the study, and stop the run where its pruner says so.

    A point is a validation, or an epoch where the corpus has no val; the pruner counts points, not steps, so that
    trials with other batch sizes can be compared.

    Args:
        trial: Optuna's.
        monitor: the metric that the study minimises or maximises.
    """

    def __init__(self, trial: optuna.Trial, monitor: str) -> None:
        self.trial, self.monitor = trial, monitor
        self.points = 0
        self.pruned = False
        self.seen: dict[str, float] = {}

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """A validation is a point."""
        self._look(trainer)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """So is an epoch, where it made a line."""
        self._look(trainer)

    def _look(self, trainer: pl.Trainer) -> None:
        callbacks: list[Any] = trainer.callbacks  # type: ignore[attr-defined]
        history = next(callback for callback in callbacks if isinstance(callback, MetricsLog))
        if history.final is self.seen:
            return
        self.seen = history.final
        value = self.seen.get(self.monitor, math.nan)
        if math.isfinite(value):
            self.trial.report(value, self.points)
        self.points += 1
        if self.trial.should_prune():
            self.pruned = True
            raise Interrupted(None)


# ---- One trial: a run of ours, and what the study is told of it.


def run_trial(
    study: optuna.Study, trial: optuna.Trial, folder: Path, common: Sequence[str], space: Mapping[str, Any]
) -> str:
    """Run a trial in `trials/<number>` of the study's folder, tell the study, and return a line about it.

    Told: the best value of the monitored metric; the worst possible one, with a note, where the run came to a NaN.

    Raises:
        KeyboardInterrupt, Interrupted: a signal; nothing is told (see `src.sweeps.search.study.release`).
    """
    with locked(folder):
        chosen = suggest(trial, space, known_of(common))
    words = [*common, *(word(key, value) for key, value in chosen.items())]
    config = config_of(words)
    place = folder / "trials" / f"{trial.number:04d}"
    config.name = study.study_name
    trial.set_user_attr("words", words)
    trial.set_user_attr("folder", str(place))
    pruning = Pruning(trial, config.checkpoint.monitor)
    command = {"command": shlex.join(["python", "-m", "src.train", *words]), "overrides": words}
    worst = math.inf if config.checkpoint.mode == "min" else -math.inf
    shown = " ".join(words[len(common) :])
    try:
        fit(config, command | {"trial": {"study": study.study_name, "number": trial.number}}, place, also=[pruning])
    except RunFailure as failure:
        trial.set_user_attr("note", f"told as the worst value: {failure}")
        study.tell(trial, worst)
        return f"trial {trial.number}: {worst} (not a number on the way)  {shown}"
    except Exception as error:
        trial.set_user_attr("note", f"{type(error).__name__}: {error}")
        study.tell(trial, state=TrialState.FAIL)
        return f"trial {trial.number}: failed ({type(error).__name__}: {error})  {shown}"
    best = (record_of(place).get("metrics") or {}).get("best")
    if best is None:
        trial.set_user_attr("note", "told as the worst value: the curve has no finite point")
        value = worst
    else:
        value = best["value"]
    if pruning.pruned:
        Record.read(place).update(pruned=True)  # it says stopped, and that is no accident
        trial.set_user_attr("best", value)
        study.tell(trial, state=TrialState.PRUNED)
        return f"trial {trial.number}: pruned after {pruning.points} points at {value:.4f}  {shown}"
    study.tell(trial, value)
    return f"trial {trial.number}: {value:.4f}  {shown}"
