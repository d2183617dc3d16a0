"""What a study leaves: the best configuration as an experiment, the trials as a table, importances, Optuna's plots."""

from __future__ import annotations

import csv
import math
import shlex
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import optuna
import yaml
from optuna.trial import FrozenTrial, TrialState

from src.searching.compose import as_experiment
from src.training.run import write_atomically

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
    write_atomically(path, head + body)
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
