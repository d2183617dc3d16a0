"""python -m src.search search=NAME: a study of Optuna's, which continues where it stopped. See conf/search/."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from pathlib import Path

from src.config.compose import compose, compose_and_run, to_config
from src.config.hydra_compat import is_installed
from src.config.overrides import errors_in_repeats, flags_and_overrides, groups
from src.config.schema import SearchRoot, to_plain
from src.errors import UserError
from src.process import RECEIVED, complain, exit_with, heavy_imports, say
from src.sweeps.job import stop_on_signal
from src.sweeps.search.space import check_trials, errors_in_search, known_of, settings_of
from src.sweeps.sweep import errors_here


def search(root: SearchRoot, name: str, words: Sequence[str]) -> None:
    """Run trials until the study `name` has as many as wanted, then write what it found; `words` are for src.train."""
    if not is_installed("optuna"):
        raise UserError("src.search needs the extra search, which is not installed: pip install -e '.[search]'")
    config, words = root.search, [*root.search.words, *words]
    check_trials(words, config.space)
    shared = to_config(compose(words))
    if shared.trainer.processes != 1:  # each would take a trial of its own
        raise UserError("trainer.devices: a trial of a search is one process; leave it out")
    if errors := errors_here([shared]):
        raise UserError(*errors)
    with heavy_imports():
        from src.sweeps.search import study as studies
    study_name = config.study or name
    folder = Path(shared.runs) / "search" / study_name
    monitor = shared.checkpoint.monitor
    question = {"space": to_plain(config)["space"], "monitor": monitor, "settings": settings_of(shared)}
    study = studies.open_study(folder, study_name, shared.checkpoint.mode, question)
    study.pruner = studies.pruner(config.pruner)
    known = known_of(words)
    end = time.monotonic() + 60 * config.minutes if config.minutes else float("inf")
    failures: list[bool] = []
    try:
        with stop_on_signal():
            while time.monotonic() < end and (trial := studies.next_trial(study, folder, config)) is not None:
                ended = studies.run_trial(study, trial, folder, words, config.space, known)
                say(f"{studies.describe(ended)}\n")
                if RECEIVED:
                    raise KeyboardInterrupt
                failures.append(ended.state.name == "FAIL")
                if failures[-3:] == [True] * 3:
                    complain("three trials in a row have failed: correct what they report first")
                    break
    except BaseException:
        if not RECEIVED:
            raise
        studies.release(study, folder)
        say(f"stopped; the same command continues {folder}\n")
        sys.exit(128 + RECEIVED[0])
    studies.conclude(study, folder, config.trials)
    sys.exit(1 if any(failures) else 0)


def main() -> None:
    """Answer the command line: `search=NAME` and `search.KEY=...` are ours, other overrides are those of src.train."""
    flags, given = flags_and_overrides(sys.argv[1:])
    ours = [word for word in given if word.partition("=")[0].split(".")[0] in ("search", "hydra")]
    words = [word for word in given if word not in ours]
    if {"-m", "--multirun"} & set(flags):
        raise UserError("a search is one study, and its space says what varies: leave -m out")
    if wrong := errors_in_repeats(words):
        raise UserError(*wrong)
    names = [word.partition("=")[2] for word in ours if word.startswith("search=")]
    if not names and all(flag.startswith(("--config-dir", "-cd")) or not flag.startswith("-") for flag in flags):
        raise UserError(f"which search? search=NAME, NAME one of {', '.join(groups().get('search', []))}")
    compose_and_run("search", SearchRoot, lambda root: search(root, names[-1], words), flags + ours, errors_in_search)


if __name__ == "__main__":
    exit_with(main)
