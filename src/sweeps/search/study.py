"""A study of Optuna's on disk: its journal, which several processes may use at once; its trials; what it found.

A trial is a run of ours in `trials/<number>`. Its record is Optuna's: the state, the value, the parameters, and as
attributes `words` (overrides), `folder`, `process`, `best` (of a pruned trial) and `note`. A trial that was given up is
queued again, and the new trial's attributes say which it was (`again`) and why (`why`).
"""

from __future__ import annotations

import contextlib
import csv
import json
import math
import os
import shlex
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import lightning.pytorch as pl
import optuna
import yaml
from lightning.pytorch.callbacks import Callback
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from src.config.schema import PrunerConfig, SamplerConfig, SearchConfig, flatten
from src.errors import RunFailure, UserError
from src.files import atomic_file, lock, write_atomic
from src.sweeps.search.space import Space, as_experiment, config_of, override, suggest
from src.sweeps.state import process_ended, record_of, this_process
from src.training.metrics_log import MetricsLog
from src.training.run import fit
from src.training.run_record import Record
from src.training.signals import Interrupted

FINISHED = (TrialState.COMPLETE, TrialState.PRUNED)
MIN_FOR_IMPORTANCE = 4  # completed trials
STUDY_LOCK = ".lock"  # held while a process looks at the study and acts on what it saw
JOURNAL_LOCK = ".journal.lock"  # held while a process appends to the journal


def open_study(folder: Path, name: str, mode: str, question: Mapping[str, Any]) -> optuna.Study:
    """Open the study in a folder, or create it.

    Args:
        folder, name: of the study.
        mode: `min` or `max`.
        question: plain data that must stay the same when the study continues: its space, the settings of all trials.

    Raises:
        UserError: the study in this folder has another question, or its journal is damaged.
    """
    folder.mkdir(parents=True, exist_ok=True)
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    journal = folder / "journal.log"
    with lock(folder / JOURNAL_LOCK, wait=True):
        repair(journal)
    journal_lock = cast("Any", JournalLock(folder / JOURNAL_LOCK))  # the base class has no public name
    storage = JournalStorage(JournalFileBackend(str(journal), journal_lock))
    direction = StudyDirection.MINIMIZE if mode == "min" else StudyDirection.MAXIMIZE
    with lock(folder / STUDY_LOCK, wait=True):
        study = optuna.create_study(storage=storage, study_name=name, load_if_exists=True, direction=direction)
        new = json.loads(json.dumps(question))
        old = study.user_attrs.get("question")
        if old is None:
            study.set_user_attr("question", new)
        elif old != new:
            raise UserError(
                f"the study in {folder} was begun with another {', '.join(_changes(old, new))}: its trials cannot be "
                "compared with new ones; give the new study a name of its own: search.study=NAME"
            )
    return study


def _changes(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """Return what differs between two questions: `space`, `monitor`, or the keys of settings; at most five names."""
    found = [key for key in new if key != "settings" and old.get(key) != new[key]]
    before, after = (dict(flatten(one.get("settings", {}))) for one in (old, new))
    found += [key for key in {**before, **after} if before.get(key) != after.get(key)]
    return [*found[:4], *(["..."] if len(found) > 4 else [])]


class JournalLock:
    """Optuna's interface of a journal's lock, with the system's lock, which ends with the process.

    Optuna's own lock files survive a killed process, and the next one then waits for them without end.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.held = contextlib.ExitStack()

    def acquire(self) -> bool:
        """Wait for the lock; always True."""
        self.held.enter_context(lock(self.path, wait=True))
        return True

    def release(self) -> None:
        """Release it."""
        self.held.close()


def repair(journal: Path) -> None:
    """Cut off a last line that a dying machine left half written; whoever appends would spoil the next line too.

    Raises:
        UserError: another line is damaged.
    """
    text = journal.read_bytes() if journal.exists() else b""
    whole = text.rfind(b"\n") + 1
    if whole < len(text):
        os.truncate(journal, whole)
    for number, line in enumerate(text[:whole].splitlines(), 1):
        try:
            json.loads(line)["op_code"]
        except (ValueError, TypeError, KeyError) as error:
            raise UserError(
                f"{journal}, line {number}: the study's journal is damaged there; restore a copy of the file, or begin "
                "a new study: search.study=NAME"
            ) from error


def next_trial(study: optuna.Study, folder: Path, search: SearchConfig) -> optuna.Trial | None:
    """Return a trial to run; None when as many as wanted are finished or running.

    Trials whose process died are queued again first. The sampler's seed depends on the trial's number, so that no
    process proposes what another has proposed.
    """
    with lock(folder / STUDY_LOCK, wait=True):
        # A trial without a process: it died before it could write its own
        _give_up(study, lambda process: process is None or process_ended(process), "its process died")
        trials = study.get_trials(deepcopy=False)
        if sum(trial.state in (*FINISHED, TrialState.RUNNING) for trial in trials) >= search.trials:
            return None
        study.sampler = sampler(search.sampler, len(trials))
        trial = study.ask()
        trial.set_user_attr("process", this_process())
        return trial


def release(study: optuna.Study, folder: Path) -> None:
    """Queue again the trial that this process was running when a signal came."""
    with lock(folder / STUDY_LOCK, wait=True):
        _give_up(study, lambda process: process == this_process(), "stopped by a signal")


def _give_up(study: optuna.Study, chosen: Callable[[Any], bool], why: str) -> None:
    """Mark the running trials of the chosen processes as failed and queue their values again."""
    for trial in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
        if chosen(trial.user_attrs.get("process")):
            study.tell(trial.number, state=TrialState.FAIL)
            study.enqueue_trial(trial.params, user_attrs={"again": trial.number, "why": why})


def sampler(config: SamplerConfig, number: int) -> optuna.samplers.BaseSampler:
    """Return the sampler that proposes trial `number`."""
    seed = config.seed + 1_000 * number
    if config.name == "random":
        return optuna.samplers.RandomSampler(seed=seed)
    return optuna.samplers.TPESampler(seed=seed, n_startup_trials=config.startup_trials)


def pruner(config: PrunerConfig) -> optuna.pruners.BasePruner:
    """Return the pruner."""
    pruners: dict[str, Callable[[], optuna.pruners.BasePruner]] = {
        "median": lambda: optuna.pruners.MedianPruner(config.startup_trials, n_warmup_steps=config.warmup),
        "halving": lambda: optuna.pruners.SuccessiveHalvingPruner(min_resource=max(1, config.warmup)),
        "hyperband": lambda: optuna.pruners.HyperbandPruner(min_resource=max(1, config.warmup)),
        "none": optuna.pruners.NopPruner,
    }
    return pruners[config.name]()


class Pruning(Callback):
    """Report each point of the curve to the study, and stop the run where the study's pruner says so.

    A point is a line of metrics.jsonl: a validation, or an epoch of a corpus without `val`. The pruner counts points
    and not steps, so that trials of different batch sizes can be compared.
    """

    def __init__(self, trial: optuna.Trial, monitor: str) -> None:
        self.trial, self.monitor = trial, monitor
        self.points = 0
        self.pruned = False
        self.seen: dict[str, float] = {}

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Look for a new point."""
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

    `words` are the overrides that all trials share; for `known` see `suggest`.

    Raises:
        KeyboardInterrupt, Interrupted: a signal; the trial then still counts as running (see `release`).
    """
    with lock(folder / STUDY_LOCK, wait=True):
        chosen = suggest(trial, space, known)
    words = [*words, *(override(key, value) for key, value in chosen.items())]
    config = config_of(words)
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
    except RunFailure as failure:
        note = f"counted as the worst value: {failure}"
    except Exception as error:
        trial.set_user_attr("note", f"{type(error).__name__}: {error}")
        return study.tell(trial, state=TrialState.FAIL)
    if note:
        trial.set_user_attr("note", note)
    if not pruning.pruned:
        return study.tell(trial, value)
    Record.read(run).update(pruned=True)  # its status is `stopped`, and that was not a signal
    trial.set_user_attr("best", value)
    return study.tell(trial, state=TrialState.PRUNED)


def describe(trial: FrozenTrial) -> str:
    """Return a line about a trial that has just ended: number, result, parameters."""
    note = trial.user_attrs.get("note", "")
    if trial.state == TrialState.FAIL:
        result = f"failed ({note})"
    elif trial.state == TrialState.PRUNED:
        result = f"pruned after {len(trial.intermediate_values)} points at {trial.user_attrs['best']:.4f}"
    else:
        result = f"{trial.value:.4f}" + (f" ({note})" if note else "")
    return f"trial {trial.number}: {result}  {' '.join(override(*item) for item in trial.params.items())}"


def conclude(study: optuna.Study, folder: Path, wanted: int) -> None:
    """Print what the study has found so far, and write it: trials, best configuration, plots."""
    with lock(folder / STUDY_LOCK, wait=True):  # processes that end together write one after another
        trials = study.get_trials(deepcopy=False)
        states = [trial.state.name.lower() for trial in trials]
        finished = sum(trial.state in FINISHED for trial in trials)
        counts = ", ".join(f"{states.count(state)} {state}" for state in dict.fromkeys(states))
        print(f"{finished} of {wanted} trials finished ({counts}): {folder}")
        write_trials(study, folder)
        if not completed(study):
            print("no trial has a finite value yet, so there is no best one")
            return
        path, command = write_best(study, folder)
        for name, share in importances(study).items():
            print(f"  {name:30} {share:6.1%} of what makes a trial good")
        plots = write_plots(study, folder)
    print(f"best: trial {study.best_trial.number}, {study.best_value:.4f}; as an experiment: {path}")
    print(f"plots: {', '.join(plot.name for plot in plots)} in {folder / 'plots'}")
    print(f"run it: {command}")


def completed(study: optuna.Study) -> list[FrozenTrial]:
    """Return the trials that have a finite value."""
    trials = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    return [trial for trial in trials if trial.value is not None and math.isfinite(trial.value)]


def write_trials(study: optuna.Study, folder: Path) -> None:
    """Write trials.csv, one line a trial: number, state, value, note, seconds, and each parameter."""
    trials = study.get_trials(deepcopy=False)
    given_up = {t.user_attrs["again"]: t.user_attrs["why"] for t in trials if "why" in t.user_attrs}
    names = list(dict.fromkeys(name for trial in trials for name in trial.params))
    with (
        atomic_file(folder / "trials.csv") as path,
        path.open("w", newline="", encoding="utf-8", errors="backslashreplace") as file,
    ):
        writer = csv.writer(file)
        writer.writerow(["number", "state", "value", "note", "seconds", *names])
        for trial in trials:
            value = trial.value if trial.state == TrialState.COMPLETE else trial.user_attrs.get("best", "")
            note = trial.user_attrs.get("note", given_up.get(trial.number, ""))
            seconds = round(trial.duration.total_seconds(), 3) if trial.duration else ""
            row = [trial.number, trial.state.name.lower(), value, note, seconds]
            writer.writerow([*row, *(trial.params.get(name, "") for name in names)])


def write_best(study: optuna.Study, folder: Path) -> tuple[Path, str]:
    """Write the best trial's configuration as an experiment; return the file and the command that runs it."""
    best = study.best_trial
    name = f"{study.study_name}_best"
    path = folder / "conf" / "experiment" / f"{name}.yaml"
    path.parent.mkdir(parents=True, exist_ok=True)
    command = shlex.join(["python", "-m", "src.train", "--config-dir", str(folder / "conf"), f"experiment={name}"])
    body = yaml.safe_dump(as_experiment(best.user_attrs["words"]), sort_keys=False, allow_unicode=True)
    title = f"The best of {len(study.trials)} trials of the study {study.study_name}: trial {best.number}, {best.value}"
    write_atomic(path, f"# @package _global_\n# {title}\n# {command}\n{body}")
    return path, command


def importances(study: optuna.Study) -> dict[str, float]:
    """Return the share of each parameter in what makes a trial good (PED-ANOVA), largest first.

    A parameter that only some trials have is judged among those; with fewer than four of them it is left out.
    """
    trials = completed(study)
    found: dict[str, float] = {}
    for name in dict.fromkeys(name for trial in trials for name in trial.params):
        among = optuna.create_study(direction=study.direction)
        among.add_trials([trial for trial in trials if name in trial.params])
        if len(among.trials) < MIN_FOR_IMPORTANCE:
            continue
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Optuna calls the evaluator experimental
            judge = optuna.importance.PedAnovaImportanceEvaluator()
            found |= optuna.importance.get_param_importances(among, evaluator=judge, params=[name], normalize=False)
    total = sum(found.values())
    shares = {name: value / total if total > 0 else 0.0 for name, value in found.items()}
    return dict(sorted(shares.items(), key=lambda item: -item[1]))


def write_plots(study: optuna.Study, folder: Path) -> list[Path]:
    """Write Optuna's plots as PNG files; one that needs more trials, or other ones, is left out."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt
    import optuna.visualization.matplotlib as draw

    plots: dict[str, Callable[[optuna.Study], Any]] = {
        "history": draw.plot_optimization_history,
        "curves": draw.plot_intermediate_values,
        "slices": draw.plot_slice,
        "parallel": draw.plot_parallel_coordinate,
        "timeline": draw.plot_timeline,
    }
    (folder / "plots").mkdir(exist_ok=True)
    paths = []
    for name, plot in plots.items():
        with warnings.catch_warnings(), contextlib.suppress(ValueError, RuntimeError):  # too few trials, or all equal
            warnings.simplefilter("ignore")  # Optuna calls these plots experimental
            plot(study)
            figure = plt.gcf()
            figure.set_size_inches(max(8.0, figure.get_figwidth()), max(5.0, figure.get_figheight()))
            paths.append(folder / "plots" / f"{name}.png")
            figure.savefig(paths[-1], dpi=100, bbox_inches="tight")
        plt.close("all")
    return paths
