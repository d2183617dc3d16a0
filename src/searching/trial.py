"""One trial: a run of ours, and what the study is told of it."""

from __future__ import annotations

import math
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import optuna
from optuna.trial import TrialState

from src.mistakes import Failure
from src.searching.compose import config_of, known_of
from src.searching.pruning import Pruning
from src.searching.space import suggest, word
from src.searching.study import locked
from src.sweeps.state import record_of
from src.training.fit import fit
from src.training.run import Record


def run_trial(
    study: optuna.Study, trial: optuna.Trial, folder: Path, common: Sequence[str], space: Mapping[str, Any]
) -> str:
    """Run a trial in `trials/<number>` of the study's folder, tell the study, and return a line about it.

    Told: the best value of the monitored metric; the worst possible one, with a note, where the run came to a NaN.

    Raises:
        KeyboardInterrupt, Interrupted: a signal; nothing is told (see `src.searching.study.release`).
    """
    with locked(folder):
        chosen = suggest(trial, space, known_of(common))
    words = [*common, *(word(key, value) for key, value in chosen.items())]
    config = config_of(words)
    place = folder / "trials" / f"{trial.number:04d}"
    config["name"] = study.study_name
    trial.set_user_attr("words", words)
    trial.set_user_attr("folder", str(place))
    pruning = Pruning(trial, config["checkpoint"]["monitor"])
    command = {"command": shlex.join(["python", "-m", "src.train", *words]), "overrides": words}
    worst = math.inf if config["checkpoint"]["mode"] == "min" else -math.inf
    shown = " ".join(words[len(common) :])
    try:
        fit(config, command | {"trial": {"study": study.study_name, "number": trial.number}}, place, also=[pruning])
    except Failure as failure:
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
