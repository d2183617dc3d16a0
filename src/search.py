"""python -m src.search search=NAME: a study of Optuna's, which goes on where it stopped. See conf/search/."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from src.config.commands import SearchRoot, mistakes_in_search
from src.config.compose import compose_and_run, exit_with
from src.config.hydra_compat import is_there
from src.config.overrides import FLAGS_WITH_A_VALUE, groups
from src.errors import UserError
from src.process import heavy_imports
from src.sweeps.job import Caught, taken
from src.sweeps.search.space import check_trials, config_of, folder_of, what_is_asked
from src.sweeps.sweep import mistakes_here

SHOWING = {"--help", "-h", "--hydra-help", "--version", "--cfg", "-c", "--info", "-i"}  # these run nothing


def search(config: SearchRoot, name: str, words: Sequence[str]) -> None:
    """Run trials until the study has as many as it wants, then write what it found.

    Args:
        config: conf/search.yaml, composed.
        name: of the file in conf/search/.
        words: those of src.train that the user has added.
    """
    asked = config.search
    common = [*asked["words"], *words]
    check_trials(common, asked["space"])
    trial = config_of(common)
    if wrong := mistakes_here([trial]):
        raise UserError(*wrong)
    study_name = asked["study"] or name
    folder = folder_of(trial, study_name)
    with heavy_imports():
        from src.sweeps.search import study as studies
    question = {"space": asked["space"], "monitor": trial["checkpoint"]["monitor"], "settings": what_is_asked(trial)}
    study = studies.open_study(folder, study_name, trial["checkpoint"]["mode"], question)
    study.pruner = studies.pruner(asked["pruner"])
    caught = Caught()
    try:
        with taken(caught, None):
            failed = run_trials(study, folder, asked, common, caught)
    except BaseException:
        if caught.first is None:
            raise
        studies.release(study, folder)
        print(f"stopped; the same command goes on with {folder}", flush=True)
        sys.exit(128 + caught.first)
    conclude(study, folder, asked["trials"])
    if failed:
        sys.exit(1)


def run_trials(study: Any, folder: Path, asked: dict[str, Any], common: Sequence[str], caught: Caught) -> int:
    """Run one trial after another; return how many failed for another reason than a NaN or a signal."""
    from src.sweeps.search.study import next_trial
    from src.sweeps.search.trial import run_trial

    end = time.monotonic() + 60 * asked["minutes"] if asked["minutes"] else None
    failed = in_a_row = 0
    while end is None or time.monotonic() < end:
        trial = next_trial(study, folder, asked)
        if trial is None:
            break
        line = run_trial(study, trial, folder, common, asked["space"])
        print(line, flush=True)
        caught.raise_if_any(here=True)
        in_a_row = in_a_row + 1 if ": failed" in line else 0
        failed += in_a_row > 0
        if in_a_row == 3:
            print("three trials in a row have failed: what they say needs mending first", file=sys.stderr)
            break
    return failed


def conclude(study: Any, folder: Path, wanted: int) -> None:
    """Say how the study stands, and write what it has found so far: trials, best configuration, importances, plots."""
    from src.sweeps.search import study as results
    from src.sweeps.search.study import FINISHED, locked

    with locked(folder):  # of several processes that end together, one after another writes
        trials = study.get_trials(deepcopy=False)
        states = [trial.state.name.lower() for trial in trials]
        finished = sum(trial.state in FINISHED for trial in trials)
        told = ", ".join(f"{states.count(state)} {state}" for state in dict.fromkeys(states))
        print(f"{finished} of {wanted} trials finished ({told}): {folder}")
        results.write_trials(study, folder)
        if not any(trial.state.name == "COMPLETE" and math.isfinite(trial.value) for trial in trials):
            print("no trial has come to a finite value, so there is no best one yet")
            return
        path, command = results.write_best(study, folder)
        for name, share in results.importances(study).items():
            print(f"  {name:30} {share:6.1%} of what makes a trial good")
        plots = results.write_plots(study, folder)
    print(f"best: trial {study.best_trial.number}, {study.best_value:.4f}; as an experiment: {path}")
    print(f"plots: {', '.join(plot.name for plot in plots)} in {folder / 'plots'}")
    print(f"run it: {command}")


def main() -> None:
    """Answer the command line: `search=NAME` and `search.KEY=...` are ours, every other word is one of src.train."""
    ours: list[str] = []
    words: list[str] = []
    flag = False
    for given in sys.argv[1:]:
        mine = flag or given.startswith("-") or given.partition("=")[0].split(".")[0] in ("search", "hydra")
        (ours if mine else words).append(given)
        flag = given in FLAGS_WITH_A_VALUE
    if {"-m", "--multirun"} & set(ours):
        raise UserError("a search is one study, and its space says what varies: leave -m out")
    names = [word.partition("=")[2] for word in ours if word.startswith("search=")]
    if not names and not any(word.startswith("-") for word in ours):
        raise UserError(f"which search? search=NAME, NAME one of {', '.join(groups().get('search', []))}")
    if not is_there("optuna") and not SHOWING & set(ours):
        raise UserError("src.search needs the extra search, which is not installed: pip install -e '.[search]'")
    compose_and_run("search", SearchRoot, lambda config: search(config, names[-1], words), ours, mistakes_in_search)


if __name__ == "__main__":
    exit_with(main)
