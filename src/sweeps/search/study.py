"""The study on disk: a journal that several processes append to, and what becomes of trials whose process died."""

from __future__ import annotations

import contextlib
import csv
import fcntl
import json
import math
import os
import shlex
import socket
import warnings
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, cast

import optuna
import yaml
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from src.errors import UserError
from src.files import write_atomic
from src.sweeps.search.space import as_experiment
from src.sweeps.state import is_alive
from src.training.run_record import boot_id

FINISHED = (TrialState.COMPLETE, TrialState.PRUNED)
JOURNAL_LOCK = ".journal.lock"  # not the study's: who holds that one appends to the journal


def open_study(folder: Path, name: str, mode: str, question: Mapping[str, Any]) -> optuna.Study:
    """Open the study in a folder, or begin it.

    Args:
        folder: the study's; the journal lies in it.
        name: the study's.
        mode: `min` or `max`.
        question: what must be the same whenever the study goes on: its space, the settings of all trials.

    Raises:
        UserError: the study in this folder asks another question, or its journal is damaged.
    """
    folder.mkdir(parents=True, exist_ok=True)
    optuna.logging.set_verbosity(optuna.logging.ERROR)  # a NaN, which it warns of, is told in our own words
    journal = folder / "journal.log"
    mend(journal)
    lock = cast("Any", JournalLock(folder))  # the base class has no public name
    storage = JournalStorage(JournalFileBackend(str(journal), lock))
    direction = StudyDirection.MINIMIZE if mode == "min" else StudyDirection.MAXIMIZE
    with locked(folder):
        study = optuna.create_study(storage=storage, study_name=name, direction=direction, load_if_exists=True)
        asked = json.loads(json.dumps(question))
        before = study.user_attrs.get("question")
        if before is None:
            study.set_user_attr("question", asked)
        elif before != asked:
            changed = ", ".join(_changed(before, asked))
            raise UserError(
                f"the study in {folder} was begun with other {changed}: its trials cannot be compared with new ones; "
                "give the new study a name of its own: search.study=NAME"
            )
    return study


def _changed(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Return what differs between two questions: `space`, `monitor`, or the settings by their keys, the first few."""
    found = [key for key in now if key != "settings" and before.get(key) != now[key]]
    old, new = before.get("settings", {}), now.get("settings", {})
    found += [key for key in {**old, **new} if key not in old or key not in new or old[key] != new[key]]
    return [*found[:4], *(["..."] if len(found) > 4 else [])]


class JournalLock:
    """The lock that a process holds while it appends to the journal: the kernel's, so it ends with the process.

    Optuna's own locks are files that a killed process leaves behind. Its default, a symbolic link, is then waited for
    without end: under a relative path the link points nowhere, and the age by which it would be broken cannot be read.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.held = contextlib.ExitStack()

    def acquire(self) -> bool:
        """Wait for the lock and take it; always True, as Optuna asks."""
        self.held.enter_context(locked(self.folder, JOURNAL_LOCK))
        return True

    def release(self) -> None:
        """Give the lock back."""
        self.held.close()


def mend(journal: Path) -> None:
    """Cut back a journal whose last line a dying machine has left half written: what it told is lost anyway.

    Raises:
        UserError: another line is damaged.
    """
    if not journal.exists():
        return
    with locked(journal.parent, JOURNAL_LOCK):
        text = journal.read_bytes()
        whole = text.rfind(b"\n") + 1
        if whole < len(text):
            os.truncate(journal, whole)
    for number, line in enumerate(text[:whole].splitlines(), 1):
        try:
            sound = "op_code" in json.loads(line)
        except (ValueError, TypeError):
            sound = False
        if not sound:
            raise UserError(
                f"{journal}, line {number}: the study's journal is damaged there; put back a copy of the file, "
                "or begin a new study: search.study=NAME"
            )


@contextlib.contextmanager
def locked(folder: Path, name: str = ".lock") -> Iterator[None]:
    """Let one process at a time look at a study and act on what it saw; `name` is the lock's, a file in the folder."""
    with (folder / name).open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def next_trial(study: optuna.Study, folder: Path, search: Mapping[str, Any]) -> optuna.Trial | None:
    """Return a trial to run, with this process's name on it; None when as many as wanted are finished or running.

    Trials whose process died are marked failed and queued again first. The sampler's seed follows from the trial's
    number, so that a process that comes later, or again, does not propose what another has proposed.
    """
    with locked(folder):
        queue_again(study)
        trials = study.get_trials(deepcopy=False)
        if sum(trial.state in (*FINISHED, TrialState.RUNNING) for trial in trials) >= search["trials"]:
            return None
        study.sampler = sampler(search["sampler"], len(trials))
        trial = study.ask()
        trial.set_user_attr("process", {"pid": os.getpid(), "boot": boot_id(), "host": socket.gethostname()})
        return trial


def queue_again(study: optuna.Study) -> None:
    """Mark trials whose process died as failed, and queue their values again."""
    for trial in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
        if is_gone(trial):
            give_up(study, trial, "its process died")


def release(study: optuna.Study, folder: Path) -> None:
    """Give up the trial that this process was at when a signal came; whoever goes on with the study runs it again."""
    with locked(folder):
        for trial in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
            process = trial.user_attrs.get("process", {})
            if (process.get("pid"), process.get("host")) == (os.getpid(), socket.gethostname()):
                give_up(study, trial, "stopped by a signal")


def is_gone(trial: FrozenTrial) -> bool:
    """Whether a running trial's process is no more; one of another machine is believed."""
    process = trial.user_attrs.get("process")
    if process is None:  # it died between being made and being named, which happens under the lock
        return True
    if process["host"] != socket.gethostname():
        return False
    return process["boot"] != boot_id() or not is_alive(process["pid"])


def give_up(study: optuna.Study, trial: FrozenTrial, why: str) -> None:
    """Mark a trial as failed and queue its values again."""
    study._storage.set_trial_user_attr(trial._trial_id, "note", why)
    study.tell(trial.number, state=TrialState.FAIL)
    study.enqueue_trial(trial.params, user_attrs={"again": trial.number})


def sampler(words: Mapping[str, Any], number: int) -> optuna.samplers.BaseSampler:
    """Return the sampler that proposes trial `number`."""
    seed = words["seed"] + 1_000 * number
    if words["name"] == "random":
        return optuna.samplers.RandomSampler(seed=seed)
    return optuna.samplers.TPESampler(seed=seed, n_startup_trials=words["startup_trials"])


def pruner(words: Mapping[str, Any]) -> optuna.pruners.BasePruner:
    """Return the pruner."""
    if words["name"] == "median":
        return optuna.pruners.MedianPruner(words["startup_trials"], n_warmup_steps=words["warmup"])
    if words["name"] == "halving":
        return optuna.pruners.SuccessiveHalvingPruner(min_resource=max(1, words["warmup"]))
    if words["name"] == "hyperband":
        return optuna.pruners.HyperbandPruner(min_resource=max(1, words["warmup"]))
    return optuna.pruners.NopPruner()


# ---- What a study leaves: the best configuration as an experiment, the trials as a table, importances, Optuna's ...

MIN_FOR_IMPORTANCE = 4  # completed trials; of fewer nothing can be said


def write_best(study: optuna.Study, folder: Path) -> tuple[Path, str]:
    """Write the best trial's configuration as an experiment; return the file and the command that runs it."""
    best = study.best_trial
    name = f"{study.study_name}_best"
    path = folder / "conf" / "experiment" / f"{name}.yaml"
    path.parent.mkdir(parents=True, exist_ok=True)
    command = shlex.join(["python", "-m", "src.train", "--config-dir", str(folder / "conf"), f"experiment={name}"])
    head = (
        "# @package _global_\n"
        f"# The best of {len(study.trials)} trials of the study {study.study_name}: trial {best.number}, {best.value}\n"
        f"# {command}\n"
    )
    body = yaml.safe_dump(as_experiment(best.user_attrs["words"]), sort_keys=False, allow_unicode=True)
    write_atomic(path, head + body)
    return path, command


def write_trials(study: optuna.Study, folder: Path) -> Path:
    """Write one line a trial: number, state, value, note, seconds, and each parameter."""
    trials = study.get_trials(deepcopy=False)
    names = list(dict.fromkeys(name for trial in trials for name in trial.params))
    path = folder / "trials.csv"
    with path.open("w", newline="", encoding="utf-8", errors="backslashreplace") as file:
        writer = csv.writer(file)
        writer.writerow(["number", "state", "value", "note", "seconds", *names])
        for trial in trials:
            seconds = round(trial.duration.total_seconds(), 3) if trial.duration else ""
            value = trial.value if trial.state == TrialState.COMPLETE else trial.user_attrs.get("best", "")
            row = [trial.number, trial.state.name.lower(), value, trial.user_attrs.get("note", ""), seconds]
            writer.writerow([*row, *(trial.params.get(name, "") for name in names)])
    return path


def importances(study: optuna.Study) -> dict[str, float]:
    """Return the share of each parameter in what makes a trial good (PED-ANOVA), largest first.

    A parameter that only some trials have is judged among those; with too few trials nothing is said.
    """
    trials = [t for t in study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,)) if math.isfinite(t.value or 0)]
    found: dict[str, float] = {}
    for name in dict.fromkeys(name for trial in trials for name in trial.params):
        among = _with(study, [trial for trial in trials if name in trial.params])
        if len(among.trials) >= MIN_FOR_IMPORTANCE:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                evaluator = optuna.importance.PedAnovaImportanceEvaluator()
                found |= optuna.importance.get_param_importances(
                    among, evaluator=evaluator, params=[name], normalize=False
                )
    total = sum(found.values())
    shares = {name: value / total if total > 0 else 0.0 for name, value in found.items()}
    return dict(sorted(shares.items(), key=lambda item: -item[1]))


def _with(study: optuna.Study, trials: list[FrozenTrial]) -> optuna.Study:
    """Return a study in memory that holds these trials alone."""
    some = optuna.create_study(direction=study.direction)
    some.add_trials(trials)
    return some


def write_plots(study: optuna.Study, folder: Path) -> list[Path]:
    """Write Optuna's own plots as pictures; one that these trials cannot fill is left out."""
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
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Optuna calls these plots experimental
            try:
                axes = plot(study)
            except (ValueError, RuntimeError):  # too few trials, or all of one value
                continue
            figure = axes.flat[0].figure if hasattr(axes, "flat") else axes.figure
            figure.set_size_inches(max(8.0, figure.get_figwidth()), max(5.0, figure.get_figheight()))
            path = folder / "plots" / f"{name}.png"
            figure.savefig(path, dpi=100, bbox_inches="tight")
            paths.append(path)
            plt.close("all")
    return paths
