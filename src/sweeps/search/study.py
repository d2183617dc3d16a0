"""A study of Optuna's on disk: its journal, which several processes may use at once; its trials; what it found.

A trial is a run in `trials/<number>`. Optuna stores its state, value and parameters, and as attributes `words`
(overrides), `folder`, `process`, `best` (of a pruned trial) and `note`. A trial that was given up is queued again, and
the new trial's attributes say which it was (`again`) and why (`why`).
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import shlex
import warnings
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, cast

import lightning.pytorch as pl
import optuna
import pandas as pd
import yaml
from lightning.pytorch.callbacks import Callback
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial, TrialState

from src.config.compose import compose, to_config
from src.config.schema import PrunerConfig, SearchConfig, flatten
from src.errors import RunFailure, UserError
from src.files import disk_full, lock, process_ended, sync, this_process, write_atomic
from src.process import say
from src.sweeps.plan import is_gone, record_of
from src.sweeps.search.space import Space, as_experiment, override, suggest
from src.training.metrics_log import MetricsLog
from src.training.run import fit
from src.training.run_record import Record, refuse_links
from src.training.signals import Interrupted

FINISHED = (TrialState.COMPLETE, TrialState.PRUNED)
warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)  # plots, and the importances
STUDY_LOCK = ".lock"  # held while a process looks at the study and acts on what it saw


class Journal(JournalFileBackend):
    """Optuna's journal under a lock of the system's, which ends with its process; Optuna's own survive a killed one."""

    def __init__(self, path: Path) -> None:
        super().__init__(str(path))
        self.path = path
        with self.locked():  # cut off a last line that is half written, which would spoil the next
            if (text := path.read_bytes())[-1:] != b"\n":
                os.truncate(path, text.rfind(b"\n") + 1)

    def locked(self) -> AbstractContextManager[bool]:
        return lock(self.path.with_name(".journal.lock"), wait=True)

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        """Append lines, and wait until they are on the disk."""
        with self.locked():
            with self.path.open("ab") as file:
                file.writelines(json.dumps(line, separators=(",", ":")).encode() + b"\n" for line in logs)
            sync(self.path)


def open_study(folder: Path, name: str, mode: str, question: Mapping[str, Any]) -> optuna.Study:
    """Open the study in a folder, or create it; UserError if it is damaged, or was begun with another `question`."""
    folder.mkdir(parents=True, exist_ok=True)
    refuse_links(folder)
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    journal, direction = folder / "journal.log", cast("Any", f"{mode}imize")
    with lock(folder / STUDY_LOCK, wait=True):
        try:
            storage = JournalStorage(Journal(journal))
            name = next(iter(optuna.get_all_study_names(storage)), name)  # the folder may have been renamed
            study = optuna.create_study(storage=storage, study_name=name, load_if_exists=True, direction=direction)
            study.get_trials(deepcopy=False)
        except (ValueError, LookupError, TypeError, AttributeError, AssertionError) as error:
            way = "restore a copy of the file, or begin a new study: search.study=NAME"
            raise UserError(f"{journal} is damaged ({type(error).__name__}: {error}): {way}") from error
        new = json.loads(json.dumps(question))
        old = study.user_attrs.get("question")
        if old is None:
            study.set_user_attr("question", new)
        elif old != new:
            before, after = (one | dict(flatten(one.get("settings", {}))) for one in (old, new))
            changed = [key for key in before | after if key != "settings" and before.get(key) != after.get(key)]
            raise UserError(
                f"the study in {folder} was begun with another {', '.join(changed[:5])}: its trials cannot be "
                "compared with new ones; give the new study a name of its own: search.study=NAME"
            )
    return study


def next_trial(study: optuna.Study, folder: Path, search: SearchConfig) -> optuna.Trial | None:
    """Return a trial to run, those of dead processes first; None when as many as wanted are finished or running."""
    with lock(folder / STUDY_LOCK, wait=True):
        _give_up(study, is_dead, "its process died")
        trials = study.get_trials(deepcopy=False)
        if sum(trial.state in (*FINISHED, TrialState.RUNNING) for trial in trials) >= search.trials:
            return None
        # the seed depends on the number, so that no process proposes what another has proposed
        config, seed = search.sampler, search.sampler.seed + 1_000 * len(trials)
        tpe = optuna.samplers.TPESampler(seed=seed, n_startup_trials=config.startup_trials)
        study.sampler = tpe if config.name == "tpe" else optuna.samplers.RandomSampler(seed=seed)
        trial = study.ask()
        trial.set_user_attr("process", this_process())
        return trial


def release(study: optuna.Study, folder: Path) -> None:
    """Queue again the trial that this process was running when a signal came."""
    with lock(folder / STUDY_LOCK, wait=True):
        _give_up(study, lambda trial: trial.user_attrs.get("process") == this_process(), "stopped by a signal")


def is_dead(trial: optuna.trial.FrozenTrial) -> bool:
    """Whether no process trains a trial: it died, perhaps before recording its id, or on another machine."""
    process, folder = trial.user_attrs.get("process"), trial.user_attrs.get("folder")
    if folder and isinstance(process, dict) and process.get("host") != this_process()["host"]:
        return is_gone({"process": process}, Path(folder))
    return not isinstance(process, dict) or process_ended(process)


def _give_up(study: optuna.Study, chosen: Callable[[optuna.trial.FrozenTrial], bool], why: str) -> None:
    """Mark the chosen ones of the running trials as failed and queue their values again."""
    for trial in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
        if chosen(trial):
            study.tell(trial.number, state=TrialState.FAIL)
            study.enqueue_trial(trial.params, user_attrs={"again": trial.number, "why": why})


def pruner(config: PrunerConfig) -> optuna.pruners.BasePruner:
    """Return the pruner."""
    least = max(1, config.warmup)
    pruners: dict[str, optuna.pruners.BasePruner] = {
        "median": optuna.pruners.MedianPruner(config.startup_trials, n_warmup_steps=config.warmup),
        "halving": optuna.pruners.SuccessiveHalvingPruner(min_resource=least),
        "hyperband": optuna.pruners.HyperbandPruner(min_resource=least),
        "none": optuna.pruners.NopPruner(),
    }
    return pruners[config.name]


class Pruning(Callback):
    """Report each line of metrics.jsonl to the study, and stop the run where the pruner says so.

    The pruner counts lines and not steps, so that trials of different batch sizes can be compared.
    """

    def __init__(self, trial: optuna.Trial, monitor: str) -> None:
        self.trial, self.monitor = trial, monitor
        self.points = 0
        self.pruned = False
        self.seen: dict[str, float] = {}

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        callbacks: list[Any] = trainer.callbacks  # type: ignore[attr-defined]
        line = next(callback for callback in callbacks if isinstance(callback, MetricsLog)).final
        if line is self.seen:
            return
        self.seen = line
        if math.isfinite(value := line.get(self.monitor, math.nan)):
            self.trial.report(value, self.points)
        self.points += 1
        if self.trial.should_prune():
            self.pruned = True
            raise Interrupted(None)

    on_train_epoch_end = on_validation_end


def run_trial(
    study: optuna.Study, trial: optuna.Trial, folder: Path, words: Sequence[str], space: Space, known: Mapping[str, Any]
) -> FrozenTrial:
    """Run a trial and tell the study its value: the best of the monitored metric, or the worst possible after a NaN.

    After a signal, which raises KeyboardInterrupt or Interrupted, the trial still counts as running (see `release`).
    """
    with lock(folder / STUDY_LOCK, wait=True):
        chosen = suggest(trial, space, known)
    words = [*words, *(override(key, value) for key, value in chosen.items())]
    config = to_config(compose(words))
    config.name = study.study_name
    run = folder / "trials" / f"{trial.number:04d}"
    trial.set_user_attr("words", words)
    trial.set_user_attr("folder", str(run))
    pruning = Pruning(trial, config.checkpoint.monitor)
    command = {"command": shlex.join(["python", "-m", "src.train", *words]), "overrides": words}
    value = worst = math.inf if config.checkpoint.mode == "min" else -math.inf
    try:
        fit(config, command | {"trial": {"study": study.study_name, "number": trial.number}}, run, also=[pruning])
        best = (record_of(run).get("metrics") or {}).get("best")
        value = best["value"] if best else worst
        note = None if best else "counted as the worst value: no point of the curve is finite"
    except Exception as error:
        if not isinstance(error, RunFailure) or disk_full(error, folder):
            trial.set_user_attr("note", f"{type(error).__name__}: {error}")
            return study.tell(trial, state=TrialState.FAIL)
        note = f"counted as the worst value: {error}"
    if note:
        trial.set_user_attr("note", note)
    if not pruning.pruned:
        return study.tell(trial, value)
    Record.read(run).update(pruned=True)  # its status is `stopped`, and that was not a signal
    trial.set_user_attr("best", value)
    return study.tell(trial, state=TrialState.PRUNED)


def describe(trial: FrozenTrial) -> str:
    """Return a line about a trial that has just ended: number, result, parameters."""
    note = f" ({trial.user_attrs['note']})" if "note" in trial.user_attrs else ""
    result = f"{trial.value:.4f}" if trial.state == TrialState.COMPLETE else "failed"
    if trial.state == TrialState.PRUNED:
        result = f"pruned after {len(trial.intermediate_values)} points at {trial.user_attrs['best']:.4f}"
    return f"trial {trial.number}: {result}{note}  {' '.join(override(*item) for item in trial.params.items())}"


def conclude(study: optuna.Study, folder: Path, wanted: int) -> None:
    """Print what the study has found so far, and write it: trials, best configuration, plots."""
    with lock(folder / STUDY_LOCK, wait=True):  # processes that end together write one after another
        trials = study.get_trials(deepcopy=False)
        states = [trial.state.name.lower() for trial in trials]
        finished = sum(trial.state in FINISHED for trial in trials)
        counts = ", ".join(f"{states.count(state)} {state}" for state in dict.fromkeys(states))
        say(f"{finished} of {wanted} trials finished ({counts}): {folder}\n")
        write_trials(study, folder)
        values = [trial.value for trial in trials if trial.state == TrialState.COMPLETE]
        finite = sum(value is not None and math.isfinite(value) for value in values)
        if not finite:
            say("no trial has a finite value yet, so there is no best one\n")
            return
        path, command = write_best(study, folder)
        evaluator = optuna.importance.PedAnovaImportanceEvaluator()
        shares = optuna.importance.get_param_importances(study, evaluator=evaluator) if finite > 3 else {}
        for name, share in shares.items():
            say(f"  {name:30} {share:6.1%} of what makes a trial good\n")
        write_plots(study, folder / "plots")
    say(f"best: trial {study.best_trial.number}, {study.best_value:.4f}; as an experiment: {path}\n")
    say(f"plots: {folder / 'plots'}\nrun it: {command}\n")


def write_trials(study: optuna.Study, folder: Path) -> None:
    """Write trials.csv, one line a trial: number, state, value, note, seconds, and each parameter."""
    trials = study.get_trials(deepcopy=False)
    given_up = {t.user_attrs["again"]: t.user_attrs["why"] for t in trials if "why" in t.user_attrs}
    rows = [
        {"number": trial.number, "state": trial.state.name.lower(),
         "value": trial.value if trial.state == TrialState.COMPLETE else trial.user_attrs.get("best"),
         "note": trial.user_attrs.get("note", given_up.get(trial.number)),
         "seconds": round(trial.duration.total_seconds(), 3) if trial.duration else None, **trial.params}
        for trial in trials
    ]  # fmt: skip
    write_atomic(folder / "trials.csv", pd.DataFrame(rows, dtype=object).to_csv(index=False))


def write_best(study: optuna.Study, folder: Path) -> tuple[Path, str]:
    """Write the best trial's configuration as an experiment; return the file and the command that runs it."""
    best, name = study.best_trial, f"{study.study_name}_best"
    path = folder / "conf" / "experiment" / f"{name}.yaml"
    path.parent.mkdir(parents=True, exist_ok=True)
    command = shlex.join(["python", "-m", "src.train", "--config-dir", str(folder / "conf"), f"experiment={name}"])
    body = yaml.safe_dump(as_experiment(best.user_attrs["words"]), sort_keys=False, allow_unicode=True)
    title = f"The best of {len(study.trials)} trials of the study {study.study_name}: trial {best.number}, {best.value}"
    write_atomic(path, f"# @package _global_\n# {title}\n# {command}\n{body}")
    return path, command


def write_plots(study: optuna.Study, folder: Path) -> None:
    """Write Optuna's plots as PNG files; one that needs more trials, or other ones, is left out."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt
    import optuna.visualization.matplotlib as draw

    plots = {"history": "optimization_history", "curves": "intermediate_values", "slices": "slice"}
    plots |= {"parallel": "parallel_coordinate", "timeline": "timeline"}
    folder.mkdir(exist_ok=True)
    for name, function in plots.items():
        with contextlib.suppress(ValueError, RuntimeError):  # too few trials, or all equal
            getattr(draw, f"plot_{function}")(study)
            figure = plt.gcf()
            figure.set_size_inches(max(8.0, figure.get_figwidth()), max(5.0, figure.get_figheight()))
            figure.savefig(folder / f"{name}.png", dpi=100, bbox_inches="tight")
        plt.close("all")
